//! GetMedia and its relatives: stored and live fragments become documents.

pub mod document;
