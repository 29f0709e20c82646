//! Producers: a thread for each connection, with batches that were made and signed beforehand.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::Target;
use super::connection::{Connection, request};
use super::notation::{BATCH, Notation};
use super::payload::Tally;
use crate::Failure;
use crate::measure::quantile;

/// Requests that a connection has ready and sends in turn.
const READY: usize = 8;

/// What was put.
#[derive(Debug)]
pub struct Put {
    /// Acknowledged.
    pub tally: Tally,
    pub seconds: f64,
    /// From the first byte of a batch to the last byte of its answer.
    times: Vec<Duration>,
}

impl Put {
    pub fn records_a_second(&self) -> f64 {
        self.tally.total() as f64 / self.seconds
    }

    pub fn quantile(&mut self, at: f64) -> Duration {
        quantile(&mut self.times, at)
    }
}

/// Puts `batches` batches on every one of `connections`. `first` is the number of the first record.
pub fn put(
    target: &Target,
    notation: Notation,
    stream: &str,
    (connections, batches): (usize, usize),
    first: u64,
) -> Result<Put, Failure> {
    let start = Barrier::new(connections + 1);
    std::thread::scope(|scope| {
        let produce = |connection: usize| {
            let start = &start;
            scope.spawn(move || -> Result<_, Failure> {
                let ready = READY.min(batches.max(1));
                let numbers = |turn: usize| first + ((connection * READY + turn) * BATCH) as u64;
                let prepare = |turn| -> Result<_, Failure> {
                    let body = notation.put_records(stream, numbers(turn))?;
                    Ok(request(target, notation, "PutRecords", &body))
                };
                let requests: Result<Vec<_>, Failure> = (0..ready).map(prepare).collect();
                let opened = Connection::open(target);
                start.wait();
                let (requests, mut connection) = (requests?, opened?);
                let (mut tally, mut times) = (Tally::default(), Vec::with_capacity(batches));
                for batch in 0..batches {
                    let turn = batch % ready;
                    let began = Instant::now();
                    let answer = connection.exchange(&requests[turn])?;
                    times.push(began.elapsed());
                    if !notation.all_taken(answer)? {
                        return Err("a record was refused".into());
                    }
                    (numbers(turn)..numbers(turn) + BATCH as u64).for_each(|number| tally.count(number));
                }
                Ok((tally, times))
            })
        };
        let threads: Vec<_> = (0..connections).map(produce).collect();
        start.wait();
        let began = Instant::now();
        let (mut tally, mut times) = (Tally::default(), Vec::new());
        let ends: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let seconds = began.elapsed().as_secs_f64();
        for end in ends {
            let (one, its_times) = end.map_err(|_| "a producer failed")??;
            tally.add(&one);
            times.extend(its_times);
        }
        Ok(Put { tally, seconds, times })
    })
}
