//! A record as a line: for a person, as JSON, or as it is.

use base::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::consumer::StreamRecord;
use client::records::aggregate;
use serde_json::Value;
use serde_json_path::JsonPath;

use super::filter::{Condition, Document};
use super::json_text::{self, Piece};
use crate::commands::paint::{Paint, Tint, harmless};

/// Bytes of binary data that a person is shown.
const BYTES_SHOWN: usize = 32;

/// How records are shown.
pub enum Form {
    /// A line for a person.
    Person(Paint),
    /// An object.
    Json,
    /// The data.
    Raw,
}

/// What is shown, and how.
pub struct Show {
    pub form: Form,
    pub conditions: Vec<Condition>,
    pub select: Option<JsonPath>,
    pub partition_key: Option<String>,
}

/// What the data of a record is.
enum Content<'a> {
    Json(&'a str, Document),
    Text(&'a str),
    Binary(&'a [u8]),
}

impl Show {
    /// The lines of a record, or of the records that a producer packed into it, with their ends.
    pub fn lines(&self, shard: &str, record: &StreamRecord) -> Vec<Vec<u8>> {
        let Some(packed) = aggregate::deaggregate(&record.data) else {
            return self.line(shard, record, None).into_iter().collect();
        };
        let mut place = 0..;
        let lines = packed.into_iter().filter_map(|packed| {
            let one = StreamRecord {
                partition_key: packed.partition_key.to_string(),
                data: packed.data,
                ..record.clone()
            };
            self.line(shard, &one, place.next())
        });
        lines.collect()
    }

    /// The record's line; `None` when it is left out.
    fn line(&self, shard: &str, record: &StreamRecord, place: Option<u64>) -> Option<Vec<u8>> {
        if self
            .partition_key
            .as_ref()
            .is_some_and(|key| *key != record.partition_key)
        {
            return None;
        }
        if matches!(self.form, Form::Raw) && self.conditions.is_empty() {
            return Some(raw(&record.data));
        }
        let content = content(&record.data);
        let found = match (&content, &self.select) {
            (Content::Json(_, document), select) => {
                if !document.fits(&self.conditions) {
                    return None;
                }
                select.as_ref().map(|path| document.found(path))
            }
            // Of what is no JSON nothing holds.
            (_, None) if self.conditions.is_empty() => None,
            _ => return None,
        };
        if found.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        let mut line = match self.form {
            Form::Raw => return Some(raw(&record.data)),
            Form::Json => as_json(shard, record, place, &content, found.as_deref()),
            Form::Person(paint) => for_person(paint, shard, record, &content, found.as_deref()),
        };
        line.push('\n');
        Some(line.into_bytes())
    }
}

fn raw(data: &[u8]) -> Vec<u8> {
    [data, b"\n"].concat()
}

fn content(data: &[u8]) -> Content<'_> {
    match std::str::from_utf8(data) {
        Err(_) => Content::Binary(data),
        Ok(text) => match serde_json::from_str(text) {
            Ok(value) => Content::Json(text, Document::new(value)),
            Err(_) => Content::Text(text),
        },
    }
}

fn as_json(
    shard: &str,
    record: &StreamRecord,
    place: Option<u64>,
    content: &Content<'_>,
    found: Option<&[&Value]>,
) -> String {
    let place = place.map_or(String::new(), |place| format!("\"sub_sequence_number\":{place},"));
    let quoted = |text: &str| Value::from(text).to_string();
    let (data, encoding) = match content {
        Content::Json(text, _) => (json_text::one_line(text), "json"),
        Content::Text(text) => (quoted(text), "text"),
        Content::Binary(bytes) => (quoted(&STANDARD.encode(bytes)), "base64"),
    };
    let shown = match found {
        Some(found) => format!("\"selected\":{}", Value::from_iter(found.iter().copied().cloned())),
        None => format!("\"data\":{data},\"encoding\":\"{encoding}\""),
    };
    format!(
        "{{\"shard\":{},\"sequence_number\":{},{place}\"partition_key\":{},\"arrival_time\":{},{shown}}}",
        quoted(shard),
        quoted(record.sequence_number.as_str()),
        quoted(&record.partition_key),
        Value::from(record.arrived.seconds()),
    )
}

fn for_person(
    paint: Paint,
    shard: &str,
    record: &StreamRecord,
    content: &Content<'_>,
    found: Option<&[&Value]>,
) -> String {
    let mut line = String::new();
    if let (Content::Json(_, document), None) = (content, found)
        && let Some(seen) = Seen::read(document.value(), record.arrived)
    {
        seen.write(&mut line, paint);
        return line;
    }
    let short = shard.rsplit('-').next().unwrap_or_default();
    let short = Some(short.trim_start_matches('0'))
        .filter(|short| !short.is_empty())
        .unwrap_or("0");
    let time = wire::time::to_iso8601(record.arrived);
    paint.put(&mut line, Tint::Dim, format_args!("{time} [{}]", harmless(short)));
    line.push(' ');
    paint.put(&mut line, Tint::Name, harmless(&record.partition_key));
    line.push_str("  ");
    match (found, content) {
        (Some(found), _) => {
            for (at, value) in found.iter().enumerate() {
                line.push_str(if at == 0 { "" } else { "  " });
                match value {
                    Value::String(text) => paint.put(&mut line, Tint::Text, harmless(text)),
                    other => coloured(&mut line, paint, &other.to_string()),
                }
            }
        }
        (None, Content::Json(text, _)) => coloured(&mut line, paint, text),
        (None, Content::Text(text)) => line.push_str(&harmless(text)),
        (None, Content::Binary(bytes)) => binary(&mut line, paint, bytes),
    }
    line
}

/// JSON in one line.
fn coloured(line: &mut String, paint: Paint, text: &str) {
    for piece in json_text::pieces(text) {
        match piece {
            Piece::Name(name) => paint.put(line, Tint::Name, harmless(name)),
            Piece::Text(text) => paint.put(line, Tint::Text, harmless(text)),
            Piece::Number(number) => paint.put(line, Tint::Number, number),
            Piece::Mark(mark) => {
                line.push_str(mark);
                line.push_str(if matches!(mark, "," | ":") { " " } else { "" });
            }
        }
    }
}

fn binary(line: &mut String, paint: Paint, bytes: &[u8]) {
    let shown = bytes.iter().take(BYTES_SHOWN);
    let hex: String = shown.map(|byte| format!("{byte:02x}")).collect();
    paint.put(line, Tint::Number, hex);
    let more = if bytes.len() > BYTES_SHOWN { "… " } else { " " };
    paint.put(line, Tint::Dim, format_args!("{more}({} bytes)", bytes.len()));
}

/// A record of a face-search processor.
struct Seen<'a> {
    time: Timestamp,
    camera: &'a str,
    faces: &'a [Value],
}

impl<'a> Seen<'a> {
    fn read(record: &'a Value, arrived: Timestamp) -> Option<Self> {
        let video = record.get("InputInformation")?.get("KinesisVideo")?;
        let faces = record.get("FaceSearchResponse")?.as_array()?;
        let camera = video.get("StreamArn")?.as_str()?.split('/').nth(1)?;
        let seconds = |member: &str| video.get(member).and_then(Value::as_f64);
        let began = seconds("ProducerTimestamp").or_else(|| seconds("ServerTimestamp"));
        let time = began.map(|began| began + seconds("FrameOffsetInSeconds").unwrap_or(0.0));
        let time = time.and_then(Timestamp::from_seconds).unwrap_or(arrived);
        Some(Seen { time, camera, faces })
    }

    /// When, where, who: the best match of each face.
    fn write(&self, line: &mut String, paint: Paint) {
        paint.put(line, Tint::Dim, wire::time::to_iso8601(self.time));
        line.push(' ');
        paint.put(line, Tint::Name, harmless(self.camera));
        line.push_str("  ");
        if self.faces.is_empty() {
            paint.put(line, Tint::Dim, "nobody");
        }
        for (at, face) in self.faces.iter().enumerate() {
            line.push_str(if at == 0 { "" } else { ", " });
            let best = face.get("MatchedFaces").and_then(|matches| matches.get(0));
            let Some(best) = best else {
                paint.put(line, Tint::Alert, "unknown");
                continue;
            };
            let known = |member: &str| best.get("Face")?.get(member)?.as_str();
            let who = known("ExternalImageId").or_else(|| known("FaceId")).unwrap_or("?");
            paint.put(line, Tint::Text, harmless(who));
            if let Some(similarity) = best.get("Similarity").and_then(Value::as_f64) {
                line.push(' ');
                paint.put(line, Tint::Number, format_args!("{similarity:.1} %"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::cli::Color;
    use crate::commands::tail::filter;

    const SHARD: &str = "shardId-000000000012";

    fn record(data: &[u8]) -> StreamRecord {
        StreamRecord {
            sequence_number: "42".parse().unwrap(),
            partition_key: "k\u{7}".to_owned(),
            arrived: Timestamp::from_millis(1_795_347_223_500),
            data: Bytes::copy_from_slice(data),
        }
    }

    fn show(form: Form) -> Show {
        Show {
            form,
            conditions: Vec::new(),
            select: None,
            partition_key: None,
        }
    }

    fn plain(data: &[u8]) -> String {
        let show = show(Form::Person(Paint::for_stdout(Color::Never)));
        String::from_utf8(show.line(SHARD, &record(data), None).unwrap()).unwrap()
    }

    #[test]
    fn a_person_sees_who_was_seen_where_and_when() {
        let matched = json!({ "Similarity": 99.25, "Face": { "FaceId": "6a6f", "ExternalImageId": "Ann" } });
        let record = json!({
            "InputInformation": { "KinesisVideo": {
                "StreamArn": "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1795347223436",
                "ProducerTimestamp": 1795347222.98, "FrameOffsetInSeconds": 0.066 } },
            "FaceSearchResponse": [{ "MatchedFaces": [matched] }, { "MatchedFaces": [] }],
        });
        let line = plain(record.to_string().as_bytes());
        assert_eq!(line, "2026-11-22T11:33:43.046Z door  Ann 99.2 %, unknown\n");
    }

    #[test]
    fn other_records_are_shown_in_one_line_that_steers_no_terminal() {
        let head = "2026-11-22T11:33:43.500Z [12] k\\u{7}  ";
        assert_eq!(
            plain(b"{\"b\":1,\n\"a\":[2]}"),
            format!("{head}{{\"b\": 1, \"a\": [2]}}\n")
        );
        assert_eq!(plain(b"one\ntwo\x1b[2J"), format!("{head}one\\ntwo\\u{{1b}}[2J\n"));
        assert_eq!(plain(&[0xff, 0]), format!("{head}ff00 (2 bytes)\n"));
        let long = plain(&[0xff; 40]);
        assert!(
            long.ends_with("ff… (40 bytes)\n") && long.len() < head.len() + 90,
            "{long}"
        );
    }

    #[test]
    fn json_lines_keep_the_data_and_say_how_it_is_written() {
        let line = |data: &[u8]| -> Value {
            serde_json::from_slice(&show(Form::Json).line(SHARD, &record(data), None).unwrap()).unwrap()
        };
        let found = line(b"{\"a\": 1}\n");
        assert_eq!(
            found,
            json!({ "shard": "shardId-000000000012", "sequence_number": "42", "partition_key": "k\u{7}",
                "arrival_time": 1_795_347_223.5, "data": { "a": 1 }, "encoding": "json" })
        );
        assert_eq!(
            (line(b"a b")["data"].clone(), line(b"a b")["encoding"].clone()),
            (json!("a b"), json!("text"))
        );
        assert_eq!(
            (line(&[0xff])["data"].clone(), line(&[0xff])["encoding"].clone()),
            (json!("/w=="), json!("base64"))
        );
        let mut selecting = show(Form::Json);
        selecting.select = Some(filter::path("$.a").unwrap());
        let line = selecting.line(SHARD, &record(b"{\"a\": \"x\"}"), None).unwrap();
        let found: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&found["selected"], found.get("data")), (&json!(["x"]), None));
        assert!(
            selecting.line(SHARD, &record(b"{}"), None).is_none()
                && selecting.line(SHARD, &record(b"text"), None).is_none()
        );
    }

    #[test]
    fn records_that_were_packed_into_one_are_shown_one_by_one() {
        let mut packed = aggregate::Aggregator::new();
        packed.push(&aggregate::UserRecord::new("a", &b"1"[..]));
        packed.push(&aggregate::UserRecord::new("b", &b"2"[..]));
        let packed = record(&packed.finish().unwrap().data);
        let found: Vec<Value> = show(Form::Json)
            .lines(SHARD, &packed)
            .iter()
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let keys = ["sub_sequence_number", "partition_key", "data", "sequence_number"];
        let members = |value: &Value| keys.map(|key| value[key].clone());
        assert_eq!(members(&found[0]), [json!(0), json!("a"), json!(1), json!("42")]);
        assert_eq!(members(&found[1]), [json!(1), json!("b"), json!(2), json!("42")]);
        let mut one = show(Form::Raw);
        one.partition_key = Some("b".to_owned());
        assert_eq!(one.lines(SHARD, &packed), [b"2\n"]);
    }
}
