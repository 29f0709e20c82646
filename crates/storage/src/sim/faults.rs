//! Every I/O call of a scripted run fails once, with EIO and with ENOSPC: what was acknowledged must be there afterwards,
//! the log must have gone on or have ended itself, and after a full disk it must go on by itself.

use std::time::Duration;

use super::Fault;
use super::driver::World;

/// A run that touches every kind of frame, several segments, trims, deletions, a close and a second life.
fn script(world: &mut World) -> bool {
    for life in 0..2 {
        if world.open().is_err() {
            return false;
        }
        for round in 0..9 {
            for _ in 0..3 {
                world.spawn_store();
                world.spawn_append();
            }
            if round % 4 == 3 {
                world.spawn_trim();
            }
            if life == 1 && round == 7 {
                world.spawn_delete();
            }
            world.settle();
            world.clock.advance(Duration::from_secs(3));
            world.tick();
            if world.is_dead() {
                return false;
            }
        }
        world.close();
        world.drop_process();
        world.disk.kill();
    }
    true
}

fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.options.media_lanes = 1;
    world.options.record_lanes = 1;
    world.options.spare_segments = 1;
    world.options.punch_delay_ms = 0;
    world.options.reserve_bytes = 16 << 10;
    world
}

/// Fails call `nth` of the script; then the power goes, and everything acknowledged must be there. False when the script
/// has fewer calls.
fn fail_at(nth: u64, fault: Fault) -> bool {
    let mut world = world(77);
    world.disk.inject(nth, fault);
    let went_on = script(&mut world);
    let fired = world.disk.fired();
    let broken = std::mem::take(&mut world.model.borrow_mut().broken);
    assert!(broken.is_empty(), "call {nth}, {fault:?}: {broken:#?}");
    assert!(went_on || fired, "call {nth}: the script ended without a fault");
    if fault == Fault::NoSpace {
        assert!(went_on, "call {nth}: a full disk ended the log");
    }
    world.drop_process();
    world.cut_power();
    let opened = world.open();
    assert!(opened.is_ok(), "call {nth}, {fault:?}: {:?}", opened.err());
    world.verify();
    // It works again.
    for _ in 0..5 {
        world.spawn_store();
        world.spawn_append();
    }
    world.settle();
    world.verify();
    let broken = std::mem::take(&mut world.model.borrow_mut().broken);
    assert!(broken.is_empty(), "call {nth}, {fault:?}: {broken:#?}");
    fired
}

fn sweep(fault: Fault) {
    let calls = {
        let mut world = world(77);
        assert!(script(&mut world));
        world.disk.calls()
    };
    let struck = (1..=calls).filter(|nth| fail_at(*nth, fault)).count();
    println!("{fault:?} injected at each of {calls} I/O calls, {struck} could fail this way");
    assert!(calls > 200 && struck > 50, "{struck} of {calls}");
}

#[test]
fn an_io_error_at_any_call_loses_nothing_acknowledged() {
    sweep(Fault::Io);
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_does_not_end_the_log() {
    sweep(Fault::NoSpace);
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    sweep(Fault::Power);
}

#[test]
fn a_full_disk_refuses_writes_lets_deletions_through_and_takes_writes_again_afterwards() {
    let mut world = world(5);
    world.open().unwrap();
    world.disk.set_capacity(600 << 10);
    for _ in 0..200 {
        world.spawn_store();
        world.settle();
    }
    let before = acknowledged(&world);
    for _ in 0..20 {
        world.spawn_store();
        world.settle();
    }
    assert_eq!(acknowledged(&world), before, "the disk was to be full");
    assert!(!world.is_dead());
    world.verify();
    // Reads went on; so do trims, for which the reserve is there.
    for _ in 0..30 {
        world.spawn_trim();
        world.settle();
        world.clock.advance(Duration::from_secs(5));
        world.tick();
    }
    for _ in 0..20 {
        world.spawn_store();
        world.settle();
    }
    assert!(
        acknowledged(&world) > before,
        "nothing can be stored after space has returned"
    );
    world.drop_process();
    world.cut_power();
    world.open().unwrap();
    world.verify();
    let broken = world.model.borrow().broken.clone();
    assert!(broken.is_empty(), "{broken:#?}");
}

fn acknowledged(world: &World) -> usize {
    let model = world.model.borrow();
    model
        .streams
        .values()
        .flat_map(|s| s.fragments.values())
        .filter(|f| f.info.is_some())
        .count()
}
