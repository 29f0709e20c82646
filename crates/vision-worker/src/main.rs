//! `vision-worker MODELS [EMBEDDER | --measure]`: see the library's head. Not for people: `sightglass` starts it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use vision::candidate::MEASURE;
use vision::manifest::Manifest;
use vision::protocol::{FromWorker, VERSION};
use vision_worker::analyse::Analyser;
use vision_worker::engine::Engine;
use vision_worker::serve::serve;
use vision_worker::{MEMORY_MAX, codec};

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(models) = arguments.next() else {
        eprintln!("vision-worker: it is started by sightglass, with a folder of models");
        lockdown::exit(2);
    };
    let embedder = arguments.next().and_then(|id| id.into_string().ok());
    match work(Path::new(&models), embedder.as_deref()) {
        Ok(()) => lockdown::exit(0),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "vision-worker: {error}");
            lockdown::exit(1);
        }
    }
}

fn work(models: &Path, embedder: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, mut output) = streams()?;
    let models = models.canonicalize()?;
    codec::silence();
    let files = lockdown::restrict_files(&[models.as_path()])?;
    let manifest = match embedder {
        Some(MEASURE) => Manifest::read_candidate(&models, None)?,
        chosen => Manifest::read(&models, chosen)?,
    };
    let mut analyser = Analyser::new(Engine::load(&models, &manifest)?);
    let rest = lockdown::close(MEMORY_MAX)?;
    let mut ready = Vec::new();
    FromWorker::Ready {
        version: VERSION,
        embedding_len: analyser.embedding_len() as u32,
        lockdown: format!("{files}, {rest}"),
    }
    .encode(&mut ready);
    output.write_all(&ready)?;
    serve(&mut input, &mut output, &mut analyser)?;
    Ok(())
}

/// Copies of standard input and output without buffers.
fn streams() -> std::io::Result<(File, File)> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let input: OwnedFd = own(std::io::stdin().as_fd())?;
    let output: OwnedFd = own(std::io::stdout().as_fd())?;
    Ok((File::from(input), File::from(output)))
}
