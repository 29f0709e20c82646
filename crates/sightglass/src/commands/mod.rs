//! The commands, a file each. `run` sends the command line to its file.

mod archive;
mod backup;
mod clip;
mod connect;
mod env;
mod faces;
mod firehose;
mod fsck;
mod get;
mod keys;
mod models;
mod paint;
mod play;
mod progress;
mod put;
mod records;
mod serve;
mod tail;
mod times;

use std::process::ExitCode;

use auth::Credentials;
use storage::datadir::DataDir;

use crate::cli::Command;

/// Why a command failed, for the person at the terminal.
pub type Failure = Box<dyn std::error::Error>;

/// Runs one command to its end.
pub fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Env(args) => env::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Faces(args) => faces::run(&args),
        Command::Put(args) => put::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Clip(args) => clip::run(&args),
        Command::Archive(args) => archive::run(&args),
        Command::Play(args) => play::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Records(args) => records::run(&args),
        Command::Firehose(args) => firehose::run(&args),
        Command::Backup(args) => backup::back_up(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Fsck(args) => fsck::run(&args),
    }
}

/// The root key that the server of this data directory uses.
fn root_key(data: &DataDir) -> Result<Credentials, Failure> {
    let key = match crate::root_key::from_environment()? {
        Some(given) => Some(given),
        None => data.stored_root_key()?,
    };
    let none = || {
        format!(
            "{} holds no root key; `sightglass serve` makes one at its first start",
            data.path().display()
        )
    };
    Ok(key.ok_or_else(none)?)
}

/// A runtime for commands that move many bytes: what is read and what is written keep a core each.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// A runtime for commands that wait for little.
fn small_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
