//! SearchFaces over a large collection: vectors of 128 numbers of synthetic people, ten pictures each. The pictures of one
//! person have cosines of 0.4 to 0.8 to each other, those of two people of 0.0 with a deviation of 0.09, as SFace's have on
//! photographs. A third of the probes are new pictures of people in the collection, which are in no index; they go through
//! the library. The others are faces of the collection, by SearchFaces over HTTP, one after the other on one connection.
//!
//! Recall is the share of searches whose best match is the one that the peer finds: numpy, which compares every vector, in a
//! Python program (`search_peer.py`) after the server has ended. Beside it stand both sides' times, how long the server needs
//! to start, and its memory. The collection is made by the library, in the file that the server then opens.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::{AccountId, ResourceName, SystemClock};
use bench::Failure;
use bench::measure::{memory_bytes, mib, ms, quantile};
use bench::report::{Figure, Promise, Report};
use bench::server::{REGION, Server};
use clap::Parser;
use client::Service;
use faces::{FaceId, FaceStore, ImageDigest, ModelVersion, NewFace, Rect};
use serde::Deserialize;
use serde_json::json;

/// What issue and documentation promise for a million faces on two cores.
const P99_MAX_MS: f64 = 5.0;
const RECALL_MIN: f64 = 0.999;

const DIMENSIONS: usize = 128;
const PICTURES: usize = 10;
const PEOPLE_PER_IMAGE: usize = 10;
const MODEL: &str = "synthetic";
const COLLECTION: &str = "bench";
const THRESHOLD: f32 = 80.0;
const MATCHES: usize = 10;
/// How often a long step says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, default_value = "target/release/sightglass")]
    sightglass: PathBuf,
    /// Folder for the data directory, which is removed again.
    #[arg(long, default_value = "target")]
    folder: PathBuf,
    /// Synthetic people; ten faces each.
    #[arg(long, default_value_t = 100_000)]
    people: usize,
    /// Searches of each kind.
    #[arg(long, default_value_t = 2000)]
    searches: usize,
    /// Searches of each kind that are compared with the peer's.
    #[arg(long, default_value_t = 1000)]
    compared: usize,
    /// The Python that has numpy.
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&args))
}

fn collection() -> Result<ResourceName, Failure> {
    Ok(ResourceName {
        account: AccountId::DEFAULT,
        region: REGION.parse()?,
        name: COLLECTION.to_owned(),
    })
}

/// A number of the normal distribution.
fn normal(rng: &mut fastrand::Rng) -> f32 {
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

fn unit(vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / norm).collect()
}

fn person(number: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(number as u64);
    unit((0..DIMENSIONS).map(|_| normal(&mut rng)).collect())
}

/// A picture of a person. Two have a cosine of the product of their likenesses.
fn picture(person: &[f32], rng: &mut fastrand::Rng) -> Vec<f32> {
    let noise = unit((0..DIMENSIONS).map(|_| normal(rng)).collect());
    let across: f32 = noise.iter().zip(person).map(|(x, y)| x * y).sum();
    let rest = unit(noise.iter().zip(person).map(|(x, y)| x - across * y).collect());
    let likeness = (0.4 + 0.4 * rng.f32()).sqrt();
    let far = (1.0 - likeness * likeness).sqrt();
    let mixed = person.iter().zip(&rest).map(|(x, y)| likeness * x + far * y);
    mixed.collect()
}

fn face(place: usize, vector: Vec<f32>) -> NewFace {
    NewFace {
        rect: Rect {
            left: place as f32 / 1000.0,
            width: 0.1,
            height: 0.1,
            ..Rect::default()
        },
        confidence: 99.0,
        vector,
    }
}

fn open(data: &Path) -> Result<FaceStore, Failure> {
    Ok(FaceStore::open(&data.join("faces.db"), Arc::new(SystemClock::new()))?)
}

/// A face of the collection that is searched for by its id.
struct Known {
    face: FaceId,
    /// Where its vector is among all.
    place: usize,
    vector: Vec<f32>,
}

/// What the collection was filled with.
struct Filled {
    /// Of every vector, in the order of the file for the peer.
    faces: Vec<FaceId>,
    known: Vec<Known>,
}

/// Fills the collection, and the peer's file.
async fn fill(args: &Args, folder: &Path, report: &Report) -> Result<Filled, Failure> {
    let store = open(&folder.join("data"))?;
    let model = ModelVersion {
        id: MODEL.to_owned(),
        dimensions: DIMENSIONS,
    };
    store.create_collection(collection()?, model).await?;
    let mut file = BufWriter::new(std::fs::File::create(folder.join(VECTORS))?);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut filled = Filled {
        faces: Vec::with_capacity(args.people * PICTURES),
        known: Vec::new(),
    };
    let (every, began) = ((args.people / args.searches).max(1), Instant::now());
    let mut said = began;
    for first in (0..args.people).step_by(PEOPLE_PER_IMAGE) {
        let people = (first..args.people.min(first + PEOPLE_PER_IMAGE)).map(person);
        let vectors: Vec<Vec<f32>> = people
            .flat_map(|person| std::iter::repeat_n(person, PICTURES))
            .map(|person| picture(&person, &mut rng))
            .collect();
        let new = vectors.iter().enumerate();
        let new = new.map(|(place, vector)| face(place, vector.clone())).collect();
        let image = ImageDigest::of(&first.to_le_bytes());
        let added = store
            .index_faces(collection()?, MODEL.to_owned(), image, None, new)
            .await?;
        for (number, (added, vector)) in added.iter().zip(vectors).enumerate() {
            put(&mut file, &vector)?;
            let (face, place) = (added.record.face_id, filled.faces.len());
            filled.faces.push(face);
            if number % PICTURES == 0 && (first + number / PICTURES).is_multiple_of(every) {
                filled.known.push(Known { face, place, vector });
            }
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            eprintln!("{} of {} faces written", filled.faces.len(), args.people * PICTURES);
        }
    }
    file.flush()?;
    report.say(&format!(
        "{} faces written in {:.0} s",
        args.people * PICTURES,
        began.elapsed().as_secs_f64()
    ));
    filled.known.truncate(args.searches);
    Ok(filled)
}

/// The peer's files, beside the data directory.
const VECTORS: &str = "vectors.f32";
const PROBES: &str = "probes.f32";

fn put(file: &mut impl Write, vector: &[f32]) -> Result<(), Failure> {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(file.write_all(&bytes)?)
}

/// New pictures of people in the collection.
fn unseen_probes(args: &Args) -> Vec<Vec<f32>> {
    let mut rng = fastrand::Rng::with_seed(99);
    let probe = |_| picture(&person(rng.usize(..args.people)), &mut rng);
    (0..args.searches).map(probe).collect()
}

/// What the peer says.
#[derive(Deserialize)]
struct Exact {
    p50_ms: f64,
    p99_ms: f64,
    memory_mib: f64,
    best: Vec<Vec<usize>>,
}

/// Has numpy compare these probes with every vector.
fn exact<'a>(args: &Args, folder: &Path, probes: impl Iterator<Item = &'a [f32]>) -> Result<Exact, Failure> {
    let mut file = BufWriter::new(std::fs::File::create(folder.join(PROBES))?);
    for probe in probes {
        put(&mut file, probe)?;
    }
    file.flush()?;
    drop(file);
    let said = Command::new(&args.python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("search_peer.py"))
        .args([folder.join(VECTORS), folder.join(PROBES)])
        .arg(DIMENSIONS.to_string())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}", args.python.display()))?;
    if !said.status.success() {
        return Err("the peer failed; it needs the packages of bench/requirements.txt".into());
    }
    Ok(serde_json::from_slice(&said.stdout)?)
}

/// New pictures of people in the collection, through the library. Gives the best matches.
fn unseen(store: &FaceStore, probes: &[Vec<f32>], report: &mut Report) -> Result<Vec<Option<FaceId>>, Failure> {
    let key = collection()?;
    let (mut times, mut found) = (Vec::new(), Vec::new());
    for probe in probes {
        let began = Instant::now();
        let matches = store.search(&key, MODEL, probe, THRESHOLD, MATCHES)?;
        times.push(began.elapsed());
        found.push(matches.first().map(|found| found.face.face_id));
    }
    report.add(
        Figure::new("a search in the library, p50", ms(quantile(&mut times, 0.5)), "ms")
            .beside("p99 ms", ms(quantile(&mut times, 0.99))),
    );
    Ok(found)
}

/// How often the best match is the one that comparing every vector finds.
fn recall(what: &str, pairs: impl Iterator<Item = (Option<String>, Option<FaceId>)>) -> Figure {
    let (mut hits, mut compared) = (0u32, 0u32);
    for (found, wanted) in pairs {
        hits += u32::from(found == wanted.map(|face| face.to_string()));
        compared += 1;
    }
    Figure::new(what, f64::from(hits) / f64::from(compared.max(1)), "")
        .promised(Promise::AtLeast(RECALL_MIN))
        .beside("searches", f64::from(compared))
}

/// Searches while another task deletes a face and adds another as fast as the file takes them; `spare` goes first, since the
/// collection is as full as it may be.
async fn while_changing(
    args: &Args,
    store: &Arc<FaceStore>,
    mut spare: FaceId,
    report: &mut Report,
) -> Result<(), Failure> {
    let (done, added) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let adding = {
        let (store, done, added, key) = (store.clone(), done.clone(), added.clone(), collection()?);
        tokio::spawn(async move {
            let mut rng = fastrand::Rng::with_seed(7);
            while !done.load(Ordering::Relaxed) {
                let number = added.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = store.delete_faces(key.clone(), vec![spare]).await {
                    return Some(error);
                }
                let new = vec![face(0, picture(&person(1 << 40 | number), &mut rng))];
                let image = ImageDigest::of(format!("added {number}").as_bytes());
                let made = store.index_faces(key.clone(), MODEL.to_owned(), image, None, new).await;
                match made {
                    Ok(made) => spare = made.first().map_or(spare, |made| made.record.face_id),
                    Err(error) => return Some(error),
                }
            }
            None
        })
    };
    let searching = {
        let (store, key, people, searches) = (store.clone(), collection()?, args.people, args.searches);
        tokio::task::spawn_blocking(move || {
            let mut rng = fastrand::Rng::with_seed(11);
            let mut times = Vec::new();
            for _ in 0..searches {
                let probe = picture(&person(rng.usize(..people)), &mut rng);
                let began = Instant::now();
                store.search(&key, MODEL, &probe, THRESHOLD, MATCHES)?;
                times.push(began.elapsed());
            }
            Ok::<_, faces::FacesError>(times)
        })
    };
    let mut times: Vec<Duration> = searching.await??;
    done.store(true, Ordering::Relaxed);
    if let Some(error) = adding.await? {
        return Err(error.into());
    }
    report.add(
        Figure::new(
            "the same while faces are deleted and added, p50",
            ms(quantile(&mut times, 0.5)),
            "ms",
        )
        .beside("p99 ms", ms(quantile(&mut times, 0.99)))
        .beside("changed", added.load(Ordering::Relaxed) as f64),
    );
    Ok(())
}

/// Faces of the collection, over HTTP; their best matches are given.
async fn over_http(
    args: &Args,
    folder: &Path,
    known: &[Known],
    report: &mut Report,
) -> Result<Vec<Option<String>>, Failure> {
    let began = Instant::now();
    let server = Server::start(&args.sightglass, &folder.join("data"), &folder.join("server.log"))?;
    let started = began.elapsed();
    let client = server.client()?;
    let mut found = Vec::new();
    let mut times = Vec::new();
    for round in 0..2 {
        // The first round warms caches and the connection up.
        let faces = if round == 0 {
            known.get(..known.len() / 10).unwrap_or_default()
        } else {
            known
        };
        found.clear();
        times.clear();
        for Known { face, .. } in faces {
            let input = json!({ "CollectionId": COLLECTION, "FaceId": face.to_string(), "FaceMatchThreshold": THRESHOLD,
                "MaxFaces": MATCHES });
            let began = Instant::now();
            let answer = client.call(Service::Rekognition, "SearchFaces", &input).await?;
            times.push(began.elapsed());
            found.push(answer["FaceMatches"][0]["Face"]["FaceId"].as_str().map(str::to_owned));
        }
    }
    report.add(
        Figure::new("SearchFaces over HTTP, p99", ms(quantile(&mut times, 0.99)), "ms")
            .promised(Promise::AtMost(P99_MAX_MS))
            .beside("p50 ms", ms(quantile(&mut times, 0.5)))
            .beside("searches", times.len() as f64),
    );
    report.add(Figure::new("the server's start", started.as_secs_f64(), "s"));
    let memory = memory_bytes(server.pid(), "VmRSS")?;
    let vectors = (args.people * PICTURES * DIMENSIONS * 4) as u64;
    report.add(Figure::new("the server's memory", mib(memory), "MiB").beside("vectors alone MiB", mib(vectors)));
    server.stop()?;
    Ok(found)
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut report = Report::new("search", args.json);
    let folder = tempfile::Builder::new().prefix("search-").tempdir_in(&args.folder)?;
    let (data, log) = (&folder.path().join("data"), folder.path().join("server.log"));
    // A directory that a server has made its own; the collection is put into it.
    Server::start(&args.sightglass, data, &log)?.stop()?;
    let Filled { faces, known } = fill(args, folder.path(), &report).await?;
    let by_id = over_http(args, folder.path(), &known, &mut report).await?;
    let began = Instant::now();
    let store = Arc::new(open(data)?);
    report.say(&format!(
        "opened by the library in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    let probes = unseen_probes(args);
    let by_picture = unseen(&store, &probes, &mut report)?;
    let spare = *faces.last().ok_or("no faces")?;
    while_changing(args, &store, spare, &mut report).await?;
    drop(store);
    // The peer has the machine to itself, and the memory.
    let known = known.get(..args.compared.min(known.len())).unwrap_or_default();
    let probes = probes.get(..args.compared.min(probes.len())).unwrap_or_default();
    let all = known
        .iter()
        .map(|known| &known.vector[..])
        .chain(probes.iter().map(|probe| &probe[..]));
    let peer = exact(args, folder.path(), all)?;
    report.add(
        Figure::new("the peer, numpy over every vector, p50", peer.p50_ms, "ms")
            .beside("p99 ms", peer.p99_ms)
            .beside("memory MiB", peer.memory_mib),
    );
    // A face that is searched for by its id is not its own match.
    let other = |(known, best): (&Known, &Vec<usize>)| {
        let place = best.iter().find(|place| **place != known.place);
        place.and_then(|place| faces.get(*place).copied())
    };
    let wanted = known.iter().zip(&peer.best).map(other);
    report.add(recall("recall@1 over HTTP", by_id.into_iter().zip(wanted)));
    let best = peer
        .best
        .iter()
        .skip(known.len())
        .map(|best| best.first().and_then(|place| faces.get(*place).copied()));
    let by_picture = by_picture.into_iter().map(|face| face.map(|face| face.to_string()));
    report.add(recall("recall@1, pictures in no index", by_picture.zip(best)));
    Ok(report.finish())
}
