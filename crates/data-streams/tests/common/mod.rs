//! The service over the real record log and catalog in a temporary directory, called as a client would: with JSON.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod failing;

use std::sync::Arc;

use auth::KeyRing;
use base::metrics::Metrics;
use base::{Authorizer, ByteStream, Caller, ManualClock, RequestContext, SystemDisk, Timestamp};
use data_streams::{DataStreams, Parts, Settings};
use futures_util::StreamExt;
use serde_json::Value;
use storage::{Catalog, LogOptions, LogStore, MemoryCatalog, RecordLog};
use tempfile::TempDir;
use wire::{Address, RawBody, RawRequest, Registry};

/// The stream that most tests use.
pub const STREAM: &str = "arn:aws:kinesis:us-west-2:000000000000:stream/s";

/// A time at which the tests begin.
pub const START: Timestamp = Timestamp::from_millis(1_767_323_045_678);

#[derive(Debug)]
pub struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// An error as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
}

pub struct Server {
    pub service: Arc<DataStreams>,
    pub clock: Arc<ManualClock>,
    pub catalog: Arc<dyn Catalog>,
    /// The same, to let it fail.
    pub memory: MemoryCatalog,
    pub key_ring: Arc<KeyRing>,
    pub registry: Registry,
    pub log: LogStore,
    pub folder: TempDir,
}

pub fn open_log(folder: &TempDir, clock: &Arc<ManualClock>) -> LogStore {
    let disk = SystemDisk::open(folder.path()).unwrap();
    LogStore::open(Arc::new(disk), clock.clone(), LogOptions::default(), &Metrics::new()).unwrap()
}

pub async fn service(
    catalog: &Arc<dyn Catalog>,
    records: Arc<dyn RecordLog>,
    clock: &Arc<ManualClock>,
    key_ring: &Arc<KeyRing>,
    settings: Settings,
) -> (Arc<DataStreams>, Registry) {
    let service = DataStreams::open(Parts {
        catalog: catalog.clone(),
        records,
        clock: clock.clone(),
        key_ring: key_ring.clone(),
        metrics: Metrics::new(),
        settings,
    })
    .await
    .unwrap();
    let mut registry = Registry::new();
    service.register(&mut registry);
    (service, registry)
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with(|log| log).await
    }

    /// A server with a stream `s` of so many shards.
    pub async fn with_stream(shards: u32) -> Server {
        let server = Server::start().await;
        server.make_stream("s", shards).await;
        server
    }

    /// Makes a stream of so many shards.
    pub async fn make_stream(&self, name: &str, shards: u32) {
        let body = serde_json::json!({"StreamName": name, "ShardCount": shards});
        self.ok("CreateStream", body).await;
    }

    /// A server that keeps AWS's limits of a shard.
    pub async fn start_limited() -> Server {
        Server::start_as(|log| log, Settings { shard_limits: true }).await
    }

    /// A server whose record log is wrapped.
    pub async fn start_with(wrap: impl FnOnce(Arc<dyn RecordLog>) -> Arc<dyn RecordLog>) -> Server {
        Server::start_as(wrap, Settings::default()).await
    }

    async fn start_as(wrap: impl FnOnce(Arc<dyn RecordLog>) -> Arc<dyn RecordLog>, settings: Settings) -> Server {
        let folder = TempDir::new().unwrap();
        let clock = ManualClock::at(START);
        let log = open_log(&folder, &clock);
        let memory = MemoryCatalog::new();
        let catalog: Arc<dyn Catalog> = Arc::new(memory.clone());
        let key_ring = Arc::new(KeyRing::ephemeral().unwrap());
        let (service, registry) = service(&catalog, wrap(log.records()), &clock, &key_ring, settings).await;
        Server {
            service,
            clock,
            catalog,
            memory,
            key_ring,
            registry,
            log,
            folder,
        }
    }

    /// The same directory and catalog, as a new process would find them.
    pub async fn restart(self) -> Server {
        let Server {
            service: old,
            clock,
            catalog,
            memory,
            key_ring,
            registry,
            log,
            folder,
        } = self;
        drop((old, registry, log));
        let log = open_log(&folder, &clock);
        let (service, registry) = service(&catalog, log.records(), &clock, &key_ring, Settings::default()).await;
        Server {
            service,
            clock,
            catalog,
            memory,
            key_ring,
            registry,
            log,
            folder,
        }
    }

    pub async fn call(&self, operation: &str, body: Value) -> Result<Value, Refusal> {
        self.call_as("000000000000", Arc::new(Everything), operation, body)
            .await
    }

    /// A call that must succeed.
    pub async fn ok(&self, operation: &str, body: Value) -> Value {
        self.call(operation, body.clone())
            .await
            .unwrap_or_else(|e| panic!("{operation} {body}: {e:?}"))
    }

    /// A call that must fail; its error's code.
    pub async fn code(&self, operation: &str, body: Value) -> String {
        let answer = self.call(operation, body.clone()).await;
        answer
            .map(|a| panic!("{operation} {body} answered {a}"))
            .unwrap_err()
            .code
    }

    pub async fn call_as(
        &self,
        account: &str,
        authorizer: Arc<dyn Authorizer>,
        operation: &str,
        body: Value,
    ) -> Result<Value, Refusal> {
        self.answer(account, authorizer, operation, body).await.map(json)
    }

    /// The body of an answer.
    async fn answer(
        &self,
        account: &str,
        authorizer: Arc<dyn Authorizer>,
        operation: &str,
        body: Value,
    ) -> Result<RawBody, Refusal> {
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
                authorizer,
            },
            request_id: "request".into(),
            base_url: "http://127.0.0.1".into(),
            received_at: START,
        };
        let request = RawRequest {
            headers: &|_| None,
            body: RawBody::Bytes(body.to_string().into()),
        };
        match route.call(context, request).await {
            Ok(reply) => Ok(reply.body),
            Err(error) => {
                let reply = route.render_error(&error, "request");
                Err(Refusal {
                    status: reply.status,
                    code: error.code.to_string(),
                    message: error.message,
                })
            }
        }
    }

    /// A subscription to a shard; its first message was read.
    pub async fn subscribe(&self, consumer: &str, shard: u32, start: Value) -> Result<Events, Refusal> {
        let body = serde_json::json!({
            "ConsumerARN": consumer, "ShardId": format!("shardId-{shard:012}"), "StartingPosition": start,
        });
        let answer = self
            .answer("000000000000", Arc::new(Everything), "SubscribeToShard", body)
            .await?;
        let RawBody::Stream(stream) = answer else {
            panic!("no stream")
        };
        let mut events = Events(stream);
        assert_eq!(
            events.next().await,
            Some(("initial-response".to_owned(), serde_json::json!({})))
        );
        Ok(events)
    }

    /// The server's time as requests write it.
    pub fn clock_seconds(&self) -> f64 {
        base::Clock::now(&*self.clock).seconds()
    }

    /// An iterator of a shard.
    pub async fn iterator(&self, stream: &str, shard: u32, kind: &str) -> String {
        let body = serde_json::json!({
            "StreamName": stream, "ShardId": format!("shardId-{shard:012}"), "ShardIteratorType": kind,
        });
        text(&self.ok("GetShardIterator", body).await["ShardIterator"])
    }

    /// Everything that an iterator leads to, as (partition key, data in base64, sequence number).
    pub async fn read(&self, mut iterator: String) -> Vec<(String, String, u128)> {
        let mut found = Vec::new();
        loop {
            let answer = self
                .ok("GetRecords", serde_json::json!({"ShardIterator": iterator}))
                .await;
            let records = answer["Records"].as_array().unwrap();
            found.extend(records.iter().map(|r| {
                let number = text(&r["SequenceNumber"]).parse().unwrap();
                (text(&r["PartitionKey"]), text(&r["Data"]), number)
            }));
            if answer["MillisBehindLatest"] == 0 {
                return found;
            }
            iterator = text(&answer["NextShardIterator"]);
        }
    }
}

/// The messages of a subscription.
pub struct Events(ByteStream);

impl Events {
    /// The name and payload of the next message. The stream gives each as one piece.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        let message = self.0.next().await?.unwrap();
        let length = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(length(0), message.len());
        assert_eq!(length(8) as u32, crc32fast::hash(&message[..8]));
        assert_eq!(
            length(message.len() - 4) as u32,
            crc32fast::hash(&message[..message.len() - 4])
        );
        let (mut head, payload) = message[12..message.len() - 4].split_at(length(4));
        let mut headers = std::collections::BTreeMap::new();
        while !head.is_empty() {
            let name_len = usize::from(head[0]);
            let name = String::from_utf8(head[1..=name_len].to_vec()).unwrap();
            let value_at = name_len + 4;
            let value_len = usize::from(u16::from_be_bytes([head[name_len + 2], head[name_len + 3]]));
            headers.insert(
                name,
                String::from_utf8(head[value_at..value_at + value_len].to_vec()).unwrap(),
            );
            head = &head[value_at + value_len..];
        }
        let kind = match headers[":message-type"].as_str() {
            "exception" => ":exception-type",
            _ => ":event-type",
        };
        Some((headers[kind].clone(), serde_json::from_slice(payload).unwrap()))
    }

    /// The next event with records in it, or the last one of a shard.
    pub async fn records(&mut self) -> Value {
        loop {
            let (name, event) = self.next().await.unwrap();
            assert_eq!(name, "SubscribeToShardEvent", "{event}");
            if event["Records"] != serde_json::json!([]) || event["ChildShards"] != Value::Null {
                return event;
            }
        }
    }
}

/// Text as the wire writes data.
pub fn encode(data: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, data)
}

pub fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

fn json(body: RawBody) -> Value {
    match body {
        RawBody::Bytes(bytes) if bytes.is_empty() => Value::Null,
        RawBody::Bytes(bytes) => serde_json::from_slice(&bytes).unwrap(),
        RawBody::Stream(_) => panic!("a stream"),
    }
}
