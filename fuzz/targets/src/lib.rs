//! What is fuzzed: one function per parser that reads strangers' bytes. Each takes any bytes and panics only if a
//! promise is broken. `fuzz/libfuzzer` drives them under libFuzzer; `tests/smoke.rs` drives them without a nightly
//! compiler.
//!
//! Seeds lie in `fuzz/corpus/NAME`; `cargo run -p fuzz-targets --example corpus` writes them.

#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a target reports by panicking"
)]

pub mod mutate;

mod firehose;
mod ingest;
mod log;
mod mkv;
mod packaging;
mod sigv4;
mod tables;
mod vision;
mod wire_bodies;

pub use firehose::{firehose_prefix, firehose_query, firehose_records, sql_messages};
pub use ingest::ingest_rules;
pub use log::{MemoryDisk, fill, log_recovery};
pub use mkv::{mkv_codec, mkv_reader};
pub use packaging::packaging;
pub use sigv4::{ACCESS_KEY_ID, NOW_MS, SECRET, policy, sigv4};
pub use tables::tables;
pub use vision::vision_messages;
pub use wire_bodies::{
    registered, wire_cloudwatch, wire_dynamodb, wire_firehose, wire_kinesis, wire_kinesisanalytics, wire_kinesisvideo,
    wire_rekognition, wire_sts,
};

/// A target: its name, which is also that of its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("mkv_reader", mkv_reader),
    ("mkv_codec", mkv_codec),
    ("packaging", packaging),
    ("ingest_rules", ingest_rules),
    ("sigv4", sigv4),
    ("policy", policy),
    ("wire_kinesis", wire_kinesis),
    ("wire_kinesisvideo", wire_kinesisvideo),
    ("wire_rekognition", wire_rekognition),
    ("wire_sts", wire_sts),
    ("wire_dynamodb", wire_dynamodb),
    ("wire_cloudwatch", wire_cloudwatch),
    ("wire_firehose", wire_firehose),
    ("wire_kinesisanalytics", wire_kinesisanalytics),
    ("firehose_prefix", firehose_prefix),
    ("firehose_records", firehose_records),
    ("firehose_query", firehose_query),
    ("sql_messages", sql_messages),
    ("vision_messages", vision_messages),
    ("tables", tables),
    ("log_recovery", log_recovery),
];
