//! DiscoverInputSchema: samples of a data stream or an object, and what they have in common. The caller needs the right to
//! read them, since they are told.

use std::time::Duration;

use base::{ApiError, Caller, Handle, Reply, Request};
use data_streams::{ReadError, parse_stream_arn};
use storage::{Position, ShardId, StreamId};
use tokio::time::{Instant, sleep};
use wire::kinesisanalyticsv2::{self as model, InputStartingPosition, op};

use super::create::check_role;
use super::inputs::check_stream;
use crate::discover::{Discovered, discover};
use crate::error::{invalid, unsupported};
use crate::limits;
use crate::service::Analytics;

/// How often a stream is looked at while new records are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn undetected(why: &str, samples: Vec<String>) -> ApiError {
    let mut error = ApiError::client("UnableToDetectSchemaException", why);
    let texts = serde_json::Value::from(samples);
    error.members.push(("RawInputRecords", texts.to_string()));
    error
}

/// Whoever is told what a resource holds must be allowed to read it.
fn check_right(caller: &Caller, action: &str, resource: &str) -> Result<(), ApiError> {
    match caller.authorizer.allows(action, resource) {
        true => Ok(()),
        false => Err(ApiError::client(
            "AccessDeniedException",
            format!(
                "{} is not allowed to perform {action} on {resource}.",
                caller.principal_arn
            ),
        )),
    }
}

impl Handle<op::DiscoverInputSchema> for Analytics {
    async fn handle(
        &self,
        request: Request<model::DiscoverInputSchemaRequest>,
    ) -> Result<Reply<model::DiscoverInputSchemaResponse>, ApiError> {
        let caller = &request.context.caller;
        let input = request.input;
        check_role(caller, &input.service_execution_role)?;
        if input.input_processing_configuration.is_some() {
            return Err(unsupported(
                "InputProcessingConfiguration: functions are not called for applications by this server.",
            ));
        }
        let position = input
            .input_starting_position_configuration
            .and_then(|p| p.input_starting_position);
        let samples = match (&input.resource_arn, &input.s3_configuration) {
            (Some(arn), None) => self.stream_samples(caller, arn, position).await?,
            (None, Some(place)) => {
                let name = super::code::bucket_name(&place.bucket_arn)?;
                check_right(
                    caller,
                    "s3:GetObject",
                    &format!("arn:aws:s3:::{name}/{}", place.file_key),
                )?;
                let (bytes, _) = self
                    .beginning(caller.account, &place.bucket_arn, &place.file_key, limits::SAMPLE_BYTES)
                    .await?;
                vec![String::from_utf8_lossy(&bytes).into_owned()]
            }
            _ => return Err(invalid("Exactly one of ResourceARN and S3Configuration must be given.")),
        };
        if samples.is_empty() {
            return Err(undetected("There are no records to discover a schema from.", samples));
        }
        let Some(Discovered { schema, rows }) = discover(&samples) else {
            return Err(undetected(
                "The records are neither JSON objects nor rows of CSV.",
                samples,
            ));
        };
        Ok(model::DiscoverInputSchemaResponse {
            input_schema: Some(schema),
            parsed_input_records: Some(rows),
            processed_input_records: None,
            raw_input_records: Some(samples),
        }
        .into())
    }
}

impl Analytics {
    /// Records of a data stream: those that come now, or the oldest.
    async fn stream_samples(
        &self,
        caller: &Caller,
        arn: &str,
        position: Option<InputStartingPosition>,
    ) -> Result<Vec<String>, ApiError> {
        if arn.contains(":firehose:") {
            return Err(unsupported("Delivery streams are not read; name a data stream."));
        }
        check_stream(caller, arn)?;
        check_right(caller, "kinesis:GetRecords", arn)?;
        let gone = || invalid(format!("The data stream {arn} does not exist."));
        let name = parse_stream_arn(arn).ok_or_else(gone)?;
        let id = self.streams.find(&name).ok_or_else(gone)?;
        let shards = self.streams.shards(&name, id).ok_or_else(gone)?;
        let mut places: Vec<(ShardId, Position)> = Vec::new();
        let wait = match position.unwrap_or(InputStartingPosition::TrimHorizon) {
            InputStartingPosition::LastStoppedPoint => {
                return Err(invalid(
                    "LAST_STOPPED_POINT belongs to applications; give NOW or TRIM_HORIZON.",
                ));
            }
            InputStartingPosition::Now => {
                for shard in shards.iter().filter(|shard| !shard.closed) {
                    let tip = self.streams.tip(id, shard.shard).await.map_err(|_| gone())?;
                    places.push((shard.shard, tip));
                }
                limits::SAMPLE_WITHIN
            }
            InputStartingPosition::TrimHorizon => {
                places.extend(shards.iter().map(|shard| (shard.shard, Position::Trim)));
                Duration::ZERO
            }
        };
        let until = Instant::now() + wait;
        let mut samples = Vec::new();
        loop {
            for place in &mut places {
                self.sample_shard((&name, id), place, &mut samples).await?;
            }
            if !samples.is_empty() || Instant::now() >= until {
                return Ok(samples);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn sample_shard(
        &self,
        (name, id): (&base::ResourceName, StreamId),
        (shard, from): &mut (ShardId, Position),
        samples: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let bytes: usize = samples.iter().map(String::len).sum();
        let (records, bytes) = (
            limits::SAMPLE_RECORDS.saturating_sub(samples.len()),
            limits::SAMPLE_BYTES.saturating_sub(bytes),
        );
        if records == 0 || bytes == 0 {
            return Ok(());
        }
        let read = self.streams.read(name, (id, *shard), *from, records, bytes).await;
        let batch = read.map_err(|error| match error {
            ReadError::NotFound => invalid(format!("The data stream {} does not exist.", name.name)),
            other => ApiError::server("ServiceUnavailableException", "The records cannot be read.", other),
        })?;
        for record in &batch.records {
            match kpl::deaggregate(&record.data) {
                Some(users) => samples.extend(users.iter().map(|user| text(&user.data))),
                None => samples.push(text(&record.data)),
            }
        }
        *from = batch.next;
        Ok(())
    }
}

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
