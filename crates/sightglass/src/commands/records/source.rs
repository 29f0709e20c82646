//! Where records come from: lines, a whole file, or the command line; and which partition key each has.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::records::{HashKey, UserRecord};
use serde_json::Value;
use serde_json_path::JsonPath;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::Failure;
use crate::cli::RecordsPutArgs;

/// Largest record. AWS: 10 MiB, for streams that were made for it.
const RECORD_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes that are read ahead of what is sent.
const READ_AHEAD_BYTES: usize = 32 * 1024 * 1024;

/// A record to be put.
#[derive(Debug)]
pub struct Record {
    pub user: UserRecord,
    /// Its share of what may be held.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Record {
    /// Data and key, in bytes.
    pub fn size(&self) -> usize {
        self.user.data.len() + self.user.partition_key.len()
    }
}

/// How partition keys are made.
pub enum Keys {
    /// One for all.
    Fixed(String),
    /// Another for each, from this number on.
    Spread(i64),
    /// What the path finds in the record.
    At(JsonPath),
}

/// How data becomes records.
pub struct Reading {
    pub keys: Keys,
    pub hash_key: Option<HashKey>,
    pub base64: bool,
}

/// What is read.
pub enum Source {
    Words(Vec<String>),
    Lines(Box<dyn AsyncBufRead + Send + Unpin>),
    Whole(Box<dyn AsyncBufRead + Send + Unpin>),
}

impl Source {
    /// What the arguments name.
    pub fn open(args: &RecordsPutArgs) -> Result<Self, Failure> {
        if !args.data.is_empty() {
            return Ok(Source::Words(args.data.clone()));
        }
        let file: Box<dyn AsyncBufRead + Send + Unpin> = if args.file == "-" {
            Box::new(BufReader::new(tokio::io::stdin()))
        } else {
            Box::new(BufReader::new(open(Path::new(&args.file))?))
        };
        Ok(if args.whole {
            Source::Whole(file)
        } else {
            Source::Lines(file)
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn open(path: &Path) -> Result<tokio::fs::File, Failure> {
    let file = std::fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(tokio::fs::File::from_std(file))
}

/// Reads everything; ends at the first thing that is no record, or when nobody listens any more.
pub async fn read(source: Source, reading: Reading, records: mpsc::Sender<Result<Record, String>>) {
    if let Err(wrong) = read_all(source, reading, &records).await {
        let _ = records.send(Err(wrong)).await;
    }
}

async fn read_all(
    source: Source,
    reading: Reading,
    records: &mpsc::Sender<Result<Record, String>>,
) -> Result<(), String> {
    let room = Arc::new(Semaphore::new(READ_AHEAD_BYTES));
    let mut count = 0;
    let (mut file, whole) = match source {
        Source::Words(words) => {
            for word in words {
                count += 1;
                let mut record = reading.record(word.into_bytes(), count).map_err(at("--data", count))?;
                record.room = reserve(&room, record.size()).await;
                if records.send(Ok(record)).await.is_err() {
                    break;
                }
            }
            return Ok(());
        }
        Source::Lines(file) => (file, false),
        Source::Whole(file) => (file, true),
    };
    loop {
        // Base64 is a third longer.
        let longest = if reading.base64 {
            RECORD_BYTES_MAX / 3 * 4 + 4
        } else {
            RECORD_BYTES_MAX
        };
        let mut data = Vec::new();
        let mut limited = (&mut file).take(longest as u64 + 2);
        let length = match whole {
            true => limited.read_to_end(&mut data).await,
            false => limited.read_until(b'\n', &mut data).await,
        };
        let length = length.map_err(|error| error.to_string())?;
        if length == 0 && !(whole && count == 0) {
            return Ok(());
        }
        count += 1;
        if !whole {
            trim_line_end(&mut data);
            if data.is_empty() {
                continue;
            }
        }
        let what = if whole { "file" } else { "line" };
        if data.len() > longest {
            return Err(format!("{what} {count} is longer than a record may be (10 MiB)"));
        }
        let mut record = reading.record(data, count).map_err(at(what, count))?;
        record.room = reserve(&room, record.size()).await;
        if records.send(Ok(record)).await.is_err() || whole {
            return Ok(());
        }
    }
}

fn at(what: &str, count: u64) -> impl FnOnce(String) -> String {
    let at = format!("{what} {count}");
    move |wrong| format!("{at}: {wrong}")
}

async fn reserve(room: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes.min(READ_AHEAD_BYTES)).ok()?;
    Arc::clone(room).acquire_many_owned(bytes).await.ok()
}

fn trim_line_end(line: &mut Vec<u8>) {
    for end in [b'\n', b'\r'] {
        if line.last() == Some(&end) {
            line.pop();
        }
    }
}

impl Reading {
    fn record(&self, data: Vec<u8>, count: u64) -> Result<Record, String> {
        let data = match self.base64 {
            true => STANDARD.decode(&data).map_err(|error| format!("no Base64: {error}"))?,
            false => data,
        };
        let key = match &self.keys {
            Keys::Fixed(key) => key.clone(),
            Keys::Spread(first) => format!("{first:x}-{count}"),
            Keys::At(path) => key_at(path, &data)?,
        };
        let mut user = UserRecord::new(key, data);
        user.explicit_hash_key = self.hash_key;
        Ok(Record { user, room: None })
    }
}

fn key_at(path: &JsonPath, data: &[u8]) -> Result<String, String> {
    let record: Value = serde_json::from_slice(data).map_err(|error| format!("no JSON: {error}"))?;
    match path.query(&record).first() {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => Err("what --key-path leads to is no string and no number".to_owned()),
        None => Err("--key-path leads nowhere".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &str, reading: Reading) -> Vec<Result<(String, String), String>> {
        let (records, mut read_here) = mpsc::channel(100);
        let text = std::io::Cursor::new(text.as_bytes().to_vec());
        read(Source::Lines(Box::new(text)), reading, records).await;
        let mut found = Vec::new();
        while let Some(record) = read_here.recv().await {
            found.push(match record {
                Ok(record) => Ok((
                    record.user.partition_key.to_string(),
                    String::from_utf8(record.user.data.to_vec()).unwrap(),
                )),
                Err(wrong) => Err(wrong),
            });
        }
        found
    }

    fn pair(key: &str, data: &str) -> Result<(String, String), String> {
        Ok((key.to_owned(), data.to_owned()))
    }

    #[tokio::test]
    async fn lines_become_records_with_their_keys() {
        let keys = Keys::At(JsonPath::parse("$.camera").unwrap());
        let lines = "{\"camera\":\"door\"}\r\n\n{\"camera\":7}\n{\"x\":1}\n{\"camera\":\"never\"}";
        let found = all(
            lines,
            Reading {
                keys,
                hash_key: None,
                base64: false,
            },
        )
        .await;
        assert_eq!(
            found[..2],
            [pair("door", "{\"camera\":\"door\"}"), pair("7", "{\"camera\":7}")]
        );
        assert_eq!(found[2..], [Err("line 4: --key-path leads nowhere".to_owned())]);
        let spread = Reading {
            keys: Keys::Spread(255),
            hash_key: None,
            base64: true,
        };
        assert_eq!(
            all("YQ==\nYg", spread).await,
            [pair("ff-1", "a"), Err("line 2: no Base64: Invalid padding".to_owned())]
        );
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        let keys = Keys::Fixed("k".to_owned());
        let found = all(
            &"x".repeat(RECORD_BYTES_MAX + 5),
            Reading {
                keys,
                hash_key: None,
                base64: false,
            },
        )
        .await;
        assert_eq!(
            found,
            [Err("line 1 is longer than a record may be (10 MiB)".to_owned())]
        );
    }
}
