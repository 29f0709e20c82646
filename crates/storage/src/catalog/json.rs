//! Typed helpers over the byte values of a catalog.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::limits::CATALOG_RETRIES_MAX;
use super::{Catalog, CatalogError, CatalogKey, Change, Expect};

/// A decoded value with its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// The version to expect when changing it.
    pub version: u64,
    /// The value.
    pub value: T,
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, CatalogError> {
    serde_json::from_slice(bytes).map_err(|e| CatalogError::Unreadable {
        key: key.to_owned(),
        why: e.to_string(),
    })
}

/// Encodes a value for a [`Change::Put`].
fn encode<T: Serialize>(key: &str, value: &T) -> Result<Bytes, CatalogError> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from)
        .map_err(|e| CatalogError::Invalid(format!("key {key:?}: {e}")))
}

/// A [`Change::Put`] of a value as JSON.
pub fn put_json<T: Serialize>(key: impl Into<String>, value: &T, expect: Expect) -> Result<Change, CatalogError> {
    let key = key.into();
    let value = encode(&key, value)?;
    Ok(Change::Put { key, value, expect })
}

/// Reads a JSON value.
pub async fn get_json<T: DeserializeOwned>(
    catalog: &dyn Catalog,
    key: impl AsRef<str>,
) -> Result<Option<Entry<T>>, CatalogError> {
    let key = key.as_ref();
    let Some(found) = catalog.get(key).await? else {
        return Ok(None);
    };
    Ok(Some(Entry {
        version: found.version,
        value: decode(key, &found.value)?,
    }))
}

/// A page of JSON values with their keys, and `after` of the next page.
pub async fn page_json<T: DeserializeOwned>(
    catalog: &dyn Catalog,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<(String, Entry<T>)>, Option<String>), CatalogError> {
    let page = catalog.page(prefix, after, limit).await?;
    let mut out = Vec::with_capacity(page.entries.len());
    for (key, found) in page.entries {
        let value = decode(&key, &found.value)?;
        let version = found.version;
        out.push((key, Entry { version, value }));
    }
    Ok((out, page.next))
}

/// Reads a value, lets `change` decide on the new one, and writes that, again and again until no other commit came
/// between. `change` sees `None` for an absent key and gives `None` to leave (or make) it absent. Gives what was written.
/// `change` may be called several times; it must not do anything else.
pub async fn update_json<T, E, F>(catalog: &dyn Catalog, key: impl AsRef<str>, mut change: F) -> Result<Option<T>, E>
where
    T: Serialize + DeserializeOwned,
    E: From<CatalogError>,
    F: FnMut(Option<T>) -> Result<Option<T>, E>,
{
    let key = key.as_ref();
    for _ in 0..CATALOG_RETRIES_MAX {
        let found = get_json::<T>(catalog, key).await.map_err(E::from)?;
        let expect = found.as_ref().map_or(Expect::Absent, |f| Expect::Version(f.version));
        let new = change(found.map(|f| f.value))?;
        let step = match &new {
            Some(value) => put_json(key, value, expect).map_err(E::from)?,
            None if expect == Expect::Absent => return Ok(None),
            None => Change::Delete {
                key: key.to_owned(),
                expect,
            },
        };
        match catalog.commit(vec![step]).await {
            Ok(_) => return Ok(new),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(CatalogError::Conflict { key: key.to_owned() }.into())
}

/// Hands out the next number of a counter, from 1 on. A number is never given twice: not to two callers, not after a
/// restart, and not after what it named is gone. For stream ids use one counter for the whole server.
pub async fn next_id(catalog: &dyn Catalog, counter: &str) -> Result<u64, CatalogError> {
    let key = CatalogKey::server().with("counter").with(counter);
    let next = |last: Option<u64>| match last.unwrap_or(0).checked_add(1) {
        Some(next) => Ok(Some(next)),
        None => Err(CatalogError::Invalid(format!("counter {counter} has run out"))),
    };
    let given = update_json(catalog, &key, next).await?;
    given.ok_or_else(|| CatalogError::Engine("a counter was not written".to_owned()))
}
