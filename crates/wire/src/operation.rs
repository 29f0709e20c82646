//! What is known of every operation of every service, implemented or not: its place on the wire, its errors, and what a
//! policy must allow.

use base::Operation;

use crate::limits;
use crate::shape::Structure;

/// How requests and answers of a service are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A path per operation, JSON bodies, some members in headers.
    RestJson,
    /// One path, the operation in `X-Amz-Target`, JSON bodies.
    AwsJson,
    /// One path, the operation in the form field `Action`, XML answers.
    Query,
    /// The operation in the path, CBOR bodies.
    RpcCbor,
}

/// A service model.
#[derive(Debug)]
pub struct ServiceInfo {
    /// The model's name, e.g. `kinesis-video-media`.
    pub name: &'static str,
    /// The service's name in a SigV4 scope.
    pub signing_name: &'static str,
    /// The first label of AWS's host names.
    pub endpoint_prefix: &'static str,
    /// What stands before the dot in `X-Amz-Target`; empty where the protocol has none.
    pub target_prefix: &'static str,
    /// How it is written.
    pub protocol: Protocol,
    /// `1.0` or `1.1` for [`Protocol::AwsJson`].
    pub json_version: &'static str,
    /// Namespace of the XML answers of [`Protocol::Query`].
    pub xml_namespace: &'static str,
    /// Its operations in alphabetical order.
    pub operations: &'static [OperationInfo],
}

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A signed request that the caller's policy allows.
    Policy,
    /// Any signed request, whatever the policy says.
    Signed,
    /// The bearer of a session token made by another operation; no signature.
    SessionToken,
}

/// How the resource that a policy speaks of is found in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The first of these members that is present; `*` when none is.
    Members(&'static [ResourceMember]),
    /// Only the handler can tell (the resource is inside a token); it asks the authorizer itself.
    Handler,
}

/// A member that names the resource of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceMember {
    /// Its name on the wire.
    pub member: &'static str,
    /// `None` when it is an ARN. Otherwise what follows `arn:aws:SERVICE:REGION:ACCOUNT:` as text before and after the name.
    pub name: Option<(&'static str, &'static str)>,
}

/// An operation of a service model.
#[derive(Debug)]
pub struct OperationInfo {
    /// The service it belongs to.
    pub service: &'static ServiceInfo,
    /// Its name, e.g. `CreateStream`.
    pub name: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// Its paths; the first is the canonical one.
    pub paths: &'static [&'static str],
    /// What a policy allows or denies, e.g. `kinesisvideo:CreateStream`.
    pub action: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What a policy speaks of.
    pub resource: Resource,
    /// The declared errors with their HTTP status.
    pub errors: &'static [(&'static str, u16)],
    /// The request's body is a stream of bytes and not a document.
    pub request_stream: bool,
    /// The answer's body is a stream.
    pub reply_stream: bool,
    /// Calling it again with the same input changes nothing more.
    pub idempotent: bool,
}

impl OperationInfo {
    /// True when the model declares the error.
    pub fn declares(&self, code: &str) -> bool {
        self.errors.iter().any(|(declared, _)| *declared == code)
    }

    /// The status that the model gives to the error.
    pub fn declared_status(&self, code: &str) -> Option<u16> {
        self.errors
            .iter()
            .find(|(declared, _)| *declared == code)
            .map(|(_, status)| *status)
    }

    /// The largest body that a request may have, in bytes; a streaming body has no limit here.
    pub fn body_bytes_max(&self) -> usize {
        limits::body_bytes_max(self.service.signing_name)
    }
}

/// An operation whose shapes were generated. Services implement `base::Handle` for it.
pub trait WireOperation: Operation<Input: Structure, Output: Structure> {
    /// Its row in the operation table.
    const INFO: &'static OperationInfo;
}
