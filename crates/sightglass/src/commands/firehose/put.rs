//! `firehose put`: lines as records, some hundred at a time. What the server refuses for its throughput is sent again; what
//! was sent and not answered is sent again too, and may then be there twice.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Backoff, Client, ClientError, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::progress::{self, Progress};
use super::super::{Failure, connect};
use crate::cli::FirehosePutArgs;

/// Records of one PutRecordBatch. AWS.
const RECORDS_MAX: usize = 500;
/// Bytes of one PutRecordBatch. AWS: 4 MiB.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of a record. AWS: 1,000 KiB.
const RECORD_BYTES_MAX: usize = 1_024_000;

/// Runs the command.
pub async fn run(client: &Client, args: &FirehosePutArgs, as_json: bool) -> Result<(), Failure> {
    let (lines, mut read) = mpsc::channel(2 * RECORDS_MAX);
    tokio::spawn(read_lines(open(&args.file)?, args.newline, lines));
    let mut progress = Progress::new(Arc::clone(client.clock()), !as_json);
    let mut put = Put {
        client,
        name: &args.name,
        patience: Duration::from_secs(args.give_up_after),
        records: 0,
        bytes: 0,
        again: 0,
    };
    let mut next: Option<Vec<u8>> = None;
    let outcome = loop {
        let first = match next.take() {
            Some(first) => first,
            None => tokio::select! {
                line = read.recv() => match line {
                    Some(Ok(first)) => first,
                    Some(Err(wrong)) => break Err(wrong.into()),
                    None => break Ok(()),
                },
                _ = tokio::signal::ctrl_c() => break Ok(()),
            },
        };
        let (mut bytes, mut batch, mut wrong) = (first.len(), vec![first], None);
        while batch.len() < RECORDS_MAX {
            match read.try_recv() {
                Ok(Ok(line)) if bytes + line.len() <= BATCH_BYTES_MAX => {
                    bytes += line.len();
                    batch.push(line);
                }
                Ok(Ok(line)) => {
                    next = Some(line);
                    break;
                }
                Ok(Err(error)) => {
                    wrong = Some(error);
                    break;
                }
                Err(_) => break,
            }
        }
        if let Err(error) = put.send(batch, &mut progress).await {
            break Err(error);
        }
        if let Some(wrong) = wrong {
            break Err(wrong.into());
        }
    };
    progress.clear();
    if as_json {
        println!(
            "{}",
            json!({ "records": put.records, "bytes": put.bytes, "sent_again": put.again })
        );
    } else {
        println!("{} records, {}", put.records, progress::bytes(put.bytes));
    }
    outcome
}

struct Put<'a> {
    client: &'a Client,
    name: &'a str,
    patience: Duration,
    records: u64,
    bytes: u64,
    again: u64,
}

impl Put<'_> {
    /// Until all of the batch is taken.
    async fn send(&mut self, mut batch: Vec<Vec<u8>>, progress: &mut Progress) -> Result<(), Failure> {
        let mut since = self.client.clock().monotonic();
        let mut failures = 0;
        while !batch.is_empty() {
            let records: Vec<Value> = batch
                .iter()
                .map(|data| json!({ "Data": STANDARD.encode(data) }))
                .collect();
            let input = json!({ "DeliveryStreamName": self.name, "Records": records });
            let answer = self.client.call(Service::Firehose, "PutRecordBatch", &input).await;
            let (left, trouble) = match answer {
                Ok(answer) => self.taken(batch, &answer),
                Err(error) if is_passing(&error) => (batch, Some(error.to_string())),
                Err(error) => return Err(connect::explained(error)),
            };
            batch = left;
            let now = self.client.clock().monotonic();
            let (records, bytes) = (self.records, self.bytes);
            progress.show(|| format!("{records} records, {}", progress::bytes(bytes)));
            let Some(trouble) = trouble else {
                (since, failures) = (now, 0);
                continue;
            };
            if now.saturating_sub(since) >= self.patience {
                return Err(format!("nothing was taken for {:?}; last: {trouble}", self.patience).into());
            }
            self.again += batch.len() as u64;
            failures += 1;
            sleep(Backoff::default().draw(failures)).await;
        }
        Ok(())
    }

    /// Counts what was taken; gives what was not, and why.
    fn taken(&mut self, batch: Vec<Vec<u8>>, answer: &Value) -> (Vec<Vec<u8>>, Option<String>) {
        let empty = Vec::new();
        let rows = answer
            .get("RequestResponses")
            .and_then(Value::as_array)
            .unwrap_or(&empty);
        let (mut left, mut trouble) = (Vec::new(), None);
        for (data, row) in batch
            .into_iter()
            .zip(rows.iter().map(Some).chain(std::iter::repeat(None)))
        {
            let code = row.and_then(|row| row.get("ErrorCode")).and_then(Value::as_str);
            match (row, code) {
                (Some(_), None) => {
                    self.records += 1;
                    self.bytes += data.len() as u64;
                }
                (_, code) => {
                    trouble = Some(code.unwrap_or("the answer is short").to_owned());
                    left.push(data);
                }
            }
        }
        (left, trouble)
    }
}

fn is_passing(error: &ClientError) -> bool {
    error.is_transient() || error.code() == Some("ServiceUnavailableException")
}

type Lines = Box<dyn AsyncBufRead + Send + Unpin>;

#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn open(name: &str) -> Result<Lines, Failure> {
    if name == "-" {
        return Ok(Box::new(BufReader::new(tokio::io::stdin())));
    }
    let file = std::fs::File::open(Path::new(name)).map_err(|error| format!("{name}: {error}"))?;
    Ok(Box::new(BufReader::new(tokio::fs::File::from_std(file))))
}

/// Reads lines until there are no more, one is too long, or nobody listens.
async fn read_lines(mut file: Lines, newline: bool, lines: mpsc::Sender<Result<Vec<u8>, String>>) {
    for number in 1_u64.. {
        let mut line = Vec::new();
        let mut limited = (&mut file).take(RECORD_BYTES_MAX as u64 + 2);
        let read = limited.read_until(b'\n', &mut line).await;
        let said = match read {
            Err(error) => Err(error.to_string()),
            Ok(0) => return,
            Ok(_) => {
                let text = line.strip_suffix(b"\n").unwrap_or(&line);
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                let mut data = text.to_vec();
                if data.is_empty() {
                    continue;
                }
                if newline {
                    data.push(b'\n');
                }
                match data.len() {
                    0..=RECORD_BYTES_MAX => Ok(data),
                    _ => Err(format!("line {number} is longer than a record may be (1,000 KiB)")),
                }
            }
        };
        let over = said.is_err();
        if lines.send(said).await.is_err() || over {
            return;
        }
    }
}
