//! HTTP endpoints.

use super::*;

fn input(change: impl FnOnce(&mut fh::HttpEndpointDestinationConfiguration)) -> fh::CreateDeliveryStreamInput {
    let mut http = fh::HttpEndpointDestinationConfiguration {
        endpoint_configuration: fh::HttpEndpointConfiguration {
            url: "https://receiver.example/in?a=b".to_owned(),
            name: Some("receiver".to_owned()),
            access_key: Some("sesame".to_owned()),
        },
        s3_configuration: s3(),
        ..Default::default()
    };
    change(&mut http);
    asked(|input| input.http_endpoint_destination_configuration = Some(http))
}

fn id(call: &Call) -> &str {
    header(call, "x-amz-firehose-request-id").unwrap()
}

/// Takes what is asked, as an endpoint must say it.
fn taking(call: &Call) -> Answered {
    Ok(answer(200, &json!({ "requestId": id(call), "timestamp": 1 })))
}

/// Answers 200 with a body in which `ID` is the id of the request.
fn with_id(body: Value) -> impl FnMut(&Call) -> Answered + Send + 'static {
    move |call| {
        let body = body.to_string().replace("ID", id(call));
        Ok(answer(200, &serde_json::from_str(&body).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_what_the_specification_says() {
    let fake = Fake::always(taking);
    let attribute = |name: &str, value: &str| fh::HttpEndpointCommonAttribute {
        attribute_name: name.to_owned(),
        attribute_value: value.to_owned(),
    };
    let opened = opened(
        &fake,
        &input(|http| {
            http.request_configuration = Some(fh::HttpEndpointRequestConfiguration {
                common_attributes: Some(vec![attribute("Straße", "\"1\""), attribute("empty", "")]),
                content_encoding: None,
            });
        }),
    );
    assert!(!opened.backup_all);
    assert_eq!(
        (opened.buffering.bytes, opened.buffering.interval_ms),
        (5 << 20, 300_000)
    );
    let delivered = opened.endpoint.deliver(delivery(["hello", "", "hello world"])).await;
    assert_eq!(delivered, Delivered::default());
    let [call] = &fake.calls()[..] else { panic!("one call") };
    assert_eq!(call.url, "https://receiver.example/in?a=b");
    assert_eq!(header(call, "x-amz-firehose-protocol-version"), Some("1.0"));
    assert_eq!(id(call), ID.to_string());
    assert_eq!(header(call, "x-amz-firehose-source-arn"), Some(about().arn.as_str()));
    assert_eq!(header(call, "x-amz-firehose-access-key"), Some("sesame"));
    assert_eq!(header(call, "content-type"), Some("application/json"));
    assert_eq!(header(call, "content-encoding"), None);
    let attributes = header(call, "x-amz-firehose-common-attributes").unwrap();
    assert!(attributes.is_ascii());
    let attributes: Value = serde_json::from_str(attributes).unwrap();
    assert_eq!(
        attributes,
        json!({"commonAttributes": {"Straße": "\"1\"", "empty": ""}})
    );
    let body: Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(body["requestId"], json!(ID.to_string()));
    assert!(body["timestamp"].is_u64());
    assert_eq!(
        body["records"],
        json!([{"data": "aGVsbG8="}, {"data": ""}, {"data": "aGVsbG8gd29ybGQ="}])
    );
    assert_eq!(
        (call.within, call.answer_bytes_max),
        (Duration::from_secs(180), 1 << 20)
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_compressed_where_it_was_asked_for() {
    let fake = Fake::always(taking);
    let opened = opened(
        &fake,
        &input(|http| {
            http.s3_backup_mode = Some(fh::HttpEndpointS3BackupMode::AllData);
            http.request_configuration = Some(fh::HttpEndpointRequestConfiguration {
                content_encoding: Some(fh::ContentEncoding::Gzip),
                common_attributes: None,
            });
        }),
    );
    assert!(opened.backup_all);
    assert_eq!(opened.endpoint.deliver(delivery(["hello"])).await, Delivered::default());
    let [call] = &fake.calls()[..] else { panic!("one call") };
    assert_eq!(header(call, "content-encoding"), Some("gzip"));
    assert_eq!(header(call, "x-amz-firehose-common-attributes"), None);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&call.body[..])
        .read_to_string(&mut text)
        .unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["records"], json!([{"data": "aGVsbG8="}]));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_first_gets_the_same_request_until_it_takes_it() {
    let fake = Fake::always(taking);
    fake.then(says(500, json!({})))
        .then(fails(CallError::Broken(String::new())))
        .then(hangs);
    let opened = opened(&fake, &input(|_| {}));
    let begun = Instant::now();
    assert_eq!(opened.endpoint.deliver(delivery(["a"])).await, Delivered::default());
    // Waits of 1, 2 and 4 s, 15 % more or less, and the time-out between them.
    let waited = (begun.elapsed() - Duration::from_secs(180)).as_secs_f64();
    assert!((7.0 * 0.84..7.0 * 1.16).contains(&waited), "{waited}");
    let calls = fake.calls();
    assert_eq!(calls.len(), 4);
    assert!(
        calls
            .iter()
            .all(|call| call.body == calls[0].body && call.headers == calls[0].headers)
    );
}

/// What becomes of two records when every answer is this one, and how many calls were made.
async fn always(retry_s: i32, script: impl FnMut(&Call) -> Answered + Send + 'static) -> (Delivered, usize) {
    let fake = Fake::always(script);
    let opened = opened(
        &fake,
        &input(|http| {
            http.retry_options = Some(fh::HttpEndpointRetryOptions {
                duration_in_seconds: Some(retry_s),
            });
        }),
    );
    let delivered = opened.endpoint.deliver(delivery(["a", "b"])).await;
    (delivered, fake.calls().len())
}

#[tokio::test(start_paused = true)]
async fn whoever_lies_has_taken_nothing() {
    let invalid = "HttpEndpoint.InvalidResponseFromDestination";
    let exception = "HttpEndpoint.DestinationException";
    let changed = |change: fn(&mut Answer)| {
        move |call: &Call| {
            let mut answer = taking(call)?;
            change(&mut answer);
            Ok(answer)
        }
    };
    let lies: Vec<(Script, &str)> = vec![
        (
            Box::new(with_id(json!({"requestId": "another", "timestamp": 1}))),
            invalid,
        ),
        (Box::new(with_id(json!({"requestId": "ID"}))), invalid),
        (Box::new(with_id(json!({"timestamp": 1}))), invalid),
        (
            Box::new(with_id(json!({"requestId": "ID", "timestamp": "soon"}))),
            invalid,
        ),
        (Box::new(with_id(json!({"requestId": "ID", "timestamp": -1}))), invalid),
        (Box::new(with_id(json!(["requestId", "timestamp"]))), invalid),
        (
            Box::new(with_id(
                json!({"requestId": "ID", "timestamp": 1, "errorMessage": "full"}),
            )),
            exception,
        ),
        (
            Box::new(changed(|answer| answer.body = Bytes::from_static(b"{\"requestId\":"))),
            invalid,
        ),
        (Box::new(changed(|answer| answer.headers.clear())), invalid),
        (
            Box::new(changed(|answer| {
                answer.headers.push(("content-encoding".to_owned(), "br".to_owned()));
            })),
            invalid,
        ),
        (Box::new(changed(|answer| answer.status = 202)), exception),
        (Box::new(changed(|answer| answer.status = 302)), exception),
        (
            Box::new(fails(CallError::TooLarge(1 << 20))),
            "HttpEndpoint.ResponseTooLarge",
        ),
        (
            Box::new(fails(CallError::Unreachable(String::new()))),
            "HttpEndpoint.ConnectionFailed",
        ),
        (
            Box::new(fails(CallError::Untrusted(String::new()))),
            "HttpEndpoint.SSLHandshakeFailure",
        ),
        (
            Box::new(fails(CallError::Broken(String::new()))),
            "HttpEndpoint.ConnectionReset",
        ),
        (Box::new(hangs), "HttpEndpoint.RequestTimeout"),
    ];
    for (place, (lie, code)) in lies.into_iter().enumerate() {
        let (delivered, calls) = always(2, lie).await;
        assert_eq!((codes(&delivered), calls), (vec![(code, 3)], 3), "{place}");
    }
    for truth in [
        json!({"requestId": "ID", "timestamp": "1578090903599"}),
        json!({"requestId": "ID", "timestamp": 1, "errorMessage": ""}),
    ] {
        assert_eq!(always(2, with_id(truth)).await, (Delivered::default(), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_is_told_with_its_reason_and_its_place() {
    let (delivered, calls) = always(0, says(401, json!({"errorMessage": "Unauthorized"}))).await;
    assert_eq!(calls, 1);
    let [first, second] = &delivered.failed[..] else {
        panic!("two records")
    };
    assert_eq!((&first.raw[..], &second.raw[..]), (&b"a"[..], &b"b"[..]));
    assert_eq!(first.arrival, Timestamp::from_millis(ARRIVAL));
    assert_eq!(first.kind, ErrorOutputType::HttpEndpoint);
    assert_eq!(
        (first.code.as_str(), first.attempts),
        ("HttpEndpoint.DestinationException", 1)
    );
    assert!(
        first.message.ends_with(r#"401: {"errorMessage":"Unauthorized"}"#),
        "{}",
        first.message
    );
    let more = [("subsequenceNumber", "0".to_owned()), ("dataId", format!("\"{ID}.1\""))];
    assert_eq!(second.more, more);
    // A reason that would be repeated in every error record is cut.
    let (long, _) = always(0, says(500, json!("x".repeat(100_000)))).await;
    assert!(long.failed[0].message.len() < 2000);
}

#[tokio::test(start_paused = true)]
async fn what_another_attempt_would_not_help_is_not_sent_again() {
    let (delivered, calls) = always(7200, says(413, json!({}))).await;
    assert_eq!(
        (calls, codes(&delivered)),
        (1, vec![("HttpEndpoint.DestinationException", 1)])
    );
    let (delivered, calls) = always(7200, fails(CallError::Refused("no client".to_owned()))).await;
    assert_eq!(
        (calls, codes(&delivered)),
        (1, vec![("HttpEndpoint.ConnectionFailed", 1)])
    );
}

#[tokio::test(start_paused = true)]
async fn a_delivery_of_more_than_a_request_carries_is_several_with_ids_that_stay() {
    let fake = Fake::always(taking);
    let opened = opened(&fake, &input(|_| {}));
    let many = vec!["x"; 10_001];
    for _ in 0..2 {
        let delivered = opened.endpoint.deliver(delivery(many.iter().copied())).await;
        assert_eq!(delivered, Delivered::default());
    }
    let calls = fake.calls();
    let ids: Vec<_> = calls.iter().map(id).collect();
    assert_eq!((ids.len(), &ids[..2]), (4, &ids[2..]));
    assert_ne!(ids[0], ids[1]);
    let records = |call: &Call| {
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        body["records"].as_array().unwrap().len()
    };
    assert_eq!((records(&calls[0]), records(&calls[1])), (10_000, 1));
}
