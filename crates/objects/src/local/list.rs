//! Listings: keys in the order of the catalog, which is S3's, with stretches behind a delimiter leapt over.

use std::collections::BTreeMap;

use base::Timestamp;
use storage::catalog::page_json;

use super::LocalBucket;
use crate::limits::LIST_MAX;
use crate::row::{self, ObjectRow};
use crate::{ObjectError, ObjectInfo};

/// Which objects are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// The beginning of their keys.
    pub prefix: String,
    /// Keys and common prefixes above this one.
    pub after: Option<String>,
    /// Keys that have this text behind the prefix are shown as one common prefix that ends with it.
    pub delimiter: Option<String>,
    /// Objects and common prefixes on the page, 1 to 1000.
    pub limit: usize,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects: key, size, ETag and time alone.
    pub objects: Vec<ObjectInfo>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// `after` of the next page; `None` when this was the last.
    pub next: Option<String>,
}

/// Rows that are read at a time where a common prefix may end the reading early.
const LEAP_ROWS: usize = 64;

/// Above every key that begins with the prefix, but for some that hold U+10FFFF right behind it.
fn behind(prefix: &str) -> String {
    format!("{prefix}\u{10FFFF}")
}

impl LocalBucket {
    /// One page of a listing.
    pub async fn list_page(&self, query: &ListQuery) -> Result<Listing, ObjectError> {
        let space = row::objects(self.account, self.id);
        let limit = query.limit.clamp(1, LIST_MAX);
        let delimiter = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
        let prefix_of = |key: &str| {
            let delimiter = delimiter?;
            let rest = key.strip_prefix(&query.prefix)?;
            let end = query.prefix.len() + rest.find(delimiter)? + delimiter.len();
            key.get(..end).map(str::to_owned)
        };
        let mut out = Listing::default();
        let mut last: Option<String> = None;
        let mut last_prefix: Option<String> = None;
        // A page that ended with a common prefix goes on behind all of it.
        let mut after = query.after.as_ref().map(|after| match prefix_of(after) {
            Some(common) if common == *after => {
                last_prefix = Some(common);
                behind(after)
            }
            _ => after.clone(),
        });
        let below = format!("{space}{}", query.prefix);
        'pages: loop {
            let rows = match delimiter {
                Some(_) => LEAP_ROWS,
                None => (limit - out.objects.len()).saturating_add(1).min(LIST_MAX),
            };
            let from = after.as_ref().map(|after| format!("{space}{after}"));
            let (rows, next) = page_json::<ObjectRow>(&*self.shared.catalog, &below, from.as_deref(), rows).await?;
            for (key, entry) in rows {
                let key = key.strip_prefix(&space).ok_or_else(|| row::damaged(&key))?;
                let common = prefix_of(key);
                if common.is_some() && common == last_prefix {
                    continue;
                }
                if out.objects.len() + out.prefixes.len() == limit {
                    out.next = last;
                    return Ok(out);
                }
                if let Some(common) = common {
                    out.prefixes.push(common.clone());
                    last = Some(common.clone());
                    after = Some(behind(&common));
                    last_prefix = Some(common);
                    continue 'pages;
                }
                out.objects.push(brief(key, &entry.value));
                last = Some(key.to_owned());
            }
            let Some(next) = next else { break };
            after = next.strip_prefix(&space).map(str::to_owned);
        }
        if out.objects.is_empty() && out.prefixes.is_empty() {
            self.check_row().await?;
        }
        Ok(out)
    }
}

fn brief(key: &str, row: &ObjectRow) -> ObjectInfo {
    ObjectInfo {
        key: key.to_owned(),
        size: row.size,
        etag: row.etag.clone(),
        modified: Timestamp::from_millis(row.modified_ms),
        content_type: None,
        content_encoding: None,
        metadata: BTreeMap::new(),
    }
}
