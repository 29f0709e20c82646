//! An HTTP endpoint behind the engine: whatever step the process ends or fails at, every record was taken or is in the error
//! output, and the endpoint knows a repetition by the id of its request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::Clock;
use base::metrics::Metrics;
use bytes::Bytes;
use common::{FailingBuckets, FailingCatalog, Fault, ID, Steps, World, about};
use firehose::deliver::{Engine, Meters, Status, Target, Work};
use firehose::endpoints;
use firehose::ports::{Answer, Call, CallError, HttpCaller, Ports};
use parking_lot::Mutex;
use serde_json::{Value, json};
use wire::firehose::{
    CreateDeliveryStreamInput, HttpEndpointConfiguration, HttpEndpointDestinationConfiguration,
    HttpEndpointRetryOptions, S3DestinationConfiguration,
};

/// Takes every batch but those with a record that it does not like, and keeps them by the ids of their requests. Its answer
/// may be lost: then the process ends when the batch was taken.
struct Receiver {
    taken: Mutex<BTreeMap<String, Vec<String>>>,
}

#[async_trait]
impl HttpCaller for Receiver {
    async fn post(&self, call: Call) -> Result<Answer, CallError> {
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let id = body["requestId"].as_str().unwrap().to_owned();
        let text = |record: &Value| {
            let data = base64_simd::STANDARD
                .decode_to_vec(record["data"].as_str().unwrap())
                .unwrap();
            String::from_utf8(data).unwrap().trim().to_owned()
        };
        let records: Vec<String> = body["records"].as_array().unwrap().iter().map(text).collect();
        let refused = records.iter().any(|record| record.ends_with("17"));
        if !refused {
            let before = self.taken.lock().insert(id.clone(), records.clone());
            assert!(
                before.is_none_or(|before| before == records),
                "another batch under the same id"
            );
        }
        Ok(Answer {
            status: if refused { 500 } else { 200 },
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(json!({"requestId": id, "timestamp": 1}).to_string()),
        })
    }
}

fn process(world: &World, receiver: &Arc<Receiver>, steps: &Arc<Steps>) -> Engine {
    let ports = Ports {
        buckets: Arc::new(FailingBuckets(Arc::clone(&world.buckets), Arc::clone(steps))),
        http: receiver.clone(),
        ..Ports::default()
    };
    let input = CreateDeliveryStreamInput {
        http_endpoint_destination_configuration: Some(HttpEndpointDestinationConfiguration {
            endpoint_configuration: HttpEndpointConfiguration {
                url: "https://receiver.example/".to_owned(),
                ..Default::default()
            },
            retry_options: Some(HttpEndpointRetryOptions {
                duration_in_seconds: Some(0),
            }),
            s3_configuration: S3DestinationConfiguration {
                bucket_arn: "arn:aws:s3:::b".to_owned(),
                ..Default::default()
            },
            ..Default::default()
        }),
        ..Default::default()
    };
    let (description, secrets) = endpoints::describe(&input).unwrap().unwrap();
    let mut target = Target::open(&description, &secrets, &about(), 1, &ports).unwrap();
    target.buffering.bytes = 60;
    target.buffering.interval_ms = 1000;
    let catalog = Arc::new(FailingCatalog(world.catalog.clone(), Arc::clone(steps)));
    let clock: Arc<dyn Clock> = world.clock.clone();
    let engine = Engine::new(catalog, clock, ports, 64 << 20);
    engine.start(Work {
        id: ID,
        source: world.source.clone(),
        target: Arc::new(target),
        status: Status::new(&Meters::new(&Metrics::new()).unwrap(), "arn"),
    });
    engine
}

/// What was taken, and what is in the error output.
async fn found(world: &World, receiver: &Receiver) -> (Vec<String>, Vec<String>) {
    let taken = receiver.taken.lock().values().flatten().cloned().collect();
    let lines = world.lines("b").await.into_iter().filter(|line| !line.is_empty());
    let raw = |line: String| {
        // While formats are not there, the lines are the records themselves.
        let parsed = serde_json::from_str::<Value>(&line).ok();
        let data = parsed.and_then(|parsed| parsed["rawData"].as_str().map(str::to_owned));
        let Some(data) = data else { return line };
        let data = base64_simd::STANDARD.decode_to_vec(data).unwrap();
        String::from_utf8(data).unwrap().trim().to_owned()
    };
    (taken, lines.map(raw).collect())
}

/// Waits, in the time of the test, until every record is somewhere and nothing is under way.
async fn settled(world: &World, receiver: &Receiver, all: usize) -> (Vec<String>, Vec<String>) {
    for _ in 0..20_000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (taken, failed) = found(world, receiver).await;
        if taken.len() + failed.len() >= all && world.plans().await == 0 {
            return (taken, failed);
        }
    }
    panic!("not settled: {:?}", found(world, receiver).await)
}

/// One life with a fault at a step, then one without; true if the step was reached.
async fn broken_off(at: u64, fault: Fault) -> bool {
    let world = World::new().await;
    let receiver = Arc::new(Receiver {
        taken: Mutex::default(),
    });
    world.source.open_shard(0, &[]);
    for record in 0..30 {
        world.source.put(0, &format!("r{record:04}"));
    }
    let steps = Steps::new(at, fault);
    let engine = process(&world, &receiver, &steps);
    tokio::select! {
        () = steps.crashed() => {}
        _ = settled(&world, &receiver, 30) => {}
    }
    drop(engine);
    let engine = process(&world, &receiver, &Steps::never());
    let (taken, failed) = settled(&world, &receiver, 30).await;
    engine.stop(ID).await;
    let distinct: BTreeSet<&String> = taken.iter().chain(&failed).collect();
    assert_eq!(
        (taken.len() + failed.len(), distinct.len()),
        (30, 30),
        "{fault:?} at {at}"
    );
    assert!(failed.len() >= 3 && taken.len() >= 3, "both were met");
    steps.reached()
}

#[tokio::test(start_paused = true)]
async fn every_record_was_taken_or_is_in_the_error_output_whatever_step_the_process_ends_or_fails_at() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Error, Fault::ErrorAfter] {
        let mut at = 0;
        while broken_off(at, fault).await {
            at += 1;
        }
        assert!(at > 6, "{fault:?} met only {at} steps");
    }
}
