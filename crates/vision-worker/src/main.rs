//! `vision-worker [--background] MODELS [EMBEDDER | --measure] [--attributes] [--labels]` or `vision-worker [--background]
//! --film`: see the library's head. Not for people: `sightglass` starts it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use vision::Abilities;
use vision::candidate::MEASURE;
use vision::manifest::Manifest;
use vision::protocol::{FromWorker, VERSION};
use vision_worker::analyse::Analyser;
use vision_worker::attributes::Attributes;
use vision_worker::engine::Engine;
use vision_worker::labels::Labels;
use vision_worker::serve::serve;
use vision_worker::{MEMORY_MAX, codec, film};

fn main() {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|argument| argument == "--background").is_some() {
        yield_to_others();
    }
    let Some(what) = arguments.next() else {
        eprintln!("vision-worker: it is started by sightglass, with a folder of models");
        lockdown::exit(2);
    };
    let embedder = arguments.next().and_then(|id| id.into_string().ok());
    let further: Vec<_> = arguments.collect();
    let asked = |option: &str| further.iter().any(|argument| argument == option);
    let abilities = Abilities {
        attributes: asked("--attributes"),
        labels: asked("--labels"),
    };
    let worked = match what == "--film" {
        true => take_films_apart(),
        false => work(Path::new(&what), embedder.as_deref(), abilities),
    };
    match worked {
        Ok(()) => lockdown::exit(0),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "vision-worker: {error}");
            lockdown::exit(1);
        }
    }
}

fn work(models: &Path, embedder: Option<&str>, abilities: Abilities) -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, mut output) = streams()?;
    let models = models.canonicalize()?;
    codec::silence();
    let files = lockdown::restrict_files(&[models.as_path()])?;
    let manifest = match embedder {
        Some(MEASURE) => Manifest::read_candidate(&models, None)?,
        chosen => Manifest::read(&models, chosen)?,
    };
    let engine = Engine::load(&models, &manifest)?;
    let attributes = match manifest.attributes.as_ref().filter(|_| abilities.attributes) {
        Some(files) => Some(Attributes::load(&engine, &models, files)?),
        None => None,
    };
    let labels = match manifest.labels.as_ref().filter(|_| abilities.labels) {
        Some(model) => Some(Labels::load(&engine, &models.join(&model.file))?),
        None => None,
    };
    let mut analyser = Analyser::new(engine, attributes, labels);
    let rest = lockdown::close(MEMORY_MAX)?;
    say_ready(&mut output, analyser.embedding_len() as u32, format!("{files}, {rest}"))?;
    serve(&mut input, &mut output, &mut analyser)?;
    Ok(())
}

fn take_films_apart() -> Result<(), Box<dyn std::error::Error>> {
    let (mut input, mut output) = streams()?;
    codec::silence();
    let files = lockdown::restrict_files(&[])?;
    let rest = lockdown::close(MEMORY_MAX)?;
    say_ready(&mut output, 0, format!("{files}, {rest}"))?;
    film::serve(&mut input, &mut output)?;
    Ok(())
}

fn say_ready(output: &mut File, embedding_len: u32, lockdown: String) -> std::io::Result<()> {
    let mut ready = Vec::new();
    FromWorker::Ready {
        version: VERSION,
        embedding_len,
        lockdown,
    }
    .encode(&mut ready);
    output.write_all(&ready)
}

/// Live cameras get most of a busy processor, recordings the rest: some tenth of a core's time beside one busy process.
/// Nothing would be left for them at the lowest priority of all, so that a job would never end on a busy machine.
#[allow(unsafe_code)]
fn yield_to_others() {
    // SAFETY: a call without pointers. Where it fails, the process is as important as the others.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// Copies of standard input and output without buffers.
fn streams() -> std::io::Result<(File, File)> {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    let input: OwnedFd = own(std::io::stdin().as_fd())?;
    let output: OwnedFd = own(std::io::stdout().as_fd())?;
    Ok((File::from(input), File::from(output)))
}
