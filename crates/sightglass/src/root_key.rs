//! The root key that the operator gives: `SIGHTGLASS_ACCESS_KEY_ID` and `SIGHTGLASS_SECRET_ACCESS_KEY`. Without them the
//! data directory makes one at its first start. It is never logged; `sightglass env` prints it.

use auth::{Credentials, Secret};

const ID_VARIABLE: &str = "SIGHTGLASS_ACCESS_KEY_ID";
const SECRET_VARIABLE: &str = "SIGHTGLASS_SECRET_ACCESS_KEY";
/// AWS's bounds for an access key id; the secret must be worth guessing at.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=128;

/// The variables do not make a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRootKey(String);

/// The key of the environment; `None` where neither variable is set.
pub fn from_environment() -> Result<Option<Credentials>, InvalidRootKey> {
    let value = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    parse(value(ID_VARIABLE), value(SECRET_VARIABLE))
}

fn parse(id: Option<String>, secret: Option<String>) -> Result<Option<Credentials>, InvalidRootKey> {
    let (id, secret) = match (id, secret) {
        (None, None) => return Ok(None),
        (Some(id), Some(secret)) => (id, secret),
        _ => {
            return Err(InvalidRootKey(format!(
                "set both {ID_VARIABLE} and {SECRET_VARIABLE}, or neither"
            )));
        }
    };
    if !LENGTH.contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(InvalidRootKey(format!(
            "{ID_VARIABLE} must be 16 to 128 letters, digits or '_'"
        )));
    }
    if !LENGTH.contains(&secret.len()) {
        return Err(InvalidRootKey(format!(
            "{SECRET_VARIABLE} must have 16 to 128 characters"
        )));
    }
    Ok(Some(Credentials {
        access_key_id: id,
        secret: Secret::new(secret),
        session_token: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_key_and_a_short_secret_are_refused_without_repeating_the_secret() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(parse(None, None), Ok(None));
        assert!(
            parse(some("AKIAIOSFODNN7EXAMPLE"), some("0123456789abcdef"))
                .unwrap()
                .is_some()
        );
        assert!(parse(some("AKIAIOSFODNN7EXAMPLE"), None).is_err());
        let short = parse(some("AKIAIOSFODNN7EXAMPLE"), some("hunter2")).unwrap_err();
        assert!(!short.to_string().contains("hunter2"));
    }
}
