//! Where fragments come from, as a small trait: a server behind the public client ([`ClientSource`]), or a stream in the
//! same process.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{Clock, Timestamp};
use client::reader::{BatchOptions, Fragment, FragmentInfo, ReaderError, TimeAxis, TimeRange};
use client::{Client, ClientError, Service, StreamName};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::limits::READ_AHEAD_BYTES;

/// The tag of a stream by which an archive says how far it has come, for the retention that waits for it.
pub const ARCHIVED_UNTIL_TAG: &str = "sightglass:archived-until";

/// The tag of a stream whose retention waits for its archive.
pub const ARCHIVE_HOLD_TAG: &str = "sightglass:archive-hold";

/// A stream that is archived.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// No fragment is older.
    async fn begins(&self) -> Result<Timestamp, ReaderError>;

    /// The fragments that began to arrive from `from` on and before `until`, in that order.
    ///
    /// # Errors
    /// [`ReaderError::TooManyFragments`] where there are more than `max`.
    async fn list(&self, from: Timestamp, until: Timestamp, max: usize) -> Result<Vec<FragmentInfo>, ReaderError>;

    /// These fragments, in this order; an error in the place of each that cannot be had.
    async fn read(
        &self,
        fragments: &[FragmentInfo],
    ) -> Result<BoxStream<'static, Result<Fragment, ReaderError>>, ReaderError>;

    /// All that began to arrive before is archived.
    async fn archived(&self, until: Timestamp) -> Result<(), ReaderError>;

    /// The time at the source.
    fn clock(&self) -> &Arc<dyn Clock>;
}

/// A stream of a server.
pub struct ClientSource {
    client: Client,
    stream: StreamName,
    /// Clients at the endpoints for listing and for reading, and until when they are used.
    at: Mutex<Option<(Client, Client, Duration)>>,
    tell: Tell,
    /// What the stream was told last.
    told: Mutex<Timestamp>,
}

/// What a stream is told of its archive, for which the key needs the right to TagStream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Nothing.
    Nothing,
    /// How far it is ([`ARCHIVED_UNTIL_TAG`]).
    Position,
    /// That, and that retention has to wait for it ([`ARCHIVE_HOLD_TAG`]).
    Hold,
}

/// How long a stream's endpoints are used before they are asked for again. Ours.
const ENDPOINTS_FOR: Duration = Duration::from_secs(60);

/// The stream is told how far the archive is when it has come so much further. Ours: each telling changes the stream.
const TELL_EVERY_MS: i64 = 60_000;

impl ClientSource {
    /// The stream of that name.
    #[must_use]
    pub fn new(client: Client, stream: StreamName, tell: Tell) -> Self {
        ClientSource {
            client,
            stream,
            at: Mutex::new(None),
            tell,
            told: Mutex::new(Timestamp::from_millis(i64::MIN)),
        }
    }

    /// Clients at the stream's endpoints for listing and for reading, asked for now and then rather than with every call.
    async fn endpoints(&self) -> Result<(Client, Client), ReaderError> {
        let now = self.client.clock().monotonic();
        let mut at = self.at.lock().await;
        if let Some((list, read, until)) = &*at
            && now < *until
        {
            return Ok((list.clone(), read.clone()));
        }
        let list = self
            .client
            .data_endpoint(&self.stream, "LIST_FRAGMENTS")
            .await?
            .staying();
        let read = self
            .client
            .data_endpoint(&self.stream, "GET_MEDIA_FOR_FRAGMENT_LIST")
            .await?
            .staying();
        *at = Some((list.clone(), read.clone(), now + ENDPOINTS_FOR));
        Ok((list, read))
    }

    fn input(&self) -> Value {
        match &self.stream {
            StreamName::Name(name) => json!({ "StreamName": name }),
            StreamName::Arn(arn) => json!({ "StreamARN": arn }),
        }
    }
}

/// The same items, read also while nobody waits for one: what was read is written meanwhile, and neither waits for the
/// other. Besides what the stream itself holds, two items are held.
fn meanwhile<T: Send + 'static>(items: impl Stream<Item = T> + Send + 'static) -> BoxStream<'static, T> {
    let (sender, receiver) = mpsc::channel(1);
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut items = pin!(items);
        while let Some(item) = items.next().await {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    // The task goes with the stream.
    let next = |(mut receiver, reading): (mpsc::Receiver<T>, JoinSet<()>)| async move {
        receiver.recv().await.map(|item| (item, (receiver, reading)))
    };
    stream::unfold((receiver, reading), next).boxed()
}

#[async_trait]
impl Source for ClientSource {
    async fn begins(&self) -> Result<Timestamp, ReaderError> {
        let answer = self
            .client
            .call(Service::KinesisVideo, "DescribeStream", &self.input())
            .await?;
        let info = answer.get("StreamInfo");
        let created = info
            .and_then(|info| info.get("CreationTime"))
            .and_then(Value::as_f64)
            .and_then(Timestamp::from_seconds);
        created.ok_or_else(|| ClientError::Protocol("DescribeStream names no CreationTime".to_owned()).into())
    }

    async fn list(&self, from: Timestamp, until: Timestamp, max: usize) -> Result<Vec<FragmentInfo>, ReaderError> {
        let range = TimeRange {
            axis: TimeAxis::Server,
            from,
            to: until.plus_millis(-1),
        };
        let (client, _) = self.endpoints().await?;
        client.list_fragments_up_to(&self.stream, &range, max).await
    }

    async fn read(
        &self,
        fragments: &[FragmentInfo],
    ) -> Result<BoxStream<'static, Result<Fragment, ReaderError>>, ReaderError> {
        let options = BatchOptions {
            parallel: 2,
            bytes_max: READ_AHEAD_BYTES,
            ..BatchOptions::default()
        };
        let (_, client) = self.endpoints().await?;
        Ok(meanwhile(client.read_fragments(&self.stream, fragments, options)))
    }

    async fn archived(&self, until: Timestamp) -> Result<(), ReaderError> {
        if self.tell == Tell::Nothing {
            return Ok(());
        }
        let mut told = self.told.lock().await;
        if until.millis_since(*told) >= TELL_EVERY_MS {
            let mut tags = json!({ ARCHIVED_UNTIL_TAG: wire::time::to_iso8601(until) });
            if let (Tell::Hold, Some(tags)) = (self.tell, tags.as_object_mut()) {
                tags.insert(ARCHIVE_HOLD_TAG.to_owned(), json!("true"));
            }
            let mut input = self.input();
            if let Some(members) = input.as_object_mut() {
                members.insert("Tags".to_owned(), tags);
            }
            self.client.call(Service::KinesisVideo, "TagStream", &input).await?;
            *told = until;
        }
        Ok(())
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        self.client.clock()
    }
}
