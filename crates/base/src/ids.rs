//! Identities that appear in every ARN. Parsed once at the edge, trusted afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A twelve-digit account number, as in every AWS ARN.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(u64);

/// The text is not a twelve-digit account number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("account id {0:?} is not twelve decimal digits")]
pub struct InvalidAccountId(pub String);

impl AccountId {
    /// The account used unless the operator configures another: `000000000000`.
    pub const DEFAULT: AccountId = AccountId(0);
}

impl FromStr for AccountId {
    type Err = InvalidAccountId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|_| digits)
            .map(AccountId)
            .ok_or_else(|| InvalidAccountId(text.to_owned()))
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012}", self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A region name such as `us-west-2`. Any lower-case name of letters, digits and hyphens, 1 to 32 characters, is
/// accepted and echoed in ARNs; resources of different regions never meet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Arc<str>);

/// The text cannot be a region name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("region {0:?} is not 1 to 32 characters of a-z, 0-9 and '-'")]
pub struct InvalidRegion(pub String);

impl Region {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Region(text.into()));
        }
        Err(InvalidRegion(text.to_owned()))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a resource of this server is keyed by: names are unique per account and region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName {
    /// The account that owns the resource.
    pub account: AccountId,
    /// The region that the owner named when creating it.
    pub region: Region,
    /// The name, already validated against the service model.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_ids_are_exactly_twelve_digits() {
        assert_eq!("000000000000".parse(), Ok(AccountId::DEFAULT));
        assert_eq!("123456789012".parse::<AccountId>().unwrap().to_string(), "123456789012");
        for bad in ["", "12345678901", "1234567890123", "12345678901a", "+12345678901"] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_region_is_a_short_lower_case_name() {
        assert_eq!("us-west-2".parse::<Region>().unwrap().as_str(), "us-west-2");
        for bad in ["", "US", "a/b", "é", &"a".repeat(33)] {
            assert!(bad.parse::<Region>().is_err(), "{bad}");
        }
    }
}
