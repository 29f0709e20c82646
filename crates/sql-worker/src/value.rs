//! Texts and numbers of JSON as values of Hive's types.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// Days since 1970-01-01 of `2026-01-31`; the month and the day may have one digit.
pub fn date(text: &str) -> Option<i32> {
    let date = civil_date(text.trim())?;
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    Some(days)
}

fn civil_date(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let fits = parts.next().is_none() && year.len() == 4 && month.len() <= 2 && day.len() <= 2;
    match fits {
        true => Date::new(number(year)?, number(month)?, number(day)?).ok(),
        false => None,
    }
}

fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok())?
}

/// Microseconds since 1970 of `2026-01-31 13:45:00[.123456789]`, in no time zone.
pub fn sql_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.trim().split_once(' ')?;
    micros(civil_date(date)?, time)
}

/// As [`sql_timestamp`], or `2026-01-31T13:45:00[.123456789]Z`, or seconds or milliseconds since 1970.
pub fn open_x_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some((date, time)) = text.split_once('T') {
        return micros(civil_date(date)?, time.strip_suffix('Z').unwrap_or(time));
    }
    if text.contains(':') {
        return sql_timestamp(text);
    }
    match text.parse::<i64>() {
        Ok(whole) => epoch(whole),
        Err(_) => epoch_float(text.parse().ok()?),
    }
}

fn micros(date: Date, time: &str) -> Option<i64> {
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let nanos = number::<i32>(fraction)? * 10_i32.pow(9 - fraction.len() as u32);
    let time = Time::new(number(hour)?, number(minute)?, number(second)?, nanos).ok()?;
    micros_of(DateTime::from_parts(date, time))
}

/// Microseconds since 1970, as if the time were UTC.
pub fn micros_of(at: DateTime) -> Option<i64> {
    let at = TimeZone::UTC.to_timestamp(at).ok()?;
    i64::try_from(at.as_nanosecond().div_euclid(1000)).ok()
}

/// From here on a number of an epoch is taken for milliseconds: it has 13 digits.
const MILLIS_FROM: u64 = 1_000_000_000_000;

/// Microseconds since 1970 of seconds, or of milliseconds where there are so many.
pub fn epoch(number: i64) -> Option<i64> {
    match number.unsigned_abs() >= MILLIS_FROM {
        true => number.checked_mul(1000),
        false => number.checked_mul(1_000_000),
    }
}

/// Microseconds since 1970 of seconds with a fraction.
pub fn epoch_float(seconds: f64) -> Option<i64> {
    let micros = (seconds * 1e6).round();
    (micros.is_finite() && micros.abs() < 9.0e18).then_some(micros as i64)
}

/// A decimal with so many digits behind the point, of `-12.5e3`; what is behind them is rounded half up, as Hive does.
/// `None` where it has more digits than the precision before the point.
pub fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let text = text.trim();
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (digits, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !plain(whole) || !plain(fraction) {
        return None;
    }
    // The place of the first digit behind those that are kept, counted from the first digit of all.
    let kept = i64::from(exponent) + whole.len() as i64 + i64::from(scale);
    let mut value: i128 = 0;
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    let all = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|byte| i128::from(byte - b'0'));
    let mut place = 0;
    let mut round_up = false;
    for digit in all {
        if place < kept {
            value = value.checked_mul(10)?.checked_add(digit)?;
            if value >= limit {
                return None;
            }
        } else if place == kept {
            round_up = digit >= 5;
        }
        place += 1;
    }
    while place < kept && value != 0 {
        value = value.checked_mul(10).filter(|value| *value < limit)?;
        place += 1;
    }
    value += i128::from(round_up);
    (value < limit).then_some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_the_forms_of_the_guide() {
        let at = 1_486_480_381;
        for (text, wanted) in [
            ("2017-02-07T15:13:01.39256Z", Some(at * 1_000_000 + 392_560)),
            ("2017-02-07 15:13:01.14", Some(at * 1_000_000 + 140_000)),
            ("2017-2-7 15:13:01", Some(at * 1_000_000)),
            ("1518033528", Some(1_518_033_528_000_000)),
            ("1518033528123", Some(1_518_033_528_123_000)),
            ("1518033528.123", Some(1_518_033_528_123_000)),
            ("-1", Some(-1_000_000)),
            ("999999999999", Some(999_999_999_999_000_000)),
            ("2017-02-30 00:00:00", None),
            ("2017-02-07", None),
            ("2017-02-07T15:13Z", None),
            ("2017-02-07 15:13:01.", None),
            ("2017-02-07 15:13:01.1234567890", None),
            ("yesterday", None),
            ("NaN", None),
            ("", None),
        ] {
            assert_eq!(open_x_timestamp(text), wanted, "{text}");
        }
        assert_eq!(sql_timestamp("1969-12-31 23:59:59.999999999"), Some(-1));
        assert_eq!(sql_timestamp("1518033528"), None);
        assert_eq!(
            (date("1970-01-02"), date("1969-12-31"), date("2026-1-1")),
            (Some(1), Some(-1), Some(20_454))
        );
        assert_eq!(
            (date("2026-02-29"), date("26-1-1"), date("2026-1-1x"), date("2026-+1-1")),
            (None, None, None, None)
        );
    }

    #[test]
    fn decimals_are_rounded_behind_and_refused_before_the_point() {
        for (text, precision, scale, wanted) in [
            ("12.345", 5, 2, Some(1235)),
            ("12.344", 5, 2, Some(1234)),
            ("-12.345", 5, 2, Some(-1235)),
            ("999.99", 5, 2, Some(99_999)),
            ("999.995", 5, 2, None),
            ("1000", 5, 2, None),
            ("1.5e2", 5, 2, Some(15_000)),
            ("15e-1", 5, 2, Some(150)),
            ("1e-9", 5, 2, Some(0)),
            ("0e999999999", 5, 2, Some(0)),
            ("1e999999999", 5, 2, None),
            ("0.5", 3, 0, Some(1)),
            (".5", 3, 1, Some(5)),
            ("5.", 3, 1, Some(50)),
            (
                "99999999999999999999999999999999999999",
                38,
                0,
                Some(10_i128.pow(38) - 1),
            ),
            ("", 5, 2, None),
            (".", 5, 2, None),
            ("1.2.3", 5, 2, None),
            ("0x1", 5, 2, None),
            ("--1", 5, 2, None),
        ] {
            assert_eq!(decimal(text, precision, scale), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_more_than_be_refused(text in "([0-9]{1,40}|[-+.eET: Z]|\\PC){0,8}", precision in 1_u8..=38, scale in 0_u8..=38) {
            let _ = (date(&text), sql_timestamp(&text), open_x_timestamp(&text));
            if let Some(value) = decimal(&text, precision, scale.min(precision)) {
                prop_assert!(value.unsigned_abs() < 10_u128.pow(u32::from(precision)));
            }
        }
    }
}
