//! GetDASHManifest: one manifest for a session, with one period.
//!
//! The time line begins with 0 and has no gaps: where the producer's time jumps, the jump is left out, as AWS does it,
//! since players of DASH stop at gaps. Fragments are named by their number in the session ($Number$), because players
//! compute with it and 47 digits are too many for them.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use packaging::dash::{Kind, Manifest, Representation, Segment};
use packaging::{PackagingError, TrackConfig};
use storage::FragmentInfo;
use wire::kinesisvideo_archived_media::{GetDASHManifestInput, PlayerOutput, op};

use super::hls::Character;
use super::session::Protocol;
use super::timeline::{Entry, Window};
use super::{Keep, Player, answer};
use crate::VideoStreams;
use crate::error::MediaError;
use crate::limits;

impl Handle<op::GetDASHManifest> for VideoStreams {
    async fn handle(&self, request: Request<GetDASHManifestInput>) -> Result<Reply<PlayerOutput>, ApiError> {
        let player = self.inner.player(&request.input.session_token)?;
        if player.session.protocol != Protocol::Dash {
            let why = "The SessionToken is one of GetHLSStreamingSessionURL.";
            return Err(MediaError::InvalidArgument(why.to_owned()).into());
        }
        let now = self.inner.clock.now();
        let (window, maps, due_ms) = self
            .inner
            .with_timeline(&player, |timeline| {
                (timeline.window(now), timeline.maps(), timeline.initial_ms())
            })
            .await?;
        let character = self.character(&player, &window).await?;
        if maps > 1 {
            let config = character.video().or(character.audio());
            return Err(codec_change(config.map(AsRef::as_ref)).into());
        }
        let text = manifest(&player, &window, &character, now, due_ms).text();
        Ok(answer("application/dash+xml", Keep::Never, vec![text.into()]))
    }
}

fn is_other_codec(one: &FragmentInfo, other: &FragmentInfo) -> bool {
    one.tracks_hash != 0 && other.tracks_hash != 0 && one.tracks_hash != other.tracks_hash
}

/// Leaves of what a live session would begin with, the oldest first, what has the codec of the newest: all that comes will
/// have it too.
pub(super) fn begin_behind_codec_change(listed: &mut Vec<FragmentInfo>) {
    if let Some(newest) = listed.last().copied()
        && let Some(last) = listed.iter().rposition(|info| is_other_codec(info, &newest))
    {
        listed.drain(..=last);
    }
}

/// Whether the first `most` fragments that are played of a stored range differ in codec. The range is refused when the
/// session is made rather than when it is played.
pub(super) fn changes_codec(listed: &[FragmentInfo], producer_time: bool, most: usize) -> bool {
    // Of equal producer times the last one is played.
    let nexts = listed.iter().skip(1).map(Some).chain([None]);
    let same_time = |info: &FragmentInfo, next: Option<&FragmentInfo>| {
        producer_time && next.is_some_and(|next| next.producer_timestamp == info.producer_timestamp)
    };
    let played = listed.iter().zip(nexts).filter(|(info, next)| !same_time(info, *next));
    let mut played = played.map(|(info, _)| info).take(most);
    let Some(first) = played.next() else { return false };
    played.any(|info| is_other_codec(first, info))
}

/// A DASH session tolerates no change of codec.
pub(super) fn codec_change(config: Option<&TrackConfig>) -> MediaError {
    MediaError::Packaging(PackagingError::InvalidCodecPrivateData {
        track: config.map_or(0, TrackConfig::number),
        codec: config.map_or_else(String::new, |config| config.codecs().to_owned()),
        why: "it changes within the session, which DASH cannot play; ask for a range without the change, or for HLS",
    })
}

fn manifest<'a>(
    player: &Player,
    window: &Window,
    character: &'a Character,
    now: Timestamp,
    due_ms: i64,
) -> Manifest<'a> {
    let session = &player.session;
    let longest_ms = window.longest_ms.max(u32::from(session.target_s).saturating_mul(1000));
    Manifest {
        kind: if window.ended {
            Kind::Static
        } else {
            Kind::Dynamic {
                // What the session began with was due when it was made.
                availability_start_ms: session.created.millis().saturating_sub(due_ms),
                now_ms: now.millis(),
                update_ms: (longest_ms / 2).max(limits::MANIFEST_UPDATE_MS_MIN),
            }
        },
        offset_ms: if session.grows() {
            0
        } else {
            window.entries.first().map_or(0, |first| first.media_ms)
        },
        longest_ms,
        start_number: window.first,
        segments: segments(player, window),
        representations: representations(player, character),
    }
}

fn segments(player: &Player, window: &Window) -> Vec<Segment> {
    let session = &player.session;
    let nexts = window.entries.iter().skip(1).map(Some).chain([None]);
    let with_next = window.entries.iter().zip(nexts);
    with_next
        .map(|(entry, next): (&Entry, Option<&Entry>)| {
            // A fragment lasts until the next one begins; the last one as long as it says.
            let until_next = next.and_then(|next| u32::try_from(next.media_ms.saturating_sub(entry.media_ms)).ok());
            let shown = match session.producer_time {
                true => entry.producer,
                false => entry.server,
            };
            Segment {
                start_ms: entry.media_ms,
                duration_ms: until_next.unwrap_or(entry.length_ms),
                timestamp_ms: session.show_time.then(|| shown.millis()),
                fragment_number: session.show_number.then(|| entry.number.to_string()),
            }
        })
        .collect()
}

fn representations<'a>(player: &Player, character: &'a Character) -> Vec<Representation<'a>> {
    let (video, audio) = (character.video(), character.audio());
    let tracks = [
        video.map(|config| ("video", config)),
        audio.map(|config| ("audio", config)),
    ];
    let total = character.peak.max(1);
    let bytes = |audio: bool| {
        let track = if audio {
            character.fragment.audio()
        } else {
            character.fragment.video()
        };
        let lengths = track
            .into_iter()
            .flat_map(|track| track.samples.iter().map(|sample| sample.data.len() as u64));
        lengths.sum::<u64>()
    };
    let all = (bytes(true) + bytes(false)).max(1);
    let token = &player.token;
    let made = tracks
        .into_iter()
        .flatten()
        .zip(1_u8..)
        .map(|((content, config), track)| Representation {
            content,
            track,
            codecs: config.codecs(),
            bandwidth: (u128::from(total) * u128::from(bytes(content == "audio")) / u128::from(all)) as u64,
            resolution: config.picture().map(|size| (size.width, size.height)),
            sampling_hz: config.audio().map(|audio| audio.sampling_hz),
            initialization: format!("getMP4InitFragment.mp4?SessionToken={token}&TrackNumber={track}&SequenceNumber=0"),
            media: format!("getMP4MediaFragment.mp4?FragmentNumber=$Number$&SessionToken={token}&TrackNumber={track}"),
        });
    made.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragments(of: &[(i64, u64)]) -> Vec<FragmentInfo> {
        let infos = of.iter().zip(1_u64..).map(|((time, tracks_hash), n)| FragmentInfo {
            number: crate::testing::number(n),
            server_timestamp: Timestamp::from_millis(*time),
            producer_timestamp: Timestamp::from_millis(*time),
            length_ms: 1000,
            size: 1,
            header_len: 1,
            position: n,
            frame_count: 1,
            tracks_hash: *tracks_hash,
        });
        infos.collect()
    }

    #[test]
    fn a_live_session_begins_behind_the_last_change_of_codec() {
        for (of, left) in [
            (&[(0, 7), (1, 7), (2, 7)][..], 3),
            (&[(0, 7), (1, 8), (2, 8)][..], 2),
            (&[(0, 7), (1, 0), (2, 8)][..], 2),
            (&[(0, 8), (1, 7), (2, 8)][..], 1),
            (&[][..], 0),
        ] {
            let mut listed = fragments(of);
            begin_behind_codec_change(&mut listed);
            assert_eq!(listed.len(), left, "{of:?}");
        }
    }

    #[test]
    fn a_stored_range_is_refused_only_for_what_its_manifest_would_list() {
        let range = fragments(&[(0, 7), (1, 8), (1, 7), (2, 7), (3, 8)]);
        assert!(changes_codec(&range, false, 5) && changes_codec(&range, true, 5));
        assert!(
            !changes_codec(&range, true, 3),
            "of equal producer times the last one is played"
        );
        assert!(changes_codec(&range, false, 3));
        assert!(!changes_codec(&[], true, 3));
    }
}
