//! Functions of times, with Java's patterns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{Signature, TypeSignature, Volatility};

use super::text::one_of;
use super::{Simple, any, arrow, exact, typed};
use crate::decode::scalar;
use crate::plan::java_time;
use crate::plan::types::{UTC, timestamp, timestamp_ltz};

/// The pattern where none is given.
const PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

pub(super) fn all() -> Vec<Simple> {
    let text = || DataType::Utf8;
    let returns_text = |_: &[DataType]| Ok(DataType::Utf8);
    let long = |_: &[DataType]| Ok(DataType::Int64);
    let one_or_two = || {
        Signature::one_of(
            vec![TypeSignature::Any(1), TypeSignature::Any(2)],
            Volatility::Immutable,
        )
    };
    vec![
        Simple::new("date_format", any(2), returns_text, date_format),
        Simple::new(
            "to_timestamp",
            one_of(vec![vec![text()], vec![text(), text()]]),
            |_| Ok(timestamp()),
            to_timestamp,
        ),
        Simple::new(
            "to_timestamp_ltz",
            one_or_two(),
            |_| Ok(timestamp_ltz()),
            to_timestamp_ltz,
        ),
        Simple::new("timestampdiff", any(3), |_| Ok(DataType::Int32), difference),
        Simple::new("timestampadd", any(3), added_type, added),
        Simple::new(
            "unix_timestamp",
            one_of(vec![vec![text()], vec![text(), text()]]),
            long,
            unix_timestamp,
        ),
        Simple::new(
            "from_unixtime",
            one_of(vec![vec![DataType::Int64], vec![DataType::Int64, text()]]),
            returns_text,
            from_unixtime,
        ),
        Simple::new("year", any(1), long, |arrays, _| part(arrays, Part::Year)),
        Simple::new("month", any(1), long, |arrays, _| part(arrays, Part::Month)),
        Simple::new("dayofmonth", any(1), long, |arrays, _| part(arrays, Part::Day)),
        Simple::new("hour", any(1), long, |arrays, _| part(arrays, Part::Hour)),
        Simple::new("minute", any(1), long, |arrays, _| part(arrays, Part::Minute)),
        Simple::new("second", any(1), long, |arrays, _| part(arrays, Part::Second)),
        Simple::new("$to_millis", exact(vec![timestamp()]), long, |arrays, _| {
            millis(arrays, 0).and_then(|m| cast(&m, &DataType::Int64))
        }),
    ]
}

fn cast(array: &dyn Array, to: &DataType) -> Result<ArrayRef> {
    ::arrow::compute::cast(array, to).map_err(arrow)
}

/// A time, a day, or text that is one, in milliseconds.
fn millis(arrays: &[ArrayRef], at: usize) -> Result<TimestampMillisecondArray> {
    let Some(array) = arrays.get(at) else {
        return exec_err!("argument {} is missing", at + 1);
    };
    let zone = match array.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let array = cast(array, &DataType::Timestamp(TimeUnit::Millisecond, zone))?;
    Ok(array
        .as_primitive::<TimestampMillisecondType>()
        .clone()
        .with_timezone_opt(None::<Arc<str>>))
}

fn constant(arrays: &[ArrayRef], at: usize) -> Result<Option<&str>> {
    match arrays.get(at) {
        None => Ok(Some(PATTERN)),
        Some(_) => {
            let array = typed::<StringArray>(arrays, at)?;
            Ok((!array.is_empty() && array.is_valid(0)).then(|| array.value(0)))
        }
    }
}

fn date_format(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let times = millis(arrays, 0)?;
    written(&times, arrays, 1, rows)
}

fn written(times: &TimestampMillisecondArray, arrays: &[ArrayRef], at: usize, rows: usize) -> Result<ArrayRef> {
    let Some(pattern) = constant(arrays, at)? else {
        return Ok(Arc::new(StringArray::new_null(rows)));
    };
    let pattern = match java_time::Pattern::parse(pattern) {
        Ok(pattern) => pattern,
        Err(reason) => return exec_err!("{reason}"),
    };
    let made = times.iter().map(|time| time.map(|time| pattern.write(time)));
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn read(arrays: &[ArrayRef]) -> Result<TimestampMillisecondArray> {
    let texts = typed::<StringArray>(arrays, 0)?;
    let Some(pattern) = constant(arrays, 1)? else {
        return Ok(TimestampMillisecondArray::new_null(texts.len()));
    };
    let parsed = match arrays.len() {
        1 => None,
        _ => match java_time::Pattern::parse(pattern) {
            Ok(pattern) => Some(pattern),
            Err(reason) => return exec_err!("{reason}"),
        },
    };
    let of = |text: &str| match &parsed {
        Some(pattern) => pattern.read(text),
        None => scalar::stamp(text.trim(), TimeUnit::Millisecond, false)
            .or_else(|| scalar::stamp(&format!("{} 00:00:00", text.trim()), TimeUnit::Millisecond, false)),
    };
    Ok(texts.iter().map(|text| text.and_then(of)).collect())
}

/// NULL where the text is no such time, as in Flink.
fn to_timestamp(arrays: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(read(arrays)?))
}

fn unix_timestamp(arrays: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
    let times = read(arrays)?;
    let seconds: Int64Array = times
        .iter()
        .map(|time| time.map(|time| time.div_euclid(1_000)))
        .collect();
    Ok(Arc::new(seconds))
}

fn from_unixtime(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let seconds = typed::<Int64Array>(arrays, 0)?;
    let times: TimestampMillisecondArray = seconds.iter().map(|s| s.and_then(|s| s.checked_mul(1_000))).collect();
    written(&times, arrays, 1, rows)
}

/// Of a number of seconds (precision 0) or milliseconds (3, which is meant without one).
fn to_timestamp_ltz(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let Some(array) = arrays.first() else {
        return exec_err!("TO_TIMESTAMP_LTZ of nothing");
    };
    if array.data_type() == &DataType::Utf8 {
        return Ok(Arc::new(read(arrays)?.with_timezone(UTC)));
    }
    let seconds = match arrays.get(1) {
        None => false,
        Some(precision) => {
            let precision = cast(precision, &DataType::Int32)?;
            let precision = precision.as_primitive::<::arrow::datatypes::Int32Type>();
            match precision.iter().next().flatten() {
                Some(0) => true,
                Some(3) | None => false,
                Some(other) => return exec_err!("TO_TIMESTAMP_LTZ takes seconds (0) or milliseconds (3), not {other}"),
            }
        }
    };
    let times: TimestampMillisecondArray = match array.data_type() {
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => {
            let numbers = cast(array, &DataType::Float64)?;
            let numbers = numbers.as_any().downcast_ref::<Float64Array>().cloned();
            let numbers = numbers.unwrap_or_else(|| Float64Array::new_null(rows));
            let factor = if seconds { 1_000.0 } else { 1.0 };
            numbers
                .iter()
                .map(|number| number.map(|number| (number * factor) as i64))
                .collect()
        }
        _ => {
            let numbers = cast(array, &DataType::Int64)?;
            let numbers = numbers.as_primitive::<::arrow::datatypes::Int64Type>();
            let factor = if seconds { 1_000 } else { 1 };
            numbers
                .iter()
                .map(|number| number.and_then(|number| number.checked_mul(factor)))
                .collect()
        }
    };
    Ok(Arc::new(times.with_timezone(UTC)))
}

/// The length of a unit; months by their number.
enum Unit {
    Millis(i64),
    Months(i64),
}

fn unit(arrays: &[ArrayRef]) -> Result<Unit> {
    let Some(name) = constant(arrays, 0)? else {
        return exec_err!("the unit is NULL");
    };
    let name = name.to_ascii_uppercase();
    Ok(match name.strip_suffix('S').unwrap_or(&name) {
        "MILLISECOND" => Unit::Millis(1),
        "SECOND" => Unit::Millis(1_000),
        "MINUTE" => Unit::Millis(60_000),
        "HOUR" => Unit::Millis(3_600_000),
        "DAY" => Unit::Millis(86_400_000),
        "WEEK" => Unit::Millis(7 * 86_400_000),
        "MONTH" => Unit::Months(1),
        "QUARTER" => Unit::Months(3),
        "YEAR" => Unit::Months(12),
        _ => return exec_err!("{name} is no unit of time"),
    })
}

fn difference(arrays: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
    let (from, to) = (millis(arrays, 1)?, millis(arrays, 2)?);
    let unit = unit(arrays)?;
    let between = |from: i64, to: i64| match &unit {
        Unit::Millis(each) => to.checked_sub(from).map(|between| between / each),
        Unit::Months(each) => Some(java_time::months_between(from, to) / each),
    };
    let pairs = from.iter().zip(to.iter());
    let made = pairs.map(|(from, to)| between(from?, to?).and_then(|between| i32::try_from(between).ok()));
    Ok(Arc::new(made.collect::<Int32Array>()))
}

fn added_type(types: &[DataType]) -> Result<DataType> {
    match types.get(2) {
        Some(DataType::Timestamp(_, zone)) => Ok(DataType::Timestamp(TimeUnit::Millisecond, zone.clone())),
        Some(DataType::Date32) => Ok(timestamp()),
        _ => plan_err!("TIMESTAMPADD is of a unit, a number and a time"),
    }
}

fn added(arrays: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
    let Some(many) = arrays.get(1) else {
        return exec_err!("TIMESTAMPADD without a number");
    };
    let many = cast(many, &DataType::Int64)?;
    let many = many.as_primitive::<::arrow::datatypes::Int64Type>();
    let times = millis(arrays, 2)?;
    let unit = unit(arrays)?;
    let add = |time: i64, many: i64| match &unit {
        Unit::Millis(each) => many.checked_mul(*each)?.checked_add(time),
        Unit::Months(each) => java_time::add_months(time, many.checked_mul(*each)?),
    };
    let pairs = times.iter().zip(many.iter());
    let made: TimestampMillisecondArray = pairs.map(|(time, many)| add(time?, many?)).collect();
    let types: Vec<DataType> = arrays.iter().map(|array| array.data_type().clone()).collect();
    match added_type(&types)? {
        DataType::Timestamp(_, zone) => Ok(Arc::new(made.with_timezone_opt(zone))),
        _ => Ok(Arc::new(made)),
    }
}

#[derive(Clone, Copy)]
enum Part {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

fn part(arrays: &[ArrayRef], part: Part) -> Result<ArrayRef> {
    let times = millis(arrays, 0)?;
    let of = |time: i64| {
        let civil = java_time::Civil::of(time);
        match part {
            Part::Year => civil.year,
            Part::Month => civil.month,
            Part::Day => civil.day,
            Part::Hour => civil.hour,
            Part::Minute => civil.minute,
            Part::Second => civil.second,
        }
    };
    let made: Int64Array = times.iter().map(|time| time.map(of)).collect();
    Ok(Arc::new(made))
}
