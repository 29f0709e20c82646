//! The task behind a producer: opens connections, moves pieces from the outbox into them, reads acknowledgements, and
//! opens the next connection when one breaks, grows old or cannot carry what comes next.
//!
//! At most one connection takes media (`current`). Others may still be finishing (`draining`): their bodies have ended and
//! their acknowledgements are awaited. What no connection carries any more is sent again by the outbox.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::ack::{Ack, EventType};
use crate::call::{Client, Service};
use crate::error::ClientError;
use crate::media::{Acks, MediaSender, PutMedia, PutMediaOptions, StreamName};
use crate::producer::Shared;
use crate::producer::config::{Confirm, ProducerConfig};
use crate::producer::event::{ProducerError, ProducerEvent, refuses_content};
use crate::producer::outbox::{Cursor, Epoch, Next};

/// Acknowledgements that wait for the driver.
const ACKS_QUEUED: usize = 256;
/// How long a new connection waits for the server to number what the one before it carried.
const HANDOVER_MAX: Duration = Duration::from_secs(2);

/// What a connection's listener heard.
type Said = (u64, Heard);

type Opening = BoxFuture<'static, Result<Opened, ClientError>>;

struct Opened {
    connection: PutMedia,
    /// The recording that it was opened for.
    epoch: Arc<Epoch>,
    /// When the credentials are due for renewal.
    renew_in: Option<Duration>,
    confirm: Confirm,
}

/// What a connection's acknowledgements say, or that there will be no more.
enum Heard {
    Ack(Ack),
    End(Result<(), ClientError>),
}

struct Connection {
    id: u64,
    /// `None` once its body has ended.
    media: Option<MediaSender>,
    cursor: Cursor,
    /// Taken from the outbox and not yet by the connection.
    piece: Option<Bytes>,
    replace_at: Instant,
    moved: Instant,
    _listener: Listener,
}

/// A connection that is dropped in the midst of a fragment must not look as if the fragment had ended there.
impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(media) = self.media.take() {
            media.abort();
        }
    }
}

/// Reads acknowledgements; dropping it cuts the connection.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) struct Driver {
    shared: Arc<Shared>,
    client: Client,
    config: ProducerConfig,
    confirm: Option<Confirm>,
    current: Option<Connection>,
    /// Takes over from `current` at the end of a fragment.
    standby: Option<Connection>,
    draining: BTreeMap<u64, Connection>,
    opening: Option<Opening>,
    heard: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    connections: u64,
    /// In a row, without a confirmation in between.
    failures: u32,
    retry_at: Instant,
    last_error: Option<Arc<ClientError>>,
    /// When something was confirmed last, or the buffer was empty.
    progress: Instant,
    /// Until when the new connection waits for the numbers of the old one's fragments.
    handover_until: Option<Instant>,
}

/// What the loop woke up for.
enum Woken {
    Sent,
    Closed,
    Changed,
    Heard(u64, Heard),
    Opened(Result<Opened, ClientError>),
    Timer,
}

impl Driver {
    pub fn new(shared: Arc<Shared>, client: Client, config: ProducerConfig) -> Self {
        let now = Instant::now();
        Driver {
            confirm: config.confirm,
            shared,
            client,
            config,
            current: None,
            standby: None,
            draining: BTreeMap::new(),
            opening: None,
            heard: mpsc::channel(ACKS_QUEUED),
            connections: 0,
            failures: 0,
            retry_at: now,
            last_error: None,
            progress: now,
            handover_until: None,
        }
    }

    /// Runs until everything is delivered after `finish`, or there is no way to go on.
    pub async fn run(mut self) {
        let outcome = self.drive().await;
        if let Err(error) = outcome {
            tracing::warn!(%error, "the producer stops");
            self.shared.fail(error);
        }
        self.shared.stop();
    }

    async fn drive(&mut self) -> Result<(), ProducerError> {
        loop {
            self.tend()?;
            if self.shared.finishing() && self.shared.outbox.lock().is_empty() && self.draining.is_empty() {
                return Ok(());
            }
            let woken = self.wait().await;
            self.handle(woken)?;
            self.shared.tell_news();
        }
    }

    /// Brings everything up to date before waiting: what to send next, whether another connection is needed, what is late.
    fn tend(&mut self) -> Result<(), ProducerError> {
        let now = Instant::now();
        self.end_idle();
        self.cut_stalled(now);
        self.send_what_fits();
        let empty = self.shared.outbox.lock().is_empty();
        if empty {
            self.progress = now;
        } else if let Some(limit) = self.config.give_up_after
            && now.duration_since(self.progress) > limit
        {
            return Err(ProducerError::GaveUp(limit, self.last_error.take()));
        }
        if self.replacement_due(now) && self.idle() {
            self.drain();
        }
        let waiting = self.current.is_none() && self.shared.outbox.lock().has_waiting();
        if (waiting || self.replacement_due(now)) && self.opening.is_none() && now >= self.retry_at {
            self.open();
        }
        Ok(())
    }

    /// Whether the current connection is to be replaced, and nothing is done about it yet.
    fn replacement_due(&self, now: Instant) -> bool {
        self.standby.is_none() && self.current.as_ref().is_some_and(|current| now >= current.replace_at)
    }

    /// Whether the current connection has nothing to do.
    fn idle(&self) -> bool {
        let between = self
            .current
            .as_ref()
            .is_some_and(|current| current.cursor.between_fragments());
        between && !self.shared.outbox.lock().has_waiting()
    }

    /// Takes pieces from the outbox as long as the connection takes them.
    fn send_what_fits(&mut self) {
        let now = self.shared.now();
        loop {
            if self.current.is_none() {
                self.current = self.standby.take();
            }
            let Some(current) = &mut self.current else { return };
            if let Some(piece) = current.piece.take() {
                let Some(media) = &current.media else { return };
                match media.try_send(piece) {
                    Ok(()) => current.moved = Instant::now(),
                    Err(piece) => {
                        current.piece = Some(piece);
                        return;
                    }
                }
                continue;
            }
            if current.cursor.between_fragments() && self.hold() {
                return;
            }
            let Some(current) = &mut self.current else { return };
            let may_begin = self.standby.is_none();
            let next = self
                .shared
                .outbox
                .lock()
                .next(current.id, &mut current.cursor, may_begin, now);
            match next {
                Next::Piece(piece) => current.piece = Some(piece),
                Next::Change => self.drain(),
                Next::Cut => {
                    let id = current.id;
                    self.ended(id, None);
                }
                Next::Nothing => {
                    let over = self.shared.finishing()
                        || (self.shared.flushing() && self.shared.outbox.lock().needs_end(&current.cursor));
                    if over && current.cursor.between_fragments() {
                        self.drain();
                    }
                    return;
                }
            }
        }
    }

    /// Whether the server still has to number what older connections carried, so that its numbers keep our order.
    fn hold(&mut self) -> bool {
        let Some(until) = self.handover_until else { return false };
        let draining = &self.draining;
        let numbered = self.shared.outbox.lock().all_numbered(|id| draining.contains_key(&id));
        if numbered || Instant::now() >= until {
            self.handover_until = None;
        }
        self.handover_until.is_some()
    }

    /// Ends the current connection's body; its acknowledgements go on.
    fn drain(&mut self) {
        if let Some(mut current) = self.current.take() {
            // Dropped in peace, it ends the body properly.
            drop(current.media.take());
            current.moved = Instant::now();
            self.draining.insert(current.id, current);
            self.handover_until = Some(Instant::now() + HANDOVER_MAX);
        }
    }

    fn end_idle(&mut self) {
        let mut outbox = self.shared.outbox.lock();
        let now = self.shared.now();
        if outbox
            .idle_since()
            .is_some_and(|since| now.saturating_sub(since) >= self.config.end_idle_after)
        {
            outbox.end_open_with(matroska::writer::end_of_fragment(), now);
        }
    }

    fn cut_stalled(&mut self, now: Instant) {
        let limit = self.config.stall_timeout;
        let late = |moved: Instant| now.duration_since(moved) > limit;
        let mut stalled: Vec<u64> = self
            .draining
            .iter()
            .filter(|(_, d)| late(d.moved))
            .map(|(id, _)| *id)
            .collect();
        if let Some(current) = &self.current
            && late(current.moved)
            && (current.piece.is_some() || self.shared.outbox.lock().awaits_confirmation())
        {
            stalled.push(current.id);
        }
        for id in stalled {
            self.ended(id, Some(Arc::new(ClientError::Timeout(limit))));
        }
    }

    fn open(&mut self) {
        let waiting = self.shared.outbox.lock().next_epoch();
        let running = || self.current.as_ref().and_then(|current| current.cursor.epoch());
        let Some(epoch) = waiting.or_else(running) else { return };
        let opening = open(self.client.clone(), self.config.stream.clone(), epoch, self.confirm);
        self.opening = Some(opening.boxed());
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.deadline();
        let Driver {
            shared,
            current,
            opening,
            heard,
            ..
        } = self;
        let blocked = current.as_ref().filter(|current| current.piece.is_some());
        let blocked = blocked.and_then(|current| current.media.as_ref());
        tokio::select! {
            Some((id, heard)) = heard.1.recv() => Woken::Heard(id, heard),
            open = async { blocked?.ready().await.then_some(()) }, if blocked.is_some() => match open {
                Some(()) => Woken::Sent,
                None => Woken::Closed,
            },
            Some(opened) = async { Some(opening.as_mut()?.await) }, if opening.is_some() => Woken::Opened(opened),
            () = shared.changed.notified() => Woken::Changed,
            () = sleep_until(deadline) => Woken::Timer,
        }
    }

    /// The next moment at which something is due by the clock alone.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let mut next = now + Duration::from_secs(3600);
        let mut by = |at: Instant| next = next.min(at);
        let outbox = self.shared.outbox.lock();
        if self.opening.is_none() && self.current.is_none() && outbox.has_waiting() {
            by(self.retry_at);
        }
        if let Some(current) = &self.current {
            if self.opening.is_none() && self.standby.is_none() {
                by(current.replace_at.max(self.retry_at));
            }
            if current.piece.is_some() || outbox.awaits_confirmation() {
                by(current.moved + self.config.stall_timeout);
            }
        }
        for draining in self.draining.values() {
            by(draining.moved + self.config.stall_timeout);
        }
        if let Some(until) = self.handover_until {
            by(until);
        }
        if let Some(limit) = self.config.give_up_after
            && !outbox.is_empty()
        {
            by(self.progress + limit);
        }
        if let Some(since) = outbox.idle_since() {
            let left = (since + self.config.end_idle_after).saturating_sub(self.shared.now());
            by(now + left);
        }
        // A moment that has passed and whose work has nothing to do yet is looked at again soon, not at once.
        next.max(now + Duration::from_millis(5))
    }

    fn handle(&mut self, woken: Woken) -> Result<(), ProducerError> {
        match woken {
            Woken::Sent | Woken::Changed | Woken::Timer => Ok(()),
            Woken::Closed => {
                // The acknowledgements say why; they are being read.
                self.drain();
                Ok(())
            }
            Woken::Heard(id, Heard::Ack(ack)) => self.acknowledged(id, &ack),
            Woken::Heard(id, Heard::End(outcome)) => {
                self.ended(id, outcome.err().map(Arc::new));
                Ok(())
            }
            Woken::Opened(outcome) => {
                self.opening = None;
                self.opened(outcome)
            }
        }
    }

    fn opened(&mut self, outcome: Result<Opened, ClientError>) -> Result<(), ProducerError> {
        let opened = match outcome {
            Ok(opened) => opened,
            Err(error) => {
                let error = Arc::new(error);
                if !error.is_transient() && !error.is_expired_credentials() {
                    return Err(ProducerError::Refused(error));
                }
                // Credentials that are refused twice in a row are not merely old.
                let before = self.last_error.take().filter(|_| self.failures > 0);
                if error.is_expired_credentials() && before.is_some_and(|error| error.is_expired_credentials()) {
                    return Err(ProducerError::Refused(error));
                }
                self.failed(None, Some(error));
                return Ok(());
            }
        };
        self.confirm = Some(opened.confirm);
        self.connections += 1;
        let id = self.connections;
        {
            let mut outbox = self.shared.outbox.lock();
            outbox.set_confirm(opened.confirm);
            outbox.stats.connections += 1;
        }
        let age = opened.renew_in.map_or(self.config.connection_age_max, |renew| {
            renew.min(self.config.connection_age_max)
        });
        let PutMedia { media, acks } = opened.connection;
        let now = Instant::now();
        let connection = Connection {
            id,
            media: Some(media),
            cursor: Cursor::of(opened.epoch),
            piece: None,
            replace_at: now + age.max(Duration::from_millis(100)),
            moved: now,
            _listener: Listener(tokio::spawn(listen(id, acks, self.heard.0.clone()))),
        };
        self.standby = Some(connection);
        self.shared.emit(&ProducerEvent::Connected { connection: id });
        Ok(())
    }

    fn acknowledged(&mut self, id: u64, ack: &Ack) -> Result<(), ProducerError> {
        let now = Instant::now();
        let current = self.current.as_mut().filter(|current| current.id == id);
        if ack.event != EventType::Idle
            && let Some(connection) = current.or(self.draining.get_mut(&id))
        {
            connection.moved = now;
        }
        let acked = self.shared.outbox.lock().acknowledge(id, ack, self.shared.now());
        if acked.confirmed {
            self.failures = 0;
            self.progress = now;
            self.shared.progressed();
        }
        let error = (ack.event == EventType::Error)
            .then(|| (ack.error_id.unwrap_or(0), ack.error_code.clone().unwrap_or_default()));
        self.shared.emit(&ProducerEvent::Ack {
            connection: id,
            fragment: acked.fragment,
            ack: ack.clone(),
            after: acked.after,
        });
        let Some((error_id, code)) = error else { return Ok(()) };
        if refuses_content(error_id) && !self.shared.outbox.lock().refuse(id, ack) {
            return Err(ProducerError::Media { id: error_id, code });
        }
        // The server takes nothing more on this connection.
        self.ended(id, Some(Arc::new(ClientError::Acknowledged { id: error_id, code })));
        Ok(())
    }

    /// A connection is over; what it did not deliver waits again.
    fn ended(&mut self, id: u64, error: Option<Arc<ClientError>>) {
        let known = if self.current.as_ref().is_some_and(|current| current.id == id) {
            self.current.take()
        } else if self.standby.as_ref().is_some_and(|standby| standby.id == id) {
            self.standby.take()
        } else {
            self.draining.remove(&id)
        };
        let Some(connection) = known else { return };
        drop(connection);
        let released = self.shared.outbox.lock().release(id);
        if error.is_some() || released > 0 {
            self.failed(Some(id), error);
        } else {
            let event = ProducerEvent::Disconnected {
                connection: Some(id),
                error: None,
                retry_in: None,
            };
            self.shared.emit(&event);
        }
        self.shared.progressed();
    }

    fn failed(&mut self, connection: Option<u64>, error: Option<Arc<ClientError>>) {
        self.failures = self.failures.saturating_add(1);
        let wait = self.config.backoff.draw(self.failures);
        self.retry_at = Instant::now() + wait;
        self.shared.outbox.lock().stats.failures += 1;
        if error.is_some() {
            self.last_error.clone_from(&error);
        }
        self.shared.emit(&ProducerEvent::Disconnected {
            connection,
            error,
            retry_in: Some(wait),
        });
    }
}

/// Finds the stream's endpoint and opens a connection to it.
async fn open(
    client: Client,
    stream: StreamName,
    epoch: Arc<Epoch>,
    confirm: Option<Confirm>,
) -> Result<Opened, ClientError> {
    let options = PutMediaOptions {
        stream,
        timecodes: epoch.timecodes,
        started: epoch.started,
    };
    let outcome = async {
        let confirm = match confirm {
            Some(confirm) => confirm,
            None => how_confirmed(&client, &options).await?,
        };
        let endpoint = client.data_endpoint(&options.stream, "PUT_MEDIA").await?;
        let connection = endpoint.put_media(&options).await?;
        Ok::<_, ClientError>((connection, confirm))
    };
    match outcome.await {
        Ok((connection, confirm)) => Ok(Opened {
            connection,
            epoch,
            renew_in: client.credentials.renew_in(client.clock().now()).await,
            confirm,
        }),
        Err(error) => {
            if error.is_expired_credentials() {
                client.credentials.forget().await;
            }
            Err(error)
        }
    }
}

/// A stream without retention never says PERSISTED. A key that may not ask hopes that it keeps something.
async fn how_confirmed(client: &Client, options: &PutMediaOptions) -> Result<Confirm, ClientError> {
    let mut input = json!({});
    options.stream.put_into(&mut input);
    let answer = match client.call(Service::KinesisVideo, "DescribeStream", &input).await {
        Ok(answer) => answer,
        Err(ClientError::Refused(answer))
            if matches!(answer.status, 401 | 403) || answer.code.starts_with("AccessDenied") =>
        {
            return Ok(Confirm::Persisted);
        }
        Err(error) => return Err(error),
    };
    let hours = answer
        .pointer("/StreamInfo/DataRetentionInHours")
        .and_then(Value::as_i64);
    Ok(if hours == Some(0) {
        Confirm::Received
    } else {
        Confirm::Persisted
    })
}

async fn listen(id: u64, mut acks: Acks, heard: mpsc::Sender<Said>) {
    loop {
        let (said, over) = match acks.next().await {
            Ok(Some(ack)) => (Heard::Ack(ack), false),
            Ok(None) => (Heard::End(Ok(())), true),
            Err(error) => (Heard::End(Err(error)), true),
        };
        if heard.send((id, said)).await.is_err() || over {
            return;
        }
    }
}
