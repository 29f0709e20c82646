//! What is archived how, and where to: `s3://bucket/prefix every=1h format=mkv`, as the stream's tag has it, and in the words
//! of the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::{EVERY_MAX, EVERY_MIN, PREFIX_BYTES_MAX};

/// The container of the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Matroska: takes any codec, and the frames as they were sent.
    #[default]
    Mkv,
    /// MP4, of H.264, H.265, AAC and G.711.
    Mp4,
}

impl Format {
    /// Ends the keys.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Format::Mkv => "mkv",
            Format::Mp4 => "mp4",
        }
    }

    /// The objects' `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Mkv => "video/x-matroska",
            Format::Mp4 => "video/mp4",
        }
    }
}

/// Where one object ends and the next begins. Either way an object also ends where the tracks change, and at the limits of
/// [`crate::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Times of day that are multiples of this since 1970 (UTC), by the server's clock.
    Every(Duration),
    /// Where the film is interrupted for longer than `gap`, by the producer's clock, or has gone on for `at_most`.
    Event {
        /// A shorter interruption belongs to the event.
        gap: Duration,
        /// A longer event goes on in another object.
        at_most: Duration,
    },
}

impl Default for Cut {
    fn default() -> Self {
        Cut::Every(HOUR)
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const GAP: Duration = Duration::from_secs(10);

/// How a stream is archived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The container.
    pub format: Format,
    /// Where objects end.
    pub cut: Cut,
}

/// A bucket and what the keys in it begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The bucket.
    pub bucket: String,
    /// Empty, or ends with `/`.
    pub prefix: String,
}

/// Destination and settings as one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Where to.
    pub destination: Destination,
    /// How.
    pub settings: Settings,
}

/// A text that is none of these; the message says what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidArchive(String);

fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidArchive> {
    Err(InvalidArchive(why.into()))
}

impl FromStr for Format {
    type Err = InvalidArchive;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mkv" => Ok(Format::Mkv),
            "mp4" => Ok(Format::Mp4),
            _ => invalid(format!("{text:?} is no format; it is mkv or mp4")),
        }
    }
}

impl FromStr for Destination {
    type Err = InvalidArchive;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((bucket, prefix)) = text
            .strip_prefix("s3://")
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        else {
            return invalid(format!("{text:?} is no destination; it is s3://BUCKET/PREFIX"));
        };
        if bucket.is_empty() || bucket.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_')) {
            return invalid(format!("{bucket:?} is no bucket's name"));
        }
        let segments = || prefix.trim_end_matches('/').split('/');
        let plain = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment
                    .chars()
                    .all(|c| c.is_alphanumeric() || "!-_.'()=+@,:;$".contains(c))
        };
        if prefix.len() > PREFIX_BYTES_MAX || !(prefix.is_empty() || segments().all(plain)) {
            return invalid(format!(
                "{prefix:?} cannot begin keys: it has up to {PREFIX_BYTES_MAX} bytes of letters, digits and !-_.'()=+@,:;$ in parts between slashes"
            ));
        }
        let prefix = match prefix.trim_end_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Destination {
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// `90`, `90s`, `15m`, `1h`, `1d`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidArchive> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    let seconds = match unit {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => 0,
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(seconds))
    {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => invalid(format!("{text:?} is no duration; write 90s, 15m, 1h or 1d")),
    }
}

impl Settings {
    /// From what a person writes; what is not given is as it is unless set.
    ///
    /// # Errors
    /// A value means nothing, or none together with the others.
    pub fn from_words(
        format: Option<&str>,
        by: Option<&str>,
        every: Option<&str>,
        gap: Option<&str>,
    ) -> Result<Self, InvalidArchive> {
        let format = format.map(str::parse).transpose()?.unwrap_or_default();
        let every = every.map(parse_duration).transpose()?.unwrap_or(HOUR);
        if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
            return invalid("an object holds from 1s to 1d (every)");
        }
        let gap = gap.map(parse_duration).transpose()?;
        let cut = match (by.unwrap_or("time"), gap) {
            ("time" | "hour", None) => Cut::Every(every),
            ("time" | "hour", Some(_)) => return invalid("gap is for archives by event (by=event)"),
            ("event", gap) => Cut::Event {
                gap: gap.unwrap_or(GAP),
                at_most: every,
            },
            (by, _) => return invalid(format!("{by:?} is no way to cut an archive; it is time or event")),
        };
        Ok(Settings { format, cut })
    }
}

impl FromStr for Archive {
    type Err = InvalidArchive;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The values of tags have neither ? nor &, so that spaces do as well.
        let (destination, query) = text.split_once(['?', ' ']).unwrap_or((text, ""));
        let (mut format, mut by, mut every, mut gap) = (None, None, None, None);
        for pair in query.split(['&', ' ']).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let place = match key {
                "format" => &mut format,
                "by" => &mut by,
                "every" => &mut every,
                "gap" => &mut gap,
                _ => {
                    return invalid(format!(
                        "{key:?} is no setting of an archive; they are format, by, every and gap"
                    ));
                }
            };
            *place = Some(value);
        }
        Ok(Archive {
            destination: destination.parse()?,
            settings: Settings::from_words(format, by, every, gap)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_where_to_and_how() {
        let archive: Archive = "s3://films/site-1/a every=15m format=mp4".parse().unwrap();
        assert_eq!(archive.destination.to_string(), "s3://films/site-1/a/");
        assert_eq!(archive.settings.cut, Cut::Every(Duration::from_secs(900)));
        assert_eq!(archive.settings.format, Format::Mp4);
        let plain: Archive = "s3://films".parse().unwrap();
        assert_eq!(
            (plain.settings, plain.destination.prefix),
            (Settings::default(), String::new())
        );
        let event: Archive = "s3://films/x/?by=event&gap=3".parse().unwrap();
        let (gap, at_most) = (Duration::from_secs(3), HOUR);
        assert_eq!(event.settings.cut, Cut::Event { gap, at_most });
    }

    #[test]
    fn what_means_nothing_is_refused_in_words() {
        for (text, part) in [
            ("films/x", "s3://BUCKET/PREFIX"),
            ("s3:///x", "bucket"),
            ("s3://films/a//b", "keys"),
            ("s3://films/../b", "keys"),
            ("s3://films/x?evry=1h", "every"),
            ("s3://films/x?every=0s", "duration"),
            ("s3://films/x?every=2d", "1d"),
            ("s3://films/x?every=1w", "duration"),
            ("s3://films/x?format=avi", "mkv or mp4"),
            ("s3://films/x?by=day", "time or event"),
            ("s3://films/x?gap=5s", "by=event"),
        ] {
            let said = text.parse::<Archive>().unwrap_err().to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
