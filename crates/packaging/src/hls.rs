//! The text of HLS playlists (RFC 8216, and draft-pantos-hls-rfc8216bis for Low-Latency HLS): what to say is decided
//! elsewhere, how it is spelt is decided here.
//!
//! Durations are whole milliseconds, as everything that a playlist is made of; URIs must need no escaping.

use std::fmt::Write;

use crate::text::{decimal, iso8601, seconds};

/// What a master playlist says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Master<'a> {
    /// RFC 6381 codecs, the picture's first.
    pub codecs: Vec<&'a str>,
    /// Width and height of the pictures.
    pub resolution: Option<(u32, u32)>,
    /// Pictures a second.
    pub frame_rate: Option<f64>,
    /// Highest bits a second of one segment.
    pub bandwidth: u64,
    /// Bits a second on average.
    pub average_bandwidth: u64,
    /// Relative URI of the media playlist.
    pub uri: String,
    /// Relative URI of the playlist of the sound, where it is a rendition of its own.
    pub audio_uri: Option<String>,
    /// EXT-X-VERSION.
    pub version: u8,
}

impl Master<'_> {
    /// The playlist.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!(
            "#EXTM3U\n#EXT-X-VERSION:{}\n#EXT-X-INDEPENDENT-SEGMENTS\n",
            self.version
        );
        if let Some(uri) = &self.audio_uri {
            let _ = writeln!(
                out,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,URI=\"{uri}\""
            );
        }
        let _ = write!(out, "#EXT-X-STREAM-INF:CODECS=\"{}\"", self.codecs.join(","));
        if let Some((width, height)) = self.resolution {
            let _ = write!(out, ",RESOLUTION={width}x{height}");
        }
        if let Some(rate) = self.frame_rate {
            let _ = write!(out, ",FRAME-RATE={}", decimal(rate));
        }
        let _ = write!(
            out,
            ",BANDWIDTH={},AVERAGE-BANDWIDTH={}",
            self.bandwidth, self.average_bandwidth
        );
        if self.audio_uri.is_some() {
            out.push_str(",AUDIO=\"audio\"");
        }
        let _ = writeln!(out, "\n{}", self.uri);
        out
    }
}

/// Whether a playlist may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is complete and was so from the start.
    Vod,
    /// It slides.
    Live {
        /// Nothing follows any more.
        ended: bool,
    },
}

/// What makes a playlist a low-latency one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowLatency {
    /// Longest part, milliseconds.
    pub part_target_ms: u32,
    /// How far from the end a player stays, milliseconds; at least three part targets.
    pub hold_back_ms: u32,
}

/// A part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Relative URI.
    pub uri: String,
    /// Duration, milliseconds.
    pub duration_ms: u32,
    /// Whether it begins with a picture that can be decoded alone.
    pub independent: bool,
}

/// What a segment that carries a fragment says of it beside the media (EXT-X-DATERANGE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentRange {
    /// The fragment's number.
    pub number: String,
    /// When its first byte arrived, milliseconds since the epoch.
    pub server_ms: i64,
}

/// A segment, or what is known of one that is still being made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Relative URI.
    pub uri: String,
    /// Duration, milliseconds.
    pub duration_ms: u32,
    /// Whether it does not continue the one before it.
    pub discontinuity: bool,
    /// URI of its initialisation segment; written where it differs from that of the segment before.
    pub map: Option<String>,
    /// Date and time of its first picture, milliseconds since the epoch.
    pub program_date_time_ms: Option<i64>,
    /// Its media is missing.
    pub gap: bool,
    /// What else is said of the fragment in it.
    pub fragment: Option<FragmentRange>,
    /// Its parts, where they are told.
    pub parts: Vec<Part>,
}

/// Where another playlist of the same session stands (EXT-X-RENDITION-REPORT).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenditionReport {
    /// Relative URI of that playlist.
    pub uri: String,
    /// Its last media sequence number.
    pub last_msn: u64,
    /// The last part of that segment.
    pub last_part: Option<usize>,
}

/// What a media playlist says.
#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// EXT-X-VERSION.
    pub version: u8,
    /// Whether it may change.
    pub kind: Kind,
    /// EXT-X-TARGETDURATION, seconds.
    pub target_duration_s: u32,
    /// EXT-X-MEDIA-SEQUENCE: the number of the first segment.
    pub media_sequence: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE: discontinuities before the first segment's own.
    pub discontinuity_sequence: u64,
    /// Whether parts may be told.
    pub low_latency: Option<LowLatency>,
    /// The segments.
    pub segments: Vec<Segment>,
    /// The segment that is being made: only its parts can be fetched.
    pub open: Option<Segment>,
    /// URI of the part that will come next.
    pub preload_hint: Option<String>,
    /// The playlist of the session's other track.
    pub rendition: Option<RenditionReport>,
}

impl Media {
    /// The playlist.
    #[must_use]
    pub fn text(&self) -> String {
        let longest = self.segments.first().map_or(0, |segment| segment.uri.len() + 128);
        let mut out = String::with_capacity(512 + self.segments.len() * longest);
        let _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{}", self.version);
        if self.kind == Kind::Vod {
            out.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n");
        }
        let _ = writeln!(out, "#EXT-X-TARGETDURATION:{}", self.target_duration_s);
        if let Some(low) = self.low_latency {
            let hold = seconds(low.hold_back_ms);
            let _ = writeln!(out, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={hold}");
            let _ = writeln!(out, "#EXT-X-PART-INF:PART-TARGET={}", seconds(low.part_target_ms));
        }
        let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", self.media_sequence);
        if self.kind != Kind::Vod || self.discontinuity_sequence > 0 {
            let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuity_sequence);
        }
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        let mut map = None;
        for segment in &self.segments {
            head(&mut out, segment, &mut map);
            let _ = writeln!(out, "#EXTINF:{},\n{}", seconds(segment.duration_ms), segment.uri);
        }
        if let Some(open) = &self.open {
            head(&mut out, open, &mut map);
        }
        if let Some(uri) = &self.preload_hint {
            let _ = writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{uri}\"");
        }
        if let Some(report) = &self.rendition {
            let _ = write!(
                out,
                "#EXT-X-RENDITION-REPORT:URI=\"{}\",LAST-MSN={}",
                report.uri, report.last_msn
            );
            let _ = match report.last_part {
                Some(part) => writeln!(out, ",LAST-PART={part}"),
                None => writeln!(out),
            };
        }
        if matches!(self.kind, Kind::Vod | Kind::Live { ended: true }) {
            out.push_str("#EXT-X-ENDLIST\n");
        }
        out
    }
}

/// Everything of a segment that stands before its duration.
fn head<'a>(out: &mut String, segment: &'a Segment, map: &mut Option<&'a str>) {
    if segment.discontinuity {
        out.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if let Some(uri) = segment.map.as_deref().filter(|uri| *map != Some(*uri)) {
        let _ = writeln!(out, "#EXT-X-MAP:URI=\"{uri}\"");
        *map = Some(uri);
    }
    if segment.gap {
        out.push_str("#EXT-X-GAP\n");
    }
    if let Some(at) = segment.program_date_time_ms {
        let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", iso8601(at));
    }
    if let (Some(fragment), Some(at)) = (&segment.fragment, segment.program_date_time_ms) {
        let _ = writeln!(
            out,
            "#EXT-X-DATERANGE:ID=\"{0}\",CLASS=\"sightglass.fragment\",START-DATE=\"{1}\",DURATION={2},X-FRAGMENT-NUMBER=\"{0}\",X-SERVER-TIMESTAMP=\"{3}\"",
            fragment.number,
            iso8601(at),
            seconds(segment.duration_ms),
            iso8601(fragment.server_ms),
        );
    }
    for part in &segment.parts {
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        let _ = writeln!(
            out,
            "#EXT-X-PART:DURATION={},URI=\"{}\"{independent}",
            seconds(part.duration_ms),
            part.uri
        );
    }
}
