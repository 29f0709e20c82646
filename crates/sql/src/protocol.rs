//! The messages between the server and a worker: four bytes of length (little endian), one byte of kind, and a body. The
//! server speaks first only after [`FromWorker::Ready`]. Neither side trusts a length.

use bytes::{BufMut, Bytes};

use crate::job::{Job, Reason};
use crate::limits::{FROM_WORKER_BYTES_MAX, REASON_CHARACTERS_MAX, TO_WORKER_BYTES_MAX};

/// Changed with every change of a message: server and worker must be of one build.
pub const VERSION: u32 = 1;

/// A message that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message that cannot be: {0}")]
pub struct ProtocolError(&'static str);

/// From the server.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// A job begins.
    Begin(Box<Job>),
    /// More records of the job.
    Records(Vec<Bytes>),
    /// That was the last one.
    End,
}

/// From a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromWorker {
    /// It is locked down and waits.
    Ready {
        /// [`VERSION`]
        version: u32,
        /// What holds, in words.
        lockdown: String,
    },
    /// A record is not in the file: its place in the job, and why.
    Rejected(u32, Reason),
    /// More of the file.
    Output(Bytes),
    /// The file is whole and has this many rows. Zero rows: there is no file, whatever came before.
    Done(u64),
    /// There is no file, and it is not a record's fault. The worker takes the next job.
    Failed(String),
}

/// The length of a message, kind included, from its first bytes.
pub fn length(prefix: [u8; 4], most: usize) -> Result<usize, ProtocolError> {
    match u32::from_le_bytes(prefix) as usize {
        0 => Err(ProtocolError("it is empty")),
        length if length > most => Err(ProtocolError("it is too long")),
        length => Ok(length),
    }
}

/// Appends a message of records without copying them into one first.
pub fn put_records(out: &mut Vec<u8>, records: &[Bytes]) {
    let bytes: usize = records.iter().map(Bytes::len).sum();
    out.put_u32_le((1 + 4 + 4 * records.len() + bytes) as u32);
    out.put_u8(2);
    out.put_u32_le(records.len() as u32);
    for record in records {
        out.put_u32_le(record.len() as u32);
    }
    for record in records {
        out.extend_from_slice(record);
    }
}

impl ToWorker {
    /// Appends it with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ToWorker::Begin(job) => framed(out, 1, |out| {
                // A job has no map with keys that are no text, and nothing that fails to be written.
                let _ = serde_json::to_writer(out, job);
            }),
            ToWorker::Records(records) => put_records(out, records),
            ToWorker::End => framed(out, 3, |_| {}),
        }
    }

    /// Reads one without its length; the records share its memory.
    pub fn decode(message: &Bytes) -> Result<ToWorker, ProtocolError> {
        if message.len() > TO_WORKER_BYTES_MAX {
            return Err(ProtocolError("it is too long"));
        }
        let body = message.get(1..).unwrap_or_default();
        match message.first() {
            Some(1) => {
                let job = serde_json::from_slice(body).map_err(|_| ProtocolError("a job that is none"))?;
                Ok(ToWorker::Begin(Box::new(job)))
            }
            Some(2) => records(&message.slice(1..)).map(ToWorker::Records),
            Some(3) => Ok(ToWorker::End),
            _ => Err(ProtocolError("of an unknown kind")),
        }
    }
}

fn records(body: &Bytes) -> Result<Vec<Bytes>, ProtocolError> {
    const CUT: ProtocolError = ProtocolError("records that are cut short");
    let word = |at: usize| -> Result<usize, ProtocolError> {
        let word = body.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(CUT)?;
        Ok(u32::from_le_bytes(*word) as usize)
    };
    let count = word(0)?;
    let mut at = count
        .checked_mul(4)
        .and_then(|lengths| lengths.checked_add(4))
        .ok_or(CUT)?;
    if at > body.len() {
        return Err(CUT);
    }
    let mut records = Vec::with_capacity(count);
    for place in 0..count {
        let end = at
            .checked_add(word(4 + 4 * place)?)
            .filter(|end| *end <= body.len())
            .ok_or(CUT)?;
        records.push(body.slice(at..end));
        at = end;
    }
    match at == body.len() {
        true => Ok(records),
        false => Err(ProtocolError("more bytes than records")),
    }
}

impl FromWorker {
    /// Appends it with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            FromWorker::Ready { version, lockdown } => framed(out, 1, |out| {
                out.put_u32_le(*version);
                out.extend_from_slice(lockdown.as_bytes());
            }),
            FromWorker::Rejected(index, reason) => framed(out, 2, |out| {
                out.put_u32_le(*index);
                let (kind, text) = match reason {
                    Reason::Malformed(text) => (0, text),
                    Reason::Mismatch(text) => (1, text),
                    Reason::Fatal(text) => (2, text),
                };
                out.put_u8(kind);
                let text: String = text.chars().take(REASON_CHARACTERS_MAX).collect();
                out.extend_from_slice(text.as_bytes());
            }),
            FromWorker::Output(bytes) => framed(out, 3, |out| out.extend_from_slice(bytes)),
            FromWorker::Done(rows) => framed(out, 4, |out| out.put_u64_le(*rows)),
            FromWorker::Failed(why) => framed(out, 5, |out| {
                let text: String = why.chars().take(REASON_CHARACTERS_MAX).collect();
                out.extend_from_slice(text.as_bytes());
            }),
        }
    }

    /// Reads one without its length; it shares the memory.
    pub fn decode(message: &Bytes) -> Result<FromWorker, ProtocolError> {
        const CUT: ProtocolError = ProtocolError("it is cut short");
        if message.len() > FROM_WORKER_BYTES_MAX {
            return Err(ProtocolError("it is too long"));
        }
        let body = message.get(1..).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match message.first() {
            Some(1) => {
                let (version, rest) = body.split_first_chunk::<4>().ok_or(CUT)?;
                Ok(FromWorker::Ready {
                    version: u32::from_le_bytes(*version),
                    lockdown: text(rest),
                })
            }
            Some(2) => {
                let (index, rest) = body.split_first_chunk::<4>().ok_or(CUT)?;
                let (kind, rest) = rest.split_first().ok_or(CUT)?;
                let reason = match kind {
                    0 => Reason::Malformed(text(rest)),
                    1 => Reason::Mismatch(text(rest)),
                    2 => Reason::Fatal(text(rest)),
                    _ => return Err(ProtocolError("a reason of an unknown kind")),
                };
                Ok(FromWorker::Rejected(u32::from_le_bytes(*index), reason))
            }
            Some(3) => Ok(FromWorker::Output(message.slice(1..))),
            Some(4) => {
                let rows = body.first_chunk::<8>().ok_or(CUT)?;
                Ok(FromWorker::Done(u64::from_le_bytes(*rows)))
            }
            Some(5) => Ok(FromWorker::Failed(text(body))),
            _ => Err(ProtocolError("of an unknown kind")),
        }
    }
}

fn framed(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u8(kind);
    body(out);
    let length = (out.len() - start - 4) as u32;
    if let Some(prefix) = out.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{Column, Compression, Input, OrcOptions, Output};

    #[test]
    fn messages_come_out_as_they_went_in() {
        let job = Job {
            columns: vec![Column {
                name: "a".to_owned(),
                hive: "map<string,array<decimal(5,2)>>".parse().unwrap(),
            }],
            input: Input::Hive {
                timestamp_formats: vec!["millis".to_owned()],
            },
            output: Output::Orc(OrcOptions {
                compression: Compression::Snappy,
                stripe_bytes: 64,
            }),
        };
        let records = vec![Bytes::from_static(b"{}"), Bytes::new(), Bytes::from_static(b"xyz")];
        for message in [
            ToWorker::Begin(Box::new(job)),
            ToWorker::Records(records),
            ToWorker::End,
        ] {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(length(*out.first_chunk().unwrap(), 1 << 20).unwrap(), out.len() - 4);
            assert_eq!(ToWorker::decode(&Bytes::from(out).slice(4..)).unwrap(), message);
        }
        for message in [
            FromWorker::Ready {
                version: VERSION,
                lockdown: "seccomp".to_owned(),
            },
            FromWorker::Rejected(7, Reason::Malformed("no".to_owned())),
            FromWorker::Rejected(8, Reason::Mismatch("not so".to_owned())),
            FromWorker::Output(Bytes::from_static(b"PAR1")),
            FromWorker::Done(12),
            FromWorker::Failed("why".to_owned()),
        ] {
            let mut out = Vec::new();
            message.encode(&mut out);
            assert_eq!(FromWorker::decode(&Bytes::from(out).slice(4..)).unwrap(), message);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_more_than_be_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = bytes.clone();
            for kind in 0..7 {
                if let Some(first) = message.first_mut() {
                    *first = kind;
                }
                let message = Bytes::from(message.clone());
                let _ = ToWorker::decode(&message);
                let _ = FromWorker::decode(&message);
            }
        }
    }
}
