//! Playlists of a long range: a stream with a day of one-second fragments (86,400) is asked for on-demand playlists of
//! 5,000 and of 1,000 fragments over HTTP, from the first byte of the request to the last byte of the answer. The promise
//! is an absolute one: 100 ms and 50 ms.
//!
//! Every request is the first one of a session of its own, at another hour of the day, so that nothing of it is remembered
//! by the server; *again* is the same playlist asked for a second time. Beside them stands the time of a bare TCP program
//! that sends as many bytes on loopback. Fragments are small (two frames): their size has no part in a playlist.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use base::{Clock, SystemClock};
use bench::measure::{ms, quantile};
use bench::report::{Figure, Promise, Report};
use bench::server::{Server, create_video_stream};
use bench::{Failure, fragment};
use bytes::Bytes;
use clap::Parser;
use client::{Client, EventType, PutMediaOptions, Service, StreamName, TimecodeType};
use matroska::writer::{self, StreamInfo};
use matroska::{Track, TrackKind, Video};
use serde_json::json;

const STREAM: &str = "playlist";
const START_MS: u64 = 1_795_305_600_000;
/// Connections that fill the stream, each with its own part of the day.
const PRODUCERS: u64 = 4;
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
    /// Folder on the disk to measure; a data directory is made in it and removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Fragments of the stream, one second each.
    #[arg(long, default_value_t = 86_400)]
    fragments: u64,
    /// Sessions of each size.
    #[arg(long, default_value_t = 20)]
    sessions: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::Builder::new().prefix("playlist-").tempdir_in(&args.folder)?;
    let log = args.folder.join("playlist-server.log");
    let server = Server::start(&args.sightglass, &folder.path().join("data"), &log)?;
    let filled = Instant::now();
    runtime.block_on(fill(&server, &args))?;
    let mut report = Report::new("playlist", args.json);
    let seconds = filled.elapsed().as_secs_f64();
    report.say(&format!("{} fragments stored in {seconds:.1} s", args.fragments));
    for (entries, promised_ms) in [(1000_u64, 50.0), (5000, 100.0)] {
        let (mut first, mut again, mut bytes) = (Vec::new(), Vec::new(), 0);
        for session in 0..args.sessions {
            let paths = runtime.block_on(media_playlist(&server, &args, session, entries))?;
            for times in [&mut first, &mut again] {
                let (time, text) = timed(address(&server)?, &paths)?;
                let found = text.matches("#EXTINF:").count() as u64;
                if found != entries.min(args.fragments) {
                    return Err(format!("{found} of {entries} fragments in a playlist").into());
                }
                bytes = text.len();
                times.push(time);
            }
        }
        let bare = ms(loopback(bytes)?);
        for (kind, mut times) in [("", first), (", again", again)] {
            let what = format!("last byte of {entries} entries, {bytes} bytes{kind}");
            let figure = Figure::new(what, ms(quantile(&mut times, 0.5)), "ms").promised(Promise::AtMost(promised_ms));
            let slowest = ms(quantile(&mut times, 1.0));
            report.add(figure.beside("slowest", slowest).beside("bare program", bare));
        }
    }
    server.stop()?;
    Ok(report.finish())
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
        default_duration_ns: Some(500_000_000),
        encoded: false,
        video: Some(Video { width: 64, height: 48 }),
        audio: None,
    };
    writer::header(&StreamInfo::default(), &[track])
}

async fn fill(server: &Server, args: &Args) -> Result<(), Failure> {
    let client = server.client()?;
    create_video_stream(&client, STREAM).await?;
    let each = args.fragments.div_ceil(PRODUCERS);
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|n| {
            let mine = n * each..((n + 1) * each).min(args.fragments);
            tokio::spawn(put(client.clone(), mine))
        })
        .collect();
    for producer in producers {
        producer.await??;
    }
    Ok(())
}

async fn put(client: Client, seconds: std::ops::Range<u64>) -> Result<(), Failure> {
    let options = PutMediaOptions {
        stream: StreamName::Name(STREAM.to_owned()),
        timecodes: TimecodeType::Absolute,
        started: SystemClock::new().now(),
    };
    let connection = client.put_media(&options).await?;
    let (sender, mut acks) = (connection.media, connection.acks);
    let wanted = seconds.end - seconds.start;
    let feeding = tokio::spawn(async move {
        // Two frames of one unit each behind its length.
        let unit: Vec<u8> = [0, 0, 0, 60, 0x65].into_iter().chain([0x80; 59]).collect();
        let frames = Bytes::from([unit.clone(), unit].concat());
        let mut open = sender.send(header()).await;
        for second in seconds {
            let whole = fragment::whole(START_MS + second * 1000, &frames, 2, 500);
            open = open && sender.send(whole).await;
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
    if persisted == wanted {
        Ok(())
    } else {
        Err(format!("{persisted} of {wanted} fragments").into())
    }
}

fn address(server: &Server) -> Result<SocketAddr, Failure> {
    Ok(server.endpoint().trim_start_matches("http://").parse()?)
}

/// Where the media playlist of a new session lies, whose range begins at another place of the day.
async fn media_playlist(server: &Server, args: &Args, session: u64, entries: u64) -> Result<String, Failure> {
    let room = args.fragments.saturating_sub(entries).max(1);
    let first = START_MS + session * 1_000 * (room / args.sessions.max(1));
    let last = START_MS + args.fragments * 1000 - 1;
    let input = json!({ "StreamName": STREAM, "PlaybackMode": "ON_DEMAND", "MaxMediaPlaylistFragmentResults": entries,
        "HLSFragmentSelector": { "FragmentSelectorType": "PRODUCER_TIMESTAMP",
            "TimestampRange": { "StartTimestamp": first as f64 / 1e3, "EndTimestamp": last as f64 / 1e3 } } });
    let answer = server
        .client()?
        .call(Service::KinesisVideo, "GetHLSStreamingSessionURL", &input)
        .await?;
    let url = answer["HLSStreamingSessionURL"].as_str().ok_or("no session URL")?;
    let token = url.split_once('=').map(|(_, token)| token).ok_or("no token")?;
    Ok(format!(
        "/hls/v1/getHLSMediaPlaylist.m3u8?SessionToken={token}&TrackNumber=1"
    ))
}

/// Asks on a connection that is open, and reads the answer to its last byte.
fn timed(address: SocketAddr, path: &str) -> Result<(Duration, String), Failure> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::with_capacity(4 << 20);
    let began = Instant::now();
    socket.write_all(request.as_bytes())?;
    socket.read_to_end(&mut answer)?;
    let time = began.elapsed();
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.starts_with("HTTP/1.1 200") {
        Ok((time, body.to_owned()))
    } else {
        Err(answer.into())
    }
}

/// How long as many bytes take from a thread that has them ready.
fn loopback(bytes: usize) -> Result<Duration, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        socket.read_exact(&mut [0; 1])?;
        socket.write_all(&vec![0; bytes])
    });
    let mut socket = TcpStream::connect(address)?;
    let mut answer = Vec::with_capacity(bytes);
    let began = Instant::now();
    socket.write_all(b"x")?;
    socket.read_to_end(&mut answer)?;
    let time = began.elapsed();
    sender.join().map_err(|_| "the bare program failed")??;
    Ok(time)
}
