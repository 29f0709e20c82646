//! The pool of worker processes.

use std::sync::Arc;

use base::metrics::Metrics;
use base::{AccountId, Clock};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::types::*;

/// The worker processes of all accounts. Cheap to clone; when the last clone and the last session are gone, the workers
/// are ended.
#[derive(Clone)]
pub struct VisionPool {
    inner: Arc<Inner>,
}

struct Inner {
    model_version: String,
    embedding_len: usize,
}

impl VisionPool {
    /// Reads the models' manifest. Starts no process: workers are started when they are first needed.
    pub fn start(config: VisionConfig, _metrics: &Metrics, _clock: Arc<dyn Clock>) -> Result<VisionPool, StartError> {
        if !config.worker.exists() {
            return Err(StartError::Worker(config.worker));
        }
        let inner = Inner {
            model_version: String::new(),
            embedding_len: 128,
        };
        Ok(VisionPool { inner: Arc::new(inner) })
    }

    /// The id of the embedding model, a collection's FaceModelVersion, e.g. `sface-2021dec`. Vectors of different
    /// versions must never be compared.
    pub fn model_version(&self) -> String {
        self.inner.model_version.clone()
    }

    /// How many numbers a vector has: 128 for SFace.
    pub fn embedding_len(&self) -> usize {
        self.inner.embedding_len
    }

    /// Finds the faces of a JPEG or PNG image, in a worker process of `account`. EXIF rotation is applied first.
    /// Dropping the future gives the request up.
    pub async fn analyze_image(
        &self,
        _account: AccountId,
        _image: Bytes,
        _options: ImageOptions,
    ) -> Result<ImageAnalysis, ImageError> {
        Err(ImageError::Worker("no worker has been started".to_owned()))
    }

    /// Opens a session. Must be called within a tokio runtime; returns at once, the worker may still be starting.
    /// The session ends when the sender is dropped and every outcome was received, or when the receiver is dropped.
    pub fn open_session(&self, _config: SessionConfig) -> Result<(FrameSender, ResultReceiver), OpenError> {
        Err(OpenError::NoCapacity(0))
    }
}

/// What [`FrameSender::send`] did with a frame. Frames that were skipped are also told to the [`ResultReceiver`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Frames that wait for the worker, this one included.
    pub queued: usize,
    /// Frames that this session has skipped before they reached the worker, since it was opened.
    pub skipped: u64,
}

/// Takes a session's frames in decoding order. Dropping it ends the input: pictures still in the decoder come out.
pub struct FrameSender {
    _private: mpsc::Sender<Frame>,
}

impl FrameSender {
    /// Hands a frame over. In [`Mode::Live`] ready at once; in [`Mode::CatchUp`] waits until there is room. Cancel safe:
    /// when the future is dropped the frame was not taken.
    pub async fn send(&mut self, _frame: Frame) -> Result<SendReport, SessionClosed> {
        Err(SessionClosed)
    }

    /// Switches between catching up and live.
    pub fn set_mode(&mut self, _mode: Mode) {}

    /// Frames were lost before the next one: everything up to the next key frame is skipped.
    pub fn mark_gap(&mut self) {}
}

/// Gives a session's outcomes.
pub struct ResultReceiver {
    outcomes: mpsc::Receiver<FrameOutcome>,
}

impl ResultReceiver {
    /// The next outcome; `None` when the sender was dropped and every frame has had its outcome. Cancel safe.
    pub async fn next(&mut self) -> Option<FrameOutcome> {
        self.outcomes.recv().await
    }
}
