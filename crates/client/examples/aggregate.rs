//! Packs and unpacks records, one JSON document a line from standard input to standard output, so that any language's
//! implementation of the format can be compared with this one: `cargo run -p client --example aggregate`.
//!
//! `{"aggregate":[{"partition_key":"k","explicit_hash_key":"7","data":BASE64},…]}` answers
//! `{"partition_key":"k","explicit_hash_key":"7","data":BASE64}`; `{"deaggregate":BASE64}` answers
//! `{"records":[…]}`, or `{"records":null}` where the data is no aggregate.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::records::aggregate::{Aggregator, UserRecord, deaggregate};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    for line in stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        writeln!(stdout(), "{}", answer(&request)?)?;
    }
    Ok(())
}

fn answer(request: &Value) -> Result<Value, Box<dyn Error>> {
    if let Some(records) = request.get("aggregate").and_then(Value::as_array) {
        let mut aggregator = Aggregator::new();
        for record in records {
            aggregator.push(&from_json(record)?);
        }
        return Ok(aggregator.finish().as_ref().map_or(Value::Null, to_json));
    }
    let packed = request
        .get("deaggregate")
        .and_then(Value::as_str)
        .ok_or("neither aggregate nor deaggregate")?;
    let records = deaggregate(&STANDARD.decode(packed)?.into());
    Ok(json!({ "records": records.map(|records| records.iter().map(to_json).collect::<Vec<_>>()) }))
}

fn from_json(record: &Value) -> Result<UserRecord, Box<dyn Error>> {
    let text = |name: &str| record.get(name).and_then(Value::as_str);
    let data = STANDARD.decode(text("data").ok_or("data is missing")?)?;
    Ok(UserRecord {
        explicit_hash_key: text("explicit_hash_key").map(str::parse).transpose()?,
        ..UserRecord::new(text("partition_key").ok_or("partition_key is missing")?, data)
    })
}

fn to_json(record: &UserRecord) -> Value {
    json!({
        "partition_key": *record.partition_key,
        "explicit_hash_key": record.explicit_hash_key.map(|key| key.to_string()),
        "data": STANDARD.encode(&record.data),
    })
}
