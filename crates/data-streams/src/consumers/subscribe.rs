//! SubscribeToShard: records are sent as they become durable. Who subscribes waits for the shard's own notification, so a
//! record leaves as soon as it can be read; nothing polls.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{ApiError, Handle, Reply, Request, ResourceName};
use futures_util::stream;
use storage::{Position, ReadBatch, ShardId, StreamId};
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;
use wire::event_stream::WithEvents;
use wire::kinesis::{self, SubscribeToShardEvent, op};

use crate::arn::{ConsumerName, parse_shard_id, shard_id_text};
use crate::error::{consumer_not_found, invalid, log_failure, shard_not_found, stream_not_found};
use crate::limits;
use crate::records::place::Wanted;
use crate::records::{millis_behind, refuse_dry_run, wire_record};
use crate::service::DataStreams;
use crate::shards::child_shards;
use crate::state::StreamState;
use crate::target::{Part, find_consumer};

type Output = WithEvents<kinesis::SubscribeToShardOutput, SubscribeToShardEvent>;

impl Handle<op::SubscribeToShard> for DataStreams {
    async fn handle(&self, request: Request<kinesis::SubscribeToShardInput>) -> Result<Reply<Output>, ApiError> {
        let input = &request.input;
        let caller = &request.context.caller;
        let target = self.target::<op::SubscribeToShard>(caller, &input.consumer_arn)?;
        let stream = target.stream;
        let Part::Consumer(consumer) = target.part else {
            return Err(invalid(format!("{} is not the ARN of a consumer.", input.consumer_arn)));
        };
        let shard = parse_shard_id(&input.shard_id).filter(|id| stream.shard(*id).is_some());
        let shard = shard.ok_or_else(|| shard_not_found(&input.shard_id, &stream.name.name, stream.name.account))?;
        let wanted = Wanted {
            kind: input.starting_position.r#type,
            sequence_number: input.starting_position.sequence_number.as_deref(),
            timestamp: input.starting_position.timestamp,
            operation: "SubscribeToShard",
        };
        let from = self.position(&stream, shard, caller.account, &wanted).await?;
        refuse_dry_run(input.dry_run)?;
        let tip = self.records.watch(stream.id, shard);
        let tip = tip.map_err(|e| log_failure(e, &stream.name.name, stream.name.account))?;
        let place = (stream.id, consumer.created_s, shard);
        let taken = self.subscriptions.take(place, self.clock.monotonic());
        let taken = taken.map_err(|_| in_use(&consumer, shard))?;
        let subscription = Subscription {
            service: self.shared()?,
            name: stream.name.clone(),
            id: stream.id,
            consumer,
            shard,
            from,
            tip,
            changes: self.changes(),
            taken,
            ends: Box::pin(tokio::time::sleep(Duration::from_millis(limits::SUBSCRIPTION_MS))),
            seen: Weak::new(),
            begun: false,
            over: false,
        };
        let events = stream::unfold(subscription, |mut subscription| async move {
            let event = subscription.next().await?;
            Some((event, subscription))
        });
        Ok(WithEvents::new(kinesis::SubscribeToShardOutput::default(), events).into())
    }
}

fn in_use(consumer: &ConsumerName, shard: ShardId) -> ApiError {
    ApiError::client(
        "ResourceInUseException",
        format!(
            "Another active subscription exists for this consumer: {}, {}",
            consumer.name,
            shard_id_text(shard)
        ),
    )
}

/// A subscription under way.
struct Subscription {
    service: Arc<DataStreams>,
    name: ResourceName,
    id: StreamId,
    consumer: ConsumerName,
    shard: ShardId,
    from: Position,
    tip: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
    taken: oneshot::Receiver<()>,
    ends: Pin<Box<Sleep>>,
    /// The stream as it was at the last look.
    seen: Weak<StreamState>,
    /// The first event was sent.
    begun: bool,
    /// The last event was sent.
    over: bool,
}

/// What a subscription waits for.
enum Woken {
    /// There may be more to read.
    Change,
    /// Nothing happened for a while.
    Silence,
    /// Another took it over.
    Taken,
    /// Its five minutes are over.
    End,
}

impl Subscription {
    /// The next event; an error is the last one.
    async fn next(&mut self) -> Option<Result<SubscribeToShardEvent, ApiError>> {
        if self.over {
            return None;
        }
        let mut silent = false;
        loop {
            match self.step(silent).await {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
            silent = match self.wait().await {
                Woken::Change => false,
                Woken::Silence => true,
                Woken::Taken => {
                    self.over = true;
                    return Some(Err(in_use(&self.consumer, self.shard)));
                }
                Woken::End => return None,
            };
        }
    }

    /// Reads what is there; `None` if there is nothing to tell.
    async fn step(&mut self, silent: bool) -> Result<Option<SubscribeToShardEvent>, ApiError> {
        if self.taken.try_recv().is_ok() {
            return Err(in_use(&self.consumer, self.shard));
        }
        // Whatever comes after this is noticed by the wait.
        self.tip.mark_unchanged();
        self.changes.mark_unchanged();
        let (name, account) = (&self.name.name, self.name.account);
        let stream = self.service.state(&self.name).filter(|s| s.id == self.id);
        let stream = stream.ok_or_else(|| stream_not_found(name, account))?;
        self.seen = Arc::downgrade(&stream);
        if find_consumer(&stream.record, &self.consumer).is_none() {
            return Err(consumer_not_found(&self.consumer.name, account));
        }
        let closed = match stream.shard(self.shard) {
            Some(shard) => shard.closed_ms.is_some(),
            None => return Err(shard_not_found(&shard_id_text(self.shard), name, account)),
        };
        let (most, bytes) = (limits::EVENT_RECORDS_MAX, limits::EVENT_BYTES_MAX);
        let read = self.service.records.read(self.id, self.shard, self.from, most, bytes);
        let batch = read.await.map_err(|e| log_failure(e, name, account))?;
        self.from = batch.next;
        let ended = closed && batch.at_tip;
        if batch.records.is_empty() && !ended && !silent && self.begun {
            return Ok(None);
        }
        self.begun = true;
        self.over = ended;
        self.event(&stream, batch, ended).map(Some)
    }

    fn event(&self, stream: &StreamState, batch: ReadBatch, ended: bool) -> Result<SubscribeToShardEvent, ApiError> {
        let behind = millis_behind(&batch, self.service.clock.now());
        let bytes = batch.records.iter().map(|r| r.data.len()).sum();
        self.service.counters.count("out", batch.records.len(), bytes);
        let next = match batch.next {
            Position::At(number) | Position::After(number) => Some(number.to_string()),
            Position::Trim => None,
        };
        let open = |record| wire_record(stream, record);
        Ok(SubscribeToShardEvent {
            child_shards: ended.then(|| child_shards(&stream.record, self.shard.0)),
            // Its absence says that the shard has ended.
            continuation_sequence_number: next.filter(|_| !ended),
            millis_behind_latest: behind,
            records: batch.records.into_iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    async fn wait(&mut self) -> Woken {
        let silence = tokio::time::sleep(Duration::from_millis(limits::SUBSCRIPTION_SILENCE_MS));
        tokio::pin!(silence);
        loop {
            tokio::select! {
                // Closed: the stream is gone, which the next look finds out.
                _ = self.tip.changed() => return Woken::Change,
                _ = self.changes.changed() => {
                    // Mostly another stream's.
                    if !self.is_seen() {
                        return Woken::Change;
                    }
                }
                taken = &mut self.taken => match taken {
                    Ok(()) => return Woken::Taken,
                    Err(_) => return Woken::End,
                },
                () = self.ends.as_mut() => return Woken::End,
                () = silence.as_mut() => return Woken::Silence,
            }
        }
    }

    /// The stream is as it was at the last look.
    fn is_seen(&self) -> bool {
        let now = self.service.state(&self.name);
        let same = now.zip(self.seen.upgrade()).map(|(now, seen)| Arc::ptr_eq(&now, &seen));
        same == Some(true)
    }
}
