//! YuNet before and after the network: the input's geometry, and how its twelve outputs become faces (Wu, Peng, Yu:
//! "YuNet: A Tiny Millisecond-level Face Detector", 2023; the same arithmetic as OpenCV's FaceDetectorYN). No engine here.

/// Cells per side of the picture are its size over these.
pub const STRIDES: [usize; 3] = [8, 16, 32];

/// The input's sides are multiples of this.
const ALIGN: usize = 32;

/// Faces below this score are not reported. 0.7 keeps faces half turned away; at 0.9 the detector misses 1.4 % of LFW.
pub const SCORE_MIN: f32 = 0.7;

/// Of two boxes that overlap by more than this, the better stays.
const OVERLAP_MAX: f32 = 0.3;

/// Candidates looked at; OpenCV's default is 5,000.
const CANDIDATES_MAX: usize = 2_000;

/// The geometry of the detector's input for one picture size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputShape {
    /// The scaled picture.
    pub width: usize,
    /// The scaled picture.
    pub height: usize,
    /// With the black right margin.
    pub padded_width: usize,
    /// With the black lower margin.
    pub padded_height: usize,
    /// Picture pixels per input pixel, across and down.
    pub scale: (f32, f32),
}

impl InputShape {
    /// The picture scaled down so that its longer side is at most `side`, keeping its aspect; never scaled up.
    pub fn new(width: usize, height: usize, side: usize) -> InputShape {
        let factor = (side as f32 / width.max(height).max(1) as f32).min(1.0);
        let scaled = |size: usize| ((size as f32 * factor).round() as usize).max(1);
        let (w, h) = (scaled(width), scaled(height));
        InputShape {
            width: w,
            height: h,
            padded_width: w.next_multiple_of(ALIGN),
            padded_height: h.next_multiple_of(ALIGN),
            scale: (width as f32 / w as f32, height as f32 / h as f32),
        }
    }

    /// Floats of the input tensor, three planes.
    pub fn len(&self) -> usize {
        3 * self.padded_width * self.padded_height
    }

    /// Never, in practice.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Spreads packed BGR into planes, and blackens the margins. `input` has [`InputShape::len`] floats.
    pub fn fill(&self, bgr: &[u8], input: &mut [f32]) {
        let plane = self.padded_width * self.padded_height;
        let (blue, rest) = input.split_at_mut(plane.min(input.len()));
        let (green, red) = rest.split_at_mut(plane.min(rest.len()));
        let rows = blue
            .chunks_exact_mut(self.padded_width)
            .zip(green.chunks_exact_mut(self.padded_width))
            .zip(red.chunks_exact_mut(self.padded_width));
        let mut pixels = bgr.chunks_exact(self.width * 3);
        for ((blue, green), red) in rows {
            let row = pixels.next().unwrap_or_default();
            let cells = blue.iter_mut().zip(green.iter_mut()).zip(red.iter_mut());
            for (((b, g), r), pixel) in cells.zip(row.as_chunks::<3>().0) {
                let [pb, pg, pr] = *pixel;
                (*b, *g, *r) = (f32::from(pb), f32::from(pg), f32::from(pr));
            }
            for margin in [blue, green, red] {
                let from = row.len() / 3;
                margin.get_mut(from..).unwrap_or_default().fill(0.0);
            }
        }
    }
}

/// A detected face in picture pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Detection {
    /// 0 to 1.
    pub score: f32,
    /// Left, top, width, height.
    pub area: [f32; 4],
    /// Eye, eye, nose, mouth corner, mouth corner; the picture's left one first.
    pub points: [(f32, f32); 5],
}

impl Detection {
    /// Intersection over union.
    pub fn overlap(&self, other: &Detection) -> f32 {
        overlap(&self.area, &other.area)
    }
}

fn overlap([ax, ay, aw, ah]: &[f32; 4], [bx, by, bw, bh]: &[f32; 4]) -> f32 {
    let w = ((ax + aw).min(bx + bw) - ax.max(*bx)).max(0.0);
    let h = ((ay + ah).min(by + bh) - ay.max(*by)).max(0.0);
    let union = aw * ah + bw * bh - w * h;
    if union > 0.0 { w * h / union } else { 0.0 }
}

/// The outputs for one stride, each with one row per cell, row by row of the picture.
#[derive(Clone, Copy, Debug)]
pub struct Level<'a> {
    /// Input pixels per cell.
    pub stride: usize,
    /// Face or not, 1 column.
    pub cls: &'a [f32],
    /// Object or not, 1 column.
    pub obj: &'a [f32],
    /// Centre offset and log size, 4 columns.
    pub bbox: &'a [f32],
    /// Offsets of the points, 10 columns.
    pub kps: &'a [f32],
}

/// The faces of a picture, best first, duplicates removed.
pub fn faces(levels: &[Level<'_>; 3], shape: &InputShape, score_min: f32) -> Vec<Detection> {
    let mut found = Vec::new();
    for level in levels {
        collect(level, shape, score_min, &mut found);
    }
    suppress(found)
}

fn collect(level: &Level<'_>, shape: &InputShape, score_min: f32, found: &mut Vec<Detection>) {
    let columns = shape.padded_width / level.stride;
    let stride = level.stride as f32;
    let least = score_min * score_min;
    let (boxes, points) = (level.bbox.as_chunks::<4>().0, level.kps.as_chunks::<10>().0);
    let scores = level.cls.iter().zip(level.obj);
    for (index, (((cls, obj), [dx, dy, dw, dh]), offsets)) in scores.zip(boxes).zip(points).enumerate() {
        let squared = cls.clamp(0.0, 1.0) * obj.clamp(0.0, 1.0);
        if squared < least {
            continue;
        }
        let (column, row) = ((index % columns) as f32, (index / columns) as f32);
        let (width, height) = (dw.exp() * stride, dh.exp() * stride);
        let (sx, sy) = shape.scale;
        let mut detection = Detection {
            score: squared.sqrt(),
            area: [
                ((column + dx) * stride - width / 2.0) * sx,
                ((row + dy) * stride - height / 2.0) * sy,
                width * sx,
                height * sy,
            ],
            ..Detection::default()
        };
        for (point, [x, y]) in detection.points.iter_mut().zip(offsets.as_chunks::<2>().0) {
            *point = ((x + column) * stride * sx, (y + row) * stride * sy);
        }
        let mut numbers = detection
            .area
            .into_iter()
            .chain(detection.points.into_iter().flat_map(|(x, y)| [x, y]));
        if numbers.all(f32::is_finite) {
            found.push(detection);
        }
    }
}

/// Non-maximum suppression; also merges the finds of several passes over one picture.
pub fn suppress(mut found: Vec<Detection>) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(CANDIDATES_MAX);
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in found {
        if kept.iter().all(|better| better.overlap(&candidate) <= OVERLAP_MAX) {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_720p_picture_is_halved_and_padded_below() {
        let shape = InputShape::new(1280, 720, 640);
        let wanted = InputShape {
            width: 640,
            height: 360,
            padded_width: 640,
            padded_height: 384,
            scale: (2.0, 2.0),
        };
        assert_eq!(shape, wanted);
        assert_eq!(InputShape::new(176, 144, 640).scale, (1.0, 1.0));
        assert_eq!(InputShape::new(1, 4000, 640).width, 1);
    }

    #[test]
    fn pixels_go_to_their_planes_and_margins_are_black() {
        let shape = InputShape::new(2, 1, 640);
        let mut input = vec![9.0; shape.len()];
        shape.fill(&[1, 2, 3, 4, 5, 6], &mut input);
        let plane = 32 * 32;
        for (index, wanted) in [
            (0, 1.0),
            (1, 4.0),
            (2, 0.0),
            (plane, 2.0),
            (2 * plane + 1, 6.0),
            (2 * plane + 2, 0.0),
        ] {
            assert_eq!(input[index], wanted, "{index}");
        }
        assert_eq!(input.iter().sum::<f32>(), 21.0);
    }

    /// One confident cell at column 3, row 2 of stride 16 in a 640 x 384 input for a 1280 x 720 picture.
    #[test]
    fn a_cell_becomes_a_face_in_picture_pixels() {
        let shape = InputShape::new(1280, 720, 640);
        let cells = |stride: usize| (640 / stride) * (384 / stride);
        let empty: Vec<Vec<f32>> = STRIDES.iter().map(|s| vec![0.0; cells(*s) * 10]).collect();
        let (mut cls, mut bbox, mut kps) = (
            vec![0.0; cells(16)],
            vec![0.0; cells(16) * 4],
            vec![0.0; cells(16) * 10],
        );
        let at = 2 * 40 + 3;
        cls[at] = 0.81;
        bbox[at * 4..at * 4 + 4].copy_from_slice(&[0.5, 0.25, 1.0, 2.0f32.ln()]);
        kps[at * 10 + 2] = -1.0;
        let obj = vec![1.0; cells(16)];
        let level = |stride, i: usize| Level {
            stride,
            cls: &empty[i],
            obj: &empty[i],
            bbox: &empty[i],
            kps: &empty[i],
        };
        let hit = Level {
            stride: 16,
            cls: &cls,
            obj: &obj,
            bbox: &bbox,
            kps: &kps,
        };
        let found = faces(&[level(8, 0), hit, level(32, 2)], &shape, 0.7);
        assert_eq!(found.len(), 1);
        let face = found[0];
        let near = |a: f32, b: f32| (a - b).abs() < 1e-3;
        assert!(near(face.score, 0.9));
        let [left, top, width, height] = face.area;
        assert!(near(width, 32.0 * 1.0f32.exp()) && near(height, 64.0));
        assert!(near(left + width / 2.0, 3.5 * 32.0) && near(top + height / 2.0, 2.25 * 32.0));
        assert_eq!((face.points[0], face.points[1]), ((96.0, 64.0), (64.0, 64.0)));
    }

    #[test]
    fn the_better_of_two_overlapping_faces_stays() {
        let face = |score, left| Detection {
            score,
            area: [left, 0.0, 10.0, 10.0],
            ..Detection::default()
        };
        let kept = suppress(vec![face(0.8, 1.0), face(0.9, 0.0), face(0.75, 8.0)]);
        assert_eq!(kept.iter().map(|f| f.score).collect::<Vec<_>>(), [0.9, 0.75]);
    }
}
