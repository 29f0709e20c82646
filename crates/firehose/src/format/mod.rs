//! The bodies of objects: records joined, compressed or converted; and the records of the error output. Records are joined
//! as they are: what is to stand between them, the producer or a processor has put there.

use std::sync::Arc;

use base::AccountId;
use bytes::Bytes;
use wire::firehose::{
    CompressionFormat, DataFormatConversionConfiguration, Deserializer, SchemaConfiguration, Serializer,
};

use crate::ports::{Conversion, ConvertError, Converter, Ports, TableName, TableSchema};
use crate::types::{About, ErrorOutputType, Failed, Ready, Refused};

pub mod columns;
mod compress;
mod errors;

pub use compress::{Codec, compress};
pub use errors::error_lines;

/// Bodies with fewer bytes than this are compressed where they are; more go to a blocking thread.
const INLINE_BYTES: usize = 64 * 1024;

/// How the body of an object is made.
#[derive(Debug)]
pub struct Format {
    how: How,
}

#[derive(Debug)]
enum How {
    Joined(Codec),
    Columns(Box<Columns>),
}

/// A table's columns in a file.
struct Columns {
    account: AccountId,
    schema: Arc<TableSchema>,
    input: Deserializer,
    output: Serializer,
    converter: Arc<dyn Converter>,
    /// `dataCatalogTable` of the error output.
    table: String,
}

impl std::fmt::Debug for Columns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Columns")
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// A body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Its parts, in order; none when no record is left.
    pub body: Vec<Bytes>,
    /// Content-Encoding of the object.
    pub content_encoding: Option<&'static str>,
    /// Content-Type of the object.
    pub content_type: &'static str,
    /// Records that are not in it.
    pub failed: Vec<Failed>,
}

impl Format {
    /// Checks compression and conversion, and finds the table's columns. Conversion is on unless it says that it is not.
    pub fn new(
        compression: CompressionFormat,
        conversion: Option<&DataFormatConversionConfiguration>,
        about: &About,
        ports: &Ports,
    ) -> Result<Self, Refused> {
        let Some(conversion) = conversion.filter(|conversion| conversion.enabled != Some(false)) else {
            let how = How::Joined(Codec::from(compression));
            return Ok(Format { how });
        };
        if compression != CompressionFormat::Uncompressed {
            return Err(Refused(
                "CompressionFormat must be UNCOMPRESSED when data format conversion is enabled: the serializer compresses."
                    .to_owned(),
            ));
        }
        let missing = |what| {
            Refused(format!(
                "{what} must be specified when data format conversion is enabled."
            ))
        };
        let schema = conversion.schema_configuration.as_ref();
        let schema = schema.ok_or_else(|| missing("SchemaConfiguration"))?;
        let input = conversion
            .input_format_configuration
            .as_ref()
            .and_then(|input| input.deserializer.clone());
        let input = input.ok_or_else(|| missing("InputFormatConfiguration.Deserializer"))?;
        let output = conversion
            .output_format_configuration
            .as_ref()
            .and_then(|output| output.serializer.clone());
        let output = output.ok_or_else(|| missing("OutputFormatConfiguration.Serializer"))?;
        let columns = Columns::new(schema, input, output, about, ports)?;
        Ok(Format {
            how: How::Columns(Box::new(columns)),
        })
    }

    /// What names of objects end with, unless FileExtension says otherwise: `.gz`, `.parquet`, or nothing.
    pub fn extension(&self) -> &'static str {
        match &self.how {
            How::Joined(codec) => codec.extension(),
            How::Columns(columns) if columns.output.orc_ser_de.is_some() => ".orc",
            How::Columns(_) => ".parquet",
        }
    }

    /// True when records can fail in [`Format::encode`].
    pub fn converts(&self) -> bool {
        matches!(self.how, How::Columns(_))
    }

    /// The body of one object. Works on blocking threads where it takes long; fails where trying again may help.
    pub async fn encode(&self, records: Vec<Ready>) -> Result<Encoded, ConvertError> {
        match &self.how {
            How::Columns(columns) => columns.encode(records).await,
            How::Joined(codec) => {
                let parts: Vec<Bytes> = records.into_iter().map(|record| record.data).collect();
                Ok(Encoded {
                    body: join(*codec, parts).await?,
                    content_encoding: codec.content_encoding(),
                    content_type: "application/octet-stream",
                    failed: Vec::new(),
                })
            }
        }
    }
}

async fn join(codec: Codec, parts: Vec<Bytes>) -> Result<Vec<Bytes>, ConvertError> {
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    let made = match codec == Codec::None || parts.is_empty() {
        true => return Ok(parts),
        false if bytes < INLINE_BYTES => compress(codec, &parts),
        false => {
            let done = tokio::task::spawn_blocking(move || compress(codec, &parts)).await;
            done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
        }
    };
    made.map(|body| vec![body])
        .map_err(|error| ConvertError::Failed(format!("the body cannot be compressed: {error}")))
}

impl Columns {
    fn new(
        schema: &SchemaConfiguration,
        input: Deserializer,
        output: Serializer,
        about: &About,
        ports: &Ports,
    ) -> Result<Self, Refused> {
        let missing = |what| Refused(format!("SchemaConfiguration.{what} must be specified."));
        let name = TableName {
            catalog: schema.catalog_id.clone(),
            database: schema.database_name.clone().ok_or_else(|| missing("DatabaseName"))?,
            table: schema.table_name.clone().ok_or_else(|| missing("TableName"))?,
        };
        let columns = ports.schemas.schema(&name).ok_or_else(|| {
            Refused(format!(
                "The table {0}.{1} is not configured: describe its columns in [schemas.\"{0}.{1}\"] of the configuration.",
                name.database, name.table
            ))
        })?;
        ports
            .converter
            .check(&columns, &input, &output)
            .map_err(|error| Refused(error.to_string()))?;
        let region = schema.region.as_deref().unwrap_or_else(|| about.region.as_str());
        let table = serde_json::json!({
            "catalogId": schema.catalog_id,
            "databaseName": name.database,
            "tableName": name.table,
            "region": region,
            "versionId": schema.version_id.as_deref().unwrap_or("LATEST"),
            "catalogArn": null,
        });
        Ok(Columns {
            account: about.account,
            schema: columns,
            input,
            output,
            converter: Arc::clone(&ports.converter),
            table: table.to_string(),
        })
    }

    async fn encode(&self, records: Vec<Ready>) -> Result<Encoded, ConvertError> {
        let conversion = Conversion {
            account: self.account,
            records: records.iter().map(|record| record.data.clone()).collect(),
            schema: Arc::clone(&self.schema),
            input: self.input.clone(),
            output: self.output.clone(),
        };
        let converted = self.converter.convert(conversion).await?;
        let failed = converted.failed.into_iter().filter_map(|(place, code, message)| {
            let record = records.get(place)?;
            let (sequence, sub_sequence) = record.sequence.unzip();
            let sub_sequence = sub_sequence.map_or_else(|| "null".to_owned(), |number| number.to_string());
            Some(Failed {
                raw: record.data.clone(),
                arrival: record.arrival,
                code,
                message,
                attempts: 1,
                kind: ErrorOutputType::FormatConversion,
                sequence,
                more: vec![
                    ("subSequenceNumber", sub_sequence),
                    ("dataCatalogTable", self.table.clone()),
                ],
            })
        });
        Ok(Encoded {
            failed: failed.collect(),
            body: if converted.body.is_empty() {
                Vec::new()
            } else {
                vec![converted.body]
            },
            content_encoding: None,
            content_type: "application/octet-stream",
        })
    }
}

#[cfg(test)]
mod tests;
