//! JSON to and from [`Value`], with limits on nesting and size. Text without escapes borrows from the body.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use base::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::conform::Malformed;
use crate::limits::{DOCUMENT_DEPTH_MAX, DOCUMENT_NODES_MAX};
use crate::schema::{Kind, Schema};
use crate::value::Value;

/// Reads one JSON document. An empty body is an empty object, as AWS's services take it.
pub fn parse(body: &[u8]) -> Result<Value<'_>, Malformed> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Map(Vec::new()));
    }
    let nodes = Cell::new(0);
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = Seed {
        depth: 0,
        nodes: &nodes,
    };
    let value = seed.deserialize(&mut reader).map_err(|e| Malformed(e.to_string()))?;
    reader.end().map_err(|e| Malformed(e.to_string()))?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Seed<'n> {
    depth: usize,
    nodes: &'n Cell<usize>,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DOCUMENT_DEPTH_MAX {
            return Err(E::custom(format_args!(
                "nested deeper than {DOCUMENT_DEPTH_MAX} levels"
            )));
        }
        Ok(Seed {
            depth: self.depth + 1,
            nodes: self.nodes,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > DOCUMENT_NODES_MAX {
            return Err(D::Error::custom(format_args!("more than {DOCUMENT_NODES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Value::Double(number as f64), Value::Int))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Double(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Vec::new();
        while let Some(key) = entries.next_key_seed(KeySeed)? {
            map.push((key, entries.next_value_seed(inner)?));
        }
        Ok(Value::Map(map))
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Writes a shape's value; absent members and those that headers carry are left out.
pub fn write(value: &Value<'_>, schema: &'static Schema) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, value, schema);
    out
}

fn write_value(out: &mut Vec<u8>, value: &Value<'_>, schema: &'static Schema) {
    match (value, &schema.kind) {
        (Value::Fields(values), Kind::Structure(members)) => {
            let present = values
                .iter()
                .zip(members.iter())
                .filter(|(v, m)| **v != Value::Null && m.header.is_none());
            out.push(b'{');
            for (i, (value, member)) in present.enumerate() {
                separate(out, i);
                write_text(out, member.name);
                out.push(b':');
                write_value(out, value, member.schema);
            }
            out.push(b'}');
        }
        (Value::List(items), Kind::List { element, .. }) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                separate(out, i);
                write_value(out, item, element);
            }
            out.push(b']');
        }
        (Value::Map(entries), Kind::Map { value: inner, .. }) => {
            out.push(b'{');
            for (i, (key, value)) in entries.iter().enumerate() {
                separate(out, i);
                write_text(out, key);
                out.push(b':');
                write_value(out, value, inner);
            }
            out.push(b'}');
        }
        (scalar, _) => write_scalar(out, scalar),
    }
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_scalar(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Double(number) if number.is_finite() => write_number(out, number),
        Value::Single(number) if number.is_finite() => write_number(out, number),
        Value::Text(text) => write_text(out, text),
        Value::Blob(bytes) => {
            out.push(b'"');
            write_base64(out, bytes);
            out.push(b'"');
        }
        Value::Time(time) => write_time(out, *time),
        // JSON has no word for what is not a number.
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_number(out: &mut Vec<u8>, number: &impl serde::Serialize) {
    // Writing a finite number to memory does not fail.
    let _ = serde_json::to_writer(out, number);
}

/// Epoch seconds with as many decimals as there are.
fn write_time(out: &mut Vec<u8>, time: Timestamp) {
    let text = time.to_string();
    let short = if time.millis() % 1000 == 0 {
        text.split('.').next().unwrap_or(&text)
    } else {
        &text
    };
    out.extend_from_slice(short.as_bytes());
}

/// Writes a JSON string.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing text to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

/// Writes bytes as base64.
pub(crate) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    base64_simd::STANDARD.encode_append(bytes, out);
}
