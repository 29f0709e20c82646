//! The service: its parts, the applications it holds in memory, and the ways to change one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use base::metrics::{MetricError, Metrics};
use base::{AccountId, ApiError, Caller, Clock, Region, ResourceName};
use data_streams::DataStreams;
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError};
use wire::Registry;
use wire::kinesisanalyticsv2::op;

use crate::engine::{Engine, Folders, Live, Meters};
use crate::error::{catalog_failure, in_use, not_found};
use crate::limits;
use crate::ports::Ports;
use crate::stored::{ApplicationRecord, Loaded, Phase, Records, VersionRecord};

/// What the service is built on.
pub struct Parts {
    /// Keeps the applications.
    pub catalog: Arc<dyn Catalog>,
    /// The data streams whose records are sampled.
    pub streams: Arc<DataStreams>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Where counters are registered.
    pub metrics: Metrics,
    /// Buckets, processes, credentials.
    pub ports: Ports,
    /// What the operator chose.
    pub settings: Settings,
}

/// What the operator chose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder in which each application's worker has its own.
    pub folder: PathBuf,
    /// Bytes of state that one application has in memory.
    pub memory_bytes: u64,
    /// Applications that run at once in the whole server.
    pub running_max: usize,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The applications could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Two services count under one name.
    #[error(transparent)]
    Metrics(#[from] MetricError),
}

/// An application that exists, as it is between two changes.
pub(crate) struct AppState {
    pub name: ResourceName,
    pub arn: String,
    pub record: ApplicationRecord,
    pub current: Arc<VersionRecord>,
    /// What its worker told last.
    pub live: Arc<Live>,
    /// Held by whoever changes it: one change at a time.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// An application while it is being changed.
pub(crate) struct Draft {
    pub record: ApplicationRecord,
    pub version: VersionRecord,
    /// When the change is made, in milliseconds since the epoch.
    pub now_ms: i64,
}

impl Draft {
    /// Makes the version a new one, before its configuration is changed.
    pub fn next_version(&mut self) {
        self.record.updated_from = Some(self.record.version);
        self.record.rolled_back = None;
        self.record.version += 1;
        self.record.updated_ms = self.now_ms;
        self.version.version = self.record.version;
        self.version.created_ms = self.now_ms;
        self.version.rolled_back = false;
        self.version.left = None;
    }
}

type Applications = HashMap<(AccountId, Region), BTreeMap<String, Arc<AppState>>>;

/// Kinesis Analytics. Always behind an [`Arc`].
pub struct Analytics {
    pub(crate) streams: Arc<DataStreams>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ports: Ports,
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) meters: Meters,
    pub(crate) folders: Folders,
    pub(crate) stored: Records,
    held: RwLock<Applications>,
    /// Deleted applications of which something is left.
    unfinished: Mutex<Vec<(ResourceName, u64)>>,
    /// For the work that goes on when its caller has gone.
    this: Weak<Analytics>,
}

impl std::fmt::Debug for Analytics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Analytics")
    }
}

/// `arn:aws:kinesisanalytics:REGION:ACCOUNT:application/NAME`
pub fn application_arn(name: &ResourceName) -> String {
    let ResourceName { account, region, name } = name;
    format!("arn:aws:kinesisanalytics:{region}:{account}:application/{name}")
}

impl Analytics {
    /// Reads the applications of the catalog. None runs before [`Analytics::resume`].
    pub async fn open(parts: Parts) -> Result<Arc<Self>, StartError> {
        let meters = Meters::new(&parts.metrics)?;
        let folders = Folders::new(parts.settings.folder.clone());
        let service = Arc::new_cyclic(|this| Analytics {
            streams: parts.streams,
            clock: parts.clock,
            ports: parts.ports,
            settings: parts.settings,
            engine: Engine::default(),
            meters,
            folders,
            stored: Records::new(parts.catalog),
            held: RwLock::default(),
            unfinished: Mutex::default(),
            this: this.clone(),
        });
        let (applications, deleting) = service.stored.load().await?;
        *service.unfinished.lock() = deleting;
        for Loaded { name, record, current } in applications {
            service.keep(&AppState::new(name, record, current, None));
        }
        Ok(service)
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry
            .register::<op::AddApplicationCloudWatchLoggingOption, _>(self)
            .register::<op::AddApplicationInput, _>(self)
            .register::<op::AddApplicationInputProcessingConfiguration, _>(self)
            .register::<op::AddApplicationOutput, _>(self)
            .register::<op::AddApplicationReferenceDataSource, _>(self)
            .register::<op::AddApplicationVpcConfiguration, _>(self)
            .register::<op::CreateApplication, _>(self)
            .register::<op::CreateApplicationPresignedUrl, _>(self)
            .register::<op::CreateApplicationSnapshot, _>(self)
            .register::<op::DeleteApplication, _>(self)
            .register::<op::DeleteApplicationCloudWatchLoggingOption, _>(self)
            .register::<op::DeleteApplicationInputProcessingConfiguration, _>(self)
            .register::<op::DeleteApplicationOutput, _>(self)
            .register::<op::DeleteApplicationReferenceDataSource, _>(self)
            .register::<op::DeleteApplicationSnapshot, _>(self)
            .register::<op::DeleteApplicationVpcConfiguration, _>(self)
            .register::<op::DescribeApplication, _>(self)
            .register::<op::DescribeApplicationOperation, _>(self)
            .register::<op::DescribeApplicationSnapshot, _>(self)
            .register::<op::DescribeApplicationVersion, _>(self)
            .register::<op::DiscoverInputSchema, _>(self)
            .register::<op::ListApplicationOperations, _>(self)
            .register::<op::ListApplicationSnapshots, _>(self)
            .register::<op::ListApplicationVersions, _>(self)
            .register::<op::ListApplications, _>(self)
            .register::<op::ListTagsForResource, _>(self)
            .register::<op::RollbackApplication, _>(self)
            .register::<op::StartApplication, _>(self)
            .register::<op::StopApplication, _>(self)
            .register::<op::TagResource, _>(self)
            .register::<op::UntagResource, _>(self)
            .register::<op::UpdateApplication, _>(self)
            .register::<op::UpdateApplicationMaintenanceConfiguration, _>(self);
    }

    /// Starts the workers of applications that ran when the server ended, or died. To be called when requests are served,
    /// since workers are clients.
    pub async fn resume(&self) {
        for state in self.all() {
            if let Err(error) = self.take_up(&state).await {
                tracing::error!(%error, application = state.arn, "it could not be taken up again");
            }
        }
    }

    /// The work behind the calls, for ever: finishes deletions that were cut off.
    pub async fn run(self: Arc<Self>) {
        loop {
            let unfinished = std::mem::take(&mut *self.unfinished.lock());
            for (name, id) in unfinished {
                self.finish_deletion(&name, id).await;
            }
            tokio::time::sleep(limits::SWEEP_INTERVAL).await;
        }
    }

    /// Ends all workers, for a server that ends. What they have to write is written if that takes not too long; what ran
    /// runs again after the next start.
    pub async fn stop(&self) {
        self.engine.stop_all().await;
    }

    fn all(&self) -> Vec<Arc<AppState>> {
        let held = self.held.read();
        held.values().flat_map(|own| own.values().cloned()).collect()
    }

    /// The caller's application of that name.
    pub(crate) fn find(&self, caller: &Caller, name: &str) -> Result<Arc<AppState>, ApiError> {
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: name.to_owned(),
        };
        self.state(&name).ok_or_else(|| not_found(&name.name, name.account))
    }

    pub(crate) fn state(&self, name: &ResourceName) -> Option<Arc<AppState>> {
        let held = self.held.read();
        held.get(&(name.account, name.region.clone()))?.get(&name.name).cloned()
    }

    /// The application as it is now, if it is still the same one.
    pub(crate) fn current(&self, name: &ResourceName, id: u64) -> Option<Arc<AppState>> {
        self.state(name).filter(|state| state.record.id == id)
    }

    /// The caller's applications behind `after`, at most `limit`, and whether there are more.
    pub(crate) fn list(&self, caller: &Caller, after: Option<&str>, limit: usize) -> (Vec<Arc<AppState>>, bool) {
        let held = self.held.read();
        let Some(own) = held.get(&(caller.account, caller.region.clone())) else {
            return (Vec::new(), false);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = own
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, state)| state.clone());
        let page = found.by_ref().take(limit).collect();
        (page, found.next().is_some())
    }

    /// How many applications an account has in a region.
    pub(crate) fn count(&self, account: AccountId, region: &Region) -> usize {
        let held = self.held.read();
        held.get(&(account, region.clone())).map_or(0, BTreeMap::len)
    }

    /// How many applications run, or are to, in the whole server.
    pub(crate) fn running(&self) -> usize {
        let held = self.held.read();
        let states = held.values().flat_map(BTreeMap::values);
        states.filter(|state| state.record.run.is_some()).count()
    }

    /// Makes an application. Goes on when the caller has gone.
    pub(crate) async fn create(
        &self,
        name: ResourceName,
        mut record: ApplicationRecord,
        version: VersionRecord,
    ) -> Result<Arc<AppState>, ApiError> {
        let this = self.shared()?;
        let task = tokio::spawn(async move {
            record.id = this.stored.next_id().await.map_err(catalog_failure)?;
            let made = this.stored.create(&name, &record, &version).await;
            if !made.map_err(catalog_failure)? {
                return Err(exists(&name));
            }
            let state = AppState::new(name, record, version, None);
            this.keep(&state);
            Ok(state)
        });
        joined(task).await
    }

    /// Deletes an application: its name is free and its worker has ended when this answers.
    pub(crate) async fn delete(&self, state: &Arc<AppState>) -> Result<(), ApiError> {
        self.alone(state, |this, state| async move {
            let (name, id) = (&state.name, state.record.id);
            if !matches!(state.record.phase, Phase::Ready | Phase::Running) {
                return Err(busy(&state));
            }
            if !this.stored.delete(name, id).await.map_err(catalog_failure)? {
                return Err(not_found(&name.name, name.account));
            }
            if let Some(own) = this.held.write().get_mut(&(name.account, name.region.clone())) {
                own.remove(&name.name);
            }
            this.engine.abort(id).await;
            this.meters.forget(name);
            this.finish_deletion(name, id).await;
            Ok(())
        })
        .await
    }

    /// Deletes what lies under the number of an application that is gone. A failure is tried again by the next round of
    /// [`Analytics::run`].
    async fn finish_deletion(&self, name: &ResourceName, id: u64) {
        let gone = match self.folders.remove(id).await {
            Ok(()) => self.stored.deleted(name, id).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = gone {
            tracing::warn!(
                error,
                application = id,
                "something of a deleted application is still there"
            );
            self.unfinished.lock().push((name.clone(), id));
        }
    }

    /// Changes an application as `change` decides; an error of it leaves all as it was. Gives its answer and the state
    /// behind it.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        state: &Arc<AppState>,
        change: impl FnOnce(&Analytics, &mut Draft) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<(T, Arc<AppState>), ApiError> {
        self.alone(state, move |this, current| async move {
            let mut draft = this.draft(&current);
            let answer = change(&this, &mut draft)?;
            let state = this.commit(&current, draft).await?;
            Ok((answer, state))
        })
        .await
    }

    /// What is about to be changed. Only within [`Analytics::alone`].
    pub(crate) fn draft(&self, current: &AppState) -> Draft {
        Draft {
            record: current.record.clone(),
            version: VersionRecord::clone(&current.current),
            now_ms: self.clock.now().millis(),
        }
    }

    /// Makes a change durable and seen. Only within [`Analytics::alone`].
    pub(crate) async fn commit(&self, current: &Arc<AppState>, draft: Draft) -> Result<Arc<AppState>, ApiError> {
        let Draft { record, version, .. } = draft;
        if record == current.record && version == *current.current {
            return Ok(Arc::clone(current));
        }
        check_size(&version)?;
        let mut left = VersionRecord::clone(&current.current);
        let versions = match version.version == left.version {
            true => vec![&version],
            false => {
                left.left = Some(current.record.phase);
                left.rolled_back = record.rolled_back.is_some_and(|(from, _)| from == left.version);
                vec![&left, &version]
            }
        };
        let versions = match version == *current.current {
            true => &[][..],
            false => versions.as_slice(),
        };
        let written = self.stored.replace(&current.name, &record, versions).await;
        if !written.map_err(catalog_failure)? {
            return Err(not_found(&current.name.name, current.name.account));
        }
        let state = AppState::new(current.name.clone(), record, version, Some(current.as_ref()));
        self.keep(&state);
        Ok(state)
    }

    /// Does something to an application while nobody else changes it; goes on when the caller has gone.
    pub(crate) async fn alone<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send + 'static>(
        &self,
        state: &Arc<AppState>,
        work: impl FnOnce(Arc<Self>, Arc<AppState>) -> F + Send + 'static,
    ) -> Result<T, ApiError> {
        let this = self.shared()?;
        let (gate, name, id) = (Arc::clone(&state.gate), state.name.clone(), state.record.id);
        joined(tokio::spawn(async move {
            let _alone = gate.lock_owned().await;
            let current = this.current(&name, id);
            let current = current.ok_or_else(|| not_found(&name.name, name.account))?;
            work(this, current).await
        }))
        .await
    }

    pub(crate) fn shared(&self) -> Result<Arc<Self>, ApiError> {
        let stopped = || ApiError::server("InternalFailure", "The server is stopping.", "the service was dropped");
        self.this.upgrade().ok_or_else(stopped)
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.this.clone()
    }

    fn keep(&self, state: &Arc<AppState>) {
        let mut held = self.held.write();
        let own = held.entry((state.name.account, state.name.region.clone())).or_default();
        own.insert(state.name.name.clone(), Arc::clone(state));
    }
}

impl AppState {
    fn new(name: ResourceName, record: ApplicationRecord, current: VersionRecord, old: Option<&AppState>) -> Arc<Self> {
        Arc::new(AppState {
            arn: application_arn(&name),
            name,
            record,
            current: Arc::new(current),
            live: old.map(|old| Arc::clone(&old.live)).unwrap_or_default(),
            gate: old.map(|old| Arc::clone(&old.gate)).unwrap_or_default(),
        })
    }
}

/// The application is not in a state in which that can be done.
pub(crate) fn busy(state: &AppState) -> ApiError {
    in_use(format!(
        "Application {} is in status {}; this cannot be done now.",
        state.arn,
        state.record.phase.status()
    ))
}

/// The name is taken.
pub(crate) fn exists(name: &ResourceName) -> ApiError {
    in_use(format!(
        "Application {} under account {} already exists.",
        name.name, name.account
    ))
}

/// Refuses a configuration that does not fit into the catalog.
pub(crate) fn check_size(version: &VersionRecord) -> Result<(), ApiError> {
    let bytes = serde_json::to_vec(version).map_or(usize::MAX, |text| text.len());
    match bytes <= limits::CONFIGURATION_BYTES_MAX {
        true => Ok(()),
        false => Err(crate::error::invalid(format!(
            "The configuration of the application has {bytes} bytes; at most {} are taken.",
            limits::CONFIGURATION_BYTES_MAX
        ))),
    }
}

/// The answer of a task that outlives its caller.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    let ended = task.await;
    ended.unwrap_or_else(|error| Err(ApiError::server("InternalFailure", "The request was cut off.", error)))
}
