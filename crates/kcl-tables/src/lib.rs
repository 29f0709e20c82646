//! Tables for programs that keep their state beside a stream: the part of DynamoDB that consumer libraries keep their leases in, general
//! enough for a program's own small tables, and CloudWatch's PutMetricData, whose metrics go to `/metrics`.
//!
//! Items are held in memory and kept in the catalog; a write is answered when it is on stable storage. It knows nothing of HTTP, of
//! streams, or of who reads the metrics.

mod capacity;
mod error;
pub mod expr;
mod key;
mod legacy;
pub mod limits;
mod metrics;
pub mod number;
mod ops;
mod row;
mod schema;
mod service;
mod store;
mod table;
pub mod value;
mod write;

pub use metrics::ClientMetrics;
pub use service::{KclTables, Parts, StartError};
