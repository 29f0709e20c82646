//! Every record is in exactly one object, whatever breaks off: the process ends, or a call fails, at each step of the
//! catalog and of the bucket in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Fault, Steps, World, account};
use objects::Buckets;
use proptest::prelude::*;
use serde_json::json;

fn filled(world: &World, shards: u32, records: u32) -> usize {
    for shard in 0..shards {
        world.source.open_shard(shard, &[]);
        for record in 0..records {
            world.source.put(shard, &format!("{shard}-{record:04}"));
        }
    }
    (shards * records) as usize
}

fn once(lines: &[String], all: usize) {
    let distinct: BTreeSet<&String> = lines.iter().collect();
    assert_eq!(
        (lines.len(), distinct.len()),
        (all, all),
        "records are missing or twice in S3"
    );
}

/// One life with a fault at a step, then one without; true if the step was reached.
async fn broken_off(shards: u32, records: u32, buffer: usize, at: u64, fault: Fault) -> bool {
    let world = World::new().await;
    let all = filled(&world, shards, records);
    let steps = Steps::new(at, fault);
    let (engine, _) = world.process(&steps, buffer, json!({}));
    tokio::select! {
        () = steps.crashed() => {}
        lines = world.delivered(all) => once(&lines, all),
    }
    drop(engine);
    let (engine, _) = world.process(&Steps::never(), buffer, json!({}));
    once(&world.delivered(all).await, all);
    engine.stop(common::ID).await;
    steps.reached()
}

#[tokio::test(start_paused = true)]
async fn every_record_is_in_one_object_whatever_step_the_process_ends_or_fails_at() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Error, Fault::ErrorAfter] {
        let mut at = 0;
        while broken_off(2, 20, 60, at, fault).await {
            at += 1;
        }
        assert!(at > 10, "{fault:?} met only {at} steps");
    }
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::CrashBefore),
        Just(Fault::CrashAfter),
        Just(Fault::Error),
        Just(Fault::ErrorAfter)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_buffers_and_any_fault_deliver_each_record_once(
        shards in 1u32..5, records in 1u32..40, buffer in 1usize..400, at in 0u64..60, fault in faults(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(broken_off(shards, records, buffer, at, fault));
    }
}

#[tokio::test(start_paused = true)]
async fn a_buffer_goes_when_it_is_full_or_old_and_its_object_is_named_as_aws_names_it() {
    let world = World::new().await;
    world.source.open_shard(0, &[]);
    let (engine, _) = world.process(&Steps::never(), 8, json!({"Prefix": "in/", "FileExtension": ".txt"}));
    for text in ["aaa", "bbb", "ccc"] {
        world.source.put(0, text);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let early = world.objects("b").await;
    assert_eq!(
        early.values().cloned().collect::<Vec<_>>(),
        ["aaa\nbbb\n"],
        "two fill a buffer"
    );
    let (name, _) = early.first_key_value().unwrap();
    let rest = name
        .strip_prefix("in/2026/01/02/03/door-3-2026-01-02-03-04-05-")
        .unwrap_or_else(|| panic!("{name}"));
    assert_eq!(rest.len(), 36 + ".txt".len());
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(world.lines("b").await, ["aaa", "bbb", "ccc"], "the third was old");
    engine.stop(common::ID).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_nothing_is_left_to_read_is_read_at_once() {
    let world = World::new().await;
    world.source.open_shard(0, &[]);
    world.source.open_shard(1, &[]);
    let (engine, _) = world.process(&Steps::never(), 1, json!({}));
    for (number, shard) in [(1, 0), (2, 1), (3, 0), (4, 0)] {
        tokio::time::sleep(Duration::from_secs(100)).await;
        world.source.put(shard, &number.to_string());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.lines("b").await.len(), number);
    }
    engine.stop(common::ID).await;
}

#[tokio::test(start_paused = true)]
async fn shards_are_read_after_their_parents_and_closed_ones_to_their_end() {
    let world = World::new().await;
    world.source.open_shard(0, &[]);
    world.source.put(0, "old");
    let (engine, _) = world.process(&Steps::never(), 1, json!({}));
    assert_eq!(world.delivered(1).await, ["old"]);
    world.source.put(0, "older");
    world.source.open_shard(1, &[0]);
    world.source.open_shard(2, &[0]);
    world.source.put(1, "left");
    world.source.put(2, "right");
    world.source.open_shard(3, &[1, 2]);
    world.source.put(3, "young");
    assert_eq!(world.delivered(5).await, ["left", "old", "older", "right", "young"]);
    engine.stop(common::ID).await;
    drop(engine);
    let (engine, _) = world.process(&Steps::never(), 1, json!({}));
    world.source.put(3, "youngest");
    once(&world.delivered(6).await, 6);
    engine.stop(common::ID).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_under_names_of_another_destination_is_removed() {
    let world = World::new().await;
    let all = filled(&world, 1, 5);
    // The plan, then the object; the process ends before it can say that it is done.
    let steps = Steps::new(1, Fault::CrashAfter);
    let (engine, _) = world.process(&steps, 10_000, json!({"Prefix": "before/"}));
    steps.crashed().await;
    drop(engine);
    assert!(world.objects("b").await.keys().all(|name| name.starts_with("before/")));
    let (engine, _) = world.process(&Steps::never(), 10_000, json!({"Prefix": "after/"}));
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if world.plans().await == 0 {
            break;
        }
    }
    once(&world.lines("b").await, all);
    assert!(world.objects("b").await.keys().all(|name| name.starts_with("after/")));
    engine.stop(common::ID).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_is_told_and_what_waits_for_it_comes_when_it_is_there() {
    let world = World::new().await;
    let all = filled(&world, 3, 30);
    let missing = json!({"BucketARN": "arn:aws:s3:::later"});
    let (engine, status) = world.process(&Steps::never(), 40, missing);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let why = status.failure().unwrap();
    assert!(why.starts_with("S3.NoSuchBucket"), "{why}");
    world.buckets.create(account(), "later");
    tokio::time::sleep(Duration::from_secs(600)).await;
    once(&world.lines("later").await, all);
    assert_eq!(status.failure(), None);
    engine.stop(common::ID).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_gone_is_told_and_its_successor_is_read_from_its_beginning() {
    let world = World::new().await;
    filled(&world, 1, 3);
    let (engine, status) = world.process(&Steps::never(), 1, json!({}));
    world.delivered(3).await;
    *world.source.stream.lock() = None;
    world.source.changes.send_modify(|n| *n += 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(status.failure().unwrap().contains("does not exist"));
    world.source.shards.lock().clear();
    world.source.open_shard(0, &[]);
    world.source.put(0, "anew");
    *world.source.stream.lock() = Some(2);
    world.source.changes.send_modify(|n| *n += 1);
    let lines = world.delivered(4).await;
    assert!(lines.contains(&"anew".to_owned()), "{lines:?}");
    assert_eq!(status.failure(), None);
    engine.stop(common::ID).await;
}

#[tokio::test(start_paused = true)]
async fn source_records_go_to_the_backup_too() {
    let world = World::new().await;
    world.buckets.create(account(), "backup");
    let all = filled(&world, 1, 12);
    let backup = json!({"S3BackupMode": "Enabled", "S3BackupDescription": {
        "BucketARN": "arn:aws:s3:::backup", "RoleARN": "arn:aws:iam::000000000000:role/r", "CompressionFormat": "UNCOMPRESSED",
        "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 60},
        "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"}, "Prefix": "raw/"}});
    let (engine, _) = world.process(&Steps::never(), 30, backup);
    once(&world.delivered(all).await, all);
    once(&world.lines("backup").await, all);
    assert!(
        world
            .buckets
            .open(account(), "backup")
            .await
            .unwrap()
            .list("raw/", None, 10)
            .await
            .unwrap()
            .objects
            .len()
            > 1
    );
    engine.stop(common::ID).await;
}
