//! Boxes of ISO/IEC 14496-12, as far as a writer needs them. Hand-written: a library's typed boxes would be filled with
//! the same fields, cannot write tables of samples without a second copy of them, and lack A-law and µ-law entries.

use crate::track::{Codec, MediaKind, TrackConfig};

/// The identity matrix of mvhd and tkhd.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Something that appends big-endian numbers.
pub(crate) trait Put {
    fn u8(&mut self, value: u8);
    fn u16(&mut self, value: u16);
    fn u32(&mut self, value: u32);
    fn u64(&mut self, value: u64);
    fn raw(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn u8(&mut self, value: u8) {
        self.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends a box whose content `fill` appends. Headers stay far below 4 GiB, so that a 32-bit size always does.
pub(crate) fn boxed(out: &mut Vec<u8>, kind: &[u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.u32(0);
    out.raw(kind);
    fill(out);
    let size = out.len() - start;
    patch_u32(out, start, size);
}

/// Appends a box with version and flags.
pub(crate) fn full(out: &mut Vec<u8>, kind: &[u8; 4], version: u8, flags: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, kind, |out| {
        out.u32(u32::from(version) << 24 | flags);
        fill(out);
    });
}

/// Writes over four bytes.
pub(crate) fn patch_u32(out: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// ftyp or styp.
pub(crate) fn brands(out: &mut Vec<u8>, kind: &[u8; 4], major: &[u8; 4], compatible: &[&[u8; 4]]) {
    boxed(out, kind, |out| {
        out.raw(major);
        out.u32(0);
        compatible.iter().for_each(|brand| out.raw(*brand));
    });
}

/// The movie header. Version 1, so that a clip of any length fits.
pub(crate) fn mvhd(out: &mut Vec<u8>, timescale: u32, duration: u64, next_track: u32) {
    full(out, b"mvhd", 1, 0, |out| {
        out.u64(0);
        out.u64(0);
        out.u32(timescale);
        out.u64(duration);
        out.u32(0x1_0000);
        out.u16(0x100);
        out.raw(&[0; 10]);
        MATRIX.iter().for_each(|value| out.u32(*value));
        out.raw(&[0; 24]);
        out.u32(next_track);
    });
}

/// The track header: enabled, in the movie. `duration` in units of the movie.
pub(crate) fn tkhd(out: &mut Vec<u8>, track: &TrackConfig, duration: u64) {
    full(out, b"tkhd", 1, 7, |out| {
        out.u64(0);
        out.u64(0);
        out.u32(track.id());
        out.u32(0);
        out.u64(duration);
        out.raw(&[0; 8]);
        out.u16(0);
        let audio = track.kind() == MediaKind::Audio;
        out.u16(u16::from(audio));
        out.u16(if audio { 0x100 } else { 0 });
        out.u16(0);
        MATRIX.iter().for_each(|value| out.u32(*value));
        let (width, height) = dimensions(track);
        out.u32(u32::from(width) << 16);
        out.u32(u32::from(height) << 16);
    });
}

/// The media header. `duration` in units of the track.
pub(crate) fn mdhd(out: &mut Vec<u8>, track: &TrackConfig, duration: u64) {
    full(out, b"mdhd", 1, 0, |out| {
        out.u64(0);
        out.u64(0);
        out.u32(track.timescale());
        out.u64(duration);
        out.u16(language(track.language()));
        out.u16(0);
    });
}

/// ISO 639-2/T in 5 bits a letter; "und" where it is not three lower-case letters.
fn language(text: &str) -> u16 {
    let letters = match text.as_bytes() {
        [a, b, c] if text.bytes().all(|letter| letter.is_ascii_lowercase()) => [*a, *b, *c],
        _ => *b"und",
    };
    letters.iter().fold(0, |code, letter| {
        code << 5 | u16::from(letter.saturating_sub(0x60) & 0x1F)
    })
}

/// The handler, then the media's own header and where its data lies: everything of `minf` in front of `stbl`.
pub(crate) fn hdlr(out: &mut Vec<u8>, track: &TrackConfig) {
    full(out, b"hdlr", 0, 0, |out| {
        let (kind, name): (&[u8; 4], &[u8]) = match track.kind() {
            MediaKind::Video => (b"vide", b"Video\0"),
            MediaKind::Audio => (b"soun", b"Audio\0"),
        };
        out.u32(0);
        out.raw(kind);
        out.raw(&[0; 12]);
        out.raw(name);
    });
}

/// vmhd or smhd, and dinf.
pub(crate) fn media_information(out: &mut Vec<u8>, track: &TrackConfig) {
    match track.kind() {
        MediaKind::Video => full(out, b"vmhd", 0, 1, |out| out.raw(&[0; 8])),
        MediaKind::Audio => full(out, b"smhd", 0, 0, |out| out.raw(&[0; 4])),
    }
    boxed(out, b"dinf", |out| {
        full(out, b"dref", 0, 0, |out| {
            out.u32(1);
            full(out, b"url ", 0, 1, |_| {});
        });
    });
}

/// The sample description.
pub(crate) fn stsd(out: &mut Vec<u8>, track: &TrackConfig) {
    full(out, b"stsd", 0, 0, |out| {
        out.u32(1);
        match track.codec() {
            Codec::H264 => visual(out, b"avc1", b"avcC", track),
            Codec::H265 => visual(out, b"hvc1", b"hvcC", track),
            Codec::Aac => audible(out, b"mp4a", track, |out| esds(out, track)),
            Codec::Alaw => audible(out, b"alaw", track, |_| {}),
            Codec::Mulaw => audible(out, b"ulaw", track, |_| {}),
        }
    });
}

fn dimensions(track: &TrackConfig) -> (u16, u16) {
    let edge = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
    track
        .picture()
        .map_or((0, 0), |size| (edge(size.width), edge(size.height)))
}

fn visual(out: &mut Vec<u8>, entry: &[u8; 4], config: &[u8; 4], track: &TrackConfig) {
    boxed(out, entry, |out| {
        out.raw(&[0; 6]);
        out.u16(1);
        out.raw(&[0; 16]);
        let (width, height) = dimensions(track);
        out.u16(width);
        out.u16(height);
        out.u32(0x48_0000);
        out.u32(0x48_0000);
        out.u32(0);
        out.u16(1);
        out.raw(&[0; 32]);
        out.u16(0x18);
        out.u16(0xFFFF);
        boxed(out, config, |out| out.raw(track.decoder_config()));
    });
}

fn audible(out: &mut Vec<u8>, entry: &[u8; 4], track: &TrackConfig, extra: impl FnOnce(&mut Vec<u8>)) {
    boxed(out, entry, |out| {
        out.raw(&[0; 6]);
        out.u16(1);
        out.raw(&[0; 8]);
        let audio = track.audio().unwrap_or_default();
        out.u16(audio.channels);
        out.u16(16);
        out.u32(0);
        // 16.16; a rate that does not fit stands in the decoder configuration alone.
        out.u32(u16::try_from(audio.sampling_hz).map_or(0, |rate| u32::from(rate) << 16));
        extra(out);
    });
}

/// ISO/IEC 14496-14 §5.6.1: the descriptors around an AudioSpecificConfig.
fn esds(out: &mut Vec<u8>, track: &TrackConfig) {
    full(out, b"esds", 0, 0, |out| {
        descriptor(out, 3, |out| {
            out.u16(0);
            out.u8(0);
            descriptor(out, 4, |out| {
                out.u8(0x40);
                out.u8(0x15);
                out.raw(&[0; 11]);
                descriptor(out, 5, |out| out.raw(track.decoder_config()));
            });
            descriptor(out, 6, |out| out.u8(2));
        });
    });
}

/// A descriptor with its length in four bytes of seven bits.
fn descriptor(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.u8(tag);
    let start = out.len();
    out.u32(0);
    fill(out);
    let len = out.len() - start - 4;
    let septet = |shift: u32| (len >> shift & 0x7F) as u8;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&[septet(21) | 0x80, septet(14) | 0x80, septet(7) | 0x80, septet(0)]);
    }
}
