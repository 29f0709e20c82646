//! Firehose: how fast a data stream's records become objects in the server's own S3, as GZIP JSON and as Parquet.
//!
//! Records are JSON documents of 1 KiB in a stream of four shards. A delivery stream reads it from the position at which it
//! was made; its bucket is not there, so all records wait. Then the server starts anew, the bucket is made as soon as it
//! listens, and the time counts from its start to the end of the delivery of the last record; what was tried before the
//! bucket was there is tried again within half a second, which counts too. Afterwards every object is read back, and every
//! record must be in exactly one of them. The server has all cores of the machine to itself meanwhile.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use bench::Failure;
use bench::measure::{cpu_seconds, memory_bytes, mib};
use bench::records::Target;
use bench::records::connection::{Connection, signed};
use bench::report::{Figure, Promise, Report};
use bench::server::Server;
use clap::Parser;
use parking_lot::Mutex;
use serde_json::{Value, json};

const SHARDS: u32 = 4;
const BATCH: u64 = 500;
const PRODUCERS: u64 = 4;
/// Bytes of a record.
const RECORD: usize = 1024;
const ROLE: &str = "arn:aws:iam::000000000000:role/firehose";
/// Nothing is delivered for so long: it never will.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two lines that say how far it is.
const SAID_EVERY: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder on the disk to measure; data directories are made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Records of one run, a multiple of 2,000.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this format: gzip or parquet.
    #[arg(long)]
    only: Option<String>,
    /// Also measure the levels of GZIP, on one core.
    #[arg(long)]
    levels: bool,
    /// A Python that has pyarrow, to read Parquet back with.
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Gzip,
    Parquet,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Parquet => "parquet",
        }
    }

    fn promise(self) -> f64 {
        match self {
            Format::Gzip => 60_000.0,
            Format::Parquet => 100_000.0,
        }
    }

    fn destination(self) -> Value {
        let mut destination = json!({ "BucketARN": "arn:aws:s3:::delivered", "RoleARN": ROLE });
        let more = match self {
            Format::Gzip => json!({
                "CompressionFormat": "GZIP", "BufferingHints": { "SizeInMBs": 16, "IntervalInSeconds": 1 } }),
            Format::Parquet => json!({
                "BufferingHints": { "SizeInMBs": 64, "IntervalInSeconds": 1 },
                "DataFormatConversionConfiguration": {
                    "SchemaConfiguration": { "DatabaseName": "bench", "TableName": "records", "RoleARN": ROLE },
                    "InputFormatConfiguration": { "Deserializer": { "OpenXJsonSerDe": {} } },
                    "OutputFormatConfiguration": { "Serializer": { "ParquetSerDe": {} } } } }),
        };
        if let (Some(all), Some(more)) = (destination.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        destination
    }
}

/// The table that Parquet is written by.
const CONFIGURATION: &str = r#"
[schemas."bench.records"]
columns = [
    { name = "id", type = "bigint" },
    { name = "camera", type = "string" },
    { name = "confidence", type = "double" },
    { name = "box", type = "array<double>" },
    { name = "note", type = "string" },
]
"#;

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let mut report = Report::new("firehose", args.json);
    if args.levels {
        levels(&mut report)?;
    }
    for format in [Format::Gzip, Format::Parquet] {
        if args.only.as_deref().is_some_and(|only| only != format.name()) {
            continue;
        }
        let (mut speeds, mut memory, mut stored, mut cpu) = (Vec::new(), 0, 0, Vec::new());
        for round in 0..args.rounds {
            let run = run(&args, format)?;
            report.say(&format!(
                "{} round {}: {} records in {:.2} s, {} objects of {:.1} MiB",
                format.name(),
                round + 1,
                args.records,
                run.seconds,
                run.objects,
                mib(run.bytes)
            ));
            speeds.push(args.records as f64 / run.seconds);
            memory = memory.max(run.memory);
            stored = run.bytes;
            cpu.push(run.cpu_seconds / args.records as f64 * 1e6);
        }
        let speed = bench::measure::median(&mut speeds);
        let what = format!("records of 1 KiB a second, data stream to {} in S3", format.name());
        report.add(
            Figure::new(what, speed, "/s")
                .promised(Promise::AtLeast(format.promise()))
                .beside("server MiB at most", mib(memory))
                .beside("µs of a core for each", bench::measure::median(&mut cpu))
                .beside("stored/read", stored as f64 / (args.records as usize * RECORD) as f64),
        );
    }
    Ok(report.finish())
}

/// What each level of GZIP costs and saves, for the choice that the server makes.
fn levels(report: &mut Report) -> Result<(), Failure> {
    use std::io::Write;
    let records: Vec<u8> = (0..32 * 1024).flat_map(record).collect();
    for level in [1, 2, 3, 4, 6] {
        let began = Instant::now();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(&records)?;
        let packed = encoder.finish()?;
        let speed = mib(records.len() as u64) / began.elapsed().as_secs_f64();
        let figure = Figure::new(format!("GZIP of level {level}"), speed, "MiB/s");
        report.add(figure.beside("stored/read", packed.len() as f64 / records.len() as f64));
    }
    Ok(())
}

struct Run {
    seconds: f64,
    objects: usize,
    bytes: u64,
    memory: u64,
    /// Of the server and its workers.
    cpu_seconds: f64,
}

fn run(args: &Args, format: Format) -> Result<Run, Failure> {
    let folder = tempfile::Builder::new().prefix("firehose-").tempdir_in(&args.folder)?;
    let (data, log) = (folder.path().join("data"), args.folder.join("firehose-server.log"));
    let config = folder.path().join("sightglass.toml");
    std::fs::write(&config, CONFIGURATION)?;
    let start = || Server::start_configured(&args.sightglass, &data, &log, &config);
    let server = start()?;
    let target = target(&server)?;
    let mut connection = Connection::open(&target)?;
    let stream = json!({ "StreamName": "records", "ShardCount": SHARDS });
    call(
        &mut connection,
        &target,
        "kinesis",
        "Kinesis_20131202.CreateStream",
        &stream,
    )?;
    let source =
        json!({ "KinesisStreamARN": "arn:aws:kinesis:us-west-2:000000000000:stream/records", "RoleARN": ROLE });
    let create = json!({
        "DeliveryStreamName": "delivery", "DeliveryStreamType": "KinesisStreamAsSource",
        "KinesisStreamSourceConfiguration": source, "ExtendedS3DestinationConfiguration": format.destination() });
    call(
        &mut connection,
        &target,
        "firehose",
        "Firehose_20150804.CreateDeliveryStream",
        &create,
    )?;
    fill(&target, args.records)?;
    server.stop()?;

    let began = Instant::now();
    let server = start()?;
    let target = self::target(&server)?;
    let mut connection = Connection::open(&target)?;
    let made = signed(&target, ("s3", "PUT"), ("/delivered", ""), &[], b"");
    connection.exchange(&made)?;
    wait(&mut connection, &target, args.records)?;
    let seconds = began.elapsed().as_secs_f64();
    let memory = memory_bytes(server.pid(), "VmHWM")?;
    let cpu_seconds = with_children(server.pid())?;
    let objects = objects(&mut connection, &target)?;
    let bytes = objects.iter().map(|(_, body)| body.len() as u64).sum();
    let found = match format {
        Format::Gzip => ids_of_gzip(&objects)?,
        Format::Parquet => ids_of_parquet(&args.python, folder.path(), &objects)?,
    };
    check(&found, args.records)?;
    server.stop()?;
    Ok(Run {
        seconds,
        objects: objects.len(),
        bytes,
        memory,
        cpu_seconds,
    })
}

/// The time that a process and those that it started have had of all cores.
fn with_children(pid: u32) -> Result<f64, Failure> {
    let mut seconds = cpu_seconds(pid)?;
    for entry in std::fs::read_dir("/proc")? {
        let Some(other) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(pid.to_string().as_str()) {
            seconds += cpu_seconds(other)?;
        }
    }
    Ok(seconds)
}

fn target(server: &Server) -> Result<Target, Failure> {
    let address = server
        .endpoint()
        .strip_prefix("http://")
        .ok_or("no plain HTTP")?
        .parse()?;
    Ok(Target { address })
}

fn call(connection: &mut Connection, target: &Target, service: &str, name: &str, body: &Value) -> Result<(), Failure> {
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", name)];
    let body = serde_json::to_vec(body)?;
    connection.exchange(&signed(target, (service, "POST"), ("/", ""), &headers, &body))?;
    Ok(())
}

/// A record: what a camera may say of a frame, filled up to 1 KiB.
fn record(id: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(id);
    let mut number = || random.f64();
    let head = format!(
        "{{\"id\":{id},\"camera\":\"door-{}\",\"confidence\":{:.6},\"box\":[{:.6},{:.6},{:.6},{:.6}],\"note\":\"",
        id % 50,
        number(),
        number(),
        number(),
        number(),
        number()
    );
    let mut record = head.into_bytes();
    let words = [
        "seen", "entered", "left", "unknown", "matched", "face", "stairs", "gate", "night", "yard",
    ];
    while record.len() < RECORD - 16 {
        record.extend_from_slice(random.choice(words).unwrap_or("seen").as_bytes());
        record.extend_from_slice(format!(" {} ", random.u16(..)).as_bytes());
    }
    record.truncate(RECORD - 3);
    record.extend_from_slice(b"\"}\n");
    record
}

/// How far something is, for who waits; on stderr, where it is not taken for a figure.
struct Progress {
    what: &'static str,
    of: u64,
    said: Instant,
}

impl Progress {
    fn new(what: &'static str, of: u64) -> Self {
        let said = Instant::now();
        Progress { what, of, said }
    }

    fn at(&mut self, count: u64) {
        if self.said.elapsed() >= SAID_EVERY {
            self.said = Instant::now();
            eprintln!("{count} of {} records {}", self.of, self.what);
        }
    }
}

fn fill(target: &Target, records: u64) -> Result<(), Failure> {
    use base64::Engine;
    let each = records / PRODUCERS;
    let progress = Mutex::new((0, Progress::new("put", records)));
    let progress = &progress;
    std::thread::scope(|scope| {
        let produce = |producer: u64| {
            scope.spawn(move || -> Result<(), Failure> {
                let mut connection = Connection::open(target)?;
                for first in (producer * each..(producer + 1) * each).step_by(BATCH as usize) {
                    let entry = |id: u64| {
                        json!({ "Data": base64::engine::general_purpose::STANDARD.encode(record(id)),
                            "PartitionKey": format!("key-{id}") })
                    };
                    let batch: Vec<Value> = (first..first + BATCH).map(entry).collect();
                    let body = json!({ "StreamName": "records", "Records": batch });
                    call(&mut connection, target, "kinesis", "Kinesis_20131202.PutRecords", &body)?;
                    let mut progress = progress.lock();
                    progress.0 += BATCH;
                    let count = progress.0;
                    progress.1.at(count);
                }
                Ok(())
            })
        };
        let threads: Vec<_> = (0..PRODUCERS).map(produce).collect();
        for thread in threads {
            thread.join().map_err(|_| "a producer failed")??;
        }
        Ok(())
    })
}

/// Until all records are delivered, by the server's own count.
fn wait(connection: &mut Connection, target: &Target, records: u64) -> Result<(), Failure> {
    let ask = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", target.address);
    let (mut before, mut since) = (0, Instant::now());
    let mut progress = Progress::new("delivered", records);
    loop {
        let text = String::from_utf8_lossy(connection.exchange(ask.as_bytes())?).into_owned();
        let line = text
            .lines()
            .find(|line| line.starts_with("firehose_delivered_records_total"));
        let count = line
            .and_then(|line| line.rsplit(' ').next())
            .and_then(|n| n.parse::<f64>().ok());
        let count = count.unwrap_or(0.0) as u64;
        if count >= records {
            return Ok(());
        }
        progress.at(count);
        if count > before {
            (before, since) = (count, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            let why = why(connection, target)?;
            let waited = PATIENCE.as_secs();
            return Err(
                format!("only {count} of {records} records were delivered, and none for {waited} s: {why}").into(),
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the server says of a delivery that does not go on.
fn why(connection: &mut Connection, target: &Target) -> Result<String, Failure> {
    let describe = json!({ "DeliveryStreamName": "delivery" });
    let body = serde_json::to_vec(&describe)?;
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("x-amz-target", "Firehose_20150804.DescribeDeliveryStream"),
    ];
    let request = signed(target, ("firehose", "POST"), ("/", ""), &headers, &body);
    let described: Value = serde_json::from_slice(connection.exchange(&request)?)?;
    let failure = described.pointer("/DeliveryStreamDescription/FailureDescription");
    Ok(failure.map_or_else(|| "the server says of no failure".to_owned(), Value::to_string))
}

/// Every object of the bucket.
fn objects(connection: &mut Connection, target: &Target) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let query = match after.is_empty() {
            true => "list-type=2".to_owned(),
            false => format!("list-type=2&start-after={}", after.replace('/', "%2F")),
        };
        let list = signed(target, ("s3", "GET"), ("/delivered", &query), &[], b"");
        let text = String::from_utf8_lossy(connection.exchange(&list)?).into_owned();
        let keys = text
            .split("<Key>")
            .skip(1)
            .filter_map(|rest| rest.split("</Key>").next());
        names.extend(keys.map(str::to_owned));
        if !text.contains("<IsTruncated>true</IsTruncated>") {
            break;
        }
        after = names.last().cloned().unwrap_or_default();
    }
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        let get = signed(target, ("s3", "GET"), (&format!("/delivered/{name}"), ""), &[], b"");
        let body = connection.exchange(&get)?.to_vec();
        all.push((name, body));
    }
    Ok(all)
}

fn ids_of_gzip(objects: &[(String, Vec<u8>)]) -> Result<Vec<u64>, Failure> {
    let mut ids = Vec::new();
    for (_, body) in objects {
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(body.as_slice()).read_to_string(&mut text)?;
        for line in text.lines() {
            let record: Value = serde_json::from_str(line)?;
            ids.push(
                record
                    .get("id")
                    .and_then(Value::as_u64)
                    .ok_or("a record without an id")?,
            );
        }
    }
    Ok(ids)
}

/// Read by another program than the one that wrote it.
fn ids_of_parquet(python: &Path, folder: &Path, objects: &[(String, Vec<u8>)]) -> Result<Vec<u64>, Failure> {
    const PROGRAM: &str = "import sys, pyarrow.parquet as p\nfor f in sys.argv[1:]:\n    print(*p.read_table(f, columns=['id'])['id'].to_pylist(), sep='\\n')";
    let mut paths = Vec::new();
    for (number, (_, body)) in objects.iter().enumerate() {
        let path = folder.join(format!("{number}.parquet"));
        std::fs::write(&path, body)?;
        paths.push(path);
    }
    let output = Command::new(python).args(["-c", PROGRAM]).args(&paths).output()?;
    if !output.status.success() {
        return Err(format!("Parquet was not read: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(line.parse()?)).collect()
}

fn check(found: &[u64], records: u64) -> Result<(), Failure> {
    let distinct: BTreeSet<u64> = found.iter().copied().collect();
    let (lost, doubled) = (records - distinct.len() as u64, found.len() - distinct.len());
    match (lost, doubled) {
        (0, 0) => Ok(()),
        _ => Err(format!("{lost} records are in no object, {doubled} in more than one").into()),
    }
}
