//! The seven operations of stream processors.

use std::sync::Arc;
use std::time::Duration;

use base::{AccountId, ApiError, Handle, Region, Reply, Request, RequestContext, ResourceName, Timestamp};
use storage::CatalogError;
use tokio::sync::oneshot;
use video_streams::consumer::StartAt;
use wire::rekognition::{self as w, op};

use super::Processors;
use super::definition::{Definition, FaceSearch, Kept, Transition, TransitionError, Work};
use super::labels::control::{self as labels, Ending};
use super::labels::session::Begin;
use super::labels::settings::LabelDetection;
use super::resume::Position;
use super::runner::Start;
use super::status::Status;
use crate::service::{Rekognition, owned, page_size};
use crate::tags::{self, Tags};
use crate::token::Listing;
use crate::{error, limits};

/// How long StartStreamProcessor waits for the state to be RUNNING or FAILED before it answers all the same.
const START_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a change of tags is tried again when another change came between.
const CHANGE_ATTEMPTS_MAX: usize = 16;

/// A processor's settings beyond AWS's, from the tags it was created with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tuning {
    /// `sightglass:max_rate`: at most so many analysed frames a second.
    pub(crate) max_rate: Option<f32>,
    /// `sightglass:key_frames_only`.
    pub(crate) key_frames_only: bool,
    /// `sightglass:mode` is `every-frame`: fall behind rather than skip a frame.
    pub(crate) every_frame: bool,
    /// `sightglass:keep_unknown`: faces that nobody resembles are kept for so many hours.
    pub(crate) keep_unknown: Option<u32>,
}

impl Tuning {
    pub(crate) fn from_tags(tags: &Tags) -> Result<Self, ApiError> {
        let mut tuning = Tuning::default();
        for (key, value) in tags {
            let Some(setting) = key.strip_prefix("sightglass:") else {
                continue;
            };
            let bad = |allowed: &str| {
                error::invalid_parameter(format!("the tag {key} has the value {value:?}; it must be {allowed}"))
            };
            match (setting, value.as_str()) {
                ("max_rate", rate) => {
                    let rate = rate.parse().ok().filter(|rate| limits::MAX_RATE_RANGE.contains(rate));
                    tuning.max_rate = Some(rate.ok_or_else(|| bad("a number from 0.01 to 1000"))?);
                }
                ("key_frames_only", "true") => tuning.key_frames_only = true,
                ("key_frames_only", "false") => tuning.key_frames_only = false,
                ("key_frames_only", _) => return Err(bad("true or false")),
                ("mode", "live") => tuning.every_frame = false,
                ("mode", "every-frame") => tuning.every_frame = true,
                ("mode", _) => return Err(bad("live or every-frame")),
                ("keep_unknown", hours) => {
                    let hours = hours
                        .parse()
                        .ok()
                        .filter(|hours| limits::KEEP_UNKNOWN_HOURS.contains(hours));
                    tuning.keep_unknown = Some(hours.ok_or_else(|| bad("a number of hours from 1 to 8760"))?);
                }
                _ => return Err(error::invalid_parameter(format!("there is no setting {key}"))),
            }
        }
        Ok(tuning)
    }
}

/// The ARN of a processor.
pub(crate) fn arn(key: &ResourceName) -> String {
    format!(
        "arn:aws:rekognition:{}:{}:streamprocessor/{}",
        key.region, key.account, key.name
    )
}

/// `arn:PARTITION:SERVICE:REGION:ACCOUNT:stream/NAME...` in its parts.
fn stream_of(arn: &str, service: &str) -> Option<ResourceName> {
    let mut parts = arn.splitn(6, ':');
    let (scheme, _partition) = (parts.next()?, parts.next()?);
    let (of_service, region, account) = (parts.next()?, parts.next()?, parts.next()?);
    let path = parts.next()?.strip_prefix("stream/")?;
    let name = path.split('/').next().filter(|name| !name.is_empty())?;
    if scheme != "arn" || of_service != service {
        return None;
    }
    Some(ResourceName {
        account: account.parse().ok()?,
        region: region.parse().ok()?,
        name: name.to_owned(),
    })
}

/// The video stream that an ARN names.
pub(crate) fn video_stream(arn: &str) -> Result<ResourceName, ApiError> {
    stream_of(arn, "kinesisvideo")
        .ok_or_else(|| error::invalid_parameter(format!("{arn:?} is not a video stream's ARN")))
}

/// The data stream that an ARN names.
pub(crate) fn data_stream(arn: &str) -> Result<ResourceName, ApiError> {
    stream_of(arn, "kinesis").ok_or_else(|| error::invalid_parameter(format!("{arn:?} is not a data stream's ARN")))
}

/// Another account's stream, or another region's, cannot be used, whether or not it exists.
fn check_owner(stream: &ResourceName, account: AccountId, region: &Region, arn: &str) -> Result<(), ApiError> {
    if stream.account == account && stream.region == *region {
        return Ok(());
    }
    Err(error::invalid_parameter(format!(
        "{arn} is not in this account and region"
    )))
}

/// A role must be well formed (the model's pattern is unanchored) and of the caller's account; it is kept, not assumed.
fn check_role(role: &str, account: AccountId) -> Result<(), ApiError> {
    let rest = role
        .strip_prefix("arn:aws:iam::")
        .and_then(|rest| rest.split_once(":role"));
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&b);
    let Some((owner, name)) = rest.filter(|(_, name)| name.len() > 1 && name.bytes().all(legal)) else {
        return Err(error::invalid_parameter(format!("{role:?} is not the ARN of a role")));
    };
    if owner != account.to_string() || !name.starts_with('/') {
        return Err(error::invalid_parameter(format!(
            "the role {role} is not of this account"
        )));
    }
    Ok(())
}

/// What a processor is to do.
fn work_of(context: &RequestContext, input: &w::CreateStreamProcessorRequest) -> Result<Work, ApiError> {
    match (&input.settings.face_search, &input.settings.connected_home) {
        (Some(_), Some(_)) => Err(error::invalid_parameter(
            "Settings has both FaceSearch and ConnectedHome; give one",
        )),
        (None, None) => Err(error::invalid_parameter(
            "Settings has neither FaceSearch nor ConnectedHome",
        )),
        (None, Some(home)) => LabelDetection::of(input, home).map(Work::Labels),
        (Some(search), None) => face_search(context, input, search).map(Work::FaceSearch),
    }
}

fn face_search(
    context: &RequestContext,
    input: &w::CreateStreamProcessorRequest,
    search: &w::FaceSearchSettings,
) -> Result<FaceSearch, ApiError> {
    check_for_face_search(input)?;
    let sink = input.output.kinesis_data_stream.as_ref();
    let output_arn = sink.and_then(|stream| stream.arn.clone());
    let output_arn = output_arn.ok_or_else(|| missing("Output.KinesisDataStream.Arn"))?;
    let caller = &context.caller;
    check_owner(&data_stream(&output_arn)?, caller.account, &caller.region, &output_arn)?;
    let collection_id = search.collection_id.clone();
    let threshold = search
        .face_match_threshold
        .unwrap_or(limits::FACE_MATCH_THRESHOLD_DEFAULT);
    Ok(FaceSearch {
        output_arn,
        collection_id: collection_id.ok_or_else(|| error::invalid_parameter("FaceSearch has no CollectionId"))?,
        threshold: threshold.max(limits::PROCESSOR_THRESHOLD_MIN),
    })
}

/// What belongs to label detection is refused rather than kept and ignored.
fn check_for_face_search(input: &w::CreateStreamProcessorRequest) -> Result<(), ApiError> {
    let refused = [
        (input.notification_channel.is_some(), "NotificationChannel"),
        (input.kms_key_id.is_some(), "KmsKeyId"),
        (
            input
                .regions_of_interest
                .as_ref()
                .is_some_and(|regions| !regions.is_empty()),
            "RegionsOfInterest",
        ),
        (input.output.s3_destination.is_some(), "Output.S3Destination"),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, member)) => Err(error::invalid_parameter(format!(
            "{member} cannot be used with FaceSearch"
        ))),
        None => Ok(()),
    }
}

fn missing(member: &str) -> ApiError {
    error::invalid_parameter(format!("{member} is missing"))
}

fn no_such_processor(key: &ResourceName) -> ApiError {
    error::not_found(format!("Stream processor {} does not exist", key.name))
}

fn catalog_error(error: CatalogError) -> ApiError {
    error::internal(error)
}

fn definition_of(
    context: &RequestContext,
    input: w::CreateStreamProcessorRequest,
    now: Timestamp,
) -> Result<Definition, ApiError> {
    let (account, region) = (context.caller.account, &context.caller.region);
    check_role(&input.role_arn, account)?;
    let source = input.input.kinesis_video_stream.as_ref();
    let input_arn = source.and_then(|stream| stream.arn.clone());
    let input_arn = input_arn.ok_or_else(|| missing("Input.KinesisVideoStream.Arn"))?;
    check_owner(&video_stream(&input_arn)?, account, region, &input_arn)?;
    let work = work_of(context, &input)?;
    let tags = input.tags.unwrap_or_default();
    tags::check_count(&tags)?;
    Tuning::from_tags(&tags)?;
    Ok(Definition {
        status: Status::Stopped,
        status_message: None,
        generation: 0,
        created_ms: now.millis(),
        updated_ms: now.millis(),
        input_arn,
        role_arn: input.role_arn,
        work,
        data_sharing: input.data_sharing_preference.map(|preference| preference.opt_in),
        tags,
    })
}

/// Why a wanted state was not reached, as the caller is told it.
pub(crate) fn refused(error: TransitionError, key: &ResourceName) -> ApiError {
    match error {
        TransitionError::NotFound => no_such_processor(key),
        TransitionError::Refused(status) => {
            error::in_use(format!("Stream processor {} is {}", key.name, status.to_wire()))
        }
        TransitionError::Catalog(error) => catalog_error(error),
    }
}

impl Processors {
    async fn require(&self, key: &ResourceName) -> Result<Kept, ApiError> {
        let found = self.store.get(key).await.map_err(catalog_error)?;
        found.ok_or_else(|| no_such_processor(key))
    }

    async fn change(&self, key: &ResourceName, to: Status) -> Result<Definition, ApiError> {
        let wanted = Transition {
            to,
            message: None,
            generation: None,
            at: self.clock.now(),
        };
        let changed = self.store.transition(key, &wanted).await;
        changed.map_err(|error| refused(error, key))
    }

    pub(crate) async fn tags(&self, key: &ResourceName) -> Result<Tags, ApiError> {
        Ok(self.require(key).await?.definition.tags)
    }

    /// Changes the tags; those that are settings take effect at the next start.
    pub(crate) async fn change_tags(&self, key: &ResourceName, change: impl Fn(&mut Tags)) -> Result<(), ApiError> {
        for _ in 0..CHANGE_ATTEMPTS_MAX {
            let mut kept = self.require(key).await?;
            change(&mut kept.definition.tags);
            tags::check_count(&kept.definition.tags)?;
            Tuning::from_tags(&kept.definition.tags)?;
            match self.store.replace(key, &kept).await {
                Err(error) if error.is_conflict() => {}
                replaced => return replaced.map_err(catalog_error),
            }
        }
        Err(error::internal("the processor changes all the time"))
    }

    async fn start(self: Arc<Self>, key: ResourceName, from: StartAt) -> Result<(), ApiError> {
        let definition = self.change(&key, Status::Starting).await?;
        let (ready, is_ready) = oneshot::channel();
        self.spawn(Start {
            key,
            definition,
            from,
            resume: None,
            ready: Some(ready),
        });
        // An error means FAILED, which DescribeStreamProcessor tells; a longer wait shows STARTING, which is legal.
        let _ = tokio::time::timeout(START_TIMEOUT, is_ready).await;
        Ok(())
    }

    async fn stop(self: Arc<Self>, key: ResourceName) -> Result<(), ApiError> {
        let definition = self.change(&key, Status::Stopping).await?;
        self.end_run(&key).await;
        match definition.work {
            Work::Labels(_) => {
                self.end_session(&key, Some(definition.generation), &Ending::Stopped)
                    .await;
                Ok(())
            }
            Work::FaceSearch(_) => self.change(&key, Status::Stopped).await.map(drop),
        }
    }

    /// Starts a processor again that ran when the server ended, or finishes its stop.
    pub(crate) async fn resume_one(self: &Arc<Self>, key: ResourceName) -> Result<(), CatalogError> {
        let Some(kept) = self.store.get(&key).await? else {
            return Ok(());
        };
        if kept.definition.status.is_active() && matches!(kept.definition.work, Work::Labels(_)) {
            return self.resume_session(key, kept.definition).await;
        }
        if kept.definition.status == Status::Stopping {
            let wanted = Transition {
                to: Status::Stopped,
                message: None,
                generation: None,
                at: self.clock.now(),
            };
            return match self.store.transition(&key, &wanted).await {
                Err(TransitionError::Catalog(error)) => Err(error),
                _ => Ok(()),
            };
        }
        if !kept.definition.status.is_active() {
            return Ok(());
        }
        let position = self.store.position(&key).await?;
        let (ready, _nobody_waits) = oneshot::channel();
        self.spawn(Start {
            resume: position.as_ref().and_then(Position::resume),
            key,
            definition: kept.definition,
            from: StartAt::Now,
            ready: Some(ready),
        });
        Ok(())
    }

    async fn delete(&self, key: &ResourceName) -> Result<(), ApiError> {
        let kept = self.require(key).await?;
        if kept.definition.status.is_active() {
            let status = kept.definition.status.to_wire();
            return Err(error::in_use(format!(
                "Stream processor {} is {status}; stop it first",
                key.name
            )));
        }
        self.store
            .remove(key, &kept)
            .await
            .map_err(|error| conflict(error, key))
    }
}

fn conflict(error: CatalogError, key: &ResourceName) -> ApiError {
    if error.is_conflict() {
        return error::in_use(format!("Stream processor {} is being changed", key.name));
    }
    catalog_error(error)
}

/// Runs a change to its end even if the caller goes away in the middle.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|error| Err(error::internal(error)))
}

impl Handle<op::CreateStreamProcessor> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::CreateStreamProcessorRequest>,
    ) -> Result<Reply<w::CreateStreamProcessorResponse>, ApiError> {
        let key = owned(&request.context, request.input.name.clone());
        let definition = definition_of(&request.context, request.input, self.processors.clock.now())?;
        if let Work::Labels(detection) = &definition.work {
            self.processors.labels.check_places(key.account, detection).await?;
        }
        let store = &self.processors.store;
        let (others, more) = store
            .list(key.account, &key.region, None, limits::PROCESSORS_MAX)
            .await
            .map_err(catalog_error)?;
        if more || others.len() >= limits::PROCESSORS_MAX {
            let message = format!(
                "an account has at most {} stream processors in a region",
                limits::PROCESSORS_MAX
            );
            return Err(ApiError::client("LimitExceededException", message));
        }
        store.create(&key, &definition).await.map_err(|error| {
            if error.is_conflict() {
                return error::in_use(format!("Stream processor {} already exists", key.name));
            }
            catalog_error(error)
        })?;
        let answer = w::CreateStreamProcessorResponse {
            stream_processor_arn: Some(arn(&key)),
        };
        Ok(answer.into())
    }
}

impl Handle<op::DescribeStreamProcessor> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DescribeStreamProcessorRequest>,
    ) -> Result<Reply<w::DescribeStreamProcessorResponse>, ApiError> {
        let key = owned(&request.context, request.input.name);
        let kept = self.processors.require(&key).await?.definition;
        let video = w::KinesisVideoStream {
            arn: Some(kept.input_arn),
        };
        let answer = w::DescribeStreamProcessorResponse {
            stream_processor_arn: Some(arn(&key)),
            name: Some(key.name),
            status: Some(kept.status.to_wire()),
            status_message: kept.status_message,
            creation_timestamp: Some(Timestamp::from_millis(kept.created_ms)),
            last_update_timestamp: Some(Timestamp::from_millis(kept.updated_ms)),
            input: Some(w::StreamProcessorInput {
                kinesis_video_stream: Some(video),
            }),
            role_arn: Some(kept.role_arn),
            data_sharing_preference: kept
                .data_sharing
                .map(|opt_in| w::StreamProcessorDataSharingPreference { opt_in }),
            ..describe_work(kept.work)
        };
        Ok(answer.into())
    }
}

/// What the answer says of what a processor does.
fn describe_work(work: Work) -> w::DescribeStreamProcessorResponse {
    match work {
        Work::FaceSearch(search) => w::DescribeStreamProcessorResponse {
            output: Some(w::StreamProcessorOutput {
                kinesis_data_stream: Some(w::KinesisDataStream {
                    arn: Some(search.output_arn),
                }),
                s3_destination: None,
            }),
            settings: Some(w::StreamProcessorSettings {
                connected_home: None,
                face_search: Some(w::FaceSearchSettings {
                    collection_id: Some(search.collection_id),
                    face_match_threshold: Some(search.threshold),
                }),
            }),
            ..w::DescribeStreamProcessorResponse::default()
        },
        Work::Labels(detection) => w::DescribeStreamProcessorResponse {
            output: Some(detection.output_to_wire()),
            settings: Some(detection.settings_to_wire()),
            notification_channel: detection.channel_to_wire(),
            regions_of_interest: detection.regions_to_wire(),
            kms_key_id: detection.kms_key_id,
            ..w::DescribeStreamProcessorResponse::default()
        },
    }
}

impl Handle<op::ListStreamProcessors> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::ListStreamProcessorsRequest>,
    ) -> Result<Reply<w::ListStreamProcessorsResponse>, ApiError> {
        let (caller, input) = (&request.context.caller, &request.input);
        let after = Listing::Processors.read(input.next_token.as_deref(), |text| Some(text.to_owned()))?;
        let limit = page_size(input.max_results);
        let listed = self
            .processors
            .store
            .list(caller.account, &caller.region, after.as_deref(), limit)
            .await;
        let (page, more) = listed.map_err(catalog_error)?;
        let last = page.last().filter(|_| more);
        let next_token = last.map(|(name, _)| Listing::Processors.token(name));
        let summary = |(name, definition): (String, Definition)| w::StreamProcessor {
            name: Some(name),
            status: Some(definition.status.to_wire()),
        };
        let answer = w::ListStreamProcessorsResponse {
            next_token,
            stream_processors: Some(page.into_iter().map(summary).collect()),
        };
        Ok(answer.into())
    }
}

impl Handle<op::StartStreamProcessor> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::StartStreamProcessorRequest>,
    ) -> Result<Reply<w::StartStreamProcessorResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.name.clone());
        let processors = self.processors.clone();
        let session_id = match processors.require(&key).await?.definition.work {
            Work::Labels(_) => {
                let wanted = labels::wanted(&input)?;
                Some(to_the_end(processors.start_session(key, wanted)).await?)
            }
            Work::FaceSearch(_) => {
                if input.stop_selector.is_some() {
                    return Err(error::invalid_parameter("StopSelector cannot be used with FaceSearch"));
                }
                // AWS says that it should not be used; given, it is honoured.
                let begin = Begin::of(input.start_selector.as_ref())?;
                let from = begin.map_or(StartAt::Now, |begin| begin.start_at());
                to_the_end(processors.start(key, from)).await?;
                None
            }
        };
        Ok(w::StartStreamProcessorResponse { session_id }.into())
    }
}

impl Handle<op::StopStreamProcessor> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::StopStreamProcessorRequest>,
    ) -> Result<Reply<w::StopStreamProcessorResponse>, ApiError> {
        let key = owned(&request.context, request.input.name);
        to_the_end(self.processors.clone().stop(key)).await?;
        Ok(w::StopStreamProcessorResponse {}.into())
    }
}

impl Handle<op::UpdateStreamProcessor> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::UpdateStreamProcessorRequest>,
    ) -> Result<Reply<w::UpdateStreamProcessorResponse>, ApiError> {
        let input = request.input;
        let key = owned(&request.context, input.name.clone());
        let mut kept = self.processors.require(&key).await?;
        match &mut kept.definition.work {
            Work::Labels(detection) => detection.update(&input)?,
            Work::FaceSearch(_) => check_update_of_face_search(&input)?,
        }
        if kept.definition.status.is_active() {
            let status = kept.definition.status.to_wire();
            return Err(error::in_use(format!(
                "Stream processor {} is {status}; stop it first",
                key.name
            )));
        }
        if let Some(preference) = input.data_sharing_preference_for_update {
            kept.definition.data_sharing = Some(preference.opt_in);
        }
        kept.definition.updated_ms = self.processors.clock.now().millis();
        self.processors
            .store
            .replace(&key, &kept)
            .await
            .map_err(|error| conflict(error, &key))?;
        Ok(w::UpdateStreamProcessorResponse {}.into())
    }
}

/// What belongs to label detection is refused rather than ignored.
fn check_update_of_face_search(input: &w::UpdateStreamProcessorRequest) -> Result<(), ApiError> {
    let deleted = input.parameters_to_delete.as_ref();
    let refused = [
        (input.settings_for_update.is_some(), "SettingsForUpdate"),
        (
            input.regions_of_interest_for_update.is_some(),
            "RegionsOfInterestForUpdate",
        ),
        (deleted.is_some_and(|list| !list.is_empty()), "ParametersToDelete"),
    ];
    match refused.into_iter().find(|(given, _)| *given) {
        Some((_, member)) => Err(error::invalid_parameter(format!(
            "{member} cannot be used with FaceSearch"
        ))),
        None => Ok(()),
    }
}

impl Handle<op::DeleteStreamProcessor> for Rekognition {
    async fn handle(
        &self,
        request: Request<w::DeleteStreamProcessorRequest>,
    ) -> Result<Reply<w::DeleteStreamProcessorResponse>, ApiError> {
        let key = owned(&request.context, request.input.name);
        self.processors.delete(&key).await?;
        Ok(w::DeleteStreamProcessorResponse {}.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_must_be_well_formed_and_of_the_callers_account() {
        let check = |role: &str| check_role(role, AccountId::DEFAULT).is_ok();
        assert!(check("arn:aws:iam::000000000000:role/Rekognition"));
        assert!(check("arn:aws:iam::000000000000:role/service-role/a+b=c,d.e@f_g"));
        for bad in [
            "arn:aws:iam::111111111111:role/Rekognition",
            "arn:aws:iam::000000000000:role/",
            "arn:aws:iam::000000000000:role",
            "arn:aws:iam::000000000000:user/x",
            "arn:aws:iam::000000000000:role/a b",
            "role",
        ] {
            assert!(!check(bad), "{bad}");
        }
    }

    #[test]
    fn an_arn_names_a_stream_of_its_own_service_only() {
        let video = video_stream("arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1551533115453").unwrap();
        assert_eq!((video.name.as_str(), video.region.as_str()), ("door", "us-west-2"));
        let data = data_stream("arn:aws:kinesis:us-west-2:000000000000:stream/AmazonRekognition").unwrap();
        assert_eq!(data.name, "AmazonRekognition");
        for bad in [
            "",
            "arn:aws:kinesis:us-west-2:000000000000:stream/",
            "arn:aws:s3:::bucket",
            "a:b:kinesis",
        ] {
            assert!(data_stream(bad).is_err(), "{bad}");
        }
        assert!(data_stream("arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/1").is_err());
    }

    #[test]
    fn settings_come_from_tags_and_a_wrong_one_is_refused() {
        let tags = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Tuning::from_tags(&owned.collect())
        };
        assert_eq!(tags(&[("owner", "me")]), Ok(Tuning::default()));
        let all = [
            ("sightglass:max_rate", "7.5"),
            ("sightglass:key_frames_only", "true"),
            ("sightglass:mode", "every-frame"),
            ("sightglass:keep_unknown", "48"),
        ];
        let tuning = Tuning {
            max_rate: Some(7.5),
            key_frames_only: true,
            every_frame: true,
            keep_unknown: Some(48),
        };
        assert_eq!(tags(&all), Ok(tuning));
        for bad in [
            ("sightglass:max_rate", "0"),
            ("sightglass:max_rate", "NaN"),
            ("sightglass:key_frames_only", "yes"),
            ("sightglass:mode", "fast"),
            ("sightglass:keep_unknown", "0"),
            ("sightglass:keep_unknown", "8761"),
            ("sightglass:maxrate", "5"),
        ] {
            assert_eq!(tags(&[bad]).unwrap_err().code, "InvalidParameterException", "{bad:?}");
        }
    }
}
