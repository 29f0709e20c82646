//! The resources beside streams: signalling channels, where their media is stored, storage tiers, edge configurations.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::time::Duration;

use base::{ApiError, Handle, Operation, Request};
use common::{STRANGER, Service, context_of};
use storage::Catalog;
use video_streams::VideoStreams;
use wire::kinesisvideo::*;

fn code<T>(result: Result<T, ApiError>) -> String {
    result.err().expect("an error").code.into_owned()
}

fn channel(name: &str) -> CreateSignalingChannelInput {
    CreateSignalingChannelInput {
        channel_name: name.to_owned(),
        ..Default::default()
    }
}

async fn make(service: &Service, name: &str) -> String {
    let made = service.call::<op::CreateSignalingChannel>(channel(name)).await;
    made.unwrap().channel_arn.unwrap()
}

fn by_arn(arn: &str) -> DescribeSignalingChannelInput {
    DescribeSignalingChannelInput {
        channel_arn: Some(arn.to_owned()),
        channel_name: None,
    }
}

async fn info(service: &Service, arn: &str) -> ChannelInfo {
    let described = service.call::<op::DescribeSignalingChannel>(by_arn(arn)).await;
    described.unwrap().channel_info.unwrap()
}

fn delete(arn: &str, version: Option<String>) -> DeleteSignalingChannelInput {
    DeleteSignalingChannelInput {
        channel_arn: arn.to_owned(),
        current_version: version,
    }
}

fn ttl(seconds: i32) -> Option<SingleMasterConfiguration> {
    Some(SingleMasterConfiguration {
        message_ttl_seconds: Some(seconds),
    })
}

#[tokio::test]
async fn a_channel_lives_as_a_stream_does_and_its_old_arn_never_resolves() {
    let service = Service::start().await;
    let mut arns = Vec::new();
    // The clock stands still: all are made within one millisecond.
    for _ in 0..3 {
        let arn = make(&service, "door").await;
        assert_eq!(
            code(service.call::<op::CreateSignalingChannel>(channel("door")).await),
            "ResourceInUseException"
        );
        let described = info(&service, &arn).await;
        assert_eq!(described.channel_arn.as_deref(), Some(&*arn));
        assert_eq!(described.channel_status, Some(Status::Active));
        assert_eq!(described.channel_type, Some(ChannelType::SingleMaster));
        assert_eq!(described.single_master_configuration, ttl(60));
        let stale = delete(&arn, Some("stale".to_owned()));
        assert_eq!(
            code(service.call::<op::DeleteSignalingChannel>(stale).await),
            "VersionMismatchException"
        );
        service
            .call::<op::DeleteSignalingChannel>(delete(&arn, described.version))
            .await
            .unwrap();
        arns.push(arn);
    }
    assert!(arns[0].starts_with("arn:aws:kinesisvideo:us-west-2:000000000000:channel/door/"));
    let service = service.restart().await;
    let last = make(&service, "door").await;
    for arn in &arns {
        assert_ne!(*arn, last);
        assert_eq!(
            code(service.call::<op::DescribeSignalingChannel>(by_arn(arn)).await),
            "ResourceNotFoundException"
        );
        assert_eq!(
            code(service.call::<op::DeleteSignalingChannel>(delete(arn, None)).await),
            "ResourceNotFoundException"
        );
    }
    assert_eq!(info(&service, &last).await.channel_name.as_deref(), Some("door"));
}

#[tokio::test]
async fn a_channel_of_another_account_or_region_cannot_be_told_from_none() {
    let service = Service::start().await;
    let arn = make(&service, "door").await;
    let missing = arn.replace("/door/", "/none/");
    let mut said = Vec::new();
    for arn in [&arn, &missing] {
        let described = service
            .call_as::<op::DescribeSignalingChannel>(context_of(STRANGER), by_arn(arn))
            .await;
        said.push(described.err().unwrap());
        let deleted = service
            .call_as::<op::DeleteSignalingChannel>(context_of(STRANGER), delete(arn, None))
            .await;
        said.push(deleted.err().unwrap());
        let tag = TagResourceInput {
            resource_arn: arn.clone(),
            tags: Vec::new(),
        };
        said.push(
            service
                .call_as::<op::TagResource>(context_of(STRANGER), tag)
                .await
                .err()
                .unwrap(),
        );
    }
    assert!(said.iter().all(|error| *error == said[0]), "{said:?}");
    assert_eq!(said[0].code, "ResourceNotFoundException");
    let mut elsewhere = common::context();
    elsewhere.caller.region = "eu-central-1".parse().unwrap();
    let described = service
        .call_as::<op::DescribeSignalingChannel>(elsewhere, by_arn(&arn))
        .await;
    assert_eq!(code(described), "ResourceNotFoundException");
}

#[tokio::test]
async fn an_update_of_a_channel_needs_its_version_and_changes_it() {
    let service = Service::start().await;
    let arn = make(&service, "door").await;
    let first = info(&service, &arn).await.version.unwrap();
    let update = |version: &str, configuration| UpdateSignalingChannelInput {
        channel_arn: arn.clone(),
        current_version: version.to_owned(),
        single_master_configuration: configuration,
    };
    service
        .call::<op::UpdateSignalingChannel>(update(&first, ttl(5)))
        .await
        .unwrap();
    let described = info(&service, &arn).await;
    assert_eq!(described.single_master_configuration, ttl(5));
    assert_ne!(described.version.as_deref(), Some(&*first));
    let stale = service.call::<op::UpdateSignalingChannel>(update(&first, ttl(6))).await;
    assert_eq!(code(stale), "VersionMismatchException");
    let mesh = CreateSignalingChannelInput {
        channel_type: Some(ChannelType::FullMesh),
        ..channel("mesh")
    };
    let both = CreateSignalingChannelInput {
        single_master_configuration: ttl(5),
        ..mesh.clone()
    };
    assert_eq!(
        code(service.call::<op::CreateSignalingChannel>(both).await),
        "InvalidArgumentException"
    );
    let arn = service
        .call::<op::CreateSignalingChannel>(mesh)
        .await
        .unwrap()
        .channel_arn
        .unwrap();
    let described = info(&service, &arn).await;
    assert_eq!(
        (described.channel_type, described.single_master_configuration),
        (Some(ChannelType::FullMesh), None)
    );
    let update = UpdateSignalingChannelInput {
        channel_arn: arn,
        current_version: described.version.unwrap(),
        single_master_configuration: ttl(5),
    };
    assert_eq!(
        code(service.call::<op::UpdateSignalingChannel>(update).await),
        "InvalidArgumentException"
    );
}

#[tokio::test]
async fn channels_are_listed_page_by_page_and_by_prefix() {
    let service = Service::start().await;
    for name in ["b2", "a1", "b1", "b3", "c"] {
        make(&service, name).await;
    }
    service
        .call_as::<op::CreateSignalingChannel>(context_of(STRANGER), channel("b0"))
        .await
        .unwrap();
    let page = |prefix: Option<&str>, next_token: Option<String>| ListSignalingChannelsInput {
        max_results: Some(2),
        next_token,
        channel_name_condition: prefix.map(|prefix| ChannelNameCondition {
            comparison_operator: Some(ComparisonOperator::BeginsWith),
            comparison_value: Some(prefix.to_owned()),
        }),
    };
    for (prefix, wanted) in [
        (None, vec!["a1", "b1", "b2", "b3", "c"]),
        (Some("b"), vec!["b1", "b2", "b3"]),
        (Some("x"), vec![]),
    ] {
        let (mut names, mut token) = (Vec::new(), None);
        loop {
            let answer = service
                .call::<op::ListSignalingChannels>(page(prefix, token))
                .await
                .unwrap();
            let infos = answer.channel_info_list.unwrap();
            assert!(infos.len() <= 2);
            names.extend(infos.into_iter().map(|info| info.channel_name.unwrap()));
            token = answer.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(names, wanted);
    }
    let bad = page(None, Some("!".to_owned()));
    assert_eq!(
        code(service.call::<op::ListSignalingChannels>(bad).await),
        "InvalidArgumentException"
    );
}

#[tokio::test]
async fn an_account_has_ten_thousand_channels_at_most_and_a_deletion_makes_room() {
    let service = Service::start().await;
    let arn = make(&service, "door").await;
    let key = "000000000000/us-west-2/video-channels";
    let there = service.catalog.get(key).await.unwrap().unwrap();
    let mut ledger: serde_json::Value = serde_json::from_slice(&there.value).unwrap();
    assert_eq!(ledger["channels"], 1);
    ledger["channels"] = video_streams::limits::CHANNELS_PER_ACCOUNT.into();
    let full = storage::Change::replace(key, serde_json::to_vec(&ledger).unwrap(), there.version);
    service.catalog.commit(vec![full]).await.unwrap();
    let more = service.call::<op::CreateSignalingChannel>(channel("gate")).await;
    assert_eq!(code(more), "AccountChannelLimitExceededException");
    service
        .call::<op::DeleteSignalingChannel>(delete(&arn, None))
        .await
        .unwrap();
    make(&service, "gate").await;
}

#[tokio::test]
async fn a_channel_has_tags_as_a_stream_has() {
    let service = Service::start().await;
    let tag = |key: &str, value: &str| Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let input = CreateSignalingChannelInput {
        tags: Some(vec![tag("site", "hq")]),
        ..channel("door")
    };
    let arn = service
        .call::<op::CreateSignalingChannel>(input)
        .await
        .unwrap()
        .channel_arn
        .unwrap();
    let add = |tags: Vec<Tag>| TagResourceInput {
        resource_arn: arn.clone(),
        tags,
    };
    service
        .call::<op::TagResource>(add(vec![tag("a", "1"), tag("site", "lab")]))
        .await
        .unwrap();
    let untag = UntagResourceInput {
        resource_arn: arn.clone(),
        tag_key_list: vec!["a".to_owned(), "never".to_owned()],
    };
    service.call::<op::UntagResource>(untag).await.unwrap();
    let list = |next_token| ListTagsForResourceInput {
        next_token,
        resource_arn: arn.clone(),
    };
    let tags = service
        .call::<op::ListTagsForResource>(list(None))
        .await
        .unwrap()
        .tags
        .unwrap();
    assert_eq!(
        tags.into_iter().collect::<Vec<_>>(),
        [("site".to_owned(), "lab".to_owned())]
    );
    let forged = list(Some("AAAA".to_owned()));
    assert_eq!(
        code(service.call::<op::ListTagsForResource>(forged).await),
        "InvalidArgumentException"
    );
    let many = (0..50).map(|n| tag(&format!("tag{n}"), "")).collect();
    assert_eq!(
        code(service.call::<op::TagResource>(add(many)).await),
        "TagsPerResourceExceededLimitException"
    );
    let theirs = add(vec![tag("aws:cloudformation:stack", "x")]);
    assert_eq!(
        code(service.call::<op::TagResource>(theirs).await),
        "InvalidArgumentException"
    );
    let of_stream = TagStreamInput {
        stream_arn: Some(arn.clone()),
        ..Default::default()
    };
    assert_eq!(
        code(service.call::<op::TagStream>(of_stream).await),
        "InvalidResourceFormatException"
    );
}

#[tokio::test]
async fn a_channel_s_endpoints_are_where_the_caller_reached_us() {
    let service = Service::start().await;
    let arn = make(&service, "door").await;
    let ask = |protocols: Option<Vec<ChannelProtocol>>| GetSignalingChannelEndpointInput {
        channel_arn: arn.clone(),
        single_master_channel_endpoint_configuration: protocols.map(|protocols| {
            SingleMasterChannelEndpointConfiguration {
                protocols: Some(protocols),
                role: Some(ChannelRole::Viewer),
            }
        }),
    };
    let found = |answer: GetSignalingChannelEndpointOutput| -> Vec<(ChannelProtocol, String)> {
        let endpoints = answer.resource_endpoint_list.unwrap().into_iter();
        endpoints
            .map(|item| (item.protocol.unwrap(), item.resource_endpoint.unwrap()))
            .collect()
    };
    let both = [
        (ChannelProtocol::Wss, "ws://127.0.0.1:4577".to_owned()),
        (ChannelProtocol::Https, "http://127.0.0.1:4577".to_owned()),
    ];
    let answer = service
        .call::<op::GetSignalingChannelEndpoint>(ask(None))
        .await
        .unwrap();
    assert_eq!(found(answer), both);
    let mut secure = common::context();
    secure.base_url = "https://video.example".into();
    let wss = ask(Some(vec![ChannelProtocol::Wss, ChannelProtocol::Wss]));
    let answer = service
        .call_as::<op::GetSignalingChannelEndpoint>(secure, wss)
        .await
        .unwrap();
    assert_eq!(
        found(answer),
        [(ChannelProtocol::Wss, "wss://video.example".to_owned())]
    );
    let webrtc = || ask(Some(vec![ChannelProtocol::Webrtc]));
    assert_eq!(
        code(service.call::<op::GetSignalingChannelEndpoint>(webrtc()).await),
        "InvalidArgumentException"
    );
    let stream = service.create("cam", 1).await;
    service
        .call::<op::UpdateMediaStorageConfiguration>(store(&arn, Some(&stream)))
        .await
        .unwrap();
    let answer = service.call::<op::GetSignalingChannelEndpoint>(webrtc()).await.unwrap();
    assert_eq!(
        found(answer),
        [(ChannelProtocol::Webrtc, "http://127.0.0.1:4577".to_owned())]
    );
}

fn store(channel: &str, stream: Option<&str>) -> UpdateMediaStorageConfigurationInput {
    let status = match stream {
        Some(_) => MediaStorageConfigurationStatus::Enabled,
        None => MediaStorageConfigurationStatus::Disabled,
    };
    UpdateMediaStorageConfigurationInput {
        channel_arn: channel.to_owned(),
        media_storage_configuration: MediaStorageConfiguration {
            status,
            stream_arn: stream.map(str::to_owned),
        },
    }
}

async fn mapped(service: &Service, stream: &str) -> Vec<String> {
    let input = DescribeMappedResourceConfigurationInput {
        stream_name: Some(stream.to_owned()),
        ..Default::default()
    };
    let answer = service
        .call::<op::DescribeMappedResourceConfiguration>(input)
        .await
        .unwrap();
    let items = answer.mapped_resource_configuration_list.unwrap().into_iter();
    items.map(|item| item.arn.unwrap()).collect()
}

async fn stored(service: &Service, channel: &str) -> Option<String> {
    let input = DescribeMediaStorageConfigurationInput {
        channel_arn: Some(channel.to_owned()),
        channel_name: None,
    };
    let answer = service
        .call::<op::DescribeMediaStorageConfiguration>(input)
        .await
        .unwrap();
    let configuration = answer.media_storage_configuration.unwrap();
    let enabled = configuration.status == MediaStorageConfigurationStatus::Enabled;
    assert_eq!(enabled, configuration.stream_arn.is_some());
    configuration.stream_arn
}

#[tokio::test]
async fn one_stream_stores_one_channel_s_media() {
    let service = Service::start().await;
    let (door, gate) = (make(&service, "door").await, make(&service, "gate").await);
    let (one, two) = (service.create("one", 1).await, service.create("two", 1).await);
    let forgetful = service.create("forgetful", 0).await;
    let update = |channel: &str, stream: Option<&str>| {
        service.call::<op::UpdateMediaStorageConfiguration>(store(channel, stream))
    };
    assert_eq!(stored(&service, &door).await, None);
    assert_eq!(code(update(&door, Some(&forgetful)).await), "NoDataRetentionException");
    let version = info(&service, &door).await.version;
    update(&door, Some(&one)).await.unwrap();
    assert_ne!(info(&service, &door).await.version, version);
    assert_eq!(stored(&service, &door).await.as_deref(), Some(&*one));
    assert_eq!(mapped(&service, "one").await, std::slice::from_ref(&door));
    assert!(mapped(&service, "two").await.is_empty());
    assert_eq!(code(update(&gate, Some(&one)).await), "ResourceInUseException");
    assert_eq!(code(update(&door, Some(&two)).await), "ResourceInUseException");
    update(&door, Some(&one)).await.unwrap();
    update(&door, None).await.unwrap();
    assert!(mapped(&service, "one").await.is_empty());
    update(&gate, Some(&one)).await.unwrap();
    // A deleted channel frees its stream, and a deleted stream its channel.
    service
        .call::<op::DeleteSignalingChannel>(delete(&gate, None))
        .await
        .unwrap();
    assert!(mapped(&service, "one").await.is_empty());
    update(&door, Some(&one)).await.unwrap();
    service.delete(&one).await;
    assert_eq!(stored(&service, &door).await, None);
    let again = service.create("one", 1).await;
    assert!(mapped(&service, "one").await.is_empty());
    update(&door, Some(&again)).await.unwrap();
    assert_eq!(mapped(&service, "one").await, std::slice::from_ref(&door));
    assert_eq!(code(update(&door, Some(&one)).await), "ResourceNotFoundException");
    let no_stream = UpdateMediaStorageConfigurationInput {
        media_storage_configuration: MediaStorageConfiguration {
            status: MediaStorageConfigurationStatus::Enabled,
            stream_arn: None,
        },
        ..store(&door, None)
    };
    let refused = service.call::<op::UpdateMediaStorageConfiguration>(no_stream).await;
    assert_eq!(code(refused), "InvalidArgumentException");
}

#[tokio::test]
async fn a_stream_has_a_storage_tier() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let tier = |name: &str| {
        let input = DescribeStreamStorageConfigurationInput {
            stream_name: Some(name.to_owned()),
            stream_arn: None,
        };
        let answer = service.call::<op::DescribeStreamStorageConfiguration>(input);
        async move {
            answer
                .await
                .map(|answer| answer.stream_storage_configuration.unwrap().default_storage_tier)
        }
    };
    assert_eq!(tier("cam").await.unwrap(), DefaultStorageTier::Hot);
    assert_eq!(code(tier("none").await), "ResourceNotFoundException");
    let update = |version: String| UpdateStreamStorageConfigurationInput {
        current_version: version,
        stream_arn: None,
        stream_name: Some("cam".to_owned()),
        stream_storage_configuration: StreamStorageConfiguration {
            default_storage_tier: DefaultStorageTier::Warm,
        },
    };
    let version = service.describe("cam").await.unwrap().version.unwrap();
    service
        .call::<op::UpdateStreamStorageConfiguration>(update(version.clone()))
        .await
        .unwrap();
    assert_eq!(tier("cam").await.unwrap(), DefaultStorageTier::Warm);
    let stale = service
        .call::<op::UpdateStreamStorageConfiguration>(update(version))
        .await;
    assert_eq!(code(stale), "VersionMismatchException");
    let input = CreateStreamInput {
        stream_name: "archive".to_owned(),
        stream_storage_configuration: Some(StreamStorageConfiguration {
            default_storage_tier: DefaultStorageTier::Warm,
        }),
        ..Default::default()
    };
    service.call::<op::CreateStream>(input).await.unwrap();
    assert_eq!(tier("archive").await.unwrap(), DefaultStorageTier::Warm);
}

const HUB: &str = "arn:aws:iot:us-west-2:000000000000:thing/hub";

fn edge(hub: &str, schedule: &str) -> EdgeConfig {
    EdgeConfig {
        deletion_config: Some(DeletionConfig {
            delete_after_upload: Some(false),
            edge_retention_in_hours: Some(24),
            local_size_config: None,
        }),
        hub_device_arn: hub.to_owned(),
        recorder_config: RecorderConfig {
            media_source_config: MediaSourceConfig {
                media_uri_secret_arn: "arn:aws:secretsmanager:us-west-2:000000000000:secret:cam-1".to_owned(),
                media_uri_type: MediaUriType::RtspUri,
            },
            schedule_config: Some(ScheduleConfig {
                duration_in_seconds: 600,
                schedule_expression: schedule.to_owned(),
            }),
        },
        uploader_config: None,
    }
}

fn start(stream: &str, config: EdgeConfig) -> StartEdgeConfigurationUpdateInput {
    StartEdgeConfigurationUpdateInput {
        edge_config: config,
        stream_arn: None,
        stream_name: Some(stream.to_owned()),
    }
}

async fn described(service: &Service, stream: &str) -> Result<DescribeEdgeConfigurationOutput, ApiError> {
    let input = DescribeEdgeConfigurationInput {
        stream_name: Some(stream.to_owned()),
        stream_arn: None,
    };
    service.call::<op::DescribeEdgeConfiguration>(input).await
}

#[tokio::test]
async fn an_edge_configuration_waits_a_quarter_of_an_hour_for_its_agent() {
    let service = Service::start().await;
    service.create("cam", 1).await;
    service.create("forgetful", 0).await;
    let daily = edge(HUB, "0 0 8 ? * MON-FRI");
    let begin = |stream: &str, config: &EdgeConfig| {
        service.call::<op::StartEdgeConfigurationUpdate>(start(stream, config.clone()))
    };
    assert_eq!(
        code(described(&service, "cam").await),
        "StreamEdgeConfigurationNotFoundException"
    );
    assert_eq!(code(begin("forgetful", &daily).await), "NoDataRetentionException");
    assert_eq!(code(begin("none", &daily).await), "ResourceNotFoundException");
    assert_eq!(
        code(begin("cam", &edge(HUB, "every morning")).await),
        "InvalidArgumentException"
    );
    let foreign = edge("arn:aws:iot:us-west-2:111122223333:thing/hub", "0 0 8 ? * MON-FRI");
    assert_eq!(code(begin("cam", &foreign).await), "InvalidArgumentException");
    let begun = begin("cam", &daily).await.unwrap();
    assert_eq!(begun.sync_status, Some(SyncStatus::Syncing));
    assert_eq!(begun.edge_config.as_ref(), Some(&daily));
    assert_eq!(code(begin("cam", &daily).await), "ResourceInUseException");
    service.clock.advance(Duration::from_secs(15 * 60));
    let failed = described(&service, "cam").await.unwrap();
    assert_eq!(failed.sync_status, Some(SyncStatus::SyncFailed));
    assert!(failed.failed_status_details.is_some());
    assert_eq!(failed.edge_config, Some(daily.clone()));
    let elsewhere = edge(&HUB.replace("hub", "other"), "0 0 8 ? * MON-FRI");
    assert_eq!(code(begin("cam", &elsewhere).await), "InvalidArgumentException");
    let again = begin("cam", &daily).await.unwrap();
    assert_eq!(again.creation_time, begun.creation_time);
    assert!(again.last_updated_time > begun.last_updated_time);
    let delete = || DeleteEdgeConfigurationInput {
        stream_name: Some("cam".to_owned()),
        stream_arn: None,
    };
    service.call::<op::DeleteEdgeConfiguration>(delete()).await.unwrap();
    assert_eq!(
        code(described(&service, "cam").await),
        "StreamEdgeConfigurationNotFoundException"
    );
    let twice = service.call::<op::DeleteEdgeConfiguration>(delete()).await;
    assert_eq!(code(twice), "StreamEdgeConfigurationNotFoundException");
    begin("cam", &elsewhere).await.unwrap();
}

#[tokio::test]
async fn a_device_s_edge_configurations_are_listed_page_by_page() {
    let service = Service::start().await;
    let other = HUB.replace("hub", "other");
    for (stream, hub) in [("a", HUB), ("b", &*other), ("c", HUB), ("d", HUB)] {
        service.create(stream, 1).await;
        let begun = service.call::<op::StartEdgeConfigurationUpdate>(start(stream, edge(hub, "0 0 8 ? * MON-FRI")));
        begun.await.unwrap();
    }
    let page = |next_token: Option<String>| ListEdgeAgentConfigurationsInput {
        hub_device_arn: HUB.to_owned(),
        max_results: Some(2),
        next_token,
    };
    let names = |answer: &ListEdgeAgentConfigurationsOutput| -> Vec<String> {
        let configs = answer.edge_configs.iter().flatten();
        configs.map(|config| config.stream_name.clone().unwrap()).collect()
    };
    let first = service
        .call::<op::ListEdgeAgentConfigurations>(page(None))
        .await
        .unwrap();
    assert_eq!(names(&first), ["a", "c"]);
    let second = service
        .call::<op::ListEdgeAgentConfigurations>(page(first.next_token))
        .await
        .unwrap();
    assert_eq!(names(&second), ["d"]);
    assert_eq!(second.next_token, None);
    let forged = service
        .call::<op::ListEdgeAgentConfigurations>(page(Some("AAAA".to_owned())))
        .await;
    assert_eq!(code(forged), "InvalidArgumentException");
    let strangers = service
        .call_as::<op::ListEdgeAgentConfigurations>(context_of(STRANGER), page(None))
        .await;
    assert!(names(&strangers.unwrap()).is_empty());
    // The stream goes, and its configuration with it; a new one of its name starts without.
    let arn = service.describe("a").await.unwrap().stream_arn.unwrap();
    service.delete(&arn).await;
    service.create("a", 1).await;
    assert_eq!(
        code(described(&service, "a").await),
        "StreamEdgeConfigurationNotFoundException"
    );
    let first = service
        .call::<op::ListEdgeAgentConfigurations>(page(None))
        .await
        .unwrap();
    assert_eq!(names(&first), ["c", "d"]);
}

/// Calls an operation with each of the inputs at once, on several threads.
async fn at_once<O: Operation<Input: Send> + 'static>(service: &Service, inputs: Vec<O::Input>) -> Vec<String>
where
    VideoStreams: Handle<O>,
{
    let calls = inputs.into_iter().map(|input| {
        let video = service.video.clone();
        tokio::spawn(async move {
            let request = Request {
                context: common::context(),
                input,
                body: None,
            };
            match Handle::<O>::handle(&video, request).await {
                Ok(_) => "done".to_owned(),
                Err(error) => error.code.into_owned(),
            }
        })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    answers.sort();
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_want_one_name_or_one_stream_at_once_one_gets_it() {
    let service = Service::start().await;
    let one = |rest: usize| {
        let mut wanted = vec!["ResourceInUseException".to_owned(); rest];
        wanted.push("done".to_owned());
        wanted
    };
    let made = at_once::<op::CreateSignalingChannel>(&service, vec![channel("door"); 8]).await;
    assert_eq!(made, one(7));
    let stream = service.create("cam", 1).await;
    let mut wants = Vec::new();
    for n in 0..8 {
        let arn = make(&service, &format!("gate-{n}")).await;
        wants.push(store(&arn, Some(&stream)));
    }
    let mapped_by = at_once::<op::UpdateMediaStorageConfiguration>(&service, wants).await;
    assert_eq!(mapped_by, one(7));
    assert_eq!(mapped(&service, "cam").await.len(), 1);
    let starts = vec![start("cam", edge(HUB, "0 0 8 ? * MON-FRI")); 8];
    let begun = at_once::<op::StartEdgeConfigurationUpdate>(&service, starts).await;
    assert_eq!(begun, one(7));
}
