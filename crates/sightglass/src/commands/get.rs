//! `sightglass get STREAM`: writes what GetMedia sends. It sends a Matroska document a fragment; they are merged into one
//! that players can play, unless the bytes are wanted as they come.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use client::StreamName;
use matroska::merge::{self, Merger};
use serde_json::{Value, json};

use super::{Failure, connect};
use crate::cli::GetArgs;

/// Runs the command.
pub fn run(args: &GetArgs) -> Result<ExitCode, Failure> {
    let client = connect::client(&args.server)?;
    let selector = selector(&args.start)?;
    let mut writer = Writer {
        output: open(args)?,
        merger: (!args.verbatim).then(|| Merger::new(merge::Options::default())),
        merged: Vec::new(),
    };
    super::small_runtime()?.block_on(async {
        let stream = StreamName::Name(args.stream.clone());
        let client = client.data_endpoint(&stream, "GET_MEDIA").await?;
        let mut media = client.get_media(&stream, &selector).await?;
        let time = args.seconds.map_or(Duration::MAX, Duration::from_secs);
        let copying = async {
            while let Some(piece) = media.next().await? {
                writer.write(piece)?;
            }
            Ok::<_, Failure>(())
        };
        if let Ok(outcome) = tokio::time::timeout(time, copying).await {
            outcome?;
        }
        writer.finish()?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Writes media, merged or as it comes.
struct Writer {
    output: Box<dyn Write>,
    merger: Option<Merger>,
    merged: Vec<Bytes>,
}

impl Writer {
    fn write(&mut self, piece: Bytes) -> Result<(), Failure> {
        match &mut self.merger {
            Some(merger) => merger.push(piece, &mut self.merged)?,
            None => self.merged.push(piece),
        }
        self.drain()
    }

    /// What is cut off in the middle of an element ends with the last whole one.
    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(merger) = &mut self.merger
            && let Err(cut) = merger.finish(&mut self.merged)
        {
            tracing::debug!(%cut, "the media was cut off");
        }
        self.drain()?;
        Ok(self.output.flush()?)
    }

    fn drain(&mut self) -> Result<(), Failure> {
        for piece in self.merged.drain(..) {
            self.output.write_all(&piece)?;
        }
        Ok(())
    }
}

/// Where GetMedia starts, from what a person types.
fn selector(start: &str) -> Result<Value, Failure> {
    Ok(match start {
        "now" => json!({ "StartSelectorType": "NOW" }),
        "earliest" => json!({ "StartSelectorType": "EARLIEST" }),
        number if number.len() == 47 && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            json!({ "StartSelectorType": "FRAGMENT_NUMBER", "AfterFragmentNumber": number })
        }
        seconds => {
            let seconds: f64 = seconds
                .parse()
                .map_err(|_| format!("{start:?} is not now, earliest, a fragment number or seconds since 1970"))?;
            json!({ "StartSelectorType": "SERVER_TIMESTAMP", "StartTimestamp": seconds })
        }
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn open(args: &GetArgs) -> Result<Box<dyn Write>, Failure> {
    match &args.output {
        Some(path) => {
            let file = std::fs::File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Box::new(file))
        }
        None if std::io::stdout().is_terminal() => {
            Err("video is not for a terminal: give --output FILE, or pipe it into a player (mpv -)".into())
        }
        None => Ok(Box::new(std::io::stdout())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_read_as_a_person_means_it() {
        let kind = |start: &str| {
            selector(start).unwrap()["StartSelectorType"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(kind("now"), "NOW");
        assert_eq!(kind("earliest"), "EARLIEST");
        assert_eq!(
            kind("91343852333181432392682062607743920146159169392"),
            "FRAGMENT_NUMBER"
        );
        assert_eq!(kind("1795347223.5"), "SERVER_TIMESTAMP");
        assert!(selector("yesterday").is_err());
    }
}
