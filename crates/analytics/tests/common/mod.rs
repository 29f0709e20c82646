//! The service over a catalog and data streams in memory, called as a client would, with JSON; its workers are the test's.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use analytics::ports::{Access, CheckError, Ports, Session, Worker, Workers};
use analytics::{Analytics, Settings};
use async_trait::async_trait;
use auth::KeyRing;
use base::metrics::Metrics;
use base::{AccountId, Authorizer, Caller, Region, RequestContext, SystemClock, SystemDisk, Timestamp};
use data_streams::DataStreams;
use objects::{Buckets, MemoryBuckets, PutOptions};
use serde_json::{Value, json};
use sql::application::{Command, Event, JobSpec};
use storage::{Catalog, LogOptions, LogStore, MemoryCatalog};
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use wire::{Address, RawBody, RawRequest, Registry};

pub const STREAM: &str = "arn:aws:kinesis:us-west-2:000000000000:stream/s";
pub const ROLE: &str = "arn:aws:iam::000000000000:role/r";
const OWNER: &str = "000000000000";
const WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// A worker that the service believes to have started. Dropping it is its end.
pub struct Started {
    pub spec: JobSpec,
    events: mpsc::UnboundedSender<Event>,
    commands: mpsc::UnboundedReceiver<Command>,
}

impl Started {
    pub fn tell(&self, event: Event) {
        self.events.send(event).expect("the service listens");
    }

    pub async fn told(&mut self) -> Command {
        let told = timeout(WITHIN, self.commands.recv()).await;
        told.expect("told in time").expect("the service is there")
    }

    /// Waits until the service has ended it.
    pub async fn ended(mut self) {
        let end = async { while self.commands.recv().await.is_some() {} };
        timeout(WITHIN, end).await.expect("ended in time");
    }

    pub fn fails(self, reason: &str, retriable: bool) {
        self.tell(Event::Failed {
            reason: reason.to_owned(),
            retriable,
        });
    }
}

struct Fakes(mpsc::UnboundedSender<Started>);

struct Fake {
    events: mpsc::UnboundedReceiver<Event>,
    commands: mpsc::UnboundedSender<Command>,
}

#[async_trait]
impl Workers for Fakes {
    async fn check(&self, spec: &JobSpec) -> Result<(), CheckError> {
        match spec.script.find("BROKEN") {
            Some(at) => Err(CheckError::Script(format!("line 1, column {}: it is broken", at + 1))),
            None => Ok(()),
        }
    }

    async fn start(&self, spec: &JobSpec) -> Result<Box<dyn Worker>, String> {
        assert!(spec.state_dir.join("checkpoints").is_dir());
        let (events, told) = mpsc::unbounded_channel();
        let (commands, heard) = mpsc::unbounded_channel();
        let started = Started {
            spec: spec.clone(),
            events,
            commands: heard,
        };
        self.0.send(started).map_err(|_| "the test is over".to_owned())?;
        Ok(Box::new(Fake { events: told, commands }))
    }
}

#[async_trait]
impl Worker for Fake {
    async fn next(&mut self) -> Result<Option<Event>, String> {
        Ok(self.events.recv().await)
    }

    async fn send(&mut self, command: &Command) -> Result<(), String> {
        self.commands.send(command.clone()).map_err(|_| "it is gone".to_owned())
    }
}

struct Keys;

impl Access for Keys {
    fn session(&self, account: AccountId, _: &Region) -> Result<Session, String> {
        Ok(Session {
            endpoint: "http://127.0.0.1:1".to_owned(),
            access_key_id: format!("key of {account}"),
            secret_access_key: "secret".to_owned(),
            session_token: None,
        })
    }
}

/// What outlives a server.
pub struct World {
    folder: TempDir,
    clock: Arc<SystemClock>,
    catalog: Arc<dyn Catalog>,
    pub buckets: Arc<MemoryBuckets>,
}

pub struct Server {
    registry: Registry,
    pub service: Arc<Analytics>,
    started: Mutex<mpsc::UnboundedReceiver<Started>>,
    _log: LogStore,
}

impl World {
    pub fn new() -> World {
        let clock = Arc::new(SystemClock::new());
        let buckets = Arc::new(MemoryBuckets::new(clock.clone()));
        buckets.create(AccountId::DEFAULT, "code");
        World {
            folder: TempDir::new().unwrap(),
            clock,
            catalog: Arc::new(MemoryCatalog::new()),
            buckets,
        }
    }

    /// Where applications' workers write.
    pub fn folders(&self) -> PathBuf {
        self.folder.path().join("analytics")
    }

    pub async fn put_object(&self, key: &str, body: &str) {
        let bucket = self.buckets.open(AccountId::DEFAULT, "code").await.unwrap();
        bucket
            .put(key, PutOptions::default(), body.to_owned().into())
            .await
            .unwrap();
    }

    pub async fn start(&self) -> Server {
        let (sender, started) = mpsc::unbounded_channel();
        let ports = Ports {
            flink: Some(Arc::new(Fakes(sender.clone()))),
            workers: Arc::new(Fakes(sender)),
            access: Arc::new(Keys),
            buckets: self.buckets.clone(),
        };
        self.start_with(ports, started).await
    }

    pub async fn start_without_workers(&self) -> Server {
        let ports = Ports {
            access: Arc::new(Keys),
            ..Ports::default()
        };
        self.start_with(ports, mpsc::unbounded_channel().1).await
    }

    async fn start_with(&self, ports: Ports, started: mpsc::UnboundedReceiver<Started>) -> Server {
        let log = self.folder.path().join("log");
        let disk = SystemDisk::open(&log).unwrap();
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
            key_ring: Arc::new(KeyRing::ephemeral().unwrap()),
            metrics: Metrics::new(),
            settings: data_streams::Settings::default(),
        })
        .await
        .unwrap();
        let service = Analytics::open(analytics::Parts {
            catalog: self.catalog.clone(),
            streams: streams.clone(),
            clock: self.clock.clone(),
            metrics: Metrics::new(),
            ports,
            settings: Settings {
                folder: self.folders(),
                memory_bytes: 64 << 20,
                running_max: 2,
            },
        })
        .await
        .unwrap();
        let mut registry = Registry::new();
        streams.register(&mut registry);
        service.register(&mut registry);
        service.resume().await;
        Server {
            registry,
            service,
            started: Mutex::new(started),
            _log: log,
        }
    }
}

impl Server {
    /// The worker that the service starts next.
    pub async fn worker(&self) -> Started {
        let started = timeout(WITHIN, async { self.started.lock().await.recv().await }).await;
        started.expect("a worker in time").expect("the service is there")
    }

    /// No worker was started.
    pub async fn no_worker(&self) {
        assert!(self.started.lock().await.try_recv().is_err());
    }

    async fn send(&self, scope: &str, target: &str, body: &Value) -> Result<Value, (String, String)> {
        let address = Address {
            method: "POST",
            path: "/",
            scope_service: Some(scope),
            target: Some(target),
            action: None,
            content_type: None,
        };
        let route = self.registry.resolve(&address).unwrap();
        let context = RequestContext {
            caller: Caller {
                account: OWNER.parse().unwrap(),
                region: "us-west-2".parse().unwrap(),
                access_key_id: "AKIA".into(),
                principal_arn: format!("arn:aws:iam::{OWNER}:root").into(),
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

    pub async fn call(&self, operation: &str, body: Value) -> Result<Value, (String, String)> {
        let target = format!("KinesisAnalytics_20180523.{operation}");
        self.send("kinesisanalytics", &target, &body).await
    }

    pub async fn ok(&self, operation: &str, body: Value) -> Value {
        let answer = self.call(operation, body.clone()).await;
        answer.unwrap_or_else(|error| panic!("{operation} {body}: {error:?}"))
    }

    pub async fn refused(&self, operation: &str, body: Value) -> (String, String) {
        let answer = self.call(operation, body.clone()).await;
        answer
            .map(|answer| panic!("{operation} {body} answered {answer}"))
            .unwrap_err()
    }

    pub async fn make_stream(&self) {
        let body = json!({"StreamName": "s", "ShardCount": 1});
        self.send("kinesis", "Kinesis_20131202.CreateStream", &body)
            .await
            .unwrap();
    }

    pub async fn detail(&self) -> Value {
        let answer = self
            .ok("DescribeApplication", json!({"ApplicationName": "doors"}))
            .await;
        answer["ApplicationDetail"].clone()
    }

    /// The application's description once it has this status.
    pub async fn status(&self, wanted: &str) -> Value {
        for _ in 0..1000 {
            let detail = self.detail().await;
            if detail["ApplicationStatus"] == wanted {
                return detail;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {wanted}: {}", self.detail().await)
    }

    /// A snapshot's status, once it is no longer CREATING.
    pub async fn snapshot(&self, name: &str) -> String {
        let body = json!({"ApplicationName": "doors", "SnapshotName": name});
        for _ in 0..1000 {
            let answer = self.ok("DescribeApplicationSnapshot", body.clone()).await;
            let status = answer["SnapshotDetails"]["SnapshotStatus"].as_str().unwrap().to_owned();
            if status != "CREATING" {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{name} is CREATING for ever")
    }

    pub async fn operation(&self, id: &Value) -> Value {
        let body = json!({"ApplicationName": "doors", "OperationId": id});
        let answer = self.ok("DescribeApplicationOperation", body).await;
        answer["ApplicationOperationInfoDetails"].clone()
    }

    /// Makes the application, starts it, and gives its worker once it runs.
    pub async fn running(&self) -> Started {
        self.make_stream().await;
        self.ok("CreateApplication", application()).await;
        self.ok("StartApplication", json!({"ApplicationName": "doors"})).await;
        let worker = self.worker().await;
        worker.tell(Event::Running);
        self.status("RUNNING").await;
        worker
    }
}

/// What CreateApplication is asked for.
pub fn application() -> Value {
    json!({
        "ApplicationName": "doors", "RuntimeEnvironment": "SQL-1_0", "ServiceExecutionRole": ROLE,
        "ApplicationConfiguration": {
            "ApplicationCodeConfiguration": {"CodeContentType": "PLAINTEXT", "CodeContent": {"TextContent": "INSERT INTO OUT SELECT door FROM FACES_001"}},
            "SqlApplicationConfiguration": {"Inputs": [input("FACES")], "Outputs": [output("OUT")]}},
    })
}

pub fn input(prefix: &str) -> Value {
    json!({"NamePrefix": prefix, "KinesisStreamsInput": {"ResourceARN": STREAM}, "InputSchema": schema()})
}

pub fn schema() -> Value {
    json!({"RecordFormat": {"RecordFormatType": "JSON", "MappingParameters": {"JSONMappingParameters": {"RecordRowPath": "$"}}},
           "RecordColumns": [{"Name": "door", "Mapping": "$.door", "SqlType": "VARCHAR(16)"}]})
}

pub fn output(name: &str) -> Value {
    json!({"Name": name, "KinesisStreamsOutput": {"ResourceARN": STREAM}, "DestinationSchema": {"RecordFormatType": "JSON"}})
}
