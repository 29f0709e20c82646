//! An answer to GetRecords.

use std::ops::Range;

use bytes::Bytes;

use super::cbor::{ARRAY, BYTES, MAP, Reader, TEXT, text_at};
use crate::error::ClientError;

/// Records of a shard, in order. They lie in the answer as it came.
#[derive(Clone, Debug, Default)]
pub struct BulkPage {
    answer: Bytes,
    records: Vec<Place>,
    /// How to go on; `None` when the shard is closed and this was the last of it.
    pub next: Option<String>,
    /// How far behind its newest record the shard is read now.
    pub millis_behind: u64,
    /// The shards that came from this one, each with its parents. Known when it has ended.
    pub children: Vec<(String, Vec<String>)>,
}

/// Where a record is in the answer.
#[derive(Clone, Debug, Default)]
struct Place {
    data: Range<usize>,
    partition_key: Range<usize>,
    sequence_number: Range<usize>,
    arrival_ms: i64,
}

/// A record of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkRecord<'a> {
    /// Its payload.
    pub data: &'a [u8],
    /// Its partition key.
    pub partition_key: &'a str,
    /// Its number in the shard.
    pub sequence_number: &'a str,
    /// When it arrived, in milliseconds since 1970.
    pub arrival_ms: i64,
}

impl BulkPage {
    /// Understands an answer in CBOR.
    pub(super) fn read(answer: &Bytes) -> Result<Self, ClientError> {
        let mut page = BulkPage {
            answer: answer.clone(),
            ..BulkPage::default()
        };
        let mut reader = Reader::new(answer);
        let Some(mut members) = reader.begin(MAP)? else {
            return Ok(page);
        };
        while reader.more(&mut members)? {
            match reader.text()? {
                "Records" => {
                    let mut list = reader.begin(ARRAY)?;
                    while let Some(entries) = &mut list
                        && reader.more(entries)?
                    {
                        page.records.push(record(&mut reader, answer)?);
                    }
                }
                "NextShardIterator" => page.next = Some(reader.text()?.to_owned()).filter(|next| !next.is_empty()),
                "MillisBehindLatest" => page.millis_behind = u64::try_from(reader.number()?).unwrap_or(0),
                "ChildShards" => page.children = children(&mut reader)?,
                _ => reader.skip()?,
            }
        }
        Ok(page)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the answer.
    pub fn bytes(&self) -> usize {
        self.answer.len()
    }

    /// The records.
    pub fn records(&self) -> impl ExactSizeIterator<Item = BulkRecord<'_>> + DoubleEndedIterator {
        self.records.iter().map(|place| self.at(place))
    }

    /// One of them.
    pub fn record(&self, index: usize) -> Option<BulkRecord<'_>> {
        self.records.get(index).map(|place| self.at(place))
    }

    fn at(&self, place: &Place) -> BulkRecord<'_> {
        let text = |range: &Range<usize>| text_at(&self.answer, range.clone()).unwrap_or_default();
        BulkRecord {
            data: self.answer.get(place.data.clone()).unwrap_or_default(),
            partition_key: text(&place.partition_key),
            sequence_number: text(&place.sequence_number),
            arrival_ms: place.arrival_ms,
        }
    }
}

fn record(reader: &mut Reader<'_>, answer: &[u8]) -> Result<Place, ClientError> {
    let mut place = Place::default();
    let Some(mut members) = reader.begin(MAP)? else {
        return Ok(place);
    };
    while reader.more(&mut members)? {
        match reader.text()? {
            "Data" => place.data = reader.range(BYTES)?,
            "PartitionKey" => place.partition_key = reader.range(TEXT)?,
            "SequenceNumber" => place.sequence_number = reader.range(TEXT)?,
            "ApproximateArrivalTimestamp" => place.arrival_ms = reader.number()?,
            _ => reader.skip()?,
        }
    }
    // Looked at once, so that later accesses cannot fail.
    text_at(answer, place.partition_key.clone())?;
    text_at(answer, place.sequence_number.clone())?;
    Ok(place)
}

fn children(reader: &mut Reader<'_>) -> Result<Vec<(String, Vec<String>)>, ClientError> {
    let mut children = Vec::new();
    let mut list = reader.begin(ARRAY)?;
    while let Some(entries) = &mut list
        && reader.more(entries)?
    {
        let (mut id, mut parents) = (String::new(), Vec::new());
        let mut members = reader.begin(MAP)?;
        while let Some(entries) = &mut members
            && reader.more(entries)?
        {
            match reader.text()? {
                "ShardId" => id = reader.text()?.to_owned(),
                "ParentShards" => {
                    let mut list = reader.begin(ARRAY)?;
                    while let Some(entries) = &mut list
                        && reader.more(entries)?
                    {
                        parents.push(reader.text()?.to_owned());
                    }
                }
                _ => reader.skip()?,
            }
        }
        children.push((id, parents));
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::super::cbor::{write_bytes, write_head, write_text};
    use super::*;

    /// An answer as the service writes it.
    fn answer() -> Vec<u8> {
        let mut out = Vec::new();
        write_head(&mut out, MAP, 4);
        write_text(&mut out, "Records");
        write_head(&mut out, ARRAY, 2);
        for (data, key, number) in [(&b"\x00\xff"[..], "k", "7"), (b"", "\u{e9}", "12345678901234567890123")] {
            write_head(&mut out, MAP, 5);
            write_text(&mut out, "SequenceNumber");
            write_text(&mut out, number);
            write_text(&mut out, "ApproximateArrivalTimestamp");
            write_head(&mut out, 6, 1);
            write_head(&mut out, 0, 1_700_000_000_123);
            write_text(&mut out, "Data");
            write_bytes(&mut out, data);
            write_text(&mut out, "PartitionKey");
            write_text(&mut out, key);
            write_text(&mut out, "EncryptionType");
            write_text(&mut out, "NONE");
        }
        write_text(&mut out, "MillisBehindLatest");
        write_head(&mut out, 0, 1500);
        write_text(&mut out, "Something");
        write_head(&mut out, 4, 1);
        write_head(&mut out, 0, 1);
        write_text(&mut out, "ChildShards");
        write_head(&mut out, ARRAY, 1);
        write_head(&mut out, MAP, 2);
        write_text(&mut out, "ShardId");
        write_text(&mut out, "c");
        write_text(&mut out, "ParentShards");
        write_head(&mut out, ARRAY, 2);
        write_text(&mut out, "a");
        write_text(&mut out, "b");
        out
    }

    #[test]
    fn a_page_gives_every_member_that_is_asked_for() {
        let page = BulkPage::read(&answer().into()).unwrap();
        let records: Vec<BulkRecord<'_>> = page.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].data, b"\x00\xff");
        assert_eq!((records[0].partition_key, records[0].sequence_number), ("k", "7"));
        assert_eq!(records[1].partition_key, "\u{e9}");
        assert_eq!(records[1].arrival_ms, 1_700_000_000_123);
        assert_eq!((page.next.as_deref(), page.millis_behind), (None, 1500));
        assert_eq!(page.children, [("c".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
    }

    #[test]
    fn an_answer_that_was_cut_is_refused() {
        let whole = answer();
        for end in 0..whole.len() {
            assert!(BulkPage::read(&whole[..end].to_vec().into()).is_err(), "cut at {end}");
        }
    }
}
