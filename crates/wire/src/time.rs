//! Times as text: ISO 8601 in UTC, the form of query answers and of headers.

use base::Timestamp;

const DAY_MS: i64 = 86_400_000;

/// `2026-11-22T18:56:50.123Z`; without milliseconds where they are zero.
pub fn to_iso8601(time: Timestamp) -> String {
    let (days, ms) = (time.millis().div_euclid(DAY_MS), time.millis().rem_euclid(DAY_MS));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second, fraction) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let head = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if fraction == 0 {
        format!("{head}Z")
    } else {
        format!("{head}.{fraction:03}Z")
    }
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fraction]Z`; years 0 to 9999.
pub fn parse_iso8601(text: &str) -> Option<Timestamp> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let number = |part: Option<&str>, digits: usize| -> Option<i64> {
        let part = part.filter(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()))?;
        part.parse().ok()
    };
    let mut date = date.split('-');
    let (year, month, day) = (
        number(date.next(), 4)?,
        number(date.next(), 2)?,
        number(date.next(), 2)?,
    );
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':');
    let (hour, minute, second) = (
        number(clock.next(), 2)?,
        number(clock.next(), 2)?,
        number(clock.next(), 2)?,
    );
    let legal = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    let digits = fraction.bytes().all(|b| b.is_ascii_digit()) && (1..=9).contains(&fraction.len());
    if !legal || !digits || date.next().is_some() || clock.next().is_some() {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(Timestamp::from_millis(
        days_from_civil(year, month, day) * DAY_MS + seconds * 1000 + millis,
    ))
}

/// Proleptic Gregorian calendar, eras of 400 years.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_times_match_known_instants() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_511_852_109_126, "2017-11-28T06:55:09.126Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(to_iso8601(time), text);
            assert_eq!(parse_iso8601(text), Some(time));
        }
        for bad in [
            "",
            "2017-11-28",
            "2017-13-28T06:55:09Z",
            "2017-11-28T06:55:09",
            "2017-11-28T06:55:09.Z",
            "é",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }
}
