use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use storage::{SequenceNumber, ShardId};
use wire::firehose::{ProcessorParameter, ProcessorParameterName};

use super::*;
use crate::ports::{Answer, Call, CallError, Functions, HttpCaller};
use crate::prefix::Use;
use crate::types::{ErrorOutputType, Source};

const ARN: &str = "arn:aws:lambda:us-west-2:000000000000:function:shout";

fn about(source: bool) -> About {
    About {
        account: "000000000000".parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
        name: "door".to_owned(),
        arn: "arn:aws:firehose:us-west-2:000000000000:deliverystream/door".to_owned(),
        source_arn: source.then(|| "arn:aws:kinesis:us-west-2:000000000000:stream/door".to_owned()),
    }
}

fn processor(kind: ProcessorType, parameters: &[(ProcessorParameterName, &str)]) -> Processor {
    let parameter = |(name, value): &(ProcessorParameterName, &str)| ProcessorParameter {
        parameter_name: *name,
        parameter_value: (*value).to_owned(),
    };
    Processor {
        r#type: kind,
        parameters: Some(parameters.iter().map(parameter).collect()),
    }
}

fn chain(processors: Vec<Processor>) -> ProcessingConfiguration {
    ProcessingConfiguration {
        enabled: Some(true),
        processors: Some(processors),
    }
}

fn record(number: u64, data: impl Into<Bytes>) -> Record {
    Record {
        data: data.into(),
        arrival: Timestamp::from_millis(1_000 + number as i64),
        source: Source {
            shard: ShardId(0),
            sequence: SequenceNumber::new(Timestamp::from_millis(0), 0, number),
            partition_key: format!("key-{number}"),
        },
    }
}

fn refused(processors: Vec<Processor>, ports: &Ports) -> String {
    Pipeline::new(Some(&chain(processors)), &about(false), ports)
        .unwrap_err()
        .0
}

async fn run(processors: Vec<Processor>, records: Vec<Record>) -> Processed {
    let pipeline = Pipeline::new(Some(&chain(processors)), &about(false), &Ports::default()).unwrap();
    assert!(!pipeline.is_plain());
    pipeline.run(records).await
}

fn datas(processed: &Processed) -> Vec<&str> {
    processed
        .ready
        .iter()
        .map(|ready| std::str::from_utf8(&ready.data).unwrap())
        .collect()
}

fn codes(processed: &Processed) -> Vec<(&str, &str)> {
    processed
        .failed
        .iter()
        .map(|failed| (failed.code.as_str(), std::str::from_utf8(&failed.raw).unwrap_or("?")))
        .collect()
}

use ProcessorParameterName as P;
use ProcessorType as T;

#[tokio::test]
async fn a_chain_that_is_not_there_or_not_enabled_changes_nothing() {
    for processing in [
        None,
        Some(ProcessingConfiguration {
            enabled: None,
            ..chain(vec![processor(T::AppendDelimiterToRecord, &[])])
        }),
        Some(chain(vec![])),
    ] {
        let pipeline = Pipeline::new(processing.as_ref(), &about(false), &Ports::default()).unwrap();
        assert!(pipeline.is_plain());
        assert_eq!(
            datas(&pipeline.run(vec![record(0, "a"), record(1, "b")]).await),
            ["a", "b"]
        );
    }
}

#[tokio::test]
async fn delimiters_come_only_where_they_are_configured() {
    let processed = run(
        vec![processor(T::AppendDelimiterToRecord, &[])],
        vec![record(0, "a"), record(1, "")],
    )
    .await;
    assert_eq!(datas(&processed), ["a\n", "\n"]);
    let processed = run(
        vec![processor(T::AppendDelimiterToRecord, &[(P::Delimiter, "\\r\\n||")])],
        vec![record(0, "a")],
    )
    .await;
    assert_eq!(datas(&processed), ["a\r\n||"]);
    let many: Vec<Record> = (0..5000).map(|n| record(n, vec![b'x'; n as usize % 300])).collect();
    let processed = run(vec![processor(T::AppendDelimiterToRecord, &[])], many).await;
    assert!(
        processed
            .ready
            .iter()
            .zip(0..5000)
            .all(|(ready, n)| ready.data.len() == n % 300 + 1 && ready.data.ends_with(b"\n"))
    );
}

#[tokio::test]
async fn records_are_taken_apart_and_their_keys_found_in_awss_order_whatever_the_order_of_the_configuration() {
    let processors = vec![
        processor(T::AppendDelimiterToRecord, &[]),
        processor(
            T::MetadataExtraction,
            &[
                (P::MetadataExtractionQuery, "{a: .a}"),
                (P::JsonParsingEngine, "JQ-1.6"),
            ],
        ),
        processor(T::RecordDeAggregation, &[(P::SubRecordType, "JSON")]),
    ];
    let records = vec![
        record(0, r#"{"a":1} {"a":"x"}"#),
        record(1, "[1]"),
        record(2, r#"{"b":1}{"a":true}"#),
    ];
    let processed = run(processors, records).await;
    assert_eq!(datas(&processed), ["{\"a\":1}\n", "{\"a\":\"x\"}\n", "{\"a\":true}\n"]);
    let keys: Vec<&str> = processed
        .ready
        .iter()
        .map(|ready| ready.query_keys[0].1.as_str())
        .collect();
    assert_eq!(keys, ["1", "x", "true"]);
    let wanted = [
        ("RecordDeAggregation.ParseError", "[1]"),
        ("DynamicPartitioning.MetadataExtractionFailed", r#"{"b":1}"#),
    ];
    assert_eq!(codes(&processed), wanted);
    assert!(
        processed
            .failed
            .iter()
            .all(|failed| failed.kind == ErrorOutputType::Processing && failed.attempts == 1)
    );
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_logs_become_their_messages_and_bombs_are_defused() {
    let processors = || {
        vec![
            processor(T::Decompression, &[(P::CompressionFormat, "GZIP")]),
            processor(T::CloudWatchLogProcessing, &[(P::DataMessageExtraction, "true")]),
        ]
    };
    let logs = gzip(br#"{"messageType":"DATA_MESSAGE","logEvents":[{"message":"one"},{"message":"two"}]}"#);
    let alive = gzip(br#"{"messageType":"CONTROL_MESSAGE"}"#);
    let bomb = gzip(&vec![0; 40 << 20]);
    let wrong = gzip(b"{}");
    let records = vec![
        record(0, logs),
        record(1, alive),
        record(2, bomb.clone()),
        record(3, "plain"),
        record(4, wrong.clone()),
    ];
    let processed = run(processors(), records).await;
    assert_eq!(datas(&processed), ["one", "two"]);
    let kinds: Vec<ErrorOutputType> = processed.failed.iter().map(|failed| failed.kind).collect();
    assert_eq!(
        kinds,
        [
            ErrorOutputType::Decompression,
            ErrorOutputType::Decompression,
            ErrorOutputType::Processing
        ]
    );
    assert_eq!(processed.failed[0].raw, bomb);
    assert_eq!(
        processed.failed[2].raw, wrong,
        "a record goes to the error output as it came"
    );
}

#[tokio::test]
async fn aggregates_of_a_data_stream_are_taken_apart_without_being_asked() {
    let mut aggregator = kpl::Aggregator::new();
    for n in 0..3 {
        aggregator.push(&kpl::UserRecord::new(format!("user-{n}"), format!("data-{n}")));
    }
    let packed = aggregator.finish().unwrap().data;
    let pipeline = Pipeline::new(None, &about(true), &Ports::default()).unwrap();
    let processed = pipeline
        .run(vec![record(0, packed.clone()), record(1, "as it is")])
        .await;
    assert_eq!(datas(&processed), ["data-0", "data-1", "data-2", "as it is"]);
    let put = Pipeline::new(None, &about(false), &Ports::default()).unwrap();
    assert_eq!(put.run(vec![record(0, packed.clone())]).await.ready[0].data, packed);
}

#[test]
fn what_cannot_be_carried_out_is_refused_in_words() {
    let none = Ports::default();
    let pair = |name, value| [(name, value)];
    for (processors, word) in [
        (
            vec![processor(T::Decompression, &pair(P::CompressionFormat, "ZIP"))],
            "GZIP",
        ),
        (vec![processor(T::CloudWatchLogProcessing, &[])], "Decompression"),
        (vec![processor(T::RecordDeAggregation, &[])], "SubRecordType"),
        (
            vec![processor(T::RecordDeAggregation, &pair(P::SubRecordType, "XML"))],
            "XML",
        ),
        (
            vec![processor(
                T::RecordDeAggregation,
                &[(P::SubRecordType, "DELIMITED"), (P::Delimiter, "#")],
            )],
            "base64",
        ),
        (vec![processor(T::Lambda, &[])], "LambdaArn"),
        (vec![processor(T::Lambda, &pair(P::LambdaArn, ARN))], "[functions]"),
        (
            vec![processor(T::MetadataExtraction, &pair(P::JsonParsingEngine, "JQ-1.6"))],
            "MetadataExtractionQuery",
        ),
        (
            vec![processor(
                T::MetadataExtraction,
                &[(P::JsonParsingEngine, "JQ-1.7"), (P::MetadataExtractionQuery, "{a:.a}")],
            )],
            "JQ-1.6",
        ),
        (
            vec![processor(T::AppendDelimiterToRecord, &pair(P::LambdaArn, ARN))],
            "no parameter LambdaArn",
        ),
        (
            vec![processor(T::AppendDelimiterToRecord, &pair(P::Delimiter, ""))],
            "empty",
        ),
        (
            vec![
                processor(T::AppendDelimiterToRecord, &[]),
                processor(T::AppendDelimiterToRecord, &[]),
            ],
            "more than one",
        ),
    ] {
        let why = refused(processors, &none);
        assert!(why.contains(word), "{why}");
    }
    let (ports, _) = ports(|_, _| unreachable!());
    let why = refused(
        vec![processor(T::Lambda, &[(P::LambdaArn, ARN), (P::BufferSizeInMBs, "4")])],
        &ports,
    );
    assert!(why.contains("0.2 to 3"), "{why}");
}

#[test]
fn a_prefix_names_only_keys_that_there_will_be() {
    let extraction = [
        (P::JsonParsingEngine, "JQ-1.6"),
        (P::MetadataExtractionQuery, "{a: .a}"),
    ];
    let with = Pipeline::new(
        Some(&chain(vec![processor(T::MetadataExtraction, &extraction)])),
        &about(false),
        &Ports::default(),
    )
    .unwrap();
    let without = Pipeline::new(None, &about(false), &Ports::default()).unwrap();
    let prefix = |text| Prefix::parse(Some(text), None, Use::Partitioned).unwrap();
    assert!(with.provides(&prefix("!{partitionKeyFromQuery:a}/")).is_ok());
    assert!(
        with.provides(&prefix("!{partitionKeyFromQuery:b}/"))
            .unwrap_err()
            .0
            .contains("\"b\"")
    );
    assert!(without.provides(&prefix("!{partitionKeyFromQuery:a}/")).is_err());
    assert!(
        with.provides(&prefix("!{partitionKeyFromLambda:a}/"))
            .unwrap_err()
            .0
            .contains("Lambda")
    );
}

type Script = dyn Fn(usize, &Value) -> Result<Answer, CallError> + Send + Sync;

/// Answers as a test wants it, and keeps what it was asked.
struct Stage {
    script: Box<Script>,
    asked: Arc<Mutex<Vec<Value>>>,
}

#[async_trait]
impl HttpCaller for Stage {
    async fn post(&self, call: Call) -> Result<Answer, CallError> {
        assert_eq!(call.url, "http://127.0.0.1:1/shout");
        let event: Value = serde_json::from_slice(&call.body).unwrap();
        let number = {
            let mut asked = self.asked.lock();
            asked.push(event.clone());
            asked.len()
        };
        (self.script)(number, &event)
    }
}

struct OneFunction;

impl Functions for OneFunction {
    fn url(&self, arn: &str) -> Option<String> {
        (arn == ARN).then(|| "http://127.0.0.1:1/shout".to_owned())
    }

    fn within(&self) -> Duration {
        Duration::from_secs(1)
    }
}

fn ports(
    script: impl Fn(usize, &Value) -> Result<Answer, CallError> + Send + Sync + 'static,
) -> (Ports, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let stage = Stage {
        script: Box::new(script),
        asked: Arc::clone(&asked),
    };
    let ports = Ports {
        http: Arc::new(stage),
        functions: Arc::new(OneFunction),
        ..Ports::default()
    };
    (ports, asked)
}

fn answer(status: u16, body: &Value) -> Answer {
    Answer {
        status,
        body: body.to_string().into(),
        ..Answer::default()
    }
}

fn ids(event: &Value) -> Vec<String> {
    let records = event["records"].as_array().unwrap();
    records
        .iter()
        .map(|record| record["recordId"].as_str().unwrap().to_owned())
        .collect()
}

fn base64(text: &str) -> String {
    base64_simd::STANDARD.encode_to_string(text)
}

async fn transformed(
    parameters: &[(ProcessorParameterName, &str)],
    records: Vec<Record>,
    script: impl Fn(usize, &Value) -> Result<Answer, CallError> + Send + Sync + 'static,
) -> (Processed, Vec<Value>) {
    let (ports, asked) = ports(script);
    let mut all = vec![(P::LambdaArn, ARN)];
    all.extend_from_slice(parameters);
    let chain = chain(vec![processor(T::Lambda, &all)]);
    let pipeline = Pipeline::new(Some(&chain), &about(true), &ports).unwrap();
    let processed = pipeline.run(records).await;
    let asked = asked.lock().clone();
    (processed, asked)
}

#[tokio::test]
async fn a_function_is_given_lambdas_event_and_its_answers_take_the_records_places() {
    let script = |_: usize, event: &Value| {
        let ids = ids(event);
        Ok(answer(
            200,
            &json!({ "records": [
                { "recordId": ids[1], "result": "Dropped" },
                { "recordId": ids[0], "result": "Ok", "data": base64("A"), "metadata": { "partitionKeys": { "k": "v", "n": 7 } } },
                { "recordId": ids[2], "result": "ProcessingFailed", "data": base64("c") },
                { "recordId": ids[3], "result": "Ok", "data": base64("") },
            ]}),
        ))
    };
    let records = ["a", "b", "c", "d"]
        .into_iter()
        .zip(0..)
        .map(|(data, n)| record(n, data))
        .collect();
    let (processed, asked) = transformed(&[], records, script).await;
    assert_eq!(datas(&processed), ["A", ""]);
    assert_eq!(
        processed.ready[0].lambda_keys,
        [("k".to_owned(), "v".to_owned()), ("n".to_owned(), "7".to_owned())]
    );
    assert_eq!(codes(&processed), [("Lambda.ProcessingFailedStatus", "c")]);
    assert_eq!(processed.failed[0].more, [("lambdaARN", format!("{ARN:?}"))]);
    let event = &asked[0];
    assert_eq!(event["deliveryStreamArn"], about(true).arn);
    assert_eq!(event["sourceKinesisStreamArn"], about(true).source_arn.unwrap());
    assert_eq!(event["region"], "us-west-2");
    assert_eq!(event["invocationId"].as_str().unwrap().len(), 36);
    let first = &event["records"][0];
    assert_eq!(
        (&first["data"], &first["approximateArrivalTimestamp"]),
        (&json!("YQ=="), &json!(1000))
    );
    let metadata = &first["kinesisRecordMetadata"];
    assert_eq!(
        (&metadata["partitionKey"], &metadata["shardId"]),
        (&json!("key-0"), &json!("shardId-000000000000"))
    );
    assert_eq!(metadata["subsequenceNumber"], 0);
}

#[tokio::test]
async fn answers_that_lie_fail_the_records_they_lie_about() {
    let script = |_: usize, event: &Value| {
        let ids = ids(event);
        let ok = |id: &str, data: &str| json!({ "recordId": id, "result": "Ok", "data": data });
        Ok(answer(
            200,
            &json!({ "records": [
                ok(&ids[0], "###"),
                ok(&ids[1], &base64("x")), ok(&ids[1], &base64("y")),
                ok("stranger", &base64("z")),
                { "recordId": ids[3], "result": "Fine", "data": base64("x") },
                { "recordId": ids[4], "result": "Ok" },
                { "recordId": ids[5], "result": "Ok", "data": base64("x"), "metadata": { "partitionKeys": { "k": null } } },
                ok(&ids[6], &base64("good")),
            ]}),
        ))
    };
    let records = (0..7).map(|n| record(n, n.to_string())).collect();
    let (processed, asked) = transformed(&[], records, script).await;
    assert_eq!(asked.len(), 1, "an answer is final, however malformed");
    assert_eq!(datas(&processed), ["good"]);
    let wanted = [
        ("Lambda.JsonProcessingException", "0"),
        ("Lambda.DuplicatedRecordId", "1"),
        ("Lambda.MissingRecordId", "2"),
        ("Lambda.JsonProcessingException", "3"),
        ("Lambda.JsonProcessingException", "4"),
        ("Lambda.JsonProcessingException", "5"),
    ];
    assert_eq!(codes(&processed), wanted);
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_are_made_again_as_often_as_configured() {
    let flaky = |number: usize, event: &Value| match number {
        1 => Err(CallError::TimedOut(Duration::from_secs(1))),
        2 => Ok(answer(500, &json!({ "errorMessage": "boom" }))),
        3 => Err(CallError::Unreachable("refused".to_owned())),
        _ => Ok(answer(
            200,
            &json!({ "records": [{ "recordId": ids(event)[0], "result": "Ok", "data": base64("A") }] }),
        )),
    };
    let (processed, asked) = transformed(&[], vec![record(0, "a")], flaky).await;
    assert_eq!((datas(&processed), asked.len()), (vec!["A"], 4));
    let same = |event: &Value| event["records"][0]["recordId"].clone();
    assert!(asked.iter().all(|event| same(event) == same(&asked[0])));

    for (script, retries, code, attempts) in [
        (
            Err(CallError::TimedOut(Duration::from_secs(1))),
            "2",
            "Lambda.FunctionTimeout",
            3,
        ),
        (Ok(answer(500, &json!({}))), "0", "Lambda.FunctionError", 1),
        (Ok(answer(429, &json!({}))), "1", "Lambda.InvokeLimitExceeded", 2),
        (Ok(answer(404, &json!({}))), "3", "Lambda.ResourceNotFound", 1),
        (Ok(answer(403, &json!({}))), "3", "Lambda.InvokeAccessDenied", 1),
        (
            Ok(answer(200, &json!({ "records": 7 }))),
            "3",
            "Lambda.JsonProcessingException",
            1,
        ),
        (
            Ok(answer(200, &json!("no records"))),
            "3",
            "Lambda.JsonProcessingException",
            1,
        ),
        (Err(CallError::TooLarge(1)), "3", "Lambda.FunctionError", 1),
    ] {
        let script = move |_: usize, _: &Value| script.clone();
        let (processed, asked) = transformed(
            &[(P::NumberOfRetries, retries)],
            vec![record(0, "a"), record(1, "b")],
            script,
        )
        .await;
        assert_eq!(codes(&processed), [(code, "a"), (code, "b")]);
        assert_eq!(
            (processed.failed[0].attempts, asked.len()),
            (attempts, attempts as usize),
            "{code}"
        );
    }
}

#[tokio::test]
async fn records_are_gathered_by_size_and_stay_in_their_order() {
    let echo = |_: usize, event: &Value| {
        let records = event["records"].as_array().unwrap();
        let same = |record: &Value| json!({ "recordId": record["recordId"], "result": "Ok", "data": record["data"] });
        Ok(answer(
            200,
            &json!({ "records": records.iter().rev().map(same).collect::<Vec<_>>() }),
        ))
    };
    let records: Vec<Record> = (0..40).map(|n| record(n, vec![b'a' + n as u8 % 26; 100_000])).collect();
    let (processed, asked) = transformed(&[(P::BufferSizeInMBs, "0.5")], records.clone(), echo).await;
    assert_eq!(asked.len(), 8);
    assert!(
        processed
            .ready
            .iter()
            .zip(&records)
            .all(|(ready, record)| ready.data == record.data)
    );
    let large = vec![record(0, vec![b'x'; 7 << 20]), record(1, "small")];
    let (processed, _) = transformed(&[], large, echo).await;
    assert_eq!(datas(&processed), ["small"]);
    assert_eq!(processed.failed[0].code, "Lambda.RequestTooLarge");
}
