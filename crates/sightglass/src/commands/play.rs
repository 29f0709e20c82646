//! `sightglass play STREAM`: an HLS session's URL, and a player that opens it where one is installed.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use client::{Service, StreamName};
use serde_json::{Value, json};

use super::{Failure, connect, times};
use crate::cli::PlayArgs;

/// Players that take a URL, the best first, with what they want before it.
const PLAYERS: [(&str, &[&str]); 3] = [
    ("mpv", &[]),
    ("ffplay", &["-loglevel", "error", "-autoexit"]),
    ("vlc", &[]),
];

/// Runs the command.
pub fn run(args: &PlayArgs) -> Result<ExitCode, Failure> {
    let client = connect::client(&args.server)?;
    let now = client.clock().now();
    let range = match (&args.from, &args.to) {
        (None, _) => None,
        (Some(from), to) => {
            let to = to.as_deref().map(|to| times::parse(to, now)).transpose()?;
            Some((times::parse(from, now)?, to))
        }
    };
    let input = match range {
        None => json!({ "StreamName": args.stream, "PlaybackMode": "LIVE" }),
        Some((from, to)) => json!({
            "StreamName": args.stream,
            "PlaybackMode": if to.is_some() { "ON_DEMAND" } else { "LIVE_REPLAY" },
            "HLSFragmentSelector": {
                "FragmentSelectorType": args.axis.selector_type(),
                "TimestampRange": match to {
                    None => json!({ "StartTimestamp": from.seconds() }),
                    Some(to) => json!({ "StartTimestamp": from.seconds(), "EndTimestamp": to.seconds() }),
                },
            },
        }),
    };
    let url = super::small_runtime()?.block_on(async {
        let stream = StreamName::Name(args.stream.clone());
        let client = client.data_endpoint(&stream, "GET_HLS_STREAMING_SESSION_URL").await?;
        client
            .call(Service::KinesisVideo, "GetHLSStreamingSessionURL", &input)
            .await
    });
    let answer = url.map_err(connect::explained)?;
    let url = answer.get("HLSStreamingSessionURL").and_then(Value::as_str);
    let url = url.ok_or("the server gave no URL")?;
    if args.json {
        println!("{}", json!({ "url": url }));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{url}");
    if args.url {
        return Ok(ExitCode::SUCCESS);
    }
    let Some((player, flags)) = PLAYERS.iter().find(|(name, _)| installed(name)) else {
        eprintln!("no player is installed (mpv, ffplay or vlc); open the URL in Safari, or in a page with hls.js");
        return Ok(ExitCode::SUCCESS);
    };
    let played = Command::new(player).args(*flags).arg(url).status()?;
    Ok(if played.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .map(|folder: PathBuf| folder.join(program))
        .any(|path| path.is_file())
}
