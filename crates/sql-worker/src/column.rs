//! A column as it grows, value by value. It can be cut back to any earlier length, so that a record that does not fit
//! leaves no trace, and is handed to Arrow without being copied.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use sql::hive::HiveType;
use sql::job::Job;

/// The schema of a job's file: every column may be null.
pub fn schema(job: &Job) -> SchemaRef {
    let fields = job
        .columns
        .iter()
        .map(|column| Field::new(&column.name, data_type(&column.hive), true));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

/// Arrow's type for one of Hive's. Timestamps are microseconds without a time zone, as Hive has none.
fn data_type(hive: &HiveType) -> DataType {
    match hive {
        HiveType::Boolean => DataType::Boolean,
        HiveType::TinyInt => DataType::Int8,
        HiveType::SmallInt => DataType::Int16,
        HiveType::Int => DataType::Int32,
        HiveType::BigInt => DataType::Int64,
        HiveType::Float => DataType::Float32,
        HiveType::Double => DataType::Float64,
        HiveType::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale as i8),
        HiveType::String | HiveType::Varchar(_) | HiveType::Char(_) => DataType::Utf8,
        HiveType::Binary => DataType::Binary,
        HiveType::Date => DataType::Date32,
        HiveType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        HiveType::Array(item) => DataType::List(Arc::new(item_field(item))),
        HiveType::Map(key, value) => DataType::Map(Arc::new(entries_field(key, value)), false),
        HiveType::Struct(fields) => DataType::Struct(struct_fields(fields)),
    }
}

fn item_field(item: &HiveType) -> Field {
    Field::new("element", data_type(item), true)
}

fn entry_fields(key: &HiveType, value: &HiveType) -> Fields {
    let fields = [
        Field::new("key", data_type(key), false),
        Field::new("value", data_type(value), true),
    ];
    Fields::from_iter(fields)
}

fn entries_field(key: &HiveType, value: &HiveType) -> Field {
    Field::new("key_value", DataType::Struct(entry_fields(key, value)), false)
}

fn struct_fields(fields: &[(String, HiveType)]) -> Fields {
    fields
        .iter()
        .map(|(name, hive)| Field::new(name, data_type(hive), true))
        .collect()
}

/// A column as it grows.
#[derive(Debug)]
pub struct Column {
    pub(crate) hive: HiveType,
    valid: Vec<bool>,
    pub(crate) data: Data,
}

/// The values of a column; a null has some value, too.
#[derive(Debug)]
pub(crate) enum Data {
    Bool(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Date(Vec<i32>),
    Timestamp(Vec<i64>),
    /// Texts and bytes: where each ends, and all of them.
    Text(Vec<i32>, Vec<u8>),
    Binary(Vec<i32>, Vec<u8>),
    List(Vec<i32>, Box<Column>),
    Map(Vec<i32>, Box<(Column, Column)>),
    Struct(Group),
}

/// Columns that are named, and how their names are found.
#[derive(Debug)]
pub struct Group {
    pub(crate) names: Vec<String>,
    pub(crate) columns: Vec<Column>,
    /// The columns' names as keys of JSON are looked up.
    pub(crate) keys: Vec<String>,
    pub(crate) by_key: std::collections::HashMap<String, usize>,
    /// Where the next key is expected: records have their keys in the same order.
    pub(crate) next: usize,
}

impl Column {
    /// An empty one. `key` makes the key of JSON under which a field of a struct is looked up.
    pub fn new(hive: &HiveType, key: &dyn Fn(&str) -> String) -> Self {
        let data = match hive {
            HiveType::Boolean => Data::Bool(Vec::new()),
            HiveType::TinyInt => Data::Int8(Vec::new()),
            HiveType::SmallInt => Data::Int16(Vec::new()),
            HiveType::Int => Data::Int32(Vec::new()),
            HiveType::BigInt => Data::Int64(Vec::new()),
            HiveType::Float => Data::Float32(Vec::new()),
            HiveType::Double => Data::Float64(Vec::new()),
            HiveType::Decimal(..) => Data::Decimal(Vec::new()),
            HiveType::Date => Data::Date(Vec::new()),
            HiveType::Timestamp => Data::Timestamp(Vec::new()),
            HiveType::String | HiveType::Varchar(_) | HiveType::Char(_) => Data::Text(vec![0], Vec::new()),
            HiveType::Binary => Data::Binary(vec![0], Vec::new()),
            HiveType::Array(item) => Data::List(vec![0], Box::new(Column::new(item, key))),
            HiveType::Map(k, v) => Data::Map(vec![0], Box::new((Column::new(k, key), Column::new(v, key)))),
            HiveType::Struct(fields) => {
                let fields = fields.iter().map(|(name, hive)| (name.as_str(), hive, key(name)));
                Data::Struct(Group::new(fields, key))
            }
        };
        Column {
            hive: hive.clone(),
            valid: Vec::new(),
            data,
        }
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.valid.is_empty()
    }

    /// Says that a value was put into `data`.
    pub(crate) fn is_there(&mut self) {
        self.valid.push(true);
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        self.valid.push(false);
        match &mut self.data {
            Data::Bool(values) => values.push(false),
            Data::Int8(values) => values.push(0),
            Data::Int16(values) => values.push(0),
            Data::Int32(values) | Data::Date(values) => values.push(0),
            Data::Int64(values) | Data::Timestamp(values) => values.push(0),
            Data::Float32(values) => values.push(0.0),
            Data::Float64(values) => values.push(0.0),
            Data::Decimal(values) => values.push(0),
            Data::Text(ends, _) | Data::Binary(ends, _) | Data::List(ends, _) | Data::Map(ends, _) => {
                let end = ends.last().copied().unwrap_or_default();
                ends.push(end);
            }
            Data::Struct(group) => group.columns.iter_mut().for_each(Column::push_null),
        }
    }

    /// Cuts it back to an earlier length, also where the last value was begun and not ended.
    pub fn truncate(&mut self, length: usize) {
        self.valid.truncate(length);
        let end = |ends: &mut Vec<i32>| {
            ends.truncate(length + 1);
            ends.last().copied().unwrap_or_default() as usize
        };
        match &mut self.data {
            Data::Bool(values) => values.truncate(length),
            Data::Int8(values) => values.truncate(length),
            Data::Int16(values) => values.truncate(length),
            Data::Int32(values) | Data::Date(values) => values.truncate(length),
            Data::Int64(values) | Data::Timestamp(values) => values.truncate(length),
            Data::Float32(values) => values.truncate(length),
            Data::Float64(values) => values.truncate(length),
            Data::Decimal(values) => values.truncate(length),
            Data::Text(ends, bytes) | Data::Binary(ends, bytes) => bytes.truncate(end(ends)),
            Data::List(ends, items) => items.truncate(end(ends)),
            Data::Map(ends, entries) => {
                let end = end(ends);
                entries.0.truncate(end);
                entries.1.truncate(end);
            }
            Data::Struct(group) => group.columns.iter_mut().for_each(|column| column.truncate(length)),
        }
    }

    /// The column as Arrow has it; it is empty afterwards.
    pub fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let valid = std::mem::take(&mut self.valid);
        let nulls = nulls(&valid);
        Ok(match &mut self.data {
            Data::Bool(values) => {
                let values = std::mem::take(values);
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Data::Int8(values) => primitive::<Int8Type>(values, nulls),
            Data::Int16(values) => primitive::<Int16Type>(values, nulls),
            Data::Int32(values) => primitive::<Int32Type>(values, nulls),
            Data::Int64(values) => primitive::<Int64Type>(values, nulls),
            Data::Float32(values) => primitive::<Float32Type>(values, nulls),
            Data::Float64(values) => primitive::<Float64Type>(values, nulls),
            Data::Date(values) => primitive::<Date32Type>(values, nulls),
            Data::Timestamp(values) => primitive::<TimestampMicrosecondType>(values, nulls),
            Data::Decimal(values) => {
                let values = PrimitiveArray::<Decimal128Type>::new(std::mem::take(values).into(), nulls);
                Arc::new(values.with_data_type(data_type(&self.hive)))
            }
            Data::Text(ends, bytes) => {
                let bytes = Buffer::from(std::mem::take(bytes));
                Arc::new(StringArray::try_new(offsets(ends), bytes, nulls)?)
            }
            Data::Binary(ends, bytes) => {
                let bytes = Buffer::from(std::mem::take(bytes));
                Arc::new(BinaryArray::try_new(offsets(ends), bytes, nulls)?)
            }
            Data::List(ends, items) => {
                let field = Arc::new(item_field(&items.hive));
                Arc::new(ListArray::try_new(field, offsets(ends), items.take()?, nulls)?)
            }
            Data::Map(ends, entries) => {
                let (key, value) = (&entries.0.hive, &entries.1.hive);
                let (fields, field) = (entry_fields(key, value), entries_field(key, value));
                let entries = StructArray::try_new(fields, vec![entries.0.take()?, entries.1.take()?], None)?;
                Arc::new(MapArray::try_new(
                    Arc::new(field),
                    offsets(ends),
                    entries,
                    nulls,
                    false,
                )?)
            }
            Data::Struct(group) => {
                let fields: Fields = group
                    .names
                    .iter()
                    .zip(&group.columns)
                    .map(|(name, column)| Field::new(name, data_type(&column.hive), true))
                    .collect();
                let columns = group
                    .columns
                    .iter_mut()
                    .map(Column::take)
                    .collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, columns, nulls, valid.len())?)
            }
        })
    }
}

impl Group {
    /// Empty columns: their names, types and keys.
    pub fn new<'a>(
        fields: impl Iterator<Item = (&'a str, &'a HiveType, String)>,
        key: &dyn Fn(&str) -> String,
    ) -> Self {
        let mut group = Group {
            names: Vec::new(),
            columns: Vec::new(),
            keys: Vec::new(),
            by_key: std::collections::HashMap::new(),
            next: 0,
        };
        for (name, hive, json_key) in fields {
            group.by_key.entry(json_key.clone()).or_insert(group.columns.len());
            group.names.push(name.to_owned());
            group.columns.push(Column::new(hive, key));
            group.keys.push(json_key);
        }
        group
    }
}

fn nulls(valid: &[bool]) -> Option<NullBuffer> {
    if valid.iter().all(|valid| *valid) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(valid.len());
    bits.append_slice(valid);
    Some(NullBuffer::new(bits.finish()))
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(
        ScalarBuffer::from(std::mem::take(values)),
        nulls,
    ))
}

fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])))
}
