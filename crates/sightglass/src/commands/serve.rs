//! `sightglass serve`: runs the server until SIGTERM or SIGINT, then drains and exits 0.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::cli::ServeArgs;
use crate::config::Config;
use crate::{compose, logging};

/// A note in the data directory for `sightglass env`: where the server was last reached.
pub const ENDPOINT_FILE: &str = "endpoint";

/// Runs the server.
pub fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let config = Config::load(args)?;
    logging::start(config.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(&config))
}

async fn serve(config: &Config) -> Result<ExitCode, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let composition = compose::start(config).await?;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", reachable(composition.local_addr()));
    note_endpoint(&config.data_dir, &url)?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "sightglass ready {url}")?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    composition.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// An address that a client on this machine can use: the unspecified one stands for loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a note beside the data, of no value after the server ended"
)]
fn note_endpoint(data_dir: &Path, url: &str) -> Result<(), Failure> {
    let path = data_dir.join(ENDPOINT_FILE);
    std::fs::write(&path, format!("{url}\n")).map_err(|e| format!("{}: {e}", path.display()).into())
}
