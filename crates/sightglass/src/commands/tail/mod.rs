//! `sightglass tail STREAM`: the records of a data stream as they arrive, every shard of it, through splits and merges.

mod filter;
mod json_text;
mod show;

use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::consumer::KinesisSource;
use client::follow::{FollowConfig, FollowEvent, FollowFrom, FollowTo, Follower};
use client::{Client, ClientError};

use super::paint::Paint;
use super::{Failure, connect, times};
use crate::cli::TailArgs;
use filter::Condition;
pub use filter::path as json_path;
use show::{Form, Show};

/// The same trouble is told again after this.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Runs the command.
pub fn run(args: &TailArgs) -> Result<ExitCode, Failure> {
    let client = connect::client(&args.server)?;
    let conditions = args.r#where.iter().map(|text| Condition::parse(text));
    let show = Show {
        form: match (args.json, args.raw) {
            (true, _) => Form::Json,
            (_, true) => Form::Raw,
            _ => Form::Person(Paint::for_stdout(args.color)),
        },
        conditions: conditions.collect::<Result<_, _>>()?,
        select: args.select.as_deref().map(filter::path).transpose()?,
        partition_key: args.partition_key.clone(),
    };
    let now = client.clock().now();
    let config = FollowConfig {
        from: from(&args.from, now)?,
        to: match &args.to {
            Some(to) => FollowTo::Time(times::parse(to, now)?),
            None if args.no_follow => FollowTo::Tip,
            None => FollowTo::Never,
        },
        ..FollowConfig::default()
    };
    let source = Arc::new(KinesisSource::new(client.clone(), &args.stream));
    let time = args.seconds.map_or(Duration::MAX, Duration::from_secs);
    super::small_runtime()?.block_on(async {
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(time, tail(&client, source, config, &show, args.count)) => outcome.unwrap_or(Ok(())),
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        outcome.map(|()| ExitCode::SUCCESS)
    })
}

fn from(text: &str, now: Timestamp) -> Result<FollowFrom, String> {
    Ok(match text {
        "now" | "latest" => FollowFrom::Now,
        "start" | "earliest" => FollowFrom::Start,
        time => FollowFrom::Time(times::parse(time, now).map_err(|wrong| format!("{wrong}, or start"))?),
    })
}

async fn tail(
    client: &Client,
    source: Arc<KinesisSource>,
    config: FollowConfig,
    show: &Show,
    count: Option<u64>,
) -> Result<(), Failure> {
    let mut notes = Notes::new(client.clone());
    let mut left = count.unwrap_or(u64::MAX);
    let follower = Follower::start(source, Arc::clone(client.clock()), config).await;
    let mut follower = follower.map_err(connect::explained)?;
    while left > 0
        && let Some(event) = follower.next().await.map_err(connect::explained)?
    {
        match event {
            FollowEvent::Records { shard, records } => {
                let lines = records.iter().flat_map(|record| show.lines(&shard, record));
                match write(lines, &mut left) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                    written => written?,
                }
            }
            FollowEvent::ShardEnded { shard, children } => notes.ended(&shard, &children),
            FollowEvent::Trouble { error, .. } => notes.trouble(error),
        }
    }
    Ok(())
}

fn write(lines: impl Iterator<Item = Vec<u8>>, left: &mut u64) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in lines {
        if *left == 0 {
            break;
        }
        *left -= 1;
        out.write_all(&line)?;
    }
    out.flush()
}

/// What is said beside the records, on standard error.
struct Notes {
    client: Client,
    last: Option<(String, Duration)>,
}

impl Notes {
    fn new(client: Client) -> Self {
        Notes { client, last: None }
    }

    fn ended(&self, shard: &str, children: &[String]) {
        if std::io::stderr().is_terminal() {
            eprintln!(
                "{shard} has ended; {} {}",
                children.join(" and "),
                if children.len() == 1 { "goes on" } else { "go on" }
            );
        }
    }

    /// Many shards meet the same trouble at once.
    fn trouble(&mut self, error: ClientError) {
        if error.code() == Some("ExpiredIteratorException") {
            return;
        }
        let (now, text) = (self.client.clock().monotonic(), connect::explained(error).to_string());
        let again = self
            .last
            .as_ref()
            .is_none_or(|(last, at)| *last != text || now > *at + TOLD_AGAIN);
        if again {
            eprintln!("sightglass: {text}; trying again");
            self.last = Some((text, now));
        }
    }
}
