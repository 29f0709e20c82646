//! StartFaceDetection, StartFaceSearch and their kin over streams; GetFaceDetection and GetFaceSearch.

use std::collections::HashMap;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, RequestContext, Timestamp};
use faces::{FaceFilter, FaceId, FaceRecord};
use objects::ObjectError;
use video_streams::consumer::StreamRef;
use wire::rekognition::{self as w, op};

use super::StoredVideo;
use super::job::{Axis, Footage, Job, JobKey, Kind, Metadata, Status};
use super::results::{Appearance, Results, TrackRow};
use crate::service::Rekognition;
use crate::token::Listing;
use crate::{attributes, error, limits, shapes};

/// What the calls that start a job have in common.
struct Wanted {
    api: &'static str,
    kind: Kind,
    footage: Footage,
    token: Option<String>,
    tag: Option<String>,
    channel: Option<w::NotificationChannel>,
}

fn job_key(context: &RequestContext, id: String) -> JobKey {
    JobKey {
        account: context.caller.account,
        region: context.caller.region.clone(),
        id,
    }
}

fn new_id() -> Result<String, ApiError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(error::internal)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Without a result: the words are AWS's.
fn no_object(detail: &str) -> ApiError {
    let said = "Unable to get object metadata from S3. Check object key, region and/or access permissions.";
    ApiError::client("InvalidS3ObjectException", format!("{said} ({detail})"))
}

fn limit_exceeded(message: String) -> ApiError {
    ApiError::client("LimitExceededException", message)
}

impl StoredVideo {
    /// The object that a request names, as it is now.
    async fn object(&self, context: &RequestContext, video: w::Video) -> Result<Footage, ApiError> {
        let object = video.s3_object;
        let object = object.ok_or_else(|| error::invalid_parameter("Video has no S3Object"))?;
        let (Some(bucket), Some(name)) = (object.bucket, object.name) else {
            return Err(error::invalid_parameter("Video.S3Object needs Bucket and Name"));
        };
        if object.version.is_some() {
            return Err(no_object("this server keeps no versions of objects"));
        }
        let resource = format!("arn:aws:s3:::{bucket}/{name}");
        if !context.caller.authorizer.allows("s3:GetObject", &resource) {
            return Err(ApiError::client(
                "AccessDeniedException",
                format!(
                    "{} is not authorized to perform: s3:GetObject on resource: {resource}",
                    context.caller.principal_arn
                ),
            ));
        }
        let found = async {
            let opened = self.buckets.open(context.caller.account, &bucket).await?;
            opened.head(&name).await
        };
        let info = found.await.map_err(|error| match error {
            ObjectError::Storage(_) | ObjectError::Full | ObjectError::Conflict => error::internal(error),
            other => no_object(&other.to_string()),
        })?;
        if info.size > limits::STORED_VIDEO_BYTES_MAX {
            return Err(ApiError::client(
                "VideoTooLargeException",
                format!(
                    "the video has {} bytes; {} are allowed",
                    info.size,
                    limits::STORED_VIDEO_BYTES_MAX
                ),
            ));
        }
        Ok(Footage::Object {
            bucket,
            name,
            etag: info.etag,
            size: info.size,
        })
    }

    /// A time of a stream of the caller's.
    fn stretch(
        &self,
        context: &RequestContext,
        stream: &str,
        range: (Timestamp, Timestamp),
        axis: Option<w::StreamTimestampType>,
    ) -> Result<Footage, ApiError> {
        let named = StreamRef {
            account: context.caller.account,
            region: context.caller.region.clone(),
            stream: stream.to_owned(),
        };
        let arn = self.video.arn(&named);
        let arn = arn.ok_or_else(|| error::not_found(format!("The stream {stream} does not exist")))?;
        if !context
            .caller
            .authorizer
            .allows("kinesisvideo:GetMediaForFragmentList", &arn)
        {
            return Err(ApiError::client(
                "AccessDeniedException",
                format!(
                    "{} is not authorized to perform: kinesisvideo:GetMediaForFragmentList on resource: {arn}",
                    context.caller.principal_arn
                ),
            ));
        }
        let (from_ms, to_ms) = (range.0.millis(), range.1.millis());
        if from_ms >= to_ms {
            return Err(error::invalid_parameter("EndTimestamp must be after StartTimestamp"));
        }
        if to_ms.saturating_sub(from_ms) > limits::STORED_STRETCH_MS_MAX {
            return Err(ApiError::client(
                "VideoTooLargeException",
                "no more than 24 hours of a stream are analysed by one job",
            ));
        }
        Ok(Footage::Stream {
            arn,
            axis: match axis {
                Some(w::StreamTimestampType::ServerTimestamp) => Axis::Server,
                _ => Axis::Producer,
            },
            from_ms,
            to_ms,
        })
    }

    /// ALL is all that a model tells, which may be no more than DEFAULT.
    fn detection(&self, attributes: Option<w::FaceAttributes>) -> Kind {
        let all = attributes == Some(w::FaceAttributes::All);
        Kind::Detection {
            attributes: all && self.vision.abilities().attributes,
        }
    }

    /// The collection that a search is made in.
    fn search(&self, context: &RequestContext, collection: String, threshold: Option<f32>) -> Result<Kind, ApiError> {
        let key = crate::service::owned(context, collection.clone());
        let info = self.faces.describe(&key).map_err(error::from_faces)?;
        let model = self.vision.model();
        if info.model != model {
            return Err(error::from_faces(faces::FacesError::ModelMismatch {
                collection: info.model.id,
                given: model.id,
            }));
        }
        Ok(Kind::Search {
            collection,
            collection_id: info.id,
            threshold: threshold.unwrap_or(limits::FACE_MATCH_THRESHOLD_DEFAULT),
        })
    }

    /// Starts a job, or finds the one that the same request has started before.
    async fn start(self: &Arc<Self>, context: &RequestContext, wanted: Wanted) -> Result<String, ApiError> {
        let topic = wanted.channel.as_ref().map(|channel| channel.sns_topic_arn.clone());
        if let Some(topic) = topic.as_ref().filter(|topic| !self.topics.knows(topic)) {
            return Err(error::invalid_parameter(format!(
                "the topic {topic} has no address; the operator gives it one in [topics]"
            )));
        }
        let key = job_key(context, new_id()?);
        let footage = match &wanted.footage {
            // Whatever lies there now.
            Footage::Object { bucket, name, .. } => format!("{bucket}/{name}"),
            stretch @ Footage::Stream { .. } => format!("{stretch:?}"),
        };
        let request = format!("{:?} {footage} {:?} {topic:?}", wanted.kind, wanted.tag);
        let _one_at_a_time = self.starting.lock().await;
        if let Some(token) = &wanted.token {
            let used = self
                .store
                .token(&key, wanted.api, token)
                .await
                .map_err(error::internal)?;
            match used {
                Some(used) if used.request == request => return Ok(used.job),
                Some(_) => {
                    return Err(ApiError::client(
                        "IdempotentParameterMismatchException",
                        "the ClientRequestToken was used for another request",
                    ));
                }
                None => {}
            }
        }
        self.check_room(&key).await?;
        let job = Job {
            api: wanted.api.to_owned(),
            kind: wanted.kind,
            footage: wanted.footage,
            token: wanted.token,
            tag: wanted.tag,
            topic,
            created_ms: self.clock.now().millis(),
            status: Status::InProgress,
            message: None,
            ended_ms: None,
            metadata: None,
            faces: 0,
            notified: false,
        };
        self.store.create(&key, &job, &request).await.map_err(error::internal)?;
        let id = key.id.clone();
        self.spawn(key);
        Ok(id)
    }

    /// Refuses a job beyond what one account and region may have.
    async fn check_room(&self, key: &JobKey) -> Result<(), ApiError> {
        let jobs = self
            .store
            .list(key.account, &key.region)
            .await
            .map_err(error::internal)?;
        let under_way = jobs.iter().filter(|job| job.status == Status::InProgress).count();
        if under_way >= limits::STORED_JOBS_MAX {
            return Err(limit_exceeded(format!(
                "{under_way} jobs over stored video are in progress; {} may be",
                limits::STORED_JOBS_MAX
            )));
        }
        let faces: u64 = jobs.iter().map(|job| u64::from(job.faces)).sum();
        if jobs.len() >= limits::STORED_JOBS_KEPT_MAX || faces >= limits::STORED_FACES_KEPT_MAX {
            return Err(limit_exceeded(
                "the results of too many jobs are kept; they go seven days after their end".to_owned(),
            ));
        }
        Ok(())
    }

    /// A job of the caller's, if it is of that kind and not too old.
    async fn find(&self, key: &JobKey, is_search: bool) -> Result<Job, ApiError> {
        let job = self.store.get(key).await.map_err(error::internal)?;
        let job = job.filter(|job| matches!(job.kind, Kind::Search { .. }) == is_search && !self.is_over(job));
        job.ok_or_else(|| error::not_found("Could not find JobId"))
    }

    /// The faces that these tracks match, as they are now: what was deleted meanwhile is told no more.
    fn known(&self, key: &JobKey, job: &Job, tracks: &[TrackRow]) -> HashMap<String, Arc<FaceRecord>> {
        let Kind::Search {
            collection,
            collection_id,
            ..
        } = &job.kind
        else {
            return HashMap::new();
        };
        let collection = key.named(collection);
        let still = self
            .faces
            .describe(&collection)
            .is_ok_and(|info| info.id == *collection_id);
        let mut ids: Vec<FaceId> = tracks
            .iter()
            .flat_map(|track| track.matches.iter().filter_map(|(id, _)| FaceId::parse(id)))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        if !still || ids.is_empty() {
            return HashMap::new();
        }
        let filter = FaceFilter { only: &ids, user: None };
        let found = self.faces.list_faces(&collection, None, ids.len(), filter);
        let found = found.unwrap_or_default();
        found.into_iter().map(|face| (face.face_id.to_string(), face)).collect()
    }
}

fn person_match(
    seen: &Appearance,
    track: &TrackRow,
    known: &HashMap<String, Arc<FaceRecord>>,
    model: &str,
) -> w::PersonMatch {
    let found = track.matches.iter().filter_map(|(id, similarity)| {
        Some(w::FaceMatch {
            face: Some(shapes::stored_face(known.get(id)?, model)),
            similarity: Some(*similarity),
        })
    });
    w::PersonMatch {
        face_matches: Some(found.collect()),
        person: Some(w::PersonDetail {
            bounding_box: None,
            face: Some(shapes::face_detail(&seen.face())),
            index: Some(i64::from(track.person)),
        }),
        timestamp: Some(seen.time_ms),
    }
}

fn status(job: &Job) -> w::VideoJobStatus {
    match job.status {
        Status::InProgress => w::VideoJobStatus::InProgress,
        Status::Succeeded => w::VideoJobStatus::Succeeded,
        Status::Failed => w::VideoJobStatus::Failed,
    }
}

fn video(job: &Job) -> Option<w::Video> {
    match &job.footage {
        Footage::Object { bucket, name, .. } => Some(w::Video {
            s3_object: Some(w::S3Object {
                bucket: Some(bucket.clone()),
                name: Some(name.clone()),
                version: None,
            }),
        }),
        Footage::Stream { .. } => None,
    }
}

fn metadata(metadata: &Metadata) -> w::VideoMetadata {
    let number = |number: u32| Some(i64::from(number)).filter(|number| *number > 0);
    w::VideoMetadata {
        codec: Some(metadata.codec.clone()),
        color_range: metadata.full_range.map(|full| match full {
            true => w::VideoColorRange::Full,
            false => w::VideoColorRange::Limited,
        }),
        duration_millis: i64::try_from(metadata.duration_ms).ok(),
        format: Some(metadata.format.clone()),
        frame_height: number(metadata.height),
        frame_rate: Some(metadata.frame_rate).filter(|rate| *rate > 0.0),
        frame_width: number(metadata.width),
    }
}

/// Where a page begins and how many entries it may have.
fn page(listing: Listing, token: Option<&str>, requested: Option<i32>) -> Result<(usize, usize), ApiError> {
    let from = listing.read(token, |text| text.parse().ok())?;
    let most = requested.and_then(|most| usize::try_from(most).ok());
    let most = most
        .unwrap_or(limits::STORED_PAGE_MAX)
        .clamp(1, limits::STORED_PAGE_MAX);
    Ok((from.unwrap_or(0), most))
}

/// The positions of a page, and the token of the next one.
fn places(listing: Listing, job: &Job, (from, most): (usize, usize)) -> (std::ops::Range<usize>, Option<String>) {
    let all = match job.status {
        Status::Succeeded => job.faces as usize,
        _ => 0,
    };
    let (from, to) = (from.min(all), from.saturating_add(most).min(all));
    (from..to, (to < all).then(|| listing.token(&to.to_string())))
}

impl Handle<op::StartFaceDetection> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::StartFaceDetectionRequest>,
    ) -> Result<Reply<w::StartFaceDetectionResponse>, ApiError> {
        let (context, input) = (&request.context, request.input);
        let wanted = Wanted {
            api: "StartFaceDetection",
            kind: self.stored.detection(input.face_attributes),
            footage: self.stored.object(context, input.video).await?,
            token: input.client_request_token,
            tag: input.job_tag,
            channel: input.notification_channel,
        };
        let job_id = Some(self.stored.start(context, wanted).await?);
        Ok(w::StartFaceDetectionResponse { job_id }.into())
    }
}

impl Handle<op::StartFaceSearch> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::StartFaceSearchRequest>,
    ) -> Result<Reply<w::StartFaceSearchResponse>, ApiError> {
        let (context, input) = (&request.context, request.input);
        let wanted = Wanted {
            api: "StartFaceSearch",
            kind: self
                .stored
                .search(context, input.collection_id, input.face_match_threshold)?,
            footage: self.stored.object(context, input.video).await?,
            token: input.client_request_token,
            tag: input.job_tag,
            channel: input.notification_channel,
        };
        let job_id = Some(self.stored.start(context, wanted).await?);
        Ok(w::StartFaceSearchResponse { job_id }.into())
    }
}

impl Handle<op::StartStreamFaceDetection> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::StartStreamFaceDetectionRequest>,
    ) -> Result<Reply<w::StartStreamFaceDetectionResponse>, ApiError> {
        let (context, input) = (&request.context, request.input);
        let range = (input.start_timestamp, input.end_timestamp);
        let axis = input.timestamp_type;
        let wanted = Wanted {
            api: "StartStreamFaceDetection",
            kind: self.stored.detection(input.face_attributes),
            footage: self.stored.stretch(context, &input.stream_arn, range, axis)?,
            token: input.client_request_token,
            tag: input.job_tag,
            channel: input.notification_channel,
        };
        let job_id = Some(self.stored.start(context, wanted).await?);
        Ok(w::StartStreamFaceDetectionResponse { job_id }.into())
    }
}

impl Handle<op::StartStreamFaceSearch> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::StartStreamFaceSearchRequest>,
    ) -> Result<Reply<w::StartStreamFaceSearchResponse>, ApiError> {
        let (context, input) = (&request.context, request.input);
        let range = (input.start_timestamp, input.end_timestamp);
        let axis = input.timestamp_type;
        let wanted = Wanted {
            api: "StartStreamFaceSearch",
            kind: self
                .stored
                .search(context, input.collection_id, input.face_match_threshold)?,
            footage: self.stored.stretch(context, &input.stream_arn, range, axis)?,
            token: input.client_request_token,
            tag: input.job_tag,
            channel: input.notification_channel,
        };
        let job_id = Some(self.stored.start(context, wanted).await?);
        Ok(w::StartStreamFaceSearchResponse { job_id }.into())
    }
}

impl Handle<op::GetFaceDetection> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::GetFaceDetectionRequest>,
    ) -> Result<Reply<w::GetFaceDetectionResponse>, ApiError> {
        let input = request.input;
        let key = job_key(&request.context, input.job_id);
        let asked = page(Listing::StoredFaces, input.next_token.as_deref(), input.max_results)?;
        let job = self.stored.find(&key, false).await?;
        let (range, next_token) = places(Listing::StoredFaces, &job, asked);
        let results = Results::of(&self.stored.store, &key);
        let seen = results
            .appearances(&range.collect::<Vec<_>>())
            .await
            .map_err(error::internal)?;
        let told = match job.kind {
            Kind::Detection { attributes: true } => attributes::Wanted::all(),
            _ => attributes::Wanted::default(),
        };
        let face = |seen: &Appearance| w::FaceDetection {
            face: Some(told.detail(&seen.face())),
            timestamp: Some(seen.time_ms),
        };
        let answer = w::GetFaceDetectionResponse {
            faces: Some(seen.iter().map(face).collect()),
            job_status: Some(status(&job)),
            status_message: job.message.clone(),
            video: video(&job),
            video_metadata: job.metadata.as_ref().map(metadata),
            job_id: Some(key.id),
            job_tag: job.tag,
            next_token,
        };
        Ok(answer.into())
    }
}

impl Handle<op::GetFaceSearch> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::GetFaceSearchRequest>,
    ) -> Result<Reply<w::GetFaceSearchResponse>, ApiError> {
        let input = request.input;
        let key = job_key(&request.context, input.job_id);
        let by_index = matches!(input.sort_by, Some(w::FaceSearchSortBy::Index));
        let listing = match by_index {
            true => Listing::StoredPersons,
            false => Listing::StoredMatches,
        };
        let asked = page(listing, input.next_token.as_deref(), input.max_results)?;
        let job = self.stored.find(&key, true).await?;
        let (range, next_token) = places(listing, &job, asked);
        let results = Results::of(&self.stored.store, &key);
        let read = async {
            let places = match by_index {
                true => results.order(range.start, range.len()).await?,
                false => range.collect(),
            };
            let seen = results.appearances(&places).await?;
            let tracks = results.tracks(&seen).await?;
            Ok::<_, storage::CatalogError>((seen, tracks))
        };
        let (seen, tracks) = read.await.map_err(error::internal)?;
        let known = self.stored.known(&key, &job, &tracks);
        let model = self.stored.vision.model().id;
        let persons = seen.iter().zip(&tracks);
        let answer = w::GetFaceSearchResponse {
            persons: Some(
                persons
                    .map(|(seen, track)| person_match(seen, track, &known, &model))
                    .collect(),
            ),
            job_status: Some(status(&job)),
            status_message: job.message.clone(),
            video: video(&job),
            video_metadata: job.metadata.as_ref().map(metadata),
            job_id: Some(key.id),
            job_tag: job.tag,
            next_token,
        };
        Ok(answer.into())
    }
}
