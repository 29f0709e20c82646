//! What a caller relies on of users: who was answered to be one is one after a restart, a face is one user's at most, a
//! call that is repeated does nothing twice, and the vector that stands for a user is in no file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, ManualClock, ResourceName, Timestamp};
use faces::{
    FaceFilter, FaceId, FaceStore, FacesError, ImageDigest, ModelVersion, NewFace, Rect, Refusal, UserChange,
    UserChanged, UserStatus, limits,
};

const MODEL: &str = "test-model";
const DIMENSIONS: usize = 64;

struct World {
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: FaceStore,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
        let store = FaceStore::open(&directory.path().join("faces.db"), clock.clone()).unwrap();
        let model = ModelVersion {
            id: MODEL.to_owned(),
            dimensions: DIMENSIONS,
        };
        store.create_collection(key("staff"), model).await.unwrap();
        World {
            directory,
            clock,
            store,
        }
    }

    fn restart(self) -> Self {
        let World {
            directory,
            clock,
            store,
        } = self;
        drop(store);
        let store = FaceStore::open(&directory.path().join("faces.db"), clock.clone()).unwrap();
        World {
            directory,
            clock,
            store,
        }
    }

    async fn face(&self, vector: Vec<f32>) -> FaceId {
        let image = vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let face = NewFace {
            rect: Rect::default(),
            confidence: 99.0,
            vector,
        };
        let added = (self.store).index_faces(
            key("staff"),
            MODEL.to_owned(),
            ImageDigest::of(&image),
            None,
            vec![face],
        );
        added.await.unwrap()[0].record.face_id
    }

    async fn change(&self, user: &str, change: UserChange, token: Option<&str>) -> Result<UserChanged, FacesError> {
        let token = token.map(str::to_owned);
        self.store
            .change_user(key("staff"), user.to_owned(), change, token)
            .await
    }

    async fn associate(&self, user: &str, faces: &[FaceId]) -> UserChanged {
        self.change(user, associate(faces, 75.0), None).await.unwrap()
    }

    /// Names, numbers of faces and states of all users.
    fn users(&self) -> Vec<(String, usize, UserStatus)> {
        let users = self.store.list_users(&key("staff"), None, 1000).unwrap();
        users
            .iter()
            .map(|user| (user.name.to_string(), user.faces, user.status))
            .collect()
    }

    /// Names and similarities of the users like the face.
    fn like(&self, face: FaceId) -> Vec<(String, f32)> {
        let found = self.store.search_users_by_face(&key("staff"), face, 0.0, 10).unwrap();
        found
            .iter()
            .map(|found| (found.user.name.to_string(), found.similarity))
            .collect()
    }

    fn faces_of(&self, user: &str) -> Vec<FaceId> {
        let filter = FaceFilter {
            user: Some(user),
            ..FaceFilter::default()
        };
        let listed = self.store.list_faces(&key("staff"), None, 1000, filter).unwrap();
        listed.iter().map(|record| record.face_id).collect()
    }
}

fn key(name: &str) -> ResourceName {
    ResourceName {
        account: AccountId::DEFAULT,
        region: "us-west-2".parse().unwrap(),
        name: name.to_owned(),
    }
}

fn associate(faces: &[FaceId], threshold: f32) -> UserChange {
    UserChange::Associate {
        faces: faces.to_vec(),
        threshold,
    }
}

fn disassociate(faces: &[FaceId]) -> UserChange {
    UserChange::Disassociate { faces: faces.to_vec() }
}

/// A picture of person `who`: two of one person have a cosine of about 0.9, two of different ones of about 0.
fn picture(who: u64, number: u64) -> Vec<f32> {
    let mut person = fastrand::Rng::with_seed(who);
    let mut looks = fastrand::Rng::with_seed(1000 * who + number + 77_777);
    let spread = |rng: &mut fastrand::Rng| rng.f32() * 2.0 - 1.0;
    (0..DIMENSIONS)
        .map(|_| spread(&mut person) + 0.3 * spread(&mut looks))
        .collect()
}

#[tokio::test]
async fn users_and_their_faces_are_the_same_after_a_restart_and_are_found() {
    let world = World::new().await;
    let mut faces = Vec::new();
    for who in 0..3 {
        for number in 0..4 {
            faces.push(world.face(picture(who, number)).await);
        }
    }
    for (user, mine) in ["ada", "grace", "edith"].into_iter().zip(faces.chunks(4)) {
        world.change(user, UserChange::Create, None).await.unwrap();
        assert_eq!(world.users().last().unwrap().2, UserStatus::Created);
        let changed = world.associate(user, &mine[..3]).await;
        assert_eq!((&changed.changed[..], changed.status), (&mine[..3], UserStatus::Active));
    }
    world.change("empty", UserChange::Create, None).await.unwrap();
    let (users, like) = (world.users(), world.like(faces[7]));
    assert_eq!(users.len(), 4);
    assert_eq!(like.len(), 3, "one without faces is like nobody");
    assert!(like[0].0 == "grace" && like[0].1 > 95.0 && like[1].1 < 70.0, "{like:?}");
    assert!(
        world
            .store
            .search_users_by_user(&key("staff"), "empty", 0.0, 10)
            .unwrap()
            .is_empty()
    );
    let others = world.store.search_users_by_user(&key("staff"), "ada", 0.0, 10).unwrap();
    assert_eq!(others.len(), 2, "a user is not like itself");
    let world = world.restart();
    assert_eq!((world.users(), world.like(faces[7])), (users, like));
    assert_eq!(world.store.describe(&key("staff")).unwrap().user_count, 4);
    let mut mine = faces[4..7].to_vec();
    mine.sort();
    assert_eq!(world.faces_of("grace"), mine);
}

#[tokio::test]
async fn a_face_is_one_users_at_most_and_must_resemble_the_user() {
    let world = World::new().await;
    let mine = [world.face(picture(1, 0)).await, world.face(picture(1, 1)).await];
    let other = world.face(picture(2, 0)).await;
    let nobody = FaceId::parse("6a6f7c5e-37a1-5d0c-8f5e-2b1d9c407e11").unwrap();
    for user in ["ada", "grace"] {
        world.change(user, UserChange::Create, None).await.unwrap();
    }
    assert_eq!(
        world.change("ada", UserChange::Create, None).await,
        Err(FacesError::UserExists("ada".to_owned()))
    );
    assert_eq!(
        world.change("nobody", associate(&mine, 75.0), None).await,
        Err(FacesError::UserNotFound("nobody".to_owned()))
    );
    world.associate("ada", &mine[..1]).await;
    world.associate("grace", &[other]).await;
    let stranger = world.face(picture(3, 0)).await;
    let all = [mine[0], mine[1], other, nobody, stranger, mine[1]];
    let changed = world.associate("ada", &all).await;
    assert_eq!(changed.changed, [mine[1]], "whose it is already is not told of");
    let [
        (a, Refusal::OtherUser(user)),
        (b, Refusal::NotFound),
        (c, Refusal::NotSimilar(similarity)),
    ] = &changed.refused[..]
    else {
        panic!("{:?}", changed.refused);
    };
    assert_eq!((*a, &**user, *b, *c), (other, "grace", nobody, stranger));
    assert!(*similarity < 75.0);
    let admitted = world.change("ada", associate(&[stranger], 0.0), None).await.unwrap();
    assert_eq!(admitted.changed, [stranger]);
    let left = world
        .change("ada", disassociate(&[other, nobody, stranger, mine[0]]), None)
        .await
        .unwrap();
    assert_eq!(left.changed, [stranger, mine[0]]);
    assert_eq!(
        left.refused,
        [(other, Refusal::OtherUser("grace".into())), (nobody, Refusal::NotFound)]
    );
    assert_eq!(left.status, UserStatus::Active);
    let again = world.change("ada", disassociate(&[stranger]), None).await.unwrap();
    assert_eq!((again.changed, again.refused), (vec![], vec![]), "nobody's already");
    let last = world.change("ada", disassociate(&[mine[1]]), None).await.unwrap();
    assert_eq!(last.status, UserStatus::Created);
    assert_eq!(world.like(mine[1]).len(), 1, "only grace has a vector");
}

#[tokio::test]
async fn a_users_face_is_not_deleted_before_the_user_is() {
    let world = World::new().await;
    let mine = [world.face(picture(1, 0)).await, world.face(picture(1, 1)).await];
    let free = world.face(picture(2, 0)).await;
    world.change("ada", UserChange::Create, None).await.unwrap();
    world.associate("ada", &mine).await;
    let outcome = world
        .store
        .delete_faces(key("staff"), vec![mine[0], free])
        .await
        .unwrap();
    assert_eq!(
        (outcome.deleted, outcome.of_users),
        (vec![free], vec![(mine[0], "ada".into())])
    );
    world.change("ada", UserChange::Delete, None).await.unwrap();
    assert_eq!(
        world.change("ada", UserChange::Delete, None).await,
        Err(FacesError::UserNotFound("ada".to_owned()))
    );
    assert!(world.users().is_empty() && world.like(mine[0]).is_empty());
    let world = world.restart();
    let kept = world
        .store
        .list_faces(&key("staff"), None, 10, FaceFilter::default())
        .unwrap();
    assert!(kept.len() == 2 && kept.iter().all(|record| record.user.is_none()));
    assert_eq!(
        world
            .store
            .delete_faces(key("staff"), mine.to_vec())
            .await
            .unwrap()
            .deleted,
        mine
    );
}

#[tokio::test]
async fn a_user_has_a_hundred_faces_and_no_more() {
    let world = World::new().await;
    world.change("ada", UserChange::Create, None).await.unwrap();
    let mut faces = Vec::new();
    for number in 0..=100 {
        faces.push(world.face(picture(1, number)).await);
    }
    let refused = world.change("ada", associate(&faces, 75.0), None).await;
    assert!(matches!(refused, Err(FacesError::LimitExceeded { limit: 100, .. })));
    assert_eq!(world.associate("ada", &faces[..60]).await.changed.len(), 60);
    let refused = world.change("ada", associate(&faces[55..], 75.0), None).await;
    assert!(matches!(refused, Err(FacesError::LimitExceeded { limit: 100, .. })));
    assert_eq!(world.users()[0].1, 60, "the call as a whole did nothing");
    assert_eq!(world.associate("ada", &faces[60..100]).await.changed.len(), 40);
}

#[tokio::test]
async fn a_call_that_is_repeated_with_its_token_is_answered_again_and_done_once() {
    let world = World::new().await;
    let (mine, stranger) = (world.face(picture(1, 0)).await, world.face(picture(2, 0)).await);
    let second = world.face(picture(1, 1)).await;
    let create = |token| world.change("ada", UserChange::Create, token);
    let first = create(Some("token-1")).await.unwrap();
    assert_eq!(create(Some("token-1")).await.unwrap(), first);
    assert_eq!(create(None).await, Err(FacesError::UserExists("ada".to_owned())));
    assert_eq!(
        world.change("grace", UserChange::Create, Some("token-1")).await,
        Err(FacesError::TokenReused)
    );
    world.associate("ada", &[mine]).await;
    let both = associate(&[second, stranger], 75.0);
    // A token counts for its operation alone.
    let answer = world.change("ada", both.clone(), Some("token-1")).await.unwrap();
    assert_eq!((answer.changed.len(), answer.refused.len()), (1, 1));
    let world = world.restart();
    assert_eq!(
        world.change("ada", both.clone(), Some("token-1")).await.unwrap(),
        answer
    );
    assert_eq!(
        world.change("ada", associate(&[second], 75.0), Some("token-1")).await,
        Err(FacesError::TokenReused)
    );
    world.change("ada", UserChange::Delete, Some("token-2")).await.unwrap();
    world.change("ada", UserChange::Delete, Some("token-2")).await.unwrap();
    world.clock.advance(limits::TOKEN_KEPT + Duration::from_secs(1));
    assert_eq!(
        world.change("ada", UserChange::Delete, Some("token-2")).await,
        Err(FacesError::UserNotFound("ada".to_owned()))
    );
    // What a collection's calls were answered goes with it.
    world.change("ada", UserChange::Create, Some("token-3")).await.unwrap();
    world.store.delete_collection(key("staff")).await.unwrap();
    let model = ModelVersion {
        id: MODEL.to_owned(),
        dimensions: DIMENSIONS,
    };
    world.store.create_collection(key("staff"), model).await.unwrap();
    world.change("ada", UserChange::Create, Some("token-3")).await.unwrap();
    assert_eq!(world.users().len(), 1);
}

/// A file of layout 1, as the first version of this program made it.
const LAYOUT_1: &str = "
    CREATE TABLE collections (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
        model TEXT NOT NULL, dimensions INTEGER NOT NULL, created_ms INTEGER NOT NULL,
        UNIQUE (account, region, name)
    ) STRICT;
    CREATE TABLE faces (
        collection INTEGER NOT NULL, slot INTEGER NOT NULL,
        face_id BLOB NOT NULL, image_id BLOB NOT NULL, external_image_id TEXT,
        box_left REAL NOT NULL, box_top REAL NOT NULL, box_width REAL NOT NULL, box_height REAL NOT NULL,
        confidence REAL NOT NULL, created_ms INTEGER NOT NULL,
        PRIMARY KEY (collection, slot)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE blocks (
        id INTEGER PRIMARY KEY,
        collection INTEGER NOT NULL, first_slot INTEGER NOT NULL, data BLOB NOT NULL,
        UNIQUE (collection, first_slot)
    ) STRICT;
    INSERT INTO collections VALUES (1, '000000000000', 'us-west-2', 'staff', 'test-model', 64, 1);
    INSERT INTO faces VALUES (1, 0, x'000102030405060708090a0b0c0d0e0f', x'101112131415161718191a1b1c1d1e1f', 'ada',
        0.1, 0.1, 0.2, 0.2, 99.0, 1);
    INSERT INTO blocks VALUES (1, 1, 0, zeroblob(36864));
    PRAGMA user_version = 1;
";

#[tokio::test]
async fn a_file_of_the_first_layout_gets_users() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("faces.db");
    {
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch(LAYOUT_1).unwrap();
        let mut blob = old.blob_open("main", "blocks", "data", 1, false).unwrap();
        // A vector of unit length along the first axis, in slot 0 behind the head of a page.
        blob.write_at(&1.0f32.to_le_bytes(), 4096).unwrap();
    }
    let open = |path: &Path| FaceStore::open(path, ManualClock::at(Timestamp::from_millis(2))).unwrap();
    for round in ["first", "second"] {
        let store = open(&path);
        let face = FaceId::parse("00010203-0405-0607-0809-0a0b0c0d0e0f").unwrap();
        if round == "first" {
            store
                .change_user(key("staff"), "ada".to_owned(), UserChange::Create, None)
                .await
                .unwrap();
            let faces = associate(&[face], 75.0);
            store
                .change_user(key("staff"), "ada".to_owned(), faces, None)
                .await
                .unwrap();
        }
        let mut probe = vec![0.0; DIMENSIONS];
        probe[0] = 1.0;
        let found = store.search_users(&key("staff"), MODEL, &probe, 80.0, 1).unwrap();
        assert_eq!((&*found[0].user.name, found[0].similarity), ("ada", 100.0), "{round}");
    }
}
