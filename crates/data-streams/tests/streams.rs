//! Making, showing, listing and deleting streams.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::Arc;

use base::{Authorizer, ResourceName};
use common::failing::{FailingLog, Failure};
use common::{START, Server, open_log, service, text};
use data_streams::{PutError, StreamDeleted};
use serde_json::{Value, json};

#[derive(Debug)]
struct Policy(&'static [(&'static str, &'static str)]);

impl Authorizer for Policy {
    fn allows(&self, action: &str, resource: &str) -> bool {
        self.0.contains(&(action, resource))
    }
}

#[tokio::test]
async fn a_new_stream_is_active_and_described_as_aws_does() {
    let server = Server::start().await;
    let made = server
        .ok(
            "CreateStream",
            json!({"StreamName": "faces", "ShardCount": 2, "Tags": {"a": "b"}}),
        )
        .await;
    assert_eq!(made, Value::Null);
    let arn = "arn:aws:kinesis:us-west-2:000000000000:stream/faces";
    let described = server.ok("DescribeStream", json!({"StreamARN": arn})).await;
    let stream = &described["StreamDescription"];
    assert_eq!(stream["StreamStatus"], "ACTIVE");
    assert_eq!(stream["StreamARN"], arn);
    assert_eq!(stream["RetentionPeriodHours"], 24);
    assert_eq!(stream["EncryptionType"], "NONE");
    assert_eq!(stream["EnhancedMonitoring"], json!([{"ShardLevelMetrics": []}]));
    assert_eq!(stream["StreamModeDetails"]["StreamMode"], "PROVISIONED");
    assert_eq!(stream["StreamCreationTimestamp"].as_f64(), Some(START.seconds()));
    assert_eq!(stream["HasMoreShards"], false);
    assert_eq!(stream["Shards"][0]["ShardId"], "shardId-000000000000");
    assert_eq!(stream["Shards"][0]["HashKeyRange"]["StartingHashKey"], "0");
    assert_eq!(
        stream["Shards"][1]["HashKeyRange"]["EndingHashKey"],
        "340282366920938463463374607431768211455"
    );
    assert!(
        stream["Shards"][1]["SequenceNumberRange"]
            .get("EndingSequenceNumber")
            .is_none()
    );

    let page = server
        .ok("DescribeStream", json!({"StreamName": "faces", "Limit": 1}))
        .await;
    assert_eq!(page["StreamDescription"]["HasMoreShards"], true);
    let rest = json!({"StreamName": "faces", "ExclusiveStartShardId": "shardId-000000000000"});
    let rest = server.ok("DescribeStream", rest).await;
    assert_eq!(rest["StreamDescription"]["Shards"].as_array().unwrap().len(), 1);

    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "faces"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 2);
    assert_eq!(summary["StreamDescriptionSummary"]["ConsumerCount"], 0);
}

#[tokio::test]
async fn an_on_demand_stream_chooses_its_shards() {
    let server = Server::start().await;
    let mode = json!({"StreamMode": "ON_DEMAND"});
    server
        .ok("CreateStream", json!({"StreamName": "s", "StreamModeDetails": mode}))
        .await;
    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["OpenShardCount"], 4);
    assert_eq!(
        summary["StreamDescriptionSummary"]["StreamModeDetails"]["StreamMode"],
        "ON_DEMAND"
    );
}

#[tokio::test]
async fn arguments_of_create_stream_that_make_no_stream_are_refused() {
    let server = Server::start().await;
    let on_demand = json!({"StreamMode": "ON_DEMAND"});
    for (body, code) in [
        (json!({"StreamName": "s"}), "InvalidArgumentException"),
        (
            json!({"StreamName": "s", "ShardCount": 1, "StreamModeDetails": on_demand}),
            "InvalidArgumentException",
        ),
        (json!({"StreamName": "s", "ShardCount": 0}), "ValidationException"),
        (json!({"StreamName": "s", "ShardCount": 1001}), "LimitExceededException"),
        (
            json!({"StreamName": "s", "ShardCount": 2_147_483_647}),
            "LimitExceededException",
        ),
        (json!({"StreamName": "s/t", "ShardCount": 1}), "ValidationException"),
        (
            json!({"StreamName": "s", "ShardCount": 1, "MaxRecordSizeInKiB": 1}),
            "ValidationException",
        ),
        (
            json!({"StreamName": "s", "ShardCount": 1, "RecordDistributionStrategy": "AUTO"}),
            "InvalidArgumentException",
        ),
    ] {
        assert_eq!(server.code("CreateStream", body.clone()).await, code, "{body}");
    }
    assert_eq!(server.ok("ListStreams", json!({})).await["StreamNames"], json!([]));
}

#[tokio::test]
async fn of_many_who_take_a_name_at_once_one_gets_it() {
    let server = Arc::new(Server::start().await);
    let tries = (0..20).map(|_| {
        let server = server.clone();
        tokio::spawn(async move {
            server
                .call("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
                .await
        })
    });
    let mut made = 0;
    for outcome in futures_util::future::join_all(tries).await {
        match outcome.unwrap() {
            Ok(_) => made += 1,
            Err(refusal) => assert_eq!(refusal.code, "ResourceInUseException"),
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn a_deleted_name_is_free_at_once_and_nothing_of_the_old_stream_reaches_the_new() {
    let server = Server::start().await;
    let name = ResourceName {
        account: "000000000000".parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
        name: "s".to_owned(),
    };
    let mut deletions = server.service.deletions();
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    let old = server.service.find(&name).unwrap();
    server
        .ok(
            "PutRecord",
            json!({"StreamName": "s", "Data": "b2xk", "PartitionKey": "k"}),
        )
        .await;
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;

    server
        .ok(
            "DeleteStream",
            json!({"StreamName": "s", "EnforceConsumerDeletion": true}),
        )
        .await;
    assert_eq!(
        deletions.recv().await.unwrap(),
        StreamDeleted {
            name: name.clone(),
            id: old
        }
    );
    let gone = server
        .call("DescribeStream", json!({"StreamName": "s"}))
        .await
        .unwrap_err();
    assert_eq!((gone.status, gone.code.as_str()), (400, "ResourceNotFoundException"));
    assert_eq!(gone.message, "Stream s under account 000000000000 not found.");
    assert_eq!(
        server.code("GetRecords", json!({"ShardIterator": iterator})).await,
        "ResourceNotFoundException"
    );
    assert_eq!(
        server.service.put(&name, old, "k", vec!["x".into()]).await,
        Err(PutError::StreamNotFound)
    );

    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    assert_eq!(
        server.code("GetRecords", json!({"ShardIterator": iterator})).await,
        "ResourceNotFoundException"
    );
    assert_eq!(
        server.service.put(&name, old, "k", vec!["x".into()]).await,
        Err(PutError::StreamNotFound),
        "a processor that found the old stream must not write into the new one"
    );
    assert_eq!(server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await, []);
    let new = server.service.find(&name).unwrap();
    server.service.put(&name, new, "k", vec!["x".into()]).await.unwrap();
    assert_eq!(
        server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await.len(),
        1
    );
}

#[tokio::test]
async fn another_accounts_stream_cannot_be_told_from_one_that_does_not_exist() {
    let server = Server::start().await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    let iterator = server.iterator("s", 0, "TRIM_HORIZON").await;
    #[derive(Debug)]
    struct Everything;
    impl Authorizer for Everything {
        fn allows(&self, _: &str, _: &str) -> bool {
            true
        }
    }
    let arn = |name: &str| format!("arn:aws:kinesis:us-west-2:000000000000:stream/{name}");
    for operation in ["DescribeStream", "DescribeStreamSummary", "DeleteStream", "ListShards"] {
        let other = |body| server.call_as("111111111111", Arc::new(Everything), operation, body);
        let theirs = other(json!({"StreamARN": arn("s")})).await.unwrap_err();
        let nobodys = other(json!({"StreamARN": arn("t")})).await.unwrap_err();
        assert_eq!(theirs.code, "ResourceNotFoundException");
        assert_eq!(
            theirs.message.replace("Stream s", "Stream t"),
            nobodys.message,
            "{operation}"
        );
        assert_eq!(
            other(json!({"StreamName": "s"})).await.unwrap_err().code,
            "ResourceNotFoundException"
        );
    }
    let read = server.call_as(
        "111111111111",
        Arc::new(Everything),
        "GetRecords",
        json!({"ShardIterator": iterator}),
    );
    assert_eq!(read.await.unwrap_err().code, "InvalidArgumentException");
    let listed = server
        .call_as("111111111111", Arc::new(Everything), "ListStreams", json!({}))
        .await
        .unwrap();
    assert_eq!(listed["StreamNames"], json!([]));
    assert!(server.call("DescribeStream", json!({"StreamName": "s"})).await.is_ok());
}

#[tokio::test]
async fn a_stream_is_named_by_name_or_arn_and_not_by_both_of_different_ones() {
    let server = Server::start().await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    let arn = "arn:aws:kinesis:us-west-2:000000000000:stream/s";
    server
        .ok("DescribeStream", json!({"StreamName": "s", "StreamARN": arn}))
        .await;
    for body in [json!({}), json!({"StreamName": "t", "StreamARN": arn})] {
        assert_eq!(server.code("DescribeStream", body).await, "InvalidArgumentException");
    }
    let other_region = "arn:aws:kinesis:eu-west-1:000000000000:stream/s";
    assert_eq!(
        server.code("DescribeStream", json!({"StreamARN": other_region})).await,
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn streams_are_listed_in_pages() {
    let server = Server::start().await;
    for i in [3, 1, 2, 5, 4] {
        server
            .ok("CreateStream", json!({"StreamName": format!("s{i}"), "ShardCount": 1}))
            .await;
    }
    let first = server.ok("ListStreams", json!({"Limit": 2})).await;
    assert_eq!(first["StreamNames"], json!(["s1", "s2"]));
    assert_eq!(first["HasMoreStreams"], true);
    assert_eq!(first["StreamSummaries"][1]["StreamName"], "s2");
    let token = text(&first["NextToken"]);
    let second = server.ok("ListStreams", json!({"Limit": 3, "NextToken": token})).await;
    assert_eq!(second["StreamNames"], json!(["s3", "s4", "s5"]));
    assert_eq!(second["HasMoreStreams"], false);
    assert!(second.get("NextToken").is_none());
    let older = server
        .ok("ListStreams", json!({"ExclusiveStartStreamName": "s4"}))
        .await;
    assert_eq!(older["StreamNames"], json!(["s5"]));
    assert_eq!(
        server.code("ListStreams", json!({"NextToken": "AAAA"})).await,
        "InvalidArgumentException"
    );
    server.clock.advance(std::time::Duration::from_secs(301));
    assert_eq!(
        server.code("ListStreams", json!({"NextToken": token})).await,
        "ExpiredNextTokenException"
    );
}

#[tokio::test]
async fn shards_are_listed_in_pages_and_by_filter() {
    let server = Server::start().await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 5}))
        .await;
    let ids = |answer: &Value| -> Vec<String> {
        answer["Shards"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| text(&s["ShardId"])[18..].to_owned())
            .collect()
    };
    let first = server
        .ok("ListShards", json!({"StreamName": "s", "MaxResults": 2}))
        .await;
    assert_eq!(ids(&first), ["00", "01"]);
    let token = text(&first["NextToken"]);
    let second = server
        .ok("ListShards", json!({"NextToken": token, "MaxResults": 2}))
        .await;
    assert_eq!(ids(&second), ["02", "03"]);
    let last = server
        .ok("ListShards", json!({"NextToken": text(&second["NextToken"])}))
        .await;
    assert_eq!(ids(&last), ["04"]);
    assert!(last.get("NextToken").is_none());
    let both = json!({"StreamName": "s", "NextToken": token});
    assert_eq!(server.code("ListShards", both).await, "InvalidArgumentException");

    for (filter, shown) in [
        (json!({"Type": "AT_LATEST"}), 5),
        (json!({"Type": "AT_TRIM_HORIZON"}), 5),
        (json!({"Type": "FROM_TRIM_HORIZON"}), 5),
        (json!({"Type": "AT_TIMESTAMP", "Timestamp": 1}), 5),
        (json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000002"}), 2),
    ] {
        let answer = server
            .ok("ListShards", json!({"StreamName": "s", "ShardFilter": filter}))
            .await;
        assert_eq!(ids(&answer).len(), shown, "{filter}");
    }
    let timeless = json!({"StreamName": "s", "ShardFilter": {"Type": "AT_TIMESTAMP"}});
    assert_eq!(server.code("ListShards", timeless).await, "InvalidArgumentException");

    server.ok("DeleteStream", json!({"StreamName": "s"})).await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 5}))
        .await;
    assert_eq!(
        server.code("ListShards", json!({"NextToken": token})).await,
        "ResourceNotFoundException",
        "a page token of the old stream must not list the new one"
    );
}

#[tokio::test]
async fn a_policy_for_one_stream_opens_neither_iterators_nor_tokens_of_another() {
    let server = Server::start().await;
    for name in ["open", "shut"] {
        server
            .ok("CreateStream", json!({"StreamName": name, "ShardCount": 2}))
            .await;
    }
    let open = "arn:aws:kinesis:us-west-2:000000000000:stream/open";
    let policy = |action| Arc::new(Policy(Box::leak(Box::new([(action, open)]))));
    for (name, allowed) in [("open", true), ("shut", false)] {
        let iterator = server.iterator(name, 0, "LATEST").await;
        let read = json!({"ShardIterator": iterator});
        let answer = server
            .call_as("000000000000", policy("kinesis:GetRecords"), "GetRecords", read)
            .await;
        assert_eq!(
            answer.map(drop).map_err(|e| e.code),
            if allowed {
                Ok(())
            } else {
                Err("AccessDeniedException".to_owned())
            }
        );
        let first = server
            .ok("ListShards", json!({"StreamName": name, "MaxResults": 1}))
            .await;
        let next = json!({"NextToken": first["NextToken"]});
        let answer = server
            .call_as("000000000000", policy("kinesis:ListShards"), "ListShards", next)
            .await;
        assert_eq!(
            answer.map(drop).map_err(|e| e.code),
            if allowed {
                Ok(())
            } else {
                Err("AccessDeniedException".to_owned())
            }
        );
    }
}

#[tokio::test]
async fn streams_and_records_are_there_after_a_restart() {
    let server = Server::start().await;
    server
        .ok(
            "CreateStream",
            json!({"StreamName": "s", "ShardCount": 3, "MaxRecordSizeInKiB": 2048}),
        )
        .await;
    let put = server
        .ok(
            "PutRecord",
            json!({"StreamName": "s", "Data": "aGVsbG8=", "PartitionKey": "k"}),
        )
        .await;
    server
        .ok("CreateStream", json!({"StreamName": "gone", "ShardCount": 1}))
        .await;
    server.ok("DeleteStream", json!({"StreamName": "gone"})).await;
    let before = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;

    let server = server.restart().await;
    assert_eq!(
        server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await,
        before
    );
    assert_eq!(server.ok("ListStreams", json!({})).await["StreamNames"], json!(["s"]));
    let shard: u32 = text(&put["ShardId"])[8..].parse().unwrap();
    let records = server.read(server.iterator("s", shard, "TRIM_HORIZON").await).await;
    let number: u128 = text(&put["SequenceNumber"]).parse().unwrap();
    assert_eq!(records, [("k".to_owned(), "aGVsbG8=".to_owned(), number)]);
    let next = server
        .ok("PutRecord", json!({"StreamName": "s", "Data": "", "PartitionKey": "k"}))
        .await;
    assert!(text(&next["SequenceNumber"]).parse::<u128>().unwrap() > number);
}

#[tokio::test]
async fn a_deletion_whose_records_stay_for_now_frees_the_name_and_is_finished_later() {
    let failure = Failure::default();
    let server = Server::start_with(|log| FailingLog::over(log, &failure)).await;
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    server
        .ok(
            "PutRecord",
            json!({"StreamName": "s", "Data": "AA==", "PartitionKey": "k"}),
        )
        .await;
    let waiting = || server.catalog.page("-/-/data-stream-id/", None, 10);
    failure.fill_disk();
    server.ok("DeleteStream", json!({"StreamName": "s"})).await;
    assert_eq!(
        server.code("DescribeStream", json!({"StreamName": "s"})).await,
        "ResourceNotFoundException"
    );
    assert_eq!(
        waiting().await.unwrap().entries.len(),
        1,
        "the catalog still knows whose records are to go"
    );
    failure.end();
    server.service.sweep().await;
    assert_eq!(waiting().await.unwrap().entries, []);
    server
        .ok("CreateStream", json!({"StreamName": "s", "ShardCount": 1}))
        .await;
    assert_eq!(server.read(server.iterator("s", 0, "TRIM_HORIZON").await).await, []);
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_finished_at_the_next_start() {
    let failure = Failure::default();
    let server = Server::start_with(|log| FailingLog::over(log, &failure)).await;
    failure.stop_writes();
    let body = json!({"StreamName": "s", "ShardCount": 3});
    // The catalog has the stream by then; its shards are never made.
    let cut = tokio::time::timeout(std::time::Duration::from_millis(200), server.call("CreateStream", body));
    assert!(cut.await.is_err());
    assert_eq!(
        server.code("DescribeStream", json!({"StreamName": "s"})).await,
        "ResourceNotFoundException"
    );

    let folder = tempfile::TempDir::new().unwrap();
    let log = open_log(&folder, &server.clock);
    let (restarted, registry) = service(
        &server.catalog,
        log.records(),
        &server.clock,
        &server.key_ring,
        Default::default(),
    )
    .await;
    let server = Server {
        service: restarted,
        registry,
        log,
        folder,
        ..server
    };
    assert_eq!(server.ok("ListStreams", json!({})).await["StreamNames"], json!(["s"]));
    for key in ["a", "b", "c", "d"] {
        server
            .ok(
                "PutRecord",
                json!({"StreamName": "s", "Data": "AA==", "PartitionKey": key}),
            )
            .await;
    }
}
