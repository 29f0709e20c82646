//! Vision where there may be none: without prepared models or a worker the server still keeps and serves video and
//! records, and says at each use of faces what is missing.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use base::metrics::Metrics;
use base::{AccountId, Clock};
use bytes::Bytes;
use faces::ModelVersion;
use faces::similarity::{Scale, Scales};
use rekognition::ports::{Film, Vision, VisionSession};
use video_streams::ports::{self, NotDecodable, StillCodec, StillsJob};
use vision::manifest::{Embedder, Manifest};
use vision::{
    Abilities, BoundingBox, Codec, FilmError, FilmSource, FramesRequest, ImageAnalysis, ImageError, ImageOptions,
    LabelAnalysis, OpenError, SessionConfig, StartError, StillError, StillsError, StillsRequest, VisionConfig,
    VisionPool,
};

use crate::config::VisionSettings;

pub const WORKER: &str = "vision-worker";

/// The embedder that is prepared, whose scale of similarity is the default one.
const PREPARED: &str = "sface-2021dec";

/// The pool of workers, or why there is none.
pub enum Sight {
    /// Faces can be found.
    Pool(VisionPool),
    /// They cannot; in words.
    Blind(String),
}

impl Sight {
    /// Looks for worker and models as settings.md says.
    pub fn start(settings: &VisionSettings, metrics: &Metrics, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let mut config = VisionConfig::new(
            program(settings.worker.as_ref(), "SIGHTGLASS_WORKER", WORKER),
            models(settings),
        );
        config.embedder.clone_from(&settings.embedder);
        if let Some(most) = settings.max_workers {
            config.max_workers = most.max(1);
        }
        match VisionPool::start(config, metrics, clock) {
            Ok(pool) => Ok(Sight::Pool(pool)),
            Err(missing @ (StartError::Models { .. } | StartError::Worker(_))) => {
                tracing::warn!(reason = %missing, "face operations, stream processors and images of video will be refused");
                Ok(Sight::Blind(missing.to_string()))
            }
            Err(other) => Err(other),
        }
    }

    /// For the health page.
    pub fn state(&self) -> (bool, String) {
        match self {
            Sight::Pool(pool) => (true, format!("model {}", pool.model_version())),
            Sight::Blind(why) => (true, format!("absent: {why}")),
        }
    }
}

/// What the cosines of each embedder of the models' folder mean. What the folder lacks [`Sight::start`] has said.
pub fn scales(settings: &VisionSettings) -> Scales {
    let Ok(manifest) = Manifest::read(&models(settings), settings.embedder.as_deref()) else {
        return Scales::default();
    };
    let used = &manifest.embedder;
    if scale(used).is_none() && used.component.id != PREPARED {
        tracing::warn!(
            embedder = %used.component.id,
            "the similarities of this embedder mean nothing: `sightglass faces eval FOLDER --calibrate` measures them"
        );
    }
    let measured = |embedder: &Embedder| Some((embedder.component.id.clone(), scale(embedder)?));
    manifest.embedders().filter_map(measured).collect()
}

/// What the cosines of an embedder mean; `None` where nobody measured it, or its numbers do not rise.
pub fn scale(embedder: &Embedder) -> Option<Scale> {
    Scale::new(&embedder.calibration).filter(|_| !embedder.calibration.is_empty())
}

/// A worker program: the one that is configured, the one that the environment names, the one beside this program, or the
/// one on PATH.
pub fn program(given: Option<&PathBuf>, variable: &str, name: &str) -> PathBuf {
    let given = given.cloned().or_else(|| std::env::var_os(variable).map(PathBuf::from));
    given.unwrap_or_else(|| {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join(name)));
        let on_path = std::env::var_os("PATH").and_then(|path| {
            std::env::split_paths(&path)
                .map(|folder| folder.join(name))
                .find(|file| file.is_file())
        });
        beside
            .clone()
            .filter(|file| file.is_file())
            .or(on_path)
            .or(beside)
            .unwrap_or_else(|| PathBuf::from(name))
    })
}

fn models(settings: &VisionSettings) -> PathBuf {
    let given = settings
        .models
        .clone()
        .or_else(|| std::env::var_os("SIGHTGLASS_MODELS").map(PathBuf::from));
    given.unwrap_or_else(|| PathBuf::from("./models"))
}

#[async_trait]
impl Vision for Sight {
    fn model(&self) -> ModelVersion {
        match self {
            Sight::Pool(pool) => Vision::model(pool),
            // Collections can be made before the models are prepared; they hold what the default embedder will read.
            Sight::Blind(_) => ModelVersion {
                id: PREPARED.to_owned(),
                dimensions: 128,
            },
        }
    }

    fn abilities(&self) -> Abilities {
        match self {
            Sight::Pool(pool) => pool.abilities(),
            Sight::Blind(_) => Abilities::default(),
        }
    }

    async fn analyze_image(
        &self,
        account: AccountId,
        image: Bytes,
        options: ImageOptions,
    ) -> Result<ImageAnalysis, ImageError> {
        match self {
            Sight::Pool(pool) => Vision::analyze_image(pool, account, image, options).await,
            Sight::Blind(why) => Err(ImageError::Worker(why.clone())),
        }
    }

    fn label_model(&self) -> Option<String> {
        match self {
            Sight::Pool(pool) => pool.label_model(),
            Sight::Blind(_) => None,
        }
    }

    async fn label_image(&self, account: AccountId, image: Bytes) -> Result<LabelAnalysis, ImageError> {
        match self {
            Sight::Pool(pool) => pool.label_image(account, image).await,
            Sight::Blind(why) => Err(ImageError::Worker(why.clone())),
        }
    }

    async fn frame_objects(
        &self,
        request: FramesRequest,
    ) -> Result<Vec<Result<LabelAnalysis, StillError>>, StillsError> {
        match self {
            Sight::Pool(pool) => pool.frame_objects(request).await,
            Sight::Blind(why) => Err(StillsError::Worker(why.clone())),
        }
    }

    async fn frame_parts(
        &self,
        request: FramesRequest,
        area: BoundingBox,
        quality: u8,
    ) -> Result<Vec<Result<Bytes, StillError>>, StillsError> {
        match self {
            Sight::Pool(pool) => pool.frame_parts(request, area, quality).await,
            Sight::Blind(why) => Err(StillsError::Worker(why.clone())),
        }
    }

    fn open_session(&self, config: SessionConfig) -> Result<VisionSession, OpenError> {
        match self {
            Sight::Pool(pool) => Vision::open_session(pool, config),
            Sight::Blind(_) => Err(OpenError::NoCapacity(0)),
        }
    }

    async fn open_film(
        &self,
        account: AccountId,
        size: u64,
        source: Box<dyn FilmSource>,
    ) -> Result<Box<dyn Film>, FilmError> {
        match self {
            Sight::Pool(pool) => Vision::open_film(pool, account, size, source).await,
            Sight::Blind(why) => Err(FilmError::Worker(why.clone())),
        }
    }
}

#[async_trait]
impl ports::Stills for Sight {
    async fn make(&self, job: StillsJob) -> Result<Vec<Result<Bytes, NotDecodable>>, ports::StillsError> {
        let pool = match self {
            Sight::Pool(pool) => pool,
            Sight::Blind(why) => {
                let why = format!("This server has no vision worker, which decodes video: {why}");
                return Err(ports::StillsError::Absent(why));
            }
        };
        let packet = |packet: ports::StillPacket| vision::StillPacket {
            data: packet.data,
            fresh: packet.fresh,
            wanted: packet.wanted,
        };
        let request = StillsRequest {
            account: job.account,
            codec: match job.codec {
                StillCodec::H264 => Codec::H264,
                StillCodec::H265 => Codec::H265,
            },
            codec_private: job.codec_private,
            format: match job.format {
                ports::StillFormat::Jpeg(quality) => vision::StillFormat::Jpeg { quality },
                ports::StillFormat::Png => vision::StillFormat::Png,
            },
            width: job.size.width,
            height: job.size.height,
            packets: job.packets.into_iter().map(packet).collect(),
        };
        match pool.stills(request).await {
            Ok(made) => Ok(made.into_iter().map(|made| made.map_err(|_| NotDecodable)).collect()),
            Err(StillsError::Busy) => Err(ports::StillsError::Busy),
            Err(StillsError::Worker(why)) => Err(ports::StillsError::Failed(why)),
        }
    }
}
