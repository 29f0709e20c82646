//! The bucket trait on every back end that is at hand, and what the store of the data directory promises beside it: against
//! a plain map, over restarts, and over a crash at every call.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "one test damages the files themselves")]

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{AccountId, Clock, Disk, SystemClock, SystemDisk};
use bytes::Bytes;
use futures_util::TryStreamExt;
use objects::digest::TagOf;
use objects::local::{CompletedPart, Conditions, Expected, ListQuery, NewObject, Parts, Store, UploadStart};
use objects::{Bucket, Buckets, ByteRange, MemoryBuckets, ObjectError, PutOptions};
use proptest::prelude::*;
use storage::{Catalog, MemoryCatalog};

const ACCOUNT: AccountId = AccountId::DEFAULT;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn store(catalog: Arc<dyn Catalog>, disk: Arc<dyn Disk>) -> Store {
    Store::new(Parts {
        catalog,
        disk,
        clock: clock(),
        permit: Arc::new(|| Ok(Some(Box::new(())))),
        on_fatal: Arc::new(|error| panic!("{error}")),
    })
}

struct Place {
    folder: tempfile::TempDir,
    catalog: Arc<MemoryCatalog>,
}

impl Place {
    fn new() -> Self {
        Place {
            folder: tempfile::tempdir().unwrap(),
            catalog: Arc::new(MemoryCatalog::new()),
        }
    }

    fn open(&self) -> Store {
        let disk = SystemDisk::open(&self.folder.path().join("objects")).unwrap();
        store(self.catalog.clone(), Arc::new(disk))
    }

    async fn with_bucket(&self, name: &str) -> Store {
        let store = self.open();
        let region = "us-west-2".parse().unwrap();
        store
            .create_bucket(ACCOUNT, name, &region, BTreeMap::new())
            .await
            .unwrap();
        store
    }

    fn files(&self) -> usize {
        let count = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().count();
        let folders = std::fs::read_dir(self.folder.path().join("objects")).unwrap();
        folders.map(|folder| count(folder.unwrap().path())).sum()
    }
}

async fn body(bucket: &dyn Bucket, key: &str, range: Option<ByteRange>) -> Result<Vec<u8>, ObjectError> {
    let (_, stream) = bucket.get(key, range).await?;
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

/// What every bucket keeps, wherever it lies.
async fn conforms(bucket: &dyn Bucket, large: usize) {
    let options = PutOptions {
        content_type: Some("video/mp4".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        metadata: BTreeMap::from([("camera".to_owned(), "door".to_owned())]),
        if_none_match: false,
    };
    let put = bucket
        .put("a/one", options.clone(), Bytes::from_static(b"first"))
        .await
        .unwrap();
    assert_eq!((put.size, put.etag.as_str()), (5, "8b04d5e3775d298e78455efc5ca404d5"));
    let head = bucket.head("a/one").await.unwrap();
    assert_eq!(
        (&head.content_type, &head.content_encoding),
        (&options.content_type, &options.content_encoding)
    );
    assert_eq!(
        (&head.metadata, head.size, &head.etag),
        (&options.metadata, 5, &put.etag)
    );
    assert_eq!(body(bucket, "a/one", None).await.unwrap(), b"first");

    let once = PutOptions {
        if_none_match: true,
        ..PutOptions::default()
    };
    let refused = bucket.put("a/one", once.clone(), Bytes::from_static(b"second")).await;
    assert!(
        matches!(refused, Err(ObjectError::PreconditionFailed(_))),
        "{refused:?}"
    );
    assert_eq!(body(bucket, "a/one", None).await.unwrap(), b"first");

    let pattern: Vec<u8> = (0..large).map(|at| (at % 251) as u8).collect();
    let mut upload = bucket.begin("b/large", once.clone()).await.unwrap();
    for piece in pattern.chunks(700_001) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let missing = bucket.head("b/large").await;
    assert!(matches!(missing, Err(ObjectError::NoSuchKey(_))), "{missing:?}");
    assert_eq!(upload.finish().await.unwrap().size, large as u64);
    assert_eq!(body(bucket, "b/large", None).await.unwrap(), pattern);
    let middle = large as u64 / 2;
    for (range, from, to) in [
        (ByteRange::From(middle), large / 2, large),
        (ByteRange::Between(3, 3), 3, 4),
        (ByteRange::Between(middle, middle + 999), large / 2, large / 2 + 1000),
        (ByteRange::Last(10), large - 10, large),
        (ByteRange::Between(1, u64::MAX - 1), 1, large),
    ] {
        assert_eq!(
            body(bucket, "b/large", Some(range)).await.unwrap(),
            pattern[from..to],
            "{range:?}"
        );
    }
    let behind = body(bucket, "b/large", Some(ByteRange::From(large as u64))).await;
    assert_eq!(behind, Err(ObjectError::RangeNotSatisfiable(large as u64)));
    let mut again = bucket.begin("b/large", once).await.unwrap();
    again.write(Bytes::from_static(b"x")).await.unwrap();
    let refused = again.finish().await;
    assert!(
        matches!(refused, Err(ObjectError::PreconditionFailed(_))),
        "{refused:?}"
    );

    let mut aborted = bucket.begin("c", PutOptions::default()).await.unwrap();
    aborted.write(Bytes::from(vec![1; 9 << 20])).await.unwrap();
    aborted.abort().await.unwrap();
    let mut dropped = bucket.begin("c", PutOptions::default()).await.unwrap();
    dropped.write(Bytes::from_static(b"x")).await.unwrap();
    drop(dropped);
    assert!(matches!(bucket.head("c").await, Err(ObjectError::NoSuchKey(_))));
    bucket.put("empty", PutOptions::default(), Bytes::new()).await.unwrap();
    assert_eq!(body(bucket, "empty", None).await.unwrap(), b"");

    let keys = |page: &objects::ObjectPage| page.objects.iter().map(|o| o.key.clone()).collect::<Vec<_>>();
    let page = bucket.list("", None, 10).await.unwrap();
    assert_eq!(
        (keys(&page), &page.next),
        (vec!["a/one".into(), "b/large".into(), "empty".into()], &None)
    );
    let page = bucket.list("", Some("a/one"), 1).await.unwrap();
    assert_eq!(
        (keys(&page), page.next.as_deref()),
        (vec!["b/large".into()], Some("b/large"))
    );
    let page = bucket.list("b/lar", None, 1).await.unwrap();
    assert_eq!(
        (keys(&page), page.objects[0].size),
        (vec!["b/large".to_owned()], large as u64)
    );
    assert!(keys(&bucket.list("nothing/", None, 1).await.unwrap()).is_empty());
    for key in ["a/one", "b/large", "empty", "never was"] {
        bucket.delete(key).await.unwrap();
    }
    assert!(bucket.list("", None, 1).await.unwrap().objects.is_empty());
    assert!(matches!(
        bucket.get("a/one", None).await.err(),
        Some(ObjectError::NoSuchKey(_))
    ));
}

#[tokio::test]
async fn the_suite_holds_for_a_bucket_in_the_data_directory() {
    let place = Place::new();
    let store = place.with_bucket("door").await;
    conforms(&*store.open(ACCOUNT, "door").await.unwrap(), 11 << 20).await;
    assert!(store.open("123456789012".parse().unwrap(), "door").await.is_err());
}

#[tokio::test]
async fn the_suite_holds_for_a_bucket_in_memory() {
    let buckets = MemoryBuckets::new(clock());
    buckets.create(ACCOUNT, "door");
    conforms(&*buckets.open(ACCOUNT, "door").await.unwrap(), 1 << 20).await;
}

/// `SIGHTGLASS_TEST_S3=endpoint,bucket,id,secret`: conformance runs this against a SeaweedFS.
#[tokio::test]
async fn the_suite_holds_for_a_bucket_of_another_s3() {
    let Ok(named) = std::env::var("SIGHTGLASS_TEST_S3") else {
        println!("skipped: no other S3 (SIGHTGLASS_TEST_S3)");
        return;
    };
    let [endpoint, bucket, id, secret] = named.split(',').collect::<Vec<_>>().try_into().unwrap();
    let place = objects::External {
        bucket: bucket.to_owned(),
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
        path_style: true,
        certificates: None,
    };
    let bucket = objects::ExternalBucket::new("cold", &place).unwrap();
    conforms(&bucket, 19 << 20).await;
    let odd = bucket.put("a//b", PutOptions::default(), Bytes::new()).await;
    assert!(matches!(odd, Err(ObjectError::Invalid(_))), "{odd:?}");
    let denied = objects::External {
        secret_access_key: "wrong".to_owned(),
        ..place.clone()
    };
    let denied = objects::ExternalBucket::new("cold", &denied).unwrap();
    let refused = denied.put("a", PutOptions::default(), Bytes::new()).await;
    assert!(matches!(refused, Err(ObjectError::Denied(_))), "{refused:?}");
    let absent = objects::External {
        bucket: "no-such-bucket-here".to_owned(),
        ..place.clone()
    };
    let absent = objects::ExternalBucket::new("cold", &absent).unwrap();
    let refused = absent.head("a").await;
    assert!(refused.is_err(), "{refused:?}");
    let nobody = objects::External {
        endpoint: "http://127.0.0.1:9".to_owned(),
        ..place
    };
    let nobody = objects::ExternalBucket::new("cold", &nobody).unwrap();
    let refused = nobody.put("a", PutOptions::default(), Bytes::new()).await;
    assert!(matches!(refused, Err(ObjectError::Unreachable(_))), "{refused:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, Vec<u8>, bool),
    Parts(u8, Vec<u8>),
    Delete(u8),
    Copy(u8, u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let step = prop_oneof![
        4 => (0u8..12, bytes(), any::<bool>()).prop_map(|(key, bytes, once)| Step::Put(key, bytes, once)),
        2 => (0u8..12, bytes()).prop_map(|(key, bytes)| Step::Parts(key, bytes)),
        2 => (0u8..12).prop_map(Step::Delete),
        1 => (0u8..12, 0u8..12).prop_map(|(from, to)| Step::Copy(from, to)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..30)
}

/// Keys that are close to each other and hold what is special.
fn key(number: u8) -> String {
    [
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a!",
        "a0",
        "b",
        "b//",
        "ü",
        "\u{1}",
        "a/\u{10FFFF}x",
        "%",
    ][usize::from(number) % 12]
        .to_owned()
}

/// The listing that S3 defines, by brute force.
fn listing(map: &BTreeMap<String, Vec<u8>>, prefix: &str, delimiter: &str) -> (Vec<String>, Vec<String>) {
    let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
    for key in map.keys().filter(|key| key.starts_with(prefix)) {
        match key[prefix.len()..].find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => {
                let common = key[..prefix.len() + at + delimiter.len()].to_owned();
                if prefixes.last() != Some(&common) {
                    prefixes.push(common);
                }
            }
            None => keys.push(key.clone()),
        }
    }
    (keys, prefixes)
}

async fn check(store: &Store, map: &BTreeMap<String, Vec<u8>>) {
    let bucket = store.bucket(ACCOUNT, "door").await.unwrap();
    for (key, bytes) in map {
        assert_eq!(&body(&*bucket, key, None).await.unwrap(), bytes, "{key:?}");
    }
    for (prefix, delimiter, limit) in [
        ("", "", 3),
        ("", "/", 1),
        ("a/", "/", 2),
        ("a", "/", 1000),
        ("", "b", 2),
        ("ü", "", 1),
    ] {
        let (mut keys, mut prefixes, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let query = ListQuery {
                prefix: prefix.to_owned(),
                after,
                delimiter: Some(delimiter.to_owned()),
                limit,
            };
            let page = bucket.list_page(&query).await.unwrap();
            assert!(page.objects.len() + page.prefixes.len() <= limit);
            keys.extend(page.objects.into_iter().map(|object| object.key));
            prefixes.extend(page.prefixes);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(
            (keys, prefixes),
            listing(map, prefix, delimiter),
            "{prefix:?} {delimiter:?}"
        );
    }
}

async fn put_in_parts(store: &Store, key: &str, bytes: &[u8]) {
    let bucket = store.bucket(ACCOUNT, "door").await.unwrap();
    let id = bucket.begin_parts(key, UploadStart::default()).await.unwrap();
    for number in [3, 7] {
        let mut part = bucket.write_part(key, id, number, None, TagOf::Crc64).await.unwrap();
        part.write(Bytes::copy_from_slice(bytes)).await.unwrap();
        part.finish(&Expected::default()).await.unwrap();
    }
    let parts = [CompletedPart {
        number: 7,
        etag: None,
        checksum: None,
    }];
    bucket
        .complete(key, id, &parts, &Conditions::default(), &Expected::default())
        .await
        .unwrap();
}

async fn carry_out(place: &Place, steps: Vec<Step>) {
    let mut store = place.with_bucket("door").await;
    let mut map: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for step in steps {
        let bucket = store.bucket(ACCOUNT, "door").await.unwrap();
        match step {
            Step::Put(number, bytes, once) => {
                let options = PutOptions {
                    if_none_match: once,
                    ..PutOptions::default()
                };
                let put = bucket.put(&key(number), options, bytes.clone().into()).await;
                assert_eq!(put.is_ok(), !once || !map.contains_key(&key(number)));
                if put.is_ok() {
                    map.insert(key(number), bytes);
                }
            }
            Step::Parts(number, bytes) => {
                put_in_parts(&store, &key(number), &bytes).await;
                map.insert(key(number), bytes);
            }
            Step::Delete(number) => {
                bucket.delete(&key(number)).await.unwrap();
                map.remove(&key(number));
            }
            Step::Copy(from, to) => {
                let copied = bucket
                    .copy(&key(to), &bucket, &key(from), |_| {
                        Ok::<_, ObjectError>(NewObject::default())
                    })
                    .await;
                assert_eq!(copied.is_ok(), map.contains_key(&key(from)));
                if copied.is_ok() {
                    map.insert(key(to), map[&key(from)].clone());
                }
            }
            Step::Restart => store = place.open(),
        }
    }
    check(&store, &map).await;
    // What is left of the bytes of all that is gone: nothing, after a start.
    store = place.open();
    settle(&store).await;
    check(&store, &map).await;
    assert_eq!(place.files(), map.values().filter(|bytes| !bytes.is_empty()).count());
}

/// Runs the background work of a start until it has nothing more to do.
async fn settle(store: &Store) {
    store.recover_now().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_bucket_is_a_map_whatever_happens(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(carry_out(&Place::new(), steps));
    }
}

#[tokio::test]
async fn a_reader_keeps_the_bytes_it_began_with() {
    let place = Place::new();
    let store = place.with_bucket("door").await;
    put_in_parts(&store, "k", b"in parts").await;
    let bucket = store.bucket(ACCOUNT, "door").await.unwrap();
    let (_, stream) = bucket.get("k", None).await.unwrap();
    bucket
        .put("k", PutOptions::default(), Bytes::from_static(b"in one"))
        .await
        .unwrap();
    store.recover_now().await.unwrap();
    let (_, second) = bucket.get("k", None).await.unwrap();
    bucket.delete("k").await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), b"in parts");
    let pieces: Vec<Bytes> = second.try_collect().await.unwrap();
    assert_eq!(pieces.concat(), b"in one");
    store.recover_now().await.unwrap();
    assert_eq!(place.files(), 0);
}

#[tokio::test]
async fn bytes_that_decayed_are_not_given_out_for_whole_and_fsck_names_them() {
    let place = Place::new();
    let store = place.with_bucket("door").await;
    let bucket = store.bucket(ACCOUNT, "door").await.unwrap();
    bucket
        .put("k", PutOptions::default(), Bytes::from(vec![7; 1_000_000]))
        .await
        .unwrap();
    put_in_parts(&store, "p", b"parts").await;
    let fsck = || async {
        let disk = SystemDisk::open(&place.folder.path().join("objects")).unwrap();
        objects::fsck(&*place.catalog, Arc::new(disk)).await.unwrap()
    };
    let sound = fsck().await;
    assert_eq!((sound.objects, sound.findings), (2, Vec::<String>::new()));
    let folders = std::fs::read_dir(place.folder.path().join("objects")).unwrap();
    for file in folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap()) {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    for key in ["k", "p"] {
        let read = body(&*bucket, key, None).await;
        assert!(matches!(read, Err(ObjectError::Storage(_))), "{read:?}");
    }
    assert_eq!(fsck().await.findings.len(), 3);
}
