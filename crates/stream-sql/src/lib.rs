//! Streaming SQL in Flink's dialect: statements are parsed and their expressions evaluated by DataFusion; what flows,
//! waits and remembers is here. No network and no clock: records are pushed in, rows are taken out, and time comes with
//! the records (watermarks) or from the caller.
//!
//! ```text
//! script ─ plan/ ─▶ Program ─▶ Job: decode ▸ operators (ops/) ▸ encode
//!                                     └─ state ─ snapshot/restore, spilled below a directory
//! ```

pub mod batch;
pub mod decode;
pub mod encode;
mod graph;
pub mod job;
pub mod limits;
mod marks;
pub mod operator;
mod plan;
pub mod program;
pub mod spec;
mod steps;
pub mod table;

pub use decode::{Decoded, Decoder, Record, Rejected};
pub use encode::{Encoder, encode_json, json_values};
pub use job::{Job, JobConfig, Rows};
pub use operator::Fault;
pub use program::{PlanError, Program};
pub use table::Table;
