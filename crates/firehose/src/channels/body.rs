//! What a channel's objects are made of: records that are what the channel was told they are, as they came, compressed.
//!
//! JSON documents and texts stand on a line each, bytes one behind the other. AWS does not say how it joins records; it
//! says that it leaves them as they are.

use bytes::Bytes;
use serde::de::IgnoredAny;
use wire::kinesis::{RecordFormatType, S3CompressionType};

use crate::format::{Codec, Encoded, compress};
use crate::types::{ErrorOutputType, Failed, Processed, Ready, Record};

/// How the records of a channel are checked and joined.
#[derive(Clone, Debug)]
pub struct Body {
    /// What each record is.
    pub records: RecordFormatType,
    /// How objects are compressed.
    pub compression: S3CompressionType,
    /// The ARN of the stream, for the records of failures.
    pub stream_arn: String,
}

fn codec(compression: S3CompressionType) -> Codec {
    match compression {
        S3CompressionType::None => Codec::None,
        S3CompressionType::Gzip => Codec::Gzip,
        S3CompressionType::Zstd => Codec::Zstd,
    }
}

/// What names end with.
pub fn extension(compression: S3CompressionType) -> &'static str {
    codec(compression).extension()
}

impl Body {
    /// Keeps the records that are what they should be.
    pub fn check(&self, records: Vec<Record>) -> Processed {
        let mut processed = Processed::default();
        for record in records {
            let wrong = match self.records {
                RecordFormatType::Json | RecordFormatType::GsrJson => no_json(&record.data),
                RecordFormatType::String => std::str::from_utf8(&record.data).err().map(|error| error.to_string()),
                RecordFormatType::ByteArray => None,
            };
            match wrong {
                None => processed.ready.push(Ready {
                    data: record.data,
                    arrival: record.arrival,
                    ..Ready::default()
                }),
                Some(why) => processed.failed.push(self.failed(record, &why)),
            }
        }
        processed
    }

    fn failed(&self, record: Record, why: &str) -> Failed {
        let kind = match self.records {
            RecordFormatType::String => "UTF-8 text",
            _ => "JSON document",
        };
        let text = |text: &str| serde_json::Value::from(text).to_string();
        Failed {
            code: "InvalidRecordFormat".to_owned(),
            message: format!("The record is no {kind}: {why}"),
            attempts: 1,
            kind: ErrorOutputType::Processing,
            sequence: Some(record.source.sequence),
            more: vec![
                ("streamARN", text(&self.stream_arn)),
                ("shardId", text(&data_streams::shard_id_text(record.source.shard))),
                ("sequenceNumber", text(&record.source.sequence.to_string())),
            ],
            arrival: record.arrival,
            raw: record.data,
        }
    }

    /// The body of an object.
    pub async fn encode(&self, records: Vec<Ready>) -> std::io::Result<Encoded> {
        let (lines, codec) = (self.records != RecordFormatType::ByteArray, codec(self.compression));
        let mut parts = Vec::with_capacity(records.len() * 2);
        for record in records {
            let ended = !lines || record.data.ends_with(b"\n");
            parts.push(record.data);
            if !ended {
                parts.push(Bytes::from_static(b"\n"));
            }
        }
        let encoded = tokio::task::spawn_blocking(move || compress(codec, &parts));
        let body = encoded.await.map_err(std::io::Error::other)??;
        Ok(Encoded {
            body: vec![body],
            content_type: "application/octet-stream",
            ..Encoded::default()
        })
    }
}

fn no_json(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data).map_err(|error| error.to_string());
    text.and_then(|text| serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string()))
        .err()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use base::Timestamp;
    use storage::{SequenceNumber, ShardId};

    use super::*;
    use crate::types::Source;

    fn body(records: RecordFormatType, compression: S3CompressionType) -> Body {
        Body {
            records,
            compression,
            stream_arn: "arn:aws:kinesis:us-east-1:000000000000:stream/s".to_owned(),
        }
    }

    fn record(data: &'static [u8]) -> Record {
        Record {
            data: Bytes::from_static(data),
            arrival: Timestamp::from_millis(5),
            source: Source {
                shard: ShardId(3),
                sequence: SequenceNumber::before(Timestamp::from_millis(1000), 3, 7),
                partition_key: "k".to_owned(),
            },
        }
    }

    async fn made(records: RecordFormatType, compression: S3CompressionType, data: &[&'static [u8]]) -> Bytes {
        let body = body(records, compression);
        let processed = body.check(data.iter().map(|data| record(data)).collect());
        assert!(processed.failed.is_empty());
        body.encode(processed.ready).await.unwrap().body.remove(0)
    }

    #[tokio::test]
    async fn records_stay_as_they_are() {
        use RecordFormatType::{ByteArray, Json, String};
        let plain = async |format, data: &[&'static [u8]]| made(format, S3CompressionType::None, data).await;
        assert_eq!(
            &plain(Json, &[b"{ \"a\": 1}", b"[2]\n", b" 3 "]).await[..],
            b"{ \"a\": 1}\n[2]\n 3 \n"
        );
        assert_eq!(&plain(String, &["ä".as_bytes(), b""]).await[..], "ä\n\n".as_bytes());
        assert_eq!(&plain(ByteArray, &[b"\xff", b"\x00\n", b"a"]).await[..], b"\xff\x00\na");
    }

    #[tokio::test]
    async fn what_was_compressed_comes_out_again() {
        let data: &[&'static [u8]] = &[b"{}", b"1"];
        let gzip = made(RecordFormatType::Json, S3CompressionType::Gzip, data).await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&gzip[..])
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "{}\n1\n");
        let zstd = made(RecordFormatType::Json, S3CompressionType::Zstd, data).await;
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), b"{}\n1\n");
    }

    #[test]
    fn what_is_not_what_it_should_be_is_told_with_its_place() {
        let json = body(RecordFormatType::Json, S3CompressionType::None);
        let processed = json.check(vec![
            record(b"{}"),
            record(b"{"),
            record(b"{} {}"),
            record(b"\"\xff\""),
            record(b""),
        ]);
        assert_eq!((processed.ready.len(), processed.failed.len()), (1, 4));
        let failed = &processed.failed[0];
        assert_eq!(
            (failed.code.as_str(), &failed.raw[..]),
            ("InvalidRecordFormat", &b"{"[..])
        );
        assert_eq!(failed.more[1], ("shardId", "\"shardId-000000000003\"".to_owned()));
        let text = body(RecordFormatType::String, S3CompressionType::None);
        assert_eq!(text.check(vec![record(b"\xff"), record(b"{")]).failed.len(), 1);
    }
}
