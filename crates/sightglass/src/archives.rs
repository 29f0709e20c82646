//! The streams that carry the tag `sightglass:archive`, archived by the server itself: the same archiver as the command's,
//! through the public client against the server's own port.
//!
//! Through the port rather than within the process: it is then the same code on the same road as everybody's, with the same
//! checks of rights, and a bucket's keeper that is slow or a bug in the archiver can take nothing from the services. It is
//! not free: the loopback and S3's checks cost more than the disk (`bench/run archive`), but cameras are slower still. It signs with sessions of a key of the stream's own
//! account, so that a key's policy binds the archive too.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use archive::{Archive, ArchiveError, Archiver, ClientSource, Cut, Event, Range, S3Config, S3Store, Tell};
use auth::KeyStore;
use base::metrics::{IntCounterVec, IntGaugeVec, MetricError, Metrics};
use base::{Clock, Timestamp};
use client::{Client, ClientConfig, StreamName};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use video_streams::VideoStreams;
use video_streams::streams::StreamArn;

use crate::commands::Failure;
use crate::own;

/// How often the tags are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Objects that are written at once, all streams together.
const AT_ONCE: usize = 2;
/// After this an archive is begun anew with other credentials; they last a day and a half.
const ANEW_AFTER: Duration = Duration::from_secs(24 * 3600);
/// An archive that cannot go on is begun anew after this.
const AFTER_FAILURE: Duration = Duration::from_secs(30);
/// A call of an archive that takes longer is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the archives stand on.
#[derive(Clone)]
pub struct Archives {
    video: VideoStreams,
    keys: Arc<KeyStore>,
    clock: Arc<dyn Clock>,
    endpoint: String,
    metrics: ArchiveMetrics,
    turns: Arc<Semaphore>,
}

/// What the archives count, for each stream that has one.
#[derive(Clone)]
struct ArchiveMetrics {
    bytes: IntCounterVec,
    objects: IntCounterVec,
    failures: IntCounterVec,
    lost: IntCounterVec,
    lag_seconds: IntGaugeVec,
}

/// The labels of a stream.
const LABELS: &[&str] = &["account", "region", "stream"];

impl ArchiveMetrics {
    fn new(metrics: &Metrics) -> Result<Self, MetricError> {
        let counter = |name: &str, help: &str| metrics.counter(name, help, LABELS);
        Ok(ArchiveMetrics {
            bytes: counter("sightglass_archive_bytes_total", "Bytes of archived objects.")?,
            objects: counter("sightglass_archive_objects_total", "Archived objects.")?,
            failures: counter("sightglass_archive_failures_total", "Steps of an archive that failed and are tried again.")?,
            lost: counter("sightglass_archive_lost_fragments_total", "Fragments that could not be read for the archive.")?,
            lag_seconds: metrics.gauge(
                "sightglass_archive_lag_seconds",
                "How long ago the newest archived fragment came to the server, or when it was last seen that there is no other.",
                LABELS,
            )?,
        })
    }
}

/// Judges a tag, for [`video_streams::ports::Ports::archive_rule`].
pub fn rule(value: &str) -> Result<(), String> {
    value
        .parse::<Archive>()
        .map(drop)
        .map_err(|invalid| invalid.to_string())
}

impl Archives {
    /// Nothing is archived before [`Archives::run`].
    pub fn new(
        video: VideoStreams,
        keys: Arc<KeyStore>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
        listens: SocketAddr,
    ) -> Result<Self, Failure> {
        Ok(Archives {
            video,
            keys,
            clock,
            endpoint: own::endpoint(listens),
            metrics: ArchiveMetrics::new(metrics)?,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Keeps an archive running for every stream that wants one, as its tag says, for ever.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<String, (String, tokio::task::AbortHandle)> = HashMap::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let wanted: HashMap<String, (StreamArn, String)> = self
                .video
                .archives()
                .into_iter()
                .map(|(arn, value)| (arn.to_string(), (arn, value)))
                .collect();
            running.retain(|arn, (value, task)| {
                let same = wanted.get(arn).is_some_and(|(_, wanted)| wanted == value);
                if !same {
                    task.abort();
                }
                same && !task.is_finished()
            });
            for (arn, (stream, value)) in wanted {
                running.entry(arn).or_insert_with(|| {
                    let task = tasks.spawn(self.clone().keep(stream, value.clone()));
                    (value, task)
                });
            }
            while tasks.try_join_next().is_some() {}
        }
    }

    /// One stream's archive, begun anew whenever it ends.
    async fn keep(self, stream: StreamArn, value: String) {
        loop {
            match timeout(ANEW_AFTER, self.archive(&stream, &value)).await {
                Err(_) => {}
                Ok(error) => {
                    self.failed(&stream);
                    tracing::error!(%stream, archive = %value, %error, "the stream is not archived; tried again");
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    fn failed(&self, stream: &StreamArn) {
        self.metrics.failures.with_label_values(&labels(stream)).inc();
    }

    /// Archives until something fails for good; gives what.
    async fn archive(&self, stream: &StreamArn, value: &str) -> String {
        let opened = self.open(stream, value).map_err(|error| error.to_string());
        match opened {
            Err(error) => error,
            Ok((archiver, settle)) => {
                let range = Range {
                    follow: true,
                    give_up_after: None,
                    settle,
                    ..Range::default()
                };
                let mut position = None;
                let outcome = archiver
                    .run(&range, &mut |event| self.note(stream, &event, &mut position))
                    .await;
                match outcome {
                    Ok(_) => "the archive ended".to_owned(),
                    Err(error) => error.to_string(),
                }
            }
        }
    }

    /// The archiver, and how long its objects wait for what is late: no longer than they last.
    fn open(&self, stream: &StreamArn, value: &str) -> Result<(Archiver, Duration), Failure> {
        let archive: Archive = value.parse()?;
        let name = &stream.name;
        let credentials = own::session(&self.keys, &self.clock, name.account, &name.region)?;
        let store = S3Store::new(S3Config {
            bucket: archive.destination.bucket.clone(),
            endpoint: Some(self.endpoint.clone()),
            region: name.region.to_string(),
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret.reveal().to_owned(),
            session_token: credentials.session_token.clone(),
            certificates: None,
        })?;
        let mut config = ClientConfig::new(self.endpoint.parse()?, name.region.clone(), credentials);
        config.timeout = TIMEOUT;
        let client = Client::new(config, Arc::clone(&self.clock))?.staying();
        let source = ClientSource::new(client, StreamName::Arn(stream.to_string()), Tell::Position);
        let settle = match archive.settings.cut {
            Cut::Every(every) => every.min(Range::default().settle),
            Cut::Event { gap, .. } => gap.min(Range::default().settle),
        };
        let (prefix, turns) = (&archive.destination.prefix, Arc::clone(&self.turns));
        let (source, store) = (Arc::new(source), Arc::new(store));
        let archiver = Archiver::new(source, store, &name.name, prefix, archive.settings, turns);
        Ok((archiver, settle))
    }

    fn note(&self, stream: &StreamArn, event: &Event<'_>, position: &mut Option<Timestamp>) {
        let labels = labels(stream);
        match event {
            Event::Begins(from, _) => *position = Some(*from),
            Event::UpToDate(at) => *position = Some(*at),
            Event::Archived(head) => {
                *position = Some(Timestamp::from_millis(head.end_ms));
                self.metrics.bytes.with_label_values(&labels).inc_by(head.bytes);
                self.metrics.objects.with_label_values(&labels).inc();
                self.metrics.lost.with_label_values(&labels).inc_by(head.lost);
                if head.lost > 0 {
                    tracing::warn!(%stream, object = head.key, lost = head.lost, "fragments could not be read for the archive");
                }
            }
            Event::Failed(error) => {
                self.failed(stream);
                let error: &ArchiveError = error;
                tracing::warn!(%stream, %error, "a step of the archive failed; tried again");
            }
            Event::Planned(..) | Event::Fragment(..) => return,
        }
        if let Some(position) = position {
            let lag_ms = self.clock.now().millis_since(*position).max(0);
            self.metrics.lag_seconds.with_label_values(&labels).set(lag_ms / 1000);
        }
    }
}

fn labels(stream: &StreamArn) -> [String; 3] {
    let name = &stream.name;
    [name.account.to_string(), name.region.to_string(), name.name.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_judged_before_it_is_kept() {
        assert!(rule("s3://films/door?every=15m&format=mp4").is_ok());
        assert!(rule("s3://films/door?every=15x").unwrap_err().contains("duration"));
    }
}
