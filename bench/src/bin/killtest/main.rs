//! Kills the server with SIGKILL under load and looks for what it had acknowledged.
//!
//! Each round starts the server on the same data directory, lets 20 cameras work and, on two data streams, producers in
//! JSON and CBOR, readers and subscribers while shards are split and merged; kills it at a random moment (in every fifth
//! round once more in the middle of its recovery), starts it again, and reads back every fragment whose PERSISTED and every
//! record whose answer arrived in that round, and every record that a reader saw. Bytes are compared by SHA-256 with the
//! ledger that the producers keep; records also by their order and their shards. The last round reads back everything of
//! all rounds. Prints the seed; exits non-zero on the first difference.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

mod records;
mod wire;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::fragment::{Sha, sha256};
use bench::server::{Server, create_video_stream};
use bench::{Failure, fragment};
use clap::Parser;
use client::{Client, EventType, PutMediaOptions, Service, StreamName, TimecodeType};
use matroska::{Event, Limits, Reader};
use records::{Counters, STREAMS};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use world::World;

const PRODUCERS: usize = 20;
/// Fragments that a producer sends ahead of their PERSISTED.
const UNACKNOWLEDGED_MAX: usize = 3;
/// Fragments asked for at a time; the service takes 1000.
const FRAGMENTS_READ_AT_ONCE: usize = 200;

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// How many times the server is killed.
    #[arg(long, default_value_t = 25)]
    rounds: u32,
    /// Where the data directory is made.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Repeats the moments and sizes of an earlier run (not its interleavings).
    #[arg(long)]
    seed: Option<u64>,
}

/// What was acknowledged.
#[derive(Default)]
struct Ledger {
    /// By stream, by fragment number.
    fragments: BTreeMap<usize, BTreeMap<String, Fragment>>,
}

#[derive(Clone)]
struct Fragment {
    sha: Sha,
    len: usize,
}

type Shared = Arc<Mutex<Ledger>>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(run(args))
}

async fn run(args: Args) -> Result<(), Failure> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "killtest: {} rounds, {PRODUCERS} cameras, {} producers of records, --seed {seed}",
        args.rounds,
        records::PRODUCERS
    );
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::Builder::new().prefix("killtest-").tempdir_in(&args.folder)?;
    let (data, log) = (folder.path().join("data"), args.folder.join("killtest-server.log"));
    let mut all = Ledger::default();
    let mut worlds: Vec<World> = (0..STREAMS.len()).map(World::new).collect();
    let counters = Counters::default();
    let mut server = Server::start(&args.sightglass, &data, &log)?;
    prepare(&server.client()?).await?;
    for round in 1..=args.rounds {
        let (ledger, records) = load_until_killed(server, &mut random, &counters).await?;
        if round % 5 == 0 {
            let delay = Duration::from_millis(random.u64(1..60));
            Server::kill_while_starting(&args.sightglass, &data, &log, delay)?;
        }
        let starting = Instant::now();
        server = Server::start(&args.sightglass, &data, &log)?;
        let started = starting.elapsed();
        let client = server.client()?;
        check_fragments(&client, &ledger).await?;
        world::check_active(&client).await?;
        for world in &mut worlds {
            world.check(&client, &records).await?;
        }
        let (fragments, bytes) = totals(&ledger);
        println!(
            "   round {round:3}: {fragments:5} fragments ({:6.1} MB) and {:5} records ({:5} seen before) intact through {:3} changes \
             of shards; recovery {:4} ms",
            bytes as f64 / 1e6,
            records.acknowledged.len(),
            records.seen.len(),
            records.changes,
            started.as_millis()
        );
        add(&mut all, ledger)?;
    }
    let client = server.client()?;
    check_fragments(&client, &all).await?;
    check_listed(&client, &all).await?;
    for world in &worlds {
        let mut again = World::new(world.stream);
        again.check(&client, &records::Ledger::default()).await?;
        world.check_same(&again)?;
    }
    server.stop()?;
    let (fragments, bytes) = totals(&all);
    println!(
        "   all rounds: {fragments} fragments ({:.1} MB) and {} records in {} shards intact",
        bytes as f64 / 1e6,
        worlds.iter().map(World::len).sum::<usize>(),
        worlds.iter().map(|world| world.shards).sum::<usize>()
    );
    Ok(())
}

fn name(stream: usize) -> String {
    format!("killtest-{stream}")
}

fn totals(ledger: &Ledger) -> (usize, usize) {
    let fragments = || ledger.fragments.values().flat_map(BTreeMap::values);
    (fragments().count(), fragments().map(|fragment| fragment.len).sum())
}

/// Numbers of one life must be greater than all of the lives before (invariant 4).
fn add(all: &mut Ledger, round: Ledger) -> Result<(), Failure> {
    for (stream, fragments) in round.fragments {
        let known = all.fragments.entry(stream).or_default();
        if let (Some((last, _)), Some((first, _))) = (known.last_key_value(), fragments.first_key_value())
            && first <= last
        {
            return Err(format!("{}: fragment {first} came after {last}", name(stream)).into());
        }
        known.extend(fragments);
    }
    Ok(())
}

async fn prepare(client: &Client) -> Result<(), Failure> {
    for stream in 0..PRODUCERS {
        create_video_stream(client, &name(stream)).await?;
    }
    records::prepare(client).await
}

/// Runs the load and kills the server in its midst.
async fn load_until_killed(
    server: Server,
    random: &mut fastrand::Rng,
    counters: &Counters,
) -> Result<(Ledger, records::Ledger), Failure> {
    let client = server.client()?;
    let (ledger, records) = (Shared::default(), records::Shared::default());
    let mut work = JoinSet::new();
    for stream in 0..PRODUCERS {
        work.spawn(produce(client.clone(), stream, random.u64(..), Arc::clone(&ledger)));
    }
    records::load(&mut work, &client, random, counters, &records);
    tokio::time::sleep(Duration::from_millis(random.u64(300..2000))).await;
    tokio::task::block_in_place(|| server.kill())?;
    while let Some(ended) = work.join_next().await {
        if let Err(why) = ended? {
            return Err(format!("before the kill: {why}").into());
        }
    }
    let mut ledger = ledger.lock().map_err(|_| "a producer panicked")?;
    let mut records = records.lock().map_err(|_| "a producer panicked")?;
    Ok((std::mem::take(&mut ledger), std::mem::take(&mut records)))
}

/// One camera until its server dies. An answer that is no broken connection is a failure.
async fn produce(client: Client, stream: usize, seed: u64, ledger: Shared) -> Result<(), Failure> {
    let options = PutMediaOptions {
        stream: StreamName::Name(name(stream)),
        timecodes: TimecodeType::Relative,
        started: client.clock().now(),
    };
    let mut connection = match client.put_media(&options).await {
        Ok(connection) => connection,
        Err(client::ClientError::Refused(answer)) => return Err(answer.into()),
        Err(_killed) => return Ok(()),
    };
    let window = Arc::new(Semaphore::new(UNACKNOWLEDGED_MAX));
    let sent: Arc<Mutex<BTreeMap<i64, Fragment>>> = Arc::default();
    let media = connection.media;
    let (room, known) = (Arc::clone(&window), Arc::clone(&sent));
    let sending = tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(seed);
        if !media.send(fragment::header()).await {
            return;
        }
        for count in 0_u64.. {
            let noise = fragment::noise(random.usize(2_000..200_000), random.u64(..));
            let pieces = fragment::chunked(count * 1000, &noise, random.usize(1..10), 40);
            let Ok(permit) = room.acquire().await else { return };
            permit.forget();
            if let Ok(mut known) = known.lock() {
                let (sha, len) = (sha256(&pieces.concat()), pieces.iter().map(bytes::Bytes::len).sum());
                known.insert((count * 1000) as i64, Fragment { sha, len });
            }
            for piece in pieces {
                if !media.send(piece).await {
                    return;
                }
            }
        }
    });
    while let Ok(Some(ack)) = connection.acks.next().await {
        match ack.event {
            EventType::Persisted => {
                let timecode = ack.fragment_timecode.ok_or("PERSISTED without a timecode")?;
                let number = ack.fragment_number.ok_or("PERSISTED without a number")?;
                let fragment = sent.lock().map_err(|_| "poisoned")?.remove(&timecode);
                let fragment = fragment.ok_or("PERSISTED for what was not sent, or twice")?;
                let mut ledger = ledger.lock().map_err(|_| "poisoned")?;
                if ledger
                    .fragments
                    .entry(stream)
                    .or_default()
                    .insert(number.clone(), fragment)
                    .is_some()
                {
                    return Err(format!("{}: number {number} was given twice", name(stream)).into());
                }
                drop(ledger);
                window.add_permits(1);
            }
            EventType::Error => return Err(format!("{}: {ack:?}", name(stream)).into()),
            _ => {}
        }
    }
    sending.abort();
    Ok(())
}

fn text(answer: &Value, member: &str) -> Result<String, Failure> {
    let text = answer.get(member).and_then(Value::as_str);
    Ok(text.ok_or_else(|| format!("no {member} in {answer}"))?.to_owned())
}

/// Reads back every fragment of the ledger.
async fn check_fragments(client: &Client, ledger: &Ledger) -> Result<(), Failure> {
    for (stream, fragments) in &ledger.fragments {
        let stream_name = StreamName::Name(name(*stream));
        let reader = client
            .data_endpoint(&stream_name, "GET_MEDIA_FOR_FRAGMENT_LIST")
            .await?;
        let numbers: Vec<&String> = fragments.keys().collect();
        for numbers in numbers.chunks(FRAGMENTS_READ_AT_ONCE) {
            let input = json!({ "StreamName": name(*stream), "Fragments": numbers });
            let mut body = reader.stream_of("GetMediaForFragmentList", &input).await?;
            let mut documents = Documents::new();
            while let Some(bytes) = body.next().await? {
                documents.push(bytes)?;
            }
            let found = documents.finish()?;
            for number in numbers {
                let expected = fragments.get(*number).ok_or("no such number")?;
                check_fragment(*stream, number, expected, found.get(*number))?;
            }
        }
    }
    Ok(())
}

fn check_fragment(stream: usize, number: &str, expected: &Fragment, found: Option<&Vec<u8>>) -> Result<(), Failure> {
    let at = format!("{}, fragment {number}", name(stream));
    let found = found.ok_or_else(|| format!("LOST: {at}: PERSISTED and not there"))?;
    // What follows the fragment are the tags that GetMedia adds.
    let ours = found.get(..expected.len);
    let ours = ours.ok_or_else(|| format!("DAMAGED: {at}: {} of {} bytes", found.len(), expected.len))?;
    if sha256(ours) != expected.sha {
        return Err(format!("DAMAGED: {at}: other bytes").into());
    }
    Ok(())
}

/// Takes a body of GetMediaForFragmentList apart: by fragment number, everything from the cluster on.
struct Documents {
    reader: Reader,
    number: Option<String>,
    cluster: Option<Vec<u8>>,
    found: BTreeMap<String, Vec<u8>>,
}

impl Documents {
    fn new() -> Self {
        Documents {
            reader: Reader::new(Limits::default()),
            number: None,
            cluster: None,
            found: BTreeMap::new(),
        }
    }

    fn push(&mut self, bytes: bytes::Bytes) -> Result<(), Failure> {
        self.reader.push(bytes);
        self.read()
    }

    fn read(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.reader.next()? {
            match event {
                Event::DocumentStart { .. } => self.close(),
                Event::ClusterStart { .. } => self.cluster = Some(Vec::new()),
                Event::Data(bytes) => {
                    if let Some(cluster) = &mut self.cluster {
                        cluster.extend_from_slice(&bytes);
                    }
                }
                Event::Tag(tag) if tag.name == "AWS_KINESISVIDEO_FRAGMENT_NUMBER" => {
                    self.number = tag.as_str().map(str::to_owned);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if let (Some(number), Some(cluster)) = (self.number.take(), self.cluster.take()) {
            self.found.insert(number, cluster);
        }
    }

    fn finish(mut self) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        self.reader.finish();
        self.read()?;
        self.close();
        Ok(self.found)
    }
}

/// Every fragment of the ledger is listed.
async fn check_listed(client: &Client, ledger: &Ledger) -> Result<(), Failure> {
    for (stream, fragments) in &ledger.fragments {
        let lister = client
            .data_endpoint(&StreamName::Name(name(*stream)), "LIST_FRAGMENTS")
            .await?;
        let mut listed = BTreeSet::new();
        let now = client.clock().now().seconds();
        let mut input = json!({
            "StreamName": name(*stream),
            "MaxResults": 1000,
            "FragmentSelector": {
                "FragmentSelectorType": "SERVER_TIMESTAMP",
                "TimestampRange": { "StartTimestamp": now - 86_400.0, "EndTimestamp": now + 3_600.0 },
            },
        });
        loop {
            let page = lister.call(Service::KinesisVideo, "ListFragments", &input).await?;
            let rows = page.get("Fragments").and_then(Value::as_array).ok_or("no Fragments")?;
            for row in rows {
                listed.insert(text(row, "FragmentNumber")?);
            }
            match page.get("NextToken").filter(|token| !token.is_null()) {
                Some(token) => input = json!({ "StreamName": name(*stream), "NextToken": token, "MaxResults": 1000 }),
                None => break,
            }
        }
        if let Some(number) = fragments.keys().find(|number| !listed.contains(*number)) {
            return Err(format!("LOST: {}, fragment {number}: PERSISTED and not listed", name(*stream)).into());
        }
    }
    Ok(())
}
