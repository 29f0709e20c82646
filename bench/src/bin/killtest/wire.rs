//! A bare connection for PutRecords in CBOR. `None` stands for a server that is gone.

use auth::{RequestHead, Scope, payload_hash, sign};
use base::{Clock, SystemClock};
use bench::Failure;
use bench::server::{REGION, credentials};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CBOR: &str = "application/x-amz-cbor-1.1";

/// A connection to the server at an address, and what was read of it and not yet used.
pub struct Connection {
    socket: TcpStream,
    authority: String,
    buffer: Vec<u8>,
}

/// The head of an answer.
struct Head {
    status: u16,
    length: usize,
}

impl Connection {
    pub async fn open(authority: &str) -> Option<Connection> {
        let socket = TcpStream::connect(authority).await.ok()?;
        socket.set_nodelay(true).ok()?;
        Some(Connection {
            socket,
            authority: authority.to_owned(),
            buffer: Vec::new(),
        })
    }

    /// Sends a signed request.
    async fn send(&mut self, operation: &str, body: &[u8]) -> Option<()> {
        let length = body.len().to_string();
        let target = format!("Kinesis_20131202.{operation}");
        let headers = [
            ("content-type", CBOR),
            ("content-length", &length),
            ("x-amz-target", &target),
            ("host", &self.authority),
        ];
        let pairs: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let head = RequestHead {
            method: "POST",
            path: "/",
            query: "",
            headers: &pairs,
            local_port: None,
            also_hosts: &[],
        };
        let scope = Scope {
            region: REGION,
            service: "kinesis",
        };
        let signature = sign(
            &head,
            &credentials(),
            scope,
            SystemClock::new().now(),
            &payload_hash(body),
        );
        let mut request = b"POST / HTTP/1.1\r\n".to_vec();
        let added = signature.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in headers.into_iter().chain(added) {
            request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.socket.write_all(&request).await.ok()
    }

    /// Reads more; `None` at the end.
    async fn more(&mut self) -> Option<()> {
        let read = self.socket.read_buf(&mut self.buffer).await.ok()?;
        (read > 0).then_some(())
    }

    async fn head(&mut self) -> Option<Result<Head, Failure>> {
        let end = loop {
            match self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await?,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        Some(match status {
            None => Err(format!("no answer of HTTP: {head}").into()),
            Some(status) => Ok(Head {
                status,
                length: length.and_then(|length| length.trim().parse().ok()).unwrap_or(0),
            }),
        })
    }

    async fn body(&mut self, head: &Head) -> Option<Vec<u8>> {
        while self.buffer.len() < head.length {
            self.more().await?;
        }
        Some(self.buffer.drain(..head.length).collect())
    }

    /// The body of a successful answer; any other is an error.
    pub async fn call(&mut self, operation: &str, body: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        if self.send(operation, body).await.is_none() {
            return Ok(None);
        }
        let Some(head) = self.head().await.transpose()? else {
            return Ok(None);
        };
        let Some(body) = self.body(&head).await else {
            return Ok(None);
        };
        match head.status {
            200 => Ok(Some(body)),
            status => Err(format!("{operation}: {status} {}", String::from_utf8_lossy(&body)).into()),
        }
    }
}

/// A PutRecords of partition keys and data.
pub fn put_records(stream: &str, records: &[(String, Vec<u8>)]) -> Result<Vec<u8>, Failure> {
    let mut out = Encoder::new(Vec::new());
    out.begin_map()?.str("StreamName")?.str(stream)?.str("Records")?;
    out.array(records.len() as u64)?;
    for (key, data) in records {
        out.map(2)?.str("Data")?.bytes(data)?.str("PartitionKey")?.str(key)?;
    }
    out.end()?;
    Ok(out.into_writer())
}

/// Shard and sequence number of each record of the answer.
pub fn taken(answer: &[u8]) -> Result<Vec<(String, String)>, Failure> {
    let mut taken = Vec::new();
    let mut reader = Decoder::new(answer);
    each(&mut reader, Decoder::map, &mut |reader| match reader.str()? {
        "Records" => each(reader, Decoder::array, &mut |reader| {
            let (mut shard, mut number) = (None, None);
            each(reader, Decoder::map, &mut |reader| {
                match reader.str()? {
                    "ShardId" => shard = Some(reader.str()?.to_owned()),
                    "SequenceNumber" => number = Some(reader.str()?.to_owned()),
                    _ => reader.skip()?,
                }
                Ok(())
            })?;
            taken.push(shard.zip(number).ok_or("PutRecords left a record out")?);
            Ok(())
        }),
        _ => Ok(reader.skip()?),
    })?;
    Ok(taken)
}

/// Visits every entry of a map or an array, of known length or not.
fn each<'b>(
    reader: &mut Decoder<'b>,
    open: impl Fn(&mut Decoder<'b>) -> Result<Option<u64>, minicbor::decode::Error>,
    visit: &mut dyn FnMut(&mut Decoder<'b>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = open(reader)?;
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(left) => *left -= 1,
            None if reader.datatype()? == Type::Break => return Ok(reader.skip()?),
            None => {}
        }
        visit(reader)?;
    }
}
