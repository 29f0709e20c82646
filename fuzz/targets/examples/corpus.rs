//! Writes the seeds of every target under `fuzz/corpus`: all are made here, none is a captured stream.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs
)]

use std::path::Path;

use auth::{Credentials, RequestHead, Scope, Secret, payload_hash, presign, sign};
use base::Timestamp;
use bytes::{Bytes, BytesMut};
use fuzz_targets::{ACCESS_KEY_ID, NOW_MS, SECRET};
use matroska::{Track, TrackKind, Video, writer};
use vision::protocol::{FromWorker, OpenLook, OpenSession, Packet, ToWorker};
use vision::{
    BoundingBox, Codec, ColorRange, DetectedObject, Face, FaceAttributes, FaceMesh, FilmFault, FilmFrame, FilmInfo,
    FrameLook, ImageAnalysis, ImageError, LabelAnalysis, StillError,
};

#[path = "../../../crates/matroska/tests/common/generate.rs"]
mod generate;

const PUT_MEDIA_HEADERS: [(&str, &str); 9] = [
    ("Host", "127.0.0.1"),
    ("connection", "keep-alive"),
    ("content-type", "application/json"),
    ("transfer-encoding", "chunked"),
    (
        "user-agent",
        "AWS-SDK-KVS-CPP-CLIENT/3.5.0/1.6.0 GCC/12.2.0 Linux/6.1 x86_64 CPPSDK",
    ),
    ("x-amzn-fragment-acknowledgment-required", "1"),
    ("x-amzn-fragment-timecode-type", "ABSOLUTE"),
    ("x-amzn-producer-start-timestamp", "1795347223.436"),
    ("x-amzn-stream-name", "cam1"),
];

/// Target, and its seeds: eight bytes of a time go before a prefix.
const FIREHOSE: &[(&str, &[&str])] = &[
    (
        "firehose_prefix",
        &[
            "12345678logs/!{timestamp:yyyy/MM/dd'T'HH}/!{firehose:random-string}/",
            "12345678c=!{partitionKeyFromQuery:a}/!{partitionKeyFromLambda:a}/!{timestamp:YYYY-'W'ww-e VV XXX}/",
            "12345678e/!{firehose:error-output-type}/!{timestamp:GGGG QQQ MMMM EEEE d a h:mm:ss.SSS ppD}/",
        ],
    ),
    (
        "firehose_records",
        &[
            "{\"a\":1} {\"a\":\"}{\\\"\",\"b\":[{}],\"c\":\"{\\\"d\\\":1}\"}",
            "{\"messageType\":\"DATA_MESSAGE\",\"logEvents\":[{\"id\":\"1\",\"message\":\"one\"}]}",
            "{\"records\":[{\"recordId\":\"1\",\"result\":\"Ok\",\"data\":\"YQ==\",\"metadata\":{\"partitionKeys\":{\"k\":\"v\"}}}]}",
        ],
    ),
    (
        "firehose_query",
        &[
            "{a: .a.b[0], b: (.n|tostring), year: .s[0:4]}",
            "{a: (.a.b|map(select(. != null))|length), t: (.n|strftime(\"%Y/%m\")), c: \"\\(.n)-\\(.s)\", d: (.x // \"none\")}",
            "{a: (if .n > 10 then \"big\" else (try (.s|tonumber) catch \"no\") end), b: (.s|split(\"-\")|join(\"/\"))}",
        ],
    ),
    (
        "sql_messages",
        &[
            "struct<a:map<string,array<decimal(10,2)>>,b:varchar(7)>",
            "yyyy-MM-dd'T'HH:mm:ss.SSSZ|2026-01-31T10:00:00.123+0100",
            "\u{2}\u{1}\0\0\0\u{2}\0\0\0{}",
        ],
    ),
];

const EXPRESSIONS: [&str; 8] = [
    "attribute_exists(#m.k) AND NOT (a < :a OR begins_with(b, :b))",
    "size(c) BETWEEN :a AND :big AND a IN (:a, :b) OR contains(s, :b)",
    "attribute_type(a, :t)",
    "SET a = a + :a, m.l = list_append(if_not_exists(#x, :l), :l) REMOVE c[0], c[2] ADD #x :a DELETE s :s",
    "SET c[7] = :a, c[5] = :b",
    "SET a = :big + :big",
    "a, m.k, c[1].d, c[0]",
    "pk = :b AND sk >= :a",
];

/// Maps and lists of unknown length as the Java SDK writes them, and of known length; a time under tag 1.
const CBOR_BODIES: &[(&str, &[u8])] = &[
    (
        "PutRecords",
        b"\xbf\x6aStreamName\x64seen\x67Records\x9f\xbf\x64Data\x45hello\x6cPartitionKey\x61k\xff\xff\xff",
    ),
    (
        "GetShardIterator",
        b"\xa4\x6aStreamName\x64seen\x67ShardId\x74shardId-000000000000\x71ShardIteratorType\x6cAT_TIMESTAMP\x69Timestamp\xc1\x1b\x00\x00\x01\xa2\x03\x0c\x9a\xac",
    ),
];

const BODIES: &[(&str, &str, &str)] = &[
    (
        "wire_kinesis",
        "CreateStream",
        r#"{"StreamName":"seen","ShardCount":2,"StreamModeDetails":{"StreamMode":"PROVISIONED"}}"#,
    ),
    (
        "wire_kinesis",
        "PutRecord",
        r#"{"StreamName":"seen","Data":"aGVsbG8=","PartitionKey":"door","ExplicitHashKey":"34028236692093846346337"}"#,
    ),
    (
        "wire_kinesis",
        "PutRecords",
        r#"{"StreamName":"seen","Records":[{"Data":"AA==","PartitionKey":"a"},{"Data":"","PartitionKey":"b"}]}"#,
    ),
    (
        "wire_kinesis",
        "GetShardIterator",
        r#"{"StreamName":"seen","ShardId":"shardId-000000000000","ShardIteratorType":"AT_TIMESTAMP","Timestamp":1.795347223436E9}"#,
    ),
    (
        "wire_kinesis",
        "GetRecords",
        r#"{"ShardIterator":"AAAAAAAAAAE=","Limit":100}"#,
    ),
    (
        "wire_kinesis",
        "ListShards",
        r#"{"StreamName":"seen","ShardFilter":{"Type":"AT_LATEST"},"MaxResults":100}"#,
    ),
    (
        "wire_kinesisvideo",
        "CreateStream",
        r#"{"StreamName":"door","MediaType":"video/h264","DataRetentionInHours":24,"Tags":{"place":"gate"}}"#,
    ),
    (
        "wire_kinesisvideo",
        "ListStreams",
        r#"{"MaxResults":10,"StreamNameCondition":{"ComparisonOperator":"BEGINS_WITH","ComparisonValue":"do"}}"#,
    ),
    (
        "wire_kinesisvideo",
        "UpdateDataRetention",
        r#"{"StreamName":"door","CurrentVersion":"1","Operation":"INCREASE_DATA_RETENTION","DataRetentionChangeInHours":1}"#,
    ),
    (
        "wire_kinesisvideo",
        "GetMedia",
        r#"{"StreamName":"door","StartSelector":{"StartSelectorType":"FRAGMENT_NUMBER","AfterFragmentNumber":"91343852333181432392682062607743920146159169392"}}"#,
    ),
    (
        "wire_kinesisvideo",
        "ListFragments",
        r#"{"StreamName":"door","FragmentSelector":{"FragmentSelectorType":"SERVER_TIMESTAMP","TimestampRange":{"StartTimestamp":1795347223.5,"EndTimestamp":1795347300}}}"#,
    ),
    (
        "wire_kinesisvideo",
        "GetMediaForFragmentList",
        r#"{"StreamName":"door","Fragments":["91343852333181432392682062607743920146159169392"]}"#,
    ),
    (
        "wire_rekognition",
        "CreateCollection",
        r#"{"CollectionId":"staff","Tags":{"a":"b"}}"#,
    ),
    (
        "wire_rekognition",
        "IndexFaces",
        r#"{"CollectionId":"staff","Image":{"Bytes":"/9j/4AAQ"},"ExternalImageId":"ada","DetectionAttributes":["DEFAULT"],"MaxFaces":1,"QualityFilter":"AUTO"}"#,
    ),
    (
        "wire_rekognition",
        "SearchFaces",
        r#"{"CollectionId":"staff","FaceId":"11111111-2222-3333-4444-555555555555","MaxFaces":5,"FaceMatchThreshold":80.5}"#,
    ),
    (
        "wire_rekognition",
        "CreateStreamProcessor",
        r#"{"Name":"door-staff","Input":{"KinesisVideoStream":{"Arn":"arn:aws:kinesisvideo:eu-west-1:000000000000:stream/door/1795347223000"}},"Output":{"KinesisDataStream":{"Arn":"arn:aws:kinesis:eu-west-1:000000000000:stream/seen"}},"RoleArn":"arn:aws:iam::000000000000:role/any","Settings":{"FaceSearch":{"CollectionId":"staff","FaceMatchThreshold":80}}}"#,
    ),
    (
        "wire_rekognition",
        "StartStreamProcessor",
        r#"{"Name":"home","StartSelector":{"KVSStreamStartSelector":{"ProducerTimestamp":1795347223436,"FragmentNumber":"91343852333181432392682062607743920146159169392"}},"StopSelector":{"MaxDurationInSeconds":120}}"#,
    ),
    (
        "wire_rekognition",
        "UpdateStreamProcessor",
        r#"{"Name":"home","SettingsForUpdate":{"ConnectedHomeForUpdate":{"Labels":["PERSON","PET"],"MinConfidence":62.5}},"RegionsOfInterestForUpdate":[{"BoundingBox":{"Left":0.1,"Top":0.2,"Width":0.3,"Height":0.4}},{"Polygon":[{"X":0,"Y":0},{"X":1,"Y":0},{"X":0.5,"Y":1}]}],"DataSharingPreferenceForUpdate":{"OptIn":false},"ParametersToDelete":["ConnectedHomeMinConfidence","RegionsOfInterest"]}"#,
    ),
    (
        "wire_sts",
        "GetCallerIdentity",
        "Action=GetCallerIdentity&Version=2011-06-15",
    ),
    (
        "wire_sts",
        "AssumeRole",
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A000000000000%3Arole%2Fany&RoleSessionName=s&DurationSeconds=900&Tags.member.1.Key=a&Tags.member.1.Value=b",
    ),
    (
        "wire_sts",
        "GetSessionToken",
        "Action=GetSessionToken&DurationSeconds=3600",
    ),
    (
        "wire_dynamodb",
        "PutItem",
        r#"{"TableName":"leases","Item":{"leaseKey":{"S":"shardId-0"},"leaseCounter":{"N":"0"},"more":{"L":[{"M":{"b":{"B":"AA=="}}},{"SS":["a"]}]}},"Expected":{"leaseKey":{"Exists":false}}}"#,
    ),
    (
        "wire_dynamodb",
        "UpdateItem",
        r##"{"TableName":"leases","Key":{"leaseKey":{"S":"a"}},"UpdateExpression":"SET #o = :o","ConditionExpression":"#o <> :o","ExpressionAttributeNames":{"#o":"owner"},"ExpressionAttributeValues":{":o":{"S":"w"}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}"##,
    ),
    (
        "wire_dynamodb",
        "TransactWriteItems",
        r#"{"TransactItems":[{"Delete":{"TableName":"leases","Key":{"leaseKey":{"S":"a"}}}}]}"#,
    ),
    (
        "wire_cloudwatch",
        "PutMetricData",
        "Action=PutMetricData&Version=2010-08-01&Namespace=app&MetricData.member.1.MetricName=m&MetricData.member.1.Value=1.5&MetricData.member.1.Dimensions.member.1.Name=d&MetricData.member.1.Dimensions.member.1.Value=v",
    ),
    (
        "wire_firehose",
        "CreateDeliveryStream",
        r#"{"DeliveryStreamName":"seen","DeliveryStreamType":"KinesisStreamAsSource","KinesisStreamSourceConfiguration":{"KinesisStreamARN":"arn:aws:kinesis:us-west-2:000000000000:stream/s","RoleARN":"arn:aws:iam::000000000000:role/r"},"ExtendedS3DestinationConfiguration":{"BucketARN":"arn:aws:s3:::b","RoleARN":"arn:aws:iam::000000000000:role/r","Prefix":"a/!{timestamp:yyyy}/","ErrorOutputPrefix":"e/!{firehose:error-output-type}/","BufferingHints":{"SizeInMBs":1,"IntervalInSeconds":0},"CompressionFormat":"GZIP"}}"#,
    ),
    (
        "wire_firehose",
        "PutRecordBatch",
        r#"{"DeliveryStreamName":"seen","Records":[{"Data":"aGVsbG8="},{"Data":""}]}"#,
    ),
    (
        "wire_kinesisanalytics",
        "CreateApplication",
        r#"{"ApplicationName":"doors","RuntimeEnvironment":"SQL-1_0","ServiceExecutionRole":"arn:aws:iam::000000000000:role/r","ApplicationConfiguration":{"ApplicationCodeConfiguration":{"CodeContentType":"PLAINTEXT","CodeContent":{"TextContent":"SELECT 1"}},"EnvironmentProperties":{"PropertyGroups":[{"PropertyGroupId":"sightglass.input.FACES","PropertyMap":{"rowtime":"at","lateness":"5 s"}}]},"SqlApplicationConfiguration":{"Inputs":[{"NamePrefix":"FACES","KinesisStreamsInput":{"ResourceARN":"arn:aws:kinesis:us-west-2:000000000000:stream/s"},"InputParallelism":{"Count":1},"InputSchema":{"RecordFormat":{"RecordFormatType":"JSON","MappingParameters":{"JSONMappingParameters":{"RecordRowPath":"$"}}},"RecordEncoding":"UTF-8","RecordColumns":[{"Name":"at","Mapping":"$.a.b","SqlType":"TIMESTAMP"}]}}],"Outputs":[{"Name":"OUT","KinesisFirehoseOutput":{"ResourceARN":"arn:aws:firehose:us-west-2:000000000000:deliverystream/d"},"DestinationSchema":{"RecordFormatType":"JSON"}}]}}}"#,
    ),
    (
        "wire_kinesisanalytics",
        "UpdateApplication",
        r#"{"ApplicationName":"doors","ConditionalToken":"abc-_=","ApplicationConfigurationUpdate":{"SqlApplicationConfigurationUpdate":{"InputUpdates":[{"InputId":"1.1","InputParallelismUpdate":{"CountUpdate":2},"InputSchemaUpdate":{"RecordFormatUpdate":{"RecordFormatType":"CSV","MappingParameters":{"CSVMappingParameters":{"RecordRowDelimiter":"\n","RecordColumnDelimiter":","}}}}}],"ReferenceDataSourceUpdates":[{"ReferenceId":"1.1","S3ReferenceDataSourceUpdate":{"FileKeyUpdate":"k"}}]}},"RunConfigurationUpdate":{"FlinkRunConfiguration":{"AllowNonRestoredState":false}}}"#,
    ),
];

const POLICIES: &[&str] = &[
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kinesisvideo:*","Resource":"*"}]}"#,
    r#"{"Statement":{"Effect":"Deny","Action":["kinesis:Put*","kinesis:Get?ecords"],"Resource":["arn:aws:kinesis:*:*:stream/a*"]}}"#,
    r#"{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","NotAction":"rekognition:*","NotResource":"arn:aws:kinesis:*"}]}"#,
];

const AVC: &[u8] = b"\x01\x64\x00\x28\xFF\xE1\x00\x1B\x67\x64\x00\x28\xAC\xD9\x40\x78\x02\x27\xE5\xC0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\x50\x3C\x60\xC6\x58\x01\x00\x06\x68\xEB\xE3\xCB\x22\xC0\xFD\xF8\xF8\x00";
const HEVC: &[u8] = b"\x01\x01\x60\x00\x00\x00\x90\x00\x00\x00\x00\x00\x3F\xF0\x00\xFC\xFD\xF8\xF8\x00\x00\x0F\x01\x21\x00\x01\x00\x2A\x42\x01\x01\x01\x60\x00\x00\x03\x00\x90\x00\x00\x03\x00\x00\x03\x00\x3F\xA0\x05\x02\x01\x69\x65\x95\x9A\x49\x32\xBC\x05\xA0\x20\x00\x00\x03\x00\x20\x00\x00\x03\x01\x41";

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

/// Bodies of PutMedia: tagged fragments, timecodes that go back, a track that is silent, one without private data.
fn put_media_bodies() -> Vec<(&'static str, BytesMut)> {
    let track = |number, codec_id: &str, private: &'static [u8]| Track {
        number,
        uid: number,
        kind: if number == 1 {
            TrackKind::Video
        } else {
            TrackKind::Audio
        },
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::from_static(private),
        name: String::new(),
        language: "eng".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: (number == 1).then_some(Video { width: 64, height: 48 }),
        audio: None,
    };
    let body = |tracks: &[Track], timecodes: &[u64], times: &[i16]| {
        let mut body = BytesMut::from(&writer::header(&writer::StreamInfo::default(), tracks)[..]);
        for timecode in timecodes {
            writer::put_cluster_head(&mut body, *timecode);
            for (n, time) in times.iter().enumerate() {
                let frame = b"\x00\x00\x00\x01\x67\x01\x00\x00\x01\x68\x02\x00\x00\x01\x65";
                let number = tracks[n % tracks.len()].number;
                writer::put_simple_block_head(&mut body, number, *time, *time == 0, frame.len());
                body.extend_from_slice(frame);
            }
            body.extend_from_slice(&writer::tags(&[("place", "door")]));
            body.extend_from_slice(&writer::end_of_fragment());
        }
        body
    };
    let (video, bare) = (
        track(1, "V_MPEG4/ISO/AVC", b"\x01avcC"),
        track(1, "V_MPEG4/ISO/AVC", b""),
    );
    let audio = track(2, "A_AAC", b"\x11\x90");
    vec![
        (
            "tagged",
            body(std::slice::from_ref(&video), &[1000, 2000, 3000], &[0, 40, 80]),
        ),
        ("silent", body(&[video.clone(), audio.clone()], &[1000, 2000], &[0])),
        (
            "backwards",
            body(std::slice::from_ref(&video), &[1000, 1000, 500], &[0, 900]),
        ),
        ("bare", body(&[bare, audio], &[0, 1000, 2000], &[0, 20, 40])),
        ("long", body(&[video], &[0, 30_000], &[0, 20_001, 30_000])),
    ]
}

fn main() {
    // Small seeds mutate into deeper places.
    let streams = (0u64..)
        .map(|seed| (seed, generate::stream(seed)))
        .filter(|(_, stream)| stream.len() <= 6000);
    for (seed, stream) in streams.take(12) {
        let pieces = u8::try_from(seed % 251).unwrap();
        write(
            "mkv_reader",
            &format!("generated-{seed}"),
            &[&[pieces], &stream[..]].concat(),
        );
    }
    for (settings, (name, body)) in [1u8, 5, 10, 17, 134].into_iter().zip(put_media_bodies()) {
        write("ingest_rules", name, &[&[settings], &body[..]].concat());
    }
    for (name, private, frame) in [
        ("avc", AVC, &b"\x00\x00\x00\x02\x65\x88\x00\x00\x00\x01\x06"[..]),
        ("hevc", HEVC, b"\x00\x00\x00\x03\x26\x01\xAF"),
        (
            "annex-b",
            b"\x00\x00\x00\x01\x67\x64\x00\x28\xAC\xD9\x40\x78",
            b"\x00\x00\x01\x65\x88",
        ),
        ("aac", b"\x11\x90\x56\xE5\x00", b"\x21\x00"),
    ] {
        write(
            "mkv_codec",
            name,
            &[&[u8::try_from(private.len()).unwrap()], private, frame].concat(),
        );
    }
    let frame = |time: u16, body: &[u8]| [&time.to_be_bytes(), body].concat();
    let picture = frame(0, b"\x00\x00\x00\x02\x65\x88");
    let annex_b = b"\x00\x00\x00\x01\x67\x42\xC0\x0A\xD9\x04\x7B\x01\x10\x00\x00\x03\x00\x10\x00\x00\x03\x03\x20\xF1\x22\x64\x80\x00\x00\x01\x68\xCB\x83\xCB\x20\x00\x00\x01\x65\x88";
    let wave = b"\x06\x00\x01\x00\x40\x1F\x00\x00\x40\x1F\x00\x00\x01\x00\x08\x00\x00\x00";
    let adts = b"\xFF\xF1\x50\x80\x01\x5F\xFC\x01\x02\x03";
    for (name, codec, private, media) in [
        (
            "avc",
            0,
            AVC,
            [picture.clone(), frame(66, &picture[2..]), frame(33, &picture[2..])].concat(),
        ),
        ("hevc", 1, HEVC, frame(0, b"\x00\x00\x00\x03\x26\x01\xAF")),
        ("annex-b", 0, b"", frame(0, annex_b)),
        (
            "aac",
            2,
            b"\x11\x90",
            [frame(0, b"\x21\x00"), frame(21, b"\x21\x01")].concat(),
        ),
        ("adts", 2, b"", frame(0, adts)),
        ("alaw", 3, wave, frame(0, &[0x55; 20])),
    ] {
        let step = match name {
            "avc" => 8,
            "aac" => 4,
            _ => u8::try_from(media.len()).unwrap(),
        };
        let head = [codec, u8::try_from(private.len()).unwrap(), step];
        write("packaging", name, &[&head[..], private, &media].concat());
    }
    for (n, policy) in POLICIES.iter().enumerate() {
        write("policy", &format!("policy-{n}"), policy.as_bytes());
    }
    for (target, operation, body) in BODIES {
        write(target, operation, format!("{operation}\n\n{body}").as_bytes());
    }
    for (target, seeds) in FIREHOSE {
        for (n, seed) in seeds.iter().enumerate() {
            write(target, &format!("seed-{n}"), seed.as_bytes());
        }
    }
    for (n, expression) in EXPRESSIONS.iter().enumerate() {
        write("tables", &format!("expression-{n}"), expression.as_bytes());
    }
    write(
        "wire_cloudwatch",
        "PutMetricData-cbor",
        b"PutMetricData\ncontent-type: application/cbor\n\n\xbfiNamespacecappjMetricData\x81\xa3jMetricNameamiTimestamp\xc1\xfb\x41\xda\x00\x00\x00\x00\x00\x00eValue\xf9\x3e\x00\xff",
    );
    for (operation, body) in CBOR_BODIES {
        let head = format!("{operation}\ncontent-type: application/x-amz-cbor-1.1\n\n");
        let name = format!("{operation}-cbor");
        write("wire_kinesis", &name, &[head.as_bytes(), body].concat());
    }
    let headers: String = PUT_MEDIA_HEADERS
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    write(
        "wire_kinesisvideo",
        "PutMedia",
        format!("PutMedia\n{headers}\n").as_bytes(),
    );
    vision_messages();
    signed_heads();
    logs();
}

/// One message of every kind in each direction that has fields worth changing.
fn vision_messages() {
    let data = Bytes::from_static(b"\x00\x00\x00\x02\x65\x88");
    let to_worker = [
        ToWorker::Open(OpenSession {
            session: 1,
            codec: Codec::H264,
            live: true,
            key_frames_only: false,
            track_faces: true,
            detector_side: 640,
            orientation: 6,
            attributes: true,
            max_rate: 5.0,
            codec_private: Bytes::from_static(AVC),
        }),
        ToWorker::Packet(Packet {
            session: 1,
            id: 2,
            time_ms: -40,
            key: true,
            silent: false,
            data: data.clone(),
        }),
        ToWorker::Image {
            request: 4,
            embed: true,
            attributes: true,
            max_pixels: 40_000_000,
            data: data.clone(),
        },
        ToWorker::Labels {
            request: 6,
            max_pixels: 40_000_000,
            data: data.clone(),
        },
        ToWorker::Film { size: 1 << 33 },
        ToWorker::FilmBytes { data: data.clone() },
        ToWorker::Look(OpenLook {
            request: 7,
            codec: Codec::H264,
            look: FrameLook::Objects,
            codec_private: Bytes::from_static(AVC),
        }),
        ToWorker::Look(OpenLook {
            request: 8,
            codec: Codec::H265,
            look: FrameLook::Part {
                area: BoundingBox {
                    left: -0.25,
                    top: 0.25,
                    width: 0.5,
                    height: 1.0,
                },
                quality: 90,
            },
            codec_private: Bytes::from_static(HEVC),
        }),
    ];
    for (n, message) in to_worker.iter().enumerate() {
        let mut said = Vec::new();
        let tail = message.encode(&mut said).to_vec();
        said.extend_from_slice(&tail);
        write("vision_messages", &format!("to-{n}"), &said[4..]);
    }
    let face = Face {
        confidence: 97.5,
        track_id: Some(3),
        embedding: Some(vec![0.25; 4]),
        attributes: Some(Box::new(FaceAttributes {
            age: 40.0,
            mesh: Some(FaceMesh {
                points: Default::default(),
                eyes_open: 1.0,
                mouth_open: 0.0,
            }),
            ..FaceAttributes::default()
        })),
        ..Face::default()
    };
    let picture = ImageAnalysis {
        width: 1280,
        height: 720,
        faces: vec![face],
    };
    let info = FilmInfo {
        codec: Codec::H265,
        codec_private: Bytes::from_static(HEVC),
        format: "QuickTime / MOV".to_owned(),
        width: 1280,
        height: 720,
        duration_ms: 6_000,
        frame_rate: 29.97,
        color_range: Some(ColorRange::Limited),
        orientation: 8,
    };
    let frame = FilmFrame {
        time_ms: 33,
        key: true,
        shown: false,
        data: data.clone(),
    };
    let from_worker = [
        FromWorker::Ready {
            version: 4,
            embedding_len: 128,
            lockdown: "seccomp".to_owned(),
        },
        FromWorker::Analysed {
            session: 1,
            id: 2,
            time_ms: 66,
            picture: picture.clone(),
        },
        FromWorker::Image {
            request: 4,
            result: Ok(picture),
        },
        FromWorker::Image {
            request: 4,
            result: Err(ImageError::Worker("why".to_owned())),
        },
        FromWorker::Still {
            request: 5,
            number: 1,
            result: Ok(data),
        },
        FromWorker::Labels {
            request: 6,
            result: Ok(LabelAnalysis {
                width: 1280,
                height: 720,
                objects: vec![DetectedObject::default(); 2],
            }),
        },
        FromWorker::FilmWants {
            offset: 4096,
            bytes: 262_144,
        },
        FromWorker::FilmOpened(info),
        FromWorker::FilmFrame(frame),
        FromWorker::FilmEnd(Err(FilmFault::Codec("mpeg4".to_owned()))),
        FromWorker::Objects {
            request: 7,
            number: 1,
            result: Ok(LabelAnalysis {
                width: 1280,
                height: 720,
                objects: vec![DetectedObject::default(); 3],
            }),
        },
        FromWorker::Objects {
            request: 7,
            number: 2,
            result: Err(StillError::TooLarge),
        },
    ];
    for (n, message) in from_worker.iter().enumerate() {
        let mut said = Vec::new();
        message.encode(&mut said);
        write("vision_messages", &format!("from-{n}"), &said[4..]);
    }
}

fn signed_heads() {
    let credentials = Credentials {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret: Secret::new(SECRET),
        session_token: None,
    };
    let scope = Scope {
        region: "us-west-2",
        service: "kinesisvideo",
    };
    let at = Timestamp::from_millis(NOW_MS);
    let put_media: Vec<(&str, &[u8])> = PUT_MEDIA_HEADERS
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    let json: Vec<(&str, &[u8])> = vec![("host", b"127.0.0.1:4577"), ("content-type", b"application/json")];
    for (name, path, headers, body) in [
        ("put-media", "/putMedia", put_media, ""),
        ("json", "/describeStream", json, r#"{"StreamName":"door"}"#),
    ] {
        let head = RequestHead {
            method: "POST",
            path,
            query: "",
            headers: &headers,
            local_port: None,
            also_hosts: &[],
        };
        let sent: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)))
            .collect();
        let added = sign(&head, &credentials, scope, at, &payload_hash(body.as_bytes()));
        let added: String = added.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        write("sigv4", name, format!("POST {path}\n{sent}{added}\n{body}").as_bytes());
        let query = presign(&head, &credentials, scope, at, 300, &payload_hash(b""));
        write(
            "sigv4",
            &format!("{name}-presigned"),
            format!("POST {path}?{query}\n{sent}\n{body}").as_bytes(),
        );
    }
}

/// Small logs in their files, the zeros at the end left out.
fn logs() {
    for (fragments, sealed) in [(0, 0), (2, 1), (4, 0)] {
        let disk = fuzz_targets::MemoryDisk::default();
        fuzz_targets::fill(&disk, fragments);
        let mut seed = vec![sealed];
        for mut segment in disk.segments() {
            let used = segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            segment.truncate(used);
            seed.extend(u32::try_from(used).unwrap().to_le_bytes());
            seed.extend(segment);
        }
        write("log_recovery", &format!("fragments-{fragments}"), &seed);
    }
}
