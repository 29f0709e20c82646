//! The command line as clap sees it. Every flag of `serve` is also a key of the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use client::records::HashKey;

/// Self-hosted, AWS-compatible video streams and face search.
#[derive(Debug, Parser)]
#[command(name = "sightglass", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server.
    Serve(ServeArgs),
    /// Print the key, secret, region and endpoint as export lines, or write an AWS profile.
    Env(EnvArgs),
    /// Create, list and revoke access keys.
    Keys(KeysArgs),
    /// List and verify the prepared face models.
    Models(ModelsArgs),
    /// Measure how well faces are told apart, on a folder of people or in a collection.
    Faces(FacesArgs),
    /// Send a file, a pipe or a camera's URL into a video stream.
    Put(PutArgs),
    /// Read what a video stream holds, or what arrives, as one Matroska film.
    Get(GetArgs),
    /// Read a range of a video stream as an MP4 file.
    Clip(ClipArgs),
    /// Write what video streams hold, or what arrives, to S3: films by the hour or by event.
    Archive(ArchiveArgs),
    /// Play a video stream: print the URL of an HLS session and open it in a player.
    Play(PlayArgs),
    /// Show the records of a data stream as they arrive, through splits and merges.
    Tail(TailArgs),
    /// Put records into a data stream.
    Records(RecordsArgs),
    /// Make, list, look at, fill and delete delivery streams.
    Firehose(FirehoseArgs),
    /// Copy the data directory while the server runs, or while it does not.
    Backup(BackupArgs),
    /// Make a new data directory from a backup.
    Restore(RestoreArgs),
    /// Read everything that is stored and report damage; the server must not run. Exits 1 if there is any.
    Fsck(FsckArgs),
}

/// Where the data lies; shared by most commands.
#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// The data directory.
    #[arg(
        long,
        default_value = "./sightglass-data",
        env = "SIGHTGLASS_DATA_DIR",
        global = true
    )]
    pub data_dir: PathBuf,
}

/// Flags of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataDir,
    /// The directory to write to; it must be missing or empty. It will hold every secret and face vector.
    pub target: PathBuf,
    /// Print the list of files as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The directory to make; it must be missing or empty.
    #[command(flatten)]
    pub data: DataDir,
    /// The directory that `backup` wrote.
    pub source: PathBuf,
    /// Print the list of files as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataDir,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// How the log on stderr looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

/// Flags of `serve`. A flag wins over the configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeArgs {
    /// The data directory [default: ./sightglass-data].
    #[arg(long, env = "SIGHTGLASS_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port of every API [default: 127.0.0.1:4577].
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// The TOML configuration file; docs/reference/settings.md lists its keys.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// What GetDataEndpoint and session URLs return, e.g. https://video.example.org.
    #[arg(long)]
    pub public_url: Option<String>,
    /// Address of a proxy whose X-Forwarded-Proto and X-Forwarded-Host count; may be repeated.
    #[arg(long)]
    pub trusted_proxy: Vec<std::net::IpAddr>,
    /// PEM file with the server's certificate chain.
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of --tls-cert.
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// How the log on stderr looks [default: text].
    #[arg(long)]
    pub log_format: Option<LogFormat>,
}

/// The server that a command calls.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Where the data of a server on this machine lies; its key and address are used where AWS's variables are not set.
    #[command(flatten)]
    pub data: DataDir,
    /// The server's URL [default: the address of the running server, else http://127.0.0.1:4577].
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    pub endpoint: Option<String>,
    /// The region that holds the stream.
    #[arg(long, default_value = "us-east-1", env = "AWS_REGION")]
    pub region: String,
    /// PEM file with the certificates to trust for https [default: those that this machine trusts].
    #[arg(long, env = "AWS_CA_BUNDLE")]
    pub ca: Option<PathBuf>,
}

/// Whose clock a time is read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Axis {
    /// When fragments arrived at the server.
    #[default]
    Server,
    /// When they were recorded.
    Producer,
}

/// What the timecodes of a source count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Timestamps {
    /// The source's first moment is now.
    #[default]
    Relative,
    /// 1970: the source carries the times of day.
    Absolute,
}

/// Flags of `put`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightglass put door door.mkv --realtime --loop
  sightglass put door rtsp://camera.local/main --create 24
  ffmpeg -i film.mp4 -c copy -f matroska - | sightglass put door -")]
pub struct PutArgs {
    /// The video stream's name.
    pub stream: String,
    /// A Matroska file as it is, or anything that a local ffmpeg can read: another file, an rtsp:// or http(s):// URL. `-`
    /// reads Matroska from standard input.
    pub source: String,
    /// Send each frame when a camera would, instead of as fast as the server takes it.
    #[arg(long)]
    pub realtime: bool,
    /// Begin again at the end, until interrupted.
    #[arg(long)]
    pub r#loop: bool,
    /// Make the stream if it is not there, keeping video for so many hours.
    #[arg(long, value_name = "HOURS")]
    pub create: Option<u32>,
    /// What the source's timecodes count from.
    #[arg(long, value_enum, default_value_t)]
    pub timestamps: Timestamps,
    /// Give up when the server has confirmed nothing for so many seconds; without it, wait for ever.
    #[arg(long, value_name = "SECONDS")]
    pub give_up_after: Option<u64>,
    /// Print each acknowledgement as a JSON line.
    #[arg(long)]
    pub json: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `get`.
#[derive(Debug, Args)]
#[command(
    after_help = "Times are 2026-11-22T18:56:50Z, seconds since 1970, now, or how long ago: -10m, -2h, -1d.

Examples:
  sightglass get door --from -10m -o last-ten-minutes.mkv
  sightglass get door --live | mpv -
  sightglass get door --live --from earliest --raw -o everything.mkv"
)]
pub struct GetArgs {
    /// The video stream's name.
    pub stream: String,
    /// Where to begin: a time or `earliest`; with --live also a fragment number, after which it begins [default: earliest;
    /// now with --live].
    #[arg(long, alias = "start", value_name = "T", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// The time at which to end [default: now; never with --live].
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Whose clock --from and --to are read on.
    #[arg(long, value_enum, default_value_t)]
    pub axis: Axis,
    /// Go on with what arrives, until interrupted.
    #[arg(long)]
    pub live: bool,
    /// Write to this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Stop after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Write what the server sends byte for byte, a document a fragment, instead of one film.
    #[arg(long, alias = "verbatim")]
    pub raw: bool,
    /// Leave out the time in which nothing was recorded.
    #[arg(long, conflicts_with = "raw")]
    pub close_gaps: bool,
    /// Print each fragment as a JSON line; needs --output.
    #[arg(long, requires = "output")]
    pub json: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `clip`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sightglass clip door --from -2m --to now -o door.mp4")]
pub struct ClipArgs {
    /// The video stream's name.
    pub stream: String,
    /// Where to begin: 2026-11-22T18:56:50Z, seconds since 1970, or how long ago: -10m.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: String,
    /// Where to end.
    #[arg(long, value_name = "T", default_value = "now", allow_hyphen_values = true)]
    pub to: String,
    /// Whose clock --from and --to are read on.
    #[arg(long, value_enum, default_value_t)]
    pub axis: Axis,
    /// The MP4 file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `archive`.
#[derive(Debug, Args)]
#[command(
    after_help = "Times are 2026-11-22T18:56:50Z, seconds since 1970, now, or how long ago: -10m, -2h, -1d; durations 90s, 15m, 1h, 1d.
The key of another S3 than the server's comes from SIGHTGLASS_S3_ACCESS_KEY_ID and SIGHTGLASS_S3_SECRET_ACCESS_KEY.

Examples:
  sightglass archive door s3://films/site-1
  sightglass archive door yard s3://films/site-1 --every 15m --format mp4 --follow
  sightglass archive door s3://films/events --by event --gap 30s --from -1d --to now --verify
  sightglass archive door s3://films --follow --hold --endpoint-url https://s3.eu-central-1.amazonaws.com --s3-region eu-central-1"
)]
pub struct ArchiveArgs {
    /// The names of video streams, and at the end where they go: s3://BUCKET/PREFIX. Each stream has a folder of its own there.
    #[arg(required = true, num_args = 2.., value_name = "STREAM... s3://BUCKET/PREFIX")]
    pub what: Vec<String>,
    /// The container of the objects: mkv takes any codec; mp4 takes H.264, H.265, AAC and G.711, and other footage is kept as mkv.
    #[arg(long, default_value = "mkv", value_name = "mkv|mp4")]
    pub format: String,
    /// Where an object ends: time, at multiples of --every; event, where nothing was recorded for longer than --gap.
    #[arg(long, default_value = "time", value_name = "time|event")]
    pub by: String,
    /// The time of an object; of an event, how long it may be at most.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub every: String,
    /// The pause that ends an event [default: 10s].
    #[arg(long, value_name = "DURATION")]
    pub gap: Option<String>,
    /// Where to begin, by the server's clock [default: where the bucket ends, else the stream's beginning].
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Where to end [default: now; never with --follow].
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Go on with what arrives, until interrupted.
    #[arg(long)]
    pub follow: bool,
    /// With --follow: how long an object waits after its time for what is still arriving.
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    pub settle: String,
    /// Let the streams' retention wait for the archive: sets their tags sightglass:archive-hold and sightglass:archived-until.
    #[arg(long, conflicts_with = "from")]
    pub hold: bool,
    /// Read each object back and compare it.
    #[arg(long)]
    pub verify: bool,
    /// Archive nothing; read back what the bucket holds from --from to --to. Exits 1 if any of it is damaged.
    #[arg(long, conflicts_with_all = ["follow", "hold", "verify"])]
    pub verify_only: bool,
    /// Streams that are written at once; each takes up to 30 MB of memory.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub at_once: usize,
    /// Give up when nothing has gone well for so many seconds; without it, two minutes, and never with --follow.
    #[arg(long, value_name = "SECONDS")]
    pub give_up_after: Option<u64>,
    /// The URL of the S3 [default: the server itself].
    #[arg(long, env = "AWS_ENDPOINT_URL_S3", value_name = "URL")]
    pub endpoint_url: Option<String>,
    /// The region of the bucket [default: that of the streams].
    #[arg(long, value_name = "REGION")]
    pub s3_region: Option<String>,
    /// Print each object as a JSON line, and a summary at the end.
    #[arg(long)]
    pub json: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `play`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightglass play door
  sightglass play door --from -1h --url")]
pub struct PlayArgs {
    /// The video stream's name.
    pub stream: String,
    /// Play from this time on instead of live; with --to, what is stored.
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Where to end.
    #[arg(long, value_name = "T", requires = "from", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Whose clock --from and --to are read on.
    #[arg(long, value_enum, default_value_t)]
    pub axis: Axis,
    /// Only print the URL.
    #[arg(long)]
    pub url: bool,
    /// Print JSON, and open no player.
    #[arg(long)]
    pub json: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// When there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Flags of `tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Times are 2026-11-22T18:56:50Z, seconds since 1970, now, or how long ago: 10m, 2h, 1d.
JSON paths are RFC 9535's; a filter is a path that must find something, or a condition on @, the record.

Examples:
  sightglass tail seen
  sightglass tail seen --from 10m --where '$.FaceSearchResponse[*].MatchedFaces[?@.Similarity > 95]'
  sightglass tail seen --where '@.temperature > 30 && @.room == \"kitchen\"'
  sightglass tail seen --from start --no-follow --json | jq .data"
)]
pub struct TailArgs {
    /// The data stream's name or ARN.
    pub stream: String,
    /// Where to begin: now, start (the oldest record that is kept), or a time.
    #[arg(long, value_name = "T", default_value = "now", allow_hyphen_values = true)]
    pub from: String,
    /// End with what arrived at this time.
    #[arg(
        long,
        alias = "until",
        value_name = "T",
        conflicts_with = "no_follow",
        allow_hyphen_values = true
    )]
    pub to: Option<String>,
    /// End where there is nothing more now.
    #[arg(long)]
    pub no_follow: bool,
    /// Stop after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Stop after so many records were shown.
    #[arg(short = 'n', long, value_name = "N")]
    pub count: Option<u64>,
    /// Show only records that this holds for: a JSON path, or a condition on @. May be repeated; all must hold.
    #[arg(long, alias = "filter", value_name = "PATH")]
    pub r#where: Vec<String>,
    /// Show what this JSON path finds in a record instead of the record; records in which it finds nothing are left out.
    #[arg(long, value_name = "PATH")]
    pub select: Option<String>,
    /// Show only records with this partition key.
    #[arg(long, value_name = "KEY")]
    pub partition_key: Option<String>,
    /// Print each record as a JSON line.
    #[arg(long)]
    pub json: bool,
    /// Print the data of each record as it is, and a line feed behind it.
    #[arg(long, conflicts_with_all = ["json", "select"])]
    pub raw: bool,
    /// When there is colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `records`.
#[derive(Debug, Args)]
pub struct RecordsArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: RecordsAction,
}

/// The actions of `records`.
#[derive(Debug, Subcommand)]
pub enum RecordsAction {
    /// Put records: each line of standard input or of a file, or what the command line says.
    Put(RecordsPutArgs),
}

/// Flags of `records put`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightglass records put seen --data '{\"who\": \"Ann\"}'
  sightglass records put seen events.jsonl --key-path '$.camera'
  tail -f /var/log/door.log | sightglass records put seen --partition-key door")]
pub struct RecordsPutArgs {
    /// The data stream's name or ARN.
    pub stream: String,
    /// The file whose lines are the records; `-` is standard input.
    #[arg(default_value = "-", conflicts_with = "data")]
    pub file: String,
    /// The data of a record; may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub data: Vec<String>,
    /// The whole file is one record.
    #[arg(long, conflicts_with = "data")]
    pub whole: bool,
    /// Each line, or each --data, is Base64.
    #[arg(long, conflicts_with = "whole")]
    pub base64: bool,
    /// The partition key of every record [default: another for each, so that they spread over the shards].
    #[arg(long, value_name = "KEY", conflicts_with = "key_path")]
    pub partition_key: Option<String>,
    /// Take the partition key from where this JSON path leads in the record.
    #[arg(long, value_name = "PATH")]
    pub key_path: Option<String>,
    /// The hash key that chooses the shard, 0 to 2^128-1, instead of the partition key's.
    #[arg(long, value_name = "NUMBER")]
    pub explicit_hash_key: Option<HashKey>,
    /// Give up when the server has stored nothing for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub give_up_after: u64,
    /// Print a summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `firehose`.
#[derive(Debug, Args)]
pub struct FirehoseArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: FirehoseAction,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// When there is colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    pub color: Color,
    /// The server's URL [default: the address of the running server, else http://127.0.0.1:4577].
    #[arg(long, env = "AWS_ENDPOINT_URL", global = true)]
    pub endpoint: Option<String>,
    /// The region that holds the delivery streams.
    #[arg(long, default_value = "us-east-1", env = "AWS_REGION", global = true)]
    pub region: String,
    /// PEM file with the certificates to trust for https [default: those that this machine trusts].
    #[arg(long, env = "AWS_CA_BUNDLE", global = true)]
    pub ca: Option<PathBuf>,
    /// Where the data of a server on this machine lies.
    #[command(flatten)]
    pub data: DataDir,
}

/// The actions of `firehose`.
#[derive(Debug, Subcommand)]
pub enum FirehoseAction {
    /// Make a delivery stream.
    Create(FirehoseCreateArgs),
    /// Name the delivery streams.
    List,
    /// Show how delivery streams do: status, lag, last error; all of them unless some are named.
    Describe {
        /// Their names.
        names: Vec<String>,
    },
    /// Put each line of standard input or of a file as a record.
    Put(FirehosePutArgs),
    /// Delete a delivery stream.
    Delete {
        /// Its name.
        name: String,
    },
    /// Show the records that could not be delivered, and why, from the bucket where they are.
    TailErrors(FirehoseTailErrorsArgs),
}

/// Flags of `firehose create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sightglass firehose create seen-to-s3 --to s3://results/seen/ --from seen --gzip --buffer-seconds 60
  sightglass firehose create events --to 's3://results/events/!{timestamp:yyyy/MM/dd}/' --error-prefix 'errors/!{firehose:error-output-type}/'
  sightglass firehose create full --request create.json")]
pub struct FirehoseCreateArgs {
    /// Its name.
    pub name: String,
    /// The bucket, and what keys begin with: s3://BUCKET/PREFIX, in which expressions may stand.
    #[arg(long, value_name = "s3://BUCKET/PREFIX", required_unless_present = "request")]
    pub to: Option<String>,
    /// What the keys of records that cannot be delivered begin with.
    #[arg(long, value_name = "PREFIX", requires = "to")]
    pub error_prefix: Option<String>,
    /// The data stream that it reads; without it, records are put.
    #[arg(long, value_name = "STREAM", requires = "to")]
    pub from: Option<String>,
    /// The role that is stored with it [default: one of the account 000000000000, or of the data stream's].
    #[arg(long, value_name = "ARN", requires = "to")]
    pub role: Option<String>,
    /// Deliver when so many MB are there.
    #[arg(long, value_name = "MB", requires = "to")]
    pub buffer_mb: Option<u32>,
    /// Deliver when the oldest record has waited for so long.
    #[arg(long, value_name = "SECONDS", requires = "to")]
    pub buffer_seconds: Option<u32>,
    /// Compress the objects.
    #[arg(long, requires = "to")]
    pub gzip: bool,
    /// A file with the input of CreateDeliveryStream as JSON, for everything else; the name is put in.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub request: Option<PathBuf>,
}

/// Flags of `firehose put`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  tail -f events.jsonl | sightglass firehose put events --newline")]
pub struct FirehosePutArgs {
    /// The delivery stream's name.
    pub name: String,
    /// The file whose lines are the records; `-` is standard input.
    #[arg(default_value = "-")]
    pub file: String,
    /// Leave the line feed at the end of each record, so that the objects have lines too.
    #[arg(long)]
    pub newline: bool,
    /// Give up when the server has taken nothing for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub give_up_after: u64,
}

/// Flags of `firehose tail-errors`.
#[derive(Debug, Args)]
pub struct FirehoseTailErrorsArgs {
    /// The delivery stream's name.
    pub name: String,
    /// Show what is there already as well.
    #[arg(long)]
    pub all: bool,
    /// End where there is nothing more now; shows what is there.
    #[arg(long)]
    pub no_follow: bool,
    /// The URL of the S3 [default: the server itself].
    #[arg(long, env = "AWS_ENDPOINT_URL_S3", value_name = "URL")]
    pub endpoint_url: Option<String>,
}

/// Flags of `env`.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataDir,
    /// Endpoint to print [default: the address of the running server, else http://127.0.0.1:4577].
    #[arg(long)]
    pub endpoint: Option<String>,
    /// Region to print.
    #[arg(long, default_value = "us-east-1")]
    pub region: String,
    /// Write this profile to the AWS configuration files instead of printing.
    #[arg(long)]
    pub profile: Option<String>,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "profile")]
    pub json: bool,
}

/// Flags of `keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// Where the data lies.
    #[command(flatten)]
    pub data: DataDir,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do with the keys.
    #[command(subcommand)]
    pub action: KeysAction,
}

/// The actions of `keys`.
#[derive(Debug, Subcommand)]
pub enum KeysAction {
    /// Make a key and print its secret, once.
    Create {
        /// The twelve-digit account that the key belongs to.
        #[arg(long, default_value = "000000000000")]
        account: String,
        /// JSON file with an IAM policy; without it the key may do everything in its account.
        #[arg(long)]
        policy: Option<PathBuf>,
    },
    /// List the keys; secrets are not shown.
    List {
        /// Only keys of this account.
        #[arg(long)]
        account: Option<String>,
    },
    /// Make a key unusable, now and for good.
    Revoke {
        /// The access key id.
        access_key_id: String,
    },
}

/// Flags of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// The folder of prepared models.
    #[arg(long, env = "SIGHTGLASS_MODELS", default_value = "./models", global = true)]
    pub models: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub action: ModelsAction,
}

/// The actions of `models`.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelsAction {
    /// Show what the folder holds, with licence and source.
    List,
    /// Compare every file with the SHA-256 in the manifest.
    Verify,
    /// Take an embedding model of your own into the folder: an ONNX file that reads faces of 112 x 112 pixels aligned to
    /// ArcFace's five points. It is tried out first.
    Add(ModelsAddArgs),
}

/// Flags of `models add`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A pixel enters the model as (value - mean) * scale. The defaults are those of InsightFace's recognition models.
Choose the model by vision.embedder in the server's configuration. A collection is searched with the model it was made with alone.

Examples:
  sightglass models add my-arcface w600k_r50.onnx
  sightglass models add mine model.onnx --colours bgr --mean 0 --scale 1
  sightglass faces eval people --model my-arcface --calibrate"
)]
pub struct ModelsAddArgs {
    /// What it is called: letters, digits, '.' and '-'. Eight digits of its content are put behind the name.
    pub name: String,
    /// The file; weights must be inside it.
    pub file: PathBuf,
    /// Subtracted from each value of 0 to 255 first.
    #[arg(long, default_value_t = 127.5, allow_hyphen_values = true)]
    pub mean: f32,
    /// Multiplied with the difference.
    #[arg(long, default_value_t = 1.0 / 127.5)]
    pub scale: f32,
    /// The order of the colour planes.
    #[arg(long, value_enum, default_value_t)]
    pub colours: Colours,
    /// Under which licence you have it, for the list.
    #[arg(long, default_value = "unknown")]
    pub licence: String,
    /// Where it is from, for the list.
    #[arg(long, default_value = "added by hand")]
    pub source: String,
    /// The vision worker program [default: the one beside this program, then the one on PATH].
    #[arg(long, env = "SIGHTGLASS_WORKER")]
    pub worker: Option<PathBuf>,
}

/// The order of colour planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Colours {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// Flags of `faces`.
#[derive(Debug, Args)]
pub struct FacesArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: FacesAction,
}

/// The actions of `faces`.
#[derive(Debug, Subcommand)]
pub enum FacesAction {
    /// Measure accuracy on a folder that has a sub-folder of images for each person.
    Eval(FacesEvalArgs),
    /// Show how far apart the people of a collection are: whose faces somebody else's resemble.
    Report(FacesReportArgs),
}

/// Flags of `faces report`.
#[derive(Debug, Args)]
#[command(
    after_help = "A person is the faces of one user, or of one external image id where there is no user. Every face is searched.

Example:
  sightglass faces report staff"
)]
pub struct FacesReportArgs {
    /// The collection's id.
    pub collection: String,
    /// Print JSON, with everybody.
    #[arg(long)]
    pub json: bool,
    /// When there is colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `faces eval`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every image is enrolled in a collection that is deleted at the end, and every face searched. An image without a face counts as a miss.

Examples:
  sightglass faces eval lfw --temporary --plots lfw-plots
  sightglass faces eval people --model my-arcface --json
  sightglass faces eval people --model my-arcface --calibrate"
)]
pub struct FacesEvalArgs {
    /// The folder: one sub-folder for each person, with JPEG or PNG images.
    pub folder: PathBuf,
    /// The pairs of the ten-fold protocol, as LFW's pairs.txt [default: pairs.txt in the folder, else pairs are drawn].
    #[arg(long, value_name = "FILE")]
    pub pairs: Option<PathBuf>,
    /// Measure with a server of the command's own instead of one that runs.
    #[arg(long)]
    pub temporary: bool,
    /// The embedding model, by its id in the models' folder; implies --temporary.
    #[arg(long, value_name = "ID")]
    pub model: Option<String>,
    /// Write what the cosines of the model mean into the folder of models: similarity 80, 90, 95 and 99 are then the
    /// thresholds at which one pair of strangers in 10^3, 10^4, 10^5 and 10^6 matches, as far as the folder has pairs
    /// enough to say so; implies --temporary.
    #[arg(long)]
    pub calibrate: bool,
    /// The folder of prepared models for --temporary.
    #[arg(long, env = "SIGHTGLASS_MODELS", default_value = "./models")]
    pub models: PathBuf,
    /// Which faces are enrolled at all.
    #[arg(long, value_enum, default_value_t, value_name = "FILTER", ignore_case = true)]
    pub quality_filter: Filter,
    /// Write roc.svg and similarities.svg into this folder.
    #[arg(long, value_name = "FOLDER")]
    pub plots: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// When there is colour.
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Which server.
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The QualityFilter of IndexFaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Filter {
    /// Every face.
    #[default]
    None,
    /// What IndexFaces takes by default.
    Auto,
    /// Little is asked.
    Low,
    /// What is advised for enrolment.
    Medium,
    /// Much is asked.
    High,
}

impl Filter {
    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Filter::None => "NONE",
            Filter::Auto => "AUTO",
            Filter::Low => "LOW",
            Filter::Medium => "MEDIUM",
            Filter::High => "HIGH",
        }
    }
}
