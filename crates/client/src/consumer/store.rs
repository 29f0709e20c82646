//! Where leases are kept. Whatever keeps them, a write happens only if its condition holds at that moment.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::lease::Lease;
use super::write::Write;
use crate::error::ClientError;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The call failed.
    #[error("the lease table {table}: {source}")]
    Call {
        /// Which table.
        table: String,
        /// What happened.
        #[source]
        source: ClientError,
    },
    /// A row or a table is not what a lease table holds.
    #[error("the lease table {table}: {why}")]
    Unusable {
        /// Which table.
        table: String,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl StoreError {
    /// Whether the same may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Call { source, .. } => {
                source.is_transient()
                    || matches!(
                        source.code(),
                        Some(
                            "ProvisionedThroughputExceededException"
                                | "RequestLimitExceeded"
                                | "LimitExceededException"
                                | "ResourceInUseException"
                        )
                    )
            }
            StoreError::Unusable { .. } => false,
        }
    }
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It happened.
    Done,
    /// Its condition did not hold, and nothing changed: the row as it is, unless it is gone.
    Refused(Option<Box<Lease>>),
}

/// A table of leases.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Makes the table where there is none, and waits until it can be used.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// All leases, in the order of their keys.
    async fn list(&self) -> Result<Vec<Lease>, StoreError>;

    /// One lease as it is now.
    async fn get(&self, key: &str) -> Result<Option<Lease>, StoreError>;

    /// Adds a lease; false if there is one with this key.
    async fn create(&self, lease: &Lease) -> Result<bool, StoreError>;

    /// Writes if the condition holds.
    async fn write(&self, write: &Write) -> Result<Outcome, StoreError>;

    /// Deletes a lease that is finished; false if it is not, or gone.
    async fn delete_finished(&self, key: &str) -> Result<bool, StoreError>;
}

/// Leases in memory: for tests, and for programs that are a fleet of their own.
#[derive(Debug, Default)]
pub struct MemoryLeaseStore {
    leases: Mutex<BTreeMap<String, Lease>>,
}

impl MemoryLeaseStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        Ok(self.leases.lock().values().cloned().collect())
    }

    async fn get(&self, key: &str) -> Result<Option<Lease>, StoreError> {
        Ok(self.leases.lock().get(key).cloned())
    }

    async fn create(&self, lease: &Lease) -> Result<bool, StoreError> {
        let mut leases = self.leases.lock();
        if leases.contains_key(&lease.key) {
            return Ok(false);
        }
        leases.insert(lease.key.clone(), lease.clone());
        Ok(true)
    }

    async fn write(&self, write: &Write) -> Result<Outcome, StoreError> {
        let mut leases = self.leases.lock();
        let Some(lease) = leases.get_mut(&write.key) else {
            return Ok(Outcome::Refused(None));
        };
        if !write.condition.holds(lease) {
            return Ok(Outcome::Refused(Some(Box::new(lease.clone()))));
        }
        write.change.apply(lease);
        Ok(Outcome::Done)
    }

    async fn delete_finished(&self, key: &str) -> Result<bool, StoreError> {
        let mut leases = self.leases.lock();
        let finished = leases.get(key).is_some_and(Lease::is_finished);
        if finished {
            leases.remove(key);
        }
        Ok(finished)
    }
}
