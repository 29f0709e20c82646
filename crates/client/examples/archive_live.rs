//! Writes each fragment of a live stream to a file of its own, from the last run's end on:
//! `cargo run -p client --example archive_live STREAM FOLDER`.

mod common;

use std::error::Error;
use std::path::PathBuf;

use client::StreamName;
use client::reader::{FragmentNumber, LiveReader, ReaderConfig, StartAt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stream = StreamName::Name(common::argument(1, "the stream's name")?);
    let folder = PathBuf::from(common::argument(2, "a folder")?);
    tokio::fs::create_dir_all(&folder).await?;
    let note = folder.join("last");
    let last = tokio::fs::read_to_string(&note).await.ok();
    let start = last
        .and_then(|last| FragmentNumber::new(last.trim()))
        .map_or(StartAt::Earliest, StartAt::After);
    let mut reader = LiveReader::new(common::client()?, ReaderConfig::new(stream, start));
    while let Some(fragment) = reader.next_fragment().await? {
        let Some(number) = fragment.number() else { continue };
        tokio::fs::write(folder.join(format!("{number}.mkv")), fragment.document.concat()).await?;
        tokio::fs::write(&note, number.as_str()).await?;
        println!("{number}: {} frames", fragment.frames.len());
    }
    Ok(())
}
