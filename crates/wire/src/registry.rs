//! From a request's address to a typed handler. Every operation of the tables can be resolved; one without a handler
//! answers a declared error that says so.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use base::{ApiError, Handle, Request, RequestContext};

use crate::codec::{self, Codec, Decoded};
use crate::error::{denied, not_implemented, render_error_as, render_unrouted_error};
use crate::event_stream;
use crate::generated::operations::SERVICES;
use crate::operation::{Access, OperationInfo, Protocol, ServiceInfo, WireOperation};
use crate::reply::{RawBody, RawReply, RawRequest};
use crate::shape::Structure;

/// A call under way.
pub type Call = Pin<Box<dyn Future<Output = Result<RawReply, ApiError>> + Send>>;

/// The operations that the server carries out.
#[derive(Clone, Default)]
pub struct Registry {
    handlers: BTreeMap<(&'static str, &'static str), Arc<dyn Erased>>,
}

/// What is known of a request before its body is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Address<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The service of the signature's scope; `None` for an unsigned request.
    pub scope_service: Option<&'a str>,
    /// The header `X-Amz-Target`.
    pub target: Option<&'a str>,
    /// `Action` of the form or of the query string.
    pub action: Option<&'a str>,
    /// The header `Content-Type`; decides between JSON and CBOR.
    pub content_type: Option<&'a str>,
}

/// No operation has this address.
#[derive(Clone, Debug)]
pub struct Unresolved {
    /// What to tell the caller.
    pub error: ApiError,
    /// The protocol that the caller seems to speak.
    pub protocol: Protocol,
}

impl Unresolved {
    /// The answer.
    pub fn render(&self, request_id: &str) -> RawReply {
        render_unrouted_error(&self.error, self.protocol, request_id)
    }
}

/// An operation that a request means.
#[derive(Clone)]
pub struct Route {
    info: &'static OperationInfo,
    codec: Codec,
    handler: Option<Arc<dyn Erased>>,
}

trait Erased: Send + Sync {
    fn call(&self, codec: Codec, context: RequestContext, request: RawRequest<'_>) -> Call;
}

struct Entry<O, S> {
    service: Arc<S>,
    operation: PhantomData<fn(O)>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `service` carry out the operation.
    pub fn register<O: WireOperation, S: Handle<O>>(&mut self, service: &Arc<S>) -> &mut Self {
        let entry = Entry::<O, S> {
            service: Arc::clone(service),
            operation: PhantomData,
        };
        self.handlers
            .insert((O::INFO.service.name, O::INFO.name), Arc::new(entry));
        self
    }

    /// The operations with a handler, as `MODEL OPERATION`, sorted.
    pub fn operations(&self) -> impl Iterator<Item = String> + '_ {
        self.handlers
            .keys()
            .map(|(service, operation)| format!("{service} {operation}"))
    }

    /// The operation that a request means. Errors: no such operation; nothing is said of any resource.
    pub fn resolve(&self, address: &Address<'_>) -> Result<Route, Unresolved> {
        let info = find(address)?;
        let handler = self.handlers.get(&(info.service.name, info.name)).cloned();
        let codec = Codec::of(info, address.content_type);
        Ok(Route { info, codec, handler })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}

/// Every service of the tables.
pub fn generated_services() -> &'static [&'static ServiceInfo] {
    SERVICES
}

/// Every operation of every service, implemented or not.
pub fn all_operations() -> impl Iterator<Item = &'static OperationInfo> {
    SERVICES.iter().flat_map(|service| service.operations)
}

fn find(address: &Address<'_>) -> Result<&'static OperationInfo, Unresolved> {
    if let Some(target) = address.target {
        return by_target(target, address.scope_service);
    }
    if let Some((service, operation)) = rpc_path(address.path) {
        return by_rpc(service, operation, address.scope_service);
    }
    let in_scope = |service: &ServiceInfo| address.scope_service.is_none_or(|scope| scope == service.signing_name);
    let query = SERVICES
        .iter()
        .find(|s| matches!(s.protocol, Protocol::Query | Protocol::RpcCbor) && in_scope(s));
    if let (Some(action), Some(service)) = (address.action, query) {
        let found = service.operations.iter().find(|o| o.name == action);
        return found.ok_or_else(|| Unresolved {
            error: ApiError::client("InvalidAction", format!("Could not find operation {action}")),
            protocol: Protocol::Query,
        });
    }
    let of_path = |o: &&OperationInfo| o.service.protocol == Protocol::RestJson && o.paths.contains(&address.path);
    let mut candidates = all_operations()
        .filter(of_path)
        .filter(|o| in_scope(o.service))
        .peekable();
    let known_path = candidates.peek().is_some();
    candidates
        .find(|o| o.method == address.method)
        .ok_or_else(|| unknown(address, known_path))
}

fn by_target(target: &str, scope: Option<&str>) -> Result<&'static OperationInfo, Unresolved> {
    let found = target.split_once('.').and_then(|(prefix, name)| {
        let service = SERVICES
            .iter()
            .find(|s| matches!(s.protocol, Protocol::AwsJson | Protocol::RpcCbor) && s.target_prefix == prefix)?;
        let signed_for_it = scope.is_none_or(|scope| scope == service.signing_name);
        service.operations.iter().find(|o| o.name == name && signed_for_it)
    });
    found.ok_or_else(|| Unresolved {
        error: ApiError::client("UnknownOperationException", format!("There is no operation {target}.")),
        protocol: Protocol::AwsJson,
    })
}

/// `/service/SERVICE/operation/OPERATION`, perhaps behind more: the path of the protocol rpc-v2-cbor.
fn rpc_path(path: &str) -> Option<(&str, &str)> {
    let (before, operation) = path.rsplit_once("/operation/")?;
    let (_, service) = before.rsplit_once("/service/")?;
    Some((service, operation))
}

fn by_rpc(service: &str, operation: &str, scope: Option<&str>) -> Result<&'static OperationInfo, Unresolved> {
    let service_of = |s: &&&ServiceInfo| {
        s.protocol == Protocol::RpcCbor
            && s.target_prefix == service
            && scope.is_none_or(|scope| scope == s.signing_name)
    };
    let found = SERVICES.iter().find(service_of);
    let found = found.and_then(|s| s.operations.iter().find(|o| o.name == operation));
    found.ok_or_else(|| Unresolved {
        error: ApiError::client("UnknownOperationException", "There is no such operation."),
        protocol: Protocol::RpcCbor,
    })
}

fn unknown(address: &Address<'_>, known_path: bool) -> Unresolved {
    let signed_for = |protocol| {
        let mut services = SERVICES.iter().filter(|s| s.protocol == protocol);
        services.any(|s| Some(s.signing_name) == address.scope_service)
    };
    let protocol = [Protocol::AwsJson, Protocol::Query, Protocol::RpcCbor]
        .into_iter()
        .find(|p| signed_for(*p))
        .unwrap_or(Protocol::RestJson);
    // Without the path of the newer protocol it speaks the older one.
    let protocol = match protocol {
        Protocol::RpcCbor => Protocol::Query,
        other => other,
    };
    let (method, path) = (address.method, address.path);
    let error = match protocol {
        Protocol::Query => ApiError::client("MissingAction", "The request names no Action."),
        Protocol::AwsJson => ApiError::client("UnknownOperationException", "The request has no X-Amz-Target header."),
        _ if known_path => ApiError::client("MethodNotAllowed", format!("{path} does not take {method}.")),
        _ => ApiError::client(
            "UnknownOperationException",
            format!("There is no operation {method} {path}."),
        )
        .with_status(404),
    };
    Unresolved { error, protocol }
}

impl Route {
    /// The operation.
    pub fn info(&self) -> &'static OperationInfo {
        self.info
    }

    /// Decodes, checks, authorises and carries out the request, and encodes the answer. The request is read before the
    /// call returns its future, so nothing of it is borrowed by it.
    pub fn call(&self, context: RequestContext, request: RawRequest<'_>) -> Call {
        match &self.handler {
            Some(handler) => handler.call(self.codec, context, request),
            None => {
                let info = self.info;
                Box::pin(async move { Err(refuse_unimplemented(info, &context)) })
            }
        }
    }

    /// The answer for an error of this operation.
    pub fn render_error(&self, error: &ApiError, request_id: &str) -> RawReply {
        render_error_as(error, self.info, self.codec, request_id)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info.action)
    }
}

/// Who may not call an operation learns nothing of it.
fn refuse_unimplemented(info: &OperationInfo, context: &RequestContext) -> ApiError {
    match authorise(info, context, Some("*")) {
        Err(error) => error,
        Ok(()) => not_implemented(info),
    }
}

fn authorise(info: &OperationInfo, context: &RequestContext, resource: Option<&str>) -> Result<(), ApiError> {
    let Some(resource) = resource.filter(|_| info.access == Access::Policy) else {
        return Ok(());
    };
    if context.caller.authorizer.allows(info.action, resource) {
        return Ok(());
    }
    Err(denied(info, &context.caller, resource))
}

impl<O: WireOperation, S: Handle<O>> Entry<O, S> {
    fn decode(
        codec: Codec,
        context: &RequestContext,
        request: RawRequest<'_>,
    ) -> Result<(O::Input, Option<base::ByteStream>), ApiError> {
        let headers = request.headers;
        let (body, stream) = match request.body {
            RawBody::Bytes(bytes) => (bytes, None),
            RawBody::Stream(stream) => (bytes::Bytes::new(), Some(stream)),
        };
        let Decoded { input, resource } = codec::decode(O::INFO, codec, headers, &body, &context.caller)?;
        authorise(O::INFO, context, resource.as_deref())?;
        Ok((input, stream))
    }
}

impl<O: WireOperation, S: Handle<O>> Erased for Entry<O, S> {
    fn call(&self, codec: Codec, context: RequestContext, request: RawRequest<'_>) -> Call {
        let decoded = Self::decode(codec, &context, request);
        let service = Arc::clone(&self.service);
        Box::pin(async move {
            let (input, body) = decoded?;
            let request_id = Arc::clone(&context.request_id);
            let request = Request { context, input, body };
            let mut reply = service.handle(request).await?;
            let events = reply.output.take_events(codec);
            let is_events = events.is_some();
            let (stream, len) = (reply.stream.or(events), reply.stream_len);
            let mut raw = codec::encode(O::INFO, codec, &reply.output, stream, len, &request_id);
            if is_events {
                raw.content_type = event_stream::CONTENT_TYPE.into();
            }
            raw.crowd = reply.crowd;
            Ok(raw)
        })
    }
}
