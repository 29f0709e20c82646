//! Tracks of faces that nobody in the collection resembles. A processor that was told to (`sightglass:keep_unknown`) keeps
//! them beside the collection for some hours, so that they can be looked for.
//!
//! A track is one unknown face, described anew while it goes on. It is written when it has not been seen for a moment,
//! and every few seconds as long as it is; by a task of its own, so that no record waits for it. One that turns out to be
//! known after all is erased again. What was deleted meanwhile is not written a second time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, ResourceName, Timestamp};
use faces::{FaceId, FaceStore, UnknownFace, UnknownSighting};
use parking_lot::Mutex;
use vision::{Face, ImageAnalysis};
use wire::rekognition::QualityFilter;

use super::record::FramePlace;
use super::search::{Searched, Target};
use crate::limits::{
    OPEN_UNKNOWN_TRACKS_MAX, UNKNOWN_FRAMES_MIN, UNKNOWN_TRACK_END, UNKNOWN_TRACK_FORGOTTEN, UNKNOWN_WRITE_INTERVAL,
};
use crate::quality::{rank, shortcomings};
use crate::shapes;
use crate::unknown::About;

/// Where the unknown faces of a run go.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// The processor, whose name is their source.
    pub(crate) processor: ResourceName,
    pub(crate) stream_arn: String,
    pub(crate) target: Target,
    /// How long they are kept.
    pub(crate) hours: u32,
}

/// The unknown faces of one start of a processor; without a [`Destination`] there are none.
pub(crate) struct Keeper {
    clock: Arc<dyn Clock>,
    open: Mutex<Option<Open>>,
}

struct Open {
    destination: Destination,
    /// Ids of tracks start anew with each session.
    session: u64,
    tracks: HashMap<(u64, u64), Track>,
    /// After a failure nothing is written before this time.
    retry_at: Duration,
}

/// A face that is followed.
struct Track {
    face_id: FaceId,
    first_seen: Timestamp,
    last_seen: Timestamp,
    frames: u64,
    vector: Option<Vec<f32>>,
    vector_revision: u32,
    best: Option<Best>,
    known: bool,
    written: Written,
    /// Something is not written yet.
    changed: bool,
    begun: Duration,
    updated: Duration,
}

/// What has become of a track in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Written {
    Never,
    At(Duration),
    /// It was there, and was deleted, enrolled or is known: it is not written again.
    Gone,
}

/// The track's best picture.
struct Best {
    rank: f32,
    rect: faces::Rect,
    confidence: f32,
    about: About,
}

/// Which tracks are to be written.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Those whose time has come.
    Due,
    /// All that have changed.
    Ending,
}

/// What is to be done to the file.
#[derive(Default)]
struct Batch {
    keep: Vec<UnknownSighting>,
    erase: Vec<FaceId>,
}

/// A frame with faces.
pub(crate) struct Sight<'a> {
    pub(crate) place: &'a FramePlace,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) faces: &'a [Searched],
}

impl Keeper {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Keeper {
            clock,
            open: Mutex::new(None),
        }
    }

    /// Keeps unknown faces from now on; those of a run before that are not written yet go to the same place.
    pub(crate) fn begin(&self, destination: Destination) {
        let mut open = self.open.lock();
        match &mut *open {
            Some(open) => {
                open.destination = destination;
                open.session += 1;
            }
            None => {
                *open = Some(Open {
                    destination,
                    session: 0,
                    tracks: HashMap::new(),
                    retry_at: Duration::ZERO,
                });
            }
        }
    }

    /// Ids of tracks start anew.
    pub(crate) fn forget_tracks(&self) {
        if let Some(open) = &mut *self.open.lock() {
            open.session += 1;
        }
    }

    /// Notes a frame. Gives for each face its id as an unknown one, if it is one and has a track.
    pub(crate) fn see(&self, sight: &Sight<'_>) -> Vec<Option<FaceId>> {
        match &mut *self.open.lock() {
            Some(open) => open.see(sight, self.clock.monotonic()),
            None => Vec::new(),
        }
    }

    /// Writes the tracks whose time has come.
    pub(crate) async fn write_due(&self, faces: &FaceStore) {
        self.write(faces, When::Due).await;
    }

    /// Writes what is not written yet, at the end of a run.
    pub(crate) async fn finish(&self, faces: &FaceStore) {
        self.write(faces, When::Ending).await;
    }

    /// What cannot be written for now is tried again after a pause.
    async fn write(&self, faces: &FaceStore, when: When) {
        let now = self.clock.monotonic();
        let Some((destination, batch)) = self.open.lock().as_mut().map(|open| {
            let batch = open.batch(when, now, self.clock.now());
            (open.destination.clone(), batch)
        }) else {
            return;
        };
        let target = destination.target;
        let failed = |error: &faces::FacesError| {
            tracing::warn!(processor = %destination.processor.name, %error, "unknown faces cannot be kept");
            if let Some(open) = &mut *self.open.lock() {
                open.retry_at = now + UNKNOWN_WRITE_INTERVAL;
            }
        };
        if !batch.keep.is_empty() {
            let ids: Vec<FaceId> = batch.keep.iter().map(|sighting| sighting.face.face_id).collect();
            let (key, model) = (target.collection.clone(), target.model.clone());
            match faces.keep_unknown(key, target.collection_id, model, batch.keep).await {
                Ok(gone) => {
                    if let Some(open) = &mut *self.open.lock() {
                        open.note(&ids, &gone, now);
                    }
                }
                Err(error) => failed(&error),
            }
        }
        if !batch.erase.is_empty()
            && let Err(error) = faces.delete_unknown(target.collection, batch.erase).await
        {
            failed(&error);
        }
    }
}

impl Open {
    fn see(&mut self, sight: &Sight<'_>, now: Duration) -> Vec<Option<FaceId>> {
        let mut ids = Vec::with_capacity(sight.faces.len());
        for (face, matches) in sight.faces {
            let Some(track_id) = face.track_id else {
                ids.push(None);
                continue;
            };
            let key = (self.session, track_id);
            if !self.tracks.contains_key(&key) {
                self.make_room();
                let track = Track::new(self.destination.face_id(sight.place, track_id), sight.place, now);
                self.tracks.insert(key, track);
            }
            let id = self.tracks.get_mut(&key).and_then(|track| {
                track.see(face, sight, &self.destination.stream_arn, now);
                track.known |= !matches.is_empty();
                let unknown = matches.is_empty() && face.embedding.is_some();
                unknown.then_some(track.face_id)
            });
            ids.push(id);
        }
        ids
    }

    /// Forgets the track that was seen the longest ago where there are too many.
    fn make_room(&mut self) {
        if self.tracks.len() < OPEN_UNKNOWN_TRACKS_MAX {
            return;
        }
        let oldest = self
            .tracks
            .iter()
            .min_by_key(|(_, track)| track.updated)
            .map(|(key, _)| *key);
        if let Some(track) = oldest.and_then(|key| self.tracks.remove(&key))
            && track.is_to_be_kept()
        {
            tracing::warn!(processor = %self.destination.processor.name, "too many faces at once: one is not kept");
        }
    }

    fn batch(&mut self, when: When, now: Duration, wall: Timestamp) -> Batch {
        let mut batch = Batch::default();
        if when == When::Due && now < self.retry_at {
            return batch;
        }
        let expires = wall.plus_millis(i64::from(self.destination.hours) * 3_600_000);
        for track in self.tracks.values_mut() {
            if track.known && matches!(track.written, Written::At(_)) {
                track.written = Written::Gone;
                batch.erase.push(track.face_id);
            } else if track.is_to_be_kept() && (when == When::Ending || track.is_due(now)) {
                batch.keep.extend(track.sighting(&self.destination, expires));
            }
        }
        let session = self.session;
        self.tracks.retain(|(of, _), track| {
            // A session that is over sees none of its tracks again.
            let over = *of != session || now.saturating_sub(track.updated) >= UNKNOWN_TRACK_FORGOTTEN;
            track.is_to_be_kept() || !over
        });
        batch
    }

    /// These were written, but for those that are gone.
    fn note(&mut self, written: &[FaceId], gone: &[FaceId], now: Duration) {
        for track in self
            .tracks
            .values_mut()
            .filter(|track| written.contains(&track.face_id))
        {
            if gone.contains(&track.face_id) {
                track.written = Written::Gone;
            } else {
                track.written = Written::At(now);
            }
            // What was seen since the batch was made is later than it.
            track.changed = track.updated > now;
        }
    }
}

impl Destination {
    /// The id follows from the first frame that shows the track, so that a frame that is analysed again after a crash
    /// gives the same one.
    fn face_id(&self, place: &FramePlace, track_id: u64) -> FaceId {
        let ResourceName { account, region, name } = &self.processor;
        let (fragment, offset_ms) = (place.fragment, place.offset_ms);
        FaceId::of_sighting(
            *account,
            &format!("{region}\n{name}\n{fragment}\n{offset_ms}\n{track_id}"),
        )
    }
}

impl Track {
    fn new(face_id: FaceId, place: &FramePlace, now: Duration) -> Self {
        Track {
            face_id,
            first_seen: place.time(),
            last_seen: place.time(),
            frames: 0,
            vector: None,
            vector_revision: 0,
            best: None,
            known: false,
            written: Written::Never,
            changed: false,
            begun: now,
            updated: now,
        }
    }

    fn see(&mut self, face: &Face, sight: &Sight<'_>, stream_arn: &str, now: Duration) {
        self.frames += 1;
        self.last_seen = self.last_seen.max(sight.place.time());
        self.updated = now;
        self.changed = true;
        if self.vector.is_none() || self.vector_revision != face.embedding_revision {
            self.vector.clone_from(&face.embedding);
            self.vector_revision = face.embedding_revision;
        }
        let picture = ImageAnalysis {
            width: sight.width,
            height: sight.height,
            faces: Vec::new(),
        };
        let rank = rank(face);
        let better = self.best.as_ref().is_none_or(|best| rank > best.rank);
        if better && shortcomings(face, &picture, QualityFilter::Auto).is_empty() {
            self.best = Some(Best {
                rank,
                rect: shapes::rect(&face.bounding_box),
                confidence: face.confidence,
                about: About::of(face, sight.place, stream_arn),
            });
        }
    }

    /// Good enough, unknown, and not written as it is. A face of one single frame is too often none.
    fn is_to_be_kept(&self) -> bool {
        let good = self.frames >= UNKNOWN_FRAMES_MIN && self.best.is_some() && self.vector.is_some();
        good && self.changed && !self.known && self.written != Written::Gone
    }

    fn is_due(&self, now: Duration) -> bool {
        let last = match self.written {
            Written::At(at) => at,
            Written::Never | Written::Gone => self.begun,
        };
        now.saturating_sub(self.updated) >= UNKNOWN_TRACK_END || now.saturating_sub(last) >= UNKNOWN_WRITE_INTERVAL
    }

    fn sighting(&self, destination: &Destination, expires: Timestamp) -> Option<UnknownSighting> {
        let best = self.best.as_ref()?;
        Some(UnknownSighting {
            face: UnknownFace {
                face_id: self.face_id,
                source: destination.processor.name.as_str().into(),
                first_seen: self.first_seen,
                last_seen: self.last_seen,
                expires,
                rect: best.rect,
                confidence: best.confidence,
                about: best.about.to_text(self.frames).into(),
            },
            vector: self.vector.clone()?,
            seen_before: self.written != Written::Never,
        })
    }
}

#[cfg(test)]
mod tests {
    use base::{AccountId, ManualClock};
    use storage::FragmentNumber;

    use super::*;

    const MODEL: &str = "m";

    fn name(name: &str) -> ResourceName {
        ResourceName {
            account: AccountId::DEFAULT,
            region: "us-west-2".parse().unwrap(),
            name: name.to_owned(),
        }
    }

    struct World {
        clock: Arc<ManualClock>,
        faces: FaceStore,
        keeper: Keeper,
        offset_ms: f64,
        _directory: tempfile::TempDir,
    }

    impl World {
        async fn new() -> World {
            let directory = tempfile::tempdir().unwrap();
            let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
            let faces = FaceStore::open(&directory.path().join("faces.db"), clock.clone()).unwrap();
            let model = faces::ModelVersion {
                id: MODEL.to_owned(),
                dimensions: 2,
            };
            let info = faces.create_collection(name("staff"), model).await.unwrap();
            let keeper = Keeper::new(clock.clone());
            keeper.begin(Destination {
                processor: name("door"),
                stream_arn: "arn:stream".to_owned(),
                target: Target {
                    collection: name("staff"),
                    collection_id: info.id,
                    model: MODEL.to_owned(),
                    threshold: 80.0,
                },
                hours: 2,
            });
            World {
                clock,
                faces,
                keeper,
                offset_ms: 0.0,
                _directory: directory,
            }
        }

        /// A frame a fifth of a second later that shows one face; `sharpness` makes one picture better than another.
        fn see(&mut self, track: u64, sharpness: f32, known: bool) -> Option<FaceId> {
            self.clock.advance(Duration::from_millis(200));
            self.offset_ms += 200.0;
            let place = FramePlace {
                fragment: FragmentNumber::new(1, 1_700_000_000_000, 7),
                server_timestamp: Timestamp::from_millis(1_700_000_000_500),
                producer_timestamp: Timestamp::from_millis(1_700_000_000_000),
                offset_ms: self.offset_ms,
            };
            let mut face = Face {
                confidence: 99.0,
                track_id: Some(track),
                embedding: Some(vec![1.0, track as f32]),
                ..Face::default()
            };
            face.bounding_box.width = 0.25;
            face.bounding_box.height = 0.5;
            face.quality.brightness = 60.0;
            face.quality.sharpness = sharpness;
            let matches: Vec<faces::FaceMatch> = if known {
                let record = faces::FaceRecord {
                    face_id: FaceId::of_sighting(AccountId::DEFAULT, "known"),
                    image_id: faces::ImageId::derive(AccountId::DEFAULT, &faces::ImageDigest::of(b"")),
                    external_image_id: None,
                    rect: faces::Rect::default(),
                    confidence: 99.0,
                    created: Timestamp::default(),
                    user: None,
                };
                vec![faces::FaceMatch {
                    similarity: 90.0,
                    cosine: 0.5,
                    face: Arc::new(record),
                }]
            } else {
                Vec::new()
            };
            let ids = self.keeper.see(&Sight {
                place: &place,
                width: 640,
                height: 360,
                faces: &[(face, matches.into())],
            });
            ids[0]
        }

        async fn wait(&self, time: Duration) {
            self.clock.advance(time);
            self.keeper.write_due(&self.faces).await;
        }

        fn kept(&self) -> Vec<Arc<UnknownFace>> {
            let filter = faces::UnknownFilter::default();
            self.faces.list_unknown(&name("staff"), &filter, None, 100).unwrap()
        }
    }

    #[tokio::test]
    async fn a_track_is_written_when_it_has_ended_with_its_best_picture_and_only_when_it_was_seen_twice() {
        let mut world = World::new().await;
        let id = world.see(1, 20.0, false).unwrap();
        world.wait(UNKNOWN_TRACK_END).await;
        assert_eq!(world.kept(), [], "one frame may be no face");
        for sharpness in [1.0, 80.0, 30.0] {
            assert_eq!(world.see(1, sharpness, false), Some(id));
        }
        world.wait(Duration::ZERO).await;
        assert_eq!(world.kept(), [], "it goes on");
        world.wait(UNKNOWN_TRACK_END).await;
        let kept = world.kept();
        let [face] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!((face.face_id, &*face.source), (id, "door"));
        let since_start = |time: Timestamp| time.millis() - 1_700_000_000_000;
        assert_eq!((since_start(face.first_seen), since_start(face.last_seen)), (200, 800));
        let about = About::read(&face.about).unwrap();
        assert_eq!(
            (about.frame_offset_in_seconds, about.sharpness, about.frames),
            (0.6, 80.0, 4)
        );
        assert_eq!(face.expires, world.clock.now().plus_millis(2 * 3_600_000));
    }

    #[tokio::test]
    async fn a_track_that_goes_on_is_written_now_and_then_and_at_the_end_of_the_run() {
        let mut world = World::new().await;
        let mut written = Vec::new();
        for _ in 0..60 {
            world.see(1, 50.0, false);
            world.wait(Duration::ZERO).await;
            written.extend(world.kept().first().map(|face| face.last_seen));
        }
        written.dedup();
        assert_eq!(written.len(), 2, "after five and ten of twelve seconds");
        world.keeper.finish(&world.faces).await;
        assert_eq!(world.kept()[0].last_seen.millis() - 1_700_000_000_000, 12_000);
    }

    #[tokio::test]
    async fn whoever_turns_out_to_be_known_is_not_kept_and_erased_again_where_written() {
        let mut world = World::new().await;
        for track in [1, 2, 2] {
            world.see(track, 50.0, false);
        }
        assert_eq!(world.see(1, 50.0, true), None);
        world.wait(UNKNOWN_TRACK_END).await;
        assert_eq!(world.kept().len(), 1, "the second track alone");
        world.see(2, 50.0, true);
        // Its vector got worse: still somebody who is known.
        world.see(2, 50.0, false);
        world.wait(UNKNOWN_TRACK_END).await;
        assert_eq!(world.kept(), []);
    }

    #[tokio::test]
    async fn what_was_deleted_while_it_goes_on_stays_deleted() {
        let mut world = World::new().await;
        world.see(1, 50.0, false);
        let id = world.see(1, 50.0, false).unwrap();
        world.wait(UNKNOWN_TRACK_END).await;
        assert_eq!(world.kept().len(), 1);
        world.faces.delete_unknown(name("staff"), vec![id]).await.unwrap();
        for _ in 0..3 {
            world.see(1, 50.0, false);
            world.wait(UNKNOWN_TRACK_END).await;
            assert_eq!(world.kept(), []);
        }
    }

    #[tokio::test]
    async fn the_same_number_in_another_session_is_another_track_and_too_poor_a_face_is_none() {
        let mut world = World::new().await;
        let first = world.see(1, 50.0, false);
        world.see(1, 50.0, false);
        world.keeper.forget_tracks();
        let second = world.see(1, 50.0, false);
        world.see(1, 50.0, false);
        assert_ne!(first, second);
        // Blurred throughout.
        world.see(3, 0.5, false);
        world.see(3, 0.5, false);
        world.wait(UNKNOWN_TRACK_END).await;
        assert_eq!(world.kept().len(), 2);
        world.wait(UNKNOWN_TRACK_FORGOTTEN).await;
        assert!(world.keeper.open.lock().as_ref().unwrap().tracks.is_empty());
    }
}
