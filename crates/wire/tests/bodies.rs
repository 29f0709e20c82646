//! Bodies byte for byte as clients of AWS send and expect them, and what a hostile body gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;

use base::{ApiError, Authorizer, Caller, Timestamp};
use bytes::Bytes;
use wire::codec::{Codec, decode, decode_output, encode, encode_input};
use wire::{RawBody, RawReply, Structure, WireOperation, kinesis, kinesisvideo, kinesisvideo_media, rekognition, sts};

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

fn caller() -> Caller {
    Caller {
        account: "000000000000".parse().unwrap(),
        region: "us-west-2".parse().unwrap(),
        access_key_id: "AKIAEXAMPLE".into(),
        principal_arn: "arn:aws:iam::000000000000:root".into(),
        authorizer: Arc::new(Everything),
    }
}

fn read<O: WireOperation>(body: &str) -> Result<(O::Input, Option<String>), ApiError> {
    let codec = Codec::of(O::INFO, None);
    decode::<O::Input>(O::INFO, codec, &|_| None, body.as_bytes(), &caller()).map(|d| (d.input, d.resource))
}

fn refusal<O: WireOperation>(body: &str) -> (String, String)
where
    O::Input: std::fmt::Debug,
{
    let error = read::<O>(body).unwrap_err();
    (error.code.into_owned(), error.message)
}

fn text(reply: RawReply) -> String {
    match reply.body {
        RawBody::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        RawBody::Stream(_) => panic!("a stream"),
    }
}

#[test]
fn a_request_of_boto3_is_read() {
    let (input, resource) = read::<kinesis::op::PutRecord>(
        r#"{"StreamName": "faces", "Data": "aGVsbG8=", "PartitionKey": "k\u00e9y", "Unknown": [1, {}]}"#,
    )
    .unwrap();
    assert_eq!(input.data, Bytes::from_static(b"hello"));
    assert_eq!(input.partition_key.as_deref(), Some("kéy"));
    assert_eq!(
        resource.as_deref(),
        Some("arn:aws:kinesis:us-west-2:000000000000:stream/faces")
    );

    let (input, resource) = read::<kinesisvideo_media::op::GetMedia>(
        r#"{"StreamName":"door","StartSelector":{"StartSelectorType":"PRODUCER_TIMESTAMP","StartTimestamp":1.634127031829E9}}"#,
    )
    .unwrap();
    assert_eq!(
        input.start_selector.start_timestamp,
        Some(Timestamp::from_millis(1_634_127_031_829))
    );
    assert_eq!(
        resource.as_deref(),
        Some("arn:aws:kinesisvideo:us-west-2:000000000000:stream/door/*")
    );
}

#[test]
fn put_media_is_read_from_its_headers() {
    let headers = |name: &str| {
        let value = match name {
            "x-amzn-stream-name" => "door",
            "x-amzn-fragment-timecode-type" => "RELATIVE",
            "x-amzn-producer-start-timestamp" => "1511852109.126",
            "x-amzn-fragment-acknowledgment-required" => "yes",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let info = kinesisvideo_media::op::PutMedia::INFO;
    let refused = decode::<kinesisvideo_media::PutMediaInput>(info, Codec::Json, &headers, b"", &caller());
    assert_eq!(refused.unwrap_err().code, "SerializationException");
    let headers = |name: &str| match name {
        "x-amzn-fragment-acknowledgment-required" => Some("1".to_owned()),
        other => headers(other),
    };
    let input = decode::<kinesisvideo_media::PutMediaInput>(info, Codec::Json, &headers, b"", &caller())
        .unwrap()
        .input;
    assert_eq!(input.stream_name.as_deref(), Some("door"));
    assert_eq!(
        input.fragment_timecode_type,
        kinesisvideo_media::FragmentTimecodeType::Relative
    );
    assert_eq!(
        input.producer_start_timestamp,
        Some(Timestamp::from_millis(1_511_852_109_126))
    );
    assert_eq!(input.fragment_acknowledgment_required, Some(true));
}

#[test]
fn answers_have_the_bytes_that_clients_expect() {
    let output = kinesis::GetRecordsOutput {
        records: vec![kinesis::Record {
            approximate_arrival_timestamp: Some(Timestamp::from_millis(1_767_323_045_678)),
            data: Bytes::from_static(b"hello"),
            partition_key: Some("a\"b\u{1}".to_owned()),
            sequence_number: "1".to_owned(),
            ..kinesis::Record::default()
        }],
        millis_behind_latest: Some(0),
        ..kinesis::GetRecordsOutput::default()
    };
    let reply = encode(kinesis::op::GetRecords::INFO, Codec::Json, &output, None, None, "id");
    assert_eq!(reply.content_type, "application/x-amz-json-1.1");
    assert_eq!(
        text(reply),
        r#"{"MillisBehindLatest":0,"Records":[{"ApproximateArrivalTimestamp":1767323045.678,"Data":"aGVsbG8=","PartitionKey":"a\"b\u0001","SequenceNumber":"1"}]}"#
    );

    let nothing = encode(kinesis::op::CreateStream::INFO, Codec::Json, &(), None, None, "id");
    assert_eq!(text(nothing), "");
    let empty = encode(
        kinesisvideo::op::DeleteStream::INFO,
        Codec::Json,
        &kinesisvideo::DeleteStreamOutput {},
        None,
        None,
        "id",
    );
    assert_eq!(
        (empty.content_type.as_ref().to_owned(), text(empty)),
        ("application/json".to_owned(), "{}".to_owned())
    );

    let face = rekognition::BoundingBox {
        height: Some(0.1),
        left: Some(f32::NAN),
        top: Some(1.0),
        width: Some(99.987_654),
    };
    assert_eq!(
        encode_input(&face),
        br#"{"Height":0.1,"Left":null,"Top":1.0,"Width":99.987656}"#
    );

    let media = kinesisvideo_media::GetMediaOutput {
        content_type: Some("video/webm".to_owned()),
    };
    let stream: base::ByteStream = Box::pin(futures_util::stream::empty());
    let reply = encode(
        kinesisvideo_media::op::GetMedia::INFO,
        Codec::Json,
        &media,
        Some(stream),
        Some(1000),
        "id",
    );
    assert_eq!(reply.content_type, "video/webm");
    assert_eq!(reply.headers, [("content-length".into(), "1000".to_owned())]);
    assert!(matches!(reply.body, RawBody::Stream(_)));
}

#[test]
fn sts_takes_a_form_and_answers_xml() {
    let (input, resource) = read::<sts::op::AssumeRole>(
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fr&RoleSessionName=me\
         &DurationSeconds=900&Tags.member.1.Key=k&Tags.member.1.Value=v+w",
    )
    .unwrap();
    assert_eq!(
        (input.role_session_name.as_str(), input.duration_seconds),
        ("me", Some(900))
    );
    assert_eq!(input.tags.unwrap()[0].value, "v w");
    assert_eq!(resource.as_deref(), Some("arn:aws:iam::000000000000:role/r"));

    let output = sts::GetSessionTokenResponse {
        credentials: Some(sts::Credentials {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: "a<b".to_owned(),
            session_token: "t".to_owned(),
            expiration: Timestamp::from_millis(1_511_852_109_126),
        }),
        ..sts::GetSessionTokenResponse::default()
    };
    let reply = encode(
        sts::op::GetSessionToken::INFO,
        Codec::Query,
        &output,
        None,
        None,
        "id-1",
    );
    assert_eq!(
        text(reply),
        "<GetSessionTokenResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <GetSessionTokenResult>\
         <Credentials><AccessKeyId>AKIA</AccessKeyId><Expiration>2017-11-28T06:55:09.126Z</Expiration>\
         <SecretAccessKey>a&lt;b</SecretAccessKey><SessionToken>t</SessionToken></Credentials></GetSessionTokenResult>\n  \
         <ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata>\n</GetSessionTokenResponse>\n"
    );
    assert!(
        !format!("{output:?}").contains("a<b"),
        "a secret must not reach the log: {output:?}"
    );
}

#[test]
fn broken_constraints_are_named_as_aws_names_them() {
    assert_eq!(
        refusal::<kinesis::op::CreateStream>(r#"{"StreamName":"a b","ShardCount":0}"#),
        (
            "ValidationException".to_owned(),
            "2 validation errors detected: Value '0' at 'shardCount' failed to satisfy constraint: Member must have value \
             greater than or equal to 1; Value 'a b' at 'streamName' failed to satisfy constraint: Member must satisfy \
             regular expression pattern: [a-zA-Z0-9_.-]+"
                .to_owned()
        )
    );
    assert_eq!(
        refusal::<kinesisvideo::op::CreateStream>("{}"),
        (
            "InvalidArgumentException".to_owned(),
            "1 validation error detected: Value null at 'streamName' failed to satisfy constraint: Member must not be null"
                .to_owned()
        )
    );
    let (_, message) = refusal::<kinesis::op::PutRecords>(
        r#"{"StreamName":"s","Records":[{"Data":"","PartitionKey":"k"},{"Data":"","PartitionKey":""}]}"#,
    );
    assert_eq!(
        message,
        "1 validation error detected: Value '' at 'records.2.member.partitionKey' failed to satisfy constraint: Member must \
         have length greater than or equal to 1"
    );
    let (code, message) = refusal::<rekognition::op::DetectFaces>(r#"{"Image":{},"Attributes":["NOSE"]}"#);
    assert_eq!(code, "InvalidParameterException");
    assert!(
        message
            .contains("at 'attributes.1.member' failed to satisfy constraint: Member must satisfy enum value set: [")
    );
    let (_, message) = refusal::<kinesisvideo::op::TagStream>(r#"{"StreamName":"s","Tags":{"":"v"}}"#);
    assert!(
        message.contains("at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: ["),
        "{message}"
    );
    assert_eq!(refusal::<sts::op::AssumeRole>("Action=AssumeRole").0, "ValidationError");
}

#[test]
fn a_hostile_body_is_refused_in_words() {
    type Put = kinesis::op::PutRecord;
    let deep = format!("{{\"Data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("{{\"X\":[{}1]}}", "[],".repeat(400_000));
    let cases = [
        deep.as_str(),
        many.as_str(),
        "[]",
        "\"text\"",
        "{",
        "{}{}",
        "nul",
        r#"{"Data": 5, "PartitionKey": "k"}"#,
        r#"{"Data": "???", "PartitionKey": "k"}"#,
        r#"{"Data": "aGVsbG8", "PartitionKey": "k"}"#,
        r#"{"Data": "", "PartitionKey": ["k"]}"#,
        r#"{"Data": "", "PartitionKey": "\ud800"}"#,
        "{\"Data\": \"\", \"PartitionKey\": \"a\u{0}\"}",
    ];
    for body in cases {
        let (code, message) = refusal::<Put>(body);
        assert_eq!(code, "SerializationException", "{message}");
        assert!(message.len() < 300, "{message}");
    }
    for number in [
        "1e999",
        "-1e999",
        "99999999999999999999",
        "2147483648",
        "1.5",
        "\"1\"",
        "true",
        "{}",
        "[]",
    ] {
        let (code, _) = refusal::<kinesis::op::CreateStream>(&format!(r#"{{"StreamName":"s","ShardCount":{number}}}"#));
        assert_eq!(code, "SerializationException", "{number}");
    }
    for time in ["1e300", "\"now\"", "{}", "9223372036854775807", "253402300800", "-1e12"] {
        let body = format!(
            r#"{{"StreamName":"s","ShardId":"shardId-0","ShardIteratorType":"AT_TIMESTAMP","Timestamp":{time}}}"#
        );
        assert_eq!(
            refusal::<kinesis::op::GetShardIterator>(&body).0,
            "SerializationException",
            "{time}"
        );
    }
    let nulls = r#"{"StreamName":"s","Records":[null]}"#;
    assert_eq!(refusal::<kinesis::op::PutRecords>(nulls).0, "SerializationException");
    let invalid_utf8 = decode::<kinesis::PutRecordInput>(
        Put::INFO,
        Codec::Json,
        &|_| None,
        b"{\"StreamName\":\"\xff\"}",
        &caller(),
    );
    assert_eq!(invalid_utf8.unwrap_err().code, "SerializationException");
    for form in ["Action=AssumeRole&RoleArn=%zz", "Action=AssumeRole&RoleArn=%ff", "%"] {
        assert_eq!(refusal::<sts::op::AssumeRole>(form).0, "MalformedQueryString");
    }
}

#[test]
fn of_a_member_given_twice_the_last_counts_and_null_is_absent() {
    let (input, _) = read::<kinesis::op::CreateStream>(
        r#"{"StreamName":"a","StreamName":"b","ShardCount":1e0,"StreamModeDetails":null}"#,
    )
    .unwrap();
    assert_eq!((input.stream_name.as_str(), input.shard_count), ("b", Some(1)));
    assert!(input.stream_mode_details.is_none());
    // An empty body is an empty object: the CLI sends none for operations without input.
    assert!(read::<kinesis::op::ListStreams>("").is_ok());
}

#[test]
fn a_huge_text_does_not_make_a_huge_message() {
    let body = format!(r#"{{"StreamName":"{}"}}"#, " ".repeat(1_000_000));
    let (_, message) = refusal::<kinesis::op::CreateStream>(&body);
    assert!(message.len() < 2_000, "{} bytes", message.len());
}

#[test]
fn a_client_reads_what_the_server_wrote() {
    let output = kinesis::ListStreamsOutput {
        has_more_streams: false,
        stream_names: vec!["a".to_owned()],
        stream_summaries: Some(vec![kinesis::StreamSummary {
            stream_arn: "arn:aws:kinesis:us-west-2:000000000000:stream/a".to_owned(),
            stream_creation_timestamp: Some(Timestamp::from_millis(1_000)),
            stream_mode_details: Some(kinesis::StreamModeDetails {
                stream_mode: kinesis::StreamMode::OnDemand,
            }),
            stream_name: "a".to_owned(),
            stream_status: kinesis::StreamStatus::Active,
        }]),
        ..kinesis::ListStreamsOutput::default()
    };
    let body = wire::json::write(&wire::Shape::to_value(&output), kinesis::ListStreamsOutput::schema());
    assert_eq!(decode_output::<kinesis::ListStreamsOutput>(&body).unwrap(), output);
}
