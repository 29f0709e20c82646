//! Tables and items in the catalog. A table has a record under its owner and name, a row for each item under its number, and an entry in
//! a list of all tables, by which a start finds them and finishes deletions that were cut off.

use std::sync::Arc;

use base::ResourceName;
use storage::catalog::{Owned, Owners, get_json, next_id, put_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

use crate::limits::PURGE_ROWS;
use crate::row;
use crate::schema::TableRecord;
use crate::table::{Row, Table};
use crate::value::Item;

const TABLE_IDS: &str = "table";
const PAGE: usize = 1000;

/// Who has which id.
const OWNERS: Owners = Owners::new("table-id");

fn record_key(name: &ResourceName) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("table")
        .with(&name.name)
}

fn rows_key(name: &ResourceName, id: u64) -> CatalogKey {
    CatalogKey::scoped(name.account, &name.region)
        .with("table-item")
        .with(&format!("{id:020}"))
}

fn row_key(name: &ResourceName, id: u64, number: u64) -> CatalogKey {
    rows_key(name, id).with(&format!("{number:020}"))
}

fn unreadable(key: &str, why: &str) -> CatalogError {
    CatalogError::Unreadable {
        key: key.to_owned(),
        why: why.to_owned(),
    }
}

/// One change of an item: its table, its row, and what it becomes.
pub struct RowChange<'a> {
    /// The table.
    pub table: &'a Table,
    /// The row.
    pub number: u64,
    /// The item; `None` deletes the row.
    pub item: Option<&'a Item>,
}

/// The catalog's part of all tables.
pub struct Store {
    catalog: Arc<dyn Catalog>,
}

impl Store {
    /// Tables in this catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        Store { catalog }
    }

    /// All tables with their items, and the deletions that were not finished.
    pub async fn load(&self) -> Result<(Vec<Table>, Vec<(ResourceName, u64)>), CatalogError> {
        let (mut tables, mut unfinished) = (Vec::new(), Vec::new());
        for Owned { id, name, deleting } in OWNERS.load(&*self.catalog).await? {
            if deleting {
                unfinished.push((name, id));
                continue;
            }
            let record = get_json::<TableRecord>(&*self.catalog, record_key(&name)).await?;
            let record = record.map(|entry| entry.value).filter(|record| record.id == id);
            let record = record.ok_or_else(|| OWNERS.without_record(id))?;
            let rows = self.rows(&name, id).await?;
            tables.push(Table::new(name, record, rows));
        }
        Ok((tables, unfinished))
    }

    async fn rows(&self, name: &ResourceName, id: u64) -> Result<Vec<Row>, CatalogError> {
        let rows_key = rows_key(name, id);
        let (prefix, mut after, mut rows) = (rows_key.below(), None, Vec::new());
        loop {
            let page = self.catalog.page(&prefix, after.as_deref(), PAGE).await?;
            for (key, found) in page.entries {
                let number = rows_key.child_of(&key).and_then(|number| number.parse().ok());
                let number = number.ok_or_else(|| unreadable(&key, "it names no row"))?;
                let item = row::decode(&found.value).map_err(|e| unreadable(&key, &e.to_string()))?;
                rows.push(Row::new(number, item));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// Keeps a new table. `None` if its name is taken.
    pub async fn create(&self, name: &ResourceName, record: TableRecord) -> Result<Option<TableRecord>, CatalogError> {
        let id = next_id(&*self.catalog, TABLE_IDS).await?;
        let record = TableRecord { id, ..record };
        let commit = self.catalog.commit(vec![
            put_json(record_key(name), &record, Expect::Absent)?,
            OWNERS.claim(id, name)?,
        ]);
        match commit.await {
            Ok(_) => Ok(Some(record)),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a table's changed record.
    pub async fn replace(&self, name: &ResourceName, record: &TableRecord) -> Result<(), CatalogError> {
        let put = put_json(record_key(name), record, Expect::Any)?;
        self.catalog.commit(vec![put]).await.map(drop)
    }

    /// Takes a table's name away. Its rows go with [`Store::purge`].
    pub async fn delete(&self, name: &ResourceName, id: u64) -> Result<(), CatalogError> {
        let (key, expect) = (record_key(name).into(), Expect::Any);
        let owner = OWNERS.deleting(id, name)?;
        self.catalog
            .commit(vec![Change::Delete { key, expect }, owner])
            .await
            .map(drop)
    }

    /// Removes the rows of a deleted table, and at last its number.
    pub async fn purge(&self, name: &ResourceName, id: u64) -> Result<(), CatalogError> {
        let prefix = rows_key(name, id).below();
        loop {
            let page = self.catalog.page(&prefix, None, PURGE_ROWS).await?;
            let expect = Expect::Any;
            let mut changes: Vec<Change> = page
                .entries
                .into_iter()
                .map(|(key, _)| Change::Delete { key, expect })
                .collect();
            let done = changes.is_empty();
            if done {
                changes.push(OWNERS.gone(id));
            }
            self.catalog.commit(changes).await?;
            if done {
                return Ok(());
            }
        }
    }

    /// Keeps changes of items, all or none.
    pub async fn write(&self, changes: &[RowChange<'_>]) -> Result<(), CatalogError> {
        let expect = Expect::Any;
        let change = |change: &RowChange<'_>| {
            let key = row_key(&change.table.name, change.table.id, change.number).into();
            match change.item {
                Some(item) => Change::Put {
                    key,
                    value: row::encode(item).into(),
                    expect,
                },
                None => Change::Delete { key, expect },
            }
        };
        self.catalog
            .commit(changes.iter().map(change).collect())
            .await
            .map(drop)
    }

    /// What a row holds; for a commit of which it is not known whether it happened.
    pub async fn read(&self, table: &Table, number: u64) -> Result<Option<Row>, CatalogError> {
        let key = row_key(&table.name, table.id, number);
        let Some(found) = self.catalog.get(key.as_str()).await? else {
            return Ok(None);
        };
        let item = row::decode(&found.value).map_err(|e| unreadable(key.as_str(), &e.to_string()))?;
        Ok(Some(Row::new(number, item)))
    }
}
