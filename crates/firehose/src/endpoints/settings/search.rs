//! OpenSearch, Elasticsearch and OpenSearch Serverless: their descriptions, and what delivers to them. The model has three
//! sets of shapes of the same members; the two that differ in nothing but their names are written once.

use std::sync::Arc;
use std::time::Duration;

use base::ApiError;
use wire::firehose as fh;
use wire::firehose::{DefaultDocumentIdFormat, DocumentIdOptions, S3DestinationDescription};

use super::super::Opened;
use super::super::limits::RETRY_SECONDS;
use super::super::rotation::Rotation;
use super::super::search::SearchIndex;
use super::{beside, buffering, hints, https, invalid, no_vpc};
use crate::control::s3;
use crate::ports::Ports;
use crate::types::{ErrorOutputType, Refused};

/// Megabytes and seconds of a buffer where nothing is said (the model's documentation).
const BUFFER: (i32, i32) = (5, 300);

/// A description without its shape.
struct Common<'a> {
    kind: ErrorOutputType,
    /// The endpoint, else the domain.
    reached_by: [Option<&'a str>; 2],
    index: Option<&'a str>,
    rotation: Rotation,
    type_name: Option<&'a str>,
    ids: bool,
    retry_seconds: Option<i32>,
    hints: (Option<i32>, Option<i32>),
    processing: Option<&'a fh::ProcessingConfiguration>,
    backup: Option<&'a S3DestinationDescription>,
    backup_all: bool,
}

/// Either of them must be given.
fn reached(endpoint: Option<&str>, domain: Option<&str>) -> Result<(), ApiError> {
    match (endpoint, domain) {
        (Some(url), None) => https("ClusterEndpoint", url).map(|_| ()),
        (None, Some(_)) => Ok(()),
        _ => Err(invalid(
            "Either ClusterEndpoint or DomainARN must be given, and not both.",
        )),
    }
}

fn index_name(name: &str) -> Result<(), ApiError> {
    let bad = |c: char| c.is_ascii_uppercase() || c.is_whitespace() || "\\/*?\"<>|,#:".contains(c);
    if name.starts_with(['_', '-', '+', '.']) || name.contains(bad) {
        return Err(invalid(format!(
            "IndexName {name:?} is no name of an index: it has no capital letters, white space or \\ / * ? \" < > | , # :, and \
             does not begin with _ - + or a full stop."
        )));
    }
    Ok(())
}

fn ids(asked: Option<&DocumentIdOptions>) -> DocumentIdOptions {
    asked.cloned().unwrap_or(DocumentIdOptions {
        default_document_id_format: DefaultDocumentIdFormat::FirehoseDefault,
    })
}

/// `described`, `updated` and `open` of the two engines whose shapes differ in their names.
macro_rules! engine {
    ($module:ident, $kind:expr, $configuration:ident, $description:ident, $update:ident, $hints:ident, $retry:ident,
     $rotation:ident, $mode:ident) => {
        /// One of the engines.
        pub mod $module {
            use super::*;

            /// The description of what is asked for.
            pub fn described(asked: &fh::$configuration) -> Result<fh::$description, ApiError> {
                no_vpc(asked.vpc_configuration.as_ref())?;
                reached(asked.cluster_endpoint.as_deref(), asked.domain_arn.as_deref())?;
                index_name(&asked.index_name)?;
                Ok(fh::$description {
                    buffering_hints: Some(buffering_hints(asked.buffering_hints.as_ref())?),
                    cloud_watch_logging_options: s3::logging(asked.cloud_watch_logging_options.clone()),
                    cluster_endpoint: asked.cluster_endpoint.clone(),
                    document_id_options: Some(ids(asked.document_id_options.as_ref())),
                    domain_arn: asked.domain_arn.clone(),
                    index_name: Some(asked.index_name.clone()),
                    index_rotation_period: Some(asked.index_rotation_period.unwrap_or(fh::$rotation::OneDay)),
                    processing_configuration: asked.processing_configuration.clone(),
                    retry_options: Some(retry(asked.retry_options.as_ref())),
                    role_arn: Some(asked.role_arn.clone()),
                    s3_backup_mode: Some(asked.s3_backup_mode.unwrap_or(fh::$mode::FailedDocumentsOnly)),
                    s3_destination_description: Some(s3::describe_s3(asked.s3_configuration.clone())?),
                    type_name: asked.type_name.clone(),
                    vpc_configuration_description: None,
                })
            }

            /// The description after an update.
            pub fn updated(old: &fh::$description, asked: &fh::$update) -> Result<fh::$description, ApiError> {
                let mut new = old.clone();
                if asked.cluster_endpoint.is_some() || asked.domain_arn.is_some() {
                    reached(asked.cluster_endpoint.as_deref(), asked.domain_arn.as_deref())?;
                    new.cluster_endpoint.clone_from(&asked.cluster_endpoint);
                    new.domain_arn.clone_from(&asked.domain_arn);
                }
                if let Some(name) = &asked.index_name {
                    index_name(name)?;
                    new.index_name = Some(name.clone());
                }
                if let Some(asked) = &asked.buffering_hints {
                    new.buffering_hints = Some(buffering_hints(Some(asked))?);
                }
                if let Some(asked) = &asked.retry_options {
                    new.retry_options = Some(retry(Some(asked)));
                }
                new.document_id_options = asked.document_id_options.clone().or(new.document_id_options);
                new.index_rotation_period = asked.index_rotation_period.or(new.index_rotation_period);
                new.type_name = asked.type_name.clone().or(new.type_name);
                new.role_arn = asked.role_arn.clone().or(new.role_arn);
                new.processing_configuration = asked
                    .processing_configuration
                    .clone()
                    .or(new.processing_configuration);
                new.cloud_watch_logging_options = asked
                    .cloud_watch_logging_options
                    .clone()
                    .or(new.cloud_watch_logging_options);
                new.s3_destination_description =
                    beside(old.s3_destination_description.as_ref(), asked.s3_update.as_ref())?;
                Ok(new)
            }

            /// What delivers.
            pub fn open(description: &fh::$description, ports: &Ports) -> Result<Opened, Refused> {
                let format = description
                    .document_id_options
                    .as_ref()
                    .map(|ids| ids.default_document_id_format);
                let hints = description.buffering_hints.as_ref();
                let common = Common {
                    kind: $kind,
                    reached_by: [
                        description.cluster_endpoint.as_deref(),
                        description.domain_arn.as_deref(),
                    ],
                    index: description.index_name.as_deref(),
                    rotation: description
                        .index_rotation_period
                        .map_or(Rotation::Day, Rotation::from),
                    type_name: description.type_name.as_deref().filter(|name| !name.is_empty()),
                    ids: format != Some(DefaultDocumentIdFormat::NoDocumentId),
                    retry_seconds: description
                        .retry_options
                        .as_ref()
                        .and_then(|retry| retry.duration_in_seconds),
                    hints: (
                        hints.and_then(|h| h.size_in_m_bs),
                        hints.and_then(|h| h.interval_in_seconds),
                    ),
                    processing: description.processing_configuration.as_ref(),
                    backup: description.s3_destination_description.as_ref(),
                    backup_all: description.s3_backup_mode == Some(fh::$mode::AllDocuments),
                };
                common.open(ports)
            }

            fn buffering_hints(asked: Option<&fh::$hints>) -> Result<fh::$hints, ApiError> {
                let asked = asked.cloned().unwrap_or_default();
                let (size, interval) = hints(asked.size_in_m_bs, asked.interval_in_seconds, BUFFER)?;
                Ok(fh::$hints {
                    size_in_m_bs: Some(size),
                    interval_in_seconds: Some(interval),
                })
            }

            fn retry(asked: Option<&fh::$retry>) -> fh::$retry {
                let seconds = asked.and_then(|asked| asked.duration_in_seconds);
                fh::$retry {
                    duration_in_seconds: Some(seconds.unwrap_or(RETRY_SECONDS)),
                }
            }
        }
    };
}

engine!(
    opensearch,
    ErrorOutputType::OpenSearch,
    AmazonopensearchserviceDestinationConfiguration,
    AmazonopensearchserviceDestinationDescription,
    AmazonopensearchserviceDestinationUpdate,
    AmazonopensearchserviceBufferingHints,
    AmazonopensearchserviceRetryOptions,
    AmazonopensearchserviceIndexRotationPeriod,
    AmazonopensearchserviceS3BackupMode
);
engine!(
    elasticsearch,
    ErrorOutputType::Elasticsearch,
    ElasticsearchDestinationConfiguration,
    ElasticsearchDestinationDescription,
    ElasticsearchDestinationUpdate,
    ElasticsearchBufferingHints,
    ElasticsearchRetryOptions,
    ElasticsearchIndexRotationPeriod,
    ElasticsearchS3BackupMode
);

/// OpenSearch Serverless, whose indices do not rotate.
pub mod serverless {
    use super::*;

    /// The description of what is asked for.
    pub fn described(
        asked: &fh::AmazonOpenSearchServerlessDestinationConfiguration,
    ) -> Result<fh::AmazonOpenSearchServerlessDestinationDescription, ApiError> {
        no_vpc(asked.vpc_configuration.as_ref())?;
        collection(asked.collection_endpoint.as_deref())?;
        index_name(&asked.index_name)?;
        let mode = asked.s3_backup_mode;
        Ok(fh::AmazonOpenSearchServerlessDestinationDescription {
            buffering_hints: Some(buffering_hints(asked.buffering_hints.as_ref())?),
            cloud_watch_logging_options: s3::logging(asked.cloud_watch_logging_options.clone()),
            collection_endpoint: asked.collection_endpoint.clone(),
            index_name: Some(asked.index_name.clone()),
            processing_configuration: asked.processing_configuration.clone(),
            retry_options: Some(retry(asked.retry_options.as_ref())),
            role_arn: Some(asked.role_arn.clone()),
            s3_backup_mode: Some(mode.unwrap_or(fh::AmazonOpenSearchServerlessS3BackupMode::FailedDocumentsOnly)),
            s3_destination_description: Some(s3::describe_s3(asked.s3_configuration.clone())?),
            vpc_configuration_description: None,
        })
    }

    /// The description after an update.
    pub fn updated(
        old: &fh::AmazonOpenSearchServerlessDestinationDescription,
        asked: &fh::AmazonOpenSearchServerlessDestinationUpdate,
    ) -> Result<fh::AmazonOpenSearchServerlessDestinationDescription, ApiError> {
        let mut new = old.clone();
        if asked.collection_endpoint.is_some() {
            collection(asked.collection_endpoint.as_deref())?;
            new.collection_endpoint.clone_from(&asked.collection_endpoint);
        }
        if let Some(name) = &asked.index_name {
            index_name(name)?;
            new.index_name = Some(name.clone());
        }
        if let Some(asked) = &asked.buffering_hints {
            new.buffering_hints = Some(buffering_hints(Some(asked))?);
        }
        if let Some(asked) = &asked.retry_options {
            new.retry_options = Some(retry(Some(asked)));
        }
        new.role_arn = asked.role_arn.clone().or(new.role_arn);
        new.processing_configuration = asked.processing_configuration.clone().or(new.processing_configuration);
        new.cloud_watch_logging_options = asked
            .cloud_watch_logging_options
            .clone()
            .or(new.cloud_watch_logging_options);
        new.s3_destination_description = beside(old.s3_destination_description.as_ref(), asked.s3_update.as_ref())?;
        Ok(new)
    }

    /// What delivers.
    pub fn open(
        description: &fh::AmazonOpenSearchServerlessDestinationDescription,
        ports: &Ports,
    ) -> Result<Opened, Refused> {
        let hints = description.buffering_hints.as_ref();
        let mode = description.s3_backup_mode;
        let common = Common {
            kind: ErrorOutputType::OpenSearchServerless,
            reached_by: [description.collection_endpoint.as_deref(), None],
            index: description.index_name.as_deref(),
            rotation: Rotation::Never,
            type_name: None,
            ids: true,
            retry_seconds: description
                .retry_options
                .as_ref()
                .and_then(|retry| retry.duration_in_seconds),
            hints: (
                hints.and_then(|h| h.size_in_m_bs),
                hints.and_then(|h| h.interval_in_seconds),
            ),
            processing: description.processing_configuration.as_ref(),
            backup: description.s3_destination_description.as_ref(),
            backup_all: mode == Some(fh::AmazonOpenSearchServerlessS3BackupMode::AllDocuments),
        };
        common.open(ports)
    }

    fn collection(endpoint: Option<&str>) -> Result<(), ApiError> {
        let endpoint = endpoint.ok_or_else(|| invalid("CollectionEndpoint must be given."))?;
        https("CollectionEndpoint", endpoint).map(|_| ())
    }

    fn buffering_hints(
        asked: Option<&fh::AmazonOpenSearchServerlessBufferingHints>,
    ) -> Result<fh::AmazonOpenSearchServerlessBufferingHints, ApiError> {
        let asked = asked.cloned().unwrap_or_default();
        let (size, interval) = hints(asked.size_in_m_bs, asked.interval_in_seconds, BUFFER)?;
        Ok(fh::AmazonOpenSearchServerlessBufferingHints {
            size_in_m_bs: Some(size),
            interval_in_seconds: Some(interval),
        })
    }

    fn retry(asked: Option<&fh::AmazonOpenSearchServerlessRetryOptions>) -> fh::AmazonOpenSearchServerlessRetryOptions {
        let seconds = asked.and_then(|asked| asked.duration_in_seconds);
        fh::AmazonOpenSearchServerlessRetryOptions {
            duration_in_seconds: Some(seconds.unwrap_or(RETRY_SECONDS)),
        }
    }
}

impl Common<'_> {
    fn open(self, ports: &Ports) -> Result<Opened, Refused> {
        let missing = |what: &str| Refused(format!("The search engine has no {what}."));
        let [endpoint, domain] = self.reached_by;
        let name = endpoint.or(domain).ok_or_else(|| missing("endpoint"))?;
        let (url, authorization) = match (ports.domains.domain(name.trim_end_matches('/')), endpoint) {
            (Some(domain), _) => (domain.url.trim_end_matches('/').to_owned(), domain.authorization),
            (None, Some(url)) => {
                let url = https("The endpoint", url).map_err(|error| Refused(error.message))?;
                (url.to_owned(), None)
            }
            (None, None) => {
                let why = format!("{name} has no address: name it in [domains] of the server's configuration.");
                return Err(Refused(why));
            }
        };
        Ok(Opened {
            endpoint: Arc::new(SearchIndex {
                http: Arc::clone(&ports.http),
                url,
                authorization,
                index: self.index.ok_or_else(|| missing("IndexName"))?.to_owned(),
                rotation: self.rotation,
                type_name: self.type_name.map(str::to_owned),
                ids: self.ids,
                retry: Duration::from_secs(u64::try_from(self.retry_seconds.unwrap_or(RETRY_SECONDS)).unwrap_or(0)),
                kind: self.kind,
            }),
            buffering: buffering(self.hints.0, self.hints.1, BUFFER),
            processing: self.processing.cloned(),
            backup: self.backup.cloned().ok_or_else(|| missing("S3 configuration"))?,
            backup_all: self.backup_all,
        })
    }
}
