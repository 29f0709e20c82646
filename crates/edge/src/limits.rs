//! Every limit of the edge, each with its source. What goes beyond one gets a declared error before memory is taken.

use std::time::Duration;

/// Connections served at a time. Each costs a file descriptor and, while idle, some 10 KiB; the default leaves room for
/// 500 cameras, their consumers and a fleet of SDK connection pools.
pub const CONNECTIONS_MAX: usize = 4096;

/// Bytes of a request's head, and of the read buffer that body chunks are cut from. A presigned URL with a session token
/// and a policy stays under 8 KiB; producers send chunks of up to 64 KiB, which a buffer of twice that reads at full speed.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;

/// Header lines of a request; hyper's own default.
pub const HEADERS_MAX: usize = 100;

/// From the connection's start to its first byte, and for the whole TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the moment a head may begin until it is complete; ends idle keep-alive connections too.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A buffered body may pause this long between two pieces. The C producer gives a control call 10 s altogether.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// A buffered body must have arrived after this long: 16 MiB at 0.5 Mb/s.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(300);

/// A peer that takes no byte of an answer for this long is gone.
pub const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// TCP asks a silent peer for a sign of life after this long, so that a camera whose cable was cut is noticed.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Bytes of buffered bodies of all requests together; beyond it a request gets 503.
pub const BUFFERED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Connections that one convoy drives: each frame is sent to them one after the other, so that the last waits some
/// milliseconds for the first. A crowd that is larger has several convoys. Ours.
pub const CONVOY_MEMBERS_MAX: usize = 256;

/// Members that a convoy polls before the other tasks of its thread get their turn, half a millisecond. Ours.
pub const CONVOY_TURN: usize = 32;

/// Bytes and pieces of a live answer that are put into one chunk; a single piece may be longer. As hyper does it.
pub const LANE_BYTES: usize = 128 * 1024;
/// See [`LANE_BYTES`].
pub const LANE_PIECES: usize = 16;

/// Chunks that are written for one connection before others get their turn. As hyper does it.
pub const LANE_TURN: usize = 16;

/// HTTP/2 requests in flight on one connection; the AWS SDK for Java opens up to 100 for SubscribeToShard.
pub const H2_STREAMS_MAX: u32 = 128;

/// HTTP/2 flow-control window of one request's body, and of all bodies of a connection.
pub const H2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// See [`H2_STREAM_WINDOW_BYTES`].
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A body that is not wanted any more is read and thrown away up to this size and time, so that a client that is still
/// sending gets to see the answer instead of a connection reset.
pub const DISCARD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// See [`DISCARD_BYTES_MAX`].
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// A draining server gives the requests in flight this long.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Of the drain time, what a streaming answer (GetMedia) has left to end by itself before it is broken off.
pub const DRAIN_STREAM_GRACE: Duration = Duration::from_secs(2);

/// Body limit where the operation is not known, or known only from the body: that of AWS's control planes. Known
/// operations have theirs in [`wire::OperationInfo::body_bytes_max`].
pub const UNKNOWN_BODY_BYTES_MAX: usize = 1024 * 1024;

/// The limits that an operator or a test may set; the rest are the constants above.
#[derive(Clone, Debug)]
pub struct Limits {
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// See [`HEAD_TIMEOUT`].
    pub head_timeout: Duration,
    /// See [`BODY_IDLE_TIMEOUT`].
    pub body_idle_timeout: Duration,
    /// See [`BODY_TIMEOUT`].
    pub body_timeout: Duration,
    /// See [`WRITE_STALL_TIMEOUT`].
    pub write_stall_timeout: Duration,
    /// See [`BUFFERED_BYTES_MAX`].
    pub buffered_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: CONNECTIONS_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            head_timeout: HEAD_TIMEOUT,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            write_stall_timeout: WRITE_STALL_TIMEOUT,
            buffered_bytes_max: BUFFERED_BYTES_MAX,
        }
    }
}
