//! Functions of lists and maps.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{Signature, TypeSignature, Volatility};

use super::{Simple, any, arrow};

pub(super) fn all() -> Vec<Simple> {
    vec![
        element(),
        Simple::new("cardinality", any(1), |_| Ok(DataType::Int32), cardinality),
        Simple::new("array_contains", any(2), |_| Ok(DataType::Boolean), contains),
    ]
}

/// `list[n]`, from 1; NULL where there is none.
pub(super) fn element() -> Simple {
    let signature = Signature::new(TypeSignature::Any(2), Volatility::Immutable);
    Simple::new("$element", signature, element_type, item)
}

fn element_type(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(DataType::List(item)) => Ok(item.data_type().clone()),
        other => plan_err!(
            "{} has no elements",
            other.map_or_else(String::new, crate::plan::types::name)
        ),
    }
}

fn item(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let Some(lists) = arrays.first().and_then(|array| array.as_list_opt::<i32>()) else {
        return exec_err!("only lists have elements");
    };
    let Some(index) = arrays.get(1) else {
        return exec_err!("the number of the element is missing");
    };
    let index = ::arrow::compute::cast(index, &DataType::Int64).map_err(arrow)?;
    let index = index.as_primitive::<::arrow::datatypes::Int64Type>();
    let at = |row: usize| {
        if lists.is_null(row) || index.is_null(row) {
            return None;
        }
        let begin = i64::from(lists.value_offsets().get(row).copied()?);
        let length = i64::from(lists.value_length(row));
        let wanted = index.value(row);
        (1..=length)
            .contains(&wanted)
            .then(|| u32::try_from(begin + wanted - 1).ok())
            .flatten()
    };
    let indices: UInt32Array = (0..rows).map(at).collect();
    take(lists.values(), &indices, None).map_err(arrow)
}

fn cardinality(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let Some(array) = arrays.first() else {
        return exec_err!("CARDINALITY of nothing");
    };
    let offsets = match (array.as_list_opt::<i32>(), array.as_map_opt()) {
        (Some(list), _) => list.value_offsets(),
        (_, Some(map)) => map.value_offsets(),
        _ => return exec_err!("CARDINALITY is of lists and maps"),
    };
    let length = |row: usize| {
        let (from, to) = (offsets.get(row)?, offsets.get(row + 1)?);
        array.is_valid(row).then_some(to - from)
    };
    Ok(Arc::new((0..rows).map(length).collect::<Int32Array>()))
}

fn contains(arrays: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let (Some(lists), Some(wanted)) = (
        arrays.first().and_then(|array| array.as_list_opt::<i32>()),
        arrays.get(1),
    ) else {
        return exec_err!("ARRAY_CONTAINS is of a list and a value");
    };
    let wanted = ::arrow::compute::cast(wanted, &lists.value_type()).map_err(arrow)?;
    let mut found = Vec::with_capacity(rows);
    for row in 0..rows {
        if lists.is_null(row) {
            found.push(None);
            continue;
        }
        let items = lists.value(row);
        let value = ScalarValue::try_from_array(&wanted, row)?;
        let mut has = false;
        for at in 0..items.len() {
            has = has || ScalarValue::try_from_array(&items, at)? == value;
        }
        found.push(Some(has));
    }
    Ok(Arc::new(BooleanArray::from(found)))
}
