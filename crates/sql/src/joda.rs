//! Patterns of timestamps in the language of Joda's `DateTimeFormat`, for reading: `yyyy-MM-dd'T'HH:mm:ss.SSSZ`; and the
//! special pattern `millis`. The part of the language that numbers of a calendar's date and a clock's time need.

use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

/// A pattern that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampPattern {
    parts: Vec<Part>,
    millis: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number(Field, usize, usize),
    MonthName,
    Half,
    Zone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    HourOfHalf,
    Minute,
    Second,
    Fraction,
}

/// The text is no pattern, or one that cannot be read by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no pattern of a timestamp: {1}")]
pub struct InvalidPattern(pub String, pub String);

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

impl FromStr for TimestampPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why: String| InvalidPattern(text.chars().take(80).collect(), why);
        if text == "millis" {
            return Ok(TimestampPattern {
                parts: Vec::new(),
                millis: true,
            });
        }
        if text.is_empty() || text.len() > 256 {
            return Err(wrong("it has 1 to 256 characters".to_owned()));
        }
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\'' => {
                    let mut literal = String::new();
                    loop {
                        match chars.next() {
                            Some('\'') if chars.next_if_eq(&'\'').is_some() => literal.push('\''),
                            Some('\'') => break,
                            Some(c) => literal.push(c),
                            None => return Err(wrong("a quote is open".to_owned())),
                        }
                    }
                    parts.push(Part::Text(if literal.is_empty() { "'".to_owned() } else { literal }));
                }
                c if c.is_ascii_alphabetic() => {
                    let mut count = 1;
                    while chars.next_if_eq(&c).is_some() {
                        count += 1;
                    }
                    parts.push(part(c, count).ok_or_else(|| wrong(format!("{c} cannot be read {count} times")))?);
                }
                c => parts.push(Part::Text(c.to_string())),
            }
        }
        settle_widths(&mut parts);
        Ok(TimestampPattern { parts, millis: false })
    }
}

fn part(letter: char, count: usize) -> Option<Part> {
    let number = |field, most| (count <= most).then_some(Part::Number(field, count, most));
    match letter {
        'y' | 'Y' | 'x' => number(Field::Year, 9),
        'M' if count >= 3 => Some(Part::MonthName),
        'M' => number(Field::Month, 2),
        'd' => number(Field::Day, 2),
        'H' => number(Field::Hour, 2),
        'h' => number(Field::HourOfHalf, 2),
        'm' => number(Field::Minute, 2),
        's' => number(Field::Second, 2),
        'S' => number(Field::Fraction, 9),
        'a' => Some(Part::Half),
        'Z' => Some(Part::Zone),
        _ => None,
    }
}

/// A number that another one follows has as many digits as letters; else it may have more.
fn settle_widths(parts: &mut [Part]) {
    let numbers: Vec<bool> = parts.iter().map(|part| matches!(part, Part::Number(..))).collect();
    for (part, followed) in parts.iter_mut().zip(numbers.into_iter().skip(1).chain([false])) {
        if let (Part::Number(_, count, most), true) = (part, followed) {
            *most = *count;
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Read {
    year: Option<i16>,
    month: Option<i8>,
    day: Option<i8>,
    hour: i8,
    half: Option<bool>,
    hour_of_half: Option<i8>,
    minute: i8,
    second: i8,
    nanos: i32,
    offset: i32,
}

impl TimestampPattern {
    /// Microseconds since 1970 of a text; without a zone in the pattern it is taken for UTC.
    pub fn read(&self, text: &str) -> Option<i64> {
        if self.millis {
            return self.read_millis(text.trim().parse().ok()?);
        }
        let mut rest = text;
        let mut read = Read::default();
        for part in &self.parts {
            rest = match part {
                Part::Text(text) => rest.strip_prefix(text.as_str())?,
                Part::Number(field, _, most) => number(&mut read, *field, *most, rest)?,
                Part::MonthName => month(&mut read, rest)?,
                Part::Half => {
                    let (half, after) = rest.split_at_checked(2)?;
                    read.half = Some(half.eq_ignore_ascii_case("pm"));
                    (half.eq_ignore_ascii_case("am") || half.eq_ignore_ascii_case("pm")).then_some(after)?
                }
                Part::Zone => zone(&mut read, rest)?,
            };
        }
        match rest.is_empty() {
            true => read.micros(),
            false => None,
        }
    }

    /// Microseconds since 1970 of milliseconds, where the pattern is `millis`.
    pub fn read_millis(&self, millis: i64) -> Option<i64> {
        millis.checked_mul(1000).filter(|_| self.millis)
    }
}

impl Read {
    fn micros(&self) -> Option<i64> {
        let date = Date::new(
            self.year.unwrap_or(1970),
            self.month.unwrap_or(1),
            self.day.unwrap_or(1),
        )
        .ok()?;
        let hour = match self.hour_of_half {
            None => self.hour,
            Some(hour @ 1..=12) => hour % 12 + if self.half == Some(true) { 12 } else { 0 },
            Some(_) => return None,
        };
        let time = Time::new(hour, self.minute, self.second, self.nanos).ok()?;
        let zone = TimeZone::fixed(Offset::from_seconds(self.offset).ok()?);
        let at = zone.to_timestamp(DateTime::from_parts(date, time)).ok()?;
        i64::try_from(at.as_nanosecond().div_euclid(1000)).ok()
    }
}

fn number<'a>(read: &mut Read, field: Field, most: usize, rest: &'a str) -> Option<&'a str> {
    let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at_checked(digits)?;
    let value: i32 = digits.parse().ok()?;
    let small = || i8::try_from(value).ok();
    match field {
        Field::Year => read.year = Some(i16::try_from(value).ok()?),
        Field::Month => read.month = Some(small()?),
        Field::Day => read.day = Some(small()?),
        Field::Hour => read.hour = small()?,
        Field::HourOfHalf => read.hour_of_half = Some(small()?),
        Field::Minute => read.minute = small()?,
        Field::Second => read.second = small()?,
        Field::Fraction => read.nanos = value.checked_mul(10_i32.pow(9 - digits.len() as u32))?,
    }
    Some(after)
}

fn month<'a>(read: &mut Read, rest: &'a str) -> Option<&'a str> {
    let (name, _) = rest.split_at_checked(3)?;
    let place = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    read.month = i8::try_from(place + 1).ok();
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    rest.get(letters..)
}

/// `Z`, `+0100`, `+01:00` or `+01`.
fn zone<'a>(read: &mut Read, rest: &'a str) -> Option<&'a str> {
    if let Some(after) = rest.strip_prefix('Z') {
        return Some(after);
    }
    let sign = match rest.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let two = |at: usize| -> Option<i32> {
        let digits = rest
            .get(at..at + 2)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse().ok()
    };
    let colon = usize::from(rest.get(3..4) == Some(":"));
    let (minutes, end) = match two(3 + colon) {
        Some(minutes) => (minutes, 5 + colon),
        None => (0, 3),
    };
    read.offset = sign * (two(1)? * 3600 + minutes * 60);
    rest.get(end..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_read_by_their_patterns() {
        let at = 1_486_480_381_000_000;
        for (pattern, text, wanted) in [
            (
                "yyyy-MM-dd'T'HH:mm:ss.SSSZ",
                "2017-02-07T15:13:01.500+0000",
                Some(at + 500_000),
            ),
            ("yyyy-MM-dd'T'HH:mm:ssZ", "2017-02-07T16:13:01+01:00", Some(at)),
            ("yyyy-MM-dd'T'HH:mm:ssZ", "2017-02-07T15:13:01Z", Some(at)),
            ("dd/MMM/yyyy:HH:mm:ss Z", "07/Feb/2017:10:13:01 -0500", Some(at)),
            ("MM/dd/yy hh:mm:ss a", "2/7/2017 3:13:01 PM", Some(at)),
            ("yyyyMMddHHmmss", "20170207151301", Some(at)),
            ("yyyy-MM-dd", "2017-02-07", Some(at - 54_781_000_000)),
            ("millis", "1486480381000", Some(at)),
            ("yyyy-MM-dd", "2017-02-30", None),
            ("yyyy-MM-dd", "2017-02-07 ", None),
            ("yyyy-MM-dd a", "2017-02-07 xm", None),
            ("hh", "13", None),
            ("MMMM d yyyy", "February 7 2017", Some(at - 54_781_000_000)),
        ] {
            assert_eq!(
                pattern.parse::<TimestampPattern>().unwrap().read(text),
                wanted,
                "{pattern} {text}"
            );
        }
        assert_eq!("millis".parse::<TimestampPattern>().unwrap().read_millis(1), Some(1000));
        for pattern in ["", "yyyy-QQ", "'open", "HHH"] {
            assert!(pattern.parse::<TimestampPattern>().is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_text_do_more_than_be_refused(pattern in "(y{1,4}|M{1,4}|d{1,2}|H{1,2}|h|m|s|S{1,9}|Z|a|'|-|\\PC){0,8}", text in "([0-9]{1,9}|[-+:Z]|feb|am|\\PC){0,8}") {
            if let Ok(pattern) = pattern.parse::<TimestampPattern>() {
                let _ = pattern.read(&text);
            }
        }
    }
}
