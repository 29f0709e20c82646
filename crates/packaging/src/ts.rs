//! MPEG-TS (ISO/IEC 13818-1) for HLS: one segment for each stored fragment, with all its tracks: H.264, H.265, AAC (ADTS).
//!
//! Segments are made apart, by any server, in any order, and still follow each other: the program tables stand once at
//! the start of each and count by the segment's own number, and every elementary stream ends on a multiple of 16 packets
//! (its last frame is spread over a few more packets), so that every segment begins with continuity counter 0.
//!
//! Decode times. In an MPEG-TS no frame is shown before it is decoded, so that with reordered pictures decode times move
//! ahead by the depth that the sequence parameter set declares, else by what this fragment needs. Times wrap at 33 bits.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use matroska::codec::{AvcConfig, HevcConfig, LengthPrefixed, NalCodec, NalFraming, reordered_frames};

use crate::PackagingError;
use crate::fmp4::TrackSamples;
use crate::timeline::{Sample, units_of_ms};
use crate::track::{Codec, MediaKind, TrackConfig};

/// Content type.
pub const CONTENT_TYPE: &str = "video/mp2t";

const PACKET: usize = 188;
const PID_PAT: u16 = 0;
const PID_PMT: u16 = 0x1000;
const PID_FIRST: u16 = 0x100;

/// Units of a second.
const CLOCK: u32 = 90_000;
/// How far the program clock is behind the decode time of what is being sent: 100 ms for a decoder's buffer.
const PCR_LEAD: i64 = 9_000;
/// The clock stands in the stream at least this often: §2.7.2 allows 100 ms.
const PCR_EVERY: i64 = 8_100;
/// Sound is packed together up to so many bytes and units: a packet a frame would waste half of it.
const AUDIO_PES_BYTES: usize = 8 << 10;
const AUDIO_PES_SPAN: i64 = 9_000;

/// The segment of a fragment. `base_ms` is the time of its cluster on the presentation's time line; `sequence` goes up by
/// one from segment to segment (a fragment's commit position does). `payload` is what the samples' ranges mean.
///
/// # Errors
/// `UnsupportedCodec` for G.711, which has no mapping; `InvalidFrame`.
pub fn segment(
    sequence: u64,
    base_ms: i64,
    tracks: &[TrackSamples<'_>],
    payload: &[u8],
) -> Result<Bytes, PackagingError> {
    let mut streams = Vec::with_capacity(tracks.len());
    for (track, n) in tracks.iter().zip(0_u16..) {
        streams.push(Elementary::new(*track, PID_FIRST + n, base_ms)?);
    }
    let bytes: usize = tracks
        .iter()
        .flat_map(|track| track.samples)
        .map(|sample| sample.data.len())
        .sum();
    let mut out = Packets {
        out: BytesMut::with_capacity(bytes + bytes / 16 + 64 * PACKET),
        pcr_pid: clock_pid(&streams),
        last_pcr: None,
    };
    out.tables(&streams, sequence);
    let mut units = Vec::new();
    for (stream, at) in streams.iter().zip(0_usize..) {
        units.extend(stream.access_units(at));
    }
    // By decode time; of equal ones, the first track's first.
    units.sort_by_key(|unit| unit.decoded);
    let mut left = vec![0_usize; streams.len()];
    for unit in &units {
        left.get_mut(unit.stream).into_iter().for_each(|n| *n += 1);
    }
    let mut elementary = BytesMut::new();
    for unit in units {
        let Some(stream) = streams.get_mut(unit.stream) else {
            continue;
        };
        let last = left.get_mut(unit.stream).is_some_and(|n| {
            *n -= 1;
            *n == 0
        });
        elementary.clear();
        stream.put_elementary(&mut elementary, &unit, payload)?;
        out.pes(stream, &unit, &elementary, last);
    }
    Ok(out.out.freeze())
}

fn clock_pid(streams: &[Elementary<'_>]) -> u16 {
    let video = streams.iter().find(|stream| stream.config.kind() == MediaKind::Video);
    video.or(streams.first()).map_or(0x1FFF, |stream| stream.pid)
}

/// One track's stream.
struct Elementary<'a> {
    config: &'a TrackConfig,
    samples: &'a [Sample],
    pid: u16,
    base: i64,
    /// How far decode times move ahead.
    ahead: i64,
    /// Parameter sets in Annex B.
    sets: Bytes,
    counter: u8,
    packets: usize,
}

/// What one PES packet carries.
struct AccessUnit {
    stream: usize,
    samples: Range<usize>,
    shown: i64,
    decoded: i64,
    key: bool,
}

impl<'a> Elementary<'a> {
    fn new(track: TrackSamples<'a>, pid: u16, base_ms: i64) -> Result<Self, PackagingError> {
        let config = track.config;
        let nal = match config.codec() {
            Codec::H264 => Some(NalCodec::H264),
            Codec::H265 => Some(NalCodec::H265),
            Codec::Aac => None,
            Codec::Alaw | Codec::Mulaw => {
                return Err(PackagingError::UnsupportedCodec {
                    track: config.number(),
                    codec: config.codecs().to_owned(),
                    why: "MPEG-TS takes H.264, H.265 and AAC",
                });
            }
        };
        let sets = nal.and_then(|codec| NalFraming::new(codec, config.decoder_config()));
        let mut stream = Elementary {
            config,
            samples: track.samples,
            pid,
            base: units_of_ms(base_ms, CLOCK),
            ahead: 0,
            sets: sets.map_or_else(Bytes::new, |framing| Bytes::copy_from_slice(framing.parameter_sets())),
            counter: 0,
            packets: 0,
        };
        stream.ahead = nal.map_or(0, |codec| stream.reordering(codec));
        Ok(stream)
    }

    fn reordering(&self, codec: NalCodec) -> i64 {
        let record = self.config.decoder_config();
        let declared = match codec {
            NalCodec::H264 => AvcConfig::parse(record).and_then(|config| reordered_frames(codec, config.sps.first()?)),
            NalCodec::H265 => HevcConfig::parse(record).and_then(|config| reordered_frames(codec, config.sps.first()?)),
        };
        let offsets = self.samples.iter().map(|sample| -i64::from(sample.composition_offset));
        let needed = offsets.max().unwrap_or(0).max(0);
        let count = i64::try_from(self.samples.len()).unwrap_or(1).max(1);
        let span: i64 = self.samples.iter().map(|sample| i64::from(sample.duration)).sum();
        let declared = i64::from(declared.unwrap_or(0)) * span / count;
        self.ticks(needed.max(declared))
    }

    /// Units of the track in units of the clock.
    fn ticks(&self, units: i64) -> i64 {
        let ticks = i128::from(units) * i128::from(CLOCK);
        i64::try_from(ticks.div_euclid(i128::from(self.config.timescale().max(1)))).unwrap_or(i64::MAX)
    }

    fn access_units(&self, stream: usize) -> Vec<AccessUnit> {
        let mut units: Vec<AccessUnit> = Vec::with_capacity(self.samples.len());
        let mut bytes = 0;
        for (sample, at) in self.samples.iter().zip(0..) {
            let decoded = self.base + self.ticks(sample.decode_time) - self.ahead;
            let shown = self.base + self.ticks(sample.decode_time + i64::from(sample.composition_offset));
            bytes += sample.data.len();
            if self.config.kind() == MediaKind::Audio
                && let Some(unit) = units.last_mut()
                && bytes <= AUDIO_PES_BYTES
                && decoded - unit.decoded < AUDIO_PES_SPAN
            {
                unit.samples.end = at + 1;
                continue;
            }
            bytes = sample.data.len();
            units.push(AccessUnit {
                stream,
                samples: at..at + 1,
                shown,
                decoded,
                key: sample.key,
            });
        }
        units
    }

    fn put_elementary(&self, out: &mut BytesMut, unit: &AccessUnit, payload: &[u8]) -> Result<(), PackagingError> {
        for sample in self.samples.get(unit.samples.clone()).unwrap_or_default() {
            let invalid = |why| PackagingError::InvalidFrame {
                track: self.config.number(),
                time_ms: sample.decode_time.saturating_mul(1000) / i64::from(self.config.timescale().max(1)),
                why,
            };
            let data = payload.get(sample.data.clone());
            let data = data.ok_or_else(|| invalid("it lies outside of its fragment"))?;
            match self.config.codec() {
                Codec::H264 => self.put_picture(
                    out,
                    data,
                    sample.key,
                    &[9, 0xF0],
                    |head| head & 0x1F == 9,
                    |head| head & 0x1F == 7,
                ),
                Codec::H265 => self.put_picture(
                    out,
                    data,
                    sample.key,
                    &[0x46, 1, 0x50],
                    |head| head >> 1 & 0x3F == 35,
                    |head| head >> 1 & 0x3F == 33,
                ),
                Codec::Aac | Codec::Alaw | Codec::Mulaw => self.put_adts(out, data),
            }
            .map_err(invalid)?;
        }
        Ok(())
    }

    /// A picture in Annex B: an access unit delimiter, before a key picture the parameter sets unless it brings its own.
    fn put_picture(
        &self,
        out: &mut BytesMut,
        data: &[u8],
        key: bool,
        delimiter: &[u8],
        is_delimiter: fn(u8) -> bool,
        is_sequence: fn(u8) -> bool,
    ) -> Result<(), &'static str> {
        let units = || LengthPrefixed::new(data, self.config.nal_length_size());
        put_unit(out, delimiter);
        if key && !units().any(|unit| unit.first().is_some_and(|head| is_sequence(*head))) {
            out.put_slice(&self.sets);
        }
        let mut units = units();
        for unit in units.by_ref() {
            if !unit.first().is_some_and(|head| is_delimiter(*head)) {
                put_unit(out, unit);
            }
        }
        match units.is_broken() {
            true => Err("its units' lengths contradict its size"),
            false => Ok(()),
        }
    }

    fn put_adts(&self, out: &mut BytesMut, data: &[u8]) -> Result<(), &'static str> {
        let len = data.len() + 7;
        let config = self.config.decoder_config();
        let head = adts_head(config, self.config, len).ok_or("it is too long for ADTS, or its configuration is")?;
        out.put_slice(&head);
        out.put_slice(data);
        Ok(())
    }
}

fn put_unit(out: &mut BytesMut, unit: &[u8]) {
    out.put_slice(&[0, 0, 0, 1]);
    out.put_slice(unit);
}

/// Frequencies of ADTS by index.
const FREQUENCIES_HZ: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
];

fn adts_head(config: &[u8], track: &TrackConfig, len: usize) -> Option<[u8; 7]> {
    let audio = track.audio()?;
    let object_type = config.first()? >> 3;
    // ADTS has room for four object types; SBR and parametric stereo are found in the frames of LC.
    let profile = match object_type {
        1..=4 => object_type - 1,
        5 | 29 => 1,
        _ => return None,
    };
    let index = FREQUENCIES_HZ.iter().position(|hz| *hz == audio.sampling_hz)?;
    let index = u8::try_from(index).ok()?;
    let channels = match audio.channels {
        8 => 7,
        channels @ 1..=6 => u8::try_from(channels).ok()?,
        _ => return None,
    };
    let len = u16::try_from(len).ok().filter(|len| *len < 1 << 13)?;
    let [high, low] = (len << 3).to_be_bytes();
    Some([
        0xFF,
        0xF1,
        profile << 6 | index << 2 | channels >> 2,
        channels << 6 | high >> 6 & 3,
        high << 2 | low >> 6,
        low << 2 & 0xE0 | 0x1F,
        0xFC,
    ])
}

/// The stream of packets.
struct Packets {
    out: BytesMut,
    pcr_pid: u16,
    last_pcr: Option<i64>,
}

impl Packets {
    fn tables(&mut self, streams: &[Elementary<'_>], sequence: u64) {
        let counter = (sequence & 0xF) as u8;
        let mut pat = vec![0, 1];
        pat.extend_from_slice(&(0xE000 | PID_PMT).to_be_bytes());
        self.section(PID_PAT, counter, 0, &pat);
        let mut pmt = Vec::new();
        pmt.extend_from_slice(&(0xE000 | self.pcr_pid).to_be_bytes());
        pmt.extend_from_slice(&[0xF0, 0]);
        for stream in streams {
            pmt.push(match stream.config.codec() {
                Codec::H264 => 0x1B,
                Codec::H265 => 0x24,
                Codec::Aac | Codec::Alaw | Codec::Mulaw => 0x0F,
            });
            pmt.extend_from_slice(&(0xE000 | stream.pid).to_be_bytes());
            pmt.extend_from_slice(&[0xF0, 0]);
        }
        self.section(PID_PMT, counter, 2, &pmt);
    }

    /// A table that fits one packet.
    fn section(&mut self, pid: u16, counter: u8, table: u8, body: &[u8]) {
        let mut section = vec![table];
        let len = u16::try_from(body.len() + 9).unwrap_or(0);
        section.extend_from_slice(&(0xB000 | len).to_be_bytes());
        section.extend_from_slice(&[0, 1, 0xC1, 0, 0]);
        section.extend_from_slice(body);
        let crc = crc32_mpeg(&section);
        section.extend_from_slice(&crc.to_be_bytes());
        let start = self.out.len();
        self.out.put_u8(0x47);
        self.out.put_u16(0x4000 | pid);
        self.out.put_u8(0x10 | counter);
        self.out.put_u8(0);
        self.out.put_slice(&section);
        self.out.resize(start + PACKET, 0xFF);
    }

    /// The clock alone, where no frame brings it in time.
    fn clock(&mut self, until: i64, counter: u8) {
        while let Some(last) = self.last_pcr
            && until - last > PCR_EVERY
        {
            let now = last + PCR_EVERY;
            let start = self.out.len();
            self.out.put_u8(0x47);
            self.out.put_u16(self.pcr_pid);
            // A packet without payload repeats the counter of the one before it.
            self.out.put_u8(0x20 | counter.wrapping_sub(1) & 0xF);
            self.out.put_u8(183);
            self.out.put_u8(0x10);
            self.out.put_slice(&pcr(now));
            self.out.resize(start + PACKET, 0xFF);
            self.last_pcr = Some(now);
            if until - now > i64::from(CLOCK) {
                // A gap this long is one of the media.
                self.last_pcr = None;
            }
        }
    }

    fn pes(&mut self, stream: &mut Elementary<'_>, unit: &AccessUnit, elementary: &[u8], last: bool) {
        let head = pes_head(stream.config.kind(), unit, elementary.len());
        let carries_clock = stream.pid == self.pcr_pid;
        if carries_clock {
            self.clock(unit.decoded - PCR_LEAD, stream.counter);
            self.last_pcr = Some(unit.decoded - PCR_LEAD);
        }
        let field = match (carries_clock, unit.key) {
            (true, key) => {
                let mut field = vec![0x10 | u8::from(key) << 6];
                field.extend_from_slice(&pcr(unit.decoded - PCR_LEAD));
                field
            }
            (false, true) => vec![0x40],
            (false, false) => Vec::new(),
        };
        let total = head.len() + elementary.len();
        let first_room = if field.is_empty() { 184 } else { 183 - field.len() };
        let natural = 1 + total.saturating_sub(first_room).div_ceil(184);
        let mut packets = natural;
        if last {
            let padded = (stream.packets + natural).next_multiple_of(16) - stream.packets;
            packets = if padded <= total { padded } else { natural };
        }
        let mut source = Source {
            head: &head,
            tail: elementary,
        };
        for n in 0..packets {
            let field = if n == 0 { field.as_slice() } else { &[] };
            let room = if field.is_empty() { 184 } else { 183 - field.len() };
            // Each packet that follows needs a byte at least.
            let take = source.len().saturating_sub(packets - n - 1).min(room);
            self.packet(stream, n == 0, field, take, &mut source);
        }
        stream.packets += packets;
    }

    fn packet(&mut self, stream: &mut Elementary<'_>, first: bool, field: &[u8], take: usize, source: &mut Source<'_>) {
        self.out.put_u8(0x47);
        self.out.put_u16(stream.pid | if first { 0x4000 } else { 0 });
        let stuffing = 184 - take;
        self.out.put_u8(if stuffing > 0 { 0x30 } else { 0x10 } | stream.counter);
        stream.counter = (stream.counter + 1) & 0xF;
        if stuffing > 0 {
            self.out.put_u8(u8::try_from(stuffing - 1).unwrap_or(183));
            if stuffing > 1 {
                let flags = if field.is_empty() { &[0][..] } else { field };
                self.out.put_slice(flags);
                self.out.put_bytes(0xFF, (stuffing - 1).saturating_sub(flags.len()));
            }
        }
        source.put(&mut self.out, take);
    }
}

/// A PES packet as its head and the rest of the media.
struct Source<'a> {
    head: &'a [u8],
    tail: &'a [u8],
}

impl Source<'_> {
    fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    fn put(&mut self, out: &mut BytesMut, len: usize) {
        let (now, later) = self.head.split_at_checked(len).unwrap_or((self.head, &[]));
        out.put_slice(now);
        self.head = later;
        let (now, later) = self.tail.split_at_checked(len - now.len()).unwrap_or((self.tail, &[]));
        out.put_slice(now);
        self.tail = later;
    }
}

fn pes_head(kind: MediaKind, unit: &AccessUnit, len: usize) -> Vec<u8> {
    let apart = unit.shown != unit.decoded;
    let times = if apart { 10 } else { 5 };
    // Of pictures the length may be left open.
    let (id, len) = match kind {
        MediaKind::Video => (0xE0, 0),
        MediaKind::Audio => (0xC0, u16::try_from(len + 3 + times).unwrap_or(0)),
    };
    let mut head = vec![0, 0, 1, id];
    head.extend_from_slice(&len.to_be_bytes());
    head.extend_from_slice(&[0x84, if apart { 0xC0 } else { 0x80 }, if apart { 10 } else { 5 }]);
    head.extend_from_slice(&timestamp(if apart { 3 } else { 2 }, unit.shown));
    if apart {
        head.extend_from_slice(&timestamp(1, unit.decoded));
    }
    head
}

/// 33 bits of a time.
fn wrapped(ticks: i64) -> u64 {
    ticks.rem_euclid(1 << 33).cast_unsigned()
}

/// §2.4.3.7.
fn timestamp(mark: u8, ticks: i64) -> [u8; 5] {
    let time = wrapped(ticks);
    let part = |shift: u32, bits: u32| (time >> shift & ((1 << bits) - 1)) as u8;
    [
        mark << 4 | part(30, 3) << 1 | 1,
        part(22, 8),
        part(15, 7) << 1 | 1,
        part(7, 8),
        part(0, 7) << 1 | 1,
    ]
}

/// §2.4.3.5, the extension being 0.
fn pcr(ticks: i64) -> [u8; 6] {
    let time = wrapped(ticks) << 15 | 0x7E00;
    let [_, _, a, b, c, d, e, f] = time.to_be_bytes();
    [a, b, c, d, e, f]
}

/// Annex A.
fn crc32_mpeg(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 }
        })
    })
}
