//! Channels over real data streams and a bucket in memory, called as a client would: with JSON.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use auth::KeyRing;
use base::metrics::Metrics;
use base::{AccountId, Authorizer, Caller, RequestContext, SystemClock, SystemDisk, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_streams::DataStreams;
use firehose::Firehose;
use firehose::channels::Channels;
use firehose::ports::Ports;
use futures_util::StreamExt;
use objects::{Bucket, Buckets, MemoryBuckets, ObjectError};
use serde_json::{Value, json};
use storage::{Catalog, LogOptions, LogStore, MemoryCatalog};
use tempfile::TempDir;
use wire::{Address, RawBody, RawRequest, Registry};

const STREAM: &str = "arn:aws:kinesis:us-west-2:000000000000:stream/s";
const OWNER: &str = "000000000000";

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// Buckets that may be gone for a while.
struct Door {
    behind: MemoryBuckets,
    shut: AtomicBool,
}

#[async_trait]
impl Buckets for Door {
    async fn open(&self, account: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        match self.shut.load(Ordering::SeqCst) {
            true => Err(ObjectError::NoSuchBucket(name.to_owned())),
            false => self.behind.open(account, name).await,
        }
    }
}

/// What outlives a process.
struct World {
    folder: TempDir,
    clock: Arc<SystemClock>,
    catalog: Arc<dyn Catalog>,
    key_ring: Arc<KeyRing>,
    buckets: Arc<Door>,
}

struct Server {
    registry: Registry,
    firehose: Arc<Firehose>,
    _log: LogStore,
}

impl World {
    fn new() -> World {
        let clock = Arc::new(SystemClock::new());
        let buckets = Arc::new(Door {
            behind: MemoryBuckets::new(clock.clone()),
            shut: AtomicBool::new(false),
        });
        for name in ["results", "errors"] {
            buckets.behind.create(AccountId::DEFAULT, name);
        }
        World {
            folder: TempDir::new().unwrap(),
            catalog: Arc::new(MemoryCatalog::new()),
            key_ring: Arc::new(KeyRing::ephemeral().unwrap()),
            clock,
            buckets,
        }
    }

    async fn start(&self) -> Server {
        let disk = SystemDisk::open(self.folder.path()).unwrap();
        let log = LogStore::open(
            Arc::new(disk),
            self.clock.clone(),
            LogOptions::default(),
            &Metrics::new(),
        )
        .unwrap();
        let streams = DataStreams::open(data_streams::Parts {
            catalog: self.catalog.clone(),
            records: log.records(),
            clock: self.clock.clone(),
            key_ring: self.key_ring.clone(),
            metrics: Metrics::new(),
            settings: data_streams::Settings::default(),
        })
        .await
        .unwrap();
        let firehose = Firehose::open(firehose::Parts {
            catalog: self.catalog.clone(),
            records: log.records(),
            streams: streams.clone(),
            clock: self.clock.clone(),
            key_ring: self.key_ring.clone(),
            metrics: Metrics::new(),
            ports: Ports {
                buckets: self.buckets.clone(),
                ..Ports::default()
            },
            settings: firehose::Settings::default(),
        })
        .await
        .unwrap();
        let channels = Channels::open(firehose::channels::Parts {
            catalog: self.catalog.clone(),
            streams: streams.clone(),
            firehose: firehose.clone(),
            clock: self.clock.clone(),
            key_ring: self.key_ring.clone(),
        })
        .await
        .unwrap();
        let mut registry = Registry::new();
        streams.register(&mut registry);
        channels.register(&mut registry);
        Server {
            registry,
            firehose,
            _log: log,
        }
    }

    /// Names and bodies of all objects of a bucket.
    async fn objects(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        let bucket = self.buckets.open(AccountId::DEFAULT, bucket).await.unwrap();
        let mut found = BTreeMap::new();
        for info in bucket.list("", None, 1000).await.unwrap().objects {
            let (_, mut body) = bucket.get(&info.key, None).await.unwrap();
            let mut bytes = Vec::new();
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            found.insert(info.key, bytes);
        }
        found
    }

    /// The lines of all objects of a bucket, when there are so many.
    async fn lines(&self, bucket: &str, count: usize) -> Vec<String> {
        for _ in 0..600 {
            let objects = self.objects(bucket).await;
            let text = |body: &Vec<u8>| String::from_utf8(body.clone()).unwrap();
            let lines = objects
                .values()
                .flat_map(|body| text(body).lines().map(str::to_owned).collect::<Vec<_>>());
            let mut lines: Vec<String> = lines.collect();
            if lines.len() >= count {
                lines.sort();
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not {count} lines in {bucket}: {:?}", self.objects(bucket).await)
    }
}

impl Server {
    async fn call_as(&self, account: &str, operation: &str, body: &Value) -> Result<Value, (String, String)> {
        let target = format!("Kinesis_20131202.{operation}");
        let address = Address {
            method: "POST",
            path: "/",
            scope_service: Some("kinesis"),
            target: Some(&target),
            action: None,
            content_type: None,
        };
        let route = self.registry.resolve(&address).unwrap();
        let context = RequestContext {
            caller: Caller {
                account: account.parse().unwrap(),
                region: "us-west-2".parse().unwrap(),
                access_key_id: "AKIA".into(),
                principal_arn: format!("arn:aws:iam::{account}:root").into(),
                authorizer: Arc::new(Everything),
            },
            request_id: "request".into(),
            base_url: "http://127.0.0.1".into(),
            received_at: Timestamp::from_millis(0),
        };
        let request = RawRequest {
            headers: &|_| None,
            body: RawBody::Bytes(body.to_string().into()),
        };
        match route.call(context, request).await {
            Ok(reply) => match reply.body {
                RawBody::Bytes(bytes) if bytes.is_empty() => Ok(Value::Null),
                RawBody::Bytes(bytes) => Ok(serde_json::from_slice(&bytes).unwrap()),
                _ => panic!("a stream"),
            },
            Err(error) => Err((error.code.to_string(), error.message)),
        }
    }

    async fn ok(&self, operation: &str, body: Value) -> Value {
        let answer = self.call_as(OWNER, operation, &body).await;
        answer.unwrap_or_else(|error| panic!("{operation} {body}: {error:?}"))
    }

    async fn code(&self, operation: &str, body: Value) -> String {
        let answer = self.call_as(OWNER, operation, &body).await;
        answer
            .map(|answer| panic!("{operation} {body} answered {answer}"))
            .unwrap_err()
            .0
    }

    async fn make_stream(&self) {
        let body = json!({"StreamName": "s", "StreamModeDetails": {"StreamMode": "ON_DEMAND"}});
        self.ok("CreateStream", body).await;
    }

    async fn put(&self, records: impl IntoIterator<Item = &[u8]>) {
        let record = |data: &[u8]| json!({"Data": STANDARD.encode(data), "PartitionKey": STANDARD.encode(data)});
        let records: Vec<_> = records.into_iter().map(record).collect();
        let answer = self
            .ok("PutRecords", json!({"StreamName": "s", "Records": records}))
            .await;
        assert_eq!(answer["FailedRecordCount"], 0);
    }

    async fn make(&self, change: impl FnOnce(&mut Value)) -> Value {
        let answer = self.ok("CreateChannel", wanted(change)).await;
        answer["ChannelDescription"].clone()
    }
}

/// What CreateChannel is asked for.
fn wanted(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({
        "ChannelName": "c", "ServiceExecutionRoleARN": "arn:aws:iam::000000000000:role/r",
        "StreamConfigurationList": [{"StreamARN": STREAM, "RecordConfiguration": {"RecordFormatType": "JSON"}}],
        "S3DestinationConfiguration": {"DataFreshnessInSeconds": 1, "StorageConfiguration": {
            "BucketARN": "arn:aws:s3:::results", "ExpectedBucketOwner": OWNER, "CompressionType": "NONE"}},
    });
    change(&mut body);
    body
}

fn storage(body: &mut Value) -> &mut Value {
    &mut body["S3DestinationConfiguration"]["StorageConfiguration"]
}

#[tokio::test]
async fn what_is_put_after_the_channel_was_made_is_in_the_bucket_and_what_is_no_json_in_the_errors() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    server.put([&b"\"before\""[..]]).await;
    let made = server
        .make(|body| {
            storage(body)["OutputKeyTemplate"] = "in/!{stream-name}/!{channel-name}!{extension:.ndjson}".into();
            body["S3DestinationConfiguration"]["DeadLetterQueueS3Configuration"] =
                json!({"BucketARN": "arn:aws:s3:::errors", "ExpectedBucketOwner": OWNER, "ErrorOutputPrefix": "bad/"});
        })
        .await;
    assert_eq!(made["ChannelStatus"], "ACTIVE");
    let id = made["ChannelId"].as_str().unwrap();
    assert_eq!(
        made["ChannelARN"],
        format!("arn:aws:kinesis:us-west-2:000000000000:channel/{id}")
    );
    server.put([&b"{\"a\":1}"[..], b"{broken", b"2"]).await;
    assert_eq!(world.lines("results", 2).await, ["2", "{\"a\":1}"]);
    let failed: Value = serde_json::from_str(&world.lines("errors", 1).await[0]).unwrap_or_default();
    for key in world.objects("results").await.keys() {
        assert!(key.starts_with("in/s/c-") && key.ends_with(".ndjson"), "{key}");
    }
    for key in world.objects("errors").await.keys() {
        assert!(key.starts_with("bad/20"), "{key}");
    }
    // The shape of error records is the formats' matter; the identifiers are the channel's.
    if let Some(failed) = failed.as_object() {
        assert_eq!(failed["streamARN"], STREAM);
    }
    server.firehose.stop().await;
}

#[tokio::test]
async fn a_channel_goes_on_where_it_was_when_the_process_ended() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    server.make(|_| {}).await;
    let number = |n: usize| n.to_string().into_bytes();
    let (first, second): (Vec<_>, Vec<_>) = ((100..150).map(number).collect(), (150..200).map(number).collect());
    server.put(first.iter().map(Vec::as_slice)).await;
    // The process ends with the buffer in memory.
    drop(server);
    let server = world.start().await;
    server.put(second.iter().map(Vec::as_slice)).await;
    let lines = world.lines("results", 100).await;
    assert_eq!(lines, (100..200).map(|n| n.to_string()).collect::<Vec<_>>());
    server.firehose.stop().await;
}

#[tokio::test]
async fn channels_are_described_listed_changed_tagged_and_deleted() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    let mut arns = Vec::new();
    for name in ["a", "b", "c"] {
        let made = server
            .make(|body| {
                body["ChannelName"] = name.into();
                body["Tags"] = json!({"name": name});
            })
            .await;
        arns.push(made["ChannelARN"].as_str().unwrap().to_owned());
    }
    let described = server.ok("DescribeChannel", json!({"ChannelARN": arns[0]})).await;
    let described = &described["ChannelDescription"];
    let s3 = &described["S3DestinationConfiguration"];
    assert_eq!(s3["StorageConfiguration"]["StorageClass"], "STANDARD");
    let template = s3["StorageConfiguration"]["OutputKeyTemplate"].as_str().unwrap();
    assert!(template.starts_with("kinesis-channel/!{channel-name}/"));
    let prefix = s3["DeadLetterQueueS3Configuration"]["ErrorOutputPrefix"]
        .as_str()
        .unwrap();
    assert!(prefix.starts_with("kinesis-channel/errors/a/"), "{prefix}");
    let logs = &described["LoggingConfiguration"]["CloudWatchLogs"];
    assert_eq!(
        (&logs["Enabled"], &logs["LogStreamName"]),
        (&json!(false), &json!("DestinationDelivery"))
    );

    let page = server.ok("ListChannels", json!({"MaxResults": 2})).await;
    let names = |page: &Value| -> Vec<String> {
        let all = page["ChannelSummaries"].as_array().unwrap();
        all.iter()
            .map(|one| one["ChannelName"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&page), ["a", "b"]);
    let page = server.ok("ListChannels", json!({"NextToken": page["NextToken"]})).await;
    assert_eq!((names(&page), page.get("NextToken")), (vec!["c".to_owned()], None));
    let created = described["StreamConfigurationList"][0]["StreamCreationTimestamp"].clone();
    let filter = json!({"StreamFilter": [{"StreamARN": STREAM, "StreamCreationTimestamp": created}]});
    assert_eq!(names(&server.ok("ListChannels", filter).await).len(), 3);
    let filter = json!({"StreamFilter": [{"StreamARN": format!("{STREAM}2")}]});
    assert!(names(&server.ok("ListChannels", filter).await).is_empty());
    assert_eq!(
        server.code("ListChannels", json!({"NextToken": "forged"})).await,
        "InvalidArgumentException"
    );

    let update = json!({"ChannelARN": arns[0], "S3DestinationConfiguration": {"DataFreshnessInSeconds": 900},
                        "LoggingConfiguration": {"CloudWatchLogs": {"Enabled": true, "LogGroupName": "g"}}});
    let updated = server.ok("UpdateChannel", update).await;
    assert_eq!(
        updated["ChannelDescription"]["S3DestinationConfiguration"]["DataFreshnessInSeconds"],
        900
    );
    assert_eq!(
        updated["ChannelDescription"]["LoggingConfiguration"]["CloudWatchLogs"]["LogGroupName"],
        "g"
    );

    server
        .ok("TagResource", json!({"ResourceARN": arns[0], "Tags": {"more": "1"}}))
        .await;
    server
        .ok("UntagResource", json!({"ResourceARN": arns[0], "TagKeys": ["name"]}))
        .await;
    let tags = server.ok("ListTagsForResource", json!({"ResourceARN": arns[0]})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "more", "Value": "1"}]));

    let summary = server.ok("DescribeStreamSummary", json!({"StreamName": "s"})).await;
    assert_eq!(summary["StreamDescriptionSummary"]["ChannelCount"], 3);
    let limits = server.ok("DescribeLimits", json!({})).await;
    assert_eq!(
        (&limits["ChannelCount"], &limits["ChannelCountLimit"]),
        (&json!(3), &json!(1000))
    );
    assert_eq!(
        server.code("DeleteStream", json!({"StreamName": "s"})).await,
        "ResourceInUseException"
    );
    for arn in &arns {
        server.ok("DeleteChannel", json!({"ChannelARN": arn})).await;
        assert_eq!(
            server.code("DescribeChannel", json!({"ChannelARN": arn})).await,
            "ResourceNotFoundException"
        );
        assert_eq!(
            server.code("ListTagsForResource", json!({"ResourceARN": arn})).await,
            "ResourceNotFoundException"
        );
    }
    server.ok("DeleteStream", json!({"StreamName": "s"})).await;
    server.firehose.stop().await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_a_declared_error_and_leaves_nothing() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    let provisioned = json!({"StreamName": "p", "ShardCount": 1});
    server.ok("CreateStream", provisioned).await;
    type Change = fn(&mut Value);
    let bad: Vec<(Change, &str)> = vec![
        (
            |body| body["StreamConfigurationList"][0]["StreamARN"] = STREAM.replace("/s", "/p").into(),
            "InvalidArgumentException",
        ),
        (
            |body| body["StreamConfigurationList"][0]["StreamARN"] = STREAM.replace("/s", "/none").into(),
            "ResourceNotFoundException",
        ),
        (
            |body| {
                body["StreamConfigurationList"][0]["StreamARN"] = STREAM.replace("000000000000", "111122223333").into();
            },
            "ResourceNotFoundException",
        ),
        (
            |body| {
                let one = body["StreamConfigurationList"][0].clone();
                body["StreamConfigurationList"] = json!([one, one]);
            },
            "InvalidArgumentException",
        ),
        (
            |body| body["StreamConfigurationList"][0]["RecordConfiguration"]["RecordFormatType"] = "GSR_JSON".into(),
            "InvalidArgumentException",
        ),
        (
            |body| body["S3DestinationConfiguration"] = Value::Null,
            "InvalidArgumentException",
        ),
        (
            |body| body["S3DestinationConfiguration"]["DataFreshnessInSeconds"] = 0.into(),
            "InvalidArgumentException",
        ),
        (
            |body| body["S3DestinationConfiguration"]["DataFreshnessInSeconds"] = 901.into(),
            "InvalidArgumentException",
        ),
        (
            |body| storage(body)["BucketARN"] = "arn:aws:s3:::none".into(),
            "ResourceNotFoundException",
        ),
        (
            |body| storage(body)["ExpectedBucketOwner"] = "111122223333".into(),
            "AccessDeniedException",
        ),
        (
            |body| storage(body)["OutputKeyTemplate"] = "!{yyyy}/".into(),
            "InvalidArgumentException",
        ),
        (
            |body| storage(body)["OutputKeyTemplate"] = "!{shard-id}".into(),
            "InvalidArgumentException",
        ),
        (
            |body| body["ServiceExecutionRoleARN"] = "arn:aws:iam::111122223333:role/r".into(),
            "InvalidArgumentException",
        ),
        (
            |body| body["EncryptionConfiguration"] = json!({"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}),
            "InvalidArgumentException",
        ),
        (
            |body| body["Tags"] = json!({"aws:mine": "1"}),
            "InvalidArgumentException",
        ),
        (
            |body| {
                body["S3DestinationConfiguration"] = Value::Null;
                body["S3TablesDestinationConfiguration"] = json!({
                "DeadLetterQueueS3Configuration": {"BucketARN": "arn:aws:s3:::results", "ExpectedBucketOwner": OWNER},
                "S3TablesConfigurationList": [{"TableBucketARN": "arn:aws:s3tables:us-west-2:000000000000:bucket/tables",
                    "Namespace": "n", "TableName": "t", "CompressionType": "NONE"}]});
            },
            "InvalidArgumentException",
        ),
    ];
    for (place, (change, code)) in bad.into_iter().enumerate() {
        assert_eq!(server.code("CreateChannel", wanted(change)).await, code, "{place}");
    }
    let none = server.ok("ListChannels", json!({})).await;
    assert_eq!(none["ChannelSummaries"], json!([]));
    let made = server.make(|_| {}).await;
    assert_eq!(
        server.code("CreateChannel", wanted(|_| {})).await,
        "ResourceInUseException"
    );
    let arn = &made["ChannelARN"];
    assert_eq!(
        server.code("UpdateChannel", json!({"ChannelARN": arn})).await,
        "InvalidArgumentException"
    );
    // Another account sees nothing of it.
    let other = server
        .call_as("111122223333", "DescribeChannel", &json!({"ChannelARN": arn}))
        .await;
    assert_eq!(other.unwrap_err().0, "ResourceNotFoundException");
    server.firehose.stop().await;
}

#[tokio::test]
async fn a_channel_that_cannot_deliver_says_why_and_goes_on_when_it_can() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    let made = server.make(|_| {}).await;
    world.buckets.shut.store(true, Ordering::SeqCst);
    server.put([&b"1"[..]]).await;
    let describe = json!({"ChannelARN": made["ChannelARN"]});
    for round in 0.. {
        let described = server.ok("DescribeChannel", describe.clone()).await;
        if described["ChannelDescription"]["ChannelStatus"] == "FAILED" {
            let why = described["ChannelDescription"]["ChannelStatusReason"].as_str().unwrap();
            assert!(why.contains("results"), "{why}");
            break;
        }
        assert!(round < 600, "it never failed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.buckets.shut.store(false, Ordering::SeqCst);
    assert_eq!(world.lines("results", 1).await, ["1"]);
    server.firehose.stop().await;
}
