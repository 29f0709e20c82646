//! What is kept of a job in the catalog, and how it is changed.
//!
//! Below the job's account and region stand the job, its results ([`super::results`]) and, where the caller named one, its
//! token; below the server's own space a marker for each job, by which a restart and the sweeper find it. Job, marker and
//! token are made in one commit.

use std::sync::Arc;

use base::{AccountId, Region, Timestamp};
use serde::{Deserialize, Serialize};
use storage::catalog::{get_json, page_json, put_json, update_json};
use storage::{Catalog, CatalogError, CatalogKey, Change, Expect};

/// Which job of whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    pub(crate) account: AccountId,
    pub(crate) region: Region,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Faces.
    Detection {
        /// With whatever a model tells of them.
        attributes: bool,
    },
    /// Faces of a collection.
    Search {
        /// Its name.
        collection: String,
        /// Its never-reused id.
        collection_id: i64,
        /// 0 to 100.
        threshold: f32,
    },
}

/// Which time of a stream's fragments counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Axis {
    Producer,
    Server,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Footage {
    /// An object in a bucket of the account.
    Object {
        bucket: String,
        name: String,
        /// The object is analysed as it was when the job was started, or not at all.
        etag: String,
        size: u64,
    },
    /// What a stream has stored of a time.
    Stream {
        arn: String,
        axis: Axis,
        from_ms: i64,
        /// Exclusive.
        to_ms: i64,
    },
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    InProgress,
    Succeeded,
    Failed,
}

/// What is told of the video.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) codec: String,
    pub(crate) format: String,
    pub(crate) duration_ms: u64,
    pub(crate) frame_rate: f32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// `None` where the video does not say.
    pub(crate) full_range: Option<bool>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The operation that started it.
    pub(crate) api: String,
    pub(crate) kind: Kind,
    pub(crate) footage: Footage,
    pub(crate) token: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) topic: Option<String>,
    pub(crate) created_ms: i64,
    pub(crate) status: Status,
    pub(crate) message: Option<String>,
    pub(crate) ended_ms: Option<i64>,
    pub(crate) metadata: Option<Metadata>,
    /// Faces among the results.
    pub(crate) faces: u32,
    /// The topic was told, or will never take it.
    pub(crate) notified: bool,
}

/// How a job came to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) status: Status,
    pub(crate) message: Option<String>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) faces: u32,
}

/// What a token was used for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) job: String,
    /// The request in words; another one with the same token is refused.
    pub(crate) request: String,
}

#[derive(Serialize, Deserialize)]
struct Marker {
    account: String,
    region: String,
    id: String,
}

/// Jobs in the catalog.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) catalog: Arc<dyn Catalog>,
}

/// Entries read at once.
const PAGE: usize = 500;

fn jobs(account: AccountId, region: &Region) -> CatalogKey {
    CatalogKey::scoped(account, region).with("stored-video-job")
}

fn job_key(key: &JobKey) -> CatalogKey {
    jobs(key.account, &key.region).with(&key.id)
}

fn token_key(key: &JobKey, api: &str, token: &str) -> CatalogKey {
    let scope = CatalogKey::scoped(key.account, &key.region);
    scope.with("stored-video-token").with(api).with(token)
}

fn markers() -> CatalogKey {
    CatalogKey::server().with("stored-video")
}

fn marker_key(key: &JobKey) -> CatalogKey {
    let scope = markers().with(&key.account.to_string()).with(key.region.as_str());
    scope.with(&key.id)
}

/// Below which a job's results stand.
pub(crate) fn results_key(key: &JobKey) -> CatalogKey {
    let scope = CatalogKey::scoped(key.account, &key.region);
    scope.with("stored-video-result").with(&key.id)
}

impl Store {
    /// Adds a job. A conflict means that its token is used already.
    pub(crate) async fn create(&self, key: &JobKey, job: &Job, request: &str) -> Result<(), CatalogError> {
        let marker = Marker {
            account: key.account.to_string(),
            region: key.region.to_string(),
            id: key.id.clone(),
        };
        let mut changes = vec![
            put_json(job_key(key), job, Expect::Absent)?,
            put_json(marker_key(key), &marker, Expect::Absent)?,
        ];
        if let Some(token) = &job.token {
            let used = Token {
                job: key.id.clone(),
                request: request.to_owned(),
            };
            changes.push(put_json(token_key(key, &job.api, token), &used, Expect::Absent)?);
        }
        self.catalog.commit(changes).await.map(drop)
    }

    pub(crate) async fn token(&self, key: &JobKey, api: &str, token: &str) -> Result<Option<Token>, CatalogError> {
        let found = get_json(&*self.catalog, token_key(key, api, token)).await?;
        Ok(found.map(|entry| entry.value))
    }

    pub(crate) async fn get(&self, key: &JobKey) -> Result<Option<Job>, CatalogError> {
        let found = get_json(&*self.catalog, job_key(key)).await?;
        Ok(found.map(|entry| entry.value))
    }

    /// Every job of an account and region.
    pub(crate) async fn list(&self, account: AccountId, region: &Region) -> Result<Vec<Job>, CatalogError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let below = jobs(account, region).below();
            let (entries, next) = page_json::<Job>(&*self.catalog, &below, after.as_deref(), PAGE).await?;
            found.extend(entries.into_iter().map(|(_, entry)| entry.value));
            after = next;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Every job that there is.
    pub(crate) async fn all(&self) -> Result<Vec<JobKey>, CatalogError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = page_json::<Marker>(&*self.catalog, &markers().below(), after.as_deref(), PAGE).await?;
            for (key, entry) in page.0 {
                let marker = entry.value;
                match (marker.account.parse(), marker.region.parse()) {
                    (Ok(account), Ok(region)) => found.push(JobKey {
                        account,
                        region,
                        id: marker.id,
                    }),
                    _ => tracing::error!(%key, "a job over stored video cannot go on: its marker is unreadable"),
                }
            }
            after = page.1;
            if after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Ends a job that is in progress, once. Gives it as it is afterwards; `None` if there is none any more.
    pub(crate) async fn end(&self, key: &JobKey, ending: &Ending, at: Timestamp) -> Result<Option<Job>, CatalogError> {
        self.change(key, |job| {
            if job.status != Status::InProgress {
                return;
            }
            job.status = ending.status;
            job.message.clone_from(&ending.message);
            job.metadata.clone_from(&ending.metadata);
            job.faces = ending.faces;
            job.ended_ms = Some(at.millis());
        })
        .await
    }

    /// Notes that nobody has to be told of the job's end any more.
    pub(crate) async fn note_notified(&self, key: &JobKey) -> Result<Option<Job>, CatalogError> {
        self.change(key, |job| job.notified = true).await
    }

    async fn change(&self, key: &JobKey, change: impl Fn(&mut Job)) -> Result<Option<Job>, CatalogError> {
        let changed = update_json::<Job, CatalogError, _>(&*self.catalog, job_key(key), |job| {
            Ok(job.map(|mut job| {
                change(&mut job);
                job
            }))
        });
        changed.await
    }

    /// Removes a job, its token and its marker; its results have gone before.
    pub(crate) async fn remove(&self, key: &JobKey, job: &Job) -> Result<(), CatalogError> {
        let token = job.token.as_ref().map(|token| token_key(key, &job.api, token));
        let keys = [job_key(key), marker_key(key)].into_iter().chain(token);
        let delete = |key: CatalogKey| Change::Delete {
            key: key.into(),
            expect: Expect::Any,
        };
        self.catalog.commit(keys.map(delete).collect()).await.map(drop)
    }
}
