//! The index beside an object: JSON Lines, first what the object is, then a line for each of its fragments.
//!
//! It is written twice. Before the upload it says which fragments will become the object of which key ([`State::Planned`]):
//! whoever finds such a plan carries it out, to the same bytes under the same key. After the upload it says where each
//! fragment lies in the object, and the object's checksum ([`State::Done`]).

use std::collections::BTreeMap;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use client::reader::{FragmentInfo, FragmentNumber};
use serde::{Deserialize, Serialize};

use crate::settings::Format;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is decided what the object will hold; it may or may not be there.
    Planned,
    /// The object is there, whole.
    Done,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of this format: 1.
    pub index: u32,
    /// Planned or done.
    pub state: State,
    /// The object's key. An object whose fragments were all lost is not there: it has no bytes.
    pub key: String,
    /// The stream's name.
    pub stream: String,
    /// The object's container.
    pub format: Format,
    /// When the first fragment began to arrive at the server, milliseconds since 1970.
    pub start_ms: i64,
    /// When the last one had played out since it began to arrive.
    pub end_ms: i64,
    /// Number of its first fragment.
    pub first: String,
    /// Number of its last fragment.
    pub last: String,
    /// Lines that follow.
    pub fragments: u64,
    /// Its fragments came to the server after others that were archived before: they do not bound what was archived.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// Why the object ends where it does, and what else there is to say: words for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The upload that was begun for the plan, so that it can be given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// Fragments that could not be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Bytes of the object.
    #[serde(default)]
    pub bytes: u64,
    /// CRC-64/NVME of the object as S3 writes it: base64 of its eight bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A fragment's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its number.
    pub number: String,
    /// When it began to arrive, milliseconds since 1970.
    pub server_ms: i64,
    /// When it was recorded, by the producer's clock.
    pub producer_ms: i64,
    /// How long it plays.
    pub length_ms: u64,
    /// Bytes of it in the stream.
    pub size: u64,
    /// Where its frames lie in the object: offset and length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<(u64, u64)>,
    /// Frames.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frames: u64,
    /// The producer's tags, which the film does not hold.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Why it is not in the object, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The first line.
    pub head: Head,
    /// The others.
    pub rows: Vec<Row>,
}

/// The text is no index; in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is no index of an archive: {why}")]
pub struct InvalidIndex {
    /// Which object.
    pub key: String,
    /// Why.
    pub why: String,
}

impl Row {
    /// Of a fragment that will be archived.
    #[must_use]
    pub fn planned(info: &FragmentInfo) -> Self {
        Row {
            number: info.number.to_string(),
            server_ms: info.server_timestamp.millis(),
            producer_ms: info.producer_timestamp.millis(),
            length_ms: u64::try_from(info.length.as_millis()).unwrap_or(u64::MAX),
            size: info.bytes,
            at: None,
            frames: 0,
            tags: BTreeMap::new(),
            lost: None,
        }
    }

    /// As a listing gave it.
    #[must_use]
    pub fn info(&self) -> Option<FragmentInfo> {
        Some(FragmentInfo {
            number: FragmentNumber::new(&self.number)?,
            bytes: self.size,
            server_timestamp: Timestamp::from_millis(self.server_ms),
            producer_timestamp: Timestamp::from_millis(self.producer_ms),
            length: Duration::from_millis(self.length_ms),
        })
    }

    fn end_ms(&self) -> i64 {
        self.server_ms
            .saturating_add(i64::try_from(self.length_ms).unwrap_or(i64::MAX))
    }
}

impl Index {
    /// A plan: these fragments, of which there is at least one, become the object of this key.
    #[must_use]
    pub fn plan(key: String, stream: &str, format: Format, fragments: &[FragmentInfo], notes: Vec<String>) -> Self {
        let rows: Vec<Row> = fragments.iter().map(Row::planned).collect();
        let mut index = Index {
            head: Head {
                index: 1,
                state: State::Planned,
                key,
                stream: stream.to_owned(),
                format,
                start_ms: 0,
                end_ms: 0,
                first: String::new(),
                last: String::new(),
                fragments: 0,
                late: false,
                notes,
                upload: None,
                lost: 0,
                bytes: 0,
                crc64nvme: None,
            },
            rows,
        };
        index.bound();
        index
    }

    /// Ends the index before row `len`.
    pub fn cut(&mut self, len: usize) {
        self.rows.truncate(len);
        self.bound();
    }

    fn bound(&mut self) {
        let head = &mut self.head;
        head.fragments = self.rows.len() as u64;
        head.start_ms = self.rows.iter().map(|row| row.server_ms).min().unwrap_or(head.start_ms);
        head.end_ms = self.rows.iter().map(Row::end_ms).max().unwrap_or(head.end_ms);
        head.first = self.rows.first().map(|row| row.number.clone()).unwrap_or_default();
        head.last = self.rows.last().map(|row| row.number.clone()).unwrap_or_default();
    }

    /// The fragments of the plan.
    #[must_use]
    pub fn fragments(&self) -> Vec<FragmentInfo> {
        self.rows.iter().filter_map(Row::info).collect()
    }

    /// When its last fragment began to arrive.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        let newest = self.rows.iter().map(|row| row.server_ms).max();
        Timestamp::from_millis(newest.unwrap_or(self.head.start_ms))
    }

    /// As JSON Lines.
    #[must_use]
    pub fn to_lines(&self) -> Bytes {
        let mut out = Vec::with_capacity(512 + 256 * self.rows.len());
        // Writing these types to a vector does not fail.
        let _ = serde_json::to_writer(&mut out, &self.head);
        out.push(b'\n');
        for row in &self.rows {
            let _ = serde_json::to_writer(&mut out, row);
            out.push(b'\n');
        }
        out.into()
    }

    /// Reads what [`Index::to_lines`] wrote.
    ///
    /// # Errors
    /// Somebody else wrote it.
    pub fn parse(key: &str, text: &[u8]) -> Result<Self, InvalidIndex> {
        let invalid = |why: String| InvalidIndex {
            key: key.to_owned(),
            why,
        };
        let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let head = lines.next().ok_or_else(|| invalid("it is empty".to_owned()))?;
        let head: Head = serde_json::from_slice(head).map_err(|error| invalid(error.to_string()))?;
        if head.index != 1 {
            return Err(invalid(format!(
                "it has version {}, and this program knows 1",
                head.index
            )));
        }
        let mut rows = Vec::with_capacity(usize::try_from(head.fragments).unwrap_or(0).min(100_000));
        for line in lines {
            rows.push(serde_json::from_slice(line).map_err(|error| invalid(error.to_string()))?);
        }
        if rows.len() as u64 != head.fragments {
            return Err(invalid(format!(
                "{} lines follow where {} should",
                rows.len(),
                head.fragments
            )));
        }
        Ok(Index { head, rows })
    }
}

/// A CRC-64/NVME as S3 writes it.
#[must_use]
pub fn crc_text(crc: u64) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_as_it_was_written_and_a_torn_one_is_refused() {
        let fragment = |n: i64| FragmentInfo {
            number: FragmentNumber::new(&format!("{n}")).unwrap(),
            bytes: 5,
            server_timestamp: Timestamp::from_millis(1000 * n),
            producer_timestamp: Timestamp::from_millis(1000 * n - 7),
            length: Duration::from_millis(990),
        };
        let fragments: Vec<FragmentInfo> = (1..=3).map(fragment).collect();
        let mut index = Index::plan(
            "a/b.mkv".to_owned(),
            "b",
            Format::Mkv,
            &fragments,
            vec!["why".to_owned()],
        );
        assert_eq!(
            (index.head.start_ms, index.head.end_ms, index.head.fragments),
            (1000, 3990, 3)
        );
        assert_eq!(index.fragments(), fragments);
        index.rows[0].tags.insert("who".to_owned(), "Ann".to_owned());
        index.rows[1].lost = Some("gone".to_owned());
        let text = index.to_lines();
        assert_eq!(Index::parse("k", &text), Ok(index.clone()));
        let torn = text.slice(..text.len() - 60);
        assert!(Index::parse("k", &torn).is_err());
        assert!(Index::parse("k", b"").is_err() && Index::parse("k", b"{}\n").is_err());
        index.cut(1);
        assert_eq!((index.head.end_ms, index.head.last.as_str()), (1990, "1"));
    }
}
