//! Values from text and numbers, with the leniency of Flink's JSON format.

use arrow::datatypes::TimeUnit;

use super::column::{Column, Int, Values, end};

/// A value that is no object and no list.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    Big(u64),
    Float(f64),
    Text(&'a str),
}

impl Scalar<'_> {
    fn shown(self) -> String {
        match self {
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(value) => value.to_string(),
            Scalar::Big(value) => value.to_string(),
            Scalar::Float(value) => number_text(value),
            Scalar::Text(value) => format!("{value:?}"),
        }
    }
}

/// Adds a value to a column, or says why it does not fit.
pub(super) fn put(column: &mut Column, scalar: Scalar<'_>) -> Result<(), String> {
    match &mut column.values {
        Values::Bool(values) => values.push(match scalar {
            Scalar::Bool(value) => value,
            Scalar::Text(text) => text.trim().eq_ignore_ascii_case("true"),
            other => return Err(unfit(other, "BOOLEAN")),
        }),
        Values::Int(values, int) => values.push(integer(scalar, int)?),
        Values::Float(values) => values.push(float(scalar)? as f32),
        Values::Double(values) => values.push(float(scalar)?),
        Values::Decimal(values, digits, scale) => match decimal(scalar, *digits, *scale)? {
            Some(value) => values.push(value),
            None => {
                column.null();
                return Ok(());
            }
        },
        Values::Text(bytes, ends) => {
            match scalar {
                Scalar::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Scalar::Bool(value) => bytes.extend_from_slice(if value { b"true" } else { b"false" }),
                other => bytes.extend_from_slice(other.shown().as_bytes()),
            }
            ends.push(end(bytes.len())?);
        }
        Values::Bytes(bytes, ends) => {
            let Scalar::Text(text) = scalar else {
                return Err(unfit(scalar, "BYTES"));
            };
            let read = base64(text).ok_or_else(|| unfit(scalar, "BYTES in base64"))?;
            bytes.extend_from_slice(&read);
            ends.push(end(bytes.len())?);
        }
        Values::List(..) => return Err(unfit(scalar, "ARRAY")),
        Values::Struct(..) => return Err(unfit(scalar, "ROW")),
        Values::Map(..) => return Err(unfit(scalar, "MAP")),
    }
    column.added();
    Ok(())
}

fn unfit(scalar: Scalar<'_>, wanted: &str) -> String {
    let mut shown = scalar.shown();
    if let Some((at, _)) = shown.char_indices().nth(64) {
        shown.truncate(at);
        shown.push('…');
    }
    format!("{shown} is no {wanted}")
}

fn integer(scalar: Scalar<'_>, int: &Int) -> Result<i64, String> {
    let (name, least, most) = match int {
        Int::I8 => ("TINYINT", i64::from(i8::MIN), i64::from(i8::MAX)),
        Int::I16 => ("SMALLINT", i64::from(i16::MIN), i64::from(i16::MAX)),
        Int::I32 => ("INT", i64::from(i32::MIN), i64::from(i32::MAX)),
        Int::I64 => ("BIGINT", i64::MIN, i64::MAX),
        Int::Date | Int::Time | Int::Stamp(..) => return moment(scalar, int),
    };
    let whole = match scalar {
        Scalar::Int(value) => Some(value),
        // As a cast of Java does: what is behind the point falls away.
        Scalar::Float(value) if value.abs() < 9.2e18 => Some(value.trunc() as i64),
        Scalar::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    whole
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| unfit(scalar, name))
}

fn float(scalar: Scalar<'_>) -> Result<f64, String> {
    match scalar {
        Scalar::Int(value) => Ok(value as f64),
        Scalar::Big(value) => Ok(value as f64),
        Scalar::Float(value) => Ok(value),
        Scalar::Text(text) => text.trim().parse().map_err(|_| unfit(scalar, "DOUBLE")),
        Scalar::Bool(_) => Err(unfit(scalar, "DOUBLE")),
    }
}

/// None where there are more digits than the type has, which is NULL in Flink.
fn decimal(scalar: Scalar<'_>, digits: u8, scale: i8) -> Result<Option<i128>, String> {
    let read = match scalar {
        Scalar::Bool(_) => None,
        Scalar::Text(text) => decimal_of(text.trim(), scale),
        other => decimal_of(&other.shown(), scale),
    };
    let value = read.ok_or_else(|| unfit(scalar, "DECIMAL"))?;
    let bound = 10i128.checked_pow(u32::from(digits));
    Ok(Some(value).filter(|value| bound.is_none_or(|bound| value.abs() < bound)))
}

/// Digits with a point and an exponent, as a number of units of the scale, halves away from 0.
pub(super) fn decimal_of(text: &str, scale: i8) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && part.is_empty() || mantissa.len() > 400 {
        return None;
    }
    // The number of digits that stay before the rest is rounded away.
    let kept = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let (mut value, mut rounds) = (0i128, false);
    let mut taken = 0i64;
    for digit in whole.bytes().chain(part.bytes()) {
        let digit = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
        if taken < kept {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else if taken == kept {
            rounds = digit >= 5;
        }
        taken += 1;
    }
    while taken < kept && value != 0 {
        value = value.checked_mul(10)?;
        taken += 1;
    }
    value += i128::from(rounds);
    Some(if negative { -value } else { value })
}

fn moment(scalar: Scalar<'_>, int: &Int) -> Result<i64, String> {
    let wanted = match int {
        Int::Date => "DATE (2026-01-02)",
        Int::Time => "TIME (03:04:05)",
        Int::Stamp(_, None) => "TIMESTAMP (2026-01-02 03:04:05.678)",
        _ => "TIMESTAMP_LTZ (2026-01-02 03:04:05.678Z)",
    };
    let Scalar::Text(text) = scalar else {
        return Err(unfit(scalar, wanted));
    };
    let text = text.trim();
    let read = match int {
        Int::Date => date(text).map(|(days, rest)| (days, rest.is_empty())),
        Int::Time => time(text).map(|(nanos, rest)| (nanos / 1_000_000, rest.is_empty())),
        Int::Stamp(unit, zone) => stamp(text, *unit, zone.is_some()).map(|value| (value, true)),
        _ => None,
    };
    match read {
        Some((value, true)) => Ok(value),
        _ => Err(unfit(scalar, wanted)),
    }
}

/// `2026-01-02 03:04:05.678`, with a `T` instead of the space too. With a zone it ends with `Z` or `+01:00`.
pub(crate) fn stamp(text: &str, unit: TimeUnit, zoned: bool) -> Option<i64> {
    let (days, rest) = date(text)?;
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (nanos, rest) = time(rest)?;
    let shift = match (zoned, rest) {
        (true, "Z") | (false, "") => 0,
        (true, rest) => zone(rest)?,
        _ => return None,
    };
    let seconds = days
        .checked_mul(86_400)?
        .checked_sub(shift)?
        .checked_add(nanos / 1_000_000_000)?;
    let (each, part) = match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, nanos % 1_000_000_000 / 1_000_000),
        TimeUnit::Microsecond => (1_000_000, nanos % 1_000_000_000 / 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, nanos % 1_000_000_000),
    };
    seconds.checked_mul(each)?.checked_add(part)
}

/// `+01:00` in seconds.
fn zone(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, rest) = digits(text, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':').unwrap_or(rest), 2)?;
    (rest.is_empty() && hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn digits(text: &str, count: usize) -> Option<(i64, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    let mut value = 0i64;
    for digit in number.bytes() {
        value = value * 10 + digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
    }
    Some((value, rest))
}

/// Days since 1970, and what follows.
fn date(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let most = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    (1..=most)
        .contains(&day)
        .then(|| (days_from_civil(year, month, day), rest))
}

/// Days since 1970 of a day of the Gregorian calendar (H. Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Nanoseconds of the day, and what follows. Seconds may be left out, as in ISO 8601.
fn time(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = digits(text, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (mut nanos, mut rest) = (0, rest);
    if let Some(part) = rest.strip_prefix('.') {
        let count = part.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=9).contains(&count) {
            return None;
        }
        let (value, behind) = digits(part, count)?;
        nanos = value * 10i64.pow(u32::try_from(9 - count).ok()?);
        rest = behind;
    }
    Some((((hour * 60 + minute) * 60 + second) * 1_000_000_000 + nanos, rest))
}

/// A number as JSON has it.
pub(crate) fn number_text(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(|| value.to_string(), |number| number.to_string())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    base64_simd::STANDARD.decode_to_vec(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_halves_away_from_zero_and_keep_every_digit() {
        for (text, scale, units) in [
            ("1.005", 2, Some(101)),
            ("-1.005", 2, Some(-101)),
            ("1.0049", 2, Some(100)),
            ("12345678901234567890.12", 2, Some(1_234_567_890_123_456_789_012)),
            ("1e3", 2, Some(100_000)),
            ("1.5E-1", 2, Some(15)),
            ("0.004", 2, Some(0)),
            ("0.5", 0, Some(1)),
            ("1e-9", 2, Some(0)),
            ("", 2, None),
            ("1.2.3", 2, None),
            ("abc", 2, None),
            ("1e99", 2, None),
        ] {
            assert_eq!(decimal_of(text, scale), units, "{text}");
        }
    }

    #[test]
    fn times_are_read_with_a_space_or_a_t_and_only_where_they_exist() {
        let ms = |text: &str, zoned: bool| stamp(text, TimeUnit::Millisecond, zoned);
        assert_eq!(ms("1970-01-01 00:00:00", false), Some(0));
        assert_eq!(ms("2026-01-02 03:04:05.678", false), Some(1_767_323_045_678));
        assert_eq!(ms("2026-01-02T03:04:05.678Z", true), Some(1_767_323_045_678));
        assert_eq!(ms("2026-01-02T03:04:05.678+01:00", true), Some(1_767_319_445_678));
        assert_eq!(ms("1969-12-31 23:59:59.999", false), Some(-1));
        assert_eq!(ms("2024-02-29 00:00", false), Some(1_709_164_800_000));
        for wrong in [
            "2023-02-29 00:00:00",
            "2026-13-01 00:00:00",
            "2026-01-02",
            "2026-01-02 24:00:00",
            "x",
            "2026-01-02 03:04:05Z",
        ] {
            assert_eq!(ms(wrong, false), None, "{wrong}");
        }
        assert_eq!(ms("2026-01-02 03:04:05", true), None);
    }
}
