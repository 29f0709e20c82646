//! Steps that remember nothing: columns are computed, rows are left out, lists become rows, windows are assigned.

mod assign;
mod unnest;

pub(crate) use assign::AssignStep;
pub use unnest::Unnest;
pub(crate) use unnest::UnnestStep;

use std::io::{Read, Write};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::DataFusionError;

use crate::batch::Batch;
use crate::operator::{Fault, Millis, Operator};
use crate::spec::Expr;

/// What a step without state does with rows.
pub(crate) trait Stateless: Send {
    fn apply(&self, batch: Batch) -> Result<Option<Batch>, Fault>;
}

/// A step without state, as an operator.
pub(crate) struct Plain<S>(pub S);

impl<S: Stateless> Operator for Plain<S> {
    fn rows(&mut self, _input: usize, batch: Batch, out: &mut Vec<Batch>) -> Result<(), Fault> {
        out.extend(self.0.apply(batch)?);
        Ok(())
    }

    fn watermark(&mut self, _at: Millis, _out: &mut Vec<Batch>) -> Result<(), Fault> {
        Ok(())
    }

    fn snapshot(&mut self, _to: &mut dyn Write) -> Result<(), Fault> {
        Ok(())
    }

    fn restore(&mut self, _from: &mut dyn Read) -> Result<(), Fault> {
        Ok(())
    }

    fn memory(&self) -> usize {
        0
    }
}

/// Computes columns.
pub(crate) struct ProjectStep {
    pub exprs: Vec<Expr>,
    pub output: SchemaRef,
}

impl Stateless for ProjectStep {
    fn apply(&self, batch: Batch) -> Result<Option<Batch>, Fault> {
        let rows = batch.rows.num_rows();
        let arrays = self.exprs.iter().zip(self.output.fields()).map(|(expr, field)| {
            let array = evaluate(expr, &batch.rows)?;
            match array.data_type() == field.data_type() {
                true => Ok(array),
                false => arrow::compute::cast(&array, field.data_type()).map_err(arrow_fault),
            }
        });
        let arrays = arrays.collect::<Result<Vec<ArrayRef>, Fault>>()?;
        Ok(Some(Batch {
            rows: make(&self.output, arrays, rows)?,
            kinds: batch.kinds,
        }))
    }
}

/// Leaves out rows.
pub(crate) struct FilterStep(pub Expr);

impl Stateless for FilterStep {
    fn apply(&self, batch: Batch) -> Result<Option<Batch>, Fault> {
        let array = evaluate(&self.0, &batch.rows)?;
        let Some(wanted) = array.as_boolean_opt() else {
            return Err(Fault::Evaluation(format!("{} is no condition", self.0)));
        };
        if wanted.true_count() == wanted.len() {
            return Ok(Some(batch));
        }
        let rows = filter_record_batch(&batch.rows, wanted).map_err(arrow_fault)?;
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        let kept = batch
            .kinds
            .iter()
            .zip(wanted.iter())
            .filter(|(_, wanted)| *wanted == Some(true));
        let kinds = kept.map(|(kind, _)| *kind).collect();
        Ok(Some(Batch { rows, kinds }))
    }
}

/// The values of an expression.
pub(crate) fn evaluate(expr: &Expr, rows: &RecordBatch) -> Result<ArrayRef, Fault> {
    let value = expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
    value.map_err(|error| fault(&error))
}

/// A batch, also one without columns.
pub(crate) fn make(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, Fault> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options).map_err(arrow_fault)
}

/// An expression that failed on a row.
pub(crate) fn fault(error: &DataFusionError) -> Fault {
    Fault::Evaluation(error.strip_backtrace())
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn arrow_fault(error: arrow::error::ArrowError) -> Fault {
    Fault::Evaluation(error.to_string())
}
