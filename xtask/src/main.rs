//! Chores of the project: `cargo xtask codegen`.
fn main() {}
