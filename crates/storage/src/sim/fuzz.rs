//! Rot, mutated and random segments: recovery and fsck say what is wrong and never fall over.

use std::sync::Arc;

use super::SimDisk;
use super::driver::World;
use crate::fsck::{Severity, fsck};

/// A small log with everything in it, closed in good order.
fn small_log(seed: u64) -> World {
    let mut world = World::new(seed);
    world.options.reserve_bytes = 0;
    world.options.media_lanes = 1;
    world.options.record_lanes = 1;
    world.options.number_block = 1000;
    world.open().unwrap();
    for _ in 0..4 {
        world.spawn_store();
        world.spawn_append();
    }
    world.settle();
    world.close();
    assert!(world.model.borrow().broken.is_empty());
    world.drop_process();
    world.disk.kill();
    world
}

/// The last frame of a segment: the proof that all before it is durable. Nothing but that is lost with it.
fn proof_starts(disk: &SimDisk) -> std::collections::BTreeMap<String, usize> {
    let (found, _) = crate::recover::find_segments(&disk.mount(), crate::scan::Depth::Control).unwrap();
    let last = found
        .iter()
        .map(|f| (f.name.clone(), f.scan.frames.last().unwrap().header.offset as usize));
    last.collect()
}

#[test]
fn a_closed_log_is_clean_and_fsck_sees_every_single_flip_in_it() {
    let world = small_log(3);
    let clean = fsck(&world.disk.mount()).unwrap();
    assert!(
        clean.findings.is_empty() && clean.fragments >= 3 && clean.records > 5,
        "{clean}"
    );
    assert!(clean.to_string().contains("no damage"));
    let proofs = proof_starts(&world.disk);
    let mut flips = 0;
    for (name, bytes) in world.disk.snapshot() {
        let end = proofs[&name];
        // Payloads are long and all alike to a checksum: every byte of the first 256 of each block, then every 13th.
        let wanted = |at: &usize| at % 4096 < 256 || at.is_multiple_of(13);
        for at in (0..end).filter(wanted) {
            let bit = 1u8 << (at % 8);
            world.disk.rot(&name, at, |b| *b ^= bit);
            let report = fsck(&world.disk.mount()).unwrap();
            assert!(report.has_damage(), "{name} byte {at} of {}: {report}", bytes.len());
            world.disk.rot(&name, at, |b| *b ^= bit);
            flips += 1;
        }
    }
    println!("{flips} flips, all seen");
}

#[test]
fn rot_in_one_fragment_leaves_its_neighbours_readable_and_moves_positions_on() {
    let mut world = small_log(3);
    let proofs = proof_starts(&world.disk);
    let snapshot = world.disk.snapshot();
    let mut hit = 0;
    for name in snapshot.keys() {
        for at in (4096..proofs[name]).step_by(331) {
            let mut other = World::new(9);
            other.options.clone_from(&world.options);
            other.disk = world.disk.copy();
            other.disk.rot(name, at, |b| *b ^= 0x40);
            other.open().unwrap();
            let mut lost = Vec::new();
            let mut model = world.model.borrow().clone();
            for (id, stream) in &mut model.streams {
                let media = Arc::clone(&other.parts.as_ref().unwrap().media);
                for (number, fragment) in stream.fragments.iter().filter(|(_, f)| f.info.is_some()) {
                    use crate::media::MediaStore;
                    match super::driver::at_once(media.read(*id, *number, 0..u32::MAX)) {
                        Ok(bytes) => assert_eq!(bytes, fragment.bytes),
                        Err(error) => lost.push((*id, *number, error)),
                    }
                }
            }
            assert!(lost.len() <= 1, "{name} {at}: {lost:?}");
            hit += lost.len();
            other.drop_process();
        }
    }
    assert!(hit > 10, "{hit}");
    world.drop_process();
}

#[test]
fn mutated_and_random_segments_never_make_recovery_or_fsck_fall_over() {
    let base = small_log(11).disk.snapshot();
    let mut random = fastrand::Rng::with_seed(99);
    for round in 0..400u64 {
        let disk = SimDisk::new(round);
        for (name, bytes) in &base {
            let mut bytes = bytes.clone();
            match random.usize(..6) {
                0 => bytes.truncate(random.usize(..=bytes.len())),
                1 => bytes = (0..random.usize(..20_000)).map(|_| random.u8(..)).collect(),
                2 => {
                    // A stretch moved elsewhere: valid frames in the wrong place.
                    let len = random.usize(..8192.min(bytes.len()));
                    let from = random.usize(..bytes.len() - len);
                    let to = random.usize(..bytes.len() - len);
                    bytes.copy_within(from..from + len, to);
                }
                3 => {
                    let at = random.usize(..bytes.len());
                    let len = random.usize(..(bytes.len() - at).min(5000));
                    bytes[at..at + len].fill(0);
                }
                _ => {
                    for _ in 0..random.usize(1..30) {
                        let at = random.usize(..bytes.len());
                        bytes[at] = random.u8(..);
                    }
                }
            }
            disk.put(name, bytes);
        }
        let report = fsck(&disk.mount()).unwrap();
        let _ = serde_json::to_string(&report).unwrap();
        let mut world = World::new(round);
        world.disk = disk;
        world.open().unwrap();
        world.spawn_store();
        world.spawn_append();
        world.settle();
        assert!(!world.is_dead(), "round {round}");
    }
}

#[test]
fn a_torn_tail_is_named_as_such_and_not_as_damage() {
    let mut world = World::new(21);
    world.open().unwrap();
    for _ in 0..6 {
        world.spawn_store();
    }
    world.settle();
    world.drop_process();
    world.disk.kill();
    let name = world
        .disk
        .snapshot()
        .keys()
        .find(|n| n.starts_with("segment"))
        .unwrap()
        .clone();
    let (found, _) = crate::recover::find_segments(&world.disk.mount(), crate::scan::Depth::Control).unwrap();
    let last = found
        .iter()
        .find(|f| f.name == name)
        .unwrap()
        .scan
        .frames
        .last()
        .unwrap()
        .header;
    world.disk.rot(&name, last.offset as usize + 100, |b| *b ^= 1);
    let report = fsck(&world.disk.mount()).unwrap();
    assert!(!report.findings.is_empty() && !report.has_damage(), "{report}");
    assert_eq!(report.findings[0].severity, Severity::TornTail);
}
