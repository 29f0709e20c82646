//! The power goes at every call of the disk, one after the other: after the next start every object is the one that was
//! acknowledged last, or the one that was being put, as a whole; and no file is left that nobody needs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use base::{AccountId, Disk, DiskFile, SystemClock};
use bytes::Bytes;
use futures_util::TryStreamExt;
use storage::MemoryCatalog;

use crate::digest::TagOf;

use super::simulated::{Fault, SimDisk};
use super::{CompletedPart, Conditions, Expected, Parts, Store, UploadStart};
use crate::{Bucket, Buckets, ObjectError, PutOptions};

const ACCOUNT: AccountId = AccountId::DEFAULT;

/// Folders on a disk that has none: their names stand before those of the files.
#[derive(Debug)]
struct Foldered {
    disk: Arc<dyn Disk>,
    prefix: String,
}

impl Foldered {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Disk for Foldered {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.name(name))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(&self.name(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.disk.list()?;
        let own = names.iter().filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(own.map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.name(from), &self.name(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.name(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Foldered {
            disk: Arc::clone(&self.disk),
            prefix: format!("{}{name}-", self.prefix),
        }))
    }
}

fn open(disk: &SimDisk, catalog: &MemoryCatalog) -> Store {
    Store::new(Parts {
        catalog: Arc::new(catalog.clone()),
        disk: Arc::new(Foldered {
            disk: disk.mount(),
            prefix: String::new(),
        }),
        clock: Arc::new(SystemClock::new()),
        permit: Arc::new(|| Ok(Some(Box::new(())))),
        on_fatal: Arc::new(|_| {}),
    })
}

/// What was acknowledged of a key, and what was under way when the power went.
#[derive(Debug, Default)]
struct Known {
    acknowledged: Option<Vec<u8>>,
    under_way: Option<Option<Vec<u8>>>,
}

async fn work(store: &Store, known: &mut BTreeMap<&'static str, Known>) -> Result<(), ObjectError> {
    let bucket = store.bucket(ACCOUNT, "door").await?;
    for (key, bytes) in [("k", vec![1; 5000]), ("k", vec![2; 9000]), ("other", vec![3; 10])] {
        let of_key = known.entry(key).or_default();
        of_key.under_way = Some(Some(bytes.clone()));
        bucket.put(key, PutOptions::default(), bytes.clone().into()).await?;
        (of_key.acknowledged, of_key.under_way) = (Some(bytes), None);
    }
    let of_key = known.entry("k").or_default();
    let bytes = vec![4; 7000];
    of_key.under_way = Some(Some(bytes.clone()));
    let id = bucket.begin_parts("k", UploadStart::default()).await?;
    for number in [1, 2] {
        let mut part = bucket.write_part("k", id, number, None, TagOf::Md5).await?;
        part.write(bytes.clone().into()).await?;
        part.finish(&Expected::default()).await?;
    }
    let parts = [CompletedPart {
        number: 2,
        etag: None,
        checksum: None,
    }];
    bucket
        .complete("k", id, &parts, &Conditions::default(), &Expected::default())
        .await?;
    (of_key.acknowledged, of_key.under_way) = (Some(bytes), None);
    store.recover_now().await?;
    for key in ["other", "k"] {
        let of_key = known.entry(key).or_default();
        of_key.under_way = Some(None);
        bucket.delete(key).await?;
        (of_key.acknowledged, of_key.under_way) = (None, None);
    }
    Ok(())
}

async fn found(bucket: &dyn Bucket, key: &str) -> Option<Vec<u8>> {
    match bucket.get(key, None).await {
        Ok((_, stream)) => Some(stream.try_collect::<Vec<Bytes>>().await.unwrap().concat()),
        Err(ObjectError::NoSuchKey(_)) => None,
        Err(error) => panic!("{key}: {error}"),
    }
}

#[tokio::test]
async fn the_power_goes_at_every_call_and_every_object_is_whole() {
    let mut calls = 0;
    for nth in 1.. {
        let disk = SimDisk::new(nth);
        let mut catalog = MemoryCatalog::new();
        let store = open(&disk, &catalog);
        let region = "us-west-2".parse().unwrap();
        store
            .create_bucket(ACCOUNT, "door", &region, BTreeMap::new())
            .await
            .unwrap();
        disk.inject(nth, Fault::Power);
        let mut known = BTreeMap::new();
        let outcome = work(&store, &mut known).await;
        // A deletion that could not remove its file has happened all the same.
        let ended = outcome.is_ok() && !disk.fired();
        drop(store);
        disk.reboot();
        catalog = catalog.power_cut(0);
        let store = open(&disk, &catalog);
        store.recover_now().await.unwrap();
        let bucket = store.open(ACCOUNT, "door").await.unwrap();
        let mut bodies = 0;
        for (key, of_key) in &known {
            let now = found(&*bucket, key).await;
            bodies += usize::from(now.is_some());
            assert!(
                now == of_key.acknowledged || Some(&now) == of_key.under_way.as_ref(),
                "{key}, call {nth}"
            );
        }
        // What is left beside the objects: parts of an upload that may still go on.
        let parts = bucket_parts(&store).await;
        assert_eq!(
            disk.snapshot().len(),
            bodies + parts,
            "call {nth}: {:?}",
            disk.snapshot().keys()
        );
        if ended {
            calls = nth;
            break;
        }
    }
    assert!(calls > 30, "only {calls} calls were cut");
}

async fn bucket_parts(store: &Store) -> usize {
    let bucket = store.bucket(ACCOUNT, "door").await.unwrap();
    let mut parts = 0;
    for upload in bucket.list_uploads("", None, 10).await.unwrap().uploads {
        parts += bucket.list_parts("k", upload.id, 0, 10).await.unwrap().parts.len();
    }
    parts
}
