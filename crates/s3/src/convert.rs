//! Between the shapes of the wire and those of `objects`.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use objects::digest::{Algorithm, Checksum, ChecksumKind};
use objects::local::Conditions;
use objects::{Facts, Headers, Object};
use s3s::dto::{
    self, ChecksumType, CopySource, ETag, ETagCondition, Metadata, Tag, TagSet, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3Result, s3_error};

pub(crate) fn timestamp(time: base::Timestamp) -> Timestamp {
    let since = Duration::from_millis(u64::try_from(time.millis()).unwrap_or(0));
    Timestamp::from(UNIX_EPOCH + since)
}

/// Whole seconds since the epoch: as exact as HTTP is.
pub(crate) fn seconds(time: &Timestamp) -> i64 {
    let text = formatted(time, TimestampFormat::EpochSeconds).unwrap_or_default();
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().unwrap_or(0)
}

pub(crate) fn formatted(time: &Timestamp, format: TimestampFormat) -> Option<String> {
    let mut text = Vec::new();
    time.format(format, &mut text).ok()?;
    String::from_utf8(text).ok()
}

pub(crate) fn etag(tag: &str) -> ETag {
    ETag::Strong(tag.to_owned())
}

/// An ETag as clients send it, with or without quotes.
pub(crate) fn bare(tag: &str) -> String {
    tag.trim_matches('"').to_owned()
}

fn condition(sent: Option<&ETagCondition>) -> Option<Vec<String>> {
    sent.map(|condition| match condition {
        ETagCondition::Any => Vec::new(),
        ETagCondition::ETag(tag) => vec![bare(tag.value())],
    })
}

/// `If-Match` and `If-None-Match` of a call that writes.
pub(crate) fn conditions(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> Conditions {
    Conditions {
        if_match: condition(if_match),
        if_none_match: condition(if_none_match),
    }
}

/// What a reader demands of the object that is there.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demanded {
    Met,
    /// It is what the reader has.
    NotModified,
    Failed,
}

impl Demands {
    /// In the order of RFC 9110, section 13.2.2; a time counts only where no ETag was sent.
    pub fn of(&self, object: &Object) -> Demanded {
        let modified = object.modified.millis().div_euclid(1000);
        let same = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(tag) => bare(tag.value()) == object.etag,
        };
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !same(condition) => return Demanded::Failed,
            (None, Some(since)) if modified > seconds(since) => return Demanded::Failed,
            _ => {}
        }
        match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) if same(condition) => Demanded::NotModified,
            (None, Some(since)) if modified <= seconds(since) => Demanded::NotModified,
            _ => Demanded::Met,
        }
    }
}

pub(crate) fn metadata(sent: Option<Metadata>) -> BTreeMap<String, String> {
    let pairs = sent.into_iter().flatten();
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

pub(crate) fn sent_metadata(kept: &BTreeMap<String, String>) -> Option<Metadata> {
    let all: Metadata = kept.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Some(all).filter(|all| !all.is_empty())
}

/// `x-amz-tagging: a=1&b=2`.
pub(crate) fn header_tags(sent: Option<&str>) -> S3Result<BTreeMap<String, String>> {
    let Some(text) = sent else { return Ok(BTreeMap::new()) };
    let wrong = || {
        s3_error!(
            InvalidArgument,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."
        )
    };
    let form = wire::query::parse_form(text.as_bytes()).map_err(|_| wrong())?;
    if form.len() != text.split('&').filter(|pair| !pair.is_empty()).count() {
        return Err(wrong());
    }
    Ok(form)
}

pub(crate) fn tags(sent: TagSet) -> S3Result<BTreeMap<String, String>> {
    let (mut out, len) = (BTreeMap::new(), sent.len());
    for tag in sent {
        out.insert(tag.key.unwrap_or_default(), tag.value.unwrap_or_default());
    }
    if out.len() != len {
        return Err(s3_error!(InvalidTag, "Cannot provide multiple Tags with the same key"));
    }
    Ok(out)
}

pub(crate) fn tag_set(tags: BTreeMap<String, String>) -> TagSet {
    let tag = |(key, value)| Tag {
        key: Some(key),
        value: Some(value),
    };
    tags.into_iter().map(tag).collect()
}

/// The standard headers of a request that writes. `aws-chunked` is how the body was sent, not what it is.
pub(crate) struct SentHeaders<'a> {
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    pub content_language: Option<&'a str>,
    pub content_disposition: Option<&'a str>,
    pub cache_control: Option<&'a str>,
    pub expires: Option<&'a Timestamp>,
}

impl SentHeaders<'_> {
    pub fn kept(&self) -> Headers {
        let text = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
        let encoding = self.content_encoding.map(|value| {
            let kept = value.split(',').map(str::trim);
            let kept: Vec<&str> = kept.filter(|one| !one.eq_ignore_ascii_case("aws-chunked")).collect();
            kept.join(",")
        });
        Headers {
            content_type: text(self.content_type),
            content_encoding: text(encoding.as_deref()),
            content_language: text(self.content_language),
            content_disposition: text(self.content_disposition),
            cache_control: text(self.cache_control),
            expires: self.expires.and_then(|time| formatted(time, TimestampFormat::HttpDate)),
        }
    }
}

/// What S3 answers for an object without a type.
pub(crate) fn content_type(facts: &Facts) -> String {
    facts
        .headers
        .content_type
        .clone()
        .unwrap_or_else(|| "binary/octet-stream".to_owned())
}

pub(crate) fn expires(facts: &Facts) -> Option<Timestamp> {
    let text = facts.headers.expires.as_deref()?;
    Timestamp::parse(TimestampFormat::HttpDate, text).ok()
}

/// Bucket and key of a copy's source.
pub(crate) fn source(source: &CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket {
            bucket,
            key,
            version_id: None,
        } => Ok((bucket.to_string(), key.to_string())),
        CopySource::Bucket {
            version_id: Some(version),
            ..
        } if &**version != "null" => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist: buckets are not versioned."
        )),
        CopySource::Bucket { bucket, key, .. } => Ok((bucket.to_string(), key.to_string())),
        _ => Err(s3_error!(NotImplemented, "Access points are not implemented.")),
    }
}

/// The five checksum members of a shape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub crc32: Option<String>,
    pub crc32c: Option<String>,
    pub crc64nvme: Option<String>,
    pub sha1: Option<String>,
    pub sha256: Option<String>,
}

impl Sums {
    pub fn of(algorithm: Algorithm, value: &[u8]) -> Self {
        Sums::of_text(algorithm, STANDARD.encode(value))
    }

    fn of_text(algorithm: Algorithm, text: String) -> Self {
        let (mut out, text) = (Sums::default(), Some(text));
        match algorithm {
            Algorithm::Crc32 => out.crc32 = text,
            Algorithm::Crc32c => out.crc32c = text,
            Algorithm::Crc64Nvme => out.crc64nvme = text,
            Algorithm::Sha1 => out.sha1 = text,
            Algorithm::Sha256 => out.sha256 = text,
        }
        out
    }

    /// A checksum of an object; one of checksums says of how many parts.
    pub fn kept(checksum: &Checksum, parts: Option<u16>) -> Self {
        let text = STANDARD.encode(&checksum.value);
        match (checksum.kind, parts) {
            (ChecksumKind::Composite, Some(parts)) => Sums::of_text(checksum.algorithm, format!("{text}-{parts}")),
            _ => Sums::of_text(checksum.algorithm, text),
        }
    }

    /// The checksum that was sent; more than one is refused.
    pub fn sent(&self) -> S3Result<Option<(Algorithm, Vec<u8>)>> {
        let all = [
            (Algorithm::Crc32, &self.crc32),
            (Algorithm::Crc32c, &self.crc32c),
            (Algorithm::Crc64Nvme, &self.crc64nvme),
            (Algorithm::Sha1, &self.sha1),
            (Algorithm::Sha256, &self.sha256),
        ];
        let mut sent = all
            .into_iter()
            .filter_map(|(algorithm, text)| Some((algorithm, text.as_ref()?)));
        let Some((algorithm, text)) = sent.next() else {
            return Ok(None);
        };
        if sent.next().is_some() {
            return Err(s3_error!(
                InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
            ));
        }
        Ok(Some((algorithm, checksum_value(algorithm, text)?)))
    }
}

/// A value in base64, perhaps with the number of parts behind it.
pub(crate) fn checksum_value(algorithm: Algorithm, text: &str) -> S3Result<Vec<u8>> {
    let value = text.split('-').next().unwrap_or_default();
    let value = STANDARD
        .decode(value)
        .ok()
        .filter(|value| value.len() == algorithm.len());
    value.ok_or_else(|| {
        let name = algorithm.name().to_ascii_lowercase();
        s3_error!(InvalidRequest, "Value for x-amz-checksum-{name} header is invalid.")
    })
}

pub(crate) fn md5(sent: Option<&str>) -> S3Result<Option<Vec<u8>>> {
    let decode = |text: &str| STANDARD.decode(text).ok().filter(|value| value.len() == 16);
    match sent {
        None => Ok(None),
        Some(text) => decode(text)
            .map(Some)
            .ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified was invalid.")),
    }
}

pub(crate) fn algorithm(sent: Option<&dto::ChecksumAlgorithm>) -> S3Result<Option<Algorithm>> {
    sent.map(|sent| {
        Algorithm::named(sent.as_str()).ok_or_else(|| {
            s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
        })
    })
    .transpose()
}

pub(crate) fn kind_name(kind: ChecksumKind) -> ChecksumType {
    match kind {
        ChecksumKind::FullObject => ChecksumType::from_static(ChecksumType::FULL_OBJECT),
        ChecksumKind::Composite => ChecksumType::from_static(ChecksumType::COMPOSITE),
    }
}

pub(crate) fn algorithm_name(algorithm: Algorithm) -> dto::ChecksumAlgorithm {
    dto::ChecksumAlgorithm::from_static(algorithm.name())
}

/// `a number within` of the wire: a negative one is refused, none means `default`.
pub(crate) fn count(sent: Option<i32>, default: usize, name: &str) -> S3Result<usize> {
    match sent {
        None => Ok(default),
        Some(count) => usize::try_from(count).map_err(|_| {
            s3_error!(
                InvalidArgument,
                "Argument {name} must be an integer between 0 and 2147483647"
            )
        }),
    }
}

/// Percent-encodes what XML might not carry, as `encoding-type=url` asks.
pub(crate) fn url_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// The id of an upload as it was sent.
pub(crate) fn upload_id(text: &str) -> S3Result<objects::Id> {
    text.parse().map_err(|()| no_such_upload(text))
}

pub(crate) fn no_such_upload(text: &str) -> S3Error {
    crate::errors::s3_of(objects::ObjectError::NoSuchUpload(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_readers_are_weighed_in_the_order_of_http() {
        let object = Object {
            key: "a".to_owned(),
            size: 1,
            etag: "abc".to_owned(),
            modified: base::Timestamp::from_millis(1_700_000_000_500),
            facts: Facts::default(),
            checksum: Checksum {
                algorithm: Algorithm::Crc32,
                kind: ChecksumKind::FullObject,
                value: vec![0; 4],
            },
            parts: None,
        };
        let at = |seconds: i64| Some(timestamp(base::Timestamp::from_millis(seconds * 1000)));
        let tag = |tag: &str| Some(ETagCondition::ETag(etag(tag)));
        let (before, same) = (at(1_699_999_999), at(1_700_000_000));
        for (demands, outcome) in [
            (Demands::default(), Demanded::Met),
            (
                Demands {
                    if_match: tag("abc"),
                    ..Demands::default()
                },
                Demanded::Met,
            ),
            (
                Demands {
                    if_match: tag("x"),
                    ..Demands::default()
                },
                Demanded::Failed,
            ),
            (
                Demands {
                    if_match: tag("abc"),
                    if_unmodified_since: before.clone(),
                    ..Demands::default()
                },
                Demanded::Met,
            ),
            (
                Demands {
                    if_unmodified_since: before.clone(),
                    ..Demands::default()
                },
                Demanded::Failed,
            ),
            (
                Demands {
                    if_unmodified_since: same.clone(),
                    ..Demands::default()
                },
                Demanded::Met,
            ),
            (
                Demands {
                    if_none_match: tag("abc"),
                    ..Demands::default()
                },
                Demanded::NotModified,
            ),
            (
                Demands {
                    if_none_match: Some(ETagCondition::Any),
                    ..Demands::default()
                },
                Demanded::NotModified,
            ),
            (
                Demands {
                    if_none_match: tag("x"),
                    if_modified_since: same.clone(),
                    ..Demands::default()
                },
                Demanded::Met,
            ),
            (
                Demands {
                    if_modified_since: same,
                    ..Demands::default()
                },
                Demanded::NotModified,
            ),
            (
                Demands {
                    if_modified_since: before,
                    ..Demands::default()
                },
                Demanded::Met,
            ),
        ] {
            assert_eq!(demands.of(&object), outcome, "{demands:?}");
        }
    }

    #[test]
    fn tags_in_a_header_and_odd_keys_survive_their_encodings() {
        let tags = header_tags(Some("a=1&b%20c=d%26e")).unwrap();
        assert_eq!(tags.get("b c").map(String::as_str), Some("d&e"));
        assert!(header_tags(Some("a=1&a=2")).is_err());
        assert_eq!(url_encoded("a b/ü+\u{1}"), "a%20b/%C3%BC%2B%01");
        assert!(checksum_value(Algorithm::Crc32, "AAAA").is_err());
        assert_eq!(checksum_value(Algorithm::Crc32, "AAAAAA==-7").unwrap(), [0; 4]);
        assert_eq!(md5(Some("x")).unwrap_err().code().as_str(), "InvalidDigest");
    }
}
