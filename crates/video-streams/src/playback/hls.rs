//! GetHLSMasterPlaylist and GetHLSMediaPlaylist: what stands in the playlists of a session.

use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use packaging::TrackConfig;
use packaging::hls::{FragmentRange, Kind, Master, Media, Segment};
use storage::FragmentInfo;
use wire::kinesisvideo_archived_media::{
    DASHDisplayFragmentNumber, GetHLSMasterPlaylistInput, GetHLSMediaPlaylistInput, PlayerOutput, op,
};

use super::session::{Mode, Protocol};
use super::timeline::{Entry, Window};
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
        let now = self.inner.clock.now();
        let window = self
            .inner
            .with_timeline(&player, |timeline| timeline.window(now))
            .await?;
        if self.inner.settings.playback.strict && player.session.mode == Mode::Live {
            let since = now.plus_millis(-limits::LIVE_WITHIN_MS);
            let ends = |entry: &Entry| entry.server.plus_millis(i64::from(entry.length_ms));
            if window.entries.last().is_none_or(|last| ends(last) < since) {
                let why = "The stream has had no fragment for 30 seconds.";
                return Err(MediaError::Missing(why).into());
            }
        }
        let track = input.track_number.unwrap_or(1);
        let text = playlist(&player, &window, track, wants_numbers(input.display_fragment_number)).text();
        Ok(answer(CONTENT_TYPE, Keep::Never, vec![text.into()]))
    }
}

/// The media playlist of a track.
fn playlist(player: &Player, window: &Window, track: i32, numbers: bool) -> Media {
    let session = &player.session;
    let of_entry = |entry: &Entry| segment(player, entry, track, numbers);
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
        low_latency: None,
        segments: window.entries.iter().map(of_entry).collect(),
        open: None,
        preload_hint: None,
    }
}

/// EXT-X-TARGETDURATION: as foreseen when the session was made, so that it stays the same; a fragment that is longer
/// nevertheless raises it, since a duration above it breaks players at once.
fn target(foreseen_s: u16, longest_ms: u32) -> u32 {
    u32::from(foreseen_s).max(longest_ms.saturating_add(500) / 1000).max(1)
}

fn segment(player: &Player, entry: &Entry, track: i32, numbers: bool) -> Segment {
    let session = &player.session;
    let (token, number) = (&player.token, entry.number);
    let mp4 = session.protocol == Protocol::HlsMp4;
    let operation = if mp4 {
        "getMP4MediaFragment.mp4"
    } else {
        "getTSFragment.ts"
    };
    let shown = match session.producer_time {
        true => entry.producer,
        false => entry.server,
    };
    Segment {
        uri: format!("{operation}?FragmentNumber={number}&SessionToken={token}&TrackNumber={track}"),
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
