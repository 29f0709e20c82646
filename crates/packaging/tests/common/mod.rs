#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::type_complexity,
    clippy::disallowed_methods
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::{Bytes, BytesMut};
use matroska::{Event, Limits, Reader, Track, TrackKind, lacing};
use packaging::fmp4::TrackSamples;
use packaging::frame::{AdtsHead, put_annex_b_as_lengths};
use packaging::{Frame, Framing, Sample, TrackConfig, timeline};

/// One track of a fragment.
pub struct Part {
    pub config: TrackConfig,
    pub samples: Vec<Sample>,
}

/// A cluster as the server would load it.
pub struct Fragment {
    pub timecode: i64,
    pub payload: Bytes,
    pub parts: Vec<Part>,
}

impl Fragment {
    pub fn tracks(&self) -> Vec<TrackSamples<'_>> {
        let parts = self.parts.iter();
        parts
            .map(|part| TrackSamples {
                config: &part.config,
                samples: &part.samples,
            })
            .collect()
    }

    pub fn span(&self) -> std::ops::Range<usize> {
        let all = || self.parts.iter().flat_map(|part| &part.samples);
        let start = all().map(|sample| sample.data.start).min().unwrap_or(0);
        start..all().map(|sample| sample.data.end).max().unwrap_or(0)
    }
}

/// Cuts a Matroska file into its clusters. A frame of Annex B or with an ADTS head is converted.
pub fn fragments(file: &Bytes) -> Vec<Fragment> {
    fragments_with(file, |_| {})
}

/// The same after `change` was applied to each track's declaration.
pub fn fragments_with(file: &Bytes, change: impl Fn(&mut Track)) -> Vec<Fragment> {
    let mut reader = Reader::new(Limits::default());
    reader.push(file.clone());
    reader.finish();
    let (mut tracks, mut made) = (Vec::new(), Vec::new());
    let mut open: Option<(i64, BytesMut, Vec<(u64, Frame)>)> = None;
    while let Some(event) = reader.next().unwrap() {
        match event {
            Event::Tracks(declared) => {
                tracks = declared.to_vec();
                tracks.iter_mut().for_each(&change);
            }
            Event::ClusterStart { .. } => {
                made.extend(open.take().map(|open| load(&tracks, open)));
                open = Some((0, BytesMut::new(), Vec::new()));
            }
            Event::ClusterTimecode(time) => open.as_mut().unwrap().0 = i64::try_from(time).unwrap(),
            Event::Data(bytes) => {
                if let Some((_, payload, _)) = &mut open {
                    payload.extend_from_slice(&bytes);
                }
            }
            Event::BlockEnd(block) => {
                let (_, payload, frames) = open.as_mut().unwrap();
                let start = block.payload_offset as usize;
                let laced = &payload[start..start + block.payload_len as usize];
                for data in lacing::frames(laced, block.lacing).unwrap() {
                    let data = start + data.start..start + data.end;
                    frames.push((
                        block.track,
                        Frame {
                            data,
                            time_ms: i64::from(block.relative_time),
                            key: block.key,
                        },
                    ));
                }
            }
            _ => {}
        }
    }
    made.extend(open.take().map(|open| load(&tracks, open)));
    made
}

fn load(tracks: &[Track], (timecode, payload, all): (i64, BytesMut, Vec<(u64, Frame)>)) -> Fragment {
    let mut payload = payload;
    let mut parts = Vec::new();
    for track in tracks
        .iter()
        .filter(|track| matches!(track.kind, TrackKind::Video | TrackKind::Audio))
    {
        let of_track = all.iter().filter(|(number, _)| *number == track.number);
        let mut frames: Vec<Frame> = of_track.map(|(_, frame)| frame.clone()).collect();
        let first = frames.iter().find(|frame| frame.key).or(frames.first());
        let config = match first {
            Some(first) => TrackConfig::from_frame(track, &payload[first.data.clone()]),
            None => TrackConfig::from_matroska(track),
        };
        let config = config.unwrap();
        for frame in &mut frames {
            let bytes = payload[frame.data.clone()].to_vec();
            match config.framing() {
                Framing::Plain => {}
                Framing::AnnexB => frame.data = put_annex_b_as_lengths(&mut payload, &bytes).unwrap(),
                Framing::Adts => frame.data.start += AdtsHead::parse(&bytes).unwrap().head_len,
            }
        }
        parts.push(Part {
            samples: timeline::samples(&config, &frames, None),
            config,
        });
    }
    Fragment {
        timecode,
        payload: payload.freeze(),
        parts,
    }
}

/// A folder of the test's own.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sightglass-packaging-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Bytes {
        std::fs::read(self.0.join(name)).unwrap().into()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Media that ffmpeg makes: pictures and sound of test patterns for `seconds`, as a Matroska file.
pub fn generated(folder: &Folder, seconds: u32, video: &[&str], audio: &[&str]) -> Bytes {
    let (picture, sound) = (
        format!("testsrc2=s=320x180:r=25:d={seconds}"),
        format!("sine=440:d={seconds}"),
    );
    let mut arguments = vec!["-v", "error", "-y"];
    if !video.is_empty() {
        arguments.extend(["-f", "lavfi", "-i", &picture]);
    }
    if !audio.is_empty() {
        arguments.extend(["-f", "lavfi", "-i", &sound]);
    }
    let path = folder.path("made.mkv");
    arguments.extend(video);
    arguments.extend(audio);
    // A new cluster at each key frame, as a camera sends them.
    arguments.extend(["-cluster_time_limit", "2000", "-f", "matroska", path.to_str().unwrap()]);
    let made = Command::new("ffmpeg")
        .args(&arguments)
        .output()
        .expect("ffmpeg is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder.read("made.mkv")
}

/// What ffprobe says of the streams: fields of `-show_entries stream=...`, a line for each stream.
pub fn probe(path: &Path, entries: &str) -> Vec<String> {
    let said = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_packets",
            "-of",
            "csv=p=0",
            "-show_entries",
            &format!("stream={entries}"),
        ])
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    assert!(
        said.status.success() && said.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let text = String::from_utf8(said.stdout).unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    if path.extension().is_some_and(|extension| extension == "ts") {
        // Told once for the program and once more for the file.
        lines.truncate(lines.len() / 2);
    }
    lines
}

/// Decodes everything; what ffmpeg complains of is the failure.
pub fn decodes(path: &Path) {
    let said = Command::new("ffmpeg")
        .args(["-v", "warning", "-xerror", "-i"])
        .arg(path)
        .args(["-f", "null", "-"])
        .output();
    let said = said.expect("ffmpeg is installed");
    let said_lines = String::from_utf8_lossy(&said.stderr).into_owned();
    // Sound without a channel layout, such as G.711, is no complaint.
    let complaint: Vec<&str> = said_lines
        .lines()
        .filter(|line| !line.contains("Guessed Channel Layout"))
        .collect();
    assert!(
        said.status.success() && complaint.is_empty(),
        "{}: {complaint:?}",
        path.display()
    );
}

/// Presentation and decode times of packets of one stream, in seconds.
pub fn packets(path: &Path, stream: &str) -> Vec<(f64, f64, bool)> {
    let said = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-select_streams",
            stream,
            "-of",
            "csv=p=0",
            "-show_entries",
            "packet=pts_time,dts_time,flags",
        ])
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    assert!(
        said.status.success() && said.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    let text = String::from_utf8(said.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (
                fields[0].parse().unwrap(),
                // Matroska has no decode times.
                fields[1].parse().unwrap_or(f64::NAN),
                fields[2].starts_with('K'),
            )
        })
        .collect()
}

/// A captured stream; says so where there is none.
pub fn data(name: &str) -> Option<Bytes> {
    let named = std::env::var("SIGHTGLASS_TEST_DATA").ok().map(PathBuf::from);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|dir| dir.join("shared/data"));
    let Some(folder) = named.or_else(|| here.into_iter().find(|dir| dir.is_dir())) else {
        println!("skipped: no test data");
        return None;
    };
    Some(std::fs::read(folder.join(name)).unwrap().into())
}
