//! What a producer sent comes back byte for byte, whatever producer it was and however the network cut its bytes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use base::Timestamp;
use bytes::{Bytes, BytesMut};
use common::{Service, data, read_exactly, sections, selector};
use matroska::writer;
use proptest::prelude::*;
use wire::kinesisvideo_archived_media as archived;
use wire::kinesisvideo_media::StartSelectorType;

/// The timecodes that a body's clusters carry.
fn timecodes(body: &Bytes) -> Vec<u64> {
    let mut reader = matroska::Reader::new(matroska::Limits::default());
    reader.push(body.clone());
    let mut found = Vec::new();
    while let Ok(Some(event)) = reader.next() {
        if let matroska::Event::ClusterTimecode(timecode) = event {
            found.push(timecode);
        }
    }
    found
}

/// The answer for the given fragments as the layout of AWS's captured answers has it, built from the producer's file.
fn documents(header: &Bytes, clusters: &[Bytes], fragments: &[archived::Fragment], now: Timestamp) -> Bytes {
    let size_at = header.windows(4).position(|id| id == [0x18, 0x53, 0x80, 0x67]).unwrap() + 4;
    let size_length = header[size_at].leading_zeros() as usize + 1;
    let mut out = BytesMut::new();
    for (cluster, fragment) in clusters.iter().zip(fragments) {
        let number = fragment.fragment_number.as_deref().unwrap();
        let (server, producer) = (fragment.server_timestamp.unwrap(), fragment.producer_timestamp.unwrap());
        out.extend_from_slice(&header[..size_at]);
        out.extend_from_slice(&[0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        out.extend_from_slice(&header[size_at + size_length..]);
        out.extend_from_slice(&writer::fragment_tags(
            number,
            server.millis() as u64,
            producer.millis() as u64,
        ));
        out.extend_from_slice(cluster);
        let end = server.plus_millis(fragment.fragment_length_in_milliseconds.unwrap());
        out.extend_from_slice(&writer::continuation_tags(now.millis_since(end).max(0) as u64, number));
    }
    out.freeze()
}

/// Plays a body in and back, and compares all there is to compare.
async fn round_trip(service: &Service, name: &str, body: &Bytes, sizes: &[usize]) {
    service.create(name, 1).await;
    let acks = service.put(name, body, sizes).await;
    let mut parts = sections(body);
    let header = parts.remove(0);
    let mut wanted: Vec<_> = timecodes(body);
    wanted.truncate(parts.len());
    for kind in ["BUFFERING", "RECEIVED", "PERSISTED"] {
        let of_kind: Vec<_> = acks.iter().filter(|ack| ack.starts_with(kind)).cloned().collect();
        let all: Vec<_> = wanted.iter().map(|timecode| format!("{kind} {timecode}")).collect();
        assert_eq!(of_kind, all, "{name}");
    }
    assert_eq!(acks.len(), 3 * wanted.len(), "{name}: {acks:?}");
    let fragments = service.list(name).await;
    assert_eq!(fragments.len(), parts.len(), "{name}");
    for (fragment, part) in fragments.iter().zip(&parts) {
        assert_eq!(
            fragment.fragment_size_in_bytes.unwrap() as usize,
            header.len() + part.len(),
            "{name}"
        );
    }
    service.clock.advance(std::time::Duration::from_secs(60));
    let now = base::Clock::now(&*service.clock);
    let expected = documents(&header, &parts, &fragments, now);
    let mut answer = service
        .open_get(name, selector(StartSelectorType::Earliest))
        .await
        .unwrap();
    let got = read_exactly(&mut answer, expected.len()).await;
    assert!(got == expected, "{name}: GetMedia differs from what was put");
    let numbers = fragments
        .iter()
        .map(|fragment| fragment.fragment_number.clone().unwrap())
        .collect();
    assert!(
        list_media(service, name, numbers).await == expected,
        "{name}: GetMediaForFragmentList differs"
    );
}

async fn list_media(service: &Service, name: &str, fragments: Vec<String>) -> Bytes {
    let request = base::Request {
        context: common::context(),
        input: archived::GetMediaForFragmentListInput {
            fragments,
            stream_arn: None,
            stream_name: Some(name.to_owned()),
        },
        body: None,
    };
    let handled = base::Handle::<archived::op::GetMediaForFragmentList>::handle(&service.video, request).await;
    common::read_all(handled.unwrap().stream.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_producers_get_their_acks_and_their_bytes_back() {
    let service = Service::start().await;
    let files = data("putmedia")
        .into_iter()
        .filter(|(name, _)| !name.contains("aborted"));
    for (name, body) in files {
        round_trip(&service, &name, &body, &[1, 7, 65_524, 201, 30_000]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_general_muxers_are_taken_as_they_are() {
    let service = Service::start().await;
    for (name, body) in data("mkv") {
        // One document each, and clusters that no rule refuses.
        if ["bezos_vogels.mkv", "clusters.mkv", "vogels_330.mkv"].contains(&name.as_str()) {
            round_trip(&service, &name, &body, &[64 * 1024]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_was_cut_off_loses_its_last_fragment_alone() {
    let service = Service::start().await;
    let Some((name, body)) = data("putmedia").into_iter().find(|(name, _)| name.contains("aborted")) else {
        return;
    };
    service.create(&name, 1).await;
    let put = service.open_put(common::absolute(&name)).await.unwrap();
    put.send(&body).await;
    put.body
        .as_ref()
        .unwrap()
        .send(Err(base::StreamError::Disconnected))
        .await
        .unwrap();
    let acks = put.finish().await;
    let persisted: Vec<_> = acks.iter().filter(|ack| ack.starts_with("PERSISTED")).collect();
    assert_eq!(persisted, ["PERSISTED 1795347318338", "PERSISTED 1795347320338"]);
    assert_eq!(acks.last().unwrap(), "ERROR 4000 1795347322338");
    assert_eq!(service.list(&name).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_aws_played_in_again_keeps_its_first_document_and_refuses_the_second() {
    let service = Service::start().await;
    let Some((_, body)) = data("mkv").into_iter().find(|(name, _)| name == "output_get_media.mkv") else {
        return;
    };
    service.create("again", 1).await;
    let acks = service.put("again", &body, &[64 * 1024]).await;
    assert_eq!(acks, ["BUFFERING 0", "RECEIVED 0", "PERSISTED 0", "ERROR 4006"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_layout_is_that_of_aws_s_captured_answers() {
    // The capture's first document is taken apart and put together again by our own hand.
    let Some((_, body)) = data("mkv").into_iter().find(|(name, _)| name == "output_get_media.mkv") else {
        return;
    };
    let parts = sections(&body);
    let (header, cluster) = (&parts[0], &parts[1]);
    let number = "91343852333181432392682062607743920146159169392";
    let ours = video_streams::media::document::start(
        &header.slice(..916),
        number.parse().unwrap(),
        Timestamp::from_millis(1_511_852_109_126),
        Timestamp::from_millis(1_511_852_108_513),
    );
    assert!(ours == header, "the head of a document");
    let trailing = video_streams::media::document::trailing_tags(number.parse().unwrap(), 15_858);
    assert!(cluster.ends_with(&trailing), "the end of a document");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_names_what_is_missing_and_goes_on() {
    let service = Service::start().await;
    let Some((_, body)) = data("mkv").into_iter().find(|(name, _)| name == "clusters.mkv") else {
        return;
    };
    service.create("list", 1).await;
    service.put("list", &body, &[64 * 1024]).await;
    let first = service.list("list").await[0].fragment_number.clone().unwrap();
    let missing = "91343852333181432392682062607743920146159169392";
    let got = list_media(
        &service,
        "list",
        vec![missing.to_owned(), "12".to_owned(), first.clone()],
    )
    .await;
    let text = |needle: &str| {
        got.windows(needle.len())
            .filter(|window| *window == needle.as_bytes())
            .count()
    };
    assert_eq!(text("AWS_KINESISVIDEO_ERROR_ID"), 2);
    assert_eq!(text("AWS_KINESISVIDEO_SERVER_TIMESTAMP"), 1);
    assert_eq!(text(missing), 1);
    assert!(text(&first) == 2, "number and continuation token");
    assert_eq!(sections(&got).len(), 4, "three documents, one of them with a cluster");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn chunks_of_any_size_give_the_same_fragments(sizes in prop::collection::vec(1..100_000_usize, 1..8)) {
        let Some((name, body)) = data("mkv").into_iter().find(|(name, _)| name == "clusters.mkv") else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let service = Service::start().await;
            round_trip(&service, &name, &body, &sizes).await;
        });
    }
}
