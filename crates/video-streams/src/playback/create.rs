//! GetHLSStreamingSessionURL and GetDASHStreamingSessionURL: what is asked for is checked against the rules of the model
//! and against what is stored, and sealed into a URL.

use base::{ApiError, Handle, Reply, Request, RequestContext, Timestamp};
use packaging::MediaKind;
use storage::{FragmentInfo, FragmentQuery, FragmentRange};
use wire::kinesisvideo_archived_media::{
    ContainerFormat, DASHDisplayFragmentNumber, DASHDisplayFragmentTimestamp, DASHFragmentSelectorType,
    DASHPlaybackMode, GetDASHStreamingSessionURLInput, GetDASHStreamingSessionURLOutput,
    GetHLSStreamingSessionURLInput, GetHLSStreamingSessionURLOutput, HLSDiscontinuityMode, HLSDisplayFragmentTimestamp,
    HLSFragmentSelectorType, HLSPlaybackMode, op,
};

use super::dash::{begin_behind_codec_change, changes_codec, codec_change};
use super::session::{Discontinuities, Mode, Protocol, Session};
use crate::VideoStreams;
use crate::archive::{self, ArchivedFragment};
use crate::error::MediaError;
use crate::limits;
use crate::media::resolve;
use crate::state::StreamState;

/// What both operations ask for.
struct Wanted {
    stream_name: Option<String>,
    stream_arn: Option<String>,
    protocol: Protocol,
    mode: Mode,
    producer_time: bool,
    range: Option<(Option<Timestamp>, Option<Timestamp>)>,
    discontinuities: Option<Discontinuities>,
    show_time: bool,
    show_number: bool,
    expires_s: Option<i32>,
    fragments_max: Option<i64>,
}

impl Handle<op::GetHLSStreamingSessionURL> for VideoStreams {
    async fn handle(
        &self,
        request: Request<GetHLSStreamingSessionURLInput>,
    ) -> Result<Reply<GetHLSStreamingSessionURLOutput>, ApiError> {
        let input = request.input;
        let selector = input.hls_fragment_selector.unwrap_or_default();
        let wanted = Wanted {
            stream_name: input.stream_name,
            stream_arn: input.stream_arn,
            protocol: match input.container_format {
                Some(ContainerFormat::MpegTs) => Protocol::HlsTs,
                Some(ContainerFormat::FragmentedMp4) | None => Protocol::HlsMp4,
            },
            mode: match input.playback_mode {
                Some(HLSPlaybackMode::Live) | None => Mode::Live,
                Some(HLSPlaybackMode::LiveReplay) => Mode::LiveReplay,
                Some(HLSPlaybackMode::OnDemand) => Mode::OnDemand,
            },
            producer_time: selector.fragment_selector_type == Some(HLSFragmentSelectorType::ProducerTimestamp),
            range: selector
                .timestamp_range
                .map(|range| (range.start_timestamp, range.end_timestamp)),
            discontinuities: input.discontinuity_mode.map(|mode| match mode {
                HLSDiscontinuityMode::Always => Discontinuities::Always,
                HLSDiscontinuityMode::Never => Discontinuities::Never,
                HLSDiscontinuityMode::OnDiscontinuity => Discontinuities::OnDiscontinuity,
            }),
            show_time: input.display_fragment_timestamp == Some(HLSDisplayFragmentTimestamp::Always),
            show_number: false,
            expires_s: input.expires,
            fragments_max: input.max_media_playlist_fragment_results,
        };
        let token = self.create(&request.context, wanted).await?;
        let base = &request.context.base_url;
        Ok(GetHLSStreamingSessionURLOutput {
            hls_streaming_session_url: Some(format!("{base}/hls/v1/getHLSMasterPlaylist.m3u8?SessionToken={token}")),
        }
        .into())
    }
}

impl Handle<op::GetDASHStreamingSessionURL> for VideoStreams {
    async fn handle(
        &self,
        request: Request<GetDASHStreamingSessionURLInput>,
    ) -> Result<Reply<GetDASHStreamingSessionURLOutput>, ApiError> {
        let input = request.input;
        let selector = input.dash_fragment_selector.unwrap_or_default();
        let wanted = Wanted {
            stream_name: input.stream_name,
            stream_arn: input.stream_arn,
            protocol: Protocol::Dash,
            mode: match input.playback_mode {
                Some(DASHPlaybackMode::Live) | None => Mode::Live,
                Some(DASHPlaybackMode::LiveReplay) => Mode::LiveReplay,
                Some(DASHPlaybackMode::OnDemand) => Mode::OnDemand,
            },
            producer_time: selector.fragment_selector_type == Some(DASHFragmentSelectorType::ProducerTimestamp),
            range: selector
                .timestamp_range
                .map(|range| (range.start_timestamp, range.end_timestamp)),
            discontinuities: Some(Discontinuities::Never),
            show_time: input.display_fragment_timestamp == Some(DASHDisplayFragmentTimestamp::Always),
            show_number: input.display_fragment_number == Some(DASHDisplayFragmentNumber::Always),
            expires_s: input.expires,
            fragments_max: input.max_manifest_fragment_results,
        };
        let token = self.create(&request.context, wanted).await?;
        let base = &request.context.base_url;
        Ok(GetDASHStreamingSessionURLOutput {
            dash_streaming_session_url: Some(format!("{base}/dash/v1/getDASHManifest.mpd?SessionToken={token}")),
        }
        .into())
    }
}

/// The times between which a session's fragments begin.
fn range(wanted: &Wanted, now: Timestamp) -> Result<(Timestamp, Timestamp), MediaError> {
    let invalid = |why: &str| Err(MediaError::InvalidArgument(why.to_owned()));
    let last = Timestamp::from_millis(i64::MAX);
    let (start, end) = match (wanted.mode, wanted.range) {
        (Mode::Live, None | Some((None, None))) => return Ok((Timestamp::from_millis(i64::MIN), last)),
        (Mode::Live, Some(_)) => return invalid("A TimestampRange must not be given for PlaybackMode LIVE."),
        (_, Some((Some(start), end))) => (start, end),
        (_, None | Some((None, _))) => {
            return invalid("PlaybackMode LIVE_REPLAY and ON_DEMAND need a StartTimestamp in the fragment selector.");
        }
    };
    let Some(end) = end else {
        return match wanted.mode {
            Mode::OnDemand => invalid("PlaybackMode ON_DEMAND needs an EndTimestamp in the fragment selector."),
            Mode::Live | Mode::LiveReplay => Ok((start, last)),
        };
    };
    if end <= start {
        return invalid("EndTimestamp must be later than StartTimestamp.");
    }
    if end.millis_since(start) > limits::PLAYBACK_RANGE_MS {
        return invalid("EndTimestamp must be within 24 hours of StartTimestamp.");
    }
    if !wanted.producer_time && end > now {
        return invalid("EndTimestamp must be in the past when the fragment selector is SERVER_TIMESTAMP.");
    }
    Ok((start, end))
}

/// Fragments that a new session is made from, in the order of its axis.
struct Stock {
    listed: Vec<FragmentInfo>,
    /// What all its fragments are taken to be like.
    sample: FragmentInfo,
    position: u64,
}

impl VideoStreams {
    async fn create(&self, context: &RequestContext, wanted: Wanted) -> Result<String, ApiError> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let (name, arn) = (wanted.stream_name.as_ref(), wanted.stream_arn.as_ref());
        let state = resolve(inner, context, name, arn)?;
        let (start, end) = range(&wanted, now)?;
        let retained = state.retention_hours() > 0;
        if !retained {
            return Err(MediaError::NoDataRetention.into());
        }
        let default = match wanted.mode {
            Mode::OnDemand => limits::ON_DEMAND_FRAGMENTS,
            Mode::Live | Mode::LiveReplay => limits::LIVE_FRAGMENTS,
        };
        let most = wanted
            .fragments_max
            .and_then(|most| u16::try_from(most).ok())
            .unwrap_or(default);
        let most = most.clamp(1, limits::PLAYLIST_FRAGMENTS_MAX);
        let mut stock = self
            .stock(&state, &wanted, (start, end), usize::from(most), now)
            .await?;
        // What cannot be played is refused now and not when it is played.
        archive::check_declared(&*state.stores().durable, &state, &stock.sample).await?;
        let sample = archive::load(&*state.stores().durable, state.id, &stock.sample).await?;
        if wanted.protocol == Protocol::Dash {
            match wanted.mode {
                Mode::Live => begin_behind_codec_change(&mut stock.listed),
                Mode::OnDemand if changes_codec(&stock.listed, wanted.producer_time, usize::from(most)) => {
                    let track = sample.video().or(sample.audio());
                    return Err(codec_change(track.map(|track| &*track.config)).into());
                }
                Mode::OnDemand | Mode::LiveReplay => {}
            }
        }
        let first = stock.listed.first().copied().unwrap_or(stock.sample);
        let longest_ms = stock.listed.iter().map(|info| info.length_ms).max().unwrap_or(0);
        let mut session = Session {
            stream: state.id,
            protocol: wanted.protocol,
            mode: wanted.mode,
            producer_time: wanted.producer_time,
            discontinuities: wanted.discontinuities.unwrap_or(match wanted.producer_time {
                true => Discontinuities::Never,
                false => Discontinuities::Always,
            }),
            show_time: wanted.show_time,
            show_number: wanted.show_number,
            fragments_max: most,
            created: now,
            start,
            end,
            position: stock.position,
            first_position: first.position,
            target_s: u16::try_from(longest_ms.div_ceil(1000).max(1)).unwrap_or(u16::MAX),
            part_ms: 0,
            initial: 0,
        };
        if wanted.mode == Mode::Live {
            session.start = first.start(session.axis());
            session.initial = u16::try_from(stock.listed.len()).unwrap_or(u16::MAX);
            if wanted.protocol == Protocol::HlsMp4 && inner.settings.playback.low_latency {
                session.part_ms = part_ms(&sample).unwrap_or(0);
            }
        }
        // So that there are parts when the player comes for them.
        inner.tail(&session, &state).await;
        let seconds = wanted.expires_s.unwrap_or(limits::EXPIRES_SECONDS);
        let expires = now.plus_millis(i64::from(seconds).saturating_mul(1000));
        let token = session.seal(&inner.playback.ring, expires);
        token.map_err(|error| ApiError::server("InternalFailure", "The session could not be made.", error))
    }

    /// Looks up what a session would begin with.
    async fn stock(
        &self,
        state: &StreamState,
        wanted: &Wanted,
        (start, end): (Timestamp, Timestamp),
        most: usize,
        now: Timestamp,
    ) -> Result<Stock, MediaError> {
        let store = &*state.stores().durable;
        // Before the listing: what is committed meanwhile comes twice then rather than never, and is taken once.
        let position = *store.subscribe(state.id).borrow();
        let axis = match wanted.producer_time {
            true => storage::TimeAxis::Producer,
            false => storage::TimeAxis::Server,
        };
        let live = wanted.mode == Mode::Live;
        // A manifest of DASH is of one codec, which all that it will list must have.
        let whole = live || (wanted.mode == Mode::OnDemand && wanted.protocol == Protocol::Dash);
        let query = FragmentQuery {
            newest_first: live,
            ..FragmentQuery::first(
                FragmentRange::Time(axis, start, end),
                if whole {
                    most.max(limits::SAMPLE_FRAGMENTS)
                } else {
                    limits::SAMPLE_FRAGMENTS
                },
            )
        };
        let mut listed = store.list(state.id, &query).await?;
        listed.retain(|info| info.position <= position);
        if live {
            let since = now.plus_millis(-limits::LIVE_WITHIN_MS);
            let newest = store.latest(state.id).await?.filter(|info| info.server_end() >= since);
            let newest = newest.ok_or(MediaError::Missing(
                "The stream has no fragment of the last 30 seconds, which PlaybackMode LIVE needs.",
            ))?;
            // Of equal producer times the largest number counts, which comes first here.
            if wanted.producer_time {
                listed.dedup_by_key(|info| info.producer_timestamp);
            }
            listed.truncate(most);
            listed.reverse();
            let sample = listed.last().copied().unwrap_or(newest);
            return Ok(Stock {
                listed,
                sample,
                position,
            });
        }
        let sample = listed.first().copied().ok_or(MediaError::Missing(
            "The stream has no fragment that begins in the range.",
        ))?;
        Ok(Stock {
            listed,
            sample,
            position,
        })
    }
}

/// The longest part of a stream whose fragments are like this one; none where it cannot be shown in parts: its pictures
/// are sent in another order than they are shown, or are too far apart.
fn part_ms(fragment: &ArchivedFragment) -> Option<u16> {
    let track = fragment.video().or(fragment.audio())?;
    let (first, last) = (track.samples.first()?, track.samples.last()?);
    // Pictures that follow each other under one time are decoded a moment later than they are shown; only what is shown
    // later than it is decoded was sent in another order.
    let reordered = track.samples.iter().any(|sample| sample.composition_offset > 0);
    if reordered && track.config.kind() == MediaKind::Video {
        return None;
    }
    let units = last.end().saturating_sub(first.decode_time);
    let count = i64::try_from(track.samples.len()).ok()?;
    let frame_ms = (units.saturating_mul(1000) / i64::from(track.config.timescale()).max(1) / count).max(1);
    if frame_ms > limits::PART_FRAME_MS_MAX {
        return None;
    }
    // A tenth more, for clocks of cameras: no part may be longer than is told here.
    let frames = (limits::PART_MS / frame_ms).max(1);
    u16::try_from((frames * frame_ms * 11 + 9) / 10).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(mode: Mode, range: Option<(Option<i64>, Option<i64>)>) -> Wanted {
        Wanted {
            stream_name: None,
            stream_arn: None,
            protocol: Protocol::HlsMp4,
            mode,
            producer_time: false,
            range: range.map(|(start, end)| (start.map(Timestamp::from_millis), end.map(Timestamp::from_millis))),
            discontinuities: None,
            show_time: false,
            show_number: false,
            expires_s: None,
            fragments_max: None,
        }
    }

    #[test]
    fn the_range_is_checked_against_the_mode_as_the_model_says() {
        const DAY: i64 = 86_400_000;
        let now = Timestamp::from_millis(10 * DAY);
        let ok = |mode, given| range(&wanted(mode, given), now).is_ok();
        assert!(ok(Mode::Live, None));
        assert!(!ok(Mode::Live, Some((Some(1), None))), "LIVE takes no range");
        assert!(
            !ok(Mode::OnDemand, None) && !ok(Mode::LiveReplay, None),
            "a start is needed"
        );
        assert!(!ok(Mode::OnDemand, Some((Some(1), None))), "ON_DEMAND needs an end");
        assert!(ok(Mode::LiveReplay, Some((Some(1), None))));
        assert!(!ok(Mode::OnDemand, Some((None, Some(1)))));
        assert!(!ok(Mode::OnDemand, Some((Some(5), Some(5)))), "empty");
        assert!(!ok(Mode::OnDemand, Some((Some(6), Some(5)))), "inverted");
        assert!(ok(Mode::OnDemand, Some((Some(0), Some(DAY)))));
        assert!(!ok(Mode::OnDemand, Some((Some(0), Some(DAY + 1)))), "more than a day");
        let future = Some((Some(10 * DAY - 5), Some(10 * DAY + 5)));
        assert!(!ok(Mode::OnDemand, future), "the server has no fragments of the future");
        let mut producers = wanted(Mode::OnDemand, future);
        producers.producer_time = true;
        assert!(range(&producers, now).is_ok(), "but a producer's clock may run ahead");
    }
}
