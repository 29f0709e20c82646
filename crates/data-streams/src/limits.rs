//! Limits, each with its source.

/// Largest record unless the stream says otherwise, data and partition key together: 1 MiB (API reference of PutRecord).
pub const RECORD_BYTES_DEFAULT: usize = 1024 * 1024;

/// Records of one PutRecords are checked by the model (500); their data and keys together: 10 MiB (API reference).
pub const REQUEST_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Records that one GetRecords returns unless it asks for fewer (service model: 1 to 10,000, default 10,000).
pub const READ_RECORDS_MAX: usize = 10_000;

/// Bytes of data and keys that one GetRecords returns: 10 MiB (API reference), unless the first record alone is bigger.
pub const READ_BYTES_MAX: usize = 10 * 1024 * 1024;

/// How long a shard iterator is good: 5 minutes (API reference of GetShardIterator).
pub const ITERATOR_LIFE_MS: i64 = 300_000;

/// How long a token of ListShards or ListStreams is good: 300 seconds (API reference of ListShards).
pub const PAGE_TOKEN_LIFE_MS: i64 = 300_000;

/// Shards of one stream. AWS's quota is 20,000 an account in its largest regions; ours is lower so that a stream's record
/// in the catalog stays within one value.
pub const SHARDS_PER_STREAM_MAX: usize = 1000;

/// Shards of one account and region, as in AWS's largest regions.
pub const SHARDS_PER_ACCOUNT_MAX: usize = 20_000;

/// Streams of one account and region; they are all held in memory. Ours: AWS has none.
pub const STREAMS_PER_ACCOUNT_MAX: usize = 10_000;

/// Shards of a new on-demand stream (developer guide: 4).
pub const ON_DEMAND_SHARDS: usize = 4;

/// Retention of a new stream in hours (service model).
pub const RETENTION_HOURS_DEFAULT: i32 = 24;

/// Tags of one stream (service model of AddTagsToStream and developer guide: 50).
pub const TAGS_MAX: usize = 50;

/// Shards in one answer of DescribeStream unless the caller says otherwise (service model).
pub const DESCRIBE_SHARDS_DEFAULT: usize = 100;

/// Shards in one answer of ListShards unless the caller says otherwise (service model).
pub const LIST_SHARDS_DEFAULT: usize = 1000;

/// Names in one answer of ListStreams unless the caller says otherwise (service model).
pub const LIST_STREAMS_DEFAULT: usize = 100;

/// Time between two sweeps of what is beyond its retention. Ours.
pub const SWEEP_INTERVAL_MS: u64 = 60_000;

/// Deletions that a slow listener may lag behind before it is told that it missed some.
pub const DELETIONS_KEPT: usize = 1024;

/// Shards of one stream that are kept in its record, open and closed ones: what one value of the catalog holds.
pub const SHARDS_KEPT_MAX: usize = 3000;

/// Numbers of shards that a stream can use up: sequence numbers hold 16 bits of them.
pub const SHARD_NUMBERS_MAX: u32 = 65_536;

/// How often UpdateShardCount may be called for a stream in 24 hours, where AWS's limits are kept (its API reference).
pub const SCALINGS_PER_DAY_MAX: usize = 10;

/// 24 hours.
pub const DAY_MS: i64 = 86_400_000;

/// What is written to a shard in a second: 1 MiB (developer guide), where AWS's limits are kept and for on-demand streams.
pub const SHARD_WRITE_BYTES_PER_S: u64 = 1024 * 1024;

/// Records that are written to a shard in a second (developer guide).
pub const SHARD_WRITE_RECORDS_PER_S: u64 = 1000;

/// What GetRecords reads from a shard in a second, where AWS's limits are kept: 2 MiB (developer guide).
pub const SHARD_READ_BYTES_PER_S: u64 = 2 * 1024 * 1024;

/// Calls of GetRecords for a shard in a second, where AWS's limits are kept (developer guide).
pub const SHARD_READS_PER_S: u64 = 5;

/// Time between two looks at the load of on-demand streams. Ours.
pub const SCALE_INTERVAL_MS: u64 = 10_000;

/// An on-demand stream that had little to do for so long gets fewer shards. Ours: AWS says nothing of it.
pub const SCALE_DOWN_AFTER_MS: i64 = DAY_MS;

/// Shortest and longest retention in hours (API reference of IncreaseStreamRetentionPeriod).
pub const RETENTION_HOURS: std::ops::RangeInclusive<i32> = 24..=8760;

/// Consumers of one stream, queues among them (API reference of RegisterStreamConsumer and of CreateQueue).
pub const CONSUMERS_PER_STREAM_MAX: usize = 20;

/// Seconds for which a delivered record is hidden from other receivers, unless the queue or the call says otherwise (service
/// model of CreateQueue).
pub const QUEUE_VISIBILITY_S_DEFAULT: i32 = 30;

/// How often a queue delivers a record before it becomes a dead letter, unless the queue says otherwise (service model).
pub const QUEUE_RECEIVES_DEFAULT: i32 = 6;

/// Records of a queue that were delivered and not acknowledged, dead letters among them. With so many it delivers no new ones.
/// Ours: AWS names none; it bounds a queue in memory to about 20 MB.
pub const QUEUE_OPEN_MAX: usize = 100_000;

/// Calls that wait for one queue, receivers among them. Ours.
pub const QUEUE_CALLS_MAX: usize = 1000;

/// Bytes of records that a queue gives out in one commit. Ours: as much as one answer of it may hold.
pub const QUEUE_COMMIT_BYTES: usize = READ_BYTES_MAX;

/// Values that one commit of a queue touches before it takes no more calls in. Ours: one call adds up to 40, and the catalog
/// takes 256.
pub const QUEUE_COMMIT_VALUES: usize = 200;

/// Records that a receiver gets unless it asks for fewer (service model of ReceiveQueueRecords).
pub const QUEUE_RECORDS_DEFAULT: usize = 10;

/// Seconds that a receiver waits unless it says otherwise (service model of ReceiveQueueRecords).
pub const QUEUE_WAIT_S_DEFAULT: i32 = 9;

/// Queues in one answer of ListQueues unless the caller says otherwise. Ours: the model gives no default.
pub const LIST_QUEUES_DEFAULT: usize = 100;

/// Consumers in one answer of ListStreamConsumers unless the caller says otherwise (service model).
pub const LIST_CONSUMERS_DEFAULT: usize = 100;

/// How long a subscription to a shard lives (API reference of SubscribeToShard: up to 5 minutes).
pub const SUBSCRIPTION_MS: u64 = 300_000;

/// A consumer cannot subscribe again to a shard within so long of the last time (API reference of SubscribeToShard).
pub const SUBSCRIPTION_HELD_MS: u64 = 5_000;

/// A subscription to a shard where nothing happens says so in such intervals. Ours; the KCL gives up after 35 s of silence.
pub const SUBSCRIPTION_SILENCE_MS: u64 = 5_000;

/// Records and bytes of one event of a subscription. Ours: small enough to be sent at once, far above what arrives at once.
pub const EVENT_RECORDS_MAX: usize = 2_000;
/// See [`EVENT_RECORDS_MAX`].
pub const EVENT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How long a record waits for the shards of its stream to be changed.
pub const RESHARD_WAIT_MS: u64 = 10_000;

/// Bytes of a tag's key and value are checked by the model; a key may not begin so (tagging reference).
pub const TAG_PREFIX_RESERVED: &str = "aws:";
