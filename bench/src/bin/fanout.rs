//! Fan-out: what it costs the server to send live frames to the consumers of GetMedia, and how late they arrive.
//!
//! Two set-ups: one camera to 200 consumers, and 50 cameras to one consumer each; 30 frames a second, 3 Mb/s, fragments of a
//! second, stored durably. The figure is the server's CPU with consumers less its CPU without (which is what ingest costs),
//! both measured in the run, against that of the peer: a bare epoll program in a process of its own that sends the same
//! frames in the same documents, chunk framing and pace to as many sockets. Each frame carries the time of its sending.
//! Producers and consumers run in this process, on the same cores. The peer and the server take turns.
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
    /// Windows of each kind.
    #[arg(long, default_value_t = 3)]
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

/// Sums of the windows of one kind.
#[derive(Default)]
struct Sum {
    cpu: f64,
    seconds: f64,
    delays: Vec<Duration>,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, cpu: f64, seconds: f64, arrived: Arrived) {
        self.cpu += cpu;
        self.seconds += seconds;
        self.delays.extend(arrived.delays);
        self.bytes += arrived.bytes;
    }

    /// CPU seconds a second.
    fn load(&self) -> f64 {
        self.cpu / self.seconds
    }

    fn due(&self, set_up: SetUp) -> f64 {
        self.seconds * (FRAMES_PER_SECOND as usize * set_up.consumers) as f64
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
    let window = Duration::from_secs(args.seconds);
    let (mut ingest, mut served, mut peer) = (Sum::default(), Sum::default(), Sum::default());
    for _ in 0..args.rounds {
        let (cpu, seconds, ()) = window_of(server.pid(), window, || (), || ())?;
        ingest.add(cpu, seconds, Arrived::default());

        let sockets =
            (0..set_up.consumers).map(|consumer| request::get_media(&server, &name(consumer % set_up.cameras)));
        let drain = Drain::start(sockets.collect::<Result<_, _>>()?)?;
        std::thread::sleep(SETTLE);
        let (cpu, seconds, arrived) = window_of(server.pid(), window, || drain.open_window(), || drain.close_window())?;
        served.add(cpu, seconds, arrived);
        drain.stop()?;

        let other = Peer::start(set_up)?;
        let drain = Drain::start(other.connect(set_up)?)?;
        std::thread::sleep(SETTLE);
        let pid = other.0.id();
        let (cpu, seconds, arrived) = window_of(pid, window, || drain.open_window(), || drain.close_window())?;
        peer.add(cpu, seconds, arrived);
        drain.stop()?;
        drop(other);
    }
    producers.stop()?;
    server.stop()?;
    Ok(report(set_up, &ingest, served, peer))
}

/// CPU seconds of a process in a window, and how long the window was.
fn window_of<T>(
    pid: u32,
    time: Duration,
    open: impl FnOnce(),
    close: impl FnOnce() -> T,
) -> Result<(f64, f64, T), Failure> {
    let before = cpu_seconds(pid)?;
    let start = Instant::now();
    open();
    std::thread::sleep(time);
    let seen = close();
    Ok((cpu_seconds(pid)? - before, start.elapsed().as_secs_f64(), seen))
}

fn report(set_up: SetUp, ingest: &Sum, mut served: Sum, mut peer: Sum) -> bool {
    let SetUp { cameras, consumers } = set_up;
    let (due, peer_due) = (served.due(set_up), peer.due(set_up));
    let (whole, alone) = (served.load(), served.load() - ingest.load());
    let ratio = alone / peer.load();
    let p50 = ms(quantile(&mut served.delays, 0.50));
    let per_frame = |load: f64| load * 1e6 / (FRAMES_PER_SECOND as usize * consumers) as f64;
    println!("{cameras} camera(s) to {consumers} consumers, {:.0} s:", served.seconds);
    println!("   CPU seconds a second   (microseconds a frame and consumer)");
    println!("   server, ingest alone   {:.4}", ingest.load());
    println!("   server, with consumers {whole:.4}");
    println!("   fan-out                {alone:.4}  ({:.1})", per_frame(alone));
    println!(
        "   bare epoll sender      {:.4}  ({:.1})",
        peer.load(),
        per_frame(peer.load())
    );
    println!(
        "   ratio                  {ratio:.2}  (with ingest {:.2})",
        whole / peer.load()
    );
    for (who, sum, due) in [("server", &mut served, due), ("peer", &mut peer, peer_due)] {
        println!(
            "   delay, {who:6}          p50 {:.1} ms, p99 {:.1} ms; {} frames of {due:.0}, {:.0} MB",
            ms(quantile(&mut sum.delays, 0.50)),
            ms(quantile(&mut sum.delays, 0.99)),
            sum.delays.len(),
            sum.bytes as f64 / 1e6,
        );
    }
    let arrived = served.delays.len() as f64 / due >= ARRIVED_MIN && peer.delays.len() as f64 / peer_due >= ARRIVED_MIN;
    [
        verdict(
            "CPU",
            ratio < RATIO_MAX,
            &format!("under {RATIO_MAX} times the bare sender"),
        ),
        verdict(
            "delay",
            p50 < DELAY_P50_MS_MAX,
            &format!("p50 under {DELAY_P50_MS_MAX} ms"),
        ),
        verdict("frames", arrived, "all frames arrive"),
    ]
    .iter()
    .all(|kept| *kept)
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
