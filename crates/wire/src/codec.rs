//! From bytes to typed inputs and from typed outputs to bytes, by protocol. A new notation is a variant of [`Codec`],
//! a parser to [`Value`] and a writer from it.

use std::borrow::Cow;

use base::{ApiError, Caller};
use bytes::Bytes;

use crate::conform::{Notation, conform};
use crate::error::{malformed, violated};
use crate::operation::{Access, OperationInfo, Protocol, Resource};
use crate::query::Form;
use crate::reply::{RawBody, RawReply};
use crate::schema::Schema;
use crate::shape::{Mismatch, Structure};
use crate::value::Value;
use crate::{cbor, json, query};

/// How the bodies of one request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// JSON in and out.
    Json,
    /// CBOR in and out: Kinesis's other notation, which the Java SDK speaks.
    Cbor,
    /// CBOR in and out as the protocol rpc-v2-cbor writes it: times are seconds.
    RpcCbor,
    /// A form in, XML out.
    Query,
}

impl Codec {
    /// What the operation's protocol and the request's content type demand.
    pub fn of(info: &OperationInfo, content_type: Option<&str>) -> Codec {
        match info.service.protocol {
            Protocol::Query => Codec::Query,
            // The newest protocol of such a service is RPC; its older SDKs still speak its older ones.
            Protocol::RpcCbor => match content_type.map(str::trim) {
                Some(t) if t.starts_with("application/x-amz-json") => Codec::Json,
                Some(t) if t.starts_with("application/cbor") => Codec::RpcCbor,
                _ => Codec::Query,
            },
            Protocol::AwsJson if content_type.is_some_and(|t| t.trim().starts_with("application/x-amz-cbor")) => {
                Codec::Cbor
            }
            _ => Codec::Json,
        }
    }
}

/// A checked request: the typed input and the resource that a policy must allow (`None`: the handler asks itself).
#[derive(Debug)]
pub struct Decoded<I> {
    /// The operation's input.
    pub input: I,
    /// An ARN, or `*`.
    pub resource: Option<String>,
}

/// Reads, checks and types a request. `body` is empty for an operation with a streaming request.
pub fn decode<I: Structure>(
    info: &OperationInfo,
    codec: Codec,
    headers: &dyn Fn(&str) -> Option<String>,
    body: &[u8],
    caller: &Caller,
) -> Result<Decoded<I>, ApiError> {
    let form;
    let (mut value, notation) = match codec {
        Codec::Json if info.request_stream => (Value::Map(Vec::new()), Notation::Text),
        // What players call has everything in the query string, which comes as the body.
        Codec::Json if info.access == Access::SessionToken => {
            form = parse_form(body)?;
            (query::gather(&form, I::schema()), Notation::Text)
        }
        Codec::Json => (json::parse(body).map_err(malformed)?, Notation::Json),
        Codec::Cbor => (cbor::parse(body).map_err(malformed)?, Notation::Cbor),
        Codec::RpcCbor => (cbor::parse_rpc(body).map_err(malformed)?, Notation::RpcCbor),
        Codec::Query => {
            form = parse_form(body)?;
            (query::gather(&form, I::schema()), Notation::Text)
        }
    };
    if !matches!(value, Value::Map(_)) {
        return Err(ApiError::client("SerializationException", "the body is not an object"));
    }
    add_headers(&mut value, I::schema(), headers);
    let (value, violations) = conform(value, I::schema(), notation).map_err(malformed)?;
    if !violations.is_empty() {
        return Err(violated(info, &violations));
    }
    let resource = resource(info, &value, I::schema(), caller);
    let input = I::from_value(value).map_err(internal)?;
    Ok(Decoded { input, resource })
}

fn parse_form(body: &[u8]) -> Result<Form, ApiError> {
    query::parse_form(body).map_err(|e| ApiError::client("MalformedQueryString", e.0))
}

fn internal(mismatch: Mismatch) -> ApiError {
    ApiError::server("InternalFailure", "The request could not be read.", mismatch)
}

fn add_headers(value: &mut Value<'_>, schema: &Schema, headers: &dyn Fn(&str) -> Option<String>) {
    let Value::Map(entries) = value else { return };
    for member in schema.members() {
        if let Some(text) = member.header.and_then(headers) {
            entries.push((Cow::Borrowed(member.name), Value::Text(Cow::Owned(text))));
        }
    }
}

/// The ARN that a policy must allow for this request.
fn resource(info: &OperationInfo, value: &Value<'_>, schema: &Schema, caller: &Caller) -> Option<String> {
    let Resource::Members(members) = info.resource else {
        return None;
    };
    let Value::Fields(fields) = value else {
        return Some("*".to_owned());
    };
    let text = |name: &str| {
        let at = schema.members().iter().position(|member| member.name == name)?;
        match fields.get(at) {
            Some(Value::Text(text)) => Some(text.as_ref()),
            _ => None,
        }
    };
    let found = members.iter().find_map(|by| Some((by, text(by.member)?)));
    Some(match found {
        None => "*".to_owned(),
        Some((by, text)) => match by.name {
            // DynamoDB takes an ARN where a name is due.
            Some(_) if text.starts_with("arn:") => text.to_owned(),
            Some((before, after)) => {
                let (service, region, account) = (info.service.signing_name, &caller.region, caller.account);
                format!("arn:aws:{service}:{region}:{account}:{before}{text}{after}")
            }
            None => text.to_owned(),
        },
    })
}

/// Writes an answer.
pub fn encode<O: Structure>(
    info: &OperationInfo,
    codec: Codec,
    output: &O,
    stream: Option<base::ByteStream>,
    stream_len: Option<u64>,
    request_id: &str,
) -> RawReply {
    let schema = O::schema();
    let value = output.to_value();
    let mut reply = RawReply {
        status: 200,
        content_type: content_type(info, codec),
        headers: Vec::new(),
        body: RawBody::Bytes(Bytes::new()),
        crowd: None,
    };
    if let Value::Fields(fields) = &value {
        for (field, member) in fields.iter().zip(schema.members()) {
            match (member.header, field) {
                (Some("content-type"), Value::Text(text)) => reply.content_type = Cow::Owned(text.to_string()),
                (Some(name), Value::Text(text)) => reply.headers.push((Cow::Borrowed(name), text.to_string())),
                _ => {}
            }
        }
    }
    if let (Some(_), Some(len)) = (&stream, stream_len) {
        reply.headers.push((Cow::Borrowed("content-length"), len.to_string()));
    }
    reply.body = match (stream, codec) {
        (Some(stream), _) => RawBody::Stream(stream),
        // An operation without an output answers nothing in aws-json and an empty object in rest-json.
        (None, Codec::Json | Codec::Cbor | Codec::RpcCbor) if value == Value::Null => {
            RawBody::Bytes(match info.service.protocol {
                Protocol::RestJson => Bytes::from_static(b"{}"),
                _ => Bytes::new(),
            })
        }
        (None, Codec::Json) => RawBody::Bytes(json::write(&value, schema).into()),
        (None, Codec::Cbor) => RawBody::Bytes(cbor::write(&value, schema).into()),
        (None, Codec::RpcCbor) => RawBody::Bytes(cbor::write_rpc(&value, schema).into()),
        (None, Codec::Query) => RawBody::Bytes(query::write(info, &value, schema, request_id).into()),
    };
    if codec == Codec::RpcCbor {
        reply.headers.push(rpc_cbor_header());
    }
    add_checksum(info, &mut reply);
    reply
}

/// What every answer of the protocol rpc-v2-cbor carries.
pub(crate) fn rpc_cbor_header() -> (Cow<'static, str>, String) {
    (Cow::Borrowed("smithy-protocol"), "rpc-v2-cbor".to_owned())
}

/// DynamoDB's SDKs compare it with the body.
pub(crate) fn add_checksum(info: &OperationInfo, reply: &mut RawReply) {
    if let (DYNAMODB, RawBody::Bytes(body)) = (info.service.name, &reply.body) {
        let checksum = crc32fast::hash(body).to_string();
        reply.headers.push((Cow::Borrowed("x-amz-crc32"), checksum));
    }
}

/// The model's name of the service whose answers carry a checksum.
pub(crate) const DYNAMODB: &str = "dynamodb";

/// How CBOR answers of Kinesis are labelled.
pub(crate) const CBOR_CONTENT_TYPE: &str = "application/x-amz-cbor-1.1";

/// How answers of the protocol rpc-v2-cbor are labelled.
pub(crate) const RPC_CBOR_CONTENT_TYPE: &str = "application/cbor";

fn content_type(info: &OperationInfo, codec: Codec) -> Cow<'static, str> {
    match (codec, info.service.protocol) {
        (Codec::Query, _) => Cow::Borrowed("text/xml"),
        (Codec::Cbor, _) => Cow::Borrowed(CBOR_CONTENT_TYPE),
        (Codec::RpcCbor, _) => Cow::Borrowed(RPC_CBOR_CONTENT_TYPE),
        (Codec::Json, Protocol::AwsJson | Protocol::RpcCbor) => {
            Cow::Owned(format!("application/x-amz-json-{}", info.service.json_version))
        }
        (Codec::Json, _) => Cow::Borrowed("application/json"),
    }
}

/// Writes an input as a client would: the JSON body, without members that headers carry.
pub fn encode_input<I: Structure>(input: &I) -> Vec<u8> {
    json::write(&input.to_value(), I::schema())
}

/// Reads an output as a client would. Constraints are not checked: they bind the server's inputs alone.
pub fn decode_output<O: Structure>(body: &[u8]) -> Result<O, crate::conform::Malformed> {
    let (value, _) = conform(json::parse(body)?, O::schema(), Notation::Json)?;
    O::from_value(value).map_err(|e| crate::conform::Malformed(e.to_string()))
}
