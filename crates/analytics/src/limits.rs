//! Limits, each with its source.

use std::time::Duration;

/// Applications of one account and region (quotas: 100, which AWS raises on request).
pub const APPLICATIONS_PER_ACCOUNT_MAX: usize = 100;

/// Streaming sources of one application. AWS: one; here a statement may join several.
pub const INPUTS_MAX: usize = 64;

/// Destinations of one application. AWS: three.
pub const OUTPUTS_MAX: usize = 64;

/// Reference tables of one application. AWS: one.
pub const REFERENCES_MAX: usize = 16;

/// Logging options of one application (AWS).
pub const LOGGING_OPTIONS_MAX: usize = 1;

/// VPC configurations of one application (AWS).
pub const VPC_CONFIGURATIONS_MAX: usize = 1;

/// Bytes of the code (service model of TextContent: 100 KiB).
pub const CODE_BYTES_MAX: usize = 102_400;

/// Bytes of a version's configuration as it is stored. Ours: a value of the catalog has at most 1 MiB.
pub const CONFIGURATION_BYTES_MAX: usize = 700 << 10;

/// The last versions of an application that are kept; older ones are forgotten. Ours.
pub const VERSIONS_MAX: u64 = 100;

/// The last operations of an application that are kept. Ours.
pub const OPERATIONS_MAX: usize = 100;

/// Snapshots of one application (quotas).
pub const SNAPSHOTS_MAX: usize = 1000;

/// Snapshots that the server took when an application was stopped or updated; older ones are deleted. Ours.
pub const SYSTEM_SNAPSHOTS_MAX: usize = 10;

/// Tags of one application (API reference: 50 of the user's own).
pub const TAGS_MAX: usize = 50;

/// Entries of one answer unless the caller says otherwise (service model: at most 50).
pub const PAGE_DEFAULT: usize = 50;

/// Applications that run at once in the whole server, unless the configuration says otherwise. Ours: each is a process.
pub const RUNNING_DEFAULT: usize = 16;

/// Bytes of state that one application has in memory, unless the configuration says otherwise. Ours.
pub const MEMORY_BYTES_DEFAULT: u64 = 512 << 20;

/// The least that the configuration may say. Ours.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// The range of an application's own checkpoint interval, in milliseconds. Ours.
pub const CHECKPOINT_INTERVAL_MS: std::ops::RangeInclusive<u64> = 50..=600_000;

/// The longest lateness of an input that an application may ask for: a day. Ours.
pub const LATENESS_MS_MAX: i64 = 86_400_000;

/// For a worker to check a script. Ours.
pub const CHECK_WITHIN: Duration = Duration::from_secs(20);

/// For a worker to write what is finished and to end. Ours.
pub const STOP_WITHIN: Duration = Duration::from_secs(60);

/// The same when the server ends.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_secs(10);

/// A worker is begun anew with other credentials after this; they last 36 hours. Ours.
pub const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Time until a worker that failed is started again: the first, doubled each time, and the longest. Ours.
pub const BACK_OFF: Duration = Duration::from_millis(200);
/// See [`BACK_OFF`].
pub const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// Time between two looks for deleted applications of which something is left. Ours.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Records that a schema is discovered from. Ours.
pub const SAMPLE_RECORDS: usize = 100;

/// Bytes that a schema is discovered from. Ours.
pub const SAMPLE_BYTES: usize = 1 << 20;

/// How long new records are waited for when a schema is discovered from NOW on. AWS: about 30 seconds.
pub const SAMPLE_WITHIN: Duration = Duration::from_secs(10);

/// Columns of a discovered schema (service model).
pub const COLUMNS_MAX: usize = 1000;

/// How deep a sample's members are looked for. Ours.
pub const SAMPLE_DEPTH_MAX: usize = 16;

/// Characters of an error that an operation tells (service model of ErrorString).
pub const ERROR_CHARACTERS_MAX: usize = 512;
