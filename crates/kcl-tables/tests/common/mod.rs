//! The service over a catalog, called as a client would: with JSON.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use base::{Authorizer, Caller, ManualClock, RequestContext, Timestamp};
use kcl_tables::{KclTables, Parts};
use serde_json::Value;
use storage::{Catalog, MemoryCatalog};
use wire::{Address, RawBody, RawRequest, Registry};

pub const START: Timestamp = Timestamp::from_millis(1_795_347_223_000);

#[derive(Debug)]
pub struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// The body of an answer, or of an error.
pub type Answer = Result<Value, Value>;

#[derive(Clone)]
pub struct Server {
    pub service: Arc<KclTables>,
    pub clock: Arc<ManualClock>,
    pub memory: MemoryCatalog,
    pub registry: Registry,
}

impl Server {
    pub async fn start() -> Server {
        Server::over(MemoryCatalog::new(), ManualClock::at(START)).await
    }

    async fn over(memory: MemoryCatalog, clock: Arc<ManualClock>) -> Server {
        let catalog: Arc<dyn Catalog> = Arc::new(memory.clone());
        let service = KclTables::open(Parts {
            catalog,
            clock: clock.clone(),
        })
        .await
        .unwrap();
        let mut registry = Registry::new();
        service.register(&mut registry);
        Server {
            service,
            clock,
            memory,
            registry,
        }
    }

    /// What a new process finds in the same catalog.
    pub async fn restart(&self) -> Server {
        Server::over(self.memory.clone(), self.clock.clone()).await
    }

    pub async fn call(&self, operation: &str, body: Value) -> Answer {
        self.call_as(Arc::new(Everything), operation, body).await
    }

    pub async fn call_as(&self, authorizer: Arc<dyn Authorizer>, operation: &str, body: Value) -> Answer {
        let target = format!("DynamoDB_20120810.{operation}");
        let address = Address {
            method: "POST",
            path: "/",
            scope_service: Some("dynamodb"),
            target: Some(&target),
            ..Address::default()
        };
        let route = self.registry.resolve(&address).unwrap();
        let context = RequestContext {
            caller: Caller {
                account: "000000000000".parse().unwrap(),
                region: "us-west-2".parse().unwrap(),
                access_key_id: "AKID".into(),
                principal_arn: "arn:aws:iam::000000000000:root".into(),
                authorizer,
            },
            request_id: "id".into(),
            base_url: "http://127.0.0.1:4577".into(),
            received_at: START,
        };
        let no_headers = |_: &str| None;
        let request = RawRequest {
            headers: &no_headers,
            body: RawBody::Bytes(body.to_string().into()),
        };
        let parse = |body: &RawBody| match body {
            RawBody::Bytes(bytes) if bytes.is_empty() => Value::Null,
            RawBody::Bytes(bytes) => serde_json::from_slice(bytes).unwrap(),
            RawBody::Stream(_) => panic!("no stream is expected"),
        };
        match route.call(context, request).await {
            Ok(reply) => Ok(parse(&reply.body)),
            Err(error) => Err(parse(&route.render_error(&error, "id").body)),
        }
    }
}

/// The name of an error, without its namespace.
pub fn code(answer: &Answer) -> &str {
    let error = answer.as_ref().expect_err("an error");
    error["__type"].as_str().unwrap().rsplit('#').next().unwrap()
}
