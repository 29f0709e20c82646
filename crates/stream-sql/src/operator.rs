//! What every operator is: rows and watermarks go in, rows come out, and its state can be kept and brought back.

use std::io::{Read, Write};

use crate::batch::Batch;

/// Milliseconds since 1970, of events. A watermark `w` says: no row with a time of `w` or before comes any more, but
/// late ones. As in Flink, a source's watermark is the greatest time seen, less the delay, less 1 ms.
pub type Millis = i64;

/// Why a job cannot go on. For people: it names the statement's part and the value.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An expression failed on a row (a division by zero, a cast that does not fit).
    #[error("{0}")]
    Evaluation(String),
    /// State is beyond what memory and disk may hold.
    #[error("{0}")]
    Limit(String),
    /// State could not be written or read.
    #[error("{0}")]
    State(String),
}

/// One step of a query. Single-threaded; the job drives it.
///
/// An operator with two inputs gets the least watermark of both; late rows are those whose time (of the window's end − 1,
/// where there are windows) is at or below the watermark: they are left out and counted.
pub trait Operator: Send {
    /// Takes rows of an input (0, or 1 for the right side of a join) and gives what follows from them at once.
    fn rows(&mut self, input: usize, batch: Batch, out: &mut Vec<Batch>) -> Result<(), Fault>;

    /// Event time has come this far on every input: finished windows, joins and patterns are given, and forgotten.
    fn watermark(&mut self, at: Millis, out: &mut Vec<Batch>) -> Result<(), Fault>;

    /// The watermark that goes on to the next operator, where it is not the same (an interval join holds it back).
    fn passes_on(&self, at: Millis) -> Millis {
        at
    }

    /// Writes the state; what `restore` reads. Operators without state write nothing.
    fn snapshot(&mut self, to: &mut dyn Write) -> Result<(), Fault>;

    /// Brings the state back, into an operator that has none.
    fn restore(&mut self, from: &mut dyn Read) -> Result<(), Fault>;

    /// Bytes of state in memory, about.
    fn memory(&self) -> usize;

    /// Bytes of state on disk.
    fn disk(&self) -> u64 {
        0
    }

    /// Puts state out of memory, to about half; nothing where the operator cannot.
    fn spill(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Rows that came too late so far.
    fn late(&self) -> u64 {
        0
    }
}
