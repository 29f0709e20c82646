//! Names of a channel's objects: the output key template.
//!
//! `!{name}` stands for a value; AWS documents channel-name, channel-id, stream-name, yyyy, yy, MM, dd, HH, mm and extension,
//! of which the last may say what it is (`!{extension:.json.gz}`). Times are those of the object's oldest record, UTC. A
//! unique part is added to every name; it stands before the extension where the template ends with that.

use base::Timestamp;
use uuid::Uuid;

use crate::types::Refused;

/// Where nothing is said.
pub const DEFAULT: &str = "kinesis-channel/!{channel-name}/!{channel-id}/!{yyyy}/!{MM}/!{dd}/!{HH}/\
                           !{channel-name}-!{channel-id}-!{yyyy}-!{MM}-!{dd}-!{HH}-!{mm}!{extension}";

/// Bytes of an object's name, by S3.
const KEY_BYTES_MAX: usize = 1024;
/// Bytes of the unique part: a hyphen and a UUID.
const UNIQUE_BYTES: usize = 37;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// Characters of `YYYY-MM-DDTHH:MM`.
    Time(usize, usize),
    Extension(Option<String>),
}

/// A checked template of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    extension: &'static str,
}

/// What does not change from object to object.
#[derive(Clone, Copy, Debug)]
pub struct Fixed<'a> {
    /// `!{channel-name}`
    pub channel: &'a str,
    /// `!{channel-id}`
    pub id: &'a str,
    /// `!{stream-name}`
    pub stream: &'a str,
    /// `!{extension}`: that of the compression.
    pub extension: &'static str,
}

impl Template {
    /// Checks a template.
    pub fn parse(template: &str, fixed: Fixed<'_>) -> Result<Self, Refused> {
        let refuse = |why: &str| Err(Refused(format!("OutputKeyTemplate {template:?} {why}.")));
        if template.starts_with('/') || template.ends_with('/') {
            return refuse("begins or ends with a slash");
        }
        if template.split('/').any(|part| part == "." || part == "..") {
            return refuse("has a part that is . or ..");
        }
        let mut pieces = Vec::new();
        let mut rest = template;
        while let Some((text, behind)) = rest.split_once("!{") {
            let Some((name, after)) = behind.split_once('}') else {
                return refuse("has a !{ without a }");
            };
            pieces.push(Piece::Text(text.to_owned()));
            pieces.push(match name {
                "channel-name" => Piece::Text(fixed.channel.to_owned()),
                "channel-id" => Piece::Text(fixed.id.to_owned()),
                "stream-name" => Piece::Text(fixed.stream.to_owned()),
                "yyyy" => Piece::Time(0, 4),
                "yy" => Piece::Time(2, 4),
                "MM" => Piece::Time(5, 7),
                "dd" => Piece::Time(8, 10),
                "HH" => Piece::Time(11, 13),
                "mm" => Piece::Time(14, 16),
                "extension" => Piece::Extension(None),
                name => match name.strip_prefix("extension:") {
                    Some(extension) if extension.starts_with('.') => Piece::Extension(Some(extension.to_owned())),
                    _ => return refuse(&format!("has the unknown variable !{{{name}}}")),
                },
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        let parsed = Template {
            pieces,
            extension: fixed.extension,
        };
        if parsed.key(Timestamp::from_millis(0), Uuid::nil()).len() > KEY_BYTES_MAX {
            return refuse(&format!(
                "makes names of more than {KEY_BYTES_MAX} bytes, {UNIQUE_BYTES} of which are the unique part"
            ));
        }
        Ok(parsed)
    }

    /// The name of an object: the same for the same time and id.
    pub fn key(&self, oldest: Timestamp, id: Uuid) -> String {
        let time = wire::time::to_iso8601(oldest);
        let mut key = String::new();
        let last = self.pieces.len().saturating_sub(1);
        let mut unique = Some(id);
        for (place, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Text(text) => key.push_str(text),
                Piece::Time(from, to) => key.push_str(time.get(*from..*to).unwrap_or_default()),
                Piece::Extension(given) => {
                    if place == last
                        && let Some(id) = unique.take()
                    {
                        key.push_str(&format!("-{id}"));
                    }
                    key.push_str(given.as_deref().unwrap_or(self.extension));
                }
            }
        }
        if let Some(id) = unique {
            key.push_str(&format!("-{id}"));
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: Fixed<'_> = Fixed {
        channel: "c",
        id: "i",
        stream: "s",
        extension: ".gz",
    };
    const ID: Uuid = Uuid::from_u128(1);
    const UNIQUE: &str = "-00000000-0000-0000-0000-000000000001";

    fn key(template: &str) -> String {
        let at = wire::time::parse_iso8601("2026-07-14T09:05:59Z").unwrap();
        Template::parse(template, FIXED).unwrap().key(at, ID)
    }

    #[test]
    fn names_follow_the_template_and_are_unique() {
        assert_eq!(
            key(DEFAULT),
            format!("kinesis-channel/c/i/2026/07/14/09/c-i-2026-07-14-09-05{UNIQUE}.gz")
        );
        assert_eq!(key("a/!{stream-name}/!{yy}!{MM}"), format!("a/s/2607{UNIQUE}"));
        assert_eq!(key("x!{extension:.json.gz}"), format!("x{UNIQUE}.json.gz"));
        // An extension in the middle is a text like any other.
        assert_eq!(key("x!{extension}/y"), format!("x.gz/y{UNIQUE}"));
        assert_eq!(key("plain"), format!("plain{UNIQUE}"));
        assert_eq!(key("it's!(*)"), format!("it's!(*){UNIQUE}"));
    }

    #[test]
    fn what_makes_no_name_is_refused() {
        for bad in [
            "/a",
            "a/",
            "a/../b",
            "./a",
            "!{yyyy",
            "!{}",
            "!{ss}",
            "!{extension:gz}",
            "!{channel-name }",
            "!{!{yyyy}}",
        ] {
            assert!(Template::parse(bad, FIXED).is_err(), "{bad}");
        }
        assert!(Template::parse(&"a".repeat(KEY_BYTES_MAX - UNIQUE_BYTES), FIXED).is_ok());
        let long = Template::parse(&"a".repeat(KEY_BYTES_MAX - UNIQUE_BYTES + 1), FIXED);
        assert!(long.unwrap_err().0.contains("1024 bytes"));
    }
}
