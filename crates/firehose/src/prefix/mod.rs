//! Prefixes of object names and the expressions in them: `!{timestamp:…}`, `!{firehose:…}`, `!{partitionKeyFromQuery:…}`
//! and `!{partitionKeyFromLambda:…}`. A prefix is checked once, when a delivery stream is made, and rendered for each
//! object. Sans-I/O; randomness is handed in, so that a name that was decided can be decided again.
//!
//! Rules: the developer guide's page on custom prefixes. Where no timestamp and no partition key is asked for, the hour is
//! appended as `yyyy/MM/dd/HH/`, without a slash before it.

use base::Timestamp;
use jiff::tz::TimeZone;

use crate::limits::PREFIX_CHARACTERS_MAX;
use crate::types::{ErrorOutputType, Keys, Refused};

mod time;

use time::Pattern;

/// What is appended where nothing says when.
const HOURS: &str = "yyyy/MM/dd/HH/";

/// Characters of a random string. AWS's guide: 11.
const RANDOM_CHARACTERS: usize = 11;

/// What a prefix is for: it decides which expressions it may hold, and what it is where none is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Delivered records, dynamic partitioning off.
    Plain,
    /// Delivered records, dynamic partitioning on.
    Partitioned,
    /// Records that failed.
    Errors,
}

/// What an expression may stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Arrival of the oldest record in the object.
    pub at: Timestamp,
    /// For `!{firehose:random-string}`: the same bytes give the same text.
    pub random: [u8; 16],
    /// `!{partitionKeyFromQuery:…}`
    pub query_keys: &'a Keys,
    /// `!{partitionKeyFromLambda:…}`
    pub lambda_keys: &'a Keys,
    /// `!{firehose:error-output-type}`
    pub error: Option<ErrorOutputType>,
}

/// A checked prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    parts: Vec<Part>,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Time(Pattern),
    Random,
    ErrorType,
    QueryKey(String),
    LambdaKey(String),
}

impl Prefix {
    /// Parses a prefix; `None` is the default of its use. `zone` is CustomTimeZone, UTC where it is missing.
    pub fn parse(text: Option<&str>, zone: Option<&str>, usage: Use) -> Result<Self, Refused> {
        let text = text.unwrap_or_default();
        let mut parts = parse(text)?;
        let expressions = parts.iter().any(|part| !matches!(part, Part::Text(_)));
        let has = |wanted: fn(&Part) -> bool| parts.iter().any(wanted);
        let keyed = has(|part| matches!(part, Part::QueryKey(_) | Part::LambdaKey(_)));
        let timed = has(|part| matches!(part, Part::Time(_)));
        let typed = has(|part| matches!(part, Part::ErrorType));
        match usage {
            Use::Plain | Use::Partitioned if typed => {
                return refuse("Prefix cannot contain !{firehose:error-output-type}.");
            }
            Use::Plain if keyed => {
                return refuse(
                    "Dynamic Partitioning namespaces can only be part of a prefix expression when Dynamic Partitioning \
                     is enabled.",
                );
            }
            Use::Partitioned if !keyed => {
                return refuse(
                    "When Dynamic Partitioning is enabled, Prefix must contain at least one \
                     !{partitionKeyFromQuery:...} or !{partitionKeyFromLambda:...} expression.",
                );
            }
            Use::Errors if keyed => {
                return refuse("ErrorOutputPrefix cannot contain Dynamic Partitioning namespaces.");
            }
            Use::Errors if expressions && !typed => {
                return refuse(
                    "ErrorOutputPrefix must contain at least one instance of !{firehose:error-output-type} when it \
                     contains expressions.",
                );
            }
            Use::Errors if !expressions => {
                parts.push(Part::ErrorType);
                push_text(&mut parts, "/");
                parts.push(Part::Time(hours()?));
            }
            Use::Plain if !timed => parts.push(Part::Time(hours()?)),
            _ => {}
        }
        let zone_name = zone.unwrap_or_default();
        let zone = time::zone(zone_name)
            .ok_or_else(|| Refused(format!("CustomTimeZone {zone_name:?} is not the name of a time zone.")))?;
        Ok(Prefix { parts, zone })
    }

    /// Parses Prefix and ErrorOutputPrefix, which depend on each other: without an ErrorOutputPrefix, failed records go
    /// below Prefix, which then must have no expressions.
    pub fn pair(
        prefix: Option<&str>,
        errors: Option<&str>,
        zone: Option<&str>,
        partitioned: bool,
    ) -> Result<(Self, Self), Refused> {
        let given = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        if partitioned && !given(errors) {
            return refuse("ErrorOutputPrefix must be specified when Dynamic Partitioning is enabled.");
        }
        let usage = if partitioned { Use::Partitioned } else { Use::Plain };
        let delivered = Prefix::parse(prefix, zone, usage)?;
        if given(errors) {
            return Ok((delivered, Prefix::parse(errors, zone, Use::Errors)?));
        }
        if prefix.is_some_and(|prefix| prefix.contains("!{")) {
            return refuse("ErrorOutputPrefix can't be null when Prefix contains expressions.");
        }
        Ok((delivered, Prefix::parse(prefix, zone, Use::Errors)?))
    }

    /// The keys out of queries that it names.
    pub fn query_keys(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::QueryKey(key) => Some(key.as_str()),
            _ => None,
        })
    }

    /// The keys out of a transform that it names.
    pub fn lambda_keys(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::LambdaKey(key) => Some(key.as_str()),
            _ => None,
        })
    }

    /// The name of an object up to its last part. Fails where a key is missing: the record belongs to the error output.
    pub fn render(&self, values: &Values<'_>) -> Result<String, Refused> {
        let at = jiff::Timestamp::from_millisecond(values.at.millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let at = at.to_zoned(self.zone.clone());
        let mut out = String::new();
        for (place, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Time(pattern) => pattern.format(&at, &mut out),
                Part::Random => random(values.random, place, &mut out),
                Part::ErrorType => out.push_str(values.error.map_or("", ErrorOutputType::as_str)),
                Part::QueryKey(key) => out.push_str(found(values.query_keys, key, "partitionKeyFromQuery")?),
                Part::LambdaKey(key) => out.push_str(found(values.lambda_keys, key, "partitionKeyFromLambda")?),
            }
        }
        match out.chars().count() {
            0..=PREFIX_CHARACTERS_MAX => Ok(out),
            long => refuse(&format!(
                "The evaluated prefix has {long} characters, more than {PREFIX_CHARACTERS_MAX}."
            )),
        }
    }
}

fn refuse<T>(why: &str) -> Result<T, Refused> {
    Err(Refused(why.to_owned()))
}

fn hours() -> Result<Pattern, Refused> {
    Pattern::parse(HOURS).map_err(|bad| Refused(bad.to_string()))
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn parse(text: &str) -> Result<Vec<Part>, Refused> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("!{") {
        push_text(&mut parts, before);
        let bad = || {
            Refused(format!(
                "Invalid prefix expression at \"!{{{after}\": the sequence !{{ can only appear in !{{namespace:value}} \
                 expressions."
            ))
        };
        let (namespace, value) = after.split_once(':').ok_or_else(bad)?;
        let end = match namespace {
            "timestamp" => end_of_pattern(value),
            _ => value.find('}'),
        };
        let (value, after) = end.and_then(|end| value.split_at_checked(end)).ok_or_else(bad)?;
        if value.is_empty() || value.contains("!{") {
            return Err(bad());
        }
        parts.push(expression(namespace, value)?);
        rest = after.strip_prefix('}').unwrap_or(after);
    }
    push_text(&mut parts, rest);
    if rest_of_text(&parts) > PREFIX_CHARACTERS_MAX {
        return refuse(&format!(
            "A prefix cannot be longer than {PREFIX_CHARACTERS_MAX} characters after it is evaluated."
        ));
    }
    Ok(parts)
}

/// Characters that no value changes.
fn rest_of_text(parts: &[Part]) -> usize {
    let text = |part: &Part| match part {
        Part::Text(text) => text.chars().count(),
        _ => 0,
    };
    parts.iter().map(text).sum()
}

/// Where a pattern ends: at the first brace that is not in quotes.
fn end_of_pattern(value: &str) -> Option<usize> {
    let mut quoted = false;
    value.char_indices().find_map(|(at, c)| {
        quoted ^= c == '\'';
        (c == '}' && !quoted).then_some(at)
    })
}

fn expression(namespace: &str, value: &str) -> Result<Part, Refused> {
    match (namespace, value) {
        ("timestamp", pattern) => Pattern::parse(pattern)
            .map(Part::Time)
            .map_err(|bad| Refused(format!("Invalid timestamp expression !{{timestamp:{pattern}}}: {bad}."))),
        ("firehose", "random-string") => Ok(Part::Random),
        ("firehose", "error-output-type") => Ok(Part::ErrorType),
        ("firehose", other) => refuse(&format!(
            "Invalid value {other:?} in the firehose namespace: it is random-string or error-output-type."
        )),
        ("partitionKeyFromQuery", key) => Ok(Part::QueryKey(key.to_owned())),
        ("partitionKeyFromLambda", key) => Ok(Part::LambdaKey(key.to_owned())),
        (other, _) => refuse(&format!(
            "Invalid namespace {other:?} in a prefix expression: it is timestamp, firehose, partitionKeyFromQuery or \
             partitionKeyFromLambda."
        )),
    }
}

fn found<'a>(keys: &'a Keys, key: &str, namespace: &str) -> Result<&'a str, Refused> {
    let value = keys
        .iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str());
    let missing = || Refused(format!("The record has no value for !{{{namespace}:{key}}}."));
    value.filter(|value| !value.is_empty()).ok_or_else(missing)
}

/// Letters and digits that look like nothing; each place in a prefix has its own.
fn random(seed: [u8; 16], place: usize, out: &mut String) {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut state = u128::from_le_bytes(seed) ^ (place as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    for _ in 0..RANDOM_CHARACTERS {
        // The step of a 128-bit linear congruential generator (Knuth's MMIX is the 64-bit one); its high bits are used.
        state = state
            .wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645)
            .wrapping_add(0x5851_F42D_4C95_7F2D_1405_7B7E_F767_814F);
        let digit = (state >> 96) as usize % DIGITS.len();
        out.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
    }
}

#[cfg(test)]
mod tests;
