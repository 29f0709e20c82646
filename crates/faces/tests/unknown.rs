//! What a user of unknown faces relies on: a stranger who was kept is found again, also after a restart, for as long as
//! was said and no longer; one who is enrolled is unknown no more; and whoever is erased is in no file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod traces;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use base::{AccountId, ManualClock, ResourceName, Timestamp};
use faces::{
    FaceFilter, FaceId, FaceStore, FacesError, ImageDigest, ModelVersion, NewFace, Rect, UnknownFace, UnknownFilter,
    UnknownSighting, limits,
};
use traces::{Trace, disguises, found_in_files, traces};

const MODEL: &str = "test-model";
const DIMENSIONS: usize = 64;
const START_MS: i64 = 1_700_000_000_000;

struct World {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Option<FaceStore>,
}

fn key() -> ResourceName {
    ResourceName {
        account: AccountId::DEFAULT,
        region: "us-west-2".parse().unwrap(),
        name: "staff".to_owned(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(START_MS + seconds * 1000)
}

fn id(name: &str) -> FaceId {
    FaceId::of_sighting(AccountId::DEFAULT, name)
}

/// A picture of a person: two of one person have a cosine of about 0.9.
fn picture(who: u64, number: u64) -> Vec<f32> {
    let (mut person, mut looks) = (
        fastrand::Rng::with_seed(who),
        fastrand::Rng::with_seed(1000 * who + number),
    );
    let spread = |rng: &mut fastrand::Rng| rng.f32() * 2.0 - 1.0;
    (0..DIMENSIONS)
        .map(|_| spread(&mut person) + 0.3 * spread(&mut looks))
        .collect()
}

/// A track of person `who`, seen for ten seconds from `seconds` on and kept for an hour.
fn sighting(name: &str, source: &str, seconds: i64, who: u64) -> UnknownSighting {
    let number = name.bytes().fold(7, |sum: u64, byte| sum * 31 % 997 + u64::from(byte));
    UnknownSighting {
        face: UnknownFace {
            face_id: id(name),
            source: source.into(),
            first_seen: at(seconds),
            last_seen: at(seconds + 10),
            expires: at(seconds + 3600),
            rect: Rect {
                left: 0.25,
                top: 0.5,
                width: 0.125,
                height: 0.25,
            },
            confidence: 99.5,
            about: format!("{{\"name\":\"{name}\"}}").into(),
        },
        vector: picture(who, number),
        seen_before: false,
    }
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(at(0));
        let mut world = World {
            directory,
            clock,
            store: None,
        };
        world.start();
        let model = ModelVersion {
            id: MODEL.to_owned(),
            dimensions: DIMENSIONS,
        };
        world.store().create_collection(key(), model).await.unwrap();
        world
    }

    fn start(&mut self) {
        self.store = None;
        let path = self.directory.path().join("faces.db");
        self.store = Some(FaceStore::open(&path, self.clock.clone()).unwrap());
    }

    fn store(&self) -> &FaceStore {
        self.store.as_ref().unwrap()
    }

    async fn keep(&self, sightings: Vec<UnknownSighting>) -> Vec<FaceId> {
        let id = self.store().describe(&key()).unwrap().id;
        self.store()
            .keep_unknown(key(), id, MODEL.to_owned(), sightings)
            .await
            .unwrap()
    }

    async fn enrol(&self, who: u64, external: &str) -> FaceId {
        let new = NewFace {
            rect: Rect::default(),
            confidence: 99.0,
            vector: picture(who, 0),
        };
        let (image, external) = (ImageDigest::of(external.as_bytes()), Some(external.to_owned()));
        let added = self
            .store()
            .index_faces(key(), MODEL.to_owned(), image, external, vec![new])
            .await;
        added.unwrap()[0].record.face_id
    }

    fn listed(&self, filter: &UnknownFilter) -> Vec<FaceId> {
        let page = self.store().list_unknown(&key(), filter, None, 100).unwrap();
        page.iter().map(|face| face.face_id).collect()
    }

    fn like(&self, probe: FaceId) -> Vec<FaceId> {
        let filter = UnknownFilter::default();
        let found = self
            .store()
            .search_unknown_by_id(&key(), probe, 80.0, 10, &filter)
            .unwrap();
        found.iter().map(|found| found.face.face_id).collect()
    }
}

#[tokio::test]
async fn a_stranger_is_found_again_by_picture_by_visit_and_after_a_restart() {
    let mut world = World::new().await;
    let kept = [
        sighting("monday", "door", 0, 1),
        sighting("tuesday", "gate", 100, 1),
        sighting("other", "door", 50, 2),
    ];
    assert_eq!(world.keep(kept.to_vec()).await, []);
    let ann = world.enrol(1, "ann").await;
    for round in 0..2 {
        assert_eq!(
            world.listed(&UnknownFilter::default()),
            [id("tuesday"), id("other"), id("monday")],
            "{round}"
        );
        assert_eq!(world.like(id("monday")), [id("tuesday")]);
        let mut before_enrolment = world.like(ann);
        before_enrolment.sort();
        let mut both = [id("monday"), id("tuesday")];
        both.sort();
        assert_eq!(before_enrolment, both, "where Ann was before she was enrolled");
        let door = UnknownFilter {
            source: Some("door".to_owned()),
            ..UnknownFilter::default()
        };
        let found = world
            .store()
            .search_unknown(&key(), MODEL, &picture(1, 5), 80.0, 10, &door)
            .unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(*found[0].face, kept[0].face);
        assert!(found[0].similarity >= 80.0 && found[0].similarity <= 100.0);
        // Unknown faces are in no search of the collection's own.
        let faces = world.store().search(&key(), MODEL, &picture(1, 5), 0.0, 10).unwrap();
        assert_eq!(faces.iter().map(|found| found.face.face_id).collect::<Vec<_>>(), [ann]);
        let info = world.store().describe(&key()).unwrap();
        assert_eq!((info.face_count, info.unknown_count), (1, 3));
        world.start();
    }
}

#[tokio::test]
async fn pages_are_those_of_the_whole_list_and_times_pick_from_it() {
    let world = World::new().await;
    let names: Vec<String> = (0..25).map(|number| format!("track-{number}")).collect();
    let sightings = names
        .iter()
        .enumerate()
        .map(|(number, name)| sighting(name, "door", number as i64 / 2, 1));
    world.keep(sightings.collect()).await;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = world
            .store()
            .list_unknown(&key(), &UnknownFilter::default(), after, 7)
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.last_seen, last.face_id));
        all.extend(page.iter().map(|face| face.face_id));
    }
    assert_eq!(all, world.listed(&UnknownFilter::default()));
    assert_eq!(all.len(), names.len());
    let between = UnknownFilter {
        seen_after: Some(at(14)),
        seen_before: Some(at(6)),
        ..UnknownFilter::default()
    };
    // Seen from second 4 or 5 on, for ten seconds.
    assert_eq!(world.listed(&between).len(), 4);
}

#[tokio::test]
async fn a_track_that_goes_on_is_one_face_and_one_that_was_erased_does_not_come_back() {
    let world = World::new().await;
    world.keep(vec![sighting("track", "door", 0, 1)]).await;
    let later = UnknownSighting {
        seen_before: true,
        ..sighting("track", "door", 60, 2)
    };
    assert_eq!(world.keep(vec![later.clone()]).await, []);
    let page = world
        .store()
        .list_unknown(&key(), &UnknownFilter::default(), None, 9)
        .unwrap();
    assert_eq!((page.len(), &*page[0]), (1, &later.face));
    let like = |who| {
        world
            .store()
            .search_unknown(&key(), MODEL, &picture(who, 3), 80.0, 9, &UnknownFilter::default())
    };
    assert_eq!(
        (like(1).unwrap().len(), like(2).unwrap().len()),
        (0, 1),
        "by its newest vector"
    );
    let deleted = world
        .store()
        .delete_unknown(key(), vec![id("track"), id("nobody"), id("track")])
        .await
        .unwrap();
    assert_eq!(
        (deleted.deleted, deleted.not_found),
        (vec![id("track")], vec![id("nobody")])
    );
    assert_eq!(world.keep(vec![later]).await, [id("track")]);
    assert_eq!(world.listed(&UnknownFilter::default()), []);
}

#[tokio::test]
async fn a_stranger_is_forgotten_when_the_time_is_over() {
    let world = World::new().await;
    world
        .keep(vec![sighting("early", "door", 0, 1), sighting("late", "door", 100, 1)])
        .await;
    world.clock.set_wall(at(3600));
    // Not told of any more, even before it is erased.
    assert_eq!(world.listed(&UnknownFilter::default()), [id("late")]);
    assert_eq!(world.like(id("late")), []);
    let gone = world
        .store()
        .search_unknown_by_id(&key(), id("early"), 0.0, 9, &UnknownFilter::default());
    assert_eq!(gone, Err(FacesError::FaceNotFound(id("early"))));
    let enrolled = world.store().enrol_unknown(key(), vec![id("early")], None).await;
    assert_eq!(enrolled, Err(FacesError::FaceNotFound(id("early"))));
    assert_eq!(world.store().describe(&key()).unwrap().unknown_count, 2);
    assert_eq!(world.store().expire_unknown().await, Ok(1));
    assert_eq!(world.store().describe(&key()).unwrap().unknown_count, 1);
    assert_eq!(world.store().expire_unknown().await, Ok(0));
}

#[tokio::test]
async fn whoever_is_enrolled_from_unknown_tracks_is_a_face_of_the_collection_and_unknown_no_more() {
    let mut world = World::new().await;
    let tracks = ["monday", "tuesday"].map(|name| sighting(name, "door", 0, 1));
    world.keep(tracks.to_vec()).await;
    world.keep(vec![sighting("other", "door", 0, 2)]).await;
    let missing = vec![id("monday"), id("nobody")];
    let refused = world
        .store()
        .enrol_unknown(key(), missing, Some("Ann".to_owned()))
        .await;
    assert_eq!(refused, Err(FacesError::FaceNotFound(id("nobody"))));
    assert_eq!(world.store().describe(&key()).unwrap().face_count, 0, "all or none");
    let both = vec![id("monday"), id("tuesday")];
    let enrolled = world
        .store()
        .enrol_unknown(key(), both.clone(), Some("Ann".to_owned()))
        .await
        .unwrap();
    assert_eq!(enrolled.iter().map(|face| face.face_id).collect::<Vec<_>>(), both);
    for _ in 0..2 {
        assert_eq!(world.listed(&UnknownFilter::default()), [id("other")]);
        let found = world.store().search(&key(), MODEL, &picture(1, 5), 80.0, 9).unwrap();
        assert_eq!(found.len(), 2);
        assert!(
            found
                .iter()
                .all(|found| found.face.external_image_id.as_deref() == Some("Ann"))
        );
        let all = world
            .store()
            .list_faces(&key(), None, 9, FaceFilter::default())
            .unwrap();
        assert_eq!(all.len(), 2);
        world.start();
    }
    // The track is still in the picture: it is known now, and not written as unknown again.
    assert_eq!(world.keep(vec![sighting("monday", "door", 9, 1)]).await, [id("monday")]);
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let world = World::new().await;
    let info = world.store().describe(&key()).unwrap();
    let keep = |id, model: &str, sighting| world.store().keep_unknown(key(), id, model.to_owned(), vec![sighting]);
    let good = || sighting("track", "door", 0, 1);
    let short = UnknownSighting {
        vector: vec![1.0],
        ..good()
    };
    assert_eq!(
        keep(info.id, MODEL, short).await,
        Err(FacesError::BadVector(DIMENSIONS))
    );
    assert!(matches!(
        keep(info.id, "other", good()).await,
        Err(FacesError::ModelMismatch { .. })
    ));
    // Another collection under the same name.
    assert!(matches!(
        keep(info.id + 1, MODEL, good()).await,
        Err(FacesError::CollectionNotFound(_))
    ));
    let mut long = good();
    long.face.about = "x".repeat(limits::ABOUT_BYTES_MAX + 1).into();
    assert!(matches!(
        keep(info.id, MODEL, long).await,
        Err(FacesError::LimitExceeded { .. })
    ));
    assert_eq!(world.store().describe(&key()).unwrap().unknown_count, 0);
}

fn is_in_a_file(directory: &Path, vector: &[f32]) -> bool {
    let forms: HashSet<Trace> = traces(vector).into_iter().chain(disguises(vector)).collect();
    found_in_files(directory, &forms) > 0
}

#[tokio::test]
async fn an_unknown_face_is_gone_from_every_file_when_it_is_deleted_replaced_forgotten_or_its_collection_deleted() {
    let world = World::new().await;
    let directory = world.directory.path();
    let kept: Vec<UnknownSighting> = (0..5)
        .map(|n| sighting(&format!("track-{n}"), "door", n, n as u64))
        .collect();
    world.keep(kept.clone()).await;
    let is_there = |number: usize| is_in_a_file(directory, &kept[number].vector);
    assert!((0..5).all(is_there));
    world
        .store()
        .delete_unknown(key(), vec![kept[0].face.face_id])
        .await
        .unwrap();
    assert!(!is_there(0) && is_there(1));
    let replaced = UnknownSighting {
        vector: picture(77, 7),
        seen_before: true,
        ..kept[1].clone()
    };
    world.keep(vec![replaced]).await;
    assert!(!is_there(1) && is_there(2) && is_in_a_file(directory, &picture(77, 7)));
    world.clock.set_wall(kept[2].face.expires);
    // The three that are older; the replaced one kept its time.
    assert_eq!(world.store().expire_unknown().await, Ok(2));
    assert!(!is_there(2) && is_there(3));
    world
        .store()
        .enrol_unknown(key(), vec![kept[3].face.face_id], None)
        .await
        .unwrap();
    assert!(is_there(3) && is_there(4));
    world
        .store()
        .delete_faces(key(), vec![kept[3].face.face_id])
        .await
        .unwrap();
    assert!(!is_there(3) && is_there(4));
    world.store().delete_collection(key()).await.unwrap();
    assert!((0..5).all(|number| !is_there(number)));
}

#[tokio::test]
async fn a_file_of_the_second_layout_gets_unknown_faces() {
    let mut world = World::new().await;
    let face = world.enrol(1, "ann").await;
    world.store = None;
    let path = world.directory.path().join("faces.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch("DROP TABLE unknown_faces; DROP TABLE unknown_blocks; PRAGMA user_version = 2;")
        .unwrap();
    drop(old);
    world.start();
    world.keep(vec![sighting("track", "door", 0, 1)]).await;
    assert_eq!(world.like(face), [id("track")]);
}
