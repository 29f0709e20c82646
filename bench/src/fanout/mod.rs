//! What the fan-out measurement is made of: cameras whose frames carry the time of their sending, one epoll loop that sends
//! frames to sockets at their pace, and one that drains sockets and reads those times.
//!
//! The same sending loop is the producers of the server under test and, in a process of its own, its peer.

pub mod cameras;
pub mod drain;
pub mod request;
pub mod sender;
