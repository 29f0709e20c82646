//! Streams as a general muxer might write them, from a seed: every kind of element and size this crate has to know.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use bytes::{BufMut, Bytes};
use fastrand::Rng;
use matroska::id::{self, ElementId};
use matroska::writer::{EBML_HEADER, put_element, put_id, put_size_in, put_unsigned};

pub fn stream(seed: u64) -> Bytes {
    let mut rng = Rng::with_seed(seed);
    let mut out = Vec::new();
    for _ in 0..rng.usize(1..=3) {
        document(&mut rng, &mut out);
    }
    out.into()
}

/// An element whose size takes any number of bytes that it fits.
fn element(rng: &mut Rng, out: &mut Vec<u8>, id: ElementId, data: &[u8]) {
    put_id(out, id);
    put_size_in(out, data.len() as u64, rng.usize(1..=8));
    out.put_slice(data);
}

/// A Void or CRC-32 may stand anywhere.
fn filler(rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.u8(0..10) {
        0 => {
            let data = vec![0; rng.usize(0..300)];
            element(rng, out, id::VOID, &data);
        }
        1 => {
            let crc = rng.u32(..).to_be_bytes();
            element(rng, out, id::CRC32, &crc);
        }
        _ => {}
    }
}

fn unsigned(rng: &mut Rng, out: &mut Vec<u8>, id: ElementId, value: u64) {
    let least = 8 - value.leading_zeros() as usize / 8;
    let len = rng.usize(least..=8);
    element(rng, out, id, &value.to_be_bytes()[8 - len..]);
}

fn document(rng: &mut Rng, out: &mut Vec<u8>) {
    out.put_slice(EBML_HEADER);
    let mut body = Vec::new();
    if rng.bool() {
        element(rng, &mut body, id::SEEK_HEAD, &[]);
    }
    filler(rng, &mut body);
    let mut info = Vec::new();
    unsigned(rng, &mut info, id::TIMECODE_SCALE, 1_000_000);
    put_element(&mut info, id::TITLE, b"generated\0\0");
    element(rng, &mut body, id::INFO, &info);
    let tracks = rng.u64(1..=3);
    let mut entries = Vec::new();
    for number in 1..=tracks {
        let mut entry = Vec::new();
        filler(rng, &mut entry);
        unsigned(rng, &mut entry, id::TRACK_NUMBER, number);
        let uid = rng.u64(1..);
        unsigned(rng, &mut entry, id::TRACK_UID, uid);
        put_unsigned(&mut entry, id::TRACK_TYPE, if number == 1 { 1 } else { 2 });
        put_element(
            &mut entry,
            id::CODEC_ID,
            if number == 1 { b"V_MPEG4/ISO/AVC" } else { b"A_AAC" },
        );
        let private: Vec<u8> = (0..rng.usize(0..60)).map(|_| rng.u8(..)).collect();
        element(rng, &mut entry, id::CODEC_PRIVATE, &private);
        element(rng, &mut entries, id::TRACK_ENTRY, &entry);
    }
    element(rng, &mut body, id::TRACKS, &entries);
    if rng.bool() {
        tags(rng, &mut body);
    }
    let mut time = rng.u64(0..1 << 40);
    for _ in 0..rng.usize(0..4) {
        cluster(rng, &mut body, time, tracks);
        time += rng.u64(1..10_000);
        for _ in 0..rng.usize(0..3) {
            tags(rng, &mut body);
        }
        filler(rng, &mut body);
    }
    if rng.bool() {
        element(rng, &mut body, id::CUES, &[]);
    }
    if rng.bool() {
        element(rng, out, id::SEGMENT, &body);
    } else {
        unknown(rng, out, id::SEGMENT, &body);
    }
}

fn unknown(rng: &mut Rng, out: &mut Vec<u8>, id: ElementId, body: &[u8]) {
    put_id(out, id);
    if rng.bool() {
        out.put_u8(0xFF);
    } else {
        out.put_slice(&[1, 255, 255, 255, 255, 255, 255, 255]);
    }
    out.put_slice(body);
}

fn tags(rng: &mut Rng, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let mut tag = Vec::new();
        if rng.bool() {
            let mut targets = Vec::new();
            unsigned(rng, &mut targets, id::TAG_TRACK_UID, 1);
            element(rng, &mut tag, id::TARGETS, &targets);
        }
        for _ in 0..rng.usize(0..3) {
            let mut simple = Vec::new();
            put_element(&mut simple, id::TAG_NAME, format!("NAME_{}", rng.u8(..)).as_bytes());
            let value = format!("value {}", rng.u64(..));
            element(rng, &mut simple, id::TAG_STRING, value.as_bytes());
            element(rng, &mut tag, id::SIMPLE_TAG, &simple);
        }
        element(rng, &mut body, id::TAG, &tag);
    }
    element(rng, out, id::TAGS, &body);
}

fn cluster(rng: &mut Rng, out: &mut Vec<u8>, time: u64, tracks: u64) {
    let mut body = Vec::new();
    filler(rng, &mut body);
    unsigned(rng, &mut body, id::TIMECODE, time);
    if rng.bool() {
        put_unsigned(&mut body, id::POSITION, 0);
    }
    for _ in 0..rng.usize(0..12) {
        filler(rng, &mut body);
        let mut block = Vec::new();
        let track = rng.u64(1..=tracks);
        put_size_in(&mut block, track, rng.usize(1..=3));
        block.put_i16(rng.i16(..));
        block.put_u8(if rng.bool() { 0x80 } else { 0 });
        let payload = rng.usize(0..2000);
        block.extend((0..payload).map(|_| rng.u8(..)));
        if rng.u8(0..4) == 0 {
            let mut group = Vec::new();
            element(rng, &mut group, id::BLOCK, &block);
            put_unsigned(&mut group, id::BLOCK_DURATION, 40);
            if rng.bool() {
                element(rng, &mut group, id::REFERENCE_BLOCK, &[0xD8]);
            }
            element(rng, &mut body, id::BLOCK_GROUP, &group);
        } else {
            element(rng, &mut body, id::SIMPLE_BLOCK, &block);
        }
    }
    if rng.bool() {
        element(rng, out, id::CLUSTER, &body);
    } else {
        unknown(rng, out, id::CLUSTER, &body);
    }
}
