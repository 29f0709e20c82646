//! Cosine to `Similarity` and back.
//!
//! A user of AWS thinks in percent: 80 is the default threshold, 99 is advised where a mistake hurts. The anchors below
//! give those numbers a meaning for SFace, measured on LFW (7,701 images, 29.6 million impostor pairs): at a threshold of
//! 70 the pairs protocol has its best accuracy; at 80, 90, 95 and 99 one impostor pair in 10^3, 10^4, 10^5 and 10^6 is
//! taken for a match. Between two anchors the scale is linear. `docs/reference/accuracy.md` states the method.

use crate::vectors::{cosine, normalised};

/// Cosine and the similarity it stands for, both ascending.
const ANCHORS: [(f32, f32); 7] = [
    (0.0, 0.0),
    (0.334, 70.0),
    (0.358, 80.0),
    (0.415, 90.0),
    (0.465, 95.0),
    (0.545, 99.0),
    (1.0, 100.0),
];

/// The similarity, 0 to 100, of two faces whose vectors have this cosine. Monotone; 0 for a cosine of 0 or less.
pub fn from_cosine(cosine: f32) -> f32 {
    interpolate(cosine, ANCHORS.iter().copied())
}

/// The similarity of two faces by the vectors that one model made of them; `None` if they are of different length, or one
/// of them has no length at all.
pub fn between(a: &[f32], b: &[f32]) -> Option<f32> {
    if a.len() != b.len() {
        return None;
    }
    let (a, b) = (normalised(a)?, normalised(b)?);
    Some(from_cosine(cosine(&a, &b)))
}

/// The smallest cosine that stands for at least this similarity; -1 (everything) for a similarity of 0 or less.
pub fn to_cosine(similarity: f32) -> f32 {
    if similarity <= 0.0 || similarity.is_nan() {
        return -1.0;
    }
    interpolate(similarity, ANCHORS.iter().map(|&(cosine, percent)| (percent, cosine)))
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
mod tests {
    use super::*;

    #[test]
    fn the_anchors_are_hit_and_the_ends_are_flat() {
        for (cosine, percent) in ANCHORS {
            assert!((from_cosine(cosine) - percent).abs() < 1e-4, "{cosine}");
        }
        assert_eq!((from_cosine(-0.5), from_cosine(1.5)), (0.0, 100.0));
        assert_eq!((to_cosine(0.0), to_cosine(-3.0), to_cosine(101.0)), (-1.0, -1.0, 1.0));
    }

    #[test]
    fn a_threshold_admits_exactly_the_cosines_at_or_above_its_inverse() {
        let mut last = -1.0;
        for step in 0..=10_000 {
            let cosine = step as f32 / 10_000.0;
            let similarity = from_cosine(cosine);
            assert!(similarity >= last, "not monotone at {cosine}");
            last = similarity;
            if similarity > 0.0 {
                assert!((to_cosine(similarity) - cosine).abs() < 2e-3, "{cosine}");
            }
        }
    }
}
