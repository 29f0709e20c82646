//! The log on stderr: text or JSON, colours only on a terminal and never with NO_COLOR.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Without `RUST_LOG`. What `s3s` says of requests that were refused stands in the access log.
const DEFAULT: &str = "info,s3s=off";

/// Starts logging. `RUST_LOG` chooses what is shown; `info` without it.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match format {
        LogFormat::Text => builder.with_ansi(colours).init(),
        LogFormat::Json => builder.json().init(),
    }
}
