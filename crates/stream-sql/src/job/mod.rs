//! A program that runs: rows and event time go from step to step. One thread; no clock. What comes out waits until it is
//! taken.

mod build;
mod snapshot;

use std::collections::VecDeque;
use std::path::PathBuf;

use arrow::record_batch::RecordBatch;

use crate::batch::{Batch, Kind};
use crate::decode::Decoded;
use crate::graph::Step;
use crate::limits;
use crate::marks::{Mark, Partitions};
use crate::operator::{Fault, Millis};
use crate::program::Program;
use build::Operation;
pub(crate) use build::can_do;

/// What a job may use.
#[derive(Clone, Debug)]
pub struct JobConfig {
    /// Bytes of state in memory. What is beyond goes to `state_dir`.
    pub memory_limit: u64,
    /// A directory that nothing else writes in. What lies in it is of no use once the job is gone.
    pub state_dir: PathBuf,
}

/// Rows for a sink.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Its index.
    pub sink: usize,
    /// The rows.
    pub batch: Batch,
}

/// A step that runs.
struct Running {
    operation: Operation,
    /// The steps behind, each with the number of its input.
    targets: Vec<(usize, usize)>,
    /// The steps before.
    inputs: Vec<usize>,
    /// How far event time has come here.
    applied: Option<Millis>,
    /// What the steps behind are told of it.
    told: Mark,
}

/// A program that runs.
pub struct Job {
    program: Program,
    config: JobConfig,
    steps: Vec<Running>,
    fingerprints: Vec<u64>,
    partitions: Vec<Partitions>,
    ready: Vec<Rows>,
}

impl Job {
    /// Makes what the program needs, with no state.
    pub fn new(program: Program, config: JobConfig) -> Result<Job, Fault> {
        let mut steps = Vec::with_capacity(program.nodes.len());
        for (index, node) in program.nodes.iter().enumerate() {
            steps.push(Running {
                operation: build::operation(node, index, &config)?,
                targets: Vec::new(),
                inputs: node.inputs.clone(),
                applied: None,
                told: Mark::Unknown,
            });
        }
        for (index, node) in program.nodes.iter().enumerate() {
            for (number, input) in node.inputs.iter().enumerate() {
                if let Some(before) = steps.get_mut(*input) {
                    before.targets.push((index, number));
                }
            }
        }
        Ok(Job {
            fingerprints: program.fingerprints(),
            partitions: vec![Partitions::default(); program.sources.len()],
            steps,
            program,
            config,
            ready: Vec::new(),
        })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Sets all rows of a reference.
    #[allow(clippy::needless_pass_by_value, reason = "the rows are kept")]
    pub fn set_reference(&mut self, reference: usize, rows: Vec<RecordBatch>) -> Result<(), Fault> {
        for (running, node) in self.steps.iter_mut().zip(&self.program.nodes) {
            if matches!(node.step, Step::LookupJoin(_, index) if index == reference) {
                running.operation.set_reference(&rows)?;
            }
        }
        Ok(())
    }

    /// Says that a partition will be read: it holds event time back until it has rows.
    pub fn open_partition(&mut self, source: usize, partition: u32) {
        if let Some(partitions) = self.partitions.get_mut(source) {
            partitions.open(partition);
        }
    }

    /// Says that a partition was read to its end.
    pub fn close_partition(&mut self, source: usize, partition: u32) -> Result<(), Fault> {
        if let Some(partitions) = self.partitions.get_mut(source) {
            partitions.close(partition);
        }
        self.advance()
    }

    /// Says that a partition is silent, and holds nothing back, or that it is not any more.
    pub fn set_idle(&mut self, source: usize, partition: u32, idle: bool) -> Result<(), Fault> {
        if let Some(partitions) = self.partitions.get_mut(source) {
            partitions.set_idle(partition, idle);
        }
        self.advance()
    }

    /// Takes records of a source's partition. Their rows go through all steps, then event time does.
    #[allow(clippy::needless_pass_by_value, reason = "what was decoded is used up")]
    pub fn push(&mut self, source: usize, partition: u32, decoded: Decoded) -> Result<(), Fault> {
        let mut from = 0;
        let rows = decoded.batch.num_rows();
        while from < rows {
            let many = (rows - from).min(limits::BATCH_ROWS);
            let batch = decoded.batch.slice(from, many);
            from += many;
            for index in 0..self.steps.len() {
                let is = matches!(self.program.nodes.get(index).map(|node| &node.step), Some(Step::Source(s)) if *s == source);
                if is {
                    self.deliver(index, vec![Batch::inserts(batch.clone())])?;
                }
            }
        }
        if let Some(partitions) = self.partitions.get_mut(source)
            && rows > 0
        {
            partitions.saw(partition, decoded.greatest);
        }
        self.advance()?;
        self.keep_below_limit()
    }

    /// The end of every input: whatever waits for event time is given.
    pub fn finish(&mut self) -> Result<(), Fault> {
        self.partitions.iter_mut().for_each(Partitions::end);
        self.advance()
    }

    /// The rows that came out since they were last taken, in their order for each sink.
    pub fn take(&mut self) -> Vec<Rows> {
        std::mem::take(&mut self.ready)
    }

    /// How far event time has come at the step where it is least; none before it is known everywhere.
    pub fn watermark(&self) -> Option<Millis> {
        let sources = self.program.sources.iter().zip(&self.partitions);
        let marks = sources.filter_map(|(table, partitions)| {
            let rowtime = table.rowtime.as_ref()?;
            Some(partitions.mark(rowtime.delay_ms))
        });
        match marks.fold(Mark::Idle, Mark::least) {
            Mark::At(at) => Some(at),
            Mark::Unknown | Mark::Idle => None,
        }
    }

    /// Rows that came too late for their window.
    pub fn late(&self) -> u64 {
        self.steps.iter().map(|step| step.operation.late()).sum()
    }

    /// Bytes of state in memory and on disk.
    pub fn state_bytes(&self) -> u64 {
        self.memory() + self.steps.iter().map(|step| step.operation.disk()).sum::<u64>()
    }

    fn memory(&self) -> u64 {
        self.steps.iter().map(|step| step.operation.memory()).sum()
    }

    /// Brings rows of a step to the steps behind it, and what comes of them to those behind these.
    fn deliver(&mut self, from: usize, batches: Vec<Batch>) -> Result<(), Fault> {
        let mut waiting = VecDeque::new();
        self.send(from, batches, &mut waiting);
        while let Some((step, input, batch)) = waiting.pop_front() {
            let Some(running) = self.steps.get_mut(step) else {
                continue;
            };
            let mut out = Vec::new();
            match &mut running.operation {
                Operation::Through => out.push(batch),
                Operation::Sink(sink, changelog) => {
                    let (sink, changelog) = (*sink, *changelog);
                    let batch = with_kinds(batch, changelog);
                    self.ready.push(Rows { sink, batch });
                }
                Operation::Step(operator) => operator.rows(input, batch, &mut out)?,
                Operation::Lookup(operator) => operator.rows(input, batch, &mut out)?,
            }
            self.send(step, out, &mut waiting);
        }
        Ok(())
    }

    fn send(&self, from: usize, batches: Vec<Batch>, waiting: &mut VecDeque<(usize, usize, Batch)>) {
        let Some(running) = self.steps.get(from) else { return };
        for batch in batches.into_iter().filter(|batch| batch.rows.num_rows() > 0) {
            for (target, input) in &running.targets {
                waiting.push_back((*target, *input, batch.clone()));
            }
        }
    }

    /// Lets event time go on as far as it has come. Steps stand behind their inputs, so one pass is enough.
    fn advance(&mut self) -> Result<(), Fault> {
        for index in 0..self.steps.len() {
            let mark = self.mark_before(index);
            let Some(running) = self.steps.get_mut(index) else {
                continue;
            };
            let at = match mark {
                Mark::At(at) if running.applied.is_none_or(|applied| applied < at) => at,
                Mark::Idle => {
                    running.told = Mark::Idle;
                    continue;
                }
                _ => {
                    // It was idle and is not any more: what was told before still holds.
                    let applied = running.applied;
                    running.told = applied.map_or(Mark::Unknown, |at| Mark::At(running.operation.passes_on(at)));
                    continue;
                }
            };
            let mut out = Vec::new();
            running.operation.watermark(at, &mut out)?;
            running.applied = Some(at);
            running.told = Mark::At(running.operation.passes_on(at));
            self.deliver(index, out)?;
        }
        Ok(())
    }

    /// How far event time has come before a step.
    fn mark_before(&self, index: usize) -> Mark {
        let Some(node) = self.program.nodes.get(index) else {
            return Mark::Idle;
        };
        if let Step::Source(source) = &node.step {
            let delay = self
                .program
                .sources
                .get(*source)
                .and_then(|table| table.rowtime.as_ref());
            let partitions = self.partitions.get(*source);
            return match (partitions, delay) {
                (Some(partitions), Some(rowtime)) => partitions.mark(rowtime.delay_ms),
                (Some(partitions), None) if matches!(partitions.mark(0), Mark::At(Millis::MAX)) => {
                    Mark::At(Millis::MAX)
                }
                _ => Mark::Unknown,
            };
        }
        let inputs = self.steps.get(index).map_or(&[][..], |running| &running.inputs);
        let told = inputs
            .iter()
            .filter_map(|input| self.steps.get(*input))
            .map(|running| running.told);
        told.fold(Mark::Idle, Mark::least)
    }

    /// Puts state on disk where there is more in memory than may be, the greatest first.
    fn keep_below_limit(&mut self) -> Result<(), Fault> {
        while self.memory() > self.config.memory_limit {
            let before = self.memory();
            let greatest = self.steps.iter_mut().max_by_key(|step| step.operation.memory());
            if let Some(step) = greatest {
                step.operation.spill()?;
            }
            let after = self.memory();
            if after >= before {
                let limit = self.config.memory_limit;
                return Err(Fault::Limit(format!(
                    "State of {after} bytes is beyond the limit of {limit} bytes and cannot be put on disk"
                )));
            }
        }
        Ok(())
    }
}

/// Rows that stay have no kinds, and those of a changelog have.
fn with_kinds(mut batch: Batch, changelog: bool) -> Batch {
    if !changelog {
        batch.kinds.clear();
    } else if batch.kinds.is_empty() {
        batch.kinds.resize(batch.rows.num_rows(), Kind::Insert);
    }
    batch
}
