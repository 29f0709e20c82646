//! Record load on bare sockets, for the figures of data streams: requests that were signed before the clock starts, and
//! readers that check every payload. What producers and consumers cost beside the server is little, and the same for all.

pub mod connection;
pub mod notation;
pub mod payload;
pub mod put;
pub mod read;
pub mod subscribe;

use std::net::SocketAddr;

/// A server that speaks the API, ours or another.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
}
