//! Images of tagged fragments on their way to the stream's bucket.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use matroska::Tag;
use parking_lot::Mutex;
use storage::{FragmentInfo, MediaStore, StreamId, TimeAxis};
use uuid::Uuid;

use super::config::ImageGeneration;
use super::make::{MakeError, Maker};
use super::source::Source;
use crate::deliver::{Deliver, Kind, tags};
use crate::notify::message::metadata;
use crate::ports::{DeliveryError, ImageObject, ImageSink, Ports, StillFormat, Stills, StillsError};
use crate::state::StreamState;
use crate::streams::StreamArn;

/// Makes and delivers images.
pub(crate) struct Generator {
    stills: Arc<dyn Stills>,
    sink: Arc<dyn ImageSink>,
    store: Arc<dyn MediaStore>,
    /// The last sampling point of each stream, so that the interval goes on from fragment to fragment. Forgotten when the
    /// server ends; sampling then begins anew with the next fragment.
    last: Mutex<HashMap<StreamId, i64>>,
}

/// The sampling points of a fragment that spans `start..end`: on from the last one where that is less than an interval
/// away (spans of fragments may overlap by a frame), else from the fragment's start.
fn points(start: i64, end: i64, interval: i64, last: Option<i64>) -> Vec<i64> {
    let next = last.map(|last| last.saturating_add(interval));
    let first = match (last, next) {
        (Some(last), Some(next)) if last < start.saturating_add(interval) && next >= start => next,
        _ => start,
    };
    let step = usize::try_from(interval).unwrap_or(usize::MAX).max(1);
    (first..end).step_by(step).collect()
}

/// The key of an object: `PREFIX_ACCOUNT_STREAM_MILLISECONDS_ID.EXTENSION` as AWS names them, below the path that the
/// destination may have. The id depends on stream, fragment and time alone, so that an image delivered again takes the
/// place of the first.
fn object_key(
    path: &str,
    prefix: Option<&str>,
    arn: &StreamArn,
    info: &FragmentInfo,
    time_ms: i64,
    format: StillFormat,
) -> String {
    let (account, name) = (arn.name.account, &arn.name.name);
    let id = Uuid::new_v5(
        &Uuid::NAMESPACE_URL,
        format!("{arn}/{}/{time_ms}", info.number).as_bytes(),
    );
    let extension = match format {
        StillFormat::Jpeg(_) => "jpg",
        StillFormat::Png => "png",
    };
    let folder = if path.is_empty() || path.ends_with('/') {
        path.to_owned()
    } else {
        format!("{path}/")
    };
    let prefix = prefix.filter(|prefix| !prefix.is_empty());
    let prefix = prefix.map_or(String::new(), |prefix| format!("{prefix}_"));
    format!("{folder}{prefix}{account}_{name}_{time_ms}_{id}.{extension}")
}

impl Generator {
    /// One that decodes and delivers by these ports.
    pub fn new(ports: &Ports, store: Arc<dyn MediaStore>) -> Self {
        Generator {
            stills: ports.stills.clone(),
            sink: ports.image_sink.clone(),
            store,
            last: Mutex::default(),
        }
    }

    /// The images of a fragment, each with the time of its frame; and the last point that has a frame.
    async fn images(
        &self,
        state: &StreamState,
        info: &FragmentInfo,
        wanted: &ImageGeneration,
        points: &[i64],
    ) -> Result<(Vec<(i64, Bytes)>, Option<i64>), MakeError> {
        let axis = axis(wanted);
        let mut source = Source::load(&*self.store, state.id, *info, axis).await?;
        let interval = i64::from(wanted.interval_ms);
        let found = points.iter().filter_map(|at| {
            let (index, time) = source.first_at(*at)?;
            (time < at.saturating_add(interval)).then_some((*at, index, time))
        });
        let found: Vec<(i64, usize, i64)> = found.collect();
        let indexes: Vec<usize> = found.iter().map(|(_, index, _)| *index).collect();
        let maker = Maker {
            stills: &*self.stills,
            store: &*self.store,
            account: state.arn.name.account,
            stream: state.id,
            axis,
            format: wanted.format(),
            size: wanted.size(),
        };
        let made = maker.images(&mut source, &indexes).await?;
        let last = found.last().map(|(at, ..)| *at);
        let good = found.into_iter().zip(made);
        let images = good.filter_map(|((_, _, time), made)| Some((time, made.ok()?)));
        Ok((images.collect(), last))
    }
}

fn axis(wanted: &ImageGeneration) -> TimeAxis {
    if wanted.server_time {
        TimeAxis::Server
    } else {
        TimeAxis::Producer
    }
}

#[async_trait]
impl Deliver for Generator {
    fn kind(&self) -> Kind {
        Kind::Images
    }

    async fn deliver(&self, state: &StreamState, info: &FragmentInfo, tags: &[Tag]) -> Result<(), DeliveryError> {
        let record = state.record();
        let Some(wanted) = record.image_generation.as_ref().filter(|wanted| wanted.enabled) else {
            return Ok(());
        };
        let axis = axis(wanted);
        let last = self.last.lock().get(&state.id).copied();
        let (start, end) = (info.start(axis).millis(), info.end(axis).millis());
        let points = points(start, end, i64::from(wanted.interval_ms), last);
        let made = self.images(state, info, wanted, &points).await;
        let (images, newest) = made.map_err(|error| match error {
            MakeError::Stills(StillsError::Absent(why)) => DeliveryError::Refused(why),
            MakeError::Storage(storage::Error::NotFound) => DeliveryError::Refused("the fragment is gone".to_owned()),
            other => DeliveryError::Failed(other.to_string()),
        })?;
        let prefix = tags.iter().find(|tag| tag.name == tags::IMAGE_PREFIX);
        let (bucket, path) = wanted.bucket();
        for (time_ms, content) in images {
            let object = ImageObject {
                account: state.arn.name.account,
                bucket: bucket.to_owned(),
                key: object_key(
                    path,
                    prefix.and_then(Tag::as_str),
                    &state.arn,
                    info,
                    time_ms,
                    wanted.format(),
                ),
                content_type: match wanted.format() {
                    StillFormat::Jpeg(_) => "image/jpeg",
                    StillFormat::Png => "image/png",
                },
                metadata: metadata(tags),
                content,
            };
            self.sink.put(object).await?;
        }
        if let Some(newest) = newest {
            self.last.lock().insert(state.id, newest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_interval_goes_on_from_fragment_to_fragment_and_begins_anew_after_a_pause() {
        assert_eq!(points(10_000, 12_000, 500, None), [10_000, 10_500, 11_000, 11_500]);
        assert_eq!(points(12_000, 14_000, 3000, Some(10_000)), [13_000]);
        assert_eq!(points(14_000, 16_000, 3000, Some(13_000)), [] as [i64; 0]);
        assert_eq!(points(60_000, 62_000, 3000, Some(13_000)), [60_000]);
        // The fragment before ended later than this one begins.
        assert_eq!(points(3000, 4000, 400, Some(3200)), [3600]);
        // The producer's clock went back.
        assert_eq!(points(1000, 2000, 600, Some(60_000)), [1000, 1600]);
    }

    proptest! {
        #[test]
        fn every_point_lies_in_its_fragment_and_no_two_are_closer_than_the_interval(
            lengths in proptest::collection::vec(1i64..5000, 1..20), interval in 200i64..4000
        ) {
            let (mut start, mut last, mut all) = (1_000_000, None, Vec::new());
            for length in lengths {
                let found = points(start, start + length, interval, last);
                prop_assert!(found.iter().all(|at| (start..start + length).contains(at)));
                last = found.last().copied().or(last);
                all.extend(found);
                start += length;
            }
            prop_assert!(all.windows(2).all(|pair| pair[1] - pair[0] == interval));
        }
    }

    #[test]
    fn keys_are_named_as_aws_names_them() {
        let arn: StreamArn = "arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/17"
            .parse()
            .unwrap();
        let info = FragmentInfo {
            number: crate::testing::number(1),
            server_timestamp: base::Timestamp::from_millis(5),
            producer_timestamp: base::Timestamp::from_millis(5),
            length_ms: 1,
            size: 1,
            header_len: 1,
            position: 1,
            frame_count: 1,
            tracks_hash: 0,
        };
        let key = |path: &str, prefix| object_key(path, prefix, &arn, &info, 1_650_000_000_123, StillFormat::Jpeg(80));
        let plain = key("", None);
        assert!(
            plain.starts_with("000000000000_door_1650000000123_") && plain.ends_with(".jpg"),
            "{plain}"
        );
        assert_eq!(key("", Some("alarm/hall")), format!("alarm/hall_{plain}"));
        assert_eq!(key("a/b", None), format!("a/b/{plain}"));
        assert_eq!(key("a/b/", Some("")), format!("a/b/{plain}"));
        assert_eq!(key("", None), plain, "the same image has the same key");
    }
}
