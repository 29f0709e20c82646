//! From a picture to its faces: scale, detect, measure, and embed all faces or, with a tracker, those that are worth it.

use vision::limits::MAX_FACES;
use vision::{BoundingBox, DetectedObject, Face, Landmarks, Point, Pose, Quality};

use crate::align::{SIDE, Similarity, TEMPLATE, crop, sample};
use crate::attributes::Attributes;
use crate::codec::{Scaler, View};
use crate::detect::{Detection, InputShape, SCORE_MIN, suppress};
use crate::engine::{Engine, EngineError};
use crate::halve::halve;
use crate::labels::Labels;
use crate::measure::{Patch, pose};
use crate::track::{Seen, Tracker};

/// Faces narrower than this in the picture are not embedded for a track: SFace sees 112 pixels.
const EMBED_WIDTH_MIN: f32 = 20.0;

/// A still image is searched at both of these longer sides: large faces at the small one, small faces at the large one.
const IMAGE_SIDES: [usize; 2] = [640, 1_600];

/// The second look at a still face: an upright square of so many pixels, of which the aligned face fills this share. The
/// landmarks found in it vary less than those of the whole picture, whatever the face's size was there.
const LOOK_SIDE: usize = 256;
/// See [`LOOK_SIDE`].
const LOOK_SHARE: f32 = 0.5;
/// The score that is enough there, where it is known that there is a face.
const LOOK_SCORE_MIN: f32 = 0.6;
/// How far from its place the middle of the landmarks may be, as a share of the square: beyond it is another face.
const LOOK_SHIFT_MAX: f32 = 0.12;

/// The networks and the buffers that every picture uses again.
pub struct Analyser {
    engine: Engine,
    attributes: Option<Attributes>,
    labels: Option<Labels>,
    scaler: Scaler,
    bgr: Vec<u8>,
    input: Vec<f32>,
    crop: Vec<f32>,
}

/// What is wanted of each face beyond where it is.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Its vector.
    pub embed: bool,
    /// Its attributes, if their models are loaded.
    pub attributes: bool,
}

impl Analyser {
    /// Around a loaded engine.
    pub fn new(engine: Engine, attributes: Option<Attributes>, labels: Option<Labels>) -> Analyser {
        Analyser {
            engine,
            attributes,
            labels,
            scaler: Scaler::new(),
            bgr: Vec::new(),
            input: Vec::new(),
            crop: vec![0.0; 3 * SIDE * SIDE],
        }
    }

    /// Numbers in a vector.
    pub fn embedding_len(&self) -> usize {
        self.engine.embedding_len()
    }

    /// The detections at one size of input, best first.
    fn detect(&mut self, view: &View<'_>, side: usize) -> Result<Vec<Detection>, EngineError> {
        let shape = InputShape::new(view.width(), view.height(), side);
        self.input.resize(shape.len(), 0.0);
        if !halve(view, &shape, &mut self.input) {
            if self
                .scaler
                .to_bgr(view, shape.width, shape.height, &mut self.bgr)
                .is_err()
            {
                return Ok(Vec::new());
            }
            shape.fill(&self.bgr, &mut self.input);
        }
        let mut found = self.engine.detect(&self.input, &shape, SCORE_MIN)?;
        found.truncate(MAX_FACES);
        Ok(found)
    }

    fn embed(&mut self, view: &View<'_>, detection: &Detection) -> Result<Option<Vec<f32>>, EngineError> {
        if !crop(view, &detection.points, &mut self.crop) {
            return Ok(None);
        }
        self.engine.embed(&mut self.crop).map(Some)
    }

    /// For a track, which is embedded seldom.
    fn embed_tracked(&mut self, view: &View<'_>, detection: &Detection) -> Result<Option<Vec<f32>>, EngineError> {
        let points = self.second_look(view, &detection.points)?.unwrap_or(detection.points);
        let again = Detection { points, ..*detection };
        self.embed(view, &again)
    }

    /// For a still image, which has one chance only where a track has many.
    fn embed_still(&mut self, view: &View<'_>, detection: &Detection) -> Result<Option<Vec<f32>>, EngineError> {
        let points = self.second_look(view, &detection.points)?.unwrap_or(detection.points);
        if !crop(view, &points, &mut self.crop) {
            return Ok(None);
        }
        self.engine.embed_both_sides(&mut self.crop).map(Some)
    }

    /// The landmarks as they are found in a square around the face; `None` where none is found at the face's place.
    fn second_look(
        &mut self,
        view: &View<'_>,
        points: &[(f32, f32); 5],
    ) -> Result<Option<[(f32, f32); 5]>, EngineError> {
        let Some(to_picture) = Similarity::face_square(points, LOOK_SIDE, LOOK_SHARE) else {
            return Ok(None);
        };
        let shape = InputShape::new(LOOK_SIDE, LOOK_SIDE, LOOK_SIDE);
        self.input.resize(shape.len(), 0.0);
        sample(view, &to_picture, LOOK_SIDE, &mut self.input);
        // The detector takes blue first.
        let (red, rest) = self.input.split_at_mut(LOOK_SIDE * LOOK_SIDE);
        red.swap_with_slice(rest.split_at_mut(LOOK_SIDE * LOOK_SIDE).1);
        let found = self.engine.detect(&self.input, &shape, LOOK_SCORE_MIN)?;
        let middle = |points: &[(f32, f32); 5]| {
            points
                .iter()
                .fold((0.0, 0.0), |sum, p| (sum.0 + p.0 / 5.0, sum.1 + p.1 / 5.0))
        };
        let expected = middle(&TEMPLATE.map(in_square));
        let near = |found: &&Detection| {
            let at = middle(&found.points);
            (at.0 - expected.0).abs().max((at.1 - expected.1).abs()) < LOOK_SHIFT_MAX * LOOK_SIDE as f32
        };
        Ok(found
            .iter()
            .find(near)
            .map(|found| found.points.map(|point| to_picture.apply(point))))
    }

    /// The objects of a picture, surest first; none where their model is not loaded.
    pub fn objects(&mut self, view: &View<'_>) -> Result<Vec<DetectedObject>, EngineError> {
        match &mut self.labels {
            Some(labels) => labels.of(view, &mut self.scaler),
            None => Ok(Vec::new()),
        }
    }

    /// The faces of a still image, largest box first.
    pub fn image(&mut self, view: &View<'_>, wanted: Wanted) -> Result<Vec<Face>, EngineError> {
        let longer = view.width().max(view.height());
        let [small, large] = IMAGE_SIDES;
        let mut found = self.detect(view, small)?;
        if longer > small {
            found.extend(self.detect(view, large)?);
            found = suppress(found);
        }
        found.sort_by(|a, b| (b.area[2] * b.area[3]).total_cmp(&(a.area[2] * a.area[3])));
        found.truncate(MAX_FACES);
        let others = Wanted { embed: false, ..wanted };
        let mut faces = self.untracked(view, &found, others)?;
        if wanted.embed {
            for (face, detection) in faces.iter_mut().zip(&found) {
                face.embedding = self.embed_still(view, detection)?;
            }
        }
        Ok(faces)
    }

    /// The faces of a video picture, best first. With a tracker those are embedded that are worth it, whatever is wanted.
    pub fn video(
        &mut self,
        view: &View<'_>,
        side: usize,
        time_ms: i64,
        tracker: Option<&mut Tracker>,
        wanted: Wanted,
    ) -> Result<Vec<Face>, EngineError> {
        let found = self.detect(view, side)?;
        let Some(tracker) = tracker else {
            return self.untracked(view, &found, wanted);
        };
        let mut faces = self.tracked(view, &found, time_ms, tracker)?;
        if wanted.attributes {
            self.tell_attributes(view, &found, &mut faces)?;
        }
        Ok(faces)
    }

    /// Adds the attributes, if their models are loaded.
    fn tell_attributes(&mut self, view: &View<'_>, found: &[Detection], faces: &mut [Face]) -> Result<(), EngineError> {
        let Some(attributes) = &mut self.attributes else {
            return Ok(());
        };
        for (face, detection) in faces.iter_mut().zip(found) {
            face.attributes = attributes.of(view, &detection.points)?.map(Box::new);
        }
        Ok(())
    }

    fn untracked(&mut self, view: &View<'_>, found: &[Detection], wanted: Wanted) -> Result<Vec<Face>, EngineError> {
        let mut faces = Vec::with_capacity(found.len());
        for detection in found {
            let quality = Patch::new(view, detection.area).quality();
            let mut face = describe(view, detection, pose(&detection.points), quality);
            if wanted.embed {
                face.embedding = self.embed(view, detection)?;
            }
            faces.push(face);
        }
        if wanted.attributes {
            self.tell_attributes(view, found, &mut faces)?;
        }
        Ok(faces)
    }

    fn tracked(
        &mut self,
        view: &View<'_>,
        found: &[Detection],
        time_ms: i64,
        tracker: &mut Tracker,
    ) -> Result<Vec<Face>, EngineError> {
        let mut faces = Vec::with_capacity(found.len());
        let mut seen = Vec::with_capacity(found.len());
        for detection in found {
            let patch = Patch::new(view, detection.area);
            let (pose, quality) = (pose(&detection.points), patch.quality());
            faces.push(describe(view, detection, pose, quality));
            seen.push(Seen {
                detection: *detection,
                signature: patch.signature(),
                worth: worth(detection, pose, quality),
            });
        }
        let linked = tracker.update(time_ms, &seen, |index| match found.get(index) {
            Some(detection) => self.embed_tracked(view, detection),
            None => Ok(None),
        })?;
        for (face, track) in faces.iter_mut().zip(linked) {
            face.track_id = Some(track.id);
            face.embedding_revision = track.revision;
            face.embedding = track.vector;
        }
        Ok(faces)
    }
}

/// A point of the aligned crop in the square of the second look.
fn in_square((x, y): (f32, f32)) -> (f32, f32) {
    let factor = LOOK_SIDE as f32 / SIDE as f32 * LOOK_SHARE;
    let margin = LOOK_SIDE as f32 * (1.0 - LOOK_SHARE) / 2.0;
    (x * factor + margin, y * factor + margin)
}

/// How much a face's vector is worth against others of its track, 0 to 1: large, frontal, sharp and surely a face.
fn worth(detection: &Detection, pose: Pose, quality: Quality) -> f32 {
    let width = detection.area[2];
    if width < EMBED_WIDTH_MIN {
        return 0.0;
    }
    let size = (width / SIDE as f32).min(1.0);
    let frontal = pose.yaw.to_radians().cos().max(0.0) * pose.pitch.to_radians().cos().max(0.0);
    let sharp = 0.4 + 0.6 * quality.sharpness / 100.0;
    (size * frontal * frontal * sharp * detection.score).max(0.01)
}

fn describe(view: &View<'_>, detection: &Detection, pose: Pose, quality: Quality) -> Face {
    let (width, height) = (view.width() as f32, view.height() as f32);
    let [left, top, w, h] = detection.area;
    let [eye_left, eye_right, nose, mouth_left, mouth_right] = detection.points.map(|(x, y)| Point {
        x: x / width,
        y: y / height,
    });
    Face {
        bounding_box: BoundingBox {
            left: left / width,
            top: top / height,
            width: w / width,
            height: h / height,
        },
        confidence: detection.score * 100.0,
        landmarks: Landmarks {
            eye_left,
            eye_right,
            nose,
            mouth_left,
            mouth_right,
        },
        pose,
        quality,
        ..Face::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(width: f32) -> Detection {
        Detection {
            score: 0.9,
            area: [0.0, 0.0, width, width],
            ..Detection::default()
        }
    }

    #[test]
    fn a_large_frontal_sharp_face_is_worth_more() {
        let sharp = Quality {
            brightness: 50.0,
            sharpness: 90.0,
        };
        let blurred = Quality {
            brightness: 50.0,
            sharpness: 5.0,
        };
        let turned = Pose {
            yaw: 60.0,
            ..Pose::default()
        };
        let best = worth(&detection(120.0), Pose::default(), sharp);
        assert!(best > 0.8);
        assert!(worth(&detection(120.0), turned, sharp) < best / 2.0);
        assert!(worth(&detection(40.0), Pose::default(), sharp) < best / 2.0);
        assert!(worth(&detection(120.0), Pose::default(), blurred) < best / 1.5);
        assert_eq!(worth(&detection(15.0), Pose::default(), sharp), 0.0);
    }
}
