//! DescribeImageGenerationConfiguration and UpdateImageGenerationConfiguration: what is checked and what is kept.

use std::collections::BTreeMap;

use base::{ApiError, Handle, Reply, Request};
use serde::{Deserialize, Serialize};
use wire::kinesisvideo::{
    ConfigurationStatus, DescribeImageGenerationConfigurationInput, DescribeImageGenerationConfigurationOutput, Format,
    ImageGenerationConfiguration, ImageGenerationDestinationConfig, ImageSelectorType,
    UpdateImageGenerationConfigurationInput, UpdateImageGenerationConfigurationOutput, op,
};

use crate::VideoStreams;
use crate::control::resolve;
use crate::deliver::Kind;
use crate::error::ControlError;
use crate::limits;
use crate::ports::{StillFormat, StillSize};
use crate::records::StreamRecord;

/// The configuration as the catalog holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageGeneration {
    /// Images are made.
    pub enabled: bool,
    /// Sampling points count from the fragment's server time, else from its producer time.
    pub server_time: bool,
    /// `s3://` and a bucket, as the caller gave it.
    pub uri: String,
    /// The bucket's region.
    pub region: String,
    /// From sampling point to sampling point.
    pub interval_ms: i32,
    /// PNG, else JPEG.
    pub png: bool,
    /// The quality as the caller gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg_quality: Option<u8>,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
}

impl ImageGeneration {
    /// How images are encoded.
    pub fn format(&self) -> StillFormat {
        still_format(self.png, self.jpeg_quality)
    }

    /// How large they are made. Unlike GetImages, a width alone is legal here and keeps the proportions (model).
    pub fn size(&self) -> StillSize {
        StillSize {
            width: self.width,
            height: self.height,
        }
    }

    /// The bucket, and the prefix that its address may carry.
    pub fn bucket(&self) -> (&str, &str) {
        let path = self.uri.strip_prefix("s3://").unwrap_or(&self.uri);
        path.split_once('/').unwrap_or((path, ""))
    }

    fn from_wire(wire: &ImageGenerationConfiguration) -> Result<Self, ControlError> {
        let wrong = |why: String| Err(ControlError::InvalidArgument(why));
        if wire.sampling_interval < limits::SAMPLING_INTERVAL_MS_MIN {
            let (got, least) = (wire.sampling_interval, limits::SAMPLING_INTERVAL_MS_MIN);
            return wrong(format!("SamplingInterval is {got} ms; it is at least {least} ms."));
        }
        let made = ImageGeneration {
            enabled: wire.status == ConfigurationStatus::Enabled,
            server_time: wire.image_selector_type == ImageSelectorType::ServerTimestamp,
            uri: wire.destination_config.uri.clone(),
            region: wire.destination_config.destination_region.clone(),
            interval_ms: wire.sampling_interval,
            png: wire.format == Format::Png,
            jpeg_quality: jpeg_quality(wire.format_config.as_ref()).map_err(ControlError::InvalidArgument)?,
            width: wire.width_pixels.and_then(|pixels| u32::try_from(pixels).ok()),
            height: wire.height_pixels.and_then(|pixels| u32::try_from(pixels).ok()),
        };
        if !made.uri.starts_with("s3://") || !is_bucket(made.bucket().0) {
            let uri = &made.uri;
            return wrong(format!(
                "The destination {uri:?} is not s3:// and the name of a bucket."
            ));
        }
        Ok(made)
    }

    fn to_wire(&self) -> ImageGenerationConfiguration {
        let pixels = |pixels: Option<u32>| pixels.and_then(|pixels| i32::try_from(pixels).ok());
        let quality = |quality: u8| BTreeMap::from([(JPEG_QUALITY.to_owned(), quality.to_string())]);
        ImageGenerationConfiguration {
            destination_config: ImageGenerationDestinationConfig {
                destination_region: self.region.clone(),
                uri: self.uri.clone(),
            },
            format: if self.png { Format::Png } else { Format::Jpeg },
            format_config: self.jpeg_quality.map(quality),
            height_pixels: pixels(self.height),
            image_selector_type: match self.server_time {
                true => ImageSelectorType::ServerTimestamp,
                false => ImageSelectorType::ProducerTimestamp,
            },
            sampling_interval: self.interval_ms,
            status: match self.enabled {
                true => ConfigurationStatus::Enabled,
                false => ConfigurationStatus::Disabled,
            },
            width_pixels: pixels(self.width),
        }
    }
}

/// The one key of FormatConfig.
const JPEG_QUALITY: &str = "JPEGQuality";

/// The quality that a FormatConfig asks for.
pub(crate) fn jpeg_quality(config: Option<&BTreeMap<String, String>>) -> Result<Option<u8>, String> {
    let Some(text) = config.and_then(|config| config.get(JPEG_QUALITY)) else {
        return Ok(None);
    };
    let quality = text.parse().ok().filter(|quality| (1..=100).contains(quality));
    quality
        .map(Some)
        .ok_or_else(|| format!("{JPEG_QUALITY} is {text:?}; it is a number of 1 to 100."))
}

/// How images are encoded.
pub(crate) fn still_format(png: bool, jpeg_quality: Option<u8>) -> StillFormat {
    match png {
        true => StillFormat::Png,
        false => StillFormat::Jpeg(jpeg_quality.unwrap_or(limits::JPEG_QUALITY_DEFAULT)),
    }
}

/// S3's rule for new buckets: 3 to 63 of `a-z 0-9 . -`, beginning and ending with a letter or digit.
fn is_bucket(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [name.bytes().next(), name.bytes().last()];
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'-'))
        && ends.into_iter().all(|end| end.is_some_and(alphanumeric))
}

impl Handle<op::DescribeImageGenerationConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeImageGenerationConfigurationInput>,
    ) -> Result<Reply<DescribeImageGenerationConfigurationOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let kept = state.record().image_generation.as_ref().map(ImageGeneration::to_wire);
        Ok(DescribeImageGenerationConfigurationOutput {
            image_generation_configuration: kept,
        }
        .into())
    }
}

impl Handle<op::UpdateImageGenerationConfiguration> for VideoStreams {
    async fn handle(
        &self,
        request: Request<UpdateImageGenerationConfigurationInput>,
    ) -> Result<Reply<UpdateImageGenerationConfigurationOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let wanted = input.image_generation_configuration.as_ref();
        let wanted = wanted.map(ImageGeneration::from_wire).transpose()?;
        if let Some(wanted) = &wanted {
            let home = &state.arn.name.region;
            if wanted.region != home.to_string() {
                let (there, why) = (&wanted.region, "it must be the stream's region");
                let why = format!("DestinationRegion is {there}; {why}, {home}.");
                return Err(ControlError::InvalidArgument(why).into());
            }
            if wanted.enabled {
                let (account, bucket) = (state.arn.name.account, wanted.bucket().0);
                let reachable = inner.ports.image_sink.reachable(account, bucket).await;
                reachable.map_err(|why| {
                    ControlError::InvalidArgument(format!("The bucket {bucket} cannot be delivered to: {why}"))
                })?;
            }
        }
        let change = |record: &mut StreamRecord| {
            if wanted.is_some() && record.retention_hours == 0 {
                return Err(ControlError::NoDataRetention);
            }
            record.image_generation.clone_from(&wanted);
            Ok(())
        };
        inner.change_delivery(&state, Kind::Images, change).await?;
        Ok(UpdateImageGenerationConfigurationOutput {}.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_named_as_s3_names_them() {
        for good in ["abc", "my-bucket", "a.b.c", "0123"] {
            assert!(is_bucket(good), "{good}");
        }
        for bad in ["", "ab", "Bucket", "-abc", "abc.", "a_b_c", "a b c", &"a".repeat(64)] {
            assert!(!is_bucket(bad), "{bad}");
        }
    }

    #[test]
    fn a_quality_is_a_number_of_one_to_a_hundred() {
        let of = |text: &str| jpeg_quality(Some(&BTreeMap::from([(JPEG_QUALITY.to_owned(), text.to_owned())])));
        assert_eq!((of("1"), of("100")), (Ok(Some(1)), Ok(Some(100))));
        for bad in ["0", "101", "", "80.5", "best", "-1", "300"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(jpeg_quality(None), Ok(None));
        assert_eq!(still_format(false, None), StillFormat::Jpeg(80));
        assert_eq!(still_format(true, Some(3)), StillFormat::Png);
    }
}
