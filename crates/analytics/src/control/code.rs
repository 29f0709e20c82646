//! The code of an application: statements in the request, or in an object. What is in an object is taken over when the
//! request is answered; a change of the object is seen by the next UpdateApplication.

use base::{AccountId, ApiError, ResourceName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use md5::{Digest, Md5};
use objects::ObjectError;
use sql::application::{JobSpec, Restore, StartPoint};
use wire::kinesisanalyticsv2::{
    ApplicationCodeConfiguration, ApplicationCodeConfigurationDescription, CodeContent, CodeContentDescription,
    CodeContentType, RuntimeEnvironment, S3ApplicationCodeLocationDescription, S3ContentLocation,
};

use crate::error::{code, invalid, unsupported};
use crate::limits;
use crate::ports::CheckError;
use crate::service::{Analytics, application_arn};
use crate::stored::VersionRecord;
use crate::tables::tables;

/// The code as it is described, and the statements where the description has them not.
#[derive(Clone, Debug)]
pub struct Code {
    /// As it is told.
    pub described: ApplicationCodeConfigurationDescription,
    /// The statements of an object.
    pub statements: Option<String>,
}

/// Refuses runtimes that are not here.
pub fn check_runtime(runtime: RuntimeEnvironment, flink_is_there: bool) -> Result<(), ApiError> {
    match runtime {
        RuntimeEnvironment::Sql10 => Ok(()),
        RuntimeEnvironment::ZeppelinFlink10
        | RuntimeEnvironment::ZeppelinFlink20
        | RuntimeEnvironment::ZeppelinFlink30 => Err(unsupported(format!(
            "{runtime}: there are no notebooks here; `sightglass sql` is an interactive shell. SQL-1_0 is the runtime for statements."
        ))),
        _ if flink_is_there => Ok(()),
        flink => Err(unsupported(format!(
            "{flink}: no cluster of Apache Flink can be configured for this server yet. It runs statements of Flink's SQL \
             itself, as runtime SQL-1_0."
        ))),
    }
}

/// The statements as a worker is told them: those of Flink with what is configured beside them.
fn script(version: &VersionRecord) -> String {
    let flink = version
        .configuration
        .flink_application_configuration_description
        .as_ref();
    let settings = flink.map(super::flink::settings).unwrap_or_default();
    format!("{settings}{}", version.script().unwrap_or_default())
}

/// The name in `arn:aws:s3:::NAME`.
pub fn bucket_name(arn: &str) -> Result<&str, ApiError> {
    let name = arn
        .strip_prefix("arn:aws:s3:::")
        .filter(|name| !name.is_empty() && !name.contains(['/', ':']));
    name.ok_or_else(|| invalid(format!("{arn} is not the ARN of a bucket.")))
}

impl Analytics {
    /// The code that a request gives.
    pub(crate) async fn code(
        &self,
        account: AccountId,
        given: &ApplicationCodeConfiguration,
    ) -> Result<Code, ApiError> {
        if given.code_content_type == CodeContentType::Zipfile {
            return Err(invalid(
                "CodeContentType must be PLAINTEXT: applications are statements here.",
            ));
        }
        let nothing = CodeContent::default();
        self.content(account, given.code_content.as_ref().unwrap_or(&nothing))
            .await
    }

    async fn content(&self, account: AccountId, given: &CodeContent) -> Result<Code, ApiError> {
        if given.zip_file_content.is_some() {
            return Err(invalid(
                "ZipFileContent is not taken: applications are statements here.",
            ));
        }
        match (&given.text_content, &given.s3_content_location) {
            (Some(_), Some(_)) => Err(invalid("Only one of TextContent and S3ContentLocation may be given.")),
            (None, Some(location)) => self.code_of_object(account, location).await,
            (text, None) => Ok(Code {
                described: ApplicationCodeConfigurationDescription {
                    code_content_type: CodeContentType::Plaintext,
                    code_content_description: text.clone().map(|text| CodeContentDescription {
                        text_content: Some(text),
                        ..CodeContentDescription::default()
                    }),
                },
                statements: None,
            }),
        }
    }

    async fn code_of_object(&self, account: AccountId, place: &S3ContentLocation) -> Result<Code, ApiError> {
        if place.object_version.as_ref().is_some_and(|version| !version.is_empty()) {
            return Err(invalid("ObjectVersion: buckets have no versions here."));
        }
        let bytes = self
            .object(account, &place.bucket_arn, &place.file_key, limits::CODE_BYTES_MAX)
            .await?;
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let md5 = STANDARD.encode(Md5::digest(&bytes));
        let statements = String::from_utf8(bytes);
        let statements = statements.map_err(|_| invalid(format!("{} is not UTF-8.", place.file_key)))?;
        Ok(Code {
            described: ApplicationCodeConfigurationDescription {
                code_content_type: CodeContentType::Plaintext,
                code_content_description: Some(CodeContentDescription {
                    code_md5: Some(md5),
                    code_size: Some(size),
                    s3_application_code_location_description: Some(S3ApplicationCodeLocationDescription {
                        bucket_arn: place.bucket_arn.clone(),
                        file_key: place.file_key.clone(),
                        object_version: None,
                    }),
                    text_content: None,
                }),
            },
            statements: Some(statements),
        })
    }

    /// The bytes of an object of the account's, at most so many.
    pub(crate) async fn object(
        &self,
        account: AccountId,
        bucket_arn: &str,
        key: &str,
        max: usize,
    ) -> Result<Vec<u8>, ApiError> {
        let (bytes, whole) = self.beginning(account, bucket_arn, key, max).await?;
        match whole {
            true => Ok(bytes),
            false => Err(invalid(format!("s3 object {key} has more than {max} bytes."))),
        }
    }

    /// The first bytes of an object of the account's, and whether that is all of it.
    pub(crate) async fn beginning(
        &self,
        account: AccountId,
        bucket_arn: &str,
        key: &str,
        max: usize,
    ) -> Result<(Vec<u8>, bool), ApiError> {
        let name = bucket_name(bucket_arn)?;
        let unread = |error: ObjectError| match error {
            ObjectError::NoSuchBucket(_) => invalid(format!("There is no bucket {name}.")),
            ObjectError::NoSuchKey(_) => invalid(format!("There is no object {key} in bucket {name}.")),
            other => invalid(format!("Object {key} of bucket {name} cannot be read.")).with_detail(other),
        };
        let bucket = self.ports.buckets.open(account, name).await.map_err(unread)?;
        let (_, mut stream) = bucket.get(key, None).await.map_err(unread)?;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.map_err(unread)?);
            if bytes.len() > max {
                bytes.truncate(max);
                return Ok((bytes, false));
            }
        }
        Ok((bytes, true))
    }

    /// Lets a worker plan the statements of a version, if everything is there that they can need: an input and an output,
    /// or tables of their own. The rest is found when the application is started.
    pub(crate) async fn look_at_script(&self, name: &ResourceName, version: &VersionRecord) -> Result<(), ApiError> {
        let Some(script) = version
            .script()
            .filter(|_| version.runtime() == RuntimeEnvironment::Sql10)
        else {
            return Ok(());
        };
        let described = version.configuration.sql_application_configuration_description.as_ref();
        let inputs = described.and_then(|sql| sql.input_descriptions.as_ref());
        let outputs = described.and_then(|sql| sql.output_descriptions.as_ref());
        let some = |count: Option<usize>| count.is_some_and(|count| count > 0);
        let complete = some(inputs.map(Vec::len)) && some(outputs.map(Vec::len));
        if !complete && !script.to_ascii_uppercase().contains("CREATE TABLE") {
            return Ok(());
        }
        // What no worker can do is told when the application is started.
        let Ok(tables) = tables(version, &std::collections::BTreeMap::new()) else {
            return Ok(());
        };
        let spec = self.plan_spec(name, version, tables);
        match self.ports.workers.check(&spec).await {
            Ok(()) => Ok(()),
            Err(CheckError::Script(why)) => Err(code(why)),
            Err(other) => {
                tracing::warn!(error = %other, application = spec.application_arn, "its statements could not be looked at");
                Ok(())
            }
        }
    }

    /// What a worker is told that plans and runs nothing.
    pub(crate) fn plan_spec(
        &self,
        name: &ResourceName,
        version: &VersionRecord,
        tables: crate::tables::Tables,
    ) -> JobSpec {
        JobSpec {
            application_arn: application_arn(name),
            version: version.version,
            endpoint: String::new(),
            region: name.region.to_string(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            session_token: None,
            ca: None,
            script: script(version),
            tables: tables.tables,
            state_dir: std::path::PathBuf::new(),
            restore: Restore::Nothing,
            start: StartPoint::Now,
            checkpoint_interval_ms: tables
                .checkpoint_interval_ms
                .unwrap_or(sql::application::CHECKPOINT_INTERVAL_MS),
            memory_limit: tables.memory_bytes.unwrap_or(u64::MAX).min(self.settings.memory_bytes),
            allow_non_restored: false,
            error_stream: tables.error_stream,
        }
    }
}
