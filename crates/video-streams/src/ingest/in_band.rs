//! Looks into the first frames of tracks that declare no codec private data: whether what a decoder needs is in the frames
//! themselves. It only tells; the producer's bytes stay as they are, and those who package media take it from there.

use bytes::BytesMut;
use matroska::codec::{AnnexB, CODEC_AAC, LengthPrefixed, NalCodec};
use matroska::{Block, Tracks};

use crate::ingest::rules::readable;
use crate::limits;

/// A track that declares no codec private data, and where that is instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InBand {
    /// The track's number.
    pub track: u64,
    /// Its codec.
    pub codec_id: String,
    /// What was found in its frames; `None` where nothing was.
    pub source: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Nal(NalCodec),
    Aac,
}

#[derive(Debug)]
struct Candidate {
    track: u64,
    codec_id: String,
    kind: Kind,
    fragments: u32,
    looked: bool,
}

/// The look-out of one connection. Costs nothing once every track is decided.
#[derive(Debug, Default)]
pub struct LookOut {
    candidates: Vec<Candidate>,
    /// The first bytes of the open fragment.
    held: BytesMut,
    decided: Vec<InBand>,
}

impl LookOut {
    /// Tracks of a header that need codec private data and declare none.
    pub fn new(tracks: &Tracks) -> Self {
        let bare = tracks.iter().filter(|track| track.codec_private.is_empty());
        let candidates = bare.filter_map(|track| {
            let nal = NalCodec::of_codec_id(&track.codec_id).map(Kind::Nal);
            let kind = nal.or_else(|| track.codec_id.starts_with(CODEC_AAC).then_some(Kind::Aac))?;
            Some(Candidate {
                track: track.number,
                codec_id: readable(&track.codec_id),
                kind,
                fragments: 0,
                looked: false,
            })
        });
        LookOut {
            candidates: candidates.collect(),
            ..LookOut::default()
        }
    }

    /// A fragment begins.
    pub fn begin(&mut self) {
        self.held.clear();
        for candidate in &mut self.candidates {
            candidate.looked = false;
        }
    }

    /// Its next bytes.
    pub fn data(&mut self, bytes: &[u8]) {
        if self.candidates.is_empty() {
            return;
        }
        let room = limits::IN_BAND_BYTES.saturating_sub(self.held.len());
        self.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// A frame is whole whose payload lies at `offset` of the fragment's bytes.
    pub fn frame(&mut self, block: &Block, offset: u64) {
        if self.candidates.is_empty() {
            return;
        }
        let held = &self.held;
        let found = self.candidates.iter_mut().position(|candidate| {
            if candidate.track != block.track || candidate.looked {
                return false;
            }
            candidate.looked = true;
            candidate.fragments += 1;
            let start = usize::try_from(offset).unwrap_or(usize::MAX);
            let length = usize::try_from(block.payload_len).unwrap_or(usize::MAX);
            let payload = held.get(start..).unwrap_or_default();
            let payload = payload.get(..length).unwrap_or(payload);
            let source = look(candidate.kind, payload);
            let decided = source.is_some() || candidate.fragments >= limits::IN_BAND_FRAGMENTS;
            if decided {
                self.decided.push(InBand {
                    track: candidate.track,
                    codec_id: std::mem::take(&mut candidate.codec_id),
                    source,
                });
            }
            decided
        });
        if let Some(index) = found {
            self.candidates.swap_remove(index);
        }
        if self.candidates.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// What was decided since the last call.
    pub fn take(&mut self) -> Vec<InBand> {
        std::mem::take(&mut self.decided)
    }
}

fn look(kind: Kind, payload: &[u8]) -> Option<&'static str> {
    match kind {
        Kind::Aac => {
            // ADTS: twelve sync bits, then layer 0.
            let adts = matches!(payload, [0xFF, second, ..] if second & 0xF6 == 0xF0);
            adts.then_some("the ADTS head of its frames")
        }
        Kind::Nal(codec) => {
            let annex_b = payload.starts_with(&[0, 0, 1]) || payload.starts_with(&[0, 0, 0, 1]);
            let mut types: Vec<u8> = match annex_b {
                true => AnnexB::new(payload).filter_map(|unit| unit_type(codec, unit)).collect(),
                false => LengthPrefixed::new(payload, 4)
                    .filter_map(|unit| unit_type(codec, unit))
                    .collect(),
            };
            types.sort_unstable();
            let all = |wanted: &[u8]| wanted.iter().all(|kind| types.contains(kind));
            match codec {
                NalCodec::H264 => all(&[7, 8]).then_some("the SPS and PPS in its first frame"),
                NalCodec::H265 => all(&[32, 33, 34]).then_some("the VPS, SPS and PPS in its first frame"),
            }
        }
    }
}

fn unit_type(codec: NalCodec, unit: &[u8]) -> Option<u8> {
    let first = unit.first()?;
    Some(match codec {
        NalCodec::H264 => first & 0x1F,
        NalCodec::H265 => first >> 1 & 0x3F,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_sets_and_adts_heads_are_found_where_cameras_put_them() {
        let avc = Kind::Nal(NalCodec::H264);
        let annex_b = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 4];
        assert_eq!(look(avc, &annex_b), Some("the SPS and PPS in its first frame"));
        assert_eq!(look(avc, &annex_b[9..]), None, "a PPS alone is not enough");
        let lengths = [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 2, 0x68, 3, 0, 0, 0, 2, 0x65, 4];
        assert_eq!(look(avc, &lengths), Some("the SPS and PPS in its first frame"));
        let hevc = [0, 0, 1, 0x40, 1, 0, 0, 1, 0x42, 1, 0, 0, 1, 0x44, 1, 0, 0, 1, 0x26, 1];
        assert!(look(Kind::Nal(NalCodec::H265), &hevc).is_some());
        assert_eq!(look(avc, &hevc), None);
        assert!(look(Kind::Aac, &[0xFF, 0xF1, 0x50]).is_some());
        for bytes in [&[][..], &[0xFF], &[0x21, 0x10]] {
            assert_eq!(look(Kind::Aac, bytes), None);
            assert_eq!(look(avc, bytes), None);
        }
    }
}
