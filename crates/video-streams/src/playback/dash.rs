//! GetDASHManifest: one manifest for a session, with one period.
//!
//! The time line begins with 0 and has no gaps: where the producer's time jumps, the jump is left out, as AWS does it,
//! since players of DASH stop at gaps. Fragments are named by their number in the session ($Number$), because players
//! compute with it and 47 digits are too many for them.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use packaging::dash::{Kind, Manifest, Representation, Segment};
use packaging::{PackagingError, TrackConfig};
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

/// A DASH session tolerates no change of codec.
fn codec_change(config: Option<&TrackConfig>) -> MediaError {
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
