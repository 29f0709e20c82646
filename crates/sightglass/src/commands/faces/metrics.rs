//! What the similarities of many pairs of faces say about a recogniser: error rates, thresholds, the ten-fold protocol.
//!
//! Memory does not grow with the number of pairs: similarities fall into bins of a ten-thousandth of a percent. Knows
//! nothing of faces, files or servers.

use std::collections::HashMap;

/// Bins of one percent of similarity.
const BINS_PER_PERCENT: u32 = 10_000;
const BINS: usize = 100 * BINS_PER_PERCENT as usize + 1;
/// A similarity is a single-precision number; what it lacks to the edge of its bin is noise.
const NOISE: f64 = 0.05;

/// False matches that must be expected at a rate before a threshold for it is stated.
const FALSE_MATCHES_MIN: f64 = 10.0;

/// How often each similarity, 0 to 100, was seen.
pub struct Histogram {
    bins: Vec<u64>,
}

impl Histogram {
    /// Nothing was seen.
    pub fn new() -> Self {
        Histogram { bins: vec![0; BINS] }
    }

    /// Counts one pair.
    pub fn add(&mut self, similarity: f32) {
        let bin = (f64::from(similarity) * f64::from(BINS_PER_PERCENT) + NOISE).max(0.0) as usize;
        if let Some(count) = self.bins.get_mut(bin.min(BINS - 1)) {
            *count += 1;
        }
    }

    /// Pairs at or above a threshold.
    pub fn at_or_above(&self, threshold: f64) -> u64 {
        self.bins.iter().skip(bin_of(threshold)).sum()
    }

    /// The lowest threshold that at most `allowed` pairs reach.
    fn lowest_threshold(&self, allowed: u64) -> f64 {
        let mut reached = 0;
        let mut lowest = BINS;
        for (bin, count) in self.bins.iter().enumerate().rev() {
            reached += count;
            if reached > allowed {
                break;
            }
            lowest = bin;
        }
        lowest as f64 / f64::from(BINS_PER_PERCENT)
    }

    /// The counts of `columns` equal parts of 0 to 100.
    pub fn columns(&self, columns: usize) -> Vec<u64> {
        let width = BINS.div_ceil(columns.max(1));
        self.bins.chunks(width).map(|bins| bins.iter().sum()).collect()
    }
}

fn bin_of(threshold: f64) -> usize {
    (threshold * f64::from(BINS_PER_PERCENT)).round().max(0.0) as usize
}

/// Every pair that was searched. A pair is seen from both of its faces, so all counts here are twice the pairs.
pub struct Tally {
    /// Two faces of one person.
    pub genuine: Histogram,
    /// Two faces of two people.
    pub impostor: Histogram,
    /// Genuine pairs that there are, also those of images without a face.
    pub genuine_total: u64,
    /// Impostor pairs of faces.
    pub impostor_total: u64,
}

/// What a recogniser does at one false-match rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The similarity at which the rate is not exceeded.
    pub similarity: f64,
    /// Genuine pairs that reach it, of all.
    pub true_rate: f64,
    /// Impostor pairs that reach it, of all.
    pub false_rate: f64,
}

impl Tally {
    /// The threshold of a false-match rate; `None` where there are too few impostor pairs to speak of it.
    pub fn at_false_rate(&self, rate: f64) -> Option<Point> {
        // Both views of a pair are one trial.
        if (self.impostor_total / 2) as f64 * rate < FALSE_MATCHES_MIN || self.genuine_total == 0 {
            return None;
        }
        let allowed = (self.impostor_total as f64 * rate) as u64;
        Some(self.at(self.impostor.lowest_threshold(allowed)))
    }

    /// The rates at a threshold.
    pub fn at(&self, similarity: f64) -> Point {
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        Point {
            similarity,
            true_rate: ratio(self.genuine.at_or_above(similarity), self.genuine_total),
            false_rate: ratio(self.impostor.at_or_above(similarity), self.impostor_total),
        }
    }

    /// The curve from the rate that one pair makes to 1, in steps even on a logarithmic scale.
    pub fn curve(&self, steps: usize) -> Vec<Point> {
        if self.impostor_total == 0 || self.genuine_total == 0 {
            return Vec::new();
        }
        let least = (2.0 / self.impostor_total as f64).log10();
        let rates = (0..=steps).map(|step| 10f64.powf(least * (1.0 - step as f64 / steps.max(1) as f64)));
        rates
            .map(|rate| {
                let allowed = (self.impostor_total as f64 * rate).round() as u64;
                let point = self.at(self.impostor.lowest_threshold(allowed));
                Point {
                    false_rate: rate,
                    ..point
                }
            })
            .collect()
    }
}

/// A pair of the ten-fold protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Which part it belongs to.
    pub fold: usize,
    /// Whether both show one person.
    pub same: bool,
    /// 0 for a pair of which one has no face.
    pub similarity: f32,
}

/// What the ten-fold protocol gives.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Folded {
    /// Parts with pairs.
    pub folds: usize,
    /// Pairs of all parts.
    pub pairs: usize,
    /// The mean accuracy over the parts.
    pub accuracy: f64,
    /// Its standard deviation over the parts.
    pub deviation: f64,
    /// The mean of the thresholds that were best on the other parts.
    pub similarity: f64,
}

/// Accuracy as on Labeled Faces in the Wild: each part is judged at the threshold that is best on all others. `None` with
/// fewer than two parts.
pub fn folded(pairs: &[Scored]) -> Option<Folded> {
    let mut parts: HashMap<usize, Vec<&Scored>> = HashMap::new();
    for pair in pairs {
        parts.entry(pair.fold).or_default().push(pair);
    }
    if parts.len() < 2 {
        return None;
    }
    let mut judged: Vec<(f64, f64)> = Vec::with_capacity(parts.len());
    for (fold, part) in &parts {
        let threshold = best_threshold(pairs.iter().filter(|pair| pair.fold != *fold))?;
        let right = part.iter().filter(|pair| (pair.similarity >= threshold) == pair.same);
        judged.push((right.count() as f64 / part.len() as f64, f64::from(threshold)));
    }
    let count = judged.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| judged.iter().map(of).sum::<f64>() / count;
    let accuracy = mean(|fold| fold.0);
    let variance = judged.iter().map(|fold| (fold.0 - accuracy).powi(2)).sum::<f64>() / count;
    Some(Folded {
        folds: judged.len(),
        pairs: pairs.len(),
        accuracy,
        deviation: variance.sqrt(),
        similarity: mean(|fold| fold.1),
    })
}

/// The similarity that parts the pairs with the fewest errors, half-way between two of theirs; of several, the middle one.
fn best_threshold<'a>(pairs: impl Iterator<Item = &'a Scored>) -> Option<f32> {
    let mut sorted: Vec<&Scored> = pairs.collect();
    sorted.sort_by(|a, b| a.similarity.total_cmp(&b.similarity));
    // With a threshold at the lowest similarity everything is a match.
    let mut right = sorted.iter().filter(|pair| pair.same).count();
    let (mut best, mut thresholds): (usize, Vec<f32>) = (0, Vec::new());
    let mut below = None;
    for run in sorted.chunk_by(|a, b| a.similarity == b.similarity) {
        let similarity = run.first()?.similarity;
        let threshold = below.map_or(similarity, |below| f32::midpoint(below, similarity));
        below = Some(similarity);
        if right > best || thresholds.is_empty() {
            (best, thresholds) = (right, vec![threshold]);
        } else if right == best {
            thresholds.push(threshold);
        }
        let same = run.iter().filter(|pair| pair.same).count();
        right = right + (run.len() - same) - same;
    }
    thresholds.get(thresholds.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator that another program can repeat: x = x * 1103515245 + 12345 mod 2^31.
    struct Sequence(u64);

    impl Sequence {
        fn next(&mut self) -> f64 {
            self.0 = (self.0 * 1_103_515_245 + 12_345) % (1 << 31);
            self.0 as f64 / f64::from(1u32 << 31)
        }
    }

    fn tally() -> Tally {
        let mut random = Sequence(42);
        let (mut genuine, mut impostor) = (Histogram::new(), Histogram::new());
        for _ in 0..2_000 {
            let similarity = (100.0 * random.next().powf(0.25) * 1e4).round() / 1e4;
            genuine.add(similarity as f32);
            genuine.add(similarity as f32);
        }
        for _ in 0..20_000 {
            let similarity = (100.0 * random.next().powi(3) * 1e4).round() / 1e4;
            impostor.add(similarity as f32);
            impostor.add(similarity as f32);
        }
        Tally {
            genuine,
            impostor,
            genuine_total: 2 * 2_010,
            impostor_total: 2 * 20_000,
        }
    }

    #[test]
    fn rates_and_thresholds_are_those_of_another_program() {
        let tally = tally();
        let golden: serde_json::Value = serde_json::from_str(include_str!("golden.json")).unwrap();
        for (rate, name) in [(1e-1, "0.1"), (1e-2, "0.01"), (1e-3, "0.001")] {
            let (found, wanted) = (tally.at_false_rate(rate).unwrap(), &golden["rates"][name]);
            let number = |key: &str| wanted[key].as_f64().unwrap();
            // The lowest threshold in steps of a bin; the other program names the lowest similarity above the bound.
            assert!(found.similarity <= number("similarity") + 1e-9, "{rate}: {found:?}");
            assert!(found.similarity > number("next_below") - 1e-9, "{rate}: {found:?}");
            assert!(
                (found.true_rate - number("true_rate")).abs() < 2.0 / 2_010.0,
                "{rate}: {found:?}"
            );
            assert!(
                (found.false_rate - number("false_rate")).abs() < 1e-12,
                "{rate}: {found:?}"
            );
        }
        assert_eq!(
            tally.at_false_rate(1e-4),
            None,
            "2 false matches are too few to speak of"
        );
    }

    #[test]
    fn ten_folds_are_those_of_another_program() {
        let mut random = Sequence(7);
        let mut pairs = Vec::new();
        for index in 0..600 {
            let same = index % 2 == 0;
            let drawn = random.next();
            let similarity = if same { 40.0 + 60.0 * drawn } else { 55.0 * drawn };
            pairs.push(Scored {
                fold: index / 60,
                same,
                similarity: ((similarity * 1e2).round() / 1e2) as f32,
            });
        }
        let golden: serde_json::Value = serde_json::from_str(include_str!("golden.json")).unwrap();
        let found = folded(&pairs).unwrap();
        let near = |value: f64, key: &str| (value - golden["folded"][key].as_f64().unwrap()).abs() < 1e-5;
        assert!(
            near(found.accuracy, "accuracy") && near(found.deviation, "deviation"),
            "{found:?}"
        );
        assert!(near(found.similarity, "similarity"), "{found:?}");
        assert_eq!((found.folds, found.pairs), (10, 600));
        assert_eq!(folded(&pairs[..60]), None, "one part cannot be judged by others");
    }

    #[test]
    fn a_similarity_at_the_threshold_reaches_it() {
        let mut seen = Histogram::new();
        for similarity in [0.0, 79.9999, 80.0, 80.0001, 100.0, 100.5, -3.0] {
            seen.add(similarity);
        }
        assert_eq!(
            (seen.at_or_above(80.0), seen.at_or_above(80.0001), seen.at_or_above(0.0)),
            (4, 3, 7)
        );
        assert_eq!(
            (seen.lowest_threshold(0), seen.lowest_threshold(2)),
            (100.0001, 80.0002)
        );
        assert_eq!(seen.columns(10).iter().sum::<u64>(), 7);
    }

    #[test]
    fn the_curve_rises_to_everything() {
        let curve = tally().curve(40);
        assert_eq!(curve.len(), 41);
        assert!(curve.windows(2).all(|two| two[0].true_rate <= two[1].true_rate));
        assert!((curve[40].false_rate - 1.0).abs() < 1e-9 && curve[40].true_rate > 0.99);
        assert!((curve[0].false_rate - 1.0 / 20_000.0).abs() < 1e-9);
    }
}
