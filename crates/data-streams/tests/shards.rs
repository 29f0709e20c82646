//! Shards that are split, merged and scaled, and what readers and writers see of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use common::failing::{FailingLog, Failure};
use common::{Server, text};
use serde_json::{Value, json};

/// A stream whose shards are a second old: those that follow them begin later.
async fn with_stream(shards: u32) -> Server {
    let server = Server::with_stream(shards).await;
    server.clock.advance(Duration::from_secs(1));
    server
}

async fn shards(server: &Server) -> Vec<Value> {
    let answer = server.ok("ListShards", json!({"StreamName": "s"})).await;
    answer["Shards"].as_array().unwrap().clone()
}

fn number(value: &Value) -> u128 {
    text(value).parse().unwrap()
}

fn id(shard: u32) -> String {
    format!("shardId-{shard:012}")
}

async fn put(server: &Server, key: &str, data: &str) -> (String, u128) {
    let body = json!({"StreamName": "s", "PartitionKey": key, "Data": data});
    let answer = server.ok("PutRecord", body).await;
    (text(&answer["ShardId"]), number(&answer["SequenceNumber"]))
}

const HALF: &str = "170141183460469231731687303715884105728";

async fn split(server: &Server, shard: u32, at: &str) {
    let body = json!({"StreamName": "s", "ShardToSplit": id(shard), "NewStartingHashKey": at});
    server.ok("SplitShard", body).await;
}

#[tokio::test]
async fn a_split_shard_is_read_to_its_end_and_its_children_take_over() {
    let server = with_stream(1).await;
    let (_, first) = put(&server, "a", "AA==").await;
    let latest = server.iterator("s", 0, "LATEST").await;
    split(&server, 0, HALF).await;
    let all = shards(&server).await;
    let parents: Vec<_> = all.iter().map(|s| s["ParentShardId"].clone()).collect();
    assert_eq!(parents, [Value::Null, json!(id(0)), json!(id(0))]);
    let end = number(&all[0]["SequenceNumberRange"]["EndingSequenceNumber"]);
    assert!(first < end);
    for (child, range) in [
        (1, ("0", &*(HALF.parse::<u128>().unwrap() - 1).to_string())),
        (2, (HALF, &*u128::MAX.to_string())),
    ] {
        let keys = &all[child]["HashKeyRange"];
        assert_eq!(
            (&keys["StartingHashKey"], &keys["EndingHashKey"]),
            (&json!(range.0), &json!(range.1))
        );
        assert!(
            number(&all[child]["SequenceNumberRange"]["StartingSequenceNumber"]) > end,
            "children come after parents"
        );
        assert_eq!(all[child]["SequenceNumberRange"]["EndingSequenceNumber"], Value::Null);
    }
    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 2);
    assert_eq!(summary["StreamDescriptionSummary"]["StreamStatus"], "ACTIVE");
    // MD5("a") begins with 0c, MD5("b") with 92.
    let (shard, low) = put(&server, "a", "AQ==").await;
    assert_eq!(shard, id(1));
    assert!(low > end);
    assert_eq!(put(&server, "b", "AQ==").await.0, id(2));

    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
    assert_eq!(answer["Records"].as_array().unwrap().len(), 1);
    assert_eq!(answer["NextShardIterator"], Value::Null, "the parent has ended");
    let children = answer["ChildShards"].as_array().unwrap();
    assert_eq!(children[0]["ShardId"], json!(id(1)));
    assert_eq!(children[0]["ParentShards"], json!([id(0)]));
    assert_eq!(children[1]["HashKeyRange"]["StartingHashKey"], json!(HALF));
    let answer = server.ok("GetRecords", json!({"ShardIterator": latest})).await;
    assert_eq!(
        (answer["NextShardIterator"].clone(), answer["Records"].clone()),
        (Value::Null, json!([]))
    );
    let page = json!({"ShardIterator": server.iterator("s", 1, "TRIM_HORIZON").await});
    let answer = server.ok("GetRecords", page).await;
    assert_eq!(answer["ChildShards"], Value::Null);
    assert!(answer["NextShardIterator"].is_string());
}

#[tokio::test]
async fn merged_shards_have_one_child_of_both_names() {
    let server = with_stream(3).await;
    let body = json!({"StreamName": "s", "ShardToMerge": id(2), "AdjacentShardToMerge": id(1)});
    server.ok("MergeShards", body).await;
    let all = shards(&server).await;
    assert_eq!(
        (&all[3]["ParentShardId"], &all[3]["AdjacentParentShardId"]),
        (&json!(id(2)), &json!(id(1)))
    );
    assert_eq!(
        all[3]["HashKeyRange"]["StartingHashKey"],
        all[1]["HashKeyRange"]["StartingHashKey"]
    );
    assert_eq!(
        all[3]["HashKeyRange"]["EndingHashKey"],
        all[2]["HashKeyRange"]["EndingHashKey"]
    );
    for parent in [1, 2] {
        let iterator = server.iterator("s", parent, "TRIM_HORIZON").await;
        let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["ChildShards"][0]["ParentShards"], json!([id(2), id(1)]));
    }
}

#[tokio::test]
async fn what_cannot_be_split_or_merged_is_told_in_awss_words() {
    let server = with_stream(3).await;
    let refusal = async |operation: &str, body: Value| {
        let error = server.call(operation, body).await.unwrap_err();
        (error.code, error.message)
    };
    let one = json!({"StreamName": "s", "ShardToSplit": id(9), "NewStartingHashKey": "5"});
    let (code, message) = refusal("SplitShard", one).await;
    assert_eq!(code, "ResourceNotFoundException");
    assert_eq!(
        message,
        "Could not find shard shardId-000000000009 in stream s under account 000000000000."
    );
    for key in [
        "0",
        "1",
        "113427455640312821154458202477256070484",
        "340282366920938463463374607431768211455",
    ] {
        let body = json!({"StreamName": "s", "ShardToSplit": id(0), "NewStartingHashKey": key});
        let (code, message) = refusal("SplitShard", body).await;
        assert_eq!(code, "InvalidArgumentException", "{key}");
        assert!(
            message.contains("is not both greater than one plus the shard's StartingHashKey 0"),
            "{message}"
        );
    }
    split(&server, 0, "2").await;
    let again = json!({"StreamName": "s", "ShardToSplit": id(0), "NewStartingHashKey": "3"});
    let (code, message) = refusal("SplitShard", again).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(message.contains("has already been merged or split"), "{message}");
    let apart = json!({"StreamName": "s", "ShardToMerge": id(3), "AdjacentShardToMerge": id(1)});
    let (code, message) = refusal("MergeShards", apart).await;
    assert_eq!(code, "InvalidArgumentException");
    assert!(
        message.contains("are not an adjacent pair of shards eligible for merging"),
        "{message}"
    );
    let itself = json!({"StreamName": "s", "ShardToMerge": id(1), "AdjacentShardToMerge": id(1)});
    assert_eq!(refusal("MergeShards", itself).await.0, "InvalidArgumentException");
    let body = json!({"StreamName": "s", "TargetShardCount": 5000, "ScalingType": "UNIFORM_SCALING"});
    assert_eq!(refusal("UpdateShardCount", body).await.0, "LimitExceededException");
    server
        .ok(
            "CreateStream",
            json!({"StreamName": "d", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}),
        )
        .await;
    let body = json!({"StreamName": "d", "ShardToSplit": id(0), "NewStartingHashKey": "3"});
    assert_eq!(refusal("SplitShard", body).await.0, "ValidationException");
}

#[tokio::test]
async fn a_stream_is_scaled_to_any_number_of_even_shards() {
    let server = with_stream(2).await;
    for (target, from) in [(4, 2), (3, 4), (7, 3), (1, 7), (1, 1), (40, 1)] {
        server.clock.advance(Duration::from_millis(3));
        let body = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        let answer = server.ok("UpdateShardCount", body).await;
        assert_eq!(
            (&answer["CurrentShardCount"], &answer["TargetShardCount"]),
            (&json!(from), &json!(target))
        );
        let latest = json!({"StreamName": "s", "ShardFilter": {"Type": "AT_LATEST"}});
        let open = server.ok("ListShards", latest).await["Shards"]
            .as_array()
            .unwrap()
            .clone();
        let mut ranges: Vec<(u128, u128)> = open
            .iter()
            .map(|s| {
                (
                    number(&s["HashKeyRange"]["StartingHashKey"]),
                    number(&s["HashKeyRange"]["EndingHashKey"]),
                )
            })
            .collect();
        ranges.sort_unstable();
        assert_eq!(
            (ranges.len(), ranges[0].0, ranges[ranges.len() - 1].1),
            (target, 0, u128::MAX)
        );
        assert!(ranges.windows(2).all(|w| w[0].1 + 1 == w[1].0));
        let widths: Vec<u128> = ranges.iter().map(|(first, last)| last - first).collect();
        assert!(widths.iter().max().unwrap() - widths.iter().min().unwrap() <= target as u128);
    }
    // Shards that lived only on the way end at once, and lead on.
    for shard in shards(&server).await {
        let closed = shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string();
        let number = text(&shard["ShardId"])[8..].parse().unwrap();
        let iterator = server.iterator("s", number, "TRIM_HORIZON").await;
        let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
        assert_eq!(answer["NextShardIterator"].is_null(), closed, "{shard}");
        assert_eq!(answer["ChildShards"].is_array(), closed);
    }
}

/// Every record by reading parents before children, in the order of reading.
async fn read_all(server: &Server) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut ready: Vec<String> = Vec::new();
    let mut waiting: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for shard in shards(server).await {
        let parents = [&shard["ParentShardId"], &shard["AdjacentParentShardId"]];
        let parents: Vec<String> = parents
            .into_iter()
            .filter_map(|p| p.as_str())
            .map(str::to_owned)
            .collect();
        match parents.is_empty() {
            true => ready.push(text(&shard["ShardId"])),
            false => drop(waiting.insert(text(&shard["ShardId"]), parents)),
        }
    }
    while let Some(shard) = ready.pop() {
        let number = shard[8..].parse().unwrap();
        let mut iterator = server.iterator("s", number, "TRIM_HORIZON").await;
        loop {
            let answer = server
                .ok("GetRecords", json!({"ShardIterator": iterator, "Limit": 7}))
                .await;
            let records = answer["Records"].as_array().unwrap();
            found.extend(records.iter().map(|r| (text(&r["PartitionKey"]), text(&r["Data"]))));
            match answer["NextShardIterator"].as_str() {
                Some(next) if answer["MillisBehindLatest"] != 0 => iterator = next.to_owned(),
                _ => break,
            }
        }
        for parents in waiting.values_mut() {
            parents.retain(|p| *p != shard);
        }
        let freed: Vec<String> = waiting
            .iter()
            .filter(|(_, p)| p.is_empty())
            .map(|(s, _)| s.clone())
            .collect();
        for shard in freed {
            waiting.remove(&shard);
            ready.push(shard);
        }
    }
    assert!(waiting.is_empty());
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_put_while_shards_change_are_all_there_once_and_in_order() {
    let server = Arc::new(with_stream(2).await);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                for n in 0..40 {
                    let records: Vec<Value> = (0..6)
                        .map(|k| json!({"PartitionKey": format!("w{writer}k{k}"), "Data": common::encode(&format!("{n:04}"))}))
                        .collect();
                    let answer = server.ok("PutRecords", json!({"StreamName": "s", "Records": records})).await;
                    assert_eq!(answer["FailedRecordCount"], 0);
                }
            })
        })
        .collect();
    for target in [4, 3, 8, 1, 5, 2] {
        server.clock.advance(Duration::from_millis(20));
        let body = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        server.ok("UpdateShardCount", body).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut by_key: HashMap<String, Vec<String>> = HashMap::new();
    for (key, data) in read_all(&server).await {
        by_key.entry(key).or_default().push(data);
    }
    assert_eq!(by_key.len(), 48);
    let wanted: Vec<String> = (0..40).map(|n| common::encode(&format!("{n:04}"))).collect();
    for (key, found) in by_key {
        assert_eq!(found, wanted, "{key}");
    }
}

#[tokio::test]
async fn a_change_of_shards_that_was_cut_off_is_finished_at_the_next_start() {
    let failure = Failure::default();
    let server = Server::start_with(|log| FailingLog::over(log, &failure)).await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    put(&server, "a", "AA==").await;
    server.clock.advance(Duration::from_secs(1));
    failure.stop_writes();
    let body = json!({"StreamName": "s", "ShardToSplit": id(0), "NewStartingHashKey": HALF});
    let cut = tokio::time::timeout(Duration::from_millis(50), server.call("SplitShard", body)).await;
    assert!(cut.is_err());
    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["StreamStatus"], "UPDATING");
    let server = server.restart().await;
    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["StreamStatus"], "ACTIVE");
    assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 2);
    assert_eq!(put(&server, "a", "AQ==").await.0, id(1));
    assert_eq!(read_all(&server).await.len(), 2);
    let server = server.restart().await;
    assert_eq!(read_all(&server).await.len(), 2);
    assert_eq!(shards(&server).await.len(), 3);
}

#[tokio::test]
async fn a_change_of_shards_that_met_a_full_disk_is_finished_when_space_returns() {
    let failure = Failure::default();
    let server = Server::start_with(|log| FailingLog::over(log, &failure)).await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    server.clock.advance(Duration::from_secs(1));
    failure.fill_disk();
    let body = json!({"StreamName": "s", "ShardToSplit": id(0), "NewStartingHashKey": HALF});
    let full = server.call("SplitShard", body.clone()).await.unwrap_err();
    assert_eq!(full.status, 500);
    failure.end();
    let again = server.call("SplitShard", body).await.unwrap_err();
    assert_eq!(again.code, "ResourceInUseException");
    assert_eq!(
        again.message,
        "Stream s under account 000000000000 not ACTIVE, instead in state UPDATING"
    );
    assert_eq!(
        put(&server, "a", "AQ==").await.0,
        id(0),
        "the old shard still takes records"
    );
    server.service.sweep().await;
    assert_eq!(put(&server, "a", "AQ==").await.0, id(1));
    assert_eq!(read_all(&server).await.len(), 2);
}

#[tokio::test]
async fn closed_shards_are_forgotten_with_their_last_records() {
    let server = with_stream(1).await;
    put(&server, "a", "AA==").await;
    split(&server, 0, HALF).await;
    let at_horizon = json!({"StreamName": "s", "ShardFilter": {"Type": "AT_TRIM_HORIZON"}});
    let listed = server.ok("ListShards", at_horizon.clone()).await;
    assert_eq!(
        listed["Shards"].as_array().unwrap().len(),
        1,
        "readers begin with the parent"
    );
    server.clock.advance(Duration::from_secs(25 * 3600));
    server.service.sweep().await;
    let ids: Vec<Value> = shards(&server).await.iter().map(|s| s["ShardId"].clone()).collect();
    assert_eq!(ids, [id(1), id(2)]);
    let listed = server.ok("ListShards", at_horizon).await;
    assert_eq!(listed["Shards"].as_array().unwrap().len(), 2);
    let gone = json!({"StreamName": "s", "ShardId": id(0), "ShardIteratorType": "LATEST"});
    assert_eq!(server.code("GetShardIterator", gone).await, "ResourceNotFoundException");
    split(&server, 2, "200000000000000000000000000000000000000").await;
    assert_eq!(
        text(&shards(&server).await[3]["ShardId"]),
        id(4),
        "numbers are not used again"
    );
}

#[tokio::test]
async fn shards_are_listed_as_they_were_at_a_time() {
    let server = with_stream(1).await;
    let before = server.clock_seconds();
    server.clock.advance(Duration::from_secs(10));
    split(&server, 0, HALF).await;
    server.clock.advance(Duration::from_secs(10));
    let body = json!({"StreamName": "s", "ShardToMerge": id(1), "AdjacentShardToMerge": id(2)});
    server.ok("MergeShards", body).await;
    let listed = async |filter: Value| {
        let answer = server
            .ok("ListShards", json!({"StreamName": "s", "ShardFilter": filter}))
            .await;
        let shards = answer["Shards"].as_array().unwrap().clone();
        shards
            .iter()
            .map(|s| text(&s["ShardId"])[8..].parse::<u32>().unwrap())
            .collect::<Vec<u32>>()
    };
    assert_eq!(listed(json!({"Type": "AT_LATEST"})).await, [3]);
    assert_eq!(listed(json!({"Type": "AT_TRIM_HORIZON"})).await, [0]);
    assert_eq!(listed(json!({"Type": "FROM_TRIM_HORIZON"})).await, [0, 1, 2, 3]);
    assert_eq!(listed(json!({"Type": "AT_TIMESTAMP", "Timestamp": before})).await, [0]);
    assert_eq!(
        listed(json!({"Type": "AT_TIMESTAMP", "Timestamp": before + 15.0})).await,
        [1, 2]
    );
    assert_eq!(
        listed(json!({"Type": "FROM_TIMESTAMP", "Timestamp": before + 15.0})).await,
        [1, 2, 3]
    );
    assert_eq!(
        listed(json!({"Type": "AFTER_SHARD_ID", "ShardId": id(1)})).await,
        [2, 3]
    );
}

#[tokio::test]
async fn a_number_of_another_shard_or_stream_begins_nothing() {
    let server = with_stream(2).await;
    let (one, two) = (put(&server, "a", "").await, put(&server, "b", "").await);
    assert_ne!(one.0, two.0);
    let refused = async |number: String| {
        let body = json!({"StreamName": "s", "ShardId": one.0, "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": number});
        let error = server.call("GetShardIterator", body).await.unwrap_err();
        assert_eq!(error.code, "InvalidArgumentException");
        error.message
    };
    assert_eq!(
        refused(two.1.to_string()).await,
        format!(
            "Invalid StartingSequenceNumber. It encodes {}, while it was used in a call to a shard with {}",
            two.0, one.0
        )
    );
    assert!(refused("5".to_owned()).await.ends_with("is invalid."));
    server.clock.advance(Duration::from_secs(1));
    server
        .ok("CreateStream", json!({"StreamName": "t", "ShardCount": 2}))
        .await;
    let body = json!({"StreamName": "t", "PartitionKey": "a", "Data": ""});
    let other = text(&server.ok("PutRecord", body).await["SequenceNumber"]);
    assert!(
        refused(other)
            .await
            .ends_with("is invalid because it did not come from this stream.")
    );
}

#[tokio::test]
async fn with_awss_limits_a_shard_takes_and_gives_so_much_a_second() {
    let server = Server::start_limited().await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    let records: Vec<Value> = (0..400).map(|_| json!({"PartitionKey": "a", "Data": "AAAA"})).collect();
    let many = json!({"StreamName": "s", "Records": records});
    let mut failed = Vec::new();
    for _ in 0..3 {
        failed.push(server.ok("PutRecords", many.clone()).await["FailedRecordCount"].clone());
    }
    assert_eq!(failed, [json!(0), json!(0), json!(200)]);
    let answer = server.ok("PutRecords", many).await;
    let entry = &answer["Records"][0];
    assert_eq!(entry["ErrorCode"], "ProvisionedThroughputExceededException");
    let words = "Rate exceeded for shard shardId-000000000000 in stream s under account 000000000000.";
    assert_eq!(entry["ErrorMessage"], words);
    assert_eq!(entry["SequenceNumber"], Value::Null);
    let one = json!({"StreamName": "s", "PartitionKey": "a", "Data": ""});
    let error = server.call("PutRecord", one.clone()).await.unwrap_err();
    assert_eq!(
        (error.status, &*error.code, &*error.message),
        (400, "ProvisionedThroughputExceededException", words)
    );
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    let get = json!({"ShardIterator": iterator});
    for _ in 0..5 {
        assert_eq!(
            server.ok("GetRecords", get.clone()).await["Records"]
                .as_array()
                .unwrap()
                .len(),
            1000
        );
    }
    assert_eq!(
        server.code("GetRecords", get.clone()).await,
        "ProvisionedThroughputExceededException"
    );
    server.clock.advance(Duration::from_secs(1));
    server.ok("GetRecords", get).await;
    server.ok("PutRecord", one).await;
    // UpdateShardCount: twice as many, half as many, ten times a day.
    let scale = async |target: u32| {
        let body = json!({"StreamName": "s", "TargetShardCount": target, "ScalingType": "UNIFORM_SCALING"});
        server.call("UpdateShardCount", body).await.map_err(|e| e.code)
    };
    assert_eq!(scale(3).await.unwrap_err(), "InvalidArgumentException");
    for n in 0..10 {
        server.clock.advance(Duration::from_secs(1));
        scale(if n % 2 == 0 { 2 } else { 1 }).await.unwrap();
    }
    assert_eq!(scale(2).await.unwrap_err(), "LimitExceededException");
    server.clock.advance(Duration::from_secs(24 * 3600));
    scale(2).await.unwrap();
}
