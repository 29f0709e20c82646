//! Prefixes of object names and the expressions in them.

use base::Timestamp;

use crate::types::{ErrorOutputType, Keys, Refused};

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
    text: String,
}

impl Prefix {
    /// Parses a prefix; `None` is the default of its use. `zone` is CustomTimeZone, UTC where it is missing.
    pub fn parse(text: Option<&str>, _zone: Option<&str>, usage: Use) -> Result<Self, Refused> {
        let text = text.unwrap_or_default();
        if text.contains("!{") || usage == Use::Partitioned {
            return Err(Refused(
                "Expressions in prefixes are not carried out by this server.".to_owned(),
            ));
        }
        Ok(Prefix { text: text.to_owned() })
    }

    /// The name of an object up to its last part. Fails where a key is missing: the record belongs to the error output.
    pub fn render(&self, _values: &Values<'_>) -> Result<String, Refused> {
        Ok(self.text.clone())
    }
}
