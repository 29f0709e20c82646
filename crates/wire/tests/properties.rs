//! For any value that a schema allows: what is written is read back as it was. For any bytes: an answer, never a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::borrow::Cow;

use base::Timestamp;
use proptest::prelude::*;
use wire::conform::{Notation, conform};
use wire::schema::{Kind, Length, Schema};
use wire::{
    Shape, Structure, Value, cbor, json, kinesis, kinesisvideo, kinesisvideo_archived_media, query, rekognition, sts,
};

/// Any value that the schema allows, constraints on text patterns aside (they bind requests only).
fn any(schema: &'static Schema) -> BoxedStrategy<Value<'static>> {
    let size = |length: Length, most: u64| {
        let min = length.min.min(most) as usize;
        min..=(length.max.min(most) as usize).max(min)
    };
    match &schema.kind {
        Kind::Structure(members) => members
            .iter()
            .map(|member| {
                let value = any(member.schema);
                if member.required {
                    value
                } else {
                    prop_oneof![1 => Just(Value::Null), 2 => value].boxed()
                }
            })
            .collect::<Vec<_>>()
            .prop_map(Value::Fields)
            .boxed(),
        Kind::List { element, length } => proptest::collection::vec(any(element), size(*length, 3))
            .prop_map(Value::List)
            .boxed(),
        Kind::Map { value, .. } => proptest::collection::btree_map(".{1,8}", any(value), 0..3)
            .prop_map(|map| Value::Map(map.into_iter().map(|(k, v)| (Cow::Owned(k), v)).collect()))
            .boxed(),
        Kind::Text { values, .. } if !values.is_empty() => proptest::sample::select(*values)
            .prop_map(|text| Value::Text(Cow::Borrowed(text)))
            .boxed(),
        Kind::Text { .. } => ".{0,12}".prop_map(|text| Value::Text(Cow::Owned(text))).boxed(),
        Kind::Integer(min, max) | Kind::Long(min, max) => (*min..=*max).prop_map(Value::Int).boxed(),
        Kind::Float(..) => proptest::num::f32::NORMAL.prop_map(Value::Single).boxed(),
        Kind::Double(..) => proptest::num::f64::NORMAL.prop_map(Value::Double).boxed(),
        Kind::Boolean => any_bool(),
        Kind::Blob(_) => proptest::collection::vec(proptest::num::u8::ANY, 0..20)
            .prop_map(|bytes| Value::Blob(bytes.into()))
            .boxed(),
        // Whole milliseconds of the years 1 to 9999.
        Kind::Timestamp => (-62_135_596_800_000i64..253_402_300_800_000)
            .prop_map(|ms| Value::Time(Timestamp::from_millis(ms)))
            .boxed(),
    }
}

fn any_bool() -> BoxedStrategy<Value<'static>> {
    proptest::bool::ANY.prop_map(Value::Bool).boxed()
}

fn round_trip<T: Structure + Clone + PartialEq + std::fmt::Debug>(value: &Value<'_>) {
    let body = json::write(value, T::schema());
    let parsed = json::parse(&body).unwrap();
    let (read, _) = conform(parsed, T::schema(), Notation::Json).unwrap();
    assert_eq!(&read, value, "{}", String::from_utf8_lossy(&body));
    let body = cbor::write(value, T::schema());
    let (from_cbor, _) = conform(cbor::parse(&body).unwrap(), T::schema(), Notation::Cbor).unwrap();
    assert_eq!(from_cbor, read);
    let typed = T::from_value(read).unwrap();
    assert_eq!(&typed.to_value(), value);
    let _ = format!("{typed:?}");
}

macro_rules! round_trips {
    ($($name:ident: $type:ty,)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]
            $(#[test]
            fn $name(value in any(<$type as Structure>::schema())) {
                round_trip::<$type>(&value);
            })*
        }
    };
}

round_trips! {
    put_records: kinesis::PutRecordsInput,
    get_records: kinesis::GetRecordsOutput,
    describe_stream: kinesis::DescribeStreamOutput,
    list_shards: kinesis::ListShardsOutput,
    video_create_stream: kinesisvideo::CreateStreamInput,
    video_list_streams: kinesisvideo::ListStreamsOutput,
    edge_configuration: kinesisvideo::DescribeEdgeConfigurationOutput,
    list_fragments: kinesisvideo_archived_media::ListFragmentsOutput,
    get_images: kinesisvideo_archived_media::GetImagesInput,
    detect_faces: rekognition::DetectFacesResponse,
    search_faces_by_image: rekognition::SearchFacesByImageRequest,
    stream_processor: rekognition::CreateStreamProcessorRequest,
    assume_role: sts::AssumeRoleResponse,
}

proptest! {
    #[test]
    fn any_bytes_get_an_answer(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Ok(value) = json::parse(&body) {
            let _ = conform(value, kinesis::PutRecordsInput::schema(), Notation::Json);
        }
        if let Ok(value) = cbor::parse(&body) {
            let _ = conform(value, kinesis::PutRecordsInput::schema(), Notation::Cbor);
        }
        if let Ok(form) = query::parse_form(&body) {
            let _ = conform(query::gather(&form, sts::AssumeRoleRequest::schema()), sts::AssumeRoleRequest::schema(), Notation::Text);
        }
    }

    #[test]
    fn a_damaged_document_gets_an_answer(
        value in any(kinesis::PutRecordsInput::schema()),
        at in proptest::num::usize::ANY,
        byte in proptest::num::u8::ANY,
    ) {
        let mut body = json::write(&value, kinesis::PutRecordsInput::schema());
        let at = at % body.len();
        body[at] = byte;
        if let Ok(value) = json::parse(&body)
            && let Ok((value, violations)) = conform(value, kinesis::PutRecordsInput::schema(), Notation::Json)
        {
            // What breaks no constraint can be typed.
            prop_assert!(!violations.is_empty() || kinesis::PutRecordsInput::from_value(value).is_ok());
        }
    }

    #[test]
    fn times_survive_both_notations(ms in -62_135_596_800_000i64..253_402_300_800_000) {
        let time = Timestamp::from_millis(ms);
        prop_assert_eq!(wire::time::parse_iso8601(&wire::time::to_iso8601(time)), Some(time));
    }
}
