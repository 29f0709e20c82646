//! Splunk.

use super::*;

fn input(kind: fh::HECEndpointType, retry_s: i32) -> fh::CreateDeliveryStreamInput {
    asked(|input| {
        input.splunk_destination_configuration = Some(fh::SplunkDestinationConfiguration {
            hec_endpoint: "https://splunk.example:8088/".to_owned(),
            hec_endpoint_type: kind,
            hec_token: Some("token".to_owned()),
            buffering_hints: None,
            cloud_watch_logging_options: None,
            hec_acknowledgment_timeout_in_seconds: None,
            processing_configuration: None,
            retry_options: Some(fh::SplunkRetryOptions {
                duration_in_seconds: Some(retry_s),
            }),
            s3_backup_mode: None,
            s3_configuration: s3(),
            secrets_manager_configuration: None,
        });
    })
}

#[tokio::test(start_paused = true)]
async fn records_are_taken_when_splunk_says_that_they_are_indexed() {
    for (kind, path) in [(fh::HECEndpointType::Raw, "raw"), (fh::HECEndpointType::Event, "event")] {
        let fake = Fake::always(says(200, json!({"acks": {"7": true}})));
        fake.then(says(200, json!({"text": "Success", "code": 0, "ackId": 7})));
        fake.then(says(200, json!({"acks": {"7": false}})))
            .then(says(503, json!({})));
        fake.then(fails(CallError::Broken(String::new())));
        let opened = opened(&fake, &input(kind, 0));
        assert_eq!(
            (opened.buffering.bytes, opened.buffering.interval_ms),
            (5 << 20, 60_000)
        );
        assert_eq!(
            opened.endpoint.deliver(delivery(["{}", "\n", "{}"])).await,
            Delivered::default()
        );
        let calls = fake.calls();
        assert_eq!(calls.len(), 5);
        let channel = header(&calls[0], "x-splunk-request-channel").unwrap();
        let url = format!("https://splunk.example:8088/services/collector/{path}?channel={channel}");
        assert_eq!(calls[0].url, url);
        assert_eq!(&calls[0].body[..], b"{}\n{}");
        assert_eq!(header(&calls[0], "authorization"), Some("Splunk token"));
        for asked in &calls[1..] {
            assert!(asked.url.contains("/services/collector/ack?channel="));
            assert_eq!(&asked.body[..], br#"{"acks":[7]}"#);
            assert_eq!(header(asked, "x-splunk-request-channel"), Some(channel));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_acknowledgement_it_is_sent_again_while_there_is_time() {
    let fake = Fake::always(|call| {
        let ack = call.url.contains("/ack?");
        let told = if ack {
            json!({"acks": {"1": false}})
        } else {
            json!({"code": 0, "ackId": 1})
        };
        Ok(answer(200, &told))
    });
    let begun = Instant::now();
    let opened = opened(&fake, &input(fh::HECEndpointType::Raw, 2));
    let delivered = opened.endpoint.deliver(delivery(["a"])).await;
    assert_eq!(codes(&delivered), [("Splunk.AckTimeout", 3)]);
    // Three times the least that the model lets anybody wait, and two seconds between them.
    assert!((542..=543).contains(&begun.elapsed().as_secs()));
    let [failed] = &delivered.failed[..] else {
        panic!("one record")
    };
    assert_eq!(failed.kind, ErrorOutputType::Splunk);
    assert_eq!(failed.more, [("EventId", format!("\"{ID}.0\""))]);
    let sent = fake.calls().iter().filter(|call| call.url.contains("/raw?")).count();
    assert_eq!(sent, 3);
}

#[tokio::test(start_paused = true)]
async fn each_refusal_has_its_code_and_is_repeated_where_that_may_help() {
    let refusals: Vec<(Script, &str, u32)> = vec![
        (
            Box::new(says(403, json!({"text": "Token disabled", "code": 1}))),
            "Splunk.DisabledToken",
            3,
        ),
        (
            Box::new(says(403, json!({"text": "Invalid token", "code": 4}))),
            "Splunk.InvalidToken",
            3,
        ),
        (
            Box::new(says(400, json!({"text": "Invalid data format", "code": 6}))),
            "Splunk.InvalidDataFormat",
            1,
        ),
        (
            Box::new(says(400, json!({"text": "Incorrect index", "code": 7}))),
            "Splunk.InvalidIndex",
            3,
        ),
        (
            Box::new(says(503, json!({"text": "Server is busy", "code": 9}))),
            "Splunk.IndexerBusy",
            3,
        ),
        (
            Box::new(says(400, json!({"text": "ACK is disabled", "code": 14}))),
            "Splunk.DisabledAck",
            1,
        ),
        // Received, and nobody will ever say whether it is indexed.
        (
            Box::new(says(200, json!({"text": "Success", "code": 0}))),
            "Splunk.DisabledAck",
            1,
        ),
        (Box::new(says(200, json!("what?"))), "Splunk.ServerError", 3),
        (Box::new(says(500, json!({}))), "Splunk.ServerError", 3),
        (Box::new(says(401, json!({}))), "Splunk.InvalidToken", 3),
        (Box::new(says(404, json!({}))), "Splunk.InvalidEndpoint", 3),
        (
            Box::new(fails(CallError::Unreachable(String::new()))),
            "Splunk.InvalidEndpoint",
            3,
        ),
        (
            Box::new(fails(CallError::Untrusted(String::new()))),
            "Splunk.SSLHandshake",
            3,
        ),
        (
            Box::new(fails(CallError::Broken(String::new()))),
            "Splunk.ConnectionClosed",
            3,
        ),
        (Box::new(hangs), "Splunk.ConnectionTimeout", 3),
    ];
    for (script, code, attempts) in refusals {
        let fake = Fake::always(script);
        let opened = opened(&fake, &input(fh::HECEndpointType::Event, 2));
        let delivered = opened.endpoint.deliver(delivery(["a", "b"])).await;
        assert_eq!(codes(&delivered), [(code, attempts)]);
        assert_eq!(delivered.failed.len(), 2);
    }
}
