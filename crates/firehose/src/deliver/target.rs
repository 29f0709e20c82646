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
use crate::control::s3;
use crate::endpoints::{self, Endpoint, Secrets};
use crate::format::{Encoded, Format};
use crate::limits;
use crate::ports::Ports;
use crate::prefix::{Prefix, Use, Values};
use crate::process::Pipeline;
use crate::types::{About, Buffering, ErrorOutputType, Failed, Keys, Ready, Refused};

/// Objects of one kind: delivered records, or source records of a backup.
#[derive(Debug)]
pub struct Objects {
    /// Where they go.
    pub bucket: String,
    prefix: Prefix,
    /// What they are made of.
    pub format: Format,
    extension: String,
}

/// A destination. Cheap to share.
pub struct Target {
    /// What is done to records.
    pub pipeline: Pipeline,
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
    error_prefix: Prefix,
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
        prefix: Prefix::parse(description.prefix.as_deref(), None, Use::Plain)?,
        extension: format.extension().to_owned(),
        format,
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
                pipeline: Pipeline::new(opened.processing.as_ref(), about, ports)?,
                buffering: opened.buffering,
                objects: None,
                endpoint: Some((opened.endpoint, destination_name(description))),
                error_bucket: bucket_of(&backup.bucket_arn),
                error_prefix,
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
        Ok(Target {
            pipeline: Pipeline::new(description.processing_configuration.as_ref(), about, ports)?,
            buffering: s3::buffering(&description.buffering_hints),
            error_bucket: bucket_of(&description.bucket_arn),
            error_prefix,
            objects: Some(Objects {
                bucket: bucket_of(&description.bucket_arn),
                prefix,
                extension: given.unwrap_or(format.extension()).to_owned(),
                format,
            }),
            endpoint: None,
            backup,
            partitioned,
            about: about.clone(),
            version,
        })
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
        let prefix = objects.prefix.render(&values)?;
        Ok(Some(self.object(
            &objects.bucket,
            &prefix,
            oldest,
            id,
            &objects.extension,
        )))
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
        let prefix = self.error_prefix.render(&values)?;
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
        let prefix = backup.prefix.render(&values)?;
        Ok(Some(self.object(
            &backup.bucket,
            &prefix,
            oldest,
            id,
            &backup.extension,
        )))
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
            (Some(objects), _) if objects.format.converts() => vec![ErrorOutputType::FormatConversion],
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
        sequence: None,
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
