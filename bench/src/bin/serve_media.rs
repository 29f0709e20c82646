//! Serving stored media: clips, and HLS segments that nobody asked for before, against nginx serving files of the same
//! sizes to the same number of connections on loopback.
//!
//! Streams are filled over PutMedia. The client is one program for both: threads with a socket each that ask, read the
//! answer into a buffer and throw it away. Turns alternate; a turn asks for every object once; figures are medians of the
//! turns. Each turn is taken twice over: *cold*, after the pages of the log's segments and of nginx's files were given
//! back to the system, so that both come from the disk, and *warm*, with what the cold turn left in memory. The server
//! keeps nothing that it made: every segment is made anew for every request.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use auth::sign::payload_hash;
use auth::{Credentials, RequestHead, Scope};
use base::{Clock, SystemClock};
use bench::measure::{cpu_seconds, evict, mb, median};
use bench::report::{Figure, Promise, Report};
use bench::server::{Server, create_video_stream, credentials};
use bench::{Failure, fragment};
use bytes::Bytes;
use clap::Parser;
use client::{Client, EventType, PutMediaOptions, Service, StreamName, TimecodeType};
use matroska::writer::{self, StreamInfo};
use matroska::{Track, TrackKind, Video};
use serde_json::json;

const RATIO_MIN: f64 = 0.70;
const FRAMES: usize = 50;
const FRAME_MS: i16 = 40;
const FRAGMENT_MS: u64 = 2000;
/// What x264 declares for 64x48.
const AVCC: &[u8] = &[
    1, 0x42, 0xC0, 0x0A, 0xFF, 0xE1, 0, 0x17, 0x67, 0x42, 0xC0, 0x0A, 0xD9, 4, 0x7B, 1, 0x10, 0, 0, 3, 0, 0x10, 0, 0,
    3, 3, 0x20, 0xF1, 0x22, 0x64, 0x80, 1, 0, 5, 0x68, 0xCB, 0x83, 0xCB, 0x20,
];

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder on the disk to measure; a data directory and nginx's files are made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Connections, each with a stream of its own.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Fragments of each stream.
    #[arg(long, default_value_t = 48)]
    fragments: usize,
    /// Bytes of a fragment: 2 s at 4 Mb/s.
    #[arg(long, default_value_t = 1_000_000)]
    fragment_bytes: usize,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Measure only one of `clips` and `segments`.
    #[arg(long)]
    only: Option<String>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::Builder::new()
        .prefix("serve-media-")
        .tempdir_in(&args.folder)?;
    let folder = std::path::absolute(folder.path()).map(|path| (folder, path))?;
    let data = folder.1.join("data");
    let server = Server::start(&args.sightglass, &data, &args.folder.join("serve-media-server.log"))?;
    let filled = Instant::now();
    runtime.block_on(fill(&server, &args))?;
    let seconds = filled.elapsed().as_secs_f64();
    let gigabytes = (args.connections * args.fragments * args.fragment_bytes) as f64 / 1e9;
    let mut report = Report::new("serve_media", args.json);
    report.say(&format!(
        "{} streams of {} fragments of {} bytes, {gigabytes:.2} GB, stored in {seconds:.1} s",
        args.connections, args.fragments, args.fragment_bytes
    ));
    let wanted = |what: &str| args.only.as_deref().is_none_or(|only| only == what);
    if wanted("clips") {
        let requests = (0..args.connections)
            .map(|n| clip_request(&server, &name(n), &args))
            .collect::<Result<Vec<_>, _>>()?;
        compare("clips", &args, &server, &folder.1, &requests, &mut report)?;
    }
    if wanted("segments") {
        let requests = runtime.block_on(segment_requests(&server, &args))?;
        compare("segments", &args, &server, &folder.1, &requests, &mut report)?;
    }
    server.stop()?;
    Ok(report.finish())
}

fn name(stream: usize) -> String {
    format!("serve-{stream}")
}

/// Now, less the age of the first fragment.
fn start_ms() -> u64 {
    1_795_347_220_000
}

fn header() -> Bytes {
    let track = Track {
        number: 1,
        uid: 1,
        kind: TrackKind::Video,
        codec_id: "V_MPEG4/ISO/AVC".to_owned(),
        codec_private: Bytes::from_static(AVCC),
        name: "camera".to_owned(),
        language: "eng".to_owned(),
        default_duration_ns: Some(40_000_000),
        encoded: false,
        video: Some(Video { width: 64, height: 48 }),
        audio: None,
    };
    writer::header(&StreamInfo::default(), &[track])
}

async fn fill(server: &Server, args: &Args) -> Result<(), Failure> {
    let client = server.client()?;
    for stream in 0..args.connections {
        create_video_stream(&client, &name(stream)).await?;
    }
    // Each frame is one unit behind its length.
    let mut noise = fragment::noise(args.fragment_bytes, 7).to_vec();
    let frame = args.fragment_bytes / FRAMES;
    for frame_bytes in noise.chunks_exact_mut(frame) {
        let length = u32::try_from(frame - 4)?.to_be_bytes();
        frame_bytes
            .iter_mut()
            .zip(length.into_iter().chain([0x65]))
            .for_each(|(byte, value)| *byte = value);
    }
    let noise = Bytes::from(noise);
    let tasks: Vec<_> = (0..args.connections)
        .map(|stream| tokio::spawn(put(client.clone(), stream, args.fragments, noise.clone())))
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn put(client: Client, stream: usize, fragments: usize, noise: Bytes) -> Result<(), Failure> {
    let options = PutMediaOptions {
        stream: StreamName::Name(name(stream)),
        timecodes: TimecodeType::Absolute,
        started: SystemClock::new().now(),
    };
    let connection = client.put_media(&options).await?;
    let (sender, mut acks) = (connection.media, connection.acks);
    let feeding = tokio::spawn(async move {
        let mut open = sender.send(header()).await;
        for n in 0..fragments as u64 {
            for piece in fragment::chunked(start_ms() + n * FRAGMENT_MS, &noise, FRAMES, FRAME_MS) {
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

/// What is sent for one object, whole.
#[derive(Clone)]
struct Ask {
    request: Vec<u8>,
}

fn get(path: &str) -> Ask {
    Ask {
        request: format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes(),
    }
}

fn clip_request(server: &Server, stream: &str, args: &Args) -> Result<Ask, Failure> {
    let end = start_ms() + FRAGMENT_MS * args.fragments as u64;
    let body = json!({ "StreamName": stream, "ClipFragmentSelector": {
        "FragmentSelectorType": "PRODUCER_TIMESTAMP",
        "TimestampRange": { "StartTimestamp": start_ms() as f64 / 1e3, "EndTimestamp": end as f64 / 1e3 } } })
    .to_string();
    let host = server.endpoint().trim_start_matches("http://").to_owned();
    let headers: [(&str, &[u8]); 2] = [("host", host.as_bytes()), ("content-type", b"application/json")];
    let head = RequestHead {
        method: "POST",
        path: "/getClip",
        query: "",
        headers: &headers,
        local_port: None,
        also_hosts: &[],
    };
    let scope = Scope {
        region: "us-west-2",
        service: "kinesisvideo",
    };
    let key: Credentials = credentials();
    let added = auth::sign(
        &head,
        &key,
        scope,
        SystemClock::new().now(),
        &payload_hash(body.as_bytes()),
    );
    let added: String = added
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    Ok(Ask {
        request: format!(
            "POST /getClip HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{added}\r\n{body}"
        )
        .into_bytes(),
    })
}

/// The media segments of an on-demand session of each stream.
async fn segment_requests(server: &Server, args: &Args) -> Result<Vec<Ask>, Failure> {
    let client = server.client()?;
    let mut asks = Vec::new();
    for stream in 0..args.connections {
        let end = start_ms() + FRAGMENT_MS * args.fragments as u64;
        let input = json!({ "StreamName": name(stream), "PlaybackMode": "ON_DEMAND", "HLSFragmentSelector": {
            "FragmentSelectorType": "PRODUCER_TIMESTAMP",
            "TimestampRange": { "StartTimestamp": start_ms() as f64 / 1e3, "EndTimestamp": end as f64 / 1e3 } } });
        let answer = client
            .call(Service::KinesisVideo, "GetHLSStreamingSessionURL", &input)
            .await?;
        let url = answer["HLSStreamingSessionURL"].as_str().ok_or("no session URL")?;
        let path = url
            .splitn(4, '/')
            .nth(3)
            .map(|path| format!("/{path}"))
            .ok_or("no path")?;
        let folder = path
            .split('?')
            .next()
            .and_then(|path| path.rsplit_once('/'))
            .map_or("", |(folder, _)| folder);
        let lines = |text: String| -> Vec<String> {
            let uris = text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            uris.map(|uri| format!("{folder}/{uri}")).collect()
        };
        let address = address(server)?;
        let master = text_of(address, &get(&path))?;
        let media = lines(master).into_iter().next().ok_or("no media playlist")?;
        asks.push(lines(text_of(address, &get(&media))?));
    }
    // Connections take from all streams in turn, as viewers of different cameras do.
    let longest = asks.iter().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|n| asks.iter().filter_map(move |list| list.get(n)));
    Ok(in_turn.map(|path| get(path)).collect())
}

fn address(server: &Server) -> Result<SocketAddr, Failure> {
    Ok(server.endpoint().trim_start_matches("http://").parse()?)
}

fn text_of(address: SocketAddr, ask: &Ask) -> Result<String, Failure> {
    let mut kept = Vec::new();
    fetch(
        &mut TcpStream::connect(address)?,
        ask,
        &mut vec![0; 64 << 10],
        Some(&mut kept),
    )?;
    Ok(String::from_utf8(kept)?)
}

/// Asks, reads the answer to its end, and gives its length.
fn fetch(socket: &mut TcpStream, ask: &Ask, buffer: &mut [u8], mut keep: Option<&mut Vec<u8>>) -> Result<u64, Failure> {
    socket.write_all(&ask.request)?;
    let mut filled = 0;
    let (head, mut have) = loop {
        let read = socket.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err("the connection was closed before an answer".into());
        }
        filled += read;
        if let Some(at) = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break (String::from_utf8(buffer[..at].to_vec())?.to_lowercase(), at + 4..filled);
        }
    };
    if !head.starts_with("http/1.1 200") {
        return Err(format!("{head}: {}", String::from_utf8_lossy(&buffer[have])).into());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: u64 = length
        .ok_or_else(|| format!("no content-length: {head}"))?
        .trim()
        .parse()?;
    let mut got = 0;
    loop {
        got += have.len() as u64;
        if let Some(kept) = &mut keep {
            kept.extend_from_slice(&buffer[have]);
        }
        if got >= length {
            return Ok(got);
        }
        let read = socket.read(buffer)?;
        if read == 0 {
            return Err(format!("{got} of {length} bytes").into());
        }
        have = 0..read;
    }
}

/// Every object once over so many connections: bytes, seconds.
fn turn(address: SocketAddr, asks: &[Ask], connections: usize) -> Result<(u64, f64), Failure> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let bytes = std::thread::scope(|scope| {
        let work = || -> Result<u64, Failure> {
            let mut socket = TcpStream::connect(address)?;
            socket.set_read_timeout(Some(Duration::from_secs(60)))?;
            let (mut buffer, mut bytes) = (vec![0; 256 << 10], 0);
            while let Some(ask) = asks.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes += fetch(&mut socket, ask, &mut buffer, None)?;
            }
            Ok(bytes)
        };
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        let mut bytes = 0;
        for thread in threads {
            bytes += thread.join().map_err(|_| "a client thread panicked")??;
        }
        Ok::<u64, Failure>(bytes)
    })?;
    Ok((bytes, start.elapsed().as_secs_f64()))
}

/// nginx with one file for each object.
struct Nginx {
    child: Child,
    address: SocketAddr,
    files: PathBuf,
}

impl Nginx {
    fn start(folder: &Path, sizes: &[u64]) -> Result<Nginx, Failure> {
        let files = folder.join("nginx");
        std::fs::create_dir_all(files.join("files"))?;
        let noise = fragment::noise(1 << 20, 11);
        for (size, n) in sizes.iter().zip(0..) {
            let mut file = std::fs::File::create(files.join(format!("files/{n}")))?;
            let mut left = usize::try_from(*size)?;
            while left > 0 {
                let now = left.min(noise.len());
                file.write_all(&noise[..now])?;
                left -= now;
            }
            file.sync_all()?;
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let home = files.display();
        // As many workers as cores, and what nginx recommends for files of this size.
        let config = format!(
            "daemon off; worker_processes auto; pid {home}/pid; error_log {home}/error.log;\nevents {{ worker_connections 256; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; open_file_cache max=4096; default_type video/mp4; keepalive_requests 1000000;\n\
             client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n\
             server {{ listen 127.0.0.1:{port}; root {home}/files; }} }}\n"
        );
        std::fs::write(files.join("nginx.conf"), config)?;
        let binary = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        let child = Command::new(binary.unwrap_or("nginx"))
            .args([
                "-c",
                &files.join("nginx.conf").display().to_string(),
                "-p",
                &home.to_string(),
            ])
            .args(["-e", &files.join("error.log").display().to_string()])
            .stdout(Stdio::null())
            .spawn()?;
        let nginx = Nginx {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            files: files.clone(),
        };
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(nginx.address).is_err() {
            if Instant::now() > until {
                return Err("nginx does not listen".into());
            }
            std::thread::yield_now();
        }
        Ok(nginx)
    }

    /// CPU of the workers, which are the children of the child.
    fn cpu(&self) -> f64 {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|pid| cpu_seconds(pid.parse().ok()?).ok())
            .sum()
    }
}

impl Drop for Nginx {
    #[allow(unsafe_code, reason = "kill(2) of our own child")]
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // SAFETY: the child is ours and not waited for yet, so the pid is its own.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.files);
    }
}

/// What the turns of one program and one temperature gave.
#[derive(Default)]
struct Turns {
    rates: Vec<f64>,
    cpu: f64,
    bytes: u64,
}

/// Where both programs serve the same objects.
struct Rig<'a> {
    args: &'a Args,
    server: &'a Server,
    nginx: Nginx,
    /// What is asked of each.
    asks: [&'a [Ask]; 2],
    folder: &'a Path,
}

impl Rig<'_> {
    fn address(&self, who: usize) -> Result<SocketAddr, Failure> {
        if who == 0 {
            address(self.server)
        } else {
            Ok(self.nginx.address)
        }
    }

    fn cpu(&self, who: usize) -> f64 {
        if who == 0 {
            cpu_seconds(self.server.pid()).unwrap_or(0.0)
        } else {
            self.nginx.cpu()
        }
    }

    /// One turn of one program.
    fn turn(&self, who: usize, turns: &mut Turns) -> Result<(), Failure> {
        let before = self.cpu(who);
        let (read, seconds) = turn(self.address(who)?, self.asks[who], self.args.connections)?;
        turns.cpu += self.cpu(who) - before;
        turns.bytes += read;
        turns.rates.push(read as f64 / seconds);
        Ok(())
    }

    /// Cold and warm turns of both, who comes first changing from turn to turn.
    fn turns(&self) -> Result<[[Turns; 2]; 2], Failure> {
        let mut all: [[Turns; 2]; 2] = Default::default();
        for number in 0..self.args.turns {
            for who in [number % 2, (number + 1) % 2] {
                evict(self.folder)?;
                for temperature in &mut all {
                    self.turn(who, &mut temperature[who])?;
                }
            }
        }
        Ok(all)
    }
}

fn compare(
    what: &str,
    args: &Args,
    server: &Server,
    folder: &Path,
    asks: &[Ask],
    report: &mut Report,
) -> Result<(), Failure> {
    // The sizes that nginx's files get.
    let mut sizes = Vec::with_capacity(asks.len());
    let (mut socket, mut buffer) = (TcpStream::connect(address(server)?)?, vec![0; 256 << 10]);
    for ask in asks {
        sizes.push(fetch(&mut socket, ask, &mut buffer, None)?);
    }
    drop(socket);
    let files: Vec<Ask> = (0..sizes.len()).map(|n| get(&format!("/{n}"))).collect();
    let rig = Rig {
        args,
        server,
        nginx: Nginx::start(folder, &sizes)?,
        asks: [asks, &files],
        folder,
    };
    let mean = sizes.iter().sum::<u64>() as f64 / sizes.len() as f64;
    report.say(&format!(
        "{what}: {} objects of {:.2} MB, {} connections, {} turns each",
        asks.len(),
        mean / 1e6,
        args.connections,
        args.turns
    ));
    for (temperature, [mut ours, mut theirs]) in ["cold", "warm"].into_iter().zip(rig.turns()?) {
        let (mine, nginx) = (median(&mut ours.rates), median(&mut theirs.rates));
        let per_gb = |turns: &Turns| turns.cpu / (turns.bytes as f64 / 1e9);
        let figure = Figure::new(
            format!("{what}, {temperature}: of nginx's bytes a second"),
            mine / nginx,
            "",
        );
        let figure = figure.promised(Promise::AtLeast(RATIO_MIN));
        let figure = figure.beside("MB/s", mb(mine)).beside("nginx MB/s", mb(nginx));
        let (cpu, nginx_cpu) = (per_gb(&ours), per_gb(&theirs));
        report.add(figure.beside("CPU s/GB", cpu).beside("nginx CPU s/GB", nginx_cpu));
    }
    Ok(())
}
