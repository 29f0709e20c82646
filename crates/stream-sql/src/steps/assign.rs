//! TUMBLE, HOP and CUMULATE as table functions: each row once for each window that it is in.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMillisecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, TimestampMillisecondType};

use super::{Stateless, arrow_fault, make};
use crate::batch::Batch;
use crate::operator::{Fault, Millis};
use crate::spec::{WindowAssign, Windows};

pub(crate) struct AssignStep(pub WindowAssign);

impl Stateless for AssignStep {
    fn apply(&self, batch: Batch) -> Result<Option<Batch>, Fault> {
        let times = batch.rows.column(self.0.time);
        let Some(times) = times.as_primitive_opt::<TimestampMillisecondType>() else {
            return Err(Fault::Evaluation(format!("{} is no time of events", times.data_type())));
        };
        let (mut rows, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..times.len() {
            if times.is_null(row) {
                continue;
            }
            let index =
                u32::try_from(row).map_err(|_| Fault::Limit("a batch of more than 4 billion rows".to_owned()))?;
            each(&self.0.windows, times.value(row), |start, end| {
                rows.push(index);
                starts.push(start);
                ends.push(end);
            });
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let kinds = match batch.kinds.is_empty() {
            true => Vec::new(),
            false => rows
                .iter()
                .filter_map(|row| batch.kinds.get(*row as usize).copied())
                .collect(),
        };
        let rows = UInt32Array::from(rows);
        let mut arrays = Vec::with_capacity(batch.rows.num_columns() + 3);
        for column in batch.rows.columns() {
            arrays.push(take(column, &rows, None).map_err(arrow_fault)?);
        }
        let zone = match times.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let last: Vec<Millis> = ends.iter().map(|end| end - 1).collect();
        let last: ArrayRef = Arc::new(TimestampMillisecondArray::from(last).with_timezone_opt(zone));
        arrays.push(Arc::new(TimestampMillisecondArray::from(starts)));
        arrays.push(Arc::new(TimestampMillisecondArray::from(ends)));
        arrays.push(last);
        let rows = make(&self.0.output, arrays, rows.len())?;
        Ok(Some(Batch { rows, kinds }))
    }
}

/// Each window that a time is in, the one that ends last first for HOP, the shortest first for CUMULATE, as in Flink.
fn each(windows: &Windows, time: Millis, mut give: impl FnMut(Millis, Millis)) {
    match *windows {
        Windows::Tumble { size, offset } => {
            let start = floor(time, size, offset);
            give(start, start + size);
        }
        Windows::Hop { slide, size, offset } => {
            let mut start = floor(time, slide, offset);
            while start > time - size {
                give(start, start + size);
                start -= slide;
            }
        }
        Windows::Cumulate { step, max, offset } => {
            let start = floor(time, max, offset);
            let mut end = floor(time, step, offset) + step;
            while end <= start + max {
                give(start, end);
                end += step;
            }
        }
        Windows::Session { .. } => {}
    }
}

fn floor(time: Millis, size: Millis, offset: Millis) -> Millis {
    time - (time - offset).rem_euclid(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(windows: Windows, time: Millis) -> Vec<(Millis, Millis)> {
        let mut given = Vec::new();
        each(&windows, time, |start, end| given.push((start, end)));
        given
    }

    #[test]
    fn a_time_is_in_every_window_that_begins_at_or_before_it_and_ends_behind_it() {
        assert_eq!(of(Windows::Tumble { size: 10, offset: 0 }, -1), [(-10, 0)]);
        assert_eq!(of(Windows::Tumble { size: 10, offset: 3 }, 12), [(3, 13)]);
        assert_eq!(of(Windows::Tumble { size: 10, offset: 3 }, 13), [(13, 23)]);
        assert_eq!(
            of(
                Windows::Hop {
                    slide: 5,
                    size: 10,
                    offset: 0
                },
                12
            ),
            [(10, 20), (5, 15)]
        );
        assert_eq!(
            of(
                Windows::Cumulate {
                    step: 2,
                    max: 6,
                    offset: 0
                },
                8
            ),
            [(6, 10), (6, 12)]
        );
    }
}
