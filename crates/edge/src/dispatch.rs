//! One request from its head to its answer: pages, authentication, the operation, its body, its answer.
//!
//! The order is the caller's protection and ours: who asks is settled first, so that an unsigned request learns nothing of
//! what exists (invariant 9); the body is read only as far as its operation allows; a body that flows (PutMedia) is
//! handed on only after the signature was checked, and its client gets `100 Continue` only after the service agreed.

mod mounted;
mod players;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use auth::{AuthError, Authenticator, Claim, PayloadHash, RequestHead};
use base::{ApiError, Caller, Clock, Crowd, RequestContext, Timestamp};
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Version};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wire::{Address, Protocol, RawBody, RawReply, RawRequest, Route, Unresolved};

use crate::base_url::{Arrival, TrustedProxy, base_url, forwarded_host, is_from_here};
use crate::body::{AnswerBody, BodyError, Buffered, StopSignal, Upload, buffer, discard, stop_signal};
use crate::convoy::{Seat, Seated};
use crate::exchange::{EdgeMetrics, Exchange};
use crate::lane::Lane;
use crate::limits::{DRAIN_STREAM_GRACE, Limits, UNKNOWN_BODY_BYTES_MAX};
use crate::mount::Mount;
use crate::pages::{Page, Pages};
use crate::server::{EdgeConfig, EdgeParts};
use crate::socket::CloseWatch;

/// Operations that only read, and read for long, or that wait: they are given up when their client closes. (With HTTP/2 every
/// operation is. With HTTP/1.1 a client may close its sending side and wait for the answer, which is told from a client that
/// is gone only by writing, so that others are carried out to their end.)
const GIVEN_UP: [&str; 3] = ["GetImages", WAITING[0], WAITING[1]];

/// Operations that wait for something to happen: they are given up when the server stops, too.
const WAITING: [&str; 2] = ["ReceiveDeadLetterQueueRecords", "ReceiveQueueRecords"];

/// What a request needs to know of its connection.
pub(crate) struct Connection {
    pub(crate) arrival: Arrival,
    pub(crate) watch: CloseWatch,
    pub(crate) ways: Ways,
}

/// How an answer that is one of a crowd leaves.
pub(crate) struct Ways {
    pub(crate) seat: Arc<Seat>,
    /// None through TLS.
    pub(crate) lane: Option<Arc<Lane>>,
}

impl Ways {
    pub(crate) fn encrypted(self) -> Self {
        Ways { lane: None, ..self }
    }
}

/// Answers requests.
pub(crate) struct Dispatch {
    registry: Arc<wire::Registry>,
    authenticator: Arc<Authenticator>,
    clock: Arc<dyn Clock>,
    metrics: Arc<EdgeMetrics>,
    pages: Pages,
    limits: Limits,
    public_url: Option<Arc<str>>,
    public_host: Option<String>,
    trusted_proxies: Vec<TrustedProxy>,
    buffered: Arc<Semaphore>,
    draining: CancellationToken,
    mounts: Vec<Arc<dyn Mount>>,
}

/// A request whose key and scope are known, and perhaps its operation.
struct Identified {
    claim: Claim,
    route: Result<Route, Unresolved>,
}

/// Who writes the errors of a request: the operation where it is known, otherwise a guess from the head.
enum ErrorWriter {
    Route(Route),
    Guess(Protocol),
}

impl ErrorWriter {
    fn of(route: &Result<Route, Unresolved>) -> Self {
        match route {
            Ok(route) => ErrorWriter::Route(route.clone()),
            Err(unresolved) => ErrorWriter::Guess(unresolved.protocol),
        }
    }

    fn write(&self, error: &ApiError, request_id: &str) -> RawReply {
        match self {
            ErrorWriter::Route(route) => route.render_error(error, request_id),
            ErrorWriter::Guess(protocol) => wire::render_unrouted_error(error, *protocol, request_id),
        }
    }

    /// The signing name that decides the names of signature errors.
    fn service(&self) -> &'static str {
        match self {
            ErrorWriter::Route(route) => route.info().service.signing_name,
            ErrorWriter::Guess(Protocol::Query) => "sts",
            ErrorWriter::Guess(_) => "",
        }
    }
}

/// A successful call, and what its answer needs beside the reply.
struct Done {
    reply: RawReply,
    /// Held until the answer is made.
    _body: Option<Buffered>,
    /// For an answer that streams while the request does not.
    stop: Option<StopSignal>,
    /// For an answer that makes its connection one of a crowd.
    crowded: Option<Crowded>,
}

/// What a connection does with an answer that is one of a crowd.
struct Crowded {
    seated: Seated,
    lane: Option<Arc<Lane>>,
}

impl Dispatch {
    pub(crate) fn new(
        config: EdgeConfig,
        parts: EdgeParts,
        metrics: Arc<EdgeMetrics>,
        draining: CancellationToken,
    ) -> Self {
        let public_url: Option<Arc<str>> = config.public_url.map(|url| url.trim_end_matches('/').into());
        let public_host = public_url
            .as_ref()
            .and_then(|url| Some(url.parse::<http::Uri>().ok()?.authority()?.as_str().to_owned()));
        Dispatch {
            registry: parts.registry,
            authenticator: parts.authenticator,
            pages: Pages {
                health: parts.health,
                metrics: parts.metrics,
                started: parts.clock.monotonic(),
                clock: Arc::clone(&parts.clock),
            },
            clock: parts.clock,
            metrics,
            buffered: Arc::new(Semaphore::new(config.limits.buffered_bytes_max)),
            limits: config.limits,
            public_url,
            public_host,
            trusted_proxies: config.trusted_proxies,
            draining,
            mounts: parts.mounts,
        }
    }

    /// Answers one request. Never fails: whatever goes wrong is an answer.
    pub(crate) async fn answer(&self, connection: &Connection, request: Request<Incoming>) -> Response<AnswerBody> {
        let received_at = self.clock.now();
        let request_id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        let (parts, incoming) = request.into_parts();
        let mut exchange = Exchange::begin(
            Arc::clone(&self.metrics),
            Arc::clone(&self.clock),
            request_id,
            &parts.method,
            parts.uri.path(),
        );
        if let Some(mount) = self.mount_of(&parts) {
            return self.mounted(mount, connection, parts, incoming, exchange).await;
        }
        let from_here = is_from_here(&connection.arrival, &parts.headers);
        if let Some(page) = self.pages.page(&parts.method, parts.uri.path(), from_here) {
            discard(incoming);
            return self.page(page, exchange);
        }
        if let Some(route) = self.for_players(&parts) {
            discard(incoming);
            return self.play(connection, &parts, &route, received_at, exchange).await;
        }
        let mut writer = match self.registry.resolve(&address(&parts, None, None)) {
            Err(_) if is_form(&parts) => ErrorWriter::Guess(Protocol::Query),
            route => ErrorWriter::of(&route),
        };
        let request = Inbound {
            connection,
            parts: &parts,
            received_at,
        };
        let operation = AssertUnwindSafe(self.operate(&request, incoming, &mut writer, &mut exchange)).catch_unwind();
        let error = match operation.await {
            Ok(Ok(done)) => return self.success(done, exchange),
            Ok(Err(error)) => error,
            Err(_panic) => {
                exchange.panicked();
                internal_failure()
            }
        };
        exchange.error(&error);
        let reply = writer.write(&error, exchange.request_id());
        self.respond(reply, None, exchange)
    }

    /// Authenticates a request and carries it out.
    async fn operate(
        &self,
        request: &Inbound<'_>,
        mut incoming: Incoming,
        writer: &mut ErrorWriter,
        exchange: &mut Exchange,
    ) -> Result<Done, ApiError> {
        let identified = self.identify(request, writer);
        let mut identified = match identified {
            Ok(identified) => identified,
            Err(error) => {
                self.refuse_body(request, incoming);
                return Err(error.to_api_error(writer.service()));
            }
        };
        exchange.account(identified.claim.account());
        if let Ok(route) = &identified.route {
            *writer = ErrorWriter::Route(route.clone());
            exchange.name(route.info().service.name, route.info().name);
            if route.info().request_stream {
                let route = route.clone();
                return self
                    .stream(request, &route, &identified.claim, incoming, exchange)
                    .await;
            }
        }
        let body = match self.buffer(request, &identified.route, &mut incoming, exchange).await {
            Ok(body) => body,
            Err(error) => {
                if !matches!(error, BodyError::Broken(_)) {
                    self.refuse_body(request, incoming);
                }
                return Err(body_error(&error));
            }
        };
        let verified = identified.claim.verify(&PayloadHash::of(&body.bytes));
        let caller = verified.map_err(|error| error.to_api_error(writer.service()))?;
        // The signature is that of the packed bytes.
        let body = match is_gzip(request.parts) {
            true => {
                let bytes_max = body_bytes_max(&identified.route);
                body.unpacked(bytes_max, &self.buffered)
                    .map_err(|error| body_error(&error))?
            }
            false => body,
        };
        if identified.route.is_err()
            && is_form(request.parts)
            && let Some(action) = action_of(&body.bytes)
        {
            let service = identified.claim.service();
            identified.route = self
                .registry
                .resolve(&address(request.parts, Some(service), Some(&action)));
            *writer = ErrorWriter::of(&identified.route);
        }
        let route = identified.route.map_err(|unresolved| unresolved.error)?;
        let info = route.info();
        exchange.name(info.service.name, info.name);
        let form_in_query = info.service.protocol == Protocol::Query && body.bytes.is_empty();
        let bytes = if form_in_query {
            Bytes::from(request.parts.uri.query().unwrap_or_default().to_owned())
        } else {
            body.bytes.clone()
        };
        let context = self.context(request, caller, exchange);
        let called = call(&route, context, &request.parts.headers, RawBody::Bytes(bytes));
        let watched = GIVEN_UP.contains(&info.name) && request.parts.version < Version::HTTP_2;
        let waits = WAITING.contains(&info.name);
        let reply = if watched || waits {
            tokio::select! {
                reply = called => reply?,
                () = request.connection.watch.clone().closed(), if watched => return Err(nobody_waits()),
                () = self.draining.cancelled(), if waits => return Err(stopping()),
            }
        } else {
            called.await?
        };
        let streams = matches!(reply.body, RawBody::Stream(_));
        let crowded = reply.crowd.and_then(|crowd| request.join(crowd));
        Ok(Done {
            reply,
            _body: Some(body),
            stop: streams.then(|| self.stop_signal(request)),
            crowded,
        })
    }

    /// Finds out who asks, and what as far as the head tells.
    fn identify(&self, request: &Inbound<'_>, writer: &mut ErrorWriter) -> Result<Identified, AuthError> {
        let parts = request.parts;
        let arrival = &request.connection.arrival;
        let mut headers: Vec<(&str, &[u8])> = Vec::with_capacity(parts.headers.len() + 1);
        if let Some(authority) = parts
            .uri
            .authority()
            .filter(|_| !parts.headers.contains_key(header::HOST))
        {
            headers.push(("host", authority.as_str().as_bytes()));
        }
        headers.extend(
            parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        );
        let forwarded = forwarded_host(&self.trusted_proxies, arrival, &parts.headers);
        let also_hosts: Vec<&str> = self.public_host.as_deref().into_iter().chain(forwarded).collect();
        let claim = self.authenticator.identify(&RequestHead {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &headers,
            local_port: Some(arrival.local_port),
            also_hosts: &also_hosts,
        })?;
        let action = parts.uri.query().and_then(|query| action_of(query.as_bytes()));
        let route = self
            .registry
            .resolve(&address(parts, Some(claim.service()), action.as_deref()));
        *writer = ErrorWriter::of(&route);
        Ok(Identified { claim, route })
    }

    /// Reads the body of an operation that takes a document.
    async fn buffer(
        &self,
        request: &Inbound<'_>,
        route: &Result<Route, Unresolved>,
        incoming: &mut Incoming,
        exchange: &Exchange,
    ) -> Result<Buffered, BodyError> {
        let bytes_max = body_bytes_max(route);
        let declared = request.parts.headers.get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|declared| declared > bytes_max) {
            return Err(BodyError::TooLarge(bytes_max));
        }
        let counted = exchange.body_bytes_in();
        buffer(incoming, bytes_max, &self.limits, &self.buffered, &counted).await
    }

    /// Carries out an operation whose body flows while its answer does.
    async fn stream(
        &self,
        request: &Inbound<'_>,
        route: &Route,
        claim: &Claim,
        incoming: Incoming,
        exchange: &Exchange,
    ) -> Result<Done, ApiError> {
        let service = route.info().service.signing_name;
        let caller = match claim.verify(&PayloadHash::Streaming) {
            Ok(caller) => caller,
            Err(error) => {
                self.refuse_body(request, incoming);
                return Err(error.to_api_error(service));
            }
        };
        let (upload, flow) = Upload::new(incoming, self.draining.clone(), exchange.body_bytes_in());
        let context = self.context(request, caller, exchange);
        let body = RawBody::Stream(Box::pin(upload));
        let outcome = call(route, context, &request.parts.headers, body).await;
        match (&outcome, request.expects_continue()) {
            (Ok(_), true) => flow.prompt().await,
            (Err(_), false) => flow.discard(),
            _ => {}
        }
        Ok(Done {
            reply: outcome?,
            _body: None,
            stop: None,
            crowded: None,
        })
    }

    /// A client that waits for `100 Continue` sends nothing; any other gets to finish sending what nobody reads.
    fn refuse_body(&self, request: &Inbound<'_>, incoming: Incoming) {
        if !request.expects_continue() {
            discard(incoming);
        }
    }

    fn context(&self, request: &Inbound<'_>, caller: Caller, exchange: &Exchange) -> RequestContext {
        let (parts, arrival) = (request.parts, &request.connection.arrival);
        let public_url = self.public_url.as_ref();
        RequestContext {
            caller,
            request_id: Arc::clone(exchange.request_id()),
            base_url: base_url(public_url, &self.trusted_proxies, arrival, &parts.uri, &parts.headers),
            received_at: request.received_at,
        }
    }

    /// HTTP/2 tells by itself when a stream's reader is gone.
    fn stop_signal(&self, request: &Inbound<'_>) -> StopSignal {
        let gone = (request.parts.version < Version::HTTP_2).then(|| request.connection.watch.clone().closed());
        stop_signal(self.draining.clone(), DRAIN_STREAM_GRACE, gone)
    }

    fn success(&self, done: Done, exchange: Exchange) -> Response<AnswerBody> {
        let mut answer = self.respond(done.reply, done.stop, exchange);
        if let Some(crowded) = done.crowded {
            answer.body_mut().seat(crowded.seated);
            // The lane writes chunks and nothing else.
            let chunked = !answer.headers().contains_key(header::CONTENT_LENGTH);
            if let Some(lane) = crowded.lane.filter(|_| chunked) {
                answer.body_mut().lend(&lane);
            }
        }
        answer
    }

    fn page(&self, page: Page, mut exchange: Exchange) -> Response<AnswerBody> {
        exchange.name("edge", page.name);
        let reply = RawReply {
            status: page.status.as_u16(),
            content_type: page.content_type.into(),
            headers: Vec::new(),
            body: RawBody::Bytes(page.body),
            crowd: None,
        };
        self.respond(reply, None, exchange)
    }

    /// Makes the answer: status, content type, request ids and date beside what the operation says.
    fn respond(&self, reply: RawReply, stop: Option<StopSignal>, mut exchange: Exchange) -> Response<AnswerBody> {
        exchange.head(reply.status);
        let mut headers = HeaderMap::with_capacity(8);
        set(&mut headers, header::CONTENT_TYPE, &reply.content_type);
        set(&mut headers, header::DATE, &http_date(self.clock.now()));
        for name in REQUEST_ID_HEADERS {
            set(&mut headers, HeaderName::from_static(name), exchange.request_id());
        }
        for (name, value) in &reply.headers {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => set(&mut headers, name, value),
                Err(_) => tracing::error!(name = name.as_ref(), "an operation answered an illegal header"),
            }
        }
        let status = reply.status;
        let body = match reply.body {
            RawBody::Bytes(bytes) => AnswerBody::bytes(bytes, exchange),
            RawBody::Stream(stream) => AnswerBody::stream(stream, stop, exchange),
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = headers;
        response
    }
}

/// What a caller is told when a handler panicked.
fn internal_failure() -> ApiError {
    let message = "The request could not be carried out because of an internal failure.";
    ApiError::server("InternalFailure", message, "the handler panicked")
}

/// The three spellings that clients of AWS look for.
const REQUEST_ID_HEADERS: [&str; 3] = ["x-amzn-requestid", "x-amz-requestid", "x-amz-request-id"];

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        Err(_) => tracing::error!(%name, "an operation answered an illegal header value"),
    }
}

fn http_date(now: Timestamp) -> String {
    let since = Duration::from_millis(u64::try_from(now.millis()).unwrap_or(0));
    httpdate::fmt_http_date(UNIX_EPOCH + since)
}

/// One request on its connection.
struct Inbound<'a> {
    connection: &'a Connection,
    parts: &'a Parts,
    received_at: Timestamp,
}

impl Inbound<'_> {
    /// Makes the connection one of a crowd where it speaks HTTP/1: the answers of HTTP/2 are driven apart from it.
    fn join(&self, crowd: Crowd) -> Option<Crowded> {
        let version = self.parts.version;
        (version < Version::HTTP_2).then(|| Crowded {
            seated: self.connection.ways.seat.take(crowd),
            lane: self
                .connection
                .ways
                .lane
                .clone()
                .filter(|_| version == Version::HTTP_11),
        })
    }

    fn expects_continue(&self) -> bool {
        let expect = self.parts.headers.get(header::EXPECT);
        expect.is_some_and(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }
}

/// What the head says of the operation.
fn address<'a>(parts: &'a Parts, scope_service: Option<&'a str>, action: Option<&'a str>) -> Address<'a> {
    Address {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        scope_service,
        target: parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok()),
        action,
        content_type: parts
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|content_type| content_type.to_str().ok()),
    }
}

/// `Action` of a query string or a form.
fn action_of(form: &[u8]) -> Option<String> {
    let form = wire::query::parse_form(form).ok()?;
    wire::query::action(&form).map(str::to_owned)
}

/// The largest body of an operation that may not be known yet.
fn body_bytes_max(route: &Result<Route, Unresolved>) -> usize {
    let route = route.as_ref();
    route.map_or(UNKNOWN_BODY_BYTES_MAX, |route| route.info().body_bytes_max())
}

fn is_gzip(parts: &Parts) -> bool {
    let encoding = parts.headers.get(header::CONTENT_ENCODING);
    encoding.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"))
}

fn is_form(parts: &Parts) -> bool {
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"))
}

/// Starts a call. The request is read before the call returns, so that nothing of the head is held while it runs.
fn call(route: &Route, context: RequestContext, headers: &HeaderMap, body: RawBody) -> wire::Call {
    let lookup = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let request = RawRequest { headers: &lookup, body };
    route.call(context, request)
}

/// Said to the log alone.
fn nobody_waits() -> ApiError {
    ApiError::client("InvalidRequest", "The client left before its answer was ready.")
}

/// Programs come again after this, to the server that is started next.
fn stopping() -> ApiError {
    ApiError::server(
        "ServiceUnavailable",
        "The server is stopping.",
        "a waiting call was given up",
    )
    .with_status(503)
}

fn body_error(error: &BodyError) -> ApiError {
    match error {
        BodyError::TooLarge(bytes_max) => ApiError::client(
            "RequestEntityTooLarge",
            format!("The request body is larger than the {bytes_max} bytes that this operation takes."),
        )
        .with_status(413),
        BodyError::TooSlow => {
            ApiError::client("RequestTimeout", "The request body did not arrive in time.").with_status(408)
        }
        BodyError::Busy => ApiError::server(
            "ServiceUnavailable",
            "The server holds as many request bodies as it may; try again.",
            error,
        )
        .with_status(503),
        BodyError::Broken(_) => {
            ApiError::client("InvalidRequest", "The request body broke off or is not legal HTTP.").with_detail(error)
        }
    }
}
