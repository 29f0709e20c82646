//! Columns that grow by values of JSON and can be cut back: a record that turns out wrong in its middle leaves nothing.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray, Time32MillisecondArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, TimeUnit};
use arrow::error::ArrowError;

/// Values of one column.
pub(super) struct Column {
    pub(super) values: Values,
    valid: Vec<bool>,
}

/// The values by their kind. A value that is NULL takes its place, as nothing, in each but lists' items.
pub(super) enum Values {
    Bool(Vec<bool>),
    /// Every integer; narrowed at the end, after it was found to fit.
    Int(Vec<i64>, Int),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal(Vec<i128>, u8, i8),
    Text(Vec<u8>, Vec<i32>),
    Bytes(Vec<u8>, Vec<i32>),
    List(Box<Column>, Vec<i32>, FieldRef),
    Struct(Vec<Column>, Fields),
    Map(Box<Column>, Box<Column>, Vec<i32>, FieldRef),
}

/// What an integer is in the end.
#[derive(Clone)]
pub(super) enum Int {
    I8,
    I16,
    I32,
    I64,
    Date,
    Time,
    Stamp(TimeUnit, Option<Arc<str>>),
}

impl Column {
    pub(super) fn new(data_type: &DataType) -> Result<Column, String> {
        let int = |int: Int| Values::Int(Vec::new(), int);
        let values = match data_type {
            DataType::Boolean => Values::Bool(Vec::new()),
            DataType::Int8 => int(Int::I8),
            DataType::Int16 => int(Int::I16),
            DataType::Int32 => int(Int::I32),
            DataType::Int64 => int(Int::I64),
            DataType::Date32 => int(Int::Date),
            DataType::Time32(TimeUnit::Millisecond) => int(Int::Time),
            DataType::Timestamp(unit, zone) => int(Int::Stamp(*unit, zone.clone())),
            DataType::Float32 => Values::Float(Vec::new()),
            DataType::Float64 => Values::Double(Vec::new()),
            DataType::Decimal128(digits, scale) => Values::Decimal(Vec::new(), *digits, *scale),
            DataType::Utf8 => Values::Text(Vec::new(), vec![0]),
            DataType::Binary => Values::Bytes(Vec::new(), vec![0]),
            DataType::List(item) => Values::List(Box::new(Column::new(item.data_type())?), vec![0], Arc::clone(item)),
            DataType::Struct(fields) => {
                let columns = fields.iter().map(|field| Column::new(field.data_type()));
                Values::Struct(columns.collect::<Result<_, _>>()?, fields.clone())
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err("a map without entries".to_owned());
                };
                let [key, value] = fields.as_ref() else {
                    return Err("a map without entries".to_owned());
                };
                let (key, value) = (Column::new(key.data_type())?, Column::new(value.data_type())?);
                Values::Map(Box::new(key), Box::new(value), vec![0], Arc::clone(entries))
            }
            other => return Err(format!("{other} cannot be read from JSON")),
        };
        Ok(Column {
            values,
            valid: Vec::new(),
        })
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Says that a value was added to `values`.
    pub(super) fn added(&mut self) {
        self.valid.push(true);
    }

    /// Adds NULL.
    pub(super) fn null(&mut self) {
        match &mut self.values {
            Values::Bool(values) => values.push(false),
            Values::Int(values, _) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Double(values) => values.push(0.0),
            Values::Decimal(values, ..) => values.push(0),
            Values::Text(_, ends) | Values::Bytes(_, ends) => again(ends),
            Values::List(_, ends, _) | Values::Map(_, _, ends, _) => again(ends),
            Values::Struct(columns, _) => columns.iter_mut().for_each(Column::null),
        }
        self.valid.push(false);
    }

    /// Leaves the first `len` values.
    pub(super) fn truncate(&mut self, len: usize) {
        self.valid.truncate(len);
        match &mut self.values {
            Values::Bool(values) => values.truncate(len),
            Values::Int(values, _) => values.truncate(len),
            Values::Float(values) => values.truncate(len),
            Values::Double(values) => values.truncate(len),
            Values::Decimal(values, ..) => values.truncate(len),
            Values::Text(bytes, ends) | Values::Bytes(bytes, ends) => bytes.truncate(cut(ends, len)),
            Values::List(items, ends, _) => items.truncate(cut(ends, len)),
            Values::Map(keys, values, ends, _) => {
                let entries = cut(ends, len);
                keys.truncate(entries);
                values.truncate(entries);
            }
            Values::Struct(columns, _) => columns.iter_mut().for_each(|column| column.truncate(len)),
        }
    }

    /// The column as it is in batches.
    pub(super) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let rows = self.valid.len();
        let nulls = self.valid.contains(&false).then(|| NullBuffer::from(self.valid));
        Ok(match self.values {
            Values::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::Int(values, int) => integers(values, int, nulls)?,
            Values::Float(values) => Arc::new(Float32Array::try_new(values.into(), nulls)?),
            Values::Double(values) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            Values::Decimal(values, digits, scale) => {
                Arc::new(Decimal128Array::try_new(values.into(), nulls)?.with_precision_and_scale(digits, scale)?)
            }
            Values::Text(bytes, ends) => Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?),
            Values::Bytes(bytes, ends) => {
                Arc::new(BinaryArray::try_new(offsets(ends), Buffer::from_vec(bytes), nulls)?)
            }
            Values::List(items, ends, field) => {
                Arc::new(ListArray::try_new(field, offsets(ends), items.finish()?, nulls)?)
            }
            Values::Struct(columns, fields) => {
                let arrays = columns.into_iter().map(Column::finish).collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, arrays, nulls, rows)?)
            }
            Values::Map(keys, values, ends, field) => {
                let DataType::Struct(fields) = field.data_type() else {
                    return Err(ArrowError::SchemaError("a map without entries".to_owned()));
                };
                let entries = StructArray::try_new(fields.clone(), vec![keys.finish()?, values.finish()?], None)?;
                Arc::new(MapArray::try_new(field, offsets(ends), entries, nulls, false)?)
            }
        })
    }
}

/// Ends are never less than the one before, and the first is 0: they are only pushed and cut.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

fn again(ends: &mut Vec<i32>) {
    let last = ends.last().copied().unwrap_or(0);
    ends.push(last);
}

/// Cuts the ends to `len` values; gives how much is left of what they point into.
fn cut(ends: &mut Vec<i32>, len: usize) -> usize {
    ends.truncate(len + 1);
    ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
}

/// An end, if what is pointed into is not too long for a batch.
pub(super) fn end(len: usize) -> Result<i32, String> {
    i32::try_from(len).map_err(|_| "more than 2 GiB in a column of a batch".to_owned())
}

fn integers(values: Vec<i64>, int: Int, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    fn narrow<T: TryFrom<i64> + Default>(values: Vec<i64>) -> Vec<T> {
        let narrow = |value| T::try_from(value).unwrap_or_default();
        values.into_iter().map(narrow).collect()
    }
    Ok(match int {
        Int::I8 => Arc::new(Int8Array::try_new(narrow::<i8>(values).into(), nulls)?),
        Int::I16 => Arc::new(Int16Array::try_new(narrow::<i16>(values).into(), nulls)?),
        Int::I32 => Arc::new(Int32Array::try_new(narrow::<i32>(values).into(), nulls)?),
        Int::I64 => Arc::new(Int64Array::try_new(values.into(), nulls)?),
        Int::Date => Arc::new(Date32Array::try_new(narrow::<i32>(values).into(), nulls)?),
        Int::Time => Arc::new(Time32MillisecondArray::try_new(narrow::<i32>(values).into(), nulls)?),
        Int::Stamp(TimeUnit::Microsecond, zone) => {
            Arc::new(TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone_opt(zone))
        }
        Int::Stamp(TimeUnit::Nanosecond, zone) => {
            Arc::new(TimestampNanosecondArray::try_new(values.into(), nulls)?.with_timezone_opt(zone))
        }
        Int::Stamp(_, zone) => {
            Arc::new(TimestampMillisecondArray::try_new(values.into(), nulls)?.with_timezone_opt(zone))
        }
    })
}
