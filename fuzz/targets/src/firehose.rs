//! What strangers and their functions send through a delivery stream: prefixes, records, answers; and what a configuration
//! says of columns.

use std::sync::LazyLock;

use base::Timestamp;
use bytes::Bytes;
use firehose::prefix::{Prefix, Use, Values};
use firehose::process::{PartitionQuery, delimited, json, log_events, read_answer};
use sql::HiveType;
use sql::joda::TimestampPattern;
use sql::protocol::{FromWorker, ToWorker};

/// A prefix, rendered at any time: refused, or within its limit and the same twice.
pub fn firehose_prefix(data: &[u8]) {
    let Some((head, text)) = data.split_first_chunk::<8>() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let at = Timestamp::from_millis(i64::from_le_bytes(*head));
    let keys = vec![("a".to_owned(), "value".to_owned())];
    for usage in [Use::Plain, Use::Partitioned, Use::Errors] {
        let Ok(prefix) = Prefix::parse(Some(&text), Some("Australia/Lord_Howe"), usage) else {
            continue;
        };
        let values = Values {
            at,
            random: [head[0]; 16],
            query_keys: &keys,
            lambda_keys: &keys,
            error: None,
        };
        if let Ok(name) = prefix.render(&values) {
            assert!(name.chars().count() <= firehose::limits::PREFIX_CHARACTERS_MAX);
            assert_eq!(Ok(name), prefix.render(&values));
        }
    }
}

/// A record that is taken apart, asked for its keys, or handed back by a function.
pub fn firehose_records(data: &[u8]) {
    let record = Bytes::copy_from_slice(data);
    if let Ok(objects) = json(&record) {
        assert!(
            objects
                .iter()
                .all(|object| object.starts_with(b"{") && object.ends_with(b"}"))
        );
        assert_eq!(
            json(&Bytes::from(objects.concat())).map(|again| again.len()).ok(),
            Some(objects.len())
        );
    }
    let _ = log_events(data);
    let _ = delimited(&record, &data[..data.len().min(3)]);
    let _ = kpl::deaggregate(&record);
    let _ = read_answer(data, "1");
    static QUERY: LazyLock<PartitionQuery> =
        LazyLock::new(|| PartitionQuery::compile("{a: .a, b: (.b|tostring), c: (.c|fromjson|.d)}").expect("a query"));
    let _ = QUERY.extract(data);
}

/// A query over a record: refused, or run within its bound.
pub fn firehose_query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(query) = PartitionQuery::compile(&text) {
        let record = br#"{"a":{"b":[1,"x",{"c":null}]},"s":"2026-01-31T00:00:00Z","n":17}"#;
        if let Ok(keys) = query.extract(record) {
            assert!(keys.iter().all(|(_, value)| !value.is_empty()));
        }
    }
}

/// Types, patterns of times, and the messages of worker and server.
pub fn sql_messages(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    let _ = ToWorker::decode(&message);
    let _ = FromWorker::decode(&message);
    let text = String::from_utf8_lossy(data);
    if let Ok(hive) = text.parse::<HiveType>() {
        assert_eq!(hive.to_string().parse::<HiveType>(), Ok(hive));
    }
    let (pattern, time) = text.split_once('|').unwrap_or((&text, "2026-01-31 10:00:00"));
    if let Ok(pattern) = pattern.parse::<TimestampPattern>() {
        let _ = pattern.read(time);
    }
}
