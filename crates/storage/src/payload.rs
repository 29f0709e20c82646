//! The payloads of frames, as bytes and back. Decoding never panics and takes no more memory than the bytes it was given
//! can fill; a payload with bytes left over is refused.

use std::collections::{BTreeMap, BTreeSet};

use base::Timestamp;
use bytes::Bytes;

use crate::StreamId;
use crate::control::{Control, RangeSet, ShardControl, StreamControl};
use crate::media::FrameEntry;
use crate::records::{NewRecord, ShardId};

/// Reads little-endian values off a slice.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub fn time(&mut self) -> Option<Timestamp> {
        self.array().map(i64::from_le_bytes).map(Timestamp::from_millis)
    }

    /// A count of items that take at least `size` bytes each, so that a lie cannot make us reserve memory.
    fn count(&mut self, size: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(size)? <= self.0.len()).then_some(count)
    }

    fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_u32(out, u32::try_from(len).unwrap_or(u32::MAX));
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.millis().to_le_bytes());
}

/// Which of the two logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Log {
    Media = 1,
    Records = 2,
}

/// A frame at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentStart {
    pub log: Log,
    pub lane: u16,
    pub created: Timestamp,
    /// The segment before it in the lane, 0 if none, and where it ended: all of it is durable.
    pub previous: u64,
    pub previous_end: u64,
}

impl SegmentStart {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.log as u8);
        out.extend_from_slice(&self.lane.to_le_bytes());
        put_time(out, self.created);
        put_u64(out, self.previous);
        put_u64(out, self.previous_end);
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let start = SegmentStart {
            log: match r.u8()? {
                1 => Log::Media,
                2 => Log::Records,
                _ => return None,
            },
            lane: r.u16()?,
            created: r.time()?,
            previous: r.u64()?,
            previous_end: r.u64()?,
        };
        r.end(start)
    }
}

/// Where a piece of a fragment lies: the offset is that of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub segment: u64,
    pub offset: u32,
    pub len: u32,
}

/// What makes a fragment visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub position: u64,
    pub server_timestamp: Timestamp,
    pub producer_timestamp: Timestamp,
    pub length_ms: u32,
    pub size: u32,
    pub header_len: u32,
    /// CRC-32C of the whole payload.
    pub checksum: u32,
    pub extents: Vec<Extent>,
    pub frames: Vec<FrameEntry>,
    /// See [`crate::FragmentSummary::tracks_hash`].
    pub tracks_hash: u64,
}

const EXTENT_BYTES: usize = 16;
const FRAME_BYTES: usize = 14;

impl Commit {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.position);
        put_time(out, self.server_timestamp);
        put_time(out, self.producer_timestamp);
        for value in [self.length_ms, self.size, self.header_len, self.checksum] {
            put_u32(out, value);
        }
        put_len(out, self.extents.len());
        for extent in &self.extents {
            put_u64(out, extent.segment);
            put_u32(out, extent.offset);
            put_u32(out, extent.len);
        }
        put_len(out, self.frames.len());
        for frame in &self.frames {
            put_u32(out, frame.offset);
            put_u32(out, frame.len);
            out.extend_from_slice(&frame.time_ms.to_le_bytes());
            out.extend_from_slice(&[frame.track, u8::from(frame.key)]);
        }
        put_u64(out, self.tracks_hash);
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let mut commit = Commit {
            position: r.u64()?,
            server_timestamp: r.time()?,
            producer_timestamp: r.time()?,
            length_ms: r.u32()?,
            size: r.u32()?,
            header_len: r.u32()?,
            checksum: r.u32()?,
            extents: Vec::new(),
            frames: Vec::new(),
            tracks_hash: 0,
        };
        for _ in 0..r.count(EXTENT_BYTES)? {
            commit.extents.push(Extent {
                segment: r.u64()?,
                offset: r.u32()?,
                len: r.u32()?,
            });
        }
        // A reader takes the size at its word, so one that the extents do not hold is no commit.
        let held: u64 = commit.extents.iter().map(|extent| u64::from(extent.len)).sum();
        if held != u64::from(commit.size) {
            return None;
        }
        let frames = r.count(FRAME_BYTES)?;
        commit.frames.reserve_exact(frames);
        for _ in 0..frames {
            commit.frames.push(FrameEntry {
                offset: r.u32()?,
                len: r.u32()?,
                time_ms: r.u32()?.cast_signed(),
                track: r.u8()?,
                key: r.u8()? != 0,
            });
        }
        // Format 1 ended here.
        if !r.0.is_empty() {
            commit.tracks_hash = r.u64()?;
        }
        r.end(commit)
    }
}

/// A block of numbers: for fragments through (inclusive) a sequence, for a shard's records below an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub shard: Option<ShardId>,
    pub end: u64,
}

impl Numbers {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_shard(out, self.shard);
        put_u64(out, self.end);
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let numbers = Numbers {
            shard: take_shard(&mut r)?,
            end: r.u64()?,
        };
        r.end(numbers)
    }
}

fn put_shard(out: &mut Vec<u8>, shard: Option<ShardId>) {
    out.push(u8::from(shard.is_some()));
    put_u32(out, shard.map_or(0, |s| s.0));
}

fn take_shard(r: &mut Reader<'_>) -> Option<Option<ShardId>> {
    let present = r.u8()?;
    let shard = r.u32()?;
    match present {
        0 => Some(None),
        1 => Some(Some(ShardId(shard))),
        _ => None,
    }
}

/// Positions (or indexes of a shard) that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trim {
    pub shard: Option<ShardId>,
    pub gone: RangeSet,
}

impl Trim {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_shard(out, self.shard);
        put_ranges(out, &self.gone);
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let trim = Trim {
            shard: take_shard(&mut r)?,
            gone: take_ranges(&mut r)?,
        };
        r.end(trim)
    }
}

fn put_ranges(out: &mut Vec<u8>, ranges: &RangeSet) {
    put_len(out, ranges.iter().count());
    for (from, to) in ranges.iter() {
        put_u64(out, from);
        put_u64(out, to);
    }
}

fn take_ranges(r: &mut Reader<'_>) -> Option<RangeSet> {
    let mut ranges = RangeSet::default();
    for _ in 0..r.count(16)? {
        ranges.insert(r.u64()?, r.u64()?);
    }
    Some(ranges)
}

/// The creation of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardMade {
    pub shard: ShardId,
    pub created: Timestamp,
}

impl ShardMade {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.shard.0);
        put_time(out, self.created);
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let made = ShardMade {
            shard: ShardId(r.u32()?),
            created: r.time()?,
        };
        r.end(made)
    }
}

/// A record within a `Records` payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainRecord {
    pub partition_key: String,
    pub explicit_hash_key: Option<u128>,
    pub data: Bytes,
    pub sealed: bool,
    pub arrival: Timestamp,
}

/// Bytes that a record takes in a payload beside its key and data.
pub(crate) const RECORD_OVERHEAD: usize = 8 + 1 + 16 + 4 + 4;

/// Flags of a record: bit 0 says that it has a hash key of its own, this one that its data are sealed.
const SEALED: u8 = 2;

/// Appends one record to a payload.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &NewRecord) {
    put_time(out, record.arrival);
    let sealed = if record.sealed { SEALED } else { 0 };
    out.push(u8::from(record.explicit_hash_key.is_some()) | sealed);
    out.extend_from_slice(&record.explicit_hash_key.unwrap_or(0).to_le_bytes());
    put_len(out, record.partition_key.len());
    put_len(out, record.data.len());
    out.extend_from_slice(record.partition_key.as_bytes());
    out.extend_from_slice(&record.data);
}

/// Reads the records of a payload; their data are slices of it.
pub(crate) fn take_records(payload: &Bytes, count: usize) -> Option<Vec<PlainRecord>> {
    let mut r = Reader(payload);
    if count.checked_mul(RECORD_OVERHEAD)? > payload.len() {
        return None;
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let arrival = r.time()?;
        let flags = r.u8()?;
        let hash_key = r.u128()?;
        let (key_len, data_len) = (r.u32()? as usize, r.u32()? as usize);
        let partition_key = std::str::from_utf8(r.take(key_len)?).ok()?.to_owned();
        let data = payload.slice_ref(r.take(data_len)?);
        records.push(PlainRecord {
            partition_key,
            explicit_hash_key: (flags & 1 != 0).then_some(hash_key),
            data,
            sealed: flags & SEALED != 0,
            arrival,
        });
    }
    r.end(records)
}

/// What a seal says: which slot and segment follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub next_slot: u32,
    pub next_segment: u64,
}

impl Seal {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.next_slot);
        put_u64(out, self.next_segment);
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        let seal = Seal {
            next_slot: r.u32()?,
            next_segment: r.u64()?,
        };
        r.end(seal)
    }
}

/// A part of the control state, small enough for one frame.
pub(crate) fn encode_checkpoints(control: &Control, tails: &BTreeMap<u64, u64>, max_bytes: usize) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut items = 0u32;
    let mut close = |part: &mut Vec<u8>, items: &mut u32, max: usize| {
        if part.len() > max || (max == 0 && *items > 0) {
            let mut whole = items.to_le_bytes().to_vec();
            whole.append(part);
            parts.push(whole);
            *items = 0;
        }
    };
    for (segment, end) in tails {
        part.push(1);
        put_u64(&mut part, *segment);
        put_u64(&mut part, *end);
        items += 1;
        close(&mut part, &mut items, max_bytes);
    }
    for stream in &control.deleted {
        part.push(2);
        put_u64(&mut part, stream.0);
        items += 1;
        close(&mut part, &mut items, max_bytes);
    }
    for (stream, state) in &control.streams {
        part.push(3);
        put_u64(&mut part, stream.0);
        put_u64(&mut part, state.numbers_through);
        put_u64(&mut part, state.next_position);
        put_ranges(&mut part, &state.gone);
        items += 1;
        close(&mut part, &mut items, max_bytes);
        for (shard, s) in &state.shards {
            part.push(4);
            put_u64(&mut part, stream.0);
            put_u32(&mut part, shard.0);
            put_time(&mut part, s.created);
            put_u64(&mut part, s.reserved_below);
            put_u64(&mut part, s.gone_below);
            items += 1;
            close(&mut part, &mut items, max_bytes);
        }
    }
    close(&mut part, &mut items, 0);
    parts
}

/// Reads one part of a checkpoint.
pub(crate) fn decode_checkpoint(bytes: &[u8]) -> Option<(Control, BTreeMap<u64, u64>)> {
    let mut r = Reader(bytes);
    let mut control = Control::default();
    let mut tails = BTreeMap::new();
    let mut deleted = BTreeSet::new();
    for _ in 0..r.count(9)? {
        match r.u8()? {
            1 => {
                tails.insert(r.u64()?, r.u64()?);
            }
            2 => {
                deleted.insert(StreamId(r.u64()?));
            }
            3 => {
                let stream = StreamId(r.u64()?);
                let state = StreamControl {
                    numbers_through: r.u64()?,
                    next_position: r.u64()?,
                    gone: take_ranges(&mut r)?,
                    shards: BTreeMap::new(),
                };
                control.merge_stream(stream, state);
            }
            4 => {
                let (stream, shard) = (StreamId(r.u64()?), ShardId(r.u32()?));
                let state = ShardControl {
                    created: r.time()?,
                    reserved_below: r.u64()?,
                    gone_below: r.u64()?,
                };
                control.merge_shard(stream, shard, state);
            }
            _ => return None,
        }
    }
    for stream in deleted {
        control.delete(stream);
    }
    r.end((control, tails))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes_of(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out);
        out
    }

    fn ranges() -> impl Strategy<Value = RangeSet> {
        vec((any::<u32>(), 1u32..100), 0..6).prop_map(|list| {
            let mut set = RangeSet::default();
            for (from, len) in list {
                set.insert(u64::from(from), u64::from(from) + u64::from(len));
            }
            set
        })
    }

    fn commit() -> impl Strategy<Value = Commit> {
        let extents = vec((any::<u64>(), any::<u32>(), 0..u32::MAX / 8), 0..5);
        let frames = vec(
            (any::<u32>(), any::<u32>(), any::<i32>(), any::<u8>(), any::<bool>()),
            0..40,
        );
        (any::<(u64, i64, i64, u64)>(), any::<[u32; 4]>(), extents, frames).prop_map(
            |(long, short, extents, frames)| Commit {
                position: long.0,
                server_timestamp: Timestamp::from_millis(long.1),
                producer_timestamp: Timestamp::from_millis(long.2),
                length_ms: short[0],
                size: extents.iter().map(|(_, _, len)| len).sum(),
                header_len: short[2],
                checksum: short[3],
                extents: extents
                    .into_iter()
                    .map(|(segment, offset, len)| Extent { segment, offset, len })
                    .collect(),
                frames: frames
                    .into_iter()
                    .map(|(offset, len, time_ms, track, key)| FrameEntry {
                        offset,
                        len,
                        time_ms,
                        track,
                        key,
                    })
                    .collect(),
                tracks_hash: long.3,
            },
        )
    }

    proptest! {
        #[test]
        fn payloads_survive_their_bytes(c in commit(), gone in ranges(), shard in any::<Option<u32>>(), end in any::<u64>()) {
            let mut bytes = bytes_of(|o| c.encode(o));
            prop_assert_eq!(Commit::decode(&bytes), Some(c.clone()));
            bytes.truncate(bytes.len() - 8);
            prop_assert_eq!(Commit::decode(&bytes), Some(Commit { tracks_hash: 0, ..c }), "as format 1 wrote it");
            let shard = shard.map(ShardId);
            let trim = Trim { shard, gone };
            prop_assert_eq!(Trim::decode(&bytes_of(|o| trim.encode(o))), Some(trim));
            let numbers = Numbers { shard, end };
            prop_assert_eq!(Numbers::decode(&bytes_of(|o| numbers.encode(o))), Some(numbers));
        }

        #[test]
        fn a_checkpoint_in_any_number_of_parts_is_the_same_state(
            streams in vec((any::<u8>(), any::<u64>(), ranges(), vec((any::<u8>(), any::<i64>(), any::<u64>()), 0..4)), 0..20),
            deleted in vec(any::<u8>(), 0..10), tails in vec(any::<(u64, u64)>(), 0..4), max in 1usize..2000,
        ) {
            let mut control = Control::default();
            for (stream, number, gone, shards) in streams {
                let stream = StreamId(u64::from(stream));
                let state = StreamControl { numbers_through: number, next_position: 3, gone, shards: BTreeMap::new() };
                control.merge_stream(stream, state);
                for (shard, created, index) in shards {
                    let created = Timestamp::from_millis(created);
                    let state = ShardControl { created, reserved_below: index, gone_below: index / 2 };
                    control.merge_shard(stream, ShardId(u32::from(shard)), state);
                }
            }
            for stream in deleted {
                control.delete(StreamId(u64::from(stream)));
            }
            let tails: BTreeMap<u64, u64> = tails.into_iter().collect();
            let mut merged = (Control::default(), BTreeMap::new());
            for part in encode_checkpoints(&control, &tails, max) {
                let (more, ends) = decode_checkpoint(&part).unwrap();
                merged.0.merge(more);
                merged.1.extend(ends);
            }
            prop_assert_eq!(merged, (control, tails));
        }

        #[test]
        fn records_survive_their_bytes(list in vec((any::<i64>(), ".{0,20}", any::<Option<u128>>(), vec(any::<u8>(), 0..50)), 0..20)) {
            let new: Vec<NewRecord> = list.into_iter().map(|(arrival, key, hash, data)| NewRecord {
                stream: StreamId(1),
                shard: ShardId(0),
                partition_key: key,
                explicit_hash_key: hash,
                sealed: arrival % 2 == 0,
                data: data.into(),
                arrival: Timestamp::from_millis(arrival),
            }).collect();
            let payload = Bytes::from(bytes_of(|o| new.iter().for_each(|r| put_record(o, r))));
            let back = take_records(&payload, new.len()).unwrap();
            for (record, stored) in new.iter().zip(&back) {
                prop_assert_eq!(&record.partition_key, &stored.partition_key);
                prop_assert_eq!((&record.data, record.arrival), (&stored.data, stored.arrival));
                prop_assert_eq!((record.explicit_hash_key, record.sealed), (stored.explicit_hash_key, stored.sealed));
            }
            prop_assert_eq!(take_records(&payload, new.len() + 1), None);
        }

        #[test]
        fn arbitrary_bytes_decode_to_nothing_or_something_but_never_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = (Commit::decode(&bytes), Trim::decode(&bytes), Numbers::decode(&bytes), ShardMade::decode(&bytes));
            let _ = (SegmentStart::decode(&bytes), Seal::decode(&bytes), decode_checkpoint(&bytes));
            let _ = take_records(&Bytes::from(bytes), 3);
        }
    }
}
