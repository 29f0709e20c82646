//! Bodies of requests and answers in JSON and in CBOR. Answers are read by means that are not the server's own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use serde_json::{Value, json};

use super::connection::find;
use super::payload;
use crate::Failure;

/// Records of a batch.
pub const BATCH: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    Json,
    Cbor,
}

/// What a reader needs of an answer to GetRecords.
#[derive(Debug, Default)]
pub struct Page {
    pub records: usize,
    pub next: Option<String>,
    pub behind: u64,
}

impl Notation {
    pub fn content_type(self) -> &'static str {
        match self {
            Notation::Json => "application/x-amz-json-1.1",
            Notation::Cbor => "application/x-amz-cbor-1.1",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Notation::Json => "JSON",
            Notation::Cbor => "CBOR",
        }
    }

    /// A PutRecords of a batch with the numbers from `first` on.
    pub fn put_records(self, stream: &str, first: u64) -> Result<Vec<u8>, Failure> {
        let numbers = first..first + BATCH as u64;
        match self {
            Notation::Json => {
                let record =
                    |n: u64| json!({ "Data": STANDARD.encode(payload::make(n)), "PartitionKey": format!("key-{n}") });
                let records: Vec<Value> = numbers.map(record).collect();
                Ok(serde_json::to_vec(
                    &json!({ "StreamName": stream, "Records": records }),
                )?)
            }
            Notation::Cbor => {
                let mut out = Encoder::new(Vec::new());
                out.begin_map()?
                    .str("StreamName")?
                    .str(stream)?
                    .str("Records")?
                    .begin_array()?;
                for number in numbers {
                    out.begin_map()?.str("Data")?.bytes(&payload::make(number))?;
                    out.str("PartitionKey")?.str(&format!("key-{number}"))?.end()?;
                }
                out.end()?.end()?;
                Ok(out.into_writer())
            }
        }
    }

    /// Whether every record of a PutRecords was taken.
    pub fn all_taken(self, answer: &[u8]) -> Result<bool, Failure> {
        Ok(match self {
            // Some write a blank behind the colon.
            Notation::Json => {
                find(answer, br#""FailedRecordCount":0"#).is_some()
                    || find(answer, br#""FailedRecordCount": 0"#).is_some()
            }
            Notation::Cbor => {
                let mut taken = None;
                each_member(&mut Decoder::new(answer), &mut |name, value| {
                    match name {
                        "FailedRecordCount" => taken = Some(value.i64()? == 0),
                        _ => value.skip()?,
                    }
                    Ok(())
                })?;
                taken.unwrap_or(true)
            }
        })
    }

    /// Any other request, as pairs of text.
    pub fn request(self, members: &[(&str, Member<'_>)]) -> Result<Vec<u8>, Failure> {
        match self {
            Notation::Json => {
                let members = members.iter().map(|(name, value)| {
                    let value = match value {
                        Member::Text(text) => json!(text),
                        Member::Number(number) => json!(number),
                    };
                    ((*name).to_owned(), value)
                });
                Ok(serde_json::to_vec(&members.collect::<serde_json::Map<_, _>>())?)
            }
            Notation::Cbor => {
                let mut out = Encoder::new(Vec::new());
                out.begin_map()?;
                for (name, value) in members {
                    out.str(name)?;
                    match value {
                        Member::Text(text) => out.str(text)?,
                        Member::Number(number) => out.u64(*number)?,
                    };
                }
                out.end()?;
                Ok(out.into_writer())
            }
        }
    }

    /// The iterator in an answer to GetShardIterator.
    pub fn iterator(self, answer: &[u8]) -> Result<String, Failure> {
        let mut found = None;
        match self {
            Notation::Json => {
                let answer: Value = serde_json::from_slice(answer)?;
                found = answer["ShardIterator"].as_str().map(str::to_owned);
            }
            Notation::Cbor => each_member(&mut Decoder::new(answer), &mut |name, value| {
                match name {
                    "ShardIterator" => found = Some(value.str()?.to_owned()),
                    _ => value.skip()?,
                }
                Ok(())
            })?,
        }
        Ok(found.ok_or("no ShardIterator")?)
    }

    /// Gives every payload of an answer to GetRecords to `each`.
    pub fn page(self, answer: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<Page, Failure> {
        match self {
            Notation::Json => json_page(answer, each),
            Notation::Cbor => cbor_page(answer, each),
        }
    }
}

/// A member of a request.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    Text(&'a str),
    Number(u64),
}

/// Without a tree: a page has megabytes of base64, in which no quotation mark can stand.
fn json_page(answer: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<Page, Failure> {
    let mut page = Page::default();
    let mut payload = vec![0; payload::BYTES * 2];
    let finder = memchr::memmem::Finder::new(br#""Data":"#);
    let mut rest = answer;
    let mut outside = Vec::new();
    while let Some(at) = finder.find(rest) {
        let (before, after) = rest.split_at(at + br#""Data":"#.len());
        outside.extend_from_slice(before);
        let opened = memchr::memchr(b'"', after).ok_or("no text in Data")? + 1;
        let text = after.get(opened..).unwrap_or_default();
        let length = memchr::memchr(b'"', text).ok_or("Data does not end")?;
        let (text, behind) = text.split_at(length);
        let room = base64_simd::Out::from_slice(&mut payload);
        each(
            base64_simd::STANDARD
                .decode(text, room)
                .map_err(|_| "Data is not base64")?,
        )?;
        page.records += 1;
        outside.extend_from_slice(b"0");
        rest = behind.get(1..).unwrap_or_default();
    }
    outside.extend_from_slice(rest);
    // What is left is small, and must be JSON with as many records.
    let left: Left = serde_json::from_slice(&outside)?;
    if left.records.len() != page.records {
        return Err(format!("{} records with {} payloads", left.records.len(), page.records).into());
    }
    page.next = left.next;
    page.behind = left.behind.unwrap_or(0);
    Ok(page)
}

#[derive(serde::Deserialize)]
struct Left {
    #[serde(rename = "Records")]
    records: Vec<serde::de::IgnoredAny>,
    #[serde(rename = "NextShardIterator")]
    next: Option<String>,
    #[serde(rename = "MillisBehindLatest")]
    behind: Option<u64>,
}

fn cbor_page(answer: &[u8], each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<Page, Failure> {
    let mut page = Page::default();
    each_member(&mut Decoder::new(answer), &mut |name, value| {
        match name {
            "Records" => each_item(value, &mut |record| {
                each_member(record, &mut |name, value| {
                    match name {
                        "Data" => {
                            each(value.bytes()?)?;
                            page.records += 1;
                        }
                        _ => value.skip()?,
                    }
                    Ok(())
                })
            })?,
            "NextShardIterator" if value.datatype()? != Type::Null => page.next = Some(value.str()?.to_owned()),
            "MillisBehindLatest" => page.behind = value.u64()?,
            _ => value.skip()?,
        }
        Ok(())
    })?;
    Ok(page)
}

type Visit<'v, 'b> = &'v mut dyn FnMut(&mut Decoder<'b>) -> Result<(), Failure>;

fn each_item<'b>(list: &mut Decoder<'b>, visit: Visit<'_, 'b>) -> Result<(), Failure> {
    match list.array()? {
        Some(length) => (0..length).try_for_each(|_| visit(list)),
        None => {
            while list.datatype()? != Type::Break {
                visit(list)?;
            }
            Ok(list.skip()?)
        }
    }
}

fn each_member<'b>(
    map: &mut Decoder<'b>,
    visit: &mut dyn FnMut(&'b str, &mut Decoder<'b>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut one = |map: &mut Decoder<'b>| -> Result<(), Failure> {
        let name = map.str()?;
        visit(name, map)
    };
    match map.map()? {
        Some(length) => (0..length).try_for_each(|_| one(map)),
        None => {
            while map.datatype()? != Type::Break {
                one(map)?;
            }
            Ok(map.skip()?)
        }
    }
}
