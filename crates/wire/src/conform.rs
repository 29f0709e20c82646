//! Checks a document against a schema, and turns it into the form that the typed shapes are made from: members in the
//! schema's order, base64 decoded, numbers of the right kind. One pass finds every broken constraint.

use std::borrow::Cow;
use std::fmt;

use base::Timestamp;
use bytes::Bytes;

use crate::limits::{QUOTED_CHARS_MAX, VIOLATIONS_MAX};
use crate::schema::{Kind, Length, Member, Schema};
use crate::value::Value;

/// How scalars are written in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// Numbers as numbers, times as epoch seconds, blobs as base64 text.
    Json,
    /// Numbers as numbers, times as tagged milliseconds, blobs as bytes.
    Cbor,
    /// The same, but an untagged time is seconds.
    RpcCbor,
    /// Everything as text: headers and forms. Times as epoch seconds or ISO 8601.
    Text,
}

/// The document does not have the form that its schema demands: text where a number belongs, and the like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

/// The constraints that a request breaks, in AWS's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    listed: Vec<String>,
    count: usize,
}

impl Violations {
    /// True when every constraint holds.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.listed.len() < VIOLATIONS_MAX {
            self.listed.push(text());
        }
    }
}

/// `2 validation errors detected: Value ... failed to satisfy constraint: ...; Value ...`
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(
            f,
            "{} validation error{plural} detected: {}",
            self.count,
            self.listed.join("; ")
        )
    }
}

/// `value` in the form of `schema`, and the constraints it breaks. Members that the schema does not know are left out. A
/// required member that is absent becomes [`Value::Null`], so a value with violations is not fit for a typed shape.
pub fn conform<'a>(
    value: Value<'a>,
    schema: &'static Schema,
    notation: Notation,
) -> Result<(Value<'a>, Violations), Malformed> {
    let mut walk = Walk {
        notation,
        violations: Violations::default(),
    };
    let value = walk.value(value, schema, &Path::Root)?;
    Ok((value, walk.violations))
}

/// Where in the document the walk is; lives on the stack, becomes text only for a message.
enum Path<'p> {
    Root,
    Member(&'p Path<'p>, &'static str),
    Item(&'p Path<'p>, usize),
    MapValue(&'p Path<'p>),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = |f: &mut fmt::Formatter<'_>, parent: &Path<'_>| match parent {
            Path::Root => Ok(()),
            parent => write!(f, "{parent}."),
        };
        match self {
            Path::Root => Ok(()),
            Path::Member(parent, name) => {
                dot(f, parent)?;
                let mut letters = name.chars();
                let first = letters.next().map(|c| c.to_ascii_lowercase());
                first
                    .into_iter()
                    .chain(letters)
                    .try_for_each(|c| fmt::Write::write_char(f, c))
            }
            Path::Item(parent, index) => {
                dot(f, parent)?;
                write!(f, "{}.member", index + 1)
            }
            Path::MapValue(parent) => {
                dot(f, parent)?;
                f.write_str("value")
            }
        }
    }
}

struct Walk {
    notation: Notation,
    violations: Violations,
}

impl Walk {
    fn value<'a>(
        &mut self,
        value: Value<'a>,
        schema: &'static Schema,
        path: &Path<'_>,
    ) -> Result<Value<'a>, Malformed> {
        if value == Value::Null {
            return Ok(Value::Null);
        }
        match (&schema.kind, value) {
            (Kind::Structure(members), Value::Map(entries)) => self.structure(entries, members, path),
            (Kind::List { element, length }, Value::List(items)) => {
                self.length(items.len(), *length, path);
                let mut conformed = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    let at = Path::Item(path, index);
                    conformed.push(self.not_null(item, element, &at)?);
                }
                Ok(Value::List(conformed))
            }
            (Kind::Map { key, value, length }, Value::Map(entries)) => self.map(entries, (key, value, *length), path),
            (_, scalar) => self.scalar(scalar, schema, path),
        }
    }

    fn not_null<'a>(
        &mut self,
        item: Value<'a>,
        schema: &'static Schema,
        at: &Path<'_>,
    ) -> Result<Value<'a>, Malformed> {
        if item == Value::Null {
            return Err(Malformed(format!("{at}: null is not allowed in a list or map")));
        }
        self.value(item, schema, at)
    }

    fn structure<'a>(
        &mut self,
        mut entries: Vec<(Cow<'a, str>, Value<'a>)>,
        members: &'static [Member],
        path: &Path<'_>,
    ) -> Result<Value<'a>, Malformed> {
        let mut fields = Vec::with_capacity(members.len());
        for member in members {
            let at = Path::Member(path, member.name);
            let found = entries.iter_mut().rev().find(|(name, _)| name == member.name);
            let value = found.map_or(Value::Null, |(_, value)| std::mem::replace(value, Value::Null));
            if value == Value::Null && member.required {
                self.violations
                    .add(|| format!("Value null at '{at}' failed to satisfy constraint: Member must not be null"));
            }
            fields.push(self.value(value, member.schema, &at)?);
        }
        Ok(Value::Fields(fields))
    }

    fn map<'a>(
        &mut self,
        entries: Vec<(Cow<'a, str>, Value<'a>)>,
        (key, value, length): (&'static Schema, &'static Schema, Length),
        path: &Path<'_>,
    ) -> Result<Value<'a>, Malformed> {
        self.length(entries.len(), length, path);
        let mut conformed = Vec::with_capacity(entries.len());
        for (name, item) in entries {
            let broken = text_constraints(&name, key);
            if !broken.is_empty() {
                self.violations.add(|| {
                    format!(
                        "Value at '{path}' failed to satisfy constraint: Map keys must satisfy constraint: [{}]",
                        broken.join(", ")
                    )
                });
            }
            let item = self.not_null(item, value, &Path::MapValue(path))?;
            conformed.push((name, item));
        }
        Ok(Value::Map(conformed))
    }

    fn length(&mut self, found: usize, length: Length, path: &Path<'_>) {
        if let Some(broken) = length_constraint(found as u64, length) {
            self.violations
                .add(|| format!("Value at '{path}' failed to satisfy constraint: {broken}"));
        }
    }

    fn scalar<'a>(
        &mut self,
        value: Value<'a>,
        schema: &'static Schema,
        path: &Path<'_>,
    ) -> Result<Value<'a>, Malformed> {
        let kind = value.kind();
        let wrong = |wanted: &str| Malformed(format!("{path}: a {kind} cannot be read as a {wanted}"));
        let textual = self.notation == Notation::Text;
        match schema.kind {
            Kind::Text { .. } => match value {
                Value::Text(text) => {
                    for broken in text_constraints(&text, schema) {
                        self.broken(schema, path, Some(&text), &broken);
                    }
                    Ok(Value::Text(text))
                }
                _ => Err(wrong("string")),
            },
            Kind::Integer(min, max) | Kind::Long(min, max) => {
                let number = whole(&value, textual).ok_or_else(|| wrong("whole number"))?;
                if matches!(schema.kind, Kind::Integer(..)) && i32::try_from(number).is_err() {
                    return Err(Malformed(format!("{path}: {number} does not fit in 32 bits")));
                }
                if number < min || number > max {
                    let (than, bound) = if number < min { ("greater", min) } else { ("less", max) };
                    let broken = format!("Member must have value {than} than or equal to {bound}");
                    self.broken(schema, path, Some(&number.to_string()), &broken);
                }
                Ok(Value::Int(number))
            }
            Kind::Float(min, max) | Kind::Double(min, max) => {
                let number = real(&value, textual).ok_or_else(|| wrong("number"))?;
                if number < min || number > max {
                    let (than, bound) = if number < min { ("greater", min) } else { ("less", max) };
                    let broken = format!("Member must have value {than} than or equal to {bound}");
                    self.broken(schema, path, Some(&number.to_string()), &broken);
                }
                let single = matches!(schema.kind, Kind::Float(..));
                Ok(if single {
                    Value::Single(number as f32)
                } else {
                    Value::Double(number)
                })
            }
            Kind::Boolean => match value {
                Value::Bool(flag) => Ok(Value::Bool(flag)),
                // The C producer writes 1 and 0.
                Value::Text(text) if textual => match text.trim().to_ascii_lowercase().as_str() {
                    "true" | "1" => Ok(Value::Bool(true)),
                    "false" | "0" => Ok(Value::Bool(false)),
                    _ => Err(wrong("boolean")),
                },
                _ => Err(wrong("boolean")),
            },
            Kind::Blob(length) => {
                let bytes =
                    blob(value, self.notation).ok_or_else(|| Malformed(format!("{path}: not base64 or bytes")))?;
                if let Some(broken) = length_constraint(bytes.len() as u64, length) {
                    self.broken(schema, path, None, &broken);
                }
                Ok(Value::Blob(bytes))
            }
            Kind::Timestamp => time(&value, self.notation)
                .map(Value::Time)
                .ok_or_else(|| wrong("timestamp")),
            Kind::Structure(_) | Kind::Map { .. } => Err(wrong("object")),
            Kind::List { .. } => Err(wrong("list")),
        }
    }

    fn broken(&mut self, schema: &Schema, path: &Path<'_>, value: Option<&str>, constraint: &str) {
        let shown = value.filter(|_| !schema.sensitive).map(|text| {
            let mut quoted: String = text.chars().take(QUOTED_CHARS_MAX).collect();
            if quoted.len() < text.len() {
                quoted.push_str("...");
            }
            format!(" '{quoted}'")
        });
        let shown = shown.unwrap_or_default();
        self.violations
            .add(|| format!("Value{shown} at '{path}' failed to satisfy constraint: {constraint}"));
    }
}

fn text_constraints(text: &str, schema: &Schema) -> Vec<String> {
    let Kind::Text {
        length,
        pattern,
        values,
    } = &schema.kind
    else {
        return Vec::new();
    };
    let mut broken = Vec::new();
    if !values.is_empty() && !values.contains(&text) {
        broken.push(format!("Member must satisfy enum value set: [{}]", values.join(", ")));
    }
    let wrong_length = length_constraint(text.chars().count() as u64, *length);
    // A pattern is only tried on a text of legal length: its cost grows with the text.
    if let Some(pattern) = pattern.filter(|p| text.len() as u64 > length.max.saturating_mul(4) || !p.matches(text)) {
        broken.push(format!(
            "Member must satisfy regular expression pattern: {}",
            pattern.text
        ));
    }
    broken.extend(wrong_length);
    broken
}

fn length_constraint(found: u64, length: Length) -> Option<String> {
    if found < length.min {
        return Some(format!(
            "Member must have length greater than or equal to {}",
            length.min
        ));
    }
    (found > length.max).then(|| format!("Member must have length less than or equal to {}", length.max))
}

fn whole(value: &Value<'_>, textual: bool) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        // 1.0 and 1e3 are whole numbers to every JSON library that has only one kind of number.
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => Some(*number as i64),
        Value::Text(text) if textual => text.trim().parse().ok(),
        _ => None,
    }
}

fn real(value: &Value<'_>, textual: bool) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        Value::Single(number) => Some(f64::from(*number)),
        Value::Text(text) if textual => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

fn blob(value: Value<'_>, notation: Notation) -> Option<Bytes> {
    match value {
        Value::Text(text) if !matches!(notation, Notation::Cbor | Notation::RpcCbor) => base64_simd::STANDARD
            .decode_to_vec(text.as_bytes())
            .ok()
            .map(Bytes::from),
        Value::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

fn time(value: &Value<'_>, notation: Notation) -> Option<Timestamp> {
    let time = match value {
        Value::Time(time) => Some(*time),
        // Without its tag the number is of the same unit.
        Value::Int(millis) if notation == Notation::Cbor => Some(Timestamp::from_millis(*millis)),
        Value::Int(seconds) => seconds.checked_mul(1000).map(Timestamp::from_millis),
        Value::Double(seconds) => Timestamp::from_seconds(*seconds),
        Value::Text(text) if notation == Notation::Text => match text.trim().parse::<f64>() {
            Ok(seconds) => Timestamp::from_seconds(seconds),
            Err(_) => crate::time::parse_iso8601(text.trim()),
        },
        _ => None,
    };
    time.filter(|time| TIMES.contains(&time.millis()))
}

/// The years 1 to 9999: what every client can read back, and every notation write.
const TIMES: std::ops::Range<i64> = -62_135_596_800_000..253_402_300_800_000;

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two readers of base64 agree on what is base64, and on what it says.
        #[test]
        fn base64_is_read_strictly(text in "([A-Za-z0-9+/]{4}){0,40}[A-Za-z0-9+/=_ \n-]{0,4}") {
            let ours = blob(Value::Text(Cow::Borrowed(&text)), Notation::Json);
            prop_assert_eq!(ours, STANDARD.decode(&text).ok().map(Bytes::from));
        }

        #[test]
        fn base64_is_written_as_others_write_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            crate::json::write_base64(&mut out, &bytes);
            prop_assert_eq!(String::from_utf8(out).ok(), Some(STANDARD.encode(&bytes)));
        }
    }
}
