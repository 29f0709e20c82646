//! From a face in a picture to the 112 x 112 crop that an embedder of ArcFace's kind expects: the similarity transform
//! that brings the five points nearest to the template's (least squares; Umeyama 1991 without reflection), and sampling.

use crate::codec::{Matrix, View};

/// Side of the crop.
pub const SIDE: usize = 112;

/// Where ArcFace's authors put eyes, nose and mouth corners in the crop (insightface, `arcface_dst`; OpenCV's
/// FaceRecognizerSF uses the same).
pub const TEMPLATE: [(f32, f32); 5] = [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
];

/// Luma samples per side taken for one crop pixel of a large face at most: without them it aliases. Three cost 2 % of a
/// frame's time; chroma has half of the detail and is sampled once.
const SAMPLES_MAX: usize = 3;

/// `x' = a*x - b*y + tx`, `y' = b*x + a*y + ty`: rotation, uniform scale and shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Scale times cosine.
    pub a: f32,
    /// Scale times sine.
    pub b: f32,
    /// Shift.
    pub tx: f32,
    /// Shift.
    pub ty: f32,
}

impl Similarity {
    /// The transform that brings `from` nearest to `to`. `None` when all of `from` coincide.
    pub fn between(from: &[(f32, f32); 5], to: &[(f32, f32); 5]) -> Option<Similarity> {
        let mean = |points: &[(f32, f32); 5]| {
            let sum = points.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
            (sum.0 / 5.0, sum.1 / 5.0)
        };
        let ((fx, fy), (gx, gy)) = (mean(from), mean(to));
        let (mut dot, mut cross, mut size) = (0.0, 0.0, 0.0);
        for ((x, y), (u, v)) in from.iter().zip(to) {
            let (x, y, u, v) = (x - fx, y - fy, u - gx, v - gy);
            dot += x * u + y * v;
            cross += x * v - y * u;
            size += x * x + y * y;
        }
        let (a, b) = (dot / size, cross / size);
        let usable = size > 1e-6 && (a * a + b * b) > 1e-12 && a.is_finite() && b.is_finite();
        usable.then_some(Similarity {
            a,
            b,
            tx: gx - (a * fx - b * fy),
            ty: gy - (b * fx + a * fy),
        })
    }

    /// Moves a point.
    pub fn apply(&self, (x, y): (f32, f32)) -> (f32, f32) {
        (self.a * x - self.b * y + self.tx, self.b * x + self.a * y + self.ty)
    }

    /// Moves a difference between points.
    pub fn turn(&self, (x, y): (f32, f32)) -> (f32, f32) {
        (self.a * x - self.b * y, self.b * x + self.a * y)
    }

    /// The way back.
    pub fn inverse(&self) -> Similarity {
        let size = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / size, -self.b / size);
        Similarity {
            a,
            b,
            tx: -(a * self.tx - b * self.ty),
            ty: -(b * self.tx + a * self.ty),
        }
    }

    /// From the pixels of a square of `side` to the picture: its middle there, the length there of a pixel of it, and by
    /// which angle it is turned there.
    pub fn square((x, y): (f32, f32), side: usize, scale: f32, angle: f32) -> Similarity {
        let (sin, cos) = angle.sin_cos();
        let (a, b, half) = (scale * cos, scale * sin, side as f32 / 2.0);
        Similarity {
            a,
            b,
            tx: x - (a - b) * half,
            ty: y - (a + b) * half,
        }
    }

    /// From a square of `side` pixels, in the middle of which the aligned face fills `share` of ArcFace's crop, to the
    /// picture with these five points.
    pub fn face_square(points: &[(f32, f32); 5], side: usize, share: f32) -> Option<Similarity> {
        let factor = side as f32 / SIDE as f32 * share;
        let margin = side as f32 * (1.0 - share) / 2.0;
        let template = TEMPLATE.map(|(x, y)| (x * factor + margin, y * factor + margin));
        Similarity::between(points, &template).map(|found| found.inverse())
    }

    /// How much longer distances become.
    pub fn scale(&self) -> f32 {
        self.a.hypot(self.b)
    }
}

/// Samples the aligned face as three planes, red, green, blue, of values 0 to 255; black beyond the picture.
/// `crop` has `3 * SIDE * SIDE` floats.
pub fn crop(view: &View<'_>, points: &[(f32, f32); 5], crop: &mut [f32]) -> bool {
    let Some(to_picture) = Similarity::between(points, &TEMPLATE).map(|s| s.inverse()) else {
        return false;
    };
    sample(view, &to_picture, SIDE, crop);
    true
}

/// Samples a square of the picture, turned and scaled, as three planes, red, green, blue, of values 0 to 255; black beyond
/// the picture. `to_picture` takes the square's pixels to the picture's; `square` has `3 * side * side` floats.
pub fn sample(view: &View<'_>, to_picture: &Similarity, side: usize, square: &mut [f32]) {
    let samples = (to_picture.scale().round() as usize).clamp(1, SAMPLES_MAX);
    let colours = Colours::of(view);
    let (red, rest) = square.split_at_mut((side * side).min(square.len()));
    let (green, blue) = rest.split_at_mut((side * side).min(rest.len()));
    let cells = red.iter_mut().zip(green).zip(blue);
    let share = 1.0 / (samples * samples) as f32;
    let shift = |i: usize| (i as f32 + 0.5) / samples as f32 - 0.5;
    let shifts: Vec<(f32, f32)> = (0..samples * samples)
        .map(|i| to_picture.turn((shift(i % samples), shift(i / samples))))
        .collect();
    for (index, ((red, green), blue)) in cells.enumerate() {
        let (x, y) = to_picture.apply(((index % side) as f32, (index / side) as f32));
        let luma: f32 = shifts
            .iter()
            .map(|(dx, dy)| view.planes[0].bilinear(x + dx, y + dy))
            .sum();
        [*red, *green, *blue] = colours.at(view, (x, y), luma * share);
    }
}

/// How a view's YUV becomes RGB.
pub(crate) struct Colours {
    black: f32,
    luma: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
    chroma_x: f32,
    chroma_y: f32,
    right: f32,
    bottom: f32,
}

impl Colours {
    pub(crate) fn of(view: &View<'_>) -> Colours {
        // ITU-R BT.601-7 and BT.709-6: the shares of red and blue in luma.
        let (kr, kb) = match view.matrix {
            Matrix::Bt601 => (0.299, 0.114),
            Matrix::Bt709 => (0.2126, 0.0722),
        };
        let (black, luma, chroma) = if view.full_range {
            (0.0, 1.0, 1.0)
        } else {
            (16.0, 255.0 / 219.0, 255.0 / 224.0)
        };
        let kg = 1.0 - kr - kb;
        Colours {
            black,
            luma,
            red_v: 2.0 * (1.0 - kr) * chroma,
            green_u: -2.0 * kb * (1.0 - kb) / kg * chroma,
            green_v: -2.0 * kr * (1.0 - kr) / kg * chroma,
            blue_u: 2.0 * (1.0 - kb) * chroma,
            chroma_x: if view.shift_x > 0 { 0.5 } else { 1.0 },
            chroma_y: if view.shift_y > 0 { 0.5 } else { 1.0 },
            right: view.width() as f32,
            bottom: view.height() as f32,
        }
    }

    /// The colour at a place with a known luma.
    fn at(&self, view: &View<'_>, (x, y): (f32, f32), luma: f32) -> [f32; 3] {
        if !(x > -1.0 && y > -1.0 && x < self.right && y < self.bottom) {
            return [0.0; 3];
        }
        let [_, u_plane, v_plane] = &view.planes;
        // Chroma samples sit level with every second luma column, and between every second pair of rows.
        let cx = x * self.chroma_x;
        let cy = (y + 0.5) * self.chroma_y - 0.5;
        self.convert(luma, u_plane.bilinear(cx, cy), v_plane.bilinear(cx, cy))
    }

    /// Red, green and blue of 0 to 255.
    #[inline]
    pub(crate) fn convert(&self, luma: f32, u: f32, v: f32) -> [f32; 3] {
        let light = (luma - self.black) * self.luma;
        let (u, v) = (u - 128.0, v - 128.0);
        let colour = [
            light + self.red_v * v,
            light + self.green_u * u + self.green_v * v,
            light + self.blue_u * u,
        ];
        colour.map(|value| value.clamp(0.0, 255.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Plane;

    fn close(a: (f32, f32), b: (f32, f32)) -> bool {
        (a.0 - b.0).abs() < 1e-2 && (a.1 - b.1).abs() < 1e-2
    }

    #[test]
    fn a_turned_scaled_and_shifted_template_is_brought_back() {
        let known = Similarity {
            a: 2.0 * 0.6,
            b: 2.0 * 0.8,
            tx: 300.0,
            ty: -40.0,
        };
        let seen = TEMPLATE.map(|p| known.apply(p));
        let found = Similarity::between(&seen, &TEMPLATE).unwrap();
        assert!((found.scale() - 0.5).abs() < 1e-4);
        for (from, to) in seen.iter().zip(TEMPLATE) {
            assert!(close(found.apply(*from), to));
            assert!(close(found.inverse().apply(to), *from));
        }
    }

    /// Least squares by hand: five points, one of them 5 pixels off. The optimum of such a fit has residuals that sum to
    /// nothing, and are orthogonal to the points and to the points turned by 90 degrees.
    #[test]
    fn the_fit_to_an_imperfect_face_is_the_least_squares_one() {
        let mut seen = TEMPLATE.map(|(x, y)| (3.0 * x + 7.0, 3.0 * y - 9.0));
        seen[2].0 += 5.0;
        let fit = Similarity::between(&seen, &TEMPLATE).unwrap();
        let residuals: Vec<_> = seen
            .iter()
            .zip(TEMPLATE)
            .map(|(p, t)| (fit.apply(*p).0 - t.0, fit.apply(*p).1 - t.1))
            .collect();
        let sums = residuals.iter().zip(&seen).fold([0.0f32; 4], |s, ((rx, ry), (x, y))| {
            [s[0] + rx, s[1] + ry, s[2] + rx * x + ry * y, s[3] + ry * x - rx * y]
        });
        assert!(
            sums[0].abs() < 1e-3 && sums[1].abs() < 1e-3 && sums[2].abs() < 0.5 && sums[3].abs() < 0.5,
            "{sums:?}"
        );
    }

    #[test]
    fn points_that_coincide_have_no_transform() {
        assert_eq!(Similarity::between(&[(4.0, 4.0); 5], &TEMPLATE), None);
        assert_eq!(Similarity::between(&[(f32::NAN, 0.0); 5], &TEMPLATE), None);
    }

    #[test]
    fn an_upright_face_is_cropped_pixel_for_pixel_and_black_beyond_the_picture() {
        let luma: Vec<u8> = (0..64 * 112).map(|i| (i % 64) as u8 + 50).collect();
        let chroma = vec![128; 64 * 112];
        let plane = |data| Plane::new(data, 64, 64, 112).unwrap();
        let view = View {
            planes: [plane(&luma), plane(&chroma), plane(&chroma)],
            shift_x: 0,
            shift_y: 0,
            full_range: true,
            matrix: Matrix::Bt601,
        };
        let mut out = vec![1.0; 3 * SIDE * SIDE];
        assert!(crop(&view, &TEMPLATE, &mut out));
        for (x, wanted) in [(0, 50.0), (30, 80.0), (62, 112.0), (80, 0.0)] {
            let at = 5 * SIDE + x;
            for plane in 0..3 {
                let value: f32 = out[plane * SIDE * SIDE + at];
                assert!((value - wanted).abs() < 0.6, "{x}: {value}");
            }
        }
    }

    #[test]
    fn pure_colours_come_out_of_their_yuv() {
        // BT.601 limited range: red is 81, 90, 240; blue is 41, 240, 110 (ITU-R BT.601-7, table 3, rounded).
        for ([y, u, v], wanted) in [([81, 90, 240], [255.0, 0.0, 0.0]), ([41, 240, 110], [0.0, 0.0, 255.0])] {
            let data = [[y; 64], [u; 64], [v; 64]];
            let plane = |i: usize| Plane::new(&data[i], 8, 8, 8).unwrap();
            let view = View {
                planes: [plane(0), plane(1), plane(2)],
                shift_x: 0,
                shift_y: 0,
                full_range: false,
                matrix: Matrix::Bt601,
            };
            let found = Colours::of(&view).at(&view, (3.0, 3.0), f32::from(y));
            assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 3.0), "{found:?}");
        }
    }
}
