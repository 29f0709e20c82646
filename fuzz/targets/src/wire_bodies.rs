//! The bodies of every operation of the services that the server carries out, through the registry as the edge sends
//! them: read, checked, typed, authorised, and the error rendered.

use std::sync::{Arc, OnceLock};

use base::{ApiError, Authorizer, Caller, Fault, Handle, Reply, Request, RequestContext, Timestamp};
use bytes::Bytes;
use wire::{RawBody, RawRequest, Registry, WireOperation, all_operations};

#[derive(Debug)]
struct Everything;

impl Authorizer for Everything {
    fn allows(&self, _: &str, _: &str) -> bool {
        true
    }
}

/// Takes every operation; what it was given must be readable again as it writes it.
struct Probe;

const REACHED: &str = "Reached";

impl<O: WireOperation> Handle<O> for Probe {
    async fn handle(&self, request: Request<O::Input>) -> Result<Reply<O::Output>, ApiError> {
        let written = wire::codec::encode_input(&request.input);
        if !O::INFO.request_stream {
            let again = wire::codec::decode::<O::Input>(
                O::INFO,
                wire::codec::Codec::Json,
                &|_| None,
                &written,
                &request.context.caller,
            );
            if let Err(error) = again {
                panic!(
                    "{}: accepted, but not as {}: {error:?}",
                    O::NAME,
                    String::from_utf8_lossy(&written)
                );
            }
        }
        Err(ApiError::client(REACHED, ""))
    }
}

macro_rules! operations {
    ($($service:ident { $($operation:ident),* $(,)? })*) => {
        fn registry() -> &'static Registry {
            static MADE: OnceLock<Registry> = OnceLock::new();
            MADE.get_or_init(|| {
                let probe = Arc::new(Probe);
                let mut registry = Registry::new();
                $($(registry.register::<wire::$service::op::$operation, Probe>(&probe);)*)*
                registry
            })
        }
    };
}

operations! {
    cloudwatch {
        PutMetricData,
    }
    dynamodb {
        BatchGetItem, BatchWriteItem, CreateTable, DeleteItem, DeleteTable, DescribeContinuousBackups, DescribeEndpoints, DescribeLimits, DescribeTable, DescribeTimeToLive, GetItem, ListTables, ListTagsOfResource, PutItem, Query, Scan, TagResource, TransactGetItems, TransactWriteItems, UntagResource, UpdateContinuousBackups, UpdateItem, UpdateTable, UpdateTimeToLive,
    }
    firehose {
        CreateDeliveryStream, DeleteDeliveryStream, DescribeDeliveryStream, ListDeliveryStreams, ListTagsForDeliveryStream, PutRecord, PutRecordBatch, StartDeliveryStreamEncryption, StopDeliveryStreamEncryption, TagDeliveryStream, UntagDeliveryStream, UpdateDestination,
    }
    kinesis {
        AcknowledgeDeadLetterQueueRecords, AcknowledgeQueueRecords, AddTagsToStream, CreateChannel, CreateQueue, CreateStream, DecreaseStreamRetentionPeriod, DeleteChannel, DeleteQueue, DeleteResourcePolicy, DeleteStream, DeregisterStreamConsumer, DescribeAccountSettings, DescribeChannel, DescribeLimits, DescribeQueue, DescribeStream, DescribeStreamConsumer, DescribeStreamSummary, DisableEnhancedMonitoring, EnableEnhancedMonitoring, GetRecords, GetResourcePolicy, GetShardIterator, IncreaseStreamRetentionPeriod, ListChannels, ListQueues, ListShards, ListStreamConsumers, ListStreams, ListTagsForResource, ListTagsForStream, MergeShards, PutRecord, PutRecords, PutResourcePolicy, ReceiveDeadLetterQueueRecords, ReceiveQueueRecords, RegisterStreamConsumer, RemoveTagsFromStream, RestoreDeadLetterQueueRecords, SplitShard, StartStreamEncryption, StopStreamEncryption, SubscribeToShard, TagResource, UntagResource, UpdateAccountSettings, UpdateChannel, UpdateDeadLetterQueueRecordsVisibility, UpdateMaxRecordSize, UpdateQueue, UpdateQueueRecordsVisibility, UpdateShardCount, UpdateStreamMode, UpdateStreamRecordDistributionStrategy, UpdateStreamWarmThroughput,
    }
    kinesisanalyticsv2 {
        AddApplicationCloudWatchLoggingOption, AddApplicationInput, AddApplicationInputProcessingConfiguration, AddApplicationOutput, AddApplicationReferenceDataSource, AddApplicationVpcConfiguration, CreateApplication, CreateApplicationPresignedUrl, CreateApplicationSnapshot, CreateSnapshot, DeleteApplication, DeleteApplicationCloudWatchLoggingOption, DeleteApplicationInputProcessingConfiguration, DeleteApplicationOutput, DeleteApplicationReferenceDataSource, DeleteApplicationSnapshot, DeleteApplicationVpcConfiguration, DeleteSnapshot, DescribeApplication, DescribeApplicationOperation, DescribeApplicationSnapshot, DescribeApplicationVersion, DescribeSnapshot, DescribeSnapshotOperation, DiscoverInputSchema, ExportSnapshot, ImportSnapshot, ListApplicationOperations, ListApplicationSnapshots, ListApplicationVersions, ListApplications, ListSnapshotOperations, ListSnapshots, ListTagsForResource, RollbackApplication, StartApplication, StopApplication, TagResource, UntagResource, UpdateApplication, UpdateApplicationMaintenanceConfiguration,
    }
    kinesisvideo {
        CreateSignalingChannel, CreateStream, DeleteEdgeConfiguration, DeleteSignalingChannel, DeleteStream, DescribeEdgeConfiguration, DescribeImageGenerationConfiguration, DescribeMappedResourceConfiguration, DescribeMediaStorageConfiguration, DescribeNotificationConfiguration, DescribeSignalingChannel, DescribeStream, DescribeStreamStorageConfiguration, GetDataEndpoint, GetSignalingChannelEndpoint, ListEdgeAgentConfigurations, ListSignalingChannels, ListStreams, ListTagsForResource, ListTagsForStream, StartEdgeConfigurationUpdate, TagResource, TagStream, UntagResource, UntagStream, UpdateDataRetention, UpdateImageGenerationConfiguration, UpdateMediaStorageConfiguration, UpdateNotificationConfiguration, UpdateSignalingChannel, UpdateStream, UpdateStreamStorageConfiguration,
    }
    kinesisvideo_archived_media {
        GetClip, GetDASHStreamingSessionURL, GetHLSStreamingSessionURL, GetImages, GetMediaForFragmentList, GetStoredMediaMap, ListFragments,
    }
    kinesisvideo_media {
        GetMedia, PutMedia,
    }
    kinesisvideo_signaling {
        GetIceServerConfig, SendAlexaOfferToMaster,
    }
    kinesisvideo_webrtc_storage {
        JoinStorageSession, JoinStorageSessionAsViewer,
    }
    rekognition {
        AssociateFaces, CompareFaces, CopyProjectVersion, CreateCollection, CreateDataset, CreateFaceLivenessSession, CreateProject, CreateProjectVersion, CreateStreamProcessor, CreateUser, DeleteCollection, DeleteDataset, DeleteFaces, DeleteProject, DeleteProjectPolicy, DeleteProjectVersion, DeleteStreamProcessor, DeleteUnknownFaces, DeleteUser, DescribeCollection, DescribeDataset, DescribeProjectVersions, DescribeProjects, DescribeStreamProcessor, DetectCustomLabels, DetectFaces, DetectLabels, DetectModerationLabels, DetectProtectiveEquipment, DetectText, DisassociateFaces, DistributeDatasetEntries, GetCelebrityInfo, GetCelebrityRecognition, GetContentModeration, GetFaceDetection, GetFaceLivenessSessionResults, GetFaceSearch, GetLabelDetection, GetMediaAnalysisJob, GetPersonTracking, GetSegmentDetection, GetTextDetection, IndexFaces, IndexUnknownFaces, ListCollections, ListDatasetEntries, ListDatasetLabels, ListFaces, ListMediaAnalysisJobs, ListProjectPolicies, ListStreamProcessors, ListTagsForResource, ListUnknownFaces, ListUsers, PutProjectPolicy, RecognizeCelebrities, SearchFaces, SearchFacesByImage, SearchUnknownFaces, SearchUnknownFacesByImage, SearchUsers, SearchUsersByImage, StartCelebrityRecognition, StartContentModeration, StartFaceDetection, StartFaceSearch, StartLabelDetection, StartMediaAnalysisJob, StartPersonTracking, StartProjectVersion, StartSegmentDetection, StartStreamFaceDetection, StartStreamFaceSearch, StartStreamProcessor, StartTextDetection, StopProjectVersion, StopStreamProcessor, TagResource, UntagResource, UpdateDatasetEntries, UpdateStreamProcessor,
    }
    sts {
        AssumeRole, AssumeRoleWithSAML, AssumeRoleWithWebIdentity, AssumeRoot, DecodeAuthorizationMessage, GetAccessKeyInfo, GetCallerIdentity, GetDelegatedAccessToken, GetFederationToken, GetSessionToken, GetWebIdentityToken,
    }
}

/// The operations that are fuzzed, as `MODEL OPERATION`.
pub fn registered() -> impl Iterator<Item = String> {
    registry().operations()
}

fn context() -> RequestContext {
    RequestContext {
        caller: Caller {
            account: "000000000000".parse().expect("an account id"),
            region: "eu-west-1".parse().expect("a region"),
            access_key_id: "AKIDFUZZ".into(),
            principal_arn: "arn:aws:iam::000000000000:root".into(),
            authorizer: Arc::new(Everything),
        },
        request_id: "request".into(),
        base_url: "http://127.0.0.1:4577".into(),
        received_at: Timestamp::default(),
    }
}

/// `OPERATION`, header lines, an empty line, the body. A name that is none picks an operation by its letters.
fn body(signing_name: &str, data: &[u8]) {
    let (head, body) = match data.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[][..]),
    };
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let name = lines.next().unwrap_or_default();
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let of_service = || all_operations().filter(|info| info.service.signing_name == signing_name);
    let pick = name
        .bytes()
        .fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let count = of_service().count().max(1);
    let Some(info) = of_service()
        .find(|info| info.name == name)
        .or_else(|| of_service().nth(pick % count))
    else {
        return;
    };
    let target = format!("{}.{}", info.service.target_prefix, info.name);
    let address = wire::Address {
        method: info.method,
        path: info.paths.first().copied().unwrap_or("/"),
        scope_service: Some(signing_name),
        target: Some(&*target).filter(|_| !info.service.target_prefix.is_empty()),
        action: Some(info.name).filter(|_| info.service.protocol == wire::Protocol::Query),
        content_type: headers
            .iter()
            .find(|(name, _)| *name == "content-type")
            .map(|(_, value)| *value),
    };
    let Ok(route) = registry().resolve(&address) else {
        panic!("{} cannot be addressed", info.name)
    };
    let lookup = |name: &str| {
        headers
            .iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let body = if info.request_stream {
        RawBody::Stream(Box::pin(futures_util::stream::empty()))
    } else {
        RawBody::Bytes(Bytes::copy_from_slice(body))
    };
    let mut call = route.call(context(), RawRequest { headers: &lookup, body });
    let mut polled = std::task::Context::from_waker(std::task::Waker::noop());
    match call.as_mut().poll(&mut polled) {
        std::task::Poll::Ready(Err(error)) => {
            assert!(error.fault == Fault::Client, "{}: {error:?}", info.name);
            let reply = route.render_error(&error, "request");
            assert!(
                (400..500).contains(&reply.status),
                "{}: {} {error:?}",
                info.name,
                reply.status
            );
        }
        std::task::Poll::Ready(Ok(_)) => {}
        std::task::Poll::Pending => panic!("{} waits for nothing", info.name),
    }
}

/// JSON bodies of Kinesis Data Streams.
pub fn wire_kinesis(data: &[u8]) {
    body("kinesis", data);
}

/// JSON bodies and headers of Kinesis Video Streams, all five models.
pub fn wire_kinesisvideo(data: &[u8]) {
    body("kinesisvideo", data);
}

/// JSON bodies of Rekognition.
pub fn wire_rekognition(data: &[u8]) {
    body("rekognition", data);
}

/// Form bodies of STS.
pub fn wire_sts(data: &[u8]) {
    body("sts", data);
}

/// DynamoDB.
pub fn wire_dynamodb(data: &[u8]) {
    body("dynamodb", data);
}

/// CloudWatch, in the notation that the content type says.
pub fn wire_cloudwatch(data: &[u8]) {
    body("monitoring", data);
}

/// Kinesis Analytics.
pub fn wire_kinesisanalytics(data: &[u8]) {
    body("kinesisanalytics", data);
}

/// Firehose.
pub fn wire_firehose(data: &[u8]) {
    body("firehose", data);
}
