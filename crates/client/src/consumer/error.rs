//! What can go wrong for a consumer, and what to do about it.

use super::store::StoreError;
use crate::error::ClientError;

/// Why a consumer ended.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The stream cannot be read.
    #[error("the stream cannot be read: {0}{hint}", hint = hint(.0))]
    Stream(#[source] ClientError),
    /// The lease table cannot be used.
    #[error("{0}{hint}", hint = store_hint(.0))]
    Store(#[source] StoreError),
}

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another worker has the shard, or may have it. What was processed since the last checkpoint will be seen again, by the
    /// other; throw away what is not yet written.
    #[error("shard {shard} belongs to another worker now; what was not checkpointed will be read again there")]
    Lost {
        /// The shard.
        shard: String,
    },
    /// The place is beyond what was handed out.
    #[error("shard {shard} was not handed out as far as {to}; checkpoint only records that you got")]
    NotDelivered {
        /// The shard.
        shard: String,
        /// How far was asked for.
        to: String,
    },
    /// The lease table did not answer until the lease ran out.
    #[error("shard {shard}: {source}{hint}", hint = store_hint(.source))]
    Store {
        /// The shard.
        shard: String,
        /// What happened.
        #[source]
        source: StoreError,
    },
}

impl CheckpointError {
    /// Whether the shard is another worker's.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, CheckpointError::Lost { .. })
    }
}

fn hint(error: &ClientError) -> String {
    error.advice().map(|advice| format!(" ({advice})")).unwrap_or_default()
}

fn store_hint(error: &StoreError) -> String {
    match error {
        StoreError::Call { source, .. } => match source.code() {
            Some("AccessDeniedException") => {
                " (the key needs dynamodb:DescribeTable, CreateTable, Scan, GetItem, PutItem, UpdateItem and DeleteItem)".to_owned()
            }
            Some("ResourceNotFoundException") => " (the table was deleted; start the consumer again)".to_owned(),
            _ => hint(source),
        },
        StoreError::Unusable { .. } => String::new(),
    }
}
