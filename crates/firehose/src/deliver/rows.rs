//! What the catalog holds of work under way: one row says how far buffers were cut, and one for each buffer that is being
//! delivered names its records and its objects. The row of a buffer and the new position are one commit, made before the
//! first byte of an object is written; the end of a delivery removes its row. So a server that starts finds every record
//! either behind the position, or in exactly one row, or delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, page_json, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect, Position, SequenceNumber, ShardId};
use tokio::sync::Mutex;
use uuid::Uuid;

/// A place in a shard, as the catalog holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Place {
    /// Before its first record.
    Begin,
    /// At this number or behind it.
    At(SequenceNumber),
    /// Behind its last record, and it gets no more.
    End,
}

impl Place {
    /// For a read; `None` at the end.
    pub fn position(self) -> Option<Position> {
        match self {
            Place::Begin => Some(Position::Trim),
            Place::At(number) => Some(Position::At(number)),
            Place::End => None,
        }
    }
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        match position {
            Position::Trim => Place::Begin,
            Position::At(number) => Place::At(number),
            Position::After(number) => Place::At(SequenceNumber::before(
                number.created(),
                number.shard(),
                number.next_index(),
            )),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> String {
        match place {
            Place::Begin => "begin".to_owned(),
            Place::At(number) => number.to_string(),
            Place::End => "end".to_owned(),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = storage_number::Invalid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "begin" => Ok(Place::Begin),
            "end" => Ok(Place::End),
            number => number.parse().map(Place::At),
        }
    }
}

mod storage_number {
    pub type Invalid = <storage::SequenceNumber as std::str::FromStr>::Err;
}

/// How far buffers were cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The number of the source's stream: what is said of shards is said of its.
    pub stream: u64,
    /// The number of the next buffer.
    pub next: u64,
    /// The places in its shards; one that is not named was not begun.
    pub shards: BTreeMap<u32, Place>,
}

impl Progress {
    /// Nothing was cut yet.
    pub fn new(stream: u64, places: impl IntoIterator<Item = (u32, Place)>) -> Self {
        Progress {
            stream,
            next: 0,
            shards: places.into_iter().collect(),
        }
    }
}

/// Records of one shard in a buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The shard.
    pub shard: u32,
    /// Where they begin.
    pub from: Place,
    /// The last one.
    pub last: Place,
}

/// An object that a buffer may become.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// Its bucket.
    pub bucket: String,
    /// Its name in the bucket.
    pub key: String,
}

/// A buffer that is being delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What names of its objects are made from, and endpoints know a repetition by.
    pub seed: Uuid,
    /// The number of the source's stream.
    pub stream: u64,
    /// Its records.
    pub ranges: Vec<Range>,
    /// Bytes of them.
    pub bytes: u64,
    /// Every object that an attempt may have made.
    pub objects: BTreeSet<Named>,
}

/// The rows of one piece of work.
#[derive(Clone)]
pub struct Rows {
    id: u64,
    catalog: Arc<dyn Catalog>,
    gate: Arc<Mutex<()>>,
}

const PAGE: usize = 100;

fn space(id: u64) -> CatalogKey {
    CatalogKey::server().with("delivery").with(&format!("{id:020}"))
}

fn plans(id: u64) -> CatalogKey {
    space(id).with("plan")
}

/// The row of the position.
pub fn progress_row(id: u64, progress: &Progress) -> Result<Change, CatalogError> {
    put_json(space(id).with("position"), progress, Expect::Any)
}

impl Rows {
    /// The rows under this number.
    pub fn new(id: u64, catalog: Arc<dyn Catalog>, gate: Arc<Mutex<()>>) -> Self {
        Rows { id, catalog, gate }
    }

    fn plan_key(&self, number: u64) -> CatalogKey {
        plans(self.id).with(&format!("{number:020}"))
    }

    /// The position and every buffer under way, in the order of their numbers.
    pub async fn load(&self) -> Result<(Option<Progress>, Vec<(u64, Plan)>), CatalogError> {
        let _settled = self.gate.lock().await;
        let progress = get_json::<Progress>(&*self.catalog, space(self.id).with("position")).await?;
        let (all, mut after, mut found) = (plans(self.id), None, Vec::new());
        loop {
            let (page, next) = page_json::<Plan>(&*self.catalog, &all.below(), after.as_deref(), PAGE).await?;
            for (key, entry) in page {
                let number = all.child_of(&key).and_then(|n| n.parse().ok());
                found.extend(number.map(|n: u64| (n, entry.value)));
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok((progress.map(|entry| entry.value), found)),
            }
        }
    }

    /// Writes the row of a buffer, and with it the position behind the buffer where it is a new one.
    pub async fn plan(&self, number: u64, plan: &Plan, progress: Option<&Progress>) -> Result<(), CatalogError> {
        let mut changes = vec![put_json(self.plan_key(number), plan, Expect::Any)?];
        if let Some(progress) = progress {
            changes.push(progress_row(self.id, progress)?);
        }
        self.commit(changes).await
    }

    /// Everything of a buffer is where it belongs.
    pub async fn done(&self, number: u64) -> Result<(), CatalogError> {
        let key = self.plan_key(number).into();
        let expect = Expect::Any;
        self.commit(vec![Change::Delete { key, expect }]).await
    }

    /// Removes all rows.
    pub async fn forget(&self) -> Result<(), CatalogError> {
        let _settled = self.gate.lock().await;
        let all = space(self.id).below();
        loop {
            let page = self.catalog.page(&all, None, PAGE).await?;
            let delete = |(key, _)| Change::Delete {
                key,
                expect: Expect::Any,
            };
            let changes: Vec<Change> = page.entries.into_iter().map(delete).collect();
            if changes.is_empty() {
                return Ok(());
            }
            self.catalog.commit(changes).await?;
        }
    }

    /// The place of a shard's oldest record that is not delivered.
    pub async fn undelivered(&self, shard: ShardId) -> Result<Option<Position>, CatalogError> {
        let (progress, plans) = self.load().await?;
        let of_shard = |(_, plan): &(u64, Plan)| plan.ranges.iter().find(|r| r.shard == shard.0).map(|r| r.from);
        let cut = progress.and_then(|p| p.shards.get(&shard.0).copied());
        Ok(plans.iter().find_map(of_shard).or(cut).and_then(Place::position))
    }

    /// Goes to its end also when its caller is gone; nobody reads the rows or commits before.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), CatalogError> {
        let gate = Arc::clone(&self.gate).lock_owned().await;
        let catalog = Arc::clone(&self.catalog);
        let commit = tokio::spawn(async move {
            let _alone = gate;
            catalog.commit(changes).await.map(drop)
        });
        commit
            .await
            .unwrap_or_else(|e| Err(CatalogError::Engine(e.to_string())))
    }
}
