//! What the bucket holds already: which fragments are in it, how far it goes, and which plans were not carried out.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use base::Timestamp;
use client::reader::FragmentNumber;
use futures_util::{StreamExt, stream};

use crate::archiver::ArchiveError;
use crate::index::{Index, State};
use crate::limits::{EVERY_MAX, LIST_KEYS};
use crate::name::{Folder, INDEX};
use crate::store::Store;

/// Indexes that are read at once.
const AT_ONCE: usize = 4;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3_600_000;

/// The keys of a stream's indexes, in order, as far as they were asked for.
pub struct Keys {
    ready: VecDeque<String>,
    after: String,
    listed: bool,
}

/// See the module. Indexes are read as the archive comes to their time, and forgotten behind it.
pub struct Held {
    store: Arc<dyn Store>,
    folder: Folder,
    keys: Keys,
    /// When each fragment that is in the bucket began to arrive.
    numbers: HashMap<FragmentNumber, i64>,
    newest: Option<Timestamp>,
    /// Plans that are still to be carried out, oldest first.
    unfinished: VecDeque<Index>,
}

/// When the newest object begins.
pub async fn newest_start(store: &dyn Store, folder: &Folder) -> Result<Option<Timestamp>, ArchiveError> {
    let first = first_after(store, folder, None).await?;
    let Some(first) = first else { return Ok(None) };
    // Which is the last day with objects: the keys sort by time, so that it is found by halving.
    let (mut low, mut high) = (first.millis().div_euclid(DAY_MS), 200 * 366);
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        let found = first_after(store, folder, Some(Timestamp::from_millis(middle * DAY_MS))).await?;
        match found {
            Some(found) => low = found.millis().div_euclid(DAY_MS).max(middle),
            None => high = middle,
        }
    }
    let mut keys = Keys::from(folder, Timestamp::from_millis(low * DAY_MS));
    let mut newest = first;
    while let Some(key) = keys.next(store, folder).await? {
        newest = folder.time_of(&key).map_or(newest, |time| time.max(newest));
    }
    Ok(Some(newest))
}

async fn first_after(
    store: &dyn Store,
    folder: &Folder,
    time: Option<Timestamp>,
) -> Result<Option<Timestamp>, ArchiveError> {
    let after = time.map_or_else(|| folder.root().to_owned(), |time| folder.place(time));
    let found = store.list(folder.root(), &after, 1).await?;
    Ok(found.first().and_then(|key| folder.time_of(key)))
}

impl Keys {
    pub fn from(folder: &Folder, time: Timestamp) -> Self {
        Keys {
            ready: VecDeque::new(),
            after: folder.place(time),
            listed: false,
        }
    }

    /// The next index's key, which stays.
    async fn peek(&mut self, store: &dyn Store, folder: &Folder) -> Result<Option<&String>, ArchiveError> {
        while self.ready.is_empty() && !self.listed {
            let page = store.list(folder.root(), &self.after, LIST_KEYS).await?;
            self.listed = page.len() < LIST_KEYS;
            if let Some(last) = page.last() {
                self.after.clone_from(last);
            }
            let indexes = page.into_iter().filter(|key| key.ends_with(INDEX));
            self.ready.extend(indexes.filter(|key| folder.time_of(key).is_some()));
        }
        Ok(self.ready.front())
    }

    pub async fn next(&mut self, store: &dyn Store, folder: &Folder) -> Result<Option<String>, ArchiveError> {
        self.peek(store, folder).await?;
        Ok(self.ready.pop_front())
    }
}

/// Reads an index. `None` where there is none.
pub async fn read_index(store: &dyn Store, key: &str) -> Result<Option<Index>, ArchiveError> {
    match store.get(key).await? {
        Some(text) => Ok(Some(Index::parse(key, &text)?)),
        None => Ok(None),
    }
}

impl Held {
    /// What may hold fragments that began to arrive from `from` on.
    pub fn from(store: Arc<dyn Store>, folder: Folder, from: Timestamp) -> Self {
        let longest = i64::try_from(EVERY_MAX.as_millis()).unwrap_or(i64::MAX);
        let keys = Keys::from(&folder, from.plus_millis(-longest));
        Held {
            store,
            folder,
            keys,
            numbers: HashMap::new(),
            newest: None,
            unfinished: VecDeque::new(),
        }
    }

    /// Reads the indexes of all objects that begin before `until`, and keeps what began to arrive at `keep` or later.
    pub async fn read_until(&mut self, until: Timestamp, keep: Timestamp) -> Result<(), ArchiveError> {
        let mut keys = Vec::new();
        while let Some(key) = self.keys.peek(&*self.store, &self.folder).await? {
            if self.folder.time_of(key).is_none_or(|time| time >= until) {
                break;
            }
            keys.extend(self.keys.next(&*self.store, &self.folder).await?);
        }
        let store = Arc::clone(&self.store);
        let read = |key: String| {
            let store = Arc::clone(&store);
            async move { read_index(&*store, &key).await }
        };
        let mut indexes = stream::iter(keys).map(read).buffered(AT_ONCE);
        while let Some(index) = indexes.next().await {
            let Some(index) = index? else { continue };
            match index.head.state {
                State::Done => self.add(&index, keep),
                State::Planned => self.unfinished.push_back(index),
            }
        }
        Ok(())
    }

    /// An object is there.
    pub fn add(&mut self, index: &Index, keep: Timestamp) {
        for row in &index.rows {
            if row.server_ms >= keep.millis()
                && let Some(number) = FragmentNumber::new(&row.number)
            {
                self.numbers.insert(number, row.server_ms);
            }
        }
        let newest = index.newest();
        self.newest = Some(self.newest.map_or(newest, |before| before.max(newest)));
    }

    /// A plan that was found and has to be carried out.
    pub fn take_unfinished(&mut self) -> Option<Index> {
        self.unfinished.pop_front()
    }

    /// A plan that was taken and could not be carried out yet.
    pub fn put_back(&mut self, index: Index) {
        self.unfinished.push_front(index);
    }

    /// Whether no plan waits to be carried out.
    pub fn is_finished(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// When the newest archived fragment began to arrive.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Whether a fragment is in the bucket.
    pub fn holds(&self, number: &FragmentNumber) -> bool {
        self.numbers.contains_key(number)
    }

    /// Forgets what began to arrive before.
    pub fn forget_before(&mut self, time: Timestamp) {
        self.numbers.retain(|_, server_ms| *server_ms >= time.millis());
    }
}
