//! Destinations that are not S3. Each has S3 beside it: for what it does not take, and for everything where its backup mode
//! says so; the delivery of that is not done here.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use base::ApiError;
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

/// The description of the destination that is asked for, with every default filled in, and what it hides; `None` if it is
/// S3. `DestinationId` is the caller's to set. `backup` makes the description of the S3 beside it.
pub fn describe(input: &CreateDeliveryStreamInput) -> Result<Option<(DestinationDescription, Secrets)>, ApiError> {
    let asked = input.http_endpoint_destination_configuration.is_some()
        || input.splunk_destination_configuration.is_some()
        || input.amazonopensearchservice_destination_configuration.is_some()
        || input.elasticsearch_destination_configuration.is_some()
        || input.amazon_open_search_serverless_destination_configuration.is_some()
        || input.iceberg_destination_configuration.is_some();
    match asked {
        true => Err(Refused("Only S3 destinations are carried out by this server.".to_owned()).into()),
        false => Ok(None),
    }
}

/// The description after an update, with what it hides; `None` if the update is none of these destinations'.
pub fn update(
    _old: (&DestinationDescription, &Secrets),
    _input: &UpdateDestinationInput,
) -> Result<Option<(DestinationDescription, Secrets)>, ApiError> {
    Ok(None)
}

/// Makes what delivers; `None` if the destination is S3. Also asked when a description is made or updated, so that what
/// cannot be carried out is refused then.
pub fn open(
    _description: &DestinationDescription,
    _secrets: &Secrets,
    _about: &About,
    _ports: &Ports,
) -> Result<Option<Opened>, Refused> {
    Ok(None)
}
