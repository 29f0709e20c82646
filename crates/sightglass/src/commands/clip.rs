//! `sightglass clip STREAM --from T --to T -o FILE.mp4`: GetClip into a file.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use client::StreamName;
use serde_json::json;

use super::progress::{self, Progress};
use super::{Failure, connect, times};
use crate::cli::{Axis, ClipArgs};

/// Runs the command.
pub fn run(args: &ClipArgs) -> Result<ExitCode, Failure> {
    let client = connect::client(&args.server)?;
    let now = client.clock().now();
    let (from, to) = (times::parse(&args.from, now)?, times::parse(&args.to, now)?);
    super::small_runtime()?.block_on(async {
        let stream = StreamName::Name(args.stream.clone());
        let client = client
            .data_endpoint(&stream, "GET_CLIP")
            .await
            .map_err(connect::explained)?;
        let input = json!({
            "StreamName": args.stream,
            "ClipFragmentSelector": {
                "FragmentSelectorType": args.axis.selector_type(),
                "TimestampRange": { "StartTimestamp": from.seconds(), "EndTimestamp": to.seconds() },
            },
        });
        let mut clip = client.stream_of("GetClip", &input).await.map_err(connect::explained)?;
        // Made only now, so that a refusal leaves no empty file.
        let mut file = create(args)?;
        let mut progress = Progress::new(Arc::clone(client.clock()), !args.json);
        let (mut bytes, whole) = (0_u64, clip.remaining());
        while let Some(piece) = clip.next().await.map_err(connect::explained)? {
            file.write_all(&piece)?;
            bytes += piece.len() as u64;
            progress.show(|| line(bytes, whole));
        }
        file.flush()?;
        progress.clear();
        if args.json {
            println!("{}", json!({ "file": args.output, "bytes": bytes }));
        } else {
            eprintln!("{bytes} bytes in {}", args.output.display());
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// How much is there, and of how much.
fn line(bytes: u64, whole: Option<u64>) -> String {
    let done = progress::bytes(bytes);
    match whole {
        Some(whole) => {
            let percent = bytes.saturating_mul(100).checked_div(whole).unwrap_or(100);
            format!("{done} of {} ({percent} %)", progress::bytes(whole))
        }
        None => done,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn create(args: &ClipArgs) -> Result<File, Failure> {
    Ok(File::create(&args.output).map_err(|error| format!("{}: {error}", args.output.display()))?)
}

impl Axis {
    /// As the archived-media operations call it.
    pub fn selector_type(self) -> &'static str {
        match self {
            Axis::Server => "SERVER_TIMESTAMP",
            Axis::Producer => "PRODUCER_TIMESTAMP",
        }
    }
}
