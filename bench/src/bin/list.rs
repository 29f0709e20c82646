//! Listings of a large archive: a stream of ten million fragments of one second, their producer's times out of order here
//! and there, listed by the real server: by either time, in pages of 100 and of 1,000, page after page from the beginning,
//! at random places (begin anywhere, and the page behind it by its NextToken), and without any selection. *Cold* pages are
//! random ones, each asked for after the pages of every file were given back to the system, so that it comes from the disk;
//! *warm* ones come as a user asks, one after the other. A fragment has no bytes here: a listing never looks at them.
//!
//! The archive is made by the store itself, in the way of an ingest, commit by commit: log and index are those of a server
//! that ran for four months. The store then lists the newest 5,000 of 24 hours, newest first, as a live session does, and
//! tells the coverage of a day. The promise of a page is kept by the median; the 99th percentile and the slowest stand beside it.
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
use bench::measure::{evict, memory_bytes, mib, ms, quantile, size_of};
use bench::report::{Figure, Promise, Report};
use bench::server::{Server, create};
use clap::Parser;
use client::{Client, Service};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use storage::datadir::DataDir;
use storage::{CoverageQuery, FragmentQuery, FragmentRange, FragmentSummary, LogOptions, LogStore, StreamId, TimeAxis};

/// The promise of a page, milliseconds.
const PAGE_MAX_MS: f64 = 20.0;
/// The store's part of a playlist of 5,000 entries, whose last byte is promised in 100 ms.
const PLAYLIST_MAX_MS: f64 = 50.0;
/// A server that kept every fragment in memory would take gigabytes.
const MEMORY_MAX_MIB: f64 = 256.0;
/// A server that read the whole log would take far longer.
const START_MAX_MS: f64 = 3000.0;
const PAGES: [i64; 2] = [100, 1000];
const AXES: [&str; 2] = ["SERVER_TIMESTAMP", "PRODUCER_TIMESTAMP"];
/// Commits under way while the archive is made: what hundreds of cameras have, so that the log's syncs are shared.
const UNDER_WAY: usize = 20_000;
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
    /// Keep the archive in this folder, and use the one that is there.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Fragments in the archive.
    #[arg(long, default_value_t = 10_000_000)]
    fragments: i64,
    /// Pages of each kind.
    #[arg(long, default_value_t = 200)]
    pages: usize,
    /// Cold pages of each kind.
    #[arg(long, default_value_t = 20)]
    cold: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
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
    let home = args.keep.clone().unwrap_or_else(|| folder.path().to_owned());
    let (data, log) = (home.join("data"), args.folder.join("list-server.log"));
    let mut report = Report::new("list", args.json);
    let (now, fragments) = archive(args, &home, &log, &report).await?;
    let begin = now.plus_millis(-1000 * fragments);
    store(&data, now, &mut report).await?;

    let starting = Instant::now();
    let server = Server::start(&args.sightglass, &data, &log)?;
    let started = ms(starting.elapsed());
    report.add(Figure::new("ready after", started, "ms").promised(Promise::AtMost(START_MAX_MS)));
    let archive = Archive {
        client: server.client()?,
        data,
        begin,
        now,
        fragments,
    };
    for size in PAGES {
        for axis in AXES {
            archive.measure(axis, size, args, &mut report).await?;
        }
    }
    let memory = mib(memory_bytes(server.pid(), "VmHWM")?);
    report.add(Figure::new("memory of the server", memory, "MiB").promised(Promise::AtMost(MEMORY_MAX_MIB)));
    server.stop()?;
    Ok(report.finish())
}

/// Makes the archive, unless it is there. Gives when it ends and how many fragments it holds.
async fn archive(args: &Args, home: &Path, log: &Path, report: &Report) -> Result<(Timestamp, i64), Failure> {
    let (data, note) = (home.join("data"), home.join("archive.json"));
    if let Ok(note) = std::fs::read(&note) {
        let (ends, fragments) = serde_json::from_slice(&note)?;
        return Ok((Timestamp::from_millis(ends), fragments));
    }
    std::fs::create_dir_all(home)?;
    let server = Server::start(&args.sightglass, &data, log)?;
    let stream = json!({"StreamName": "archive", "DataRetentionInHours": 87_600});
    create(&server.client()?, Service::KinesisVideo, "CreateStream", &stream).await?;
    server.stop()?;
    let now = SystemClock::new().now();
    let filling = Instant::now();
    fill(&data, now.plus_millis(-1000 * args.fragments), args.fragments).await?;
    let took = filling.elapsed().as_secs_f64();
    report.say(&format!(
        "{} fragments stored in {took:.0} s; the directory takes {:.0} MB",
        args.fragments,
        size_of(&data)? as f64 / 1e6
    ));
    std::fs::write(note, serde_json::to_vec(&(now.millis(), args.fragments))?)?;
    Ok((now, args.fragments))
}

fn open(data: &Path) -> Result<(DataDir, LogStore), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let data = DataDir::lock(data, &*clock)?;
    let options = LogOptions {
        index: data.index_home(),
        // Fragments without bytes would fill a segment with a hundred times as many as real ones do, and a start reads the
        // newest segment.
        media_segment_bytes: 4 << 20,
        // One stream takes the numbers that hundreds share.
        number_block: 100_000,
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
async fn store(data: &Path, now: Timestamp, report: &mut Report) -> Result<(), Failure> {
    let (_data, log) = open(data)?;
    let media = log.media();
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
        report.add(
            Figure::new(
                format!("newest 5,000 of 24 h by {axis:?} time, in the store"),
                ms(quantile(&mut times, 0.5)),
                "ms",
            )
            .promised(Promise::AtMost(PLAYLIST_MAX_MS))
            .beside("slowest", ms(quantile(&mut times, 1.0))),
        );
        let query = CoverageQuery {
            axis,
            from: now.plus_millis(-DAY_MS),
            to: now,
            gap_ms: 1000,
            after: None,
            limit: 1000,
        };
        let asked = Instant::now();
        let spans = media.coverage(STREAM, &query).await?.spans.len();
        let what = format!("coverage of 24 h by {axis:?} time, in the store");
        report.add(Figure::new(what, ms(asked.elapsed()), "ms").beside("spans", spans as f64));
    }
    Ok(())
}

/// The stream behind the server.
struct Archive {
    client: Client,
    data: PathBuf,
    begin: Timestamp,
    now: Timestamp,
    fragments: i64,
}

impl Archive {
    async fn measure(&self, axis: &str, size: i64, args: &Args, report: &mut Report) -> Result<(), Failure> {
        let (mut first, mut next, mut cold, mut in_order) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut random = fastrand::Rng::with_seed(7);
        let mut anywhere = || self.begin.plus_millis(1000 * random.i64(0..self.fragments - 4 * size));
        for _ in 0..args.cold {
            evict(&self.data)?;
            cold.push(self.page(size, &selection(axis, anywhere(), self.now)).await?.0);
        }
        for _ in 0..args.pages {
            let (took, answer) = self.page(size, &selection(axis, anywhere(), self.now)).await?;
            first.push(took);
            next.push(self.page(size, &goes_on(&answer)).await?.0);
        }
        let mut ask = selection(axis, self.begin.plus_millis(-DAY_MS), self.now);
        for _ in 0..args.pages {
            let (took, answer) = self.page(size, &ask).await?;
            in_order.push(took);
            ask = goes_on(&answer);
        }
        for (kind, mut times) in [
            ("begins anywhere, cold", cold),
            ("begins anywhere", first),
            ("goes on by its token", next),
            ("page after page", in_order),
        ] {
            let [p50, p99, slowest] = [0.5, 0.99, 1.0].map(|q| ms(quantile(&mut times, q)));
            let figure = Figure::new(format!("page of {size} by {axis}, {kind}"), p50, "ms");
            let figure = figure.promised(Promise::AtMost(PAGE_MAX_MS));
            report.add(figure.beside("p99", p99).beside("slowest", slowest));
        }
        if axis == AXES[0] {
            let mut times = Vec::new();
            for _ in 0..args.pages {
                times.push(self.page(size, &json!({})).await?.0);
            }
            let figure = Figure::new(
                format!("page of {size} without a selection"),
                ms(quantile(&mut times, 0.5)),
                "ms",
            );
            report.add(
                figure
                    .promised(Promise::AtMost(PAGE_MAX_MS))
                    .beside("slowest", ms(quantile(&mut times, 1.0))),
            );
        }
        Ok(())
    }

    /// Asks for a page; it must be full.
    async fn page(&self, size: i64, selection: &Value) -> Result<(Duration, Value), Failure> {
        let mut request = json!({"StreamName": "archive", "MaxResults": size});
        if let (Some(request), Some(selection)) = (request.as_object_mut(), selection.as_object()) {
            request.extend(selection.clone());
        }
        let asked = Instant::now();
        let answer = self
            .client
            .call(Service::KinesisVideo, "ListFragments", &request)
            .await?;
        let took = asked.elapsed();
        let found = answer.get("Fragments").and_then(Value::as_array).map_or(0, Vec::len);
        if i64::try_from(found)? != size {
            return Err(format!("{found} fragments on a page of {size}").into());
        }
        Ok((took, answer))
    }
}

fn selection(axis: &str, from: Timestamp, to: Timestamp) -> Value {
    let seconds = |time: Timestamp| time.millis() as f64 / 1000.0;
    json!({ "FragmentSelector": {
        "FragmentSelectorType": axis,
        "TimestampRange": {"StartTimestamp": seconds(from), "EndTimestamp": seconds(to)},
    }})
}

fn goes_on(answer: &Value) -> Value {
    json!({ "NextToken": answer.get("NextToken") })
}
