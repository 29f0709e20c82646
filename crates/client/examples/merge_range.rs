//! Joins the last minutes of a stream into one film: `cargo run -p client --example merge_range STREAM MINUTES FILE.mkv`.

mod common;

use std::error::Error;

use client::StreamName;
use client::reader::{BatchOptions, Merge, MergeOptions, TimeAxis, TimeRange};
use futures_util::StreamExt;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, SeekFrom};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = common::client()?;
    let stream = StreamName::Name(common::argument(1, "the stream's name")?);
    let minutes: i64 = common::argument(2, "minutes")?.parse()?;
    let mut file = tokio::fs::File::create(common::argument(3, "the file to write")?).await?;
    let now = client.clock().now();
    let range = TimeRange {
        axis: TimeAxis::Server,
        from: now.plus_millis(-minutes * 60_000),
        to: now,
    };
    let listed = client.list_fragments(&stream, &range).await?;
    let mut merge = Merge::new(MergeOptions::default());
    let mut fragments = Box::pin(client.read_fragments(&stream, &listed, BatchOptions::default()));
    while let Some(fragment) = fragments.next().await {
        for piece in merge.push(&fragment?)? {
            file.write_all(&piece).await?;
        }
    }
    if let Some(ending) = merge.finish() {
        file.write_all(&ending.tail).await?;
        for patch in &ending.patches {
            file.seek(SeekFrom::Start(patch.offset)).await?;
            file.write_all(&patch.bytes).await?;
        }
    }
    file.flush().await?;
    println!("{} fragments, {} bytes", merge.fragments(), merge.written());
    Ok(())
}
