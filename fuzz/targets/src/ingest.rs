//! The rules that cut a producer's bytes into fragments, under any settings of a stream.

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use matroska::{Limits, Reader};
use video_streams::ingest::acks::AckError;
use video_streams::ingest::leniency::advice;
use video_streams::ingest::rules::{Backwards, RuleLimits, Rules, Step, Timecodes};

/// A fragment as the rules gave it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fragment {
    timestamp: Timestamp,
    header: Bytes,
    bytes: BytesMut,
    frames: usize,
}

/// The first byte chooses the settings and the size of the pieces, the rest is the body. Promises: what belongs to a
/// fragment is found in the body as it is, in order; frames lie in their fragment; timestamps lie in time; increasing
/// ones only unless the stream takes others; the pieces make no difference to fragments that are whole; and whatever was
/// refused can be reported.
pub fn ingest_rules(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else {
        return;
    };
    let limits = RuleLimits {
        fragment_duration_ms: [1_000, 20_000, 120_000][usize::from(first) % 3],
        allow_missing_tracks: first & 4 != 0,
        backwards: [Backwards::Refuse, Backwards::Accept, Backwards::Continue][usize::from(first >> 3) % 3],
        ..RuleLimits::default()
    };
    let timecodes = match first & 128 {
        0 => Timecodes::Absolute,
        _ => Timecodes::Relative(Timestamp::from_millis(1_795_347_223_436)),
    };
    let body = Bytes::copy_from_slice(body);
    let at_once = judge(&body, limits, timecodes, body.len().max(1));
    let in_pieces = judge(&body, limits, timecodes, usize::from(first).max(1));
    assert_eq!(at_once, in_pieces, "the pieces made a difference");
    if limits.backwards != Backwards::Accept {
        let times = at_once.0.windows(2).map(|pair| (pair[0].timestamp, pair[1].timestamp));
        for (before, after) in times {
            // A coarse or a fine timecode scale may make two timecodes the same millisecond.
            assert!(before <= after, "a fragment begins before the one before it");
        }
    }
    let mut at = 0;
    for fragment in &at_once.0 {
        let rest = body.get(at..).unwrap_or_default();
        let found = find(rest, &fragment.bytes).expect("a fragment's bytes are not the producer's");
        at += found + fragment.bytes.len();
    }
}

fn find(within: &[u8], wanted: &[u8]) -> Option<usize> {
    match wanted.len() {
        0 => Some(0),
        len => within.windows(len).position(|window| window == wanted),
    }
}

/// The fragments that are whole, and how it ended.
fn judge(body: &Bytes, limits: RuleLimits, timecodes: Timecodes, piece: usize) -> (Vec<Fragment>, Option<AckError>) {
    let mut reader = Reader::new(Limits::default());
    let mut rules = Rules::new(timecodes, limits);
    let (mut whole, mut open) = (Vec::new(), Fragment::default());
    let mut on = |step: Option<Step>| match step {
        Some(Step::Begin(begin)) => {
            let first: BytesMut = begin.first.iter().flat_map(|bytes| bytes.iter()).collect();
            open = Fragment {
                timestamp: begin.producer_timestamp,
                header: begin.header,
                bytes: first,
                frames: 0,
            };
            assert!((0..=253_402_300_799_999).contains(&open.timestamp.millis()));
        }
        Some(Step::Media(bytes)) => open.bytes.extend_from_slice(&bytes),
        Some(Step::Complete(complete)) => {
            assert_eq!(complete.bytes, open.bytes.len() as u64);
            open.frames = complete.frames.len();
            let ends = complete.frames.iter().map(|frame| frame.offset + frame.length);
            assert!(
                ends.max().unwrap_or(0) <= complete.bytes,
                "a frame lies outside of its fragment"
            );
            whole.push(std::mem::take(&mut open));
        }
        None => {}
    };
    let mut rest = body.clone();
    let outcome = (|| {
        loop {
            let ended = rest.is_empty();
            if ended {
                reader.finish();
            } else {
                reader.push(rest.split_to(piece.min(rest.len())));
            }
            while let Some(event) = reader.next().map_err(|_| AckError::InvalidMkv)? {
                on(rules.on(event)?);
            }
            if ended {
                on(rules.finish()?);
                return Ok(());
            }
        }
    })();
    let report = rules.report();
    for track in &report.tracks {
        assert!(!track.codec_id.contains(char::is_control), "a log line could be broken");
    }
    if let Err(error) = outcome {
        let _ = advice(error, &report);
    }
    let _ = (rules.take_in_band(), rules.take_leniencies());
    (whole, outcome.err())
}
