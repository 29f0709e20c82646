//! The text of a DASH manifest (ISO/IEC 23009-1, live profile): one period, one adaptation set for each of picture and
//! sound, one SegmentTimeline that both share, since both are cut at the fragments of the stream.
//!
//! Times are milliseconds, and the media's own: a segment's `t` is the time of the fragment's start in its tfdt.

use std::fmt::Write;

use crate::text::{iso8601, seconds, xml};

/// Whether a manifest may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is complete.
    Static,
    /// It is to be read again.
    Dynamic {
        /// When time 0 of the period is due, milliseconds since the epoch.
        availability_start_ms: i64,
        /// When this text was written, milliseconds since the epoch.
        now_ms: i64,
        /// How often it is to be read again, milliseconds.
        update_ms: u32,
    },
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its start in the media's time, milliseconds.
    pub start_ms: i64,
    /// Its duration, milliseconds.
    pub duration_ms: u32,
    /// `kvs:ts`: the producer's time, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// `kvs:fn`: the fragment's number.
    pub fragment_number: Option<String>,
}

/// Picture or sound.
#[derive(Clone, Debug, PartialEq)]
pub struct Representation<'a> {
    /// `video` or `audio`.
    pub content: &'static str,
    /// The number by which the player asks for it.
    pub track: u8,
    /// RFC 6381.
    pub codecs: &'a str,
    /// Bits a second.
    pub bandwidth: u64,
    /// Width and height of the pictures.
    pub resolution: Option<(u32, u32)>,
    /// Samples a second of the sound.
    pub sampling_hz: Option<u32>,
    /// URI of the initialisation segment.
    pub initialization: String,
    /// URI of a segment, with `$Number$`.
    pub media: String,
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest<'a> {
    /// Whether it may change.
    pub kind: Kind,
    /// The media's time at which the period begins, milliseconds.
    pub offset_ms: i64,
    /// Longest segment, milliseconds.
    pub longest_ms: u32,
    /// `$Number$` of the first segment.
    pub start_number: u64,
    /// The segments.
    pub segments: Vec<Segment>,
    /// Picture and sound.
    pub representations: Vec<Representation<'a>>,
}

impl Manifest<'_> {
    /// The manifest.
    #[must_use]
    pub fn text(&self) -> String {
        let timeline = self.timeline();
        let mut out = String::with_capacity(2048 + 2 * timeline.len());
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" xmlns:kvs=\"urn:amazon:kinesisvideo\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011\"");
        let first = self.segments.first().map_or(self.offset_ms, |first| first.start_ms);
        let last = self.segments.last();
        let end = last.map_or(self.offset_ms, |last| {
            last.start_ms.saturating_add(i64::from(last.duration_ms))
        });
        match self.kind {
            Kind::Static => {
                let _ = write!(
                    out,
                    " type=\"static\" mediaPresentationDuration=\"PT{}S\"",
                    span(self.offset_ms, end)
                );
            }
            Kind::Dynamic {
                availability_start_ms,
                now_ms,
                update_ms,
            } => {
                let _ = write!(
                    out,
                    " type=\"dynamic\" availabilityStartTime=\"{}\" publishTime=\"{}\" minimumUpdatePeriod=\"PT{}S\" timeShiftBufferDepth=\"PT{}S\" suggestedPresentationDelay=\"PT{}S\"",
                    iso8601(availability_start_ms),
                    iso8601(now_ms),
                    seconds(update_ms),
                    span(first, end),
                    seconds(self.longest_ms.saturating_mul(3)),
                );
            }
        }
        let _ = writeln!(
            out,
            " maxSegmentDuration=\"PT{0}S\" minBufferTime=\"PT{0}S\">",
            seconds(self.longest_ms)
        );
        out.push_str("  <Period id=\"0\" start=\"PT0S\">\n");
        for (id, representation) in self.representations.iter().enumerate() {
            self.adaptation_set(&mut out, id, representation, &timeline);
        }
        out.push_str("  </Period>\n");
        if let Kind::Dynamic { now_ms, .. } = self.kind {
            let now = iso8601(now_ms);
            let _ = writeln!(
                out,
                "  <UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:direct:2014\" value=\"{now}\"/>"
            );
        }
        out.push_str("</MPD>\n");
        out
    }

    fn adaptation_set(&self, out: &mut String, id: usize, what: &Representation<'_>, timeline: &str) {
        let _ = writeln!(
            out,
            "    <AdaptationSet id=\"{id}\" contentType=\"{0}\" mimeType=\"{0}/mp4\" segmentAlignment=\"true\" startWithSAP=\"1\">",
            what.content
        );
        let _ = writeln!(
            out,
            "      <SegmentTemplate timescale=\"1000\" presentationTimeOffset=\"{}\" startNumber=\"{}\" initialization=\"{}\" media=\"{}\">\n        <SegmentTimeline>",
            self.offset_ms.max(0),
            self.start_number,
            xml(&what.initialization),
            xml(&what.media)
        );
        out.push_str(timeline);
        let _ = write!(
            out,
            "        </SegmentTimeline>\n      </SegmentTemplate>\n      <Representation id=\"{}\" codecs=\"{}\" bandwidth=\"{}\"",
            what.track,
            xml(what.codecs),
            what.bandwidth.max(1)
        );
        if let Some((width, height)) = what.resolution {
            let _ = write!(out, " width=\"{width}\" height=\"{height}\"");
        }
        if let Some(hz) = what.sampling_hz {
            let _ = write!(out, " audioSamplingRate=\"{hz}\"");
        }
        out.push_str("/>\n    </AdaptationSet>\n");
    }

    fn timeline(&self) -> String {
        let mut out = String::with_capacity(self.segments.len() * 64);
        for segment in &self.segments {
            let _ = write!(
                out,
                "          <S t=\"{}\" d=\"{}\"",
                segment.start_ms.max(0),
                segment.duration_ms
            );
            if let Some(ms) = segment.timestamp_ms {
                let _ = write!(out, " kvs:ts=\"{}\"", iso8601(ms));
            }
            if let Some(number) = &segment.fragment_number {
                let _ = write!(out, " kvs:fn=\"{number}\"");
            }
            out.push_str("/>\n");
        }
        out
    }
}

/// A span of time in seconds; 0 where it is none.
fn span(from_ms: i64, to_ms: i64) -> String {
    seconds(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}
