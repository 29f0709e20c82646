//! Fan-out: what it costs the server to send live frames to the consumers of GetMedia, and how late they arrive.
//!
//! Two set-ups: one camera to 200 consumers, and 50 cameras to one consumer each; 30 frames a second, 3 Mb/s, fragments of a
//! second, stored durably. The figure is the CPU of the whole server process (user and system, all threads) with consumers,
//! less its CPU without, which is what ingest costs: the mean of a window before and one after. It stands against the CPU of
//! the peer: a bare epoll program in a process of its own that makes the same frames in the same documents and chunk framing,
//! at the same pace, and writes each to as many sockets once. The server may put frames that are close together into one
//! write; what this costs in time is in the delay: each frame carries the time of its sending, which the consumer compares
//! with the time of its own read. Producers and consumers run in this process, on the same cores, and produce while the peer
//! is measured too. Peer and server take turns, the order changing from round to round; the figure is the median of the
//! rounds' ratios, and their range is printed beside it: other work on the machine shows there.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bench::Failure;
use bench::fanout::cameras::{Dialect, FRAMES_PER_SECOND};
use bench::fanout::drain::{Arrived, Drain};
use bench::fanout::{request, sender};
use bench::measure::{cpu_seconds, ms, quantile};
use bench::server::{Server, create_video_stream};
use clap::Parser;
use client::Client;

/// What the issue promises.
const RATIO_MAX: f64 = 1.5;
const DELAY_P50_MS_MAX: f64 = 40.0;
/// Of the frames due in a window, those that must arrive in it.
const ARRIVED_MIN: f64 = 0.98;

/// Consumers get their first bytes with the next fragment, a second away at most.
const SETTLE: Duration = Duration::from_millis(2500);
/// What the server needs to get used to producers.
const WARM_UP: Duration = Duration::from_secs(3);
/// What a sender needs to take leave of its consumers.
const CLOSING: Duration = Duration::from_millis(500);

const CONFIG: &str = "get_media_connections = 1000\n";

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder for the data directory, which is removed.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Seconds of a window.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Rounds; each gives one ratio.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One set-up alone: CAMERAS:CONSUMERS (of all cameras together).
    #[arg(long)]
    only: Option<String>,
    /// Run as the peer for this many connections.
    #[arg(long, hide = true)]
    peer: Option<usize>,
}

#[derive(Clone, Copy)]
struct SetUp {
    cameras: usize,
    consumers: usize,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    if let Some(connections) = args.peer {
        peer(connections)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut set_ups = vec![
        SetUp {
            cameras: 1,
            consumers: 200,
        },
        SetUp {
            cameras: 50,
            consumers: 50,
        },
    ];
    if let Some((cameras, consumers)) = args.only.as_deref().and_then(|only| only.split_once(':')) {
        set_ups = vec![SetUp {
            cameras: cameras.parse()?,
            consumers: consumers.parse()?,
        }];
    }
    let mut kept = true;
    for set_up in set_ups {
        kept &= measure(&args, set_up)?;
    }
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A window of time.
struct Window {
    /// CPU seconds a second.
    load: f64,
    seconds: f64,
    arrived: Arrived,
}

/// Windows that stand side by side.
struct Round {
    /// The server without consumers, before and after.
    ingest: [f64; 2],
    served: Window,
    peer: Window,
}

impl Round {
    fn ingest(&self) -> f64 {
        self.ingest.iter().sum::<f64>() / 2.0
    }

    fn fan_out(&self) -> f64 {
        self.served.load - self.ingest()
    }

    fn ratio(&self) -> f64 {
        self.fan_out() / self.peer.load
    }
}

fn measure(args: &Args, set_up: SetUp) -> Result<bool, Failure> {
    let folder = tempfile::Builder::new().prefix("fanout-").tempdir_in(&args.folder)?;
    let config = folder.path().join("sightglass.toml");
    std::fs::write(&config, CONFIG)?;
    let log = args.folder.join("fanout-server.log");
    let server = Server::start_configured(&args.sightglass, &folder.path().join("data"), &log, &config)?;
    create_streams(&server.client()?, set_up.cameras)?;
    let producers = Producers::start(&server, set_up.cameras)?;
    std::thread::sleep(WARM_UP);
    let time = Duration::from_secs(args.seconds);
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        // The peer first in every second round.
        let early = (round % 2 == 1).then(|| peer_window(set_up, time)).transpose()?;
        let (before, _) = load_of(server.pid(), time)?;
        let served = served_window(&server, set_up, time)?;
        let (after, _) = load_of(server.pid(), time)?;
        let peer = match early {
            Some(peer) => peer,
            None => peer_window(set_up, time)?,
        };
        rounds.push(Round {
            ingest: [before, after],
            served,
            peer,
        });
    }
    producers.stop()?;
    server.stop()?;
    Ok(report(set_up, &mut rounds))
}

fn served_window(server: &Server, set_up: SetUp, time: Duration) -> Result<Window, Failure> {
    let sockets = (0..set_up.consumers).map(|consumer| request::get_media(server, &name(consumer % set_up.cameras)));
    window(server.pid(), sockets.collect::<Result<_, _>>()?, time)
}

fn peer_window(set_up: SetUp, time: Duration) -> Result<Window, Failure> {
    let peer = Peer::start(set_up)?;
    window(peer.0.id(), peer.connect(set_up)?, time)
}

/// What a sender spends in a window, and what its consumers get.
fn window(sender: u32, sockets: Vec<TcpStream>, time: Duration) -> Result<Window, Failure> {
    let drain = Drain::start(sockets)?;
    std::thread::sleep(SETTLE);
    drain.open_window();
    let (load, seconds) = load_of(sender, time)?;
    let arrived = drain.close_window();
    drain.stop()?;
    // What its connections leave behind belongs to no window.
    std::thread::sleep(CLOSING);
    Ok(Window { load, seconds, arrived })
}

/// CPU seconds a second of a process from now on, and how long that was.
fn load_of(pid: u32, time: Duration) -> Result<(f64, f64), Failure> {
    let (before, start) = (cpu_seconds(pid)?, Instant::now());
    std::thread::sleep(time);
    let (cpu, seconds) = (cpu_seconds(pid)? - before, start.elapsed().as_secs_f64());
    Ok((cpu / seconds, seconds))
}

/// The median and the range of what the rounds say.
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(rounds: &[Round], value: impl Fn(&Round) -> f64) -> Self {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Spread {
            median: (at((values.len().max(1) - 1) / 2) + at(values.len() / 2)) / 2.0,
            least: at(0),
            most: at(values.len().max(1) - 1),
        }
    }
}

fn report(set_up: SetUp, rounds: &mut [Round]) -> bool {
    let SetUp { cameras, consumers } = set_up;
    let frames_a_second = (FRAMES_PER_SECOND as usize * consumers) as f64;
    println!("{cameras} camera(s) to {consumers} consumers, {} rounds:", rounds.len());
    println!("   CPU seconds a second: median (least to most), and microseconds a frame and consumer");
    let ratio = Spread::of(rounds, Round::ratio);
    let loads = [
        ("server, ingest alone", Spread::of(rounds, Round::ingest)),
        ("server, with consumers", Spread::of(rounds, |round| round.served.load)),
        ("fan-out", Spread::of(rounds, Round::fan_out)),
        ("bare epoll sender", Spread::of(rounds, |round| round.peer.load)),
    ];
    for (what, load) in loads {
        let Spread { median, least, most } = load;
        let of_frame = median * 1e6 / frames_a_second;
        println!("   {what:22} {median:.4} ({least:.4} to {most:.4}), {of_frame:.1}");
    }
    println!(
        "   ratio                  {:.2} ({:.2} to {:.2})",
        ratio.median, ratio.least, ratio.most
    );
    let (p50, served) = arrivals(
        "server",
        rounds.iter_mut().map(|round| &mut round.served),
        frames_a_second,
    );
    let (_, peer) = arrivals("peer", rounds.iter_mut().map(|round| &mut round.peer), frames_a_second);
    [
        verdict(
            "CPU",
            ratio.median < RATIO_MAX,
            &format!("under {RATIO_MAX} times the bare sender"),
        ),
        verdict(
            "delay",
            p50 < DELAY_P50_MS_MAX,
            &format!("p50 under {DELAY_P50_MS_MAX} ms"),
        ),
        verdict(
            "frames",
            served >= ARRIVED_MIN && peer >= ARRIVED_MIN,
            "all frames arrive",
        ),
    ]
    .iter()
    .all(|kept| *kept)
}

/// Prints how late the frames were in all windows together. Gives the median in milliseconds, and which part of the frames
/// due has arrived.
fn arrivals<'a>(who: &str, windows: impl Iterator<Item = &'a mut Window>, frames_a_second: f64) -> (f64, f64) {
    let (mut delays, mut bytes, mut due) = (Vec::new(), 0, 0.0);
    for window in windows {
        delays.append(&mut window.arrived.delays);
        bytes += window.arrived.bytes;
        due += window.seconds * frames_a_second;
    }
    let [p50, p95, p99, last] = [0.5, 0.95, 0.99, 1.0].map(|part| ms(quantile(&mut delays, part)));
    println!(
        "   delay, {who:6}          p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, longest {last:.0} ms; {} frames of {due:.0}, {} bytes each",
        delays.len(),
        bytes / (delays.len() as u64).max(1),
    );
    (p50, delays.len() as f64 / due)
}

/// Prints a figure beside its bound and says whether it holds.
fn verdict(what: &str, kept: bool, bound: &str) -> bool {
    println!(
        "   {what}: {} (promised: {bound})",
        if kept { "kept" } else { "MISSED" }
    );
    kept
}

fn name(camera: usize) -> String {
    format!("fanout-{camera}")
}

fn create_streams(client: &Client, cameras: usize) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        for camera in 0..cameras {
            create_video_stream(client, &name(camera)).await?;
        }
        Ok(())
    })
}

/// The producers' thread.
struct Producers {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Producers {
    fn start(server: &Server, cameras: usize) -> Result<Self, Failure> {
        let sockets = (0..cameras).map(|camera| Ok((camera, request::put_media(server, &name(camera))?)));
        let sockets = sockets.collect::<Result<Vec<_>, Failure>>()?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            sender::run(Dialect::PutMedia, sockets, &told).map_err(|error| format!("a producer: {error}"))
        });
        Ok(Producers { stop, thread })
    }

    fn stop(self) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().map_err(|_| "the producers' thread panicked")?;
        ended.map_err(Failure::from)
    }
}

/// The peer's process. Dropping it kills it.
struct Peer(Child, String);

impl Peer {
    fn start(set_up: SetUp) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--peer", &set_up.consumers.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the peer has no stdout")?;
        let mut peer = Peer(child, String::new());
        BufReader::new(stdout).read_line(&mut peer.1)?;
        Ok(peer)
    }

    fn connect(&self, set_up: SetUp) -> Result<Vec<TcpStream>, Failure> {
        let mut sockets = Vec::new();
        for consumer in 0..set_up.consumers {
            let mut socket = TcpStream::connect(self.1.trim())?;
            write!(socket, "GET /{} HTTP/1.1\r\n\r\n", consumer % set_up.cameras)?;
            sockets.push(socket);
        }
        for socket in &mut sockets {
            request::read_head(socket)?;
        }
        Ok(sockets)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The peer: takes its connections, then does nothing but send until it is killed or its consumers leave.
fn peer(connections: usize) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let mut sockets = Vec::new();
    for _ in 0..connections {
        let (mut socket, _) = listener.accept()?;
        let head = request::read_head(&mut socket)?;
        let camera = head.trim_start_matches("GET /").split(' ').next().unwrap_or_default();
        socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        sockets.push((camera.parse()?, socket));
    }
    // Its consumers leave before it is killed.
    let _ = sender::run(Dialect::GetMedia, sockets, &AtomicBool::new(false));
    Ok(())
}
