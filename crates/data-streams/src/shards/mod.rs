//! Shards: how they divide a stream, follow each other, and are listed.

mod list;
pub mod plan;
mod reshard;
mod scale;

pub use list::wire_shard;
pub use reshard::child_shards;
