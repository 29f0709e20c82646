//! Destinations that are not S3. Each has S3 beside it: for what it does not take, and for everything where its backup mode
//! says so; the delivery of that is not done here.
//!
//! An endpoint delivers at least once: it knows nothing of what was delivered before a restart, and repeats a delivery with
//! the same ids. HTTP endpoints see the same request id, search engines the same document ids.

mod http;
pub mod limits;
mod parts;
mod retry;
mod rotation;
mod search;
mod settings;
mod splunk;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::ApiError;
use settings::{invalid, search::elasticsearch, search::opensearch, search::serverless};
use uuid::Uuid;
use wire::firehose::{
    CreateDeliveryStreamInput, DestinationDescription, ProcessingConfiguration, S3DestinationDescription,
    UpdateDestinationInput,
};

use crate::ports::Ports;
use crate::types::{About, Buffering, Failed, Ready, Refused};

/// What a destination must know and no description tells, by name: access keys, tokens. Sealed where it is stored.
pub type Secrets = BTreeMap<String, String>;

/// Records on their way.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The same over every attempt, also after a restart of the server.
    pub id: Uuid,
    /// The records, in their order.
    pub records: Vec<Ready>,
}

/// What became of them: what is not listed was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Records that were not taken although it was tried for as long as the destination's retry options say.
    pub failed: Vec<Failed>,
}

/// Delivers to one destination.
#[async_trait]
pub trait Endpoint: Send + Sync + 'static {
    /// Delivers, trying again for as long as the destination's retry options say. Every record was taken or is in `failed`
    /// when this answers. May be dropped at any time; the delivery is then repeated with the same id.
    async fn deliver(&self, delivery: Delivery) -> Delivered;
}

/// A destination that can be delivered to.
pub struct Opened {
    /// Delivers.
    pub endpoint: Arc<dyn Endpoint>,
    /// When.
    pub buffering: Buffering,
    /// After what.
    pub processing: Option<ProcessingConfiguration>,
    /// The S3 beside it.
    pub backup: S3DestinationDescription,
    /// All source records go to the S3 beside it, not only those that failed.
    pub backup_all: bool,
}

/// What a destination that is asked for becomes.
type Described = Result<Option<(DestinationDescription, Secrets)>, ApiError>;

/// The description of the destination that is asked for, with every default filled in, and what it hides; `None` if it is
/// S3. `DestinationId` is the caller's to set.
pub fn describe(input: &CreateDeliveryStreamInput) -> Described {
    unsupported(
        input.iceberg_destination_configuration.is_some(),
        input.redshift_destination_configuration.is_some(),
        input.snowflake_destination_configuration.is_some(),
    )?;
    let mut description = DestinationDescription::default();
    let mut secrets = Secrets::new();
    if let Some(asked) = &input.http_endpoint_destination_configuration {
        let (described, hidden) = settings::http::described(asked)?;
        description.http_endpoint_destination_description = Some(described);
        secrets = hidden;
    } else if let Some(asked) = &input.splunk_destination_configuration {
        let (described, hidden) = settings::splunk::described(asked)?;
        description.splunk_destination_description = Some(described);
        secrets = hidden;
    } else if let Some(asked) = &input.amazonopensearchservice_destination_configuration {
        description.amazonopensearchservice_destination_description = Some(opensearch::described(asked)?);
    } else if let Some(asked) = &input.elasticsearch_destination_configuration {
        description.elasticsearch_destination_description = Some(elasticsearch::described(asked)?);
    } else if let Some(asked) = &input.amazon_open_search_serverless_destination_configuration {
        description.amazon_open_search_serverless_destination_description = Some(serverless::described(asked)?);
    } else {
        return Ok(None);
    }
    Ok(Some((description, secrets)))
}

/// The description after an update, with what it hides; `None` if the update is none of these destinations'. Fails where
/// the update is of another destination than the old description.
pub fn update((old, secrets): (&DestinationDescription, &Secrets), input: &UpdateDestinationInput) -> Described {
    unsupported(
        input.iceberg_destination_update.is_some(),
        input.redshift_destination_update.is_some(),
        input.snowflake_destination_update.is_some(),
    )?;
    let other =
        || invalid("The update is not one of the delivery stream's kind of destination, which cannot be changed.");
    let (mut new, mut hidden) = (old.clone(), secrets.clone());
    if let Some(asked) = &input.http_endpoint_destination_update {
        let old = old.http_endpoint_destination_description.as_ref().ok_or_else(other)?;
        let (updated, secrets) = settings::http::updated((old, secrets), asked)?;
        new.http_endpoint_destination_description = Some(updated);
        hidden = secrets;
    } else if let Some(asked) = &input.splunk_destination_update {
        let old = old.splunk_destination_description.as_ref().ok_or_else(other)?;
        let (updated, secrets) = settings::splunk::updated((old, secrets), asked)?;
        new.splunk_destination_description = Some(updated);
        hidden = secrets;
    } else if let Some(asked) = &input.amazonopensearchservice_destination_update {
        let old = old
            .amazonopensearchservice_destination_description
            .as_ref()
            .ok_or_else(other)?;
        new.amazonopensearchservice_destination_description = Some(opensearch::updated(old, asked)?);
    } else if let Some(asked) = &input.elasticsearch_destination_update {
        let old = old.elasticsearch_destination_description.as_ref().ok_or_else(other)?;
        new.elasticsearch_destination_description = Some(elasticsearch::updated(old, asked)?);
    } else if let Some(asked) = &input.amazon_open_search_serverless_destination_update {
        let old = old
            .amazon_open_search_serverless_destination_description
            .as_ref()
            .ok_or_else(other)?;
        new.amazon_open_search_serverless_destination_description = Some(serverless::updated(old, asked)?);
    } else {
        return Ok(None);
    }
    Ok(Some((new, hidden)))
}

/// A description as DescribeDeliveryStream shows it, with the secrets that AWS shows.
pub fn shown(mut description: DestinationDescription, secrets: &Secrets) -> DestinationDescription {
    if let Some(splunk) = &mut description.splunk_destination_description {
        settings::splunk::shown(splunk, secrets);
    }
    description
}

/// Makes what delivers; `None` if the destination is S3. Also asked when a description is made or updated, so that what
/// cannot be carried out is refused then.
pub fn open(
    description: &DestinationDescription,
    secrets: &Secrets,
    about: &About,
    ports: &Ports,
) -> Result<Option<Opened>, Refused> {
    if let Some(http) = &description.http_endpoint_destination_description {
        return settings::http::open(http, secrets, about, ports).map(Some);
    }
    if let Some(splunk) = &description.splunk_destination_description {
        return settings::splunk::open(splunk, secrets, about, ports).map(Some);
    }
    if let Some(engine) = &description.amazonopensearchservice_destination_description {
        return opensearch::open(engine, ports).map(Some);
    }
    if let Some(engine) = &description.elasticsearch_destination_description {
        return elasticsearch::open(engine, ports).map(Some);
    }
    if let Some(engine) = &description.amazon_open_search_serverless_destination_description {
        return serverless::open(engine, ports).map(Some);
    }
    Ok(None)
}

/// Refuses the destinations that are not carried out; docs/guide/endpoints.md says why.
fn unsupported(iceberg: bool, redshift: bool, snowflake: bool) -> Result<(), ApiError> {
    let reason = match (iceberg, redshift, snowflake) {
        (true, _, _) => {
            "Iceberg destinations are not carried out by this server; convert to Parquet in an S3 destination instead."
        }
        (_, true, _) => {
            "Redshift destinations are not carried out by this server: there is no Redshift outside of AWS."
        }
        (_, _, true) => "Snowflake destinations are not carried out by this server; deliver to S3 and load from there.",
        _ => return Ok(()),
    };
    Err(invalid(reason))
}
