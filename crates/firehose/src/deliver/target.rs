//! A destination made ready: its processors, how objects are named and what they are made of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::{AccountId, Timestamp};
use bytes::{Bytes, BytesMut};
use objects::{ObjectError, PutOptions};
use uuid::Uuid;
use wire::firehose::{
    DestinationDescription, ExtendedS3DestinationDescription, S3BackupMode, S3DestinationDescription,
};

use super::rows::Named;
use crate::channels::{Body, Template};
use crate::control::s3;
use crate::endpoints::{self, Endpoint, Secrets};
use crate::format::{Encoded, Format};
use crate::limits;
use crate::ports::{ConvertError, Ports};
use crate::prefix::{Prefix, Use, Values};
use crate::process::Pipeline;
use crate::types::{About, Buffering, ErrorOutputType, Failed, Keys, Processed, Ready, Record, Refused};

/// Objects of one kind: delivered records, or source records of a backup.
#[derive(Debug)]
pub struct Objects {
    /// Where they go.
    pub bucket: String,
    names: Names,
    made: Made,
}

/// How objects are named.
#[derive(Debug)]
enum Names {
    /// As Firehose names them; with what names end with.
    Prefixed(Prefix, String),
    /// As a channel's template says.
    Template(Template),
}

/// What objects are made of.
#[derive(Debug)]
enum Made {
    Format(Format),
    /// Records of a channel.
    Body(Body),
}

impl Objects {
    /// The body of one object.
    pub async fn encode(&self, records: Vec<Ready>) -> Result<Encoded, ConvertError> {
        match &self.made {
            Made::Format(format) => format.encode(records).await,
            Made::Body(body) => {
                let encoded = body.encode(records).await;
                encoded.map_err(|error| ConvertError::Failed(error.to_string()))
            }
        }
    }

    /// True when records can fail in [`Objects::encode`].
    fn converts(&self) -> bool {
        matches!(&self.made, Made::Format(format) if format.converts())
    }
}

/// What is done to records before they are delivered.
enum Steps {
    Pipeline(Pipeline),
    /// The check of a channel.
    Check(Body),
}

/// How objects of failed records are named.
enum ErrorNames {
    Prefixed(Prefix),
    /// Below a channel's prefix, by the hour.
    Below(String),
}

/// Where a channel's records go.
#[derive(Clone, Debug)]
pub struct ChannelObjects {
    /// The bucket.
    pub bucket: String,
    /// How objects are named.
    pub template: Template,
    /// What they are made of, and what records must be.
    pub body: Body,
    /// The bucket of records that cannot be delivered.
    pub error_bucket: String,
    /// What their names begin with.
    pub error_prefix: String,
}

/// A destination. Cheap to share.
pub struct Target {
    steps: Steps,
    /// When a buffer is full.
    pub buffering: Buffering,
    /// Where they go, if that is S3.
    pub objects: Option<Objects>,
    /// Where they go, if that is not S3, and what the metrics call it.
    pub endpoint: Option<(Arc<dyn Endpoint>, &'static str)>,
    /// Where source records go.
    pub backup: Option<Objects>,
    /// Where failed records go.
    error_bucket: String,
    errors: ErrorNames,
    partitioned: bool,
    about: About,
    version: u64,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({})", self.about.name)
    }
}

/// Records of one object.
#[derive(Debug, Default)]
pub struct Group {
    query_keys: Keys,
    lambda_keys: Keys,
    /// The records.
    pub records: Vec<Ready>,
}

impl Group {
    /// Records that go together, if there are any.
    pub fn of(records: Vec<Ready>) -> Option<Self> {
        (!records.is_empty()).then(|| Group {
            records,
            ..Group::default()
        })
    }
}

/// The bucket that an ARN names.
pub fn bucket_of(arn: &str) -> String {
    arn.rsplit(':').next().unwrap_or_default().to_owned()
}

fn backup_objects(description: &S3DestinationDescription, about: &About, ports: &Ports) -> Result<Objects, Refused> {
    let format = Format::new(description.compression_format, None, about, ports)?;
    Ok(Objects {
        bucket: bucket_of(&description.bucket_arn),
        names: Names::Prefixed(
            Prefix::parse(description.prefix.as_deref(), None, Use::Plain)?,
            format.extension().to_owned(),
        ),
        made: Made::Format(format),
    })
}

impl Target {
    /// Makes a destination ready, or says why it cannot be.
    pub fn open(
        description: &DestinationDescription,
        secrets: &Secrets,
        about: &About,
        version: u64,
        ports: &Ports,
    ) -> Result<Self, Refused> {
        if let Some(opened) = endpoints::open(description, secrets, about, ports)? {
            let backup = &opened.backup;
            let errors = backup.error_output_prefix.as_deref();
            let (_, error_prefix) = Prefix::pair(backup.prefix.as_deref(), errors, None, false)?;
            let all = opened
                .backup_all
                .then(|| backup_objects(backup, about, ports))
                .transpose()?;
            return Ok(Target {
                steps: Steps::Pipeline(Pipeline::new(opened.processing.as_ref(), about, ports)?),
                buffering: opened.buffering,
                objects: None,
                endpoint: Some((opened.endpoint, destination_name(description))),
                error_bucket: bucket_of(&backup.bucket_arn),
                errors: ErrorNames::Prefixed(error_prefix),
                backup: all,
                partitioned: false,
                about: about.clone(),
                version,
            });
        }
        let extended = description.extended_s3_destination_description.as_ref();
        let extended = extended.ok_or_else(|| Refused("The destination is not one of this server's.".to_owned()))?;
        Target::s3(extended, about, version, ports)
    }

    fn s3(
        description: &ExtendedS3DestinationDescription,
        about: &About,
        version: u64,
        ports: &Ports,
    ) -> Result<Self, Refused> {
        let zone = description.custom_time_zone.as_deref();
        let partitioned = s3::is_partitioned(description);
        let errors = description.error_output_prefix.as_deref();
        let (prefix, error_prefix) = Prefix::pair(description.prefix.as_deref(), errors, zone, partitioned)?;
        let conversion = description.data_format_conversion_configuration.as_ref();
        let format = Format::new(description.compression_format, conversion, about, ports)?;
        let backup = match (description.s3_backup_mode, &description.s3_backup_description) {
            (Some(S3BackupMode::Enabled), Some(backup)) => Some(backup_objects(backup, about, ports)?),
            _ => None,
        };
        let given = description.file_extension.as_deref().filter(|e| !e.is_empty());
        let pipeline = Pipeline::new(description.processing_configuration.as_ref(), about, ports)?;
        pipeline.provides(&prefix)?;
        Ok(Target {
            steps: Steps::Pipeline(pipeline),
            buffering: s3::buffering(&description.buffering_hints),
            error_bucket: bucket_of(&description.bucket_arn),
            errors: ErrorNames::Prefixed(error_prefix),
            objects: Some(Objects {
                bucket: bucket_of(&description.bucket_arn),
                names: Names::Prefixed(prefix, given.unwrap_or(format.extension()).to_owned()),
                made: Made::Format(format),
            }),
            endpoint: None,
            backup,
            partitioned,
            about: about.clone(),
            version,
        })
    }

    /// The destination of a channel.
    pub fn channel(channel: ChannelObjects, buffering: Buffering, about: About) -> Self {
        Target {
            steps: Steps::Check(channel.body.clone()),
            buffering,
            objects: Some(Objects {
                bucket: channel.bucket,
                names: Names::Template(channel.template),
                made: Made::Body(channel.body),
            }),
            endpoint: None,
            backup: None,
            error_bucket: channel.error_bucket,
            errors: ErrorNames::Below(channel.error_prefix),
            partitioned: false,
            about,
            version: 1,
        }
    }

    /// True when every record leaves [`Target::process`] as it came.
    pub fn is_plain(&self) -> bool {
        matches!(&self.steps, Steps::Pipeline(pipeline) if pipeline.is_plain())
    }

    /// Does to records what is to be done before they are delivered.
    pub async fn process(&self, records: Vec<Record>) -> Processed {
        match &self.steps {
            Steps::Pipeline(pipeline) => pipeline.run(records).await,
            Steps::Check(body) => body.check(records),
        }
    }

    /// The buckets that must be there when the destination is chosen.
    pub fn buckets(&self) -> Vec<&str> {
        let objects = self.objects.iter().chain(&self.backup).map(|o| o.bucket.as_str());
        let mut buckets: Vec<&str> = objects.chain([self.error_bucket.as_str()]).collect();
        buckets.sort_unstable();
        buckets.dedup();
        buckets
    }

    /// The account whose buckets they are.
    pub fn account(&self) -> AccountId {
        self.about.account
    }

    /// Divides records among objects. Those beyond the limit of partitions fail.
    pub fn group(&self, records: Vec<Ready>, failed: &mut Vec<Failed>) -> Vec<Group> {
        if !self.partitioned {
            return Group::of(records).into_iter().collect();
        }
        let mut groups: Vec<Group> = Vec::new();
        let mut places: HashMap<(Keys, Keys), usize> = HashMap::new();
        for mut record in records {
            let query_keys = std::mem::take(&mut record.query_keys);
            let lambda_keys = std::mem::take(&mut record.lambda_keys);
            let next = groups.len();
            let keys = (query_keys, lambda_keys);
            let at = match places.get(&keys) {
                Some(at) => *at,
                None if next == limits::ACTIVE_PARTITIONS_MAX => {
                    failed.push(beyond_partitions(record));
                    continue;
                }
                None => {
                    groups.push(Group {
                        query_keys: keys.0.clone(),
                        lambda_keys: keys.1.clone(),
                        records: Vec::new(),
                    });
                    places.insert(keys, next);
                    next
                }
            };
            if let Some(group) = groups.get_mut(at) {
                group.records.push(record);
            }
        }
        groups
    }

    /// The object of a group. Fails where a key that its prefix needs is missing.
    pub fn name(&self, seed: Uuid, group: &Group) -> Result<Option<Named>, Refused> {
        let Some(objects) = &self.objects else { return Ok(None) };
        let oldest = group.records.iter().map(|r| r.arrival).min().unwrap_or_default();
        let keys = serde_json::to_vec(&(&group.query_keys, &group.lambda_keys)).unwrap_or_default();
        let id = Uuid::new_v5(&seed, &keys);
        let values = Values {
            at: oldest,
            random: *id.as_bytes(),
            query_keys: &group.query_keys,
            lambda_keys: &group.lambda_keys,
            error: None,
        };
        self.named(objects, &values, oldest, id).map(Some)
    }

    fn named(&self, objects: &Objects, values: &Values<'_>, oldest: Timestamp, id: Uuid) -> Result<Named, Refused> {
        match &objects.names {
            Names::Prefixed(prefix, extension) => {
                Ok(self.object(&objects.bucket, &prefix.render(values)?, oldest, id, extension))
            }
            Names::Template(template) => Ok(Named {
                bucket: objects.bucket.clone(),
                key: template.key(oldest, id),
            }),
        }
    }

    /// The object of failed records of one kind.
    pub fn error_name(&self, seed: Uuid, kind: ErrorOutputType, oldest: Timestamp) -> Result<Named, Refused> {
        let id = Uuid::new_v5(&seed, kind.as_str().as_bytes());
        let none = Keys::new();
        let values = Values {
            at: oldest,
            random: *id.as_bytes(),
            query_keys: &none,
            lambda_keys: &none,
            error: Some(kind),
        };
        let prefix = match &self.errors {
            ErrorNames::Prefixed(prefix) => prefix.render(&values)?,
            ErrorNames::Below(prefix) => {
                let hour = auth::date::iso_date(oldest).replace(['-', 'T', ':'], "/");
                format!("{prefix}{}/", hour.get(.."2026/01/01/00".len()).unwrap_or_default())
            }
        };
        Ok(self.object(&self.error_bucket, &prefix, oldest, id, ""))
    }

    /// The object of the source records.
    pub fn backup_name(&self, seed: Uuid, oldest: Timestamp) -> Result<Option<Named>, Refused> {
        let Some(backup) = &self.backup else { return Ok(None) };
        let id = Uuid::new_v5(&seed, b"source records");
        let none = Keys::new();
        let values = Values {
            at: oldest,
            random: *id.as_bytes(),
            query_keys: &none,
            lambda_keys: &none,
            error: None,
        };
        self.named(backup, &values, oldest, id).map(Some)
    }

    /// `PREFIX` `NAME-VERSION-YYYY-MM-DD-HH-mm-ss-UUID` `EXTENSION`
    fn object(&self, bucket: &str, prefix: &str, at: Timestamp, id: Uuid, extension: &str) -> Named {
        let at = auth::date::iso_date(at).replace([':', 'T'], "-");
        let (name, version) = (&self.about.name, self.version);
        Named {
            bucket: bucket.to_owned(),
            key: format!("{prefix}{name}-{version}-{}-{id}{extension}", at.trim_end_matches('Z')),
        }
    }

    /// Kinds of failures that are known before delivery has ended: those of its last step.
    pub fn late_failures(&self) -> Vec<ErrorOutputType> {
        match (&self.objects, &self.endpoint) {
            (Some(objects), _) if objects.converts() => vec![ErrorOutputType::FormatConversion],
            (None, Some((_, name))) => ErrorOutputType::of_destination(name).into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

fn beyond_partitions(record: Ready) -> Failed {
    Failed {
        raw: record.data,
        arrival: record.arrival,
        code: "DynamicPartitioning.ActivePartitionLimitExceeded".to_owned(),
        message: format!(
            "The delivery stream has more than {} active partitions.",
            limits::ACTIVE_PARTITIONS_MAX
        ),
        attempts: 1,
        kind: ErrorOutputType::Processing,
        sequence: record.sequence.map(|(sequence, _)| sequence),
        more: Vec::new(),
    }
}

/// A record for which the name of no object can be made.
pub fn nameless(record: Ready, why: &Refused) -> Failed {
    Failed {
        code: "DynamicPartitioning.MetadataExtractionFailed".to_owned(),
        message: why.0.clone(),
        ..beyond_partitions(record)
    }
}

/// What the metrics call a destination.
fn destination_name(description: &DestinationDescription) -> &'static str {
    match description {
        d if d.http_endpoint_destination_description.is_some() => "HttpEndpoint",
        d if d.splunk_destination_description.is_some() => "Splunk",
        d if d.amazonopensearchservice_destination_description.is_some() => "AmazonOpenSearchService",
        d if d.elasticsearch_destination_description.is_some() => "Elasticsearch",
        d if d.amazon_open_search_serverless_destination_description.is_some() => "AmazonOpenSearchServerless",
        d if d.iceberg_destination_description.is_some() => "Iceberg",
        _ => "S3",
    }
}

impl ErrorOutputType {
    /// What fails where a destination does not take records, by its name in the metrics.
    fn of_destination(name: &str) -> Option<Self> {
        match name {
            "HttpEndpoint" => Some(ErrorOutputType::HttpEndpoint),
            "Splunk" => Some(ErrorOutputType::Splunk),
            "AmazonOpenSearchService" => Some(ErrorOutputType::OpenSearch),
            "Elasticsearch" => Some(ErrorOutputType::Elasticsearch),
            "AmazonOpenSearchServerless" => Some(ErrorOutputType::OpenSearchServerless),
            "Iceberg" => Some(ErrorOutputType::Iceberg),
            _ => None,
        }
    }
}

/// Failed records by their kind.
pub fn by_kind(failed: Vec<Failed>) -> BTreeMap<ErrorOutputType, Vec<Failed>> {
    let mut kinds: BTreeMap<_, Vec<Failed>> = BTreeMap::new();
    for one in failed {
        kinds.entry(one.kind).or_default().push(one);
    }
    kinds
}

/// Puts an object; gives its bytes.
pub async fn put(ports: &Ports, account: AccountId, named: &Named, encoded: Encoded) -> Result<usize, ObjectError> {
    let bucket = ports.buckets.open(account, &named.bucket).await?;
    let options = PutOptions {
        content_type: Some(encoded.content_type.to_owned()).filter(|t| !t.is_empty()),
        content_encoding: encoded.content_encoding.map(str::to_owned),
        ..PutOptions::default()
    };
    let bytes: usize = encoded.body.iter().map(Bytes::len).sum();
    let mut parts = encoded.body.into_iter();
    if parts.len() == 1 || bytes <= limits::PUT_BYTES {
        let body = match parts.len() {
            1 => parts.next().unwrap_or_default(),
            _ => joined(parts, bytes),
        };
        bucket.put(&named.key, options, body).await?;
        return Ok(bytes);
    }
    let mut upload = bucket.begin(&named.key, options).await?;
    let mut piece = BytesMut::new();
    for part in parts {
        if part.len() >= limits::PIECE_BYTES {
            if !piece.is_empty() {
                upload.write(piece.split().freeze()).await?;
            }
            upload.write(part).await?;
            continue;
        }
        piece.extend_from_slice(&part);
        if piece.len() >= limits::PIECE_BYTES {
            upload.write(piece.split().freeze()).await?;
        }
    }
    if !piece.is_empty() {
        upload.write(piece.freeze()).await?;
    }
    upload.finish().await?;
    Ok(bytes)
}

fn joined(parts: impl Iterator<Item = Bytes>, bytes: usize) -> Bytes {
    let mut all = BytesMut::with_capacity(bytes);
    for part in parts {
        all.extend_from_slice(&part);
    }
    all.freeze()
}
