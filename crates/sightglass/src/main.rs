//! The sightglass program: the command line, the configuration, and the composition of the rooms. It holds no logic of
//! any service.

mod archives;
mod bucket_images;
mod buckets;
mod cli;
mod columns;
mod commands;
mod compose;
mod config;
mod logging;
mod own;
mod root_key;
mod sight;
mod sts;
mod topics;
mod webhook;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("sightglass: {failure}");
            let mut cause = failure.source();
            while let Some(inner) = cause {
                eprintln!("  because: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}
