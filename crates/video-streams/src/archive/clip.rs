//! GetClip: the fragments of a range as one plain MP4. All headers come first, made from the frame indexes alone; then the
//! fragments' media is streamed as it is stored.
//!
//! What is checked before the answer begins: the range, the tracks of every fragment, and every frame of the first
//! fragment and of each whose tracks are not known to be the same. A later frame that is broken is sent as it is stored.

use std::ops::Range;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, Timestamp};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use packaging::fmp4::TrackSamples;
use packaging::mp4::{self, Movie};
use packaging::{Frame, Framing, PackagingError, Sample, TrackConfig, timeline};
use storage::{FragmentInfo, FragmentQuery, FragmentRange, FrameEntry, MediaStore, StreamId, TimeAxis};
use wire::kinesisvideo_archived_media::{
    ClipFragmentSelector, ClipFragmentSelectorType, GetClipInput, GetClipOutput, op,
};

use super::load::{ArchivedTrack, assemble, check_declared, is_of};
use super::order;
use super::outflow::{Outflow, Piece};
use crate::VideoStreams;
use crate::error::MediaError;
use crate::limits;
use crate::media::resolve;
use crate::state::ConnectionKind;

/// What the caller is told whose clip would be one too many.
const TOO_MANY: &str =
    "The stream sends as many clips at once as it may (clip.at_once). Try again when one has been sent.";

/// How much one clip may hold; what comes after it is left out, as AWS leaves it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipLimits {
    /// Bytes of media.
    pub bytes: u64,
    /// Fragments.
    pub fragments: usize,
    /// Clips of one stream at once; one more gets ClientLimitExceededException.
    pub at_once: usize,
}

impl Default for ClipLimits {
    fn default() -> Self {
        ClipLimits {
            bytes: limits::CLIP_BYTES,
            fragments: limits::CLIP_FRAGMENTS,
            at_once: limits::CLIPS_AT_ONCE,
        }
    }
}

impl Handle<op::GetClip> for VideoStreams {
    async fn handle(&self, request: Request<GetClipInput>) -> Result<Reply<GetClipOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let (axis, range) = selection(&input.clip_fragment_selector, inner.clock.now())?;
        let (store, durable) = state.store();
        if !durable {
            return Err(MediaError::NoDataRetention.into());
        }
        let clip_limits = inner.settings.clip;
        let connection = state.connect(ConnectionKind::Clip, clip_limits.at_once, &inner.metrics);
        let connection = connection.ok_or(MediaError::ClientLimit(TOO_MANY))?;
        let fragments = select(&*store, state.id, axis, range, clip_limits.fragments).await?;
        if let Some(first) = fragments.first() {
            check_declared(&*store, &state, first).await?;
        }
        let plan = Plan::make(&store, state.id, axis, &fragments, clip_limits.bytes).await?;
        let head = plan.movie.head();
        let len = head.len() as u64 + plan.movie.media_len();
        let outflow = Outflow::new(store, connection, inner.metrics.clone(), head, plan.pieces);
        Ok(Reply {
            output: GetClipOutput {
                content_type: Some(mp4::CONTENT_TYPE.to_owned()),
            },
            stream: Some(outflow.into_stream()),
            stream_len: Some(len),
            crowd: None,
        })
    }
}

/// What the selector means.
fn selection(selector: &ClipFragmentSelector, now: Timestamp) -> Result<(TimeAxis, FragmentRange), MediaError> {
    let (from, to) = (
        selector.timestamp_range.start_timestamp,
        selector.timestamp_range.end_timestamp,
    );
    let invalid = |why: &str| Err(MediaError::InvalidArgument(why.to_owned()));
    if from > to {
        return invalid("StartTimestamp must not be later than EndTimestamp.");
    }
    if to.millis_since(from) > limits::CLIP_SPAN_MS {
        return invalid("EndTimestamp must be within 24 hours of StartTimestamp.");
    }
    let axis = match selector.fragment_selector_type {
        ClipFragmentSelectorType::ServerTimestamp if to > now => {
            return invalid("EndTimestamp must be in the past where FragmentSelectorType is SERVER_TIMESTAMP.");
        }
        ClipFragmentSelectorType::ServerTimestamp => TimeAxis::Server,
        ClipFragmentSelectorType::ProducerTimestamp => TimeAxis::Producer,
    };
    Ok((axis, FragmentRange::Time(axis, from, to)))
}

/// The fragments of the range that make the clip, in its order; at most `max`.
async fn select(
    store: &dyn MediaStore,
    stream: StreamId,
    axis: TimeAxis,
    range: FragmentRange,
    max: usize,
) -> Result<Vec<FragmentInfo>, MediaError> {
    // Of what was ingested again and again, so many repetitions are looked at.
    let enough = match axis {
        TimeAxis::Producer => max.saturating_mul(limits::CLIP_REPETITIONS),
        TimeAxis::Server => max,
    };
    let mut found: Vec<FragmentInfo> = Vec::new();
    while found.len() < enough {
        let query = FragmentQuery {
            after: found.last().map(|last| range.place_of(last)),
            ..FragmentQuery::first(range, limits::LIST_FRAGMENTS_MAX.min(enough - found.len()))
        };
        let page = store.list(stream, &query).await?;
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let mut fragments = match axis {
        TimeAxis::Producer => order::without_duplicates(found),
        TimeAxis::Server => found,
    };
    fragments.truncate(max);
    if fragments.is_empty() {
        return Err(MediaError::NoFragments);
    }
    Ok(fragments)
}

/// The headers of the clip and what follows them.
struct Plan {
    movie: Movie,
    pieces: Vec<Piece>,
}

/// The tracks that all fragments of the clip have.
struct Known {
    /// Fingerprint of the fragment that they were read from.
    hash: u64,
    configs: Vec<Arc<TrackConfig>>,
    /// Whether the stored bytes are sent as they are.
    plain: bool,
}

/// One fragment's samples and the bytes that are sent.
struct Fragment {
    tracks: Vec<ArchivedTrack>,
    piece: Range<usize>,
    plain: bool,
}

impl Plan {
    async fn make(
        store: &Arc<dyn MediaStore>,
        stream: StreamId,
        axis: TimeAxis,
        fragments: &[FragmentInfo],
        bytes_max: u64,
    ) -> Result<Plan, MediaError> {
        let times = order::times_ms(fragments, axis);
        let numbers: Vec<_> = fragments.iter().map(|info| info.number).collect();
        let read = |number| {
            let store = store.clone();
            async move { store.frames(stream, number).await }
        };
        let mut indexes = stream::iter(numbers).map(read).buffered(limits::INDEXES_AHEAD);
        let mut known: Option<Known> = None;
        let mut plan: Option<Plan> = None;
        for (info, time_ms) in fragments.iter().zip(times) {
            let Some(index) = indexes.next().await else { break };
            let fragment = match index {
                // Trimmed since it was listed.
                Err(storage::Error::NotFound) => continue,
                index => Fragment::of(&**store, stream, info, &index?, &mut known).await?,
            };
            let configs: Vec<&TrackConfig> = fragment.tracks.iter().map(|track| &*track.config).collect();
            let plan = plan.get_or_insert_with(|| Plan {
                movie: Movie::new(&configs),
                pieces: Vec::with_capacity(fragments.len()),
            });
            let bytes = plan.movie.media_len() + fragment.piece.len() as u64;
            let samples: usize = fragment.tracks.iter().map(|track| track.samples.len()).sum();
            let full = bytes > bytes_max || plan.movie.samples() + samples > limits::CLIP_SAMPLES;
            if full && !plan.pieces.is_empty() {
                break;
            }
            plan.add(info, time_ms, fragment)?;
        }
        plan.filter(|plan| plan.movie.samples() > 0)
            .ok_or(MediaError::NoFragments)
    }

    fn add(&mut self, info: &FragmentInfo, time_ms: i64, fragment: Fragment) -> Result<(), MediaError> {
        let parts: Vec<TrackSamples<'_>> = fragment
            .tracks
            .iter()
            .map(|track| TrackSamples {
                config: &track.config,
                samples: &track.samples,
            })
            .collect();
        let added = self.movie.push(time_ms, &parts, fragment.piece.clone());
        added.map_err(|_| PackagingError::InvalidFrame {
            track: 0,
            time_ms: 0,
            why: "it does not fit the clip",
        })?;
        self.pieces.push(Piece {
            info: *info,
            range: fragment.piece,
            rewritten: !fragment.plain,
        });
        Ok(())
    }
}

impl Fragment {
    /// From the index alone where the fragment's tracks are known, else from the fragment.
    async fn of(
        store: &dyn MediaStore,
        stream: StreamId,
        info: &FragmentInfo,
        index: &[FrameEntry],
        known: &mut Option<Known>,
    ) -> Result<Fragment, MediaError> {
        if let Some(known) = known
            && known.plain
            && known.hash == info.tracks_hash
            && known.hash != 0
        {
            return Self::of_index(info, index, &known.configs);
        }
        let media = store.read(stream, info.number, 0..info.size).await?;
        Self::of_media(info, media, index, known)
    }

    fn of_index(
        info: &FragmentInfo,
        index: &[FrameEntry],
        configs: &[Arc<TrackConfig>],
    ) -> Result<Fragment, MediaError> {
        let ends_at_ms = (configs.len() == 1).then_some(i64::from(info.length_ms));
        let mut tracks = Vec::with_capacity(configs.len());
        for config in configs {
            let frames: Vec<Frame> = index
                .iter()
                .filter(|entry| is_of(entry, config.number()))
                .map(|entry| Frame {
                    data: entry.offset as usize..entry.offset as usize + entry.len as usize,
                    time_ms: i64::from(entry.time_ms),
                    key: entry.key,
                })
                .collect();
            tracks.push(ArchivedTrack {
                samples: timeline::samples(config, &frames, ends_at_ms),
                config: config.clone(),
            });
        }
        let piece = span(&tracks);
        if piece.end > info.size as usize {
            return Err(PackagingError::InvalidFrame {
                track: 0,
                time_ms: 0,
                why: "it lies outside of its fragment",
            }
            .into());
        }
        Ok(Fragment {
            piece,
            tracks,
            plain: true,
        })
    }

    fn of_media(
        info: &FragmentInfo,
        media: Bytes,
        index: &[FrameEntry],
        known: &mut Option<Known>,
    ) -> Result<Fragment, MediaError> {
        let loaded = assemble(*info, media, index)?;
        let configs = loaded.tracks.iter().map(|track| track.config.clone());
        let configs: Vec<Arc<TrackConfig>> = configs.collect();
        if let Some(known) = known {
            same_tracks(&known.configs, &configs)?;
        }
        let frames: usize = loaded.tracks.iter().map(|track| track.samples.len()).sum();
        let plain = configs.iter().all(|config| config.framing() == Framing::Plain);
        // Where a block holds several frames the index does not say where.
        let laced = frames
            != index
                .iter()
                .filter(|entry| configs.iter().any(|c| is_of(entry, c.number())))
                .count();
        *known = Some(Known {
            hash: info.tracks_hash,
            configs,
            plain: plain && !laced,
        });
        let rewritten = loaded
            .tracks
            .iter()
            .any(|track| track.config.framing() == Framing::AnnexB);
        Ok(Fragment {
            piece: span(&loaded.tracks),
            tracks: loaded.tracks,
            plain: !rewritten,
        })
    }
}

/// From the first frame to the end of the last, of all tracks.
fn span(tracks: &[ArchivedTrack]) -> Range<usize> {
    let samples = || tracks.iter().flat_map(|track: &ArchivedTrack| track.samples.iter());
    let start = samples().map(|sample: &Sample| sample.data.start).min();
    let end = samples().map(|sample: &Sample| sample.data.end).max();
    start.unwrap_or(0)..end.unwrap_or(0)
}

/// One MP4 describes a track once, so that a clip ends with an error where the description changes.
fn same_tracks(first: &[Arc<TrackConfig>], then: &[Arc<TrackConfig>]) -> Result<(), PackagingError> {
    let changed = |config: &TrackConfig| PackagingError::InvalidCodecPrivateData {
        track: config.number(),
        codec: config.codecs().to_owned(),
        why: "it changes within the selected range, and one clip can hold one only",
    };
    for config in then {
        let before = first.iter().find(|before| before.number() == config.number());
        let same = before.is_some_and(|before| {
            before.decoder_config() == config.decoder_config()
                && before.codec() == config.codec()
                && before.audio() == config.audio()
                && (before.framing() == Framing::AnnexB) == (config.framing() == Framing::AnnexB)
        });
        if !same {
            return Err(changed(config));
        }
    }
    Ok(())
}
