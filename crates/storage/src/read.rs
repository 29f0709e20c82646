//! Reading frames back. Nothing is returned that does not fit its checksum.

use std::sync::Arc;

use base::DiskFile;
use bytes::Bytes;

use crate::frame::{HEADER, Header, Kind};
use crate::payload::Extent;
use crate::scan::{Identity, STEP, Window, belongs, search};
use crate::state::Shared;
use crate::{Corruption, Error, StreamId};

impl Shared {
    /// Runs file I/O apart from the async workers; without a runtime (in the simulation) on the spot.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return work(self);
        };
        let shared = Arc::clone(self);
        let done = runtime.spawn_blocking(move || work(&shared)).await;
        done.unwrap_or(Err(Error::Closed))
    }

    /// The payload of the frame at `place`, which must be of `kind` and `stream`.
    pub fn read_frame(&self, kind: Kind, stream: StreamId, place: &Extent) -> Result<Bytes, Error> {
        let (file, salt) = self.segment_file(place.segment)?;
        let offset = u64::from(place.offset);
        let corrupt = |what| {
            Error::Corrupt(Corruption {
                stream: Some(stream),
                what,
                segment: place.segment,
                offset,
            })
        };
        let mut frame = vec![0; HEADER + place.len as usize];
        let name = || format!("segment {}", place.segment);
        let got = file
            .read_at(&mut frame, offset)
            .map_err(|e| Error::io("read", &name(), e))?;
        if got != frame.len() {
            return Err(corrupt("the frame is cut off"));
        }
        let header = Header::decode(&frame).ok_or_else(|| corrupt("frame header"))?;
        let who = Identity {
            id: place.segment,
            salt,
        };
        let expected = belongs(&header, who, offset, u64::MAX)
            && header.kind == kind
            && header.stream == stream.0
            && header.payload_len == place.len;
        if !expected {
            return Err(corrupt("another frame stands here"));
        }
        let payload = Bytes::from(frame).slice(HEADER..);
        if crc32c::crc32c(&payload) != header.payload_crc {
            return Err(corrupt("payload checksum"));
        }
        Ok(payload)
    }

    /// Walks the record frames of a segment from `offset` on, up to `to`, and shows those of one shard to `see`, until it
    /// has seen enough. Damaged frames are passed over: their loss was reported when the log was opened, and a reader
    /// that stopped there would never get past.
    pub fn walk_records(
        &self,
        segment: u64,
        offset: u64,
        to: u64,
        whose: (StreamId, u32),
        see: &mut dyn FnMut(&Header, Bytes) -> bool,
    ) -> Result<(), Error> {
        let (file, salt) = match self.segment_file(segment) {
            Err(Error::NotFound) => return Ok(()),
            other => other?,
        };
        let wrap = |e| Error::io("read", &format!("segment {segment}"), e);
        let who = Identity { id: segment, salt };
        let mut window = Window::new(&file, to);
        let mut at = offset;
        while at + HEADER as u64 <= to {
            let bytes = window.get(at, HEADER, 16 * STEP).map_err(wrap)?;
            let header = match Header::decode(bytes).filter(|h| belongs(h, who, at, to)) {
                Some(header) => header,
                None => {
                    tracing::error!(segment, offset = at, "a damaged stretch of records is passed over");
                    match search(&mut window, at + 1, &|h, o| belongs(h, who, o, to)).map_err(wrap)? {
                        Some(header) => header,
                        None => return Ok(()),
                    }
                }
            };
            at = header.end();
            if header.kind != Kind::Records || header.stream != whose.0.0 || header.subject.c != whose.1 {
                continue;
            }
            let payload = payload_of(&file, &mut window, &header).map_err(wrap)?;
            if crc32c::crc32c(&payload) != header.payload_crc {
                tracing::error!(
                    segment,
                    offset = header.offset,
                    "a damaged frame of records is passed over"
                );
                continue;
            }
            if !see(&header, payload) {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn payload_of(file: &Arc<dyn DiskFile>, window: &mut Window<'_>, header: &Header) -> std::io::Result<Bytes> {
    let (offset, len) = (header.offset + HEADER as u64, header.payload_len as usize);
    if len <= STEP {
        return window.get(offset, len, 16 * STEP).map(Bytes::copy_from_slice);
    }
    let mut payload = vec![0; len];
    let got = file.read_at(&mut payload, offset)?;
    payload.truncate(got);
    Ok(payload.into())
}
