//! Java's patterns of times (`yyyy-MM-dd HH:mm:ss.SSS`), as far as they are numbers, and the calendar below them.

use crate::decode::scalar::days_from_civil;

/// A moment as people count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub millis: i64,
}

impl Civil {
    /// Of milliseconds since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
    pub fn of(time: i64) -> Civil {
        let days = time.div_euclid(86_400_000) + 719_468;
        let of_day = time.rem_euclid(86_400_000);
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let part = (5 * of_year + 2) / 153;
        let month = if part < 10 { part + 3 } else { part - 9 };
        Civil {
            year: year + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * part + 2) / 5 + 1,
            hour: of_day / 3_600_000,
            minute: of_day / 60_000 % 60,
            second: of_day / 1_000 % 60,
            millis: of_day % 1_000,
        }
    }

    fn millis(self) -> Option<i64> {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let most = match self.month {
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            1..=12 => 31,
            _ => return None,
        };
        let right = (1..=most).contains(&self.day) && self.hour < 24 && self.minute < 60 && self.second < 60;
        let days = right.then(|| days_from_civil(self.year, self.month, self.day))?;
        let seconds = ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second;
        seconds.checked_mul(1_000)?.checked_add(self.millis)
    }
}

/// Whole months from one time to another, less than 0 backwards.
pub(crate) fn months_between(from: i64, to: i64) -> i64 {
    if to < from {
        return -months_between(to, from);
    }
    let (a, b) = (Civil::of(from), Civil::of(to));
    let months = (b.year - a.year) * 12 + b.month - a.month;
    let rest = |civil: Civil| (civil.day, civil.hour, civil.minute, civil.second, civil.millis);
    months - i64::from(rest(b) < rest(a))
}

/// The same day so many months later, or the last of the month.
pub(crate) fn add_months(time: i64, months: i64) -> Option<i64> {
    let mut civil = Civil::of(time);
    let all = civil
        .year
        .checked_mul(12)?
        .checked_add(civil.month - 1)?
        .checked_add(months)?;
    (civil.year, civil.month) = (all.div_euclid(12), all.rem_euclid(12) + 1);
    while civil.day > 28 && civil.millis().is_none() {
        civil.day -= 1;
    }
    if !(-200_000..200_000).contains(&civil.year) {
        return None;
    }
    civil.millis()
}

/// A pattern.
pub(crate) struct Pattern(Vec<Piece>);

enum Piece {
    Number(char, usize),
    Text(String),
}

impl Pattern {
    /// Reads a pattern of `y M d H m s S` and other signs.
    pub fn parse(pattern: &str) -> Result<Pattern, String> {
        let mut pieces = Vec::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                'y' | 'u' | 'M' | 'd' | 'H' | 'm' | 's' | 'S' => {
                    let mut count = 1;
                    while letters.next_if_eq(&letter).is_some() {
                        count += 1;
                    }
                    if letter == 'M' && count > 2 {
                        return Err(format!("{pattern:?}: months have one or two digits here, no names"));
                    }
                    pieces.push(Piece::Number(letter, count));
                }
                '\'' => {
                    // Two of them are one, within quotes and without.
                    let mut quoted = String::new();
                    while let Some(letter) = letters.next() {
                        match letter {
                            '\'' if letters.next_if_eq(&'\'').is_some() => quoted.push('\''),
                            '\'' => break,
                            other => quoted.push(other),
                        }
                    }
                    pieces.push(Piece::Text(if quoted.is_empty() { "'".to_owned() } else { quoted }));
                }
                letter if letter.is_ascii_alphabetic() => {
                    return Err(format!("{pattern:?}: {letter} is not known in a pattern of time"));
                }
                other => pieces.push(Piece::Text(other.to_string())),
            }
        }
        Ok(Pattern(pieces))
    }

    /// The time in the pattern.
    pub fn write(&self, time: i64) -> String {
        let civil = Civil::of(time);
        let mut text = String::with_capacity(24);
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Number('S', count) => {
                    let digits = format!("{:03}000000", civil.millis);
                    text.push_str(digits.get(..(*count).min(9)).unwrap_or(&digits));
                }
                Piece::Number('y' | 'u', 2) => text.push_str(&format!("{:02}", civil.year.rem_euclid(100))),
                Piece::Number(letter, count) => {
                    let value = match letter {
                        'y' | 'u' => civil.year,
                        'M' => civil.month,
                        'd' => civil.day,
                        'H' => civil.hour,
                        'm' => civil.minute,
                        _ => civil.second,
                    };
                    text.push_str(&format!("{value:0count$}"));
                }
            }
        }
        text
    }

    /// The time that a text says; none where it is not of the pattern.
    pub fn read(&self, text: &str) -> Option<i64> {
        let mut civil = Civil {
            year: 1970,
            month: 1,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
            millis: 0,
        };
        let mut rest = text;
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => rest = rest.strip_prefix(piece.as_str())?,
                Piece::Number(letter, count) => {
                    let most = if *count == 1 { 19 } else { *count };
                    let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
                    if digits < *count {
                        return None;
                    }
                    let (number, behind) = rest.split_at_checked(digits)?;
                    rest = behind;
                    let value: i64 = number.parse().ok()?;
                    match letter {
                        'y' | 'u' if *count == 2 => civil.year = 2_000 + value,
                        'y' | 'u' => civil.year = value,
                        'M' => civil.month = value,
                        'd' => civil.day = value,
                        'H' => civil.hour = value,
                        'm' => civil.minute = value,
                        's' => civil.second = value,
                        _ => civil.millis = format!("{number:0<3}").get(..3)?.parse().ok()?,
                    }
                }
            }
        }
        rest.is_empty().then(|| civil.millis()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_by_javas_patterns() {
        let time = 1_767_323_045_678;
        for (pattern, text) in [
            ("yyyy-MM-dd HH:mm:ss.SSS", "2026-01-02 03:04:05.678"),
            ("yyyyMMdd'T'HHmm", "20260102T0304"),
            ("d.M.yy", "2.1.26"),
            ("HH 'o''clock'", "03 o'clock"),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().write(time), text, "{pattern}");
        }
        let read = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().read(text);
        assert_eq!(read("yyyy-MM-dd HH:mm:ss.SSS", "2026-01-02 03:04:05.678"), Some(time));
        assert_eq!(read("dd/MM/yyyy", "02/01/2026"), Some(1_767_312_000_000));
        assert_eq!(read("dd/MM/yyyy", "2026"), None);
        assert_eq!(read("dd/MM/yyyy", "31/02/2026"), None);
        assert!(Pattern::parse("EEE").is_err());
    }

    #[test]
    fn months_end_where_they_end() {
        let of = |text: &str| Pattern::parse("yyyy-MM-dd").unwrap().read(text).unwrap();
        assert_eq!(add_months(of("2026-01-31"), 1), Some(of("2026-02-28")));
        assert_eq!(add_months(of("2026-03-31"), -25), Some(of("2024-02-29")));
        assert_eq!(months_between(of("2026-01-31"), of("2026-02-28")), 0);
        assert_eq!(months_between(of("2026-01-15"), of("2027-01-15")), 12);
        assert_eq!(months_between(of("2027-01-15"), of("2026-01-15")), -12);
    }
}
