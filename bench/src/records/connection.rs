//! One connection of HTTP/1.1 that is kept, with signed requests and whole answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use auth::{RequestHead, Scope, payload_hash, sign};
use base::{Clock, SystemClock};

use super::Target;
use super::notation::Notation;
use crate::Failure;
use crate::server::{REGION, credentials};

/// An answer's head at most.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A request to data streams as its bytes, signed.
pub fn request(target: &Target, notation: Notation, operation: &str, body: &[u8]) -> Vec<u8> {
    let name = format!("Kinesis_20131202.{operation}");
    let headers = [
        ("content-type", notation.content_type()),
        ("x-amz-target", name.as_str()),
    ];
    signed(target, ("kinesis", "POST"), ("/", ""), &headers, body)
}

/// A request to a service as its bytes, signed: its method, its path and query, and the headers that it has beside those
/// that every request has.
pub fn signed(
    target: &Target,
    (service, method): (&str, &str),
    (path, query): (&str, &str),
    more: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let authority = target.address.to_string();
    let length = body.len().to_string();
    let mut headers = more.to_vec();
    headers.extend([("content-length", length.as_str()), ("host", authority.as_str())]);
    let hash = payload_hash(body);
    if service == "s3" {
        headers.push(("x-amz-content-sha256", hash.as_str()));
    }
    let as_bytes: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let head = RequestHead {
        method,
        path,
        query,
        headers: &as_bytes,
        local_port: None,
        also_hosts: &[],
    };
    let scope = Scope {
        region: REGION,
        service,
    };
    let now = SystemClock::new().now();
    let added = sign(&head, &credentials(), scope, now, &hash);
    let mark = if query.is_empty() { "" } else { "?" };
    let mut request = format!("{method} {path}{mark}{query} HTTP/1.1\r\n").into_bytes();
    let added = added.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in headers.iter().copied().chain(added) {
        request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Connection {
    address: SocketAddr,
    socket: TcpStream,
    /// The server keeps no connection: the next request needs another one.
    closed: bool,
    /// What was read of the next answer.
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub fn open(target: &Target) -> Result<Connection, Failure> {
        Ok(Connection {
            address: target.address,
            socket: connect(target.address)?,
            closed: false,
            buffer: vec![0; 1 << 20],
            filled: 0,
        })
    }

    /// Signs and sends, and gives the body of the answer; an error if it is not 200.
    pub fn call(
        &mut self,
        target: &Target,
        notation: Notation,
        operation: &str,
        body: &[u8],
    ) -> Result<&[u8], Failure> {
        self.exchange(&request(target, notation, operation, body))
    }

    /// Sends a request that was made before.
    pub fn exchange(&mut self, request: &[u8]) -> Result<&[u8], Failure> {
        if self.closed {
            self.socket = connect(self.address)?;
        }
        self.socket.write_all(request)?;
        self.filled = 0;
        let head_length = loop {
            if let Some(at) = find(self.buffer.get(..self.filled).unwrap_or_default(), b"\r\n\r\n") {
                break at + 4;
            }
            if self.filled > HEAD_BYTES_MAX && self.filled >= self.buffer.len() {
                return Err("the head of an answer is too long".into());
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_length]).to_ascii_lowercase();
        self.closed = head.contains("\r\nconnection: close");
        let ok = head.starts_with("http/1.1 200");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.ok_or_else(|| format!("no length: {head}"))?.trim().parse()?;
        let end = head_length + length;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        while self.filled < end {
            self.fill()?;
        }
        let body = &self.buffer[head_length..end];
        match ok {
            true => Ok(body),
            false => Err(format!("{head}{}", String::from_utf8_lossy(body)).into()),
        }
    }

    fn fill(&mut self) -> Result<(), Failure> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match self.socket.read(room)? {
            0 => Err("the server hung up".into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Where a text begins in another.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(hay, needle)
}
