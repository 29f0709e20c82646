//! Signed requests on bare sockets: so that producers and consumers cost as little as they can beside the server.

use std::io::{Read, Write};
use std::net::TcpStream;

use auth::{RequestHead, Scope, payload_hash, sign};
use base::{Clock, SystemClock};
use serde_json::json;

use crate::Failure;
use crate::server::{REGION, Server, credentials};

/// Bytes of an answer's head at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Opens PutMedia; the connection is at the first byte of both bodies.
pub fn put_media(server: &Server, stream: &str) -> Result<TcpStream, Failure> {
    let started = SystemClock::new().now().to_string();
    let headers = [
        ("x-amzn-stream-name", stream),
        ("x-amzn-fragment-timecode-type", "RELATIVE"),
        ("x-amzn-producer-start-timestamp", started.as_str()),
        ("transfer-encoding", "chunked"),
    ];
    open(server, "/putMedia", &headers, b"")
}

/// Opens GetMedia at the live end; the connection is at the first byte of the answer's body.
pub fn get_media(server: &Server, stream: &str) -> Result<TcpStream, Failure> {
    let body = json!({"StreamName": stream, "StartSelector": {"StartSelectorType": "NOW"}}).to_string();
    let length = body.len().to_string();
    let headers = [
        ("content-type", "application/json"),
        ("content-length", length.as_str()),
    ];
    open(server, "/getMedia", &headers, body.as_bytes())
}

fn open(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<TcpStream, Failure> {
    let authority = server.endpoint().trim_start_matches("http://");
    let mut signed: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    signed.push(("host", authority.as_bytes()));
    let head = RequestHead {
        method: "POST",
        path,
        query: "",
        headers: &signed,
        local_port: None,
        also_hosts: &[],
    };
    let scope = Scope {
        region: REGION,
        service: "kinesisvideo",
    };
    let added = sign(
        &head,
        &credentials(),
        scope,
        SystemClock::new().now(),
        &payload_hash(body),
    );
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: {authority}\r\n");
    let added = added.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in headers.iter().copied().chain(added) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut stream = TcpStream::connect(authority)?;
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let answer = read_head(&mut stream)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(stream)
    } else {
        Err(format!("{path} was answered {answer}").into())
    }
}

/// Reads up to the empty line after a head, and no byte more.
pub fn read_head(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES_MAX {
            return Err("the head is too long".into());
        }
        stream.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
