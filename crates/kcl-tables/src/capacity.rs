//! The units of capacity that a request is said to have consumed, reckoned as the developer guide says. Nothing is limited by them.

use std::collections::BTreeMap;

use wire::dynamodb::{Capacity, ConsumedCapacity, ReturnConsumedCapacity};

/// What a unit of writing covers.
const WRITE_UNIT_BYTES: usize = 1024;
/// What a unit of consistent reading covers.
const READ_UNIT_BYTES: usize = 4096;

/// Units of writing an item of this size.
pub fn write_units(bytes: usize) -> f64 {
    bytes.div_ceil(WRITE_UNIT_BYTES).max(1) as f64
}

/// Units of reading so many bytes; half if an older answer would do.
pub fn read_units(bytes: usize, consistent: bool) -> f64 {
    let units = bytes.div_ceil(READ_UNIT_BYTES).max(1) as f64;
    if consistent { units } else { units / 2.0 }
}

/// What is told of units spent on a table, or on one of its indexes.
pub fn consumed(
    wanted: Option<ReturnConsumedCapacity>,
    table: &str,
    units: f64,
    index: Option<(&str, bool)>,
) -> Option<ConsumedCapacity> {
    let wanted = wanted.filter(|wanted| *wanted != ReturnConsumedCapacity::None)?;
    let mut told = ConsumedCapacity {
        table_name: Some(table.to_owned()),
        capacity_units: Some(units),
        ..ConsumedCapacity::default()
    };
    if wanted == ReturnConsumedCapacity::Indexes {
        let of = |units| Capacity {
            capacity_units: Some(units),
            ..Capacity::default()
        };
        told.table = Some(of(if index.is_some() { 0.0 } else { units }));
        if let Some((name, local)) = index {
            let units = BTreeMap::from([(name.to_owned(), of(units))]);
            match local {
                true => told.local_secondary_indexes = Some(units),
                false => told.global_secondary_indexes = Some(units),
            }
        }
    }
    Some(told)
}
