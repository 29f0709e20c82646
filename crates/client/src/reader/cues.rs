//! The seek index of a file: SeekHead at its front, Cues at its end (RFC 9559, sections 5.1.1 and 5.1.5). Knows positions
//! and times, and nothing of fragments.

use bytes::{BufMut, Bytes, BytesMut};
use matroska::id::{self, ElementId};
use matroska::writer;

use crate::limits::CUES_MAX;

/// Bytes of a SeekHead with three entries, each with its sizes coded in one byte and its position in eight.
const SEEK_HEAD_LEN: usize = 4 + 1 + 3 * SEEK_LEN;
const SEEK_LEN: usize = 2 + 1 + SEEK_BODY_LEN;
const SEEK_BODY_LEN: usize = (2 + 1 + 4) + (2 + 1 + 8);

/// A place to enter a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cue {
    /// In units of the timecode scale.
    pub time: u64,
    pub track: u64,
    /// Position of the cluster in the Segment's data.
    pub cluster_at: u64,
}

/// The places to enter a file, in order. A very long file gets only every second, then every fourth of them, and so on.
#[derive(Debug, Default)]
pub(crate) struct CueList {
    cues: Vec<Cue>,
    /// How many times the list was thinned out.
    thinned: u32,
    seen: u64,
}

impl CueList {
    /// Adds a place, if there is one.
    pub fn add(&mut self, cue: Option<Cue>) {
        let Some(cue) = cue else { return };
        let every = 1_u64 << self.thinned.min(63);
        if self.seen.is_multiple_of(every) {
            self.cues.push(cue);
        }
        self.seen += 1;
        if self.cues.len() >= CUES_MAX {
            let mut keep = false;
            self.cues.retain(|_| {
                keep = !keep;
                keep
            });
            self.thinned += 1;
        }
    }

    /// The Cues element; empty where there is no place to enter.
    pub fn element(&self) -> Bytes {
        let mut points = BytesMut::with_capacity(28 * self.cues.len());
        let (mut point, mut place) = (BytesMut::new(), BytesMut::new());
        for cue in &self.cues {
            point.clear();
            place.clear();
            writer::put_unsigned(&mut place, id::CUE_TRACK, cue.track);
            writer::put_unsigned(&mut place, id::CUE_CLUSTER_POSITION, cue.cluster_at);
            writer::put_unsigned(&mut point, id::CUE_TIME, cue.time);
            writer::put_element(&mut point, id::CUE_TRACK_POSITIONS, &place);
            writer::put_element(&mut points, id::CUE_POINT, &point);
        }
        let mut out = BytesMut::with_capacity(points.len() + 12);
        if !points.is_empty() {
            writer::put_element(&mut out, id::CUES, &points);
        }
        out.freeze()
    }
}

/// A Void of the length of a SeekHead, to be replaced by one.
pub(crate) fn seek_head_space() -> Bytes {
    let mut out = BytesMut::new();
    put_void(&mut out, SEEK_HEAD_LEN);
    out.freeze()
}

/// A Void of `len` bytes in all, from 2 to 128.
fn put_void(out: &mut BytesMut, len: usize) {
    writer::put_element(out, id::VOID, &vec![0; len.saturating_sub(2)]);
}

/// The SeekHead for these positions in the Segment's data, as long as its space.
pub(crate) fn seek_head(info: u64, tracks: u64, cues: Option<u64>) -> Bytes {
    let entries = [(id::INFO, Some(info)), (id::TRACKS, Some(tracks)), (id::CUES, cues)];
    let mut seeks = BytesMut::new();
    for (target, position) in entries {
        if let Some(position) = position {
            put_seek(&mut seeks, target, position);
        }
    }
    let mut out = BytesMut::new();
    writer::put_element(&mut out, id::SEEK_HEAD, &seeks);
    if out.len() < SEEK_HEAD_LEN {
        let left = SEEK_HEAD_LEN - out.len();
        put_void(&mut out, left);
    }
    out.freeze()
}

fn put_seek(out: &mut BytesMut, target: ElementId, position: u64) {
    let mut body = BytesMut::with_capacity(SEEK_BODY_LEN);
    writer::put_id(&mut body, id::SEEK_ID);
    writer::put_size(&mut body, 4);
    writer::put_id(&mut body, target);
    writer::put_id(&mut body, id::SEEK_POSITION);
    writer::put_size(&mut body, 8);
    body.put_u64(position);
    writer::put_element(out, id::SEEK, &body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seek_head_fills_its_space_with_and_without_cues() {
        let space = seek_head_space().len();
        for cues in [None, Some(0), Some(u64::MAX)] {
            assert_eq!(seek_head(68, 200, cues).len(), space);
        }
        assert_eq!(space, SEEK_HEAD_LEN);
    }

    #[test]
    fn the_index_of_a_very_long_file_stays_bounded_and_evenly_spread() {
        let mut list = CueList::default();
        let count = 3 * CUES_MAX as u64;
        for time in 0..count {
            list.add(Some(Cue {
                time,
                track: 1,
                cluster_at: 10 * time,
            }));
        }
        list.add(None);
        assert!(list.cues.len() < CUES_MAX && list.cues.len() > CUES_MAX / 4);
        let steps: Vec<u64> = list.cues.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
        assert_eq!(list.cues[0].time, 0);
        assert!(
            steps.iter().all(|step| *step == steps[0]),
            "every so many, from the first on"
        );
    }
}
