//! What delivery needs of the world and must not know how to do: calls over HTTP, conversion to columns, and the tables of
//! the configuration. A server without one of them hands in the absent form, which says in plain words what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{AccountId, Clock, SystemClock};
use bytes::Bytes;
use objects::{Bucket, Buckets, ObjectError};
use wire::firehose::{Deserializer, Serializer};

/// A POST that is to be made.
#[derive(Clone, Debug)]
pub struct Call {
    /// `http://` or `https://`.
    pub url: String,
    /// Names and values; Host and Content-Length are added.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// From the connection to the last byte of the answer.
    pub within: Duration,
    /// More bytes than this are not read of the answer's body: [`CallError::TooLarge`].
    pub answer_bytes_max: usize,
}

/// What was answered, whatever its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values that are text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The address is none, or this server makes no calls: trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// Nobody is there: the call did not arrive.
    #[error("the connection failed: {0}")]
    Unreachable(String),
    /// Whoever is there is not trusted, or does not speak TLS: the call did not arrive.
    #[error("no TLS connection: {0}")]
    Untrusted(String),
    /// The connection broke before the answer was whole; it may be that the call arrived.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No whole answer in time; it may be that the call arrived.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer is bigger than the caller wants to read.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

/// Makes calls over HTTP. It follows no redirection and keeps no cookies.
#[async_trait]
pub trait HttpCaller: Send + Sync + 'static {
    /// Posts, and reads the answer.
    async fn post(&self, call: Call) -> Result<Answer, CallError>;
}

/// Where the search engines of the configuration are.
pub trait Domains: Send + Sync + 'static {
    /// What is configured for the ARN of a domain, or for the URL of an endpoint; `None` if nothing is.
    fn domain(&self, name: &str) -> Option<Domain>;
}

/// A search engine of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its base URL.
    pub url: String,
    /// What is sent as `Authorization`.
    pub authorization: Option<String>,
}

impl std::fmt::Debug for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Domain({})", self.url)
    }
}

impl Domains for BTreeMap<String, Domain> {
    fn domain(&self, name: &str) -> Option<Domain> {
        self.get(name).cloned()
    }
}

/// A table by the names that Glue has for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The catalog's id; an account's number unless the configuration says otherwise.
    pub catalog: Option<String>,
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Name and Hive type of each column, e.g. `("price", "decimal(10,2)")`, in their order.
    pub columns: Vec<(String, String)>,
}

/// The tables of the configuration.
pub trait Schemas: Send + Sync + 'static {
    /// The columns of a table; `None` if it is not configured.
    fn schema(&self, table: &TableName) -> Option<Arc<TableSchema>>;
}

/// The functions of the configuration.
pub trait Functions: Send + Sync + 'static {
    /// Where a function is called; `None` if it is not configured. The ARN may end with a version or an alias.
    fn url(&self, arn: &str) -> Option<String>;

    /// How long one call may take.
    fn within(&self) -> Duration {
        crate::limits::FUNCTION_WITHIN
    }
}

/// Records of one object that are to become columns.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// Whose they are: one worker process never serves two accounts.
    pub account: AccountId,
    /// One JSON document each, or several, one behind the other.
    pub records: Vec<Bytes>,
    /// The columns.
    pub schema: Arc<TableSchema>,
    /// How JSON is read.
    pub input: Deserializer,
    /// What is written, and how.
    pub output: Serializer,
}

/// A file of columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// The file; empty when no record could be converted.
    pub body: Bytes,
    /// Records that are not in it, by their place in the request, with code and reason.
    pub failed: Vec<(usize, String, String)>,
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It cannot be done, whatever the records are: this server converts nothing, or not with these options.
    #[error("{0}")]
    Refused(String),
    /// The worker failed; trying again may help.
    #[error("{0}")]
    Failed(String),
}

/// Converts JSON to columns.
#[async_trait]
pub trait Converter: Send + Sync + 'static {
    /// Fails where this schema and these options can never be converted: asked when a delivery stream is made.
    fn check(&self, schema: &TableSchema, input: &Deserializer, output: &Serializer) -> Result<(), ConvertError>;

    /// Makes one file.
    async fn convert(&self, conversion: Conversion) -> Result<Converted, ConvertError>;
}

/// Everything.
#[derive(Clone)]
pub struct Ports {
    /// Buckets, wherever they lie.
    pub buckets: Arc<dyn Buckets>,
    /// Calls over HTTP.
    pub http: Arc<dyn HttpCaller>,
    /// Conversion to columns.
    pub converter: Arc<dyn Converter>,
    /// Tables.
    pub schemas: Arc<dyn Schemas>,
    /// Functions.
    pub functions: Arc<dyn Functions>,
    /// Search engines.
    pub domains: Arc<dyn Domains>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Default for Ports {
    fn default() -> Self {
        Ports {
            buckets: Arc::new(Absent),
            http: Arc::new(Absent),
            converter: Arc::new(Absent),
            schemas: Arc::new(Absent),
            functions: Arc::new(Absent),
            domains: Arc::new(Absent),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports")
    }
}

/// The absent form of every port.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

#[async_trait]
impl Buckets for Absent {
    async fn open(&self, _: AccountId, name: &str) -> Result<Arc<dyn Bucket>, ObjectError> {
        Err(ObjectError::NoSuchBucket(name.to_owned()))
    }
}

#[async_trait]
impl HttpCaller for Absent {
    async fn post(&self, _: Call) -> Result<Answer, CallError> {
        let why = "this server was started without an HTTP client, so it calls no endpoint and no function";
        Err(CallError::Refused(why.to_owned()))
    }
}

#[async_trait]
impl Converter for Absent {
    fn check(&self, _: &TableSchema, _: &Deserializer, _: &Serializer) -> Result<(), ConvertError> {
        let why = "this server was started without the program sql-worker, so it converts nothing to Parquet or ORC";
        Err(ConvertError::Refused(why.to_owned()))
    }

    async fn convert(&self, wanted: Conversion) -> Result<Converted, ConvertError> {
        self.check(&wanted.schema, &wanted.input, &wanted.output)?;
        Err(ConvertError::Refused("nothing can be converted".to_owned()))
    }
}

impl Schemas for Absent {
    fn schema(&self, _: &TableName) -> Option<Arc<TableSchema>> {
        None
    }
}

impl Functions for Absent {
    fn url(&self, _: &str) -> Option<String> {
        None
    }
}

impl Domains for Absent {
    fn domain(&self, _: &str) -> Option<Domain> {
        None
    }
}
