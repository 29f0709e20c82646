//! The delay from the arrival of a frame's last byte to its record being readable.
//!
//! Plays a Matroska file in real time, frame by frame, over PutMedia into a server of its own with a stream processor, and
//! polls the data stream. A frame's time starts just before its last bytes are handed to the connection and ends when a
//! GetRecords answer with its record has been read; both by one clock in one process, so the poll's own time is in the figure.
//!
//! With `--cameras N` so many cameras play at once, each into a stream, a processor and a data stream of its own, their
//! frames spread evenly over the time between two; what is promised then holds for the worst of them, and the two worker
//! processes, the server, the senders and the readers share the machine's cores.

#![allow(
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and files itself"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::Timestamp;
use base64::Engine;
use bench::Failure;
use bench::measure::{ms, quantile};
use bench::server::Server;
use bytes::{Bytes, BytesMut};
use clap::Parser;
use client::{Client, PutMediaOptions, Service, StreamName, TimecodeType};
use matroska::{Event, Limits, Reader};
use serde_json::{Value, json};
use tokio::sync::Mutex;

const POLL: Duration = Duration::from_millis(2);
const SETTLE: Duration = Duration::from_secs(3);
const P50_MS_MAX: f64 = 80.0;
const P95_MS_MAX: f64 = 200.0;
const ANALYSED_PER_SECOND_MIN: f64 = 25.0;
/// Of each of several cameras.
const SHARED_P95_MS_MAX: f64 = 400.0;
/// Of each of several cameras.
const SHARED_PER_SECOND_MIN: f64 = 4.0;
/// The time between two frames, over which the cameras are spread.
const FRAME: Duration = Duration::from_millis(33);

/// Measures the delay from frame to record.
#[derive(Parser)]
struct Args {
    /// The server binary.
    #[arg(long)]
    sightglass: PathBuf,
    /// A Matroska file without B-frames.
    #[arg(long)]
    video: PathBuf,
    /// How many cameras play at once.
    #[arg(long, default_value_t = 1)]
    cameras: u32,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// A frame's time from the start of the file, and the file's bytes up to and with its last one.
struct Piece {
    time_ms: i64,
    bytes: Bytes,
}

/// When each frame was sent, by its time in the file; and when its record was read.
#[derive(Default)]
struct Ledger {
    sent: BTreeMap<i64, Instant>,
    delays: Vec<Duration>,
    unmatched: usize,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let pieces = pieces(&std::fs::read(&args.video)?)?;
    let folder = tempfile::tempdir()?;
    let server = Server::start(
        &args.sightglass,
        &folder.path().join("data"),
        &folder.path().join("log"),
    )?;
    let client = server.client()?;
    let pieces = Arc::new(pieces);
    let mut playing = Vec::new();
    for index in 0..args.cameras.max(1) {
        let name = format!("camera-{index}");
        set_up(&client, &name).await?;
        let offset = FRAME * index / args.cameras.max(1);
        playing.push((name, offset));
    }
    let cameras = playing.into_iter().map(|(name, offset)| {
        let (client, pieces) = (server.client(), pieces.clone());
        tokio::spawn(async move { camera(&client?, &name, &pieces, offset).await })
    });
    let cameras: Vec<_> = cameras.collect();
    let mut played = Vec::new();
    for camera in cameras {
        played.push(camera.await??);
    }
    let ok = match played.as_mut_slice() {
        [(ledger, seconds)] => report(ledger, pieces.len(), *seconds, args.json),
        several => report_shared(several, args.json),
    };
    server.stop()?;
    if ok {
        Ok(())
    } else {
        Err("the promised delay is missed".into())
    }
}

/// Plays one camera and reads its records; what was seen, and how long it took.
async fn camera(client: &Client, name: &str, pieces: &[Piece], offset: Duration) -> Result<(Ledger, f64), Failure> {
    tokio::time::sleep(offset).await;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let started = Timestamp::from_millis(now_ms());
    let reader = tokio::spawn(read(client.clone(), name.to_owned(), ledger.clone(), started));
    let seconds = play(client, name, pieces, &ledger, started).await?;
    settle(&ledger).await;
    if reader.is_finished() {
        reader.await??;
        return Err("the reader ended".into());
    }
    reader.abort();
    let ledger = std::mem::take(&mut *ledger.lock().await);
    Ok((ledger, seconds))
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Cuts the file after the last byte of each frame.
fn pieces(file: &[u8]) -> Result<Vec<Piece>, Failure> {
    let mut reader = Reader::new(Limits::default());
    reader.push(Bytes::copy_from_slice(file));
    reader.finish();
    let (mut pieces, mut pending, mut cluster_ms) = (Vec::new(), BytesMut::new(), 0);
    while let Some(event) = reader.next()? {
        match event {
            Event::Data(bytes) => pending.extend_from_slice(&bytes),
            Event::ClusterTimecode(timecode) => cluster_ms = i64::try_from(timecode)?,
            Event::BlockEnd(block) => pieces.push(Piece {
                time_ms: cluster_ms + i64::from(block.relative_time),
                bytes: pending.split().freeze(),
            }),
            _ => {}
        }
    }
    Ok(pieces)
}

async fn set_up(client: &Client, name: &str) -> Result<(), Failure> {
    let made = client
        .call(
            Service::KinesisVideo,
            "CreateStream",
            &json!({"StreamName": name, "DataRetentionInHours": 1}),
        )
        .await?;
    client
        .call(
            Service::Kinesis,
            "CreateStream",
            &json!({"StreamName": name, "ShardCount": 1}),
        )
        .await?;
    let summary = client
        .call(Service::Kinesis, "DescribeStreamSummary", &json!({"StreamName": name}))
        .await?;
    client
        .call(Service::Rekognition, "CreateCollection", &json!({"CollectionId": name}))
        .await?;
    let input = json!({
        "Name": name, "RoleArn": "arn:aws:iam::000000000000:role/bench",
        "Input": {"KinesisVideoStream": {"Arn": made["StreamARN"]}},
        "Output": {"KinesisDataStream": {"Arn": summary["StreamDescriptionSummary"]["StreamARN"]}},
        "Settings": {"FaceSearch": {"CollectionId": name}},
    });
    client
        .call(Service::Rekognition, "CreateStreamProcessor", &input)
        .await?;
    client
        .call(Service::Rekognition, "StartStreamProcessor", &json!({"Name": name}))
        .await?;
    loop {
        let state = client
            .call(Service::Rekognition, "DescribeStreamProcessor", &json!({"Name": name}))
            .await?;
        match state["Status"].as_str() {
            Some("RUNNING") => return Ok(()),
            Some("FAILED") => return Err(format!("the processor failed: {}", state["StatusMessage"]).into()),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// Sends each frame at its time; returns how many seconds of video were played.
async fn play(
    client: &Client,
    name: &str,
    pieces: &[Piece],
    ledger: &Mutex<Ledger>,
    started: Timestamp,
) -> Result<f64, Failure> {
    let stream = StreamName::Name(name.to_owned());
    let endpoint = client.data_endpoint(&stream, "PUT_MEDIA").await?;
    let options = PutMediaOptions {
        stream,
        timecodes: TimecodeType::Relative,
        started,
    };
    let mut connection = endpoint.put_media(&options).await?;
    let acks = tokio::spawn(async move { while let Ok(Some(_)) = connection.acks.next().await {} });
    let begin = tokio::time::Instant::now();
    for piece in pieces {
        tokio::time::sleep_until(begin + Duration::from_millis(u64::try_from(piece.time_ms)?)).await;
        ledger.lock().await.sent.insert(piece.time_ms, Instant::now());
        if !connection.media.send(piece.bytes.clone()).await {
            return Err("the server closed the connection".into());
        }
    }
    drop(connection.media);
    acks.await?;
    Ok(begin.elapsed().as_secs_f64())
}

async fn read(client: Client, name: String, ledger: Arc<Mutex<Ledger>>, started: Timestamp) -> Result<(), Failure> {
    let shards = client
        .call(Service::Kinesis, "ListShards", &json!({"StreamName": name}))
        .await?;
    let input =
        json!({"StreamName": name, "ShardId": shards["Shards"][0]["ShardId"], "ShardIteratorType": "TRIM_HORIZON"});
    let mut iterator = client.call(Service::Kinesis, "GetShardIterator", &input).await?["ShardIterator"].clone();
    loop {
        let mut answer = client
            .call(Service::Kinesis, "GetRecords", &json!({"ShardIterator": iterator}))
            .await?;
        let seen = Instant::now();
        iterator = answer["NextShardIterator"].take();
        let records = answer["Records"].as_array().cloned().unwrap_or_default();
        if records.is_empty() {
            tokio::time::sleep(POLL).await;
        }
        let mut ledger = ledger.lock().await;
        for record in records {
            ledger.take(&record, seen, started)?;
        }
    }
}

impl Ledger {
    fn take(&mut self, record: &Value, seen: Instant, started: Timestamp) -> Result<(), Failure> {
        let data = base64::engine::general_purpose::STANDARD.decode(record["Data"].as_str().unwrap_or_default())?;
        let data: Value = serde_json::from_slice(&data)?;
        let position = &data["InputInformation"]["KinesisVideo"];
        let seconds = |name: &str| position[name].as_f64().unwrap_or(f64::NAN);
        let at = (seconds("ProducerTimestamp") + seconds("FrameOffsetInSeconds")) * 1000.0 - started.millis() as f64;
        let at = at.round() as i64;
        match self.sent.range(at - 2..=at + 2).next() {
            Some((_, sent)) => self.delays.push(seen.duration_since(*sent)),
            None => self.unmatched += 1,
        }
        Ok(())
    }
}

/// Waits until no more records come.
async fn settle(ledger: &Mutex<Ledger>) {
    let deadline = tokio::time::Instant::now() + SETTLE;
    let mut before = usize::MAX;
    while tokio::time::Instant::now() < deadline {
        let now = ledger.lock().await.delays.len();
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn report(ledger: &mut Ledger, frames: usize, seconds: f64, as_json: bool) -> bool {
    let analysed = ledger.delays.len();
    let mut at = |share: f64| ms(quantile(&mut ledger.delays, share));
    let (p50, p95, p99) = (at(0.50), at(0.95), at(0.99));
    let rate = analysed as f64 / seconds;
    let ok = p50 < P50_MS_MAX && p95 < P95_MS_MAX && rate >= ANALYSED_PER_SECOND_MIN && ledger.unmatched == 0;
    if as_json {
        let figures = json!({"frames": frames, "seconds": seconds, "analysed": analysed, "analysed_per_second": rate,
            "unmatched": ledger.unmatched, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "ok": ok});
        println!("{figures}");
    } else {
        println!(
            "frames sent {frames} in {seconds:.1} s, analysed {} ({rate:.1}/s, promised {ANALYSED_PER_SECOND_MIN})",
            analysed
        );
        println!(
            "frame to readable record: p50 {p50:.1} ms (promised under {P50_MS_MAX}), p95 {p95:.1} ms (under {P95_MS_MAX}), p99 {p99:.1} ms"
        );
        println!("records without a sent frame: {}", ledger.unmatched);
    }
    ok
}

/// Several cameras: what is promised holds for each of them.
fn report_shared(played: &mut [(Ledger, f64)], as_json: bool) -> bool {
    let mut rows = Vec::with_capacity(played.len());
    let mut ok = true;
    for (index, (ledger, seconds)) in played.iter_mut().enumerate() {
        let rate = ledger.delays.len() as f64 / *seconds;
        let mut at = |share: f64| ms(quantile(&mut ledger.delays, share));
        let (p50, p95) = (at(0.50), at(0.95));
        ok &= rate >= SHARED_PER_SECOND_MIN && p95 < SHARED_P95_MS_MAX && ledger.unmatched == 0;
        rows.push((index, rate, p50, p95));
    }
    let slowest = rows.iter().map(|row| row.1).fold(f64::MAX, f64::min);
    let longest = rows.iter().map(|row| row.3).fold(0.0, f64::max);
    if as_json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(index, rate, p50, p95)| json!({"camera": index, "analysed_per_second": rate, "p50_ms": p50, "p95_ms": p95}))
            .collect();
        println!(
            "{}",
            json!({"cameras": rows, "slowest_per_second": slowest, "longest_p95_ms": longest, "ok": ok})
        );
    } else {
        for (index, rate, p50, p95) in &rows {
            println!("camera {index}: {rate:.1} analysed/s, p50 {p50:.1} ms, p95 {p95:.1} ms");
        }
        println!("slowest camera {slowest:.1} analysed/s (promised {SHARED_PER_SECOND_MIN})");
        println!("longest p95 {longest:.1} ms (promised under {SHARED_P95_MS_MAX})");
    }
    ok
}
