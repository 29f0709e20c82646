//! Streams as an AWS user knows them: made, described, listed, changed, tagged, deleted, made again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use base::ApiError;
use common::testing::Body;
use common::{STRANGER, Service, context_of, fragment};
use wire::kinesisvideo::{
    APIName, ComparisonOperator, CreateStreamInput, DeleteStreamInput, DescribeStreamInput, GetDataEndpointInput,
    ListStreamsInput, ListTagsForResourceInput, ListTagsForStreamInput, Status, StreamNameCondition, Tag,
    TagResourceInput, TagStreamInput, UntagResourceInput, UntagStreamInput, UpdateDataRetentionInput,
    UpdateDataRetentionOperation, UpdateStreamInput, op,
};

fn code<T>(result: Result<T, ApiError>) -> String {
    result.err().expect("an error").code.into_owned()
}

fn named(name: &str) -> CreateStreamInput {
    CreateStreamInput {
        stream_name: name.to_owned(),
        ..Default::default()
    }
}

fn by_arn(arn: &str) -> DescribeStreamInput {
    DescribeStreamInput {
        stream_arn: Some(arn.to_owned()),
        stream_name: None,
    }
}

fn retention(
    name: &str,
    version: &str,
    operation: UpdateDataRetentionOperation,
    hours: i32,
) -> UpdateDataRetentionInput {
    UpdateDataRetentionInput {
        current_version: version.to_owned(),
        data_retention_change_in_hours: hours,
        operation,
        stream_arn: None,
        stream_name: Some(name.to_owned()),
    }
}

#[tokio::test]
async fn a_stream_is_usable_at_once_and_described_as_it_was_made() {
    let service = Service::start().await;
    let input = CreateStreamInput {
        data_retention_in_hours: Some(48),
        device_name: Some("lobby".to_owned()),
        media_type: Some("video/h264,audio/aac".to_owned()),
        tags: Some(BTreeMap::from([("site".to_owned(), "hq".to_owned())])),
        ..named("cam")
    };
    let arn = service
        .call::<op::CreateStream>(input)
        .await
        .unwrap()
        .stream_arn
        .unwrap();
    assert_eq!(
        arn,
        "arn:aws:kinesisvideo:us-west-2:000000000000:stream/cam/1795347223436"
    );
    let info = service.describe("cam").await.unwrap();
    assert_eq!(info.stream_arn.as_deref(), Some(&*arn));
    assert_eq!(info.status, Some(Status::Active));
    assert_eq!(info.data_retention_in_hours, Some(48));
    assert_eq!(info.device_name.as_deref(), Some("lobby"));
    assert_eq!(info.media_type.as_deref(), Some("video/h264,audio/aac"));
    assert_eq!(info.creation_time, Some(common::START));
    assert!(info.kms_key_id.unwrap().ends_with(":alias/aws/kinesisvideo"));
    let version = info.version.unwrap();
    assert!((1..=64).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_alphanumeric()));
    assert_eq!(
        code(service.call::<op::CreateStream>(named("cam")).await),
        "ResourceInUseException"
    );
    let described = service.call::<op::DescribeStream>(by_arn(&arn)).await.unwrap();
    assert_eq!(described.stream_info.unwrap().stream_name.as_deref(), Some("cam"));
}

#[tokio::test]
async fn a_name_can_be_used_again_at_once_and_the_old_arn_never_resolves() {
    let service = Service::start().await;
    let mut arns = Vec::new();
    // The clock stands still: all are made within one millisecond.
    for _ in 0..3 {
        let arn = service.create("cam", 1).await;
        service
            .put("cam", &fragment(Body::new(&[1]), 1000).bytes(), &[usize::MAX])
            .await;
        assert_eq!(
            service.list("cam").await.len(),
            1,
            "nothing of the stream before is left"
        );
        service.delete(&arn).await;
        arns.push(arn);
    }
    let last = service.create("cam", 1).await;
    assert_eq!(service.list("cam").await.len(), 0);
    for arn in &arns {
        assert_ne!(*arn, last);
        assert_eq!(
            code(service.call::<op::DescribeStream>(by_arn(arn)).await),
            "ResourceNotFoundException"
        );
        let delete = DeleteStreamInput {
            stream_arn: arn.clone(),
            current_version: None,
        };
        assert_eq!(
            code(service.call::<op::DeleteStream>(delete).await),
            "ResourceNotFoundException"
        );
    }
    assert_eq!(service.describe("cam").await.unwrap().stream_arn.unwrap(), last);
}

#[tokio::test]
async fn streams_and_their_fragments_are_there_after_a_restart() {
    let service = Service::start().await;
    let gone = service.create("gone", 1).await;
    service.delete(&gone).await;
    let arn = service.create("cam", 1).await;
    service
        .put("cam", &fragment(Body::new(&[1]), 1000).bytes(), &[usize::MAX])
        .await;
    let before = service.describe("cam").await.unwrap();
    let service = service.restart().await;
    assert_eq!(service.describe("cam").await.unwrap(), before);
    assert_eq!(service.list("cam").await.len(), 1);
    assert_eq!(
        code(service.call::<op::DescribeStream>(by_arn(&gone)).await),
        "ResourceNotFoundException"
    );
    let again = service.create("gone", 1).await;
    assert!(again != gone && again != arn);
}

#[tokio::test]
async fn another_account_s_stream_cannot_be_told_from_none() {
    let service = Service::start().await;
    let arn = service.create("cam", 1).await;
    let missing = arn.replace("/cam/", "/none/");
    let mut said = Vec::new();
    for arn in [&arn, &missing] {
        let described = service
            .call_as::<op::DescribeStream>(context_of(STRANGER), by_arn(arn))
            .await;
        said.push(described.err().unwrap());
        let delete = DeleteStreamInput {
            stream_arn: arn.clone(),
            current_version: None,
        };
        said.push(
            service
                .call_as::<op::DeleteStream>(context_of(STRANGER), delete)
                .await
                .err()
                .unwrap(),
        );
    }
    assert!(said.iter().all(|error| *error == said[0]), "{said:?}");
    assert_eq!(said[0].code, "ResourceNotFoundException");
    let own = service
        .call_as::<op::CreateStream>(context_of(STRANGER), named("cam"))
        .await
        .unwrap();
    assert!(own.stream_arn.unwrap().contains(STRANGER), "names are per account");
    let mut elsewhere = common::context();
    elsewhere.caller.region = "eu-central-1".parse().unwrap();
    let described = service.call_as::<op::DescribeStream>(elsewhere, by_arn(&arn)).await;
    assert_eq!(code(described), "ResourceNotFoundException", "and per region");
}

#[tokio::test]
async fn every_update_changes_the_version_and_needs_the_current_one() {
    let service = Service::start().await;
    let arn = service.create("cam", 0).await;
    let version = |info: wire::kinesisvideo::StreamInfo| info.version.unwrap();
    let first = version(service.describe("cam").await.unwrap());
    let update = |version: &str| UpdateStreamInput {
        current_version: version.to_owned(),
        device_name: Some("door".to_owned()),
        media_type: None,
        stream_arn: Some(arn.clone()),
        stream_name: None,
    };
    service.call::<op::UpdateStream>(update(&first)).await.unwrap();
    let info = service.describe("cam").await.unwrap();
    assert_eq!(info.device_name.as_deref(), Some("door"));
    let second = version(info);
    assert_ne!(first, second);
    assert_eq!(
        code(service.call::<op::UpdateStream>(update(&first)).await),
        "VersionMismatchException"
    );
    let up = retention("cam", &first, UpdateDataRetentionOperation::IncreaseDataRetention, 2);
    assert_eq!(
        code(service.call::<op::UpdateDataRetention>(up).await),
        "VersionMismatchException"
    );
    let delete = DeleteStreamInput {
        stream_arn: arn.clone(),
        current_version: Some(first),
    };
    assert_eq!(
        code(service.call::<op::DeleteStream>(delete).await),
        "VersionMismatchException"
    );
    let delete = DeleteStreamInput {
        stream_arn: arn,
        current_version: Some(second),
    };
    service.call::<op::DeleteStream>(delete).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_named_in_one_way_that_makes_sense() {
    let service = Service::start().await;
    let arn = service.create("cam", 0).await;
    let describe = |name: Option<&str>, arn: Option<&str>| DescribeStreamInput {
        stream_arn: arn.map(str::to_owned),
        stream_name: name.map(str::to_owned),
    };
    service
        .call::<op::DescribeStream>(describe(Some("cam"), Some(&arn)))
        .await
        .unwrap();
    let both = service
        .call::<op::DescribeStream>(describe(Some("other"), Some(&arn)))
        .await;
    assert_eq!(code(both), "InvalidArgumentException");
    assert_eq!(
        code(service.call::<op::DescribeStream>(describe(None, None)).await),
        "InvalidArgumentException"
    );
    assert_eq!(
        code(service.call::<op::DescribeStream>(describe(None, Some("arn:x"))).await),
        "ResourceNotFoundException"
    );
}

#[tokio::test]
async fn a_decrease_of_retention_deletes_what_is_older_at_once() {
    let service = Service::start().await;
    service.create("cam", 5).await;
    for n in 1..=4 {
        service
            .put("cam", &fragment(Body::new(&[1]), n * 1000).bytes(), &[usize::MAX])
            .await;
        service.clock.advance(Duration::from_secs(3600));
    }
    let change = |operation, hours| {
        let service = &service;
        async move {
            let version = service.describe("cam").await.unwrap().version.unwrap();
            service
                .call::<op::UpdateDataRetention>(retention("cam", &version, operation, hours))
                .await
        }
    };
    use UpdateDataRetentionOperation::{DecreaseDataRetention, IncreaseDataRetention};
    change(DecreaseDataRetention, 3).await.unwrap();
    assert_eq!(service.describe("cam").await.unwrap().data_retention_in_hours, Some(2));
    let left: Vec<_> = service
        .list("cam")
        .await
        .iter()
        .map(|f| f.producer_timestamp.unwrap().millis())
        .collect();
    assert_eq!(left, [3000, 4000]);
    assert_eq!(code(change(DecreaseDataRetention, 3).await), "InvalidArgumentException");
    assert_eq!(
        code(change(IncreaseDataRetention, 87_600).await),
        "InvalidArgumentException"
    );
    change(IncreaseDataRetention, 10).await.unwrap();
    assert_eq!(service.list("cam").await.len(), 2, "an increase keeps what is there");
    change(DecreaseDataRetention, 12).await.unwrap();
    assert_eq!(service.list("cam").await.len(), 0);
    assert_eq!(service.durable.usage(storage::StreamId(1)).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn retention_and_byte_limits_are_kept_by_the_sweep() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    for n in 1..=3 {
        service
            .put("cam", &fragment(Body::new(&[1]), n * 1000).bytes(), &[usize::MAX])
            .await;
        service.clock.advance(Duration::from_secs(1200));
    }
    service.video.sweep().await;
    assert_eq!(
        service.list("cam").await.len(),
        3,
        "the oldest is 59 minutes and 60 seconds old, not more"
    );
    service.clock.advance(Duration::from_secs(1));
    service.video.sweep().await;
    let left = service.list("cam").await;
    assert_eq!(left.len(), 2);
    let size = left[0].fragment_size_in_bytes.unwrap();
    let tags = BTreeMap::from([("sightglass:max_bytes".to_owned(), (size + 10).to_string())]);
    let tag = |tags| TagStreamInput {
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
        tags,
    };
    service.call::<op::TagStream>(tag(tags)).await.unwrap();
    assert_eq!(service.list("cam").await.len(), 1);
    let words = BTreeMap::from([("sightglass:max_bytes".to_owned(), "lots".to_owned())]);
    assert_eq!(
        code(service.call::<op::TagStream>(tag(words)).await),
        "InvalidArgumentException"
    );
}

#[tokio::test]
async fn what_is_not_archived_outlives_its_retention_but_not_a_limit_of_bytes() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let tag = |key: &str, value: &str| TagStreamInput {
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
        tags: BTreeMap::from([(key.to_owned(), value.to_owned())]),
    };
    service
        .call::<op::TagStream>(tag("sightglass:archive-hold", "true"))
        .await
        .unwrap();
    for n in 1..=3 {
        service
            .put("cam", &fragment(Body::new(&[1]), n * 1000).bytes(), &[usize::MAX])
            .await;
        service.clock.advance(Duration::from_secs(60));
    }
    service.clock.advance(Duration::from_secs(7200));
    service.video.sweep().await;
    let all = service.list("cam").await;
    assert_eq!(all.len(), 3, "nobody has archived any of it");
    let service = service.restart().await;
    service.video.sweep().await;
    assert_eq!(service.list("cam").await.len(), 3, "the server remembers that it waits");
    let second = wire::time::to_iso8601(all[1].server_timestamp.unwrap());
    service
        .call::<op::TagStream>(tag("sightglass:archived-until", &second))
        .await
        .unwrap();
    service.video.sweep().await;
    let left = service.list("cam").await;
    assert_eq!(left.len(), 2, "the first is archived");
    let size = left[0].fragment_size_in_bytes.unwrap().to_string();
    service
        .call::<op::TagStream>(tag("sightglass:max_bytes", &size))
        .await
        .unwrap();
    assert_eq!(
        service.list("cam").await.len(),
        1,
        "the disk is not filled for the archive's sake"
    );
    service
        .call::<op::TagStream>(tag("sightglass:archive-hold", "false"))
        .await
        .unwrap();
    service.video.sweep().await;
    assert_eq!(service.list("cam").await.len(), 0);
    for (key, value) in [
        ("sightglass:archive-hold", "yes"),
        ("sightglass:archived-until", "yesterday"),
        ("sightglass:archive", "s3://bucket"),
    ] {
        let refused = service.call::<op::TagStream>(tag(key, value)).await;
        assert_eq!(code(refused), "InvalidArgumentException", "{key}");
    }
}

#[tokio::test]
async fn lists_go_page_by_page_and_by_prefix() {
    let service = Service::start().await;
    for name in ["b2", "a1", "b1", "b3", "c", "B"] {
        service.create(name, 0).await;
    }
    service
        .call_as::<op::CreateStream>(context_of(STRANGER), named("b0"))
        .await
        .unwrap();
    let page = |prefix: Option<&str>, next_token: Option<String>| ListStreamsInput {
        max_results: Some(2),
        next_token,
        stream_name_condition: prefix.map(|prefix| StreamNameCondition {
            comparison_operator: Some(ComparisonOperator::BeginsWith),
            comparison_value: Some(prefix.to_owned()),
        }),
    };
    for (prefix, wanted) in [
        (None, vec!["B", "a1", "b1", "b2", "b3", "c"]),
        (Some("b"), vec!["b1", "b2", "b3"]),
        (Some("x"), vec![]),
    ] {
        let (mut names, mut token) = (Vec::new(), None);
        loop {
            let answer = service.call::<op::ListStreams>(page(prefix, token)).await.unwrap();
            let infos = answer.stream_info_list.unwrap();
            assert!(infos.len() <= 2);
            names.extend(infos.into_iter().map(|info| info.stream_name.unwrap()));
            token = answer.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(names, wanted);
    }
    let bad = page(None, Some("!".to_owned()));
    assert_eq!(
        code(service.call::<op::ListStreams>(bad).await),
        "InvalidArgumentException"
    );
}

#[tokio::test]
async fn tags_are_the_same_by_both_ways() {
    let service = Service::start().await;
    let arn = service.create("cam", 0).await;
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let tag = TagStreamInput {
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
        tags: map(&[("a", "1"), ("b", "2")]),
    };
    service.call::<op::TagStream>(tag).await.unwrap();
    let tag = TagResourceInput {
        resource_arn: arn.clone(),
        tags: vec![
            Tag {
                key: "b".into(),
                value: "3".into(),
            },
            Tag {
                key: "c".into(),
                value: String::new(),
            },
        ],
    };
    service.call::<op::TagResource>(tag).await.unwrap();
    let list = || async {
        let input = ListTagsForResourceInput {
            next_token: None,
            resource_arn: arn.clone(),
        };
        let by_resource = service
            .call::<op::ListTagsForResource>(input)
            .await
            .unwrap()
            .tags
            .unwrap();
        let input = ListTagsForStreamInput {
            next_token: None,
            stream_arn: None,
            stream_name: Some("cam".to_owned()),
        };
        let by_stream = service
            .call::<op::ListTagsForStream>(input)
            .await
            .unwrap()
            .tags
            .unwrap();
        assert_eq!(by_resource, by_stream);
        by_stream
    };
    assert_eq!(list().await, map(&[("a", "1"), ("b", "3"), ("c", "")]));
    let untag = UntagStreamInput {
        stream_arn: Some(arn.clone()),
        stream_name: None,
        tag_key_list: vec!["a".into(), "missing".into()],
    };
    service.call::<op::UntagStream>(untag).await.unwrap();
    let untag = UntagResourceInput {
        resource_arn: arn.clone(),
        tag_key_list: vec!["c".into()],
    };
    service.call::<op::UntagResource>(untag).await.unwrap();
    assert_eq!(list().await, map(&[("b", "3")]));
    let many = TagStreamInput {
        stream_arn: Some(arn.clone()),
        stream_name: None,
        tags: (0..50).map(|n| (format!("tag{n}"), String::new())).collect(),
    };
    assert_eq!(
        code(service.call::<op::TagStream>(many).await),
        "TagsPerResourceExceededLimitException"
    );
    assert_eq!(list().await, map(&[("b", "3")]), "a refused change changes nothing");
}

#[tokio::test]
async fn media_is_served_where_the_caller_reached_us() {
    let service = Service::start().await;
    service.create("cam", 0).await;
    let input = |name: &str| GetDataEndpointInput {
        api_name: APIName::PutMedia,
        stream_arn: None,
        stream_name: Some(name.to_owned()),
    };
    let endpoint = service.call::<op::GetDataEndpoint>(input("cam")).await.unwrap();
    assert_eq!(endpoint.data_endpoint.as_deref(), Some("http://127.0.0.1:4577"));
    assert_eq!(
        code(service.call::<op::GetDataEndpoint>(input("none")).await),
        "ResourceNotFoundException"
    );
}
