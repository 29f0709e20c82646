//! Archiving a stored stream to the local S3 against `cp` and an fsync between two files of the same size, in turns in the
//! same run on the same disk; and the archiver's largest memory for a small stream and a large one.
//!
//! What is copied is in memory for both (the peer's source file has just been read, the stream has just been stored), and
//! both end when the copy is on the disk: the archiver's last put is answered when its object is. The archiver is the
//! command, a process of its own beside the server, so that every byte passes the loopback twice.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use auth::{RequestHead, Scope};
use base::{Clock, SystemClock};
use bench::measure::{cpu_seconds, mb, median, memory_bytes, mib};
use bench::report::{Figure, Promise, Report};
use bench::server::{REGION, Server, create_video_stream, credentials};
use bench::{Failure, fragment};
use bytes::Bytes;
use clap::Parser;
use client::{Client, EventType, PutMediaOptions, StreamName, TimecodeType};
use serde_json::Value;

/// What the project promises: this much of the speed of `cp` and fsync.
const RATIO_MIN: f64 = 0.70;
/// And this much memory at most, whatever the size.
const MEMORY_MIB_MAX: f64 = 64.0;
const FRAMES: usize = 50;
const FRAGMENT_MS: u64 = 2000;
const BUCKET: &str = "bench-archive";

#[derive(Parser)]
struct Args {
    /// The program.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder on the disk to measure; a data directory and the peer's files are made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Fragments of the large stream.
    #[arg(long, default_value_t = 1000)]
    fragments: usize,
    /// Fragments of the small one.
    #[arg(long, default_value_t = 50)]
    small: usize,
    /// Bytes of a fragment: 2 s at 4 Mb/s.
    #[arg(long, default_value_t = 1_000_000)]
    fragment_bytes: usize,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What one run of the archiver took.
struct Run {
    seconds: f64,
    bytes: f64,
    cpu_seconds: f64,
    peak_bytes: u64,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::Builder::new().prefix("archive-").tempdir_in(&args.folder)?;
    let data = folder.path().join("data");
    let server = Server::start(&args.sightglass, &data, &args.folder.join("archive-server.log"))?;
    make_bucket(&server)?;
    runtime.block_on(async {
        fill(&server, "small", args.small, args.fragment_bytes).await?;
        fill(&server, "large", args.fragments, args.fragment_bytes).await
    })?;
    let mut report = Report::new("archive", args.json);
    let size = args.fragments * args.fragment_bytes;
    report.say(&format!(
        "{} fragments of {} bytes, {:.2} GB; {} turns",
        args.fragments,
        args.fragment_bytes,
        size as f64 / 1e9,
        args.turns
    ));
    let source = folder.path().join("source");
    write_file(&source, size)?;
    let (mut copies, mut archives, mut ratios, mut memory) = (vec![], vec![], vec![], vec![]);
    let (mut archiver_cpu, mut server_cpu) = (vec![], vec![]);
    for turn in 0..args.turns {
        let copied = copy(&source, &folder.path().join("copy"))?;
        let before = cpu_seconds(server.pid())?;
        let run = archive(&args.sightglass, &server, "large", &format!("turn-{turn}"))?;
        server_cpu.push((cpu_seconds(server.pid())? - before) / (run.bytes / 1e9));
        archiver_cpu.push(run.cpu_seconds / (run.bytes / 1e9));
        let (peer, own) = (size as f64 / copied, run.bytes / run.seconds);
        report.say(&format!(
            "cp + fsync {:>6.0} MB/s, archive {:>6.0} MB/s",
            mb(peer),
            mb(own)
        ));
        copies.push(peer);
        archives.push(own);
        ratios.push(own / peer);
        memory.push(mib(run.peak_bytes));
    }
    let small = archive(&args.sightglass, &server, "small", "small")?;
    report.add(
        Figure::new("archive to the local S3, of cp + fsync", median(&mut ratios), "")
            .promised(Promise::AtLeast(RATIO_MIN))
            .beside("cp MB/s", mb(median(&mut copies)))
            .beside("archive MB/s", mb(median(&mut archives)))
            .beside("archiver CPU s/GB", median(&mut archiver_cpu))
            .beside("server CPU s/GB", median(&mut server_cpu)),
    );
    let largest = memory.iter().copied().fold(0.0, f64::max);
    for (what, peak) in [("large", largest), ("small", mib(small.peak_bytes))] {
        report.add(
            Figure::new(format!("largest memory of the archiver, {what} stream"), peak, "MiB")
                .promised(Promise::AtMost(MEMORY_MIB_MAX)),
        );
    }
    server.stop()?;
    Ok(report.finish())
}

fn write_file(path: &Path, size: usize) -> Result<(), Failure> {
    let noise = fragment::noise(1 << 20, 3);
    let mut file = File::create(path)?;
    let mut left = size;
    while left > 0 {
        let now = left.min(noise.len());
        file.write_all(noise.get(..now).unwrap_or_default())?;
        left -= now;
    }
    Ok(file.sync_all()?)
}

/// Seconds for `cp` and an fsync of the copy, which is removed again.
fn copy(from: &Path, to: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    // Without a clone of the blocks, where a file system could make one.
    let done = Command::new("cp").arg("--reflink=never").args([from, to]).status()?;
    if !done.success() {
        return Err("cp failed".into());
    }
    File::open(to)?.sync_all()?;
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(to)?;
    Ok(seconds)
}

/// Runs the command to its end.
fn archive(binary: &Path, server: &Server, stream: &str, prefix: &str) -> Result<Run, Failure> {
    let key = credentials();
    let begun = Instant::now();
    let mut child = Command::new(binary)
        .args([
            "archive",
            stream,
            &format!("s3://{BUCKET}/{prefix}"),
            "--every",
            "1d",
            "--json",
        ])
        .args(["--endpoint", server.endpoint(), "--region", REGION])
        .env("AWS_ACCESS_KEY_ID", key.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", key.secret.reveal())
        .env_remove("AWS_ENDPOINT_URL_S3")
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let (mut peak_bytes, mut cpu) = (0, 0.0);
    while child.try_wait()?.is_none() {
        // The last look before the end misses a millisecond of it.
        if let (Ok(peak), Ok(used)) = (memory_bytes(pid, "VmHWM"), cpu_seconds(pid)) {
            peak_bytes = peak_bytes.max(peak);
            cpu = used;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut text = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut text)?;
    let last: Value = serde_json::from_str(text.lines().last().ok_or("the archiver said nothing")?)?;
    let bytes = last["bytes"]
        .as_f64()
        .ok_or_else(|| format!("the archiver failed: {text}"))?;
    Ok(Run {
        seconds,
        bytes,
        cpu_seconds: cpu,
        peak_bytes,
    })
}

/// CreateBucket.
fn make_bucket(server: &Server) -> Result<(), Failure> {
    const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
    let host = server.endpoint().trim_start_matches("http://").to_owned();
    let path = format!("/{BUCKET}");
    let headers: [(&str, &[u8]); 2] = [("host", host.as_bytes()), ("x-amz-content-sha256", UNSIGNED.as_bytes())];
    let head = RequestHead {
        method: "PUT",
        path: &path,
        query: "",
        headers: &headers,
        local_port: None,
        also_hosts: &[],
    };
    let scope = Scope {
        region: REGION,
        service: "s3",
    };
    let added = auth::sign(&head, &credentials(), scope, SystemClock::new().now(), UNSIGNED);
    let added = added
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("x-amz-content-sha256"));
    let added: String = added.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut connection = TcpStream::connect(&host)?;
    write!(
        connection,
        "PUT {path} HTTP/1.1\r\nhost: {host}\r\nx-amz-content-sha256: {UNSIGNED}\r\n{added}content-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        Err(format!("no bucket was made: {answer}").into())
    }
}

/// Makes a stream of so many fragments.
async fn fill(server: &Server, name: &str, fragments: usize, fragment_bytes: usize) -> Result<(), Failure> {
    let client: Client = server.client()?;
    create_video_stream(&client, name).await?;
    let options = PutMediaOptions {
        stream: StreamName::Name(name.to_owned()),
        timecodes: TimecodeType::Absolute,
        started: SystemClock::new().now(),
    };
    let begins = u64::try_from(options.started.millis())? - FRAGMENT_MS * fragments as u64;
    let noise: Bytes = fragment::noise(fragment_bytes, 7);
    let connection = client.put_media(&options).await?;
    let (sender, mut acks) = (connection.media, connection.acks);
    let feeding = tokio::spawn(async move {
        let mut open = sender.send(fragment::header()).await;
        for n in 0..fragments as u64 {
            for piece in fragment::chunked(begins + n * FRAGMENT_MS, &noise, FRAMES, 40) {
                open = open && sender.send(piece).await;
            }
        }
        drop(sender);
    });
    let mut persisted = 0;
    while let Some(ack) = acks.next().await? {
        match ack.event {
            EventType::Persisted => persisted += 1,
            EventType::Error => return Err(format!("{ack:?}").into()),
            _ => {}
        }
    }
    feeding.await?;
    if persisted == fragments {
        Ok(())
    } else {
        Err(format!("{persisted} of {fragments} fragments").into())
    }
}
