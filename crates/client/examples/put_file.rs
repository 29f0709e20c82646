//! Sends a Matroska file: `cargo run -p client --example put_file STREAM FILE`.

mod common;

use std::error::Error;

use client::producer::{FeedOptions, Pace, Producer, ProducerConfig};
use client::{StreamName, TimecodeType};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::client()?;
    let stream = StreamName::Name(common::argument(1, "the stream's name")?);
    let file = tokio::fs::File::open(common::argument(2, "a Matroska file")?).await?;
    let options = FeedOptions {
        pace: Pace::Fast,
        timecodes: TimecodeType::Relative,
        started: client.clock().now(),
    };
    let mut producer = Producer::start(client, ProducerConfig::new(stream));
    let fed = producer.feed(file, &options).await?;
    let stats = producer.finish().await?;
    println!(
        "{} of {} fragments stored, {} bytes",
        stats.confirmed, fed.fragments, stats.bytes_confirmed
    );
    Ok(())
}
