//! The operations, by what they are about.

pub mod admin;
pub mod batch;
pub mod items;
pub mod read;
pub mod request;
pub mod tables;
pub mod transact;
