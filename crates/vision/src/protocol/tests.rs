//! Messages arrive as they were sent; anything else is refused.

use proptest::prelude::*;

use super::*;
use crate::film::ColorRange;
use crate::limits::{MAX_FACES, MAX_FILM_TIME_MS, MAX_STILL_BYTES};
use crate::objects::{DetectedObject, LabelAnalysis};
use crate::types::{BoundingBox, Face, FaceAttributes, FaceMesh, Landmarks, Point, Pose, Quality};

fn sent(message: &ToWorker) -> Bytes {
    let mut head = Vec::new();
    let tail = message.encode(&mut head).to_vec();
    head.extend_from_slice(&tail);
    let (prefix, body) = head.split_first_chunk::<4>().unwrap();
    assert_eq!(length(*prefix, MAX_TO_WORKER).unwrap(), body.len());
    Bytes::copy_from_slice(body)
}

fn answered(message: &FromWorker) -> Vec<u8> {
    let mut out = vec![7, 7];
    message.encode(&mut out);
    let (prefix, body) = out.split_at(2).1.split_first_chunk::<4>().unwrap();
    assert_eq!(length(*prefix, MAX_FROM_WORKER).unwrap(), body.len());
    body.to_vec()
}

fn any_box() -> impl Strategy<Value = BoundingBox> {
    [-1.0f32..2.0, -1.0f32..2.0, 0.0f32..2.0, 0.0f32..2.0].prop_map(|[left, top, width, height]| BoundingBox {
        left,
        top,
        width,
        height,
    })
}

fn any_attributes() -> impl Strategy<Value = FaceAttributes> {
    let numbers = proptest::collection::vec(-2.0f32..2.0, 61);
    (numbers, any::<bool>()).prop_map(|(n, meshed)| FaceAttributes {
        age: n[0],
        male: n[1],
        emotions: std::array::from_fn(|i| n[2 + i]),
        mesh: meshed.then(|| FaceMesh {
            points: std::array::from_fn(|i| Point {
                x: n[9 + 2 * i],
                y: n[10 + 2 * i],
            }),
            eyes_open: n[59],
            mouth_open: n[60],
        }),
    })
}

fn any_face() -> impl Strategy<Value = Face> {
    let numbers = proptest::collection::vec(-2.0f32..2.0, 20);
    let embedding = proptest::option::of(proptest::collection::vec(-1.0f32..1.0, 1..200));
    let attributes = proptest::option::of(any_attributes());
    let rest = (proptest::option::of(1u64..), any::<u32>(), attributes);
    (numbers, embedding, rest).prop_map(|(n, embedding, (track_id, revision, attributes))| {
        let point = |i: usize| Point { x: n[i], y: n[i + 1] };
        Face {
            bounding_box: BoundingBox {
                left: n[0],
                top: n[1],
                width: n[2],
                height: n[3],
            },
            confidence: n[4],
            landmarks: Landmarks {
                eye_left: point(5),
                eye_right: point(7),
                nose: point(9),
                mouth_left: point(11),
                mouth_right: point(13),
            },
            pose: Pose {
                pitch: n[15],
                roll: n[16],
                yaw: n[17],
            },
            quality: Quality {
                brightness: n[18],
                sharpness: n[19],
            },
            track_id,
            embedding_revision: revision,
            embedding,
            attributes: attributes.map(Box::new),
        }
    })
}

proptest! {
    #[test]
    fn a_frame_reaches_the_worker_as_it_was_sent(
        session: u32, id: u64, time_ms: i64, key: bool, silent: bool, data in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let message = ToWorker::Packet(Packet { session, id, time_ms, key, silent, data: data.into() });
        prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
    }

    #[test]
    fn a_session_reaches_the_worker_as_it_was_opened(
        session: u32, live: bool, key_frames_only: bool, track_faces: bool, detector_side: u16, orientation: u8, attributes: bool, max_rate in 0.1f32..60.0,
        private in proptest::collection::vec(any::<u8>(), 0..60)
    ) {
        let message = ToWorker::Open(OpenSession {
            session, codec: Codec::H265, live, key_frames_only, track_faces, detector_side, orientation, attributes, max_rate,
            codec_private: private.into(),
        });
        prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
    }

    #[test]
    fn faces_reach_the_server_as_they_were_found(
        session: u32, id: u64, time_ms: i64, width: u32, height: u32, faces in proptest::collection::vec(any_face(), 0..4)
    ) {
        let picture = ImageAnalysis { width, height, faces };
        let message = FromWorker::Analysed { session, id, time_ms, picture };
        prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
    }

    #[test]
    fn objects_reach_the_server_as_they_were_found(
        request: u32, width: u32, height: u32, found in proptest::collection::vec((0u8..80, any_box()), 0..100)
    ) {
        let object = |(class, bounding_box)| DetectedObject { class, confidence: 61.5, bounding_box };
        let objects = found.into_iter().map(object).collect();
        let message = FromWorker::Labels { request, result: Ok(LabelAnalysis { width, height, objects }) };
        prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        let message = FromWorker::Labels { request, result: Err(ImageError::TooLarge { width, height }) };
        prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        let message = ToWorker::Labels { request, max_pixels: width, data: Bytes::from_static(b"file") };
        prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
    }

    #[test]
    fn a_request_for_stills_and_its_answers_arrive(
        request: u32, number: u32, width: u32, height: u32, fresh: bool, wanted: bool, quality in 0u8..=100,
        bytes in proptest::collection::vec(any::<u8>(), 1..300)
    ) {
        let format = if quality == 0 { StillFormat::Png } else { StillFormat::Jpeg { quality } };
        let codec_private = Bytes::from(bytes.clone());
        let open = OpenStills { request, codec: Codec::H264, format, width, height, codec_private };
        let frame = StillFrame { request, number, fresh, wanted, data: bytes.clone().into() };
        for message in [ToWorker::Stills(open), ToWorker::StillPacket(frame), ToWorker::EndOfStills { request }] {
            prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
        }
        for result in [Ok(bytes.clone().into()), Err(StillError::Undecodable), Err(StillError::TooLarge)] {
            let message = FromWorker::Still { request, number, result };
            prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        }
        let message = FromWorker::StillsDone { request };
        prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
    }

    #[test]
    fn a_film_and_its_frames_arrive(
        size: u64, offset: u64, bytes: u32, time_ms in -MAX_FILM_TIME_MS..=MAX_FILM_TIME_MS, key: bool, shown: bool, width: u32, height: u32, rate in 0f32..240.0,
        duration_ms: u64, orientation in proptest::sample::select(vec![1u8, 3, 6, 8]), text in "[ -~]{0,40}", data in proptest::collection::vec(any::<u8>(), 1..300)
    ) {
        let data = Bytes::from(data);
        for message in [ToWorker::Film { size }, ToWorker::FilmBytes { data: data.clone() }] {
            prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
        }
        let info = |codec, color_range| FilmInfo {
            codec, color_range, codec_private: data.clone(), format: text.clone(), width, height, duration_ms,
            frame_rate: rate, orientation,
        };
        let frame = FilmFrame { time_ms, key, shown, data: data.clone() };
        let faults = [
            FilmFault::NotAFilm, FilmFault::NoVideo, FilmFault::Codec(text.clone()), FilmFault::Damaged, FilmFault::TooLarge,
        ];
        let mut messages = vec![
            FromWorker::FilmWants { offset, bytes },
            FromWorker::FilmOpened(info(Codec::H264, None)),
            FromWorker::FilmOpened(info(Codec::H265, Some(ColorRange::Limited))),
            FromWorker::FilmOpened(info(Codec::H265, Some(ColorRange::Full))),
            FromWorker::FilmFrame(frame),
            FromWorker::FilmEnd(Ok(())),
        ];
        messages.extend(faults.map(|fault| FromWorker::FilmEnd(Err(fault))));
        for message in messages {
            prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        }
    }

    #[test]
    fn a_look_at_frames_and_its_answers_arrive(
        request: u32, number: u32, area in any_box(), quality in 1u8..=100, private in proptest::collection::vec(any::<u8>(), 0..60),
        found in proptest::collection::vec((0u8..80, any_box()), 0..100)
    ) {
        for look in [FrameLook::Objects, FrameLook::Part { area, quality }] {
            let codec_private = private.clone().into();
            let message = ToWorker::Look(OpenLook { request, codec: Codec::H265, look, codec_private });
            prop_assert_eq!(ToWorker::decode(&sent(&message)), Ok(message));
        }
        let object = |(class, bounding_box)| DetectedObject { class, confidence: 61.5, bounding_box };
        let objects = found.into_iter().map(object).collect();
        let analysis = LabelAnalysis { width: 1280, height: 720, objects };
        for result in [Ok(analysis), Err(StillError::Undecodable), Err(StillError::TooLarge)] {
            let message = FromWorker::Objects { request, number, result };
            prop_assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = FromWorker::decode(&bytes);
        let _ = ToWorker::decode(&Bytes::from(bytes));
    }

    #[test]
    fn a_message_cut_short_is_refused(face in any_face(), cut in 1usize..100) {
        let picture = ImageAnalysis { width: 1, height: 1, faces: vec![face] };
        let body = answered(&FromWorker::Image { request: 1, result: Ok(picture) });
        let kept = body.len().saturating_sub(cut);
        prop_assert!(FromWorker::decode(&body[..kept]).is_err());
    }
}

#[test]
fn the_largest_answer_stays_within_the_bound() {
    let face = Face {
        embedding: Some(vec![0.5; MAX_EMBEDDING]),
        attributes: Some(Box::new(FaceAttributes {
            mesh: Some(FaceMesh {
                points: Default::default(),
                eyes_open: 1.0,
                mouth_open: 0.0,
            }),
            ..FaceAttributes::default()
        })),
        ..Face::default()
    };
    let picture = ImageAnalysis {
        width: 1,
        height: 1,
        faces: vec![face; MAX_FACES],
    };
    answered(&FromWorker::Analysed {
        session: 1,
        id: 1,
        time_ms: 1,
        picture,
    });
}

#[test]
fn every_image_error_and_reason_arrives() {
    let sizes = (10_000, 3);
    for error in [
        ImageError::NotAnImage,
        ImageError::UnsupportedFormat,
        ImageError::TooLarge {
            width: sizes.0,
            height: sizes.1,
        },
        ImageError::TooSmall {
            width: sizes.0,
            height: sizes.1,
        },
        ImageError::Busy,
        ImageError::Worker("out of memory".to_owned()),
    ] {
        let message = FromWorker::Image {
            request: 9,
            result: Err(error),
        };
        assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
    }
    for reason in SkipReason::ALL {
        let message = FromWorker::Skipped {
            session: 1,
            id: 2,
            reason,
        };
        assert_eq!(FromWorker::decode(&answered(&message)), Ok(message));
    }
}

#[test]
fn a_vector_of_a_compromised_worker_with_nan_is_refused() {
    let face = Face {
        embedding: Some(vec![f32::NAN]),
        ..Face::default()
    };
    let picture = ImageAnalysis {
        width: 1,
        height: 1,
        faces: vec![face],
    };
    let body = answered(&FromWorker::Image {
        request: 1,
        result: Ok(picture),
    });
    assert_eq!(FromWorker::decode(&body), Err(ProtocolError::BadValue(6)));
}

#[test]
fn a_film_of_a_compromised_worker_with_impossible_times_or_turns_is_refused() {
    for time_ms in [i64::MIN, i64::MAX, MAX_FILM_TIME_MS + 1] {
        let frame = FilmFrame {
            time_ms,
            key: true,
            shown: true,
            data: Bytes::from_static(b"frame"),
        };
        let message = FromWorker::FilmFrame(frame);
        assert_eq!(
            FromWorker::decode(&answered(&message)),
            Err(ProtocolError::BadValue(42))
        );
    }
    let info = FilmInfo {
        codec: Codec::H264,
        codec_private: Bytes::new(),
        format: String::new(),
        width: 1,
        height: 1,
        duration_ms: 1,
        frame_rate: 1.0,
        color_range: None,
        orientation: 2,
    };
    let message = FromWorker::FilmOpened(info);
    assert_eq!(
        FromWorker::decode(&answered(&message)),
        Err(ProtocolError::BadValue(41))
    );
}

#[test]
fn an_object_of_no_known_class_of_a_compromised_worker_is_refused() {
    let objects = vec![DetectedObject {
        class: 80,
        ..DetectedObject::default()
    }];
    let analysis = LabelAnalysis {
        width: 1,
        height: 1,
        objects,
    };
    let message = FromWorker::Labels {
        request: 1,
        result: Ok(analysis),
    };
    assert_eq!(FromWorker::decode(&answered(&message)), Err(ProtocolError::BadValue(9)));
}

#[test]
fn a_still_beyond_the_bound_of_a_compromised_worker_is_refused() {
    let of = |len: usize| FromWorker::Still {
        request: 1,
        number: 1,
        result: Ok(vec![7; len].into()),
    };
    let mut out = Vec::new();
    of(MAX_STILL_BYTES + 1).encode(&mut out);
    assert_eq!(FromWorker::decode(&out[4..]), Err(ProtocolError::BadValue(7)));
    answered(&of(MAX_STILL_BYTES));
}
