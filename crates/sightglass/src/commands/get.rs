//! `sightglass get STREAM`: what is stored, or what arrives, as one film that players can play, or byte by byte.

use std::fs::File;
use std::io::{IsTerminal, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::reader::{
    BatchOptions, Fragment, FragmentNumber, LiveReader, Merge, MergeOptions, ReaderConfig, StartAt, TimeAxis, TimeRange,
};
use client::{Client, StreamName};
use futures_util::StreamExt;
use serde_json::json;

use super::progress::{self, Progress};
use super::{Failure, connect, times};
use crate::cli::{Axis, GetArgs};

/// Runs the command.
pub fn run(args: &GetArgs) -> Result<ExitCode, Failure> {
    let client = connect::client(&args.server)?;
    let mut writer = Writer::new(args, &client)?;
    super::small_runtime()?.block_on(async {
        let time = args.seconds.map_or(Duration::MAX, Duration::from_secs);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(time, read(args, &client, &mut writer)) => outcome.unwrap_or(Ok(())),
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        // What was read is made whole whatever came after.
        writer.progress.clear();
        writer.finish()?;
        outcome?;
        writer.conclude(args);
        Ok(if writer.fragments > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

async fn read(args: &GetArgs, client: &Client, writer: &mut Writer) -> Result<(), Failure> {
    let stream = StreamName::Name(args.stream.clone());
    let now = client.clock().now();
    let to = args.to.as_deref().map(|to| times::parse(to, now)).transpose()?;
    if !args.live {
        let from = args.from.as_deref().filter(|from| *from != "earliest");
        let range = TimeRange {
            axis: axis(args.axis),
            from: from.map_or(Ok(Timestamp::from_millis(0)), |from| times::parse(from, now))?,
            to: to.unwrap_or(now),
        };
        let listed = client.list_fragments(&stream, &range).await?;
        writer.expected = Some(listed.len());
        let mut fragments = Box::pin(client.read_fragments(&stream, &listed, BatchOptions::default()));
        while let Some(fragment) = fragments.next().await {
            writer.write(&fragment?)?;
        }
        return Ok(());
    }
    let start = start(args, now)?;
    let mut reader = LiveReader::new(client.clone(), ReaderConfig::new(stream, start));
    while let Some(fragment) = reader.next_fragment().await? {
        let time = match axis(args.axis) {
            TimeAxis::Server => fragment.start.server_timestamp,
            TimeAxis::Producer => fragment.start.producer_timestamp,
        };
        if to.is_some_and(|to| time.is_some_and(|time| time > to)) {
            break;
        }
        writer.write(&fragment)?;
    }
    Ok(())
}

fn axis(axis: Axis) -> TimeAxis {
    match axis {
        Axis::Server => TimeAxis::Server,
        Axis::Producer => TimeAxis::Producer,
    }
}

/// Where a live reader starts, from what a person types.
fn start(args: &GetArgs, now: Timestamp) -> Result<StartAt, Failure> {
    let text = args.from.as_deref().unwrap_or("now");
    Ok(match text {
        "now" => StartAt::Now,
        "earliest" => StartAt::Earliest,
        number if times::is_fragment_number(number) => {
            StartAt::After(FragmentNumber::new(number).ok_or("no fragment number")?)
        }
        time => {
            let time = times::parse(time, now)?;
            match axis(args.axis) {
                TimeAxis::Server => StartAt::ServerTime(time),
                TimeAxis::Producer => StartAt::ProducerTime(time),
            }
        }
    })
}

enum Output {
    File(File),
    Pipe(std::io::Stdout),
}

/// Writes fragments, merged or as they come.
struct Writer {
    output: Output,
    merge: Option<Merge>,
    json: bool,
    fragments: u64,
    bytes: u64,
    /// Fragments that will come, where that is known.
    expected: Option<usize>,
    first: Option<Timestamp>,
    progress: Progress,
}

impl Writer {
    fn new(args: &GetArgs, client: &Client) -> Result<Self, Failure> {
        Ok(Writer {
            output: open(args.output.as_deref())?,
            merge: (!args.raw).then(|| {
                Merge::new(MergeOptions {
                    close_gaps: args.close_gaps,
                })
            }),
            json: args.json,
            fragments: 0,
            bytes: 0,
            expected: None,
            first: None,
            progress: Progress::new(Arc::clone(client.clock()), !args.json),
        })
    }

    /// Says how far it is: fragments, bytes, and how long the film plays so far.
    fn show(&mut self, fragment: &Fragment) {
        let last = fragment.frames.last().and_then(|frame| fragment.time_of(frame));
        let last = last.or(fragment.start.producer_timestamp);
        self.first = self.first.or(fragment.start.producer_timestamp);
        let first = self.first;
        let (fragments, bytes, expected) = (self.fragments, self.bytes, self.expected);
        self.progress.show(|| {
            let plays = progress::play_time(
                last.zip(first)
                    .map_or(0, |(last, first)| last.millis() - first.millis()),
            );
            let of = expected.map(|whole| format!(" of {whole}")).unwrap_or_default();
            format!("{fragments}{of} fragments, {}, {plays}", progress::bytes(bytes))
        });
    }

    fn write(&mut self, fragment: &Fragment) -> Result<(), Failure> {
        let pieces = match &mut self.merge {
            Some(merge) => merge.push(fragment).map_err(|changed| {
                let time = fragment
                    .start
                    .server_timestamp
                    .map(|time| time.to_string())
                    .unwrap_or_default();
                format!("{changed}; read on with --from {time}")
            })?,
            None => fragment.document.clone(),
        };
        for piece in &pieces {
            match &mut self.output {
                Output::File(file) => file.write_all(piece)?,
                Output::Pipe(pipe) => pipe.write_all(piece)?,
            }
            self.bytes += piece.len() as u64;
        }
        self.fragments += 1;
        self.show(fragment);
        if self.json && matches!(self.output, Output::File(_)) {
            let start = &fragment.start;
            let row = json!({
                "fragment_number": start.number.as_ref().map(ToString::to_string),
                "server_timestamp": start.server_timestamp.map(Timestamp::seconds),
                "producer_timestamp": start.producer_timestamp.map(Timestamp::seconds),
                "frames": fragment.frames.len(),
                "bytes": fragment.len(),
                "millis_behind_now": fragment.end.millis_behind_now,
            });
            println!("{row}");
        }
        Ok(())
    }

    /// Gives the film its seek index, and its length in its head, where that can be done.
    fn finish(&mut self) -> Result<(), Failure> {
        match &mut self.output {
            Output::File(file) => {
                if let Some(ending) = self.merge.as_ref().and_then(Merge::finish) {
                    file.write_all(&ending.tail)?;
                    for patch in &ending.patches {
                        file.seek(SeekFrom::Start(patch.offset))?;
                        file.write_all(&patch.bytes)?;
                    }
                }
                Ok(file.flush()?)
            }
            Output::Pipe(pipe) => Ok(pipe.flush()?),
        }
    }

    fn conclude(&self, args: &GetArgs) {
        if let Some(output) = args.output.as_ref().filter(|_| !self.json) {
            eprintln!(
                "{} fragments, {} bytes in {}",
                self.fragments,
                self.bytes,
                output.display()
            );
        } else if self.fragments == 0 {
            eprintln!("nothing is stored in that range");
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn open(output: Option<&Path>) -> Result<Output, Failure> {
    match output {
        Some(path) if path.as_os_str() != "-" => {
            let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Output::File(file))
        }
        _ if std::io::stdout().is_terminal() => {
            Err("video is not for a terminal: give -o FILE, or pipe it into a player (mpv -)".into())
        }
        _ => Ok(Output::Pipe(std::io::stdout())),
    }
}
