//! GetHLSMasterPlaylist and GetHLSMediaPlaylist: what stands in the playlists of a session.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use packaging::TrackConfig;
use packaging::hls::{FragmentRange, Kind, LowLatency, Master, Media, Part, RenditionReport, Segment};
use storage::FragmentInfo;
use wire::kinesisvideo_archived_media::{
    DASHDisplayFragmentNumber, GetHLSMasterPlaylistInput, GetHLSMediaPlaylistInput, PlayerOutput, op,
};

use super::session::{Mode, Protocol};
use super::tail::{Told, ToldParts};
use super::timeline::{Entry, Window};
use super::view::{View, Wish};
use super::{Keep, Player, answer};
use crate::VideoStreams;
use crate::archive::{self, ArchivedFragment};
use crate::error::MediaError;
use crate::limits;

const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";
/// EXT-X-VERSION of playlists with fragmented MP4, as AWS gives it.
const VERSION_MP4: u8 = 7;
/// EXT-X-VERSION of playlists with MPEG-TS: durations with a fraction need 3, EXT-X-GAP needs 8 and is ignored below it.
const VERSION_TS: u8 = 3;

fn version(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::HlsTs => VERSION_TS,
        Protocol::HlsMp4 | Protocol::Dash => VERSION_MP4,
    }
}

/// PART-HOLD-BACK in part targets: the draft's least that it recommends.
const PARTS_HELD_BACK: u32 = 3;

/// What a session's fragments are taken to be like: one of them, and how many bits a second they have.
pub(super) struct Character {
    pub fragment: ArchivedFragment,
    pub peak: u64,
    pub average: u64,
}

impl Character {
    pub fn video(&self) -> Option<&Arc<TrackConfig>> {
        self.fragment.video().map(|track| &track.config)
    }

    pub fn audio(&self) -> Option<&Arc<TrackConfig>> {
        self.fragment.audio().map(|track| &track.config)
    }

    /// Pictures a second: as declared, else as counted.
    fn frame_rate(&self) -> Option<f64> {
        let video = self.fragment.video()?;
        let counted = || {
            let length_ms = f64::from(self.fragment.info.length_ms.max(1));
            video.samples.len() as f64 * 1000.0 / length_ms
        };
        Some(video.config.frame_rate().unwrap_or_else(counted)).filter(|rate| *rate > 0.0)
    }
}

/// Bits a second of a fragment.
fn rate(bytes: u64, length_ms: u64) -> u64 {
    bytes.saturating_mul(8000) / length_ms.max(1)
}

impl VideoStreams {
    /// Looks at the fragments that a session shows now.
    pub(super) async fn character(&self, player: &Player, window: &Window) -> Result<Character, MediaError> {
        let media = || window.entries.iter().filter(|entry| !entry.gap);
        let sample: Option<&Entry> = match player.session.mode {
            Mode::Live => media().next_back(),
            Mode::LiveReplay | Mode::OnDemand => media().next(),
        };
        let none = MediaError::Missing("The fragments of the session are not stored any more.");
        let sample = sample.ok_or(none)?;
        let info: FragmentInfo = player.store.get(player.state.id, sample.number).await?;
        let bytes: u64 = media().map(|entry| u64::from(entry.size)).sum();
        let length_ms: u64 = media().map(|entry| u64::from(entry.length_ms)).sum();
        Ok(Character {
            fragment: archive::load(&*player.store, player.state.id, &info).await?,
            peak: media()
                .map(|entry| rate(u64::from(entry.size), u64::from(entry.length_ms)))
                .max()
                .unwrap_or(0),
            average: rate(bytes, length_ms),
        })
    }
}

impl Player {
    pub(super) fn of_hls(self) -> Result<Self, MediaError> {
        match self.session.protocol {
            Protocol::HlsMp4 | Protocol::HlsTs => Ok(self),
            Protocol::Dash => {
                let why = "The SessionToken is one of GetDASHStreamingSessionURL.";
                Err(MediaError::InvalidArgument(why.to_owned()))
            }
        }
    }

    /// Where a media playlist lies. A wish of the player goes on with it.
    fn playlist_uri(&self, track: u8, numbers: bool) -> String {
        let wish = if numbers { "&DisplayFragmentNumber=ALWAYS" } else { "" };
        format!(
            "getHLSMediaPlaylist.m3u8?SessionToken={}&TrackNumber={track}{wish}",
            self.token
        )
    }
}

/// The additional wish of a player that fragments be named beside their media.
fn wants_numbers(wish: Option<DASHDisplayFragmentNumber>) -> bool {
    wish == Some(DASHDisplayFragmentNumber::Always)
}

impl Handle<op::GetHLSMasterPlaylist> for VideoStreams {
    async fn handle(&self, request: Request<GetHLSMasterPlaylistInput>) -> Result<Reply<PlayerOutput>, ApiError> {
        let input = request.input;
        let player = self.inner.player(&input.session_token)?.of_hls()?;
        let now = self.inner.clock.now();
        let window = self
            .inner
            .with_timeline(&player, |timeline| timeline.window(now))
            .await?;
        let character = self.character(&player, &window).await?;
        let (video, audio) = (character.video(), character.audio());
        let numbers = wants_numbers(input.display_fragment_number);
        let apart = player.session.protocol == Protocol::HlsMp4 && video.is_some() && audio.is_some();
        let master = Master {
            codecs: video.into_iter().chain(audio).map(|config| config.codecs()).collect(),
            resolution: video
                .and_then(|config| config.picture())
                .map(|size| (size.width, size.height)),
            frame_rate: character.frame_rate(),
            bandwidth: character.peak,
            average_bandwidth: character.average,
            uri: player.playlist_uri(1, numbers),
            audio_uri: apart.then(|| player.playlist_uri(2, numbers)),
            version: version(player.session.protocol),
        };
        let text = master.text();
        Ok(answer(CONTENT_TYPE, Keep::Never, vec![text.into()]))
    }
}

impl Handle<op::GetHLSMediaPlaylist> for VideoStreams {
    async fn handle(&self, request: Request<GetHLSMediaPlaylistInput>) -> Result<Reply<PlayerOutput>, ApiError> {
        let input = request.input;
        let player = self.inner.player(&input.session_token)?.of_hls()?;
        let track = input.track_number.unwrap_or(1);
        let view = self.inner.view(&player, track, wish(&input)?).await?;
        if self.inner.settings.playback.strict && player.session.mode == Mode::Live {
            let since = self.inner.clock.now().plus_millis(-limits::LIVE_WITHIN_MS);
            let ends = |entry: &Entry| entry.server.plus_millis(i64::from(entry.length_ms));
            if view.window.entries.last().is_none_or(|last| ends(last) < since) {
                let why = "The stream has had no fragment for 30 seconds.";
                return Err(MediaError::Missing(why).into());
            }
        }
        let text = playlist(&player, &view, track, wants_numbers(input.display_fragment_number)).text();
        Ok(answer(CONTENT_TYPE, Keep::Never, vec![text.into()]))
    }
}

/// What a player wants the playlist to hold before it is sent.
fn wish(input: &GetHLSMediaPlaylistInput) -> Result<Wish, MediaError> {
    let ordinal = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    if input.hls_part.is_some() && input.hls_msn.is_none() {
        let why = "_HLS_part needs _HLS_msn.";
        return Err(MediaError::InvalidArgument(why.to_owned()));
    }
    Ok(Wish {
        msn: ordinal(input.hls_msn),
        part: ordinal(input.hls_part),
    })
}

/// The media playlist of a track.
fn playlist(player: &Player, view: &View, track: i32, numbers: bool) -> Media {
    let (session, window) = (&player.session, &view.window);
    let skip = window.entries.len() - view.parts.len();
    let told = window
        .entries
        .iter()
        .map(|_| None)
        .take(skip)
        .chain(view.parts.iter().map(Some));
    let of_entry = |((entry, told), sequence): ((&Entry, Option<&ToldParts>), u64)| Segment {
        parts: told.map_or_else(Vec::new, |told| parts(player, sequence, track, told)),
        ..segment(player, entry, track, numbers)
    };
    let open = view.open.as_ref();
    let part_ms = u32::from(session.part_ms);
    let on_demand = session.mode == Mode::OnDemand;
    Media {
        version: version(session.protocol),
        kind: match session.mode {
            Mode::OnDemand => Kind::Vod,
            Mode::Live | Mode::LiveReplay => Kind::Live { ended: window.ended },
        },
        target_duration_s: target(session.target_s, window.longest_ms),
        // AWS counts the fragments of a range from 1, and those of a live session from 0.
        media_sequence: window.first + u64::from(on_demand),
        discontinuity_sequence: window.discontinuities,
        low_latency: (part_ms > 0).then(|| LowLatency {
            part_target_ms: part_ms,
            hold_back_ms: part_ms * PARTS_HELD_BACK,
        }),
        segments: window
            .entries
            .iter()
            .zip(told)
            .zip(window.first..)
            .map(of_entry)
            .collect(),
        // How long it lasts is not known yet, and a date range may not be said anew.
        open: open.map(|(entry, told)| Segment {
            fragment: None,
            ..of_entry(((entry, Some(told)), view.open_sequence()))
        }),
        preload_hint: (part_ms > 0).then(|| next_part(player, view, track)),
        rendition: rendition(player, view, track, numbers),
    }
}

/// What the playlist of a track says of the other one, so that a player that turns to it knows what to ask for.
fn rendition(player: &Player, view: &View, track: i32, numbers: bool) -> Option<RenditionReport> {
    let (_, told) = view.open.as_ref()?;
    let parts = told.beside?;
    Some(RenditionReport {
        uri: player.playlist_uri(3 - u8::try_from(track).unwrap_or(1), numbers),
        last_msn: view.open_sequence().saturating_sub(u64::from(parts == 0)),
        last_part: parts.checked_sub(1),
    })
}

/// The parts of a fragment.
fn parts(player: &Player, sequence: u64, track: i32, told: &ToldParts) -> Vec<Part> {
    let part = |(part, at): (&Told, u64)| Part {
        uri: part_uri(player, sequence, track, at),
        duration_ms: part.duration_ms,
        independent: part.independent,
    };
    told.parts.iter().zip(0..).map(part).collect()
}

/// The part that comes next: of the fragment that arrives, or the first of the one after it.
fn next_part(player: &Player, view: &View, track: i32) -> String {
    let sequence = view.open_sequence();
    match &view.open {
        Some((_, told)) if told.more => part_uri(player, sequence, track, told.parts.len() as u64),
        Some(_) => part_uri(player, sequence + 1, track, 0),
        None => part_uri(player, sequence, track, 0),
    }
}

/// A part is named by the number of its fragment in the session, which is known before the fragment is.
fn part_uri(player: &Player, sequence: u64, track: i32, part: u64) -> String {
    let token = &player.token;
    format!(
        "getMP4MediaFragment.mp4?FragmentNumber={sequence}&SessionToken={token}&TrackNumber={track}&PartNumber={part}"
    )
}

/// EXT-X-TARGETDURATION: as foreseen when the session was made, so that it stays the same; a fragment that is longer
/// nevertheless raises it, since a duration above it breaks players at once.
fn target(foreseen_s: u16, longest_ms: u32) -> u32 {
    u32::from(foreseen_s).max(longest_ms.saturating_add(500) / 1000).max(1)
}

fn segment_uri(player: &Player, entry: &Entry, track: i32) -> String {
    let operation = match player.session.protocol {
        Protocol::HlsMp4 | Protocol::Dash => "getMP4MediaFragment.mp4",
        Protocol::HlsTs => "getTSFragment.ts",
    };
    let (number, token) = (entry.number, &player.token);
    format!("{operation}?FragmentNumber={number}&SessionToken={token}&TrackNumber={track}")
}

fn segment(player: &Player, entry: &Entry, track: i32, numbers: bool) -> Segment {
    let session = &player.session;
    let (token, number) = (&player.token, entry.number);
    let mp4 = session.protocol == Protocol::HlsMp4;
    let shown = match session.producer_time {
        true => entry.producer,
        false => entry.server,
    };
    Segment {
        uri: segment_uri(player, entry, track),
        duration_ms: entry.length_ms,
        discontinuity: entry.discontinuity,
        map: mp4.then(|| {
            let map = entry.map;
            format!("getMP4InitFragment.mp4?SessionToken={token}&TrackNumber={track}&SequenceNumber={map}")
        }),
        program_date_time_ms: (session.show_time || numbers).then(|| shown.millis()),
        gap: entry.gap,
        fragment: numbers.then(|| FragmentRange {
            number: number.to_string(),
            server_ms: entry.server.millis(),
        }),
        parts: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn the_target_duration_stays_unless_a_segment_would_be_longer() {
        assert_eq!(target(2, 1_967), 2);
        assert_eq!(target(2, 2_499), 2, "rounded to the nearest, as the RFC compares it");
        assert_eq!(target(2, 2_500), 3);
        assert_eq!(target(0, 40), 1);
    }
}
