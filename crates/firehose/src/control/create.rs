//! CreateDeliveryStream.

use base::{ApiError, Caller, Handle, Reply, Request, ResourceName};
use storage::StreamId;
use wire::firehose::{
    self, CreateDeliveryStreamInput, DeliveryStreamType, DestinationDescription, KeyType,
    KinesisStreamSourceConfiguration, op,
};

use super::s3;
use super::tags::{as_map, check_tags};
use crate::deliver::{Place, Target};
use crate::endpoints::{self, Secrets};
use crate::error::{in_use, invalid, limit};
use crate::limits;
use crate::service::{Firehose, delivery_stream_arn};
use crate::stored::{EncryptionRecord, KinesisRecord, StreamRecord};

/// The only destination of a delivery stream.
pub const DESTINATION_ID: &str = "destinationId-000000000001";

impl Handle<op::CreateDeliveryStream> for Firehose {
    async fn handle(
        &self,
        request: Request<CreateDeliveryStreamInput>,
    ) -> Result<Reply<firehose::CreateDeliveryStreamOutput>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: input.delivery_stream_name.clone(),
        };
        if self.state(&name).is_some() {
            return Err(in_use(&name.name, name.account));
        }
        if self.count(caller.account, &caller.region) >= limits::STREAMS_PER_ACCOUNT_MAX {
            return Err(limit(format!(
                "You have already consumed your firehose quota of {} hoses.",
                limits::STREAMS_PER_ACCOUNT_MAX
            )));
        }
        let tags = as_map(input.tags.clone().unwrap_or_default());
        check_tags(&tags, tags.len())?;
        let source = self.source(caller, &input)?;
        let encryption = encryption(&input)?;
        let throughput_hint = input.direct_put_source_configuration.as_ref();
        let throughput_hint = throughput_hint.map(|direct| direct.throughput_hint_in_m_bs);
        let (destination, secrets) = destination(caller, input)?;
        let about = Firehose::about(&name, source.as_ref().map(|s| s.stream_arn.as_str()));
        Target::open(&destination, &secrets, &about, 1, &self.ports)?;
        let (stream, places) = match &source {
            Some(source) => self.latest(source).await?,
            None => (StreamId(0), Vec::new()),
        };
        let record = StreamRecord {
            id: 0,
            created_ms: self.clock.now().millis(),
            updated_ms: None,
            version: 1,
            source,
            throughput_hint,
            destination,
            secrets: None,
            tags,
            data_key: None,
            encryption: encryption.clone(),
        };
        let begin = (encryption.is_some(), stream, places);
        self.create(name.clone(), record, secrets, begin).await?;
        Ok(firehose::CreateDeliveryStreamOutput {
            delivery_stream_arn: Some(delivery_stream_arn(&name)),
        }
        .into())
    }
}

/// A role must be one of the caller's account; it is told back, not assumed.
pub fn check_role(caller: &Caller, role: &str) -> Result<(), ApiError> {
    match role.split(':').nth(4) == Some(caller.account.to_string().as_str()) {
        true => Ok(()),
        false => Err(invalid(format!(
            "Firehose is unable to assume role {role}. Please check the role provided."
        ))),
    }
}

impl Firehose {
    /// The data stream that is asked for as the source.
    fn source(&self, caller: &Caller, input: &CreateDeliveryStreamInput) -> Result<Option<KinesisRecord>, ApiError> {
        let kind = input.delivery_stream_type.unwrap_or(DeliveryStreamType::DirectPut);
        let kinesis = input.kinesis_stream_source_configuration.as_ref();
        if matches!(
            kind,
            DeliveryStreamType::MSKAsSource | DeliveryStreamType::DatabaseAsSource
        ) || input.msk_source_configuration.is_some()
            || input.database_source_configuration.is_some()
        {
            return Err(invalid(format!(
                "This server does not read from Kafka or databases ({kind}); DirectPut and KinesisStreamAsSource are there."
            )));
        }
        let reads = kind == DeliveryStreamType::KinesisStreamAsSource;
        if reads && input.direct_put_source_configuration.is_some() {
            return Err(invalid(
                "DirectPutSourceConfiguration belongs to delivery streams of type DirectPut.",
            ));
        }
        match (reads, kinesis) {
            (false, None) => Ok(None),
            (true, Some(kinesis)) => self.kinesis(caller, kinesis).map(Some),
            (true, None) => Err(invalid(
                "KinesisStreamSourceConfiguration must be given for a delivery stream of type KinesisStreamAsSource.",
            )),
            (false, Some(_)) => Err(invalid(
                "KinesisStreamSourceConfiguration belongs to delivery streams of type KinesisStreamAsSource.",
            )),
        }
    }

    fn kinesis(&self, caller: &Caller, given: &KinesisStreamSourceConfiguration) -> Result<KinesisRecord, ApiError> {
        check_role(caller, &given.role_arn)?;
        let named = data_streams::parse_stream_arn(&given.kinesis_stream_arn);
        let own = named.filter(|name| name.account == caller.account && name.region == caller.region);
        if own.and_then(|name| self.streams.find(&name)).is_none() {
            return Err(invalid(format!(
                "The data stream {} does not exist in this account and region.",
                given.kinesis_stream_arn
            )));
        }
        Ok(KinesisRecord {
            stream_arn: given.kinesis_stream_arn.clone(),
            role_arn: given.role_arn.clone(),
            start_ms: self.clock.now().millis(),
        })
    }

    /// Where reading begins: behind what every shard holds now. What was closed before is not read at all.
    async fn latest(&self, source: &KinesisRecord) -> Result<(StreamId, Vec<(u32, Place)>), ApiError> {
        let gone = || invalid(format!("The data stream {} does not exist.", source.stream_arn));
        let name = data_streams::parse_stream_arn(&source.stream_arn).ok_or_else(gone)?;
        let id = self.streams.find(&name).ok_or_else(gone)?;
        let mut places = Vec::new();
        for shard in self.streams.shards(&name, id).ok_or_else(gone)? {
            let place = match shard.closed {
                true => Place::End,
                false => Place::from(self.streams.tip(id, shard.shard).await.map_err(|_| gone())?),
            };
            places.push((shard.shard.0, place));
        }
        Ok((id, places))
    }
}

/// How records are to be encrypted.
fn encryption(input: &CreateDeliveryStreamInput) -> Result<Option<EncryptionRecord>, ApiError> {
    let Some(given) = &input.delivery_stream_encryption_configuration_input else {
        return Ok(None);
    };
    if input.delivery_stream_type == Some(DeliveryStreamType::KinesisStreamAsSource) {
        return Err(invalid(
            "Encryption belongs to delivery streams of type DirectPut; a data stream encrypts its records itself.",
        ));
    }
    encryption_record(given).map(Some)
}

/// What is kept of a wish for encryption.
pub fn encryption_record(
    given: &firehose::DeliveryStreamEncryptionConfigurationInput,
) -> Result<EncryptionRecord, ApiError> {
    match (given.key_type, &given.key_arn) {
        (KeyType::AwsOwnedCmk, None) => Ok(EncryptionRecord { key_arn: None }),
        (KeyType::CustomerManagedCmk, Some(arn)) => Ok(EncryptionRecord {
            key_arn: Some(arn.clone()),
        }),
        (KeyType::AwsOwnedCmk, Some(_)) => Err(invalid("KeyARN must not be given with the key type AWS_OWNED_CMK.")),
        (KeyType::CustomerManagedCmk, None) => {
            Err(invalid("KeyARN must be given with the key type CUSTOMER_MANAGED_CMK."))
        }
    }
}

/// The description of the one destination that is asked for.
fn destination(
    caller: &Caller,
    mut input: CreateDeliveryStreamInput,
) -> Result<(DestinationDescription, Secrets), ApiError> {
    let asked = [
        input.amazon_open_search_serverless_destination_configuration.is_some(),
        input.amazonopensearchservice_destination_configuration.is_some(),
        input.elasticsearch_destination_configuration.is_some(),
        input.extended_s3_destination_configuration.is_some(),
        input.http_endpoint_destination_configuration.is_some(),
        input.iceberg_destination_configuration.is_some(),
        input.redshift_destination_configuration.is_some(),
        input.s3_destination_configuration.is_some(),
        input.snowflake_destination_configuration.is_some(),
        input.splunk_destination_configuration.is_some(),
    ];
    if asked.iter().filter(|asked| **asked).count() != 1 {
        return Err(invalid(
            "Exactly one destination configuration is supported for a Firehose",
        ));
    }
    if input.redshift_destination_configuration.is_some() || input.snowflake_destination_configuration.is_some() {
        return Err(invalid(
            "Redshift and Snowflake are not destinations of this server; deliver to S3 and load from there.",
        ));
    }
    let simple = input.s3_destination_configuration.take().map(s3::extended);
    let given = input.extended_s3_destination_configuration.take().or(simple);
    let described = match given {
        Some(given) => {
            check_role(caller, &given.role_arn)?;
            let description = s3::describe_extended(given)?;
            Some((empty(Some(description)), Secrets::new()))
        }
        None => endpoints::describe(&input)?,
    };
    let (mut description, secrets) =
        described.ok_or_else(|| invalid("The destination is not one of this server's."))?;
    DESTINATION_ID.clone_into(&mut description.destination_id);
    Ok((description, secrets))
}

/// A description with S3 alone in it, or nothing yet.
pub fn empty(extended: Option<firehose::ExtendedS3DestinationDescription>) -> DestinationDescription {
    DestinationDescription {
        amazon_open_search_serverless_destination_description: None,
        amazonopensearchservice_destination_description: None,
        destination_id: DESTINATION_ID.to_owned(),
        elasticsearch_destination_description: None,
        extended_s3_destination_description: extended,
        http_endpoint_destination_description: None,
        iceberg_destination_description: None,
        redshift_destination_description: None,
        s3_destination_description: None,
        snowflake_destination_description: None,
        splunk_destination_description: None,
    }
}
