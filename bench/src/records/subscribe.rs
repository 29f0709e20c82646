//! How late a subscriber sees a record.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Target;
use super::connection::{Connection, find, request};
use super::notation::Notation;
use crate::Failure;

/// A record that takes longer than this is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Puts records one after the other, and gives the times from the answer to each to its arrival at a subscriber; zero where it
/// arrived before the answer.
pub fn delays(target: &Target, stream: &str, records: usize) -> Result<Vec<Duration>, Failure> {
    let mut connection = Connection::open(target)?;
    let mut call = |operation: &str, input: Value| -> Result<Value, Failure> {
        let body = serde_json::to_vec(&input)?;
        let answer = connection.call(target, Notation::Json, operation, &body)?;
        Ok(if answer.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(answer)?
        })
    };
    let summary = call("DescribeStreamSummary", json!({ "StreamName": stream }))?;
    let arn = summary["StreamDescriptionSummary"]["StreamARN"].clone();
    let consumer = call(
        "RegisterStreamConsumer",
        json!({ "StreamARN": arn, "ConsumerName": "bench" }),
    )?;
    let wanted = json!({ "ConsumerARN": consumer["Consumer"]["ConsumerARN"], "ShardId": "shardId-000000000000",
        "StartingPosition": { "Type": "LATEST" } });
    let mut socket = std::net::TcpStream::connect(target.address)?;
    socket.set_nodelay(true)?;
    let subscription = request(
        target,
        Notation::Json,
        "SubscribeToShard",
        &serde_json::to_vec(&wanted)?,
    );
    socket.write_all(&subscription)?;
    let (seen, arrivals) = mpsc::channel();
    let mut reader = socket.try_clone()?;
    let watching = std::thread::spawn(move || -> Result<(), Failure> {
        let (mut open, mut number, mut held, mut buffer) = (false, 0, Vec::new(), vec![0; 1 << 16]);
        loop {
            let read = reader.read(&mut buffer)?;
            let now = Instant::now();
            if read == 0 {
                return Ok(());
            }
            held.extend_from_slice(buffer.get(..read).unwrap_or_default());
            // The first event says that it is subscribed.
            if !open && find(&held, b"initial-response").is_some() {
                open = true;
                seen.send(now)?;
            }
            while let Some(at) = find(&held, STANDARD.encode(text(number)).as_bytes()) {
                held.drain(..at);
                number += 1;
                seen.send(now)?;
            }
        }
    });
    arrivals
        .recv_timeout(PATIENCE)
        .map_err(|_| "the subscription did not begin")?;
    let mut times = Vec::with_capacity(records);
    for number in 0..records {
        let data = STANDARD.encode(text(number));
        call(
            "PutRecord",
            json!({ "StreamName": stream, "PartitionKey": "key", "Data": data }),
        )?;
        let answered = Instant::now();
        let arrived = arrivals.recv_timeout(PATIENCE);
        let arrived = arrived.map_err(|_| format!("record {number} did not arrive"))?;
        times.push(arrived.saturating_duration_since(answered));
    }
    socket.shutdown(std::net::Shutdown::Both)?;
    watching.join().map_err(|_| "the subscriber failed")??;
    Ok(times)
}

/// A record that no other one contains.
fn text(number: usize) -> String {
    format!("record {number:08} of a subscription's measurement")
}
