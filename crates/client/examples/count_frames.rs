//! Reads what a stream holds and counts frames by track: `cargo run -p client --example count_frames STREAM [SECONDS]`. A
//! decoder would be one more visitor.

mod common;

use std::error::Error;
use std::ops::ControlFlow;
use std::time::Duration;

use client::StreamName;
use client::reader::{Counts, FragmentStart, FragmentVisitor, Frame, LiveReader, ReaderConfig, StartAt};

/// Stands where a decoder would.
struct Decoder;

impl FragmentVisitor for Decoder {
    fn frame(&mut self, fragment: &FragmentStart, frame: &Frame) -> ControlFlow<()> {
        if frame.key
            && let Some(track) = fragment.track(frame.track)
        {
            println!(
                "key frame of {}: {} bytes at {}",
                track.codec_id,
                frame.data.len(),
                frame.time
            );
        }
        ControlFlow::Continue(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stream = StreamName::Name(common::argument(1, "the stream's name")?);
    let seconds = common::argument(2, "how long")
        .ok()
        .map_or(Ok(5), |text| text.parse())?;
    let mut reader = LiveReader::new(common::client()?, ReaderConfig::new(stream, StartAt::Earliest));
    let mut visitor = (Counts::default(), Decoder);
    let reading = tokio::time::timeout(Duration::from_secs(seconds), reader.visit(&mut visitor));
    if let Ok(outcome) = reading.await {
        outcome?;
    }
    println!(
        "{} fragments, frames by track: {:?}",
        visitor.0.complete, visitor.0.frames
    );
    Ok(())
}
