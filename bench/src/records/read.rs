//! Consumers: a thread for each shard that reads it from its beginning and checks every payload.

use std::sync::Barrier;
use std::time::Instant;

use super::Target;
use super::connection::Connection;
use super::notation::{Member, Notation};
use super::payload::{Tally, check};
use crate::Failure;

/// What was read.
#[derive(Debug)]
pub struct Read {
    pub tally: Tally,
    pub seconds: f64,
}

impl Read {
    pub fn records_a_second(&self) -> f64 {
        self.tally.total() as f64 / self.seconds
    }
}

/// Reads every shard, each on a connection of its own, until its reader has caught up.
pub fn read(target: &Target, notation: Notation, stream: &str, shards: usize) -> Result<Read, Failure> {
    let start = Barrier::new(shards + 1);
    std::thread::scope(|scope| {
        let consume = |shard: usize| {
            let start = &start;
            scope.spawn(move || {
                let connection = Connection::open(target);
                start.wait();
                read_shard(target, notation, stream, shard, connection?)
            })
        };
        let threads: Vec<_> = (0..shards).map(consume).collect();
        start.wait();
        let began = Instant::now();
        let ends: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let seconds = began.elapsed().as_secs_f64();
        let mut tally = Tally::default();
        for end in ends {
            for number in end.map_err(|_| "a consumer failed")?? {
                tally.count(number);
            }
        }
        Ok(Read { tally, seconds })
    })
}

fn read_shard(
    target: &Target,
    notation: Notation,
    stream: &str,
    shard: usize,
    mut connection: Connection,
) -> Result<Vec<u64>, Failure> {
    let shard = format!("shardId-{shard:012}");
    let wanted = notation.request(&[
        ("StreamName", Member::Text(stream)),
        ("ShardId", Member::Text(&shard)),
        ("ShardIteratorType", Member::Text("TRIM_HORIZON")),
    ])?;
    let answer = connection.call(target, notation, "GetShardIterator", &wanted)?;
    let mut iterator = notation.iterator(answer)?;
    let mut numbers = Vec::new();
    loop {
        let wanted = notation.request(&[
            ("ShardIterator", Member::Text(&iterator)),
            ("Limit", Member::Number(10_000)),
        ])?;
        let answer = connection.call(target, notation, "GetRecords", &wanted)?;
        let page = notation.page(answer, &mut |payload| {
            numbers.push(check(payload)?);
            Ok(())
        })?;
        match page.next {
            Some(next) if page.records > 0 || page.behind > 0 => iterator = next,
            _ => return Ok(numbers),
        }
    }
}
