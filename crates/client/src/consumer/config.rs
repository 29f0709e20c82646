//! What a consumer is told when it starts. `docs/reference/consumer.md` lists these settings.

use std::time::Duration;

use base::Timestamp;

use crate::limits::{CONSUMER_BUFFER_BYTES, PAGE_RECORDS_MAX};

/// Where a fleet begins in a shard that it knows nothing of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialPosition {
    /// With the oldest record.
    #[default]
    TrimHorizon,
    /// With what comes from now on.
    Latest,
    /// With what arrived then or later.
    At(Timestamp),
}

/// How records come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// The consumer asks for them (GetRecords).
    #[default]
    Polling,
    /// The server sends them (SubscribeToShard) to the stream's consumer of this name, which is registered if there is
    /// none. Where it cannot be had (too many consumers, no permission, a server without it), the consumer asks for them.
    FanOut {
        /// The consumer's name; one for the whole fleet.
        name: String,
    },
}

/// What becomes of a packed record whose hash key is not of the shard that it lies in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Misplaced {
    /// It is left out, as the KCL does: a producer that packs by shard has sent it again to the right one after a change of
    /// shards.
    #[default]
    Drop,
    /// It is kept: for producers that pack records without regard to shards.
    Keep,
}

/// How a [`Consumer`](super::Consumer) behaves. All workers of a fleet must have the same `lease_duration`, which the KCL
/// calls `failoverTimeMillis`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Who this is among the workers; must be unlike every other's. Default: a random name.
    pub worker_id: String,
    /// Where to begin. Default [`InitialPosition::TrimHorizon`].
    pub initial: InitialPosition,
    /// How records come. Default [`Delivery::Polling`].
    pub delivery: Delivery,
    /// A worker that did not renew a lease for so long has lost it. Leases are renewed, and the table is read, three times
    /// as often. Default 10 s, as the KCL.
    pub lease_duration: Duration,
    /// How long a holder has to finish when it is asked for a lease; then the lease is taken from it. Default 30 s, as the
    /// KCL.
    pub handoff_timeout: Duration,
    /// Most leases of this worker. Default: no limit.
    pub leases_max: usize,
    /// Most leases that are asked for at once. Default 16.
    pub asks_max: usize,
    /// Part of a worker's share by which two workers may differ before a lease moves. Default 0.1.
    pub imbalance: f64,
    /// After leases were asked for, no more are for so long. Default 30 s.
    pub balance_every: Duration,
    /// The shards are compared with the leases so often, by one worker of the fleet, a fifth earlier or later by chance;
    /// normally this finds nothing, since a shard that ends names its children. Default two minutes.
    pub sync_every: Duration,
    /// Most bytes of records in memory, those that the program still holds included. Default 128 MiB.
    pub buffer_bytes_max: usize,
    /// Batches of one shard that wait for the program. Default 2.
    pub prefetch: usize,
    /// Most records of one GetRecords. Default 10,000.
    pub page_records_max: u32,
    /// Wait between two GetRecords of a shard that has no more to give. Default 500 ms: AWS allows five a second to all
    /// consumers of a shard together.
    pub poll_every: Duration,
    /// Whether packed records are unpacked. Default true.
    pub deaggregate: bool,
    /// What becomes of packed records in the wrong shard. Default [`Misplaced::Drop`].
    pub misplaced: Misplaced,
    /// Seed of what is left to chance; for tests that repeat.
    pub seed: Option<u64>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        ConsumerConfig {
            worker_id: format!("sightglass-{:016x}", fastrand::u64(..)),
            initial: InitialPosition::default(),
            delivery: Delivery::default(),
            lease_duration: Duration::from_secs(10),
            handoff_timeout: Duration::from_secs(30),
            leases_max: usize::MAX,
            asks_max: 16,
            imbalance: 0.1,
            balance_every: Duration::from_secs(30),
            sync_every: Duration::from_secs(120),
            buffer_bytes_max: CONSUMER_BUFFER_BYTES,
            prefetch: 2,
            page_records_max: PAGE_RECORDS_MAX,
            poll_every: Duration::from_millis(500),
            deaggregate: true,
            misplaced: Misplaced::default(),
            seed: None,
        }
    }
}

impl ConsumerConfig {
    /// How often leases are renewed and the table is read.
    pub(crate) fn tick(&self) -> Duration {
        self.lease_duration / 3
    }
}
