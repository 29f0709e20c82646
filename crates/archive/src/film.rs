//! Fragments as one film: Matroska, or MP4. Sans-I/O. Frames are neither decoded nor changed, but that MP4 wants lengths
//! where a camera sends start codes.

use bytes::{Bytes, BytesMut};
use client::reader::{Ending, Fragment, Frame, Merge, MergeOptions, Patch, Placement};
use matroska::{Track, TrackKind};
use packaging::fmp4::TrackSamples;
use packaging::frame::{AdtsHead, has_whole_units, put_annex_b_as_lengths};
use packaging::mp4::Movie;
use packaging::{Framing, MediaKind, PackagingError, Sample, TrackConfig, timeline};

use crate::limits::MP4_SAMPLES_MAX;
use crate::settings::Format;

/// The film under way.
pub enum Film {
    /// Matroska.
    Mkv(Box<Merge>),
    /// MP4.
    Mp4(Box<Mp4>),
}

/// The fragment is not part of the film, which is none the worse for it: the film ends before it. In words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

impl Film {
    /// An empty film.
    #[must_use]
    pub fn new(format: Format) -> Self {
        match format {
            Format::Mkv => Film::Mkv(Box::new(Merge::new(MergeOptions::default()))),
            Format::Mp4 => Film::Mp4(Box::default()),
        }
    }

    /// Bytes that were given.
    #[must_use]
    pub fn written(&self) -> u64 {
        match self {
            Film::Mkv(merge) => merge.written(),
            Film::Mp4(movie) => movie.written,
        }
    }

    /// Appends a fragment; gives the bytes to append to the file.
    ///
    /// # Errors
    /// It needs another film.
    pub fn push(&mut self, fragment: &Fragment) -> Result<Vec<Bytes>, Refused> {
        match self {
            Film::Mkv(merge) => merge
                .push(fragment)
                .map_err(|_| Refused("the tracks change".to_owned())),
            Film::Mp4(movie) => movie.push(fragment),
        }
    }

    /// What makes the film whole; `None` where it is empty.
    #[must_use]
    pub fn finish(&self) -> Option<Ending> {
        match self {
            Film::Mkv(merge) => merge.finish(),
            Film::Mp4(movie) => movie.finish(),
        }
    }
}

/// An MP4 under way.
#[derive(Debug, Default)]
pub struct Mp4 {
    open: Option<Open>,
    written: u64,
}

#[derive(Debug)]
struct Open {
    /// What the fragments' headers declare.
    declared: matroska::Tracks,
    configs: Vec<TrackConfig>,
    movie: Movie,
    placement: Placement,
    scale_ns: u64,
}

impl Mp4 {
    fn push(&mut self, fragment: &Fragment) -> Result<Vec<Bytes>, Refused> {
        let same =
            |open: &Open| open.declared == fragment.start.tracks && open.scale_ns == fragment.start.timecode_scale_ns;
        if self.open.as_ref().is_some_and(|open| !same(open)) {
            return Err(Refused("the tracks change".to_owned()));
        }
        let cannot = |error: PackagingError| Refused(format!("MP4 cannot hold it: {error}"));
        let packed = Packed::of(fragment).map_err(cannot)?;
        let configs = || packed.tracks.iter().map(|(config, _)| config);
        let samples: usize = packed.tracks.iter().map(|(_, samples)| samples.len()).sum();
        let (open, head) = match &mut self.open {
            Some(open) => {
                if !open.configs.iter().eq(configs()) {
                    return Err(Refused("the codec's parameters change".to_owned()));
                }
                if open.movie.samples() + samples > MP4_SAMPLES_MAX {
                    return Err(Refused("it has as many frames as an MP4 may".to_owned()));
                }
                (open, None)
            }
            none => {
                let configs: Vec<TrackConfig> = configs().cloned().collect();
                let open = none.insert(Open {
                    declared: fragment.start.tracks.clone(),
                    movie: Movie::new(&configs.iter().collect::<Vec<_>>()),
                    configs,
                    placement: Placement::new(fragment),
                    scale_ns: fragment.start.timecode_scale_ns,
                });
                (open, Some(Movie::open_head()))
            }
        };
        let at = open.placement.place(fragment, false);
        let parts: Vec<TrackSamples<'_>> = packed
            .tracks
            .iter()
            .map(|(config, samples)| TrackSamples { config, samples })
            .collect();
        let base_ms = millis(at, open.scale_ns);
        let added = open.movie.push(base_ms, &parts, 0..packed.len);
        added.map_err(|error| Refused(format!("MP4 cannot hold it: {error}")))?;
        let pieces: Vec<Bytes> = head.into_iter().chain(packed.pieces).collect();
        self.written += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(pieces)
    }

    fn finish(&self) -> Option<Ending> {
        let (tail, size) = self.open.as_ref()?.movie.tail();
        let patch = Patch {
            offset: (Movie::open_head().len() - size.len()) as u64,
            bytes: Bytes::copy_from_slice(&size),
        };
        Some(Ending {
            tail,
            patches: vec![patch],
        })
    }
}

/// A fragment's frames as MP4 wants them, in the order in which they were sent.
struct Packed {
    tracks: Vec<(TrackConfig, Vec<Sample>)>,
    pieces: Vec<Bytes>,
    len: usize,
}

impl Packed {
    fn of(fragment: &Fragment) -> Result<Self, PackagingError> {
        let mut tracks = Vec::with_capacity(fragment.start.tracks.len());
        for track in fragment.start.tracks.iter() {
            let mut frames = fragment.frames.iter().filter(|frame| frame.track == track.number);
            if !matches!(track.kind, TrackKind::Video | TrackKind::Audio) {
                if frames.next().is_some() {
                    return Err(PackagingError::UnsupportedCodec {
                        track: track.number,
                        codec: track.codec_id.clone(),
                        why: "it is neither video nor audio",
                    });
                }
                continue;
            }
            let first = frames.clone().find(|frame| frame.key).or(frames.next());
            let config = match first {
                Some(frame) => TrackConfig::from_frame(track, &frame.data)?,
                None => TrackConfig::from_matroska(track)?,
            };
            tracks.push((track, config, Vec::new()));
        }
        let (mut pieces, mut len) = (Vec::with_capacity(fragment.frames.len()), 0);
        for frame in &fragment.frames {
            let Some((track, config, frames)) = tracks.iter_mut().find(|(track, ..)| track.number == frame.track)
            else {
                return Err(PackagingError::InvalidFrame {
                    track: frame.track,
                    time_ms: 0,
                    why: "its track is not declared",
                });
            };
            let time_ms = time_of(fragment, frame, track, frames);
            let data = converted(config, frame, time_ms)?;
            frames.push(timeline::Frame {
                data: len..len + data.len(),
                time_ms,
                key: frame.key,
            });
            len += data.len();
            pieces.push(data);
        }
        // As a clip has it: the last picture of a lone track ends where the next fragment begins, or lasts as the others do.
        let tracks = tracks.into_iter().map(|(_, config, frames)| {
            let samples = timeline::samples(&config, &frames, None);
            (config, samples)
        });
        Ok(Packed {
            tracks: tracks.collect(),
            pieces,
            len,
        })
    }
}

/// Milliseconds after its cluster. Frames that were laced into one block have its time; they follow each other.
fn time_of(fragment: &Fragment, frame: &Frame, track: &Track, before: &[timeline::Frame]) -> i64 {
    let units = i128::from(frame.time) - i128::from(fragment.start.timecode);
    let time_ms = millis(units, fragment.start.timecode_scale_ns);
    let step_ms = track.default_duration_ns.unwrap_or(0) / 1_000_000;
    match (before.last(), i64::try_from(step_ms)) {
        (Some(last), Ok(step_ms @ 1..)) if track.kind == TrackKind::Audio && last.time_ms >= time_ms => {
            last.time_ms.saturating_add(step_ms)
        }
        _ => time_ms,
    }
}

fn millis(units: i128, scale_ns: u64) -> i64 {
    let ns = units * i128::from(scale_ns.max(1));
    i64::try_from((ns + 500_000).div_euclid(1_000_000)).unwrap_or(0)
}

fn converted(config: &TrackConfig, frame: &Frame, time_ms: i64) -> Result<Bytes, PackagingError> {
    let data = &frame.data;
    let found = match config.framing() {
        Framing::AnnexB => {
            let mut out = BytesMut::with_capacity(data.len() + 64);
            put_annex_b_as_lengths(&mut out, data).map(|_| out.freeze())
        }
        Framing::Adts => AdtsHead::parse(data).map(|head| data.slice(head.head_len..)),
        Framing::Plain if config.nal_length_size() > 0 => {
            has_whole_units(data, config.nal_length_size()).then(|| data.clone())
        }
        Framing::Plain => Some(data.clone()),
    };
    found.ok_or(PackagingError::InvalidFrame {
        track: config.number(),
        time_ms,
        why: match config.kind() {
            MediaKind::Video => "its units are not framed as the track's codec asks",
            MediaKind::Audio => "it is not framed as the track's codec asks",
        },
    })
}
