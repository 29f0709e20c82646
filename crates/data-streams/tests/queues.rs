//! Queues: what a receiver gets, once, again, and never again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Everything, STREAM, Server, encode, text};
use serde_json::{Value, json};

/// A server with a stream and a queue `q` on it from the beginning.
struct Queue {
    server: Server,
    arn: String,
}

async fn with_stream() -> Server {
    let server = Server::start().await;
    let body = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
    server.ok("CreateStream", body).await;
    server
}

#[allow(clippy::needless_pass_by_value, reason = "they are written where it is called")]
fn wanted(name: &str, start: Value, attributes: Value) -> Value {
    let streams = json!([{"StreamARN": STREAM, "StartingPosition": start}]);
    json!({"QueueName": name, "StreamConfigurationList": streams, "QueueAttributes": attributes})
}

async fn create(server: &Server, name: &str, attributes: Value) -> String {
    let body = wanted(name, json!({"Type": "TRIM_HORIZON"}), attributes);
    text(&server.ok("CreateQueue", body).await["QueueDescription"]["QueueARN"])
}

async fn with_queue(attributes: Value) -> Queue {
    let server = with_stream().await;
    let arn = create(&server, "q", attributes).await;
    Queue { server, arn }
}

fn handles(records: &[Value]) -> Vec<Value> {
    records.iter().map(|r| r["ReceiptHandle"].clone()).collect()
}

fn data(records: &[Value]) -> BTreeSet<String> {
    records.iter().map(|r| text(&r["Data"])).collect()
}

fn all(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|t| encode(t)).collect()
}

fn entries(handles: &[Value]) -> Value {
    handles.iter().map(|h| json!({"ReceiptHandle": h})).collect()
}

fn hidden(handles: &[Value], seconds: i32) -> Value {
    let entry = |h| json!({"ReceiptHandle": h, "VisibilityTimeoutSeconds": seconds});
    handles.iter().map(entry).collect()
}

impl Queue {
    async fn put(&self, texts: &[&str]) {
        let record = |text: &&str| json!({"PartitionKey": text, "Data": encode(text)});
        let records: Vec<Value> = texts.iter().map(record).collect();
        let body = json!({"StreamName": "s", "Records": records});
        self.server.ok("PutRecords", body).await;
    }

    async fn take(&self, operation: &str, more: Value) -> Vec<Value> {
        let mut body = json!({"QueueARN": self.arn, "WaitTimeSeconds": 1});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.server.ok(operation, body).await["QueueRecords"]
            .as_array()
            .unwrap()
            .clone()
    }

    async fn receive(&self) -> Vec<Value> {
        self.take("ReceiveQueueRecords", json!({})).await
    }

    async fn dead(&self) -> Vec<Value> {
        self.take("ReceiveDeadLetterQueueRecords", json!({})).await
    }

    /// How many entries succeeded, and the codes of the others.
    async fn settle(&self, operation: &str, entries: Value) -> (usize, Vec<String>) {
        let answer = self
            .server
            .ok(operation, json!({"QueueARN": self.arn, "Entries": entries}))
            .await;
        let failed = answer["Failed"].as_array().unwrap();
        assert!(
            failed
                .iter()
                .all(|f| f["ErrorMessage"].is_string() && f["ReceiptHandle"].is_string())
        );
        let codes = failed.iter().map(|f| text(&f["ErrorCode"])).collect();
        (answer["Successful"].as_array().unwrap().len(), codes)
    }

    async fn acknowledge(&self, records: &[Value]) {
        let done = self.settle("AcknowledgeQueueRecords", entries(&handles(records))).await;
        assert_eq!(done, (records.len(), vec![]));
    }

    fn pass(&self, seconds: u64) {
        self.server.clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn queues_are_made_described_listed_changed_and_deleted() {
    let server = with_stream().await;
    server.clock.advance(Duration::from_secs(5));
    let made = server
        .ok("CreateQueue", wanted("q", json!({"Type": "TRIM_HORIZON"}), json!({})))
        .await["QueueDescription"]
        .clone();
    let arn = text(&made["QueueARN"]);
    assert!(arn.starts_with("arn:aws:kinesis:us-west-2:000000000000:queue/") && !arn.ends_with("/q"));
    assert_eq!(made["QueueStatus"], "CREATING");
    assert_eq!(
        made["StreamConfigurationList"][0]["StartingPosition"],
        json!({"Type": "TRIM_HORIZON"})
    );
    let named = json!({"QueueARN": arn});
    let described = server.ok("DescribeQueue", named.clone()).await["QueueDescription"].clone();
    let dead = json!({"TargetType": "BUILT_IN", "MaxReceiveCount": 6});
    assert_eq!(
        described["QueueAttributes"],
        json!({"VisibilityTimeoutSeconds": 30, "DeadLetterConfiguration": dead})
    );
    assert_eq!(
        (&described["QueueStatus"], &described["QueueName"]),
        (&json!("ACTIVE"), &json!("q"))
    );
    let begun = described["StreamConfigurationList"][0]["StartingPosition"]["Timestamp"]
        .as_f64()
        .unwrap();
    assert_eq!(
        begun + 5.0,
        described["QueueCreationTimestamp"].as_f64().unwrap(),
        "from the stream's beginning on"
    );
    let attributes = json!({"VisibilityTimeoutSeconds": 7, "DeadLetterConfiguration": {"TargetType": "NONE"}});
    let body = json!({"QueueARN": arn, "QueueAttributes": attributes});
    let changed = server.ok("UpdateQueue", body).await["QueueDescription"].clone();
    assert_eq!(
        (&changed["QueueStatus"], &changed["QueueAttributes"]),
        (&json!("UPDATING"), &attributes)
    );
    assert_eq!(
        server.ok("DescribeQueue", named.clone()).await["QueueDescription"]["QueueAttributes"],
        attributes
    );
    for name in ["a", "r", "z"] {
        create(&server, name, json!({})).await;
    }
    let mut names = Vec::new();
    let mut body = json!({"MaxResults": 3});
    loop {
        let page = server.ok("ListQueues", body.clone()).await;
        let found = page["QueueSummaries"].as_array().unwrap();
        assert!(found.iter().all(|q| q["Streams"][0]["StreamARN"] == STREAM));
        names.extend(found.iter().map(|q| text(&q["QueueName"])));
        match page["NextToken"].as_str() {
            Some(token) => body["NextToken"] = json!(token),
            None => break,
        }
    }
    assert_eq!(names, ["a", "q", "r", "z"]);
    let other = json!({"StreamFilter": [{"StreamARN": format!("{STREAM}x")}]});
    assert_eq!(server.ok("ListQueues", other).await["QueueSummaries"], json!([]));
    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    let summary = &summary["StreamDescriptionSummary"];
    assert_eq!(
        (&summary["QueueCount"], &summary["ConsumerCount"]),
        (&json!(4), &json!(0))
    );
    let server = server.restart().await;
    server.ok("DeleteQueue", named.clone()).await;
    for operation in [
        "DescribeQueue",
        "DeleteQueue",
        "ReceiveQueueRecords",
        "ReceiveDeadLetterQueueRecords",
    ] {
        assert_eq!(
            server.code(operation, named.clone()).await,
            "ResourceNotFoundException",
            "{operation}"
        );
    }
    assert_ne!(
        create(&server, "q", json!({})).await,
        arn,
        "an old ARN never comes back"
    );
}

#[tokio::test]
async fn what_a_queue_cannot_be_is_refused() {
    let server = with_stream().await;
    server
        .ok("CreateStream", json!({"StreamName": "plain", "ShardCount": 1}))
        .await;
    let start = json!({"Type": "LATEST"});
    let mut plain = wanted("q", start.clone(), json!({}));
    plain["StreamConfigurationList"][0]["StreamARN"] = json!(STREAM.replace("/s", "/plain"));
    let mut two = wanted("q", start.clone(), json!({}));
    two["StreamConfigurationList"] = json!([{"StreamARN": STREAM}, {"StreamARN": STREAM}]);
    let no_count = json!({"DeadLetterConfiguration": {"TargetType": "BUILT_IN"}});
    for bad in [
        plain,
        two,
        wanted("q", start.clone(), no_count),
        wanted("q", json!({"Type": "AT_TIMESTAMP"}), json!({})),
        wanted("q", json!({"Type": "LATEST", "Timestamp": 1}), json!({})),
        wanted("q", json!({"Type": "AT_TIMESTAMP", "Timestamp": 9e9}), json!({})),
        wanted("q", start.clone(), json!({"VisibilityTimeoutSeconds": 43201})),
        wanted("a b", start.clone(), json!({})),
    ] {
        assert_eq!(
            server.code("CreateQueue", bad.clone()).await,
            "ValidationException",
            "{bad}"
        );
    }
    let mut nowhere = wanted("q", start.clone(), json!({}));
    nowhere["StreamConfigurationList"][0]["StreamARN"] = json!(format!("{STREAM}x"));
    assert_eq!(server.code("CreateQueue", nowhere).await, "ResourceNotFoundException");
    let arn = create(&server, "q", json!({})).await;
    let taken = wanted("q", start.clone(), json!({}));
    assert_eq!(server.code("CreateQueue", taken).await, "ResourceInUseException");
    for n in 0..18 {
        create(&server, &format!("q{n}"), json!({})).await;
    }
    let consumer = |name: &str| json!({"StreamARN": STREAM, "ConsumerName": name});
    server.ok("RegisterStreamConsumer", consumer("a")).await;
    assert_eq!(
        server.code("RegisterStreamConsumer", consumer("b")).await,
        "LimitExceededException"
    );
    let more = wanted("more", start, json!({}));
    assert_eq!(server.code("CreateQueue", more).await, "LimitExceededException");
    let mode = json!({"StreamARN": STREAM, "StreamModeDetails": {"StreamMode": "PROVISIONED"}});
    assert_eq!(server.code("UpdateStreamMode", mode).await, "ResourceInUseException");
    let delete = json!({"StreamName": "s", "EnforceConsumerDeletion": true});
    assert_eq!(
        server.code("DeleteStream", delete.clone()).await,
        "ResourceInUseException"
    );
    server.ok("DeleteQueue", json!({"QueueARN": arn})).await;
    for n in 0..18 {
        let listed = server.ok("ListQueues", json!({"MaxResults": 1})).await;
        let arn = &listed["QueueSummaries"][0]["QueueARN"];
        server.ok("DeleteQueue", json!({"QueueARN": arn})).await;
        assert_eq!(listed["NextToken"].is_null(), n == 17);
    }
    server.ok("DeleteStream", delete).await;
}

#[tokio::test]
async fn queues_have_tags_and_policies_and_another_account_comes_in_by_them_alone() {
    let queue = with_queue(json!({})).await;
    let (server, arn) = (&queue.server, &queue.arn);
    server
        .ok("TagResource", json!({"ResourceARN": arn, "Tags": {"a": "1", "b": "2"}}))
        .await;
    server
        .ok("UntagResource", json!({"ResourceARN": arn, "TagKeys": ["b"]}))
        .await;
    let tags = server.ok("ListTagsForResource", json!({"ResourceARN": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "a", "Value": "1"}]));
    let stranger = async |body: Value| {
        let everything = std::sync::Arc::new(Everything);
        server.call_as("111122223333", everything, "DescribeQueue", body).await
    };
    let refused = stranger(json!({"QueueARN": arn})).await.unwrap_err();
    let nowhere = stranger(json!({"QueueARN": format!("{arn}0")})).await.unwrap_err();
    assert_eq!(
        (refused.code.as_str(), &refused.code),
        ("ResourceNotFoundException", &nowhere.code)
    );
    assert_eq!(refused.message, nowhere.message.replace("0 under", " under"));
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "kinesis:DescribeQueue", "Resource": arn}]});
    let put = json!({"ResourceARN": arn, "Policy": policy.to_string()});
    server.ok("PutResourcePolicy", put).await;
    assert!(stranger(json!({"QueueARN": arn})).await.is_ok());
    let told = server.ok("GetResourcePolicy", json!({"ResourceARN": arn})).await;
    assert_eq!(told["Policy"], json!(policy.to_string()));
    server.ok("DeleteResourcePolicy", json!({"ResourceARN": arn})).await;
    assert!(stranger(json!({"QueueARN": arn})).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_record_comes_again_until_it_is_acknowledged() {
    let queue = with_queue(json!({"VisibilityTimeoutSeconds": 10})).await;
    queue.put(&["a", "b", "c"]).await;
    let first = queue.receive().await;
    assert_eq!(data(&first), all(&["a", "b", "c"]));
    for record in &first {
        assert_eq!(
            (&record["ReceiveCount"], record["PartitionKey"].is_string()),
            (&json!(1), true)
        );
        let id = text(&record["RecordId"]);
        assert!(id.len() <= 64 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert!(record["ApproximateArrivalTimestamp"].as_f64() <= record["FirstReceiveTimestamp"].as_f64());
    }
    queue.acknowledge(&first[..1]).await;
    assert_eq!(queue.receive().await, Vec::<Value>::new(), "they are hidden");
    queue.pass(10);
    let second = queue.receive().await;
    assert_eq!(data(&second), data(&first[1..]));
    for (old, new) in first[1..]
        .iter()
        .map(|r| (r, second.iter().find(|s| s["Data"] == r["Data"]).unwrap()))
    {
        assert_eq!(new["ReceiveCount"], 2);
        assert_eq!(
            (&old["RecordId"], &old["FirstReceiveTimestamp"]),
            (&new["RecordId"], &new["FirstReceiveTimestamp"])
        );
        assert_ne!(old["ReceiptHandle"], new["ReceiptHandle"]);
    }
    queue.pass(11);
    // Nobody has received it since, so the newest handle still tells which one is done.
    queue.acknowledge(&second).await;
    assert_eq!(queue.receive().await, Vec::<Value>::new());
    let other = create(&queue.server, "other", json!({})).await;
    let other = Queue {
        arn: other,
        server: queue.server,
    };
    let theirs = other.receive().await;
    assert_eq!(data(&theirs), all(&["a", "b", "c"]), "another queue has its own state");
    let id = |records: &[Value]| records.iter().map(|r| text(&r["RecordId"])).collect::<BTreeSet<_>>();
    assert_eq!(id(&theirs), id(&first));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_says_how_long_a_record_is_its_own() {
    let queue = with_queue(json!({})).await;
    queue.put(&["a"]).await;
    let [record] = queue
        .take("ReceiveQueueRecords", json!({"VisibilityTimeoutSeconds": 5}))
        .await
        .try_into()
        .unwrap();
    queue.pass(4);
    let longer = hidden(&[record["ReceiptHandle"].clone()], 100);
    assert_eq!(queue.settle("UpdateQueueRecordsVisibility", longer).await, (1, vec![]));
    queue.pass(99);
    assert!(queue.receive().await.is_empty());
    queue.pass(1);
    let again = queue.receive().await;
    assert_eq!(again.len(), 1);
    let now = hidden(&handles(&again), 0);
    assert_eq!(queue.settle("UpdateQueueRecordsVisibility", now).await, (1, vec![]));
    assert_eq!(queue.receive().await[0]["ReceiveCount"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_can_do_becomes_a_dead_letter_and_can_be_restored() {
    let dead = json!({"TargetType": "BUILT_IN", "MaxReceiveCount": 2});
    let attributes = json!({"VisibilityTimeoutSeconds": 10, "DeadLetterConfiguration": dead});
    let mut queue = with_queue(attributes).await;
    queue.put(&["poison"]).await;
    for count in 1..=2 {
        assert_eq!(queue.receive().await[0]["ReceiveCount"], count);
        assert!(queue.dead().await.is_empty(), "it may still be acknowledged");
        queue.pass(10);
        queue.server = queue.server.restart().await;
    }
    assert!(queue.receive().await.is_empty());
    let [letter] = queue.dead().await.try_into().unwrap();
    assert_eq!(
        (&letter["Data"], &letter["PartitionKey"]),
        (&json!(encode("poison")), &json!("poison"))
    );
    assert!(queue.dead().await.is_empty(), "it is hidden");
    let handle = [letter["ReceiptHandle"].clone()];
    let wrong = queue.settle("AcknowledgeQueueRecords", entries(&handle)).await;
    assert_eq!(wrong, (0, vec!["InvalidArgumentException".to_owned()]));
    let shown = queue
        .settle("UpdateDeadLetterQueueRecordsVisibility", hidden(&handle, 0))
        .await;
    assert_eq!(shown, (1, vec![]));
    let again = handles(&queue.dead().await);
    assert_eq!(
        queue.settle("RestoreDeadLetterQueueRecords", entries(&again)).await,
        (1, vec![])
    );
    assert!(queue.dead().await.is_empty());
    let [restored] = queue.receive().await.try_into().unwrap();
    assert_eq!(
        (&restored["ReceiveCount"], &restored["RecordId"]),
        (&json!(1), &letter["RecordId"])
    );
    queue.pass(10);
    queue.receive().await;
    queue.pass(10);
    let last = handles(&queue.dead().await);
    assert_eq!(
        queue.settle("AcknowledgeDeadLetterQueueRecords", entries(&last)).await,
        (1, vec![])
    );
    queue.pass(100);
    assert!(queue.dead().await.is_empty() && queue.receive().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_dead_letters_a_record_comes_for_ever() {
    let dead = json!({"TargetType": "NONE"});
    let queue = with_queue(json!({"VisibilityTimeoutSeconds": 0, "DeadLetterConfiguration": dead})).await;
    queue.put(&["a"]).await;
    for count in 1..=20 {
        assert_eq!(queue.receive().await[0]["ReceiveCount"], count);
    }
    queue.put(&["b"]).await;
    let found: BTreeSet<String> = [queue.receive().await, queue.receive().await]
        .iter()
        .flat_map(|r| data(r))
        .collect();
    assert_eq!(
        found,
        all(&["a", "b"]),
        "what comes again does not keep the new ones away"
    );
    let dead = json!({"TargetType": "BUILT_IN", "MaxReceiveCount": 2});
    let body = json!({"QueueARN": queue.arn, "QueueAttributes": {"DeadLetterConfiguration": dead}});
    queue.server.ok("UpdateQueue", body).await;
    assert_eq!(
        data(&queue.dead().await),
        all(&["a", "b"]),
        "a new limit holds for what is there"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handle_is_good_for_one_delivery_of_one_queue() {
    let queue = with_queue(json!({"VisibilityTimeoutSeconds": 10})).await;
    queue.put(&["a", "b"]).await;
    let first = queue.receive().await;
    queue.pass(10);
    let second = queue.receive().await;
    let stranger = Queue {
        arn: create(&queue.server, "other", json!({})).await,
        server: queue.server,
    };
    let theirs = stranger.receive().await;
    let queue = Queue {
        arn: queue.arn,
        server: stranger.server,
    };
    let bad = [
        json!("forged"),
        first[0]["ReceiptHandle"].clone(),
        theirs[0]["ReceiptHandle"].clone(),
    ];
    for operation in [
        "AcknowledgeQueueRecords",
        "RestoreDeadLetterQueueRecords",
        "AcknowledgeDeadLetterQueueRecords",
    ] {
        let (done, codes) = queue.settle(operation, entries(&bad)).await;
        assert_eq!(
            (done, codes),
            (0, vec!["InvalidArgumentException".to_owned(); 3]),
            "{operation}"
        );
    }
    let good = second[0]["ReceiptHandle"].clone();
    let mixed = [
        good.clone(),
        json!("forged"),
        good.clone(),
        second[1]["ReceiptHandle"].clone(),
    ];
    let (done, codes) = queue.settle("AcknowledgeQueueRecords", entries(&mixed)).await;
    assert_eq!(
        (done, codes),
        (
            2,
            vec![
                "InvalidArgumentException".to_owned(),
                "ResourceNotFoundException".to_owned()
            ]
        )
    );
    let (done, codes) = queue.settle("UpdateQueueRecordsVisibility", hidden(&[good], 5)).await;
    assert_eq!((done, codes), (0, vec!["ResourceNotFoundException".to_owned()]));
    let none = json!({"QueueARN": queue.arn, "Entries": []});
    assert_eq!(
        queue.server.code("AcknowledgeQueueRecords", none).await,
        "ValidationException"
    );
}

#[tokio::test(start_paused = true)]
async fn a_queue_begins_where_it_was_told() {
    let server = with_stream().await;
    let put = async |server: &Server, text: &str| {
        let body = json!({"StreamName": "s", "PartitionKey": text, "Data": encode(text)});
        server.ok("PutRecord", body).await;
        server.clock.advance(Duration::from_secs(10));
    };
    put(&server, "a").await;
    let at = server.clock_seconds();
    put(&server, "b").await;
    let mut arns = Vec::new();
    for (n, start) in [
        json!({"Type": "LATEST"}),
        json!({"Type": "AT_TIMESTAMP", "Timestamp": at}),
        json!({"Type": "TRIM_HORIZON"}),
    ]
    .into_iter()
    .enumerate()
    {
        let made = server
            .ok("CreateQueue", wanted(&format!("q{n}"), start, json!({})))
            .await;
        arns.push(text(&made["QueueDescription"]["QueueARN"]));
    }
    put(&server, "c").await;
    let mut server = server.restart().await;
    for (arn, found) in arns.into_iter().zip([&["c"][..], &["b", "c"], &["a", "b", "c"]]) {
        let queue = Queue { server, arn };
        assert_eq!(data(&queue.receive().await), all(found));
        server = queue.server;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_no_acknowledgement_and_no_delivery() {
    let mut queue = with_queue(json!({"VisibilityTimeoutSeconds": 10})).await;
    let texts: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    queue.put(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut done = BTreeSet::new();
    let mut held = Vec::new();
    for n in 0..20 {
        let records = queue.receive().await;
        assert_eq!(records.len(), 10);
        queue.acknowledge(&records[n % 5..]).await;
        done.extend(data(&records[n % 5..]));
        held.extend(records[..n % 5].to_vec());
    }
    queue.server = queue.server.restart().await;
    queue.acknowledge(&held[..1]).await;
    done.extend(data(&held[..1]));
    queue.pass(10);
    let mut rest = BTreeSet::new();
    loop {
        let records = queue.receive().await;
        if records.is_empty() {
            break;
        }
        for record in &records {
            let again = held.iter().any(|h| h["RecordId"] == record["RecordId"]);
            assert_eq!(record["ReceiveCount"], if again { 2 } else { 1 });
            assert!(rest.insert(text(&record["Data"])), "it went to two");
        }
        queue.acknowledge(&records).await;
    }
    assert!(done.is_disjoint(&rest));
    assert_eq!(done.len() + rest.len(), 300);
}

#[tokio::test(start_paused = true)]
async fn records_of_all_shards_come_before_and_after_a_change_of_shards_and_encrypted_ones_too() {
    let queue = with_queue(json!({})).await;
    let texts: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    queue.put(&texts[..20]).await;
    let key = json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"});
    queue.server.ok("StartStreamEncryption", key).await;
    let more = json!({"StreamARN": STREAM, "WarmThroughputMiBps": 9});
    queue.server.ok("UpdateStreamWarmThroughput", more).await;
    queue.put(&texts[20..]).await;
    let mut found = BTreeSet::new();
    while found.len() < 40 {
        let records = queue.receive().await;
        assert!(!records.is_empty() && records.iter().all(|r| found.insert(text(&r["Data"]))));
        assert!(
            records
                .iter()
                .all(|r| encode(r["PartitionKey"].as_str().unwrap()) == text(&r["Data"]))
        );
        queue.acknowledge(&records).await;
    }
    assert_eq!(found, all(&texts));
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_its_retention_is_delivered_no_more() {
    let dead = json!({"TargetType": "BUILT_IN", "MaxReceiveCount": 1});
    let queue = with_queue(json!({"DeadLetterConfiguration": dead})).await;
    queue.put(&["dead", "held"]).await;
    let held = queue.receive().await;
    queue.pass(3600);
    queue.put(&["never received"]).await;
    queue.pass(3600);
    queue.put(&["young"]).await;
    queue.pass(23 * 3600 + 1);
    // Still in the log: no sweep has been.
    assert_eq!(data(&queue.receive().await), all(&["young"]));
    assert!(queue.dead().await.is_empty());
    let (done, codes) = queue
        .settle("AcknowledgeQueueRecords", entries(&handles(&held[..1])))
        .await;
    assert_eq!((done, codes), (0, vec!["ResourceNotFoundException".to_owned()]));
    queue.server.service.sweep().await;
    queue.pass(48 * 3600);
    queue.server.service.sweep().await;
    assert!(queue.receive().await.is_empty());
    queue.put(&["new"]).await;
    assert_eq!(data(&queue.receive().await), all(&["new"]));
}

#[tokio::test]
async fn a_waiting_receiver_gets_a_record_as_soon_as_it_is_there() {
    let queue = with_queue(json!({})).await;
    let wait = json!({"WaitTimeSeconds": 20});
    let began = tokio::time::Instant::now();
    let (records, ()) = tokio::join!(queue.take("ReceiveQueueRecords", wait), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        queue.put(&["a"]).await;
    });
    assert_eq!(data(&records), all(&["a"]));
    assert!(began.elapsed() < Duration::from_secs(5));
    let (again, ()) = tokio::join!(
        queue.take("ReceiveQueueRecords", json!({"WaitTimeSeconds": 20})),
        async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            queue
                .settle("UpdateQueueRecordsVisibility", hidden(&handles(&records), 0))
                .await;
        }
    );
    assert_eq!(again[0]["ReceiveCount"], 2);
    let body = json!({"QueueARN": queue.arn, "WaitTimeSeconds": 20});
    let (refused, _) = tokio::join!(queue.server.code("ReceiveQueueRecords", body), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        queue.server.ok("DeleteQueue", json!({"QueueARN": queue.arn})).await
    });
    assert_eq!(
        refused, "ResourceNotFoundException",
        "a queue that is deleted keeps nobody waiting"
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn no_record_goes_to_two_receivers_and_one_who_hangs_up_takes_none() {
    let queue = with_queue(json!({})).await;
    let wait = || queue.take("ReceiveQueueRecords", json!({"WaitTimeSeconds": 20, "Limit": 3}));
    let gone = tokio::time::timeout(Duration::from_millis(30), wait()).await;
    assert!(gone.is_err());
    let receivers = futures_util::future::join_all((0..10).map(|_| wait()));
    let (found, ()) = tokio::join!(receivers, async {
        for n in 0..30 {
            queue.put(&[&n.to_string()]).await;
        }
    });
    let found: Vec<Value> = found.into_iter().flatten().collect();
    assert!(
        found.iter().all(|r| r["ReceiveCount"] == 1),
        "the one that hung up has received nothing"
    );
    assert!(found.len() >= 10);
    let mut seen = data(&found);
    assert_eq!(seen.len(), found.len());
    while seen.len() < 30 {
        let records = queue.take("ReceiveQueueRecords", json!({})).await;
        assert!(!records.is_empty() && records.iter().all(|r| seen.insert(text(&r["Data"]))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_may_wait_for_a_queue_and_those_beyond_are_told_so() {
    let queue = with_queue(json!({})).await;
    let wait = || {
        queue.server.call(
            "ReceiveQueueRecords",
            json!({"QueueARN": queue.arn, "WaitTimeSeconds": 1}),
        )
    };
    for _ in 0..2 {
        let answers = futures_util::future::join_all((0..1010).map(|_| wait())).await;
        let refused: Vec<String> = answers.into_iter().filter_map(|a| Some(a.err()?.code)).collect();
        assert_eq!(refused, vec!["ThrottlingException"; 10]);
    }
    queue.put(&["a"]).await;
    assert_eq!(data(&queue.receive().await), all(&["a"]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_deleted_queue() {
    let queue = with_queue(json!({})).await;
    let rows = async |queue: &Queue| {
        let page = queue
            .server
            .catalog
            .page("-/-/data-stream-queue", None, 1000)
            .await
            .unwrap();
        page.entries.len()
    };
    let texts: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    queue.put(&texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for _ in 0..30 {
        queue.receive().await;
    }
    let there = rows(&queue).await;
    assert!(there > 4, "{there}");
    queue.server.ok("DeleteQueue", json!({"QueueARN": queue.arn})).await;
    let queue = Queue {
        server: queue.server.restart().await,
        arn: queue.arn,
    };
    queue.server.service.sweep().await;
    assert_eq!(rows(&queue).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_answered_when_it_is_written_and_not_before() {
    let queue = with_queue(json!({"VisibilityTimeoutSeconds": 10})).await;
    queue.put(&["a", "b"]).await;
    let records = queue.receive().await;
    let body = json!({"QueueARN": queue.arn, "Entries": entries(&handles(&records[..1]))});
    queue.server.memory.set_full(true);
    let hide = json!({"QueueARN": queue.arn, "Entries": hidden(&handles(&records), 100)});
    assert_eq!(
        queue.server.code("UpdateQueueRecordsVisibility", hide).await,
        "InternalFailureException"
    );
    queue.server.memory.set_full(false);
    queue.server.memory.hold();
    let acknowledge = queue.server.call("AcknowledgeQueueRecords", body);
    let mut acknowledge = std::pin::pin!(acknowledge);
    assert!(
        tokio::time::timeout(Duration::from_secs(5), acknowledge.as_mut())
            .await
            .is_err()
    );
    queue.server.memory.release();
    assert_eq!(acknowledge.await.unwrap()["Successful"].as_array().unwrap().len(), 1);
    queue.pass(10);
    assert_eq!(data(&queue.receive().await), data(&records[1..]));
}
