//! On-demand streams: the number of their shards follows what is written to them.

use std::sync::atomic::Ordering;

use crate::limits;
use crate::service::DataStreams;
use crate::state::StreamState;

/// How many shards a stream should have after so much was written in so long; `None` if it has enough and not too many.
/// `quiet_ms` is for how long it had less to do than an eighth of its shards can take.
fn wanted(shards: usize, least: usize, records: u64, bytes: u64, millis: i64, quiet_ms: i64) -> Option<usize> {
    let seconds = (millis.max(1) as f64) / 1000.0;
    let shards_busy = (bytes as f64 / limits::SHARD_WRITE_BYTES_PER_S as f64)
        .max(records as f64 / limits::SHARD_WRITE_RECORDS_PER_S as f64)
        / seconds;
    let (now, most) = (shards as f64, limits::SHARDS_PER_STREAM_MAX);
    if shards_busy > now / 2.0 {
        // Double what is needed, as AWS keeps it ready.
        let grown = ((shards_busy * 2.0).ceil() as usize)
            .max(shards.saturating_mul(2))
            .min(most);
        return Some(grown).filter(|grown| *grown > shards);
    }
    let fewer = (shards / 2).max(least);
    (quiet_ms > limits::SCALE_DOWN_AFTER_MS && fewer < shards).then_some(fewer)
}

impl DataStreams {
    /// Looks at what was written to each on-demand stream in the last `millis`, and scales those that need it.
    pub async fn scale(&self, millis: i64) {
        let now = self.clock.now();
        for stream in self.all() {
            let load = &stream.lasting.load;
            let (records, bytes) = load.take();
            if !stream.record.on_demand || stream.record.reshard.is_some() {
                continue;
            }
            let shards = stream.open_shards();
            let busy = is_busy(shards, records, bytes, millis);
            let busy_ms = load.busy_ms.load(Ordering::Relaxed);
            if busy || busy_ms == 0 {
                load.busy_ms.store(now.millis(), Ordering::Relaxed);
            }
            let quiet_ms = if busy || busy_ms == 0 {
                0
            } else {
                now.millis() - busy_ms
            };
            if let Some(count) = wanted(shards, least(&stream), records, bytes, millis, quiet_ms) {
                load.busy_ms.store(now.millis(), Ordering::Relaxed);
                let scaled = self.reshard(&stream, move |_, plan| {
                    plan.even_out(count);
                    Ok(())
                });
                match scaled.await {
                    Ok(()) => {
                        tracing::info!(
                            stream = stream.arn,
                            from = shards,
                            to = count,
                            "an on-demand stream was scaled"
                        );
                    }
                    Err(error) => {
                        tracing::warn!(%error, stream = stream.arn, "an on-demand stream could not be scaled");
                    }
                }
            }
        }
    }
}

/// The fewest shards of an on-demand stream.
pub fn least(stream: &StreamState) -> usize {
    let warm = stream
        .record
        .warm_mib
        .and_then(|mib| usize::try_from(mib).ok())
        .unwrap_or(0);
    warm.clamp(limits::ON_DEMAND_SHARDS, limits::SHARDS_PER_STREAM_MAX)
}

fn is_busy(shards: usize, records: u64, bytes: u64, millis: i64) -> bool {
    let capacity = (shards as f64) * (millis.max(1) as f64) / 1000.0 / 8.0;
    bytes as f64 > capacity * limits::SHARD_WRITE_BYTES_PER_S as f64
        || records as f64 > capacity * limits::SHARD_WRITE_RECORDS_PER_S as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_double_when_half_of_what_they_take_is_written_and_halve_after_a_quiet_day() {
        const MIB: u64 = 1 << 20;
        let day = limits::SCALE_DOWN_AFTER_MS + 1;
        assert_eq!(wanted(4, 4, 0, 0, 10_000, 0), None);
        assert_eq!(wanted(4, 4, 10, 19 * MIB, 10_000, 0), None, "1.9 MiB/s of 4");
        assert_eq!(wanted(4, 4, 10, 21 * MIB, 10_000, 0), Some(8));
        assert_eq!(wanted(4, 4, 21_000, 0, 10_000, 0), Some(8), "2,100 records a second");
        assert_eq!(wanted(4, 4, 10, 300 * MIB, 10_000, 0), Some(60), "far more at once");
        assert_eq!(
            wanted(1000, 4, 10, 9000 * MIB, 10_000, 0),
            None,
            "no more than a stream may have"
        );
        assert_eq!(wanted(16, 4, 0, 0, 10_000, day), Some(8));
        assert_eq!(
            wanted(16, 12, 0, 0, 10_000, day),
            Some(12),
            "what was asked to be warm stays"
        );
        assert_eq!(wanted(4, 4, 0, 0, 10_000, day), None);
        assert!(is_busy(8, 0, 11 * MIB, 10_000) && !is_busy(8, 0, 9 * MIB, 10_000));
    }
}
