//! What a measurement is shown as: a table, JSON, and plots.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::super::Failure;
use super::super::paint::{Paint, Tint, harmless};
use super::calibration::Points;
use super::folder::{Labelled, Pairs};
use super::measure::Measured;
use super::metrics::{Folded, folded};
use super::plot::{Axis, Plot};

/// The false-match rates of which the report speaks.
pub const RATES: [f64; 5] = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// The thresholds of which the report speaks.
pub const THRESHOLDS: [f64; 5] = [70.0, 80.0, 90.0, 95.0, 99.0];
/// Steps of the curve.
const CURVE_STEPS: usize = 120;
/// Columns of the histogram.
const COLUMNS: usize = 200;
const GENUINE: &str = "#2a7f62";
const IMPOSTOR: &str = "#b5442e";

/// The report as JSON has it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub folder: String,
    pub model: String,
    pub people: usize,
    pub images: usize,
    pub enrolled: usize,
    pub not_enrolled: BTreeMap<String, usize>,
    pub genuine_pairs: u64,
    pub impostor_pairs: u64,
    pub verification: Option<Folded>,
    /// `pairs.txt`, or `drawn`.
    pub protocol: &'static str,
    /// Pairs of the file whose images are not in the folder.
    pub pairs_missing: usize,
    pub at_false_match_rate: Vec<AtRate>,
    pub at_threshold: Vec<AtThreshold>,
    /// What `--calibrate` wrote: cosines and similarities. The similarities above are those of the scale before it.
    pub calibration: Option<Points>,
    pub identification: Identification,
    /// Similarities below this are not known for every pair: SearchFaces gives 4,096 matches at most.
    pub complete_above: f32,
    pub index_seconds: f64,
    pub search_seconds: f64,
}

/// One row of the table of rates; both members `null` where there are too few pairs.
#[derive(Debug, Serialize)]
pub struct AtRate {
    pub false_match_rate: f64,
    pub true_match_rate: Option<f64>,
    pub similarity: Option<f64>,
}

/// One row of the table of thresholds.
#[derive(Debug, Serialize)]
pub struct AtThreshold {
    pub similarity: f64,
    /// Impostor pairs that reach it.
    pub false_matches: u64,
    pub false_match_rate: Option<f64>,
    pub true_match_rate: Option<f64>,
}

/// Who is nearest.
#[derive(Debug, Serialize)]
pub struct Identification {
    /// People of whom there is more than the gallery's image.
    pub people: usize,
    pub probes: u64,
    pub rank_1: Option<f64>,
}

impl Report {
    /// Puts the numbers together.
    pub fn new(
        folder: &Path,
        labelled: &Labelled,
        pairs: &Pairs,
        measured: &Measured,
        calibration: Option<Points>,
    ) -> Self {
        let at_rate = |rate: &f64| {
            let point = measured.tally.at_false_rate(*rate);
            AtRate {
                false_match_rate: *rate,
                true_match_rate: point.map(|point| point.true_rate),
                similarity: point.map(|point| point.similarity),
            }
        };
        let tally = &measured.tally;
        let at_threshold = |similarity: &f64| {
            let point = tally.at(*similarity);
            AtThreshold {
                similarity: *similarity,
                // Every pair is seen from both of its faces.
                false_matches: tally.impostor.at_or_above(*similarity).div_ceil(2),
                false_match_rate: (tally.impostor_total > 0).then_some(point.false_rate),
                true_match_rate: (tally.genuine_total > 0).then_some(point.true_rate),
            }
        };
        Report {
            folder: folder.display().to_string(),
            model: measured.model.clone(),
            people: labelled.people.len(),
            images: labelled.images.len(),
            enrolled: measured.enrolled,
            not_enrolled: measured.not_enrolled.clone(),
            genuine_pairs: measured.tally.genuine_total / 2,
            impostor_pairs: measured.tally.impostor_total / 2,
            verification: folded(&measured.scored),
            protocol: if pairs.from_file { "pairs.txt" } else { "drawn" },
            pairs_missing: pairs.missing,
            at_false_match_rate: RATES.iter().map(at_rate).collect(),
            at_threshold: THRESHOLDS.iter().map(at_threshold).collect(),
            calibration,
            identification: Identification {
                people: measured.gallery,
                probes: measured.probes,
                rank_1: (measured.probes > 0).then(|| measured.identified as f64 / measured.probes as f64),
            },
            complete_above: measured.cut_at,
            index_seconds: measured.index_seconds,
            search_seconds: measured.search_seconds,
        }
    }

    /// The table.
    pub fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let mut row = |name: &str, tint: Tint, value: String| {
            paint.put(&mut out, Tint::Dim, format!("{name:<22}"));
            paint.put(&mut out, tint, value);
            out.push('\n');
        };
        let percent = |value: f64| format!("{:.2} %", value * 100.0);
        row("model", Tint::Name, harmless(&self.model).into_owned());
        row(
            "images",
            Tint::Number,
            format!("{} of {} people", self.images, self.people),
        );
        let lost = self.images - self.enrolled;
        let share = if self.images == 0 {
            0.0
        } else {
            lost as f64 / self.images as f64
        };
        let tint = if lost == 0 { Tint::Number } else { Tint::Alert };
        row("not enrolled", tint, format!("{lost} ({})", percent(share)));
        for (reason, count) in &self.not_enrolled {
            row(&format!("  {}", harmless(reason)), Tint::Number, count.to_string());
        }
        row(
            "pairs",
            Tint::Number,
            format!("{} genuine, {} impostor", self.genuine_pairs, self.impostor_pairs),
        );
        match &self.verification {
            Some(found) => {
                let Folded {
                    folds,
                    pairs,
                    accuracy,
                    deviation,
                    similarity,
                } = found;
                let spread = format!(
                    "± {:.2} % over {folds} parts of {pairs} pairs ({})",
                    deviation * 100.0,
                    self.protocol
                );
                row(
                    "accuracy",
                    Tint::Number,
                    format!("{} {spread}, at similarity {similarity:.2}", percent(*accuracy)),
                );
            }
            None => row(
                "accuracy",
                Tint::Dim,
                "too few people with more than one image".to_owned(),
            ),
        }
        if self.pairs_missing > 0 {
            row(
                "pairs left out",
                Tint::Alert,
                format!("{}: their images are not in the folder", self.pairs_missing),
            );
        }
        match self.identification.rank_1 {
            Some(rank) => {
                let Identification { people, probes, .. } = self.identification;
                row(
                    "rank 1",
                    Tint::Number,
                    format!(
                        "{} of {probes} probes of {people} people, one image each in the gallery",
                        percent(rank)
                    ),
                );
            }
            None => row("rank 1", Tint::Dim, "nobody has more than one image".to_owned()),
        }
        out.push('\n');
        paint.put(
            &mut out,
            Tint::Dim,
            format!(
                "{:>16}  {:>15}  {:>10}\n",
                "false matches", "people found", "similarity"
            ),
        );
        for at in &self.at_false_match_rate {
            let rate = format!("1 in {:.0}", 1.0 / at.false_match_rate);
            match (at.true_match_rate, at.similarity) {
                (Some(found), Some(similarity)) => {
                    let (found, similarity) = (percent(found), format!("{similarity:.2}"));
                    out.push_str(&format!("{rate:>16}  {found:>15}  {similarity:>10}\n"));
                }
                _ => {
                    out.push_str(&format!("{rate:>16}  "));
                    paint.put(&mut out, Tint::Dim, "too few pairs");
                    out.push('\n');
                }
            }
        }
        let least = self
            .at_false_match_rate
            .iter()
            .filter_map(|at| at.similarity)
            .fold(f64::MAX, f64::min);
        if least < f64::from(self.complete_above) {
            let note = "A search gives 4,096 matches at most, so thresholds below";
            out.push_str(&format!(
                "{note} {:.2} are bounds, not measurements.\n",
                self.complete_above
            ));
        }
        self.put_thresholds(&mut out, paint);
        let speed = self.images as f64 / self.index_seconds.max(1e-3);
        let note = format!(
            "enrolled at {speed:.1} images/s, searched in {:.1} s",
            self.search_seconds
        );
        paint.put(&mut out, Tint::Dim, note);
        out
    }
}

impl Report {
    /// What each threshold of the scale comes to on this folder.
    fn put_thresholds(&self, out: &mut String, paint: Paint) {
        let head = format!("\n{:>16}  {:>15}  {:>10}\n", "threshold", "people found", "false");
        paint.put(out, Tint::Dim, head);
        for at in &self.at_threshold {
            let found = at
                .true_match_rate
                .map_or_else(|| "-".to_owned(), |rate| format!("{:.2} %", rate * 100.0));
            let false_matches = match at.false_match_rate {
                Some(rate) if rate > 0.0 => format!("1 in {:.0} ({})", 1.0 / rate, at.false_matches),
                _ => format!("none of {}", self.impostor_pairs),
            };
            out.push_str(&format!("{:>16}  {found:>15}  {false_matches:>10}\n", at.similarity));
        }
        if let Some(points) = &self.calibration {
            let points: Vec<String> = points
                .iter()
                .map(|(cosine, similarity)| format!("{cosine} is {similarity}"))
                .collect();
            let note = "calibrated anew, for servers started from now on; cosine";
            out.push_str(&format!("{note} {}\n", points.join(", ")));
        }
    }
}

/// The receiver operating characteristic, with the rate of false matches on a logarithmic scale.
pub fn roc(measured: &Measured) -> String {
    let curve = measured.tally.curve(CURVE_STEPS);
    let decades = curve
        .first()
        .map_or(-1.0, |point| point.false_rate.log10().floor())
        .min(-1.0);
    let mark = |exponent: i32| {
        (
            f64::from(exponent),
            if exponent == 0 {
                "1".to_owned()
            } else {
                format!("1e{exponent}")
            },
        )
    };
    let lowest = curve.iter().map(|point| point.true_rate).fold(1.0, f64::min);
    // The interesting part is near the top.
    let floor = [0.9, 0.5].into_iter().find(|floor| lowest >= *floor).unwrap_or(0.0);
    let x = Axis {
        title: "impostor pairs taken for a match",
        from: decades,
        to: 0.0,
        marks: (decades as i32..=0).map(mark).collect(),
    };
    let y = Axis {
        title: "genuine pairs found",
        from: floor,
        to: 1.0,
        marks: (0..=5)
            .map(|step| floor + (1.0 - floor) * f64::from(step) / 5.0)
            .map(|y| (y, format!("{y:.2}")))
            .collect(),
    };
    let mut plot = Plot::new(&format!("{}: receiver operating characteristic", measured.model), x, y);
    plot.curve(
        curve.iter().map(|point| (point.false_rate.log10(), point.true_rate)),
        GENUINE,
    );
    plot.finish()
}

/// How similar the pairs of one person, and those of two, are.
pub fn similarities(measured: &Measured) -> String {
    let share = |counts: Vec<u64>| -> Vec<f64> {
        let most = counts.iter().sum::<u64>().max(1) as f64;
        counts.into_iter().map(|count| count as f64 / most).collect()
    };
    let (genuine, impostor) = (
        share(measured.tally.genuine.columns(COLUMNS)),
        share(measured.tally.impostor.columns(COLUMNS)),
    );
    // Most impostors have no similarity at all; that column may leave the picture.
    let tallest = genuine
        .iter()
        .chain(impostor.iter().skip(1))
        .copied()
        .fold(0.01, f64::max);
    let x = Axis {
        title: "similarity",
        from: 0.0,
        to: 100.0,
        marks: (0..=10)
            .map(|step| (f64::from(step) * 10.0, (step * 10).to_string()))
            .collect(),
    };
    let y = Axis {
        title: "share of the pairs",
        from: 0.0,
        to: tallest,
        marks: (0..=4)
            .map(|step| tallest * f64::from(step) / 4.0)
            .map(|y| (y, format!("{:.1} %", y * 100.0)))
            .collect(),
    };
    let mut plot = Plot::new(&format!("{}: similarities", measured.model), x, y);
    plot.columns(&impostor, IMPOSTOR);
    plot.columns(&genuine, GENUINE);
    plot.legend("genuine pairs", GENUINE);
    plot.legend("impostor pairs", IMPOSTOR);
    plot.finish()
}

/// Writes both plots into a folder, which is made if need be.
pub async fn write_plots(folder: &Path, measured: &Measured) -> Result<(), Failure> {
    tokio::fs::create_dir_all(folder).await?;
    for (name, svg) in [("roc.svg", roc(measured)), ("similarities.svg", similarities(measured))] {
        let path = folder.join(name);
        let written = tokio::fs::write(&path, svg).await;
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
