//! `sightglass records put STREAM`: lines, a file, or words of the command line, as records of a data stream.

mod batch;
mod source;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::progress::{self, Progress};
use super::{Failure, connect, tail};
use crate::cli::{RecordsAction, RecordsArgs, RecordsPutArgs};
use batch::{Batch, RECORDS_MAX, Sender};
use source::{Keys, Reading};

/// A call under way has so long to be answered after Ctrl-C.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the command.
pub fn run(args: &RecordsArgs) -> Result<ExitCode, Failure> {
    let RecordsAction::Put(args) = &args.action;
    let client = connect::client(&args.server)?;
    let keys = match (&args.partition_key, &args.key_path) {
        (Some(key), _) => Keys::Fixed(key.clone()),
        (None, Some(path)) => Keys::At(tail::json_path(path)?),
        (None, None) => Keys::Spread(client.clock().now().millis()),
    };
    let runtime = super::small_runtime()?;
    let outcome = runtime.block_on(put(args, client, keys));
    // A thread that waits for standard input would hold the end up.
    runtime.shutdown_background();
    outcome
}

async fn put(args: &RecordsPutArgs, client: Client, keys: Keys) -> Result<ExitCode, Failure> {
    let (records, mut read) = mpsc::channel(RECORDS_MAX);
    let reading = Reading {
        keys,
        hash_key: args.explicit_hash_key,
        base64: args.base64,
    };
    tokio::spawn(source::read(source::Source::open(args)?, reading, records));
    let mut sender = Sender::new(&client, args);
    let mut summary = Summary::new(args, &client);
    let outcome = send_all(&mut read, &mut sender, &mut summary).await;
    summary.conclude(args, sender.waiting());
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// Sends what is there whenever the last batch is stored, until the source ends or Ctrl-C.
async fn send_all(
    read: &mut mpsc::Receiver<Result<source::Record, String>>,
    sender: &mut Sender,
    summary: &mut Summary,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut next: Option<source::Record> = None;
    loop {
        let first = match next.take() {
            Some(record) => Some(Ok(record)),
            None => tokio::select! {
                _ = &mut interrupted => return Ok(()),
                record = read.recv() => record,
            },
        };
        let Some(first) = first else { return Ok(()) };
        let mut batch = Batch::new(first?);
        let mut wrong = None;
        while batch.has_room() {
            match read.try_recv() {
                Err(_) => break,
                Ok(Err(error)) => {
                    wrong = Some(error);
                    break;
                }
                Ok(Ok(record)) => {
                    next = batch.push(record);
                    if next.is_some() {
                        break;
                    }
                }
            }
        }
        let sending = sender.send(batch, |answered| summary.take(answered));
        let mut sending = std::pin::pin!(sending);
        tokio::select! {
            sent = &mut sending => sent?,
            _ = &mut interrupted => {
                timeout(FAREWELL, sending).await.map_err(|_| "interrupted before the last records were stored")??;
                return Ok(());
            }
        }
        if let Some(wrong) = wrong {
            return Err(wrong.into());
        }
    }
}

/// What became of the records.
struct Summary {
    stored: u64,
    bytes: u64,
    again: u64,
    shards: BTreeMap<String, u64>,
    client: Client,
    began: Duration,
    progress: Progress,
}

impl Summary {
    fn new(args: &RecordsPutArgs, client: &Client) -> Self {
        Summary {
            stored: 0,
            bytes: 0,
            again: 0,
            shards: BTreeMap::new(),
            client: client.clone(),
            began: client.clock().monotonic(),
            progress: Progress::new(Arc::clone(client.clock()), !args.json),
        }
    }

    fn take(&mut self, answered: batch::Answered) {
        self.stored += answered.stored;
        self.bytes += answered.bytes;
        self.again += answered.again;
        for shard in answered.shards {
            *self.shards.entry(shard).or_default() += 1;
        }
        let (stored, bytes) = (self.stored, self.bytes);
        self.progress
            .show(|| format!("{stored} records stored, {}", progress::bytes(bytes)));
        if let Some(trouble) = answered.trouble {
            self.progress.clear();
            eprintln!("sightglass: {trouble}; trying again");
        }
    }

    fn conclude(&mut self, args: &RecordsPutArgs, unsure: usize) {
        self.progress.clear();
        if args.json {
            let seconds = (self.client.clock().monotonic() - self.began).as_secs_f64();
            let summary = json!({
                "records": self.stored,
                "bytes": self.bytes,
                "sent_again": self.again,
                "unconfirmed": unsure,
                "shards": self.shards,
                "seconds": seconds,
            });
            println!("{summary}");
        } else {
            let (records, shards) = (count(self.stored, "record"), count(self.shards.len() as u64, "shard"));
            println!("{records} stored in {shards}, {}", progress::bytes(self.bytes));
        }
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
