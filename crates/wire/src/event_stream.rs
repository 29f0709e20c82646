//! Answers that are rows of events: `application/vnd.amazon.eventstream`. A message is its length, the length of its
//! headers, a CRC-32 of these eight bytes, headers, payload, and a CRC-32 of all of it. The first message is the answer
//! itself (`initial-response`); an error is the last one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::{ApiError, ByteStream, StreamError};
use bytes::Bytes;
use futures_util::Stream;

use crate::codec::{CBOR_CONTENT_TYPE, Codec, RPC_CBOR_CONTENT_TYPE};
use crate::schema::Schema;
use crate::shape::{Mismatch, Shape, Structure};
use crate::value::Value;
use crate::{cbor, json};

/// `Content-Type` of such an answer.
pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

/// Events as they come. An error is told as an exception, and is the last of them.
pub type Events<E> = Pin<Box<dyn Stream<Item = Result<E, ApiError>> + Send>>;

/// The output of an operation that answers with events of one kind.
pub struct WithEvents<O, E> {
    /// What the first message holds.
    pub output: O,
    /// The others; `None` once they are on their way.
    pub events: Option<Events<E>>,
}

impl<O, E> WithEvents<O, E> {
    /// An output and its events.
    pub fn new(output: O, events: impl Stream<Item = Result<E, ApiError>> + Send + 'static) -> Self {
        WithEvents {
            output,
            events: Some(Box::pin(events)),
        }
    }
}

impl<O: Structure, E> Shape for WithEvents<O, E> {
    fn from_value(value: Value<'_>) -> Result<Self, Mismatch> {
        Ok(WithEvents {
            output: O::from_value(value)?,
            events: None,
        })
    }

    fn to_value(&self) -> Value<'_> {
        self.output.to_value()
    }
}

impl<O: Structure, E: Structure + Send + 'static> Structure for WithEvents<O, E> {
    fn schema() -> &'static Schema {
        O::schema()
    }

    fn take_events(&mut self, codec: Codec) -> Option<ByteStream> {
        let events = self.events.take()?;
        let document = document(codec, &self.output);
        let first = message(&headers("event", "initial-response", codec), &document);
        Some(Box::pin(Messages {
            first: VecDeque::from([first]),
            events: Some(events),
            codec,
        }))
    }
}

fn document<S: Structure>(codec: Codec, shape: &S) -> Vec<u8> {
    let (value, schema) = (shape.to_value(), S::schema());
    match codec {
        Codec::Cbor => cbor::write(&value, schema),
        Codec::RpcCbor => cbor::write_rpc(&value, schema),
        Codec::Json | Codec::Query => json::write(&value, schema),
    }
}

/// The name of an event is that of its structure, as it is in every model that has events.
fn event<E: Structure>(codec: Codec, event: &E) -> Bytes {
    message(&headers("event", E::schema().name, codec), &document(codec, event))
}

fn exception(codec: Codec, error: &ApiError) -> Bytes {
    let payload = match codec {
        Codec::Cbor | Codec::RpcCbor => cbor::write_texts(&[("message", &error.message)]),
        Codec::Json | Codec::Query => {
            let mut text = b"{\"message\":".to_vec();
            json::write_text(&mut text, &error.message);
            text.push(b'}');
            text
        }
    };
    message(&headers("exception", &error.code, codec), &payload)
}

fn headers<'a>(message: &'a str, name: &'a str, codec: Codec) -> [(&'static str, &'a str); 3] {
    let kind = match message {
        "exception" => ":exception-type",
        _ => ":event-type",
    };
    let content = match codec {
        Codec::Cbor => CBOR_CONTENT_TYPE,
        Codec::RpcCbor => RPC_CBOR_CONTENT_TYPE,
        Codec::Json | Codec::Query => "application/x-amz-json-1.1",
    };
    [(kind, name), (":content-type", content), (":message-type", message)]
}

/// The value of a header is text.
const TEXT: u8 = 7;

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap_or(0));
        head.extend_from_slice(name.as_bytes());
        head.push(TEXT);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = Vec::with_capacity(16 + head.len() + payload.len());
    out.extend_from_slice(&length(16 + head.len() + payload.len()));
    out.extend_from_slice(&length(head.len()));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.into()
}

struct Messages<E> {
    first: VecDeque<Bytes>,
    events: Option<Events<E>>,
    codec: Codec,
}

impl<E: Structure> Stream for Messages<E> {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(first)));
        }
        let codec = self.codec;
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        match ready!(events.as_mut().poll_next(context)) {
            Some(Ok(next)) => Poll::Ready(Some(Ok(event(codec, &next)))),
            // What the events hold is given back at once, not when the client has read the last of them.
            Some(Err(error)) => {
                self.events = None;
                Poll::Ready(Some(Ok(exception(codec, &error))))
            }
            None => {
                self.events = None;
                Poll::Ready(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_framed_as_the_published_example() {
        // The test vector "payload_no_headers" of the AWS event stream encoding.
        let bytes = message(&[], b"{'foo':'bar'}");
        let want = [
            0x00, 0x00, 0x00, 0x1d, 0x00, 0x00, 0x00, 0x00, 0xfd, 0x52, 0x8c, 0x5a, 0x7b, 0x27, 0x66, 0x6f, 0x6f, 0x27,
            0x3a, 0x27, 0x62, 0x61, 0x72, 0x27, 0x7d, 0xc3, 0x65, 0x39, 0x36,
        ];
        assert_eq!(bytes, want.as_slice());
    }

    #[test]
    fn an_exception_is_the_last_message() {
        let events =
            futures_util::stream::iter([Err(ApiError::client("ResourceInUseException", "taken over")), Ok(())]);
        let mut answer = WithEvents::new((), events);
        let mut stream = answer.take_events(Codec::Json).unwrap();
        assert!(answer.take_events(Codec::Json).is_none());
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut texts = Vec::new();
        while let Poll::Ready(Some(message)) = stream.as_mut().poll_next(&mut context) {
            texts.push(String::from_utf8_lossy(&message.unwrap()).into_owned());
        }
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("initial-response"));
        assert!(texts[1].contains(":exception-type") && texts[1].contains("{\"message\":\"taken over\"}"));
    }
}
