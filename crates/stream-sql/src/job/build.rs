//! From a step's description to what carries it out.

use arrow::record_batch::RecordBatch;

use super::JobConfig;
use crate::batch::Batch;
use crate::graph::{Node, Step};
use crate::operator::{Fault, Millis, Operator};
use crate::spec::Windows;
use crate::steps::{AssignStep, FilterStep, Plain, ProjectStep, UnnestStep};

/// What a step does when it runs.
pub(super) enum Operation {
    /// Rows go through as they are.
    Through,
    /// Rows are kept until they are taken; whether some are taken back.
    Sink(usize, bool),
    /// Rows are worked on.
    Step(Box<dyn Operator>),
    /// Rows are looked up.
    #[allow(dead_code, reason = "the look-up is made as soon as there is one")]
    Lookup(Box<dyn Lookup>),
}

/// A step with a table beside.
pub(super) trait Lookup: Operator {
    fn set_reference(&mut self, rows: &[RecordBatch]) -> Result<(), Fault>;
}

impl Operation {
    fn operator(&self) -> Option<&dyn Operator> {
        match self {
            Operation::Step(operator) => Some(operator.as_ref()),
            Operation::Lookup(operator) => Some(operator.as_ref()),
            Operation::Through | Operation::Sink(..) => None,
        }
    }

    pub fn operator_mut(&mut self) -> Option<&mut dyn Operator> {
        match self {
            Operation::Step(operator) => Some(operator.as_mut()),
            Operation::Lookup(operator) => Some(operator.as_mut()),
            Operation::Through | Operation::Sink(..) => None,
        }
    }

    pub fn set_reference(&mut self, rows: &[RecordBatch]) -> Result<(), Fault> {
        match self {
            Operation::Lookup(operator) => operator.set_reference(rows),
            _ => Ok(()),
        }
    }

    pub fn watermark(&mut self, at: Millis, out: &mut Vec<Batch>) -> Result<(), Fault> {
        self.operator_mut()
            .map_or(Ok(()), |operator| operator.watermark(at, out))
    }

    /// The end of event time is the end for everybody.
    pub fn passes_on(&self, at: Millis) -> Millis {
        match self.operator() {
            Some(operator) if at < Millis::MAX => operator.passes_on(at),
            _ => at,
        }
    }

    pub fn late(&self) -> u64 {
        self.operator().map_or(0, Operator::late)
    }

    pub fn memory(&self) -> u64 {
        let bytes = self.operator().map_or(0, Operator::memory);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    pub fn disk(&self) -> u64 {
        self.operator().map_or(0, Operator::disk)
    }

    pub fn spill(&mut self) -> Result<(), Fault> {
        self.operator_mut().map_or(Ok(()), Operator::spill)
    }
}

/// What carries out a step.
pub(super) fn operation(node: &Node, _index: usize, _config: &JobConfig) -> Result<Operation, Fault> {
    let output = || std::sync::Arc::clone(&node.schema);
    let step: Box<dyn Operator> = match &node.step {
        Step::Source(_) | Step::Union => return Ok(Operation::Through),
        Step::Sink(sink, changelog) => return Ok(Operation::Sink(*sink, *changelog)),
        Step::Project(exprs) => Box::new(Plain(ProjectStep {
            exprs: exprs.clone(),
            output: output(),
        })),
        Step::Filter(expr) => Box::new(Plain(FilterStep(expr.clone()))),
        Step::Unnest(spec) => Box::new(Plain(UnnestStep(spec.clone()))),
        Step::Assign(spec) if !matches!(spec.windows, Windows::Session { .. }) => {
            Box::new(Plain(AssignStep(spec.clone())))
        }
        other => return Err(Fault::State(format!("{} cannot be carried out", other.describe()))),
    };
    Ok(Operation::Step(step))
}

/// Whether a step can be carried out; else why not.
pub(crate) fn can_do(step: &Step) -> Result<(), String> {
    let missing = |what: &str| Err(format!("{what} is not there yet"));
    match step {
        Step::WindowAggregate(_) => missing("GROUP BY a window"),
        Step::GroupAggregate(spec) if spec.aggregates.is_empty() => missing("DISTINCT"),
        Step::GroupAggregate(_) => missing("GROUP BY without a window"),
        Step::TopN(..) => missing("ROW_NUMBER()"),
        Step::Deduplicate(_) => missing("ROW_NUMBER() by time"),
        Step::IntervalJoin(_) => missing("a join of two streams by time"),
        Step::WindowJoin(_) => missing("a join of two windows"),
        Step::LookupJoin(..) => missing("FOR SYSTEM_TIME AS OF"),
        Step::Pattern(_) => missing("MATCH_RECOGNIZE"),
        Step::Assign(spec) if matches!(spec.windows, Windows::Session { .. }) => missing("SESSION"),
        _ => Ok(()),
    }
}
