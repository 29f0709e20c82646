//! Ingest: how fast, how soon and in how little memory PutMedia is kept.
//!
//! 1. Throughput: 50 streams over loopback HTTP send 1 s fragments of 500 KB as fast as the server takes them, at most four
//!    unacknowledged a stream, every fragment synced before its PERSISTED. Bytes of PERSISTED fragments a second, against
//!    one sequential writer with one fdatasync per 50 ms on the same disk, measured before and after in the same run.
//! 2. Delay: 50 streams of 4 Mb/s, paced frame by frame; from the hand-over of a fragment's last byte to its PERSISTED.
//! 3. Memory: what 50 such connections, and 200 idle ones, add to the server.
//!
//! The producers run in this process, on the same cores as the server.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench::measure::{cpu_seconds, mb, memory_bytes, mib, ms, quantile, sequential_writer};
use bench::server::{Server, create_video_stream};
use bench::{Failure, fragment};
use bytes::Bytes;
use clap::Parser;
use client::{Client, EventType, PutMediaOptions, StreamName, TimecodeType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

const STREAMS: usize = 50;
const IDLE_CONNECTIONS: usize = 200;
const FRAMES: usize = 25;
const FRAME_MS: i16 = 40;
const FRAGMENT_BYTES: usize = 500_000;
/// Fragments that a stream sends ahead of their PERSISTED.
const UNACKNOWLEDGED_MAX: usize = 4;

/// What DESIGN and the issue promise.
const RATIO_MIN: f64 = 0.60;
const DELAY_P99_MS_MAX: f64 = 250.0;
const CONNECTION_MIB_MAX: f64 = 2.0;
const IDLE_MIB_MAX: f64 = 50.0;

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder on the disk to measure; a data directory is made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Seconds of throughput.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds of paced streams.
    #[arg(long, default_value_t = 60)]
    paced_seconds: u64,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(args))
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new().prefix("ingest-").tempdir_in(&args.folder)?;
    let log = args.folder.join("ingest-server.log");
    let server = Server::start(&args.sightglass, &folder.path().join("data"), &log)?;
    let client = server.client()?;
    let idle_bytes = memory_bytes(server.pid(), "VmRSS")?;
    for stream in 0..STREAMS {
        create_video_stream(&client, &name(stream)).await?;
    }
    let paced = paced(&server, &client, Duration::from_secs(args.paced_seconds), idle_bytes).await?;
    let idle = idle_connections(&server, idle_bytes).await?;
    let fast = throughput(&args, &server, &client, folder.path()).await?;
    server.stop()?;
    let kept = [paced, idle, fast];
    Ok(if kept.contains(&false) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn name(stream: usize) -> String {
    format!("ingest-{stream}")
}

/// Prints a figure beside its bound and says whether it holds.
fn verdict(what: &str, kept: bool, bound: &str) -> bool {
    println!(
        "   {what}: {} (promised: {bound})",
        if kept { "kept" } else { "MISSED" }
    );
    kept
}

async fn throughput(args: &Args, server: &Server, client: &Client, folder: &std::path::Path) -> Result<bool, Failure> {
    let time = Duration::from_secs(args.seconds);
    let noise = fragment::noise(256 * 1024, 1);
    let writer = || sequential_writer(folder, time / 2, &noise);
    let before = tokio::task::block_in_place(writer)?;
    let (cpu_before, own_before) = (cpu_seconds(server.pid())?, cpu_seconds(std::process::id())?);
    let start = Instant::now();
    let mut producers = JoinSet::new();
    for stream in 0..STREAMS {
        producers.spawn(producer(client.clone(), stream, Pace::Fast(start + time)));
    }
    let mut bytes = 0_u64;
    while let Some(outcome) = producers.join_next().await {
        let outcome = outcome??;
        bytes += outcome.persisted_bytes;
    }
    let seconds = start.elapsed().as_secs_f64();
    let gigabytes = bytes as f64 / 1e9;
    let cpu = (cpu_seconds(server.pid())? - cpu_before) / gigabytes;
    let own = (cpu_seconds(std::process::id())? - own_before) / gigabytes;
    let after = tokio::task::block_in_place(writer)?;
    let peer = f64::midpoint(before.0, after.0);
    let ratio = bytes as f64 / seconds / peer;
    println!("throughput, {STREAMS} streams, {FRAGMENT_BYTES}-byte fragments, {seconds:.1} s:");
    println!("   ingest             {:8.0} MB/s", mb(bytes as f64 / seconds));
    println!(
        "   sequential writer  {:8.0} MB/s ({:.0} before, {:.0} after)",
        mb(peer),
        mb(before.0),
        mb(after.0)
    );
    println!("   ratio              {ratio:8.2}");
    println!(
        "   CPU seconds per GB {cpu:8.2} (producers {own:.2}, sequential writer {:.2})",
        f64::midpoint(before.1, after.1)
    );
    println!(
        "   memory, peak       {:8.0} MiB",
        mib(memory_bytes(server.pid(), "VmHWM")?)
    );
    Ok(verdict("ratio", ratio >= RATIO_MIN, "0.60 or more"))
}

async fn paced(server: &Server, client: &Client, time: Duration, idle_bytes: u64) -> Result<bool, Failure> {
    let start = Instant::now() + Duration::from_millis(200);
    let cpu_before = cpu_seconds(server.pid())?;
    let mut producers = JoinSet::new();
    for stream in 0..STREAMS {
        // Cameras do not start their fragments at the same moment.
        let offset = Duration::from_secs(1) * stream as u32 / STREAMS as u32;
        producers.spawn(producer(client.clone(), stream, Pace::Real(start + offset, time)));
    }
    let pid = server.pid();
    let watch = tokio::spawn(async move {
        let mut peak = 0;
        while let Ok(bytes) = memory_bytes(pid, "VmRSS") {
            peak = peak.max(bytes);
            if start.elapsed() >= time {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        peak
    });
    let mut delays = Vec::new();
    let mut bytes = 0;
    while let Some(outcome) = producers.join_next().await {
        let outcome = outcome??;
        bytes += outcome.persisted_bytes;
        delays.extend(outcome.delays);
    }
    let peak = watch.await?;
    let cpu = (cpu_seconds(pid)? - cpu_before) / (bytes as f64 / 1e9);
    let (p50, p99) = (ms(quantile(&mut delays, 0.5)), ms(quantile(&mut delays, 0.99)));
    let worst = ms(quantile(&mut delays, 1.0));
    let each = mib(peak.saturating_sub(idle_bytes)) / STREAMS as f64;
    println!(
        "paced, {STREAMS} streams of 4 Mb/s for {} s, {} fragments:",
        time.as_secs(),
        delays.len()
    );
    println!("   last byte to PERSISTED  p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms");
    println!("   CPU seconds per GB      {cpu:.2}");
    println!(
        "   memory                  {each:.2} MiB a connection (peak {:.0} MiB, idle server {:.0} MiB)",
        mib(peak),
        mib(idle_bytes)
    );
    let delay = verdict("delay", p99 < DELAY_P99_MS_MAX, "p99 under 250 ms");
    let memory = verdict("memory", each < CONNECTION_MIB_MAX, "under 2 MiB a connection");
    Ok(delay && memory)
}

async fn idle_connections(server: &Server, idle_bytes: u64) -> Result<bool, Failure> {
    let before = memory_bytes(server.pid(), "VmRSS")?;
    let address = server.endpoint().trim_start_matches("http://").to_owned();
    let mut open = Vec::new();
    for _ in 0..IDLE_CONNECTIONS {
        let mut stream = tokio::net::TcpStream::connect(&address).await?;
        // One request each, as the pool of an SDK would have made.
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n").await?;
        let mut answer = [0; 1024];
        if stream.read(&mut answer).await? == 0 {
            return Err("an idle connection was closed".into());
        }
        open.push(stream);
    }
    let added = memory_bytes(server.pid(), "VmRSS")?.saturating_sub(before);
    println!("{IDLE_CONNECTIONS} idle connections:");
    println!(
        "   added memory  {:.1} MiB (server {:.0} MiB, at start {:.0} MiB)",
        mib(added),
        mib(before),
        mib(idle_bytes)
    );
    Ok(verdict("idle connections", mib(added) < IDLE_MIB_MAX, "under 50 MiB"))
}

/// How a producer sends.
#[derive(Clone, Copy)]
enum Pace {
    /// As fast as it may until then.
    Fast(Instant),
    /// In real time from then on, for so long.
    Real(Instant, Duration),
}

#[derive(Default)]
struct Outcome {
    persisted_bytes: u64,
    delays: Vec<Duration>,
}

/// One camera: sends fragments, and matches each PERSISTED to the moment its last byte was handed over.
async fn producer(client: Client, stream: usize, pace: Pace) -> Result<Outcome, Failure> {
    let options = PutMediaOptions {
        stream: StreamName::Name(name(stream)),
        timecodes: TimecodeType::Relative,
        started: client.clock().now(),
    };
    let mut connection = client.put_media(&options).await?;
    let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel::<(i64, Instant)>();
    let window = Arc::new(Semaphore::new(UNACKNOWLEDGED_MAX));
    let room = Arc::clone(&window);
    let (ended, mut end) = oneshot::channel::<()>();
    let acks = tokio::spawn(async move {
        let mut outcome = Outcome::default();
        let mut pending = HashMap::new();
        while let Some(ack) = connection.acks.next().await? {
            match ack.event {
                EventType::Persisted => {
                    let now = Instant::now();
                    while let Ok((timecode, at)) = seen.try_recv() {
                        pending.insert(timecode, at);
                    }
                    let timecode = ack.fragment_timecode.unwrap_or(-1);
                    let handed_over = pending.remove(&timecode).ok_or("PERSISTED for what was not sent")?;
                    outcome.delays.push(now.saturating_duration_since(handed_over));
                    outcome.persisted_bytes += FRAGMENT_BYTES as u64;
                    room.add_permits(1);
                }
                EventType::Error => return Err(format!("{ack:?}").into()),
                _ => {}
            }
        }
        drop(ended);
        Ok::<_, Failure>(outcome)
    });
    let noise = fragment::noise(FRAGMENT_BYTES, stream as u64);
    let media = connection.media;
    media.send(fragment::header()).await;
    for count in 0_u64.. {
        let due = match pace {
            Pace::Fast(until) if Instant::now() >= until => break,
            Pace::Real(_, time) if Duration::from_secs(count) >= time => break,
            Pace::Fast(_) => None,
            Pace::Real(start, _) => Some(start + Duration::from_secs(count)),
        };
        tokio::select! {
            permit = window.acquire() => permit?.forget(),
            _ = &mut end => break,
        }
        if !send_fragment(&media, count * 1000, &noise, due, &sent).await {
            break;
        }
    }
    drop(media);
    acks.await?
}

/// False when the server takes no more.
async fn send_fragment(
    media: &client::MediaSender,
    timecode: u64,
    noise: &Bytes,
    due: Option<Instant>,
    sent: &tokio::sync::mpsc::UnboundedSender<(i64, Instant)>,
) -> bool {
    let pieces = match due {
        Some(_) => fragment::pieces(timecode, noise, FRAMES, FRAME_MS),
        None => fragment::chunked(timecode, noise, FRAMES, FRAME_MS),
    };
    let last = pieces.len() - 1;
    for (index, piece) in pieces.into_iter().enumerate() {
        if let Some(due) = due
            && index % 2 == 0
        {
            // A frame leaves at the end of its time.
            let frame = (index / 2 + 1).min(FRAMES) as u32;
            tokio::time::sleep_until((due + Duration::from_millis(40) * frame).into()).await;
        }
        if index == last {
            // Before the hand-over, so that the acknowledgement cannot come first.
            let _ = sent.send((timecode as i64, Instant::now()));
        }
        if !media.send(piece).await {
            return false;
        }
    }
    true
}
