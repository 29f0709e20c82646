//! Reading frames back. Nothing is returned that does not fit its checksum.

use std::io;
use std::sync::Arc;

use base::DiskFile;
use bytes::Bytes;

use crate::frame::{HEADER, Header, Kind};
use crate::payload::Extent;
use crate::scan::{Identity, STEP, Window, belongs, search};
use crate::state::Shared;
use crate::{Corruption, Error, StreamId};

/// How much of a frame is read at a time.
const STEP_BYTES: usize = 256 << 10;

/// What a thread that must not wait reads at most of what is in memory: about 150 µs of copying.
const READ_NOW_BYTES_MAX: u32 = 1 << 20;

/// Reads from a file at an offset; less than the buffer takes is a failure.
type ReadAt = dyn Fn(&dyn DiskFile, &mut [u8], u64) -> io::Result<usize>;

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
        let mut payload = self.reads.take(place.len as usize);
        self.read_payload(kind, stream, place, payload.as_mut())?;
        Ok(payload.freeze())
    }

    /// The same if it is in memory and not too long for the thread that asks; `None` otherwise, whatever the reason. A hop
    /// to another thread and back costs as much as a copy.
    pub fn read_frame_now(&self, kind: Kind, stream: StreamId, place: &Extent) -> Option<Bytes> {
        if place.len > READ_NOW_BYTES_MAX {
            return None;
        }
        let mut payload = self.reads.take(place.len as usize);
        let read = |file: &dyn DiskFile, buffer: &mut [u8], at| {
            let whole = file.read_without_waiting(buffer, at)?;
            Ok(if whole { buffer.len() } else { 0 })
        };
        self.read_payload_by(&read, kind, stream, place, payload.as_mut())
            .ok()?;
        Some(payload.freeze())
    }

    /// The same into memory of just its length, which holds anything after an error.
    pub fn read_payload(&self, kind: Kind, stream: StreamId, place: &Extent, out: &mut [u8]) -> Result<(), Error> {
        let read = |file: &dyn DiskFile, buffer: &mut [u8], at| file.read_at(buffer, at);
        self.read_payload_by(&read, kind, stream, place, out)
    }

    fn read_payload_by(
        &self,
        read_at: &ReadAt,
        kind: Kind,
        stream: StreamId,
        place: &Extent,
        out: &mut [u8],
    ) -> Result<(), Error> {
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
        let read = |buffer: &mut [u8], at| {
            let got = read_at(&*file, buffer, at);
            match got.map_err(|e| Error::io("read", &format!("segment {}", place.segment), e))? {
                got if got == buffer.len() => Ok(()),
                _ => Err(corrupt("the frame is cut off")),
            }
        };
        let mut head = [0; HEADER];
        read(&mut head, offset)?;
        let header = Header::decode(&head).ok_or_else(|| corrupt("frame header"))?;
        let who = Identity {
            id: place.segment,
            salt,
        };
        let expected = belongs(&header, who, offset, u64::MAX)
            && header.kind == kind
            && header.stream == stream.0
            && header.payload_len == place.len
            && out.len() == place.len as usize;
        if !expected {
            return Err(corrupt("another frame stands here"));
        }
        let (mut crc, mut at) = (0, offset + HEADER as u64);
        // In steps that the checksum finds in the processor's cache.
        for step in out.chunks_mut(STEP_BYTES) {
            read(step, at)?;
            crc = crc32c::crc32c_append(crc, step);
            at += step.len() as u64;
        }
        match crc == header.payload_crc {
            true => Ok(()),
            false => Err(corrupt("payload checksum")),
        }
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
        // Behind a large frame there is another one, most likely, and perhaps of another shard.
        let mut ahead = STEP;
        while at + HEADER as u64 <= to {
            let bytes = window.get(at, HEADER, ahead).map_err(wrap)?;
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
            ahead = if header.payload_len as usize > STEP {
                STEP
            } else {
                16 * STEP
            };
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
