//! What the cosines of a model mean, out of a measurement: the points of its scale of similarity.

use std::path::Path;

use faces::similarity::Scale;
use vision::manifest::Manifest;

use super::super::{Failure, models};
use super::measure::Measured;
use super::metrics::folded;

/// The similarities that stand for a false-match rate.
const MEANING: [(f64, f64); 4] = [(1e-3, 80.0), (1e-4, 90.0), (1e-5, 95.0), (1e-6, 99.0)];
/// The similarity at which the ten-fold protocol is most often right.
const BEST: f64 = 70.0;
/// Digits of a cosine behind the point: more would be noise.
const DIGITS: f64 = 1e4;

/// Cosine and similarity.
pub type Points = Vec<(f64, f64)>;

/// Writes the calibration of the model that was measured into the folder of models, and gives it.
pub fn write(folder: &Path, measured: &Measured) -> Result<Points, Failure> {
    let manifest = Manifest::read(folder, Some(&measured.model))?;
    // The temporary server measured with the scale that the model has so far.
    let scale = crate::sight::scale(&manifest.embedder).unwrap_or_default();
    let points = points(measured, &scale).ok_or(
        "nothing was calibrated: the folder has too few pairs of two people (10,000 are needed, as some 150 people have), \
         or the model does not tell people apart",
    )?;
    models::add::calibrate(folder, &measured.model, &points)?;
    Ok(points)
}

/// Points that rise in both numbers. Those that the measurement cannot speak of are left out, so that the scale is straight
/// from the last one to 100 and a threshold beyond it is stricter than it says. `None` without the first of [`MEANING`].
fn points(measured: &Measured, scale: &Scale) -> Option<Points> {
    let cosine = |similarity: f64| (f64::from(scale.cosine(similarity as f32)) * DIGITS).round() / DIGITS;
    let mut points = Points::new();
    for (rate, similarity) in MEANING {
        // Below `cut_at` not every pair was seen.
        let point = measured.tally.at_false_rate(rate);
        let Some(point) = point.filter(|point| point.similarity >= f64::from(measured.cut_at)) else {
            break;
        };
        points.push((cosine(point.similarity), similarity));
    }
    let first = points.first()?.0;
    let best = folded(&measured.scored).map(|found| cosine(found.similarity));
    if let Some(best) = best.filter(|best| *best < first) {
        points.insert(0, (best, BEST));
    }
    let as_read: Vec<(f32, f32)> = points.iter().map(|(x, y)| (*x as f32, *y as f32)).collect();
    // Points that are no scale are measurements that contradict each other.
    Scale::new(&as_read).map(|_| points)
}

#[cfg(test)]
mod tests {
    use super::super::metrics::{Histogram, Scored, Tally};
    use super::*;

    fn measured(impostors: u32) -> Measured {
        let (mut genuine, mut impostor) = (Histogram::new(), Histogram::new());
        // Impostors lie evenly from 0 to 50.
        for index in 0..impostors {
            impostor.add(index as f32 * 50.0 / impostors as f32);
        }
        genuine.add(90.0);
        let scored = |fold, same, similarity| Scored { fold, same, similarity };
        Measured {
            model: "m".to_owned(),
            enrolled: 0,
            not_enrolled: Default::default(),
            tally: Tally {
                genuine,
                impostor,
                genuine_total: 1,
                impostor_total: u64::from(impostors),
            },
            scored: vec![
                scored(0, true, 60.0),
                scored(0, false, 45.0),
                scored(1, true, 60.0),
                scored(1, false, 45.0),
            ],
            probes: 0,
            identified: 0,
            gallery: 0,
            cut_at: 0.0,
            index_seconds: 0.0,
            search_seconds: 0.0,
        }
    }

    #[test]
    fn thresholds_become_the_points_of_the_scale() {
        let straight = Scale::new(&[]).unwrap();
        let found = points(&measured(300_000), &straight).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        for ((cosine, similarity), (wanted, meaning)) in found.iter().zip([(0.4995, 80.0), (0.49995, 90.0)]) {
            assert!((cosine - wanted).abs() < 1e-4 && *similarity == meaning, "{found:?}");
        }
        // Through another scale the cosines are other ones.
        let bent = Scale::new(&[(0.2, 49.95)]).unwrap();
        assert!((points(&measured(300_000), &bent).unwrap()[0].0 - 0.2).abs() < 1e-3);
        assert_eq!(points(&measured(10_000), &straight), None, "too few pairs");
        let cut = Measured {
            cut_at: 49.97,
            ..measured(300_000)
        };
        assert_eq!(points(&cut, &straight), None, "not every pair was seen");
    }

    #[test]
    fn the_best_threshold_of_the_pairs_is_a_point_where_it_is_lower() {
        let mut low = measured(300_000);
        for pair in &mut low.scored {
            pair.similarity = if pair.same { 30.0 } else { 10.0 };
        }
        let found = points(&low, &Scale::new(&[]).unwrap()).unwrap();
        assert!(
            matches!(found[0], (cosine, 70.0) if (cosine - 0.2).abs() < 1e-6),
            "{found:?}"
        );
    }
}
