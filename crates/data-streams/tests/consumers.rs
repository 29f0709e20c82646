//! Registered consumers, and what is pushed to them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use common::{STREAM, Server, encode, text};
use serde_json::{Value, json};

async fn with_consumer() -> (Server, String) {
    let server = Server::with_stream(1).await;
    server.clock.advance(Duration::from_secs(1));
    let arn = register(&server, "app").await;
    (server, arn)
}

async fn register(server: &Server, name: &str) -> String {
    let body = json!({"StreamARN": STREAM, "ConsumerName": name});
    let answer = server.ok("RegisterStreamConsumer", body).await;
    text(&answer["Consumer"]["ConsumerARN"])
}

async fn put(server: &Server, data: &str) -> String {
    let body = json!({"StreamName": "s", "PartitionKey": "a", "Data": encode(data)});
    text(&server.ok("PutRecord", body).await["SequenceNumber"])
}

fn data(event: &Value) -> Vec<String> {
    event["Records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| text(&r["Data"]))
        .collect()
}

#[tokio::test]
async fn consumers_are_registered_found_and_deregistered() {
    let (server, arn) = with_consumer().await;
    assert!(arn.starts_with(&format!("{STREAM}/consumer/app:17673230")), "{arn}");
    let by_name = json!({"StreamARN": STREAM, "ConsumerName": "app"});
    let described = server.ok("DescribeStreamConsumer", by_name.clone()).await["ConsumerDescription"].clone();
    assert_eq!(described["ConsumerARN"], json!(arn));
    assert_eq!(
        (&described["ConsumerStatus"], &described["StreamARN"]),
        (&json!("ACTIVE"), &json!(STREAM))
    );
    let created = described["ConsumerCreationTimestamp"].as_f64().unwrap();
    assert!(arn.ends_with(&format!(":{created}")));
    let by_arn = json!({"ConsumerARN": arn});
    assert_eq!(
        server.ok("DescribeStreamConsumer", by_arn.clone()).await["ConsumerDescription"],
        described
    );
    assert_eq!(
        server.code("RegisterStreamConsumer", by_name.clone()).await,
        "ResourceInUseException"
    );
    let missing = json!({"StreamARN": STREAM, "ConsumerName": "other"});
    let error = server.call("DescribeStreamConsumer", missing).await.unwrap_err();
    assert_eq!((error.status, &*error.code), (400, "ResourceNotFoundException"));
    assert_eq!(error.message, "Consumer other, account 000000000000 not found.");
    for odd in [
        json!({}),
        json!({"StreamARN": STREAM}),
        json!({"ConsumerARN": arn, "StreamARN": format!("{STREAM}x")}),
    ] {
        assert_eq!(
            server.code("DescribeStreamConsumer", odd).await,
            "InvalidArgumentException"
        );
    }
    assert_eq!(
        server.code("DeleteStream", json!({"StreamName": "s"})).await,
        "ResourceInUseException"
    );
    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["ConsumerCount"], 1);
    server.ok("DeregisterStreamConsumer", by_arn.clone()).await;
    assert_eq!(
        server.code("DeregisterStreamConsumer", by_arn.clone()).await,
        "ResourceNotFoundException"
    );
    let again = register(&server, "app").await;
    assert_ne!(again, arn, "an old ARN never comes back");
    assert_eq!(
        server.code("DescribeStreamConsumer", by_arn).await,
        "ResourceNotFoundException"
    );
    server
        .ok(
            "DeleteStream",
            json!({"StreamName": "s", "EnforceConsumerDeletion": true}),
        )
        .await;
}

#[tokio::test]
async fn consumers_are_listed_in_pages_and_twenty_are_the_limit() {
    let (server, _) = with_consumer().await;
    for n in 1..20 {
        register(&server, &format!("app{n:02}")).await;
    }
    let one_more = json!({"StreamARN": STREAM, "ConsumerName": "z"});
    assert_eq!(
        server.code("RegisterStreamConsumer", one_more).await,
        "LimitExceededException"
    );
    let mut found = Vec::new();
    let mut body = json!({"StreamARN": STREAM, "MaxResults": 7});
    loop {
        let page = server.ok("ListStreamConsumers", body.clone()).await;
        found.extend(
            page["Consumers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| text(&c["ConsumerName"])),
        );
        match page["NextToken"].as_str() {
            Some(token) => body["NextToken"] = json!(token),
            None => break,
        }
    }
    assert_eq!((found.len(), &*found[0], &*found[19]), (20, "app", "app19"));
    let server = server.restart().await;
    let page = server.ok("ListStreamConsumers", json!({"StreamARN": STREAM})).await;
    assert_eq!(page["Consumers"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_subscriber_gets_what_is_there_and_what_comes() {
    let (server, arn) = with_consumer().await;
    put(&server, "0").await;
    let mut events = server
        .subscribe(&arn, 0, json!({"Type": "TRIM_HORIZON"}))
        .await
        .unwrap();
    let event = events.records().await;
    assert_eq!(
        (data(&event), &event["MillisBehindLatest"]),
        (vec![encode("0")], &json!(0))
    );
    for n in 1..5 {
        put(&server, &n.to_string()).await;
        let event = events.records().await;
        assert_eq!(data(&event), [encode(&n.to_string())]);
        assert_eq!(event["Records"][0]["PartitionKey"], "a");
    }
    let mut last = Value::Null;
    put(&server, "5").await;
    while data(&last_or(&last)).is_empty() {
        last = events.records().await;
    }
    drop(events);
    // Going on from there, in either way, loses nothing and repeats nothing.
    put(&server, "6").await;
    for (seconds, kind) in [(6, "AT_SEQUENCE_NUMBER"), (12, "AFTER_SEQUENCE_NUMBER")] {
        server.clock.advance(Duration::from_secs(seconds));
        let start = json!({"Type": kind, "SequenceNumber": last["ContinuationSequenceNumber"]});
        let mut events = server.subscribe(&arn, 0, start).await.unwrap();
        assert_eq!(data(&events.records().await), [encode("6")], "{kind}");
    }
    server.clock.advance(Duration::from_secs(6));
    let mut latest = server.subscribe(&arn, 0, json!({"Type": "LATEST"})).await.unwrap();
    let (name, empty) = latest.next().await.unwrap();
    assert_eq!(
        (&*name, &empty["Records"], &empty["MillisBehindLatest"]),
        ("SubscribeToShardEvent", &json!([]), &json!(0))
    );
    put(&server, "7").await;
    assert_eq!(data(&latest.records().await), [encode("7")]);
}

fn last_or(value: &Value) -> Value {
    match value {
        Value::Null => json!({"Records": []}),
        other => other.clone(),
    }
}

#[tokio::test]
async fn the_end_of_a_shard_ends_its_subscriptions_with_its_children() {
    let (server, arn) = with_consumer().await;
    let mut events = server.subscribe(&arn, 0, json!({"Type": "LATEST"})).await.unwrap();
    put(&server, "0").await;
    assert_eq!(data(&events.records().await), [encode("0")]);
    let body = json!({"StreamName": "s", "ShardToSplit": "shardId-000000000000", "NewStartingHashKey": "99"});
    server.ok("SplitShard", body).await;
    let last = events.records().await;
    assert_eq!(
        last["ContinuationSequenceNumber"],
        Value::Null,
        "this is how the consumer library knows the end"
    );
    let children: Vec<_> = last["ChildShards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["ShardId"].clone())
        .collect();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    assert_eq!(events.next().await, None);
    let mut child = server
        .subscribe(&arn, 2, json!({"Type": "TRIM_HORIZON"}))
        .await
        .unwrap();
    put(&server, "1").await;
    assert_eq!(data(&child.records().await), [encode("1")]);
}

#[tokio::test]
async fn a_later_subscription_takes_over_but_not_at_once() {
    let (server, arn) = with_consumer().await;
    let other = register(&server, "other").await;
    let latest = json!({"Type": "LATEST"});
    let mut first = server.subscribe(&arn, 0, latest.clone()).await.unwrap();
    first.next().await.unwrap();
    let refused = server.subscribe(&arn, 0, latest.clone()).await.err().unwrap();
    assert_eq!((refused.status, &*refused.code), (400, "ResourceInUseException"));
    let mut beside = server.subscribe(&other, 0, latest.clone()).await.unwrap();
    server.clock.advance(Duration::from_secs(5));
    let mut second = server.subscribe(&arn, 0, latest).await.unwrap();
    let (name, told) = first.next().await.unwrap();
    assert_eq!(name, "ResourceInUseException", "{told}");
    assert!(text(&told["message"]).contains("app"));
    assert_eq!(first.next().await, None);
    put(&server, "0").await;
    assert_eq!(data(&second.records().await), [encode("0")]);
    assert_eq!(data(&beside.records().await), [encode("0")]);
}

#[tokio::test]
async fn a_subscription_ends_with_its_consumer_and_its_stream() {
    let (server, arn) = with_consumer().await;
    let other = register(&server, "other").await;
    let latest = json!({"Type": "LATEST"});
    let mut one = server.subscribe(&arn, 0, latest.clone()).await.unwrap();
    let mut two = server.subscribe(&other, 0, latest.clone()).await.unwrap();
    one.next().await.unwrap();
    two.next().await.unwrap();
    server.ok("DeregisterStreamConsumer", json!({"ConsumerARN": arn})).await;
    assert_eq!(one.next().await.unwrap().0, "ResourceNotFoundException");
    assert_eq!(one.next().await, None);
    server
        .ok(
            "DeleteStream",
            json!({"StreamName": "s", "EnforceConsumerDeletion": true}),
        )
        .await;
    assert_eq!(two.next().await.unwrap().0, "ResourceNotFoundException");
    let gone = server.subscribe(&other, 0, latest).await.err().unwrap();
    assert_eq!(gone.code, "ResourceNotFoundException");
}

#[tokio::test]
async fn a_silent_subscription_says_so_and_lives_five_minutes() {
    let (server, arn) = with_consumer().await;
    let mut events = server.subscribe(&arn, 0, json!({"Type": "LATEST"})).await.unwrap();
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let mut silent = 0;
    while let Some((name, event)) = events.next().await {
        assert_eq!((&*name, &event["Records"]), ("SubscribeToShardEvent", &json!([])));
        silent += 1;
    }
    let lived = began.elapsed().as_secs();
    assert!((299..=301).contains(&lived), "{lived} s");
    assert!((50..=61).contains(&silent), "{silent} events");
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused_before_anything_is_sent() {
    let (server, arn) = with_consumer().await;
    for (consumer, shard, start, code) in [
        (&*arn, 5, json!({"Type": "LATEST"}), "ResourceNotFoundException"),
        (
            &*format!("{STREAM}/consumer/no:1"),
            0,
            json!({"Type": "LATEST"}),
            "ResourceNotFoundException",
        ),
        (
            &*arn,
            0,
            json!({"Type": "AT_SEQUENCE_NUMBER"}),
            "InvalidArgumentException",
        ),
        (&*arn, 0, json!({"Type": "AT_TIMESTAMP"}), "InvalidArgumentException"),
        (
            &*arn,
            0,
            json!({"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": "7"}),
            "InvalidArgumentException",
        ),
        (&*arn, 0, json!({"Type": "NO"}), "ValidationException"),
        (STREAM, 0, json!({"Type": "LATEST"}), "ValidationException"),
    ] {
        let refused = server.subscribe(consumer, shard, start.clone()).await.err().unwrap();
        assert_eq!((refused.status, &*refused.code), (400, code), "{consumer} {start}");
    }
    let dry = json!({"ConsumerARN": arn, "ShardId": "shardId-000000000000", "StartingPosition": {"Type": "LATEST"}, "DryRun": true});
    assert_eq!(server.code("SubscribeToShard", dry).await, "DryRunOperationException");
    server.subscribe(&arn, 0, json!({"Type": "LATEST"})).await.unwrap();
}
