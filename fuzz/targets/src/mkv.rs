//! The Matroska reader, the merger and the codec helpers.

use bytes::{Bytes, BytesMut};
use matroska::codec::{
    AudioSpecificConfig, AvcConfig, HevcConfig, NalCodec, NalFraming, h264_picture_size, h265_picture_size,
};
use matroska::merge::{Merger, Options};
use matroska::{ErrorKind, Event, Lacing, Limits, Reader, lacing};

const LIMITS: Limits = Limits {
    header_element_bytes_max: 16 << 10,
    simple_tag_bytes_max: 4 << 10,
    header_section_bytes_max: 64 << 10,
    tracks_max: 8,
};

/// The largest element that is gathered and the head of the next.
const HELD_MAX: usize = (16 << 10) + 12;

/// The first byte chooses the size of the pieces, the rest is the stream. Promises: all bytes before an error are handed
/// on verbatim, little is held back, and the pieces make no difference.
pub fn mkv_reader(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else {
        return;
    };
    let stream = Bytes::copy_from_slice(stream);
    let at_once = read(&stream, stream.len().max(1));
    let in_pieces = read(&stream, usize::from(first).max(1));
    assert_eq!(at_once, in_pieces, "the pieces made a difference");
    let mut merger = Merger::new(Options {
        pack_clusters: first % 2 == 0,
        stop_at_first_break: first % 3 == 0,
        limits: LIMITS,
    });
    let mut out = Vec::new();
    if merger.push(stream.clone(), &mut out).is_ok() && merger.finish(&mut out).is_ok() {
        let merged = out.iter().map(Bytes::len).sum::<usize>();
        assert!(merged <= stream.len(), "merging made a stream longer");
    }
}

fn read(stream: &Bytes, piece: usize) -> (Vec<Event>, Option<matroska::Error>) {
    let mut reader = Reader::new(LIMITS);
    let (mut events, mut handed_on) = (Vec::new(), 0usize);
    let mut rest = stream.clone();
    loop {
        let ended = rest.is_empty();
        if ended {
            reader.finish();
        } else {
            reader.push(rest.split_to(piece.min(rest.len())));
        }
        loop {
            match reader.next() {
                Ok(Some(Event::Data(data))) => {
                    let end = handed_on + data.len();
                    assert_eq!(stream.get(handed_on..end), Some(&data[..]), "bytes were changed");
                    handed_on = end;
                }
                Ok(Some(event)) => {
                    if let Event::BlockEnd(block) = &event {
                        try_lacing(block.lacing, block.payload_len, &stream[..handed_on]);
                    }
                    events.push(event);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(
                        error.kind != ErrorKind::Truncated || handed_on == stream.len(),
                        "bytes were kept back"
                    );
                    return (events, Some(error));
                }
            }
        }
        assert!(reader.buffered() <= HELD_MAX, "{} bytes held back", reader.buffered());
        if ended {
            assert_eq!(handed_on, stream.len(), "bytes were kept back");
            return (events, None);
        }
    }
}

fn try_lacing(kind: Lacing, payload_len: u64, handed_on: &[u8]) {
    let len = usize::try_from(payload_len).unwrap_or(usize::MAX).min(handed_on.len());
    let payload = &handed_on[handed_on.len() - len..];
    if let Some(frames) = lacing::frames(payload, kind) {
        assert!(
            frames.iter().all(|frame| payload.get(frame.clone()).is_some()),
            "a frame beyond its payload"
        );
    }
}

/// Any bytes as codec private data and as a frame.
pub fn mkv_codec(data: &[u8]) {
    let split = data.first().map_or(0, |first| usize::from(*first).min(data.len() - 1));
    let (private, frame) = data
        .get(1..)
        .unwrap_or_default()
        .split_at(split.min(data.len().saturating_sub(1)));
    if let Some(config) = AvcConfig::parse(private) {
        assert!(config.codec_string().starts_with("avc1."));
    }
    if let Some(config) = HevcConfig::parse(private) {
        assert!(config.codec_string().starts_with("hvc1."));
    }
    let sizes = [h264_picture_size(private), h265_picture_size(private)];
    assert!(
        sizes
            .into_iter()
            .flatten()
            .all(|size| size.width > 0 && size.height > 0)
    );
    if let Some(config) = AudioSpecificConfig::parse(private) {
        assert!(config.sampling_hz > 0);
    }
    for codec in [NalCodec::H264, NalCodec::H265] {
        if let Some(framing) = NalFraming::new(codec, private) {
            let mut out = BytesMut::new();
            let whole = framing.put_frame(&mut out, frame);
            assert!(whole || out.is_empty());
            // One-byte lengths become four-byte start codes.
            assert!(out.len() <= 4 * frame.len() + 4);
        }
    }
}
