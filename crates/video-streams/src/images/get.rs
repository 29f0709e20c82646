//! GetImages: an image for each sampling point of a range, in pages that end early when they have taken long or grown large.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use storage::{FragmentInfo, FragmentQuery, FragmentRange, MediaStore, StreamId, TimeAxis};
use wire::kinesisvideo_archived_media::{GetImagesInput, GetImagesOutput, Image, ImageError, op};

use super::make::{MakeError, Maker};
use super::source::Source;
use super::wants::{Point, Wants};
use crate::VideoStreams;
use crate::error::MediaError;
use crate::limits;
use crate::media::resolve;
use crate::ports::{NotDecodable, StillsError};
use crate::state::StreamState;

/// Sources kept while points are located: the spanning fragment and its neighbours.
const SOURCES_CACHED: usize = 3;

impl Handle<op::GetImages> for VideoStreams {
    async fn handle(&self, request: Request<GetImagesInput>) -> Result<Reply<GetImagesOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(inner, &request.context, name, arn)?;
        let wants = Wants::read(state.id, &input)?;
        if state.retention_hours() == 0 {
            return Err(MediaError::NoDataRetention.into());
        }
        let most = input.max_results.and_then(|most| usize::try_from(most).ok());
        let limit = most.unwrap_or(limits::IMAGES_PAGE).clamp(1, limits::IMAGES_PAGE);
        let slot = tokio::time::timeout(limits::IMAGES_WAIT, inner.image_slots.acquire());
        let _slot = slot.await.map_err(|_| MediaError::from(StillsError::Busy))?;
        let store = state.stores().durable.clone();
        let page = Page {
            maker: Maker {
                stills: &*inner.ports.stills,
                store: &*store,
                account: state.arn.name.account,
                stream: state.id,
                axis: wants.axis(),
                format: wants.format(),
                size: wants.size(),
            },
            images: Vec::new(),
            bytes: 0,
        };
        let started = inner.clock.monotonic();
        let late = || inner.clock.monotonic().saturating_sub(started) > limits::IMAGES_PAGE_TIME;
        let points = wants.points(limit);
        let (images, last) = page.fill(&state, &points, late).await?;
        Ok(GetImagesOutput {
            images: Some(images),
            next_token: last.and_then(|last| wants.after(last)),
        }
        .into())
    }
}

/// Where a sampling point's image comes from.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// A frame: the fragment, and the frame's index in it.
    Frame(FragmentInfo, usize),
    /// There is media, but no video that can be decoded.
    NoVideo,
    /// There is nothing.
    NoMedia,
}

/// A page under way.
struct Page<'a> {
    maker: Maker<'a>,
    images: Vec<Image>,
    bytes: usize,
}

impl Page<'_> {
    /// The images, and the last point that they go up to.
    async fn fill(
        mut self,
        state: &Arc<StreamState>,
        points: &[Point],
        late: impl Fn() -> bool,
    ) -> Result<(Vec<Image>, Option<Point>), MediaError> {
        let mut located = Vec::with_capacity(points.len());
        let mut cached = VecDeque::new();
        for point in points {
            located.push((*point, self.locate(&mut cached, *point).await?));
        }
        let mut last = None;
        // Points whose frames lie in one fragment are decoded together.
        for group in located.chunk_by(|(_, a), (_, b)| same_fragment(a, b)) {
            if last.is_some() && (late() || self.bytes >= limits::IMAGES_PAGE_BYTES) {
                break;
            }
            self.group(state, group).await?;
            last = group.last().map(|(point, _)| *point);
        }
        Ok((self.images, last))
    }

    /// The first frame of the time that a point stands for: of the fragment that spans the point, or of those that begin
    /// within that time or soon after: spans overlap by a frame, and a fragment's first frame may be shown after others of
    /// the fragment (open groups of pictures, clusters that begin within a group).
    async fn locate(&self, cached: &mut VecDeque<Source>, point: Point) -> Result<Found, MediaError> {
        let (store, stream, axis) = (self.maker.store, self.maker.stream, self.maker.axis);
        let reordered = Timestamp::from_millis(point.until_ms).plus_millis(limits::IMAGE_REORDER_MS);
        let (at, until) = (point.timestamp(), reordered);
        let spanning = store.find_containing(stream, axis, at).await?;
        let query = FragmentQuery::first(FragmentRange::Time(axis, at, until), limits::IMAGE_FRAGMENTS_SEARCHED);
        let beginning = store.list(stream, &query).await?;
        let mut no_video = false;
        let mut best: Option<(FragmentInfo, usize, i64)> = None;
        for info in spanning
            .into_iter()
            .filter(|info| info.start(axis) < at)
            .chain(beginning)
        {
            let first_shown = info.start(axis).plus_millis(-limits::IMAGE_REORDER_MS).millis();
            if best.map_or(point.until_ms, |(_, _, time_ms)| time_ms) <= first_shown {
                break;
            }
            let source = match load(cached, store, stream, info, axis).await {
                Ok(source) => source,
                Err(storage::Error::NotFound) => continue,
                Err(storage::Error::Corrupt(why)) => {
                    tracing::warn!(fragment = %info.number, %why, "no images of a damaged fragment");
                    no_video = true;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            no_video |= source.track.is_none();
            if let Some((index, time_ms)) = source.first_at(point.at_ms)
                && time_ms < best.map_or(point.until_ms, |(_, _, best_ms)| best_ms)
            {
                best = Some((info, index, time_ms));
            }
        }
        Ok(match best {
            Some((info, index, _)) => Found::Frame(info, index),
            None if no_video => Found::NoVideo,
            None => Found::NoMedia,
        })
    }

    /// Appends the images of points whose frames lie in one fragment, or of one point without a frame.
    async fn group(&mut self, state: &Arc<StreamState>, group: &[(Point, Found)]) -> Result<(), MediaError> {
        let frames = group.iter().filter_map(|(_, found)| match found {
            Found::Frame(info, index) => Some((*info, *index)),
            _ => None,
        });
        let (infos, wanted): (Vec<FragmentInfo>, Vec<usize>) = frames.unzip();
        let Some(info) = infos.first() else {
            for (point, found) in group {
                let error = match found {
                    Found::NoMedia => ImageError::NoMedia,
                    _ => ImageError::MediaError,
                };
                self.failed(*point, error);
            }
            return Ok(());
        };
        let made = match self.make(*info, &wanted).await {
            Ok(made) => made,
            // Retention took it since it was found.
            Err(MakeError::Storage(storage::Error::NotFound)) => {
                group
                    .iter()
                    .for_each(|(point, _)| self.failed(*point, ImageError::NoMedia));
                return Ok(());
            }
            Err(MakeError::Storage(error)) => return Err(error.into()),
            Err(MakeError::Stills(StillsError::Failed(why))) => {
                tracing::warn!(stream = %state.arn, fragment = %info.number, why, "images could not be made");
                group
                    .iter()
                    .for_each(|(point, _)| self.failed(*point, ImageError::MediaError));
                return Ok(());
            }
            Err(MakeError::Stills(error)) => return Err(error.into()),
        };
        for ((point, _), image) in group.iter().zip(made) {
            match image {
                Ok(content) => self.succeeded(*point, &content),
                Err(_) => self.failed(*point, ImageError::MediaError),
            }
        }
        Ok(())
    }

    async fn make(&self, info: FragmentInfo, wanted: &[usize]) -> Result<Vec<Result<Bytes, NotDecodable>>, MakeError> {
        let Maker {
            store, stream, axis, ..
        } = self.maker;
        let mut source = Source::load(store, stream, info, axis).await?;
        self.maker.images(&mut source, wanted).await
    }

    fn succeeded(&mut self, point: Point, content: &Bytes) {
        let text = STANDARD.encode(content);
        if text.len() > limits::IMAGE_CONTENT_BYTES {
            return self.failed(point, ImageError::MediaError);
        }
        self.bytes += text.len();
        self.images.push(Image {
            error: None,
            image_content: Some(text),
            time_stamp: Some(point.timestamp()),
        });
    }

    fn failed(&mut self, point: Point, error: ImageError) {
        self.images.push(Image {
            error: Some(error),
            image_content: None,
            time_stamp: Some(point.timestamp()),
        });
    }
}

fn same_fragment(a: &Found, b: &Found) -> bool {
    matches!((a, b), (Found::Frame(a, _), Found::Frame(b, _)) if a.number == b.number)
}

/// A fragment's source, which neighbouring points share.
async fn load<'a>(
    cached: &'a mut VecDeque<Source>,
    store: &dyn MediaStore,
    stream: StreamId,
    info: FragmentInfo,
    axis: TimeAxis,
) -> Result<&'a Source, storage::Error> {
    let at = match cached.iter().position(|source| source.info.number == info.number) {
        Some(at) => at,
        None => {
            cached.truncate(SOURCES_CACHED - 1);
            cached.push_front(Source::load(store, stream, info, axis).await?);
            0
        }
    };
    cached.get(at).ok_or(storage::Error::NotFound)
}
