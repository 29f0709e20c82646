//! GetImages with a decoder that gives back the bytes it was asked for, so that what is cut out of storage can be seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use base::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::testing::Body;
use common::{STRANGER, Service, context_of};
use parking_lot::Mutex;
use video_streams::ports::{NotDecodable, Ports, StillFormat, StillSize, Stills, StillsError, StillsJob};
use wire::kinesisvideo_archived_media::{Format, GetImagesInput, Image, ImageError, ImageSelectorType, op};

/// Gives back each wanted frame's bytes; frames that say "bad" cannot be decoded.
#[derive(Default)]
struct Echo {
    jobs: Mutex<Vec<StillsJob>>,
}

#[async_trait]
impl Stills for Echo {
    async fn make(&self, job: StillsJob) -> Result<Vec<Result<Bytes, NotDecodable>>, StillsError> {
        assert!(job.packets[0].fresh, "a job begins with a key frame");
        let wanted = job.packets.iter().filter(|packet| packet.wanted);
        let answer = |data: &Bytes| {
            if data.starts_with(b"bad") {
                Err(NotDecodable)
            } else {
                Ok(data.clone())
            }
        };
        let answers = wanted.map(|packet| answer(&packet.data)).collect();
        self.jobs.lock().push(job);
        Ok(answers)
    }
}

async fn service() -> (Service, Arc<Echo>) {
    let echo = Arc::new(Echo::default());
    let ports = Ports {
        stills: echo.clone(),
        ..Ports::default()
    };
    (Service::with_ports(ports).await, echo)
}

fn input(name: &str, from: i64, to: i64, interval: i32) -> GetImagesInput {
    GetImagesInput {
        end_timestamp: Timestamp::from_millis(to),
        format: Format::Jpeg,
        format_config: None,
        height_pixels: None,
        image_selector_type: ImageSelectorType::ProducerTimestamp,
        max_results: None,
        next_token: None,
        sampling_interval: Some(interval),
        start_timestamp: Timestamp::from_millis(from),
        stream_arn: None,
        stream_name: Some(name.to_owned()),
        width_pixels: None,
    }
}

fn show(images: &[Image]) -> Vec<String> {
    let one = |image: &Image| {
        let at = image.time_stamp.unwrap().millis();
        match (&image.image_content, &image.error) {
            (Some(text), None) => format!("{at} {}", String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()),
            (None, Some(error)) => format!("{at} {error}"),
            other => panic!("{other:?}"),
        }
    };
    images.iter().map(one).collect()
}

async fn images(service: &Service, input: GetImagesInput) -> Vec<String> {
    show(&service.call::<op::GetImages>(input).await.unwrap().images.unwrap())
}

/// Fragments of 1 s at 10 frames a second, from 10 s to 12 s and from 14 s to 15 s.
fn body() -> Bytes {
    let mut body = Body::new(&[1]);
    for start in [10_000, 11_000, 14_000] {
        body = body.cluster(start);
        for time in (0..1000).step_by(100) {
            body = body.frame(1, time);
        }
        body = body.end_of_fragment();
    }
    body.bytes()
}

#[tokio::test]
async fn each_point_has_the_first_frame_of_its_interval_or_says_that_there_is_none() {
    let (service, echo) = service().await;
    service.create("cam", 1).await;
    service.put("cam", &body(), &[1000]).await;
    let got = images(&service, input("cam", 9_450, 15_250, 500)).await;
    let expected = [
        "9450 NO_MEDIA",
        "9950 frame 1 0",
        "10450 frame 1 500",
        "10950 frame 1 0",
        "11450 frame 1 500",
        "11950 NO_MEDIA",
        "12450 NO_MEDIA",
        "12950 NO_MEDIA",
        "13450 NO_MEDIA",
        "13950 frame 1 0",
        "14450 frame 1 500",
        "14950 NO_MEDIA",
    ];
    assert_eq!(got, expected);
    // From the key frame to the wanted frame, and nothing beyond.
    let counts: Vec<usize> = echo.jobs.lock().iter().map(|job| job.packets.len()).collect();
    assert_eq!(counts, [6, 6, 6]);
    let job = echo.jobs.lock()[0].clone();
    assert_eq!((job.format, job.size), (StillFormat::Jpeg(80), StillSize::default()));
}

#[tokio::test]
async fn pages_hold_at_most_25_images_and_go_on_where_they_ended() {
    let (service, _) = service().await;
    service.create("cam", 1).await;
    service.put("cam", &body(), &[1000]).await;
    let whole = 29;
    for (most, pages) in [
        (None, vec![25, 4]),
        (Some(100), vec![25, 4]),
        (Some(10), vec![10, 10, 9]),
        (Some(1), vec![1; whole]),
    ] {
        let mut request = GetImagesInput {
            max_results: most,
            ..input("cam", 10_000, 15_600, 200)
        };
        let (mut counts, mut all) = (Vec::new(), Vec::new());
        loop {
            let page = service.call::<op::GetImages>(request.clone()).await.unwrap();
            counts.push(page.images.as_ref().unwrap().len());
            all.extend(show(page.images.as_ref().unwrap()));
            match page.next_token {
                Some(token) => request.next_token = Some(token),
                None => break,
            }
        }
        assert_eq!(counts, pages, "{most:?}");
        let expected: Vec<String> = (0..whole)
            .map(|i| 10_000 + 200 * i as i64)
            .map(|at| match at {
                12_000..14_000 | 15_000.. => format!("{at} NO_MEDIA"),
                _ => format!("{at} frame 1 {}", at % 1000),
            })
            .collect();
        assert_eq!(all, expected);
    }
}

#[tokio::test]
async fn frames_that_are_decoded_in_another_order_than_shown_come_in_the_order_of_time() {
    let (service, echo) = service().await;
    service.create("cam", 1).await;
    let body = [0, 400, 200, 800, 600]
        .into_iter()
        .fold(Body::new(&[1]).cluster(10_000), |body, time| body.frame(1, time));
    service.put("cam", &body.end_of_fragment().bytes(), &[1000]).await;
    let got = images(&service, input("cam", 10_000, 10_800, 200)).await;
    let expected: Vec<String> = [0, 200, 400, 600, 800]
        .iter()
        .map(|time| format!("{} frame 1 {time}", 10_000 + time))
        .collect();
    assert_eq!(got, expected);
    assert_eq!(echo.jobs.lock().len(), 1);
}

#[tokio::test]
async fn frames_shown_before_the_key_frame_that_begins_their_fragment_are_found_and_decoded_from_the_one_before() {
    let (service, echo) = service().await;
    service.create("cam", 1).await;
    let body = Body::new(&[1])
        .cluster(10_000)
        .frame(1, 0)
        .frame(1, 200)
        .frame(1, 400)
        .end_of_fragment();
    let body = body
        .cluster(11_000)
        .frame(1, 0)
        .frame(1, -400)
        .frame(1, -200)
        .frame(1, 200)
        .end_of_fragment();
    service.put("cam", &body.bytes(), &[1000]).await;
    let got = images(&service, input("cam", 10_400, 11_200, 200)).await;
    let expected = [
        "10400 frame 1 400",
        "10600 frame 1 -400",
        "10800 frame 1 -200",
        "11000 frame 1 0",
        "11200 frame 1 200",
    ];
    assert_eq!(got, expected);
    // All of the second fragment from the key frame of the first on.
    assert_eq!(
        echo.jobs.lock().iter().map(|job| job.packets.len()).collect::<Vec<_>>(),
        [3, 7]
    );
}

#[tokio::test]
async fn a_fragment_without_a_key_frame_is_decoded_from_the_one_before() {
    let (service, echo) = service().await;
    service.create("cam", 1).await;
    let body = Body::new(&[1])
        .cluster(10_000)
        .frame(1, 0)
        .frame(1, 500)
        .cluster(11_000)
        .frame(1, 20)
        .frame(1, 520)
        .bytes();
    service.put("cam", &body, &[1000]).await;
    assert_eq!(
        images(&service, input("cam", 11_500, 11_500, 500)).await,
        ["11500 frame 1 520"]
    );
    assert_eq!(echo.jobs.lock()[0].packets.len(), 4);
    // A stream that begins without a key frame has no picture there.
    service.create("cut", 1).await;
    let body = Body::new(&[1])
        .cluster(10_000)
        .frame(1, 20)
        .frame(1, 520)
        .cluster(11_000)
        .frame(1, 0)
        .bytes();
    service.put("cut", &body, &[1000]).await;
    let got = images(&service, input("cut", 10_000, 11_000, 1000)).await;
    assert_eq!(got, ["10000 MEDIA_ERROR", "11000 frame 1 0"]);
}

#[tokio::test]
async fn media_without_decodable_video_and_frames_that_cannot_be_decoded_are_media_errors() {
    let (service, _) = service().await;
    service.create("cam", 1).await;
    // A hole in a fragment: no frame within the interval, though there is media.
    let body = Body::new(&[1])
        .cluster(10_000)
        .frame(1, 0)
        .frame(1, 3000)
        .end_of_fragment();
    let mut body = body.cluster(14_000);
    let payload = b"bad";
    matroska::writer::put_simple_block_head(&mut body.0, 1, 0, true, payload.len());
    body.0.extend_from_slice(payload);
    let body = body.end_of_fragment().bytes();
    service.put("cam", &body, &[1000]).await;
    let got = images(&service, input("cam", 10_000, 14_000, 1000)).await;
    let expected = [
        "10000 frame 1 0",
        "11000 NO_MEDIA",
        "12000 NO_MEDIA",
        "13000 frame 1 3000",
        "14000 MEDIA_ERROR",
    ];
    assert_eq!(got, expected);
    let mut audio = common::testing::track(1);
    audio.kind = matroska::TrackKind::Audio;
    audio.codec_id = "A_AAC".to_owned();
    audio.video = None;
    let header = matroska::writer::header(&matroska::writer::StreamInfo::default(), &[audio]);
    let body = Body(header[..].into())
        .cluster(10_000)
        .frame(1, 0)
        .frame(1, 900)
        .end_of_fragment()
        .bytes();
    service.create("radio", 1).await;
    service.put("radio", &body, &[1000]).await;
    assert_eq!(
        images(&service, input("radio", 10_000, 10_000, 500)).await,
        ["10000 MEDIA_ERROR"]
    );
}

#[tokio::test]
async fn what_cannot_be_answered_is_a_declared_error() {
    let (service, _) = service().await;
    service.create("cam", 1).await;
    service.create("live", 0).await;
    let code = async |context, input| {
        service
            .call_as::<op::GetImages>(context, input)
            .await
            .unwrap_err()
            .code
            .into_owned()
    };
    let own = common::context;
    assert_eq!(
        code(own(), input("nowhere", 0, 0, 200)).await,
        "ResourceNotFoundException"
    );
    assert_eq!(
        code(context_of(STRANGER), input("cam", 0, 0, 200)).await,
        "ResourceNotFoundException"
    );
    assert_eq!(code(own(), input("live", 0, 0, 200)).await, "NoDataRetentionException");
    assert_eq!(
        code(own(), input("cam", 0, 300_001, 200)).await,
        "InvalidArgumentException"
    );
    assert_eq!(code(own(), input("cam", 0, 0, 199)).await, "InvalidArgumentException");
    // Nothing stored: points without media, no error.
    assert_eq!(
        images(&service, input("cam", 0, 400, 200)).await,
        ["0 NO_MEDIA", "200 NO_MEDIA", "400 NO_MEDIA"]
    );
}

struct Refusing(StillsError);

#[async_trait]
impl Stills for Refusing {
    async fn make(&self, _: StillsJob) -> Result<Vec<Result<Bytes, NotDecodable>>, StillsError> {
        Err(self.0.clone())
    }
}

#[tokio::test]
async fn a_server_that_cannot_decode_says_so() {
    for (error, code) in [
        (None, "InvalidArgumentException"),
        (Some(StillsError::Busy), "ClientLimitExceededException"),
        (Some(StillsError::Failed("it died".to_owned())), "MEDIA_ERROR"),
    ] {
        let ports = error.map_or_else(Ports::default, |error| Ports {
            stills: Arc::new(Refusing(error)),
            ..Ports::default()
        });
        let service = Service::with_ports(ports).await;
        service.create("cam", 1).await;
        service.put("cam", &body(), &[1000]).await;
        match service.call::<op::GetImages>(input("cam", 10_000, 10_000, 500)).await {
            Err(refused) => assert_eq!(refused.code, code, "{refused}"),
            Ok(answer) => assert_eq!(answer.images.unwrap()[0].error, Some(ImageError::MediaError), "{code}"),
        }
    }
}
