//! The log by itself: 50 streams append fragments of 500 KB as fast as the log takes them, each durable before it counts,
//! against one sequential writer with one fdatasync per 50 ms on the same disk, the two in turns within one run. Fragments
//! are trimmed so that segments are written over, as in a server that has run for longer than its retention.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::metrics::Metrics;
use base::{Clock, Disk, SystemClock, SystemDisk};
use bench::Failure;
use bench::measure::{cpu_seconds, mb, ms, quantile, sequential_writer};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use storage::{FragmentSummary, LogOptions, LogStore, MediaStore, StreamId};
use tokio::task::JoinSet;

const STREAMS: u64 = 50;
const FRAGMENT_BYTES: usize = 500_000;
/// What one read of a connection hands over.
const PIECE_BYTES: usize = 16 << 10;
/// The figure of the ingest over HTTP; the log alone must leave room for it.
const RATIO_MIN: f64 = 0.60;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Path_ {
    /// What a server uses.
    Best,
    /// pwritev and fdatasync.
    Plain,
}

#[derive(Parser)]
struct Args {
    /// Folder on the disk to measure; a data directory is made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Turns of each.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// How the log writes.
    #[arg(long, value_enum, default_value = "best")]
    path: Path_,
    /// Lanes that write media.
    #[arg(long)]
    lanes: Option<u16>,
    /// Fragments kept, in megabytes; the rest is trimmed.
    #[arg(long, default_value_t = 1000)]
    keep_mb: u64,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(args))
}

fn disk(folder: &Path, path: Path_) -> Result<Arc<dyn Disk>, Failure> {
    let plain = SystemDisk::open(folder)?;
    Ok(match path {
        Path_::Plain => Arc::new(plain),
        Path_::Best => storage::best_disk(plain),
    })
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new().prefix("log-").tempdir_in(&args.folder)?;
    let disk = disk(&folder.path().join("log"), args.path)?;
    println!("log on {disk:?}");
    let mut options = LogOptions::default();
    options.media_lanes = args.lanes.unwrap_or(options.media_lanes);
    let log = LogStore::open(disk, Arc::new(SystemClock::new()), options, &Metrics::new())?;
    let media = log.media();
    let noise: Bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(256 << 10).collect();
    let time = Duration::from_secs(args.seconds);
    // The first segments are new files; they are not what a server writes for the rest of its life.
    append(&media, time, &noise, args.keep_mb).await?;
    let mut ratios = Vec::new();
    for turn in 0..args.turns {
        let (peer, peer_cpu) = sequential_writer(folder.path(), time, &noise)?;
        let mut got = append(&media, time, &noise, args.keep_mb).await?;
        let ratio = got.bytes_per_second / peer;
        ratios.push(ratio);
        println!(
            "turn {turn}: log {:.0} MB/s ({:.2} CPU s/GB, commit p50 {:.1} ms, p99 {:.1} ms), \
             sequential writer {:.0} MB/s ({peer_cpu:.2} CPU s/GB), ratio {ratio:.2}",
            mb(got.bytes_per_second),
            got.cpu_per_gb,
            ms(quantile(&mut got.commits, 0.5)),
            ms(quantile(&mut got.commits, 0.99)),
            mb(peer),
        );
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or_default();
    println!("log against sequential writer: median ratio {median:.2} (at least {RATIO_MIN} wanted)");
    log.close();
    Ok(if median >= RATIO_MIN {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Got {
    bytes_per_second: f64,
    cpu_per_gb: f64,
    commits: Vec<Duration>,
}

/// All streams append for a while; commits that end after it do not count.
async fn append(media: &Arc<dyn MediaStore>, time: Duration, noise: &Bytes, keep_mb: u64) -> Result<Got, Failure> {
    let cpu = cpu_seconds(std::process::id())?;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in 1..=STREAMS {
        let (media, noise) = (Arc::clone(media), noise.clone());
        tasks.spawn(async move {
            let mut commits = Vec::new();
            while start.elapsed() < time {
                let took = fragment(&media, StreamId(stream), &noise).await?;
                if start.elapsed() < time {
                    commits.push(took);
                }
            }
            Ok::<_, storage::Error>(commits)
        });
    }
    let mut commits = Vec::new();
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(done) => commits.extend(done??),
                None => break,
            },
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                media.trim_all_to_size(keep_mb * 1_000_000).await?;
            }
        }
    }
    let bytes = (commits.len() * FRAGMENT_BYTES) as f64;
    Ok(Got {
        bytes_per_second: bytes / time.as_secs_f64(),
        cpu_per_gb: (cpu_seconds(std::process::id())? - cpu) / (bytes / 1e9),
        commits,
    })
}

/// Stores one fragment; the time is that of its commit alone.
async fn fragment(media: &Arc<dyn MediaStore>, stream: StreamId, noise: &Bytes) -> Result<Duration, storage::Error> {
    let now = SystemClock::new().now();
    let number = media.allocate_number(stream, now).await?;
    let mut sink = media.begin(stream, number).await?;
    let mut left = FRAGMENT_BYTES;
    while left > 0 {
        let len = left.min(PIECE_BYTES);
        let from = left % (noise.len() - PIECE_BYTES);
        sink.write(noise.slice(from..from + len)).await?;
        left -= len;
    }
    let summary = FragmentSummary {
        server_timestamp: now,
        producer_timestamp: now,
        length_ms: 1000,
        header_len: 0,
        tracks_hash: 0,
        frames: Vec::new(),
    };
    let ended = Instant::now();
    sink.commit(summary).await?;
    Ok(ended.elapsed())
}
