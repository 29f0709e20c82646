//! `sightglass put STREAM SOURCE`: sends a file, a pipe, or whatever ffmpeg can read, into a video stream, and loses none
//! of it while the server is away.

use std::io::Read;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::Mutex;

use base::{Clock, Timestamp};
use client::producer::{FeedOptions, Pace, Producer, ProducerConfig, ProducerEvent, ProducerStats, advice};
use client::{Ack, Client, EventType, Service, StreamName, TimecodeType};
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};

use super::progress::Progress;
use super::{Failure, connect};
use crate::cli::{PutArgs, Timestamps};

/// What every Matroska file begins with.
const EBML: [u8; 4] = [0x1A, 0x45, 0xDF, 0xA3];

/// Runs the command.
pub fn run(args: &PutArgs) -> Result<ExitCode, Failure> {
    if args.r#loop && args.source == "-" {
        return Err("standard input cannot be played twice; --loop needs a file".into());
    }
    let client = connect::client(&args.server)?;
    super::small_runtime()?.block_on(put(args, client))
}

async fn put(args: &PutArgs, client: Client) -> Result<ExitCode, Failure> {
    if let Some(hours) = args.create {
        create(&client, &args.stream, hours).await?;
    }
    let report = Arc::new(Mutex::new(Report::new(args.json, Arc::clone(client.clock()))));
    let mut config = ProducerConfig::new(StreamName::Name(args.stream.clone()));
    config.give_up_after = args.give_up_after.map(std::time::Duration::from_secs);
    let shown = Arc::clone(&report);
    config.on_event = Some(Arc::new(move |event: &ProducerEvent| {
        if let Ok(mut report) = shown.lock() {
            report.take(event);
        }
    }));
    let clock = Arc::clone(client.clock());
    let mut producer = Producer::start(client, config);
    let mut started = clock.now();
    let outcome = tokio::select! {
        outcome = async {
            loop {
                let length = play(args, &mut producer, started).await?;
                if !args.r#loop {
                    return Ok::<(), Failure>(());
                }
                // The next pass follows the last frame, and is never in the past of a camera that plays in real time.
                started = started.plus_millis(i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1));
                if args.realtime {
                    started = started.max(clock.now());
                }
            }
        } => outcome,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    let finished = producer.finish().await;
    if let Ok(mut report) = report.lock() {
        report.progress.clear();
    }
    let stats = match finished {
        Ok(stats) => stats,
        Err(undelivered) => {
            // Why the producer stopped says more than that it would take nothing.
            return Err(undelivered.into());
        }
    };
    outcome?;
    conclude(args, &stats);
    Ok(if stats.confirmed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn conclude(args: &PutArgs, stats: &ProducerStats) {
    if args.json {
        return;
    }
    println!(
        "{} fragments stored, {} bytes; {} connections, {} fragments sent again; PERSISTED after {:.0} ms on average",
        stats.confirmed,
        stats.bytes_confirmed,
        stats.connections,
        stats.resent,
        stats.persisted_after.mean().as_secs_f64() * 1000.0
    );
}

/// Makes the stream unless it is there.
async fn create(client: &Client, stream: &str, hours: u32) -> Result<(), Failure> {
    let input = json!({ "StreamName": stream, "DataRetentionInHours": hours });
    match client.call(Service::KinesisVideo, "CreateStream", &input).await {
        Err(error) if error.code() != Some("ResourceInUseException") => Err(error.into()),
        _ => Ok(()),
    }
}

/// Plays the source once. Gives how long it plays.
async fn play(args: &PutArgs, producer: &mut Producer, started: Timestamp) -> Result<std::time::Duration, Failure> {
    let options = FeedOptions {
        pace: if args.realtime { Pace::Realtime } else { Pace::Fast },
        timecodes: match args.timestamps {
            Timestamps::Relative => TimecodeType::Relative,
            Timestamps::Absolute => TimecodeType::Absolute,
        },
        started,
    };
    let (source, mut ffmpeg) = open(&args.source)?;
    let fed = producer.feed(source, &options).await?;
    if let Some(ffmpeg) = &mut ffmpeg
        && !ffmpeg.wait().await?.success()
        && fed.fragments == 0
    {
        return Err(format!("ffmpeg cannot read {}", args.source).into());
    }
    Ok(fed.length)
}

type Source = Box<dyn AsyncRead + Send + Unpin>;

/// Opens what the person named: a Matroska file as it is, anything else through ffmpeg.
#[allow(
    clippy::disallowed_methods,
    reason = "a file named on the command line, no data of the server"
)]
fn open(source: &str) -> Result<(Source, Option<Child>), Failure> {
    if source == "-" {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    if source.contains("://") {
        return through_ffmpeg(source);
    }
    let path = Path::new(source);
    let mut head = [0; EBML.len()];
    let mut file = std::fs::File::open(path).map_err(|error| format!("{source}: {error}"))?;
    let other = path.is_file() && file.read_exact(&mut head).is_ok() && head != EBML;
    if other {
        return through_ffmpeg(source);
    }
    if path.is_file() {
        file = std::fs::File::open(path).map_err(|error| format!("{source}: {error}"))?;
    }
    Ok((Box::new(tokio::fs::File::from_std(file)), None))
}

/// Frames are copied, not encoded; a fragment begins at each key frame.
fn through_ffmpeg(source: &str) -> Result<(Source, Option<Child>), Failure> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin"]);
    if source.starts_with("rtsp://") {
        command.args(["-rtsp_transport", "tcp"]);
    }
    command.args([
        "-i", source, "-map", "0:v:0?", "-map", "0:a:0?", "-c", "copy", "-f", "matroska",
    ]);
    // Without these, a pipe gets clusters that end between key frames.
    command.args([
        "-cluster_size_limit",
        "40000000",
        "-cluster_time_limit",
        "15000",
        "-flush_packets",
        "1",
        "-",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        format!(
            "{source} is read through ffmpeg, which does not start ({error}); install ffmpeg, or give a Matroska file"
        )
    })?;
    let output = child.stdout.take().ok_or("ffmpeg has no output")?;
    Ok((Box::new(output), Some(child)))
}

/// Says what becomes of the fragments: a line that moves on a terminal, JSON lines where they are asked for, and otherwise
/// only what went wrong.
struct Report {
    json: bool,
    fragments: u64,
    progress: Progress,
}

impl Report {
    fn new(json: bool, clock: Arc<dyn Clock>) -> Self {
        Report {
            json,
            fragments: 0,
            progress: Progress::new(clock, !json),
        }
    }

    fn take(&mut self, event: &ProducerEvent) {
        match event {
            ProducerEvent::Ack { ack, after, .. } => {
                if self.json {
                    println!("{}", as_json(ack, after.map(|after| after.as_secs_f64() * 1000.0)));
                }
                match ack.event {
                    EventType::Persisted => self.fragments += 1,
                    EventType::Error => {
                        let id = ack.error_id.unwrap_or(0);
                        let code = ack.error_code.as_deref().unwrap_or("unknown");
                        let advice = advice(id).map(|advice| format!(": {advice}")).unwrap_or_default();
                        self.say(&format!("the server refused a fragment: {id} {code}{advice}"));
                    }
                    _ => {}
                }
                self.show(ack);
            }
            ProducerEvent::Disconnected {
                error: Some(error),
                retry_in: Some(wait),
                ..
            } => self.say(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64())),
            ProducerEvent::Lost(lost) => {
                self.say(&format!("fragment {} is lost: {}", lost.fragment.timecode, lost.reason));
            }
            _ => {}
        }
    }

    fn show(&mut self, ack: &Ack) {
        if ack.event == EventType::Persisted {
            let (number, stored) = (ack.fragment_number.as_deref().unwrap_or("-"), self.fragments);
            self.progress
                .show(|| format!("{stored} fragments stored, the last {number}"));
        }
    }

    fn say(&mut self, what: &str) {
        self.progress.clear();
        eprintln!("{what}");
    }
}

fn as_json(ack: &Ack, after_ms: Option<f64>) -> Value {
    json!({
        "event": format!("{:?}", ack.event).to_uppercase(),
        "timecode": ack.fragment_timecode,
        "fragment_number": ack.fragment_number,
        "error_id": ack.error_id,
        "error_code": ack.error_code,
        "after_ms": after_ms,
    })
}
