//! Measurements: each program prints a ratio against a named peer or a physical limit, measured in one run, with the
//! method beside it. What they share is here: a real server as a child process, synthetic video, the system's own counters.
#![allow(
    missing_docs,
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock and the system's files itself"
)]

pub mod fanout;
pub mod film;
pub mod fragment;
pub mod measure;
pub mod records;
pub mod report;
pub mod server;

/// What goes wrong in a measuring program ends it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
