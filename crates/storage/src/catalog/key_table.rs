//! Access keys in the catalog: sealed records below `-/-/key/`. The records' content is `auth`'s affair.

use std::sync::Arc;

use async_trait::async_trait;
use auth::{KeyTable, KeyTableError};
use bytes::Bytes;

use super::limits::CATALOG_PAGE_MAX;
use super::{Catalog, CatalogError, CatalogKey, Change, Expect};

/// Keeps `auth`'s key records in a catalog.
pub struct KeyRows {
    catalog: Arc<dyn Catalog>,
}

impl KeyRows {
    /// Over the given catalog.
    pub fn new(catalog: Arc<dyn Catalog>) -> Self {
        KeyRows { catalog }
    }

    async fn change(&self, change: Change, refused: KeyTableError) -> Result<(), KeyTableError> {
        match self.catalog.commit(vec![change]).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(refused),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn version(&self, key: &str) -> Result<u64, KeyTableError> {
        let found = self.catalog.get(key).await.map_err(|e| failure(&e))?;
        found.map(|found| found.version).ok_or(KeyTableError::Missing)
    }
}

fn failure(error: &CatalogError) -> KeyTableError {
    KeyTableError::Storage(error.to_string())
}

fn space() -> CatalogKey {
    CatalogKey::server().with("key")
}

#[async_trait]
impl KeyTable for KeyRows {
    async fn all(&self) -> Result<Vec<(String, Bytes)>, KeyTableError> {
        let (space, mut out, mut after) = (space(), Vec::new(), None::<String>);
        loop {
            let page = self
                .catalog
                .page(&space.below(), after.as_deref(), CATALOG_PAGE_MAX)
                .await;
            let page = page.map_err(|e| failure(&e))?;
            for (key, found) in page.entries {
                let id = space.child_of(&key);
                let id = id.ok_or_else(|| KeyTableError::Storage(format!("{key} is no access key")))?;
                out.push((id, found.value));
            }
            after = page.next;
            if after.is_none() {
                return Ok(out);
            }
        }
    }

    async fn insert(&self, id: &str, record: Bytes) -> Result<(), KeyTableError> {
        self.change(Change::create(space().with(id), record), KeyTableError::Exists)
            .await
    }

    async fn replace(&self, id: &str, record: Bytes) -> Result<(), KeyTableError> {
        let key = String::from(space().with(id));
        let expect = Expect::Version(self.version(&key).await?);
        let value = record;
        self.change(Change::Put { key, value, expect }, KeyTableError::Missing)
            .await
    }

    async fn remove(&self, id: &str) -> Result<(), KeyTableError> {
        let key = String::from(space().with(id));
        let version = self.version(&key).await?;
        self.change(Change::remove(key, version), KeyTableError::Missing).await
    }
}
