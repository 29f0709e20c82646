//! Many records in one: JSON documents one behind the other, texts between delimiters, aggregates of the KPL, the events
//! in a message of CloudWatch Logs. Sans-I/O, over strangers' bytes; what is taken apart shares the memory of the whole.

use bytes::Bytes;
use serde::Deserialize;

use crate::limits::{JSON_DEPTH_MAX, SUB_RECORDS_MAX};

/// Why a record cannot be taken apart; in words for the error output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotSplit(String);

fn refuse<T>(why: impl Into<String>) -> Result<T, NotSplit> {
    Err(NotSplit(why.into()))
}

/// The JSON objects of a record, without what is between them.
pub fn json(data: &Bytes) -> Result<Vec<Bytes>, NotSplit> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let rest = data.get(at..).unwrap_or_default();
        at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = data.get(at..).unwrap_or_default();
        match rest.first() {
            None => return Ok(found),
            Some(b'{') => {}
            Some(_) => return refuse(format!("Not a JSON object at byte {at} of the record.")),
        }
        let Some(length) = object_length(rest) else {
            return refuse(format!(
                "The JSON object at byte {at} of the record has no end, or is nested more than {JSON_DEPTH_MAX} deep."
            ));
        };
        if found.len() == SUB_RECORDS_MAX {
            return refuse(format!("The record holds more than {SUB_RECORDS_MAX} JSON objects."));
        }
        found.push(data.slice(at..at + length));
        at += length;
    }
}

/// Bytes up to the brace that closes the first one. Strings are stepped over, and each bracket must be closed by its like;
/// nothing else is understood.
fn object_length(data: &[u8]) -> Option<usize> {
    const { assert!(JSON_DEPTH_MAX <= u128::BITS as usize) };
    // One bit for each bracket that is open, the innermost last: 1 for a brace.
    let mut open = 0_u128;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        match byte {
            b'"' => at = end_of_string(data, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return None;
                }
                open = (open << 1) | u128::from(*byte == b'{');
            }
            b'}' | b']' => {
                if open & 1 != u128::from(*byte == b'}') {
                    return None;
                }
                open >>= 1;
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where a string's closing quote stands.
fn end_of_string(data: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', data.get(at..)?)?;
        match data.get(at)? {
            b'"' => return Some(at),
            _ => at += 2,
        }
    }
}

/// Whether JSON is nested more deeply than its readers may follow. It need not be JSON.
pub fn too_deep(data: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = data.get(at) {
        match byte {
            b'"' => match end_of_string(data, at + 1) {
                Some(end) => at = end,
                None => return false,
            },
            b'{' | b'[' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    false
}

/// What stands between delimiters; nothing stands between two that follow each other.
pub fn delimited(data: &Bytes, delimiter: &[u8]) -> Result<Vec<Bytes>, NotSplit> {
    let mut found = Vec::new();
    let mut start = 0;
    let ends = memchr::memmem::find_iter(data, delimiter).map(|at| (at, at + delimiter.len()));
    for (end, next) in ends.chain([(data.len(), data.len())]) {
        if end > start {
            if found.len() == SUB_RECORDS_MAX {
                return refuse(format!("The record holds more than {SUB_RECORDS_MAX} records."));
            }
            found.push(data.slice(start..end));
        }
        start = next;
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogMessage {
    message_type: String,
    #[serde(default)]
    log_events: Vec<LogEvent>,
}

#[derive(Deserialize)]
struct LogEvent {
    message: String,
}

/// The texts of the events in a message of CloudWatch Logs; none where it only says that a subscription is alive.
pub fn log_events(data: &[u8]) -> Result<Vec<Bytes>, NotSplit> {
    let message: LogMessage = match serde_json::from_slice(data) {
        Ok(message) => message,
        Err(error) => return refuse(format!("The record is no message of CloudWatch Logs: {error}.")),
    };
    match message.message_type.as_str() {
        "DATA_MESSAGE" => Ok(message
            .log_events
            .into_iter()
            .map(|event| Bytes::from(event.message))
            .collect()),
        "CONTROL_MESSAGE" => Ok(Vec::new()),
        other => refuse(format!(
            "The record is a message of CloudWatch Logs of the unknown type {other:?}."
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(found: &[Bytes]) -> Vec<&str> {
        found.iter().map(|one| std::str::from_utf8(one).unwrap()).collect()
    }

    #[test]
    fn objects_are_found_whatever_is_between_them() {
        for (text, wanted) in [
            (r#"{"a":1}{"a":2}"#, vec![r#"{"a":1}"#, r#"{"a":2}"#]),
            ("{\"a\":1}\n{\"a\":2}\n", vec![r#"{"a":1}"#, r#"{"a":2}"#]),
            (r#" {"a":"}{\"","b":[{}]} "#, vec![r#"{"a":"}{\"","b":[{}]}"#]),
            ("", vec![]),
        ] {
            assert_eq!(texts(&json(&Bytes::from(text)).unwrap()), wanted);
        }
    }

    #[test]
    fn what_is_no_object_is_refused_whole() {
        let many = "{}".repeat(501);
        let deep = format!("{}{}", "{\"a\":".repeat(200), "}".repeat(200));
        for (text, word) in [
            (r#"[{"a":1},{"a":2}]"#, "byte 0"),
            (r#"{"a":1},{"a":2}"#, "byte 7"),
            (r#"{"a":1}{"a":"#, "no end"),
            (r#"{"a":1]"#, "no end"),
            (r#"{"a":[1}"#, "no end"),
            (r#"{"a":"\"#, "no end"),
            (many.as_str(), "500"),
            (deep.as_str(), "deep"),
        ] {
            let error = json(&Bytes::from(text.to_owned())).unwrap_err().0;
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(json(&Bytes::from("{}".repeat(500))).unwrap().len(), 500);
        assert!(too_deep(deep.as_bytes()) && too_deep(&[b'['; 129]) && !too_deep(&[b'['; 128]));
    }

    #[test]
    fn delimiters_of_any_length_are_taken_out() {
        let data = Bytes::from("##a####b#c####");
        assert_eq!(texts(&delimited(&data, b"####").unwrap()), ["##a", "b#c"]);
        assert_eq!(texts(&delimited(&data, b"none").unwrap()), ["##a####b#c####"]);
        assert!(delimited(&Bytes::from("a,".repeat(501)), b",").is_err());
    }

    #[test]
    fn events_of_log_messages_come_out_and_signs_of_life_do_not() {
        let data = br#"{"messageType":"DATA_MESSAGE","owner":"1","logEvents":[{"id":"1","timestamp":1,"message":"a\n"},{"message":"b"}]}"#;
        assert_eq!(texts(&log_events(data).unwrap()), ["a\n", "b"]);
        assert!(
            log_events(br#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"message":"alive"}]}"#)
                .unwrap()
                .is_empty()
        );
        assert!(log_events(b"{}").is_err());
        assert!(log_events(br#"{"messageType":"OTHER"}"#).is_err());
    }

    proptest! {
        #[test]
        fn objects_that_were_joined_come_apart(values in proptest::collection::vec("(\\{|\\}|\"|\\\\|[a-z]|\\PC){0,20}", 1..20), between in "[ \n\t]{0,3}") {
            let objects: Vec<String> = values.iter().map(|value| serde_json::json!({ "k": [value, { value: value }] }).to_string()).collect();
            let joined = Bytes::from(objects.join(&between));
            let found = json(&joined).unwrap();
            prop_assert_eq!(texts(&found), objects);
        }

        #[test]
        fn no_bytes_do_more_than_be_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), delimiter in proptest::collection::vec(any::<u8>(), 1..4)) {
            let data = Bytes::from(bytes);
            let _ = json(&data);
            let _ = log_events(&data);
            let _ = too_deep(&data);
            if let Ok(found) = delimited(&data, &delimiter) {
                prop_assert!(found.iter().all(|one| memchr::memmem::find(one, &delimiter).is_none()));
            }
        }
    }
}
