//! The map of what is stored: what an operator would build a time line from.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use base::Timestamp;
use common::testing::Body;
use common::{Service, fragment};
use wire::kinesisvideo_archived_media as archived;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn input(name: &str) -> archived::GetStoredMediaMapInput {
    archived::GetStoredMediaMapInput {
        stream_name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn between(name: &str, from: i64, to: i64) -> archived::GetStoredMediaMapInput {
    archived::GetStoredMediaMapInput {
        fragment_selector: Some(archived::FragmentSelector {
            fragment_selector_type: archived::FragmentSelectorType::ProducerTimestamp,
            timestamp_range: archived::TimestampRange {
                start_timestamp: at(from),
                end_timestamp: at(to),
            },
        }),
        ..input(name)
    }
}

type Told = (Vec<(i64, i64, i64)>, Vec<(i64, i64)>);

fn told(map: &archived::GetStoredMediaMapOutput) -> Told {
    let millis = |time: Option<Timestamp>| time.unwrap().millis();
    let spans = map.spans.iter().flatten();
    let gaps = map.gaps.iter().flatten();
    (
        spans
            .map(|s| {
                (
                    millis(s.start_timestamp),
                    millis(s.end_timestamp),
                    s.fragment_count.unwrap(),
                )
            })
            .collect(),
        gaps.map(|g| (millis(g.start_timestamp), millis(g.end_timestamp)))
            .collect(),
    )
}

async fn map(service: &Service, input: archived::GetStoredMediaMapInput) -> archived::GetStoredMediaMapOutput {
    service.call::<archived::op::GetStoredMediaMap>(input).await.unwrap()
}

/// Fragments of 40 ms that begin at the given times.
async fn service(times: &[u64]) -> Service {
    let service = Service::start().await;
    service.create("cam", 1).await;
    let body = times.iter().fold(Body::new(&[1]), |body, time| fragment(body, *time));
    let acks = service.put("cam", &body.bytes(), &[1000]).await;
    assert_eq!(acks.iter().filter(|a| a.starts_with("PERSISTED")).count(), times.len());
    service
}

#[tokio::test]
async fn one_answer_tells_what_is_there_and_what_is_missing() {
    let service = service(&[10_000, 10_500, 11_000, 20_000, 20_040, 40_000]).await;
    let everything = map(&service, archived::GetStoredMediaMapInput { ..input("cam") }).await;
    assert_eq!(everything.fragment_count, Some(6));
    assert_eq!(everything.next_token, None);
    let length = {
        let (spans, _) = told(&map(&service, between("cam", 40_000, 40_000)).await);
        spans[0].1 - 40_000
    };
    let (spans, gaps) = told(&map(&service, between("cam", 5_000, 60_000)).await);
    assert_eq!(
        spans,
        [
            (10_000, 11_000 + length, 3),
            (20_000, 20_040 + length, 2),
            (40_000, 40_000 + length, 1)
        ]
    );
    assert_eq!(
        gaps,
        [
            (5_000, 10_000),
            (11_000 + length, 20_000),
            (20_040 + length, 40_000),
            (40_000 + length, 60_000)
        ]
    );
    let strict = archived::GetStoredMediaMapInput {
        max_gap_in_milliseconds: Some(0),
        ..between("cam", 10_000, 11_000)
    };
    assert_eq!(told(&map(&service, strict).await).0.len(), 3, "the smallest gap counts");
    let lenient = archived::GetStoredMediaMapInput {
        max_gap_in_milliseconds: Some(60_000),
        ..between("cam", 5_000, 60_000)
    };
    let lenient = map(&service, lenient).await;
    assert_eq!(told(&lenient), (vec![(10_000, 40_000 + length, 6)], vec![]));
    assert_eq!(lenient.stored_milliseconds, Some(30_000 + length));
    let (spans, gaps) = told(&map(&service, between("cam", 30_000, 35_000)).await);
    assert_eq!((spans, gaps), (vec![], vec![(30_000, 35_000)]));
}

#[tokio::test]
async fn pages_put_together_are_the_whole_map() {
    let times: Vec<u64> = (0..30).map(|n| 10_000 + n * 3000 + (n % 3) * 700).collect();
    let service = service(&times).await;
    let whole = told(&map(&service, between("cam", 0, 150_000)).await);
    assert_eq!(whole.0.len(), 30);
    for limit in [1, 4, 29, 30] {
        let (mut spans, mut gaps, mut token) = (Vec::new(), Vec::new(), None);
        loop {
            let input = match token.take() {
                None => between("cam", 0, 150_000),
                token => archived::GetStoredMediaMapInput {
                    next_token: token,
                    ..input("cam")
                },
            };
            let page = map(
                &service,
                archived::GetStoredMediaMapInput {
                    max_results: Some(limit),
                    ..input
                },
            )
            .await;
            let (more, missing) = told(&page);
            assert!(more.len() as i64 <= limit);
            spans.extend(more);
            gaps.extend(missing);
            token = page.next_token;
            if token.is_none() {
                break;
            }
        }
        assert_eq!((spans, gaps), whole, "pages of {limit}");
    }
}

#[tokio::test]
async fn bad_input_gets_the_declared_error() {
    let service = service(&[10_000]).await;
    let code = |error: base::ApiError| error.code.to_string();
    let inverted = service
        .call::<archived::op::GetStoredMediaMap>(between("cam", 2, 1))
        .await;
    assert_eq!(code(inverted.unwrap_err()), "InvalidArgumentException");
    let token = archived::GetStoredMediaMapInput {
        next_token: Some("bm90IG91cnM=".to_owned()),
        ..input("cam")
    };
    let strange = service.call::<archived::op::GetStoredMediaMap>(token).await;
    assert_eq!(code(strange.unwrap_err()), "InvalidArgumentException");
    let missing = service.call::<archived::op::GetStoredMediaMap>(input("nobody")).await;
    assert_eq!(code(missing.unwrap_err()), "ResourceNotFoundException");
}
