//! Records: put, read, and what an iterator stands for.

pub mod cipher;
mod get;
mod iterator;
pub mod place;
mod put;
pub mod throttle;

pub use get::{millis_behind, open_record, wire_record};
pub use put::refuse_dry_run;
