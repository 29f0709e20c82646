//! Which faces are good enough to be enrolled or searched: the `QualityFilter` of a request and the reasons why a face is
//! left out.
//!
//! AWS does not publish its bars. Ours: AUTO keeps whatever gives a usable vector (a face of 32 pixels, not in the dark,
//! not in profile), MEDIUM what AWS advises for enrolment, HIGH a passport-like picture. The numbers are on the scales
//! of [`vision::Quality`] and [`vision::Pose`].

use vision::{Face, ImageAnalysis};
use wire::rekognition::{QualityFilter, Reason};

/// The least that a face must have.
struct Bar {
    /// The box's shorter side in pixels.
    side_px: f32,
    /// The detector's confidence.
    confidence: f32,
    brightness: f32,
    sharpness: f32,
    /// The most that the face may be turned to a side or up and down, in degrees.
    turn_degrees: f32,
}

const LOW: Bar = Bar {
    side_px: 24.0,
    confidence: 60.0,
    brightness: 8.0,
    sharpness: 1.0,
    turn_degrees: 75.0,
};

const AUTO: Bar = Bar {
    side_px: 32.0,
    confidence: 70.0,
    brightness: 12.0,
    sharpness: 2.0,
    turn_degrees: 60.0,
};

const MEDIUM: Bar = Bar {
    side_px: 50.0,
    confidence: 80.0,
    brightness: 20.0,
    sharpness: 5.0,
    turn_degrees: 45.0,
};

const HIGH: Bar = Bar {
    side_px: 80.0,
    confidence: 90.0,
    brightness: 30.0,
    sharpness: 15.0,
    turn_degrees: 30.0,
};

/// Why the face does not pass the filter; empty when it does.
pub(crate) fn shortcomings(face: &Face, image: &ImageAnalysis, filter: QualityFilter) -> Vec<Reason> {
    let bar = match filter {
        QualityFilter::None => return Vec::new(),
        QualityFilter::Auto => AUTO,
        QualityFilter::Low => LOW,
        QualityFilter::Medium => MEDIUM,
        QualityFilter::High => HIGH,
    };
    let width_px = face.bounding_box.width * image.width as f32;
    let height_px = face.bounding_box.height * image.height as f32;
    let turn = face.pose.yaw.abs().max(face.pose.pitch.abs());
    let checks = [
        (turn <= bar.turn_degrees, Reason::ExtremePose),
        (face.quality.brightness >= bar.brightness, Reason::LowBrightness),
        (face.quality.sharpness >= bar.sharpness, Reason::LowSharpness),
        (face.confidence >= bar.confidence, Reason::LowConfidence),
        (width_px.min(height_px) >= bar.side_px, Reason::SmallBoundingBox),
    ];
    checks
        .into_iter()
        .filter(|(good, _)| !good)
        .map(|(_, reason)| reason)
        .collect()
}

/// How good a face is beside others of the same image; for choosing whom to leave out.
pub(crate) fn rank(face: &Face) -> f32 {
    let turn = face.pose.yaw.abs().max(face.pose.pitch.abs());
    face.confidence + face.quality.sharpness + face.quality.brightness.min(50.0) - turn
}

/// The area of a box, as a ratio of the image.
pub(crate) fn area(face: &Face) -> f32 {
    face.bounding_box.width * face.bounding_box.height
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shortcoming_is_named_and_no_filter_names_none() {
        let image = ImageAnalysis {
            width: 1000,
            height: 1000,
            faces: Vec::new(),
        };
        let mut good = Face {
            confidence: 99.0,
            ..Face::default()
        };
        good.bounding_box.width = 0.2;
        good.bounding_box.height = 0.3;
        good.quality.brightness = 60.0;
        good.quality.sharpness = 60.0;
        for filter in QualityFilter::ALL {
            assert!(shortcomings(&good, &image, *filter).is_empty());
        }
        let mut poor = Face {
            confidence: 10.0,
            ..Face::default()
        };
        poor.pose.yaw = -80.0;
        use Reason::{ExtremePose, LowBrightness, LowConfidence, LowSharpness, SmallBoundingBox};
        let all = [
            ExtremePose,
            LowBrightness,
            LowSharpness,
            LowConfidence,
            SmallBoundingBox,
        ];
        assert_eq!(shortcomings(&poor, &image, QualityFilter::Auto), all);
        assert!(shortcomings(&poor, &image, QualityFilter::None).is_empty());
        let mut turned = good.clone();
        turned.pose.yaw = 40.0;
        assert_eq!(shortcomings(&turned, &image, QualityFilter::High), [ExtremePose]);
        assert!(shortcomings(&turned, &image, QualityFilter::Auto).is_empty());
        assert!(rank(&good) > rank(&turned) && rank(&turned) > rank(&poor));
    }
}
