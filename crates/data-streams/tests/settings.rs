//! What can be set of a stream and an account, tags, policies and encryption.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "one test looks at the files themselves")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Everything, STREAM, Server, encode, text};
use serde_json::{Value, json};

async fn summary(server: &Server) -> Value {
    let answer = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    answer["StreamDescriptionSummary"].clone()
}

async fn put(server: &Server, data: &str) -> Value {
    let body = json!({"StreamName": "s", "PartitionKey": "a", "Data": encode(data)});
    server.ok("PutRecord", body).await
}

async fn count(server: &Server) -> usize {
    server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await.len()
}

#[tokio::test]
async fn retention_goes_up_and_down_and_what_is_gone_stays_gone() {
    let server = Server::with_stream(1).await;
    let increase = async |hours: i32| {
        let body = json!({"StreamName": "s", "RetentionPeriodHours": hours});
        server.call("IncreaseStreamRetentionPeriod", body).await
    };
    let decrease = async |hours: i32| {
        let body = json!({"StreamARN": STREAM, "RetentionPeriodHours": hours});
        server.call("DecreaseStreamRetentionPeriod", body).await
    };
    assert!(
        increase(23)
            .await
            .unwrap_err()
            .message
            .starts_with("Minimum allowed retention period is 24 hours.")
    );
    assert!(
        increase(8761)
            .await
            .unwrap_err()
            .message
            .starts_with("Maximum allowed retention period is 8760 hours.")
    );
    assert!(
        decrease(48)
            .await
            .unwrap_err()
            .message
            .contains("can not be longer than existing retention period (24 hours)")
    );
    increase(48).await.unwrap();
    assert_eq!(summary(&server).await["RetentionPeriodHours"], 48);
    assert!(
        increase(30)
            .await
            .unwrap_err()
            .message
            .contains("can not be shorter than existing retention period (48 hours)")
    );
    put(&server, "old").await;
    server.clock.advance(Duration::from_secs(30 * 3600));
    put(&server, "new").await;
    let before = server.iterator("s", 0, "TRIM_HORIZON").await;
    server.service.sweep().await;
    assert_eq!(count(&server).await, 2);
    decrease(24).await.unwrap();
    assert_eq!(count(&server).await, 1, "gone at once");
    let answer = server.ok("GetRecords", json!({"ShardIterator": before})).await;
    assert_eq!(
        answer["Records"][0]["Data"],
        json!(encode("new")),
        "an iterator goes on at what is kept"
    );
    server.clock.advance(Duration::from_secs(25 * 3600));
    increase(8760).await.unwrap();
    assert_eq!(
        count(&server).await,
        0,
        "what was beyond the old retention does not come back"
    );
}

#[tokio::test]
async fn shard_level_metrics_are_remembered() {
    let server = Server::with_stream(1).await;
    let body = |names: &[&str]| json!({"StreamName": "s", "ShardLevelMetrics": names});
    let answer = server
        .ok("EnableEnhancedMonitoring", body(&["OutgoingBytes", "IncomingBytes"]))
        .await;
    assert_eq!(answer["CurrentShardLevelMetrics"], json!([]));
    assert_eq!(
        answer["DesiredShardLevelMetrics"],
        json!(["IncomingBytes", "OutgoingBytes"])
    );
    assert_eq!(
        (&answer["StreamName"], &answer["StreamARN"]),
        (&json!("s"), &json!(STREAM))
    );
    let answer = server.ok("EnableEnhancedMonitoring", body(&["ALL"])).await;
    assert_eq!(answer["DesiredShardLevelMetrics"].as_array().unwrap().len(), 7);
    let answer = server.ok("DisableEnhancedMonitoring", body(&["IncomingBytes"])).await;
    assert_eq!(answer["DesiredShardLevelMetrics"].as_array().unwrap().len(), 6);
    assert_eq!(
        summary(&server).await["EnhancedMonitoring"][0]["ShardLevelMetrics"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
    let server = server.restart().await;
    server.ok("DisableEnhancedMonitoring", body(&["ALL"])).await;
    assert_eq!(
        summary(&server).await["EnhancedMonitoring"],
        json!([{"ShardLevelMetrics": []}])
    );
}

#[tokio::test]
async fn an_encrypted_stream_has_nothing_readable_on_disk() {
    let server = Server::with_stream(1).await;
    let key = json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    assert_eq!(
        server.code("StopStreamEncryption", key.clone()).await,
        "InvalidArgumentException"
    );
    put(&server, "plain words that can be found").await;
    server.ok("StartStreamEncryption", key.clone()).await;
    let described = summary(&server).await;
    assert_eq!(
        (&described["EncryptionType"], &described["KeyId"]),
        (&json!("KMS"), &json!("alias/aws/kinesis"))
    );
    let body = json!({"StreamName": "s", "Records": [
        {"PartitionKey": "whose secret", "Data": encode("secret words that cannot be found")},
        {"PartitionKey": "", "Data": encode(""), "ExplicitHashKey": "7"},
    ]});
    let refused = server.code("PutRecords", body.clone()).await;
    assert_eq!(refused, "ValidationException", "an empty key");
    let mut body = body;
    body["Records"][1]["PartitionKey"] = json!("k");
    assert_eq!(server.ok("PutRecords", body).await["EncryptionType"], "KMS");
    let server = server.restart().await;
    server.ok("StopStreamEncryption", key).await;
    assert_eq!(put(&server, "plain again").await["EncryptionType"], Value::Null);
    assert_eq!(summary(&server).await["EncryptionType"], "NONE");
    let server = server.restart().await;
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    let answer = server.ok("GetRecords", json!({"ShardIterator": iterator})).await;
    let found: Vec<_> = answer["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (text(&r["PartitionKey"]), text(&r["Data"]), r["EncryptionType"].clone()))
        .collect();
    let record = |key: &str, data: &str, kind: Value| (key.to_owned(), encode(data), kind);
    assert_eq!(
        found,
        [
            record("a", "plain words that can be found", Value::Null),
            record("whose secret", "secret words that cannot be found", json!("KMS")),
            record("k", "", json!("KMS")),
            record("a", "plain again", Value::Null),
        ]
    );
    let mut bytes = Vec::new();
    for file in std::fs::read_dir(server.folder.path()).unwrap() {
        bytes.append(&mut std::fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |words: &str| bytes.windows(words.len()).any(|w| w == words.as_bytes());
    assert!(holds("plain words that can be found") && holds("plain again"));
    assert!(!holds("secret words") && !holds("whose secret"));
}

#[tokio::test]
async fn the_capacity_mode_and_what_belongs_to_it_can_be_changed() {
    let server = Server::with_stream(1).await;
    let mode = |mode: &str| json!({"StreamARN": STREAM, "StreamModeDetails": {"StreamMode": mode}});
    let strategy = |name: &str| json!({"StreamARN": STREAM, "RecordDistributionStrategy": name});
    let warm = |mib: i32| json!({"StreamName": "s", "WarmThroughputMiBps": mib});
    assert_eq!(
        server
            .code("UpdateStreamRecordDistributionStrategy", strategy("AUTO"))
            .await,
        "InvalidArgumentException"
    );
    assert_eq!(
        server.code("UpdateStreamWarmThroughput", warm(10)).await,
        "InvalidArgumentException"
    );
    server.ok("UpdateStreamMode", mode("ON_DEMAND")).await;
    let described = summary(&server).await;
    assert_eq!(described["StreamModeDetails"]["StreamMode"], "ON_DEMAND");
    assert_eq!(described["RecordDistributionStrategy"], "USER_PARTITION_KEY");
    server
        .ok("UpdateStreamRecordDistributionStrategy", strategy("AUTO"))
        .await;
    server.clock.advance(Duration::from_secs(1));
    let answer = server.ok("UpdateStreamWarmThroughput", warm(8)).await;
    assert_eq!(answer["WarmThroughput"], json!({"CurrentMiBps": 8, "TargetMiBps": 8}));
    assert_eq!(summary(&server).await["OpenShardCount"], 8, "ready before it is needed");
    assert_eq!(
        server.code("UpdateStreamWarmThroughput", warm(5000)).await,
        "LimitExceededException"
    );
    let records: Vec<Value> = (0..200)
        .map(|_| json!({"PartitionKey": "the same", "Data": ""}))
        .collect();
    let answer = server
        .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
        .await;
    let used: std::collections::BTreeSet<String> = answer["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| text(&r["ShardId"]))
        .collect();
    assert_eq!(used.len(), 8, "AUTO takes no advice of a key");
    server.ok("UpdateStreamMode", mode("PROVISIONED")).await;
    assert_eq!(summary(&server).await["RecordDistributionStrategy"], Value::Null);
    let body = json!({"StreamARN": STREAM, "MaxRecordSizeInKiB": 2048});
    let large = json!({"StreamName": "s", "PartitionKey": "a", "Data": encode(&"x".repeat(2_000_000))});
    assert_eq!(
        server.code("PutRecord", large.clone()).await,
        "InvalidArgumentException"
    );
    server.ok("UpdateMaxRecordSize", body).await;
    server.ok("PutRecord", large).await;
    assert_eq!(summary(&server).await["MaxRecordSizeInKiB"], 2048);
    let small = json!({"StreamARN": STREAM, "MaxRecordSizeInKiB": 1023});
    assert_eq!(server.code("UpdateMaxRecordSize", small).await, "ValidationException");
}

#[tokio::test]
async fn an_on_demand_stream_grows_with_its_load() {
    let server = Server::start().await;
    let body = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    server.ok("CreateStream", body).await;
    server.clock.advance(Duration::from_secs(10));
    server.service.scale(10_000).await;
    assert_eq!(summary(&server).await["OpenShardCount"], 4);
    let records: Vec<Value> = (0..500)
        .map(|n| json!({"PartitionKey": n.to_string(), "Data": "AAAA"}))
        .collect();
    for _ in 0..5 {
        server
            .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
            .await;
    }
    server.service.scale(1_000).await;
    assert_eq!(summary(&server).await["OpenShardCount"], 8, "2,500 records in a second");
    server.clock.advance(Duration::from_secs(10));
    server.service.scale(10_000).await;
    assert_eq!(summary(&server).await["OpenShardCount"], 8);
    server.clock.advance(Duration::from_secs(25 * 3600));
    server.service.scale(10_000).await;
    assert_eq!(summary(&server).await["OpenShardCount"], 4, "after a quiet day");
}

#[tokio::test]
async fn tags_are_kept_on_streams_and_consumers() {
    let server = Server::with_stream(1).await;
    server
        .ok(
            "AddTagsToStream",
            json!({"StreamName": "s", "Tags": {"b": "2", "a": "1", "c": ""}}),
        )
        .await;
    server
        .ok("AddTagsToStream", json!({"StreamARN": STREAM, "Tags": {"a": "one"}}))
        .await;
    let page = server
        .ok("ListTagsForStream", json!({"StreamName": "s", "Limit": 2}))
        .await;
    assert_eq!(
        page,
        json!({"HasMoreTags": true, "Tags": [{"Key": "a", "Value": "one"}, {"Key": "b", "Value": "2"}]})
    );
    let page = server
        .ok(
            "ListTagsForStream",
            json!({"StreamName": "s", "ExclusiveStartTagKey": "b"}),
        )
        .await;
    assert_eq!(page, json!({"HasMoreTags": false, "Tags": [{"Key": "c", "Value": ""}]}));
    server
        .ok(
            "RemoveTagsFromStream",
            json!({"StreamName": "s", "TagKeys": ["a", "nothing"]}),
        )
        .await;
    server
        .ok("TagResource", json!({"ResourceARN": STREAM, "Tags": {"d": "4"}}))
        .await;
    server
        .ok("UntagResource", json!({"ResourceARN": STREAM, "TagKeys": ["c"]}))
        .await;
    let tags = server.ok("ListTagsForResource", json!({"ResourceARN": STREAM})).await;
    assert_eq!(
        tags["Tags"],
        json!([{"Key": "b", "Value": "2"}, {"Key": "d", "Value": "4"}])
    );
    let many: serde_json::Map<String, Value> = (0..49).map(|n| (format!("t{n}"), json!(""))).collect();
    let refused = server
        .call("AddTagsToStream", json!({"StreamName": "s", "Tags": many}))
        .await
        .unwrap_err();
    assert_eq!(refused.code, "InvalidArgumentException");
    for odd in [json!({"aws:x": "1"}), json!({"a": "%"})] {
        let body = json!({"StreamName": "s", "Tags": odd});
        assert_eq!(server.code("AddTagsToStream", body).await, "InvalidArgumentException");
    }
    let body = json!({"StreamARN": STREAM, "ConsumerName": "app", "Tags": {"team": "x"}});
    let arn = text(&server.ok("RegisterStreamConsumer", body).await["Consumer"]["ConsumerARN"]);
    server
        .ok("TagResource", json!({"ResourceARN": arn, "Tags": {"more": "y"}}))
        .await;
    let server = server.restart().await;
    let tags = server.ok("ListTagsForResource", json!({"ResourceARN": arn})).await;
    assert_eq!(
        tags["Tags"],
        json!([{"Key": "more", "Value": "y"}, {"Key": "team", "Value": "x"}])
    );
    let gone = json!({"ResourceARN": format!("{STREAM}/consumer/app:1")});
    assert_eq!(
        server.code("ListTagsForResource", gone).await,
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn a_policy_lets_another_account_in_and_shuts_out_whom_it_denies() {
    let server = Server::with_stream(1).await;
    let theirs = async |operation: &str, body: Value| {
        let answer = server
            .call_as("111122223333", Arc::new(Everything), operation, body)
            .await;
        answer.map_err(|e| e.code)
    };
    let put = json!({"StreamARN": STREAM, "PartitionKey": "a", "Data": encode("theirs")});
    assert_eq!(
        theirs("PutRecord", put.clone()).await.unwrap_err(),
        "ResourceNotFoundException"
    );
    assert_eq!(
        server.ok("GetResourcePolicy", json!({"ResourceARN": STREAM})).await["Policy"],
        "{}"
    );
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Resource": STREAM,
         "Action": ["kinesis:PutRecord", "kinesis:GetShardIterator", "kinesis:GetRecords", "kinesis:ListShards"]},
        {"Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::000000000000:root"}, "Action": "kinesis:DeleteStream", "Resource": STREAM},
    ]})
    .to_string();
    for odd in [
        "{}",
        "no",
        r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*","Condition":{}}}"#,
    ] {
        let body = json!({"ResourceARN": STREAM, "Policy": odd});
        assert_eq!(server.code("PutResourcePolicy", body).await, "InvalidArgumentException");
    }
    server
        .ok("PutResourcePolicy", json!({"ResourceARN": STREAM, "Policy": policy}))
        .await;
    assert_eq!(
        server.ok("GetResourcePolicy", json!({"ResourceARN": STREAM})).await["Policy"],
        json!(policy)
    );
    theirs("PutRecord", put.clone()).await.unwrap();
    let shards = theirs("ListShards", json!({"StreamARN": STREAM})).await.unwrap();
    let body =
        json!({"StreamARN": STREAM, "ShardId": shards["Shards"][0]["ShardId"], "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = theirs("GetShardIterator", body).await.unwrap();
    let records = theirs("GetRecords", json!({"ShardIterator": iterator["ShardIterator"]}))
        .await
        .unwrap();
    assert_eq!(records["Records"][0]["Data"], json!(encode("theirs")));
    assert_eq!(
        theirs("DescribeStream", json!({"StreamARN": STREAM}))
            .await
            .unwrap_err(),
        "ResourceNotFoundException"
    );
    let other = server
        .call_as("444455556666", Arc::new(Everything), "PutRecord", put.clone())
        .await;
    assert_eq!(other.unwrap_err().code, "ResourceNotFoundException");
    assert_eq!(
        server.code("DeleteStream", json!({"StreamName": "s"})).await,
        "AccessDeniedException"
    );
    server.ok("DeleteResourcePolicy", json!({"ResourceARN": STREAM})).await;
    assert_eq!(theirs("PutRecord", put).await.unwrap_err(), "ResourceNotFoundException");
    assert_eq!(
        server
            .code("DeleteResourcePolicy", json!({"ResourceARN": STREAM}))
            .await,
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn an_accounts_limits_and_settings_are_told() {
    let server = Server::with_stream(1).await;
    let limits = server.ok("DescribeLimits", json!({})).await;
    assert_eq!(
        (
            &limits["OpenShardCount"],
            &limits["ShardLimit"],
            &limits["OnDemandStreamCount"]
        ),
        (&json!(1), &json!(20_000), &json!(0))
    );
    let status = |answer: &Value| answer["MinimumThroughputBillingCommitment"]["Status"].clone();
    assert_eq!(
        status(&server.ok("DescribeAccountSettings", json!({})).await),
        "DISABLED"
    );
    let body = |status: &str| json!({"MinimumThroughputBillingCommitment": {"Status": status}});
    assert_eq!(
        status(&server.ok("UpdateAccountSettings", body("ENABLED")).await),
        "ENABLED"
    );
    let server = server.restart().await;
    let answer = server.ok("DescribeAccountSettings", json!({})).await;
    assert_eq!(status(&answer), "ENABLED");
    assert_eq!(
        answer["MinimumThroughputBillingCommitment"]["StartedAt"],
        json!(server.clock_seconds())
    );
    assert_eq!(
        status(&server.ok("UpdateAccountSettings", body("DISABLED")).await),
        "DISABLED"
    );
}
