//! One number for what a decoder must be set up with: it is stored with every fragment, so that a playlist sees a change
//! of codec, picture size or sampling without reading media. It must stay the same over versions and machines.

use matroska::{Track, TrackKind};
use sha2::{Digest, Sha256};

/// The fingerprint of a header's tracks, in their order: number, kind, codec, codec private data, picture size, sampling.
/// Names and languages do not count. Never 0, which stands for "unknown".
pub fn fingerprint(tracks: &[Track]) -> u64 {
    let mut hash = Sha256::new();
    for track in tracks {
        let kind = match track.kind {
            TrackKind::Video => 1,
            TrackKind::Audio => 2,
            TrackKind::Subtitle => 17,
            TrackKind::Other(kind) => kind,
        };
        for number in [track.number, kind, u64::from(track.encoded)] {
            hash.update(number.to_le_bytes());
        }
        for bytes in [track.codec_id.as_bytes(), &track.codec_private] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        // Absent parts have a length of their own, so that they are told from zeros.
        let video = track.video.map(|video| [video.width, video.height]);
        let audio = track.audio.map(|audio| {
            let depth = audio.bit_depth.unwrap_or(0);
            [audio.sampling_hz.to_bits(), audio.channels, depth]
        });
        for part in [
            video.as_ref().map(|v| v.as_slice()),
            audio.as_ref().map(|a| a.as_slice()),
        ] {
            let numbers = part.unwrap_or_default();
            hash.update([numbers.len() as u8]);
            for number in numbers {
                hash.update(number.to_le_bytes());
            }
        }
    }
    let digest: [u8; 32] = hash.finalize().into();
    let (first, _) = digest.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first).max(1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use matroska::{Audio, Video};

    use super::*;

    fn track() -> Track {
        Track {
            number: 1,
            uid: 7,
            kind: TrackKind::Video,
            codec_id: "V_MPEG4/ISO/AVC".to_owned(),
            codec_private: Bytes::from_static(&[1, 0x42, 0, 30]),
            name: "front".to_owned(),
            language: "eng".to_owned(),
            default_duration_ns: Some(40_000_000),
            encoded: false,
            video: Some(Video {
                width: 640,
                height: 480,
            }),
            audio: None,
        }
    }

    #[test]
    fn a_stored_fingerprint_means_the_same_in_every_version() {
        assert_eq!(
            fingerprint(&[track()]),
            0x4f65_71e3_108b_7d38,
            "fragments on disk carry this number"
        );
    }

    #[test]
    fn whatever_a_decoder_must_know_changes_the_fingerprint_and_nothing_else_does() {
        let changes: [fn(&mut Track); 8] = [
            |t| t.number = 2,
            |t| t.kind = TrackKind::Audio,
            |t| t.codec_id = "V_MPEGH/ISO/HEVC".to_owned(),
            |t| t.codec_private = Bytes::from_static(&[1, 0x42, 0, 31]),
            |t| t.encoded = true,
            |t| {
                t.video = Some(Video {
                    width: 640,
                    height: 360,
                });
            },
            |t| t.video = None,
            |t| {
                t.audio = Some(Audio {
                    sampling_hz: 48_000.0,
                    channels: 2,
                    bit_depth: None,
                });
            },
        ];
        let plain = fingerprint(&[track()]);
        let mut seen = vec![plain, fingerprint(&[track(), track()]), fingerprint(&[])];
        for change in changes {
            let mut changed = track();
            change(&mut changed);
            seen.push(fingerprint(&[changed]));
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        let mut same = track();
        (same.name, same.language, same.uid) = ("back".to_owned(), "deu".to_owned(), 8);
        assert_eq!(fingerprint(&[same]), plain);
    }
}
