//! Expressions: conditions, key conditions, filters, updates and projections, from their text to something that can be carried out on an
//! item. Pure: it knows items and nothing of tables. Names and values are put in while parsing, so that an expression stands for
//! itself afterwards.

mod condition;
mod lexer;
mod parser;
mod path;
mod update;

pub use condition::{Comparator, Condition, Operand};
pub use parser::{Placeholders, parse_condition, parse_projection, parse_update};
pub use path::{Path, Step, project};
pub use update::{SetValue, Update, UpdateError};
