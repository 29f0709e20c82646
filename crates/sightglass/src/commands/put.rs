//! `sightglass put STREAM SOURCE`: plays a Matroska file into a video stream as a camera would.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use base::Timestamp;
use bytes::Bytes;
use client::{Ack, Acks, Client, EventType, MediaSender, Player, PutMediaOptions, Service, StreamName, TimecodeType};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Failure, connect};
use crate::cli::PutArgs;

/// Bytes read from the source at a time.
const READ_BYTES: usize = 64 * 1024;
/// Pieces read ahead of the network.
const READ_AHEAD: usize = 16;

/// Runs the command.
pub fn run(args: &PutArgs) -> Result<ExitCode, Failure> {
    if args.r#loop && args.source.as_os_str() == "-" {
        return Err("standard input cannot be played twice; --loop needs a file".into());
    }
    let client = connect::client(&args.server)?;
    super::small_runtime()?.block_on(put(args, &client))
}

async fn put(args: &PutArgs, client: &Client) -> Result<ExitCode, Failure> {
    let stream = StreamName::Name(args.stream.clone());
    if let Some(hours) = args.create {
        create(client, &args.stream, hours).await?;
    }
    let description = client
        .call(
            Service::KinesisVideo,
            "DescribeStream",
            &json!({ "StreamName": args.stream }),
        )
        .await?;
    let retention = description
        .pointer("/StreamInfo/DataRetentionInHours")
        .and_then(Value::as_i64);
    let client = client.data_endpoint(&stream, "PUT_MEDIA").await?;
    let mut report = Report {
        json: args.json,
        keeps: retention.unwrap_or(0) > 0,
        ..Report::default()
    };
    let mut started = client.clock().now();
    loop {
        let played = play(args, &client, &stream, started, &mut report).await?;
        if !args.r#loop || report.errors > 0 {
            break;
        }
        // The next pass follows the last frame, and is never in the past of a camera that plays in real time.
        let length_ms = i64::try_from(played.as_millis()).unwrap_or(i64::MAX).max(1);
        started = started.plus_millis(length_ms);
        if args.realtime {
            started = started.max(client.clock().now());
        }
    }
    Ok(report.conclude())
}

/// Makes the stream unless it is there.
async fn create(client: &Client, stream: &str, hours: u32) -> Result<(), Failure> {
    let input = json!({ "StreamName": stream, "DataRetentionInHours": hours });
    match client.call(Service::KinesisVideo, "CreateStream", &input).await {
        Err(error) if error.code() != Some("ResourceInUseException") => Err(error.into()),
        _ => Ok(()),
    }
}

/// Plays the source once over a connection of its own.
async fn play(
    args: &PutArgs,
    client: &Client,
    stream: &StreamName,
    started: Timestamp,
    report: &mut Report,
) -> Result<Duration, Failure> {
    let options = PutMediaOptions {
        stream: stream.clone(),
        timecodes: TimecodeType::Relative,
        started,
    };
    let connection = client.put_media(&options).await?;
    let source = open(&args.source)?;
    let sending = send(source, connection.media, args.realtime);
    let receiving = receive(connection.acks, report, client);
    let (sent, received) = tokio::join!(sending, receiving);
    let sent = sent?;
    received?;
    report.bytes += sent.bytes;
    Ok(sent.length)
}

/// What was sent.
struct Sent {
    bytes: u64,
    length: Duration,
}

/// Reads the source in a thread of its own, for it may be a pipe that is slow.
#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn open(source: &Path) -> Result<mpsc::Receiver<std::io::Result<Bytes>>, Failure> {
    let mut input: Box<dyn Read + Send> = match source.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        Some(url) if url.contains("://") => {
            let remedy = "ffmpeg can read it: ffmpeg -i URL -c copy -f matroska - | sightglass put STREAM -";
            return Err(format!("{url} is not a file; {remedy}").into());
        }
        _ => Box::new(std::fs::File::open(source).map_err(|error| format!("{}: {error}", source.display()))?),
    };
    let (pieces, read) = mpsc::channel(READ_AHEAD);
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0; READ_BYTES];
            let piece = input.read(&mut buffer).map(|len| {
                buffer.truncate(len);
                Bytes::from(buffer)
            });
            let last = !matches!(&piece, Ok(bytes) if !bytes.is_empty());
            if pieces.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    Ok(read)
}

async fn send(
    mut source: mpsc::Receiver<std::io::Result<Bytes>>,
    media: MediaSender,
    realtime: bool,
) -> Result<Sent, Failure> {
    let start = tokio::time::Instant::now();
    let mut player = Player::new();
    let mut bytes = 0;
    let mut ended = false;
    while !ended {
        match source.recv().await.transpose()? {
            Some(piece) if !piece.is_empty() => player.push(piece),
            _ => {
                player.finish();
                ended = true;
            }
        }
        let not_matroska = |error| {
            format!(
                "the source is not Matroska: {error}; ffmpeg can make it so: ffmpeg -i SOURCE -c copy -f matroska -"
            )
        };
        while let Some(piece) = player.next_piece().map_err(not_matroska)? {
            if realtime {
                tokio::time::sleep_until(start + piece.due).await;
            }
            bytes += piece.bytes.len() as u64;
            if !media.send(piece.bytes).await {
                // The acknowledgements say why.
                ended = true;
                break;
            }
        }
    }
    Ok(Sent {
        bytes,
        length: player.length(),
    })
}

async fn receive(mut acks: Acks, report: &mut Report, client: &Client) -> Result<(), Failure> {
    while let Some(ack) = acks.next().await? {
        report.take(&ack, client.clock().monotonic());
    }
    Ok(())
}

/// Prints what becomes of each fragment, and counts.
#[derive(Default)]
struct Report {
    json: bool,
    /// Whether the stream keeps anything, so that a fragment ends with PERSISTED and not with RECEIVED.
    keeps: bool,
    buffering: HashMap<String, Duration>,
    received: HashMap<String, Duration>,
    rows: u64,
    fragments: u64,
    errors: u64,
    bytes: u64,
}

impl Report {
    fn take(&mut self, ack: &Ack, now: Duration) {
        if self.json {
            println!("{}", as_json(ack));
        }
        let number = ack.fragment_number.clone().unwrap_or_default();
        match ack.event {
            EventType::Buffering => {
                self.buffering.insert(number, now);
            }
            EventType::Received if self.keeps => {
                self.received.insert(number, now);
            }
            EventType::Received | EventType::Persisted => {
                self.fragments += 1;
                let begun = self.buffering.remove(&number).unwrap_or(now);
                let whole = self.received.remove(&number).unwrap_or(now);
                self.row(ack, &format!("{:8.0} {:8.1}", millis(whole, begun), millis(now, whole)));
            }
            EventType::Error => {
                self.errors += 1;
                let (id, code) = (
                    ack.error_id.unwrap_or(0),
                    ack.error_code.as_deref().unwrap_or("unknown"),
                );
                self.row(ack, &format!("{id} {code}"));
            }
            EventType::Idle => {}
        }
    }

    fn row(&mut self, ack: &Ack, what: &str) {
        if self.json {
            return;
        }
        if self.rows == 0 {
            println!(
                "{:>12}  {:47}  {:>8} {:>8}",
                "timecode", "fragment number", "sent ms", "kept ms"
            );
        }
        self.rows += 1;
        let timecode = ack.fragment_timecode.map(|time| time.to_string()).unwrap_or_default();
        println!(
            "{timecode:>12}  {:47}  {what}",
            ack.fragment_number.as_deref().unwrap_or("-")
        );
    }

    /// Success when every fragment that arrived is kept.
    fn conclude(&self) -> ExitCode {
        let lost = self.received.len();
        if !self.json {
            let kept = if self.keeps {
                "persisted"
            } else {
                "received (the stream keeps nothing)"
            };
            println!(
                "{} fragments {kept}, {} bytes sent, {} errors",
                self.fragments, self.bytes, self.errors
            );
        }
        if self.errors == 0 && lost == 0 && self.fragments > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn millis(later: Duration, earlier: Duration) -> f64 {
    later.saturating_sub(earlier).as_secs_f64() * 1000.0
}

fn as_json(ack: &Ack) -> Value {
    json!({
        "event": format!("{:?}", ack.event).to_uppercase(),
        "timecode": ack.fragment_timecode,
        "fragment_number": ack.fragment_number,
        "error_id": ack.error_id,
        "error_code": ack.error_code,
    })
}
