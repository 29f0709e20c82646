//! GetMP4InitFragment, GetMP4MediaFragment and GetTSFragment: the media that playlists and manifests name.

use base::{ApiError, Handle, Reply, Request};
use packaging::fmp4::{self, TrackSamples};
use packaging::ts;
use storage::{FragmentInfo, FragmentNumber};
use wire::kinesisvideo_archived_media::{
    GetMP4InitFragmentInput, GetMP4MediaFragmentInput, GetTSFragmentInput, PlayerOutput, op,
};

use super::session::Protocol;
use super::{Keep, Player, answer, no_fragment};
use crate::VideoStreams;
use crate::archive::{self, ArchivedFragment, ArchivedTrack};
use crate::error::MediaError;

/// Most digits of a sequence number; fragment numbers have 47.
const SEQUENCE_DIGITS_MAX: usize = 19;

/// TrackNumber: 1 is the picture, or the sound where there is no picture; 2 is the sound beside a picture.
pub(super) fn track_of(fragment: &ArchivedFragment, number: i32) -> Option<&ArchivedTrack> {
    match (number, fragment.video()) {
        (1, Some(video)) => Some(video),
        (1, None) => fragment.audio(),
        (_, Some(_)) => fragment.audio(),
        (_, None) => None,
    }
}

fn samples_of(track: &ArchivedTrack) -> TrackSamples<'_> {
    TrackSamples {
        config: &track.config,
        samples: &track.samples,
    }
}

/// The number that counts segments in the media itself.
fn sequence(info: &FragmentInfo) -> u32 {
    (info.position & u64::from(u32::MAX)) as u32
}

/// The fragment of a request, and where it begins in the player's time line, in milliseconds.
struct Asked {
    info: FragmentInfo,
    base_ms: i64,
}

impl VideoStreams {
    async fn asked(&self, player: &Player, text: &str) -> Result<Asked, ApiError> {
        let dash = player.session.protocol == Protocol::Dash;
        if text.len() <= SEQUENCE_DIGITS_MAX {
            let sequence: u64 = text.parse().map_err(|_| no_fragment())?;
            let found = self
                .inner
                .with_timeline(player, |timeline| timeline.get(sequence).copied())
                .await?;
            let entry = found.filter(|entry| !entry.gap).ok_or_else(no_fragment)?;
            return Ok(Asked {
                info: get(player, entry.number).await?,
                base_ms: if dash { entry.media_ms } else { entry.producer.millis() },
            });
        }
        let number = text.parse().map_err(|_| {
            MediaError::InvalidArgument("The FragmentNumber is not one that this service gave.".to_owned())
        })?;
        let info = get(player, number).await?;
        let session = &player.session;
        let within = (session.start..=session.end).contains(&info.start(session.axis()));
        if !within || !(session.grows() || info.position <= session.position) {
            return Err(no_fragment());
        }
        Ok(Asked {
            info,
            base_ms: info.producer_timestamp.millis(),
        })
    }
}

async fn get(player: &Player, number: FragmentNumber) -> Result<FragmentInfo, ApiError> {
    player
        .store
        .get(player.state.id, number)
        .await
        .map_err(|error| match error {
            storage::Error::NotFound => no_fragment(),
            error => MediaError::from(error).into(),
        })
}

impl Handle<op::GetMP4InitFragment> for VideoStreams {
    async fn handle(&self, request: Request<GetMP4InitFragmentInput>) -> Result<Reply<PlayerOutput>, ApiError> {
        let input = request.input;
        let player = self.inner.player(&input.session_token)?;
        let map = input
            .sequence_number
            .and_then(|map| u64::try_from(map).ok())
            .unwrap_or(0);
        let info = self
            .inner
            .with_timeline(&player, |timeline| timeline.of_map(map).copied())
            .await?
            .ok_or_else(no_fragment)?;
        let fragment = archive::load(&*player.store, player.state.id, &info).await?;
        let track = track_of(&fragment, input.track_number.unwrap_or(1)).ok_or_else(no_fragment)?;
        let init = fmp4::init_segment(&[&track.config]);
        Ok(answer("video/mp4", Keep::Always, vec![init]))
    }
}

impl Handle<op::GetMP4MediaFragment> for VideoStreams {
    async fn handle(&self, request: Request<GetMP4MediaFragmentInput>) -> Result<Reply<PlayerOutput>, ApiError> {
        let input = request.input;
        let player = self.inner.player(&input.session_token)?;
        let track_number = input.track_number.unwrap_or(1);
        if let Some(part) = input.part_number {
            let sequence = input.fragment_number.parse().map_err(|_| no_fragment())?;
            let part = u64::try_from(part).map_err(|_| no_fragment())?;
            let bytes = self.inner.part(&player, track_number, sequence, part).await?;
            return Ok(answer("video/mp4", Keep::Always, vec![bytes]));
        }
        let asked = self.asked(&player, &input.fragment_number).await?;
        let fragment = archive::load(&*player.store, player.state.id, &asked.info).await?;
        let track = track_of(&fragment, track_number).ok_or_else(no_fragment)?;
        let tracks = [samples_of(track)];
        let segment = fmp4::media_segment(sequence(&asked.info), asked.base_ms, &tracks, &fragment.payload);
        let segment = segment.map_err(MediaError::from)?;
        Ok(answer("video/mp4", Keep::Always, segment.into_pieces()))
    }
}

impl Handle<op::GetTSFragment> for VideoStreams {
    async fn handle(&self, request: Request<GetTSFragmentInput>) -> Result<Reply<PlayerOutput>, ApiError> {
        let input = request.input;
        let player = self.inner.player(&input.session_token)?;
        if player.session.protocol != Protocol::HlsTs {
            let why = "The session's container is not MPEG_TS.";
            return Err(MediaError::InvalidArgument(why.to_owned()).into());
        }
        let asked = self.asked(&player, &input.fragment_number).await?;
        let fragment = archive::load(&*player.store, player.state.id, &asked.info).await?;
        let tracks = fragment.video().into_iter().chain(fragment.audio());
        let tracks: Vec<_> = tracks.map(samples_of).collect();
        let segment = ts::segment(asked.info.position, asked.base_ms, &tracks, &fragment.payload);
        Ok(answer(
            "video/mp2t",
            Keep::Always,
            vec![segment.map_err(MediaError::from)?],
        ))
    }
}
