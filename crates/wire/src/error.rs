//! Errors on the wire: the status of a code, and the body and headers of each protocol.

use std::borrow::Cow;

use base::{ApiError, Caller, Fault};
use bytes::Bytes;

use crate::cbor;
use crate::codec::{CBOR_CONTENT_TYPE, Codec, DYNAMODB, RPC_CBOR_CONTENT_TYPE, add_checksum, rpc_cbor_header};
use crate::conform::{Malformed, Violations};
use crate::generated::reasons::REASONS;
use crate::json;
use crate::operation::{OperationInfo, Protocol, ServiceInfo};
use crate::query;
use crate::reply::{RawBody, RawReply};

/// Errors that every service of AWS may answer, with their status: AWS's list "Common errors", and for the signature
/// errors what Kinesis Video answers (403).
const COMMON: &[(&str, u16)] = &[
    ("AccessDenied", 403),
    ("AccessDeniedException", 400),
    ("ExpiredToken", 403),
    ("ExpiredTokenException", 403),
    ("IncompleteSignature", 400),
    ("IncompleteSignatureException", 400),
    ("InternalFailure", 500),
    ("InvalidAction", 400),
    ("InvalidClientTokenId", 403),
    ("InvalidSignatureException", 403),
    ("MethodNotAllowed", 405),
    ("MissingAuthenticationToken", 403),
    ("MissingAuthenticationTokenException", 403),
    ("NotAuthorized", 400),
    ("OptInRequired", 403),
    ("RequestEntityTooLarge", 413),
    ("RequestExpired", 400),
    ("RequestTimeout", 408),
    ("SerializationException", 400),
    ("ServiceUnavailable", 503),
    ("SignatureDoesNotMatch", 403),
    ("ThrottlingException", 400),
    ("UnknownOperationException", 400),
    ("UnrecognizedClientException", 403),
    ("ValidationError", 400),
    ("ValidationException", 400),
];

/// The HTTP status of an error: what it says itself, else what the operation declares, else what is common to all.
pub fn status(error: &ApiError, info: Option<&OperationInfo>) -> u16 {
    let common = || {
        COMMON
            .iter()
            .find(|(code, _)| *code == error.code)
            .map(|(_, status)| *status)
    };
    error
        .status
        .or_else(|| info.and_then(|info| info.declared_status(&error.code)))
        .or_else(common)
        .unwrap_or(match error.fault {
            Fault::Client => 400,
            Fault::Server => 500,
        })
}

/// The answer that tells the caller of an operation about an error.
pub fn render_error(error: &ApiError, info: &OperationInfo, request_id: &str) -> RawReply {
    render_error_as(error, info, Codec::of(info, None), request_id)
}

/// The same in the notation of the request.
pub(crate) fn render_error_as(error: &ApiError, info: &OperationInfo, codec: Codec, request_id: &str) -> RawReply {
    render(error, Some(info), &Dialect::of(info.service, codec), request_id)
}

/// The answer where no operation is known: `protocol` is a guess from what is known of the request.
pub fn render_unrouted_error(error: &ApiError, protocol: Protocol, request_id: &str) -> RawReply {
    let dialect = Dialect {
        protocol,
        json_version: "1.1",
        xml_namespace: "",
        service: "",
        cbor: match protocol {
            Protocol::RpcCbor => Some(RPC_CBOR_CONTENT_TYPE),
            _ => None,
        },
    };
    render(error, None, &dialect, request_id)
}

/// What decides the form of an error's body.
struct Dialect {
    protocol: Protocol,
    json_version: &'static str,
    xml_namespace: &'static str,
    /// The model's name of the service; empty where it is not known.
    service: &'static str,
    /// How a body in CBOR is labelled.
    cbor: Option<&'static str>,
}

impl Dialect {
    fn of(service: &ServiceInfo, codec: Codec) -> Self {
        Dialect {
            protocol: match (service.protocol, codec) {
                (Protocol::RpcCbor, Codec::Json) => Protocol::AwsJson,
                (Protocol::RpcCbor, Codec::Query) => Protocol::Query,
                (protocol, _) => protocol,
            },
            json_version: service.json_version,
            xml_namespace: service.xml_namespace,
            service: service.name,
            cbor: match codec {
                Codec::Cbor => Some(CBOR_CONTENT_TYPE),
                Codec::RpcCbor => Some(RPC_CBOR_CONTENT_TYPE),
                _ => None,
            },
        }
    }
}

fn render(error: &ApiError, info: Option<&OperationInfo>, dialect: &Dialect, request_id: &str) -> RawReply {
    let status = status(error, info);
    if dialect.protocol == Protocol::Query {
        let body = query::write_error(
            dialect.xml_namespace,
            &error.code,
            &error.message,
            status < 500,
            request_id,
        );
        return RawReply {
            status,
            content_type: Cow::Borrowed("text/xml"),
            headers: Vec::new(),
            body: RawBody::Bytes(Bytes::from(body)),
            crowd: None,
        };
    }
    let type_name = type_name(error, dialect.service);
    if let Some(content_type) = dialect.cbor {
        let body = cbor::write_texts(&[("__type", &type_name), ("message", &error.message)]);
        return RawReply {
            status,
            content_type: Cow::Borrowed(content_type),
            headers: headers(error, status, dialect),
            body: RawBody::Bytes(Bytes::from(body)),
            crowd: None,
        };
    }
    let mut members: Vec<(&str, &str)> = Vec::new();
    let content_type = match dialect.protocol {
        Protocol::RestJson => {
            members.push(("Message", &error.message));
            Cow::Borrowed("application/json")
        }
        _ => {
            members.push(("__type", &type_name));
            if dialect.service == "rekognition" {
                members.extend([("Code", error.code.as_ref()), ("Logref", request_id)]);
            } else {
                members.push(("message", &error.message));
            }
            members.push(("Message", &error.message));
            Cow::Owned(format!("application/x-amz-json-{}", dialect.json_version))
        }
    };
    let mut reply = RawReply {
        status,
        content_type,
        headers: headers(error, status, dialect),
        body: RawBody::Bytes(Bytes::from(object(&members, &error.members))),
        crowd: None,
    };
    if let Some(info) = info {
        add_checksum(info, &mut reply);
    }
    reply
}

/// How the service names an error in a body. DynamoDB's clients look for the name behind its namespace; CloudWatch's errors
/// have one name in forms, which is their code here, and another in every newer protocol.
fn type_name(error: &ApiError, service: &str) -> String {
    let code = error.code.as_ref();
    match (service, code) {
        (DYNAMODB, "ValidationException") => format!("com.amazon.coral.validate#{code}"),
        (DYNAMODB, _) if COMMON.iter().any(|(common, _)| *common == code) => format!("com.amazon.coral.service#{code}"),
        (DYNAMODB, _) => format!("com.amazonaws.dynamodb.v20120810#{code}"),
        (CLOUDWATCH, "InternalServiceError") => "InternalServiceFault".to_owned(),
        (CLOUDWATCH, "MissingParameter") => "MissingRequiredParameterException".to_owned(),
        (CLOUDWATCH, "InvalidParameterValue" | "InvalidParameterCombination") => format!("{code}Exception"),
        _ => code.to_owned(),
    }
}

const CLOUDWATCH: &str = "cloudwatch";

fn headers(error: &ApiError, status: u16, dialect: &Dialect) -> Vec<(Cow<'static, str>, String)> {
    let mut headers = type_headers(error);
    if dialect.service == CLOUDWATCH {
        // What the error is called in forms, for SDKs that went over to a newer protocol.
        let whose = if status < 500 { "Sender" } else { "Receiver" };
        headers.push((Cow::Borrowed("x-amzn-query-error"), format!("{};{whose}", error.code)));
    }
    if dialect.cbor == Some(RPC_CBOR_CONTENT_TYPE) {
        headers.push(rpc_cbor_header());
    }
    headers
}

/// boto3 reads the first, the documentation of Kinesis Video names the second.
fn type_headers(error: &ApiError) -> Vec<(Cow<'static, str>, String)> {
    ["x-amzn-ErrorType", "x-amz-ErrorType"]
        .map(|name| (Cow::Borrowed(name), error.code.to_string()))
        .into()
}

fn object(texts: &[(&str, &str)], raw: &[(&'static str, String)]) -> Vec<u8> {
    let mut out = vec![b'{'];
    let member = |out: &mut Vec<u8>, name: &str| {
        if out.len() > 1 {
            out.push(b',');
        }
        json::write_text(out, name);
        out.push(b':');
    };
    for (name, text) in texts {
        member(&mut out, name);
        json::write_text(&mut out, text);
    }
    for (name, value) in raw {
        member(&mut out, name);
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    out
}

/// A body that is not a document of its protocol, or has text where a number belongs.
pub(crate) fn malformed(found: Malformed) -> ApiError {
    ApiError::client("SerializationException", found.0)
}

/// Broken constraints, with the code that the service's clients expect. Kinesis Video and Rekognition answer the error
/// that all their operations declare, so that SDKs give it its own class; the others AWS's common one.
pub(crate) fn violated(info: &OperationInfo, violations: &Violations) -> ApiError {
    let code = match (info.service.signing_name, info.service.protocol) {
        ("kinesisvideo", _) => "InvalidArgumentException",
        ("rekognition", _) => "InvalidParameterException",
        (_, Protocol::Query) => "ValidationError",
        ("monitoring", _) => "InvalidParameterValue",
        _ => "ValidationException",
    };
    ApiError::client(code, violations.to_string())
}

/// The policy does not allow it, in AWS's words.
pub fn denied(info: &OperationInfo, caller: &Caller, resource: &str) -> ApiError {
    let code = match info.service.protocol {
        Protocol::Query => "AccessDenied",
        _ if info.declares("NotAuthorizedException") => "NotAuthorizedException",
        _ => "AccessDeniedException",
    };
    let action = info.action;
    let message = format!(
        "User: {} is not authorized to perform: {action} on resource: {resource} because no identity-based policy allows \
         the {action} action",
        caller.principal_arn
    );
    ApiError::client(code, message)
}

/// The operation is in the table but nobody carries it out.
pub(crate) fn not_implemented(info: &OperationInfo) -> ApiError {
    const PREFERRED: &[&str] = &[
        "InvalidArgumentException",
        "InvalidParameterException",
        "InvalidParameterValue",
        "InvalidRequestException",
        "ValidationException",
        "UnsupportedOperationException",
    ];
    let code = PREFERRED
        .iter()
        .find(|code| info.declares(code))
        .copied()
        .or_else(|| {
            info.errors
                .iter()
                .find(|(_, status)| *status < 500)
                .map(|(code, _)| *code)
        })
        .unwrap_or("UnknownOperationException");
    let name = info.name;
    let why = why_not(info).map_or(String::new(), |why| format!(": {why}"));
    ApiError::client(
        code,
        format!("{name} is not implemented by this server{why}; see docs/reference/coverage.md"),
    )
}

/// The reason that `not_implemented.toml` gives.
fn why_not(info: &OperationInfo) -> Option<&'static str> {
    let sought = (info.service.name, info.name);
    let place = REASONS.binary_search_by(|(model, operation, _)| (*model, *operation).cmp(&sought));
    REASONS.get(place.ok()?).map(|(_, _, reason)| *reason)
}
