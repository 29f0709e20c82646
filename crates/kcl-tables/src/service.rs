//! The service: its parts, and the tables it holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::{AccountId, ApiError, Caller, Clock, Region, ResourceName};
use parking_lot::{Mutex, RwLock};
use storage::{Catalog, CatalogError};
use wire::dynamodb::op;
use wire::{Registry, WireOperation};

use crate::error::{catalog_failure, no_table, table_not_found, validation};
use crate::limits;
use crate::ops::transact::RequestTokens;
use crate::schema::TableRecord;
use crate::store::Store;
use crate::table::Table;
use crate::write::Writer;

/// What the service is built on.
#[derive(Clone)]
pub struct Parts {
    /// Keeps tables and items.
    pub catalog: Arc<dyn Catalog>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The tables could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

type Tables = HashMap<(AccountId, Region), BTreeMap<String, Arc<Table>>>;

/// Tables of items. Always behind an [`Arc`].
pub struct KclTables {
    pub(crate) writer: Arc<Writer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) request_tokens: RequestTokens,
    tables: RwLock<Tables>,
    /// Deleted tables whose items are still in the catalog.
    unfinished: Mutex<Vec<(ResourceName, u64)>>,
    /// For the work that goes on when its caller has gone.
    this: Weak<KclTables>,
}

impl std::fmt::Debug for KclTables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KclTables")
    }
}

impl KclTables {
    /// Reads the tables of the catalog.
    pub async fn open(parts: Parts) -> Result<Arc<Self>, StartError> {
        let store = Store::new(parts.catalog);
        let (loaded, deleting) = store.load().await?;
        let service = Arc::new_cyclic(|this| KclTables {
            writer: Arc::new(Writer::new(store)),
            clock: parts.clock,
            request_tokens: RequestTokens::default(),
            tables: RwLock::default(),
            unfinished: Mutex::new(deleting),
            this: this.clone(),
        });
        for table in loaded {
            service.writer.add_weight(table.data.read().weight);
            service.remember(table);
        }
        Ok(service)
    }

    pub(crate) fn shared(&self) -> Result<Arc<Self>, ApiError> {
        let stopped = || {
            ApiError::server(
                "InternalServerError",
                "The server is stopping.",
                "the service was dropped",
            )
        };
        self.this.upgrade().ok_or_else(stopped)
    }

    /// Lets the registry call this service.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry
            .register::<op::BatchGetItem, _>(self)
            .register::<op::BatchWriteItem, _>(self)
            .register::<op::CreateTable, _>(self)
            .register::<op::DeleteItem, _>(self)
            .register::<op::DeleteTable, _>(self)
            .register::<op::DescribeContinuousBackups, _>(self)
            .register::<op::DescribeEndpoints, _>(self)
            .register::<op::DescribeLimits, _>(self)
            .register::<op::DescribeTable, _>(self)
            .register::<op::DescribeTimeToLive, _>(self)
            .register::<op::GetItem, _>(self)
            .register::<op::ListTables, _>(self)
            .register::<op::ListTagsOfResource, _>(self)
            .register::<op::PutItem, _>(self)
            .register::<op::Query, _>(self)
            .register::<op::Scan, _>(self)
            .register::<op::TagResource, _>(self)
            .register::<op::TransactGetItems, _>(self)
            .register::<op::TransactWriteItems, _>(self)
            .register::<op::UntagResource, _>(self)
            .register::<op::UpdateContinuousBackups, _>(self)
            .register::<op::UpdateItem, _>(self)
            .register::<op::UpdateTable, _>(self)
            .register::<op::UpdateTimeToLive, _>(self);
    }

    /// The work behind the calls, for ever: finishes deletions, and deletes items beyond their time to live.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.sweep().await;
            tokio::time::sleep(Duration::from_millis(limits::EXPIRY_INTERVAL_MS)).await;
        }
    }

    /// Finishes deletions that were cut off, and deletes items beyond their time to live.
    pub async fn sweep(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished.lock());
        for (name, id) in unfinished {
            self.purge(name, id).await;
        }
        let tables: Vec<Arc<Table>> = self
            .tables
            .read()
            .values()
            .flat_map(|own| own.values().cloned())
            .collect();
        for table in tables {
            self.expire(&table).await;
        }
        self.request_tokens.forget_old(self.clock.monotonic());
    }

    /// Removes what the catalog has of a deleted table. A failure is tried again by the next sweep.
    async fn purge(&self, name: ResourceName, id: u64) {
        if let Err(error) = self.writer.store.purge(&name, id).await {
            tracing::warn!(%error, table = name.name, "the items of a deleted table are still there");
            self.unfinished.lock().push((name, id));
        }
    }

    fn remember(&self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        let mut tables = self.tables.write();
        let own = tables
            .entry((table.name.account, table.name.region.clone()))
            .or_default();
        own.insert(table.name.name.clone(), Arc::clone(&table));
        table
    }

    /// The table that a request names by its name or its ARN. One of another account or region is one that is not there.
    pub(crate) fn find(&self, caller: &Caller, named: &str) -> Option<Arc<Table>> {
        let name = local_name(caller, named)?;
        let tables = self.tables.read();
        tables.get(&(caller.account, caller.region.clone()))?.get(name).cloned()
    }

    /// The table that items are asked of.
    pub(crate) fn table(&self, caller: &Caller, named: &str) -> Result<Arc<Table>, ApiError> {
        self.find(caller, named).ok_or_else(no_table)
    }

    /// The table that is asked for itself.
    pub(crate) fn itself(&self, caller: &Caller, named: &str) -> Result<Arc<Table>, ApiError> {
        self.find(caller, named).ok_or_else(|| table_not_found(named))
    }

    /// What the registry does for other operations: asks the caller's policy, for a resource that only the handler knows.
    pub(crate) fn permit<O: WireOperation>(
        &self,
        caller: &Caller,
        action: &str,
        named: &str,
        index: Option<&str>,
    ) -> Result<(), ApiError> {
        let mut resource = match named.starts_with("arn:") {
            true => named.to_owned(),
            false => format!("arn:aws:dynamodb:{}:{}:table/{named}", caller.region, caller.account),
        };
        if let Some(index) = index {
            resource.push_str("/index/");
            resource.push_str(index);
        }
        match caller.authorizer.allows(action, &resource) {
            true => Ok(()),
            false => Err(wire::denied(O::INFO, caller, &resource)),
        }
    }

    /// The caller's tables behind `after` in the order of their names, at most `limit`, and whether there are more.
    pub(crate) fn list(&self, caller: &Caller, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        use std::ops::Bound;
        let tables = self.tables.read();
        let Some(own) = tables.get(&(caller.account, caller.region.clone())) else {
            return (Vec::new(), false);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut names = own
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(name, _)| name.clone());
        let page = names.by_ref().take(limit).collect();
        (page, names.next().is_some())
    }

    /// Makes a table. Goes on when the caller has gone.
    pub(crate) async fn create(
        self: Arc<Self>,
        name: ResourceName,
        record: TableRecord,
    ) -> Result<Arc<Table>, ApiError> {
        let owner = (name.account, name.region.clone());
        let count = self.tables.read().get(&owner).map_or(0, BTreeMap::len);
        if count >= limits::TABLES_PER_ACCOUNT_MAX {
            return Err(ApiError::client(
                "LimitExceededException",
                format!(
                    "An account may have {} tables in a region.",
                    limits::TABLES_PER_ACCOUNT_MAX
                ),
            ));
        }
        joined(tokio::spawn(async move {
            let kept = self.writer.store.create(&name, record).await.map_err(catalog_failure)?;
            let Some(record) = kept else {
                let message = format!("Table already exists: {}", name.name);
                return Err(ApiError::client("ResourceInUseException", message));
            };
            Ok(self.remember(Table::new(name, record, Vec::new())))
        }))
        .await
    }

    /// Changes a table's record while nobody writes its items. Goes on when the caller has gone.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        table: &Arc<Table>,
        change: impl FnOnce(&mut TableRecord) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (table, writer) = (Arc::clone(table), Arc::clone(&self.writer));
        joined(tokio::spawn(async move {
            let gone = Arc::clone(&table.gate).write_owned().await;
            if *gone {
                return Err(table_not_found(&table.name.name));
            }
            let mut record = TableRecord::clone(&table.record());
            let answer = change(&mut record)?;
            if record != *table.record() {
                writer
                    .store
                    .replace(&table.name, &record)
                    .await
                    .map_err(catalog_failure)?;
                table.set_record(record);
            }
            Ok(answer)
        }))
        .await
    }

    /// Deletes a table: its name is free and its items unreachable when this answers. Goes on when the caller has gone.
    pub(crate) async fn delete(self: Arc<Self>, table: Arc<Table>) -> Result<(), ApiError> {
        joined(tokio::spawn(async move {
            let mut gone = Arc::clone(&table.gate).write_owned().await;
            if *gone {
                return Err(table_not_found(&table.name.name));
            }
            if table.record().protected {
                return Err(validation(format!(
                    "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first. \
                     Table: {}",
                    table.name.name
                )));
            }
            self.writer.store.delete(&table.name, table.id).await.map_err(catalog_failure)?;
            *gone = true;
            drop(gone);
            if let Some(own) = self.tables.write().get_mut(&(table.name.account, table.name.region.clone()))
                && own.get(&table.name.name).is_some_and(|found| found.id == table.id)
            {
                own.remove(&table.name.name);
            }
            let mut data = table.data.write();
            self.writer.take_weight(data.weight);
            data.clear();
            drop(data);
            let name = table.name.clone();
            let id = table.id;
            // The rest takes as long as there are items, and nobody waits for it.
            tokio::spawn(async move { self.purge(name, id).await });
            Ok(())
        }))
        .await
    }
}

/// The name that a caller means by a name or an ARN; `None` for an ARN of somebody else's, or of no table.
fn local_name<'a>(caller: &Caller, named: &'a str) -> Option<&'a str> {
    let Some(rest) = named.strip_prefix("arn:") else {
        return Some(named);
    };
    let mut parts = rest.splitn(5, ':');
    let (_partition, service) = (parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let own = service == "dynamodb" && region == caller.region.as_str() && account == caller.account.to_string();
    resource.strip_prefix("table/").filter(|_| own)
}

/// The answer of a task that outlives its caller.
async fn joined<T>(task: tokio::task::JoinHandle<Result<T, ApiError>>) -> Result<T, ApiError> {
    let ended = task.await;
    ended.unwrap_or_else(|error| {
        Err(ApiError::server(
            "InternalServerError",
            "The request was cut off.",
            error,
        ))
    })
}
