//! `sightglass archive STREAM... s3://BUCKET/PREFIX`: what streams hold, or what arrives, as films in a bucket.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use archive::index::Head;
use archive::settings::parse_duration;
use archive::verify::{Report, verify};
use archive::{
    ArchiveError, Archiver, ClientSource, Destination, Event, Folder, Range, S3Config, S3Store, Settings, Store,
    Summary, Tell,
};
use base::{Clock, Timestamp};
use client::StreamName;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};

use super::progress::{self, Progress};
use super::{Failure, connect, times};
use crate::cli::ArchiveArgs;

/// Failures that may pass are tried again for so long where nothing is followed.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// Runs the command.
pub fn run(args: &ArchiveArgs) -> Result<ExitCode, Failure> {
    let client = connect::client(&args.server)?;
    let (streams, destination) = parties(args)?;
    let settings = Settings::from_words(
        Some(&args.format),
        Some(&args.by),
        Some(&args.every),
        args.gap.as_deref(),
    )?;
    let range = range(args, client.clock().now())?;
    let store: Arc<dyn Store> = Arc::new(S3Store::new(s3_config(args, &destination)?)?);
    let shown = Mutex::new(Shown::new(args, Arc::clone(client.clock()), streams.len()));
    super::runtime()?.block_on(async {
        if args.verify_only {
            return verify_all(&streams, &destination, &*store, &range, &shown).await;
        }
        let turns = Arc::new(Semaphore::new(args.at_once.max(1)));
        let tell = if args.hold { Tell::Hold } else { Tell::Nothing };
        let each = streams.iter().map(|stream| {
            let (client, store, turns) = (client.clone(), Arc::clone(&store), Arc::clone(&turns));
            let source = ClientSource::new(client, StreamName::Name(stream.clone()), tell);
            let archiver = Archiver::new(Arc::new(source), store, stream, &destination.prefix, settings, turns);
            archive_one(stream, archiver, &range, &shown)
        });
        let all = async { join_all(each).await };
        let outcomes = tokio::select! {
            outcomes = all => outcomes,
            _ = tokio::signal::ctrl_c() => {
                shown.lock().await.progress.clear();
                eprintln!("interrupted; the next run goes on from here");
                return Ok(ExitCode::SUCCESS);
            }
        };
        let mut shown = shown.lock().await;
        shown.progress.clear();
        let mut good = true;
        for (stream, outcome) in streams.iter().zip(outcomes) {
            match outcome {
                Ok(summary) => {
                    good &= summary.lost == 0;
                    shown.summary(stream, &summary);
                }
                Err(error) => {
                    good = false;
                    shown.failed(stream, &error);
                }
            }
        }
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// The streams, and where they go.
fn parties(args: &ArchiveArgs) -> Result<(Vec<String>, Destination), Failure> {
    let (destination, streams) = args.what.split_last().ok_or("give a stream and s3://BUCKET/PREFIX")?;
    if let Some(wrong) = streams.iter().find(|stream| stream.contains(['/', ':'])) {
        return Err(format!("{wrong:?} is no stream's name; the destination comes last").into());
    }
    Ok((streams.to_vec(), destination.parse()?))
}

fn range(args: &ArchiveArgs, now: Timestamp) -> Result<Range, Failure> {
    let time = |text: &Option<String>| text.as_deref().map(|text| times::parse(text, now)).transpose();
    let patience = args.give_up_after.map(Duration::from_secs);
    Ok(Range {
        from: time(&args.from)?,
        to: time(&args.to)?,
        follow: args.follow,
        settle: parse_duration(&args.settle)?,
        give_up_after: patience.or((!args.follow).then_some(GIVE_UP_AFTER)),
        verify: args.verify,
    })
}

fn s3_config(args: &ArchiveArgs, destination: &Destination) -> Result<S3Config, Failure> {
    let credentials = match connect::from_environment("SIGHTGLASS_S3") {
        Some(credentials) => credentials,
        None => connect::credentials(&args.server)?,
    };
    let endpoint = args.endpoint_url.clone();
    Ok(S3Config {
        bucket: destination.bucket.clone(),
        endpoint: Some(endpoint.unwrap_or_else(|| connect::endpoint(&args.server))),
        region: args.s3_region.clone().unwrap_or_else(|| args.server.region.clone()),
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret.reveal().to_owned(),
        session_token: credentials.session_token,
        certificates: connect::certificates(&args.server)?,
    })
}

async fn archive_one(
    stream: &str,
    archiver: Archiver,
    range: &Range,
    shown: &Mutex<Shown>,
) -> Result<Summary, ArchiveError> {
    let mut on = |event: Event<'_>| {
        // Commands have one thread, on which nobody waits while holding it.
        if let Ok(mut shown) = shown.try_lock() {
            shown.event(stream, &event);
        }
    };
    archiver.run(range, &mut on).await
}

/// `--verify-only`.
async fn verify_all(
    streams: &[String],
    destination: &Destination,
    store: &dyn Store,
    range: &Range,
    shown: &Mutex<Shown>,
) -> Result<ExitCode, Failure> {
    let from = range.from.unwrap_or(Timestamp::from_millis(0));
    let until = range
        .to
        .map_or(Timestamp::from_millis(i64::MAX), |to| to.plus_millis(1));
    let mut good = true;
    let mut shown = shown.lock().await;
    for stream in streams {
        let folder = Folder::new(&destination.prefix, stream);
        let report = verify(store, &folder, from, until, &mut |head| shown.reading(stream, head)).await?;
        good &= report.damaged.is_empty() && report.twice.is_empty();
        shown.progress.clear();
        shown.report(stream, &report);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is printed.
struct Shown {
    json: bool,
    clock: Arc<dyn Clock>,
    progress: Progress,
    started: Duration,
    bytes: u64,
    /// Streams, and how far each is, in thousandths of its range.
    streams: usize,
    done: std::collections::BTreeMap<String, (Timestamp, Option<Timestamp>, Timestamp)>,
}

impl Shown {
    fn new(args: &ArchiveArgs, clock: Arc<dyn Clock>, streams: usize) -> Self {
        Shown {
            json: args.json,
            progress: Progress::new(Arc::clone(&clock), !args.json),
            started: clock.monotonic(),
            clock,
            bytes: 0,
            streams,
            done: std::collections::BTreeMap::new(),
        }
    }

    fn event(&mut self, stream: &str, event: &Event<'_>) {
        match event {
            Event::Begins(from, to) => {
                self.done.insert(stream.to_owned(), (*from, *to, *from));
            }
            Event::Planned(..) => {}
            Event::Fragment(at, bytes) => {
                self.bytes += bytes;
                if let Some(done) = self.done.get_mut(stream) {
                    done.2 = *at;
                }
                self.show(stream, *at);
            }
            Event::Archived(head) => {
                self.progress.clear();
                self.object(head);
            }
            Event::UpToDate(at) => {
                let at = wire::time::to_iso8601(Timestamp::from_millis(at.millis() - at.millis() % 1000));
                self.progress
                    .show(|| format!("{stream}: all is archived up to {at}; waiting for more"));
            }
            Event::Failed(error) => {
                self.progress.clear();
                eprintln!("{stream}: {error}; trying again");
            }
        }
    }

    /// `door: 2026-11-23T08:14:00Z, 12.3 GB, 240.1 MB/s, 45 %, 0:03:12 left`.
    fn show(&mut self, stream: &str, at: Timestamp) {
        let elapsed = self.clock.monotonic().saturating_sub(self.started).as_secs_f64();
        let (bytes, streams) = (self.bytes, self.streams);
        let parts = self.done.values().filter_map(|(from, to, at)| {
            let whole = to.as_ref()?.millis_since(*from).max(1);
            Some((at.millis_since(*from).max(0) as f64 / whole as f64).min(1.0))
        });
        let part = self.done.values().all(|(_, to, _)| to.is_some());
        let part = part
            .then(|| parts.sum::<f64>() / streams.max(1) as f64)
            .filter(|part| *part > 0.0);
        self.progress.show(|| {
            let at = wire::time::to_iso8601(Timestamp::from_millis(at.millis() - at.millis() % 1000));
            let rate = progress::bytes((bytes as f64 / elapsed.max(0.001)) as u64);
            let rest = part.map_or_else(String::new, |part| {
                let left = progress::play_time((elapsed * 1000.0 * (1.0 - part) / part) as i64);
                format!(", {:.0} %, {left} left", part * 100.0)
            });
            format!("{stream}: {at}, {}, {rate}/s{rest}", progress::bytes(bytes))
        });
    }

    fn object(&self, head: &Head) {
        if self.json {
            println!("{}", json!({ "object": head }));
            return;
        }
        let lost = match head.lost {
            0 => String::new(),
            lost => format!(", {lost} lost"),
        };
        println!(
            "{}  {} fragments, {}{lost}",
            head.key,
            head.fragments,
            progress::bytes(head.bytes)
        );
    }

    fn reading(&mut self, stream: &str, head: &Head) {
        self.bytes += head.bytes;
        let bytes = self.bytes;
        self.progress
            .show(|| format!("{stream}: {}, {} read", head.key, progress::bytes(bytes)));
    }

    fn summary(&self, stream: &str, summary: &Summary) {
        let Summary {
            objects,
            fragments,
            bytes,
            lost,
        } = *summary;
        if self.json {
            let seconds = self.clock.monotonic().saturating_sub(self.started).as_secs_f64();
            println!(
                "{}",
                json!({ "stream": stream, "objects": objects, "fragments": fragments, "bytes": bytes, "lost": lost,
                    "seconds": seconds })
            );
        } else {
            eprintln!(
                "{stream}: {objects} objects, {fragments} fragments, {}",
                progress::bytes(bytes)
            );
            if lost > 0 {
                eprintln!("{stream}: {lost} fragments could not be read; the indexes name them");
            }
        }
    }

    fn failed(&self, stream: &str, error: &ArchiveError) {
        let advice = match error {
            ArchiveError::Source(client::reader::ReaderError::Client(error)) => error.advice(),
            _ => None,
        };
        if self.json {
            println!("{}", json!({ "stream": stream, "error": error.to_string() }));
        }
        match advice {
            Some(advice) => eprintln!("{stream}: {error} ({advice})"),
            None => eprintln!("{stream}: {error}"),
        }
    }

    fn report(&self, stream: &str, report: &Report) {
        let Report {
            good,
            bytes,
            fragments,
            damaged,
            unfinished,
            twice,
        } = report;
        if self.json {
            let lists: Value = json!({ "damaged": damaged, "unfinished": unfinished, "twice": twice });
            println!(
                "{}",
                json!({ "stream": stream, "good": good, "bytes": bytes, "fragments": fragments, "found": lists })
            );
            return;
        }
        println!(
            "{stream}: {good} objects, {fragments} fragments, {} as they were written",
            progress::bytes(*bytes)
        );
        let lists = [
            ("damaged", damaged),
            ("planned and not there yet", unfinished),
            ("fragment in two objects", twice),
        ];
        for (what, list) in lists {
            list.iter().for_each(|key| println!("{stream}: {what}: {key}"));
        }
    }
}
