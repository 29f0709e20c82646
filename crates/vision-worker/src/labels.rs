//! From a picture to its objects: a CenterNet of COCO's 80 classes, loaded in the workers that are asked for labels alone.
//!
//! The network looks at 512 x 512 pixels and answers on a grid of 128 x 128 cells: for each class how much a cell is the
//! middle of such an object, and for each cell how far the object's edges are.

use std::path::Path;

use ort::session::Session;
use ort::value::TensorRef;
use vision::limits::MAX_OBJECTS;
use vision::{BoundingBox, DetectedObject, OBJECT_CLASSES};

use crate::codec::{Scaler, View};
use crate::engine::{Engine, EngineError, wrong};

/// Side of the network's picture.
const SIDE: usize = 512;

/// Cells per side of its answer.
const CELLS: usize = 128;

/// Pixels of its picture per cell.
const STRIDE: f32 = 4.0;

/// Peaks below this are not looked at: a confidence of 31.
const SCORE_MIN: f32 = 0.2;

/// Two objects of a class that overlap more are one.
const OVERLAP_MAX: f32 = 0.5;

/// Peaks that are compared with each other at most: beyond it the answer is noise.
const PEAKS_MAX: usize = 1_000;

/// The network's scores and the confidences that they become. It is rarely sure: half is much. On the pictures of
/// accuracy.md nearly all that it gives 0.35 and more is there, which DetectLabels shows unless it is told otherwise.
const CONFIDENCES: [(f32, f32); 4] = [(0.0, 0.0), (0.35, 55.0), (0.6, 90.0), (1.0, 100.0)];

/// The network and the buffers that every picture uses again.
pub struct Labels {
    session: Session,
    bgr: Vec<u8>,
    input: Vec<f32>,
}

impl Labels {
    /// Loads the model and runs it once.
    pub fn load(engine: &Engine, file: &Path) -> Result<Labels, EngineError> {
        let mut labels = Labels {
            session: engine.open(file)?,
            bgr: Vec::new(),
            input: vec![0.0; 3 * SIDE * SIDE],
        };
        labels.run(1.0, 1.0)?;
        Ok(labels)
    }

    /// The objects of a picture, surest first.
    pub fn of(&mut self, view: &View<'_>, scaler: &mut Scaler) -> Result<Vec<DetectedObject>, EngineError> {
        let longer = view.width().max(view.height()).max(1) as f32;
        let scaled = |side: usize| ((side as f32 * SIDE as f32 / longer).round() as usize).clamp(1, SIDE);
        let (width, height) = (scaled(view.width()), scaled(view.height()));
        if scaler.to_bgr(view, width, height, &mut self.bgr).is_err() {
            return Ok(Vec::new());
        }
        self.fill(width, height);
        self.run(width as f32, height as f32)
    }

    /// The picture into the upper left corner, red, green, blue; black beside it.
    fn fill(&mut self, width: usize, height: usize) {
        self.input.fill(0.0);
        let rows = self.bgr.chunks_exact(3 * width).take(height);
        for (plane, channel) in self.input.chunks_exact_mut(SIDE * SIDE).zip([2usize, 1, 0]) {
            for (to, from) in plane.chunks_exact_mut(SIDE).zip(rows.clone()) {
                for (value, pixel) in to.iter_mut().zip(from.chunks_exact(3)) {
                    *value = pixel.get(channel).copied().map_or(0.0, f32::from);
                }
            }
        }
    }

    fn run(&mut self, width: f32, height: f32) -> Result<Vec<DetectedObject>, EngineError> {
        let tensor = TensorRef::from_array_view(([1, 3, SIDE, SIDE], self.input.as_slice())).map_err(wrong)?;
        let outputs = self.session.run(ort::inputs!["input" => tensor]).map_err(wrong)?;
        let values = |name: &str| -> Result<&[f32], EngineError> {
            let value = outputs
                .get(name)
                .ok_or_else(|| wrong(format!("a model gave no {name}")))?;
            value.try_extract_tensor::<f32>().map(|(_, data)| data).map_err(wrong)
        };
        Ok(objects(values("heat")?, values("edges")?, width, height))
    }
}

/// The objects of an answer to a picture that filled `width` x `height` pixels of the network's.
fn objects(heat: &[f32], edges: &[f32], width: f32, height: f32) -> Vec<DetectedObject> {
    let mut peaks = Vec::new();
    let classes = heat.chunks_exact(CELLS * CELLS).take(OBJECT_CLASSES.len());
    for (class, plane) in classes.enumerate() {
        for (cell, score) in plane.iter().enumerate() {
            if *score >= SCORE_MIN && is_peak(plane, cell, *score) {
                peaks.push((*score, class, cell));
            }
        }
    }
    peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
    peaks.truncate(PEAKS_MAX);
    let mut found: Vec<DetectedObject> = Vec::new();
    for (score, class, cell) in peaks {
        let Some(bounding_box) = area(edges, cell, width, height) else {
            continue;
        };
        let class = class as u8;
        let known =
            |other: &DetectedObject| other.class == class && other.bounding_box.iou(&bounding_box) > OVERLAP_MAX;
        if found.len() < MAX_OBJECTS && !found.iter().any(known) {
            found.push(DetectedObject {
                class,
                confidence: confidence(score),
                bounding_box,
            });
        }
    }
    found
}

/// Whether no cell around has more; of equal ones the first counts.
fn is_peak(plane: &[f32], cell: usize, score: f32) -> bool {
    let (x, y) = (cell % CELLS, cell / CELLS);
    let rows = y.saturating_sub(1)..(y + 2).min(CELLS);
    rows.flat_map(|row| (x.saturating_sub(1)..(x + 2).min(CELLS)).map(move |column| row * CELLS + column))
        .filter(|other| *other != cell)
        .all(|other| {
            let beside = plane.get(other).copied().unwrap_or(0.0);
            beside < score || (beside == score && other > cell)
        })
}

/// The box around a cell as the four distances say, within the picture; `None` for none.
fn area(edges: &[f32], cell: usize, width: f32, height: f32) -> Option<BoundingBox> {
    let edge = |side: usize| {
        edges
            .get(side * CELLS * CELLS + cell)
            .copied()
            .filter(|edge| edge.is_finite())
    };
    let (x, y) = ((cell % CELLS) as f32 * STRIDE, (cell / CELLS) as f32 * STRIDE);
    let left = ((x - edge(0)?) / width).clamp(0.0, 1.0);
    let top = ((y - edge(1)?) / height).clamp(0.0, 1.0);
    let right = ((x + edge(2)?) / width).clamp(0.0, 1.0);
    let bottom = ((y + edge(3)?) / height).clamp(0.0, 1.0);
    (right > left && bottom > top).then_some(BoundingBox {
        left,
        top,
        width: right - left,
        height: bottom - top,
    })
}

/// Linear between [`CONFIDENCES`].
fn confidence(score: f32) -> f32 {
    let mut found = 0.0;
    for pair in CONFIDENCES.windows(2) {
        if let [(from, low), (to, high)] = pair
            && score >= *from
        {
            found = low + (high - low) * ((score - from) / (to - from)).min(1.0);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these peaks: class, column, row, score, and how far the edges are.
    fn answer(peaks: &[(usize, usize, usize, f32, f32)]) -> (Vec<f32>, Vec<f32>) {
        let cells = CELLS * CELLS;
        let (mut heat, mut edges) = (vec![0.0; 80 * cells], vec![0.0; 4 * cells]);
        for (class, x, y, score, reach) in peaks {
            heat[class * cells + y * CELLS + x] = *score;
            for side in 0..4 {
                edges[side * cells + y * CELLS + x] = *reach;
            }
        }
        (heat, edges)
    }

    #[test]
    fn an_object_is_found_where_its_peak_and_edges_say() {
        let (heat, edges) = answer(&[(15, 64, 32, 0.6, 64.0)]);
        let found = objects(&heat, &edges, 512.0, 256.0);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].class_name(), found[0].confidence), ("cat", 90.0));
        let wanted = BoundingBox {
            left: 0.375,
            top: 0.25,
            width: 0.25,
            height: 0.5,
        };
        assert!(found[0].bounding_box.iou(&wanted) > 0.999, "{found:?}");
    }

    #[test]
    fn one_object_seen_twice_is_one_and_two_of_different_classes_are_two() {
        let peaks = [
            (0, 60, 60, 0.7, 80.0),
            (0, 63, 60, 0.5, 80.0),
            (16, 60, 62, 0.4, 80.0),
            (0, 20, 20, 0.3, 40.0),
        ];
        let (heat, edges) = answer(&peaks);
        let found = objects(&heat, &edges, 512.0, 512.0);
        let classes: Vec<&str> = found.iter().map(DetectedObject::class_name).collect();
        assert_eq!(classes, ["person", "dog", "person"]);
        assert!(found.is_sorted_by(|a, b| a.confidence >= b.confidence));
    }

    #[test]
    fn beside_a_peak_weaker_and_equal_cells_are_none() {
        let peaks = [(2, 10, 10, 0.5, 20.0), (2, 11, 10, 0.5, 200.0), (2, 10, 11, 0.4, 200.0)];
        let (heat, edges) = answer(&peaks);
        assert_eq!(objects(&heat, &edges, 512.0, 512.0).len(), 1);
    }

    #[test]
    fn boxes_stay_in_the_picture_and_broken_answers_give_none() {
        let (heat, mut edges) = answer(&[(0, 0, 0, 0.9, 300.0)]);
        let found = objects(&heat, &edges, 512.0, 288.0);
        let b = found[0].bounding_box;
        assert!(b.left >= 0.0 && b.top >= 0.0 && b.left + b.width <= 1.0 && b.top + b.height <= 1.0);
        edges.fill(f32::NAN);
        assert!(objects(&heat, &edges, 512.0, 288.0).is_empty());
        assert!(objects(&vec![f32::NAN; heat.len()], &edges, 512.0, 512.0).is_empty());
        assert!(objects(&[0.9; 5], &[], 512.0, 512.0).is_empty());
    }

    #[test]
    fn confidence_rises_with_the_score() {
        assert_eq!(confidence(0.0), 0.0);
        assert!((confidence(0.35) - 55.0).abs() < 1e-3 && (confidence(1.0) - 100.0).abs() < 1e-3);
        let scores: Vec<f32> = (0..=100).map(|i| confidence(i as f32 / 100.0)).collect();
        assert!(scores.is_sorted_by(|a, b| a < b));
    }
}
