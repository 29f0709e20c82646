//! Regions of interest: the parts of the picture that count. A label counts when more than half of its box lies in one of
//! them (service model).

use base::ApiError;
use serde::{Deserialize, Serialize};
use vision::BoundingBox;
use wire::rekognition as w;

use crate::error::invalid_parameter;
use crate::limits::{POLYGON_POINTS_MAX, POLYGON_POINTS_MIN, REGION_AREA_MIN};

/// How far beyond the picture's edge the sum of a box's place and size may lie, because of rounding.
const EDGE_SLACK: f64 = 1e-5;

/// A part of the picture, as ratios of its width and height.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Region {
    /// An upright rectangle.
    Box {
        left: f32,
        top: f32,
        width: f32,
        height: f32,
    },
    /// Points around an area, in order, none of whose edges meet but neighbours at their point.
    Polygon(Vec<(f32, f32)>),
}

type Point = (f64, f64);

impl Region {
    /// What `RegionsOfInterest` says, or why not.
    pub(crate) fn all_of(given: &[w::RegionOfInterest]) -> Result<Vec<Region>, ApiError> {
        let numbered = given.iter().enumerate();
        let read = |(index, region): (usize, &w::RegionOfInterest)| {
            Region::of(region).map_err(|why| invalid_parameter(format!("RegionsOfInterest[{index}]: {why}")))
        };
        numbered.map(read).collect()
    }

    fn of(given: &w::RegionOfInterest) -> Result<Region, String> {
        match (&given.bounding_box, &given.polygon) {
            (Some(area), None) => Region::of_box(area),
            (None, Some(points)) => Region::of_polygon(points),
            (Some(_), Some(_)) => Err("it has both BoundingBox and Polygon; give one".to_owned()),
            (None, None) => Err("it has neither BoundingBox nor Polygon".to_owned()),
        }
    }

    fn of_box(area: &w::BoundingBox) -> Result<Region, String> {
        let (Some(left), Some(top), Some(width), Some(height)) = (area.left, area.top, area.width, area.height) else {
            return Err("a BoundingBox needs Left, Top, Width and Height".to_owned());
        };
        let inside = |start: f32, length: f32| {
            start >= 0.0 && length > 0.0 && f64::from(start) + f64::from(length) <= 1.0 + EDGE_SLACK
        };
        if !inside(left, width) || !inside(top, height) {
            return Err("the BoundingBox does not lie within the picture, which is 1 wide and 1 high".to_owned());
        }
        check_area(f64::from(width) * f64::from(height))?;
        Ok(Region::Box {
            left,
            top,
            width,
            height,
        })
    }

    fn of_polygon(points: &[w::Point]) -> Result<Region, String> {
        if !(POLYGON_POINTS_MIN..=POLYGON_POINTS_MAX).contains(&points.len()) {
            return Err(format!(
                "a Polygon has {POLYGON_POINTS_MIN} to {POLYGON_POINTS_MAX} points, not {}",
                points.len()
            ));
        }
        let point = |point: &w::Point| {
            let inside = |value: Option<f32>| value.filter(|value| (0.0..=1.0).contains(value));
            inside(point.x).zip(inside(point.y))
        };
        let points: Option<Vec<(f32, f32)>> = points.iter().map(point).collect();
        let points = points.ok_or("each point of a Polygon needs X and Y from 0 to 1")?;
        let corners = precise(&points);
        if !is_simple(&corners) {
            return Err("the Polygon crosses or touches itself".to_owned());
        }
        check_area(signed_area(&corners).abs())?;
        Ok(Region::Polygon(points))
    }

    pub(crate) fn to_wire(&self) -> w::RegionOfInterest {
        match self {
            Region::Box {
                left,
                top,
                width,
                height,
            } => w::RegionOfInterest {
                bounding_box: Some(w::BoundingBox {
                    left: Some(*left),
                    top: Some(*top),
                    width: Some(*width),
                    height: Some(*height),
                }),
                polygon: None,
            },
            Region::Polygon(points) => {
                let point = |(x, y): &(f32, f32)| w::Point {
                    x: Some(*x),
                    y: Some(*y),
                };
                w::RegionOfInterest {
                    bounding_box: None,
                    polygon: Some(points.iter().map(point).collect()),
                }
            }
        }
    }

    /// Whether more than half of a box lies in this region.
    pub(crate) fn holds(&self, found: &BoundingBox) -> bool {
        let (left, top) = (f64::from(found.left), f64::from(found.top));
        let (right, bottom) = (left + f64::from(found.width), top + f64::from(found.height));
        let corners = match self {
            Region::Box {
                left,
                top,
                width,
                height,
            } => {
                let (left, top) = (f64::from(*left), f64::from(*top));
                let (right, bottom) = (left + f64::from(*width), top + f64::from(*height));
                vec![(left, top), (right, top), (right, bottom), (left, bottom)]
            }
            Region::Polygon(points) => precise(points),
        };
        let inside = signed_area(&clipped(corners, [left, top, right, bottom])).abs();
        let whole = (right - left) * (bottom - top);
        whole > 0.0 && inside > whole / 2.0
    }
}

fn check_area(area: f64) -> Result<(), String> {
    if area >= REGION_AREA_MIN {
        return Ok(());
    }
    Err(format!(
        "it covers less than {REGION_AREA_MIN} of the picture, which is too small to find anything in"
    ))
}

fn precise(points: &[(f32, f32)]) -> Vec<Point> {
    points.iter().map(|(x, y)| (f64::from(*x), f64::from(*y))).collect()
}

/// The edges of a polygon, the last one back to the first point.
fn edges(points: &[Point]) -> Vec<(Point, Point)> {
    let next = points.iter().cycle().skip(1);
    points.iter().copied().zip(next.copied()).collect()
}

/// Positive where the points go clockwise in the picture.
fn signed_area(points: &[Point]) -> f64 {
    let sum: f64 = edges(points).iter().map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
    sum / 2.0
}

/// Which side of the line from `a` to `b` a point is on: above, below or 0 on it.
fn side(a: Point, b: Point, point: Point) -> f64 {
    (b.0 - a.0) * (point.1 - a.1) - (b.1 - a.1) * (point.0 - a.0)
}

/// Whether a point on the line through `a` and `b` lies between them.
fn between(a: Point, b: Point, point: Point) -> bool {
    (a.0.min(b.0)..=a.0.max(b.0)).contains(&point.0) && (a.1.min(b.1)..=a.1.max(b.1)).contains(&point.1)
}

/// Whether two edges have a point in common.
fn meet((a, b): (Point, Point), (c, d): (Point, Point)) -> bool {
    let (of_c, of_d) = (side(a, b, c), side(a, b, d));
    let (of_a, of_b) = (side(c, d, a), side(c, d, b));
    let crosses = of_c * of_d < 0.0 && of_a * of_b < 0.0;
    crosses
        || (of_c == 0.0 && between(a, b, c))
        || (of_d == 0.0 && between(a, b, d))
        || (of_a == 0.0 && between(c, d, a))
        || (of_b == 0.0 && between(c, d, b))
}

/// Whether no edge meets another but its neighbours, and those at their common point alone.
fn is_simple(points: &[Point]) -> bool {
    let edges = edges(points);
    edges.iter().enumerate().all(|(at, first)| {
        first.0 != first.1
            && edges.iter().enumerate().skip(at + 1).all(|(other, second)| {
                if other == at + 1 {
                    !folds_back(first.0, first.1, second.1)
                } else if at == 0 && other == edges.len() - 1 {
                    !folds_back(second.0, second.1, first.1)
                } else {
                    !meet(*first, *second)
                }
            })
    })
}

/// Whether the way from `a` over `b` to `c` goes back on itself.
fn folds_back(a: Point, b: Point, c: Point) -> bool {
    let ahead = (b.0 - a.0) * (c.0 - b.0) + (b.1 - a.1) * (c.1 - b.1);
    side(a, b, c) == 0.0 && ahead < 0.0
}

/// The part of a polygon within left, top, right and bottom (Sutherland and Hodgman: one edge of the window after the
/// other). Of a polygon with dents the parts may hang together along the window's edge, which adds nothing to the area.
fn clipped(points: Vec<Point>, [left, top, right, bottom]: [f64; 4]) -> Vec<Point> {
    // How far a point is inside of an edge of the window.
    let depths: [&dyn Fn(Point) -> f64; 4] = [
        &|point| point.0 - left,
        &|point| point.1 - top,
        &|point| right - point.0,
        &|point| bottom - point.1,
    ];
    depths.iter().fold(points, |points, depth| {
        let mut kept = Vec::with_capacity(points.len() + 4);
        for (from, to) in edges(&points) {
            let (start, end) = (depth(from), depth(to));
            if start >= 0.0 {
                kept.push(from);
            }
            if (start >= 0.0) != (end >= 0.0) {
                let share = start / (start - end);
                kept.push((from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share));
            }
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(left: f32, top: f32, width: f32, height: f32) -> BoundingBox {
        BoundingBox {
            left,
            top,
            width,
            height,
        }
    }

    fn polygon(points: &[(f32, f32)]) -> Result<Region, String> {
        let point = |(x, y): &(f32, f32)| w::Point {
            x: Some(*x),
            y: Some(*y),
        };
        Region::of_polygon(&points.iter().map(point).collect::<Vec<_>>())
    }

    fn rectangle(left: f32, top: f32, width: f32, height: f32) -> Result<Region, String> {
        Region::of_box(&w::BoundingBox {
            left: Some(left),
            top: Some(top),
            width: Some(width),
            height: Some(height),
        })
    }

    #[test]
    fn polygons_that_cross_touch_or_fold_are_refused() {
        for good in [
            &[(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)][..],
            &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)],
            // A dent, and three points in one line.
            &[(0.0, 0.0), (0.5, 0.4), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0), (0.0, 1.0)],
        ] {
            assert!(polygon(good).is_ok(), "{good:?}");
            let backwards: Vec<_> = good.iter().rev().copied().collect();
            assert!(polygon(&backwards).is_ok(), "{backwards:?}");
        }
        for bad in [
            &[(0.0, 0.0), (1.0, 0.0)][..],
            // A bow tie.
            &[(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)],
            // A corner on another edge, and a corner twice.
            &[(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.0), (0.0, 1.0)],
            &[(0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.0, 1.0)],
            // There and back, the first point again at the end, all in one line, next to nothing.
            &[(0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.5, 1.0)],
            &[(0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.0, 0.0)],
            &[(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)],
            &[(0.0, 0.0), (0.009, 0.0), (0.0, 0.009)],
            &[(0.0, 0.0), (1.1, 0.0), (0.5, 1.0)],
            &[(0.0, 0.0), (f32::NAN, 0.0), (0.5, 1.0)],
            &[(0.1, 0.1); 11],
        ] {
            assert!(polygon(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn boxes_beyond_the_picture_or_without_an_area_are_refused() {
        assert!(rectangle(0.0, 0.0, 1.0, 1.0).is_ok());
        assert!(
            rectangle(0.7, 0.9, 0.3, 0.1).is_ok(),
            "0.9 + 0.1 is more than 1 in binary"
        );
        for (left, top, width, height) in [
            (-0.1, 0.0, 0.5, 0.5),
            (0.6, 0.0, 0.5, 0.5),
            (0.0, 0.0, 0.0, 0.5),
            (0.0, 0.0, 0.5, -0.5),
            (0.0, 0.0, 0.009, 0.009),
            (f32::NAN, 0.0, 0.5, 0.5),
            (0.0, 0.0, f32::INFINITY, 0.5),
        ] {
            assert!(
                rectangle(left, top, width, height).is_err(),
                "{left} {top} {width} {height}"
            );
        }
        assert!(Region::of_box(&w::BoundingBox::default()).is_err());
        assert!(Region::of(&w::RegionOfInterest::default()).is_err());
    }

    #[test]
    fn a_label_counts_when_more_than_half_of_it_is_inside() {
        let left_half = rectangle(0.0, 0.0, 0.5, 1.0).unwrap();
        assert!(left_half.holds(&area(0.25, 0.25, 0.375, 0.5)));
        assert!(
            !left_half.holds(&area(0.25, 0.25, 0.5, 0.5)),
            "half is not more than half"
        );
        assert!(!left_half.holds(&area(0.6, 0.0, 0.2, 0.2)));
        assert!(
            !left_half.holds(&area(-0.2, 0.2, 0.4, 0.2)),
            "what is outside of the picture is in no region"
        );
        let triangle = polygon(&[(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]).unwrap();
        assert!(triangle.holds(&area(0.0, 0.0, 0.5, 0.5)) && !triangle.holds(&area(0.5, 0.5, 0.5, 0.5)));
        // A gate: what stands in the opening is not in it.
        let gate = polygon(&[
            (0.0, 0.0),
            (1.0, 0.0),
            (1.0, 1.0),
            (0.75, 1.0),
            (0.75, 0.25),
            (0.25, 0.25),
            (0.25, 1.0),
            (0.0, 1.0),
        ])
        .unwrap();
        assert!(!gate.holds(&area(0.25, 0.25, 0.5, 0.75)));
        assert!(gate.holds(&area(0.0, 0.0, 1.0, 1.0)), "5/8 of the picture");
        assert!(gate.holds(&area(0.0, 0.5, 0.4, 0.5)) && !gate.holds(&area(0.1, 0.5, 0.4, 0.5)));
    }

    proptest! {
        #[test]
        fn the_area_inside_agrees_with_counted_points(
            corners in proptest::collection::vec((0.0f64..1.0, 0.0f64..1.0), 3..7), window in [0.0f64..0.5, 0.0f64..0.5, 0.5f64..1.0, 0.5f64..1.0]
        ) {
            prop_assume!(is_simple(&corners));
            let exact = signed_area(&clipped(corners.clone(), window)).abs();
            let inside = |x: f64, y: f64| {
                edges(&corners).iter().filter(|(a, b)| (a.1 > y) != (b.1 > y) && x < (b.0 - a.0) * (y - a.1) / (b.1 - a.1) + a.0).count() % 2 == 1
            };
            const STEPS: usize = 60;
            let [left, top, right, bottom] = window;
            let at = |from: f64, to: f64, step: usize| from + (to - from) * (step as f64 + 0.5) / STEPS as f64;
            let hits = (0..STEPS).flat_map(|i| (0..STEPS).map(move |j| (i, j))).filter(|(i, j)| inside(at(left, right, *i), at(top, bottom, *j))).count();
            let counted = hits as f64 / (STEPS * STEPS) as f64 * (right - left) * (bottom - top);
            prop_assert!((exact - counted).abs() < 0.05, "{exact} {counted}");
        }
    }
}
