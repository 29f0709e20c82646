//! The power-cut simulation: a lossy disk in memory, a model of what was promised, and a driver that steps the lanes by
//! hand. Everything follows from a seed.

mod disk;
mod driver;
mod faults;
mod fuzz;
mod model;
mod power;

pub(crate) use disk::{Fault, SimDisk};
