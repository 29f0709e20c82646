//! Feeding a producer from a reader of Matroska: a file, a pipe, the output of ffmpeg.

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until};

use crate::limits::READ_BYTES;
use crate::media::TimecodeType;
use crate::producer::cutter::{Cut, Cutter};
use crate::producer::outbox::Epoch;
use crate::producer::{Producer, ProducerError};

/// When media of a reader is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the server confirms it. Right for archives, and for sources that are live themselves.
    #[default]
    Fast,
    /// Each frame when a camera would have had it.
    Realtime,
}

/// How a reader is fed to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedOptions {
    /// When media is sent.
    pub pace: Pace,
    /// What the clusters' timecodes count from: `Relative` from `started`, `Absolute` from 1970.
    pub timecodes: TimecodeType,
    /// When the recording began.
    pub started: Timestamp,
}

/// What a reader held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Bytes.
    pub bytes: u64,
    /// Fragments.
    pub fragments: u64,
    /// How long it plays, the last frame included: what is fed after it begins so much later.
    pub length: Duration,
}

impl Producer {
    /// Sends everything that a reader holds, byte by byte as it is; each cluster becomes a fragment. Returns when the last
    /// byte is in the buffer: [`flush`](Producer::flush) or [`finish`](Producer::finish) wait until it is stored.
    ///
    /// Memory stays bounded by the buffer: with [`Overflow::Wait`](super::Overflow::Wait) nothing is read while it is
    /// full.
    ///
    /// # Errors
    /// The source cannot be read or is not Matroska, or the producer has stopped. What was read before is sent.
    pub async fn feed<R>(&mut self, mut source: R, options: &FeedOptions) -> Result<Fed, ProducerError>
    where
        R: AsyncRead + Unpin,
    {
        let start = Instant::now();
        let mut cutter = Cutter::new(options.pace == Pace::Realtime);
        let mut epoch = None;
        let mut buffer = BytesMut::new();
        let mut fed = Fed::default();
        let mut ended = false;
        while !ended {
            // Small reads share a block, so that what is kept is not much larger than what counts against the buffer.
            if buffer.capacity() < READ_BYTES / 4 {
                buffer.reserve(READ_BYTES);
            }
            if source.read_buf(&mut buffer).await? == 0 {
                cutter.finish();
                ended = true;
            } else {
                fed.bytes += buffer.len() as u64;
                cutter.push(buffer.split().freeze());
            }
            loop {
                let cut = match cutter.next() {
                    Ok(Some(cut)) => cut,
                    Ok(None) => break,
                    Err(error) => {
                        self.end_open();
                        return Err(error.into());
                    }
                };
                match cut {
                    Cut::Header { bytes, scale_ns } => {
                        epoch = Some(Arc::new(Epoch {
                            header: bytes,
                            timecodes: options.timecodes,
                            started: options.started,
                            scale_ns,
                            ours: false,
                        }));
                    }
                    Cut::Begin { timecode, bytes, due } => {
                        pause(options.pace, start, due).await;
                        fed.fragments += 1;
                        let epoch = epoch.as_ref().ok_or(ProducerError::NoHeader)?;
                        self.begin(epoch, timecode, bytes).await?;
                    }
                    Cut::Piece { bytes, key, due } => {
                        pause(options.pace, start, due).await;
                        self.append(bytes, key).await?;
                    }
                }
            }
        }
        self.end_open();
        fed.length = cutter.length();
        Ok(fed)
    }
}

async fn pause(pace: Pace, start: Instant, due: Duration) {
    if pace == Pace::Realtime {
        sleep_until(start + due).await;
    }
}
