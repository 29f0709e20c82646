//! What a stream takes beyond AWS's rules, as its tags say, and the words in which the owner of a camera is told which rule
//! its media met. Without I/O, and without a say in what is refused: that is [`crate::ingest::rules`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ingest::acks::AckError;
use crate::ingest::rules::{Backwards, Report, RuleLimits};
use crate::limits;

/// A rule that a stream may have relaxed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leniency {
    /// A fragment that is longer than AWS takes.
    FragmentDuration,
    /// A fragment without a frame of a declared track.
    MissingTracks,
    /// A cluster whose timecode is not above the one before.
    Timecodes,
    /// A track without codec private data, whose frames carry what a decoder needs.
    CodecPrivate,
}

impl Leniency {
    /// Every variant, for metrics and tests.
    pub const ALL: [Leniency; 4] = [
        Leniency::FragmentDuration,
        Leniency::MissingTracks,
        Leniency::Timecodes,
        Leniency::CodecPrivate,
    ];

    /// Its name in metrics and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Leniency::FragmentDuration => "fragment_duration",
            Leniency::MissingTracks => "missing_tracks",
            Leniency::Timecodes => "timecodes",
            Leniency::CodecPrivate => "codec_private",
        }
    }

    /// The tag that sets it.
    pub const fn tag(self) -> &'static str {
        match self {
            Leniency::FragmentDuration => FRAGMENT_DURATION_TAG,
            Leniency::MissingTracks => MISSING_TRACKS_TAG,
            Leniency::Timecodes => TIMECODES_TAG,
            Leniency::CodecPrivate => CODEC_PRIVATE_TAG,
        }
    }

    /// The one that would have taken what an error refuses.
    pub const fn of(error: AckError) -> Option<Self> {
        match error {
            AckError::FragmentDuration => Some(Leniency::FragmentDuration),
            AckError::FramesMissing => Some(Leniency::MissingTracks),
            AckError::TimecodeNotGreater => Some(Leniency::Timecodes),
            _ => None,
        }
    }
}

/// Longest fragment of a stream in milliseconds.
pub const FRAGMENT_DURATION_TAG: &str = "sightglass:max_fragment_duration_ms";
/// `true`: a fragment may lack frames of a declared track.
pub const MISSING_TRACKS_TAG: &str = "sightglass:allow_missing_tracks";
/// What happens to a cluster whose timecode is not above the one before: `refuse`, `accept` or `continue`.
pub const TIMECODES_TAG: &str = "sightglass:non_monotonic_timecodes";
/// `false`: what a decoder needs is taken from the track's header alone.
pub const CODEC_PRIVATE_TAG: &str = "sightglass:derive_codec_private";
/// `true`: a PutMedia ends those before it.
pub const NEWEST_WINS_TAG: &str = "sightglass:newest_connection_wins";

/// What the tags of a stream say of its ingest. Read when a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestSettings {
    /// What fragments may be.
    pub rules: RuleLimits,
    /// What a header lacks is taken from the frames when media is packaged.
    pub derive_codec_private: bool,
    /// A new connection ends those before it.
    pub newest_wins: bool,
}

/// A tag has a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The tag {tag} is {value:?}; it is {legal}.")]
pub struct InvalidSetting {
    tag: &'static str,
    value: String,
    legal: String,
}

impl IngestSettings {
    /// What a stream without tags has, by what the operator set.
    pub fn plain(rules: RuleLimits) -> Self {
        IngestSettings {
            rules,
            derive_codec_private: true,
            newest_wins: false,
        }
    }

    /// Whether the tags let what a header lacks be taken from the frames.
    pub fn derives_codec_private(tags: &BTreeMap<String, String>) -> bool {
        tags.get(CODEC_PRIVATE_TAG).is_none_or(|value| value != "false")
    }

    /// What the tags say.
    pub fn from_tags(tags: &BTreeMap<String, String>, rules: RuleLimits) -> Result<Self, InvalidSetting> {
        let mut settings = IngestSettings::plain(rules);
        let longest = limits::FRAGMENT_DURATION_MS_MIN..=limits::FRAGMENT_DURATION_MS_MAX;
        let legal = format!("a number of milliseconds from {} to {}", longest.start(), longest.end());
        let millis = |text: &str| text.parse().ok().filter(|millis| longest.contains(millis));
        if let Some(millis) = read(tags, FRAGMENT_DURATION_TAG, &legal, millis)? {
            settings.rules.fragment_duration_ms = millis;
        }
        let legal = "refuse, accept or continue";
        if let Some(backwards) = read(tags, TIMECODES_TAG, legal, backwards)? {
            settings.rules.backwards = backwards;
        }
        for (tag, setting) in [
            (MISSING_TRACKS_TAG, &mut settings.rules.allow_missing_tracks),
            (CODEC_PRIVATE_TAG, &mut settings.derive_codec_private),
            (NEWEST_WINS_TAG, &mut settings.newest_wins),
        ] {
            if let Some(given) = read(tags, tag, "true or false", |text| text.parse().ok())? {
                *setting = given;
            }
        }
        Ok(settings)
    }
}

fn backwards(text: &str) -> Option<Backwards> {
    match text {
        "refuse" => Some(Backwards::Refuse),
        "accept" => Some(Backwards::Accept),
        "continue" => Some(Backwards::Continue),
        _ => None,
    }
}

fn read<T>(
    tags: &BTreeMap<String, String>,
    tag: &'static str,
    legal: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, InvalidSetting> {
    let Some(value) = tags.get(tag) else {
        return Ok(None);
    };
    let invalid = || InvalidSetting {
        tag,
        value: value.clone(),
        legal: legal.to_owned(),
    };
    parse(value).map(Some).ok_or_else(invalid)
}

/// What the owner of the camera can do about an error; `None` where the error says it all.
pub fn advice(error: AckError, report: &Report) -> Option<String> {
    let tag = Leniency::of(error)?.tag();
    let (span, limit) = (report.span_ms, report.limit_ms);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = match error {
        AckError::FragmentDuration => {
            let most = limits::FRAGMENT_DURATION_MS_MAX;
            let keys = key_frames(report);
            write!(
                text,
                "the fragment spans {span} ms and may span {limit} ms; {keys}. Let the camera send a key frame at least every \
                 {limit} ms (its GOP or I-frame interval), or tag the stream {tag} with up to {most}"
            )
        }
        AckError::FramesMissing => {
            let silent = report.tracks.iter().filter(|track| track.frames == 0);
            let silent: Vec<String> = silent.map(|t| format!("{} ({})", t.number, t.codec_id)).collect();
            let silent = silent.join(", ");
            write!(
                text,
                "a fragment of {span} ms has no frame of track {silent}. Let the camera declare only the tracks that it \
                 sends, or tag the stream {tag} with true"
            )
        }
        _ => {
            let (now, before) = report.timecodes;
            write!(
                text,
                "a cluster of timecode {} comes after one of timecode {}. Let the producer's clock go forwards, or tag the \
                 stream {tag} with accept, or with continue to go on from the fragment before",
                now.unwrap_or_default(),
                before.unwrap_or_default()
            )
        }
    };
    Some(text)
}

fn key_frames(report: &Report) -> String {
    match (report.key_interval_ms, report.since_key_ms) {
        (Some(interval), Some(since)) if since <= interval => format!("key frames come every {interval} ms"),
        (_, Some(since)) => format!("its last key frame came {since} ms before its end"),
        (_, None) => "no frame was flagged as a key frame".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::rules::TrackReport;

    fn tagged(tag: &str, value: &str) -> Result<IngestSettings, InvalidSetting> {
        let tags = BTreeMap::from([(tag.to_owned(), value.to_owned())]);
        IngestSettings::from_tags(&tags, RuleLimits::default())
    }

    #[test]
    fn each_tag_sets_what_it_names_and_nothing_else() {
        let plain = IngestSettings::plain(RuleLimits::default());
        assert_eq!(tagged("site", "true"), Ok(plain));
        let rules = |change: fn(&mut RuleLimits)| {
            let mut settings = plain;
            change(&mut settings.rules);
            Ok(settings)
        };
        assert_eq!(
            tagged(FRAGMENT_DURATION_TAG, "10000"),
            rules(|r| r.fragment_duration_ms = 10_000)
        );
        assert_eq!(
            tagged(FRAGMENT_DURATION_TAG, "120000"),
            rules(|r| r.fragment_duration_ms = 120_000)
        );
        assert_eq!(
            tagged(MISSING_TRACKS_TAG, "true"),
            rules(|r| r.allow_missing_tracks = true)
        );
        assert_eq!(
            tagged(TIMECODES_TAG, "accept"),
            rules(|r| r.backwards = Backwards::Accept)
        );
        assert_eq!(
            tagged(TIMECODES_TAG, "continue"),
            rules(|r| r.backwards = Backwards::Continue)
        );
        assert_eq!(tagged(TIMECODES_TAG, "refuse"), Ok(plain));
        let derive = IngestSettings {
            derive_codec_private: false,
            ..plain
        };
        assert_eq!(tagged(CODEC_PRIVATE_TAG, "false"), Ok(derive));
        let newest = IngestSettings {
            newest_wins: true,
            ..plain
        };
        assert_eq!(tagged(NEWEST_WINS_TAG, "true"), Ok(newest));
    }

    #[test]
    fn a_value_that_means_nothing_is_refused_with_the_ones_that_do() {
        for (tag, value) in [
            (FRAGMENT_DURATION_TAG, "999"),
            (FRAGMENT_DURATION_TAG, "120001"),
            (FRAGMENT_DURATION_TAG, "20 s"),
            (MISSING_TRACKS_TAG, "yes"),
            (TIMECODES_TAG, ""),
            (CODEC_PRIVATE_TAG, "1"),
            (NEWEST_WINS_TAG, "newest"),
        ] {
            let said = tagged(tag, value).unwrap_err().to_string();
            assert!(said.contains(tag) && said.contains("; it is "), "{said}");
        }
    }

    #[test]
    fn advice_names_what_was_measured_and_the_tag_that_allows_it() {
        let track = |number, codec_id: &str, frames| TrackReport {
            number,
            codec_id: codec_id.to_owned(),
            frames,
        };
        let report = Report {
            span_ms: 20_040,
            limit_ms: 20_000,
            key_interval_ms: Some(30_000),
            since_key_ms: Some(20_040),
            frames_per_second: Some(25.0),
            timecodes: (Some(5), Some(9)),
            tracks: vec![track(1, "V_MPEG4/ISO/AVC", 501), track(2, "A_AAC", 0)],
        };
        let said = advice(AckError::FragmentDuration, &report).unwrap();
        for part in [
            "20040 ms",
            "20000 ms",
            "every 30000 ms",
            FRAGMENT_DURATION_TAG,
            "120000",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let said = advice(AckError::FramesMissing, &report).unwrap();
        assert!(
            said.contains("track 2 (A_AAC)") && said.contains(MISSING_TRACKS_TAG),
            "{said}"
        );
        let said = advice(AckError::TimecodeNotGreater, &report).unwrap();
        assert!(
            said.contains("timecode 5 comes after one of timecode 9") && said.contains(TIMECODES_TAG),
            "{said}"
        );
        assert_eq!(advice(AckError::InvalidMkv, &report), None);
    }
}
