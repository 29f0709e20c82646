//! Limits of the endpoints, each with its source.

use std::time::Duration;

/// A request to an HTTP endpoint carries no more records (the request's schema, `maxItems`).
pub const HTTP_RECORDS_MAX: usize = 10_000;
/// A request's body before compression (the delivery request specification, "Body - Max Size").
pub const HTTP_BODY_BYTES_MAX: usize = 64 << 20;
/// An answer's body (the delivery response specification, "Body - Max Size").
pub const HTTP_ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long an HTTP endpoint may take to answer (the delivery request and response specification).
pub const HTTP_ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// First back-off, and its longest; it doubles, and each varies by 15 % (the specification, "Error Response Handling").
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// See [`BACKOFF_FIRST`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(120);
/// See [`BACKOFF_FIRST`].
pub const BACKOFF_JITTER: f64 = 0.15;
/// How long delivery is tried again where the configuration does not say it (the model's documentation).
pub const RETRY_SECONDS: i32 = 300;

/// Bytes of the reason that each error record repeats; ours, for a batch may be 10,000 of them.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// A request to Splunk: the largest buffer that the model allows for it.
pub const SPLUNK_BODY_BYTES_MAX: usize = 5 << 20;
/// How long Splunk may take to acknowledge, where the configuration does not say it: the least of the model.
pub const SPLUNK_ACK_SECONDS: i32 = 180;
/// How long Splunk may take to answer a request; ours, as for an HTTP endpoint.
pub const SPLUNK_ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// How often Splunk is asked whether a request is indexed: at first, doubling up to the second (Splunk advises ten seconds).
pub const SPLUNK_ACK_POLL_FIRST: Duration = Duration::from_millis(250);
/// See [`SPLUNK_ACK_POLL_FIRST`].
pub const SPLUNK_ACK_POLL_MAX: Duration = Duration::from_secs(10);
/// An answer of Splunk; it is some words.
pub const SPLUNK_ANSWER_BYTES_MAX: usize = 1 << 20;

/// A bulk request: what the smallest of AWS's search instances take (10 MiB, the service's quotas).
pub const BULK_BYTES_MAX: usize = 10 << 20;
/// Documents in a bulk request; ours, so that the answer is bounded too.
pub const BULK_DOCUMENTS_MAX: usize = 10_000;
/// The answer to a bulk request has some hundreds of bytes for each document, and more where it failed; ours.
pub const BULK_ANSWER_BYTES_MAX: usize = 32 << 20;
/// How long a search engine may take for a bulk request; ours, as for an HTTP endpoint.
pub const BULK_ANSWER_WITHIN: Duration = Duration::from_secs(180);
