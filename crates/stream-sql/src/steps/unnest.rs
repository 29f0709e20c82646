//! `CROSS JOIN UNNEST(list)`: a row for each item.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};

use super::{Stateless, arrow_fault, evaluate, make};
use crate::batch::Batch;
use crate::operator::Fault;
use crate::spec::Expr;

/// What is unnested.
#[derive(Clone, Debug)]
pub struct Unnest {
    /// The list, over the input's columns.
    pub list: Expr,
    /// Rows whose list is empty stay, with NULLs (`LEFT JOIN`).
    pub keep: bool,
    /// The input's columns; then the item, or each field of an item that is a ROW; of a MAP key and value.
    pub output: SchemaRef,
}

pub(crate) struct UnnestStep(pub Unnest);

impl Stateless for UnnestStep {
    fn apply(&self, batch: Batch) -> Result<Option<Batch>, Fault> {
        let lists = evaluate(&self.0.list, &batch.rows)?;
        let (offsets, items) = parts(&lists)?;
        let (mut rows, mut at) = (Vec::new(), Vec::new());
        for row in 0..lists.len() {
            let range = match lists.is_valid(row) {
                true => range(offsets, row),
                false => 0..0,
            };
            let row = u32::try_from(row).map_err(|_| Fault::Limit("a batch of more than 4 billion rows".to_owned()))?;
            if range.is_empty() && self.0.keep {
                rows.push(row);
                at.push(None);
            }
            for item in range {
                rows.push(row);
                at.push(u32::try_from(item).ok());
            }
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
        let (rows, at) = (UInt32Array::from(rows), UInt32Array::from(at));
        let mut arrays = Vec::with_capacity(self.0.output.fields().len());
        for column in batch.rows.columns() {
            arrays.push(take(column, &rows, None).map_err(arrow_fault)?);
        }
        match items.data_type() {
            DataType::Struct(_) => {
                let items = take(&items, &at, None).map_err(arrow_fault)?;
                let items = items.as_struct();
                for column in items.columns() {
                    arrays.push(with_nulls(column, items.nulls())?);
                }
            }
            _ => arrays.push(take(&items, &at, None).map_err(arrow_fault)?),
        }
        let rows = make(&self.0.output, arrays, rows.len())?;
        Ok(Some(Batch { rows, kinds }))
    }
}

/// The fields of a ROW that is NULL are NULL.
fn with_nulls(column: &ArrayRef, nulls: Option<&arrow::buffer::NullBuffer>) -> Result<ArrayRef, Fault> {
    let Some(nulls) = nulls else {
        return Ok(column.clone());
    };
    let absent = arrow::array::BooleanArray::new(!nulls.inner(), None);
    arrow::compute::nullif(column, &absent).map_err(arrow_fault)
}

fn parts(lists: &ArrayRef) -> Result<(&[i32], ArrayRef), Fault> {
    if let Some(list) = lists.as_list_opt::<i32>() {
        return Ok((list.value_offsets(), list.values().clone()));
    }
    match lists.as_map_opt() {
        Some(map) => Ok((map.value_offsets(), std::sync::Arc::new(map.entries().clone()))),
        None => Err(Fault::Evaluation(format!("{} cannot be unnested", lists.data_type()))),
    }
}

fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |row: usize| {
        offsets
            .get(row)
            .and_then(|offset| usize::try_from(*offset).ok())
            .unwrap_or(0)
    };
    at(row)..at(row + 1)
}
