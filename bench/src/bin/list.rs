//! Listings of a large archive: a stream of ten million fragments of one second, their producer's times out of order here
//! and there, listed by the real server in pages of 1,000, page after page and at random places, by either time. A
//! fragment has no bytes here: a listing never looks at them. Before the server starts, the store itself lists the newest
//! 5,000 of 24 hours, as a playlist does, and tells the coverage of a day.
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
use base::{Clock, SystemClock, Timestamp};
use bench::Failure;
use bench::measure::{memory_bytes, mib, ms, quantile};
use bench::server::{Server, create};
use clap::Parser;
use client::{Client, Service};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use storage::datadir::DataDir;
use storage::{CoverageQuery, FragmentQuery, FragmentRange, FragmentSummary, LogOptions, LogStore, StreamId, TimeAxis};

/// The promise of a page of 1,000.
const PAGE_P99_MAX: Duration = Duration::from_millis(20);
/// The store's part of a playlist of 5,000 entries, whose last byte is promised in 100 ms.
const PLAYLIST_MAX: Duration = Duration::from_millis(50);
/// A server that kept every fragment in memory would take gigabytes.
const MEMORY_MAX: u64 = 256 << 20;
/// A server that read the whole log would take far longer.
const START_MAX: Duration = Duration::from_secs(3);
const PAGE: i64 = 1000;
/// Commits under way while the archive is made.
const UNDER_WAY: usize = 2000;
const DAY_MS: i64 = 86_400_000;
/// The first stream of a data directory.
const STREAM: StreamId = StreamId(1);

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder for the data directory, which is removed again.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Fragments in the archive.
    #[arg(long, default_value_t = 10_000_000)]
    fragments: i64,
    /// Pages of each kind.
    #[arg(long, default_value_t = 200)]
    pages: usize,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    let folder = tempfile::Builder::new()
        .prefix("bench-list-")
        .tempdir_in(&args.folder)?;
    let (data, log) = (folder.path().join("data"), folder.path().join("server.log"));
    let server = Server::start(&args.sightglass, &data, &log)?;
    let stream = json!({"StreamName": "archive", "DataRetentionInHours": 87_600});
    create(&server.client()?, Service::KinesisVideo, "CreateStream", &stream).await?;
    server.stop()?;

    let now = SystemClock::new().now();
    let begin = now.plus_millis(-1000 * args.fragments);
    let filling = Instant::now();
    fill(&data, begin, args.fragments).await?;
    println!(
        "{} fragments stored in {:.0} s; the directory takes {:.0} MB",
        args.fragments,
        filling.elapsed().as_secs_f64(),
        size_of(&data)? as f64 / 1e6
    );
    let mut missed = playlist(&data, now).await?;

    let starting = Instant::now();
    let server = Server::start(&args.sightglass, &data, &log)?;
    let started = starting.elapsed();
    println!("ready after {:.0} ms (at most {:.0})", ms(started), ms(START_MAX));
    missed |= started > START_MAX;
    let client = server.client()?;
    for kind in ["SERVER_TIMESTAMP", "PRODUCER_TIMESTAMP"] {
        let mut one_by_one = in_order(&client, kind, begin, now, args.pages).await?;
        missed |= report(&format!("{kind}, page after page"), &mut one_by_one);
        let mut random = at_random(&client, kind, begin, args).await?;
        missed |= report(&format!("{kind}, at random places"), &mut random);
    }
    let memory = memory_bytes(server.pid(), "VmHWM")?;
    println!(
        "memory of the server at most {:.0} MiB (at most {:.0})",
        mib(memory),
        mib(MEMORY_MAX)
    );
    missed |= memory > MEMORY_MAX;
    server.stop()?;
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn open(data: &Path) -> Result<(DataDir, LogStore), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let data = DataDir::lock(data, &*clock)?;
    let options = LogOptions {
        index: data.index_home(),
        ..LogOptions::default()
    };
    let log = LogStore::open(data.log_disk()?, clock, options, &Metrics::new())?;
    Ok((data, log))
}

/// One fragment a second; every 50th was sent a minute late.
async fn fill(data: &Path, begin: Timestamp, count: i64) -> Result<(), Failure> {
    let (_data, log) = open(data)?;
    let media = log.media();
    let mut under_way = FuturesUnordered::new();
    for n in 0..count {
        let media = Arc::clone(&media);
        let server = begin.plus_millis(n * 1000);
        under_way.push(async move {
            let number = media.allocate_number(STREAM, server).await?;
            let late = if n % 50 == 0 { 60_000 } else { 0 };
            let summary = FragmentSummary {
                server_timestamp: server,
                producer_timestamp: server.plus_millis(-300 - late),
                length_ms: 1000,
                header_len: 0,
                tracks_hash: 1,
                frames: Vec::new(),
            };
            media.begin(STREAM, number).await?.commit(summary).await
        });
        if under_way.len() >= UNDER_WAY
            && let Some(stored) = under_way.next().await
        {
            stored?;
        }
    }
    while let Some(stored) = under_way.next().await {
        stored?;
    }
    Ok(())
}

/// What a playlist of a day asks of the store.
async fn playlist(data: &Path, now: Timestamp) -> Result<bool, Failure> {
    let (_data, log) = open(data)?;
    let media = log.media();
    let mut missed = false;
    for axis in [TimeAxis::Server, TimeAxis::Producer] {
        let day = FragmentRange::Time(axis, now.plus_millis(-DAY_MS), now);
        let query = FragmentQuery {
            newest_first: true,
            ..FragmentQuery::first(day, 5000)
        };
        let mut times = Vec::new();
        for _ in 0..20 {
            let asked = Instant::now();
            let found = media.list(STREAM, &query).await?;
            times.push(asked.elapsed());
            if found.len() != 5000 {
                return Err(format!("{} fragments instead of 5000", found.len()).into());
            }
        }
        let (p50, max) = (quantile(&mut times, 0.5), quantile(&mut times, 1.0));
        println!(
            "newest 5,000 of 24 h by {axis:?} time, in the store: p50 {:.1} ms, max {:.1} ms (at most {:.0})",
            ms(p50),
            ms(max),
            ms(PLAYLIST_MAX)
        );
        missed |= max > PLAYLIST_MAX;
        let asked = Instant::now();
        let query = CoverageQuery {
            axis,
            from: now.plus_millis(-DAY_MS),
            to: now,
            gap_ms: 1000,
            after: None,
            limit: 1000,
        };
        let spans = media.coverage(STREAM, &query).await?.spans.len();
        println!(
            "coverage of 24 h by {axis:?} time: {spans} spans in {:.1} ms",
            ms(asked.elapsed())
        );
    }
    Ok(missed)
}

fn selector(kind: &str, from: Timestamp, to: Timestamp) -> Value {
    let seconds = |time: Timestamp| time.millis() as f64 / 1000.0;
    json!({
        "FragmentSelectorType": kind,
        "TimestampRange": {"StartTimestamp": seconds(from), "EndTimestamp": seconds(to)},
    })
}

/// Asks for a page; it must be full.
async fn page(client: &Client, request: &Value) -> Result<(Duration, Value), Failure> {
    let asked = Instant::now();
    let answer = client.call(Service::KinesisVideo, "ListFragments", request).await?;
    let took = asked.elapsed();
    let found = answer.get("Fragments").and_then(Value::as_array).map_or(0, Vec::len);
    if i64::try_from(found)? != PAGE {
        return Err(format!("{found} fragments on a page").into());
    }
    Ok((took, answer))
}

async fn in_order(
    client: &Client,
    kind: &str,
    begin: Timestamp,
    now: Timestamp,
    pages: usize,
) -> Result<Vec<Duration>, Failure> {
    let whole = selector(kind, begin.plus_millis(-DAY_MS), now);
    let mut request = json!({"StreamName": "archive", "FragmentSelector": whole, "MaxResults": PAGE});
    let mut times = Vec::new();
    for _ in 0..pages {
        let (took, answer) = page(client, &request).await?;
        times.push(took);
        request = json!({"StreamName": "archive", "NextToken": answer.get("NextToken"), "MaxResults": PAGE});
    }
    Ok(times)
}

async fn at_random(client: &Client, kind: &str, begin: Timestamp, args: &Args) -> Result<Vec<Duration>, Failure> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut times = Vec::new();
    for _ in 0..args.pages {
        let from = begin.plus_millis(1000 * random.i64(0..args.fragments - 2 * PAGE));
        let some = selector(kind, from, from.plus_millis(7 * DAY_MS));
        let request = json!({"StreamName": "archive", "FragmentSelector": some, "MaxResults": PAGE});
        times.push(page(client, &request).await?.0);
    }
    Ok(times)
}

fn report(what: &str, times: &mut [Duration]) -> bool {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(times, q));
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms (p99 at most {:.0})",
        ms(p50),
        ms(p99),
        ms(max),
        ms(PAGE_P99_MAX)
    );
    p99 > PAGE_P99_MAX
}

/// Bytes of a folder on the disk.
fn size_of(folder: &Path) -> Result<u64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += match facts.is_dir() {
            true => size_of(&entry.path())?,
            false => facts.blocks() * 512,
        };
    }
    Ok(bytes)
}
