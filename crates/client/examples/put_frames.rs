//! Sends an encoder's frames as they are made: `cargo run -p client --example put_frames STREAM`. The encoder here makes
//! grey pictures that no codec knows; yours gives H.264 with its avcC as `codec_private`.

mod common;

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use client::StreamName;
use client::producer::{EncodedFrame, FrameOptions, Overflow, Producer, ProducerConfig};
use matroska::{Track, TrackKind, Video};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::client()?;
    let mut config = ProducerConfig::new(StreamName::Name(common::argument(1, "the stream's name")?));
    // A camera cannot wait: what is oldest goes when the server is away for long.
    config.overflow = Overflow::DropOldest;
    let started = client.clock().now();
    let mut producer = Producer::start(client, config);
    let track = Track {
        number: 1,
        uid: 1,
        kind: TrackKind::Video,
        codec_id: "V_UNCOMPRESSED".to_owned(),
        codec_private: Bytes::new(),
        name: "grey".to_owned(),
        language: "und".to_owned(),
        default_duration_ns: Some(40_000_000),
        encoded: false,
        video: Some(Video { width: 64, height: 64 }),
        audio: None,
    };
    let mut writer = producer.frames(&[track], FrameOptions::new(started))?;
    for count in 0..100_u32 {
        let frame = EncodedFrame {
            track: 1,
            time: Duration::from_millis(40) * count,
            key: count % 25 == 0,
            data: Bytes::from(vec![u8::try_from(count).unwrap_or(0); 64 * 64]),
        };
        if frame.key {
            writer.tag("COUNT", &count.to_string())?;
        }
        writer.send(frame).await?;
    }
    writer.flush().await?;
    println!("{} fragments stored", producer.finish().await?.confirmed);
    Ok(())
}
