//! Lengths of time, as statements write them.

use arrow::datatypes::IntervalMonthDayNano;
use datafusion_common::ScalarValue;
use datafusion_sql::sqlparser::ast::{DateTimeField, Expr, Interval, UnaryOperator, Value};

const DAY_MS: i64 = 86_400_000;

/// Milliseconds of `INTERVAL '10' MINUTES` and its like; none for months and years, which have no fixed length, and for
/// what is no such thing.
pub(crate) fn of_sql(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Interval(interval) => of_interval(interval),
        Expr::Nested(inner) => of_sql(inner),
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => of_sql(expr)?.checked_neg(),
        _ => None,
    }
}

fn of_interval(interval: &Interval) -> Option<i64> {
    let text = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.trim(),
            _ => return None,
        },
        _ => return None,
    };
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let from = interval.leading_field.as_ref()?;
    let length = match &interval.last_field {
        None => single(text, from)?,
        Some(_) => several(text, from)?,
    };
    Some(if negative { -length } else { length })
}

fn single(text: &str, unit: &DateTimeField) -> Option<i64> {
    let each = match unit {
        DateTimeField::Millisecond | DateTimeField::Milliseconds => 1,
        DateTimeField::Second | DateTimeField::Seconds => return seconds(text),
        DateTimeField::Minute | DateTimeField::Minutes => 60_000,
        DateTimeField::Hour | DateTimeField::Hours => 3_600_000,
        DateTimeField::Day | DateTimeField::Days => DAY_MS,
        DateTimeField::Week(_) | DateTimeField::Weeks => 7 * DAY_MS,
        _ => return None,
    };
    text.parse::<i64>().ok()?.checked_mul(each)
}

/// `1.5`, down to the millisecond.
fn seconds(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let whole = whole.parse::<i64>().ok()?.checked_mul(1_000)?;
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    whole.checked_add(digits.parse().ok()?)
}

/// `1 02:03:04.5` and pieces of it, beginning with the unit.
fn several(text: &str, from: &DateTimeField) -> Option<i64> {
    let parts: Vec<&str> = text.split([' ', ':']).filter(|part| !part.is_empty()).collect();
    let units = [
        DateTimeField::Day,
        DateTimeField::Hour,
        DateTimeField::Minute,
        DateTimeField::Second,
    ];
    let first = match from {
        DateTimeField::Day | DateTimeField::Days => 0,
        DateTimeField::Hour | DateTimeField::Hours => 1,
        DateTimeField::Minute | DateTimeField::Minutes => 2,
        _ => return None,
    };
    let units = units.get(first..)?;
    if parts.is_empty() || parts.len() > units.len() {
        return None;
    }
    let mut sum = 0i64;
    for (part, unit) in parts.into_iter().zip(units) {
        sum = sum.checked_add(single(part, unit)?)?;
    }
    Some(sum)
}

/// Milliseconds of a constant; none where it has months.
pub(crate) fn of_scalar(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano {
            months: 0,
            days,
            nanoseconds,
        })) => i64::from(*days)
            .checked_mul(DAY_MS)?
            .checked_add(nanoseconds / 1_000_000),
        ScalarValue::IntervalDayTime(Some(value)) => i64::from(value.days)
            .checked_mul(DAY_MS)?
            .checked_add(i64::from(value.milliseconds)),
        _ => None,
    }
}
