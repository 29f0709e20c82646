//! The composition: opens the rooms from the bottom up, registers the services with the edge, runs their background
//! tasks, and takes all of it down in the opposite order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use analytics::Analytics;
use analytics::engine::SqlWorkers;
use auth::{Authenticator, KeyRing, KeyStore, Sts};
use base::metrics::Metrics;
use base::{Clock, SystemClock};
use data_streams::DataStreams;
use edge::{EdgeConfig, EdgeParts, HealthCheck, Running, Server, TlsPem, TrustedProxy};
use faces::FaceStore;
use firehose::Firehose;
use firehose::channels::Channels;
use kcl_tables::{ClientMetrics, KclTables};
use objects::local::Store;
use objects::{Buckets, Everywhere, ExternalBucket};
use rekognition::Rekognition;
use s3::S3;
use storage::datadir::DataDir;
use storage::{Catalog, KeyRows, LogOptions, LogStore, MemoryMediaStore, MemoryOptions, SqliteOptions};
use tokio::task::{AbortHandle, JoinSet};
use video_streams::VideoStreams;
use video_streams::ports::{Ports, Topics};

use crate::archives::{self, Archives};
use crate::bucket_images::BucketImages;
use crate::commands::Failure;
use crate::config::{Config, SYSTEM_CERTIFICATES};
use crate::own::OwnAccess;
use crate::sight::{self, Sight};
use crate::topics::TopicMap;
use crate::webhook::{Address, Webhook};
use crate::{columns, root_key, sts};

/// How often keys that `sightglass keys` made or revoked are taken over.
const KEY_REFRESH: Duration = Duration::from_millis(500);
/// How long requests may take to finish when the server ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// The exit code after a failed fsync: a supervisor starts the server again, and recovery decides what is stored.
const EXIT_STORAGE_FAILED: i32 = 74;

/// A server that accepts requests.
pub struct Composition {
    running: Running,
    rekognition: Arc<Rekognition>,
    video: VideoStreams,
    firehose: Arc<Firehose>,
    analytics: Arc<Analytics>,
    tasks: JoinSet<()>,
    /// Among the tasks; it is a client of this server.
    archives: AbortHandle,
    log: LogStore,
    _data: DataDir,
}

/// The rooms below the services.
struct Ground {
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    catalog: Arc<dyn Catalog>,
    log: LogStore,
    keys: Arc<KeyStore>,
    ring: Arc<KeyRing>,
    /// The buckets of the data directory.
    store: Store,
    /// Those and the ones that the configuration says lie elsewhere: what other rooms are given.
    buckets: Arc<dyn Buckets>,
}

/// Opens everything and starts to listen.
pub async fn start(config: &Config) -> Result<Composition, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let data = DataDir::lock(&config.data_dir, clock.as_ref())?;
    let ground = lay(config, &data, clock).await?;
    let mut registry = wire::Registry::new();
    let sight = Arc::new(Sight::start(&config.vision, &ground.metrics, ground.clock.clone())?);
    let webhook = webhook(config)?;
    let topics = TopicMap::new(config.topics.clone(), webhook.clone(), ground.clock.clone());
    let topics: Arc<dyn Topics> = Arc::new(topics);
    let video = video(config, &ground, sight.clone(), topics.clone()).await?;
    video.register(&mut registry);
    let records = DataStreams::open(data_streams::Parts {
        catalog: ground.catalog.clone(),
        records: ground.log.records(),
        key_ring: ground.ring.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        settings: config.data_streams,
    })
    .await?;
    records.register(&mut registry);
    let firehose = firehose(config, &ground, &records, webhook).await?;
    firehose.register(&mut registry);
    let channels = channels(&ground, &records, &firehose).await?;
    channels.register(&mut registry);
    let own = Arc::new(OwnAccess::new(ground.keys.clone(), ground.clock.clone()));
    let analytics = analytics(config, &ground, &records, own.clone()).await?;
    analytics.register(&mut registry);
    let tables = KclTables::open(kcl_tables::Parts {
        catalog: ground.catalog.clone(),
        clock: ground.clock.clone(),
    })
    .await?;
    tables.register(&mut registry);
    ClientMetrics::new(&ground.metrics, ground.clock.clone())?.register(&mut registry);
    let scales = sight::scales(&config.vision);
    let faces = FaceStore::open_with(&data.faces_file(), ground.clock.clone(), scales)?;
    let rekognition = Arc::new(Rekognition::new(rekognition::Parts {
        faces: Arc::new(faces),
        vision: sight.clone(),
        video: Arc::new(video.clone()),
        records: records.clone(),
        objects: Arc::new(BucketImages(ground.buckets.clone())),
        buckets: ground.buckets.clone(),
        topics,
        catalog: ground.catalog.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
    })?);
    rekognition.register(&mut registry);
    sts::register(&mut registry, Sts::new(ground.keys.clone(), ground.clock.clone()));
    let mut tasks = background(&ground, &video, &records);
    tasks.spawn(tables.run());
    tasks.spawn(firehose.clone().run());
    tasks.spawn(channels.run());
    tasks.spawn(analytics.clone().run());
    tasks.spawn(rekognition.clone().forget_unknown());
    let running = listen(config, &ground, registry, sight.clone()).await?;
    rekognition.resume().await?;
    own.listens(running.local_addr());
    analytics.resume().await;
    let (keys, clock) = (ground.keys.clone(), ground.clock.clone());
    let archives = Archives::new(video.clone(), keys, clock, &ground.metrics, running.local_addr())?;
    let archives = tasks.spawn(archives.run());
    Ok(Composition {
        running,
        archives,
        rekognition,
        video,
        firehose,
        analytics,
        tasks,
        log: ground.log,
        _data: data,
    })
}

async fn firehose(
    config: &Config,
    ground: &Ground,
    records: &Arc<DataStreams>,
    webhook: Webhook,
) -> Result<Arc<Firehose>, Failure> {
    let parts = firehose::Parts {
        catalog: ground.catalog.clone(),
        records: ground.log.records(),
        streams: records.clone(),
        clock: ground.clock.clone(),
        key_ring: ground.ring.clone(),
        metrics: ground.metrics.clone(),
        ports: firehose::ports::Ports {
            http: Arc::new(webhook),
            domains: Arc::new(config.domains.clone()),
            converter: columns::converter(&config.sql),
            schemas: Arc::new(config.schemas.clone()),
            functions: Arc::new(config.functions.clone()),
            buckets: ground.buckets.clone(),
            ..firehose::ports::Ports::default()
        },
        settings: config.firehose,
    };
    Ok(Firehose::open(parts).await?)
}

async fn analytics(
    config: &Config,
    ground: &Ground,
    records: &Arc<DataStreams>,
    own: Arc<OwnAccess>,
) -> Result<Arc<Analytics>, Failure> {
    let parts = analytics::Parts {
        catalog: ground.catalog.clone(),
        streams: records.clone(),
        clock: ground.clock.clone(),
        metrics: ground.metrics.clone(),
        ports: analytics::ports::Ports {
            buckets: ground.buckets.clone(),
            workers: Arc::new(SqlWorkers::new(columns::program(&config.sql))),
            flink: None,
            access: own,
        },
        settings: analytics::Settings {
            folder: std::path::absolute(&config.data_dir)?.join("analytics"),
            memory_bytes: config.analytics.memory_bytes,
            running_max: config.analytics.max_running,
        },
    };
    Ok(Analytics::open(parts).await?)
}

async fn channels(
    ground: &Ground,
    records: &Arc<DataStreams>,
    firehose: &Arc<Firehose>,
) -> Result<Arc<Channels>, Failure> {
    let parts = firehose::channels::Parts {
        catalog: ground.catalog.clone(),
        streams: records.clone(),
        firehose: firehose.clone(),
        clock: ground.clock.clone(),
        key_ring: ground.ring.clone(),
    };
    Ok(Channels::open(parts).await?)
}

async fn lay(config: &Config, data: &DataDir, clock: Arc<dyn Clock>) -> Result<Ground, Failure> {
    let metrics = Metrics::new();
    let ring = Arc::new(data.open_keyring()?);
    let root = data.root_key(root_key::from_environment()?)?;
    let on_fatal = SqliteOptions {
        on_fatal: Arc::new(|error| give_up(error)),
    };
    let catalog: Arc<dyn Catalog> = Arc::new(data.open_catalog(on_fatal)?);
    let table = Arc::new(KeyRows::new(catalog.clone()));
    let keys = Arc::new(KeyStore::open(ring.clone(), table, clock.clone(), root, config.account).await?);
    let options = LogOptions {
        on_fatal: Arc::new(|error| give_up(error)),
        index: data.index_home(),
        ..LogOptions::default()
    };
    let log = LogStore::open(data.log_disk()?, clock.clone(), options, &metrics)?;
    report(&log);
    let store = Store::new(objects::local::Parts {
        catalog: catalog.clone(),
        disk: data.objects_disk()?,
        clock: clock.clone(),
        permit: Arc::new(data.objects_permit()),
        on_fatal: Arc::new(|error| give_up(error)),
    });
    let elsewhere = config.buckets.iter();
    let elsewhere = elsewhere.map(|(key, place)| Ok((key.clone(), ExternalBucket::new(&key.1, place)?)));
    let elsewhere = elsewhere.collect::<Result<_, Failure>>()?;
    Ok(Ground {
        buckets: Arc::new(Everywhere::new(store.clone(), elsewhere)),
        store,
        clock,
        metrics,
        catalog,
        log,
        keys,
        ring,
    })
}

/// Nobody knows any more what the device holds; going on could acknowledge what is lost (invariant 1).
fn give_up(error: &dyn std::fmt::Display) {
    tracing::error!(%error, "storage failed; the server ends so that recovery decides what is stored");
    std::process::exit(EXIT_STORAGE_FAILED);
}

fn report(log: &LogStore) {
    let report = log.report();
    for torn in &report.torn {
        tracing::warn!(file = %torn.file, offset = torn.offset, bytes = torn.len, "cut a torn tail; nobody was told it was stored");
    }
    for damage in &report.quarantined {
        tracing::error!(file = %damage.file, offset = damage.offset, bytes = damage.len, "stored data is damaged; run sightglass fsck");
    }
}

async fn video(
    config: &Config,
    ground: &Ground,
    sight: Arc<Sight>,
    topics: Arc<dyn Topics>,
) -> Result<VideoStreams, Failure> {
    let durable = ground.log.media();
    let bounds = MemoryOptions {
        max_age_ms: i64::try_from(video_streams::limits::BUFFER_DURATION.as_millis())?,
        max_bytes_per_stream: video_streams::limits::BUFFER_BYTES,
    };
    let memory = Arc::new(MemoryMediaStore::new(durable.clone(), ground.clock.clone(), bounds));
    let settings = video_streams::Settings {
        put_connections: config.put_media_connections,
        get_connections: config.get_media_connections,
        max_bytes: config.max_bytes,
        clip: config.clip,
        playback: config.playback,
        ..video_streams::Settings::default()
    };
    let on = video_streams::Dependencies {
        catalog: ground.catalog.clone(),
        durable,
        memory,
        key_ring: ground.ring.clone(),
        clock: ground.clock.clone(),
        metrics: &ground.metrics,
        settings,
        ports: Ports {
            stills: sight,
            topics,
            archive_rule: archives::rule,
            image_sink: Arc::new(BucketImages(ground.buckets.clone())),
        },
    };
    Ok(VideoStreams::open(on).await?)
}

/// What posts for the server. A machine without the usual certificates can do without, while no address needs them.
fn webhook(config: &Config) -> Result<Webhook, Failure> {
    let needed = config.webhook_ca != Path::new(SYSTEM_CERTIFICATES) || config.topics.values().any(Address::is_secure);
    let with = |pem: Vec<u8>| {
        Webhook::new(Some(&pem)).map_err(|e| Failure::from(format!("{}: {e}", config.webhook_ca.display())))
    };
    let webhook = match read(&config.webhook_ca).and_then(with) {
        Ok(webhook) => webhook,
        Err(error) if needed => return Err(error),
        Err(_) => Webhook::new(None)?,
    };
    Ok(webhook.at_most(config.webhook_timeout))
}

fn background(ground: &Ground, video: &VideoStreams, records: &Arc<DataStreams>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let video = video.clone();
    let delivering = video.clone();
    tasks.spawn(async move { delivering.run_deliveries().await });
    tasks.spawn(async move { video.run_retention().await });
    let records = records.clone();
    tasks.spawn(records.run());
    tasks.spawn(ground.store.clone().run());
    let keys = ground.keys.clone();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(KEY_REFRESH);
        loop {
            ticks.tick().await;
            if let Err(error) = keys.refresh().await {
                tracing::warn!(%error, "access keys could not be read anew; the ones in use stay");
            }
        }
    });
    tasks
}

async fn listen(
    config: &Config,
    ground: &Ground,
    registry: wire::Registry,
    sight: Arc<Sight>,
) -> Result<Running, Failure> {
    let skew_ms = i64::try_from(config.clock_skew_seconds)?.saturating_mul(1000);
    let authenticator = Authenticator::new(ground.keys.clone(), ground.clock.clone()).with_skew_ms(skew_ms);
    let authenticator = Arc::new(authenticator);
    let mut edge = EdgeConfig::new(config.listen);
    edge.public_url.clone_from(&config.public_url);
    edge.trusted_proxies = config
        .trusted_proxies
        .iter()
        .map(|proxy| proxy.to_string().parse())
        .collect::<Result<Vec<TrustedProxy>, _>>()?;
    edge.preferred_version = config.preferred_version;
    edge.tls = match &config.tls {
        Some((cert, key)) => Some(TlsPem {
            certificates: read(cert)?,
            private_key: read(key)?,
        }),
        None => None,
    };
    let parts = EdgeParts {
        registry: Arc::new(registry),
        authenticator: authenticator.clone(),
        metrics: ground.metrics.clone(),
        clock: ground.clock.clone(),
        health: Arc::new(move || health(&sight)),
        mounts: vec![Arc::new(s3(config, ground, authenticator)?)],
    };
    Ok(Server::start(edge, parts).await?)
}

fn s3(config: &Config, ground: &Ground, authenticator: Arc<Authenticator>) -> Result<S3, Failure> {
    let parts = s3::Parts {
        store: ground.store.clone(),
        elsewhere: config
            .buckets
            .iter()
            .map(|(key, place)| (key.clone(), format!("{} as {}", place.endpoint, place.bucket)))
            .collect(),
    };
    let host = config.public_url.as_deref().and_then(|url| url.split_once("://"));
    let host = host.and_then(|(_, rest)| rest.split('/').next());
    Ok(S3::new(
        parts,
        authenticator,
        host,
        u32::try_from(config.clock_skew_seconds)?,
    ))
}

fn health(sight: &Sight) -> Vec<HealthCheck> {
    let (ok, detail) = sight.state();
    vec![HealthCheck {
        name: "vision".to_owned(),
        ok,
        detail,
    }]
}

#[allow(
    clippy::disallowed_methods,
    reason = "certificates are configuration, read before there is a Disk"
)]
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()).into())
}

impl Composition {
    /// Where the server listens.
    pub fn local_addr(&self) -> std::net::SocketAddr {
        self.running.local_addr()
    }

    /// Lets requests finish, saves the positions of processors and deliveries, closes the log in good order.
    pub async fn stop(mut self) {
        self.archives.abort();
        self.analytics.stop().await;
        let drained = self.running.shutdown(DRAIN_WITHIN).await;
        if drained.connections_cut > 0 {
            tracing::warn!(
                connections = drained.connections_cut,
                "connections were cut at the end of the drain"
            );
        }
        self.rekognition.shutdown().await;
        self.firehose.stop().await;
        self.tasks.shutdown().await;
        self.video.save_deliveries().await;
        self.log.close();
    }
}
