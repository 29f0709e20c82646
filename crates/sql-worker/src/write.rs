//! Columns to bytes of Parquet or ORC, by their libraries.

use std::io::{self, Write};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use orc_rust::arrow_writer::{ArrowWriter as OrcWriter, ArrowWriterBuilder};
use orc_rust::compression::CompressionType;
use orc_rust::error::OrcError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression as ParquetCompression, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use sql::job::{Compression, Job, OrcOptions, Output, ParquetOptions};

use crate::column::schema;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The pipe broke.
    #[error("pipe: {0}")]
    Sink(io::Error),
    /// Parquet cannot be written.
    #[error("Parquet cannot be written: {0}")]
    Parquet(#[from] ParquetError),
    /// ORC cannot be written.
    #[error("ORC cannot be written: {0}")]
    Orc(#[from] OrcError),
    /// Columns do not fit together.
    #[error("columns: {0}")]
    Columns(#[from] ArrowError),
    /// The server asks for what cannot be done.
    #[error(transparent)]
    Unsupported(#[from] sql::Unsupported),
}

/// A file that is being written.
pub enum FileWriter<W: Write + Send> {
    /// Apache Parquet.
    Parquet(Box<ArrowWriter<W>>),
    /// Apache ORC.
    Orc(Box<OrcWriter<W>>),
}

impl<W: Write + Send> FileWriter<W> {
    /// Begins a file.
    pub fn new(job: &Job, sink: W) -> Result<Self, WriteError> {
        sql::check(job)?;
        let schema = schema(job);
        match &job.output {
            Output::Parquet(options) => {
                let options = ArrowWriterOptions::new()
                    .with_properties(parquet_properties(options)?)
                    .with_skip_arrow_metadata(true);
                let writer = ArrowWriter::try_new_with_options(sink, schema, options)?;
                Ok(FileWriter::Parquet(Box::new(writer)))
            }
            Output::Orc(options) => {
                let mut builder =
                    ArrowWriterBuilder::new(sink, schema).with_stripe_byte_size(options.stripe_bytes.max(1024));
                if let Some(compression) = orc_compression(options) {
                    builder = builder.with_compression(compression);
                }
                Ok(FileWriter::Orc(Box::new(builder.try_build()?)))
            }
        }
    }

    /// Appends rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        match self {
            FileWriter::Parquet(writer) => Ok(writer.write(batch)?),
            FileWriter::Orc(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Ends the file.
    pub fn close(self) -> Result<(), WriteError> {
        match self {
            FileWriter::Parquet(writer) => writer.close().map(|_| ()).map_err(WriteError::from),
            FileWriter::Orc(writer) => Ok(writer.close()?),
        }
    }
}

fn parquet_properties(options: &ParquetOptions) -> Result<WriterProperties, WriteError> {
    let compression = match options.compression {
        Compression::None => ParquetCompression::UNCOMPRESSED,
        Compression::Snappy => ParquetCompression::SNAPPY,
        Compression::Gzip => ParquetCompression::GZIP(GzipLevel::try_new(1)?),
        Compression::Zstd => ParquetCompression::ZSTD(ZstdLevel::try_new(3)?),
    };
    let version = match options.version_2 {
        true => WriterVersion::PARQUET_2_0,
        false => WriterVersion::PARQUET_1_0,
    };
    Ok(WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(options.dictionary)
        .set_data_page_size_limit(options.page_bytes.max(64 * 1024))
        .set_max_row_group_bytes(Some(options.row_group_bytes.max(1024 * 1024)))
        .set_writer_version(version)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("sightglass ", env!("CARGO_PKG_VERSION")).to_owned())
        .build())
}

fn orc_compression(options: &OrcOptions) -> Option<CompressionType> {
    match options.compression {
        Compression::None => None,
        Compression::Snappy => Some(CompressionType::Snappy),
        Compression::Gzip => Some(CompressionType::Zlib),
        Compression::Zstd => Some(CompressionType::Zstd),
    }
}
