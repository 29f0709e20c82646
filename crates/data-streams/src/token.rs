//! Shard iterators and page tokens: sealed, so that nobody reads or makes one, and bound to the account and region of
//! whoever got it.

use auth::KeyRing;
use auth::seal::Form;
use base::{ApiError, Caller, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage::{Position, SequenceNumber, ShardId, StreamId};

use crate::error::invalid;
use crate::limits::{ITERATOR_LIFE_MS, PAGE_TOKEN_LIFE_MS};

/// What a shard iterator points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iterator {
    /// When it was made.
    pub made: Timestamp,
    /// The stream; another one of its name is another stream.
    pub stream: StreamId,
    /// The stream's name.
    pub name: String,
    /// The shard.
    pub shard: ShardId,
    /// The place in it.
    pub position: Position,
}

/// First byte of an iterator's plain text.
const VERSION: u8 = 1;

fn context(caller: &Caller) -> String {
    format!("{}/{}", caller.account, caller.region)
}

impl Iterator {
    fn to_bytes(&self) -> Vec<u8> {
        let (kind, sequence) = match self.position {
            Position::Trim => (0, 0),
            Position::At(number) => (1, number.get()),
            Position::After(number) => (2, number.get()),
        };
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.made.millis().to_be_bytes());
        bytes.extend_from_slice(&self.stream.0.to_be_bytes());
        bytes.extend_from_slice(&self.shard.0.to_be_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (made, rest) = rest.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (shard, rest) = rest.split_first_chunk()?;
        let (kind, rest) = rest.split_first()?;
        let (sequence, name) = rest.split_first_chunk()?;
        let number = || {
            u128::from_be_bytes(*sequence)
                .to_string()
                .parse::<SequenceNumber>()
                .ok()
        };
        let position = match kind {
            0 => Position::Trim,
            1 => Position::At(number()?),
            2 => Position::After(number()?),
            _ => return None,
        };
        (*version == VERSION).then_some(Iterator {
            made: Timestamp::from_millis(i64::from_be_bytes(*made)),
            stream: StreamId(u64::from_be_bytes(*stream)),
            name: String::from_utf8(name.to_vec()).ok()?,
            shard: ShardId(u32::from_be_bytes(*shard)),
            position,
        })
    }

    /// The text that the caller gets.
    pub fn seal(&self, ring: &KeyRing, caller: &Caller) -> Result<String, ApiError> {
        let sealed = ring.seal("shard-iterator", &context(caller), None, &self.to_bytes(), Form::Base64);
        sealed.map_err(|e| ApiError::server("InternalFailureException", "No iterator could be made.", e))
    }

    /// Opens what [`Iterator::seal`] made, if it is not older than five minutes.
    pub fn open(text: &str, ring: &KeyRing, caller: &Caller, now: Timestamp) -> Result<Self, ApiError> {
        let plain = ring.open("shard-iterator", &context(caller), now, text, Form::Base64);
        let opened = plain.ok().and_then(|bytes| Iterator::from_bytes(&bytes));
        let iterator = opened.ok_or_else(|| invalid("Invalid ShardIterator."))?;
        if now.millis_since(iterator.made) > ITERATOR_LIFE_MS {
            return Err(ApiError::client(
                "ExpiredIteratorException",
                format!(
                    "Iterator expired. The iterator was created at time {} while right now it is {now} which is further in \
                     the future than the tolerated delay of {ITERATOR_LIFE_MS} milliseconds.",
                    iterator.made
                ),
            ));
        }
        Ok(iterator)
    }
}

/// Makes a page token that is good for five minutes. `purpose` keeps the tokens of one operation out of another.
pub fn seal_page<T: Serialize>(
    purpose: &str,
    page: &T,
    ring: &KeyRing,
    caller: &Caller,
    now: Timestamp,
) -> Result<String, ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::server("InternalFailure", "No token could be made.", e);
    let plain = serde_json::to_vec(page).map_err(|e| failed(&e))?;
    let end = Some(now.plus_millis(PAGE_TOKEN_LIFE_MS));
    ring.seal(purpose, &context(caller), end, &plain, Form::Base64)
        .map_err(|e| failed(&e))
}

/// Opens what [`seal_page`] made.
pub fn open_page<T: DeserializeOwned>(
    purpose: &str,
    text: &str,
    ring: &KeyRing,
    caller: &Caller,
    now: Timestamp,
) -> Result<T, ApiError> {
    let plain = ring
        .open(purpose, &context(caller), now, text, Form::Base64)
        .map_err(|e| match e {
            auth::seal::SealError::Expired => {
                ApiError::client("ExpiredNextTokenException", "The NextToken is older than 300 seconds.")
            }
            _ => invalid("NextToken is not valid."),
        })?;
    serde_json::from_slice(&plain).map_err(|_| invalid("NextToken is not valid."))
}
