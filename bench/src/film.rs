//! A film in memory, frame by frame, as a vision session takes it.

use std::path::Path;

use bytes::Bytes;
use matroska::{Event, Limits, Reader};
use vision::{Codec, Frame};

use crate::Failure;

/// The video track of a Matroska file.
pub struct Film {
    pub codec: Codec,
    pub codec_private: Bytes,
    pub frames: Vec<Frame>,
}

impl Film {
    /// The first track that can be decoded.
    pub fn read(path: &Path) -> Result<Film, Failure> {
        let mut reader = Reader::new(Limits::default());
        reader.push(Bytes::from(std::fs::read(path)?));
        reader.finish();
        let (mut track, mut frames, mut section) = (None, Vec::new(), Vec::new());
        while let Some(event) = reader.next()? {
            match event {
                Event::Tracks(tracks) => {
                    track = tracks
                        .iter()
                        .find(|t| Codec::from_matroska(&t.codec_id).is_some())
                        .cloned();
                }
                Event::DocumentStart { .. } | Event::ClusterStart { .. } => section.clear(),
                Event::Data(bytes) => section.extend_from_slice(&bytes),
                Event::BlockEnd(block) if track.as_ref().is_some_and(|t| t.number == block.track) => {
                    let start = block.payload_offset as usize;
                    let data = section
                        .get(start..start + block.payload_len as usize)
                        .ok_or("a cut block")?;
                    frames.push(Frame {
                        id: frames.len() as u64 + 1,
                        time_ms: block.time,
                        key: block.key,
                        data: Bytes::copy_from_slice(data),
                    });
                }
                _ => {}
            }
        }
        let track = track.ok_or("no H.264 or H.265 track")?;
        Ok(Film {
            codec: Codec::from_matroska(&track.codec_id).ok_or("an unknown codec")?,
            codec_private: track.codec_private,
            frames,
        })
    }
}
