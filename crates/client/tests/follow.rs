//! A follower of a stream whose shards change, whose iterators expire and whose shards are busy at times.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[allow(dead_code, reason = "the fleet's tests use all of it")]
mod fleet_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::follow::{FollowConfig, FollowEvent, FollowFrom, FollowTo, Follower};
use fleet_support::{Gate, SimClock, SimSource, SimStream};
use parking_lot::Mutex;
use tokio::time::sleep;

const KEYS: u64 = 12;

fn source(stream: &Arc<SimStream>, seed: u64) -> Arc<SimSource> {
    Arc::new(SimSource {
        stream: Arc::clone(stream),
        gate: Gate::new(),
        random: Mutex::new(fastrand::Rng::with_seed(seed)),
        page: 7,
    })
}

/// Puts records whose data count up, and changes the shards from time to time.
async fn put(stream: Arc<SimStream>, seed: u64, count: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..count {
        stream.put_data(&format!("key-{}", random.u64(..KEYS)), n.to_string());
        let open = stream.open();
        let one = &open[random.usize(..open.len())];
        match random.u32(..30) {
            0 if open.len() < 9 => stream.split(one),
            1 => stream.merge(one),
            _ => {}
        }
        if random.u32(..5) == 0 {
            sleep(Duration::from_millis(random.u64(..300))).await;
        }
    }
}

/// What comes, by partition key, until there are so many records or the end.
async fn read(follower: &mut Follower, count: u64) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut left = count;
    while left > 0
        && let Some(event) = follower.next().await.unwrap()
    {
        if let FollowEvent::Records { records, .. } = event {
            assert!(!records.is_empty());
            for record in records {
                left -= 1;
                let number = std::str::from_utf8(&record.data).unwrap().parse().unwrap();
                found.entry(record.partition_key).or_default().push(number);
            }
        }
    }
    found
}

fn whole(found: &BTreeMap<String, Vec<u64>>) -> Vec<u64> {
    let mut all: Vec<u64> = found.values().flatten().copied().collect();
    all.sort_unstable();
    all
}

#[tokio::test(start_paused = true)]
async fn every_record_comes_once_and_in_the_order_of_its_key() {
    for seed in 0..20 {
        let stream = SimStream::new(3);
        let config = FollowConfig {
            from: FollowFrom::Start,
            ..FollowConfig::default()
        };
        let mut follower = Follower::start(source(&stream, seed), SimClock::new(), config)
            .await
            .unwrap();
        tokio::spawn(put(Arc::clone(&stream), seed, 600));
        let found = read(&mut follower, 600).await;
        assert_eq!(whole(&found), (0..600).collect::<Vec<_>>(), "seed {seed}");
        assert!(
            found.values().all(|numbers| numbers.is_sorted()),
            "seed {seed}: {found:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_from_a_time_passes_over_what_came_before_and_ends_at_the_tip() {
    for seed in 0..20 {
        let stream = SimStream::new(2);
        put(Arc::clone(&stream), seed, 400).await;
        // The stream's records arrive every seven milliseconds of its own.
        let config = FollowConfig {
            from: FollowFrom::Time(Timestamp::from_millis(7 * 301)),
            to: FollowTo::Tip,
            ..FollowConfig::default()
        };
        let mut follower = Follower::start(source(&stream, seed), SimClock::new(), config)
            .await
            .unwrap();
        let found = read(&mut follower, u64::MAX).await;
        assert_eq!(whole(&found), (300..400).collect::<Vec<_>>(), "seed {seed}");
        let until = FollowConfig {
            from: FollowFrom::Start,
            to: FollowTo::Time(Timestamp::from_millis(7 * 50)),
            ..FollowConfig::default()
        };
        let mut follower = Follower::start(source(&stream, seed), SimClock::new(), until)
            .await
            .unwrap();
        assert_eq!(whole(&read(&mut follower, u64::MAX).await), (0..50).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn shards_are_read_whose_parents_were_forgotten_before_they_named_them() {
    let stream = SimStream::new(2);
    let config = FollowConfig {
        from: FollowFrom::Start,
        ..FollowConfig::default()
    };
    let mut follower = Follower::start(source(&stream, 1), SimClock::new(), config)
        .await
        .unwrap();
    let [left, right] = stream.open().try_into().unwrap();
    stream.split(&right);
    let middle = stream.open()[1].clone();
    stream.merge(&left);
    stream.forget(&right);
    stream.forget(&middle);
    for n in 0..20 {
        stream.put_data(&format!("key-{n}"), n.to_string());
    }
    let found = read(&mut follower, 20).await;
    assert_eq!(whole(&found), (0..20).collect::<Vec<_>>());
}
