use matroska::{Limits, Reader};
use proptest::prelude::*;

use super::*;
use crate::testing::Body;

/// What the machine makes of a body, in words: fragments with their bytes, then how it ended.
fn judge(body: &Bytes, timecodes: Timecodes, limits: RuleLimits, sizes: &[usize]) -> (Vec<String>, Vec<Bytes>) {
    let mut reader = Reader::new(Limits::default());
    let mut rules = Rules::new(timecodes, limits);
    let mut told = Vec::new();
    let mut stored: Vec<BytesMut> = Vec::new();
    let mut rest = body.clone();
    let mut sizes = sizes.iter().copied().cycle();
    let mut on = |step: Option<Step>| match step {
        Some(Step::Begin(begin)) => {
            told.push(format!("begin {} at {}", begin.timecode, begin.producer_timestamp));
            let mut bytes = BytesMut::from(&begin.header[..]);
            begin.first.iter().for_each(|first| bytes.extend_from_slice(first));
            stored.push(bytes);
        }
        Some(Step::Media(bytes)) => stored.last_mut().unwrap().extend_from_slice(&bytes),
        Some(Step::Complete(whole)) => {
            let keys = whole.frames.iter().filter(|frame| frame.key).count();
            told.push(format!(
                "complete {} ms, {} frames, {keys} key",
                whole.length_ms,
                whole.frames.len()
            ));
        }
        None => {}
    };
    let outcome = (|| {
        loop {
            while let Some(event) = reader.next().map_err(|_| AckError::InvalidMkv)? {
                on(rules.on(event)?);
            }
            if rest.is_empty() {
                break;
            }
            let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            reader.push(rest.split_to(size));
        }
        reader.finish();
        while let Some(event) = reader.next().map_err(|_| AckError::InvalidMkv)? {
            on(rules.on(event)?);
        }
        on(rules.finish()?);
        Ok(())
    })();
    match outcome {
        Ok(()) => told.push("end".to_owned()),
        Err(error) => told.push(format!("error {}", AckError::id(error))),
    }
    (told, stored.into_iter().map(BytesMut::freeze).collect())
}

fn told(body: Body) -> Vec<String> {
    judge(&body.bytes(), Timecodes::Absolute, RuleLimits::default(), &[usize::MAX]).0
}

#[test]
fn everything_up_to_the_next_cluster_belongs_to_a_fragment_and_comes_back_verbatim() {
    let header = Body::new(&[1]).bytes();
    let first = Body(BytesMut::new())
        .cluster(1000)
        .frame(1, 0)
        .frame(1, 40)
        .tag("camera", "door")
        .bytes();
    let second = Body(BytesMut::new()).cluster(2000).frame(1, 0).bytes();
    let body = Body::new(&[1]).raw(&first).raw(&second).bytes();
    let (told, stored) = judge(&body, Timecodes::Absolute, RuleLimits::default(), &[usize::MAX]);
    let wanted = [
        "begin 1000 at 1.000",
        "complete 80 ms, 2 frames, 1 key",
        "begin 2000 at 2.000",
        "complete 0 ms, 1 frames, 1 key",
        "end",
    ];
    assert_eq!(told, wanted);
    assert_eq!(
        stored,
        [[&header[..], &first].concat(), [&header[..], &second].concat()]
    );
}

#[test]
fn an_end_of_fragment_tag_completes_at_once_and_what_follows_it_is_kept_for_the_next_fragment() {
    let stray = writer_void();
    let body = Body::new(&[1]).cluster(0).frame(1, 0).end_of_fragment();
    let open = judge(
        &body.0.clone().freeze(),
        Timecodes::Absolute,
        RuleLimits::default(),
        &[usize::MAX],
    )
    .0;
    assert_eq!(
        open,
        ["begin 0 at 0.000", "complete 0 ms, 1 frames, 1 key", "end"],
        "no next cluster was needed"
    );
    let body = body.raw(&stray).cluster(500).frame(1, 0).bytes();
    let (told, stored) = judge(&body, Timecodes::Absolute, RuleLimits::default(), &[usize::MAX]);
    assert_eq!(
        told[2..],
        ["begin 500 at 0.500", "complete 0 ms, 1 frames, 1 key", "end"]
    );
    let header = Body::new(&[1]).bytes();
    assert!(
        stored[1].starts_with(&[&header[..], &stray].concat()),
        "no byte of the producer is lost"
    );
}

fn writer_void() -> Vec<u8> {
    vec![0xEC, 0x83, 1, 2, 3]
}

#[test]
fn relative_timecodes_count_from_the_producer_s_start() {
    let body = Body::new(&[1]).cluster(2500).frame(1, 0).bytes();
    let start = Timestamp::from_millis(1_795_347_223_436);
    let (told, _) = judge(&body, Timecodes::Relative(start), RuleLimits::default(), &[usize::MAX]);
    assert_eq!(told[0], "begin 2500 at 1795347225.936");
}

#[test]
fn every_rule_has_its_error() {
    let f = |body: Body| told(body).pop().unwrap();
    assert_eq!(f(Body::new(&[1]).cluster(5).frame(1, 0).frame(1, 20_000)), "end");
    assert_eq!(f(Body::new(&[1]).cluster(5).frame(1, 0).frame(1, 20_001)), "error 4002");
    assert_eq!(
        f(Body::new(&[1]).cluster(5).frame(1, 0).cluster(4).frame(1, 0)),
        "error 4004"
    );
    assert_eq!(
        f(Body::new(&[1]).cluster(5).frame(1, 0).cluster(5).frame(1, 0)),
        "error 4004"
    );
    assert_eq!(f(Body::new(&[1]).raw(b"not an element")), "error 4006");
    assert_eq!(f(Body(BytesMut::from(&b"GIF89a, not Matroska"[..]))), "error 4006");
    assert_eq!(f(Body::new(&[1]).cluster(u64::MAX).frame(1, 0)), "error 4007");
    assert_eq!(f(Body::new(&[1]).cluster(5).frame(2, 0)), "error 4010");
    assert_eq!(f(Body::new(&[1, 2]).cluster(5).frame(1, 0)), "error 4011");
    assert_eq!(
        f(Body::new(&[1, 2]).cluster(5).frame(1, 0).cluster(6).frame(2, 0)),
        "error 4011"
    );
    assert_eq!(f(Body::new(&[1]).cluster(5)), "error 4011");
    assert_eq!(
        f(Body::new(&[1, 2, 3]).cluster(5).frame(1, 0).frame(2, 0).frame(3, 0)),
        "end"
    );
    assert_eq!(f(Body::new(&[1, 2, 3, 4]).cluster(5).frame(1, 0)), "error 4012");
    assert_eq!(f(Body::new(&[])), "error 4006", "no track");
    assert_eq!(
        f(Body::new(&[1])),
        "end",
        "a body without a cluster has nothing to refuse"
    );
}

#[test]
fn ten_tags_are_allowed_the_end_of_fragment_tag_among_them() {
    let tags = |count: usize| {
        let body = Body::new(&[1])
            .tag("of the header", "is not counted")
            .cluster(5)
            .frame(1, 0);
        (0..count)
            .fold(body, |body, n| body.tag(&format!("tag {n}"), "value"))
            .end_of_fragment()
    };
    assert_eq!(told(tags(9)).pop().unwrap(), "end");
    assert_eq!(told(tags(10)).pop().unwrap(), "error 4009");
    let one = |name: usize, value: usize| {
        told(
            Body::new(&[1])
                .cluster(5)
                .frame(1, 0)
                .tag(&"n".repeat(name), &"v".repeat(value)),
        )
        .pop()
        .unwrap()
    };
    assert_eq!(one(128, 256), "end");
    assert_eq!(one(129, 1), "error 4009");
    assert_eq!(one(1, 257), "error 4009");
}

#[test]
fn a_fragment_of_more_bytes_than_allowed_is_refused_before_it_is_whole() {
    let limits = RuleLimits {
        fragment_bytes: 1000,
        ..RuleLimits::default()
    };
    let run = |size: usize| {
        let body = Body::new(&[1]).cluster(5).big_frame(1, 0, size).bytes();
        judge(&body, Timecodes::Absolute, limits, &[100]).0.pop().unwrap()
    };
    assert_eq!(run(900), "end");
    assert_eq!(run(1000), "error 4001");
}

#[test]
fn a_second_document_completes_the_fragment_before_it_and_is_refused() {
    let body = Body::new(&[1])
        .cluster(5)
        .frame(1, 0)
        .raw(&Body::new(&[1]).bytes())
        .cluster(9)
        .frame(1, 0);
    assert_eq!(
        told(body),
        ["begin 5 at 0.005", "complete 0 ms, 1 frames, 1 key", "error 4006"]
    );
}

#[test]
fn a_body_that_ends_in_the_middle_of_a_frame_is_refused() {
    let mut body = Body::new(&[1]).cluster(5).frame(1, 0).frame(1, 40).bytes();
    body.truncate(body.len() - 3);
    let (told, _) = judge(&body, Timecodes::Absolute, RuleLimits::default(), &[usize::MAX]);
    assert_eq!(told, ["begin 5 at 0.005", "error 4006"]);
}

#[test]
fn the_length_of_a_fragment_ends_with_its_last_frame() {
    let mut track = crate::testing::track(1);
    track.default_duration_ns = Some(33_000_000);
    let header = matroska::writer::header(&matroska::writer::StreamInfo::default(), &[track]);
    let body = Body(BytesMut::from(&header[..])).cluster(0).frame(1, 0).frame(1, 40);
    assert_eq!(
        told(body)[1],
        "complete 73 ms, 2 frames, 1 key",
        "the track's default duration counts first"
    );
    let body = Body::new(&[1]).cluster(0).frame(1, 0).frame(1, 80).frame(1, 40);
    assert_eq!(
        told(body)[1],
        "complete 120 ms, 3 frames, 1 key",
        "else the mean distance; frames may be out of order"
    );
}

/// A body of some fragments, some of them wrong.
fn any_body() -> impl Strategy<Value = Bytes> {
    let fragment = (
        0..3000_u64,
        prop::collection::vec((1..=2_u64, 0..25_000_i16), 0..6),
        any::<bool>(),
        0..12_usize,
    );
    prop::collection::vec(fragment, 0..5).prop_map(|fragments| {
        let mut body = Body::new(&[1, 2]);
        let mut timecode = 0;
        for (step, frames, ends, tags) in fragments {
            timecode += step;
            body = body.cluster(timecode).frame(1, 0).frame(2, 0);
            body = frames
                .into_iter()
                .fold(body, |body, (track, time)| body.frame(track, time));
            body = (0..tags).fold(body, |body, n| body.tag(&n.to_string(), "x"));
            if ends {
                body = body.end_of_fragment();
            }
        }
        body.bytes()
    })
}

/// Rules of a stream with any tags.
fn any_limits() -> impl Strategy<Value = RuleLimits> {
    let backwards = prop::sample::select(vec![Backwards::Refuse, Backwards::Accept, Backwards::Continue]);
    let duration = limits::FRAGMENT_DURATION_MS_MIN..=limits::FRAGMENT_DURATION_MS_MAX;
    (duration, any::<bool>(), backwards).prop_map(|(fragment_duration_ms, allow_missing_tracks, backwards)| {
        RuleLimits {
            fragment_duration_ms,
            allow_missing_tracks,
            backwards,
            ..RuleLimits::default()
        }
    })
}

proptest! {
    #[test]
    fn however_a_body_is_cut_into_chunks_its_fragments_and_errors_are_the_same(
        body in any_body(), limits in any_limits(), sizes in prop::collection::vec(1..200_usize, 1..20)
    ) {
        let whole = judge(&body, Timecodes::Absolute, limits, &[usize::MAX]);
        let cut = judge(&body, Timecodes::Absolute, limits, &sizes);
        prop_assert_eq!(&whole.0, &cut.0);
        // Of a fragment that is refused, more or fewer bytes may have been handed on.
        let complete = whole.0.iter().filter(|line| line.starts_with("complete")).count();
        prop_assert_eq!(&whole.1[..complete], &cut.1[..complete]);
    }

    #[test]
    fn no_byte_of_a_broken_body_makes_the_machine_panic(
        body in any_body(), limits in any_limits(), at in any::<prop::sample::Index>(), value in any::<u8>(), size in 1..64_usize
    ) {
        let mut bytes = body.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let (told, _) = judge(&Bytes::from(bytes), Timecodes::Absolute, limits, &[size]);
        let last = told.last().unwrap();
        prop_assert!(last == "end" || last.starts_with("error 40"), "{last}");
    }
}

/// The machine after a body, how it ended, and which rules were relaxed for it.
fn relaxed(body: Body, limits: RuleLimits) -> (Rules, Result<Vec<Timestamp>, AckError>, Vec<Leniency>) {
    let mut reader = Reader::new(Limits::default());
    reader.push(body.bytes());
    reader.finish();
    let mut rules = Rules::new(Timecodes::Absolute, limits);
    let mut begun = Vec::new();
    let outcome = (|| {
        while let Some(event) = reader.next().map_err(|_| AckError::InvalidMkv)? {
            if let Some(Step::Begin(begin)) = rules.on(event)? {
                begun.push(begin.producer_timestamp);
            }
        }
        rules.finish().map(|_| begun)
    })();
    let leniencies = rules.take_leniencies();
    (rules, outcome, leniencies)
}

#[test]
fn a_stream_may_take_longer_fragments_than_aws_or_shorter_ones_only() {
    let lasting = |fragment_duration_ms, last| {
        let limits = RuleLimits {
            fragment_duration_ms,
            ..RuleLimits::default()
        };
        let (_, outcome, leniencies) = relaxed(Body::new(&[1]).cluster(5).frame(1, 0).frame(1, last), limits);
        (outcome.map(|_| ()), leniencies)
    };
    assert_eq!(lasting(60_000, 30_000), (Ok(()), vec![Leniency::FragmentDuration]));
    assert_eq!(lasting(60_000, 20_000), (Ok(()), vec![]), "as AWS would");
    assert_eq!(lasting(10_000, 10_000), (Ok(()), vec![]));
    assert_eq!(lasting(10_000, 10_001), (Err(AckError::FragmentDuration), vec![]));
}

#[test]
fn a_stream_may_take_fragments_that_lack_a_track_but_not_empty_ones() {
    let limits = RuleLimits {
        allow_missing_tracks: true,
        ..RuleLimits::default()
    };
    let body = || Body::new(&[1, 2]).cluster(5);
    let (_, outcome, leniencies) = relaxed(body().frame(2, 0).frame(2, 40), limits);
    assert!(outcome.is_ok());
    assert_eq!(leniencies, [Leniency::MissingTracks]);
    let (_, outcome, leniencies) = relaxed(body().frame(1, 0).frame(2, 40), limits);
    assert!(outcome.is_ok() && leniencies.is_empty());
    let (_, outcome, _) = relaxed(body(), limits);
    assert_eq!(outcome.err(), Some(AckError::FramesMissing));
    // The default duration of a track without frames does not make the fragment longer.
    let mut silent = crate::testing::track(2);
    silent.default_duration_ns = Some(5_000_000_000);
    let header = matroska::writer::header(
        &matroska::writer::StreamInfo::default(),
        &[crate::testing::track(1), silent],
    );
    let body = Body(BytesMut::from(&header[..])).cluster(0).frame(1, 0).frame(1, 40);
    let (told, _) = judge(&body.bytes(), Timecodes::Absolute, limits, &[usize::MAX]);
    assert_eq!(told[1], "complete 80 ms, 2 frames, 1 key");
}

#[test]
fn a_stream_may_take_timecodes_that_go_back_as_they_are_or_go_on_from_the_fragment_before() {
    let body = || {
        let whole = |body: Body, timecode| body.cluster(timecode).frame(1, 0).frame(1, 40);
        [1000, 1000, 500, 600].into_iter().fold(Body::new(&[1]), whole)
    };
    let begun = |backwards| {
        let limits = RuleLimits {
            backwards,
            ..RuleLimits::default()
        };
        let (_, outcome, leniencies) = relaxed(body(), limits);
        let begun = outcome.map(|begun| begun.iter().map(|at| at.millis()).collect::<Vec<_>>());
        (begun, leniencies)
    };
    let twice = vec![Leniency::Timecodes; 2];
    assert_eq!(begun(Backwards::Refuse), (Err(AckError::TimecodeNotGreater), vec![]));
    assert_eq!(
        begun(Backwards::Accept),
        (Ok(vec![1000, 1000, 500, 600]), twice.clone())
    );
    // Each fragment lasts 80 ms; the last keeps its distance to the one before.
    assert_eq!(begun(Backwards::Continue), (Ok(vec![1000, 1080, 1160, 1260]), twice));
}

#[test]
fn timecodes_that_go_back_never_lead_out_of_time() {
    let limits = RuleLimits {
        backwards: Backwards::Continue,
        ..RuleLimits::default()
    };
    let last = 253_402_300_799_999;
    let body = Body::new(&[1])
        .cluster(last)
        .frame(1, 0)
        .frame(1, 40)
        .cluster(5)
        .frame(1, 0);
    let (_, outcome, _) = relaxed(body, limits);
    assert_eq!(outcome.err(), Some(AckError::InvalidProducerTimestamp));
}

#[test]
fn a_report_says_what_was_measured_up_to_the_frame_that_was_refused() {
    let second = Body::new(&[1, 2])
        .cluster(1000)
        .frame(1, 0)
        .frame(2, 10)
        .frame(1, 5000)
        .cluster(11_000)
        .frame(1, 0)
        .frame(1, 10_000);
    let (rules, outcome, _) = relaxed(second.frame(1, 20_500), RuleLimits::default());
    assert_eq!(outcome.err(), Some(AckError::FragmentDuration));
    let report = rules.report();
    assert_eq!((report.span_ms, report.limit_ms), (20_500, 20_000));
    assert_eq!(
        (report.key_interval_ms, report.since_key_ms),
        (Some(10_000), Some(20_500))
    );
    assert_eq!(report.frames_per_second, Some(0.1));
    assert_eq!(report.timecodes, (Some(11_000), Some(1000)));
    let frames: Vec<_> = report.tracks.iter().map(|track| (track.number, track.frames)).collect();
    assert_eq!(frames, [(1, 2), (2, 0)]);
    let back = Body::new(&[1]).cluster(9).frame(1, 0).cluster(4).frame(1, 0);
    let (rules, _, _) = relaxed(back, RuleLimits::default());
    assert_eq!(rules.report().timecodes, (Some(4), Some(9)));
}

#[test]
fn what_a_header_lacks_is_found_in_the_first_frames_whatever_the_pieces() {
    let mut bare = crate::testing::track(1);
    bare.codec_private = Bytes::new();
    let header = matroska::writer::header(
        &matroska::writer::StreamInfo::default(),
        &[bare, crate::testing::track(2)],
    );
    let body = |frame: &[u8]| {
        let mut body = Body(BytesMut::from(&header[..]));
        for timecode in 0..5 {
            body = body.cluster(timecode).frame(2, 0);
            matroska::writer::put_simple_block_head(&mut body.0, 1, 0, true, frame.len());
            body = body.raw(frame);
        }
        body.bytes()
    };
    let found = |body: &Bytes, size: usize| {
        let mut reader = Reader::new(Limits::default());
        let mut rules = Rules::new(Timecodes::Absolute, RuleLimits::default());
        for piece in body.chunks(size) {
            reader.push(Bytes::copy_from_slice(piece));
            while let Some(event) = reader.next().unwrap() {
                rules.on(event).unwrap();
            }
        }
        rules.take_in_band()
    };
    let sets = body(&[0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 4]);
    let nothing = body(&[0, 0, 0, 1, 0x65, 1, 2]);
    for size in [1, 7, usize::MAX] {
        let [in_band] = &found(&sets, size)[..] else {
            panic!("one track lacks its codec private data")
        };
        assert_eq!(
            (in_band.track, in_band.source),
            (1, Some("the SPS and PPS in its first frame"))
        );
        let [in_band] = &found(&nothing, size)[..] else {
            panic!("said once, after three fragments")
        };
        assert_eq!((in_band.track, in_band.source), (1, None));
    }
}

#[test]
fn a_producer_s_words_cannot_break_a_log_line() {
    let mut track = crate::testing::track(1);
    track.codec_id = format!("V_\nERROR {}", "x".repeat(100));
    let header = matroska::writer::header(&matroska::writer::StreamInfo::default(), &[track]);
    let (rules, _, _) = relaxed(Body(BytesMut::from(&header[..])).cluster(5), RuleLimits::default());
    let codec_id = &rules.report().tracks[0].codec_id;
    assert!(codec_id.starts_with("V_?ERROR x") && codec_id.len() == 32, "{codec_id}");
}
