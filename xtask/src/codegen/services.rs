//! Which services are generated, and what the models do not say about them: the module, the resource that a policy
//! speaks of, and the operations that are in no model.

/// A service model to generate from.
pub struct Service {
    /// Folder of the model.
    pub model: &'static str,
    /// Its API version.
    pub version: &'static str,
    /// Module of `wire`; also the cargo feature, except that the five models of Kinesis Video share one.
    pub module: &'static str,
    /// Cargo feature that the shapes stand behind; the operation tables are always there.
    pub feature: &'static str,
    /// The operations whose shapes are generated; empty for all. The others are in the operation table alone, so that they
    /// answer that they are not implemented.
    pub shaped: &'static [&'static str],
    /// What stands before the colon of a policy's action, where it is not the signing name.
    pub action_prefix: Option<&'static str>,
    /// Operations and shapes that are in no model, in a model's form.
    pub supplement: Option<&'static str>,
    /// Members that name the resource of a request, by priority: the name, and for names (not ARNs) the text around it.
    pub resources: &'static [(&'static str, Option<(&'static str, &'static str)>)],
    /// Members that the model requires and the service leaves out at times.
    pub optional: &'static [(&'static str, &'static str)],
    /// Operations whose resource only the handler knows.
    pub by_handler: &'static [&'static str],
    /// Operations that need a signature but no permission.
    pub signed_only: &'static [&'static str],
}

const PLAIN: Service = Service {
    model: "",
    version: "",
    module: "",
    feature: "",
    shaped: &[],
    action_prefix: None,
    supplement: None,
    resources: &[],
    optional: &[],
    by_handler: &[],
    signed_only: &[],
};

/// Members of the five models of Kinesis Video.
const VIDEO: &[(&str, Option<(&str, &str)>)] = &[
    ("StreamARN", None),
    ("ChannelARN", None),
    ("channelArn", None),
    ("ResourceARN", None),
    ("StreamName", Some(("stream/", "/*"))),
    ("ChannelName", Some(("channel/", "/*"))),
];

const KINESIS: &[(&str, Option<(&str, &str)>)] = &[
    ("StreamARN", None),
    ("ConsumerARN", None),
    ("ResourceARN", None),
    ("ChannelARN", None),
    ("QueueARN", None),
    ("StreamName", Some(("stream/", ""))),
];

const REKOGNITION: &[(&str, Option<(&str, &str)>)] = &[
    ("CollectionId", Some(("collection/", ""))),
    ("ProjectVersionArn", None),
    ("SourceProjectVersionArn", None),
    ("ProjectArn", None),
    ("DatasetArn", None),
    ("ResourceArn", None),
    ("ProjectName", Some(("project/", "/*"))),
    // Only the operations on stream processors have a plain name.
    ("Name", Some(("streamprocessor/", ""))),
];

/// The operations of DynamoDB that keep tables and items; the Kinesis Client Library calls some of them for its leases.
const TABLE_OPERATIONS: &[&str] = &[
    "BatchGetItem",
    "BatchWriteItem",
    "CreateTable",
    "DeleteItem",
    "DeleteTable",
    "DescribeContinuousBackups",
    "DescribeEndpoints",
    "DescribeLimits",
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "ListTables",
    "ListTagsOfResource",
    "PutItem",
    "Query",
    "Scan",
    "TagResource",
    "TransactGetItems",
    "TransactWriteItems",
    "UntagResource",
    "UpdateContinuousBackups",
    "UpdateItem",
    "UpdateTable",
    "UpdateTimeToLive",
];

/// Every service of the mission.
pub const SERVICES: &[Service] = &[
    Service {
        model: "kinesisvideo",
        version: "2017-09-30",
        module: "kinesisvideo",
        feature: "kinesisvideo",
        resources: VIDEO,
        ..PLAIN
    },
    Service {
        model: "kinesis-video-media",
        version: "2017-09-30",
        module: "kinesisvideo_media",
        feature: "kinesisvideo",
        supplement: Some(include_str!("../../supplement/kinesis-video-media.json")),
        resources: VIDEO,
        ..PLAIN
    },
    Service {
        model: "kinesis-video-archived-media",
        version: "2017-09-30",
        module: "kinesisvideo_archived_media",
        feature: "kinesisvideo",
        supplement: Some(include_str!("../../supplement/kinesis-video-archived-media.json")),
        resources: VIDEO,
        ..PLAIN
    },
    Service {
        model: "kinesis-video-signaling",
        version: "2019-12-04",
        module: "kinesisvideo_signaling",
        feature: "kinesisvideo",
        resources: VIDEO,
        ..PLAIN
    },
    Service {
        model: "kinesis-video-webrtc-storage",
        version: "2018-05-10",
        module: "kinesisvideo_webrtc_storage",
        feature: "kinesisvideo",
        resources: VIDEO,
        ..PLAIN
    },
    Service {
        model: "rekognition",
        version: "2016-06-27",
        module: "rekognition",
        feature: "rekognition",
        supplement: Some(include_str!("../../supplement/rekognition.json")),
        resources: REKOGNITION,
        ..PLAIN
    },
    Service {
        model: "kinesis",
        version: "2013-12-02",
        module: "kinesis",
        feature: "kinesis",
        // Absent at the end of a shard, where the consumer library wants it to be.
        optional: &[("SubscribeToShardEvent", "ContinuationSequenceNumber")],
        resources: KINESIS,
        // The stream is named by the sealed iterator or token, or inside a list.
        by_handler: &["CreateQueue", "GetRecords", "ListShards"],
        ..PLAIN
    },
    Service {
        model: "firehose",
        version: "2015-08-04",
        module: "firehose",
        feature: "firehose",
        resources: &[
            ("DeliveryStreamARN", None),
            ("DeliveryStreamName", Some(("deliverystream/", ""))),
        ],
        ..PLAIN
    },
    Service {
        model: "kinesisanalyticsv2",
        version: "2018-05-23",
        module: "kinesisanalyticsv2",
        feature: "kinesisanalyticsv2",
        resources: &[("ResourceARN", None), ("ApplicationName", Some(("application/", "")))],
        ..PLAIN
    },
    Service {
        model: "sts",
        version: "2011-06-15",
        module: "sts",
        feature: "sts",
        resources: &[("RoleArn", None)],
        // The model's service lets every key ask who it is and make itself a session.
        signed_only: &["GetCallerIdentity", "GetSessionToken"],
        ..PLAIN
    },
    Service {
        model: "dynamodb",
        version: "2012-08-10",
        module: "dynamodb",
        feature: "dynamodb",
        shaped: TABLE_OPERATIONS,
        resources: &[
            ("TableArn", None),
            ("ResourceArn", None),
            ("TableName", Some(("table/", ""))),
        ],
        // Several tables, or an index of one.
        by_handler: &[
            "BatchGetItem",
            "BatchWriteItem",
            "Query",
            "Scan",
            "TransactGetItems",
            "TransactWriteItems",
        ],
        ..PLAIN
    },
    Service {
        model: "cloudwatch",
        version: "2010-08-01",
        module: "cloudwatch",
        feature: "cloudwatch",
        shaped: &["PutMetricData"],
        action_prefix: Some("cloudwatch"),
        ..PLAIN
    },
];

/// Patterns that the regular expression engine of `wire` does not know, and the function of `wire::patterns` that stands
/// for each.
pub const CUSTOM_PATTERNS: &[(&str, &str)] = &[
    (r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$", "tag"),
    (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]*", "tag"),
    (r"[\p{L}\p{Z}\p{N}_.:/=+\-@]+", "tag_not_empty"),
    (r"^(?!aws:)[\p{L}\p{Z}\p{N}_.:/=+\-@]*$", "tag_not_aws"),
    (r"^[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$", "tag_percent"),
    (r"^(?!aws:)[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$", "tag_percent_not_aws"),
    (r"^(?!\s*$).+", "not_blank"),
    (r"\p{Print}+", "printable_ascii"),
    (r"[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]+", "no_control"),
    (r"^(?=^\$)(?=^\S+$).*$", "dollar_word"),
    (
        r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*",
        "printable_or_break",
    ),
    (
        r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+",
        "printable_or_break",
    ),
    (
        r"jdbc:(redshift|postgresql)://((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)+(redshift(-serverless)?)\.([a-zA-Z0-9\.\-]+):\d{1,5}/[a-zA-Z0-9_$-]+",
        "redshift_jdbc",
    ),
    (
        r"arn:aws:kinesisanalytics:[a-z]{2}-[a-z]+-\d{1}+:\d{12}+:application/[a-zA-Z0-9_.-]{1,128}",
        "analytics_application",
    ),
];
