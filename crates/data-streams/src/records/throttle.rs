//! AWS's limits of a shard, for those who want their errors: a bucket for each, filled by the second.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use storage::{ShardId, StreamId};

use crate::limits::{SHARD_READ_BYTES_PER_S, SHARD_READS_PER_S, SHARD_WRITE_BYTES_PER_S, SHARD_WRITE_RECORDS_PER_S};

/// What is left of one limit. It may be overdrawn by one call, which those after it pay for.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Duration,
}

impl Bucket {
    fn full(per_second: u64, at: Duration) -> Self {
        Bucket {
            left: per_second as f64,
            at,
        }
    }

    fn fill(&mut self, per_second: u64, now: Duration) {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + since * per_second as f64).min(per_second as f64);
        self.at = now;
    }
}

#[derive(Debug)]
struct Shard {
    write_bytes: Bucket,
    write_records: Bucket,
    read_bytes: Bucket,
    reads: Bucket,
}

impl Shard {
    fn new(now: Duration) -> Self {
        Shard {
            write_bytes: Bucket::full(SHARD_WRITE_BYTES_PER_S, now),
            write_records: Bucket::full(SHARD_WRITE_RECORDS_PER_S, now),
            read_bytes: Bucket::full(SHARD_READ_BYTES_PER_S, now),
            reads: Bucket::full(SHARD_READS_PER_S, now),
        }
    }

    fn fill(&mut self, now: Duration) {
        self.write_bytes.fill(SHARD_WRITE_BYTES_PER_S, now);
        self.write_records.fill(SHARD_WRITE_RECORDS_PER_S, now);
        self.read_bytes.fill(SHARD_READ_BYTES_PER_S, now);
        self.reads.fill(SHARD_READS_PER_S, now);
    }
}

/// What the shards that were used lately have left.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<(StreamId, ShardId), Shard>>);

impl Throttle {
    fn with<T>(&self, shard: (StreamId, ShardId), now: Duration, use_it: impl FnOnce(&mut Shard) -> T) -> T {
        let mut shards = self.0.lock();
        let shard = shards.entry(shard).or_insert_with(|| Shard::new(now));
        shard.fill(now);
        use_it(shard)
    }

    /// Takes a record of so many bytes; false if the shard takes no more now.
    pub fn write(&self, shard: (StreamId, ShardId), bytes: usize, now: Duration) -> bool {
        self.with(shard, now, |s| {
            // A record of more than a second's bytes goes when the bucket is full.
            let wanted = (bytes as f64).min(SHARD_WRITE_BYTES_PER_S as f64);
            let takes = s.write_records.left >= 1.0 && s.write_bytes.left >= wanted;
            if takes {
                s.write_records.left -= 1.0;
                s.write_bytes.left -= bytes as f64;
            }
            takes
        })
    }

    /// Takes a call of GetRecords; false if the shard gives no more now.
    pub fn read(&self, shard: (StreamId, ShardId), now: Duration) -> bool {
        self.with(shard, now, |s| {
            let gives = s.reads.left >= 1.0 && s.read_bytes.left > 0.0;
            if gives {
                s.reads.left -= 1.0;
            }
            gives
        })
    }

    /// So much was read: a call may give 10 MiB at once, and those after it wait.
    pub fn have_read(&self, shard: (StreamId, ShardId), bytes: usize, now: Duration) {
        self.with(shard, now, |s| s.read_bytes.left -= bytes as f64);
    }

    /// Forgets shards that have all of everything.
    pub fn forget_idle(&self, now: Duration) {
        self.0.lock().retain(|_, shard| {
            shard.fill(now);
            shard.read_bytes.left < SHARD_READ_BYTES_PER_S as f64
                || shard.write_bytes.left < SHARD_WRITE_BYTES_PER_S as f64
                || shard.write_records.left < SHARD_WRITE_RECORDS_PER_S as f64
                || shard.reads.left < SHARD_READS_PER_S as f64
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: (StreamId, ShardId) = (StreamId(1), ShardId(2));

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_shard_takes_a_thousand_records_or_a_mebibyte_a_second() {
        let throttle = Throttle::default();
        let many = (0..1500).filter(|_| throttle.write(SHARD, 10, ms(0))).count();
        assert_eq!(many, 1000);
        assert!(!throttle.write(SHARD, 10, ms(0)) && throttle.write((StreamId(1), ShardId(3)), 10, ms(0)));
        assert_eq!((0..1500).filter(|_| throttle.write(SHARD, 10, ms(100))).count(), 100);
        assert_eq!(
            (0..1500)
                .filter(|_| throttle.write(SHARD, 256 * 1024, ms(5000)))
                .count(),
            4
        );
        assert!(
            throttle.write(SHARD, 4 << 20, ms(10_000)),
            "larger than a second's worth"
        );
        assert!(!throttle.write(SHARD, 1, ms(12_900)) && throttle.write(SHARD, 1, ms(13_100)));
    }

    #[test]
    fn a_shard_gives_five_answers_or_two_mebibytes_a_second() {
        let throttle = Throttle::default();
        assert_eq!((0..20).filter(|_| throttle.read(SHARD, ms(0))).count(), 5);
        throttle.have_read(SHARD, 10 << 20, ms(0));
        assert!(!throttle.read(SHARD, ms(3_900)) && throttle.read(SHARD, ms(4_100)));
        throttle.forget_idle(ms(4_200));
        assert_eq!(throttle.0.lock().len(), 1);
        throttle.forget_idle(ms(9_000));
        assert_eq!(throttle.0.lock().len(), 0);
    }
}
