//! Decompression of records, bounded against those that become a thousand times as large.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use crate::limits::{DECOMPRESSED_BUFFER_BYTES_MAX, DECOMPRESSED_RECORD_BYTES_MAX};
use crate::process::item::Why;
use crate::types::ErrorOutputType;

/// Decompresses the records of one buffer.
#[derive(Debug, Default)]
pub struct Inflater {
    made: usize,
}

impl Inflater {
    /// Decompresses a record.
    pub fn inflate(&mut self, data: &[u8]) -> Result<Bytes, Why> {
        let why = |message: String| Why {
            kind: ErrorOutputType::Decompression,
            ..Why::processing("Decompression.Failed", message)
        };
        let room = DECOMPRESSED_RECORD_BYTES_MAX.min(DECOMPRESSED_BUFFER_BYTES_MAX - self.made);
        let mut out = Vec::new();
        let mut decoder = MultiGzDecoder::new(data).take(room as u64 + 1);
        if let Err(error) = decoder.read_to_end(&mut out) {
            return Err(why(format!("The record is not in the GZIP format: {error}.")));
        }
        if out.len() > room {
            return Err(why(format!(
                "The record becomes more than {room} bytes when it is decompressed."
            )));
        }
        self.made += out.len();
        Ok(Bytes::from(out))
    }
}
