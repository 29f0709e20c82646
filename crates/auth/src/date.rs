//! The two date forms of signed requests: `20261122T113343Z` and the HTTP date `Sun, 22 Nov 2026 11:33:43 GMT`.

use base::Timestamp;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// `20261122T113343Z`; fractions of a second are dropped.
pub fn amz_date(at: Timestamp) -> String {
    let seconds = at.millis().div_euclid(1000);
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2026-11-22T11:33:43Z`, the form of `Expiration` in STS answers.
pub fn iso_date(at: Timestamp) -> String {
    let basic = amz_date(at);
    let part = |from: usize, to: usize| basic.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(9, 11),
        part(11, 13),
        part(13, 15)
    )
}

fn number(text: &str, from: usize, to: usize) -> Option<i64> {
    let digits = text.get(from..to)?;
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

fn timestamp(year: i64, month: i64, day: i64, (hour, minute, second): (i64, i64, i64)) -> Option<Timestamp> {
    let legal = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    let days = days_from_civil(year, month, day);
    let real = legal && civil_from_days(days) == (year, month, day);
    real.then(|| Timestamp::from_millis((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000))
}

/// Reads `20261122T113343Z` and nothing else.
pub fn parse_amz_date(text: &str) -> Option<Timestamp> {
    let shaped = text.len() == 16 && text.get(8..9) == Some("T") && text.get(15..16) == Some("Z");
    if !shaped {
        return None;
    }
    let time = (number(text, 9, 11)?, number(text, 11, 13)?, number(text, 13, 15)?);
    timestamp(number(text, 0, 4)?, number(text, 4, 6)?, number(text, 6, 8)?, time)
}

/// Reads `Sun, 22 Nov 2026 11:33:43 GMT` (RFC 9110 §5.6.7, the preferred form alone).
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    let shaped = text.len() == 29 && text.is_ascii() && text.ends_with(" GMT") && text.get(3..5) == Some(", ");
    let month = text.get(8..11).filter(|_| shaped)?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let time = (number(text, 17, 19)?, number(text, 20, 22)?, number(text, 23, 25)?);
    timestamp(number(text, 12, 16)?, month, number(text, 5, 7)?, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_and_written_alike() {
        let at = parse_amz_date("20261122T113343Z").unwrap();
        assert_eq!(at.millis(), 1_795_347_223_000);
        assert_eq!(amz_date(at.plus_millis(999)), "20261122T113343Z");
        assert_eq!(iso_date(at), "2026-11-22T11:33:43Z");
        assert_eq!(parse_http_date("Sun, 22 Nov 2026 11:33:43 GMT"), Some(at));
        for day in (-200_000..200_000).step_by(37) {
            let (y, m, d) = civil_from_days(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
    }

    #[test]
    fn impossible_dates_are_refused() {
        for bad in [
            "",
            "20261122T113343",
            "20260230T000000Z",
            "20261322T113343Z",
            "20261122T243343Z",
            "2026112 T113343Z",
            "20261122X113343Z",
            "ééééééééé",
        ] {
            assert_eq!(parse_amz_date(bad), None, "{bad}");
        }
        for bad in [
            "Sun, 22 Foo 2026 11:33:43 GMT",
            "Sun, 22 Nov 2026 11:33:43 UTC",
            "22 Nov 2026",
        ] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }
}
