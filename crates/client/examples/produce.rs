//! Puts lines into a data stream, each under its first word as the partition key:
//! `cargo run -p client --example produce STREAM < lines`. In order per key, packed, with an answer for each.

mod common;

use std::error::Error;
use std::sync::Arc;

use client::records::{KinesisSink, Order, RecordProducer, RecordProducerConfig, UserRecord};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::client()?;
    let clock = Arc::clone(client.clock());
    let sink = Arc::new(KinesisSink::new(client, common::argument(1, "the stream's name")?));
    let config = RecordProducerConfig {
        order: Order::PerKey,
        ..RecordProducerConfig::default()
    };
    let producer = RecordProducer::start(sink, clock, config);
    let mut lines = BufReader::new(stdin()).lines();
    let mut waiting = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let key = line.split_whitespace().next().unwrap_or("empty").to_owned();
        waiting.push(producer.send(UserRecord::new(key, line)).await?);
        // A long run looks at what came of its records now and then.
        if waiting.len() == 10_000 {
            for receipt in waiting.drain(..) {
                receipt.await?;
            }
        }
    }
    for receipt in waiting {
        receipt.await?;
    }
    let stats = producer.finish().await;
    println!(
        "{} records stored as {} in {} calls",
        stats.stored, stats.packed, stats.calls
    );
    Ok(())
}
