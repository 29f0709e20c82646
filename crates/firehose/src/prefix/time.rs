//! Times as Java's `DateTimeFormatter` writes them, for `!{timestamp:…}`: pattern letters of Java 8 in the locale en-US.
//! Whatever text is wanted in a pattern stands in single quotes. Not carried out: `zzzz` and `v` (names of zones out of a
//! dictionary), and letters that only later versions have.

use std::fmt::Write;

use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::limits::PATTERN_PARTS_MAX;

/// A pattern that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
    Padded(usize, Field),
}

/// A letter and how often it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    letter: char,
    count: usize,
}

/// What is wrong with a pattern, in Java's words where it has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(String);

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Pattern, BadPattern> {
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        let mut open = 0_usize;
        while let Some(c) = chars.next() {
            if parts.len() >= PATTERN_PARTS_MAX {
                return Err(BadPattern(format!(
                    "The pattern has more than {PATTERN_PARTS_MAX} parts: {text}"
                )));
            }
            match c {
                'a'..='z' | 'A'..='Z' => parts.push(field(c, &mut chars)?),
                '\'' => push_text(&mut parts, &quoted(&mut chars, text)?),
                '[' => open += 1,
                ']' => {
                    let wrong = || BadPattern("Pattern invalid as it contains ] without previous [".to_owned());
                    open = open.checked_sub(1).ok_or_else(wrong)?;
                }
                '{' | '}' | '#' => {
                    return Err(BadPattern(format!("Pattern includes reserved character: '{c}'")));
                }
                c => push_text(&mut parts, c.encode_utf8(&mut [0; 4])),
            }
        }
        Ok(Pattern { parts })
    }

    /// Appends the text for a time.
    pub fn format(&self, at: &Zoned, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(field) => field.format(at, out),
                Part::Padded(width, field) => {
                    let mut text = String::new();
                    field.format(at, &mut text);
                    for _ in text.chars().count()..*width {
                        out.push(' ');
                    }
                    out.push_str(&text);
                }
            }
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

/// What stands between quotes; two quotes are one.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, pattern: &str) -> Result<String, BadPattern> {
    let mut text = String::new();
    loop {
        match chars.next() {
            Some('\'') if chars.peek() == Some(&'\'') => {
                chars.next();
                text.push('\'');
            }
            Some('\'') if text.is_empty() => return Ok("'".to_owned()),
            Some('\'') => return Ok(text),
            Some(c) => text.push(c),
            None => {
                return Err(BadPattern(format!(
                    "Pattern ends with an incomplete string literal: {pattern}"
                )));
            }
        }
    }
}

fn count(first: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> usize {
    let mut count = 1;
    while chars.next_if_eq(&first).is_some() {
        count += 1;
    }
    count
}

fn field(letter: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Part, BadPattern> {
    let number = count(letter, chars);
    if letter != 'p' {
        return checked(letter, number).map(Part::Field);
    }
    let next = chars.next_if(char::is_ascii_alphabetic).filter(|next| *next != 'p');
    let Some(next) = next else {
        return Err(BadPattern(
            "Pad letter 'p' must be followed by valid pad pattern".to_owned(),
        ));
    };
    if number > 64 {
        return Err(BadPattern("Too many pattern letters: p".to_owned()));
    }
    let field = checked(next, count(next, chars))?;
    Ok(Part::Padded(number, field))
}

fn checked(letter: char, count: usize) -> Result<Field, BadPattern> {
    let counts = match letter {
        'G' | 'M' | 'L' | 'Q' | 'q' | 'E' | 'e' | 'X' | 'x' | 'Z' => 1..=5,
        'c' if count == 2 => return Err(BadPattern("Invalid pattern \"cc\"".to_owned())),
        'c' => 1..=5,
        'u' | 'y' | 'Y' | 'A' | 'n' | 'N' => 1..=19,
        'D' => 1..=3,
        'd' | 'w' | 'h' | 'H' | 'k' | 'K' | 'm' | 's' => 1..=2,
        'W' | 'F' | 'a' => 1..=1,
        'S' => 1..=9,
        'V' if count == 2 => 2..=2,
        'V' => return Err(BadPattern(format!("Pattern letter count must be 2: {letter}"))),
        'z' if count == 4 => {
            return Err(BadPattern(
                "Full names of time zones (zzzz) are not carried out by this server".to_owned(),
            ));
        }
        'z' => 1..=3,
        'O' if count == 1 || count == 4 => 1..=4,
        'O' => return Err(BadPattern("Pattern letter count must be 1 or 4: O".to_owned())),
        _ => return Err(BadPattern(format!("Unknown pattern letter: {letter}"))),
    };
    match counts.contains(&count) {
        true => Ok(Field { letter, count }),
        false => Err(BadPattern(format!("Too many pattern letters: {letter}"))),
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
const QUARTERS: [&str; 4] = ["1st quarter", "2nd quarter", "3rd quarter", "4th quarter"];

impl Field {
    fn format(self, at: &Zoned, out: &mut String) {
        let Field { letter, count } = self;
        let hour = i64::from(at.hour());
        let nano_of_second = i64::from(at.subsec_nanosecond());
        let seconds = hour * 3600 + i64::from(at.minute()) * 60 + i64::from(at.second());
        match letter {
            'G' => out.push_str(match (at.year() > 0, count) {
                (true, 1..=3) => "AD",
                (true, 4) => "Anno Domini",
                (true, _) => "A",
                (false, 1..=3) => "BC",
                (false, 4) => "Before Christ",
                (false, _) => "B",
            }),
            'u' => year(i64::from(at.year()), count, out),
            'y' if at.year() > 0 => year(i64::from(at.year()), count, out),
            'y' => year(1 - i64::from(at.year()), count, out),
            'Y' => year(week_based_year(at), count, out),
            'M' | 'L' => named(i64::from(at.month()), count, &MONTHS, out),
            'Q' | 'q' => quarter((i64::from(at.month()) + 2) / 3, count, out),
            'D' => number(i64::from(at.day_of_year()), count, out),
            'd' => number(i64::from(at.day()), count, out),
            'w' => number(week_of_week_based_year(at), count, out),
            'W' => number(week_of(i64::from(at.day()), at), count, out),
            'F' => number((i64::from(at.day()) - 1) % 7 + 1, count, out),
            'E' => day_name(at, count.max(3), out),
            'e' | 'c' if count <= 2 => number(sunday_based(at), count, out),
            'e' | 'c' => day_name(at, count, out),
            'a' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'h' => number((hour + 11) % 12 + 1, count, out),
            'H' => number(hour, count, out),
            'k' => number((hour + 23) % 24 + 1, count, out),
            'K' => number(hour % 12, count, out),
            'm' => number(i64::from(at.minute()), count, out),
            's' => number(i64::from(at.second()), count, out),
            'S' => {
                let digits = format!("{nano_of_second:09}");
                out.extend(digits.chars().take(count));
            }
            'A' => number(seconds * 1000 + nano_of_second / 1_000_000, count, out),
            'n' => number(nano_of_second, count, out),
            'N' => number(seconds * 1_000_000_000 + nano_of_second, count, out),
            'V' => out.push_str(at.time_zone().iana_name().unwrap_or("UTC")),
            'z' => out.push_str(&abbreviation(at)),
            _ => offset(letter, count, at.offset().seconds(), out),
        }
    }
}

fn number(value: i64, width: usize, out: &mut String) {
    let _ = write!(out, "{value:0width$}");
}

/// Two letters cut a year to two digits; from four on, a longer year gets a sign.
fn year(year: i64, count: usize, out: &mut String) {
    match count {
        2 => number(year.rem_euclid(100), 2, out),
        1 => number(year, 1, out),
        _ => {
            if count >= 4 && year >= 10_i64.saturating_pow(count as u32) {
                out.push('+');
            }
            let sign = usize::from(year < 0);
            number(year, count + sign, out);
        }
    }
}

fn named(value: i64, count: usize, names: &[&str], out: &mut String) {
    let name = names
        .get(usize::try_from(value - 1).unwrap_or_default())
        .copied()
        .unwrap_or_default();
    match count {
        1 | 2 => number(value, count, out),
        3 => out.extend(name.chars().take(3)),
        4 => out.push_str(name),
        _ => out.extend(name.chars().take(1)),
    }
}

fn quarter(value: i64, count: usize, out: &mut String) {
    match count {
        3 => {
            let _ = write!(out, "Q{value}");
        }
        5 => number(value, 1, out),
        _ => named(value, count, &QUARTERS, out),
    }
}

fn day_name(at: &Zoned, count: usize, out: &mut String) {
    named(i64::from(at.weekday().to_monday_one_offset()), count, &DAYS, out);
}

/// The day of the week as the United States count it: Sunday is 1.
fn sunday_based(at: &Zoned) -> i64 {
    i64::from(at.weekday().to_sunday_one_offset())
}

/// The week in which a day with this number falls, where the first week is that of day 1 and weeks begin on Sunday.
fn week_of(day: i64, at: &Zoned) -> i64 {
    let first_weekday = (sunday_based(at) - 1 - (day - 1)).rem_euclid(7);
    (day - 1 + first_weekday) / 7 + 1
}

fn week_of_week_based_year(at: &Zoned) -> i64 {
    let week = week_of(i64::from(at.day_of_year()), at);
    match week_based_year(at) > i64::from(at.year()) {
        true => 1,
        false => week,
    }
}

/// The last days of December count to the next year's first week where that begins among them.
fn week_based_year(at: &Zoned) -> i64 {
    let left = i64::from(at.days_in_year()) - i64::from(at.day_of_year());
    let next = left + sunday_based(at) <= 6;
    i64::from(at.year()) + i64::from(next)
}

/// The short name of the zone; zones that have none in Java's data show their offset there, too.
fn abbreviation(at: &Zoned) -> String {
    let info = at.time_zone().to_offset_info(at.timestamp());
    info.abbreviation().to_owned()
}

fn offset(letter: char, count: usize, seconds: i32, out: &mut String) {
    let zulu = matches!(letter, 'X') || (letter == 'Z' && count == 5);
    if seconds == 0 && zulu {
        return out.push('Z');
    }
    if letter == 'O' || (letter == 'Z' && count == 4) {
        out.push_str("GMT");
        if seconds == 0 {
            return;
        }
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let whole = seconds.unsigned_abs();
    let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60);
    out.push(sign);
    let _ = match (letter, count) {
        ('O', 1) if minutes == 0 && rest == 0 => write!(out, "{hours}"),
        ('O', 1) if rest == 0 => write!(out, "{hours}:{minutes:02}"),
        ('O', 1) => write!(out, "{hours}:{minutes:02}:{rest:02}"),
        ('O', _) | ('Z', 4) => match rest {
            0 => write!(out, "{hours:02}:{minutes:02}"),
            rest => write!(out, "{hours:02}:{minutes:02}:{rest:02}"),
        },
        ('X' | 'x', 1) if minutes == 0 => write!(out, "{hours:02}"),
        ('X' | 'x', 1 | 2) | ('Z', 1..=3) => write!(out, "{hours:02}{minutes:02}"),
        ('X' | 'x', 3) => write!(out, "{hours:02}:{minutes:02}"),
        ('X' | 'x', 4) if rest == 0 => write!(out, "{hours:02}{minutes:02}"),
        ('X' | 'x', 4) => write!(out, "{hours:02}{minutes:02}{rest:02}"),
        _ if rest == 0 => write!(out, "{hours:02}:{minutes:02}"),
        _ => write!(out, "{hours:02}:{minutes:02}:{rest:02}"),
    };
}

/// A time zone by its IANA name, from the data inside the program.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name.eq_ignore_ascii_case("utc") {
        return Some(TimeZone::UTC);
    }
    jiff::tz::TimeZoneDatabase::bundled().get(name).ok()
}
