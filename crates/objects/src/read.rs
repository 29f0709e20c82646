//! Bytes on their way out of files: a stream that reads one piece ahead on a blocking thread, so that constant memory and
//! no thread are held while its reader is slow.

use std::collections::VecDeque;
use std::sync::Arc;

use base::DiskFile;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::files::Files;
use crate::limits::READ_BYTES;
use crate::row::Id;
use crate::{ObjectError, ObjectStream};

/// A stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub id: Id,
    pub offset: u64,
    pub bytes: u64,
    /// The CRC-64 of the file, if the stretch is all of it: it is compared at the end.
    pub crc64: Option<u64>,
}

struct Open {
    file: Arc<dyn DiskFile>,
    segment: Segment,
    crc: crc_fast::Digest,
}

struct Reader {
    files: Arc<Files>,
    left: VecDeque<Segment>,
    open: Option<Open>,
}

impl Reader {
    fn next(mut self) -> Result<Option<(Bytes, Self)>, ObjectError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => match self.left.pop_front() {
                None => return Ok(None),
                Some(segment) => {
                    let file = self.files.open(segment.id)?;
                    let file =
                        file.ok_or_else(|| ObjectError::Storage(format!("the file {} is missing", segment.id)))?;
                    begin(file, segment)
                }
            },
        };
        let wanted = usize::try_from(open.segment.bytes)
            .unwrap_or(READ_BYTES)
            .min(READ_BYTES);
        let mut bytes = vec![0; wanted];
        let got = open
            .file
            .read_at(&mut bytes, open.segment.offset)
            .map_err(|error| ObjectError::io("read a file", &error))?;
        if got < wanted {
            return Err(ObjectError::Storage(format!(
                "the file {} is too short",
                open.segment.id
            )));
        }
        open.segment.offset += wanted as u64;
        open.segment.bytes -= wanted as u64;
        if let Some(crc) = open.segment.crc64 {
            open.crc.update(&bytes);
            // Found before the last piece leaves, so that nobody takes damaged bytes for whole.
            if open.segment.bytes == 0 && open.crc.finalize() != crc {
                let what = format!("the file {} is damaged: its checksum is another", open.segment.id);
                return Err(ObjectError::Storage(what));
            }
        }
        if open.segment.bytes > 0 {
            self.open = Some(open);
        }
        Ok(Some((bytes.into(), self)))
    }
}

fn begin(file: Arc<dyn DiskFile>, segment: Segment) -> Open {
    Open {
        file,
        segment,
        crc: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
    }
}

type Ahead = JoinHandle<Result<Option<(Bytes, Reader)>, ObjectError>>;

/// Streams the segments; `first` is the file of the first of them, opened already. `held` is dropped with the stream.
pub(crate) fn stream<H: Send + 'static>(
    files: Arc<Files>,
    segments: Vec<Segment>,
    first: Option<Arc<dyn DiskFile>>,
    held: H,
) -> ObjectStream {
    let mut left: VecDeque<Segment> = segments.into_iter().filter(|segment| segment.bytes > 0).collect();
    let open = first.and_then(|file| Some(begin(file, left.pop_front()?)));
    let reader = Reader { files, left, open };
    let start: Option<(Ahead, H)> = Some((spawn_blocking(move || reader.next()), held));
    Box::pin(futures_util::stream::try_unfold(start, |state| async move {
        let Some((ahead, held)) = state else { return Ok(None) };
        let read = ahead
            .await
            .map_err(|error| ObjectError::Storage(format!("a task that reads failed: {error}")))?;
        let Some((bytes, reader)) = read? else { return Ok(None) };
        let ahead = spawn_blocking(move || reader.next());
        Ok(Some((bytes, Some((ahead, held)))))
    }))
}
