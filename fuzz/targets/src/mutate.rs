//! A small mutator for runs without libFuzzer: the same seed gives the same inputs on every machine.

use fastrand::Rng;

/// Longest input that is made.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Pieces that parsers stumble over: structure of the formats fuzzed here, and edges of numbers.
const TOKENS: &[&[u8]] = &[
    b"\x1A\x45\xDF\xA3",
    b"\x18\x53\x80\x67\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    b"\x1F\x43\xB6\x75\xFF",
    b"\x12\x54\xC3\x67",
    b"\x16\x54\xAE\x6B",
    b"\x15\x49\xA9\x66",
    b"\xA3\x84\x81\x00\x00\x80",
    b"\xA0\x82",
    b"\xE7\x81\x00",
    b"\xEC\x80",
    b"\x73\x73",
    b"\x67\xC8\x80",
    b"\x01\x00\x00\x00\x00\x00\x00\x00",
    b"\xFF\xFF\xFF\xFF",
    b"\x00\x00\x00\x01",
    b"\x00\x00\x03",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"1.5E9",
    b"18446744073709551616",
    b"\\ud800",
    b"\\u0000",
    b"\xC3\x28",
    b"\"__type\":",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\n",
    b"\n\n",
    b": ",
    b"=",
    b"&",
    b"%",
    b"%00",
    b"%2F",
    b"+",
    b"/../",
    b"//",
    b"?",
    b";",
    b"Authorization: AWS4-HMAC-SHA256 Credential=",
    b"SignedHeaders=",
    b"Signature=",
    b"X-Amz-Date: ",
    b"X-Amz-Expires=",
    b"X-Amz-Signature=",
    b"20261122T113343Z",
    b"host",
    b"*",
    b"arn:aws:",
    b".member.1",
    b"AAAA",
    b"====",
];

/// A new input out of `corpus`, by one to eight changes.
pub fn mutate(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = pick(corpus, rng).to_vec();
    for _ in 0..rng.u32(1..=8) {
        change(&mut input, corpus, rng);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn pick<'a>(corpus: &'a [Vec<u8>], rng: &mut Rng) -> &'a [u8] {
    rng.choice(corpus).map_or(&[], Vec::as_slice)
}

/// A range of `bytes`, up to `max` long.
fn range(bytes: &[u8], max: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let from = rng.usize(0..=bytes.len());
    from..(from + rng.usize(0..=max)).min(bytes.len())
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(0..=input.len());
    match rng.u8(0..9) {
        0 => {
            let bit = 1 << rng.u8(0..8);
            if let Some(byte) = input.get_mut(at) {
                *byte ^= bit;
            }
        }
        1 => {
            let value = rng
                .choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, b' ', b'"', b'0', b'\n'])
                .unwrap_or_default();
            if let Some(byte) = input.get_mut(at) {
                *byte = value;
            }
        }
        2 => {
            let gone = range(input, 64, rng);
            input.drain(gone);
        }
        3 => input.truncate(at),
        4 => {
            let token = rng.choice(TOKENS).copied().unwrap_or_default();
            input.splice(at..at, token.iter().copied());
        }
        5 => {
            let token = rng.choice(TOKENS).copied().unwrap_or_default();
            let end = (at + token.len()).min(input.len());
            input.splice(at..end, token.iter().copied());
        }
        6 => {
            let other = pick(corpus, rng);
            let piece = other.get(range(other, 256, rng)).unwrap_or_default().to_vec();
            input.splice(at..at, piece);
        }
        7 => {
            let piece = input.get(range(input, 128, rng)).unwrap_or_default().to_vec();
            let repeated = piece.repeat(rng.usize(1..=8));
            input.splice(at..at, repeated);
        }
        _ => {
            let noise: Vec<u8> = (0..rng.usize(1..16)).map(|_| rng.u8(..)).collect();
            input.splice(at..at, noise);
        }
    }
}
