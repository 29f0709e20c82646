//! Putting records and reading them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::failing::{FailingLog, Failure};
use common::{START, Server, text};
use serde_json::{Value, json};

fn put(key: &str, data: &str) -> Value {
    json!({"StreamName": "s", "PartitionKey": key, "Data": data})
}

#[tokio::test]
async fn records_come_back_as_they_went_in_and_in_order() {
    let server = Server::with_stream(1).await;
    let mut numbers = Vec::new();
    for data in ["AA==", "AQ==", "Ag=="] {
        server.clock.advance(Duration::from_millis(10));
        numbers.push(text(&server.ok("PutRecord", put("kéy", data)).await["SequenceNumber"]));
    }
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
    let records = answer["Records"].as_array().unwrap();
    let found: Vec<String> = records.iter().map(|r| text(&r["SequenceNumber"])).collect();
    assert_eq!(found, numbers);
    assert_eq!(records[2]["Data"], "Ag==");
    assert_eq!(records[0]["PartitionKey"], "kéy");
    assert_eq!(
        records[1]["ApproximateArrivalTimestamp"].as_f64(),
        Some(START.plus_millis(20).seconds())
    );
    assert_eq!(answer["MillisBehindLatest"], 0);
    let as_numbers: Vec<u128> = numbers.iter().map(|n| n.parse().unwrap()).collect();
    assert!(as_numbers.windows(2).all(|w| w[0] < w[1]));
    let first: u128 = {
        let shards = server.ok("ListShards", json!({"StreamName": "s"})).await;
        text(&shards["Shards"][0]["SequenceNumberRange"]["StartingSequenceNumber"])
            .parse()
            .unwrap()
    };
    assert!(first <= as_numbers[0]);
    // Limit pages, and says how far behind the reader is.
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    let page = server
        .ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 1}))
        .await;
    assert_eq!(page["Records"].as_array().unwrap().len(), 1);
    assert_eq!(page["MillisBehindLatest"], 20);
}

#[tokio::test]
async fn a_record_goes_to_the_shard_of_its_hash_key() {
    let server = Server::with_stream(4).await;
    let shards = server.ok("ListShards", json!({"StreamName": "s"})).await;
    for shard in shards["Shards"].as_array().unwrap() {
        for end in ["StartingHashKey", "EndingHashKey"] {
            let mut body = put("the same key", "AA==");
            body["ExplicitHashKey"] = shard["HashKeyRange"][end].clone();
            assert_eq!(server.ok("PutRecord", body).await["ShardId"], shard["ShardId"]);
        }
    }
    // MD5("a") begins with 0c, MD5("b") with 92: the first and the third quarter of the ring.
    assert_eq!(
        server.ok("PutRecord", put("a", "")).await["ShardId"],
        "shardId-000000000000"
    );
    assert_eq!(
        server.ok("PutRecord", put("b", "")).await["ShardId"],
        "shardId-000000000002"
    );
    let mut body = put("k", "");
    body["ExplicitHashKey"] = json!("340282366920938463463374607431768211456");
    assert_eq!(server.code("PutRecord", body).await, "InvalidArgumentException");
}

#[tokio::test]
async fn put_records_answers_each_record_in_its_place() {
    let server = Server::with_stream(3).await;
    let records: Vec<Value> = (0..500)
        .map(|i| json!({"PartitionKey": format!("k{i}"), "Data": "AAAA"}))
        .collect();
    let answer = server
        .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
        .await;
    assert_eq!(answer["FailedRecordCount"], 0);
    let mut wanted: HashMap<u32, Vec<(String, u128)>> = HashMap::new();
    for (i, result) in answer["Records"].as_array().unwrap().iter().enumerate() {
        let shard = text(&result["ShardId"])[8..].parse().unwrap();
        let number = text(&result["SequenceNumber"]).parse().unwrap();
        wanted.entry(shard).or_default().push((format!("k{i}"), number));
    }
    assert_eq!(wanted.len(), 3);
    for (shard, wanted) in wanted {
        let found = server.read(server.iterator("s", shard, "TRIM_HORIZON").await).await;
        let found: Vec<_> = found.into_iter().map(|(key, _, number)| (key, number)).collect();
        assert_eq!(found, wanted, "shard {shard}");
    }
    let many: Vec<Value> = (0..501).map(|_| json!({"PartitionKey": "k", "Data": ""})).collect();
    assert_eq!(
        server
            .code("PutRecords", json!({"StreamName": "s", "Records": many}))
            .await,
        "ValidationException"
    );
    assert_eq!(
        server
            .code("PutRecords", json!({"StreamName": "s", "Records": []}))
            .await,
        "ValidationException"
    );
}

#[tokio::test]
async fn an_iterator_begins_where_its_type_says() {
    let server = Server::with_stream(1).await;
    let latest_of_nothing = server.iterator("s", 0, "LATEST").await;
    let mut numbers = Vec::new();
    for data in ["AA==", "AQ==", "Ag=="] {
        numbers.push(text(&server.ok("PutRecord", put("k", data)).await["SequenceNumber"]));
        server.clock.advance(Duration::from_secs(10));
    }
    let latest = server.iterator("s", 0, "LATEST").await;
    server.ok("PutRecord", put("k", "Aw==")).await;
    let data = |found: Vec<(String, String, u128)>| found.into_iter().map(|(_, data, _)| data).collect::<Vec<_>>();

    assert_eq!(
        data(server.read(latest).await),
        ["Aw=="],
        "LATEST is decided when the iterator is made"
    );
    assert_eq!(
        data(server.read(latest_of_nothing).await),
        ["AA==", "AQ==", "Ag==", "Aw=="]
    );
    let by = |extra: Value| {
        let mut body = json!({"StreamName": "s", "ShardId": "shardId-000000000000"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    for (extra, wanted) in [
        (
            json!({"ShardIteratorType": "TRIM_HORIZON"}),
            &["AA==", "AQ==", "Ag==", "Aw=="][..],
        ),
        (
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[1]}),
            &["AQ==", "Ag==", "Aw=="],
        ),
        (
            json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": numbers[1]}),
            &["Ag==", "Aw=="],
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": START.seconds() + 5.0}),
            &["AQ==", "Ag==", "Aw=="],
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": START.seconds() + 10.0}),
            &["AQ==", "Ag==", "Aw=="],
        ),
        (
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1}),
            &["AA==", "AQ==", "Ag==", "Aw=="],
        ),
    ] {
        let iterator = text(&server.ok("GetShardIterator", by(extra.clone())).await["ShardIterator"]);
        assert_eq!(data(server.read(iterator).await), wanted, "{extra}");
    }
    for extra in [
        json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER"}),
        json!({"ShardIteratorType": "LATEST", "StartingSequenceNumber": numbers[0]}),
        json!({"ShardIteratorType": "AT_TIMESTAMP"}),
        json!({"ShardIteratorType": "LATEST", "Timestamp": 1}),
        json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": START.seconds() + 3600.0}),
        json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "12345"}),
        json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "1".repeat(129)}),
    ] {
        let code = server.code("GetShardIterator", by(extra.clone())).await;
        assert!(
            ["InvalidArgumentException", "ValidationException"].contains(&code.as_str()),
            "{extra}: {code}"
        );
    }
    for shard in ["shardId-000000000001", "0", "shardId-4294967296"] {
        let body = json!({"StreamName": "s", "ShardId": shard, "ShardIteratorType": "LATEST"});
        assert_eq!(
            server.code("GetShardIterator", body).await,
            "ResourceNotFoundException",
            "{shard}"
        );
    }
}

#[tokio::test]
async fn an_iterator_is_good_for_five_minutes_and_cannot_be_made_up() {
    let server = Server::with_stream(1).await;
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    assert!(iterator.len() <= 512, "the model's limit; {}", iterator.len());
    server.clock.advance(Duration::from_secs(300));
    let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(
        server.code("GetRecords", json!({"ShardIterator": iterator})).await,
        "ExpiredIteratorException"
    );
    server
        .ok("GetRecords", json!({"ShardIterator": answer["NextShardIterator"]}))
        .await;
    let mut forged = iterator.into_bytes();
    forged[60] ^= 1;
    let forged = String::from_utf8(forged).unwrap();
    for bad in [forged.as_str(), "AAAA", "not base64!"] {
        assert_eq!(
            server.code("GetRecords", json!({"ShardIterator": bad})).await,
            "InvalidArgumentException"
        );
    }
}

#[tokio::test]
async fn records_and_requests_have_limits() {
    use base64::Engine;
    let server = Server::with_stream(1).await;
    let data = |bytes: usize| base64::engine::general_purpose::STANDARD.encode(vec![7; bytes]);
    const MIB: usize = 1024 * 1024;
    server.ok("PutRecord", put("k", &data(MIB - 1))).await;
    assert_eq!(
        server.code("PutRecord", put("k", &data(MIB))).await,
        "InvalidArgumentException"
    );
    let batch = |count: usize, bytes: usize| {
        let record = json!({"PartitionKey": "k", "Data": data(bytes)});
        json!({"StreamName": "s", "Records": vec![record; count]})
    };
    server.ok("PutRecords", batch(10, MIB - 1)).await;
    assert_eq!(
        server.code("PutRecords", batch(11, MIB - 1)).await,
        "InvalidArgumentException"
    );
    assert_eq!(
        server.code("PutRecords", batch(1, MIB)).await,
        "InvalidArgumentException"
    );

    // One answer holds 10 MiB of records at most; the reader gets the rest by the next iterator.
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
    assert_eq!(answer["Records"].as_array().unwrap().len(), 10);
    let rest = server
        .ok("GetRecords", json!({"ShardIterator": answer["NextShardIterator"]}))
        .await;
    assert_eq!(rest["Records"].as_array().unwrap().len(), 1);

    server
        .ok(
            "CreateStream",
            json!({"StreamName": "big", "ShardCount": 1, "MaxRecordSizeInKiB": 10240}),
        )
        .await;
    let big = json!({"StreamName": "big", "PartitionKey": "k", "Data": data(10 * MIB - 1)});
    server.ok("PutRecord", big).await;
    let found = server.read(server.iterator("big", 0, "TRIM_HORIZON").await).await;
    assert_eq!(found[0].1.len(), data(10 * MIB - 1).len());
}

#[tokio::test]
async fn ordering_after_a_number_that_was_never_given_is_refused() {
    let server = Server::with_stream(2).await;
    let first = text(&server.ok("PutRecord", put("a", "")).await["SequenceNumber"]);
    let after = |key: &str, number: &str| {
        let mut body = put(key, "");
        body["SequenceNumberForOrdering"] = json!(number);
        body
    };
    let second = text(&server.ok("PutRecord", after("a", &first)).await["SequenceNumber"]);
    assert!(second.parse::<u128>().unwrap() > first.parse().unwrap());
    // The number of another shard: producers pass the last one they got, whatever its shard.
    server.ok("PutRecord", after("b", &second)).await;
    let future = (second.parse::<u128>().unwrap() + (1000 << 16)).to_string();
    for bad in [future.as_str(), "1", "0"] {
        assert_eq!(
            server.code("PutRecord", after("a", bad)).await,
            "InvalidArgumentException",
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_stores_nothing() {
    let server = Server::with_stream(1).await;
    let mut body = put("k", "AA==");
    body["DryRun"] = json!(true);
    assert_eq!(server.code("PutRecord", body.clone()).await, "DryRunOperationException");
    body["StreamName"] = json!("t");
    assert_eq!(server.code("PutRecord", body).await, "ResourceNotFoundException");
    assert_eq!(server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await, []);
}

#[tokio::test]
async fn records_without_a_key_are_spread_where_the_stream_was_made_for_it() {
    let server = Server::start().await;
    let mode = json!({"StreamMode": "ON_DEMAND"});
    let body = json!({"StreamName": "s", "StreamModeDetails": mode, "RecordDistributionStrategy": "AUTO"});
    server.ok("CreateStream", body).await;
    let records = vec![json!({"Data": "AA=="}); 200];
    let answer = server
        .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
        .await;
    let shards: HashSet<String> = answer["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| text(&r["ShardId"]))
        .collect();
    assert_eq!(shards.len(), 4);
    server
        .ok("CreateStream", json!({"StreamName": "t", "ShardCount": 1}))
        .await;
    let keyless = json!({"StreamName": "t", "Data": "AA=="});
    assert_eq!(server.code("PutRecord", keyless).await, "ValidationException");
}

#[tokio::test]
async fn many_producers_at_once_lose_and_double_nothing() {
    let server = Arc::new(Server::with_stream(3).await);
    let producers = (0..8).map(|producer| {
        let server = server.clone();
        tokio::spawn(async move {
            for batch in 0..10 {
                let records: Vec<Value> = (0..50)
                    .map(|i| json!({"PartitionKey": format!("{producer}-{batch}-{i}"), "Data": "AA=="}))
                    .collect();
                server
                    .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
                    .await;
            }
        })
    });
    for producer in futures_util::future::join_all(producers).await {
        producer.unwrap();
    }
    let mut keys = HashSet::new();
    for shard in 0..3 {
        let found = server.read(server.iterator("s", shard, "TRIM_HORIZON").await).await;
        assert!(
            found.windows(2).all(|w| w[0].2 < w[1].2),
            "numbers rise in shard {shard}"
        );
        for (key, ..) in found {
            assert!(keys.insert(key.clone()), "{key} came twice");
        }
    }
    assert_eq!(keys.len(), 8 * 10 * 50);
}

#[tokio::test]
async fn records_beyond_the_retention_are_forgotten() {
    let server = Server::with_stream(1).await;
    server.ok("PutRecord", put("old", "")).await;
    server.clock.advance(Duration::from_secs(23 * 3600));
    server.ok("PutRecord", put("new", "")).await;
    server.clock.advance(Duration::from_secs(2 * 3600));
    server.service.sweep().await;
    let found = server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await;
    assert_eq!(found.iter().map(|(key, ..)| key.as_str()).collect::<Vec<_>>(), ["new"]);
}

#[tokio::test]
async fn a_full_disk_answers_500_and_what_was_acknowledged_can_still_be_read() {
    let failure = Failure::default();
    let server = Server::start_with(|log| FailingLog::over(log, &failure)).await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    server.ok("PutRecord", put("k", "AA==")).await;
    failure.fill_disk();
    let batch = json!({"StreamName": "s", "Records": [{"PartitionKey": "k", "Data": ""}]});
    for (operation, body) in [
        ("PutRecord", put("k", "AA==")),
        ("PutRecords", batch),
        ("CreateStream", json!({"StreamName": "t", "ShardCount": 1})),
    ] {
        let refused = server.call(operation, body).await.unwrap_err();
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (500, "InternalFailureException"),
            "{operation}"
        );
    }
    assert_eq!(
        server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await.len(),
        1
    );
    failure.end();
    server.ok("PutRecord", put("k", "AA==")).await;
    server
        .ok("CreateStream", json!({"StreamName": "t", "ShardCount": 1}))
        .await;
}
