//! Objects in pictures: what the detector of objects can tell apart, and what it says of a picture.

use crate::types::BoundingBox;

/// COCO's 80 classes, in the order of the detector's answers.
pub const OBJECT_CLASSES: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// One object of one picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DetectedObject {
    /// Its place in [`OBJECT_CLASSES`].
    pub class: u8,
    /// How sure the detector is, 0 to 100, on the scale of docs/reference/accuracy.md.
    pub confidence: f32,
    /// Where.
    pub bounding_box: BoundingBox,
}

impl DetectedObject {
    /// COCO's name of its class.
    pub fn class_name(&self) -> &'static str {
        OBJECT_CLASSES.get(usize::from(self.class)).copied().unwrap_or_default()
    }
}

/// The objects of an image, surest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelAnalysis {
    /// Pixels, after EXIF rotation.
    pub width: u32,
    /// Pixels, after EXIF rotation.
    pub height: u32,
    /// At most [`crate::limits::MAX_OBJECTS`].
    pub objects: Vec<DetectedObject>,
}
