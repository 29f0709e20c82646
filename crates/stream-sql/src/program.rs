//! A script that was planned: what it reads, what it writes, and the steps between.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::graph::{self, Node, Step};
use crate::plan;
pub use crate::plan::error::PlanError;
use crate::table::Table;

/// Statements that can run. See [`crate::job::Job`].
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) sources: Vec<Table>,
    pub(crate) references: Vec<Table>,
    pub(crate) sinks: Vec<Table>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) decoders: Vec<Decoder>,
    pub(crate) reference_decoders: Vec<Decoder>,
}

impl Program {
    /// Plans a script: `CREATE TABLE`, `CREATE VIEW`, `INSERT INTO`, statement sets, `SET`, and queries by themselves, whose
    /// rows go to a table `print` (`print_2` for the second) with the connector `print`. `declared` are tables that are
    /// there beside the script's own; one that the script declares goes before one of the same name.
    pub fn plan(script: &str, declared: &[Table]) -> Result<Program, PlanError> {
        plan::plan(script, declared)
    }

    /// What is read as streams. An index into it is a source.
    pub fn sources(&self) -> &[Table] {
        &self.sources
    }

    /// What rows are looked up in.
    pub fn references(&self) -> &[Table] {
        &self.references
    }

    /// What is written to, with the columns of the query where none were declared.
    pub fn sinks(&self) -> &[Table] {
        &self.sinks
    }

    /// What `SET` said.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// The steps, as a tree below each sink.
    pub fn explain(&self) -> String {
        graph::explain(&self.nodes, &|step| self.name(step))
    }

    /// What makes batches of a source's records. None such: of no columns.
    pub fn decoder(&self, source: usize) -> Decoder {
        self.decoders.get(source).cloned().unwrap_or_else(Decoder::none)
    }

    /// What makes rows of a reference's records, where they are JSON.
    pub fn reference_decoder(&self, reference: usize) -> Decoder {
        self.reference_decoders
            .get(reference)
            .cloned()
            .unwrap_or_else(Decoder::none)
    }

    /// The columns that the rows of a reference must have.
    pub fn reference_schema(&self, reference: usize) -> SchemaRef {
        self.reference_decoder(reference).schema()
    }

    /// How the rows of a sink are written as JSON.
    pub fn encoder(&self, sink: usize) -> Encoder {
        self.sinks.get(sink).map(Encoder::of).unwrap_or_default()
    }

    /// The columns of a sink's rows.
    pub fn sink_schema(&self, sink: usize) -> Option<SchemaRef> {
        let is = |node: &&Node| matches!(node.step, Step::Sink(index, _) if index == sink);
        self.nodes.iter().find(is).map(|node| Arc::clone(&node.schema))
    }

    /// Of each step a number that is the same where the step and everything before it is the same.
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        graph::fingerprints(&self.nodes, &|step| self.name(step))
    }

    /// What stands for steps that are numbered by what the program happens to hold.
    fn name(&self, step: &Step) -> Option<String> {
        match step {
            Step::Source(index) => {
                let table = self.sources.get(*index)?;
                let rowtime = table.rowtime.as_ref();
                let watermark = rowtime.map_or_else(String::new, |rowtime| {
                    format!(", watermark={} - {} ms", rowtime.column, rowtime.delay_ms)
                });
                Some(format!("Source(table={}{watermark})", table.name))
            }
            Step::Sink(index, _) => self
                .sinks
                .get(*index)
                .map(|table| format!("Sink(table={})", table.name)),
            _ => None,
        }
    }
}
