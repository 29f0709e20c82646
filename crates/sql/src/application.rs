//! What is said between a supervisor and `sql-worker application`, the process that runs one streaming SQL application:
//! one line of JSON with the [`JobSpec`], then [`Command`]s line by line on its standard input, and [`Event`]s line by line
//! on its standard output. Its standard error is for people.
//!
//! The process has one directory, [`JobSpec::state_dir`], in which it alone writes: [`CHECKPOINTS`], [`SNAPSHOTS`] and
//! [`STATE`]. It reaches nothing but the endpoint. This module refuses to know how the two programs do their work.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Below the state directory: one directory for each checkpoint, named by its number.
pub const CHECKPOINTS: &str = "checkpoints";
/// Below the state directory: one directory for each snapshot that was asked for, see [`snapshot_directory`].
pub const SNAPSHOTS: &str = "snapshots";
/// Below the state directory: what the engine has put out of memory; of no use once the process has ended.
pub const STATE: &str = "state";

/// The longest line in either direction.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often state is made durable where the specification does not say: Flink's usual minute would keep rows back.
pub const CHECKPOINT_INTERVAL_MS: u64 = 1000;

/// An application that is to run. One line of JSON, the first on standard input.
///
/// What has a default may be left out. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Names the job in partition keys and messages.
    pub application_arn: String,
    /// The application's version, for messages.
    pub version: u64,
    /// The server, `http://HOST:PORT`.
    pub endpoint: String,
    /// The region of streams that are named and not by ARN, and of the signature.
    pub region: String,
    /// The account's own key, or a session's.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// The token of a session.
    #[serde(default)]
    pub session_token: Option<String>,
    /// PEM certificates that an `https` endpoint is trusted by; none: those that the machine trusts.
    #[serde(default)]
    pub ca: Option<String>,
    /// The statements.
    pub script: String,
    /// The tables that are declared beside the script's own.
    #[serde(default)]
    pub tables: Vec<TableSpec>,
    /// The worker's directory. It must exist, and nothing else writes in it while the process runs.
    pub state_dir: PathBuf,
    /// Which state is restored.
    #[serde(default)]
    pub restore: Restore,
    /// Where streams are read from that the restored state says nothing of.
    #[serde(default)]
    pub start: StartPoint,
    /// The most milliseconds between two checkpoints while there is something new.
    #[serde(default = "checkpoint_interval_ms")]
    pub checkpoint_interval_ms: u64,
    /// Bytes of state in memory. What is beyond it goes to [`STATE`].
    pub memory_limit: u64,
    /// A snapshot that does not fit the statements gives its positions, and its state is left out. Else it is refused.
    #[serde(default)]
    pub allow_non_restored: bool,
    /// Name or ARN of the data stream that takes records which do not fit.
    #[serde(default)]
    pub error_stream: Option<String>,
}

fn checkpoint_interval_ms() -> u64 {
    CHECKPOINT_INTERVAL_MS
}

impl fmt::Debug for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("application_arn", &self.application_arn)
            .field("version", &self.version)
            .field("endpoint", &self.endpoint)
            .field("access_key_id", &self.access_key_id)
            .field("state_dir", &self.state_dir)
            .field("restore", &self.restore)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// A table, as the engine's own type has it.
///
/// The options are those of Flink's `WITH (...)`. What they mean here:
///
/// | `connector` | options | read as | written as |
/// |---|---|---|---|
/// | `kinesis` | `stream.arn` (or `stream`: a name); `source.init.position` `LATEST`, `TRIM_HORIZON`, or `AT_TIMESTAMP` with `source.init.timestamp` (older: `scan.stream.initpos`, `scan.stream.initpos-timestamp`) before [`JobSpec::start`] | every shard | PutRecords |
/// | `firehose` | `delivery-stream`: a name or an ARN | not at all | PutRecordBatch |
/// | `filesystem` | `path`: `s3://bucket/key` or `s3://bucket/prefix/`; `format`: `json`, `csv`, `parquet`; read again every `source.monitor-interval` (`10 min`) | reference | objects below the prefix, JSON |
/// | `face-collection` | `collection`: an id; `source.monitor-interval` | reference: `face_id`, `external_image_id`, `user_id`, `image_id`, `confidence` | not at all |
/// | `print` | none | not at all | [`Event::Rows`] |
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// Its name in statements.
    pub name: String,
    /// Its columns, in their order.
    pub columns: Vec<ColumnSpec>,
    /// The time of events.
    #[serde(default)]
    pub rowtime: Option<RowtimeSpec>,
    /// `PRIMARY KEY (...) NOT ENFORCED`.
    #[serde(default)]
    pub primary_key: Vec<String>,
    /// `PARTITIONED BY (...)`.
    #[serde(default)]
    pub partitioned_by: Vec<String>,
    /// `WITH (...)`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type as Flink writes it, e.g. `TIMESTAMP_LTZ(3)`.
    pub sql_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Where it is in a record, e.g. `$.a.b`; none: the member of its name.
    #[serde(default)]
    pub path: Option<String>,
    /// `METADATA FROM '...'`.
    #[serde(default)]
    pub metadata: Option<String>,
    /// `AS expression`.
    #[serde(default)]
    pub computed: Option<String>,
}

/// `WATERMARK FOR column AS column - INTERVAL ...`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowtimeSpec {
    /// The column with the time.
    pub column: String,
    /// How many milliseconds late events may be.
    pub delay_ms: i64,
}

/// Which state is restored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restore {
    /// That of the last checkpoint; a job without one begins.
    #[default]
    Latest,
    /// That of a snapshot, by its name.
    Snapshot(String),
    /// None.
    Nothing,
}

/// Where reading begins. The words of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StartPoint {
    /// With what comes from now on.
    #[default]
    Now,
    /// With the oldest record there is.
    TrimHorizon,
    /// Where the last checkpoint was, also where its state is not restored; without one, from now on.
    LastStoppedPoint,
}

/// What a running application is told. One line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Keep a snapshot. Answered by [`Event::Snapshot`] or [`Event::SnapshotFailed`].
    Snapshot {
        /// Its name.
        name: String,
    },
    /// Write what is finished, make a last checkpoint, and end. Answered by [`Event::Stopped`]. The end of standard input
    /// means the same without a snapshot.
    Stop {
        /// The name of a snapshot to be kept before.
        snapshot: Option<String>,
    },
}

/// What a running application tells. One line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The statements are planned, every input and output is there, what a crash left is settled, and reading begins.
    Running,
    /// State is durable.
    Checkpoint {
        /// Its number, one more than that of the one before.
        id: u64,
        /// Bytes on disk.
        bytes: u64,
        /// How long it took.
        millis: u64,
    },
    /// A snapshot is kept.
    Snapshot {
        /// Its name.
        name: String,
        /// Bytes on disk.
        bytes: u64,
    },
    /// A snapshot is not kept.
    SnapshotFailed {
        /// Its name.
        name: String,
        /// Why, for people.
        reason: String,
    },
    /// What was done so far. All numbers but the last three count since the process began.
    Progress {
        /// Records read.
        records_in: u64,
        /// Rows written.
        records_out: u64,
        /// Rows that came too late for their window.
        late: u64,
        /// Records that do not fit.
        errors: u64,
        /// The least watermark, in milliseconds since 1970; none before there is one.
        watermark: Option<i64>,
        /// How far the slowest shard is behind; none before the first answer.
        millis_behind_latest: Option<u64>,
        /// Bytes of state in memory and on disk.
        state_bytes: u64,
    },
    /// Rows of a table with the connector `print`, for who asked in a shell.
    Rows {
        /// The table.
        table: String,
        /// The names of the columns, in their order.
        columns: Vec<String>,
        /// `+I`, `-U`, `+U` or `-D` for each row; empty: each is `+I`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
        /// The values as Flink's JSON format has them, one list for each row.
        rows: Vec<Vec<serde_json::Value>>,
    },
    /// Something worth telling.
    Log {
        /// `INFO`, `WARN` or `ERROR`.
        level: String,
        /// For people.
        text: String,
    },
    /// It cannot go on, and ends.
    Failed {
        /// For people.
        reason: String,
        /// Whether another start may do better: the server was away. Else somebody must change something.
        retriable: bool,
    },
    /// It ends because it was told to.
    Stopped,
}

/// Where a snapshot is kept; none for a name that is no name of a file (`.`, `..`, with a slash, longer than 250 bytes).
pub fn snapshot_directory(state_dir: &Path, name: &str) -> Option<PathBuf> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let fine = (1..=250).contains(&name.len()) && name.bytes().all(letters) && !matches!(name, "." | "..");
    fine.then(|| state_dir.join(SNAPSHOTS).join(name))
}

/// One line, with its end.
pub fn to_line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        JobSpec {
            application_arn: "arn:aws:kinesisanalytics:eu-west-1:000000000000:application/doors".into(),
            version: 3,
            endpoint: "http://127.0.0.1:4577".into(),
            region: "eu-west-1".into(),
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "the secret".into(),
            session_token: Some("the token".into()),
            ca: None,
            script: "INSERT INTO out SELECT * FROM faces".into(),
            tables: vec![TableSpec {
                name: "faces".into(),
                columns: vec![ColumnSpec {
                    name: "t".into(),
                    sql_type: "TIMESTAMP_LTZ(3)".into(),
                    nullable: false,
                    path: Some("$.InputInformation.t".into()),
                    ..ColumnSpec::default()
                }],
                rowtime: Some(RowtimeSpec {
                    column: "t".into(),
                    delay_ms: 500,
                }),
                options: BTreeMap::from([("connector".into(), "kinesis".into())]),
                ..TableSpec::default()
            }],
            state_dir: "/data/analytics/7".into(),
            restore: Restore::Snapshot("before".into()),
            start: StartPoint::TrimHorizon,
            checkpoint_interval_ms: 250,
            memory_limit: 1 << 30,
            allow_non_restored: true,
            error_stream: Some("errors".into()),
        }
    }

    #[test]
    fn a_specification_goes_round_in_one_line_and_shows_no_secret() {
        let spec = spec();
        let line = to_line(&spec).unwrap();
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        assert_eq!(serde_json::from_slice::<JobSpec>(&line).unwrap(), spec);
        let shown = format!("{spec:?}");
        assert!(!shown.contains("the secret") && !shown.contains("the token"), "{shown}");
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let least = serde_json::json!({
            "application_arn": "a", "version": 1, "endpoint": "http://localhost:1", "region": "r", "access_key_id": "k",
            "secret_access_key": "s", "script": "SELECT 1", "state_dir": "/d", "memory_limit": 1,
        });
        let spec: JobSpec = serde_json::from_value(least).unwrap();
        assert_eq!((spec.restore, spec.start), (Restore::Latest, StartPoint::Now));
        assert_eq!(spec.checkpoint_interval_ms, 1000);
        assert!(!spec.allow_non_restored);
    }

    #[test]
    fn commands_and_events_go_round_by_their_names() {
        let stop = Command::Stop {
            snapshot: Some("s".into()),
        };
        assert_eq!(to_line(&stop).unwrap(), b"{\"command\":\"stop\",\"snapshot\":\"s\"}\n");
        let events = [
            Event::Running,
            Event::Checkpoint {
                id: 4,
                bytes: 5,
                millis: 6,
            },
            Event::Progress {
                records_in: 1,
                records_out: 2,
                late: 3,
                errors: 4,
                watermark: Some(-5),
                millis_behind_latest: None,
                state_bytes: 6,
            },
            Event::Rows {
                table: "t".into(),
                columns: vec!["a".into()],
                kinds: vec![],
                rows: vec![vec![serde_json::json!(1.5)]],
            },
            Event::Failed {
                reason: "the stream is gone".into(),
                retriable: false,
            },
            Event::Stopped,
        ];
        for event in events {
            let line = to_line(&event).unwrap();
            assert_eq!(serde_json::from_slice::<Event>(&line).unwrap(), event);
        }
        assert_eq!(to_line(&Event::Stopped).unwrap(), b"{\"event\":\"stopped\"}\n");
    }

    #[test]
    fn a_snapshot_stays_below_its_directory() {
        let at = |name: &str| snapshot_directory(Path::new("/d"), name);
        assert_eq!(at("v1.2-x_y"), Some(PathBuf::from("/d/snapshots/v1.2-x_y")));
        for bad in ["", ".", "..", "a/b", "../x", "\0", &"x".repeat(251)] {
            assert_eq!(at(bad), None, "{bad:?}");
        }
    }
}
