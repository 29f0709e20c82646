//! Looks for vectors in the files of a directory, in every form that a program might have written them in.
#![allow(dead_code)]

use std::collections::HashSet;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Eight bytes to look for.
pub type Trace = [u8; 8];

/// The vector at unit length.
pub fn unit(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    vector.iter().map(|&x| (f64::from(x) / norm) as f32).collect()
}

/// Every pair of neighbouring components of a vector at unit length, as it lies in a file.
pub fn traces(vector: &[f32]) -> Vec<Trace> {
    let unit = unit(vector);
    let pairs = unit.windows(2);
    pairs
        .map(|pair| {
            [pair[0].to_le_bytes(), pair[1].to_le_bytes()]
                .concat()
                .try_into()
                .unwrap()
        })
        .collect()
}

/// A vector in the other forms that a program might write: in double and in half precision, in eight bits a component,
/// base64 of any of these, and the digits of JSON; each at several places of the vector, so that it does not matter where
/// a page ends.
pub fn disguises(vector: &[f32]) -> Vec<Trace> {
    let unit = unit(vector);
    let largest = unit.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let eight = |scale: f32| unit.iter().map(|x| (x * scale).round() as i8 as u8).collect();
    let single: Vec<u8> = unit.iter().flat_map(|x| x.to_le_bytes()).collect();
    let given: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let double: Vec<u8> = unit.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    let half: Vec<u8> = unit
        .iter()
        .flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes())
        .collect();
    let plain: [Vec<u8>; 6] = [single, given, double, half, eight(127.0), eight(127.0 / largest)];
    let mut found = Vec::new();
    for (number, bytes) in plain.iter().enumerate() {
        // Single precision at unit length is what faces.db is to have: that is looked for by `traces`.
        if number > 0 {
            found.extend(some_of(bytes));
        }
        // Base64 of a text that begins one or two bytes before the vector looks different.
        for shift in 0..3 {
            found.extend(some_of(STANDARD.encode(&bytes[shift..]).as_bytes()));
        }
    }
    for component in unit.iter().step_by(16) {
        // "0.12345…" and what comes behind it: the digits of one number, long enough to be no accident.
        let digits = component.abs().to_string();
        found.extend(
            digits
                .as_bytes()
                .get(..8)
                .map(|digits| Trace::try_from(digits).unwrap()),
        );
    }
    found
}

fn some_of(bytes: &[u8]) -> impl Iterator<Item = Trace> + '_ {
    bytes.chunks_exact(8).step_by(3).map(|chunk| chunk.try_into().unwrap())
}

/// How many of the traces are in any file below the directory.
pub fn found_in_files(directory: &Path, traces: &HashSet<Trace>) -> usize {
    let (mut found, mut folders) = (HashSet::new(), vec![directory.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(path).unwrap();
            let hits = bytes
                .windows(8)
                .filter(|window| **window != [0; 8] && traces.contains(*window));
            found.extend(hits.map(<[u8]>::to_vec));
        }
    }
    found.len()
}
