//! What a GetImages asks for: its checks, its sampling points, and the token that carries them from page to page.

use base::Timestamp;
use serde::{Deserialize, Serialize};
use storage::{StreamId, TimeAxis};
use wire::kinesisvideo_archived_media::{Format, GetImagesInput, ImageSelectorType};

use super::config::{jpeg_quality, still_format};
use crate::error::MediaError;
use crate::limits;
use crate::ports::{StillFormat, StillSize};
use crate::token;

/// A request, and the sampling point with which it goes on. It is its own page token, so that every page is of the same
/// request whatever the caller repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wants {
    stream: u64,
    server_time: bool,
    /// The next sampling point.
    next_ms: i64,
    end_ms: i64,
    interval_ms: i64,
    png: bool,
    quality: Option<u8>,
    width: Option<u32>,
    height: Option<u32>,
}

impl Wants {
    /// Reads a request.
    pub fn read(stream: StreamId, input: &GetImagesInput) -> Result<Wants, MediaError> {
        let wrong = |why: String| Err(MediaError::InvalidArgument(why));
        if let Some(text) = &input.next_token {
            let wants: Option<Wants> = token::decode(text);
            let legal = wants.filter(|wants| wants.stream == stream.0 && wants.is_sound());
            return legal.map_or_else(|| wrong("The NextToken is not one of this stream.".to_owned()), Ok);
        }
        let (start, end) = (input.start_timestamp.millis(), input.end_timestamp.millis());
        if start > end {
            return wrong("StartTimestamp must not be later than EndTimestamp.".to_owned());
        }
        if end.saturating_sub(start) > limits::IMAGES_RANGE_MS {
            let most = limits::IMAGES_RANGE_MS / 1000;
            return wrong(format!(
                "StartTimestamp and EndTimestamp are more than {most} seconds apart."
            ));
        }
        let interval = input.sampling_interval.unwrap_or(limits::SAMPLING_INTERVAL_MS_DEFAULT);
        if interval < limits::SAMPLING_INTERVAL_MS_MIN {
            let least = limits::SAMPLING_INTERVAL_MS_MIN;
            return wrong(format!("SamplingInterval is {interval} ms; it is at least {least} ms."));
        }
        if input.width_pixels.is_some() && input.height_pixels.is_none() {
            return wrong("WidthPixels needs HeightPixels; HeightPixels alone keeps the proportions.".to_owned());
        }
        let pixels = |pixels: Option<i32>| pixels.and_then(|pixels| u32::try_from(pixels).ok());
        Ok(Wants {
            stream: stream.0,
            server_time: input.image_selector_type == ImageSelectorType::ServerTimestamp,
            next_ms: start,
            end_ms: end,
            interval_ms: i64::from(interval),
            png: input.format == Format::Png,
            quality: jpeg_quality(input.format_config.as_ref()).map_err(MediaError::InvalidArgument)?,
            width: pixels(input.width_pixels),
            height: pixels(input.height_pixels),
        })
    }

    /// A token is only encoded, so that a caller may have made it: what a request may not ask for, it may not either.
    fn is_sound(&self) -> bool {
        let side = |pixels: Option<u32>, most: u32| pixels.is_none_or(|pixels| (1..=most).contains(&pixels));
        self.interval_ms >= i64::from(limits::SAMPLING_INTERVAL_MS_MIN)
            && self.end_ms.saturating_sub(self.next_ms) <= limits::IMAGES_RANGE_MS
            && self.quality.is_none_or(|quality| (1..=100).contains(&quality))
            && side(self.width, limits::IMAGE_WIDTH_MAX)
            && side(self.height, limits::IMAGE_HEIGHT_MAX)
    }

    /// Which time the points are of.
    pub fn axis(&self) -> TimeAxis {
        if self.server_time {
            TimeAxis::Server
        } else {
            TimeAxis::Producer
        }
    }

    /// How images are encoded.
    pub fn format(&self) -> StillFormat {
        still_format(self.png, self.quality)
    }

    /// How large they are made.
    pub fn size(&self) -> StillSize {
        StillSize {
            width: self.width,
            height: self.height,
        }
    }

    /// The next sampling points, at most so many. Each stands for the time from itself to the next, exclusive: the first
    /// frame of that time is its image.
    pub fn points(&self, limit: usize) -> Vec<Point> {
        let at = |i: usize| {
            self.next_ms
                .checked_add(self.interval_ms.checked_mul(i64::try_from(i).ok()?)?)
        };
        (0..limit)
            .map_while(at)
            .take_while(|at| *at <= self.end_ms)
            .map(|at_ms| Point {
                at_ms,
                until_ms: at_ms.saturating_add(self.interval_ms),
            })
            .collect()
    }

    /// The token of the page after this point; `None` where no point is left.
    pub fn after(&self, last: Point) -> Option<String> {
        let next_ms = last.until_ms;
        let left = next_ms <= self.end_ms;
        left.then(|| {
            token::encode(&Wants {
                next_ms,
                ..self.clone()
            })
        })
    }
}

/// A sampling point and the end of the time that it stands for, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub at_ms: i64,
    pub until_ms: i64,
}

impl Point {
    /// As the answer gives it.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn input(start: i64, end: i64, interval: Option<i32>) -> GetImagesInput {
        GetImagesInput {
            end_timestamp: Timestamp::from_millis(end),
            format: Format::Jpeg,
            format_config: None,
            height_pixels: None,
            image_selector_type: ImageSelectorType::ServerTimestamp,
            max_results: None,
            next_token: None,
            sampling_interval: interval,
            start_timestamp: Timestamp::from_millis(start),
            stream_arn: None,
            stream_name: None,
            width_pixels: None,
        }
    }

    fn read(input: &GetImagesInput) -> Result<Wants, MediaError> {
        Wants::read(StreamId(7), input)
    }

    #[test]
    fn what_is_beyond_the_limits_is_an_invalid_argument() {
        let good = input(1000, 301_000, Some(200));
        assert!(read(&good).is_ok());
        let quality = |text: &str| Some(BTreeMap::from([("JPEGQuality".to_owned(), text.to_owned())]));
        for bad in [
            input(1001, 1000, None),
            input(1000, 301_001, None),
            input(1000, 2000, Some(199)),
            input(1000, 2000, Some(-5)),
            GetImagesInput {
                width_pixels: Some(64),
                ..good.clone()
            },
            GetImagesInput {
                format_config: quality("0"),
                ..good.clone()
            },
            GetImagesInput {
                next_token: Some("bm90IGEgdG9rZW4=".to_owned()),
                ..good.clone()
            },
        ] {
            assert!(matches!(read(&bad), Err(MediaError::InvalidArgument(_))), "{bad:?}");
        }
        let both = GetImagesInput {
            width_pixels: Some(64),
            height_pixels: Some(48),
            ..good.clone()
        };
        assert_eq!(
            read(&both).unwrap().size(),
            StillSize {
                width: Some(64),
                height: Some(48)
            }
        );
        let high = GetImagesInput {
            height_pixels: Some(48),
            ..good
        };
        assert_eq!(
            read(&high).unwrap().size(),
            StillSize {
                width: None,
                height: Some(48)
            }
        );
    }

    #[test]
    fn a_token_of_another_stream_or_of_another_making_is_refused() {
        let wants = read(&input(1000, 9000, Some(1000))).unwrap();
        let token = |wants: &Wants| GetImagesInput {
            next_token: Some(token::encode(wants)),
            ..input(1000, 9000, None)
        };
        assert_eq!(read(&token(&wants)).unwrap(), wants);
        for forged in [
            Wants {
                stream: 8,
                ..wants.clone()
            },
            Wants {
                interval_ms: 0,
                ..wants.clone()
            },
            Wants {
                end_ms: i64::MAX,
                ..wants.clone()
            },
            Wants {
                quality: Some(200),
                ..wants.clone()
            },
            Wants {
                width: Some(100_000),
                ..wants.clone()
            },
        ] {
            assert!(read(&token(&forged)).is_err(), "{forged:?}");
        }
    }

    #[test]
    fn a_range_shorter_than_the_interval_has_its_start() {
        let wants = read(&input(1000, 1500, Some(3000))).unwrap();
        let points = wants.points(25);
        assert_eq!(
            points,
            [Point {
                at_ms: 1000,
                until_ms: 4000
            }]
        );
        assert_eq!(wants.after(points[0]), None);
    }

    proptest! {
        #[test]
        fn pages_give_every_point_once_and_in_order(
            start in 0i64..10_000_000, length in 0i64..=300_000, interval in 200i32..5000, page in 1usize..=25
        ) {
            let mut request = input(start, start + length, Some(interval));
            let mut seen = Vec::new();
            loop {
                let wants = read(&request).unwrap();
                let points = wants.points(page);
                prop_assert!(!points.is_empty() && points.len() <= page);
                seen.extend(points.iter().map(|point| point.at_ms));
                match wants.after(*points.last().unwrap()) {
                    Some(token) => request.next_token = Some(token),
                    None => break,
                }
            }
            let all: Vec<i64> = (0..).map(|i| start + i * i64::from(interval)).take_while(|at| *at <= start + length).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
