//! The pool: which worker serves which account, and the handles that callers hold.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use base::metrics::Metrics;
use base::{AccountId, Clock};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::film::{FilmError, FilmReader, FilmSource, Films};
use crate::frames::{Answers, FrameLook, FramesRequest, analyses, files};
use crate::image_host::{ImageHost, ImageRequest, Look};
use crate::limits::{DETECTOR_SIDES, IMAGE_QUEUE, LOOKS_QUEUE, MAX_CODEC_PRIVATE_BYTES, MAX_IMAGE_BYTES, STILLS_QUEUE};
use crate::manifest::Manifest;
use crate::meters::Meters;
use crate::objects::LabelAnalysis;
use crate::process::Launch;
use crate::still_host::{FrameKind, FramesJob, Question, StillHost};
use crate::types::*;
use crate::video_host::{Session, VideoHost};

/// The worker processes of all accounts. Cheap to clone; when the last clone and the last session are gone, the workers
/// are ended.
#[derive(Clone)]
pub struct VisionPool {
    inner: Arc<Inner>,
}

struct Inner {
    config: VisionConfig,
    launch: Arc<Launch>,
    /// The same for workers that go after those of cameras.
    background: Arc<Launch>,
    films: Films,
    meters: Arc<Meters>,
    clock: Arc<dyn Clock>,
    model_version: String,
    abilities: Abilities,
    label_model: Option<String>,
    hosts: Mutex<Hosts>,
}

#[derive(Default)]
struct Hosts {
    /// Of an account, and whether they work in the background: cameras and recordings share no process.
    videos: HashMap<(AccountId, bool), Vec<Arc<VideoHost>>>,
    images: HashMap<AccountId, mpsc::Sender<ImageRequest>>,
    stills: HashMap<(AccountId, FrameKind), mpsc::Sender<FramesJob>>,
}

impl Hosts {
    fn count(&self) -> usize {
        self.videos.values().map(Vec::len).sum::<usize>() + self.images.len() + self.stills.len()
    }

    /// The worker with the fewest sessions, of those for cameras or for recordings.
    fn freest(&self, account: AccountId, background: bool) -> Option<Arc<VideoHost>> {
        let own = self.videos.get(&(account, background))?;
        own.iter().min_by_key(|host| host.session_count()).cloned()
    }
}

impl VisionPool {
    /// Reads the models' manifest. Starts no process: workers are started when they are first needed.
    pub fn start(config: VisionConfig, metrics: &Metrics, clock: Arc<dyn Clock>) -> Result<VisionPool, StartError> {
        if !config.worker.is_file() {
            return Err(StartError::Worker(config.worker));
        }
        let manifest =
            Manifest::read(&config.models, config.embedder.as_deref()).map_err(|problem| StartError::Models {
                path: Manifest::path(&config.models),
                problem,
            })?;
        let absolute = |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let launch = Launch {
            worker: absolute(&config.worker),
            models: absolute(&config.models),
            embedder: manifest.embedder.component.id.clone(),
            embedding_len: manifest.embedder.length,
            background: false,
            video_abilities: Abilities::default(),
        };
        let abilities = Abilities {
            attributes: manifest.attributes.is_some(),
            labels: manifest.labels.is_some(),
        };
        let background = Launch {
            background: true,
            video_abilities: Abilities {
                labels: false,
                ..abilities
            },
            ..launch.clone()
        };
        let inner = Inner {
            config,
            launch: Arc::new(launch),
            background: Arc::new(background),
            films: Films::default(),
            meters: Arc::new(Meters::new(metrics)?),
            clock,
            abilities,
            label_model: manifest.labels.map(|labels| labels.id),
            model_version: manifest.embedder.component.id,
            hosts: Mutex::default(),
        };
        Ok(VisionPool { inner: Arc::new(inner) })
    }

    /// The id of the embedding model, a collection's FaceModelVersion, e.g. `sface-2021dec`. Vectors of different
    /// versions must never be compared.
    pub fn model_version(&self) -> String {
        self.inner.model_version.clone()
    }

    /// Which models beyond those of faces were prepared.
    pub fn abilities(&self) -> Abilities {
        self.inner.abilities
    }

    /// The id of the model of objects.
    pub fn label_model(&self) -> Option<String> {
        self.inner.label_model.clone()
    }

    /// How many numbers a vector has: 128 for SFace.
    pub fn embedding_len(&self) -> usize {
        self.inner.launch.embedding_len
    }

    /// Finds the faces of a JPEG or PNG image, in a worker process of `account`. EXIF rotation is applied first.
    /// Dropping the future gives the request up.
    pub async fn analyze_image(
        &self,
        account: AccountId,
        image: Bytes,
        mut options: ImageOptions,
    ) -> Result<ImageAnalysis, ImageError> {
        options.attributes &= self.inner.abilities.attributes;
        self.look(account, image, |reply| Look::Faces(options, reply)).await
    }

    /// Finds the objects of a JPEG or PNG image, in a worker process of `account`. EXIF rotation is applied first.
    /// Dropping the future gives the request up. Needs [`Abilities::labels`].
    pub async fn label_image(&self, account: AccountId, image: Bytes) -> Result<LabelAnalysis, ImageError> {
        if !self.inner.abilities.labels {
            return Err(ImageError::Worker(
                "the models were prepared without that of objects".to_owned(),
            ));
        }
        self.look(account, image, Look::Objects).await
    }

    async fn look<T>(
        &self,
        account: AccountId,
        image: Bytes,
        look: impl FnOnce(oneshot::Sender<Result<T, ImageError>>) -> Look,
    ) -> Result<T, ImageError> {
        if image.len() > MAX_IMAGE_BYTES {
            return Err(ImageError::TooLarge { width: 0, height: 0 });
        }
        let (reply, answer) = oneshot::channel();
        let mut request = ImageRequest {
            image,
            look: look(reply),
        };
        // A host may retire between being found and being asked; the second time a new one is found.
        for _ in 0..2 {
            let host = Inner::image_host(&self.inner, account).ok_or(ImageError::Busy)?;
            request = match host.try_send(request) {
                Ok(()) => {
                    let gone = || ImageError::Worker("the pool was shut down".to_owned());
                    return answer.await.unwrap_or_else(|_| Err(gone()));
                }
                Err(mpsc::error::TrySendError::Full(_)) => return Err(ImageError::Busy),
                Err(mpsc::error::TrySendError::Closed(request)) => request,
            };
        }
        Err(ImageError::Busy)
    }

    /// Makes still images of video frames, in a worker process of the account: an answer for each wanted packet, in their
    /// order. Dropping the future gives the request up.
    pub async fn stills(&self, request: StillsRequest) -> Result<Vec<Result<Bytes, StillError>>, StillsError> {
        let account = request.account;
        if request.codec_private.len() > MAX_CODEC_PRIVATE_BYTES {
            return Ok(vec![Err(StillError::Undecodable); wanted(&request.packets)]);
        }
        let question = Question::Stills(request);
        self.ask(account, FrameKind::Stills, question).await.map(files)
    }

    /// The objects of video frames, found in a worker process of the account that goes after those of cameras: an answer for
    /// each wanted packet, in their order. Dropping the future gives the request up. Needs [`Abilities::labels`].
    pub async fn frame_objects(
        &self,
        request: FramesRequest,
    ) -> Result<Vec<Result<LabelAnalysis, StillError>>, StillsError> {
        let answers = self.look_at_frames(request, FrameLook::Objects).await;
        answers.map(analyses)
    }

    /// JPEGs of a part of video frames, made where [`VisionPool::frame_objects`] looks: an answer for each wanted packet, in
    /// their order. Dropping the future gives the request up. Needs [`Abilities::labels`].
    pub async fn frame_parts(
        &self,
        request: FramesRequest,
        area: BoundingBox,
        quality: u8,
    ) -> Result<Vec<Result<Bytes, StillError>>, StillsError> {
        let answers = self.look_at_frames(request, FrameLook::Part { area, quality }).await;
        answers.map(files)
    }

    async fn look_at_frames(&self, request: FramesRequest, look: FrameLook) -> Result<Answers, StillsError> {
        if !self.inner.abilities.labels {
            let why = "the models were prepared without that of objects";
            return Err(StillsError::Worker(why.to_owned()));
        }
        if request.codec_private.len() > MAX_CODEC_PRIVATE_BYTES {
            return Ok(vec![Err(StillError::Undecodable); wanted(&request.packets)]);
        }
        let account = request.account;
        self.ask(account, FrameKind::Looks, Question::Look(request, look)).await
    }

    async fn ask(&self, account: AccountId, kind: FrameKind, question: Question) -> Result<Answers, StillsError> {
        let (reply, answer) = oneshot::channel();
        let mut job = FramesJob { question, reply };
        // A host may retire between being found and being asked; the second time a new one is found.
        for _ in 0..2 {
            let host = Inner::still_host(&self.inner, account, kind).ok_or(StillsError::Busy)?;
            job = match host.try_send(job) {
                Ok(()) => {
                    let gone = || StillsError::Worker("the pool was shut down".to_owned());
                    return answer.await.unwrap_or_else(|_| Err(gone()));
                }
                Err(mpsc::error::TrySendError::Full(_)) => return Err(StillsError::Busy),
                Err(mpsc::error::TrySendError::Closed(job)) => job,
            };
        }
        Err(StillsError::Busy)
    }

    /// Takes a film of `size` bytes apart, in a worker process of its own that goes after those of cameras. What it needs
    /// of the bytes it reads from `source`, often more than once.
    pub async fn open_film(
        &self,
        account: AccountId,
        size: u64,
        source: Box<dyn FilmSource>,
    ) -> Result<FilmReader, FilmError> {
        let slot = self.inner.films.take(self.inner.meters.clone());
        let slot = slot.ok_or(FilmError::Busy)?;
        FilmReader::open(&self.inner.launch, slot, account, size, source).await
    }

    /// Opens a session. Must be called within a tokio runtime; returns at once, the worker may still be starting.
    /// The session ends when the sender is dropped and every outcome was received, or when the receiver is dropped.
    pub fn open_session(&self, config: SessionConfig) -> Result<(FrameSender, ResultReceiver), OpenError> {
        if config.codec_private.len() > MAX_CODEC_PRIVATE_BYTES {
            return Err(OpenError::CodecPrivateTooLarge(config.codec_private.len()));
        }
        if !DETECTOR_SIDES.contains(&config.detector_side) {
            return Err(OpenError::DetectorSide(config.detector_side));
        }
        if !matches!(config.orientation, 1 | 3 | 6 | 8) {
            return Err(OpenError::Orientation(config.orientation));
        }
        let session = Inner::open(&self.inner, config)?;
        let receiver = ResultReceiver {
            session: session.clone(),
        };
        Ok((FrameSender { session }, receiver))
    }
}

fn wanted(packets: &[StillPacket]) -> usize {
    packets.iter().filter(|packet| packet.wanted).count()
}

impl Inner {
    /// The channel to the account's image worker, made if need be; `None` when all workers are taken.
    fn image_host(inner: &Arc<Inner>, account: AccountId) -> Option<mpsc::Sender<ImageRequest>> {
        let mut hosts = inner.hosts.lock();
        if let Some(host) = hosts.images.get(&account).filter(|host| !host.is_closed()) {
            return Some(host.clone());
        }
        hosts.images.remove(&account);
        if hosts.count() >= inner.config.max_workers {
            return None;
        }
        let (sender, requests) = mpsc::channel(IMAGE_QUEUE);
        hosts.images.insert(account, sender.clone());
        let host = ImageHost {
            account,
            launch: inner.launch.clone(),
            meters: inner.meters.clone(),
            idle_retire: inner.config.idle_retire,
            requests,
        };
        let pool = Arc::downgrade(inner);
        tokio::spawn(host.run(move || {
            if let Some(inner) = pool.upgrade() {
                inner.hosts.lock().images.remove(&account);
            }
        }));
        Some(sender)
    }

    /// The channel to the account's worker for frames of stored video, made if need be; `None` when all workers are taken.
    fn still_host(inner: &Arc<Inner>, account: AccountId, kind: FrameKind) -> Option<mpsc::Sender<FramesJob>> {
        let mut hosts = inner.hosts.lock();
        let slot = (account, kind);
        if let Some(host) = hosts.stills.get(&slot).filter(|host| !host.is_closed()) {
            return Some(host.clone());
        }
        hosts.stills.remove(&slot);
        if hosts.count() >= inner.config.max_workers {
            return None;
        }
        let (launch, queue) = match kind {
            FrameKind::Stills => (&inner.launch, STILLS_QUEUE),
            FrameKind::Looks => (&inner.background, LOOKS_QUEUE),
        };
        let (sender, jobs) = mpsc::channel(queue);
        hosts.stills.insert(slot, sender.clone());
        let host = StillHost {
            account,
            kind,
            launch: launch.clone(),
            meters: inner.meters.clone(),
            idle_retire: inner.config.idle_retire,
            jobs,
        };
        let pool = Arc::downgrade(inner);
        tokio::spawn(host.run(move || {
            if let Some(inner) = pool.upgrade() {
                inner.hosts.lock().stills.remove(&slot);
            }
        }));
        Some(sender)
    }

    /// Opens the session at the account's video worker with the fewest sessions, or at a new one where there may be more.
    /// Cameras and recordings share a worker only where no other may be started, and never for attributes.
    fn open(inner: &Arc<Inner>, config: SessionConfig) -> Result<Arc<Session>, OpenError> {
        let account = config.account;
        let (launch, most) = match config.background {
            true => (&inner.background, 1),
            false => (&inner.launch, inner.config.video_workers_per_account.max(1)),
        };
        let mut hosts = inner.hosts.lock();
        let all = hosts.count();
        let others = hosts.freest(account, !config.background).filter(|_| !config.attributes);
        let freest = hosts.freest(account, config.background);
        let own = hosts.videos.entry((account, config.background)).or_default();
        let may_add = own.len() < most && all < inner.config.max_workers;
        let host = match freest {
            Some(host) if host.session_count() == 0 || !may_add => host,
            _ if may_add => {
                let host = VideoHost::new(
                    account,
                    launch.clone(),
                    inner.meters.clone(),
                    inner.clock.clone(),
                    inner.config.idle_retire,
                );
                own.push(host.clone());
                let pool = Arc::downgrade(inner);
                tokio::spawn(host.clone().run(move |host| Inner::retire(&pool, host)));
                host
            }
            _ => others.ok_or(OpenError::NoCapacity(inner.config.max_workers))?,
        };
        // Under the lock, so that the host cannot retire in between.
        Ok(host.open(config))
    }

    /// Takes a host without sessions off the list; false if a session came meanwhile.
    fn retire(pool: &Weak<Inner>, host: &VideoHost) -> bool {
        let Some(inner) = pool.upgrade() else { return true };
        let mut hosts = inner.hosts.lock();
        if host.session_count() > 0 {
            return false;
        }
        let slot = (host.account, host.is_background());
        if let Some(own) = hosts.videos.get_mut(&slot) {
            own.retain(|other| !std::ptr::eq(Arc::as_ptr(other), host));
            if own.is_empty() {
                hosts.videos.remove(&slot);
            }
        }
        true
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for host in self.hosts.get_mut().videos.values().flatten() {
            host.orphan();
        }
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
    session: Arc<Session>,
}

impl FrameSender {
    /// Hands a frame over. In [`Mode::Live`] ready at once; in [`Mode::CatchUp`] waits until there is room. Cancel safe:
    /// when the future is dropped the frame was not taken.
    pub async fn send(&mut self, frame: Frame) -> Result<SendReport, SessionClosed> {
        let (queued, skipped) = self.session.send(frame).await?;
        Ok(SendReport { queued, skipped })
    }

    /// Switches between catching up and live.
    pub fn set_mode(&mut self, mode: Mode) {
        self.session.set_mode(mode);
    }

    /// Frames were lost before the next one: everything up to the next key frame is skipped.
    pub fn mark_gap(&mut self) {
        self.session.mark_gap();
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        self.session.end();
    }
}

/// Gives a session's outcomes. Dropping it closes the session.
pub struct ResultReceiver {
    session: Arc<Session>,
}

impl ResultReceiver {
    /// The next outcome; `None` when the sender was dropped and every frame has had its outcome. Cancel safe.
    pub async fn next(&mut self) -> Option<FrameOutcome> {
        self.session.next_outcome().await
    }
}

impl Drop for ResultReceiver {
    fn drop(&mut self) {
        self.session.close();
    }
}
