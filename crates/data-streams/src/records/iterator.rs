//! Shard iterators: sealed, so that nobody reads or makes one, and bound to the account and region of whoever got it.

use auth::KeyRing;
use auth::seal::Form;
use base::{AccountId, ApiError, Caller, Timestamp};
use storage::{Position, SequenceNumber, ShardId, StreamId};

use crate::error::invalid;
use crate::limits::ITERATOR_LIFE_MS;
use crate::page::context;

/// What a shard iterator points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iterator {
    /// When it was made.
    pub made: Timestamp,
    /// The stream; another one of its name is another stream.
    pub stream: StreamId,
    /// Whose stream it is: of another account where its policy lets the reader in.
    pub account: AccountId,
    /// The stream's name.
    pub name: String,
    /// The shard.
    pub shard: ShardId,
    /// The place in it.
    pub position: Position,
}

/// First byte of an iterator's plain text.
const VERSION: u8 = 2;

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
        bytes.extend_from_slice(format!("{}/{}", self.account, self.name).as_bytes());
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
        let (account, name) = std::str::from_utf8(name).ok()?.split_once('/')?;
        (*version == VERSION).then_some(Iterator {
            made: Timestamp::from_millis(i64::from_be_bytes(*made)),
            stream: StreamId(u64::from_be_bytes(*stream)),
            account: account.parse().ok()?,
            name: name.to_owned(),
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
