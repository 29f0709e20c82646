//! `ROW_NUMBER()`: it is never computed by itself; the planner makes top-N and deduplication of it.

use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, not_impl_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};

/// Its name.
pub(in crate::plan) const ROW_NUMBER: &str = "row_number";

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct RowNumber {
    signature: Signature,
}

impl RowNumber {
    pub(super) fn new() -> RowNumber {
        RowNumber {
            signature: Signature::nullary(Volatility::Immutable),
        }
    }
}

impl WindowUDFImpl for RowNumber {
    fn name(&self) -> &str {
        ROW_NUMBER
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        not_impl_err!("ROW_NUMBER() is there for top-N alone: SELECT ... WHERE row_number <= N")
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, true)))
    }
}
