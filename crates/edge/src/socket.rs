//! A TCP socket that counts its bytes, gives up on a peer that takes no more, and can be watched for the peer's close
//! while something else owns its reading side.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::metrics::IntCounter;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::limits::KEEPALIVE_AFTER;

/// How often a socket with unread bytes before its end is asked again whether the peer has closed.
const RECHECK_CLOSED: Duration = Duration::from_secs(1);

/// The socket of one connection.
pub(crate) struct Socket {
    bytes_in: IntCounter,
    out: Out,
    blocked: Arc<AtomicBool>,
}

/// The writing side of a socket.
pub(crate) struct Out {
    stream: Arc<TcpStream>,
    bytes_out: IntCounter,
    write_stall_timeout: Duration,
    /// Armed while the peer takes no bytes.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// A second way to write to a socket that was handed to a protocol engine, for the times when the engine writes nothing.
pub(crate) struct SecondOut {
    pub(crate) out: Out,
    blocked: Arc<AtomicBool>,
}

impl SecondOut {
    /// True while the engine holds bytes that the socket did not take.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }
}

impl Socket {
    /// Takes over an accepted connection: no delay for small acks, probes for dead peers.
    pub(crate) fn new(
        stream: TcpStream,
        bytes_in: IntCounter,
        bytes_out: IntCounter,
        write_stall_timeout: Duration,
    ) -> Self {
        let options = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_AFTER / 3)
            .with_retries(3);
        if let Err(error) = stream
            .set_nodelay(true)
            .and_then(|()| options.set_tcp_keepalive(&keepalive))
        {
            tracing::debug!(%error, "socket options were refused");
        }
        Socket {
            bytes_in,
            out: Out {
                stream: Arc::new(stream),
                bytes_out,
                write_stall_timeout,
                stalled: None,
            },
            blocked: Arc::default(),
        }
    }

    /// See [`SecondOut`].
    pub(crate) fn second_out(&self) -> SecondOut {
        SecondOut {
            out: Out {
                stream: Arc::clone(&self.out.stream),
                bytes_out: self.out.bytes_out.clone(),
                write_stall_timeout: self.out.write_stall_timeout,
                stalled: None,
            },
            blocked: Arc::clone(&self.blocked),
        }
    }

    /// A watch that outlives the hand-over of the socket to the protocol engine.
    pub(crate) fn watch(&self) -> CloseWatch {
        CloseWatch(Arc::clone(&self.out.stream))
    }

    /// The first byte that the peer sends, left in the socket; `None` when it closed without one.
    pub(crate) async fn peek_first(&self) -> io::Result<Option<u8>> {
        let mut first = [0_u8];
        let seen = self.out.stream.peek(&mut first).await?;
        Ok(first.first().copied().filter(|_| seen == 1))
    }

    /// Sends what fits without waiting; for a refusal before the connection is dropped.
    pub(crate) fn send_now(&self, bytes: &[u8]) {
        if let Err(error) = self.out.stream.try_write(bytes) {
            tracing::debug!(%error, "refusal was not sent");
        }
    }

    fn noted<T>(&self, written: Poll<T>) -> Poll<T> {
        self.blocked.store(written.is_pending(), Ordering::Relaxed);
        written
    }
}

impl Out {
    /// Writes what the socket takes of these pieces.
    pub(crate) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(pieces))
    }

    /// Runs one write until it is done or the peer has taken nothing for too long.
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                let timeout = self.write_stall_timeout;
                let stalled = self
                    .stalled
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
                ready!(stalled.as_mut().poll(cx));
                let message = "the peer took no bytes for too long";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)));
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(written) => {
                    self.stalled = None;
                    self.bytes_out.inc_by(written as u64);
                    return Poll::Ready(Ok(written));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.out.stream.poll_read_ready(cx))?;
            // SAFETY: `try_read_buf` writes into the spare bytes and never un-initialises one.
            #[allow(unsafe_code, reason = "reading into spare capacity without clearing 128 KiB first")]
            let mut spare = unsafe { buf.unfilled_mut() };
            match self.out.stream.try_read_buf(&mut spare) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    // SAFETY: `try_read_buf` has written exactly the first `read` of the spare bytes.
                    #[allow(unsafe_code, reason = "the counterpart of the block above")]
                    unsafe {
                        buf.assume_init(read);
                    }
                    buf.advance(read);
                    self.bytes_in.inc_by(read as u64);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.out.poll_write_with(cx, |stream| stream.try_write(bytes));
        this.noted(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.out.poll_write_vectored(cx, pieces);
        this.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.out.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Tells when the peer closed its side. An answer that streams without a streaming request (GetMedia) uses it: hyper, told
/// to allow half-closed producers, would notice only at its next write, which on a quiet stream never comes.
#[derive(Clone)]
pub(crate) struct CloseWatch(Arc<TcpStream>);

impl CloseWatch {
    /// Completes when the peer has closed or reset the connection.
    pub(crate) async fn closed(self) {
        loop {
            match self.0.peek(&mut [0]).await {
                Ok(0) | Err(_) => return,
                // Unread bytes of a next request hide what comes after them.
                Ok(_) => tokio::time::sleep(RECHECK_CLOSED).await,
            }
        }
    }
}
