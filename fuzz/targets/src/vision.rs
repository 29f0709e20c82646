//! What a `vision-worker` that a stranger's bytes have taken over may write into its pipe.

use bytes::Bytes;
use vision::protocol::{FromWorker, MAX_FROM_WORKER, MAX_TO_WORKER, ToWorker, length};

/// The messages of both directions: refused, or read, and then what was read can be said and read again.
pub fn vision_messages(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    if let Ok(read) = ToWorker::decode(&message) {
        let mut said = Vec::new();
        let tail = read.encode(&mut said).to_vec();
        said.extend_from_slice(&tail);
        assert!(ToWorker::decode(&body(&said, MAX_TO_WORKER)).is_ok());
    }
    if let Ok(read) = FromWorker::decode(data) {
        let mut said = Vec::new();
        read.encode(&mut said);
        assert!(FromWorker::decode(&body(&said, MAX_FROM_WORKER)).is_ok());
    }
}

/// A message without the length before it.
fn body(said: &[u8], max: usize) -> Bytes {
    let (prefix, body) = said.split_first_chunk::<4>().expect("a length");
    assert_eq!(length(*prefix, max), Ok(body.len()));
    Bytes::copy_from_slice(body)
}
