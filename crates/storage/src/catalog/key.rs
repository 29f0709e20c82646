//! How keys are built: parts joined by `/`, each part escaped so that no name can reach into another's space.

use std::fmt::{self, Write as _};

use base::{AccountId, Region};

/// A catalog key or a prefix of keys, e.g. `000000000000/us-west-2/stream/door`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CatalogKey(String);

impl CatalogKey {
    /// The space of one account and region.
    pub fn scoped(account: AccountId, region: &Region) -> Self {
        CatalogKey(format!("{account}/{region}"))
    }

    /// The space of one account over all regions, for what has no region (IAM-like things).
    pub fn account(account: AccountId) -> Self {
        CatalogKey(format!("{account}/-"))
    }

    /// The space of the server itself: counters, keys, leases. Sorts before every account's... and never meets one,
    /// because an account id is twelve digits.
    pub fn server() -> Self {
        CatalogKey("-/-".to_owned())
    }

    /// The key one part deeper. In a part, `/`, `%` and control characters are percent-encoded.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.0.push('/');
        for c in part.chars() {
            if matches!(c, '/' | '%') || c.is_control() {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(self.0, "%{byte:02X}");
                }
            } else {
                self.0.push(c);
            }
        }
        self
    }

    /// The prefix of everything below this key: itself and a `/`.
    pub fn below(&self) -> String {
        format!("{}/", self.0)
    }

    /// The last part of a key of this shape, unescaped; `None` if `key` is not directly below this one.
    pub fn child_of(&self, key: &str) -> Option<String> {
        let part = key.strip_prefix(&self.0)?.strip_prefix('/')?;
        if part.contains('/') {
            return None;
        }
        let mut bytes = Vec::with_capacity(part.len());
        let mut rest = part.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next()?, rest.next()?];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).ok()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CatalogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<CatalogKey> for String {
    fn from(key: CatalogKey) -> Self {
        key.0
    }
}

impl From<&CatalogKey> for String {
    fn from(key: &CatalogKey) -> Self {
        key.0.clone()
    }
}

impl AsRef<str> for CatalogKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_reaches_into_anothers_space() {
        let region: Region = "us-west-2".parse().unwrap();
        let streams = CatalogKey::scoped(AccountId::DEFAULT, &region).with("stream");
        assert_eq!(
            streams.clone().with("door").as_str(),
            "000000000000/us-west-2/stream/door"
        );
        for name in ["a/b", "a%2Fb", "%", "é/ü", "a\u{1}b", "..", ""] {
            let key = streams.clone().with(name);
            assert!(key.as_str().starts_with(&streams.below()));
            assert_eq!(key.as_str().matches('/').count(), 3, "{name:?}");
            assert_eq!(streams.child_of(key.as_str()).as_deref(), Some(name));
        }
        assert_eq!(streams.child_of("000000000000/us-west-2/streams/x"), None);
        assert_eq!(streams.child_of(streams.clone().with("a").with("b").as_str()), None);
    }
}
