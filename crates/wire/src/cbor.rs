//! CBOR (RFC 8949) to and from [`Value`], as Kinesis speaks it: maps and arrays of known and of unknown length, bytes as
//! bytes, and times as milliseconds since the epoch under tag 1 (not the seconds that the RFC gives the tag).

use std::borrow::Cow;

use base::Timestamp;
use bytes::Bytes;

use crate::conform::Malformed;
use crate::limits::{DOCUMENT_DEPTH_MAX, DOCUMENT_NODES_MAX};
use crate::schema::{Kind, Schema};
use crate::value::Value;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// The tag of a time.
const EPOCH: u64 = 1;

/// Additional information of a head: length unknown, ended by a break.
const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;

/// Room made for a list before its items are there; its length is the sender's word.
const CAPACITY_MAX: usize = 64;

/// Reads one document. An empty body is an empty map.
pub fn parse(body: &[u8]) -> Result<Value<'_>, Malformed> {
    read(body, 1.0)
}

/// The same in the protocol rpc-v2-cbor, where times are seconds, as the RFC has them.
pub fn parse_rpc(body: &[u8]) -> Result<Value<'_>, Malformed> {
    read(body, 1000.0)
}

fn read(body: &[u8], millis_per_tick: f64) -> Result<Value<'_>, Malformed> {
    if body.is_empty() {
        return Ok(Value::Map(Vec::new()));
    }
    let mut reader = Reader {
        rest: body,
        nodes: 0,
        millis_per_tick,
    };
    let value = reader.value(0)?;
    if reader.rest.is_empty() {
        return Ok(value);
    }
    Err(bad("bytes behind the document"))
}

fn bad(what: &str) -> Malformed {
    Malformed(format!("CBOR: {what}"))
}

struct Reader<'a> {
    rest: &'a [u8],
    nodes: usize,
    /// What a time's number counts.
    millis_per_tick: f64,
}

/// First byte of an item and its argument; `None` where the length is unknown.
struct Head {
    major: u8,
    info: u8,
    argument: Option<u64>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| bad("the document ends too early"))?;
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| bad("the document ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, Malformed> {
        let first = self.take(1)?.first().copied().unwrap_or(BREAK);
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..=23 => Some(u64::from(info)),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                Some(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
            }
            INDEFINITE => None,
            _ => return Err(bad("a reserved length")),
        };
        Ok(Head { major, info, argument })
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Malformed> {
        self.nodes += 1;
        if self.nodes > DOCUMENT_NODES_MAX {
            return Err(bad("too many values"));
        }
        if depth > DOCUMENT_DEPTH_MAX {
            return Err(bad("nested too deep"));
        }
        let head = self.head()?;
        match (head.major, head.argument) {
            (UNSIGNED, Some(number)) => Ok(whole(i128::from(number))),
            (NEGATIVE, Some(number)) => Ok(whole(-1 - i128::from(number))),
            (BYTES, length) => Ok(Value::Blob(match length {
                Some(length) => Bytes::copy_from_slice(self.take(length)?),
                None => self.pieces(BYTES)?.into(),
            })),
            (TEXT, length) => self.text(length).map(Value::Text),
            (ARRAY, length) => self.list(length, depth),
            (MAP, length) => self.map(length, depth),
            (TAG, Some(tag)) => self.tagged(tag, depth),
            (_, argument) => self.simple(head.info, argument),
        }
    }

    fn text(&mut self, length: Option<u64>) -> Result<Cow<'a, str>, Malformed> {
        let not_utf8 = |_| bad("text that is not UTF-8");
        match length {
            Some(length) => std::str::from_utf8(self.take(length)?)
                .map(Cow::Borrowed)
                .map_err(not_utf8),
            None => String::from_utf8(self.pieces(TEXT)?)
                .map(Cow::Owned)
                .map_err(|_| bad("text that is not UTF-8")),
        }
    }

    /// The pieces of a text or of bytes of unknown length.
    fn pieces(&mut self, major: u8) -> Result<Vec<u8>, Malformed> {
        let mut all = Vec::new();
        while !self.at_break()? {
            let head = self.head()?;
            let length = head.argument.filter(|_| head.major == major);
            all.extend_from_slice(self.take(length.ok_or_else(|| bad("a piece of another kind"))?)?);
        }
        Ok(all)
    }

    /// True, and the break taken, where one is next.
    fn at_break(&mut self) -> Result<bool, Malformed> {
        let next = self.rest.first().ok_or_else(|| bad("the document ends too early"))?;
        if *next != BREAK {
            return Ok(false);
        }
        self.take(1)?;
        Ok(true)
    }

    /// True while a list or map has more entries.
    fn more(&mut self, length: Option<u64>, seen: usize) -> Result<bool, Malformed> {
        match length {
            Some(length) => Ok((seen as u64) < length),
            None => self.at_break().map(|ended| !ended),
        }
    }

    fn list(&mut self, length: Option<u64>, depth: usize) -> Result<Value<'a>, Malformed> {
        let room = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
        let mut items = Vec::with_capacity(room.min(CAPACITY_MAX));
        while self.more(length, items.len())? {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, length: Option<u64>, depth: usize) -> Result<Value<'a>, Malformed> {
        let mut entries = Vec::new();
        while self.more(length, entries.len())? {
            let head = self.head()?;
            if head.major != TEXT {
                return Err(bad("a member name that is not text"));
            }
            let name = self.text(head.argument)?;
            entries.push((name, self.value(depth + 1)?));
        }
        Ok(Value::Map(entries))
    }

    /// Tags other than that of a time say nothing that a service needs.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value<'a>, Malformed> {
        let value = self.value(depth + 1)?;
        if tag != EPOCH {
            return Ok(value);
        }
        let ticks = match value {
            Value::Int(ticks) => ticks as f64,
            Value::Double(ticks) => ticks,
            _ => return Err(bad("a time that is not a number")),
        };
        let millis = ticks * self.millis_per_tick;
        if !millis.is_finite() || millis.abs() >= 9.0e15 {
            return Err(bad("a time that is out of range"));
        }
        Ok(Value::Time(Timestamp::from_millis(millis.round() as i64)))
    }

    fn simple(&mut self, info: u8, argument: Option<u64>) -> Result<Value<'a>, Malformed> {
        let bits = argument.unwrap_or(0);
        match info {
            20 => Ok(Value::Bool(false)),
            21 => Ok(Value::Bool(true)),
            22 | 23 => Ok(Value::Null),
            25 => Ok(Value::Double(half(bits as u16))),
            26 => Ok(Value::Double(f64::from(f32::from_bits(bits as u32)))),
            27 => Ok(Value::Double(f64::from_bits(bits))),
            _ => Err(bad("a value of no known kind")),
        }
    }
}

fn whole(number: i128) -> Value<'static> {
    i64::try_from(number).map_or(Value::Double(number as f64), Value::Int)
}

/// A half-precision number.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// Writes a shape's value; absent members and those that headers carry are left out.
pub fn write(value: &Value<'_>, schema: &'static Schema) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, value, schema, &write_scalar);
    out
}

/// The same in the protocol rpc-v2-cbor, where times are seconds.
pub fn write_rpc(value: &Value<'_>, schema: &'static Schema) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write_value(&mut out, value, schema, &|out, value| match value {
        Value::Time(time) => {
            write_head(out, TAG, EPOCH);
            write_scalar(out, &Value::Double(time.millis() as f64 / 1000.0));
        }
        other => write_scalar(out, other),
    });
    out
}

fn write_value(
    out: &mut Vec<u8>,
    value: &Value<'_>,
    schema: &'static Schema,
    scalar: &dyn Fn(&mut Vec<u8>, &Value<'_>),
) {
    match (value, &schema.kind) {
        (Value::Fields(values), Kind::Structure(members)) => {
            let present = || {
                values
                    .iter()
                    .zip(members.iter())
                    .filter(|(v, m)| **v != Value::Null && m.header.is_none())
            };
            write_head(out, MAP, present().count() as u64);
            for (value, member) in present() {
                write_text(out, member.name);
                write_value(out, value, member.schema, scalar);
            }
        }
        (Value::List(items), Kind::List { element, .. }) => {
            write_head(out, ARRAY, items.len() as u64);
            items.iter().for_each(|item| write_value(out, item, element, scalar));
        }
        (Value::Map(entries), Kind::Map { value: inner, .. }) => {
            write_head(out, MAP, entries.len() as u64);
            for (key, value) in entries {
                write_text(out, key);
                write_value(out, value, inner, scalar);
            }
        }
        (value, _) => scalar(out, value),
    }
}

fn write_scalar(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Bool(flag) => out.push(if *flag { 0xf5 } else { 0xf4 }),
        Value::Int(number) => write_whole(out, *number),
        Value::Double(number) => {
            out.push(0xfb);
            out.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        Value::Single(number) => {
            out.push(0xfa);
            out.extend_from_slice(&number.to_bits().to_be_bytes());
        }
        Value::Text(text) => write_text(out, text),
        Value::Blob(bytes) => {
            write_head(out, BYTES, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::Time(time) => {
            write_head(out, TAG, EPOCH);
            write_whole(out, time.millis());
        }
        _ => out.push(0xf6),
    }
}

fn write_whole(out: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(number) => write_head(out, UNSIGNED, number),
        Err(_) => write_head(out, NEGATIVE, (-1 - number) as u64),
    }
}

/// A map of texts, for errors.
pub fn write_texts(texts: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    write_head(&mut out, MAP, texts.len() as u64);
    for (name, text) in texts {
        write_text(&mut out, name);
        write_text(&mut out, text);
    }
    out
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The shortest head, as every encoder of AWS's SDKs writes it.
fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let first = major << 5;
    match argument {
        0..=23 => out.push(first | argument as u8),
        24..=0xff => out.extend_from_slice(&[first | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(first | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(first | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(first | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 8949, appendix A.
        for (bytes, value) in [
            (&b"\x18\x64"[..], Value::Int(100)),
            (b"\x39\x03\xe7", Value::Int(-1000)),
            (b"\xf9\x3e\x00", Value::Double(1.5)),
            (b"\xf9\x00\x01", Value::Double(5.960_464_477_539_063e-8)),
            (b"\xfa\x47\xc3\x50\x00", Value::Double(100_000.0)),
            (b"\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a", Value::Double(1.1)),
            (b"\xf5", Value::Bool(true)),
            (b"\xf6", Value::Null),
            (b"\x7f\x65strea\x64ming\xff", Value::Text("streaming".into())),
            (
                b"\x5f\x42\x01\x02\x43\x03\x04\x05\xff",
                Value::Blob(Bytes::from_static(&[1, 2, 3, 4, 5])),
            ),
            (
                b"\x9f\x01\x82\x02\x03\xff",
                Value::List(vec![Value::Int(1), Value::List(vec![Value::Int(2), Value::Int(3)])]),
            ),
            (
                b"\xbf\x63Fun\xf5\x63Amt\x21\xff",
                Value::Map(vec![("Fun".into(), Value::Bool(true)), ("Amt".into(), Value::Int(-2))]),
            ),
            (
                b"\xc1\x1a\x51\x4b\x67\xb0",
                Value::Time(Timestamp::from_millis(1_363_896_240)),
            ),
        ] {
            assert_eq!(parse(bytes), Ok(value), "{bytes:02x?}");
        }
        assert_eq!(
            parse(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
            Ok(Value::Double(18_446_744_073_709_551_615.0))
        );
    }

    #[test]
    fn a_hostile_document_is_refused_without_taking_memory() {
        let deep = vec![0x81; 100_000];
        let many = [&[0x9f][..], &[0x80; 300_000], &[0xff]].concat();
        for bytes in [
            &b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\x9f",
            b"\xff",
            b"\x1c",
            b"\x61\xff",
            b"\xa1\x01\x01",
            b"\x5f\x61a\xff",
            b"\x5f\x5f\xff\xff",
            b"\xc1\x61a",
            b"\xf8\xff",
            b"\x00\x00",
            &deep,
            &many,
        ] {
            assert!(parse(bytes).is_err(), "{:02x?}", bytes.get(..16));
        }
    }
}
