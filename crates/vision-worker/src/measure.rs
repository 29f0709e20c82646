//! What can be said of a face without another network: its pose from five points, its brightness and sharpness.

use vision::{Pose, Quality};

use crate::codec::View;

/// A mean face in the units of the alignment template, centred between its points: x to the right, y down, z away from
/// the viewer. Depths follow a pupil distance of 63 mm with a nose tip some 32 mm before the pupils' plane.
const MEAN_FACE: [[f32; 3]; 5] = [
    [-17.6, -20.2, 4.9],
    [17.6, -20.2, 4.9],
    [0.0, 0.0, -13.1],
    [-14.5, 20.2, 1.65],
    [14.5, 20.2, 1.65],
];

/// Grid cells per side over which brightness and sharpness are taken.
const GRID: usize = 64;

/// Laplacian variance of a grid that counts as 63 of 100. In-focus faces of 720p video lie between 100 and 1,000.
const SHARP_VARIANCE: f32 = 250.0;

/// The pose under weak perspective: the affine map from the mean face that fits the points best, made orthogonal.
pub fn pose(points: &[(f32, f32); 5]) -> Pose {
    let mean = points
        .iter()
        .fold((0.0, 0.0), |s, p| (s.0 + p.0 / 5.0, s.1 + p.1 / 5.0));
    let (mut rows, mut gram) = ([[0.0f32; 3]; 2], [[0.0f32; 3]; 3]);
    for (model, (x, y)) in MEAN_FACE.iter().zip(points) {
        for (row, value) in rows.iter_mut().zip([x - mean.0, y - mean.1]) {
            add_scaled(row, model, value);
        }
        for (row, value) in gram.iter_mut().zip(*model) {
            add_scaled(row, model, value);
        }
    }
    let Some(inverse) = inverse(&gram) else {
        return Pose::default();
    };
    let across = unit(times(&rows[0], &inverse));
    let down = times(&rows[1], &inverse);
    let along = dot(&across, &down);
    let down = unit([0, 1, 2].map(|i: usize| component(&down, i) - along * component(&across, i)));
    let degrees = |sine: f32| sine.clamp(-1.0, 1.0).asin().to_degrees();
    let pose = Pose {
        // The nose points to -z: turned to the picture's right, across gains from -z; turned up, down loses to it.
        yaw: degrees(-across[2]),
        pitch: degrees(down[2]),
        roll: down[0].atan2(down[1]).to_degrees(),
    };
    if [pose.yaw, pose.pitch, pose.roll].iter().all(|v| v.is_finite()) {
        pose
    } else {
        Pose::default()
    }
}

fn component(vector: &[f32; 3], index: usize) -> f32 {
    vector.get(index).copied().unwrap_or(0.0)
}

fn add_scaled(sum: &mut [f32; 3], vector: &[f32; 3], factor: f32) {
    for (s, v) in sum.iter_mut().zip(vector) {
        *s += v * factor;
    }
}

fn dot(a: &[f32; 3], b: &[f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cross([ax, ay, az]: &[f32; 3], [bx, by, bz]: &[f32; 3]) -> [f32; 3] {
    [ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx]
}

fn unit(vector: [f32; 3]) -> [f32; 3] {
    let length = dot(&vector, &vector).sqrt();
    vector.map(|v| v / length)
}

/// Of a symmetric matrix, by cross products of its rows.
fn inverse([a, b, c]: &[[f32; 3]; 3]) -> Option<[[f32; 3]; 3]> {
    let (bc, ca, ab) = (cross(b, c), cross(c, a), cross(a, b));
    let determinant = dot(a, &bc);
    (determinant.abs() > 1e-9).then(|| [bc, ca, ab].map(|row| row.map(|v| v / determinant)))
}

/// A row vector times a symmetric matrix.
fn times(row: &[f32; 3], [a, b, c]: &[[f32; 3]; 3]) -> [f32; 3] {
    [dot(row, a), dot(row, b), dot(row, c)]
}

/// A face's luma on a grid of at most [`GRID`] cells a side, each the mean of its samples: what quality is taken from, and
/// what tells whether a track still shows the same picture.
pub struct Patch {
    cells: Vec<f32>,
    columns: usize,
}

impl Patch {
    /// Over `area`: left, top, width, height in pixels.
    pub fn new(view: &View<'_>, [left, top, width, height]: [f32; 4]) -> Patch {
        let luma = &view.planes[0];
        let span = |from: f32, size: f32, end: usize| {
            let start = (from.max(0.0) as usize).min(end - 1);
            let stop = ((from + size).max(0.0) as usize).clamp(start + 1, end);
            (start, stop)
        };
        let (x0, x1) = span(left, width, luma.width);
        let (y0, y1) = span(top, height, luma.height);
        let step = ((x1 - x0).max(y1 - y0)).div_ceil(GRID).max(1);
        let (columns, rows) = (((x1 - x0) / step).max(1), ((y1 - y0) / step).max(1));
        let mut cells = vec![0.0; columns * rows];
        for (row, line) in cells.chunks_exact_mut(columns).enumerate() {
            for y in 0..step {
                let samples = luma.row(y0 + row * step + y).get(x0..x1).unwrap_or_default();
                for (cell, run) in line.iter_mut().zip(samples.chunks(step)) {
                    *cell += run.iter().map(|s| f32::from(*s)).sum::<f32>() / run.len() as f32 / step as f32;
                }
            }
        }
        if !view.full_range {
            for cell in &mut cells {
                *cell = ((*cell - 16.0) * (255.0 / 219.0)).clamp(0.0, 255.0);
            }
        }
        Patch { cells, columns }
    }

    /// Brightness and sharpness.
    pub fn quality(&self) -> Quality {
        let mean = self.cells.iter().sum::<f32>() / self.cells.len().max(1) as f32;
        Quality {
            brightness: mean / 2.55,
            sharpness: 100.0 * (1.0 - (-self.laplacian_variance() / SHARP_VARIANCE).exp()),
        }
    }

    fn laplacian_variance(&self) -> f32 {
        let rows: Vec<&[f32]> = self.cells.chunks_exact(self.columns).collect();
        let (mut count, mut sum, mut squares) = (0.0f32, 0.0f32, 0.0f32);
        for triple in rows.windows(3) {
            let [above, row, below] = triple else { continue };
            for ((above, around), below) in above.iter().skip(1).zip(row.windows(3)).zip(below.iter().skip(1)) {
                let [left, middle, right] = around else { continue };
                let value = above + below + left + right - 4.0 * middle;
                count += 1.0;
                sum += value;
                squares += value * value;
            }
        }
        if count > 0.0 {
            (squares / count - (sum / count).powi(2)).max(0.0)
        } else {
            0.0
        }
    }

    /// The patch at 8 x 8, mean 0 and length 1: the dot product of two is their correlation.
    pub fn signature(&self) -> [f32; 64] {
        let mut signature = [0.0; 64];
        let rows = self.cells.len() / self.columns.max(1);
        for (index, value) in signature.iter_mut().enumerate() {
            let at = |cell: usize, size: usize| (2 * cell + 1) * size / 16;
            let cell = at(index / 8, rows) * self.columns + at(index % 8, self.columns);
            *value = self.cells.get(cell).copied().unwrap_or(0.0);
        }
        let mean = signature.iter().sum::<f32>() / 64.0;
        signature.iter_mut().for_each(|v| *v -= mean);
        let length = signature.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
        signature.map(|v| v / length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Matrix, Plane};

    /// The mean face turned by known angles and seen from afar.
    fn seen(yaw: f32, pitch: f32, roll: f32) -> [(f32, f32); 5] {
        let (sy, cy) = (-yaw).to_radians().sin_cos();
        let (sp, cp) = (-pitch).to_radians().sin_cos();
        let (sr, cr) = roll.to_radians().sin_cos();
        MEAN_FACE.map(|[x, y, z]| {
            let (y, z) = (y * cp - z * sp, y * sp + z * cp);
            let (x, _) = (x * cy + z * sy, z);
            (300.0 + 3.0 * (x * cr - y * sr), 200.0 + 3.0 * (x * sr + y * cr))
        })
    }

    #[test]
    fn a_face_turned_by_known_angles_is_measured() {
        for (yaw, pitch, roll) in [
            (0.0, 0.0, 0.0),
            (35.0, 0.0, 0.0),
            (-20.0, 0.0, 0.0),
            (0.0, 25.0, 0.0),
            (0.0, 0.0, 40.0),
            (0.0, 0.0, -150.0),
        ] {
            let pose = pose(&seen(yaw, pitch, roll));
            let off = [pose.yaw - yaw, pose.pitch - pitch, pose.roll - roll];
            assert!(off.iter().all(|d| d.abs() < 2.0), "{yaw} {pitch} {roll}: {pose:?}");
        }
    }

    #[test]
    fn a_nose_to_the_right_is_a_positive_yaw_and_points_in_one_place_are_no_pose() {
        let mut points = seen(0.0, 0.0, 0.0);
        points[2].0 += 20.0;
        assert!(pose(&points).yaw > 10.0);
        assert_eq!(pose(&[(1.0, 1.0); 5]), Pose::default());
    }

    fn view_of(luma: &[u8]) -> View<'_> {
        let plane = Plane::new(luma, 100, 100, 100).unwrap();
        View {
            planes: [plane; 3],
            shift_x: 0,
            shift_y: 0,
            full_range: true,
            matrix: Matrix::Bt601,
        }
    }

    #[test]
    fn a_checkerboard_is_sharp_and_a_flat_wall_is_not() {
        let board: Vec<u8> = (0..10_000)
            .map(|i| if (i / 4 + i / 400) % 2 == 0 { 20 } else { 235 })
            .collect();
        let wall = vec![204; 10_000];
        let area = [10.0, 10.0, 60.0, 60.0];
        let (sharp, flat) = (
            Patch::new(&view_of(&board), area).quality(),
            Patch::new(&view_of(&wall), area).quality(),
        );
        assert!(sharp.sharpness > 90.0 && flat.sharpness < 1.0, "{sharp:?} {flat:?}");
        assert!((flat.brightness - 80.0).abs() < 0.5);
    }

    #[test]
    fn a_box_beyond_the_picture_is_measured_where_it_is_inside() {
        let wall = vec![100; 10_000];
        for area in [
            [-500.0, -500.0, 10.0, 10.0],
            [90.0, 90.0, 900.0, 900.0],
            [0.0, 0.0, 0.0, 0.0],
            [1e9, 1e9, 1.0, 1.0],
        ] {
            let quality = Patch::new(&view_of(&wall), area).quality();
            assert!((quality.brightness - 100.0 / 2.55).abs() < 0.5, "{area:?}: {quality:?}");
        }
    }

    #[test]
    fn a_signature_knows_its_own_picture() {
        let slope: Vec<u8> = (0..10_000).map(|i| (i % 100) as u8).collect();
        let turned: Vec<u8> = (0..10_000).map(|i| (i / 100) as u8).collect();
        let area = [0.0, 0.0, 100.0, 100.0];
        let signature = |data: &[u8]| Patch::new(&view_of(data), area).signature();
        let alike = |a: [f32; 64], b: [f32; 64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!(alike(signature(&slope), signature(&slope)) > 0.99);
        assert!(alike(signature(&slope), signature(&turned)).abs() < 0.2);
    }
}
