//! IndexFaces over HTTP, images a second and core, beside a Python program with the same two models that keeps nothing
//! (`index_peer.py`). Images are sent two at a time, so that the worker never waits; each is enrolled once, durably.
//!
//! Images a second are counted over the CPU seconds of a side: the server's and its workers' here, the loop's there. The
//! peer's are given twice: as such programs are usually written, and doing what IndexFaces does with each face.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and files itself"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bench::Failure;
use bench::measure::{children, cpu_seconds};
use bench::report::{Figure, Report};
use bench::server::Server;
use clap::Parser;
use client::{Client, Service};
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;

/// The worker's own threshold (`vision-worker`, `detect::SCORE_MIN`).
const SCORE_MIN: &str = "0.7";
const COLLECTION: &str = "bench";
/// Images that are sent before the clock starts, so that the worker has loaded its models.
const WARM_UP: usize = 3;
const AT_ONCE: usize = 2;
const PROGRESS: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    #[arg(long)]
    sightglass: PathBuf,
    #[arg(long)]
    worker: PathBuf,
    #[arg(long)]
    models: PathBuf,
    /// The Python that has the packages of bench/requirements.txt.
    #[arg(long)]
    python: PathBuf,
    /// A folder of JPEG or PNG images.
    #[arg(long)]
    images: PathBuf,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What one side did.
#[derive(Deserialize)]
struct Run {
    cpu_s: f64,
    wall_s: f64,
    faces: usize,
}

#[derive(Deserialize)]
struct Peer {
    plain: Run,
    alike: Run,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&args.images)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    paths.sort();
    let mut report = Report::new("index", args.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let own = runtime.block_on(ours(&args, &paths))?;
    let peer = theirs(&args, &paths)?;
    let per_second = |run: &Run| paths.len() as f64 / run.cpu_s;
    let figure = |what: &str, run: &Run| {
        Figure::new(what, per_second(run), "/s")
            .beside("per wall second", paths.len() as f64 / run.wall_s)
            .beside("images", paths.len() as f64)
            .beside("faces", run.faces as f64)
    };
    report.add(figure("IndexFaces, images per CPU second", &own));
    report.add(figure("the peer, doing the same with each face", &peer.alike));
    report.add(figure("the peer, one look and one run of the embedder", &peer.plain));
    let ratio = |peer: &Run| per_second(&own) / per_second(peer);
    report.add(Figure::new(
        "ratio to the peer that does the same",
        ratio(&peer.alike),
        "",
    ));
    report.add(Figure::new("ratio to the plain peer", ratio(&peer.plain), ""));
    Ok(report.finish())
}

async fn ours(args: &Args, paths: &[PathBuf]) -> Result<Run, Failure> {
    let folder = tempfile::Builder::new().prefix("index-").tempdir_in("target")?;
    let config = folder.path().join("config.toml");
    let quoted = |path: &Path| -> Result<String, Failure> { Ok(json!(std::path::absolute(path)?).to_string()) };
    let text = format!(
        "[vision]\nmodels = {}\nworker = {}\n",
        quoted(&args.models)?,
        quoted(&args.worker)?
    );
    std::fs::write(&config, text)?;
    let data = folder.path().join("data");
    let server = Server::start_configured(&args.sightglass, &data, &folder.path().join("log"), &config)?;
    let client = server.client()?;
    client
        .call(
            Service::Rekognition,
            "CreateCollection",
            &json!({ "CollectionId": COLLECTION }),
        )
        .await?;
    index(&client, paths.get(..WARM_UP).unwrap_or(paths)).await?;
    let used = || -> Result<f64, Failure> {
        let mut seconds = cpu_seconds(server.pid())?;
        for worker in children(server.pid())? {
            seconds += cpu_seconds(worker)?;
        }
        Ok(seconds)
    };
    // The first ones are there already: a new collection, in which every image is new.
    client
        .call(
            Service::Rekognition,
            "DeleteCollection",
            &json!({ "CollectionId": COLLECTION }),
        )
        .await?;
    client
        .call(
            Service::Rekognition,
            "CreateCollection",
            &json!({ "CollectionId": COLLECTION }),
        )
        .await?;
    let (began, before) = (Instant::now(), used()?);
    let faces = index(&client, paths).await?;
    let run = Run {
        cpu_s: used()? - before,
        wall_s: began.elapsed().as_secs_f64(),
        faces,
    };
    server.stop()?;
    Ok(run)
}

/// Enrols the images; gives the number of faces.
async fn index(client: &Client, paths: &[PathBuf]) -> Result<usize, Failure> {
    let (mut faces, mut done, mut said) = (0, 0, Instant::now());
    let calls = futures_util::stream::iter(paths).map(|path| async move {
        let image = STANDARD.encode(std::fs::read(path)?);
        let input = json!({ "CollectionId": COLLECTION, "Image": { "Bytes": image }, "QualityFilter": "NONE" });
        let answer = client.call(Service::Rekognition, "IndexFaces", &input).await?;
        Ok::<usize, Failure>(answer["FaceRecords"].as_array().map_or(0, Vec::len))
    });
    let mut answers = std::pin::pin!(calls.buffer_unordered(AT_ONCE));
    while let Some(found) = answers.try_next().await? {
        faces += found;
        done += 1;
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!("{done} of {} images enrolled", paths.len());
        }
    }
    Ok(faces)
}

fn theirs(args: &Args, paths: &[PathBuf]) -> Result<Peer, Failure> {
    let said = Command::new(&args.python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("index_peer.py"))
        .arg(&args.models)
        .arg(SCORE_MIN)
        .args(paths)
        .stderr(Stdio::inherit())
        .output()?;
    if !said.status.success() {
        return Err("the peer failed; it needs the packages of bench/requirements.txt".into());
    }
    Ok(serde_json::from_slice(&said.stdout)?)
}
