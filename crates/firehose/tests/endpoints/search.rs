//! Search engines.

use super::*;

fn input(
    change: impl FnOnce(&mut fh::AmazonopensearchserviceDestinationConfiguration),
) -> fh::CreateDeliveryStreamInput {
    let mut search = fh::AmazonopensearchserviceDestinationConfiguration {
        role_arn: "arn:aws:iam::000000000000:role/r".to_owned(),
        cluster_endpoint: Some("https://search.example".to_owned()),
        index_name: "logs".to_owned(),
        s3_configuration: s3(),
        retry_options: Some(fh::AmazonopensearchserviceRetryOptions {
            duration_in_seconds: Some(2),
        }),
        ..Default::default()
    };
    change(&mut search);
    asked(|input| input.amazonopensearchservice_destination_configuration = Some(search))
}

/// The lines of a bulk request.
fn lines(call: &Call) -> Vec<Value> {
    assert_eq!(header(call, "content-type"), Some("application/x-ndjson"));
    let text = std::str::from_utf8(&call.body).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Answers each document with the status that its field `want` names.
fn as_wanted(call: &Call) -> Answered {
    let item = |pair: &[Value]| {
        let status = pair[1]["want"].as_u64().unwrap();
        let mut item = json!({"_id": pair[0]["index"]["_id"], "status": status});
        if status >= 300 {
            item["error"] = json!({ "reason": status });
        }
        json!({ "index": item })
    };
    let items: Vec<_> = lines(call).chunks(2).map(item).collect();
    Ok(answer(200, &json!({"took": 1, "errors": true, "items": items})))
}

#[tokio::test(start_paused = true)]
async fn each_document_has_its_own_fate() {
    let fake = Fake::always(|call| {
        // Only the busy one comes again, and now it is taken.
        let lines = lines(call);
        assert_eq!(lines[1..], [json!({"want": 429})]);
        let items = json!([{"index": {"_id": lines[0]["index"]["_id"], "status": 200}}]);
        Ok(answer(200, &json!({ "items": items })))
    });
    fake.then(as_wanted);
    let opened = opened(&fake, &input(|_| {}));
    let sent = [r#"{"want":201}"#, r#"{"want":429}"#, r#"{"want":400}"#];
    let delivered = opened.endpoint.deliver(delivery(sent)).await;
    let [failed] = &delivered.failed[..] else {
        panic!("one document")
    };
    assert_eq!(&failed.raw[..], sent[2].as_bytes());
    assert_eq!((failed.code.as_str(), failed.attempts), ("400", 1));
    assert_eq!(failed.message, r#"{"reason":400}"#);
    assert_eq!(failed.kind, ErrorOutputType::OpenSearch);
    let calls = fake.calls();
    let id = &lines(&calls[0])[4]["index"]["_id"];
    assert!(id.is_string());
    let more = [
        ("esDocumentId", id.to_string()),
        ("esIndexName", "\"logs-2020-09-13\"".to_owned()),
    ];
    assert_eq!(failed.more[..2], more);
    assert_eq!(failed.more[2], ("esTypeName", "\"\"".to_owned()));
    assert_eq!(
        (calls.len(), calls[0].url.as_str()),
        (2, "https://search.example/_bulk")
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_speaks_for_itself_alone() {
    let fake = Fake::always(as_wanted);
    let opened = opened(&fake, &input(|_| {}));
    let sent = [
        "{\"want\":200}\n{\"delete\":{\"_index\":\"logs\",\"_id\":\"1\"}}\n",
        "{\n  \"want\":\r\n  200,\n  \"text\": \"a\\nb\"\n}\n",
        "no JSON",
        "[{\"want\":200}]",
        "",
        "{\"want\":200",
    ];
    let delivered = opened.endpoint.deliver(delivery(sent)).await;
    let lines = lines(&fake.calls()[0]);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], json!({"want": 200, "text": "a\nb"}));
    assert_eq!(codes(&delivered), [("400", 0)]);
    let text = |failed| std::str::from_utf8(failed).unwrap();
    let raw: Vec<_> = delivered.failed.iter().map(|failed| text(&failed.raw)).collect();
    assert_eq!(raw, [sent[0], sent[2], sent[3], sent[4], sent[5]]);
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_delivered_twice_has_one_id() {
    let fake = Fake::always(as_wanted);
    let opened = opened(
        &fake,
        &input(|search| {
            search.index_rotation_period = Some(fh::AmazonopensearchserviceIndexRotationPeriod::NoRotation);
            search.type_name = Some("doc".to_owned());
        }),
    );
    for _ in 0..2 {
        let sent = [r#"{"want":200}"#, r#"{"want":201}"#];
        assert_eq!(opened.endpoint.deliver(delivery(sent)).await, Delivered::default());
    }
    let calls = fake.calls();
    assert_eq!(calls[0].body, calls[1].body);
    let lines = lines(&calls[0]);
    assert_ne!(lines[0]["index"]["_id"], lines[2]["index"]["_id"]);
    let place = &lines[0]["index"];
    assert_eq!((&place["_index"], &place["_type"]), (&json!("logs"), &json!("doc")));
}

#[tokio::test(start_paused = true)]
async fn without_ids_the_engine_makes_them() {
    let fake = Fake::always(as_wanted);
    let opened = opened(
        &fake,
        &input(|search| {
            search.document_id_options = Some(fh::DocumentIdOptions {
                default_document_id_format: fh::DefaultDocumentIdFormat::NoDocumentId,
            });
        }),
    );
    let delivered = opened
        .endpoint
        .deliver(delivery([r#"{"want":200}"#, r#"{"want":400}"#]))
        .await;
    assert_eq!(
        lines(&fake.calls()[0])[0],
        json!({"index": {"_index": "logs-2020-09-13"}})
    );
    assert_eq!(delivered.failed[0].more[0], ("esDocumentId", "null".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_fails_or_lies_has_taken_nothing() {
    let item = |id: &str| json!({"index": {"_id": id, "status": 200}});
    let failures: Vec<(Script, &str, u32)> = vec![
        (Box::new(says(503, json!({}))), "503", 3),
        (Box::new(says(401, json!({}))), "401", 3),
        (Box::new(says(413, json!({}))), "413", 3),
        (Box::new(says(200, json!({"items": []}))), "500", 3),
        (Box::new(says(200, json!({"items": [item("1"), item("2")]}))), "500", 3),
        (Box::new(says(200, json!("thanks"))), "500", 3),
        (Box::new(fails(CallError::Unreachable(String::new()))), "503", 3),
        (Box::new(fails(CallError::Refused(String::new()))), "503", 1),
        (Box::new(hangs), "504", 3),
    ];
    for (script, code, attempts) in failures {
        let fake = Fake::always(script);
        let opened = opened(&fake, &input(|_| {}));
        let delivered = opened.endpoint.deliver(delivery(["{}", "{}"])).await;
        assert_eq!(codes(&delivered), [(code, attempts)]);
        assert_eq!(delivered.failed.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_is_where_the_configuration_says() {
    let fake = Fake::always(as_wanted);
    let by = |arn: &str| {
        input(|search| {
            search.cluster_endpoint = None;
            search.domain_arn = Some(arn.to_owned());
        })
    };
    let opened = opened(&fake, &by(LOGS));
    assert_eq!(
        opened.endpoint.deliver(delivery([r#"{"want":200}"#])).await,
        Delivered::default()
    );
    let call = &fake.calls()[0];
    assert_eq!(call.url, "http://127.0.0.1:9200/_bulk");
    assert_eq!(header(call, "authorization"), Some("Basic eDp5"));
    let unknown = by(&LOGS.replace("logs", "none"));
    let (description, secrets) = endpoints::describe(&unknown).unwrap().unwrap();
    let refused = endpoints::open(&description, &secrets, &about(), &ports(&fake))
        .err()
        .unwrap();
    assert!(refused.0.contains("[domains]"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_other_engines_have_error_records_of_their_own() {
    let fake = Fake::always(as_wanted);
    let role_arn = || "arn:aws:iam::000000000000:role/r".to_owned();
    let serverless = asked(|input| {
        input.amazon_open_search_serverless_destination_configuration =
            Some(fh::AmazonOpenSearchServerlessDestinationConfiguration {
                role_arn: role_arn(),
                collection_endpoint: Some("https://search.example".to_owned()),
                index_name: "logs".to_owned(),
                s3_configuration: s3(),
                ..Default::default()
            });
    });
    let elasticsearch = asked(|input| {
        input.elasticsearch_destination_configuration = Some(fh::ElasticsearchDestinationConfiguration {
            role_arn: role_arn(),
            cluster_endpoint: Some("https://search.example".to_owned()),
            index_name: "logs".to_owned(),
            index_rotation_period: Some(fh::ElasticsearchIndexRotationPeriod::OneMonth),
            s3_configuration: s3(),
            ..Default::default()
        });
    });
    let failed = async |input| {
        let delivered = opened(&fake, input)
            .endpoint
            .deliver(delivery([r#"{"want":400}"#]))
            .await;
        delivered.failed[0].clone()
    };
    let of = failed(&serverless).await;
    assert_eq!(
        (of.kind, of.more[0].0),
        (ErrorOutputType::OpenSearchServerless, "osDocumentId")
    );
    assert_eq!(of.more[1], ("osIndexName", "\"logs\"".to_owned()));
    let of = failed(&elasticsearch).await;
    assert_eq!(of.kind, ErrorOutputType::Elasticsearch);
    assert_eq!(of.more[1], ("esIndexName", "\"logs-2020-09\"".to_owned()));
}
