//! Films: recordings in a file, taken apart by a worker process of their own. The container is parsed behind the locked
//! door (invariant 7): the process has no file and asks for ranges of the film's bytes over its pipe, and gives encoded
//! frames, which an ordinary session decodes. Nothing here reads a byte of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use base::AccountId;
use bytes::Bytes;

use crate::limits::{FILM_SILENCE_TIMEOUT, MAX_FILM_READ_BYTES, MAX_FILMS};
use crate::meters::Meters;
use crate::process::{Failure, Launch, Process};
use crate::protocol::{FromWorker, ToWorker};
use crate::types::Codec;

const KIND: [&str; 1] = ["film"];

/// Whether luma spans all of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorRange {
    /// 16 to 235.
    Limited,
    /// 0 to 255.
    Full,
}

/// What a film's container says of its first video track that can be decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct FilmInfo {
    /// The codec of the track.
    pub codec: Codec,
    /// avcC, hvcC, start codes, or empty.
    pub codec_private: Bytes,
    /// The container's name in words, e.g. `QuickTime / MOV`.
    pub format: String,
    /// Pixels, as shown.
    pub width: u32,
    /// Pixels, as shown.
    pub height: u32,
    /// 0 where the container does not say.
    pub duration_ms: u64,
    /// Frames a second on average; 0 where it is not known.
    pub frame_rate: f32,
    /// Where the video says.
    pub color_range: Option<ColorRange>,
    /// How the pictures are to be turned, as EXIF's orientation 1, 3, 6 or 8: telephones film upright and say so.
    pub orientation: u8,
}

/// One encoded frame of a film, in decoding order.
#[derive(Clone, Debug, PartialEq)]
pub struct FilmFrame {
    /// Presentation time in milliseconds from the film's start, at most [`crate::limits::MAX_FILM_TIME_MS`] from it.
    pub time_ms: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// False for one that the container wants decoded for the sake of later ones alone.
    pub shown: bool,
    /// The frame.
    pub data: Bytes,
}

/// What is wrong with a film.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilmFault {
    /// The bytes are neither MP4, MOV nor Matroska.
    #[error("the object is not an MP4, MOV or Matroska file")]
    NotAFilm,
    /// It has no video.
    #[error("the file has no video track")]
    NoVideo,
    /// Its video cannot be decoded; the name of the codec.
    #[error("the video's codec {0} is not supported: H.264 and H.265 are")]
    Codec(String),
    /// It breaks off, or its index does not fit its contents.
    #[error("the file is damaged or breaks off")]
    Damaged,
    /// More frames, or frames larger, than are taken.
    #[error("the video is too long, or has frames that are too large")]
    TooLarge,
}

/// Why a film, or the rest of it, cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilmError {
    /// The film is at fault; another try would end the same.
    #[error(transparent)]
    Fault(#[from] FilmFault),
    /// Its bytes cannot be read; in words for the log.
    #[error("{0}")]
    Source(String),
    /// [`MAX_FILMS`] are open; worth another try.
    #[error("too many films are open")]
    Busy,
    /// The worker could not be started, died or hung over the film; in words for the log.
    #[error("the vision worker failed: {0}")]
    Worker(String),
}

/// Where the bytes of a film are.
#[async_trait]
pub trait FilmSource: Send {
    /// So many bytes from an offset on, fewer only at the end. Why not, in words for the log.
    async fn read(&mut self, offset: u64, bytes: usize) -> Result<Bytes, String>;
}

/// How many films are open.
#[derive(Clone, Default)]
pub(crate) struct Films(Arc<AtomicUsize>);

impl Films {
    /// A place for one more; `None` when all are taken.
    pub(crate) fn take(&self, meters: Arc<Meters>) -> Option<Slot> {
        let one_more = |open: usize| (open < MAX_FILMS).then_some(open + 1);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()?;
        meters.workers.with_label_values(&KIND).inc();
        Some(Slot {
            films: self.clone(),
            meters,
        })
    }
}

/// The place of one film.
pub(crate) struct Slot {
    films: Films,
    meters: Arc<Meters>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.films.0.fetch_sub(1, Ordering::AcqRel);
        self.meters.workers.with_label_values(&KIND).dec();
    }
}

/// Gives a film's frames. Dropping it ends its worker.
pub struct FilmReader {
    account: AccountId,
    process: Process,
    source: Box<dyn FilmSource>,
    size: u64,
    info: FilmInfo,
    slot: Slot,
}

impl FilmReader {
    pub(crate) async fn open(
        launch: &Launch,
        slot: Slot,
        account: AccountId,
        size: u64,
        mut source: Box<dyn FilmSource>,
    ) -> Result<FilmReader, FilmError> {
        let started = Process::start_demuxer(launch).await;
        let mut process = started.map_err(|failure| FilmError::Worker(failure.to_string()))?;
        let opened = async {
            send(&mut process, &ToWorker::Film { size }).await?;
            match converse(&mut process, source.as_mut(), size).await? {
                FromWorker::FilmOpened(info) => Ok(info),
                FromWorker::FilmEnd(Err(fault)) => Err(fault.into()),
                _ => Err(worker(&Failure::OutOfTurn)),
            }
        }
        .await;
        let info = opened.inspect_err(|error| lost(&slot, account, error))?;
        Ok(FilmReader {
            account,
            process,
            source,
            size,
            info,
            slot,
        })
    }

    /// What the container says.
    pub fn info(&self) -> &FilmInfo {
        &self.info
    }

    /// The next frame; `None` at the end. Not cancel safe: after a dropped call only dropping the reader is left.
    pub async fn next(&mut self) -> Result<Option<FilmFrame>, FilmError> {
        let said = converse(&mut self.process, self.source.as_mut(), self.size).await;
        let next = said.and_then(|message| match message {
            FromWorker::FilmFrame(frame) => Ok(Some(frame)),
            FromWorker::FilmEnd(Ok(())) => Ok(None),
            FromWorker::FilmEnd(Err(fault)) => Err(fault.into()),
            _ => Err(worker(&Failure::OutOfTurn)),
        });
        next.inspect_err(|error| lost(&self.slot, self.account, error))
    }
}

fn worker(failure: &Failure) -> FilmError {
    FilmError::Worker(failure.to_string())
}

fn lost(slot: &Slot, account: AccountId, error: &FilmError) {
    if matches!(error, FilmError::Worker(_)) {
        slot.meters.deaths.with_label_values(&KIND).inc();
        tracing::warn!(%account, %error, "a film's worker is lost");
    }
}

async fn send(process: &mut Process, message: &ToWorker) -> Result<(), FilmError> {
    process.outbox.send(message).await.map_err(|failure| worker(&failure))
}

/// Gives the worker the bytes that it wants until it says something else.
async fn converse(process: &mut Process, source: &mut dyn FilmSource, size: u64) -> Result<FromWorker, FilmError> {
    loop {
        let heard = tokio::time::timeout(FILM_SILENCE_TIMEOUT, process.inbox.next()).await;
        let message = heard
            .unwrap_or(Err(Failure::Silent))
            .map_err(|failure| worker(&failure))?;
        let FromWorker::FilmWants { offset, bytes } = message else {
            return Ok(message);
        };
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
        if wanted == 0 || wanted > MAX_FILM_READ_BYTES || offset >= size {
            return Err(worker(&Failure::OutOfTurn));
        }
        let data = source.read(offset, wanted).await.map_err(FilmError::Source)?;
        if data.is_empty() || data.len() > wanted {
            return Err(FilmError::Source(format!(
                "{} bytes came for {wanted} at {offset}",
                data.len()
            )));
        }
        send(process, &ToWorker::FilmBytes { data }).await?;
    }
}
