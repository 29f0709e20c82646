//! Archives one stream into one bucket.
//!
//! What an object will hold and how it is named is decided together and written down before its upload (the plan, an
//! [`Index`] that is not done). Since an object's bytes follow from its plan, and its key from its first fragment, whoever
//! comes after a crash at any point carries the plan out again and arrives at the same object: nothing is missing and
//! nothing is there twice. All that has to be remembered is in the bucket.
//!
//! Order is that of arrival at the server. A fragment that takes long to arrive can become visible behind others that were
//! archived meanwhile; it is found by listing the last quarter of an hour again, and gets an object of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::ClientError;
use client::reader::{Fragment, FragmentInfo, ReaderError};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::film::Film;
use crate::held::{Held, newest_start, read_index};
use crate::index::{Head, Index, InvalidIndex, Row, State, crc_text};
use crate::limits::{LATE_MS, LIST_FRAGMENTS_MAX, LIST_STEP_MS, LIST_STEP_MS_MAX, PART_BYTES, SETTLE_MS};
use crate::name::{Folder, INDEX};
use crate::plan::{Known, Next, next};
use crate::settings::{Cut, Format, Settings};
use crate::source::Source;
use crate::store::{Kind, Put, Store, StoreError};
use crate::verify::read_back;
use crate::writer::{Stored, Writer};

/// Fragments of a plan that are tried for the first one that can be read, to learn whether MP4 can hold it.
const FIRST_TRIED: usize = 16;

/// Begins the note that says why a film ends.
const ENDS: &str = "ends here: ";

/// The pause after a failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Why an archive does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream cannot be read.
    #[error("reading the stream: {0}")]
    Source(#[from] ReaderError),
    /// The bucket does not do what it should.
    #[error("writing to the bucket: {0}")]
    Store(#[from] StoreError),
    /// The bucket holds something else where the archive's own was expected.
    #[error(transparent)]
    Index(#[from] InvalidIndex),
    /// What was read back is not what was written.
    #[error("{0} is damaged: its bytes are not those that were archived")]
    Damaged(String),
    /// A plan cannot be carried out; in words.
    #[error("{0}")]
    Plan(String),
}

impl ArchiveError {
    /// Whether the same may go well a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            ArchiveError::Source(ReaderError::Client(error)) => error.is_transient(),
            ArchiveError::Source(ReaderError::GaveUp(..)) => true,
            ArchiveError::Store(StoreError::Failed(_)) => true,
            _ => false,
        }
    }
}

/// Which part of a stream, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first time of arrival; without it, where the archive stands, else the stream's beginning.
    pub from: Option<Timestamp>,
    /// The last one; without it, now, or with `follow` none.
    pub to: Option<Timestamp>,
    /// Goes on with what arrives.
    pub follow: bool,
    /// How long an object waits after its time for what is still arriving.
    pub settle: Duration,
    /// Failures that may pass are tried again for so long; without it, for ever.
    pub give_up_after: Option<Duration>,
    /// Each object is read back and compared.
    pub verify: bool,
}

impl Default for Range {
    fn default() -> Self {
        Range {
            from: None,
            to: None,
            follow: false,
            settle: Duration::from_millis(SETTLE_MS.unsigned_abs()),
            give_up_after: Some(Duration::from_secs(120)),
            verify: false,
        }
    }
}

/// What an archive does, step by step.
#[derive(Debug)]
pub enum Event<'a> {
    /// The range of time begins and, where it is known, ends here.
    Begins(Timestamp, Option<Timestamp>),
    /// An object was planned, or a plan of an earlier run was found: a fragment count and bytes in the stream.
    Planned(&'a Head, u64),
    /// A fragment is in the object: when it began to arrive, and its bytes in the stream.
    Fragment(Timestamp, u64),
    /// An object is there.
    Archived(&'a Head),
    /// All that is there is archived; more is waited for.
    UpToDate(Timestamp),
    /// Something failed and is tried again.
    Failed(&'a ArchiveError),
}

/// What an archive did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects.
    pub objects: u64,
    /// Their fragments.
    pub fragments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Fragments that could not be read.
    pub lost: u64,
}

/// See the module.
pub struct Archiver {
    source: Arc<dyn Source>,
    store: Arc<dyn Store>,
    stream: String,
    folder: Folder,
    settings: Settings,
    turns: Arc<Semaphore>,
}

/// How far an archive is.
struct Place {
    held: Held,
    /// All that began to arrive before is archived, but for what became visible since `checked`.
    position: Timestamp,
    /// When that was seen to be so.
    checked: Timestamp,
    /// The range begins here.
    from: Option<Timestamp>,
    step_ms: i64,
}

impl Place {
    /// Where listing begins again.
    fn list_from(&self) -> Timestamp {
        let settled = self.checked.plus_millis(-LATE_MS).min(self.position);
        self.from.map_or(settled, |from| from.max(settled))
    }
}

impl Archiver {
    /// An archive of this stream below a prefix (empty, or ending with `/`) of a bucket. `turns` bounds how many archives
    /// that share it write an object at once, and so their memory.
    pub fn new(
        source: Arc<dyn Source>,
        store: Arc<dyn Store>,
        stream: &str,
        prefix: &str,
        settings: Settings,
        turns: Arc<Semaphore>,
    ) -> Self {
        Archiver {
            source,
            store,
            stream: stream.to_owned(),
            folder: Folder::new(prefix, stream),
            settings,
            turns,
        }
    }

    /// Archives until the range is through; with [`Range::follow`] and no end, for ever. Dropping the future is a crash: what
    /// was begun is finished by the next run.
    ///
    /// # Errors
    /// The stream or the bucket refuses, or failed for too long. What was archived stays, and another run goes on from there.
    pub async fn run(&self, range: &Range, on: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<Summary, ArchiveError> {
        let clock = Arc::clone(self.source.clock());
        let started = clock.now();
        let mut summary = Summary::default();
        let mut failing: Option<(Duration, Duration)> = None;
        let mut place: Option<Place> = None;
        loop {
            let outcome = self.step(&mut place, range, started, &mut summary, on).await;
            let pause = match outcome {
                Ok(Step::Archived) => {
                    failing = None;
                    continue;
                }
                Ok(Step::Over) => return Ok(summary),
                Ok(Step::UpToDate(at)) => {
                    failing = None;
                    on(Event::UpToDate(at));
                    self.pause(range)
                }
                Err(error) => {
                    let now = clock.monotonic();
                    let (since, pause) = failing.unwrap_or((now, PAUSE));
                    let long = range
                        .give_up_after
                        .is_some_and(|limit| now.saturating_sub(since) >= limit);
                    if long || !error.is_transient() {
                        return Err(error);
                    }
                    on(Event::Failed(&error));
                    failing = Some((since, (pause * 2).min(PAUSE_MAX)));
                    pause
                }
            };
            sleep(pause).await;
        }
    }

    /// Between two looks at a stream that is followed.
    fn pause(&self, range: &Range) -> Duration {
        let every = match self.settings.cut {
            Cut::Every(every) => every,
            Cut::Event { gap, .. } => gap,
        };
        (every / 10)
            .clamp(Duration::from_millis(500), Duration::from_secs(30))
            .min(range.settle.max(Duration::from_millis(500)))
    }

    async fn step(
        &self,
        place: &mut Option<Place>,
        range: &Range,
        started: Timestamp,
        summary: &mut Summary,
        on: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<Step, ArchiveError> {
        let place = match place {
            Some(place) => place,
            none => {
                let opened = self.open(range).await?;
                self.source.archived(opened.list_from()).await?;
                on(Event::Begins(
                    opened.position,
                    range.to.or((!range.follow).then_some(started)),
                ));
                none.insert(opened)
            }
        };
        if let Some(index) = place.held.take_unfinished() {
            self.carry_out(index, place, range, summary, on).await?;
            return Ok(Step::Archived);
        }
        let now = self.source.clock().now();
        let settled = now.plus_millis(-i64::try_from(range.settle.as_millis()).unwrap_or(i64::MAX));
        let last = range.to.map(|to| to.plus_millis(1));
        let (until, ends) = match (last, range.follow) {
            (Some(last), true) => (last.min(settled), last <= settled),
            (Some(last), false) => (last.min(now.plus_millis(1)), true),
            (None, true) => (settled, false),
            (None, false) => (started.plus_millis(1), true),
        };
        match self.next_plan(place, now, until, ends).await? {
            Some(index) => {
                self.carry_out(index, place, range, summary, on).await?;
                Ok(Step::Archived)
            }
            None if !place.held.is_finished() => Ok(Step::Archived),
            None => {
                self.source.archived(place.list_from()).await?;
                Ok(if ends {
                    Step::Over
                } else {
                    Step::UpToDate(place.position)
                })
            }
        }
    }

    /// Finds out where the archive stands.
    async fn open(&self, range: &Range) -> Result<Place, ArchiveError> {
        let newest = match range.from {
            Some(_) => None,
            None => newest_start(&*self.store, &self.folder).await?,
        };
        let begin = match (range.from, newest) {
            (Some(from), _) => from,
            (None, Some(newest)) => newest,
            (None, None) => self.source.begins().await?,
        };
        let mut held = Held::from(Arc::clone(&self.store), self.folder.clone(), begin);
        let mut position = begin;
        if newest.is_some() {
            let keep = begin.plus_millis(-LATE_MS);
            held.read_until(Timestamp::from_millis(i64::MAX), keep).await?;
            position = held.newest().unwrap_or(begin);
        }
        Ok(Place {
            held,
            position,
            checked: position,
            from: range.from,
            step_ms: LIST_STEP_MS,
        })
    }

    /// Lists what is not archived yet until it is known what the next object is, and writes its plan.
    async fn next_plan(
        &self,
        place: &mut Place,
        now: Timestamp,
        until: Timestamp,
        ends: bool,
    ) -> Result<Option<Index>, ArchiveError> {
        let mut at = place.list_from();
        place.held.forget_before(at);
        let mut fresh: Vec<FragmentInfo> = Vec::new();
        while at < until {
            let stop = at.plus_millis(place.step_ms).min(until);
            place.held.read_until(stop, at).await?;
            if !place.held.is_finished() {
                return Ok(None);
            }
            let listed = match self.source.list(at, stop, LIST_FRAGMENTS_MAX).await {
                Err(ReaderError::TooManyFragments(_)) if place.step_ms > 1 => {
                    place.step_ms = (place.step_ms / 4).max(1);
                    continue;
                }
                listed => listed?,
            };
            place.step_ms = match listed.len() {
                0 => (place.step_ms * 4).min(LIST_STEP_MS_MAX),
                few if few * 2 < LIST_FRAGMENTS_MAX => (place.step_ms * 2).min(LIST_STEP_MS_MAX),
                _ => place.step_ms,
            };
            fresh.extend(listed.into_iter().filter(|info| !place.held.holds(&info.number)));
            let known = Known {
                until: stop,
                ends: ends && stop == until,
            };
            match next(self.settings.cut, &fresh, known) {
                Next::Object(count, why) => {
                    fresh.truncate(count);
                    return self.plan(place, now, &fresh, why).await.map(Some);
                }
                Next::Wait => at = stop,
            }
            if fresh.is_empty() {
                place.position = place.position.max(stop);
                place.checked = place.checked.max(now);
                place.held.forget_before(place.list_from());
            }
        }
        Ok(None)
    }

    /// Writes a plan, or finds that somebody wrote one for the same object.
    async fn plan(
        &self,
        place: &mut Place,
        now: Timestamp,
        fragments: &[FragmentInfo],
        why: &str,
    ) -> Result<Index, ArchiveError> {
        let mut notes = vec![format!("{ENDS}{why}")];
        let mut format = self.settings.format;
        if format == Format::Mp4
            && let Some(first) = self.first_readable(fragments).await?
            && let Err(refused) = Film::new(Format::Mp4).push(&first)
        {
            notes.push(format!("Matroska instead of MP4: {refused}"));
            format = Format::Mkv;
        }
        let first = fragments
            .first()
            .ok_or_else(|| ArchiveError::Plan("an object without fragments was planned".to_owned()))?;
        let key = self.folder.key(first, format);
        let mut index = Index::plan(key, &self.stream, format, fragments, notes);
        index.head.late = index.newest() < place.position;
        place.checked = place.checked.max(now);
        let kind = index_kind();
        let index_key = format!("{}{INDEX}", index.head.key);
        match self.store.put(&index_key, &kind, index.to_lines(), true).await? {
            Put::Stored => Ok(index),
            Put::Exists => read_index(&*self.store, &index_key)
                .await?
                .ok_or_else(|| StoreError::Failed(format!("{index_key} went away")).into()),
        }
    }

    /// The first of these fragments that is there.
    async fn first_readable(&self, fragments: &[FragmentInfo]) -> Result<Option<Fragment>, ArchiveError> {
        for info in fragments.iter().take(FIRST_TRIED) {
            match self.source.read(std::slice::from_ref(info)).await?.next().await {
                Some(Ok(fragment)) => return Ok(Some(fragment)),
                Some(Err(ReaderError::Fragment(_) | ReaderError::Media(_))) | None => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Makes the object of a plan.
    async fn carry_out(
        &self,
        mut index: Index,
        place: &mut Place,
        range: &Range,
        summary: &mut Summary,
        on: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(), ArchiveError> {
        let keep = place.list_from();
        if index.head.state == State::Planned {
            let _turn = self.turns.acquire().await;
            let size: u64 = index.rows.iter().map(|row| row.size).sum();
            on(Event::Planned(&index.head, size));
            let made = self.make(&mut index, size, on).await;
            if let Err(error) = made {
                if !error.is_transient() {
                    return Err(error);
                }
                // It is found again where it was.
                place.held.put_back(index);
                return Err(error);
            }
            if range.verify {
                read_back(&*self.store, &index.head).await?;
            }
            summary.objects += u64::from(index.head.bytes > 0);
            summary.fragments += index.head.fragments;
            summary.bytes += index.head.bytes;
            summary.lost += index.head.lost;
            on(Event::Archived(&index.head));
        }
        place.held.add(&index, keep);
        place.position = place.position.max(index.newest());
        self.source.archived(place.list_from()).await?;
        Ok(())
    }

    async fn make(
        &self,
        index: &mut Index,
        size: u64,
        on: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(), ArchiveError> {
        let index_key = format!("{}{INDEX}", index.head.key);
        if let Some(upload) = index.head.upload.take() {
            self.store.abort(&index.head.key, &upload).await?;
        }
        let kind = object_kind(&index.head);
        if size > PART_BYTES as u64 {
            let upload = self.store.begin(&index.head.key, &kind).await?;
            index.head.upload = Some(upload);
            self.store
                .put(&index_key, &index_kind(), index.to_lines(), false)
                .await?;
        }
        let mut writer = Writer::new(
            Arc::clone(&self.store),
            index.head.key.clone(),
            kind,
            index.head.upload.clone(),
        );
        let mut film = Film::new(index.head.format);
        let filled = self.fill(index, &mut film, &mut writer, on).await?;
        if filled == 0 {
            return Err(ArchiveError::Plan(format!(
                "{}: {} cannot hold its first fragment",
                index.head.key,
                index.head.format.extension()
            )));
        }
        index.cut(filled);
        let stored = match film.finish() {
            Some(ending) => {
                writer.write(&ending.tail).await?;
                writer.finish(&ending.patches).await?
            }
            None => {
                if let Some(upload) = &index.head.upload {
                    self.store.abort(&index.head.key, upload).await?;
                }
                Stored { bytes: 0, crc64nvme: 0 }
            }
        };
        // Until it is written down that the object is there, this is a plan.
        let mut done = index.clone();
        let head = &mut done.head;
        head.upload = None;
        head.state = State::Done;
        head.bytes = stored.bytes;
        head.crc64nvme = (stored.bytes > 0).then(|| crc_text(stored.crc64nvme));
        head.lost = done.rows.iter().filter(|row| row.lost.is_some()).count() as u64;
        self.store
            .put(&index_key, &index_kind(), done.to_lines(), false)
            .await?;
        *index = done;
        Ok(())
    }

    /// Writes the plan's fragments; gives how many of them are in the object, or lost.
    async fn fill(
        &self,
        index: &mut Index,
        film: &mut Film,
        writer: &mut Writer,
        on: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<usize, ArchiveError> {
        let infos = index.fragments();
        let mut reading = self.source.read(&infos).await?;
        for (at, row) in index.rows.iter_mut().enumerate() {
            *row = Row {
                at: None,
                frames: 0,
                tags: BTreeMap::new(),
                lost: None,
                ..row.clone()
            };
            let read = match reading.next().await {
                Some(Ok(fragment)) => Ok(fragment),
                Some(Err(ReaderError::Fragment(error))) => Err(error.code),
                // One that cannot be parsed spoils those that were asked for with it.
                Some(Err(ReaderError::Media(error))) => {
                    reading = self.source.read(infos.get(at + 1..).unwrap_or_default()).await?;
                    self.alone(infos.get(at)).await?.ok_or_else(|| error.to_string())
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Err(ReaderError::from(ClientError::Truncated).into()),
            };
            let fragment = match read {
                Ok(fragment) if fragment.number().is_some_and(|number| number.as_str() == row.number) => fragment,
                Ok(_) => {
                    let why = format!("fragment {} was asked for, and another came", row.number);
                    return Err(ArchiveError::Plan(why));
                }
                Err(why) => {
                    row.lost = Some(why);
                    continue;
                }
            };
            let before = film.written();
            match film.push(&fragment) {
                Ok(pieces) => {
                    for piece in &pieces {
                        writer.write(piece).await?;
                    }
                }
                Err(refused) => {
                    index.head.notes.retain(|note| !note.starts_with(ENDS));
                    index.head.notes.push(format!("{ENDS}{refused}"));
                    return Ok(at);
                }
            }
            describe(row, &fragment, (before, film.written() - before));
            on(Event::Fragment(Timestamp::from_millis(row.server_ms), row.size));
        }
        Ok(index.rows.len())
    }

    /// A fragment by itself; `None` where it cannot be parsed.
    async fn alone(&self, info: Option<&FragmentInfo>) -> Result<Option<Fragment>, ArchiveError> {
        let Some(info) = info else { return Ok(None) };
        match self.source.read(std::slice::from_ref(info)).await?.next().await {
            Some(Ok(fragment)) => Ok(Some(fragment)),
            Some(Err(ReaderError::Media(_))) | None => Ok(None),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

/// Notes in a fragment's line what the object holds of it.
fn describe(row: &mut Row, fragment: &Fragment, at: (u64, u64)) {
    row.at = Some(at);
    row.frames = fragment.frames.len() as u64;
    for tag in &fragment.tags {
        let value = tag.as_str().unwrap_or_default().to_owned();
        row.tags.insert(tag.name.clone(), value);
    }
}

fn index_kind() -> Kind {
    Kind {
        content_type: "application/jsonl".to_owned(),
        metadata: BTreeMap::new(),
    }
}

fn object_kind(head: &Head) -> Kind {
    Kind {
        content_type: head.format.content_type().to_owned(),
        metadata: BTreeMap::from([
            ("stream".to_owned(), head.stream.clone()),
            ("first-fragment".to_owned(), head.first.clone()),
        ]),
    }
}

/// What a step came to.
enum Step {
    Archived,
    UpToDate(Timestamp),
    Over,
}
