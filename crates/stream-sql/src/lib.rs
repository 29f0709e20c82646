//! Streaming SQL in Flink's dialect: statements are parsed and their expressions evaluated by DataFusion; what flows,
//! waits and remembers is here. No network and no clock: records are pushed in, rows are taken out, and time comes with
//! the records (watermarks) or from the caller.
//!
//! ```text
//! script ─ plan/ ─▶ Program ─▶ Job: decode ▸ operators (ops/) ▸ encode
//!                                     └─ state ─ snapshot/restore, spilled below a directory
//! ```

pub mod batch;
pub mod operator;
pub mod spec;
pub mod table;
