//! Lists of who has which number. What has a name that may be used again (a stream, a table) is stored under a number that
//! is never given twice; its list tells a start what there is, and whose deletion was begun and not finished.

use base::ResourceName;
use serde::{Deserialize, Serialize};

use super::json::{page_json, put_json};
use super::{Catalog, CatalogError, CatalogKey, Change, Expect};

const PAGE: usize = 1000;

/// One list.
#[derive(Clone, Copy, Debug)]
pub struct Owners(&'static str);

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The number.
    pub id: u64,
    /// Who has it.
    pub name: ResourceName,
    /// Its record is gone, and what it holds is going.
    pub deleting: bool,
}

#[derive(Serialize, Deserialize)]
struct Owner {
    account: String,
    region: String,
    name: String,
    deleting: bool,
}

impl Owners {
    /// The list of this name.
    pub const fn new(list: &'static str) -> Self {
        Owners(list)
    }

    /// Notes who has a new number; to be committed together with its record.
    pub fn claim(self, id: u64, name: &ResourceName) -> Result<Change, CatalogError> {
        self.put(id, name, false, Expect::Absent)
    }

    /// Notes that the deletion of a number's owner has begun; to be committed together with that of its record.
    pub fn deleting(self, id: u64, name: &ResourceName) -> Result<Change, CatalogError> {
        self.put(id, name, true, Expect::Any)
    }

    /// Forgets a number of which nothing is left.
    pub fn gone(self, id: u64) -> Change {
        Change::Delete {
            key: self.key(id).into(),
            expect: Expect::Any,
        }
    }

    /// Everything in the list, in the order of the numbers.
    pub async fn load(self, catalog: &dyn Catalog) -> Result<Vec<Owned>, CatalogError> {
        let (all, mut after, mut owned) = (self.all(), None, Vec::new());
        loop {
            let (page, next) = page_json::<Owner>(catalog, &all.below(), after.as_deref(), PAGE).await?;
            for (key, entry) in page {
                let id = all.child_of(&key).and_then(|id| id.parse().ok());
                let read = id.and_then(|id| entry.value.read(id));
                owned.push(read.ok_or_else(|| unreadable(key, "it names nobody"))?);
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(owned),
            }
        }
    }

    /// The error for a number that is listed and has no record.
    pub fn without_record(self, id: u64) -> CatalogError {
        unreadable(self.key(id).into(), "what it names has no record")
    }

    fn put(self, id: u64, name: &ResourceName, deleting: bool, expect: Expect) -> Result<Change, CatalogError> {
        let owner = Owner {
            account: name.account.to_string(),
            region: name.region.to_string(),
            name: name.name.clone(),
            deleting,
        };
        put_json(self.key(id), &owner, expect)
    }

    fn all(self) -> CatalogKey {
        CatalogKey::server().with(self.0)
    }

    fn key(self, id: u64) -> CatalogKey {
        self.all().with(&format!("{id:020}"))
    }
}

impl Owner {
    fn read(self, id: u64) -> Option<Owned> {
        let name = ResourceName {
            account: self.account.parse().ok()?,
            region: self.region.parse().ok()?,
            name: self.name,
        };
        Some(Owned {
            id,
            name,
            deleting: self.deleting,
        })
    }
}

fn unreadable(key: String, why: &str) -> CatalogError {
    CatalogError::Unreadable {
        key,
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::MemoryCatalog;

    #[tokio::test]
    async fn a_list_knows_who_has_a_number_until_nothing_is_left_of_it() {
        let catalog = MemoryCatalog::new();
        let owners = Owners::new("thing-id");
        let name = ResourceName {
            account: "000000000000".parse().unwrap(),
            region: "us-west-2".parse().unwrap(),
            name: "door".to_owned(),
        };
        let other = owners.claim(12, &name).unwrap();
        catalog
            .commit(vec![owners.claim(3, &name).unwrap(), other])
            .await
            .unwrap();
        let again = catalog.commit(vec![owners.claim(3, &name).unwrap()]).await;
        assert!(again.is_err_and(|e| e.is_conflict()), "a number has one owner");
        catalog.commit(vec![owners.deleting(3, &name).unwrap()]).await.unwrap();
        let listed = owners.load(&catalog).await.unwrap();
        let seen: Vec<_> = listed.iter().map(|owned| (owned.id, owned.deleting)).collect();
        assert_eq!(seen, [(3, true), (12, false)]);
        assert_eq!(listed[0].name, name);
        catalog.commit(vec![owners.gone(3)]).await.unwrap();
        assert_eq!(owners.load(&catalog).await.unwrap().len(), 1);
    }
}
