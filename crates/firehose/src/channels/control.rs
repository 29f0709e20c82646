//! The operations on channels.

use base::{AccountId, ApiError, Caller, Handle, Reply, Request, ResourceName, Timestamp};
use data_streams::page::{open_page, seal_page};
use data_streams::ports::Channels as _;
use data_streams::{check_tags, parse_stream_arn, stream_arn};
use objects::ObjectError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::kinesis::{
    self, ChannelDescription, ChannelDestinationType, ChannelEncryptionConfiguration, ChannelEncryptionType,
    ChannelLoggingConfiguration, ChannelStatus, ChannelStreamDescription, ChannelStreamIdentifier, ChannelSummary,
    CloudWatchLogs, DeadLetterQueueS3Configuration, RecordConfiguration, RecordFormatType, S3DestinationConfiguration,
    S3DestinationDescription, S3StorageConfiguration, op,
};

use super::{ChannelRecord, ChannelState, Channels, Logging, limits, target, template};
use crate::deliver::bucket_of;
use crate::error::invalid;

/// What page tokens are for.
const PAGES: &str = "list-channels";
/// The key that AWS does not take for what is delivered.
const KINESIS_KEY: &str = "alias/aws/kinesis";
/// CloudWatch's stream, where none is named.
const LOG_STREAM: &str = "DestinationDelivery";

const NO_TABLES: &str = "S3TablesDestinationConfiguration is not carried out by this server: it has no S3 Tables. Deliver to a \
                         general purpose bucket by S3DestinationConfiguration.";

/// The name is in use.
pub(super) fn name_taken(name: &ResourceName) -> ApiError {
    let message = format!("Channel {} under account {} already exists.", name.name, name.account);
    ApiError::client("ResourceInUseException", message)
}

/// The channel was deleted.
pub(super) fn gone(state: &ChannelState) -> ApiError {
    let message = format!(
        "Channel {} under account {} not found.",
        state.arn(),
        state.name.account
    );
    ApiError::client("ResourceNotFoundException", message)
}

fn missing(what: String) -> ApiError {
    ApiError::client("ResourceNotFoundException", what)
}

impl Handle<op::CreateChannel> for Channels {
    async fn handle(
        &self,
        request: Request<kinesis::CreateChannelInput>,
    ) -> Result<Reply<kinesis::CreateChannelOutput>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: input.channel_name.clone(),
        };
        let (stream, format) = source(caller, &input)?;
        let destination = destination(&input)?;
        let mut record = wanted(&name, &input, destination, self.clock.now())?;
        record.stream.clone_from(&stream.name);
        record.format = format.as_str().to_owned();
        let pinned = self.streams.pin(&stream).await.ok_or_else(|| {
            missing(format!(
                "Stream {} under account {} not found.",
                stream.name, stream.account
            ))
        })?;
        if !pinned.on_demand {
            return Err(invalid("A channel needs an ON_DEMAND stream."));
        }
        record.stream_created_ms = pinned.created.millis();
        if self.of_stream(&stream) >= limits::CHANNELS_PER_STREAM_MAX
            || self.of_account(caller.account, &caller.region).0 >= limits::CHANNELS_PER_ACCOUNT_MAX
        {
            return Err(ApiError::client(
                "LimitExceededException",
                format!(
                    "A stream may have {} channels, and an account {} in a region.",
                    limits::CHANNELS_PER_STREAM_MAX,
                    limits::CHANNELS_PER_ACCOUNT_MAX
                ),
            ));
        }
        // What cannot be carried out is refused before anything is made.
        target(&self.state_of(name.clone(), record.clone(), None)).map_err(|refused| invalid(refused.0))?;
        for bucket in [&record.bucket, &record.error_bucket] {
            self.bucket(caller.account, bucket).await?;
        }
        let state = self.create(name, record, pinned).await?;
        Ok(kinesis::CreateChannelOutput {
            channel_description: described(&state),
        }
        .into())
    }
}

/// The stream to read, and what its records are.
fn source(caller: &Caller, input: &kinesis::CreateChannelInput) -> Result<(ResourceName, RecordFormatType), ApiError> {
    let [stream] = &input.stream_configuration_list[..] else {
        return Err(invalid("StreamConfigurationList must name one stream."));
    };
    let name = parse_stream_arn(&stream.stream_arn);
    let name = name.ok_or_else(|| invalid(format!("{} is not the ARN of a stream.", stream.stream_arn)))?;
    if name.account != caller.account || name.region != caller.region {
        return Err(missing(format!(
            "Stream {} under account {} not found.",
            name.name, name.account
        )));
    }
    let RecordConfiguration {
        record_format_type: format,
        gsr_schema_arn,
    } = &stream.record_configuration;
    if *format == RecordFormatType::GsrJson || gsr_schema_arn.is_some() {
        return Err(invalid(
            "RecordFormatType GSR_JSON and GSRSchemaARN are for streaming tables only, not for S3.",
        ));
    }
    Ok((name, *format))
}

fn destination(input: &kinesis::CreateChannelInput) -> Result<&S3DestinationConfiguration, ApiError> {
    match (
        &input.s3_destination_configuration,
        &input.s3_tables_destination_configuration,
    ) {
        (Some(s3), None) => Ok(s3),
        (None, Some(_)) => Err(invalid(NO_TABLES)),
        _ => Err(invalid(
            "Either S3DestinationConfiguration or S3TablesDestinationConfiguration must be given, and not both.",
        )),
    }
}

fn freshness(seconds: Option<i32>) -> Result<i32, ApiError> {
    let seconds = seconds.unwrap_or(limits::FRESHNESS_SECONDS);
    let (least, most) = (limits::FRESHNESS_SECONDS_MIN, limits::FRESHNESS_SECONDS_MAX);
    match (least..=most).contains(&seconds) {
        true => Ok(seconds),
        false => Err(invalid(format!("DataFreshnessInSeconds must be {least} to {most}."))),
    }
}

/// Buckets of other accounts are out of reach, so that the owner is known.
fn owned(bucket_arn: &str, expected: &str, account: AccountId) -> Result<String, ApiError> {
    let bucket = bucket_of(bucket_arn);
    match expected == account.to_string() {
        true => Ok(bucket),
        false => Err(ApiError::client(
            "AccessDeniedException",
            format!("Bucket {bucket} is not owned by account {expected}, the ExpectedBucketOwner."),
        )),
    }
}

/// The record of the channel that a request describes, less what its stream says.
fn wanted(
    name: &ResourceName,
    input: &kinesis::CreateChannelInput,
    s3: &S3DestinationConfiguration,
    now: Timestamp,
) -> Result<ChannelRecord, ApiError> {
    let role = &input.service_execution_role_arn;
    if role.split(':').nth(4) != Some(&name.account.to_string()) {
        return Err(invalid(format!("{role} is not a role of account {}.", name.account)));
    }
    let storage = &s3.storage_configuration;
    let bucket = owned(&storage.bucket_arn, &storage.expected_bucket_owner, name.account)?;
    let id = Uuid::new_v4().to_string();
    let default_prefix = || format!("kinesis-channel/errors/{}/{id}/", name.name);
    let (error_bucket, error_prefix) = match &s3.dead_letter_queue_s3_configuration {
        None => (bucket.clone(), default_prefix()),
        Some(queue) => (
            owned(&queue.bucket_arn, &queue.expected_bucket_owner, name.account)?,
            queue.error_output_prefix.clone().unwrap_or_else(default_prefix),
        ),
    };
    let key_id = input
        .encryption_configuration
        .as_ref()
        .map(|encryption| encryption.key_id.clone());
    if key_id.as_ref().is_some_and(|key| key.ends_with(KINESIS_KEY)) {
        return Err(invalid(
            "The key aws/kinesis cannot be used for what a channel delivers.",
        ));
    }
    let tags = input.tags.clone().unwrap_or_default();
    check_tags(&tags, tags.len())?;
    Ok(ChannelRecord {
        number: 0,
        created_ms: now.millis(),
        role_arn: role.clone(),
        stream: String::new(),
        stream_created_ms: 0,
        format: String::new(),
        freshness_s: freshness(s3.data_freshness_in_seconds)?,
        bucket,
        template: storage.output_key_template.clone(),
        storage_class: storage.storage_class.map(|class| class.as_str().to_owned()),
        compression: storage.compression_type.as_str().to_owned(),
        error_bucket,
        error_prefix,
        key_id,
        logging: logging(
            &name.name,
            &id,
            input.logging_configuration.as_ref().map(|l| &l.cloud_watch_logs),
        ),
        tags,
        id,
    })
}

fn logging(channel: &str, id: &str, asked: Option<&CloudWatchLogs>) -> Logging {
    let group = asked.and_then(|asked| asked.log_group_name.clone());
    let stream = asked.and_then(|asked| asked.log_stream_name.clone());
    Logging {
        enabled: asked.is_some_and(|asked| asked.enabled),
        group: group.unwrap_or_else(|| format!("/aws/kinesis/{channel}/{id}")),
        stream: stream.unwrap_or_else(|| LOG_STREAM.to_owned()),
    }
}

impl Channels {
    /// Fails if the account has no such bucket.
    async fn bucket(&self, account: AccountId, name: &str) -> Result<(), ApiError> {
        match self.firehose.ports.buckets.open(account, name).await {
            Ok(_) => Ok(()),
            Err(ObjectError::NoSuchBucket(_)) => Err(missing(format!("Bucket {name} does not exist."))),
            Err(error) => Err(ApiError::server(
                "InternalFailureException",
                "The bucket cannot be reached.",
                error,
            )),
        }
    }
}

fn status(state: &ChannelState) -> (ChannelStatus, Option<String>) {
    match state.status.failure() {
        Some(why) => (ChannelStatus::Failed, Some(why.chars().take(2048).collect())),
        None => (ChannelStatus::Active, None),
    }
}

fn described(state: &ChannelState) -> ChannelDescription {
    let record = &state.record;
    let (channel_status, channel_status_reason) = status(state);
    let owner = state.name.account.to_string();
    let compression = record.compression.parse().unwrap_or(kinesis::S3CompressionType::None);
    let class = record.storage_class.as_deref().and_then(|class| class.parse().ok());
    let s3 = S3DestinationDescription {
        data_freshness_in_seconds: record.freshness_s,
        dead_letter_queue_s3_configuration: DeadLetterQueueS3Configuration {
            bucket_arn: format!("arn:aws:s3:::{}", record.error_bucket),
            error_output_prefix: Some(record.error_prefix.clone()),
            expected_bucket_owner: owner.clone(),
        },
        storage_configuration: S3StorageConfiguration {
            bucket_arn: format!("arn:aws:s3:::{}", record.bucket),
            compression_type: compression,
            expected_bucket_owner: owner,
            output_key_template: Some(record.template.clone().unwrap_or_else(|| template::DEFAULT.to_owned())),
            storage_class: Some(class.unwrap_or(kinesis::S3StorageClass::Standard)),
        },
    };
    ChannelDescription {
        channel_arn: state.arn(),
        channel_creation_timestamp: Timestamp::from_millis(record.created_ms),
        channel_id: record.id.clone(),
        channel_name: state.name.name.clone(),
        channel_status,
        channel_status_reason,
        encryption_configuration: record.key_id.clone().map(|key_id| ChannelEncryptionConfiguration {
            encryption_type: ChannelEncryptionType::Kms,
            key_id,
        }),
        logging_configuration: ChannelLoggingConfiguration {
            cloud_watch_logs: CloudWatchLogs {
                enabled: record.logging.enabled,
                log_group_name: Some(record.logging.group.clone()),
                log_stream_name: Some(record.logging.stream.clone()),
            },
        },
        s3_destination_configuration: Some(s3),
        s3_tables_destination_configuration: None,
        service_execution_role_arn: record.role_arn.clone(),
        stream_configuration_list: vec![ChannelStreamDescription {
            record_configuration: RecordConfiguration {
                gsr_schema_arn: None,
                record_format_type: record.format.parse().unwrap_or(RecordFormatType::ByteArray),
            },
            stream_arn: stream_arn(&state.stream()),
            stream_creation_timestamp: Timestamp::from_millis(record.stream_created_ms),
        }],
    }
}

impl Handle<op::DescribeChannel> for Channels {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeChannelInput>,
    ) -> Result<Reply<kinesis::DescribeChannelOutput>, ApiError> {
        let state = self.find(&request.context.caller, &request.input.channel_arn)?;
        Ok(kinesis::DescribeChannelOutput {
            channel_description: described(&state),
        }
        .into())
    }
}

impl Handle<op::DeleteChannel> for Channels {
    async fn handle(&self, request: Request<kinesis::DeleteChannelInput>) -> Result<Reply<()>, ApiError> {
        let state = self.find(&request.context.caller, &request.input.channel_arn)?;
        self.delete(&state).await?;
        Ok(().into())
    }
}

impl Handle<op::UpdateChannel> for Channels {
    async fn handle(
        &self,
        request: Request<kinesis::UpdateChannelInput>,
    ) -> Result<Reply<kinesis::UpdateChannelOutput>, ApiError> {
        let input = request.input;
        let state = self.find(&request.context.caller, &input.channel_arn)?;
        if input.s3_tables_destination_configuration.is_some() {
            return Err(invalid(
                "The channel delivers to a general purpose bucket, not to S3 Tables.",
            ));
        }
        let seconds = input
            .s3_destination_configuration
            .map(|s3| freshness(Some(s3.data_freshness_in_seconds)));
        let seconds = seconds.transpose()?;
        let logs = input.logging_configuration.map(|logging| logging.cloud_watch_logs);
        if seconds.is_none() && logs.is_none() {
            return Err(invalid("There is nothing to update."));
        }
        let changed = self.change(&state, move |record| {
            record.freshness_s = seconds.unwrap_or(record.freshness_s);
            if let Some(logs) = logs {
                record.logging.enabled = logs.enabled;
                record.logging.group = logs.log_group_name.unwrap_or_else(|| record.logging.group.clone());
                record.logging.stream = logs.log_stream_name.unwrap_or_else(|| record.logging.stream.clone());
            }
            Ok(())
        });
        Ok(kinesis::UpdateChannelOutput {
            channel_description: described(&*changed.await?),
        }
        .into())
    }
}

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
struct Page {
    after: String,
}

impl Handle<op::ListChannels> for Channels {
    async fn handle(
        &self,
        request: Request<kinesis::ListChannelsInput>,
    ) -> Result<Reply<kinesis::ListChannelsOutput>, ApiError> {
        let caller = &request.context.caller;
        let input = &request.input;
        let now = self.clock.now();
        let token = input.next_token.as_deref();
        let page = token
            .map(|token| open_page::<Page>(PAGES, token, &self.key_ring, caller, now))
            .transpose()?;
        let limit = input
            .max_results
            .and_then(|max| usize::try_from(max).ok())
            .unwrap_or(limits::PAGE);
        let filters = input.stream_filter.as_deref().unwrap_or_default();
        let wanted = |state: &ChannelState| {
            filters.is_empty()
                || filters.iter().any(|filter| {
                    let created = filter.stream_creation_timestamp;
                    // The wire's times have seconds where a client rounds them.
                    let same = |at: Timestamp| at.millis() / 1000 == state.record.stream_created_ms / 1000;
                    filter.stream_arn == stream_arn(&state.stream()) && created.is_none_or(same)
                })
        };
        let after = page.as_ref().map(|page| page.after.as_str());
        let (found, more) = self.list(caller, after, limit.min(limits::PAGE), wanted);
        let last = found.last().filter(|_| more).map(|last| Page {
            after: last.name.name.clone(),
        });
        let next_token = last
            .map(|page| seal_page(PAGES, &page, &self.key_ring, caller, now))
            .transpose()?;
        Ok(kinesis::ListChannelsOutput {
            channel_summaries: found.iter().map(|state| summary(state)).collect(),
            next_token,
        }
        .into())
    }
}

fn summary(state: &ChannelState) -> ChannelSummary {
    let (channel_status, channel_status_reason) = status(state);
    ChannelSummary {
        channel_arn: state.arn(),
        channel_creation_timestamp: Timestamp::from_millis(state.record.created_ms),
        channel_destination_type: ChannelDestinationType::S3,
        channel_id: state.record.id.clone(),
        channel_name: state.name.name.clone(),
        channel_status,
        channel_status_reason,
        streams: vec![ChannelStreamIdentifier {
            stream_arn: stream_arn(&state.stream()),
            stream_creation_timestamp: Timestamp::from_millis(state.record.stream_created_ms),
        }],
    }
}
