//! Measurements: each program prints a ratio against a named peer or a physical limit.
