//! As much CBOR as data streams speak. Read without a tree: what is not asked for is stepped over.

use serde_json::Value;

use crate::error::ClientError;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
pub const BYTES: u8 = 2;
pub const TEXT: u8 = 3;
pub const ARRAY: u8 = 4;
pub const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const BREAK: u8 = 0xff;

/// How deep answers are nested at most. Ours; those of data streams have five levels.
const DEPTH_MAX: u32 = 16;

fn bad(what: &str) -> ClientError {
    ClientError::Protocol(format!("CBOR: {what}"))
}

/// Where in an answer the reader is.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// How many entries a list or a map has; `None` until a break.
pub struct Entries(Option<u64>);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    fn take(&mut self, count: u64) -> Result<std::ops::Range<usize>, ClientError> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let end = end.filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| bad("the document ends too early"))?;
        let taken = self.at..end;
        self.at = end;
        Ok(taken)
    }

    /// Major type, additional information, argument (none: the length is unknown).
    fn head(&mut self) -> Result<(u8, u8, Option<u64>), ClientError> {
        let at = self.take(1)?.start;
        let first = self.bytes.get(at).copied().unwrap_or(BREAK);
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..=23 => Some(u64::from(info)),
            24..=27 => {
                let range = self.take(1 << (info - 24))?;
                let bytes = self.bytes.get(range).unwrap_or_default();
                Some(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
            }
            31 => None,
            _ => return Err(bad("a reserved length")),
        };
        Ok((major, info, argument))
    }

    /// The beginning of a list or a map; `None` for null.
    pub fn begin(&mut self, kind: u8) -> Result<Option<Entries>, ClientError> {
        match self.head()? {
            (major, _, length) if major == kind => Ok(Some(Entries(length))),
            (SIMPLE, 22 | 23, _) => Ok(None),
            _ => Err(bad("not the kind of value that the operation answers")),
        }
    }

    /// Whether another entry follows.
    pub fn more(&mut self, entries: &mut Entries) -> Result<bool, ClientError> {
        if let Some(left) = &mut entries.0 {
            let more = *left > 0;
            *left = left.saturating_sub(1);
            return Ok(more);
        }
        let next = self
            .bytes
            .get(self.at)
            .ok_or_else(|| bad("the document ends too early"))?;
        if *next == BREAK {
            self.at += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// Where a text or bytes lie; an empty range for null. In one piece, as data streams write them.
    pub fn range(&mut self, kind: u8) -> Result<std::ops::Range<usize>, ClientError> {
        match self.head()? {
            (major, _, Some(length)) if major == kind => self.take(length),
            (SIMPLE, 22 | 23, _) => Ok(self.at..self.at),
            _ => Err(bad("not the kind of value that the operation answers")),
        }
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'a str, ClientError> {
        let range = self.range(TEXT)?;
        text_at(self.bytes, range)
    }

    /// A whole number; a time's milliseconds. Null is 0.
    pub fn number(&mut self) -> Result<i64, ClientError> {
        match self.head()? {
            (UNSIGNED, _, Some(number)) => i64::try_from(number).map_err(|_| bad("a number out of range")),
            (NEGATIVE, _, Some(number)) => i64::try_from(number)
                .map(|number| -1 - number)
                .map_err(|_| bad("a number out of range")),
            (TAG, _, Some(_)) => self.number(),
            (SIMPLE, 26, Some(bits)) => Ok(f64::from(f32::from_bits(bits as u32)).round() as i64),
            (SIMPLE, 27, Some(bits)) => Ok(f64::from_bits(bits).round() as i64),
            (SIMPLE, 22 | 23, _) => Ok(0),
            _ => Err(bad("not a number")),
        }
    }

    /// Steps over a value.
    pub fn skip(&mut self) -> Result<(), ClientError> {
        self.skip_within(0)
    }

    fn skip_within(&mut self, depth: u32) -> Result<(), ClientError> {
        if depth > DEPTH_MAX {
            return Err(bad("nested too deep"));
        }
        let (major, _, argument) = self.head()?;
        match (major, argument) {
            (BYTES | TEXT, Some(length)) => {
                self.take(length)?;
            }
            (ARRAY | MAP, length) => {
                let mut entries = Entries(length);
                while self.more(&mut entries)? {
                    for _ in 0..if major == MAP { 2 } else { 1 } {
                        self.skip_within(depth + 1)?;
                    }
                }
            }
            (TAG, _) => self.skip_within(depth + 1)?,
            (BYTES | TEXT, None) => {
                let mut entries = Entries(None);
                while self.more(&mut entries)? {
                    self.skip_within(depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The text of a range.
pub fn text_at(bytes: &[u8], range: std::ops::Range<usize>) -> Result<&str, ClientError> {
    let bytes = bytes.get(range).unwrap_or_default();
    std::str::from_utf8(bytes).map_err(|_| bad("text that is not UTF-8"))
}

/// The head of a value.
pub fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    let (info, length) = match argument {
        0..=23 => return out.push(major | argument as u8),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major | info);
    out.extend(bytes.iter().skip(8 - length));
}

pub fn write_text(out: &mut Vec<u8>, text: &str) {
    write_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Requests without data in them are small: texts, whole numbers, and what holds them.
pub fn write_json(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(members) => {
            write_head(out, MAP, members.len() as u64);
            for (name, value) in members {
                write_text(out, name);
                write_json(out, value);
            }
        }
        Value::Array(items) => {
            write_head(out, ARRAY, items.len() as u64);
            items.iter().for_each(|item| write_json(out, item));
        }
        Value::String(text) => write_text(out, text),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => write_head(out, UNSIGNED, number),
            (_, Some(number)) => write_head(out, NEGATIVE, number.unsigned_abs() - 1),
            _ => {
                out.push(0xfb);
                out.extend_from_slice(&number.as_f64().unwrap_or(0.0).to_bits().to_be_bytes());
            }
        },
        Value::Bool(flag) => out.push(if *flag { 0xf5 } else { 0xf4 }),
        Value::Null => out.push(0xf6),
    }
}

/// Name and message of an error's body.
pub fn error(body: &[u8]) -> Result<(String, String), ClientError> {
    let mut reader = Reader::new(body);
    let (mut code, mut message) = (String::new(), String::new());
    let Some(mut members) = reader.begin(MAP)? else {
        return Ok((code, message));
    };
    while reader.more(&mut members)? {
        match reader.text()? {
            "__type" => code = reader.text()?.to_owned(),
            "message" | "Message" => message = reader.text()?.to_owned(),
            _ => reader.skip()?,
        }
    }
    Ok((code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_asked_for_is_stepped_over() {
        let mut out = Vec::new();
        let deep =
            serde_json::json!({"a": [1, -2, 1.5, {"b": null}], "message": "m", "n": 70000, "__type": "T", "l": true});
        write_json(&mut out, &deep);
        assert_eq!(error(&out).unwrap(), ("T".to_owned(), "m".to_owned()));
        for end in 0..out.len() {
            assert!(error(&out[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let bytes = vec![0x81; 1000];
        assert!(Reader::new(&bytes).skip().is_err());
    }
}
