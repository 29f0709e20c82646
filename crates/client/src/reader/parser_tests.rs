use bytes::BufMut;
use matroska::writer;

use super::*;
use crate::reader::{Counts, FragmentVisitor, Merge, MergeOptions};

const NUMBER: &str = "91343852333181432392682062607743920146159169392";

/// A document as a service returns it, with a producer's own tag.
fn document(number: &str, timecode: u64, whole: bool) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&writer::header(&writer::StreamInfo::default(), &[]));
    out.put_slice(&writer::fragment_tags(
        number,
        1_511_852_109_126,
        1_511_852_108_513 + timecode,
    ));
    writer::put_cluster_head(&mut out, timecode);
    for (time, key) in [(0_i16, true), (40, false)] {
        writer::put_simple_block_head(&mut out, 1, time, key, 5);
        out.put_slice(b"frame");
    }
    out.put_slice(&writer::tags(&[
        ("PLACE", "gate"),
        ("AWS_KINESISVIDEO_END_OF_FRAGMENT", ""),
    ]));
    if whole {
        out.put_slice(&writer::continuation_tags(15858, number));
    }
    out.freeze()
}

fn events(input: &[u8], chunk: usize) -> Vec<FragmentEvent> {
    let mut parser = FragmentParser::default();
    let mut events = Vec::new();
    for chunk in input.chunks(chunk) {
        parser.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = parser.next().unwrap() {
            events.push(event);
        }
    }
    parser.finish();
    while let Some(event) = parser.next().unwrap() {
        events.push(event);
    }
    events.extend(parser.end());
    events
}

#[test]
fn a_fragment_is_the_same_however_the_network_cuts_it() {
    let next = NUMBER.replace("91343852333181432392", "91343852333181432393");
    let input = [document(NUMBER, 0, true), document(&next, 2000, false)].concat();
    for chunk in [1, 3, 64, 10_000] {
        let mut assembler = FragmentAssembler::default();
        let all = events(&input, chunk);
        let bytes: Vec<u8> = all
            .iter()
            .filter_map(|event| match event {
                FragmentEvent::Data { bytes, .. } => Some(bytes.to_vec()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(bytes, input);
        let fragments: Vec<Fragment> = all
            .into_iter()
            .filter_map(|event| assembler.take(event))
            .map(Result::unwrap)
            .collect();
        let [first, second] = fragments.as_slice() else {
            panic!("{} fragments", fragments.len())
        };
        assert_eq!(first.number().unwrap().as_str(), NUMBER);
        assert_eq!(
            first.start.server_timestamp,
            Some(Timestamp::from_millis(1_511_852_109_126))
        );
        assert_eq!(first.end.millis_behind_now, Some(15858));
        assert_eq!(first.end.continuation_token.as_ref(), first.number());
        assert_eq!((first.is_complete(), second.is_complete()), (true, false));
        assert_eq!(first.frames.len(), 2);
        assert_eq!(
            (first.frames[1].data.as_ref(), first.frames[1].time, first.frames[0].key),
            (b"frame".as_slice(), 40, true)
        );
        assert_eq!(
            first.time_of(&first.frames[1]),
            Some(Timestamp::from_millis(1_511_852_108_553))
        );
        let tags: Vec<&str> = first.tags.iter().map(|tag| tag.name.as_str()).collect();
        assert_eq!(tags, ["PLACE"]);
        assert!(first.body().starts_with(&[0x1F, 0x43, 0xB6, 0x75]));
        assert_eq!(first.document.concat(), document(NUMBER, 0, true));
    }
}

#[test]
fn a_fragment_that_cannot_be_returned_is_an_error_in_its_place() {
    let mut input = BytesMut::new();
    input.put_slice(writer::EBML_HEADER);
    input.put_slice(writer::SEGMENT_HEAD_UNKNOWN_SIZE);
    input.put_slice(&writer::error_tags(NUMBER, "FRAGMENT_NOT_FOUND", 4000));
    input.put_slice(&document(NUMBER, 0, true));
    let mut counts = Counts::default();
    let mut current = None;
    for event in events(&input, 1000) {
        assert!(event.visit(&mut current, &mut counts).is_continue());
    }
    assert_eq!(
        (counts.failed, counts.complete, counts.frames[&1], counts.tags),
        (1, 1, 2, 1)
    );
}

#[test]
fn a_pair_of_visitors_sees_everything_twice_and_either_may_break_off() {
    struct Stop;
    impl FragmentVisitor for Stop {
        fn frame(&mut self, _: &FragmentStart, _: &Frame) -> std::ops::ControlFlow<()> {
            std::ops::ControlFlow::Break(())
        }
    }
    let mut pair = (Counts::default(), Stop);
    let mut assembler = FragmentAssembler::default();
    let fragment = events(&document(NUMBER, 0, true), 99)
        .into_iter()
        .find_map(|event| assembler.take(event))
        .unwrap()
        .unwrap();
    assert!(fragment.visit(&mut pair).is_break());
    assert_eq!((pair.0.frames[&1], pair.0.tags), (1, 0));
}

/// An element's id, and where its data lies.
fn element(bytes: &[u8], at: usize) -> (u64, std::ops::Range<usize>) {
    let id_len = bytes[at].leading_zeros() as usize + 1;
    let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0_u64, |n, byte| (n << 8) | u64::from(*byte));
    let size_len = bytes[at + id_len].leading_zeros() as usize + 1;
    let data = at + id_len + size_len;
    let size = number(at + id_len..data) & ((1 << (7 * size_len)) - 1);
    (number(at..at + id_len), data..data + usize::try_from(size).unwrap())
}

fn children(bytes: &[u8], within: std::ops::Range<usize>) -> Vec<(u64, std::ops::Range<usize>)> {
    let mut at = within.start;
    let mut found = Vec::new();
    while at < within.end {
        let (id, data) = element(bytes, at);
        at = data.end;
        found.push((id, data));
    }
    assert_eq!(at, within.end);
    found
}

fn value(bytes: &[u8], within: std::ops::Range<usize>) -> u64 {
    bytes[within].iter().fold(0, |n, byte| (n << 8) | u64::from(*byte))
}

/// The SeekHead leads to Info, Tracks and Cues, and the Cues to clusters of these times.
fn assert_seek_index(file: &[u8], cues_at: usize, times: &[u64]) {
    let (_, header) = element(file, 0);
    let (id, segment) = element(file, header.end);
    assert_eq!(
        (id, segment.end),
        (0x1853_8067, file.len()),
        "the Segment ends with the file"
    );
    let (id, seek_head) = element(file, segment.start);
    assert_eq!(id, 0x114D_9B74);
    for (_, seek) in children(file, seek_head) {
        let parts = children(file, seek);
        let target = segment.start + usize::try_from(value(file, parts[1].1.clone())).unwrap();
        assert_eq!(element(file, target).0, value(file, parts[0].1.clone()));
    }
    let (id, cues) = element(file, cues_at);
    assert_eq!(id, 0x1C53_BB6B);
    let mut found = Vec::new();
    for (_, point) in children(file, cues) {
        let parts = children(file, point);
        let time = value(file, parts[0].1.clone());
        let place = children(file, parts[1].1.clone());
        assert_eq!(value(file, place[0].1.clone()), 1, "the track");
        let (id, cluster) = element(
            file,
            segment.start + usize::try_from(value(file, place[1].1.clone())).unwrap(),
        );
        assert_eq!(id, 0x1F43_B675);
        assert_eq!(value(file, children(file, cluster)[0].1.clone()), time);
        found.push(time);
    }
    assert_eq!(found, times);
}

#[test]
fn merged_fragments_run_on_the_producers_clock_from_zero() {
    let mut assembler = FragmentAssembler::default();
    // The second recording began at zero again, five seconds after the first by the producer's clock; then it goes back.
    let mut second = document(NUMBER, 0, true).to_vec();
    let at = second.windows(14).position(|w| w == b"1511852108.513").unwrap();
    second[at..at + 14].copy_from_slice(b"1511852113.513");
    let input = [
        document(NUMBER, 0, true).as_ref(),
        &second,
        document(NUMBER, 2000, true).as_ref(),
    ]
    .concat();
    let fragments: Vec<Fragment> = events(&input, 4096)
        .into_iter()
        .filter_map(|e| assembler.take(e))
        .map(Result::unwrap)
        .collect();
    let mut merge = Merge::new(MergeOptions::default());
    let mut file: Vec<u8> = fragments.iter().flat_map(|f| merge.push(f).unwrap().concat()).collect();
    let ending = merge.finish().unwrap();
    let cues_at = file.len();
    file.extend_from_slice(&ending.tail);
    for patch in &ending.patches {
        let at = usize::try_from(patch.offset).unwrap();
        file[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    assert_seek_index(&file, cues_at, &[0, 5000, 5080]);
    let mut reader = Reader::new(Limits::default());
    reader.push(Bytes::from(file));
    reader.finish();
    let (mut documents, mut times, mut duration) = (0, Vec::new(), None);
    while let Some(event) = reader.next().unwrap() {
        match event {
            Event::DocumentStart { .. } => documents += 1,
            Event::Info(info) => duration = info.duration,
            Event::BlockEnd(block) => times.push(block.time),
            _ => {}
        }
    }
    assert_eq!((documents, duration), (1, Some(5160.0)));
    assert_eq!(times, [0, 40, 5000, 5040, 5080, 5120]);
}

/// A fragment whose sound runs ahead of its pictures, as encoders that reorder pictures send it.
fn with_sound_ahead(producer_ms: u64) -> Fragment {
    let track = |number, kind, codec_id: &str| matroska::Track {
        number,
        uid: number,
        kind,
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::new(),
        name: String::new(),
        language: "und".to_owned(),
        default_duration_ns: None,
        encoded: false,
        video: None,
        audio: None,
    };
    let tracks = [
        track(1, matroska::TrackKind::Video, "V_MPEG4/ISO/AVC"),
        track(2, matroska::TrackKind::Audio, "A_AAC"),
    ];
    let mut out = BytesMut::new();
    out.put_slice(&writer::header(&writer::StreamInfo::default(), &tracks));
    out.put_slice(&writer::fragment_tags(NUMBER, producer_ms, producer_ms));
    writer::put_cluster_head(&mut out, 1000);
    for (number, time, key) in [
        (2, -20_i16, false),
        (1, 0, true),
        (2, 30, false),
        (1, 40, false),
        (2, 130, false),
    ] {
        writer::put_simple_block_head(&mut out, number, time, key, 5);
        out.put_slice(b"frame");
    }
    out.put_slice(&writer::continuation_tags(0, NUMBER));
    let mut assembler = FragmentAssembler::default();
    let mut found = events(&out, 4096).into_iter().filter_map(|event| assembler.take(event));
    found.next().unwrap().unwrap()
}

#[test]
fn sound_that_runs_ahead_and_jitter_do_not_stretch_a_film() {
    let times = |close_gaps, producers: &[u64]| {
        let mut merge = Merge::new(MergeOptions { close_gaps });
        let fragments: Vec<Fragment> = producers.iter().map(|ms| with_sound_ahead(*ms)).collect();
        let file: Vec<u8> = fragments.iter().flat_map(|f| merge.push(f).unwrap().concat()).collect();
        let mut reader = Reader::new(Limits::default());
        reader.push(Bytes::from(file));
        reader.finish();
        let mut pictures = Vec::new();
        while let Some(event) = reader.next().unwrap() {
            match event {
                Event::BlockEnd(block) if block.track == 1 && block.key => pictures.push(block.time),
                Event::BlockEnd(block) => assert!(block.time >= 0, "nothing begins before the film"),
                _ => {}
            }
        }
        pictures
    };
    // The third comes 5 ms early, the fourth 10 ms late, the last after a second without any.
    let producers = [10_000, 10_080, 10_155, 10_250, 11_330];
    assert_eq!(times(false, &producers), [20, 100, 175, 270, 1350]);
    assert_eq!(times(true, &producers), [20, 100, 175, 270, 350]);
    assert_eq!(
        times(true, &[10_000, 5000, 5080]),
        [20, 100, 180],
        "a clock that was set back"
    );
}
