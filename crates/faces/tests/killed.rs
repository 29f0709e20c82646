//! A process that enrols and deletes faces, unknown faces and whole collections is killed with SIGKILL again and again, at
//! any point of a transaction. Whatever deletion it had answered holds: right after the kill, before anybody has opened
//! the file, no file below the data directory has a byte sequence of the vector, in any form; and after the next start the
//! face is not there. What was not deleted is still there.
//!
//! The test starts itself as the process to be killed (`CHILD` names the directory).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod traces;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, ResourceName, SystemClock, Timestamp};
use faces::{
    FaceFilter, FaceId, FaceStore, ImageDigest, ModelVersion, NewFace, Rect, UnknownFace, UnknownFilter,
    UnknownSighting,
};
use traces::{Trace, disguises, found_in_files, traces};

/// Tells the process that it is the one to be killed.
const CHILD: &str = "SIGHTGLASS_FACES_KILLED_DIRECTORY";
/// The first number that a life gives to a face.
const FIRST: &str = "SIGHTGLASS_FACES_KILLED_FIRST";

const MODEL: &str = "test-model";
const DIMENSIONS: usize = 128;
const LIVES: u64 = 8;
const FACES_PER_LIFE: u64 = 100_000;

fn key() -> ResourceName {
    ResourceName {
        account: AccountId::DEFAULT,
        region: "us-west-2".parse().unwrap(),
        name: "staff".to_owned(),
    }
}

/// The vector of a face follows from its number.
fn vector(number: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(number);
    (0..DIMENSIONS).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// One life: faces come and go until the process is killed. `HAVE` says what was there at its start, `ADDED` and `GONE`
/// what was answered.
struct Life {
    store: FaceStore,
    collection: i64,
    rng: fastrand::Rng,
    next: u64,
    faces: BTreeMap<u64, FaceId>,
    unknown: BTreeMap<u64, FaceId>,
}

impl Life {
    async fn begin(directory: &Path, first: u64) -> Life {
        let store = FaceStore::open(&directory.join("faces.db"), Arc::new(SystemClock::new())).unwrap();
        let mut life = Life {
            collection: 0,
            rng: fastrand::Rng::with_seed(first),
            next: first,
            faces: BTreeMap::new(),
            unknown: BTreeMap::new(),
            store,
        };
        match life.store.describe(&key()) {
            Ok(info) => life.collection = info.id,
            Err(_) => life.create().await,
        }
        let all = life
            .store
            .list_faces(&key(), None, usize::MAX, FaceFilter::default())
            .unwrap();
        let number = |text: &str| text.parse::<u64>().unwrap();
        life.faces = (all.iter())
            .map(|face| (number(face.external_image_id.as_deref().unwrap()), face.face_id))
            .collect();
        let all = life
            .store
            .list_unknown(&key(), &UnknownFilter::default(), None, usize::MAX)
            .unwrap();
        life.unknown = all.iter().map(|face| (number(&face.about), face.face_id)).collect();
        for have in life.faces.keys().chain(life.unknown.keys()) {
            println!("HAVE {have}");
        }
        println!("READY");
        life
    }

    async fn create(&mut self) {
        let model = ModelVersion {
            id: MODEL.to_owned(),
            dimensions: DIMENSIONS,
        };
        self.collection = self.store.create_collection(key(), model).await.unwrap().id;
    }

    async fn index(&mut self) {
        let first = self.next;
        self.next += 3;
        for number in first..self.next {
            let new = NewFace {
                rect: Rect::default(),
                confidence: 99.0,
                vector: vector(number),
            };
            let image = ImageDigest::of(&number.to_le_bytes());
            let name = Some(number.to_string());
            let added = self
                .store
                .index_faces(key(), MODEL.to_owned(), image, name, vec![new])
                .await
                .unwrap();
            self.faces.insert(number, added[0].record.face_id);
            println!("ADDED {number}");
        }
    }

    async fn keep(&mut self) {
        let numbers = self.next..self.next + 3;
        self.next += 3;
        let sighting = |number: u64| UnknownSighting {
            face: UnknownFace {
                face_id: FaceId::of_sighting(AccountId::DEFAULT, &number.to_string()),
                source: "door".into(),
                first_seen: Timestamp::from_millis(number as i64),
                last_seen: Timestamp::from_millis(number as i64),
                expires: Timestamp::from_millis(i64::MAX),
                rect: Rect::default(),
                confidence: 99.0,
                about: number.to_string().into(),
            },
            vector: vector(number),
            seen_before: false,
        };
        let sightings: Vec<UnknownSighting> = numbers.clone().map(sighting).collect();
        let ids: Vec<FaceId> = sightings.iter().map(|sighting| sighting.face.face_id).collect();
        self.store
            .keep_unknown(key(), self.collection, MODEL.to_owned(), sightings)
            .await
            .unwrap();
        self.unknown.extend(numbers.clone().zip(ids));
        numbers.for_each(|number| println!("ADDED {number}"));
    }

    /// Some of these, which are taken out.
    fn some(rng: &mut fastrand::Rng, all: &mut BTreeMap<u64, FaceId>) -> Vec<(u64, FaceId)> {
        let numbers: Vec<u64> = all.keys().copied().filter(|_| rng.u8(..4) == 0).collect();
        let taken = numbers.iter().filter_map(|number| Some((*number, all.remove(number)?)));
        taken.collect()
    }

    async fn delete(&mut self) {
        let some = Self::some(&mut self.rng, &mut self.faces);
        let ids = some.iter().map(|(_, id)| *id).collect();
        assert_eq!(
            self.store.delete_faces(key(), ids).await.unwrap().deleted.len(),
            some.len()
        );
        some.iter().for_each(|(number, _)| println!("GONE {number}"));
    }

    async fn delete_unknown(&mut self) {
        let some = Self::some(&mut self.rng, &mut self.unknown);
        let ids = some.iter().map(|(_, id)| *id).collect();
        assert_eq!(
            self.store.delete_unknown(key(), ids).await.unwrap().deleted.len(),
            some.len()
        );
        some.iter().for_each(|(number, _)| println!("GONE {number}"));
    }

    /// Enrols some unknown faces, and deletes them then.
    async fn enrol(&mut self) {
        for (number, id) in Self::some(&mut self.rng, &mut self.unknown) {
            self.store
                .enrol_unknown(key(), vec![id], Some(number.to_string()))
                .await
                .unwrap();
            self.store.delete_faces(key(), vec![id]).await.unwrap();
            println!("GONE {number}");
        }
    }

    async fn delete_all(&mut self) {
        self.store.delete_collection(key()).await.unwrap();
        let gone = std::mem::take(&mut self.faces)
            .into_iter()
            .chain(std::mem::take(&mut self.unknown));
        gone.for_each(|(number, _)| println!("GONE {number}"));
        self.create().await;
    }

    async fn live(mut self) {
        loop {
            match self.rng.u8(..24) {
                0..=7 => self.index().await,
                8..=13 => self.keep().await,
                14..=17 => self.delete().await,
                18..=20 => self.delete_unknown().await,
                21..=22 => self.enrol().await,
                _ => self.delete_all().await,
            }
        }
    }
}

/// What a life said before it was killed: there at its start, added, gone.
#[derive(Default)]
struct Said {
    had: BTreeSet<u64>,
    added: BTreeSet<u64>,
    gone: BTreeSet<u64>,
}

/// Lets a life begin, and kills it a moment after it has said so many lines.
fn run_child(directory: &Path, life: u64, lines_max: usize, pause: Duration) -> Said {
    let test = "what_was_deleted_before_a_kill_is_in_no_file_and_does_not_come_back";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, directory)
        .env(FIRST, (life * FACES_PER_LIFE).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut said, mut ready, mut count) = (Said::default(), false, 0);
    let mut note = |line: &str| {
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        let number = number.parse().unwrap_or_default();
        match word {
            "HAVE" => said.had.insert(number),
            "ADDED" => said.added.insert(number),
            "GONE" => said.gone.insert(number),
            _ => false,
        };
    };
    for line in lines.by_ref() {
        let line = line.unwrap();
        note(&line);
        ready |= line.contains("READY");
        count += usize::from(ready);
        if count >= lines_max {
            break;
        }
    }
    assert!(ready, "the life must have begun");
    std::thread::sleep(pause);
    child.kill().unwrap();
    // What it said before it died counts; a line that breaks off was never said.
    for line in lines {
        note(&line.unwrap());
    }
    child.wait().unwrap();
    said
}

#[test]
fn what_was_deleted_before_a_kill_is_in_no_file_and_does_not_come_back() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let first = std::env::var(FIRST).unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        return runtime.block_on(async { Life::begin(&PathBuf::from(directory), first).await.live().await });
    }
    let directory = tempfile::tempdir().unwrap();
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut there, mut gone): (BTreeSet<u64>, BTreeSet<u64>) = Default::default();
    let mut looked_for: HashSet<Trace> = HashSet::new();
    for life in 0..LIVES {
        let pause = Duration::from_micros(rng.u64(0..20_000));
        let said = run_child(directory.path(), life, rng.usize(20..150), pause);
        // What the life before had been asked, and did not answer any more, may have been done or not.
        let lost: Vec<_> = there.difference(&said.had).collect();
        assert!(
            lost.len() <= there.len() / 2 || lost.len() == there.len(),
            "life {life} misses {lost:?}"
        );
        assert_eq!(
            said.had.intersection(&gone).collect::<Vec<_>>(),
            [] as [&u64; 0],
            "life {life}"
        );
        there = said
            .had
            .union(&said.added)
            .copied()
            .filter(|number| !said.gone.contains(number))
            .collect();
        for number in &said.gone {
            looked_for.extend(traces(&vector(*number)));
            looked_for.extend(disguises(&vector(*number)));
        }
        gone.extend(said.gone);
        let found = found_in_files(directory.path(), &looked_for);
        assert_eq!(found, 0, "of {} deleted faces after life {life}", gone.len());
    }
    assert!(gone.len() > 100, "{} faces were deleted", gone.len());
    let kept: HashSet<Trace> = there.iter().flat_map(|number| traces(&vector(*number))).collect();
    assert!(
        there.is_empty() || found_in_files(directory.path(), &kept) > 0,
        "the search must be able to find some"
    );
}
