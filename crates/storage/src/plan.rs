//! A batch in the making: frames laid out behind one another, and what becomes true when they are durable. Pure layout,
//! no I/O.

use tokio::sync::oneshot;

use crate::buffer::{ExtentBuffer, pad_to};
use crate::control::RangeSet;
use crate::frame::{ALIGN, BLOCK, HEADER, Header, Kind, Subject, align_up};
use crate::index::Entry;
use crate::payload::{Extent, ShardMade};
use crate::records::{NewRecord, ShardId};
use crate::state::{Place, Signpost};
use crate::{Error, FragmentInfo, FragmentSummary, SequenceNumber, StreamId};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What is asked of a lane.
pub(crate) enum Request {
    /// Reserve the next block of fragment numbers: first and last.
    Reserve {
        stream: StreamId,
        reply: Reply<(u64, u64)>,
    },
    /// A fragment begins; `open` names it until it ends.
    Begin {
        open: u64,
        stream: StreamId,
        number: crate::FragmentNumber,
    },
    /// Write out a full extent. Answers when it is written, not when it is durable.
    Extent {
        open: u64,
        buffer: ExtentBuffer,
        reply: Reply<()>,
    },
    Commit {
        open: u64,
        last: Option<ExtentBuffer>,
        summary: FragmentSummary,
        reply: Reply<FragmentInfo>,
    },
    Abort {
        open: u64,
    },
    /// Drop commit positions.
    Trim {
        stream: StreamId,
        gone: RangeSet,
        reply: Reply<u64>,
    },
    Delete {
        stream: StreamId,
        reply: Reply<()>,
    },
    Shard {
        stream: StreamId,
        made: ShardMade,
        reply: Reply<()>,
    },
    Append {
        records: Vec<NewRecord>,
        reply: Reply<Vec<SequenceNumber>>,
    },
    /// Take no more records, or take them again.
    CloseShard {
        stream: StreamId,
        shard: ShardId,
        closed: bool,
        reply: Reply<SequenceNumber>,
    },
    /// Drop records below an index.
    TrimShard {
        stream: StreamId,
        shard: ShardId,
        below: u64,
        reply: Reply<()>,
    },
    /// Give back space, roll old segments.
    Tick,
    /// Write a proof and stop.
    Close {
        reply: Reply<()>,
    },
}

/// What becomes true when the batch is durable.
pub(crate) enum Effect {
    Reserved {
        stream: StreamId,
        first: u64,
        last: u64,
        reply: Reply<(u64, u64)>,
    },
    Extent {
        open: u64,
        extent: Extent,
        reply: Option<Reply<()>>,
    },
    Commit {
        open: u64,
        stream: StreamId,
        entry: Entry<Place>,
        reply: Reply<FragmentInfo>,
    },
    Trim {
        stream: StreamId,
        gone: RangeSet,
        reply: Reply<u64>,
    },
    Delete {
        stream: StreamId,
        reply: Reply<()>,
    },
    Shard {
        stream: StreamId,
        made: ShardMade,
        reply: Reply<()>,
    },
    ShardReserved {
        stream: StreamId,
        shard: ShardId,
        through: u64,
    },
    Records {
        stream: StreamId,
        shard: ShardId,
        frame: Signpost,
        count: u64,
    },
    Appended {
        sequences: Vec<SequenceNumber>,
        reply: Reply<Vec<SequenceNumber>>,
    },
    TrimShard {
        stream: StreamId,
        shard: ShardId,
        below: u64,
        reply: Reply<()>,
    },
    /// A checkpoint was written after the given segment of the lane.
    Superseded {
        segment: u64,
    },
    /// The segment was closed in good order.
    Sealed,
    Closed {
        reply: Reply<()>,
    },
}

impl Effect {
    /// True when the effect waits for the sync.
    pub fn needs_sync(&self) -> bool {
        !matches!(self, Effect::Extent { .. })
    }

    /// For lack of space: requests that free space are asked again, of the others `error` is told.
    pub fn fail(self, error: &Error) -> Option<Request> {
        let failed = error.clone();
        match self {
            Effect::Trim { stream, gone, reply } => return Some(Request::Trim { stream, gone, reply }),
            Effect::Delete { stream, reply } => return Some(Request::Delete { stream, reply }),
            Effect::TrimShard {
                stream,
                shard,
                below,
                reply,
            } => {
                return Some(Request::TrimShard {
                    stream,
                    shard,
                    below,
                    reply,
                });
            }
            Effect::Closed { reply } => return Some(Request::Close { reply }),
            Effect::Reserved { reply, .. } => drop(reply.send(Err(failed))),
            Effect::Extent { reply, .. } => drop(reply.map(|r| r.send(Err(failed)))),
            Effect::Commit { reply, .. } => drop(reply.send(Err(failed))),
            Effect::Shard { reply, .. } => drop(reply.send(Err(failed))),
            Effect::Appended { reply, .. } => drop(reply.send(Err(failed))),
            Effect::ShardReserved { .. } | Effect::Records { .. } | Effect::Superseded { .. } | Effect::Sealed => {}
        }
        None
    }
}

/// Tells a requester that it will not happen.
pub(crate) fn refuse(request: Request, error: &Error) {
    let error = error.clone();
    match request {
        Request::Reserve { reply, .. } => drop(reply.send(Err(error))),
        Request::Extent { reply, .. } | Request::Delete { reply, .. } => drop(reply.send(Err(error))),
        Request::Shard { reply, .. } | Request::TrimShard { reply, .. } => drop(reply.send(Err(error))),
        Request::Commit { reply, .. } => drop(reply.send(Err(error))),
        Request::Trim { reply, .. } => drop(reply.send(Err(error))),
        Request::Append { reply, .. } => drop(reply.send(Err(error))),
        Request::CloseShard { reply, .. } => drop(reply.send(Err(error))),
        Request::Close { reply } => drop(reply.send(Err(error))),
        Request::Begin { .. } | Request::Abort { .. } | Request::Tick => {}
    }
}

/// Memory of a batch, in the order in which it is written.
enum Piece {
    /// Small frames, one behind the other.
    Small(Vec<u8>),
    Extent(ExtentBuffer),
}

/// The header of a frame whose stride is not final before the next frame or the end of the batch.
struct Pending {
    header: Header,
    /// Piece, and offset within it.
    piece: usize,
    at: usize,
}

/// What all frames of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub segment: u64,
    pub salt: u32,
    pub epoch: u64,
    pub proven: u64,
}

/// A batch that begins at `start`, a multiple of the block size.
pub(crate) struct Plan {
    stamp: Stamp,
    start: u64,
    cursor: u64,
    pieces: Vec<Piece>,
    frames: Vec<Pending>,
    pub effects: Vec<Effect>,
}

impl Plan {
    pub fn new(stamp: Stamp, start: u64) -> Self {
        Plan {
            stamp,
            start,
            cursor: start,
            pieces: Vec::new(),
            frames: Vec::new(),
            effects: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the batch as it stands.
    pub fn end(&self) -> u64 {
        align_up(self.cursor, BLOCK)
    }

    /// Adds a small frame and returns its offset.
    pub fn small(&mut self, kind: Kind, stream: u64, subject: Subject, payload: &[u8]) -> u64 {
        let offset = self.cursor;
        let stride = align_up((HEADER + payload.len()) as u64, ALIGN);
        let header = self.header(kind, stream, subject, payload.len(), crc32c::crc32c(payload), stride);
        if !matches!(self.pieces.last(), Some(Piece::Small(_))) {
            self.pieces.push(Piece::Small(Vec::new()));
        }
        let piece = self.pieces.len() - 1;
        if let Some(Piece::Small(bytes)) = self.pieces.last_mut() {
            let at = bytes.len();
            bytes.resize(at + HEADER, 0);
            bytes.extend_from_slice(payload);
            pad_to(bytes, ALIGN);
            self.frames.push(Pending { header, piece, at });
        }
        self.cursor += stride;
        offset
    }

    /// Adds an extent at the next block and returns its offset.
    pub fn extent(&mut self, buffer: ExtentBuffer, stream: u64, subject: Subject) -> u64 {
        self.pad_to_block();
        let offset = self.cursor;
        let stride = buffer.stride();
        let header = self.header(Kind::Extent, stream, subject, buffer.len(), buffer.crc(), stride);
        self.pieces.push(Piece::Extent(buffer));
        self.frames.push(Pending {
            header,
            piece: self.pieces.len() - 1,
            at: 0,
        });
        self.cursor += stride;
        offset
    }

    fn header(&self, kind: Kind, stream: u64, subject: Subject, len: usize, payload_crc: u32, stride: u64) -> Header {
        Header {
            kind,
            salt: self.stamp.salt,
            payload_len: u32::try_from(len).unwrap_or(u32::MAX),
            stride: u32::try_from(stride).unwrap_or(u32::MAX),
            payload_crc,
            segment: self.stamp.segment,
            offset: self.cursor,
            epoch: self.stamp.epoch,
            proven: self.stamp.proven,
            stream,
            subject,
        }
    }

    /// Gives the last frame the padding up to the next block.
    fn pad_to_block(&mut self) {
        let end = self.end();
        if let Some(last) = self.frames.last_mut() {
            last.header.stride += u32::try_from(end - self.cursor).unwrap_or(0);
        }
        if let Some(Piece::Small(bytes)) = self.pieces.last_mut() {
            pad_to(bytes, BLOCK);
        }
        self.cursor = end;
    }

    /// Finishes the headers. Afterwards the pieces can be written at [`Self::start`].
    pub fn seal(&mut self) {
        self.pad_to_block();
        for frame in &self.frames {
            let bytes = frame.header.encode();
            match self.pieces.get_mut(frame.piece) {
                Some(Piece::Small(small)) => {
                    if let Some(place) = small.get_mut(frame.at..frame.at + HEADER) {
                        place.copy_from_slice(&bytes);
                    }
                }
                Some(Piece::Extent(buffer)) => buffer.seal(&bytes),
                None => {}
            }
        }
    }

    /// What is to be written.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().flat_map(|piece| {
            let (small, extent) = match piece {
                Piece::Small(bytes) => (Some(bytes.as_slice()), None),
                Piece::Extent(buffer) => (None, Some(buffer.pieces())),
            };
            small.into_iter().chain(extent.into_iter().flatten())
        })
    }
}
