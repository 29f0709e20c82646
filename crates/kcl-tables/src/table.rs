//! One table in memory: its items in their order, and its indexes. The catalog holds the same items durably; this is what is read.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use base::ResourceName;
use parking_lot::RwLock;

use crate::key::{Position, Primary};
use crate::limits::ROW_OVERHEAD_BYTES;
use crate::schema::TableRecord;
use crate::value::{Item, item_size};

/// A stored item.
#[derive(Debug)]
pub struct Row {
    /// Its row in the catalog.
    pub number: u64,
    /// Its attributes.
    pub item: Item,
    /// Bytes that DynamoDB counts for it.
    pub size: usize,
}

impl Row {
    /// An item in a row.
    pub fn new(number: u64, item: Item) -> Self {
        let size = item_size(&item);
        Row { number, item, size }
    }

    /// What it takes of the table's room.
    pub fn weight(&self) -> u64 {
        self.size as u64 + ROW_OVERHEAD_BYTES
    }
}

type Rows = BTreeMap<Position, Arc<Row>>;

/// The items of a table and of its indexes.
#[derive(Debug, Default)]
pub struct TableData {
    rows: Rows,
    indexes: BTreeMap<String, Rows>,
    /// Of all items, with what is reckoned for each row.
    pub weight: u64,
    /// Of all items, as DynamoDB counts.
    pub bytes: u64,
}

impl TableData {
    /// The items, of the table or of one of its indexes.
    fn view(&self, index: Option<&str>) -> Option<&Rows> {
        match index {
            None => Some(&self.rows),
            Some(name) => self.indexes.get(name),
        }
    }

    /// An item.
    pub fn get(&self, key: &Primary) -> Option<&Arc<Row>> {
        self.rows.get(&Position::in_table(key))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Number of an index's items, and their bytes as the index holds them.
    pub fn index_size(&self, record: &TableRecord, name: &str) -> (usize, u64) {
        let (Some(rows), Some(index)) = (self.indexes.get(name), record.index(name)) else {
            return (0, 0);
        };
        let bytes = match index.projection {
            crate::schema::Projection::All => rows.values().map(|row| row.size as u64).sum(),
            _ => rows
                .values()
                .map(|row| item_size(&record.projected(index, &row.item)) as u64)
                .sum(),
        };
        (rows.len(), bytes)
    }

    /// At most `limit` items between the bounds, from the end on if `backwards`.
    pub fn range(
        &self,
        index: Option<&str>,
        (from, to): (Bound<&Position>, Bound<&Position>),
        backwards: bool,
        limit: usize,
    ) -> Vec<(Position, Arc<Row>)> {
        if is_empty(from, to) {
            return Vec::new();
        }
        let Some(rows) = self.view(index) else {
            return Vec::new();
        };
        let pair = |(position, row): (&Position, &Arc<Row>)| (position.clone(), Arc::clone(row));
        let range = rows.range::<Position, _>((from, to));
        match backwards {
            false => range.take(limit).map(pair).collect(),
            true => range.rev().take(limit).map(pair).collect(),
        }
    }

    /// Puts an item in the place of the one of its key, or takes that away.
    pub fn replace(&mut self, record: &TableRecord, key: &Primary, new: Option<Arc<Row>>) {
        let position = Position::in_table(key);
        if let Some(old) = self.rows.remove(&position) {
            self.weight = self.weight.saturating_sub(old.weight());
            self.bytes = self.bytes.saturating_sub(old.size as u64);
            for index in &record.indexes {
                if let (Some(rows), Some(at)) = (self.indexes.get_mut(&index.name), index.keys.of(&old.item)) {
                    rows.remove(&Position::in_index(&at, key));
                }
            }
        }
        let Some(row) = new else { return };
        for index in &record.indexes {
            if let Some(at) = index.keys.of(&row.item) {
                let rows = self.indexes.entry(index.name.clone()).or_default();
                rows.insert(Position::in_index(&at, key), Arc::clone(&row));
            }
        }
        self.weight += row.weight();
        self.bytes += row.size as u64;
        self.rows.insert(position, row);
    }

    /// Makes the indexes that the record has and forgets those that it has not.
    pub fn reindex(&mut self, record: &TableRecord) {
        self.indexes.retain(|name, _| record.index(name).is_some());
        for index in &record.indexes {
            if self.indexes.contains_key(&index.name) {
                continue;
            }
            let entries = self.rows.values().filter_map(|row| {
                let (at, key) = (index.keys.of(&row.item)?, record.keys.of(&row.item)?);
                Some((Position::in_index(&at, &key), Arc::clone(row)))
            });
            self.indexes.insert(index.name.clone(), entries.collect());
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = TableData::default();
    }
}

/// A map panics over a range that ends before it begins.
fn is_empty(from: Bound<&Position>, to: Bound<&Position>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
    }
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// Its owner, region and name.
    pub name: ResourceName,
    /// Its number.
    pub id: u64,
    /// Its ARN.
    pub arn: String,
    /// What is kept beside its items.
    record: RwLock<Arc<TableRecord>>,
    /// Its items.
    pub data: RwLock<TableData>,
    /// Writers of items hold it to read, those who change or delete the table to write. True when the table is gone.
    pub gate: Arc<tokio::sync::RwLock<bool>>,
    next_row: std::sync::atomic::AtomicU64,
}

impl Table {
    /// A table with the items it has in the catalog.
    pub fn new(name: ResourceName, record: TableRecord, rows: Vec<Row>) -> Self {
        let mut data = TableData::default();
        let mut last = 0;
        data.reindex(&record);
        for row in rows {
            last = last.max(row.number);
            if let Some(key) = record.keys.of(&row.item) {
                data.replace(&record, &key, Some(Arc::new(row)));
            }
        }
        let (account, region) = (name.account, &name.region);
        Table {
            arn: format!("arn:aws:dynamodb:{region}:{account}:table/{}", name.name),
            name,
            id: record.id,
            record: RwLock::new(Arc::new(record)),
            data: RwLock::new(data),
            gate: Arc::default(),
            next_row: std::sync::atomic::AtomicU64::new(last + 1),
        }
    }

    /// What is kept beside its items.
    pub fn record(&self) -> Arc<TableRecord> {
        Arc::clone(&self.record.read())
    }

    /// Lets another record hold. Called with the gate held to write.
    pub fn set_record(&self, record: TableRecord) {
        // Readers of one lock wait for both, so that none sees an index without its items.
        let mut data = self.data.write();
        data.reindex(&record);
        *self.record.write() = Arc::new(record);
    }

    /// A row number that no row of this table has.
    pub fn next_row(&self) -> u64 {
        self.next_row.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}
