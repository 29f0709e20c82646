//! From chosen frames to images.

use base::AccountId;
use bytes::Bytes;
use storage::{MediaStore, StreamId, TimeAxis};

use super::source::Source;
use crate::ports::{NotDecodable, StillFormat, StillSize, Stills, StillsError, StillsJob};

/// Why images could not be made at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    /// The decoder is absent, busy or broken.
    #[error(transparent)]
    Stills(#[from] StillsError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// What all images of a request have in common.
pub(crate) struct Maker<'a> {
    pub stills: &'a dyn Stills,
    pub store: &'a dyn MediaStore,
    pub account: AccountId,
    pub stream: StreamId,
    pub axis: TimeAxis,
    pub format: StillFormat,
    pub size: StillSize,
}

impl Maker<'_> {
    /// An answer for each of the wanted frames, which are indexes of [`Source::first_at`], in their order.
    pub async fn images(
        &self,
        source: &mut Source,
        wanted: &[usize],
    ) -> Result<Vec<Result<Bytes, NotDecodable>>, MakeError> {
        // Frames are shown in another order than they are decoded in.
        let mut in_order: Vec<(usize, usize)> = wanted.iter().copied().enumerate().collect();
        in_order.sort_unstable_by_key(|(_, index)| *index);
        let sorted: Vec<usize> = in_order.iter().map(|(_, index)| *index).collect();
        let made = self.in_decoding_order(source, &sorted).await?;
        let mut back: Vec<_> = in_order.into_iter().map(|(place, _)| place).zip(made).collect();
        back.sort_unstable_by_key(|(place, _)| *place);
        Ok(back.into_iter().map(|(_, made)| made).collect())
    }

    async fn in_decoding_order(
        &self,
        source: &mut Source,
        wanted: &[usize],
    ) -> Result<Vec<Result<Bytes, NotDecodable>>, MakeError> {
        if let Some(made) = self.together(source, wanted).await? {
            return Ok(made);
        }
        // One of them has no key frame, or all together are too much.
        let mut images = Vec::with_capacity(wanted.len());
        for index in wanted {
            let alone = match wanted {
                [_] => None,
                _ => self.together(source, std::slice::from_ref(index)).await?,
            };
            images.push(alone.and_then(|mut made| made.pop()).unwrap_or(Err(NotDecodable)));
        }
        Ok(images)
    }

    async fn together(
        &self,
        source: &mut Source,
        wanted: &[usize],
    ) -> Result<Option<Vec<Result<Bytes, NotDecodable>>>, MakeError> {
        let Some(track) = source.track.clone() else {
            return Ok(Some(vec![Err(NotDecodable); wanted.len()]));
        };
        let packets = match source.packets(self.store, self.stream, self.axis, wanted).await {
            Ok(Some(packets)) => packets,
            Ok(None) => return Ok(None),
            Err(storage::Error::Corrupt(why)) => {
                tracing::warn!(fragment = %source.info.number, %why, "no images of a damaged fragment");
                return Ok(Some(vec![Err(NotDecodable); wanted.len()]));
            }
            Err(error) => return Err(error.into()),
        };
        let job = StillsJob {
            account: self.account,
            codec: track.codec,
            codec_private: track.codec_private,
            format: self.format,
            size: self.size,
            packets,
        };
        let mut made = self.stills.make(job).await?;
        made.resize(wanted.len(), Err(NotDecodable));
        Ok(Some(made))
    }
}
