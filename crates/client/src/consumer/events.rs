//! Takes an answer that is a row of events apart: `application/vnd.amazon.eventstream`. A message is its length, the length
//! of its headers, a CRC-32 of these eight bytes, headers, payload, and a CRC-32 of all of it. Sans-I/O.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Answer, ClientError};
use crate::limits::EVENT_BYTES_MAX;

const PRELUDE_BYTES: usize = 12;
const FRAME_BYTES: usize = PRELUDE_BYTES + 4;

/// An event: its name and its document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub name: String,
    pub payload: Bytes,
}

/// Gathers bytes and gives events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: BytesMut,
}

impl Events {
    /// More bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a message has begun and not ended.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next event, `None` until it is there; an exception of the server, or bytes that are no events, as an error.
    pub fn next(&mut self) -> Result<Option<Event>, ClientError> {
        let wrong = |what: &str| ClientError::Protocol(format!("event stream: {what}"));
        let Some(prelude) = self.buffer.get(..PRELUDE_BYTES) else {
            return Ok(None);
        };
        let mut fields = prelude;
        let (length, headers_length, sum) = (fields.get_u32() as usize, fields.get_u32() as usize, fields.get_u32());
        if crc32fast::hash(prelude.get(..8).unwrap_or_default()) != sum {
            return Err(wrong("the checksum of a message's beginning is wrong"));
        }
        if !(FRAME_BYTES..=EVENT_BYTES_MAX).contains(&length) || headers_length > length - FRAME_BYTES {
            return Err(wrong("a message's length is impossible"));
        }
        if self.buffer.len() < length {
            self.buffer.reserve(length - self.buffer.len());
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length).freeze();
        let mut sum = message.split_off(length - 4);
        if crc32fast::hash(&message) != sum.get_u32() {
            return Err(wrong("the checksum of a message is wrong"));
        }
        message.advance(PRELUDE_BYTES);
        let payload = message.split_off(headers_length);
        let headers = Headers::parse(&mut message).ok_or_else(|| wrong("the headers of a message are malformed"))?;
        headers.event(payload).map(Some)
    }
}

/// The texts among a message's headers that matter.
#[derive(Default)]
struct Headers {
    message: String,
    event: String,
    exception: String,
    error: String,
    error_message: String,
}

impl Headers {
    fn parse(bytes: &mut Bytes) -> Option<Headers> {
        let mut headers = Headers::default();
        while bytes.has_remaining() {
            let length = usize::from(bytes.try_get_u8().ok()?);
            let name = take(bytes, length)?;
            let value = match bytes.try_get_u8().ok()? {
                0 | 1 => 0,
                2 => 1,
                3 => 2,
                4 => 4,
                5 | 8 => 8,
                6 | 7 => usize::from(bytes.try_get_u16().ok()?),
                9 => 16,
                _ => return None,
            };
            let value = take(bytes, value)?;
            let field = match name.as_ref() {
                b":message-type" => &mut headers.message,
                b":event-type" => &mut headers.event,
                b":exception-type" => &mut headers.exception,
                b":error-code" => &mut headers.error,
                b":error-message" => &mut headers.error_message,
                _ => continue,
            };
            *field = String::from_utf8(value.to_vec()).ok()?;
        }
        Some(headers)
    }

    fn event(self, payload: Bytes) -> Result<Event, ClientError> {
        let (code, message) = match self.message.as_str() {
            "exception" => {
                let document: serde_json::Value = serde_json::from_slice(&payload).unwrap_or_default();
                let message = ["message", "Message"]
                    .iter()
                    .find_map(|name| document.get(name)?.as_str());
                (self.exception, message.unwrap_or_default().to_owned())
            }
            "error" => (self.error, self.error_message),
            _ => {
                return Ok(Event {
                    name: self.event,
                    payload,
                });
            }
        };
        let status = if code.starts_with("Internal") { 500 } else { 400 };
        Err(ClientError::Refused(Answer { status, code, message }))
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (bytes.remaining() >= length).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut head = vec![3, b'i', b'n', b't', 4, 0, 0, 0, 9, 1, b't', 0];
        for (name, value) in headers {
            head.push(name.len() as u8);
            head.extend_from_slice(name.as_bytes());
            head.push(7);
            head.extend_from_slice(&(value.len() as u16).to_be_bytes());
            head.extend_from_slice(value.as_bytes());
        }
        let mut out = ((FRAME_BYTES + head.len() + payload.len()) as u32)
            .to_be_bytes()
            .to_vec();
        out.extend_from_slice(&(head.len() as u32).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    #[test]
    fn events_come_whole_however_the_bytes_do() {
        let one = message(&[(":message-type", "event"), (":event-type", "E")], b"{}");
        let stream = [one.clone(), one].concat();
        for step in 1..stream.len() {
            let mut events = Events::default();
            let mut got = 0;
            for piece in stream.chunks(step) {
                events.push(piece);
                while let Some(event) = events.next().unwrap() {
                    assert_eq!((event.name.as_str(), event.payload.as_ref()), ("E", &b"{}"[..]));
                    got += 1;
                }
            }
            assert_eq!((got, events.is_partial()), (2, false));
        }
    }

    #[test]
    fn an_exception_is_an_error_with_its_name() {
        let mut events = Events::default();
        let headers = [
            (":message-type", "exception"),
            (":exception-type", "ResourceInUseException"),
        ];
        events.push(&message(&headers, b"{\"message\":\"taken over\"}"));
        let error = events.next().unwrap_err();
        assert_eq!(error.code(), Some("ResourceInUseException"));
        assert!(error.to_string().contains("taken over"));
    }

    #[test]
    fn bytes_that_are_no_events_are_refused() {
        let good = message(&[(":message-type", "event"), (":event-type", "E")], b"{}");
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let mut events = Events::default();
            events.push(&bytes);
            assert!(events.next().is_err(), "byte {at}");
        }
        let mut huge = 0xFFFF_FFF0_u32.to_be_bytes().to_vec();
        huge.extend_from_slice(&[0; 4]);
        huge.extend_from_slice(&crc32fast::hash(&huge).to_be_bytes());
        let mut events = Events::default();
        events.push(&huge);
        assert!(events.next().is_err());
    }
}
