//! What can be said of a face beyond where it is: the mesh of its points, age, gender and expression. Four networks, loaded
//! in the workers that are asked for attributes alone. How well each does is measured in docs/reference/accuracy.md.

use std::path::Path;

use ort::session::Session;
use ort::value::TensorRef;
use vision::manifest::AttributeModels;
use vision::{FaceAttributes, FaceMesh, Point};

use crate::align::{Similarity, sample};
use crate::codec::View;
use crate::engine::{Engine, EngineError, wrong};
use crate::mesh::{EYE_SIDE, Eye, FIRST_SHARE, Mesh, SIDE, eyes_open};

/// A mesh that the network gives less than this is none: profiles, and what is no face.
const PRESENCE_MIN: f32 = 0.5;

/// Side of HSE-FaceRes's picture, and how much of it ArcFace's crop fills: of 0.6 to 1 the share that told the genders of
/// the faces of accuracy.md most surely and their ages best.
const AGE_SIDE: usize = 224;
const AGE_SHARE: f32 = 0.9;

/// Means of blue, green and red that are taken from the picture, in this order, as where HSE-FaceRes was trained (VGG-Face's).
/// With red, green and blue of 0 to 255 it misses the known ages of accuracy.md by 10 years after the calibration, so by 4.
const AGE_MEANS: [f32; 3] = [103.939, 116.779, 123.68];

/// Side of the expression's picture; ArcFace's crop fills it: of 0.8 to 1.45 the share that told most expressions of
/// accuracy.md.
const EMOTION_SIDE: usize = 64;

/// The networks and the buffers that every face uses again.
pub struct Attributes {
    mesh: Session,
    iris: Session,
    age_gender: Session,
    emotion: Session,
    square: Vec<f32>,
}

impl Attributes {
    /// Loads the models of a folder and runs each once.
    pub fn load(engine: &Engine, folder: &Path, files: &AttributeModels) -> Result<Attributes, EngineError> {
        let open = |component: &vision::manifest::Component| engine.open(&folder.join(&component.file));
        let mut attributes = Attributes {
            mesh: open(&files.mesh)?,
            iris: open(&files.iris)?,
            age_gender: open(&files.age_gender)?,
            emotion: open(&files.emotion)?,
            square: Vec::new(),
        };
        attributes.warm_up()?;
        Ok(attributes)
    }

    fn warm_up(&mut self) -> Result<(), EngineError> {
        let grey = vec![0.5; 3 * AGE_SIDE * AGE_SIDE];
        let of = |side: usize, channels: usize| grey.get(..channels * side * side).unwrap_or_default();
        run(&mut self.mesh, of(SIDE, 3), [3, SIDE], ["mesh", "presence"])?;
        run(&mut self.iris, of(EYE_SIDE, 3), [3, EYE_SIDE], ["iris"])?;
        run(&mut self.age_gender, of(AGE_SIDE, 3), [3, AGE_SIDE], ["male", "age"])?;
        run(&mut self.emotion, of(EMOTION_SIDE, 1), [1, EMOTION_SIDE], ["emotion"])?;
        Ok(())
    }

    /// Of the face with these five points; `None` when they coincide.
    pub fn of(&mut self, view: &View<'_>, points: &[(f32, f32); 5]) -> Result<Option<FaceAttributes>, EngineError> {
        let squares = (
            Similarity::face_square(points, SIDE, FIRST_SHARE),
            Similarity::face_square(points, AGE_SIDE, AGE_SHARE),
            Similarity::face_square(points, EMOTION_SIDE, 1.0),
        );
        let (Some(first), Some(age), Some(emotion)) = squares else {
            return Ok(None);
        };
        let (male, age) = self.age_and_gender(view, &age)?;
        let emotions = self.emotions(view, &emotion)?;
        let mesh = self.mesh(view, &first)?;
        Ok(Some(FaceAttributes {
            age,
            male,
            emotions,
            mesh,
        }))
    }

    /// Samples the square of a picture into the buffer, values 0 to 255.
    fn take(&mut self, view: &View<'_>, to_picture: &Similarity, side: usize) {
        self.square.clear();
        self.square.resize(3 * side * side, 0.0);
        sample(view, to_picture, side, &mut self.square);
    }

    fn take_scaled(&mut self, view: &View<'_>, to_picture: &Similarity, side: usize) {
        self.take(view, to_picture, side);
        self.square.iter_mut().for_each(|value| *value /= 255.0);
    }

    fn fit(&mut self, view: &View<'_>, to_picture: &Similarity) -> Result<Option<Mesh>, EngineError> {
        self.take_scaled(view, to_picture, SIDE);
        let [mesh, presence] = run(&mut self.mesh, &self.square, [3, SIDE], ["mesh", "presence"])?;
        let present = presence.first().is_some_and(|presence| *presence >= PRESENCE_MIN);
        Ok(Mesh::new(&mesh, to_picture).filter(|_| present))
    }

    fn mesh(&mut self, view: &View<'_>, first: &Similarity) -> Result<Option<FaceMesh>, EngineError> {
        let Some(mesh) = self.fit(view, first)? else {
            return Ok(None);
        };
        let Some(mesh) = self.fit(view, &mesh.square())? else {
            return Ok(None);
        };
        let [left, right] = mesh.eye_squares();
        let (Some(left), Some(right)) = (self.eye(view, &left, true)?, self.eye(view, &right, false)?) else {
            return Ok(None);
        };
        let eyes = [left, right];
        let (width, height) = (view.width() as f32, view.height() as f32);
        Ok(Some(FaceMesh {
            points: mesh.landmarks(&eyes).map(|(x, y)| Point {
                x: x / width,
                y: y / height,
            }),
            eyes_open: eyes_open(&eyes),
            mouth_open: mesh.mouth_open(),
        }))
    }

    /// The network knows eyes of the picture's right side; others are shown to it mirrored.
    fn eye(&mut self, view: &View<'_>, to_picture: &Similarity, mirrored: bool) -> Result<Option<Eye>, EngineError> {
        self.take_scaled(view, to_picture, EYE_SIDE);
        if mirrored {
            self.square.chunks_exact_mut(EYE_SIDE).for_each(<[f32]>::reverse);
        }
        let [answer] = run(&mut self.iris, &self.square, [3, EYE_SIDE], ["iris"])?;
        Ok(Eye::new(&answer, to_picture, mirrored))
    }

    /// The share for a man, and years.
    fn age_and_gender(&mut self, view: &View<'_>, to_picture: &Similarity) -> Result<(f32, f32), EngineError> {
        self.take(view, to_picture, AGE_SIDE);
        let (red, rest) = self.square.split_at_mut(AGE_SIDE * AGE_SIDE);
        let (_, blue) = rest.split_at_mut(AGE_SIDE * AGE_SIDE);
        red.swap_with_slice(blue);
        for (plane, mean) in self.square.chunks_exact_mut(AGE_SIDE * AGE_SIDE).zip(AGE_MEANS) {
            plane.iter_mut().for_each(|value| *value -= mean);
        }
        let [male, ages] = run(&mut self.age_gender, &self.square, [3, AGE_SIDE], ["male", "age"])?;
        Ok((share_of(male.first())?, calibrated(expected_age(&ages))))
    }

    fn emotions(&mut self, view: &View<'_>, to_picture: &Similarity) -> Result<[f32; 7], EngineError> {
        self.take_scaled(view, to_picture, EMOTION_SIDE);
        let (red, rest) = self.square.split_at(EMOTION_SIDE * EMOTION_SIDE);
        let (green, blue) = rest.split_at(EMOTION_SIDE * EMOTION_SIDE);
        let luma = red.iter().zip(green).zip(blue);
        // ITU-R BT.601's luma, then -1 to 1.
        let grey: Vec<f32> = luma
            .map(|((r, g), b)| 2.0 * (0.299 * r + 0.587 * g + 0.114 * b) - 1.0)
            .collect();
        let [answer] = run(&mut self.emotion, &grey, [1, EMOTION_SIDE], ["emotion"])?;
        let mut emotions = [0.0; 7];
        for (emotion, answer) in emotions.iter_mut().zip(&answer) {
            *emotion = share_of(Some(answer))?;
        }
        Ok(emotions)
    }
}

/// Runs a network that takes one picture of `channels` and `side`, and gives the named outputs.
fn run<const N: usize>(
    session: &mut Session,
    picture: &[f32],
    [channels, side]: [usize; 2],
    names: [&str; N],
) -> Result<[Vec<f32>; N], EngineError> {
    let tensor = TensorRef::from_array_view(([1, channels, side, side], picture)).map_err(wrong)?;
    let outputs = session.run(ort::inputs!["input" => tensor]).map_err(wrong)?;
    let mut answers = [const { Vec::new() }; N];
    for (answer, name) in answers.iter_mut().zip(names) {
        let output = outputs
            .get(name)
            .ok_or_else(|| wrong(format!("a model gave no {name}")))?;
        let (_, values) = output.try_extract_tensor::<f32>().map_err(wrong)?;
        answer.extend_from_slice(values);
    }
    Ok(answers)
}

fn share_of(value: Option<&f32>) -> Result<f32, EngineError> {
    value
        .copied()
        .filter(|value| value.is_finite())
        .ok_or_else(|| wrong("a model gave no number"))
}

/// The expected value of the two likeliest years, as the network's author takes it.
fn expected_age(shares: &[f32]) -> f32 {
    let mut best: Vec<(usize, f32)> = shares
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, s)| s.is_finite())
        .collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1));
    best.truncate(2);
    let sum: f32 = best.iter().map(|(_, share)| share).sum();
    best.iter().map(|(year, share)| *year as f32 * share).sum::<f32>() / sum.max(1e-6)
}

/// The network guesses people of middle age and more too young. The line that fits the faces of known age in accuracy.md.
fn calibrated(age: f32) -> f32 {
    (1.25 * age - 3.0).clamp(0.0, 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_likeliest_years_count_and_the_rest_do_not() {
        let mut shares = vec![0.001; 100];
        shares[40] = 0.3;
        shares[42] = 0.1;
        shares[7] = 0.05;
        assert!((expected_age(&shares) - 40.5).abs() < 1e-3);
        assert_eq!(expected_age(&[]), 0.0);
        assert_eq!(expected_age(&[f32::NAN; 3]), 0.0);
    }

    #[test]
    fn ages_stay_within_a_life() {
        assert_eq!(calibrated(0.0), 0.0);
        assert_eq!(calibrated(99.0), 100.0);
        assert!((calibrated(40.0) - 47.0).abs() < 1e-4);
    }
}
