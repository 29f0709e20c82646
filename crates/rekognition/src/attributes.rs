//! Which attributes of a face a request wants, and what the models say of them in the shapes of the service model.
//!
//! Beards, moustaches, glasses, occlusion and where the eyes look are told by no permissive model that we know: ALL leaves
//! them out, and a request that names one is refused, since an answer without it would be taken for "no".

use base::ApiError;
use vision::{Abilities, EMOTIONS, Face, FaceAttributes, FaceMesh, MESH_LANDMARKS};
use wire::rekognition::{self as w, Attribute};

use crate::{error, shapes};

/// What can be told beyond the default attributes.
const TOLD: [Attribute; 6] = [
    Attribute::AgeRange,
    Attribute::Emotions,
    Attribute::EyesOpen,
    Attribute::Gender,
    Attribute::MouthOpen,
    Attribute::Smile,
];

/// The half of a range in years, and what comes to it for each year of age. Ours: how many true ages lie within is not
/// known (docs/reference/accuracy.md).
const AGE_SPREAD: f32 = 4.0;
const AGE_SPREAD_PER_YEAR: f32 = 0.1;

/// The attributes that a request wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Those of [`TOLD`], by their place.
    told: [bool; TOLD.len()],
    all: bool,
}

impl Wanted {
    /// Reads `Attributes` or `DetectionAttributes`: DEFAULT, ALL, single ones, mixed; nothing is DEFAULT.
    pub(crate) fn of(attributes: Option<&[Attribute]>, abilities: Abilities) -> Result<Wanted, ApiError> {
        let mut wanted = Wanted::default();
        for attribute in attributes.unwrap_or_default() {
            match attribute {
                Attribute::Default => {}
                Attribute::All => wanted.all = abilities.attributes,
                single => wanted.add(*single, abilities)?,
            }
        }
        Ok(wanted)
    }

    /// All that is told.
    pub(crate) fn all() -> Wanted {
        Wanted {
            all: true,
            ..Wanted::default()
        }
    }

    fn add(&mut self, attribute: Attribute, abilities: Abilities) -> Result<(), ApiError> {
        let place = TOLD.iter().position(|told| *told == attribute);
        let told = place.and_then(|place| self.told.get_mut(place));
        match told.filter(|_| abilities.attributes) {
            Some(told) => {
                *told = true;
                Ok(())
            }
            None if abilities.attributes => {
                let names: Vec<&str> = TOLD.iter().map(|told| told.as_str()).collect();
                Err(error::invalid_parameter(format!(
                    "the attribute {attribute} is told by no model of this server; DEFAULT, ALL, {} are available",
                    names.join(", ")
                )))
            }
            None => Err(error::invalid_parameter(format!(
                "the attribute {attribute} is not available: this server's models were prepared without those of attributes"
            ))),
        }
    }

    /// Whether the models of attributes are needed.
    pub(crate) fn beyond_default(self) -> bool {
        self.all || self.told.contains(&true)
    }

    fn has(self, attribute: Attribute) -> bool {
        let named = TOLD
            .iter()
            .zip(self.told)
            .any(|(told, wanted)| wanted && *told == attribute);
        self.all || named
    }

    /// A face with what is wanted of it. What its models could not tell of it is left out.
    pub(crate) fn detail(self, face: &Face) -> w::FaceDetail {
        let mut detail = shapes::face_detail(face);
        let Some(found) = face.attributes.as_deref() else {
            return detail;
        };
        let of = |attribute: Attribute| self.has(attribute).then_some(found);
        detail.age_range = of(Attribute::AgeRange).map(|found| age_range(found.age));
        detail.gender = of(Attribute::Gender).map(gender);
        detail.emotions = of(Attribute::Emotions).map(emotions);
        detail.smile = of(Attribute::Smile).map(|found| {
            let (value, confidence) = told(happiness(found));
            w::Smile { value, confidence }
        });
        let mesh = |attribute: Attribute| of(attribute).and_then(|found| found.mesh.as_ref());
        detail.eyes_open = mesh(Attribute::EyesOpen).map(|mesh| {
            let (value, confidence) = told(mesh.eyes_open);
            w::EyeOpen { value, confidence }
        });
        detail.mouth_open = mesh(Attribute::MouthOpen).map(|mesh| {
            let (value, confidence) = told(mesh.mouth_open);
            w::MouthOpen { value, confidence }
        });
        if let Some(mesh) = found.mesh.as_ref().filter(|_| self.all) {
            detail.landmarks.get_or_insert_default().extend(landmarks(mesh));
        }
        detail
    }
}

/// Whether it is so, and how surely in percent.
fn told(share: f32) -> (Option<bool>, Option<f32>) {
    let share = share.clamp(0.0, 1.0);
    (Some(share > 0.5), Some(100.0 * share.max(1.0 - share)))
}

fn age_range(age: f32) -> w::AgeRange {
    let spread = AGE_SPREAD + AGE_SPREAD_PER_YEAR * age;
    w::AgeRange {
        low: Some((age - spread).round().max(0.0) as i32),
        high: Some((age + spread).round().max(1.0) as i32),
    }
}

fn gender(found: &FaceAttributes) -> w::Gender {
    let (male, confidence) = told(found.male);
    let value = match male {
        Some(true) => w::GenderType::Male,
        _ => w::GenderType::Female,
    };
    w::Gender {
        value: Some(value),
        confidence,
    }
}

fn named_emotions(found: &FaceAttributes) -> impl Iterator<Item = (w::EmotionName, f32)> {
    let known = |(name, share): (&&str, f32)| Some((name.parse().ok()?, share));
    EMOTIONS.iter().zip(found.emotions).filter_map(known)
}

/// The seven expressions, the surest first.
fn emotions(found: &FaceAttributes) -> Vec<w::Emotion> {
    let mut all: Vec<_> = named_emotions(found).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.into_iter()
        .map(|(name, share)| w::Emotion {
            r#type: Some(name),
            confidence: Some(100.0 * share.clamp(0.0, 1.0)),
        })
        .collect()
}

/// A smile is the expression of happiness: it told smiles better than the mouth's shape did (docs/reference/accuracy.md).
fn happiness(found: &FaceAttributes) -> f32 {
    let mut emotions = named_emotions(found);
    emotions
        .find(|(name, _)| *name == w::EmotionName::Happy)
        .map_or(0.0, |(_, share)| share)
}

fn landmarks(mesh: &FaceMesh) -> impl Iterator<Item = w::Landmark> {
    let known = |(name, point): (&&str, vision::Point)| {
        Some(w::Landmark {
            r#type: Some(name.parse().ok()?),
            x: Some(point.x),
            y: Some(point.y),
        })
    };
    MESH_LANDMARKS.iter().zip(mesh.points).filter_map(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABLE: Abilities = Abilities {
        attributes: true,
        labels: false,
    };

    fn face() -> Face {
        let mesh = FaceMesh {
            points: Default::default(),
            eyes_open: 0.98,
            mouth_open: 0.2,
        };
        let attributes = FaceAttributes {
            age: 40.0,
            male: 0.1,
            emotions: [0.01, 0.0, 0.02, 0.7, 0.07, 0.1, 0.1],
            mesh: Some(mesh),
        };
        Face {
            attributes: Some(Box::new(attributes)),
            ..Face::default()
        }
    }

    #[test]
    fn all_tells_whatever_a_model_tells_and_thirty_landmarks() {
        let detail = Wanted::of(Some(&[Attribute::All, Attribute::Default]), ABLE)
            .unwrap()
            .detail(&face());
        let landmarks = detail.landmarks.unwrap();
        let mut kinds: Vec<_> = landmarks.iter().map(|landmark| landmark.r#type).collect();
        kinds.sort();
        kinds.dedup();
        assert_eq!((landmarks.len(), kinds.len()), (30, w::LandmarkType::ALL.len()));
        let age = detail.age_range.unwrap();
        assert_eq!((age.low, age.high), (Some(32), Some(48)));
        let gender = detail.gender.unwrap();
        assert_eq!(
            (gender.value, gender.confidence),
            (Some(w::GenderType::Female), Some(90.0))
        );
        assert_eq!(detail.smile.unwrap().value, Some(true));
        assert_eq!(detail.eyes_open.unwrap().value, Some(true));
        let mouth = detail.mouth_open.unwrap();
        assert_eq!((mouth.value, mouth.confidence), (Some(false), Some(80.0)));
        let emotions: Vec<_> = detail
            .emotions
            .unwrap()
            .into_iter()
            .map(|emotion| emotion.r#type)
            .collect();
        assert_eq!((emotions.len(), emotions[0]), (7, Some(w::EmotionName::Happy)));
        assert!(detail.beard.is_none() && detail.sunglasses.is_none() && detail.eye_direction.is_none());
    }

    #[test]
    fn a_single_attribute_comes_with_the_default_ones_and_no_other() {
        let wanted = Wanted::of(Some(&[Attribute::Gender]), ABLE).unwrap();
        let detail = wanted.detail(&face());
        assert!(detail.gender.is_some() && detail.age_range.is_none() && detail.emotions.is_none());
        assert_eq!(detail.landmarks.unwrap().len(), 5);
        assert!(wanted.beyond_default() && !Wanted::of(None, ABLE).unwrap().beyond_default());
    }

    #[test]
    fn what_no_model_tells_is_refused_by_name_and_left_out_of_all() {
        for unknown in [
            Attribute::Beard,
            Attribute::Sunglasses,
            Attribute::EyeDirection,
            Attribute::FaceOccluded,
        ] {
            let refused = Wanted::of(Some(&[Attribute::Default, unknown]), ABLE).unwrap_err();
            assert_eq!(refused.code, "InvalidParameterException");
        }
        let unprepared = Abilities::default();
        assert!(Wanted::of(Some(&[Attribute::Gender]), unprepared).is_err());
        let all = Wanted::of(Some(&[Attribute::All]), unprepared).unwrap();
        assert!(!all.beyond_default());
    }

    #[test]
    fn a_profile_without_a_mesh_keeps_what_does_not_need_one() {
        let mut profile = face();
        profile.attributes.as_mut().unwrap().mesh = None;
        let detail = Wanted::of(Some(&[Attribute::All]), ABLE).unwrap().detail(&profile);
        assert!(detail.eyes_open.is_none() && detail.mouth_open.is_none());
        assert!(detail.gender.is_some() && detail.emotions.is_some());
        assert_eq!(detail.landmarks.unwrap().len(), 5);
    }
}
