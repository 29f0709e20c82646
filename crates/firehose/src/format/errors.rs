//! Records of the error output.

use std::fmt::Write;

use base::Timestamp;
use bytes::Bytes;

use crate::types::{ErrorOutputType, Failed};

/// The body of an object of the error output: one line of JSON for each record, in AWS's shape. `now` is when the last
/// attempt ended. The conversion names its errors differently from everything else, and says where the record came from.
pub fn error_lines(failed: &[Failed], now: Timestamp) -> Bytes {
    let size = failed.iter().map(|failed| failed.raw.len() * 4 / 3 + 512).sum();
    let mut out = String::with_capacity(size);
    for failed in failed {
        line(failed, now, &mut out);
    }
    Bytes::from(out)
}

fn line(failed: &Failed, now: Timestamp, out: &mut String) {
    let conversion = failed.kind == ErrorOutputType::FormatConversion;
    let (code, message) = match conversion {
        true => ("lastErrorCode", "lastErrorMessage"),
        false => ("errorCode", "errorMessage"),
    };
    let _ = write!(
        out,
        r#"{{"attemptsMade":{},"arrivalTimestamp":{},"{code}":{},"{message}":{},"attemptEndingTimestamp":{},"rawData":""#,
        failed.attempts,
        failed.arrival.millis(),
        serde_json::Value::from(failed.code.as_str()),
        serde_json::Value::from(failed.message.as_str()),
        now.millis(),
    );
    base64_simd::STANDARD.encode_append(&failed.raw, out);
    out.push('"');
    if conversion {
        let _ = match failed.sequence {
            Some(number) => write!(out, r#","sequenceNumber":"{number}""#),
            None => write!(out, r#","sequenceNumber":null"#),
        };
    }
    for (name, json) in &failed.more {
        let _ = write!(out, r#","{name}":{json}"#);
    }
    out.push_str("}\n");
}
