//! A custom consumer in one page: writes a live stream as a film for each hour to a folder, and goes on where it was after
//! a crash: `cargo run -p client --example archive_hours STREAM FOLDER`.
//!
//! A film is written under a name that ends with `.part`, and renamed when its hour is over. Its name is made of its first
//! fragment, and its last fragment is then written down as the place to go on from: a film that was cut off, or whose place
//! was not written down any more, is made again from the same fragment on under the same name. `sightglass archive` does the
//! same with S3; the crate `archive` shows how.

mod common;

use std::error::Error;
use std::path::{Path, PathBuf};

use client::StreamName;
use client::reader::{Fragment, FragmentNumber, LiveReader, Merge, MergeOptions, ReaderConfig, StartAt};
use tokio::fs::{File, read_to_string, rename, write};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

const HOUR_MS: i64 = 3_600_000;

/// A film under way.
struct Film {
    hour: i64,
    path: PathBuf,
    file: File,
    merge: Merge,
    last: Option<FragmentNumber>,
}

impl Film {
    async fn begin(folder: &Path, hour: i64, first: &FragmentNumber) -> Result<Self, Box<dyn Error>> {
        let path = folder.join(format!("{}-{first}.mkv", hour * HOUR_MS));
        Ok(Film {
            hour,
            file: File::create(path.with_extension("part")).await?,
            path,
            merge: Merge::new(MergeOptions::default()),
            last: None,
        })
    }

    async fn finish(mut self, note: &Path) -> Result<(), Box<dyn Error>> {
        if let (Some(ending), Some(last)) = (self.merge.finish(), self.last) {
            self.file.write_all(&ending.tail).await?;
            for patch in ending.patches {
                self.file.seek(std::io::SeekFrom::Start(patch.offset)).await?;
                self.file.write_all(&patch.bytes).await?;
            }
            self.file.sync_all().await?;
            rename(self.path.with_extension("part"), &self.path).await?;
            write(note, last.as_str()).await?;
            println!("{}: {} fragments", self.path.display(), self.merge.fragments());
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stream = StreamName::Name(common::argument(1, "the stream's name")?);
    let folder = PathBuf::from(common::argument(2, "a folder")?);
    tokio::fs::create_dir_all(&folder).await?;
    let note = folder.join("last");
    let last = read_to_string(&note).await.ok();
    let start = last
        .and_then(|last| FragmentNumber::new(last.trim()))
        .map_or(StartAt::Earliest, StartAt::After);
    let mut reader = LiveReader::new(common::client()?, ReaderConfig::new(stream, start));
    let mut film: Option<Film> = None;
    while let Some(fragment) = reader.next_fragment().await? {
        let Some(number) = fragment.number() else { continue };
        let hour = hour_of(&fragment);
        let mut current = match film.take() {
            Some(film) if film.hour == hour => film,
            other => {
                if let Some(over) = other {
                    over.finish(&note).await?;
                }
                Film::begin(&folder, hour, number).await?
            }
        };
        let mut pieces = current.merge.push(&fragment);
        if pieces.is_err() {
            // Other tracks, e.g. of another codec, need a film of their own, within the hour too.
            current.finish(&note).await?;
            current = Film::begin(&folder, hour, number).await?;
            pieces = current.merge.push(&fragment);
        }
        for piece in pieces? {
            current.file.write_all(&piece).await?;
        }
        current.last = Some(number.clone());
        film = Some(current);
    }
    if let Some(film) = film {
        film.finish(&note).await?;
    }
    Ok(())
}

/// Hours since 1970 at which a fragment arrived.
fn hour_of(fragment: &Fragment) -> i64 {
    fragment
        .start
        .server_timestamp
        .map_or(0, |time| time.millis().div_euclid(HOUR_MS))
}
