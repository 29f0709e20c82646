//! The keys of an archive. They are made of the stream's name and the object's first fragment alone, so that the same
//! fragments always get the same key, and they sort by time:
//! `PREFIX STREAM/2026/11/23/STREAM_2026-11-23T08-00-03.120Z_7164251937.mkv`, and the index beside it with `.index.jsonl`
//! behind that.

use base::Timestamp;
use client::reader::FragmentInfo;

use crate::settings::Format;

/// Ends the key of an index.
pub const INDEX: &str = ".index.jsonl";

/// Digits of the first fragment's number in a key: enough to tell those of one millisecond apart.
const DIGITS: usize = 10;

/// Where one stream's objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Up to the year.
    root: String,
    stream: String,
}

impl Folder {
    /// A stream's folder below a prefix, which is empty or ends with `/`.
    #[must_use]
    pub fn new(prefix: &str, stream: &str) -> Self {
        Folder {
            root: format!("{prefix}{stream}/"),
            stream: stream.to_owned(),
        }
    }

    /// What all keys begin with.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The key of the object that begins with this fragment.
    #[must_use]
    pub fn key(&self, first: &FragmentInfo, format: Format) -> String {
        let number = first.number.as_str();
        let digits = number.get(number.len().saturating_sub(DIGITS)..).unwrap_or(number);
        format!(
            "{}Z_{digits}.{}",
            self.place(first.server_timestamp),
            format.extension()
        )
    }

    /// What sorts before the keys of all objects that begin at this time or later, and after those before it.
    #[must_use]
    pub fn place(&self, time: Timestamp) -> String {
        let millis = time.millis().max(0);
        let text = wire::time::to_iso8601(Timestamp::from_millis(millis - millis % 1000));
        let (day, clock) = text.trim_end_matches('Z').split_once('T').unwrap_or((&text, ""));
        let (folder, clock) = (day.replace('-', "/"), clock.replace(':', "-"));
        format!(
            "{}{folder}/{}_{day}T{clock}.{:03}",
            self.root,
            self.stream,
            millis % 1000
        )
    }

    /// When the object of a key begins. `None` for what is no object of this archive.
    #[must_use]
    pub fn time_of(&self, key: &str) -> Option<Timestamp> {
        let name = key.strip_prefix(&self.root)?.rsplit('/').next()?;
        let time = name.strip_prefix(&self.stream)?.strip_prefix('_')?.split('_').next()?;
        let (day, clock) = time.split_once('T')?;
        wire::time::parse_iso8601(&format!("{day}T{}", clock.replace('-', ":")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use client::reader::FragmentNumber;

    use super::*;

    fn fragment(millis: i64, number: &str) -> FragmentInfo {
        FragmentInfo {
            number: FragmentNumber::new(number).unwrap(),
            bytes: 1,
            server_timestamp: Timestamp::from_millis(millis),
            producer_timestamp: Timestamp::from_millis(millis),
            length: Duration::from_secs(1),
        }
    }

    #[test]
    fn keys_sort_by_time_and_tell_it() {
        let folder = Folder::new("films/", "door_2");
        let times = [0, 1, 999, 1000, 1_795_420_803_120, 1_795_420_803_121, 1_799_999_999_999];
        let keys: Vec<String> = times
            .iter()
            .map(|time| {
                folder.key(
                    &fragment(*time, "91343852333181432392682062622847164251937"),
                    Format::Mkv,
                )
            })
            .collect();
        assert_eq!(
            keys[4],
            "films/door_2/2026/11/23/door_2_2026-11-23T08-00-03.120Z_7164251937.mkv"
        );
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{keys:?}");
        for (key, time) in keys.iter().zip(times) {
            let time = Timestamp::from_millis(time);
            assert_eq!(folder.time_of(key), Some(time));
            assert!(folder.place(time) < *key && *key < folder.place(time.plus_millis(1)));
            assert_eq!(folder.time_of(&format!("{key}{INDEX}")), Some(time));
        }
        assert_eq!(folder.time_of("films/door_2/readme.txt"), None);
        assert_eq!(folder.time_of("films/door_22/2026"), None);
    }

    #[test]
    fn a_short_number_is_taken_whole() {
        let key = Folder::new("", "a").key(&fragment(0, "7"), Format::Mp4);
        assert_eq!(key, "a/1970/01/01/a_1970-01-01T00-00-00.000Z_7.mp4");
    }
}
