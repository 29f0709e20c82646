//! A record on its way through the chain.

use base::Timestamp;
use bytes::Bytes;
use storage::{SequenceNumber, ShardId};

use crate::types::{ErrorOutputType, Failed, Keys, Ready, Record};

/// A record on its way through the chain.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is now.
    pub data: Bytes,
    /// What goes to the error output instead of it; what was compressed goes there as it came.
    pub origin: Option<Bytes>,
    /// When the record that it comes from arrived.
    pub arrival: Timestamp,
    /// The shard of the record that it comes from.
    pub shard: ShardId,
    /// The number of the record that it comes from.
    pub sequence: SequenceNumber,
    /// Its place in an aggregate of the KPL.
    pub sub_sequence: u64,
    /// Its partition key; empty where records are put directly.
    pub partition_key: std::sync::Arc<str>,
    /// Keys that a query gave it.
    pub query_keys: Keys,
    /// Keys that a function gave it.
    pub lambda_keys: Keys,
}

impl Item {
    /// A record as it came.
    pub fn new(record: Record) -> Self {
        Item {
            data: record.data,
            origin: None,
            arrival: record.arrival,
            shard: record.source.shard,
            sequence: record.source.sequence,
            sub_sequence: 0,
            partition_key: record.source.partition_key.into(),
            query_keys: Keys::new(),
            lambda_keys: Keys::new(),
        }
    }

    /// The same with other data.
    pub fn with(&self, data: Bytes) -> Self {
        Item { data, ..self.clone() }
    }

    /// As it is delivered.
    pub fn ready(self) -> Ready {
        Ready {
            data: self.data,
            arrival: self.arrival,
            sequence: Some((self.sequence, self.sub_sequence)),
            query_keys: self.query_keys,
            lambda_keys: self.lambda_keys,
        }
    }

    /// As it goes to the error output.
    pub fn failed(self, why: Why) -> Failed {
        Failed {
            raw: self.origin.unwrap_or(self.data),
            arrival: self.arrival,
            code: why.code.to_owned(),
            message: why.message,
            attempts: why.attempts,
            kind: why.kind,
            sequence: Some(self.sequence),
            more: why.more,
        }
    }
}

/// Why a record goes to the error output.
#[derive(Clone, Debug)]
pub struct Why {
    /// AWS's code.
    pub code: &'static str,
    /// In words.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Which part of delivery failed.
    pub kind: ErrorOutputType,
    /// What else the error record says: names, and JSON of values.
    pub more: Vec<(&'static str, String)>,
}

impl Why {
    /// A processor failed on a record, which trying again does not help.
    pub fn processing(code: &'static str, message: impl Into<String>) -> Self {
        Why {
            code,
            message: message.into(),
            attempts: 1,
            kind: ErrorOutputType::Processing,
            more: Vec::new(),
        }
    }
}
