//! The state of delivery in the catalog, below `-/-/data-stream-queue/QUEUE/`: `start` holds the places at which the queue
//! began, `SHARD/head` the place up to which a shard was delivered, `SHARD/CHUNK` the records of 64 numbers that were
//! delivered and not acknowledged. `-/-/data-stream-queue-gone/QUEUE` is there until all that is deleted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use storage::catalog::{page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

/// Numbers of records that share a value.
pub const CHUNK: u64 = 64;
/// Rows read or deleted at once.
const PAGE: usize = 200;

/// A record that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// When it was first delivered, milliseconds since the epoch.
    pub first_ms: i64,
    /// From when on it can be delivered again.
    pub visible_ms: i64,
    /// How often it was delivered.
    pub count: u32,
    /// Which handle is its newest.
    pub generation: u32,
    /// It is a dead letter, whatever the queue's settings say now.
    pub dead: bool,
}

/// A row of a chunk: where in it, and the fields of [`Delivery`].
type Line = (u64, i64, i64, u32, u32, bool);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Row {
    Start { start: Vec<(u32, u64)> },
    Head { next: u64 },
    Chunk(Vec<Line>),
}

/// Everything that the catalog holds of a queue's deliveries.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Where the queue began in the shards of its day; in others at the beginning.
    pub start: BTreeMap<u32, u64>,
    /// Where it goes on in the shards from which it has delivered.
    pub next: BTreeMap<u32, u64>,
    /// What was delivered and not acknowledged, by shard and number.
    pub open: Vec<(u32, u64, Delivery)>,
}

fn all() -> CatalogKey {
    CatalogKey::server().with("data-stream-queue")
}

fn of(queue: u64) -> CatalogKey {
    all().with(&format!("{queue:020}"))
}

fn of_shard(queue: u64, shard: u32) -> CatalogKey {
    of(queue).with(&format!("{shard:010}"))
}

fn gone() -> CatalogKey {
    CatalogKey::server().with("data-stream-queue-gone")
}

/// Where a queue begins.
pub fn start(queue: u64, start: BTreeMap<u32, u64>) -> Result<Change, CatalogError> {
    let start = start.into_iter().collect();
    put_json(of(queue).with("start"), &Row::Start { start }, Expect::Any)
}

/// Where a queue goes on in a shard; `None`: the shard is forgotten.
pub fn head(queue: u64, shard: u32, next: Option<u64>) -> Result<Change, CatalogError> {
    let key = of_shard(queue, shard).with("head");
    match next {
        Some(next) => put_json(key, &Row::Head { next }, Expect::Any),
        None => Ok(remove(key)),
    }
}

fn remove(key: impl Into<String>) -> Change {
    Change::Delete {
        key: key.into(),
        expect: Expect::Any,
    }
}

/// A chunk as it is now: `lines` are its records by number.
pub fn chunk<'a>(
    queue: u64,
    shard: u32,
    chunk: u64,
    records: impl Iterator<Item = (&'a u64, &'a Delivery)>,
) -> Result<Change, CatalogError> {
    let key = of_shard(queue, shard).with(&format!("{chunk:016x}"));
    let line = |(index, d): (&u64, &Delivery)| {
        let within = index % CHUNK;
        (within, d.first_ms, d.visible_ms, d.count, d.generation, d.dead)
    };
    let lines: Vec<Line> = records.map(line).collect();
    if lines.is_empty() {
        return Ok(remove(key));
    }
    put_json(key, &Row::Chunk(lines), Expect::Any)
}

/// Reads a queue's state.
pub async fn load(catalog: &dyn Catalog, queue: u64) -> Result<Loaded, CatalogError> {
    let (prefix, mut after, mut loaded) = (of(queue).below(), None, Loaded::default());
    loop {
        let (page, next) = page_json::<Row>(catalog, &prefix, after.as_deref(), PAGE).await?;
        for (key, entry) in page {
            let mut parts = key.strip_prefix(&prefix).unwrap_or_default().split('/');
            let shard = parts.next().and_then(|text| text.parse::<u32>().ok());
            let chunk = parts.next().and_then(|text| u64::from_str_radix(text, 16).ok());
            match (entry.value, shard, chunk) {
                (Row::Start { start }, ..) => loaded.start = start.into_iter().collect(),
                (Row::Head { next }, Some(shard), _) => drop(loaded.next.insert(shard, next)),
                (Row::Chunk(lines), Some(shard), Some(chunk)) => {
                    loaded
                        .open
                        .extend(lines.into_iter().map(|line| opened(shard, chunk, line)));
                }
                _ => {
                    let why = "it names no shard".to_owned();
                    return Err(CatalogError::Unreadable { key, why });
                }
            }
        }
        match next {
            Some(next) => after = Some(next),
            None => return Ok(loaded),
        }
    }
}

fn opened(shard: u32, chunk: u64, line: Line) -> (u32, u64, Delivery) {
    let (within, first_ms, visible_ms, count, generation, dead) = line;
    let delivery = Delivery {
        first_ms,
        visible_ms,
        count,
        generation,
        dead,
    };
    (shard, chunk.saturating_mul(CHUNK).saturating_add(within), delivery)
}

/// Says that a queue's state is to be deleted.
pub fn mark_gone(queue: u64) -> Result<Change, CatalogError> {
    put_json(gone().with(&format!("{queue:020}")), &(), Expect::Any)
}

/// Queues whose state is to be deleted.
pub async fn deleting(catalog: &dyn Catalog) -> Result<Vec<u64>, CatalogError> {
    let (prefix, mut after, mut found) = (gone().below(), None, Vec::new());
    loop {
        let page = catalog.page(&prefix, after.as_deref(), PAGE).await?;
        let ids = page
            .entries
            .iter()
            .filter_map(|(key, _)| gone().child_of(key)?.parse().ok());
        found.extend::<Vec<u64>>(ids.collect());
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

/// Deletes the state of a queue that was marked so.
pub async fn delete(catalog: &dyn Catalog, queue: u64) -> Result<(), CatalogError> {
    loop {
        let page = catalog.page(&of(queue).below(), None, PAGE).await?;
        if page.entries.is_empty() {
            break;
        }
        let keys = page.entries.into_iter().map(|(key, _)| remove(key));
        catalog.commit(keys.collect()).await?;
    }
    let mark = gone().with(&format!("{queue:020}"));
    catalog.commit(vec![remove(mark)]).await.map(drop)
}
