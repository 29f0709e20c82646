//! `sql-worker`: see the library's head. Not for people: `sightglass` starts it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use sql::protocol::{FromWorker, VERSION};
use sql_worker::MEMORY_MAX;
use sql_worker::serve::serve;

fn main() {
    match work() {
        Ok(()) => lockdown::exit(0),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sql-worker: {error}");
            lockdown::exit(1);
        }
    }
}

fn work() -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, output) = streams()?;
    let files = lockdown::restrict_files(&[])?;
    let rest = lockdown::close(MEMORY_MAX)?;
    let mut ready = Vec::new();
    FromWorker::Ready {
        version: VERSION,
        lockdown: format!("{files}, {rest}"),
    }
    .encode(&mut ready);
    (&output).write_all(&ready)?;
    serve(&mut input, output)?;
    Ok(())
}

/// Copies of standard input and output without buffers.
fn streams() -> std::io::Result<(File, File)> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let input: OwnedFd = own(std::io::stdin().as_fd())?;
    let output: OwnedFd = own(std::io::stdout().as_fd())?;
    Ok((File::from(input), File::from(output)))
}
