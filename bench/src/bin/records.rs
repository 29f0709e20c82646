//! Records: what PutRecords and GetRecords take and give, in JSON and in CBOR, beside the peers that were named.
//!
//! Records of 1 KiB in batches of 500, to a stream of four shards. Requests are signed before the clock starts; each answer
//! comes after its records are synced. The first figure is one producer's time for a batch; the next are eight producers at
//! once. Readers start cold: the server was restarted, and every page of its files was given back to the system; they read
//! each shard from its beginning and check each payload, and what they read is compared with what was acknowledged, record
//! for record. Producers and readers run on the same cores as the server. A peer gets the same JSON requests, fewer of them
//! since its store is in memory.
//!
//! The same is then done to one stream among 1,000 with 10,000 shards, and at last single records are put under a
//! subscription (SubscribeToShard), and the time from the answer of PutRecord to the record's arrival is taken.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::Failure;
use bench::measure::{evict, memory_bytes, mib, ms, quantile};
use bench::records::connection::Connection;
use bench::records::notation::{Member, Notation};
use bench::records::payload::Tally;
use bench::records::put::{Put, put};
use bench::records::read::{Read, read};
use bench::records::{Target, subscribe};
use bench::report::{Figure, Promise, Report};
use bench::server::Server;
use clap::Parser;

const SHARDS: usize = 4;
const PRODUCERS: usize = 8;
/// Streams beside the one that is measured, and the shards of each.
const OTHERS: (u64, u64) = (999, 10);

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder on the disk to measure; data directories are made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Batches of 500 records that each of eight producers puts.
    #[arg(long, default_value_t = 120)]
    batches: usize,
    /// Rounds; each gives one value of each figure, and the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A peer that is running: NAME=ADDRESS.
    #[arg(long)]
    peer: Vec<String>,
    /// Only this section: speed, wide or subscribe.
    #[arg(long)]
    only: Option<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let mut report = Report::new("records", args.json);
    let wanted = |section: &str| args.only.as_deref().is_none_or(|only| only == section);
    if wanted("speed") {
        speed(&args, &mut report)?;
    }
    if wanted("wide") {
        wide(&args, &mut report)?;
    }
    if wanted("subscribe") {
        subscribed(&args, &mut report)?;
    }
    Ok(report.finish())
}

/// What one server did in all rounds.
#[derive(Default)]
struct Rounds {
    one_p50_ms: Vec<f64>,
    put: Vec<f64>,
    put_p50_ms: Vec<f64>,
    put_p99_ms: Vec<f64>,
    get: Vec<f64>,
    lost: u64,
    doubled: u64,
}

impl Rounds {
    fn take(&mut self, mut one: Put, mut all: Put, read: &Read) {
        self.one_p50_ms.push(ms(one.quantile(0.5)));
        self.put.push(all.records_a_second());
        self.put_p50_ms.push(ms(all.quantile(0.5)));
        self.put_p99_ms.push(ms(all.quantile(0.99)));
        self.get.push(read.records_a_second());
        let mut sent = Tally::default();
        sent.add(&one.tally);
        sent.add(&all.tally);
        let (lost, doubled) = sent.differences(&read.tally);
        self.lost += lost;
        self.doubled += doubled;
    }
}

fn median(values: &[f64]) -> f64 {
    bench::measure::median(&mut values.to_vec())
}

/// Ours in both notations and every peer, in turns.
fn speed(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let peers = args.peer.iter().map(|peer| {
        let (name, address) = peer.split_once('=').ok_or("a peer is NAME=ADDRESS")?;
        let target = Target {
            address: address.parse()?,
        };
        Ok((name.to_owned(), target, Rounds::default()))
    });
    let mut peers: Vec<_> = peers.collect::<Result<_, Failure>>()?;
    let (mut json, mut cbor) = (Rounds::default(), Rounds::default());
    for round in 0..args.rounds {
        for (notation, rounds) in [(Notation::Json, &mut json), (Notation::Cbor, &mut cbor)] {
            let (one, all, read) = ours(args, notation)?;
            rounds.take(one, all, &read);
        }
        for (name, target, rounds) in &mut peers {
            let stream = format!("bench-{round}");
            create(target, &stream, SHARDS as u64)?;
            wait_for(target, &stream)?;
            let one = put(target, Notation::Json, &stream, (1, 20), 0)?;
            let all = put(target, Notation::Json, &stream, (PRODUCERS, 4), 1_000_000)?;
            let read = read(target, Notation::Json, &stream, SHARDS)?;
            rounds.take(one, all, &read);
            report.say(&format!("round {}: {name} done", round + 1));
        }
    }
    let [one, put, get] = [
        Promise::AtMost(15.0),
        Promise::AtLeast(60_000.0),
        Promise::AtLeast(200_000.0),
    ];
    show(report, "JSON", &json, Some((one, put, get)));
    // Above those of JSON, by the same promise.
    let above = (
        Promise::AtMost(median(&json.one_p50_ms).min(15.0)),
        Promise::AtLeast(median(&json.put).max(60_000.0)),
        Promise::AtLeast(median(&json.get).max(200_000.0)),
    );
    show(report, "CBOR", &cbor, Some(above));
    for (name, _, rounds) in &peers {
        show(report, name, rounds, None);
    }
    Ok(())
}

fn show(report: &mut Report, name: &str, rounds: &Rounds, promises: Option<(Promise, Promise, Promise)>) {
    let figure = |what: String, values: &[f64], unit, promise: Option<Promise>| {
        let figure = Figure::new(what, median(values), unit);
        let figure = match promise {
            Some(promise) => figure.promised(promise),
            None => figure,
        };
        let (least, most) = values
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), v| (least.min(*v), most.max(*v)));
        figure.beside("least", least).beside("most", most)
    };
    let (one, put, get) = promises.map_or((None, None, None), |(one, put, get)| (Some(one), Some(put), Some(get)));
    report.add(figure(
        format!("{name}: PutRecords, one producer, p50"),
        &rounds.one_p50_ms,
        "ms",
        one,
    ));
    report.add(
        figure(
            format!("{name}: PutRecords, {PRODUCERS} producers"),
            &rounds.put,
            "/s",
            put,
        )
        .beside("p50 ms", median(&rounds.put_p50_ms))
        .beside("p99 ms", median(&rounds.put_p99_ms)),
    );
    report.add(figure(
        format!("{name}: GetRecords, {SHARDS} readers"),
        &rounds.get,
        "/s",
        get,
    ));
    let mut wrong = Figure::new(format!("{name}: records lost"), rounds.lost as f64, "");
    if promises.is_some() {
        wrong = wrong.promised(Promise::AtMost(0.0));
    }
    report.add(wrong.beside("read twice", rounds.doubled as f64));
}

/// One round of ours, in a fresh data directory.
fn ours(args: &Args, notation: Notation) -> Result<(Put, Put, Read), Failure> {
    let folder = tempfile::Builder::new().prefix("records-").tempdir_in(&args.folder)?;
    let (data, log) = (folder.path().join("data"), args.folder.join("records-server.log"));
    let server = Server::start(&args.sightglass, &data, &log)?;
    create(&target(&server)?, "bench", SHARDS as u64)?;
    let outcome = put_and_read(args, notation, server, &data)?;
    Ok((outcome.0, outcome.1, outcome.2))
}

/// Puts, restarts, reads; the server is stopped at the end.
fn put_and_read(
    args: &Args,
    notation: Notation,
    server: Server,
    data: &std::path::Path,
) -> Result<(Put, Put, Read), Failure> {
    let log = args.folder.join("records-server.log");
    let place = target(&server)?;
    // What a server needs to get used to producers.
    let warm = put(&place, notation, "bench", (1, 20), 0)?;
    let mut one = put(&place, notation, "bench", (1, args.batches), 0)?;
    let all = put(&place, notation, "bench", (PRODUCERS, args.batches), 1_000_000)?;
    one.tally.add(&warm.tally);
    server.stop()?;
    evict(data)?;
    let server = Server::start(&args.sightglass, data, &log)?;
    let read = read(&target(&server)?, notation, "bench", SHARDS)?;
    server.stop()?;
    Ok((one, all, read))
}

/// The same on one of a thousand streams.
fn wide(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("records-").tempdir_in(&args.folder)?;
    let (data, log) = (folder.path().join("data"), args.folder.join("records-server.log"));
    let server = Server::start(&args.sightglass, &data, &log)?;
    let place = target(&server)?;
    let (streams, shards) = OTHERS;
    let began = Instant::now();
    for stream in 0..streams {
        create(&place, &format!("other-{stream}"), shards)?;
    }
    create(&place, "bench", SHARDS as u64)?;
    let all = streams * shards + SHARDS as u64;
    let seconds = began.elapsed().as_secs_f64();
    report.say(&format!(
        "{} streams with {all} shards made in {seconds:.1} s",
        streams + 1
    ));
    server.stop()?;
    let began = Instant::now();
    let server = Server::start(&args.sightglass, &data, &log)?;
    let ready = ms(began.elapsed());
    // Its first answer: everything that a start does is done.
    create(&target(&server)?, "last", 1)?;
    let idle = mib(memory_bytes(server.pid(), "VmRSS")?);
    let figure = Figure::new("1,000 streams, 10,000 shards: idle memory", idle, "MiB");
    report.add(figure.promised(Promise::AtMost(400.0)).beside("ready after ms", ready));
    let mut rounds = Rounds::default();
    let (one, all, read) = put_and_read(args, Notation::Json, server, &data)?;
    rounds.take(one, all, &read);
    let promises = (
        Promise::AtMost(15.0),
        Promise::AtLeast(60_000.0),
        Promise::AtLeast(200_000.0),
    );
    show(report, "one of 1,000 streams", &rounds, Some(promises));
    Ok(())
}

fn subscribed(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("records-").tempdir_in(&args.folder)?;
    let (data, log) = (folder.path().join("data"), args.folder.join("records-server.log"));
    let server = Server::start(&args.sightglass, &data, &log)?;
    let place = target(&server)?;
    create(&place, "bench", 1)?;
    let mut delays = subscribe::delays(&place, "bench", 300)?;
    server.stop()?;
    let p50 = ms(quantile(&mut delays, 0.5));
    let p99 = ms(quantile(&mut delays, 0.99));
    let figure = Figure::new(
        "SubscribeToShard: from PutRecord's answer to the record, p50",
        p50,
        "ms",
    );
    report.add(figure.promised(Promise::AtMost(20.0)).beside("p99", p99));
    Ok(())
}

fn target(server: &Server) -> Result<Target, Failure> {
    let address = server.endpoint().trim_start_matches("http://").parse()?;
    Ok(Target { address })
}

fn create(target: &Target, stream: &str, shards: u64) -> Result<(), Failure> {
    let notation = Notation::Json;
    let body = notation.request(&[
        ("StreamName", Member::Text(stream)),
        ("ShardCount", Member::Number(shards)),
    ])?;
    Connection::open(target)?.call(target, notation, "CreateStream", &body)?;
    Ok(())
}

/// Until a stream is ACTIVE: some take their time.
fn wait_for(target: &Target, stream: &str) -> Result<(), Failure> {
    let body = Notation::Json.request(&[("StreamName", Member::Text(stream))])?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let mut connection = Connection::open(target)?;
        let answer = connection.call(target, Notation::Json, "DescribeStreamSummary", &body)?;
        if bench::records::connection::find(answer, b"ACTIVE").is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("{stream} does not become ACTIVE").into())
}
