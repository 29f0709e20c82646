//! The delivery of one buffer, tried until it is done. An attempt that fails gives its records back to the source and reads
//! them again: what a crash needs is so the ordinary way after every failure.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Timestamp;
use objects::ObjectError;
use storage::{Position, ShardId, StreamId};
use tokio::sync::{oneshot, watch};

use super::budget::Held;
use super::rows::{Named, Place, Plan, Progress, Rows};
use super::source::SourceError;
use super::status::Part;
use super::target::{Group, by_kind, nameless, put};
use super::{Ground, Work, age_s, asked_to_stop, pause};
use crate::endpoints::Delivery;
use crate::format::{Encoded, error_lines};
use crate::limits;
use crate::types::{ErrorOutputType, Failed, Processed, Ready, Record};

/// What makes a buffer new: its position is committed with its plan, behind those of the buffers before it.
pub struct New {
    /// The records, still in memory.
    pub records: Vec<Record>,
    /// Their memory.
    pub held: Option<Held>,
    /// The position behind it.
    pub progress: Progress,
    /// Comes when the buffer before it is planned.
    pub before: Option<oneshot::Receiver<()>>,
    /// Goes when this one is.
    pub planned: oneshot::Sender<()>,
}

/// See the module.
pub struct Job {
    pub ground: Arc<Ground>,
    pub work: Work,
    pub rows: Rows,
    pub number: u64,
    pub plan: Plan,
    pub new: Option<New>,
    /// True once the plan may be in the catalog.
    pub written: bool,
    pub stop: watch::Receiver<bool>,
    /// What this attempt has delivered, for the counters: destination, records and bytes.
    pub tally: Vec<(&'static str, usize, usize)>,
    /// What went to the error output.
    pub refused: Vec<(ErrorOutputType, usize)>,
}

/// Why an attempt ended.
enum Ended {
    /// It is to be given up.
    Stopped,
    /// It may go better the next time.
    Failed(String),
}

impl<E: std::fmt::Display> From<E> for Ended {
    fn from(error: E) -> Self {
        Ended::Failed(error.to_string())
    }
}

/// An error of a bucket as AWS's logs name it.
fn bucket_failed(bucket: &str, error: &ObjectError) -> Ended {
    let code = match error {
        ObjectError::NoSuchBucket(_) => "S3.NoSuchBucket",
        ObjectError::Denied(_) => "S3.AccessDenied",
        _ => "S3.InternalError",
    };
    Ended::Failed(format!("{code}: bucket {bucket}: {error}"))
}

/// A buffer that is where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its number.
    pub number: u64,
}

/// What an attempt makes.
struct Objects {
    /// Without a name where they go to an endpoint.
    groups: Vec<(Option<Named>, Group)>,
    failed: Vec<Failed>,
    backup: Option<Named>,
    all: BTreeSet<Named>,
}

impl Job {
    /// Delivers; `None` when it was told to stop before that was done.
    pub async fn run(mut self) -> Option<Done> {
        let mut failures = 0;
        loop {
            let part = Part::Buffer(self.number);
            match self.attempt().await {
                Ok(()) => {
                    self.work.status.works(part);
                    return Some(Done { number: self.number });
                }
                Err(Ended::Stopped) => return None,
                Err(Ended::Failed(why)) => self.work.status.fails(part, &why),
            }
            // The source keeps them.
            if let Some(new) = &mut self.new {
                (new.records, new.held) = (Vec::new(), None);
            }
            let mut stop = self.stop.clone();
            tokio::select! {
                () = asked_to_stop(&mut stop) => return None,
                () = tokio::time::sleep(pause(failures)) => failures += 1,
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), Ended> {
        let repeated = self.written;
        self.tally.clear();
        self.refused.clear();
        let (records, _held) = self.records().await?;
        let oldest = records.iter().map(|r| r.arrival).min();
        let Some(oldest) = oldest else {
            // Beyond its retention, or deleted with its source: there is nothing left to deliver.
            return self.finish(None).await;
        };
        let newest = records.iter().map(|r| r.arrival).max().unwrap_or(oldest);
        let backup: Vec<Ready> = match &self.work.target.backup {
            Some(_) => records.iter().map(as_it_came).collect(),
            None => Vec::new(),
        };
        let processed = self.process(records).await?;
        let objects = self.name(processed, oldest)?;
        self.write_plan(&objects.all).await?;
        if *self.stop.borrow() {
            return Err(Ended::Stopped);
        }
        let mut made = BTreeSet::new();
        let mut failed = objects.failed;
        for (named, group) in objects.groups {
            self.deliver_group(named, group, &mut failed, &mut made).await?;
        }
        if let Some(named) = objects.backup {
            self.put_backup(named, backup, &mut made).await?;
        }
        self.put_errors(failed, oldest, &mut made).await?;
        if repeated {
            self.remove_others(&made).await?;
        }
        self.finish(Some((oldest, newest))).await
    }

    /// The records: those in memory, or read again.
    async fn records(&mut self) -> Result<(Vec<Record>, Option<Held>), Ended> {
        if let Some(new) = &mut self.new
            && !new.records.is_empty()
        {
            return Ok((std::mem::take(&mut new.records), new.held.take()));
        }
        let held = self
            .ground
            .budget
            .take(usize::try_from(self.plan.bytes).unwrap_or(usize::MAX));
        let mut stop = self.stop.clone();
        let held = tokio::select! {
            () = asked_to_stop(&mut stop) => return Err(Ended::Stopped),
            held = held => held,
        };
        let mut all = Vec::new();
        let stream = StreamId(self.plan.stream);
        for range in &self.plan.ranges {
            let Place::At(last) = range.last else { continue };
            let mut from = range.from.position().unwrap_or(Position::Trim);
            let place = (stream, ShardId(range.shard));
            loop {
                let read = self
                    .work
                    .source
                    .read(place, from, limits::READ_RECORDS, limits::READ_BYTES)
                    .await;
                let batch = match read {
                    Ok(batch) => batch,
                    Err(SourceError::Gone) => break,
                    Err(error) => return Err(error.into()),
                };
                let before = all.len();
                let read = batch.records.len();
                all.extend(batch.records.into_iter().take_while(|r| r.source.sequence <= last));
                let beyond = all.len() - before < read;
                if beyond || batch.at_tip || matches!(Place::from(batch.next), Place::At(next) if next > last) {
                    break;
                }
                from = batch.next;
            }
        }
        Ok((all, Some(held)))
    }

    async fn process(&mut self, records: Vec<Record>) -> Result<Processed, Ended> {
        let target = &self.work.target;
        if target.is_plain() {
            let ready = |record: Record| Ready {
                data: record.data,
                arrival: record.arrival,
                sequence: Some((record.source.sequence, 0)),
                ..Ready::default()
            };
            return Ok(Processed {
                ready: records.into_iter().map(ready).collect(),
                failed: Vec::new(),
            });
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            () = asked_to_stop(&mut stop) => Err(Ended::Stopped),
            processed = target.process(records) => Ok(processed),
        }
    }

    /// Decides on the objects.
    fn name(&self, processed: Processed, oldest: Timestamp) -> Result<Objects, Ended> {
        let (target, seed) = (&self.work.target, self.plan.seed);
        let mut failed = processed.failed;
        let mut groups = Vec::new();
        let mut all = BTreeSet::new();
        if target.endpoint.is_some() {
            let group = Group::of(processed.ready);
            groups.extend(group.map(|group| (None, group)));
        } else {
            for group in target.group(processed.ready, &mut failed) {
                match target.name(seed, &group) {
                    Ok(named) => groups.push((named, group)),
                    Err(why) => failed.extend(group.records.into_iter().map(|record| nameless(record, &why))),
                }
            }
        }
        all.extend(groups.iter().filter_map(|(named, _)| named.clone()));
        let backup = target.backup_name(seed, oldest)?;
        all.extend(backup.clone());
        let mut kinds: BTreeSet<ErrorOutputType> = failed.iter().map(|f| f.kind).collect();
        kinds.extend(target.late_failures());
        for kind in kinds {
            all.insert(target.error_name(seed, kind, oldest)?);
        }
        Ok(Objects {
            groups,
            failed,
            backup,
            all,
        })
    }

    /// Makes the plan durable before anything of it is done, unless it is so already.
    async fn write_plan(&mut self, objects: &BTreeSet<Named>) -> Result<(), Ended> {
        if self.new.is_none() && objects.is_subset(&self.plan.objects) {
            return Ok(());
        }
        self.plan.objects.extend(objects.iter().cloned());
        if let Some(before) = self.new.as_mut().and_then(|new| new.before.as_mut()) {
            let mut stop = self.stop.clone();
            let planned = tokio::select! {
                () = asked_to_stop(&mut stop) => return Err(Ended::Stopped),
                planned = before => planned,
            };
            // The one before was given up, and its records are read again by whoever goes on: so are these.
            if planned.is_err() {
                return Err(Ended::Stopped);
            }
        }
        if let Some(new) = &mut self.new {
            new.before = None;
        }
        self.written = true;
        let progress = self.new.as_ref().map(|new| &new.progress);
        self.rows.plan(self.number, &self.plan, progress).await?;
        if let Some(new) = self.new.take() {
            // Nobody may follow.
            let _ = new.planned.send(());
        }
        Ok(())
    }

    async fn deliver_group(
        &mut self,
        named: Option<Named>,
        group: Group,
        failed: &mut Vec<Failed>,
        made: &mut BTreeSet<Named>,
    ) -> Result<(), Ended> {
        let target = Arc::clone(&self.work.target);
        let records = group.records.len();
        if let Some((endpoint, name)) = &target.endpoint {
            let bytes = group.records.iter().map(|r| r.data.len()).sum();
            let delivery = Delivery {
                id: self.plan.seed,
                records: group.records,
            };
            let mut stop = self.stop.clone();
            let delivered = tokio::select! {
                () = asked_to_stop(&mut stop) => return Err(Ended::Stopped),
                delivered = endpoint.deliver(delivery) => delivered,
            };
            self.tally
                .push((*name, records.saturating_sub(delivered.failed.len()), bytes));
            failed.extend(delivered.failed);
            return Ok(());
        }
        let (Some(objects), Some(named)) = (&target.objects, named) else {
            return Ok(());
        };
        let mut encoded = objects.encode(group.records).await?;
        let late = std::mem::take(&mut encoded.failed);
        if !encoded.body.is_empty() {
            let bytes = self.put(&named, encoded).await?;
            self.tally.push(("S3", records.saturating_sub(late.len()), bytes));
            made.insert(named);
        }
        failed.extend(late);
        Ok(())
    }

    async fn put(&self, named: &Named, encoded: Encoded) -> Result<usize, Ended> {
        let put = put(&self.ground.ports, self.work.target.account(), named, encoded).await;
        put.map_err(|error| bucket_failed(&named.bucket, &error))
    }

    async fn put_backup(&mut self, named: Named, records: Vec<Ready>, made: &mut BTreeSet<Named>) -> Result<(), Ended> {
        let target = Arc::clone(&self.work.target);
        let Some(backup) = &target.backup else { return Ok(()) };
        let count = records.len();
        let encoded = backup.encode(records).await?;
        let bytes = self.put(&named, encoded).await?;
        self.tally.push(("BackupToS3", count, bytes));
        made.insert(named);
        Ok(())
    }

    async fn put_errors(
        &mut self,
        failed: Vec<Failed>,
        oldest: Timestamp,
        made: &mut BTreeSet<Named>,
    ) -> Result<(), Ended> {
        let target = Arc::clone(&self.work.target);
        for (kind, failed) in by_kind(failed) {
            let named = target.error_name(self.plan.seed, kind, oldest)?;
            let lines = Encoded {
                body: vec![error_lines(&failed, self.ground.clock.now())],
                content_type: "application/octet-stream",
                ..Encoded::default()
            };
            self.put(&named, lines).await?;
            self.refused.push((kind, failed.len()));
            made.insert(named);
        }
        Ok(())
    }

    /// Objects of attempts before this one that it did not make again.
    async fn remove_others(&self, made: &BTreeSet<Named>) -> Result<(), Ended> {
        for named in self.plan.objects.difference(made) {
            let bucket = self
                .ground
                .ports
                .buckets
                .open(self.work.target.account(), &named.bucket)
                .await;
            let removed = match bucket {
                Ok(bucket) => bucket.delete(&named.key).await,
                Err(error) => Err(error),
            };
            match removed {
                // A bucket that is gone holds nothing.
                Ok(()) | Err(ObjectError::NoSuchBucket(_) | ObjectError::NoSuchKey(_)) => {}
                Err(error) => return Err(bucket_failed(&named.bucket, &error)),
            }
        }
        Ok(())
    }

    async fn finish(&mut self, arrivals: Option<(Timestamp, Timestamp)>) -> Result<(), Ended> {
        if self.new.is_some() {
            // Nothing of a new buffer was left when it was read again: its position still moves on.
            self.write_plan(&BTreeSet::new()).await?;
        }
        self.rows.done(self.number).await?;
        self.work
            .source
            .delivered(self.plan.bytes, arrivals.map(|(_, newest)| newest));
        for (destination, records, bytes) in self.tally.drain(..) {
            self.work.status.delivered(destination, records, bytes);
        }
        for (kind, records) in self.refused.drain(..) {
            self.work.status.failed_records(kind.as_str(), records);
        }
        if let Some((oldest, _)) = arrivals {
            self.work.status.succeeded(age_s(self.ground.clock.now(), oldest));
        }
        Ok(())
    }
}

fn as_it_came(record: &Record) -> Ready {
    Ready {
        data: record.data.clone(),
        arrival: record.arrival,
        sequence: Some((record.source.sequence, 0)),
        ..Ready::default()
    }
}
