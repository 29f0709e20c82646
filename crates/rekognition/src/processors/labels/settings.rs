//! What is kept of a label-detection processor: how CreateStreamProcessor says it, UpdateStreamProcessor changes it, and
//! DescribeStreamProcessor shows it.

use base::ApiError;
use serde::{Deserialize, Serialize};
use vision::DetectedObject;
use wire::rekognition::{self as w, StreamProcessorParameterToDelete as Parameter};

use super::region::Region;
use crate::error::invalid_parameter;
use crate::limits::{CONNECTED_HOME_CONFIDENCE_DEFAULT, LABEL_KEY_PREFIX_BYTES_MAX};
use crate::taxonomy;

/// What a processor can look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum HomeLabel {
    /// A person.
    Person,
    /// A dog or a cat.
    Pet,
}

impl HomeLabel {
    /// Everything: what ALL means. The detector knows no parcels.
    pub(crate) const ALL: [HomeLabel; 2] = [HomeLabel::Person, HomeLabel::Pet];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            HomeLabel::Person => "PERSON",
            HomeLabel::Pet => "PET",
        }
    }

    /// Whether an object is such a one: what DetectLabels calls Person, or has Pet as its parent.
    pub(crate) fn is(self, object: &DetectedObject) -> bool {
        taxonomy::of(object.class).is_some_and(|term| match self {
            HomeLabel::Person => term.name == "Person",
            HomeLabel::Pet => term.parents.contains(&"Pet"),
        })
    }
}

/// A label-detection processor beyond what every processor has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabelDetection {
    /// `ConnectedHome.Labels`, as they were given.
    pub(crate) labels: Vec<String>,
    /// `ConnectedHome.MinConfidence`; `None`: the default.
    pub(crate) min_confidence: Option<f32>,
    /// `Output.S3Destination`.
    pub(crate) bucket: String,
    pub(crate) key_prefix: Option<String>,
    /// `NotificationChannel.SNSTopicArn`.
    pub(crate) topic: Option<String>,
    pub(crate) kms_key_id: Option<String>,
    #[serde(default)]
    pub(crate) regions: Vec<Region>,
}

fn check_labels(labels: &[String]) -> Result<(), ApiError> {
    if labels.is_empty() {
        return Err(invalid_parameter("ConnectedHome has no Labels"));
    }
    for label in labels {
        match label.as_str() {
            "PERSON" | "PET" | "ALL" => {}
            "PACKAGE" => {
                return Err(invalid_parameter(
                    "PACKAGE is not available in this version, whose model knows no parcels; PERSON, PET and ALL, which means both, are",
                ));
            }
            other => {
                return Err(invalid_parameter(format!(
                    "{other:?} is no label of ConnectedHome; they are PERSON, PET, PACKAGE and ALL"
                )));
            }
        }
    }
    Ok(())
}

impl LabelDetection {
    /// What CreateStreamProcessor says; whether bucket and topic are there is checked elsewhere.
    pub(crate) fn of(
        input: &w::CreateStreamProcessorRequest,
        home: &w::ConnectedHomeSettings,
    ) -> Result<Self, ApiError> {
        check_labels(&home.labels)?;
        if input.output.kinesis_data_stream.is_some() {
            return Err(invalid_parameter(
                "Output.KinesisDataStream cannot be used with ConnectedHome; its output is an S3Destination",
            ));
        }
        let place = input.output.s3_destination.clone().unwrap_or_default();
        let bucket = place.bucket.filter(|bucket| !bucket.is_empty());
        let bucket = bucket.ok_or_else(|| invalid_parameter("Output.S3Destination.Bucket is missing"))?;
        let key_prefix = place.key_prefix.filter(|prefix| !prefix.is_empty());
        if key_prefix
            .as_ref()
            .is_some_and(|prefix| prefix.len() > LABEL_KEY_PREFIX_BYTES_MAX)
        {
            return Err(invalid_parameter(format!(
                "Output.S3Destination.KeyPrefix has more than {LABEL_KEY_PREFIX_BYTES_MAX} bytes, which leave no room for the names of images"
            )));
        }
        let regions = input.regions_of_interest.as_deref().unwrap_or_default();
        Ok(LabelDetection {
            labels: home.labels.clone(),
            min_confidence: home.min_confidence,
            bucket,
            key_prefix,
            topic: input
                .notification_channel
                .as_ref()
                .map(|channel| channel.sns_topic_arn.clone()),
            kms_key_id: input.kms_key_id.clone(),
            regions: Region::all_of(regions)?,
        })
    }

    /// Changes what UpdateStreamProcessor may change.
    pub(crate) fn update(&mut self, input: &w::UpdateStreamProcessorRequest) -> Result<(), ApiError> {
        let mut changed = self.clone();
        let deleted = input.parameters_to_delete.as_deref().unwrap_or_default();
        for parameter in deleted {
            match parameter {
                Parameter::ConnectedHomeMinConfidence => changed.min_confidence = None,
                Parameter::RegionsOfInterest => changed.regions.clear(),
            }
        }
        let both = |name: &str| invalid_parameter(format!("{name} is both changed and deleted"));
        if let Some(settings) = &input.settings_for_update {
            let home = settings
                .connected_home_for_update
                .as_ref()
                .ok_or_else(|| invalid_parameter("SettingsForUpdate has no ConnectedHomeForUpdate"))?;
            if let Some(labels) = &home.labels {
                check_labels(labels)?;
                changed.labels.clone_from(labels);
            }
            if let Some(least) = home.min_confidence {
                if deleted.contains(&Parameter::ConnectedHomeMinConfidence) {
                    return Err(both("ConnectedHomeMinConfidence"));
                }
                changed.min_confidence = Some(least);
            }
        }
        if let Some(regions) = &input.regions_of_interest_for_update {
            if deleted.contains(&Parameter::RegionsOfInterest) {
                return Err(both("RegionsOfInterest"));
            }
            changed.regions = Region::all_of(regions)?;
        }
        *self = changed;
        Ok(())
    }

    /// What is looked for.
    pub(crate) fn wanted(&self) -> Vec<HomeLabel> {
        let named = |label: &HomeLabel| self.labels.iter().any(|name| name == "ALL" || name == label.as_str());
        HomeLabel::ALL.into_iter().filter(named).collect()
    }

    pub(crate) fn min_confidence(&self) -> f32 {
        self.min_confidence.unwrap_or(CONNECTED_HOME_CONFIDENCE_DEFAULT)
    }

    /// The surest object of a picture that counts for a label.
    pub(crate) fn best<'a>(&self, label: HomeLabel, objects: &'a [DetectedObject]) -> Option<&'a DetectedObject> {
        let least = self.min_confidence();
        let counts = |object: &&DetectedObject| {
            let place = &object.bounding_box;
            label.is(object)
                && object.confidence >= least
                && (self.regions.is_empty() || self.regions.iter().any(|region| region.holds(place)))
        };
        let surer = |a: &&DetectedObject, b: &&DetectedObject| a.confidence.total_cmp(&b.confidence);
        objects.iter().filter(counts).max_by(surer)
    }

    pub(crate) fn output_to_wire(&self) -> w::StreamProcessorOutput {
        w::StreamProcessorOutput {
            kinesis_data_stream: None,
            s3_destination: Some(w::S3Destination {
                bucket: Some(self.bucket.clone()),
                key_prefix: self.key_prefix.clone(),
            }),
        }
    }

    pub(crate) fn settings_to_wire(&self) -> w::StreamProcessorSettings {
        w::StreamProcessorSettings {
            connected_home: Some(w::ConnectedHomeSettings {
                labels: self.labels.clone(),
                min_confidence: Some(self.min_confidence()),
            }),
            face_search: None,
        }
    }

    pub(crate) fn channel_to_wire(&self) -> Option<w::StreamProcessorNotificationChannel> {
        let topic = self.topic.clone();
        topic.map(|sns_topic_arn| w::StreamProcessorNotificationChannel { sns_topic_arn })
    }

    pub(crate) fn regions_to_wire(&self) -> Option<Vec<w::RegionOfInterest>> {
        let regions: Vec<_> = self.regions.iter().map(Region::to_wire).collect();
        Some(regions).filter(|regions| !regions.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use vision::BoundingBox;

    use super::*;

    fn detection(labels: &[&str], regions: Vec<Region>) -> LabelDetection {
        LabelDetection {
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            min_confidence: None,
            bucket: "bucket".to_owned(),
            key_prefix: None,
            topic: None,
            kms_key_id: None,
            regions,
        }
    }

    fn object(class: u8, confidence: f32, left: f32) -> DetectedObject {
        DetectedObject {
            class,
            confidence,
            bounding_box: BoundingBox {
                left,
                top: 0.25,
                width: 0.25,
                height: 0.25,
            },
        }
    }

    #[test]
    fn people_cats_and_dogs_count_and_nothing_else() {
        use HomeLabel::{Person, Pet};
        for (class, label) in [
            (0, Some(Person)),
            (15, Some(Pet)),
            (16, Some(Pet)),
            (14, None),
            (17, None),
            (28, None),
            (200, None),
        ] {
            let found = HomeLabel::ALL
                .into_iter()
                .find(|label| label.is(&object(class, 90.0, 0.0)));
            assert_eq!(found, label, "class {class}");
        }
        assert_eq!(detection(&["ALL"], Vec::new()).wanted(), [Person, Pet]);
        assert_eq!(detection(&["PET", "PET"], Vec::new()).wanted(), [Pet]);
    }

    #[test]
    fn the_surest_object_that_is_sure_enough_and_in_a_region_counts() {
        let all = [
            object(0, 49.9, 0.0),
            object(0, 60.0, 0.0),
            object(0, 70.0, 0.25),
            object(0, 90.0, 0.75),
            object(16, 99.0, 0.0),
        ];
        let best = |detection: &LabelDetection| detection.best(HomeLabel::Person, &all).map(|object| object.confidence);
        assert_eq!(best(&detection(&["ALL"], Vec::new())), Some(90.0));
        let left = Region::Box {
            left: 0.0,
            top: 0.0,
            width: 0.5,
            height: 1.0,
        };
        let mut in_left = detection(&["ALL"], vec![left]);
        assert_eq!(best(&in_left), Some(70.0));
        in_left.min_confidence = Some(75.0);
        assert_eq!(best(&in_left), None);
    }
}
