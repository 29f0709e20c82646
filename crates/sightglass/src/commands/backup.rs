//! `sightglass backup` and `restore`: both read and write files alone; a running server is not asked and not stopped.

use std::process::ExitCode;
use std::sync::Arc;

use base::{Clock, SystemClock};
use storage::backup::{self, Manifest};

use super::Failure;
use crate::cli::{BackupArgs, RestoreArgs};

/// Runs `backup`.
pub fn back_up(args: &BackupArgs) -> Result<ExitCode, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let manifest = backup::backup(&args.data.data_dir, &args.target, &clock)?;
    let done = format!(
        "{} is backed up to {}",
        args.data.data_dir.display(),
        args.target.display()
    );
    show(&manifest, args.json, &done)
}

/// Runs `restore`.
pub fn restore(args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let manifest = backup::restore(&args.source, &args.data.data_dir)?;
    let done = format!(
        "{} is restored to {}",
        args.source.display(),
        args.data.data_dir.display()
    );
    show(&manifest, args.json, &done)
}

fn show(manifest: &Manifest, as_json: bool, done: &str) -> Result<ExitCode, Failure> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(manifest)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{done}: {} files, {} bytes", manifest.files.len(), manifest.bytes());
    if !manifest.damaged.is_empty() {
        println!(
            "{} stretches of the log are damaged in the original too; see backup.json",
            manifest.damaged.len()
        );
    }
    Ok(ExitCode::SUCCESS)
}
