//! What fusing the faces of a track brings: films of people who are known, and pictures of the same people from another
//! time. Each film is scaled down in steps and cut into short overlapping windows; each window is a session of its own. The
//! vector of the first face that the tracker embeds, and the one that it has fused at the window's end, are compared with
//! the pictures of the same person and with those of all others.
//!
//! d' is the distance of the two means in standard deviations. The share of windows that match their person at a threshold
//! is given for both kinds of vector, by the width of the face in the film.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads files itself"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::sync::Arc;

use base::metrics::Metrics;
use base::{AccountId, SystemClock};
use bench::Failure;
use bench::film::Film;
use bench::report::{Figure, Report};
use clap::Parser;
use faces::similarity::Scale;
use vision::{Frame, FrameOutcome, ImageOptions, Mode, SessionConfig, VisionConfig, VisionPool};

/// The widths that films are scaled to, as shares of their own.
const SCALES: [f32; 5] = [1.0, 0.5, 0.33, 0.25, 0.17];
/// Frames a second of a scaled film.
const RATE: usize = 15;
/// A window, and from one to the next, in frames.
const WINDOW: usize = 2 * RATE;
const STEP: usize = 5;
/// Where one group of face widths ends and the next begins, in pixels.
const WIDTHS: [f32; 4] = [32.0, 48.0, 72.0, 112.0];
/// The threshold of which the share of matches is given: one false match in 10,000.
const THRESHOLD: f32 = 90.0;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    worker: PathBuf,
    #[arg(long)]
    models: PathBuf,
    /// A picture of a person: NAME=FILE.
    #[arg(long = "picture", required = true)]
    pictures: Vec<Picture>,
    /// A part of a film that shows one person alone: NAME=FILE@START+SECONDS. A person without a picture is a stranger.
    #[arg(long = "film", required = true)]
    films: Vec<Part>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct Picture {
    person: String,
    file: PathBuf,
}

#[derive(Clone)]
struct Part {
    person: String,
    file: PathBuf,
    start: f32,
    seconds: f32,
}

impl FromStr for Picture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (person, file) = text.split_once('=').ok_or("a picture is NAME=FILE")?;
        Ok(Picture {
            person: person.to_owned(),
            file: file.into(),
        })
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a film is NAME=FILE@START+SECONDS".to_owned();
        let (person, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (file, times) = rest.rsplit_once('@').ok_or_else(wrong)?;
        let (start, seconds) = times.split_once('+').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<f32>().map_err(|_| wrong());
        Ok(Part {
            person: person.to_owned(),
            file: file.into(),
            start: number(start)?,
            seconds: number(seconds)?,
        })
    }
}

/// One window of a film.
struct Window {
    person: String,
    width_px: f32,
    first: Vec<f32>,
    fused: Vec<f32>,
}

/// Cosines of vectors with pictures.
#[derive(Default)]
struct Compared {
    genuine: Vec<f32>,
    impostor: Vec<f32>,
}

fn main() -> Result<ExitCode, Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> Result<ExitCode, Failure> {
    let config = VisionConfig::new(&args.worker, &args.models);
    let pool = VisionPool::start(config, &Metrics::new(), Arc::new(SystemClock::new()))?;
    let mut gallery: BTreeMap<&str, Vec<Vec<f32>>> = BTreeMap::new();
    for picture in &args.pictures {
        let image = std::fs::read(&picture.file)?.into();
        let found = pool
            .analyze_image(AccountId::DEFAULT, image, ImageOptions::default())
            .await?;
        let vector = found.faces.into_iter().next().and_then(|face| face.embedding);
        let vector = vector.ok_or_else(|| format!("no face in {}", picture.file.display()))?;
        gallery.entry(&picture.person).or_default().push(vector);
    }
    let folder = tempfile::tempdir()?;
    let mut groups: BTreeMap<usize, Vec<Window>> = BTreeMap::new();
    for (number, part) in args.films.iter().enumerate() {
        for scale in SCALES {
            eprintln!("film {} of {}, at {scale}", number + 1, args.films.len());
            let film = scaled(part, scale, folder.path())?;
            for frames in film.frames.windows(WINDOW.min(film.frames.len()).max(1)).step_by(STEP) {
                if let Some(window) = window(&pool, part, &film, frames).await? {
                    let group = WIDTHS.iter().filter(|width| window.width_px >= **width).count();
                    groups.entry(group).or_default().push(window);
                }
            }
        }
    }
    let mut report = Report::new("fusion", args.json);
    for (group, windows) in &groups {
        add(&mut report, *group, windows, &gallery);
    }
    Ok(report.finish())
}

/// A part of a film in another size, every frame a key frame.
fn scaled(part: &Part, scale: f32, folder: &Path) -> Result<Film, Failure> {
    let path = folder.join("part.mkv");
    let filter = format!("fps={RATE},scale=2*trunc(iw*{scale}/2):2*trunc(ih*{scale}/2)");
    let done = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-nostdin",
            "-y",
            "-ss",
            &part.start.to_string(),
            "-t",
            &part.seconds.to_string(),
            "-i",
        ])
        .arg(&part.file)
        .args([
            "-an", "-vf", &filter, "-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-g", "1", "-bf", "0",
        ])
        .arg(&path)
        .status()?;
    if !done.success() {
        return Err(format!("ffmpeg cannot read {}", part.file.display()).into());
    }
    Film::read(&path)
}

/// The track that is seen most in these frames; `None` without one that was embedded.
async fn window(pool: &VisionPool, part: &Part, film: &Film, frames: &[Frame]) -> Result<Option<Window>, Failure> {
    let mut config = SessionConfig::new(AccountId::DEFAULT, film.codec, film.codec_private.clone());
    config.mode = Mode::CatchUp;
    let (mut sender, mut receiver) = pool.open_session(config)?;
    let frames = frames.to_vec();
    let feeding = tokio::spawn(async move {
        for frame in frames {
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    let mut tracks: BTreeMap<u64, (usize, Window)> = BTreeMap::new();
    while let Some(outcome) = receiver.next().await {
        let FrameOutcome::Analysed { width, faces, .. } = outcome else {
            return Err(format!("a frame of {} was not analysed", part.file.display()).into());
        };
        for face in faces {
            let (Some(track), Some(vector)) = (face.track_id, face.embedding) else {
                continue;
            };
            let width_px = face.bounding_box.width * width as f32;
            let (seen, window) = tracks.entry(track).or_insert_with(|| {
                let window = Window {
                    person: part.person.clone(),
                    width_px: 0.0,
                    first: vector.clone(),
                    fused: Vec::new(),
                };
                (0, window)
            });
            *seen += 1;
            window.width_px += (width_px - window.width_px) / *seen as f32;
            window.fused = vector;
        }
    }
    feeding.await?;
    let longest = tracks.into_values().max_by_key(|(seen, _)| *seen);
    Ok(longest.map(|(_, window)| window))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn compared<'a>(
    windows: &'a [Window],
    gallery: &BTreeMap<&str, Vec<Vec<f32>>>,
    vector: impl Fn(&'a Window) -> &'a [f32],
) -> Compared {
    let mut all = Compared::default();
    for window in windows {
        for (person, pictures) in gallery {
            let cosines = pictures.iter().map(|picture| cosine(picture, vector(window)));
            if *person == window.person {
                all.genuine.extend(cosines);
            } else {
                all.impostor.extend(cosines);
            }
        }
    }
    all
}

fn mean_and_deviation(values: &[f32]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

impl Compared {
    fn d_prime(&self) -> f64 {
        let ((genuine, spread), (impostor, other)) =
            (mean_and_deviation(&self.genuine), mean_and_deviation(&self.impostor));
        (genuine - impostor) / ((spread.powi(2) + other.powi(2)) / 2.0).sqrt()
    }

    /// Genuine pairs that match, of all.
    fn found(&self) -> f64 {
        let least = Scale::default().cosine(THRESHOLD);
        let found = self.genuine.iter().filter(|cosine| **cosine >= least).count();
        found as f64 / self.genuine.len().max(1) as f64
    }
}

fn add(report: &mut Report, group: usize, windows: &[Window], gallery: &BTreeMap<&str, Vec<Vec<f32>>>) {
    let from = group
        .checked_sub(1)
        .and_then(|before| WIDTHS.get(before))
        .copied()
        .unwrap_or(0.0);
    let name = match WIDTHS.get(group) {
        Some(to) => format!("faces of {from} to {to} px"),
        None => format!("faces of {from} px and more"),
    };
    let first = compared(windows, gallery, |window| &window.first);
    let fused = compared(windows, gallery, |window| &window.fused);
    report.add(
        Figure::new(format!("{name}, d' of a track's vector"), fused.d_prime(), "")
            .beside("of its first face", first.d_prime())
            .beside("windows", windows.len() as f64)
            .beside("impostor pairs", fused.impostor.len() as f64),
    );
    let (after, before) = (
        mean_and_deviation(&fused.genuine).0,
        mean_and_deviation(&first.genuine).0,
    );
    report.add(
        Figure::new(
            format!("{name}, genuine pairs at {THRESHOLD}"),
            100.0 * fused.found(),
            "%",
        )
        .beside("of its first face", 100.0 * first.found())
        .beside("mean cosine", after)
        .beside("of its first face ", before)
        .beside("pairs", fused.genuine.len() as f64),
    );
}
