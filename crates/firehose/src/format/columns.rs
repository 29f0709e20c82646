//! Conversion by the processes of `sql-worker`: what the API calls serializers and deserializers, in the words of [`sql`].

use async_trait::async_trait;
use sql::{Column, Compression, Input, Job, OrcOptions, Output, ParquetOptions, Reason, SqlPool};
use wire::firehose::{Deserializer, OrcCompression, ParquetCompression, ParquetWriterVersion, Serializer};

use crate::ports::{Conversion, ConvertError, Converted, Converter, TableSchema};

/// Uncompressed bytes of a page of Parquet. AWS: 1 MiB by default.
const PAGE_BYTES: i32 = 1024 * 1024;

/// Bytes of a block of Parquet, which is a row group. AWS: 256 MiB by default, so that a buffer is one row group.
const BLOCK_BYTES: i32 = 256 * 1024 * 1024;

/// Bytes of a stripe of ORC. AWS: 64 MiB by default.
const STRIPE_BYTES: i32 = 64 * 1024 * 1024;

/// Converts in worker processes.
#[derive(Clone, Debug)]
pub struct WorkerConverter {
    pool: SqlPool,
}

impl WorkerConverter {
    /// Converts in the processes of this pool.
    pub fn new(pool: SqlPool) -> Self {
        WorkerConverter { pool }
    }
}

#[async_trait]
impl Converter for WorkerConverter {
    fn check(&self, schema: &TableSchema, input: &Deserializer, output: &Serializer) -> Result<(), ConvertError> {
        let job = job(schema, input, output).map_err(ConvertError::Refused)?;
        sql::check(&job).map_err(|unsupported| ConvertError::Refused(unsupported.to_string()))
    }

    async fn convert(&self, wanted: Conversion) -> Result<Converted, ConvertError> {
        let job = job(&wanted.schema, &wanted.input, &wanted.output).map_err(ConvertError::Refused)?;
        let converted = self.pool.convert(wanted.account, &job, &wanted.records).await;
        let converted = converted.map_err(|error| match error {
            sql::ConvertError::Refused(why) => ConvertError::Refused(why),
            sql::ConvertError::Worker(_) => ConvertError::Failed(error.to_string()),
        })?;
        let failed = converted.rejected.into_iter().map(|rejected| {
            let (code, message) = match rejected.reason {
                Reason::Malformed(why) => ("ParseError", format!("Encountered malformed JSON. {why}")),
                Reason::Mismatch(why) => ("MalformedData", format!("Data does not match the schema. {why}")),
                Reason::Fatal(why) => ("InternalError", why),
            };
            (rejected.index, format!("DataFormatConversion.{code}"), message)
        });
        Ok(Converted {
            failed: failed.collect(),
            body: converted.file,
        })
    }
}

/// The job of a table, a deserializer and a serializer; or what is wrong with them, in words for the caller.
fn job(schema: &TableSchema, input: &Deserializer, output: &Serializer) -> Result<Job, String> {
    let columns = schema.columns.iter().map(|(name, hive)| {
        Ok(Column {
            name: name.clone(),
            hive: hive.parse().map_err(|error| format!("Column {name:?}: {error}."))?,
        })
    });
    Ok(Job {
        columns: columns.collect::<Result<_, String>>()?,
        input: input_of(input)?,
        output: output_of(output)?,
    })
}

fn input_of(input: &Deserializer) -> Result<Input, String> {
    match (&input.open_x_json_ser_de, &input.hive_json_ser_de) {
        (Some(open_x), None) => Ok(Input::OpenX {
            case_insensitive: open_x.case_insensitive != Some(false),
            dots_to_underscores: open_x.convert_dots_in_json_keys_to_underscores == Some(true),
            mappings: open_x.column_to_json_key_mappings.clone().unwrap_or_default(),
        }),
        (None, Some(hive)) => Ok(Input::Hive {
            timestamp_formats: hive.timestamp_formats.clone().unwrap_or_default(),
        }),
        _ => Err("Exactly one of OpenXJsonSerDe and HiveJsonSerDe must be specified.".to_owned()),
    }
}

fn output_of(output: &Serializer) -> Result<Output, String> {
    let bytes = |given: Option<i32>, default: i32| usize::try_from(given.unwrap_or(default)).unwrap_or_default();
    match (&output.parquet_ser_de, &output.orc_ser_de) {
        (Some(parquet), None) => Ok(Output::Parquet(ParquetOptions {
            compression: match parquet.compression.unwrap_or(ParquetCompression::Snappy) {
                ParquetCompression::Uncompressed => Compression::None,
                ParquetCompression::Gzip => Compression::Gzip,
                ParquetCompression::Snappy => Compression::Snappy,
            },
            dictionary: parquet.enable_dictionary_compression == Some(true),
            page_bytes: bytes(parquet.page_size_bytes, PAGE_BYTES),
            row_group_bytes: bytes(parquet.block_size_bytes, BLOCK_BYTES),
            version_2: parquet.writer_version == Some(ParquetWriterVersion::V2),
        })),
        (None, Some(orc)) => Ok(Output::Orc(OrcOptions {
            compression: match orc.compression.unwrap_or(OrcCompression::Snappy) {
                OrcCompression::None => Compression::None,
                OrcCompression::Zlib => Compression::Gzip,
                OrcCompression::Snappy => Compression::Snappy,
            },
            stripe_bytes: bytes(orc.stripe_size_bytes, STRIPE_BYTES),
        })),
        _ => Err("Exactly one of ParquetSerDe and OrcSerDe must be specified.".to_owned()),
    }
}
