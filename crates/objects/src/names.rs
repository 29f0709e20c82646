//! What may be the name of a bucket, a key, or a tag.

use std::collections::BTreeMap;

use crate::ObjectError;
use crate::limits::{HEADERS_BYTES_MAX, KEY_BYTES_MAX, METADATA_BYTES_MAX, TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX};

/// True for 3 to 63 characters of a-z, 0-9, '-' and '.', a letter or digit at both ends, no two dots beside each other,
/// and not of the form of an IP address.
pub fn is_bucket_name(name: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| alphanumeric(Some(b)) || matches!(b, b'-' | b'.'))
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// Refuses what is no key. NUL is refused because the catalog takes none.
pub(crate) fn check_key(key: &str) -> Result<(), ObjectError> {
    if key.is_empty() || key.contains('\0') {
        return Err(ObjectError::Invalid("a key has 1 to 1024 bytes and no NUL".to_owned()));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(ObjectError::TooLarge {
            what: "the key",
            limit: KEY_BYTES_MAX as u64,
        });
    }
    Ok(())
}

pub(crate) fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), ObjectError> {
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err(ObjectError::TooLarge {
            what: "the user metadata",
            limit: METADATA_BYTES_MAX as u64,
        });
    }
    Ok(())
}

pub(crate) fn check_headers<'a>(headers: impl Iterator<Item = &'a String>) -> Result<(), ObjectError> {
    if headers.map(String::len).sum::<usize>() > HEADERS_BYTES_MAX {
        return Err(ObjectError::TooLarge {
            what: "the description of the object",
            limit: HEADERS_BYTES_MAX as u64,
        });
    }
    Ok(())
}

/// Tags of an object or a bucket: at most `max`, no key twice, lengths within AWS's.
pub(crate) fn check_tags(tags: &BTreeMap<String, String>, max: usize) -> Result<(), ObjectError> {
    if tags.len() > max {
        return Err(ObjectError::Invalid(format!("at most {max} tags are taken")));
    }
    for (key, value) in tags {
        let (k, v) = (key.chars().count(), value.chars().count());
        if !(1..=TAG_KEY_CHARS_MAX).contains(&k) || v > TAG_VALUE_CHARS_MAX {
            return Err(ObjectError::Invalid(format!(
                "the tag {key:?} is not of 1 to {TAG_KEY_CHARS_MAX} characters with a value of at most {TAG_VALUE_CHARS_MAX}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_are_those_that_aws_takes() {
        for good in ["abc", "my-bucket.2026", "0a9", &"a".repeat(63)] {
            assert!(is_bucket_name(good), "{good}");
        }
        for bad in [
            "ab",
            "Abc",
            "a_b",
            "-abc",
            "abc-",
            "a..b",
            "192.168.1.1",
            "",
            "a/b",
            &"a".repeat(64),
            "äbc",
        ] {
            assert!(!is_bucket_name(bad), "{bad}");
        }
    }
}
