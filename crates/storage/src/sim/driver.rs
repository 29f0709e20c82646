//! Runs a log on the lossy disk, one step at a time: operations as futures polled by hand, lanes stepped by hand.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::metrics::Metrics;
use base::{Clock, ManualClock, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::Connection;

use super::SimDisk;
use super::model::{Found, Fragment, Model};
use crate::IndexHome;
use crate::media::{FragmentQuery, FragmentRange, FragmentSummary, FrameEntry, MediaStore};
use crate::plan::Request;
use crate::records::{NewRecord, Position, RecordLog};
use crate::store::{Parts, open_parts};
use crate::{Error, FragmentNumber, LogOptions, ShardId, StreamId};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A log on a simulated disk with a model beside it.
pub(crate) struct World {
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    pub random: fastrand::Rng,
    pub model: Rc<RefCell<Model>>,
    pub parts: Option<Parts>,
    pub options: LogOptions,
    pub tasks: Vec<Task>,
    pub fatal: Arc<AtomicBool>,
    /// What lanes are told to do wrong; see [`super::power`].
    pub acks_early: bool,
    /// The index on disk.
    pub index: Arc<Mutex<Connection>>,
    /// What a power cut may leave of it.
    synced_index: Option<Connection>,
    counter: u64,
}

pub(crate) const VIDEO: u64 = 4;
pub(crate) const DATA: u64 = 2;

/// Polls once.
pub(crate) fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The answer of a call that has nothing to wait for.
pub(crate) fn at_once<'a, T>(future: impl Future<Output = T> + 'a) -> T {
    match poll(&mut (Box::pin(future) as Pin<Box<dyn Future<Output = T> + 'a>>)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the call waits"),
    }
}

/// Lets others go first.
async fn pause() {
    let mut waited = false;
    std::future::poll_fn(|_| {
        if std::mem::replace(&mut waited, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

fn copy(of: &Connection) -> Connection {
    let mut copy = Connection::open_in_memory().unwrap();
    let backup = rusqlite::backup::Backup::new(of, &mut copy).unwrap();
    backup.step(-1).unwrap();
    drop(backup);
    copy
}

fn options(random: &mut fastrand::Rng, fatal: &Arc<AtomicBool>, index: &Arc<Mutex<Connection>>) -> LogOptions {
    let fatal = Arc::clone(fatal);
    LogOptions {
        media_lanes: random.u16(1..=2),
        record_lanes: random.u16(1..=2),
        media_segment_bytes: [128 << 10, 256 << 10][random.usize(..2)],
        record_segment_bytes: [96 << 10, 128 << 10][random.usize(..2)],
        record_segment_ms: 20_000,
        extent_bytes: [8 << 10, 20 << 10][random.usize(..2)],
        buffer_bytes: 256 << 10,
        number_block: [3, 10][random.usize(..2)],
        spare_segments: random.usize(..3),
        punch_delay_ms: [0, 3000][random.usize(..2)],
        reserve_bytes: [0, 16 << 10][random.usize(..2)],
        index: IndexHome::held(Arc::clone(index)),
        index_window: [0, 9, 1000][random.usize(..3)],
        seed: random.u64(..),
        on_fatal: Arc::new(move |_| fatal.store(true, Ordering::SeqCst)),
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let fatal = Arc::new(AtomicBool::new(false));
        let index = Arc::new(Mutex::new(Connection::open_in_memory().unwrap()));
        World {
            disk: SimDisk::new(random.u64(..)),
            clock: ManualClock::at(Timestamp::from_millis(1_700_000_000_000)),
            model: Rc::default(),
            parts: None,
            options: options(&mut random, &fatal, &index),
            index,
            synced_index: None,
            random,
            tasks: Vec::new(),
            fatal,
            acks_early: false,
            counter: 0,
        }
    }

    pub fn open(&mut self) -> Result<(), Error> {
        self.fatal.store(false, Ordering::SeqCst);
        self.options.seed = self.random.u64(..);
        // Another number of lanes now and then.
        if self.random.usize(..8) == 0 {
            self.options.media_lanes = self.random.u16(1..=2);
            self.options.record_lanes = self.random.u16(1..=2);
        }
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let mut parts = open_parts(self.disk.mount(), clock, self.options.clone(), &Metrics::new())?;
        for (core, _) in &mut parts.lanes {
            core.acks_early = self.acks_early;
        }
        self.parts = Some(parts);
        Ok(())
    }

    /// The process is gone: its memory and its unfinished calls.
    pub fn drop_process(&mut self) {
        self.tasks.clear();
        self.parts = None;
    }

    pub fn is_dead(&self) -> bool {
        self.disk.is_off() || self.fatal.load(Ordering::SeqCst)
    }

    /// Lets one lane take what waits.
    pub fn step_lane(&mut self, lane: usize) {
        let Some(parts) = &mut self.parts else { return };
        let lanes = parts.lanes.len();
        let (core, queue) = &mut parts.lanes[lane % lanes];
        let requests = queue.take_now();
        if !requests.is_empty() {
            core.process(requests);
        }
    }

    pub fn tick(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        for (core, _) in &mut parts.lanes {
            core.process(vec![Request::Tick]);
        }
    }

    /// Lets the writer of the index do what there is to do.
    pub fn step_index(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        if let Err(error) = parts.index.step() {
            self.model.borrow_mut().broken.push(format!("index: {error}"));
        }
        if self.random.usize(..4) == 0 {
            self.synced_index = Some(copy(&self.index.lock()));
        }
    }

    /// The power goes: of the index something older may be left, or nothing.
    pub fn cut_power(&mut self) {
        self.disk.reboot();
        let left = match self.random.usize(..6) {
            0 => Some(Connection::open_in_memory().unwrap()),
            1..=3 => self.synced_index.as_ref().map(copy),
            _ => None,
        };
        if let Some(left) = left {
            *self.index.lock() = left;
        }
    }

    /// The index on disk says what the log says. To be called when nothing is under way.
    pub fn check_index(&mut self) {
        let report = crate::fsck::fsck_with_index(&self.disk.mount(), &self.options.index).unwrap();
        let mut wrong = report.findings;
        wrong.retain(|finding| finding.severity != crate::Severity::TornTail);
        if !wrong.is_empty() {
            self.model.borrow_mut().broken.push(format!("fsck: {wrong:?}"));
        }
    }

    pub fn poll_tasks(&mut self) {
        self.tasks.retain_mut(|task| poll(task).is_pending());
    }

    /// Steps until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..200 {
            self.poll_tasks();
            if self.tasks.is_empty() || self.is_dead() {
                return;
            }
            let lanes = self.parts.as_ref().map_or(0, |p| p.lanes.len());
            for lane in 0..lanes {
                self.step_lane(lane);
            }
            self.step_index();
        }
        let stuck = format!("{} calls hang", self.tasks.len());
        self.model.borrow_mut().broken.push(stuck);
    }

    /// Ends in good order.
    pub fn close(&mut self) {
        self.settle();
        let Some(parts) = &mut self.parts else { return };
        for (core, _) in &mut parts.lanes {
            let (reply, _) = tokio::sync::oneshot::channel();
            core.process(vec![Request::Close { reply }]);
        }
        self.step_index();
    }

    /// One random thing happens.
    pub fn step(&mut self) {
        match self.random.usize(..20) {
            0..=6 => self.spawn_store(),
            7..=9 => self.spawn_append(),
            10 => self.spawn_trim(),
            11 => self.spawn_trim_shard(),
            12 => {
                if self.random.usize(..12) == 0 {
                    self.spawn_delete();
                }
            }
            13 => self.tick(),
            14 => self.clock.advance(Duration::from_millis(self.random.u64(1..4000))),
            15 => self.step_index(),
            _ => {
                let lane = self.random.usize(..4);
                self.step_lane(lane);
            }
        }
        self.poll_tasks();
    }

    fn unique(&mut self, len: usize) -> Bytes {
        self.counter += 1;
        let mut bytes = self.counter.to_le_bytes().to_vec();
        let mut random = fastrand::Rng::with_seed(self.counter ^ self.random.u64(..));
        bytes.resize(8 + len, 0);
        random.fill(&mut bytes[8..]);
        bytes.into()
    }

    pub fn spawn_store(&mut self) {
        let stream = StreamId(self.random.u64(1..=VIDEO));
        let len = match self.random.usize(..10) {
            0 => 0,
            1 => self.random.usize(20_000..60_000),
            _ => self.random.usize(..9000),
        };
        let bytes = self.unique(len);
        let aborts = self.random.usize(..10) == 0;
        let piece = self.random.usize(500..20_000);
        let Some(parts) = &self.parts else { return };
        let (media, model) = (Arc::clone(&parts.media), Rc::clone(&self.model));
        let now = self.clock.now();
        self.tasks.push(Box::pin(async move {
            store(&media, &model, stream, now, bytes, piece, aborts).await;
        }));
    }

    pub fn spawn_append(&mut self) {
        let stream = StreamId(100 + self.random.u64(..DATA));
        let big = self.random.usize(..20) == 0;
        let batch = self.random.usize(1..8);
        let now = self.clock.now();
        let mut records = Vec::new();
        for _ in 0..batch {
            let len = self.random.usize(..if big { 12_000 } else { 300 });
            records.push(NewRecord {
                stream,
                shard: ShardId(self.random.u32(..2)),
                partition_key: format!("key-{}", self.random.u8(..)),
                sealed: false,
                explicit_hash_key: self.random.bool().then(|| self.random.u128(..)),
                data: self.unique(len),
                arrival: now,
            });
        }
        let Some(parts) = &self.parts else { return };
        let (log, model) = (Arc::clone(&parts.records), Rc::clone(&self.model));
        self.tasks
            .push(Box::pin(async move { append(&log, &model, records).await }));
    }

    pub fn spawn_trim(&mut self) {
        let stream = StreamId(self.random.u64(1..=VIDEO));
        let Some(parts) = &self.parts else { return };
        let (media, model) = (Arc::clone(&parts.media), Rc::clone(&self.model));
        let older = self.clock.now().plus_millis(-self.random.i64(0..20_000));
        let size = self.random.bool().then(|| self.random.u64(..60_000));
        self.tasks
            .push(Box::pin(async move { trim(&media, &model, stream, older, size).await }));
    }

    fn spawn_trim_shard(&mut self) {
        let key = (StreamId(100 + self.random.u64(..DATA)), ShardId(self.random.u32(..2)));
        let Some(parts) = &self.parts else { return };
        let (log, model) = (Arc::clone(&parts.records), Rc::clone(&self.model));
        let older = self.clock.now().plus_millis(-self.random.i64(0..20_000));
        self.tasks
            .push(Box::pin(async move { trim_shard(&log, &model, key, older).await }));
    }

    pub fn spawn_delete(&mut self) {
        let Some(parts) = &self.parts else { return };
        let (media, log) = (Arc::clone(&parts.media), Arc::clone(&parts.records));
        let model = Rc::clone(&self.model);
        if self.random.bool() {
            let stream = StreamId(self.random.u64(1..=VIDEO));
            self.tasks.push(Box::pin(async move {
                model.borrow_mut().streams.entry(stream).or_default().may_be_deleted = true;
                if media.delete_stream(stream).await.is_ok() {
                    model.borrow_mut().streams.entry(stream).or_default().is_deleted = true;
                }
            }));
        } else {
            let stream = StreamId(100 + self.random.u64(..DATA));
            self.tasks.push(Box::pin(async move {
                for shard in 0..2 {
                    model
                        .borrow_mut()
                        .shards
                        .entry((stream, ShardId(shard)))
                        .or_default()
                        .may_be_deleted = true;
                }
                if log.delete_stream(stream).await.is_ok() {
                    for shard in 0..2 {
                        model
                            .borrow_mut()
                            .shards
                            .entry((stream, ShardId(shard)))
                            .or_default()
                            .is_deleted = true;
                    }
                }
            }));
        }
    }

    /// Compares everything the log shows with the model. To be called when no call is under way.
    pub fn verify(&mut self) {
        let Some(parts) = &self.parts else { return };
        let mut broken = Vec::new();
        if !parts.report.quarantined.is_empty() {
            broken.push(format!("a power cut was taken for damage: {:?}", parts.report));
        }
        let mut model = self.model.borrow_mut();
        for (id, stream) in &mut model.streams {
            match at_once(all_fragments(&parts.media, *id)) {
                Ok(found) => broken.extend(stream.check(&found).err().map(|e| format!("stream {}: {e}", id.0))),
                Err(error) => broken.push(format!("stream {}: {error}", id.0)),
            }
        }
        for ((id, shard), state) in &mut model.shards {
            let found = match at_once(all_records(&parts.records, *id, *shard)) {
                Ok(_) if state.is_deleted => Err("a deleted stream is back".to_owned()),
                Ok(found) => {
                    // A deletion that was not acknowledged has either happened by now or never will.
                    state.may_be_deleted = false;
                    state.created = true;
                    state.check(&found)
                }
                Err(Error::NotFound) if !state.created || state.is_deleted => Ok(()),
                Err(Error::NotFound) if state.may_be_deleted => {
                    state.is_deleted = true;
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            };
            broken.extend(found.err().map(|e| format!("shard {}/{}: {e}", id.0, shard.0)));
        }
        model.broken.extend(broken);
    }
}

pub(crate) async fn all_fragments(media: &Arc<impl MediaStore>, stream: StreamId) -> Result<Vec<Found>, Error> {
    let query = FragmentQuery::first(FragmentRange::All, 10_000);
    let mut found = Vec::new();
    for info in media.list(stream, &query).await? {
        let bytes = media.read(stream, info.number, 0..u32::MAX).await?;
        found.push((info, bytes, media.frames(stream, info.number).await?));
    }
    Ok(found)
}

pub(crate) async fn all_records(
    log: &Arc<impl RecordLog>,
    stream: StreamId,
    shard: ShardId,
) -> Result<Vec<crate::StoredRecord>, Error> {
    let mut from = Position::Trim;
    let mut found = Vec::new();
    loop {
        let batch = log.read(stream, shard, from, 7, 20_000).await?;
        found.extend(batch.records);
        from = batch.next;
        if batch.at_tip {
            return Ok(found);
        }
    }
}

fn frames_of(bytes: &Bytes) -> Vec<FrameEntry> {
    let count = bytes.len() as u32 % 7;
    let frame = |n: u32| FrameEntry {
        offset: n,
        len: n * 2,
        time_ms: -(n as i32),
        track: n as u8,
        key: n == 0,
    };
    (0..count).map(frame).collect()
}

/// Errors that a call may end with while the disk plays tricks.
fn is_excusable(error: &Error, deleted: bool) -> bool {
    matches!(error, Error::DiskFull | Error::Closed | Error::Io(_)) || (deleted && matches!(error, Error::NotFound))
}

async fn store(
    media: &Arc<impl MediaStore>,
    model: &Rc<RefCell<Model>>,
    stream: StreamId,
    now: Timestamp,
    bytes: Bytes,
    piece: usize,
    aborts: bool,
) {
    let number = match media.allocate_number(stream, now).await {
        Ok(number) => number,
        Err(error) => return excuse(model, stream, &error, "allocate"),
    };
    {
        let mut model = model.borrow_mut();
        let entry = model.streams.entry(stream).or_default();
        let highest = entry.highest;
        entry.highest = highest.max(Some(number));
        let frames = frames_of(&bytes);
        let fragment = Fragment {
            bytes: bytes.clone(),
            frames,
            server: now,
            info: None,
            may_be_gone: false,
            is_gone: false,
        };
        entry.fragments.insert(number, fragment);
        if highest.is_some_and(|h| h.sequence() >= number.sequence()) {
            model.broken.push(format!("number {number} is not above {highest:?}"));
        }
    }
    let mut sink = match media.begin(stream, number).await {
        Ok(sink) => sink,
        Err(error) => return excuse(model, stream, &error, "begin"),
    };
    for part in bytes.chunks(piece) {
        if let Err(error) = sink.write(bytes.slice_ref(part)).await {
            return excuse(model, stream, &error, "write");
        }
        pause().await;
    }
    if aborts {
        model
            .borrow_mut()
            .streams
            .entry(stream)
            .or_default()
            .fragments
            .remove(&number);
        return;
    }
    let summary = FragmentSummary {
        server_timestamp: now,
        producer_timestamp: now.plus_millis(-500),
        length_ms: 700,
        header_len: bytes.len() as u32 / 3,
        tracks_hash: number.sequence() << 32,
        frames: frames_of(&bytes),
    };
    match sink.commit(summary).await {
        Ok(info) => {
            let mut model = model.borrow_mut();
            let entry = model.streams.entry(stream).or_default();
            if let Some(fragment) = entry.fragments.get_mut(&number) {
                fragment.info = Some(info);
            }
        }
        Err(error) => excuse(model, stream, &error, "commit"),
    }
}

fn excuse(model: &Rc<RefCell<Model>>, stream: StreamId, error: &Error, what: &str) {
    let mut model = model.borrow_mut();
    let deleted = model.streams.entry(stream).or_default().may_be_deleted;
    if !is_excusable(error, deleted) {
        model.broken.push(format!("{what}: {error}"));
    }
}

async fn append(log: &Arc<impl RecordLog>, model: &Rc<RefCell<Model>>, records: Vec<NewRecord>) {
    for record in &records {
        let key = (record.stream, record.shard);
        let created = model.borrow_mut().shards.entry(key).or_default().created;
        if !created {
            let made = log
                .create_shard(key.0, key.1, Timestamp::from_millis(1_700_000_000_000))
                .await;
            match made {
                Ok(()) => model.borrow_mut().shards.entry(key).or_default().created = true,
                Err(_) => return,
            }
        }
        model
            .borrow_mut()
            .shards
            .entry(key)
            .or_default()
            .tried
            .push(record.clone());
    }
    match log.append(records.clone()).await {
        Ok(numbers) => {
            let mut model = model.borrow_mut();
            for (record, number) in records.into_iter().zip(numbers) {
                let shard = model.shards.entry((record.stream, record.shard)).or_default();
                shard.tried.retain(|r| r.data != record.data);
                if let Some(other) = shard.known.insert(number, record.clone())
                    && other.data != record.data
                {
                    model.broken.push(format!("sequence {number} given twice"));
                }
            }
        }
        Err(error) => {
            let mut model = model.borrow_mut();
            let deleted = records
                .iter()
                .any(|r| model.shards[&(r.stream, r.shard)].may_be_deleted);
            if !is_excusable(&error, deleted) {
                model.broken.push(format!("append: {error}"));
            }
        }
    }
}

async fn trim(
    media: &Arc<impl MediaStore>,
    model: &Rc<RefCell<Model>>,
    stream: StreamId,
    older: Timestamp,
    size: Option<u64>,
) {
    let mut certain: Vec<FragmentNumber> = Vec::new();
    {
        let mut model = model.borrow_mut();
        let entry = model.streams.entry(stream).or_default();
        for (number, fragment) in &mut entry.fragments {
            if size.is_some() || fragment.server < older {
                fragment.may_be_gone = true;
                if size.is_none() && fragment.info.is_some() {
                    certain.push(*number);
                }
            }
        }
    }
    let answer = match size {
        Some(size) => media.trim_to_size(stream, size).await,
        None => media.trim(stream, older).await,
    };
    if answer.is_err() {
        return;
    }
    let Ok(found) = all_fragments(media, stream).await else {
        return;
    };
    let mut model = model.borrow_mut();
    if let Some((info, ..)) = found.iter().find(|(i, ..)| certain.contains(&i.number)) {
        model.broken.push(format!("{} is there after its trim", info.number));
    }
    let entry = model.streams.entry(stream).or_default();
    for (number, fragment) in &mut entry.fragments {
        let shown = found.iter().any(|(i, ..)| i.number == *number);
        fragment.is_gone |= fragment.info.is_some() && !shown;
    }
}

async fn trim_shard(log: &Arc<impl RecordLog>, model: &Rc<RefCell<Model>>, key: (StreamId, ShardId), older: Timestamp) {
    let certain: Vec<_> = {
        let mut model = model.borrow_mut();
        let shard = model.shards.entry(key).or_default();
        if !shard.created {
            return;
        }
        shard.may_be_gone = shard.may_be_gone.max(Some(older));
        shard
            .known
            .iter()
            .take_while(|(_, r)| r.arrival < older)
            .map(|(s, _)| *s)
            .collect()
    };
    if log.trim_before(key.0, key.1, older).await.is_ok() {
        model.borrow_mut().shards.entry(key).or_default().gone.extend(certain);
    }
}
