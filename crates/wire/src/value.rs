//! The tree between bytes and shapes. Every protocol decodes into it and encodes from it, so that a new protocol (CBOR)
//! is one parser and one writer, and a new shape is known to all protocols at once.

use std::borrow::Cow;

use base::Timestamp;
use bytes::Bytes;

/// A decoded document, or an output about to be encoded. Text borrows from the body it was read from.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Absent or `null`; the two are the same to every service.
    Null,
    /// A boolean.
    Bool(bool),
    /// Any whole number.
    Int(i64),
    /// A double.
    Double(f64),
    /// A single-precision number, kept apart so that it is written with its own shortest digits.
    Single(f32),
    /// Text; before [`crate::conform::conform`] also base64 and textual numbers.
    Text(Cow<'a, str>),
    /// Decoded bytes.
    Blob(Bytes),
    /// A point in time.
    Time(Timestamp),
    /// A list.
    List(Vec<Value<'a>>),
    /// An object as it was read, or a map of the model. Of equal keys the last counts.
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
    /// The members of a structure in the order of its schema, absent ones as [`Value::Null`].
    Fields(Vec<Value<'a>>),
}

impl Value<'_> {
    /// What kind of value it is, in the words of the error that says it was the wrong kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) | Value::Double(_) | Value::Single(_) => "number",
            Value::Text(_) => "string",
            Value::Blob(_) => "blob",
            Value::Time(_) => "timestamp",
            Value::List(_) => "list",
            Value::Map(_) | Value::Fields(_) => "object",
        }
    }
}
