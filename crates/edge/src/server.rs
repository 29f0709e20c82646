//! The listener: one port for TLS, HTTP/1.1 and HTTP/2 with prior knowledge, a bounded number of connections, and the
//! drain at the end.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::Clock;
use base::metrics::{IntGauge, MetricError, Metrics};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aside::Aside;
use crate::base_url::{Arrival, TrustedProxy};
use crate::convoy::{Convoys, Seat};
use crate::dispatch::{Connection, Dispatch, Ways};
use crate::exchange::EdgeMetrics;
use crate::lane::Driver;
use crate::limits::{
    H2_CONNECTION_WINDOW_BYTES, H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX, HEAD_BYTES_MAX, HEADERS_MAX, KEEPALIVE_AFTER,
    Limits,
};
use crate::mount::Mount;
use crate::pages::HealthSource;
use crate::socket::{CloseWatch, Socket};
use crate::tls::{HttpVersion, TlsError, TlsPem, acceptor};

/// First byte of a TLS record that carries a ClientHello.
const TLS_HANDSHAKE: u8 = 0x16;

/// Sent in plain text to a connection beyond the limit.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// How long accepting rests when the process is out of file descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What the operator decides about the listener.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// With it the port speaks TLS too; plain requests are still answered.
    pub tls: Option<TlsPem>,
    /// What a TLS client that speaks both versions is answered in.
    pub preferred_version: HttpVersion,
    /// What GetDataEndpoint and session URLs return, without a trailing slash; otherwise each request's own host.
    pub public_url: Option<String>,
    /// Whose `X-Forwarded-*` headers count.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// Limits.
    pub limits: Limits,
}

impl EdgeConfig {
    /// Plain HTTP on `listen` with the default limits.
    pub fn new(listen: SocketAddr) -> Self {
        EdgeConfig {
            listen,
            tls: None,
            preferred_version: HttpVersion::default(),
            public_url: None,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// What the listener stands on.
pub struct EdgeParts {
    /// The operations that are served.
    pub registry: Arc<wire::Registry>,
    /// Who may call them.
    pub authenticator: Arc<auth::Authenticator>,
    /// Where the edge counts, and what `GET /metrics` shows.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What `GET /health` shows.
    pub health: HealthSource,
    /// Protocols of their own on the same port; the first that claims a request gets it.
    pub mounts: Vec<Arc<dyn Mount>>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A metric's name is taken.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

/// Starts listeners.
#[derive(Debug)]
pub struct Server;

struct Shared {
    dispatch: Dispatch,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    metrics: Arc<EdgeMetrics>,
    draining: CancellationToken,
    abort: CancellationToken,
    connections: TaskTracker,
    convoys: Arc<Convoys>,
    protocols: Builder<TokioExecutor>,
}

impl Server {
    /// Listens and answers until [`Running::shutdown`]. Must be called inside a tokio runtime.
    pub async fn start(config: EdgeConfig, parts: EdgeParts) -> Result<Running, StartError> {
        let listen_error = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let tls = config.tls.as_ref();
        let tls = tls.map(|pem| acceptor(pem, config.preferred_version)).transpose()?;
        let metrics = Arc::new(EdgeMetrics::new(&parts.metrics)?);
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let local_addr = listener.local_addr().map_err(listen_error)?;
        let draining = CancellationToken::new();
        let shared = Arc::new(Shared {
            protocols: protocols(&config.limits),
            tls,
            limits: config.limits.clone(),
            metrics: Arc::clone(&metrics),
            draining: draining.clone(),
            abort: CancellationToken::new(),
            connections: TaskTracker::new(),
            convoys: Arc::default(),
            dispatch: Dispatch::new(config, parts, metrics, draining),
        });
        let acceptor = tokio::spawn(Arc::clone(&shared).accept(listener));
        Ok(Running {
            local_addr,
            shared,
            acceptor,
        })
    }
}

fn protocols(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // `pipeline_flush` stays off: with it hyper buffers an answer without limit for a client that reads nothing.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(KEEPALIVE_AFTER)
        .keep_alive_timeout(KEEPALIVE_AFTER);
    builder
}

/// A server that answers. Dropping it does not stop it; call [`Running::shutdown`].
pub struct Running {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that had to be cut because they were not done in time.
    pub connections_cut: usize,
}

impl Running {
    /// Where the server listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, lets buffered requests finish, tells streaming ones to end, and cuts what is left after `within`.
    pub async fn shutdown(self, within: Duration) -> Drained {
        let shared = &self.shared;
        shared.draining.cancel();
        if let Err(error) = self.acceptor.await {
            tracing::error!(%error, "the accept loop ended badly");
        }
        shared.connections.close();
        let connections_cut = match timeout(within, shared.connections.wait()).await {
            Ok(()) => 0,
            Err(_) => {
                let left = shared.connections.len();
                shared.abort.cancel();
                shared.connections.wait().await;
                left
            }
        };
        Drained { connections_cut }
    }
}

/// Counts a connection while it lives.
struct Counted {
    gauge: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(self.limits.connections_max));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.draining.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let socket = self.socket(stream);
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                self.metrics.connections_refused.inc();
                socket.send_now(REFUSAL);
                continue;
            };
            self.metrics.connections.inc();
            let counted = Counted {
                gauge: self.metrics.connections.clone(),
                _permit: permit,
            };
            let local_port = listener.local_addr().map_or(0, |local| local.port());
            let shared = Arc::clone(&self);
            let (seat, driver) = (Arc::new(Seat::default()), Driver::new(socket.second_out()));
            let ways = Ways {
                seat: Arc::clone(&seat),
                lane: Some(driver.lane()),
            };
            let run = self.connections.track_future(async move {
                let _counted = counted;
                let abort = Aside::new(shared.abort.clone().cancelled_owned());
                tokio::select! {
                    biased;
                    () = shared.serve(socket, peer, local_port, ways) => {}
                    () = abort => {}
                }
            });
            self.convoys.drive(seat, driver, run);
        }
    }

    fn socket(&self, stream: TcpStream) -> Socket {
        Socket::new(
            stream,
            self.metrics.bytes_in.clone(),
            self.metrics.bytes_out.clone(),
            self.limits.write_stall_timeout,
        )
    }

    async fn serve(self: &Arc<Self>, socket: Socket, peer: SocketAddr, local_port: u16, ways: Ways) {
        let first = tokio::select! {
            first = timeout(self.limits.handshake_timeout, socket.peek_first()) => first,
            () = self.draining.cancelled() => return,
        };
        let arrival = |tls| Arrival {
            peer: peer.ip(),
            local_port,
            tls,
        };
        let watch = socket.watch();
        match (first, &self.tls) {
            (Ok(Ok(Some(TLS_HANDSHAKE))), Some(acceptor)) => {
                match timeout(self.limits.handshake_timeout, acceptor.accept(socket)).await {
                    Ok(Ok(stream)) => self.speak(stream, arrival(true), watch, ways.encrypted()).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            }
            (Ok(Ok(Some(TLS_HANDSHAKE))), None) => {
                tracing::debug!(%peer, "a TLS client on a server without a certificate");
            }
            (Ok(Ok(Some(_))), _) => self.speak(socket, arrival(false), watch, ways).await,
            (Ok(Ok(None)), _) => {}
            (Ok(Err(error)), _) => tracing::debug!(%peer, %error, "connection broke before its first byte"),
            (Err(_), _) => tracing::debug!(%peer, "no byte came in time"),
        }
    }

    async fn speak<I>(self: &Arc<Self>, io: I, arrival: Arrival, watch: CloseWatch, ways: Ways)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(Connection { arrival, watch, ways });
        let begun = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request: hyper::Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            let shared = Arc::clone(self);
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(shared.dispatch.answer(&connection, request).await) }
        });
        let mut conversation = std::pin::pin!(self.protocols.serve_connection(TokioIo::new(io), service));
        // The engine's own timer starts only once it knows the protocol, so the time to the first request is ours.
        let mut first_request = Aside::new(tokio::time::sleep(self.limits.head_timeout));
        let mut draining = Aside::new(self.draining.clone().cancelled_owned());
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = conversation.as_mut() => break outcome,
                () = &mut draining => conversation.as_mut().graceful_shutdown(),
                () = &mut first_request => {
                    if !begun.load(Ordering::Relaxed) {
                        tracing::debug!(peer = %connection.arrival.peer, "no request came in time");
                        return;
                    }
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(peer = %connection.arrival.peer, %error, "connection ended");
        }
    }
}
