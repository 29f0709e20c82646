//! The settings of the server: the TOML file, overridden by the flags of `serve`. Unknown keys are refused, so that a
//! misspelt setting is never silently ignored. docs/reference/settings.md lists every key.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::AccountId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edge::HttpVersion;
use firehose::ports::Domain;
use objects::External;
use serde::Deserialize;
use video_streams::archive::ClipLimits;
use video_streams::playback::PlaybackSettings;

use crate::buckets::BucketTable;
use crate::cli::{LogFormat, ServeArgs};
use crate::columns::{FunctionUrls, SchemaTable, SqlSettings, Tables};
use crate::webhook::Address;

/// Where the server listens unless told otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4577);
/// Clock skew that SigV4 tolerates, in seconds; AWS's own five minutes.
const DEFAULT_CLOCK_SKEW_SECONDS: u64 = 300;
/// PutMedia connections a stream takes at once; room for a token rotation.
const DEFAULT_PUT_MEDIA_CONNECTIONS: usize = 5;
/// GetMedia connections a stream serves at once.
const DEFAULT_GET_MEDIA_CONNECTIONS: usize = video_streams::limits::GET_CONNECTIONS;

/// The certificates that Debian trusts.
pub const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Everything the server is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Address of every API.
    pub listen: SocketAddr,
    /// What GetDataEndpoint returns instead of the request's own scheme and host.
    pub public_url: Option<String>,
    /// Proxies whose forwarded headers count.
    pub trusted_proxies: Vec<IpAddr>,
    /// Certificate chain and key, both PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What a TLS client that speaks both versions of HTTP is answered in.
    pub preferred_version: HttpVersion,
    /// Text or JSON on stderr.
    pub log_format: LogFormat,
    /// The account of the root key.
    pub account: AccountId,
    /// How far a signature's date may be from the server's clock.
    pub clock_skew_seconds: u64,
    /// PutMedia connections per stream.
    pub put_media_connections: usize,
    /// GetMedia connections per stream.
    pub get_media_connections: usize,
    /// Bytes of stored video in the whole server; the oldest goes first beyond it.
    pub max_bytes: Option<u64>,
    /// How much a clip may hold.
    pub clip: ClipLimits,
    /// How players are served.
    pub playback: PlaybackSettings,
    /// Kinesis Data Streams.
    pub data_streams: data_streams::Settings,
    /// Firehose.
    pub firehose: firehose::Settings,
    /// Kinesis Analytics.
    pub analytics: AnalyticsSettings,
    /// The vision worker and its models.
    pub vision: VisionSettings,
    /// The program that converts to columns.
    pub sql: SqlSettings,
    /// Tables by the names that Glue has for them.
    pub schemas: Tables,
    /// Where functions are called, by their ARNs.
    pub functions: FunctionUrls,
    /// Where the messages of topics go, by the topics' ARNs.
    pub topics: BTreeMap<String, Address>,
    /// Where search engines are, by the ARNs of their domains or the URLs of their endpoints.
    pub domains: BTreeMap<String, Domain>,
    /// PEM file of the certificates that `https` addresses of topics, functions and endpoints are trusted by.
    pub webhook_ca: PathBuf,
    /// Buckets that lie in another S3, by account and name.
    pub buckets: BTreeMap<(AccountId, String), External>,
    /// No call to such an address takes longer.
    pub webhook_timeout: Option<Duration>,
}

/// The `[clip]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClipTable {
    max_bytes: Option<u64>,
    max_fragments: Option<usize>,
    at_once: Option<usize>,
}

impl ClipTable {
    fn limits(&self) -> ClipLimits {
        let default = ClipLimits::default();
        ClipLimits {
            bytes: self.max_bytes.unwrap_or(default.bytes),
            fragments: self.max_fragments.unwrap_or(default.fragments),
            at_once: self.at_once.unwrap_or(default.at_once),
        }
    }
}

/// The `[vision]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VisionSettings {
    /// The worker program; without it the one beside this program, then the one on PATH.
    pub worker: Option<PathBuf>,
    /// Folder of prepared models; without it `SIGHTGLASS_MODELS`, then `./models`.
    pub models: Option<PathBuf>,
    /// The embedding model, by its id in the folder's manifest; without it the manifest's first.
    pub embedder: Option<String>,
    /// Most worker processes with models at once.
    pub max_workers: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    public_url: Option<String>,
    trusted_proxies: Vec<IpAddr>,
    tls: TlsTable,
    log_format: Option<String>,
    account: Option<String>,
    clock_skew_seconds: Option<u64>,
    put_media_connections: Option<usize>,
    get_media_connections: Option<usize>,
    max_bytes: Option<u64>,
    clip: ClipTable,
    hls: HlsTable,
    data_streams: DataStreamsTable,
    firehose: FirehoseTable,
    analytics: AnalyticsTable,
    vision: VisionSettings,
    sql: SqlSettings,
    schemas: BTreeMap<String, SchemaTable>,
    functions: BTreeMap<String, String>,
    function_timeout_seconds: Option<u64>,
    topics: BTreeMap<String, String>,
    domains: BTreeMap<String, DomainTable>,
    webhook_ca: Option<PathBuf>,
    buckets: BTreeMap<String, BucketTable>,
    webhook_timeout_seconds: Option<u64>,
}

/// The `[data_streams]` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DataStreamsTable {
    shard_limits: bool,
}

/// A table of `[domains]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DomainTable {
    url: String,
    username: Option<String>,
    /// The environment variable that has the password.
    password_env: Option<String>,
}

impl DomainTable {
    /// With its name, as it is looked for.
    fn domain(self, name: &str) -> Result<(String, Domain), ConfigError> {
        let wrong = |why| ConfigError::Value { key: "domains", why };
        self.url.parse::<Address>().map_err(wrong)?;
        let authorization = match (self.username, self.password_env) {
            (Some(username), Some(variable)) => {
                let password = std::env::var(&variable).map_err(|_| wrong(format!("{variable} is not set")))?;
                Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            (None, None) => None,
            _ => return Err(wrong("username and password_env go together".to_owned())),
        };
        let url = self.url;
        Ok((name.trim_end_matches('/').to_owned(), Domain { url, authorization }))
    }
}

/// The `[firehose]` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FirehoseTable {
    memory_bytes: Option<u64>,
}

impl FirehoseTable {
    fn settings(&self) -> Result<firehose::Settings, ConfigError> {
        let default = firehose::Settings::default();
        let memory_bytes = self.memory_bytes.unwrap_or(default.memory_bytes);
        let least = firehose::limits::MEMORY_BYTES_MIN;
        match memory_bytes >= least {
            true => Ok(firehose::Settings { memory_bytes }),
            false => Err(ConfigError::Value {
                key: "firehose.memory_bytes",
                why: format!("must be at least {least}"),
            }),
        }
    }
}

/// What the configuration says of applications.
#[derive(Debug, Clone, Copy)]
pub struct AnalyticsSettings {
    /// Bytes of state that one application has in memory.
    pub memory_bytes: u64,
    /// Applications that run at once.
    pub max_running: usize,
}

/// The `[analytics]` table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AnalyticsTable {
    memory_bytes: Option<u64>,
    max_running: Option<usize>,
}

impl AnalyticsTable {
    fn settings(&self) -> Result<AnalyticsSettings, ConfigError> {
        let memory_bytes = self.memory_bytes.unwrap_or(analytics::limits::MEMORY_BYTES_DEFAULT);
        let max_running = self.max_running.unwrap_or(analytics::limits::RUNNING_DEFAULT);
        let least = analytics::limits::MEMORY_BYTES_MIN;
        if memory_bytes < least {
            return Err(ConfigError::Value {
                key: "analytics.memory_bytes",
                why: format!("must be at least {least}"),
            });
        }
        if !(1..=1000).contains(&max_running) {
            return Err(ConfigError::Value {
                key: "analytics.max_running",
                why: "must be 1 to 1000".to_owned(),
            });
        }
        Ok(AnalyticsSettings {
            memory_bytes,
            max_running,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HlsTable {
    strict: bool,
    low_latency: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsTable {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    prefer_http2: bool,
}

impl TlsTable {
    fn preferred_version(&self) -> HttpVersion {
        match self.prefer_http2 {
            true => HttpVersion::Http2,
            false => HttpVersion::Http1,
        }
    }

    fn pair(self) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (self.cert, self.key) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            _ => Err(ConfigError::Value {
                key: "tls",
                why: "cert and key go together".to_owned(),
            }),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML of the known keys.
    #[error("configuration file {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("setting {key}: {why}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
}

impl Config {
    /// Flags over file over defaults.
    pub fn load(args: ServeArgs) -> Result<Config, ConfigError> {
        let file = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let config = Config {
            data_dir: args
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| PathBuf::from("./sightglass-data")),
            listen: args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN),
            public_url: args
                .public_url
                .or(file.public_url)
                .map(|url| url.trim_end_matches('/').to_owned()),
            trusted_proxies: if args.trusted_proxy.is_empty() {
                file.trusted_proxies
            } else {
                args.trusted_proxy
            },
            preferred_version: file.tls.preferred_version(),
            tls: args.tls_cert.zip(args.tls_key).or(file.tls.pair()?),
            log_format: match args.log_format {
                Some(format) => format,
                None => log_format(file.log_format.as_deref())?,
            },
            account: account(file.account.as_deref())?,
            clock_skew_seconds: file.clock_skew_seconds.unwrap_or(DEFAULT_CLOCK_SKEW_SECONDS),
            put_media_connections: file.put_media_connections.unwrap_or(DEFAULT_PUT_MEDIA_CONNECTIONS),
            get_media_connections: file.get_media_connections.unwrap_or(DEFAULT_GET_MEDIA_CONNECTIONS),
            max_bytes: file.max_bytes,
            clip: file.clip.limits(),
            playback: PlaybackSettings {
                strict: file.hls.strict,
                low_latency: file.hls.low_latency.unwrap_or(!file.hls.strict),
            },
            data_streams: data_streams::Settings {
                shard_limits: file.data_streams.shard_limits,
            },
            firehose: file.firehose.settings()?,
            analytics: file.analytics.settings()?,
            vision: file.vision,
            sql: file.sql,
            schemas: Tables::new(file.schemas).map_err(|why| ConfigError::Value { key: "schemas", why })?,
            functions: functions(file.functions, file.function_timeout_seconds)?,
            topics: topics(&file.topics)?,
            domains: file
                .domains
                .into_iter()
                .map(|(name, table)| table.domain(&name))
                .collect::<Result<_, _>>()?,
            webhook_ca: file.webhook_ca.unwrap_or_else(|| PathBuf::from(SYSTEM_CERTIFICATES)),
            buckets: crate::buckets::named(file.buckets, account(file.account.as_deref())?)?,
            webhook_timeout: file.webhook_timeout_seconds.map(Duration::from_secs),
        };
        config.checked()
    }

    fn checked(self) -> Result<Config, ConfigError> {
        let wrong = |key, why: &str| {
            Err(ConfigError::Value {
                key,
                why: why.to_owned(),
            })
        };
        if let Some(url) = &self.public_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return wrong("public_url", "must begin with http:// or https://");
        }
        if !(1..=86_400).contains(&self.clock_skew_seconds) {
            return wrong("clock_skew_seconds", "must be 1 to 86400");
        }
        if self.webhook_timeout.is_some_and(|longest| longest.is_zero()) {
            return wrong("webhook_timeout_seconds", "must be at least 1");
        }
        if !(1..=100).contains(&self.put_media_connections) {
            return wrong("put_media_connections", "must be 1 to 100");
        }
        if !(1..=10_000).contains(&self.get_media_connections) {
            return wrong("get_media_connections", "must be 1 to 10000");
        }
        if !(1..=10_000).contains(&self.clip.at_once) {
            return wrong("clip.at_once", "must be 1 to 10000");
        }
        Ok(self)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the configuration is read before there is a Disk"
)]
fn read(path: &Path) -> Result<File, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: name.clone(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse {
        path: name,
        source: Box::new(source),
    })
}

fn functions(named: BTreeMap<String, String>, seconds: Option<u64>) -> Result<FunctionUrls, ConfigError> {
    let wrong = |key| move |why| ConfigError::Value { key, why };
    if seconds.is_some_and(|seconds| !(1..=900).contains(&seconds)) {
        return Err(wrong("function_timeout_seconds")("must be 1 to 900".to_owned()));
    }
    FunctionUrls::new(named, seconds.map(Duration::from_secs)).map_err(wrong("functions"))
}

fn topics(named: &BTreeMap<String, String>) -> Result<BTreeMap<String, Address>, ConfigError> {
    let wrong = |why| ConfigError::Value { key: "topics", why };
    let one = |(arn, text): (&String, &String)| {
        if !arn.starts_with("arn:aws") || !arn.contains(":sns:") {
            return Err(wrong(format!("{arn:?} is not the ARN of an SNS topic")));
        }
        Ok((arn.clone(), text.parse().map_err(wrong)?))
    };
    named.iter().map(one).collect()
}

fn log_format(name: Option<&str>) -> Result<LogFormat, ConfigError> {
    match name {
        None | Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        Some(other) => Err(ConfigError::Value {
            key: "log_format",
            why: format!("{other:?} is neither text nor json"),
        }),
    }
}

fn account(text: Option<&str>) -> Result<AccountId, ConfigError> {
    text.map_or(Ok(AccountId::DEFAULT), str::parse)
        .map_err(|invalid: base::ids::InvalidAccountId| ConfigError::Value {
            key: "account",
            why: invalid.to_string(),
        })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test writes its own configuration file")]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sightglass.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(ServeArgs {
            config: Some(path),
            ..ServeArgs::default()
        })
    }

    #[test]
    fn nothing_said_means_the_documented_defaults() {
        let config = Config::load(ServeArgs::default()).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:4577");
        assert_eq!(config.data_dir, PathBuf::from("./sightglass-data"));
        assert_eq!((config.clock_skew_seconds, config.put_media_connections), (300, 5));
        assert_eq!(config.get_media_connections, 64);
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sightglass.toml");
        std::fs::write(&path, "listen = \"127.0.0.1:9\"\naccount = \"123456789012\"").unwrap();
        let args = ServeArgs {
            config: Some(path),
            listen: Some("127.0.0.1:8".parse().unwrap()),
            ..ServeArgs::default()
        };
        let config = Config::load(args).unwrap();
        assert_eq!(
            (config.listen.port(), config.account.to_string()),
            (8, "123456789012".to_owned())
        );
    }

    #[test]
    fn a_misspelt_key_and_a_bad_value_are_refused_by_name() {
        for (text, word) in [
            ("lisen = \"127.0.0.1:1\"", "lisen"),
            ("account = \"12\"", "account"),
            ("public_url = \"example.org\"", "public_url"),
            ("clock_skew_seconds = 0", "clock_skew_seconds"),
            ("log_format = \"xml\"", "log_format"),
            ("[topics]\ndoor = \"http://localhost\"", "door"),
            (
                "[topics]\n\"arn:aws:sns:us-west-2:000000000000:door\" = \"localhost\"",
                "localhost",
            ),
            ("[functions]\nshout = \"http://localhost\"", "shout"),
            ("function_timeout_seconds = 0", "function_timeout_seconds"),
            ("[schemas.\"d.e\"]\ncolumns = []", "no columns"),
            ("get_media_connections = 0", "get_media_connections"),
            ("[clip]\nat_once = 0", "clip.at_once"),
            ("[firehose]\nmemory_bytes = 1000", "firehose.memory_bytes"),
            ("[analytics]\nmemory_bytes = 1000", "analytics.memory_bytes"),
            ("[analytics]\nmax_running = 0", "analytics.max_running"),
            ("[tls]\ncert = \"cert.pem\"", "tls"),
        ] {
            let message = load(text).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
