//! ListFragments, and reading what it lists: a range of time as a stream of whole fragments, in order.

use std::time::Duration;

use base::Timestamp;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::call::{Client, Service};
use crate::error::ClientError;
use crate::limits::{BATCH_BYTES_MAX, BATCH_FRAGMENTS_MAX, LIST_PAGE_MAX, RANGE_FRAGMENTS_MAX};
use crate::media::StreamName;
use crate::reader::error::ReaderError;
use crate::reader::fragment::{Fragment, FragmentError, FragmentNumber};
use crate::reader::parser::{FragmentAssembler, FragmentParser};

/// Attempts at one call before it fails.
const ATTEMPTS_MAX: u32 = 5;

/// Which clock a range is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeAxis {
    /// When fragments arrived.
    #[default]
    Server,
    /// When they were recorded.
    Producer,
}

/// A range of time. Both ends belong to it; a fragment belongs to it by its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRange {
    /// By which clock.
    pub axis: TimeAxis,
    /// The first start.
    pub from: Timestamp,
    /// The last start.
    pub to: Timestamp,
}

/// What ListFragments says of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Its number.
    pub number: FragmentNumber,
    /// Its size.
    pub bytes: u64,
    /// When it arrived.
    pub server_timestamp: Timestamp,
    /// When it was recorded.
    pub producer_timestamp: Timestamp,
    /// How long it plays.
    pub length: Duration,
}

/// How a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Requests under way at once. Default 4; AWS allows 5 connections. What is read ahead takes at most so many times
    /// 16 MiB, or one fragment each where that is larger.
    pub parallel: usize,
    /// Fragments of one request.
    pub fragments_max: usize,
    /// Bytes of one request.
    pub bytes_max: u64,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            parallel: 4,
            fragments_max: BATCH_FRAGMENTS_MAX,
            bytes_max: BATCH_BYTES_MAX,
        }
    }
}

impl Client {
    /// Every fragment of a range, sorted by the range's clock and then by number (the service lists in no order).
    ///
    /// # Errors
    /// The server refuses, stays away, or lists more than a million fragments.
    pub async fn list_fragments(
        &self,
        stream: &StreamName,
        range: &TimeRange,
    ) -> Result<Vec<FragmentInfo>, ReaderError> {
        self.list_fragments_up_to(stream, range, RANGE_FRAGMENTS_MAX).await
    }

    /// As [`list_fragments`](Self::list_fragments), with a limit of one's own: it fails as soon as there are more.
    ///
    /// # Errors
    /// The server refuses or stays away; [`ReaderError::TooManyFragments`].
    pub async fn list_fragments_up_to(
        &self,
        stream: &StreamName,
        range: &TimeRange,
        max: usize,
    ) -> Result<Vec<FragmentInfo>, ReaderError> {
        let client = patiently(|| self.data_endpoint(stream, "LIST_FRAGMENTS")).await?;
        let kind = match range.axis {
            TimeAxis::Server => "SERVER_TIMESTAMP",
            TimeAxis::Producer => "PRODUCER_TIMESTAMP",
        };
        let mut input = json!({
            "MaxResults": LIST_PAGE_MAX,
            "FragmentSelector": {
                "FragmentSelectorType": kind,
                "TimestampRange": { "StartTimestamp": range.from.seconds(), "EndTimestamp": range.to.seconds() },
            },
        });
        stream.put_into(&mut input);
        let mut found: Vec<FragmentInfo> = Vec::new();
        loop {
            let page = patiently(|| client.call(Service::KinesisVideo, "ListFragments", &input)).await?;
            for row in page.get("Fragments").and_then(Value::as_array).into_iter().flatten() {
                found.push(info(row)?);
            }
            if found.len() > max {
                return Err(ReaderError::TooManyFragments(max));
            }
            match page.get("NextToken").and_then(Value::as_str) {
                Some(token) => {
                    input = json!({ "MaxResults": LIST_PAGE_MAX, "NextToken": token });
                    stream.put_into(&mut input);
                }
                None => break,
            }
        }
        found.sort_by(|a, b| match range.axis {
            TimeAxis::Server => (a.server_timestamp, &a.number).cmp(&(b.server_timestamp, &b.number)),
            TimeAxis::Producer => (a.producer_timestamp, &a.number).cmp(&(b.producer_timestamp, &b.number)),
        });
        found.dedup_by(|a, b| a.number == b.number);
        Ok(found)
    }

    /// Reads these fragments, in this order, some requests at a time. A broken answer is asked for again from its first
    /// missing fragment on. A fragment that is gone is an error in its place, and the stream goes on after it.
    pub fn read_fragments(
        &self,
        stream: &StreamName,
        fragments: &[FragmentInfo],
        options: BatchOptions,
    ) -> impl Stream<Item = Result<Fragment, ReaderError>> + Send + use<> {
        let groups = groups(fragments, &options);
        let (client, name) = (self.clone(), stream.clone());
        stream::iter(groups)
            .map(move |group| fetch(client.clone(), name.clone(), group))
            .buffered(options.parallel.max(1))
            .flat_map(stream::iter)
    }
}

fn info(row: &Value) -> Result<FragmentInfo, ClientError> {
    let wrong = || ClientError::Protocol(format!("ListFragments: {row}"));
    let time = |member: &str| {
        row.get(member)
            .and_then(Value::as_f64)
            .and_then(Timestamp::from_seconds)
    };
    let count = |member: &str| row.get(member).and_then(Value::as_u64).unwrap_or(0);
    let number = row
        .get("FragmentNumber")
        .and_then(Value::as_str)
        .and_then(FragmentNumber::new);
    Ok(FragmentInfo {
        number: number.ok_or_else(wrong)?,
        bytes: count("FragmentSizeInBytes"),
        server_timestamp: time("ServerTimestamp").ok_or_else(wrong)?,
        producer_timestamp: time("ProducerTimestamp").ok_or_else(wrong)?,
        length: Duration::from_millis(count("FragmentLengthInMilliseconds")),
    })
}

/// Numbers in groups of a request each.
fn groups(fragments: &[FragmentInfo], options: &BatchOptions) -> Vec<Vec<FragmentNumber>> {
    let mut groups: Vec<Vec<FragmentNumber>> = Vec::new();
    let mut bytes = u64::MAX;
    for fragment in fragments {
        let size = fragment.bytes.max(1);
        match groups.last_mut() {
            Some(group) if group.len() < options.fragments_max && bytes.saturating_add(size) <= options.bytes_max => {
                group.push(fragment.number.clone());
                bytes += size;
            }
            _ => {
                groups.push(vec![fragment.number.clone()]);
                bytes = size;
            }
        }
    }
    groups
}

/// One request's fragments, however many attempts it takes.
async fn fetch(client: Client, stream: StreamName, wanted: Vec<FragmentNumber>) -> Vec<Result<Fragment, ReaderError>> {
    let mut got = Vec::with_capacity(wanted.len());
    let mut failures = 0;
    while let Some(rest) = wanted.get(got.len()..).filter(|rest| !rest.is_empty()) {
        let before = got.len();
        let Err(error) = fetch_once(&client, &stream, rest, &mut got).await else {
            break;
        };
        failures = if got.len() > before { 1 } else { failures + 1 };
        let transient = matches!(&error, ReaderError::Client(error) if error.is_transient());
        if !transient || failures >= ATTEMPTS_MAX {
            got.push(Err(error));
            break;
        }
        sleep(Backoff::default().draw(failures)).await;
    }
    got
}

async fn fetch_once(
    client: &Client,
    stream: &StreamName,
    wanted: &[FragmentNumber],
    got: &mut Vec<Result<Fragment, ReaderError>>,
) -> Result<(), ReaderError> {
    let client = client.data_endpoint(stream, "GET_MEDIA_FOR_FRAGMENT_LIST").await?;
    let numbers: Vec<&str> = wanted.iter().map(FragmentNumber::as_str).collect();
    let mut input = json!({ "Fragments": numbers });
    stream.put_into(&mut input);
    let mut media = client.stream_of("GetMediaForFragmentList", &input).await?;
    let mut parser = FragmentParser::default();
    let mut assembler = FragmentAssembler::default();
    let end = got.len() + wanted.len();
    loop {
        while let Some(event) = parser.next()? {
            match assembler.take(event) {
                Some(Ok(fragment)) if fragment.is_complete() => got.push(Ok(fragment)),
                Some(Err(FragmentError { number, id, code })) => {
                    got.push(Err(FragmentError { number, id, code }.into()));
                }
                _ => {}
            }
        }
        if got.len() >= end {
            // Only the answer's end is left to read, and then the connection can be used again.
            let _ = media.next().await;
            return Ok(());
        }
        match media.next().await? {
            Some(bytes) => parser.push(bytes),
            None => return Err(ClientError::Truncated.into()),
        }
    }
}

/// Calls until it succeeds or fails for good.
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut failures = 0;
    loop {
        match call().await {
            Err(error) if error.is_transient() && failures + 1 < ATTEMPTS_MAX => {
                failures += 1;
                sleep(Backoff::default().draw(failures)).await;
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_stay_small_and_keep_the_order() {
        let fragment = |number: u64, bytes| FragmentInfo {
            number: FragmentNumber::new(&number.to_string()).unwrap(),
            bytes,
            server_timestamp: Timestamp::from_millis(0),
            producer_timestamp: Timestamp::from_millis(0),
            length: Duration::ZERO,
        };
        let options = BatchOptions {
            parallel: 1,
            fragments_max: 3,
            bytes_max: 100,
        };
        let sizes = [10, 10, 10, 10, 95, 500, 1, 1];
        let fragments: Vec<FragmentInfo> = (0..)
            .zip(sizes)
            .map(|(number, bytes)| fragment(number, bytes))
            .collect();
        let grouped = groups(&fragments, &options);
        let lens: Vec<usize> = grouped.iter().map(Vec::len).collect();
        assert_eq!(lens, [3, 1, 1, 1, 2]);
        let order: Vec<&str> = grouped.iter().flatten().map(FragmentNumber::as_str).collect();
        assert_eq!(order, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn numbers_are_ordered_by_value_and_not_by_text() {
        let number = |text| FragmentNumber::new(text).unwrap();
        assert!(number("9") < number("10") && number("007") < number("10"));
        assert!(FragmentNumber::new("12a").is_none() && FragmentNumber::new("").is_none());
    }
}
