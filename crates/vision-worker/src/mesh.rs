//! What can be read from a face's mesh: MediaPipe's 468 points of a face and 71 of each eye's lids. Pure geometry; the
//! networks are run by [`crate::attributes`].
//!
//! A mesh is fitted twice, as MediaPipe does: first in a square laid around the detector's five points, then in one laid
//! around the points just found. Over four sizes of the first square the points move by some 5 % of the distance between
//! the eyes, those of the second fit by some 2 %.

use vision::MESH_LANDMARKS;

use crate::align::Similarity;

/// Side of the mesh's picture.
pub const SIDE: usize = 192;

/// Side of an eye's picture.
pub const EYE_SIDE: usize = 64;

/// Points of the mesh.
pub const POINTS: usize = 468;

/// How much of the first square ArcFace's crop fills: with it the eyes stand as far apart as in MediaPipe's own squares.
pub const FIRST_SHARE: f32 = 0.95;

/// The square's side against the mesh's longer one, as in MediaPipe's graphs.
const MARGIN: f32 = 1.5;

/// An eye's picture against its width, as in MediaPipe's graphs.
const EYE_MARGIN: f32 = 2.3;

/// Mean opening of the lids against the eye's width at which an eye counts as open: halfway between the openings of 35
/// faces with open (0.25 and more) and 6 with closed eyes (0.22 and less); see accuracy.md.
const EYES_OPEN_FROM: f32 = 0.235;

/// Gap between the lips against the mouth's width at which a mouth counts as open; see accuracy.md.
const MOUTH_OPEN_FROM: f32 = 0.09;

/// How far from those bars a face is told with 73 % instead of 50 %.
const DOUBT: f32 = 0.03;

type Place = (f32, f32);

/// The outer and the inner corner of the eye on the picture's left, then of the other.
const EYES: [[usize; 2]; 2] = [[33, 133], [263, 362]];

/// Where each of [`MESH_LANDMARKS`] is found; the eyes' come from their lids.
const INDICES: [Option<usize>; MESH_LANDMARKS.len()] = [
    Some(70),
    Some(107),
    Some(105),
    Some(336),
    Some(300),
    Some(334),
    None,
    None,
    None,
    None,
    None,
    None,
    None,
    None,
    Some(98),
    Some(327),
    Some(0),
    Some(17),
    None,
    None,
    Some(127),
    Some(172),
    Some(152),
    Some(397),
    Some(356),
];

/// A fitted mesh in picture pixels.
pub struct Mesh(Vec<Place>);

impl Mesh {
    /// From what the network answers: x, y and depth of each point in the pixels of its square.
    pub fn new(answer: &[f32], to_picture: &Similarity) -> Option<Mesh> {
        let points: Vec<Place> = answer
            .chunks_exact(3)
            .filter_map(|point| match point {
                [x, y, _] => Some(to_picture.apply((*x, *y))),
                _ => None,
            })
            .collect();
        let sound = points.len() == POINTS && points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
        sound.then_some(Mesh(points))
    }

    fn at(&self, index: usize) -> Place {
        self.0.get(index).copied().unwrap_or_default()
    }

    /// The square in which to fit again.
    pub fn square(&self) -> Similarity {
        let ((lx, ly), (rx, ry)) = (self.at(33), self.at(263));
        let angle = (ry - ly).atan2(rx - lx);
        let (sin, cos) = angle.sin_cos();
        let (mut low, mut high) = ((f32::MAX, f32::MAX), (f32::MIN, f32::MIN));
        for (x, y) in &self.0 {
            let (x, y) = (x * cos + y * sin, y * cos - x * sin);
            low = (low.0.min(x), low.1.min(y));
            high = (high.0.max(x), high.1.max(y));
        }
        let (x, y) = ((low.0 + high.0) / 2.0, (low.1 + high.1) / 2.0);
        let longer = (high.0 - low.0).max(high.1 - low.1);
        let middle = (x * cos - y * sin, x * sin + y * cos);
        Similarity::square(middle, SIDE, MARGIN * longer / SIDE as f32, angle)
    }

    /// The squares around the eyes, the picture's left one first.
    pub fn eye_squares(&self) -> [Similarity; 2] {
        let [left, right] = EYES.map(|corners| corners.map(|index| self.at(index)));
        let around = |(ax, ay): Place, (bx, by): Place| {
            let width = distance((ax, ay), (bx, by));
            let middle = ((ax + bx) / 2.0, (ay + by) / 2.0);
            let angle = (by - ay).atan2(bx - ax);
            Similarity::square(middle, EYE_SIDE, EYE_MARGIN * width / EYE_SIDE as f32, angle)
        };
        [around(left[0], left[1]), around(right[1], right[0])]
    }

    /// How surely the lips are apart.
    pub fn mouth_open(&self) -> f32 {
        let gap = distance(self.at(13), self.at(14)) / distance(self.at(61), self.at(291)).max(1e-3);
        share(gap, MOUTH_OPEN_FROM)
    }

    /// Every point of [`MESH_LANDMARKS`], with the eyes as their lids say.
    pub fn landmarks(&self, [left, right]: &[Eye; 2]) -> [Place; MESH_LANDMARKS.len()] {
        let eyes = [
            left.outer,
            left.inner,
            left.up,
            left.down,
            right.inner,
            right.outer,
            right.up,
            right.down,
            left.pupil,
            right.pupil,
        ];
        let mut eyes = eyes.into_iter();
        INDICES.map(|index| match index {
            Some(index) => self.at(index),
            None => eyes.next().unwrap_or_default(),
        })
    }
}

/// An eye in picture pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eye {
    /// The corner beside the nose.
    pub inner: Place,
    /// The other corner.
    pub outer: Place,
    /// The middle of the upper lid's edge.
    pub up: Place,
    /// The middle of the lower lid's edge.
    pub down: Place,
    /// The middle of the iris.
    pub pupil: Place,
    /// The gap between the lids against the eye's width.
    pub opening: f32,
}

impl Eye {
    /// From what the network answers for a right-hand eye: 71 points of the lids, the first nine of the lower lid from
    /// the inner corner to the outer, the next seven of the upper lid between them; then five of the iris, its middle first.
    /// The other eye was shown to it mirrored.
    pub fn new(answer: &[f32], to_picture: &Similarity, mirrored: bool) -> Option<Eye> {
        let at = |index: usize| match answer.get(3 * index..3 * index + 2) {
            Some([x, y]) if x.is_finite() && y.is_finite() => {
                let x = if mirrored { (EYE_SIDE - 1) as f32 - x } else { *x };
                Some(to_picture.apply((x, *y)))
            }
            _ => None,
        };
        let mean = |indices: [usize; 3]| {
            let mut sum = (0.0, 0.0);
            for index in indices {
                let (x, y) = at(index)?;
                sum = (sum.0 + x / 3.0, sum.1 + y / 3.0);
            }
            Some(sum)
        };
        let (inner, outer) = (at(0)?, at(8)?);
        let gap = distance(mean([11, 12, 13])?, mean([3, 4, 5])?);
        Some(Eye {
            inner,
            outer,
            up: at(12)?,
            down: at(4)?,
            pupil: at(71)?,
            opening: gap / distance(inner, outer).max(1e-3),
        })
    }
}

/// How surely both eyes are open.
pub fn eyes_open([left, right]: &[Eye; 2]) -> f32 {
    share(f32::midpoint(left.opening, right.opening), EYES_OPEN_FROM)
}

fn distance(a: Place, b: Place) -> f32 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// 0 to 1, half at the bar.
fn share(measured: f32, bar: f32) -> f32 {
    1.0 / (1.0 + ((bar - measured) / DOUBT).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRAIGHT: Similarity = Similarity {
        a: 1.0,
        b: 0.0,
        tx: 0.0,
        ty: 0.0,
    };

    /// A made-up face 100 wide and 120 high around (200, 300), turned by an angle: a ring of points, and the few that
    /// are asked for.
    fn face(angle: f32, lips: f32) -> Mesh {
        let (sin, cos) = angle.sin_cos();
        let turned = |x: f32, y: f32| [200.0 + x * cos - y * sin, 300.0 + x * sin + y * cos, 0.0];
        let mut points: Vec<[f32; 3]> = (0..POINTS)
            .map(|i| {
                let (y, x) = (i as f32 / POINTS as f32 * std::f32::consts::TAU).sin_cos();
                turned(50.0 * x, 60.0 * y)
            })
            .collect();
        for (index, x, y) in [
            (33, -30.0, -20.0),
            (133, -10.0, -20.0),
            (362, 10.0, -20.0),
            (263, 30.0, -20.0),
            (61, -20.0, 30.0),
            (291, 20.0, 30.0),
            (13, 0.0, 30.0 - lips / 2.0),
            (14, 0.0, 30.0 + lips / 2.0),
        ] {
            points[index] = turned(x, y);
        }
        Mesh::new(points.as_flattened(), &STRAIGHT).unwrap()
    }

    #[test]
    fn the_second_square_surrounds_the_mesh_and_turns_with_it() {
        for angle in [0.0, 0.5, -1.2, 3.0] {
            let square = face(angle, 0.0).square();
            let middle = square.apply((96.0, 96.0));
            assert!(distance(middle, (200.0, 300.0)) < 1.0, "{middle:?}");
            let side = distance(square.apply((0.0, 0.0)), square.apply((192.0, 0.0)));
            assert!((side - 180.0).abs() < 1.0, "{side}");
            assert!((square.b.atan2(square.a) - angle).abs() < 1e-3);
        }
    }

    #[test]
    fn both_eyes_squares_stand_upright_in_the_face() {
        for angle in [0.0, 0.4] {
            for (square, x) in face(angle, 0.0).eye_squares().into_iter().zip([-20.0f32, 20.0]) {
                let wanted = (
                    200.0 + x * angle.cos() + 20.0 * angle.sin(),
                    300.0 + x * angle.sin() - 20.0 * angle.cos(),
                );
                assert!(distance(square.apply((32.0, 32.0)), wanted) < 0.1);
                assert!((square.b.atan2(square.a) - angle).abs() < 1e-3);
                assert!((square.scale() * 64.0 - 46.0).abs() < 0.1);
            }
        }
    }

    #[test]
    fn lips_apart_are_an_open_mouth_in_any_direction() {
        for angle in [0.0, 0.9, 2.5] {
            assert!(face(angle, 0.4).mouth_open() < 0.1);
            assert!(face(angle, 12.0).mouth_open() > 0.95);
        }
    }

    /// The network's answer for an eye 30 wide whose lids are `gap` apart.
    fn lids(gap: f32) -> Vec<f32> {
        let mut points = vec![[32.0f32, 32.0, 0.0]; 76];
        for (index, point) in points.iter_mut().take(9).enumerate() {
            point[0] = 47.0 - 30.0 * index as f32 / 8.0;
            point[1] = 32.0 + if (3..=5).contains(&index) { gap / 2.0 } else { 0.0 };
        }
        for (index, point) in points.iter_mut().skip(9).take(7).enumerate() {
            point[0] = 43.0 - 22.0 * index as f32 / 6.0;
            point[1] = 32.0 - gap / 2.0;
        }
        points.as_flattened().to_vec()
    }

    #[test]
    fn an_eye_and_its_mirror_image_are_as_open_and_swap_their_corners() {
        for (gap, open) in [(2.0, false), (12.0, true)] {
            let eye = Eye::new(&lids(gap), &STRAIGHT, false).unwrap();
            let mirrored = Eye::new(&lids(gap), &STRAIGHT, true).unwrap();
            assert_eq!(eyes_open(&[mirrored, eye]) > 0.5, open);
            assert!((eye.opening - gap / 30.0).abs() < 1e-3 && (mirrored.opening - eye.opening).abs() < 1e-4);
            assert!(eye.inner.0 > eye.outer.0 && mirrored.inner.0 < mirrored.outer.0);
            assert!(eye.up.1 < eye.pupil.1 && eye.pupil.1 < eye.down.1);
        }
    }

    #[test]
    fn answers_that_are_too_short_or_no_numbers_are_no_face() {
        assert!(Mesh::new(&[0.0; 30], &STRAIGHT).is_none());
        assert!(Mesh::new(&[f32::NAN; 3 * POINTS], &STRAIGHT).is_none());
        assert_eq!(Eye::new(&[1.0; 40], &STRAIGHT, false), None);
    }

    #[test]
    fn each_landmark_is_taken_from_its_own_place() {
        let eye = |x: f32| Eye {
            inner: (x, 1.0),
            outer: (x, 2.0),
            up: (x, 3.0),
            down: (x, 4.0),
            pupil: (x, 5.0),
            opening: 0.3,
        };
        let found = face(0.0, 0.0).landmarks(&[eye(-1.0), eye(-2.0)]);
        let of = |name: &str| found[MESH_LANDMARKS.iter().position(|known| *known == name).unwrap()];
        assert_eq!(of("leftEyeLeft"), (-1.0, 2.0));
        assert_eq!(of("leftEyeRight"), (-1.0, 1.0));
        assert_eq!(of("leftEyeDown"), (-1.0, 4.0));
        assert_eq!(of("rightEyeLeft"), (-2.0, 1.0));
        assert_eq!(of("rightEyeRight"), (-2.0, 2.0));
        assert_eq!(of("rightEyeUp"), (-2.0, 3.0));
        assert_eq!(of("leftPupil"), (-1.0, 5.0));
        assert_eq!(of("rightPupil"), (-2.0, 5.0));
        assert_eq!(found.iter().filter(|place| place.0 < 0.0).count(), 10);
    }
}
