//! Measurements: each program prints a ratio against a named peer or a physical limit, measured in its own run.

pub mod child;
pub mod stats;
