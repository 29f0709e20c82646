//! The commonest way into the detector: 4:2:0 video at exactly twice the detector's size (720p at side 640) becomes its
//! input in one pass. Each 2 x 2 luma samples are averaged; the chroma sample is theirs already. This takes a quarter of the
//! time of FFmpeg's scaler and the spreading of its pixels, which serve every other size.

use crate::align::Colours;
use crate::codec::View;
use crate::detect::InputShape;

/// Fills the detector's input; false, and nothing done, for another size or subsampling.
pub fn halve(view: &View<'_>, shape: &InputShape, input: &mut [f32]) -> bool {
    let exact = (view.width(), view.height()) == (2 * shape.width, 2 * shape.height);
    if !exact || (view.shift_x, view.shift_y) != (1, 1) || input.len() != shape.len() {
        return false;
    }
    let colours = Colours::of(view);
    let plane = shape.padded_width * shape.padded_height;
    let (blue, rest) = input.split_at_mut(plane);
    let (green, red) = rest.split_at_mut(plane);
    let rows = blue
        .chunks_exact_mut(shape.padded_width)
        .zip(green.chunks_exact_mut(shape.padded_width))
        .zip(red.chunks_exact_mut(shape.padded_width));
    for (y, ((blue, green), red)) in rows.enumerate() {
        let inside = if y < shape.height { shape.width } else { 0 };
        let row = Row {
            upper: view.planes[0].row(2 * y),
            lower: view.planes[0].row(2 * y + 1),
            u: view.planes[1].row(y),
            v: view.planes[2].row(y),
        };
        if inside > 0 {
            row.convert(&colours, blue, green, red);
        }
        for margin in [blue, green, red] {
            margin.get_mut(inside..).unwrap_or_default().fill(0.0);
        }
    }
    true
}

struct Row<'a> {
    upper: &'a [u8],
    lower: &'a [u8],
    u: &'a [u8],
    v: &'a [u8],
}

impl Row<'_> {
    /// Kept without branches, so that the compiler makes vector code of it.
    fn convert(&self, colours: &Colours, blue: &mut [f32], green: &mut [f32], red: &mut [f32]) {
        let luma = self.upper.as_chunks::<2>().0.iter().zip(self.lower.as_chunks::<2>().0);
        let chroma = self.u.iter().zip(self.v);
        let targets = blue.iter_mut().zip(green.iter_mut()).zip(red.iter_mut());
        for (((([a, b], [c, d]), (u, v)), (b_out, g_out)), r_out) in luma
            .zip(chroma)
            .zip(targets)
            .map(|(source, ((b, g), r))| ((source, (b, g)), r))
        {
            let sum = u16::from(*a) + u16::from(*b) + u16::from(*c) + u16::from(*d);
            let [red, green, blue] = colours.convert(f32::from(sum) * 0.25, f32::from(*u), f32::from(*v));
            (*b_out, *g_out, *r_out) = (blue, green, red);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Matrix, Plane, Scaler};

    #[test]
    fn the_short_way_and_the_scaler_agree() {
        let (width, height) = (128, 80);
        // Smooth pictures, on which two filters cannot differ by more than rounding.
        let luma: Vec<u8> = (0..width * height)
            .map(|i| 30 + (i % width + i / width) as u8)
            .collect();
        let chroma = |base: u8| -> Vec<u8> { (0..width * height / 4).map(|i| base + (i % 64) as u8 / 2).collect() };
        let (u, v) = (chroma(100), chroma(120));
        for (full_range, matrix) in [(false, Matrix::Bt601), (true, Matrix::Bt601), (false, Matrix::Bt709)] {
            let view = View {
                planes: [
                    Plane::new(&luma, width, width, height).unwrap(),
                    Plane::new(&u, width / 2, width / 2, height / 2).unwrap(),
                    Plane::new(&v, width / 2, width / 2, height / 2).unwrap(),
                ],
                shift_x: 1,
                shift_y: 1,
                full_range,
                matrix,
            };
            let shape = InputShape::new(width, height, 64);
            let (mut short, mut long) = (vec![7.0; shape.len()], vec![9.0; shape.len()]);
            assert!(halve(&view, &shape, &mut short));
            let mut bgr = Vec::new();
            Scaler::new()
                .to_bgr(&view, shape.width, shape.height, &mut bgr)
                .unwrap();
            shape.fill(&bgr, &mut long);
            let worst = short.iter().zip(&long).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let mean = short.iter().zip(&long).map(|(a, b)| (a - b).abs()).sum::<f32>() / short.len() as f32;
            assert!(
                worst < 8.0 && mean < 1.5,
                "{full_range} {matrix:?}: worst {worst}, mean {mean}"
            );
        }
    }

    #[test]
    fn other_sizes_are_left_to_the_scaler() {
        let data = vec![0; 4096];
        let plane = |w: usize, h: usize| Plane::new(&data, w, w, h).unwrap();
        let view = View {
            planes: [plane(60, 40), plane(30, 20), plane(30, 20)],
            shift_x: 1,
            shift_y: 1,
            full_range: false,
            matrix: Matrix::Bt601,
        };
        let shape = InputShape::new(60, 40, 64);
        assert!(!halve(&view, &shape, &mut vec![0.0; shape.len()]));
    }
}
