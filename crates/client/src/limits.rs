//! Every limit of this crate, each with its source ("AWS" is the quota page or the API reference of Kinesis Video
//! Streams; "ours" is a choice that keeps memory bounded).

use std::time::Duration;

/// Largest answer to a call that is gathered. Ours: GetRecords answers up to 10 MiB of data, a third more as base64.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Idle connections that a client keeps. Ours.
pub const IDLE_CONNECTIONS_MAX: usize = 16;

/// Longest line of acknowledgement that is gathered. Ours; the producer SDK gives one 1024 characters.
pub const ACK_LINE_BYTES_MAX: usize = 64 * 1024;

/// Pieces of a PutMedia body that wait for the network; a sender that is faster waits. Ours.
pub const QUEUED_PIECES_MAX: usize = 8;

/// Largest fragment. AWS: 50 MB; ack error 4001.
pub const FRAGMENT_BYTES_MAX: usize = 50_000_000;

/// Metadata tags of one fragment. AWS: 10, of which the end-of-fragment tag may be one; ack error 4009.
pub const FRAGMENT_TAGS_MAX: usize = 9;

/// Bytes of a metadata tag's name. AWS: 128; ack error 4009.
pub const TAG_NAME_BYTES_MAX: usize = 128;

/// Bytes of a metadata tag's value. AWS: 256; ack error 4009.
pub const TAG_VALUE_BYTES_MAX: usize = 256;

/// Tracks of a producer. AWS: 3; ack error 4012.
pub const TRACKS_MAX: usize = 3;

/// A PutMedia connection is replaced by another after this. AWS ends one after 45 minutes; the producer SDK renews after
/// 40.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(40 * 60);

/// Credentials are renewed so long before they expire, or after four fifths of a shorter life. Ours, as AWS's SDKs do.
pub const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// Events that wait for a receiver of [`Producer::events`](crate::producer::Producer::events). Ours.
pub const EVENTS_MAX: usize = 4096;

/// Lost fragments that a producer remembers by name for the next report; beyond it they are only counted. Ours.
pub const LOST_NAMED_MAX: usize = 256;

/// Bytes read from a source at a time. Ours.
pub const READ_BYTES: usize = 64 * 1024;

/// Fragments of one ListFragments page. AWS: 1000.
pub const LIST_PAGE_MAX: usize = 1000;

/// Fragments that a range may name before it is refused as too large to be sorted in memory. Ours: about 100 MB.
pub const RANGE_FRAGMENTS_MAX: usize = 1_000_000;

/// Fragments of one GetMediaForFragmentList. AWS: 1000; ours is lower, so that what is read in parallel stays small.
pub const BATCH_FRAGMENTS_MAX: usize = 100;

/// Bytes of one GetMediaForFragmentList, by the sizes that ListFragments gave; one fragment may be larger. Ours.
pub const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Entries of a merged file's seek index, 24 bytes each in memory. Ours: three days of fragments of one second; a longer
/// file gets an entry for every second fragment, and so on.
pub const CUES_MAX: usize = 1 << 18;

/// GetRecords calls of one [`follow::Follower`](crate::follow::Follower) at a time. Ours: bounds what it holds to some
/// answers of 10 MiB.
pub const FOLLOW_CALLS_MAX: usize = 4;

/// Records of one GetRecords of a follower. AWS: up to 10,000; ours is lower, so that the first are shown soon.
pub const FOLLOW_RECORDS_MAX: u32 = 1000;

/// A shard that gave all it had is asked again after this. AWS: five GetRecords a second.
pub const FOLLOW_IDLE_FIRST: Duration = Duration::from_millis(250);

/// The longest such wait of a shard where nothing happens. Ours.
pub const FOLLOW_IDLE_MAX: Duration = Duration::from_secs(1);

/// The least such wait for each shard that is followed, so that a thousand of them make 500 calls a second. Ours.
pub const FOLLOW_IDLE_PER_SHARD: Duration = Duration::from_millis(2);

/// Bytes of records that a consumer keeps in memory unless it is told otherwise. Ours.
pub const CONSUMER_BUFFER_BYTES: usize = 128 * 1024 * 1024;

/// Records of one GetRecords. AWS: 10,000.
pub const PAGE_RECORDS_MAX: u32 = 10_000;

/// Bytes of one GetRecords, for which room is made before it is asked for. AWS: 10 MiB.
pub const PAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Room that a subscription has before its next event; the event counts with its real size once it is there. Ours.
pub const EVENT_RESERVE_BYTES: usize = 64 * 1024;

/// Largest message of a subscription. Ours: an event carries at most what GetRecords does, a third more as base64.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Shards whose lag a consumer's figures name. Ours.
pub const LAGS_NAMED_MAX: usize = 100;

/// Lease writes of one consumer that are under way at once. Ours.
pub const LEASE_WRITES_MAX: usize = 16;

/// Bytes of one record, data and partition key together. AWS: 10 MiB where the stream allows it, else 1 MiB, which the
/// server checks.
pub const PUT_RECORD_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Characters of a partition key. AWS: 256.
pub const PUT_KEY_CHARACTERS_MAX: usize = 256;

/// What a record in a producer's buffer takes beside its bytes. Ours.
pub const RECORD_OVERHEAD_BYTES: usize = 256;

/// A follower that waits for a shard which nobody has named asks for the list of shards after this. Ours: a split
/// and a merge behind it are read in less.
pub const FOLLOW_LIST_AFTER: Duration = Duration::from_secs(30);
