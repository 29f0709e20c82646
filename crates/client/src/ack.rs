//! The acknowledgements of PutMedia: JSON objects, one a line, cut anywhere by the transport.

use serde::Deserialize;

use crate::limits::ACK_LINE_BYTES_MAX;

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventType {
    /// The fragment's first byte has arrived.
    Buffering,
    /// The whole fragment has arrived.
    Received,
    /// The fragment is on stable storage.
    Persisted,
    /// The fragment or the connection failed.
    Error,
    /// Nothing arrives.
    Idle,
}

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ack {
    /// What it says.
    #[serde(rename = "EventType")]
    pub event: EventType,
    /// The cluster's timecode as it was sent.
    pub fragment_timecode: Option<i64>,
    /// The fragment's number, 47 digits.
    pub fragment_number: Option<String>,
    /// Number of the error.
    pub error_id: Option<i64>,
    /// Name of the error.
    pub error_code: Option<String>,
}

/// Puts lines together and reads them.
#[derive(Debug, Default)]
pub struct AckParser {
    line: Vec<u8>,
}

impl AckParser {
    /// Takes what arrived and gives the acknowledgements that it completes, or says which line is none.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Ack>, String> {
        let mut acks = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = bytes.split_at(end);
            self.line.extend_from_slice(head);
            bytes = rest.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            if !line.trim_ascii().is_empty() {
                acks.push(read(&line)?);
            }
        }
        if self.line.len() + bytes.len() > ACK_LINE_BYTES_MAX {
            return Err(format!("an acknowledgement is longer than {ACK_LINE_BYTES_MAX} bytes"));
        }
        self.line.extend_from_slice(bytes);
        Ok(acks)
    }

    /// A last acknowledgement without a line end.
    pub fn finish(&mut self) -> Result<Option<Ack>, String> {
        let line = std::mem::take(&mut self.line);
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        read(&line).map(Some)
    }
}

fn read(line: &[u8]) -> Result<Ack, String> {
    serde_json::from_slice(line)
        .map_err(|error| format!("{:?} is no acknowledgement: {error}", String::from_utf8_lossy(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"{\"EventType\":\"BUFFERING\",\"FragmentTimecode\":0,\"FragmentNumber\":\"9134\"}\r\n\
        {\"EventType\":\"ERROR\",\"FragmentTimecode\":1565810137603,\"FragmentNumber\":\"9135\",\
        \"ErrorCode\":\"MAX_FRAGMENT_DURATION_REACHED\",\"ErrorId\":4002}\n";

    #[test]
    fn acks_are_the_same_however_the_transport_cuts_them() {
        let whole = AckParser::default().push(TWO).unwrap();
        assert_eq!(whole.len(), 2);
        assert_eq!(
            (whole[0].event, whole[0].fragment_timecode),
            (EventType::Buffering, Some(0))
        );
        assert_eq!((whole[1].event, whole[1].error_id), (EventType::Error, Some(4002)));
        let mut parser = AckParser::default();
        let bytewise: Vec<Ack> = TWO.iter().flat_map(|byte| parser.push(&[*byte]).unwrap()).collect();
        assert_eq!(bytewise, whole);
        assert_eq!(parser.finish(), Ok(None));
    }

    #[test]
    fn what_is_no_ack_is_an_error_and_not_a_growing_buffer() {
        assert!(AckParser::default().push(b"{\"EventType\":\"WHAT\"}\n").is_err());
        let mut parser = AckParser::default();
        let endless = vec![b' '; 40_000];
        assert!(parser.push(&endless).is_ok());
        assert!(parser.push(&endless).is_err());
    }
}
