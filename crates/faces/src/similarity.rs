//! Cosine to `Similarity` and back.
//!
//! A user of AWS thinks in percent: 80 is the default threshold, 99 is advised where a mistake hurts. The points of a
//! [`Scale`] give those numbers a meaning for one model: at 80, 90, 95 and 99 one impostor pair in 10^3, 10^4, 10^5 and
//! 10^6 is taken for a match, and at 70 the pairs protocol has its best accuracy. Between two points the scale is linear.
//! The points of [`Scale::default`] were measured for SFace on LFW (7,701 images, 29.6 million impostor pairs);
//! `sightglass faces eval --calibrate` measures those of another model. `docs/reference/accuracy.md` states the method.

use std::collections::HashMap;
use std::sync::Arc;

use crate::vectors::{cosine, normalised};

/// Cosine and the similarity it stands for, both ascending: SFace's.
const SFACE: [(f32, f32); 7] = [
    (0.0, 0.0),
    (0.334, 70.0),
    (0.358, 80.0),
    (0.415, 90.0),
    (0.465, 95.0),
    (0.545, 99.0),
    (1.0, 100.0),
];

/// What the cosines of one model mean. Copies share the points.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    points: Arc<[(f32, f32)]>,
}

impl Default for Scale {
    fn default() -> Self {
        Scale { points: SFACE.into() }
    }
}

impl Scale {
    /// A scale through these points of cosine and similarity, from (0, 0) to (1, 100). `None` unless both numbers rise
    /// from point to point within those ends.
    pub fn new(points: &[(f32, f32)]) -> Option<Scale> {
        let (first, last) = ((0.0, 0.0), (1.0, 100.0));
        let inner = points.iter().copied().filter(|point| *point != first && *point != last);
        let all: Vec<(f32, f32)> = std::iter::once(first).chain(inner).chain([last]).collect();
        let rises = |two: &[(f32, f32)]| matches!(two, [(x0, y0), (x1, y1)] if x0 < x1 && y0 < y1);
        all.windows(2).all(rises).then(|| Scale { points: all.into() })
    }

    /// The similarity, 0 to 100, of two faces whose vectors have this cosine. Monotone; 0 for a cosine of 0 or less.
    pub fn similarity(&self, cosine: f32) -> f32 {
        interpolate(cosine, self.points.iter().copied())
    }

    /// The smallest cosine that stands for at least this similarity; -1 (everything) for a similarity of 0 or less.
    pub fn cosine(&self, similarity: f32) -> f32 {
        if similarity <= 0.0 || similarity.is_nan() {
            return -1.0;
        }
        interpolate(
            similarity,
            self.points.iter().map(|&(cosine, percent)| (percent, cosine)),
        )
    }

    /// The similarity of two faces by the vectors that the scale's model made of them; `None` if they are of different
    /// length, or one of them has no length at all.
    pub fn between(&self, a: &[f32], b: &[f32]) -> Option<f32> {
        if a.len() != b.len() {
            return None;
        }
        let (a, b) = (normalised(a)?, normalised(b)?);
        Some(self.similarity(cosine(&a, &b)))
    }
}

/// The scales of the models whose vectors a server may hold, by the models' ids.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    by_model: HashMap<String, Scale>,
}

impl Scales {
    /// The scale of a model. One that was never calibrated has [`Scale::default`], whose numbers mean nothing for it.
    pub fn of(&self, model: &str) -> Scale {
        self.by_model.get(model).cloned().unwrap_or_default()
    }
}

impl FromIterator<(String, Scale)> for Scales {
    fn from_iter<I: IntoIterator<Item = (String, Scale)>>(scales: I) -> Self {
        Scales {
            by_model: scales.into_iter().collect(),
        }
    }
}

/// Linear between neighbours, flat beyond the ends.
fn interpolate(x: f32, points: impl Iterator<Item = (f32, f32)>) -> f32 {
    let mut before: Option<(f32, f32)> = None;
    for (x1, y1) in points {
        if x.is_nan() || x <= x1 {
            return before.map_or(y1, |(x0, y0)| y0 + (y1 - y0) * ((x - x0) / (x1 - x0)));
        }
        before = Some((x1, y1));
    }
    before.map_or(0.0, |(_, y)| y)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_hit_and_the_ends_are_flat() {
        let other = [(0.2, 80.0), (0.3, 90.0)];
        for (scale, points) in [(Scale::default(), &SFACE[..]), (Scale::new(&other).unwrap(), &other)] {
            for (cosine, percent) in points {
                assert!((scale.similarity(*cosine) - percent).abs() < 1e-4, "{cosine}");
            }
            assert_eq!((scale.similarity(-0.5), scale.similarity(1.5)), (0.0, 100.0));
            assert_eq!(
                (scale.cosine(0.0), scale.cosine(-3.0), scale.cosine(101.0)),
                (-1.0, -1.0, 1.0)
            );
        }
    }

    #[test]
    fn a_threshold_admits_exactly_the_cosines_at_or_above_its_inverse() {
        let scale = Scale::default();
        let mut last = -1.0;
        for step in 0..=10_000 {
            let cosine = step as f32 / 10_000.0;
            let similarity = scale.similarity(cosine);
            assert!(similarity >= last, "not monotone at {cosine}");
            last = similarity;
            if similarity > 0.0 {
                assert!((scale.cosine(similarity) - cosine).abs() < 2e-3, "{cosine}");
            }
        }
    }

    #[test]
    fn points_that_do_not_rise_are_no_scale() {
        for wrong in [
            &[(0.3, 80.0), (0.2, 90.0)][..],
            &[(0.3, 80.0), (0.4, 80.0)],
            &[(0.3, 120.0)],
            &[(-0.1, 5.0)],
            &[(f32::NAN, 5.0)],
        ] {
            assert_eq!(Scale::new(wrong), None, "{wrong:?}");
        }
        assert_eq!(Scale::new(&SFACE), Some(Scale::default()));
    }

    #[test]
    fn a_model_without_a_scale_has_the_default_one() {
        let mine = Scale::new(&[(0.2, 80.0)]).unwrap();
        let scales = Scales::from_iter([("mine".to_owned(), mine.clone())]);
        assert_eq!((scales.of("mine"), scales.of("other")), (mine, Scale::default()));
    }
}
