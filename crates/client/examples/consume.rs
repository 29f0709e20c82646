//! Prints a data stream's records as one of a fleet: `cargo run -p client --example consume STREAM TABLE`. Start it twice,
//! stop one with Ctrl-C or kill it, split a shard: no record is missed, and a planned move repeats none.
//!
//! `--fan-out NAME` has records sent instead of asking for them, `--worker NAME` names the worker, `--lease SECONDS` is how
//! long a worker that died keeps its shards, `--hand-off SECONDS` how long one may take to finish, `--latest` leaves out what is there, `--json` prints one document a line.

mod common;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::consumer::{Batch, Consumer, ConsumerConfig, Delivery, DynamoLeaseStore, InitialPosition, KinesisSource};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::client()?;
    let clock = Arc::clone(client.clock());
    let store = Arc::new(DynamoLeaseStore::new(
        &client,
        common::argument(2, "the lease table's name")?,
    ));
    let source = Arc::new(KinesisSource::new(client, common::argument(1, "the stream's name")?));
    let (config, json) = settings()?;
    let mut consumer = Consumer::start(source, store, Arc::clone(&clock), config);

    let stopper = consumer.stopper();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopper.stop();
    });

    while let Some(batch) = consumer.next().await {
        let batch = batch?;
        print(consumer.worker_id(), &batch, json.then(|| clock.now()));
        if let Err(error) = batch.checkpoint().await {
            eprintln!("{error}");
        }
    }
    let stats = consumer.stats();
    eprintln!(
        "{} records, the first after {:?}; {} leases taken, {} handed over, {} lost",
        stats.records, stats.first_batch_after, stats.taken, stats.handed_over, stats.lost
    );
    Ok(())
}

fn settings() -> Result<(ConsumerConfig, bool), Box<dyn Error>> {
    let mut config = ConsumerConfig::default();
    let mut json = false;
    let mut options = std::env::args().skip(3);
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or(format!("{option} needs a value"));
        match option.as_str() {
            "--fan-out" => config.delivery = Delivery::FanOut { name: value()? },
            "--worker" => config.worker_id = value()?,
            "--lease" => config.lease_duration = Duration::from_secs_f64(value()?.parse()?),
            "--hand-off" => config.handoff_timeout = Duration::from_secs_f64(value()?.parse()?),
            "--latest" => config.initial = InitialPosition::Latest,
            "--json" => json = true,
            other => return Err(format!("{other} is no option of this example").into()),
        }
    }
    Ok((config, json))
}

/// Lines for people, or with a time documents for programs.
fn print(worker: &str, batch: &Batch, json: Option<Timestamp>) {
    let shard = batch.shard_id();
    for record in &batch.records {
        if let Some(now) = json {
            let document = json!({
                "at": now.seconds(),
                "worker": worker,
                "shard": shard,
                "sequence_number": record.sequence_number.as_str(),
                "sub_sequence_number": record.sub_sequence_number,
                "partition_key": *record.partition_key,
                "data": STANDARD.encode(&record.data),
            });
            println!("{document}");
        } else {
            println!(
                "{shard} {} {}",
                record.partition_key,
                String::from_utf8_lossy(&record.data)
            );
        }
    }
    if let Some(ending) = batch.ending {
        eprintln!("{worker}: {shard} {ending:?}");
    }
}
