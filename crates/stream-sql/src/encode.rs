//! Rows as JSON, the way Flink's format writes them.

use std::io::Write;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Decimal128Array, ListArray, MapArray, StringArray, StructArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    Time32MillisecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt64Type,
};

use crate::batch::Batch;
use crate::table::Table;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    /// `json.timestamp-format.standard` is `ISO-8601`: a `T` between day and time instead of a space.
    pub iso: bool,
    /// `json.encode.ignore-null-fields`: what is NULL is left out.
    pub skip_nulls: bool,
}

impl Encoder {
    /// As the options of a table say.
    pub fn of(table: &Table) -> Encoder {
        let option = |key: &str| table.options.get(key).map(String::as_str);
        Encoder {
            iso: option("json.timestamp-format.standard") == Some("ISO-8601"),
            skip_nulls: option("json.encode.ignore-null-fields") == Some("true"),
        }
    }

    /// Gives one JSON object for each row, in order, without a line's end.
    pub fn encode(&self, batch: &Batch, mut into: impl FnMut(&[u8])) {
        let names = names(&batch.rows.schema());
        let columns: Vec<Values<'_>> = batch
            .rows
            .columns()
            .iter()
            .map(|array| Values::of(array.as_ref()))
            .collect();
        let mut line = Vec::with_capacity(256);
        for row in 0..batch.rows.num_rows() {
            line.clear();
            line.push(b'{');
            for (name, values) in names.iter().zip(&columns) {
                if self.skip_nulls && values.array.is_null(row) {
                    continue;
                }
                if line.len() > 1 {
                    line.push(b',');
                }
                line.extend_from_slice(name);
                self.value(values, row, &mut line);
            }
            line.push(b'}');
            into(&line);
        }
    }

    fn value(&self, values: &Values<'_>, row: usize, out: &mut Vec<u8>) {
        if values.array.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &values.kind {
            Kind::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Kind::Text(array) => text(array.value(row), out),
            Kind::Bytes(array) => text(&base64_simd::STANDARD.encode_to_string(array.value(row)), out),
            Kind::Decimal(array) => out.extend_from_slice(array.value_as_string(row).as_bytes()),
            Kind::List(items, array) => self.list(items, array, row, out),
            Kind::Struct(fields) => {
                out.push(b'{');
                for (at, (name, values)) in fields.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    self.value(values, row, out);
                }
                out.push(b'}');
            }
            Kind::Map(keys, items, array) => self.map(keys, items, array, row, out),
            Kind::Other => self.plain(values.array, row, out),
        }
    }

    fn list(&self, items: &Values<'_>, array: &ListArray, row: usize, out: &mut Vec<u8>) {
        out.push(b'[');
        for (at, item) in range(array.value_offsets(), row).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            self.value(items, item, out);
        }
        out.push(b']');
    }

    fn map(&self, keys: &StringArray, items: &Values<'_>, array: &MapArray, row: usize, out: &mut Vec<u8>) {
        out.push(b'{');
        for (at, item) in range(array.value_offsets(), row).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text(keys.value(item), out);
            out.push(b':');
            self.value(items, item, out);
        }
        out.push(b'}');
    }

    fn plain(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) {
        // Writing into memory cannot fail.
        let _ = match array.data_type() {
            DataType::Int8 => write!(out, "{}", array.as_primitive::<Int8Type>().value(row)),
            DataType::Int16 => write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
            DataType::Int32 => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
            DataType::UInt64 => write!(out, "{}", array.as_primitive::<UInt64Type>().value(row)),
            DataType::Float32 => return float(array.as_primitive::<Float32Type>().value(row), out),
            DataType::Float64 => return float(array.as_primitive::<Float64Type>().value(row), out),
            DataType::Date32 => {
                out.push(b'"');
                date(i64::from(array.as_primitive::<Date32Type>().value(row)), out);
                out.push(b'"');
                Ok(())
            }
            DataType::Time32(TimeUnit::Millisecond) => {
                let millis = i64::from(array.as_primitive::<Time32MillisecondType>().value(row));
                out.push(b'"');
                time(millis * 1_000_000, out);
                out.push(b'"');
                Ok(())
            }
            DataType::Timestamp(unit, zone) => return self.stamp(moment(array, *unit, row), zone.is_some(), out),
            _ => match arrow::util::display::array_value_to_string(array, row) {
                Ok(shown) => return text(&shown, out),
                Err(_) => write!(out, "null"),
            },
        };
    }

    fn stamp(&self, (seconds, nanos): (i64, i64), zoned: bool, out: &mut Vec<u8>) {
        out.push(b'"');
        date(seconds.div_euclid(86_400), out);
        out.push(if self.iso { b'T' } else { b' ' });
        time(seconds.rem_euclid(86_400) * 1_000_000_000 + nanos, out);
        if zoned {
            out.push(b'Z');
        }
        out.push(b'"');
    }
}

/// Gives one JSON object for each row as Flink's JSON format writes it by default.
pub fn encode_json(batch: &Batch, into: impl FnMut(&[u8])) {
    Encoder::default().encode(batch, into);
}

/// The values of each row, in the order of the columns.
pub fn json_values(batch: &Batch) -> Vec<Vec<serde_json::Value>> {
    let encoder = Encoder::default();
    let columns: Vec<Values<'_>> = batch
        .rows
        .columns()
        .iter()
        .map(|array| Values::of(array.as_ref()))
        .collect();
    let mut text = Vec::new();
    let mut value = |values: &Values<'_>, row: usize| {
        text.clear();
        encoder.value(values, row, &mut text);
        serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null)
    };
    let rows = 0..batch.rows.num_rows();
    rows.map(|row| columns.iter().map(|column| value(column, row)).collect())
        .collect()
}

/// `"name":` for each column.
fn names(schema: &SchemaRef) -> Vec<Vec<u8>> {
    schema.fields().iter().map(|field| key(field.name())).collect()
}

fn key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 3);
    text(name, &mut key);
    key.push(b':');
    key
}

/// A column whose kind is found out once.
struct Values<'a> {
    array: &'a dyn Array,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Decimal(&'a Decimal128Array),
    List(Box<Values<'a>>, &'a ListArray),
    Struct(Vec<(Vec<u8>, Values<'a>)>),
    Map(&'a StringArray, Box<Values<'a>>, &'a MapArray),
    Other,
}

impl<'a> Values<'a> {
    fn of(array: &'a dyn Array) -> Values<'a> {
        let any = array.as_any();
        let kind = if let Some(array) = any.downcast_ref::<BooleanArray>() {
            Kind::Bool(array)
        } else if let Some(array) = any.downcast_ref::<StringArray>() {
            Kind::Text(array)
        } else if let Some(array) = any.downcast_ref::<BinaryArray>() {
            Kind::Bytes(array)
        } else if let Some(array) = any.downcast_ref::<Decimal128Array>() {
            Kind::Decimal(array)
        } else if let Some(array) = any.downcast_ref::<ListArray>() {
            Kind::List(Box::new(Values::of(array.values().as_ref())), array)
        } else if let Some(array) = any.downcast_ref::<StructArray>() {
            let fields = array.fields().iter().zip(array.columns());
            let fields = fields.map(|(field, column)| (key(field.name()), Values::of(column.as_ref())));
            Kind::Struct(fields.collect())
        } else if let Some(array) = any.downcast_ref::<MapArray>() {
            match array.keys().as_any().downcast_ref::<StringArray>() {
                Some(keys) => Kind::Map(keys, Box::new(Values::of(array.values().as_ref())), array),
                None => Kind::Other,
            }
        } else {
            Kind::Other
        };
        Values { array, kind }
    }
}

fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |row: usize| {
        offsets
            .get(row)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    at(row)..at(row + 1)
}

fn text(value: &str, out: &mut Vec<u8>) {
    // A string is always JSON, and writing into memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// What is no number is text, as Jackson writes it.
fn float<F: serde::Serialize + Into<f64> + Copy>(value: F, out: &mut Vec<u8>) {
    let wide: f64 = value.into();
    let _ = match wide {
        wide if wide.is_nan() => write!(out, "\"NaN\""),
        f64::INFINITY => write!(out, "\"Infinity\""),
        f64::NEG_INFINITY => write!(out, "\"-Infinity\""),
        _ => serde_json::to_writer(&mut *out, &value).map_err(Into::into),
    };
}

/// Seconds since 1970 and the nanoseconds of the second.
fn moment(array: &dyn Array, unit: TimeUnit, row: usize) -> (i64, i64) {
    let (value, each) = match unit {
        TimeUnit::Second => (array.as_primitive::<TimestampSecondType>().value(row), 1),
        TimeUnit::Millisecond => (array.as_primitive::<TimestampMillisecondType>().value(row), 1_000),
        TimeUnit::Microsecond => (array.as_primitive::<TimestampMicrosecondType>().value(row), 1_000_000),
        TimeUnit::Nanosecond => (
            array.as_primitive::<TimestampNanosecondType>().value(row),
            1_000_000_000,
        ),
    };
    (value.div_euclid(each), value.rem_euclid(each) * (1_000_000_000 / each))
}

/// `2026-01-02` of days since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: i64, out: &mut Vec<u8>) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let part = (5 * of_year + 2) / 153;
    let day = of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
}

/// `03:04:05`, with as many digits of the second's parts as say something.
fn time(nanos: i64, out: &mut Vec<u8>) {
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let _ = write!(
        out,
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    );
    if nanos > 0 {
        let digits = format!("{nanos:09}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_only_the_digits_that_say_something() {
        let stamp = |ms: i64, iso: bool, zoned: bool| {
            let encoder = Encoder { iso, skip_nulls: false };
            let at = (ms.div_euclid(1_000), ms.rem_euclid(1_000) * 1_000_000);
            shown(|out| encoder.stamp(at, zoned, out))
        };
        assert_eq!(stamp(1_767_323_045_678, false, false), "\"2026-01-02 03:04:05.678\"");
        assert_eq!(stamp(1_767_323_045_500, false, true), "\"2026-01-02 03:04:05.5Z\"");
        assert_eq!(stamp(1_767_323_045_000, true, true), "\"2026-01-02T03:04:05Z\"");
        assert_eq!(stamp(-1, false, false), "\"1969-12-31 23:59:59.999\"");
        assert_eq!(stamp(951_782_400_000, false, false), "\"2000-02-29 00:00:00\"");
    }

    #[test]
    fn what_is_no_number_is_text() {
        assert_eq!(shown(|out| float(1.5f64, out)), "1.5");
        assert_eq!(shown(|out| float(0.1f32, out)), "0.1");
        assert_eq!(shown(|out| float(f64::NAN, out)), "\"NaN\"");
        assert_eq!(shown(|out| float(f64::NEG_INFINITY, out)), "\"-Infinity\"");
    }
}
