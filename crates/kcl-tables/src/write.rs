//! Writes: one item or several at once, each under its condition, all or none. A write looks at the items, asks the conditions, commits the
//! changes to the catalog, and lets them be seen when they are durable; nobody else writes these items meanwhile. So writes of one
//! item happen one after the other, those of different items share the catalog's syncs, and a reader never sees what a power
//! cut could take back.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::ApiError;
use storage::CatalogError;
use tokio::sync::Mutex;

use crate::error::{catalog_failure, invalid_value, no_table, validation};
use crate::expr::{Condition, Update, UpdateError};
use crate::key::{KeyValue, Primary};
use crate::limits;
use crate::schema::TableRecord;
use crate::store::{RowChange, Store};
use crate::table::{Row, Table};
use crate::value::Item;

/// What is done to an item.
#[derive(Clone, Debug)]
pub enum Action {
    /// The item becomes this one.
    Put(Item),
    /// The item goes.
    Delete,
    /// The item is changed; one that is not there is made, unless only deletions of the older parameters are asked for.
    Update {
        /// The change.
        update: Update,
        /// Whether it makes an item.
        creates: bool,
    },
    /// Nothing; its condition is asked.
    Check,
}

/// One part of a write.
#[derive(Clone, Debug)]
pub struct Step {
    /// The table.
    pub table: Arc<Table>,
    /// The item's key.
    pub key: Primary,
    /// What is done.
    pub action: Action,
    /// Under which condition.
    pub condition: Condition,
}

/// What became of an item.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The item as it was.
    pub old: Option<Arc<Row>>,
    /// The item as it is.
    pub new: Option<Arc<Row>>,
}

/// Why a step was not carried out.
#[derive(Clone, Debug)]
pub enum Refused {
    /// Its condition does not hold for this item.
    Condition(Option<Arc<Row>>),
    /// The item would not be legal.
    Invalid(ApiError),
}

/// Why nothing was written.
#[derive(Debug)]
pub enum WriteError {
    /// For each step, why it was refused, if it was.
    Refused(Vec<Option<Refused>>),
    /// For another reason.
    Api(ApiError),
}

impl From<ApiError> for WriteError {
    fn from(error: ApiError) -> Self {
        WriteError::Api(error)
    }
}

/// Carries out writes.
pub struct Writer {
    /// Keeps them.
    pub store: Store,
    locks: Vec<Arc<Mutex<()>>>,
    /// What all items of the server take.
    weight: AtomicU64,
}

impl Writer {
    /// Writes into this store.
    pub fn new(store: Store) -> Self {
        Writer {
            store,
            locks: (0..limits::WRITE_LOCKS).map(|_| Arc::default()).collect(),
            weight: AtomicU64::new(0),
        }
    }

    /// Counts what a table's items take.
    pub fn add_weight(&self, weight: u64) {
        self.weight.fetch_add(weight, Ordering::Relaxed);
    }

    /// Counts them no more.
    pub fn take_weight(&self, weight: u64) {
        // Never below zero: it is only taken what was added.
        self.weight.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Carries out all steps or none. It goes on when its caller has gone, so that what is durable is also seen.
    pub async fn run(self: &Arc<Self>, steps: Vec<Step>) -> Result<Vec<Outcome>, WriteError> {
        let this = Arc::clone(self);
        let ended = tokio::spawn(async move { this.carry_out(steps).await }).await;
        ended.unwrap_or_else(|error| {
            Err(ApiError::server("InternalServerError", "The request was cut off.", error).into())
        })
    }

    async fn carry_out(&self, steps: Vec<Step>) -> Result<Vec<Outcome>, WriteError> {
        let tables: BTreeMap<u64, Arc<Table>> = steps.iter().map(|s| (s.table.id, Arc::clone(&s.table))).collect();
        // In the order of their numbers, and then the locks in theirs: two writes never wait for each other.
        let mut gates = Vec::with_capacity(tables.len());
        for table in tables.values() {
            let gate = Arc::clone(&table.gate).read_owned().await;
            if *gate {
                return Err(no_table().into());
            }
            gates.push(gate);
        }
        let mut at: Vec<usize> = steps.iter().map(|step| lock_of(step.table.id, &step.key)).collect();
        at.sort_unstable();
        at.dedup();
        let mut held = Vec::with_capacity(at.len());
        for lock in at.into_iter().filter_map(|at| self.locks.get(at)) {
            held.push(Arc::clone(lock).lock_owned().await);
        }
        let outcomes = self.decide(&steps)?;
        self.commit(&steps, &outcomes).await?;
        self.show(&tables, &steps, &outcomes);
        Ok(outcomes)
    }

    /// What each step makes of its item.
    fn decide(&self, steps: &[Step]) -> Result<Vec<Outcome>, WriteError> {
        let mut outcomes = Vec::with_capacity(steps.len());
        let mut refused = Vec::with_capacity(steps.len());
        for step in steps {
            let old = step.table.data.read().get(&step.key).cloned();
            let record = step.table.record();
            let (outcome, refusal) = match decide(step, &record, old) {
                Ok(outcome) => (Some(outcome), None),
                Err(refusal) => (None, Some(refusal)),
            };
            outcomes.extend(outcome);
            refused.push(refusal);
        }
        if refused.iter().any(Option::is_some) {
            return Err(WriteError::Refused(refused));
        }
        for (step, outcome) in steps.iter().zip(&outcomes) {
            self.refuse_too_much(step, outcome)?;
        }
        Ok(outcomes)
    }

    fn refuse_too_much(&self, step: &Step, outcome: &Outcome) -> Result<(), ApiError> {
        let weight = |row: &Option<Arc<Row>>| row.as_ref().map_or(0, |row| row.weight());
        let (old, new) = (weight(&outcome.old), weight(&outcome.new));
        if new <= old {
            return Ok(());
        }
        let more = new - old;
        let limit = if step.table.data.read().weight + more > limits::TABLE_BYTES_MAX {
            format!("a table holds {} MiB", limits::TABLE_BYTES_MAX >> 20)
        } else if self.weight.load(Ordering::Relaxed) + more > limits::SERVER_BYTES_MAX {
            format!("all tables together hold {} MiB", limits::SERVER_BYTES_MAX >> 20)
        } else {
            return Ok(());
        };
        Err(ApiError::client(
            "ItemCollectionSizeLimitExceededException",
            format!("There is no room for the item: {limit} at most on this server, whose tables are kept in memory."),
        ))
    }

    async fn commit(&self, steps: &[Step], outcomes: &[Outcome]) -> Result<(), ApiError> {
        let change = |(step, outcome): &(&'_ Step, &'_ Outcome)| is_change(step, outcome);
        let changed: Vec<(&Step, &Outcome)> = steps.iter().zip(outcomes).filter(change).collect();
        let rows: Vec<RowChange<'_>> = changed
            .iter()
            .filter_map(|(step, outcome)| {
                let number = outcome.new.as_ref().or(outcome.old.as_ref())?.number;
                Some(RowChange {
                    table: &step.table,
                    number,
                    item: outcome.new.as_ref().map(|row| &row.item),
                })
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        let Err(error) = self.store.write(&rows).await else {
            return Ok(());
        };
        if !matches!(
            error,
            CatalogError::Conflict { .. } | CatalogError::Invalid(_) | CatalogError::Full
        ) {
            // It is not known whether the commit happened: what is read from now on is what the catalog has.
            for ((step, _), row) in changed.iter().zip(&rows) {
                match self.store.read(&step.table, row.number).await {
                    Ok(found) => {
                        let mut data = step.table.data.write();
                        data.replace(&step.table.record(), &step.key, found.map(Arc::new));
                    }
                    Err(error) => {
                        tracing::error!(%error, table = step.table.arn, "an item may differ from what is stored until the next start");
                    }
                }
            }
        }
        Err(catalog_failure(error))
    }

    /// Lets the changes be seen, all at once.
    fn show(&self, tables: &BTreeMap<u64, Arc<Table>>, steps: &[Step], outcomes: &[Outcome]) {
        let mut views: BTreeMap<u64, _> = tables
            .iter()
            .map(|(id, table)| (*id, (table.record(), table.data.write())))
            .collect();
        let mut before = 0;
        let mut after = 0;
        for (step, outcome) in steps.iter().zip(outcomes) {
            let Some((record, data)) = views.get_mut(&step.table.id) else {
                continue;
            };
            if is_change(step, outcome) {
                before += data.weight;
                data.replace(record, &step.key, outcome.new.clone());
                after += data.weight;
            }
        }
        drop(views);
        self.add_weight(after);
        self.take_weight(before);
    }
}

fn is_change(step: &Step, outcome: &Outcome) -> bool {
    if matches!(step.action, Action::Check) {
        return false;
    }
    match (&outcome.old, &outcome.new) {
        (None, None) => false,
        (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
        _ => true,
    }
}

fn lock_of(table: u64, key: &Primary) -> usize {
    let mut hasher = std::hash::DefaultHasher::new();
    (table, key).hash(&mut hasher);
    usize::try_from(hasher.finish() % limits::WRITE_LOCKS as u64).unwrap_or(0)
}

fn decide(step: &Step, record: &TableRecord, old: Option<Arc<Row>>) -> Result<Outcome, Refused> {
    let nothing = Item::new();
    let before = old.as_ref().map_or(&nothing, |row| &row.item);
    if !step.condition.holds(before) {
        return Err(Refused::Condition(old));
    }
    let item = match &step.action {
        Action::Check => return Ok(Outcome { new: old.clone(), old }),
        Action::Delete => return Ok(Outcome { old, new: None }),
        Action::Put(item) => item.clone(),
        Action::Update { creates: false, .. } if old.is_none() => return Ok(Outcome { old, new: None }),
        Action::Update { update, .. } => {
            let updated = match &old {
                Some(row) => update.apply(&row.item),
                None => update.apply(&record.keys.item(&step.key)),
            };
            let wrong = |error: UpdateError| Refused::Invalid(validation(error.to_string()));
            let item = updated.map_err(wrong)?;
            check_item(
                record,
                &item,
                "Item size to update has exceeded the maximum allowed size",
            )
            .map_err(Refused::Invalid)?;
            item
        }
    };
    // What changes nothing is not written.
    if let Some(row) = old.as_ref().filter(|row| row.item == item) {
        return Ok(Outcome {
            new: Some(Arc::clone(row)),
            old,
        });
    }
    let number = old.as_ref().map_or_else(|| step.table.next_row(), |row| row.number);
    Ok(Outcome {
        old,
        new: Some(Arc::new(Row::new(number, item))),
    })
}

/// Refuses an item that is too big, nested too deep, or has what cannot be an index's key.
pub fn check_item(record: &TableRecord, item: &Item, too_big: &str) -> Result<(), ApiError> {
    if crate::value::item_size(item) > limits::ITEM_BYTES_MAX {
        return Err(validation(too_big));
    }
    if !item.values().all(crate::value::Attr::is_shallow) {
        return Err(validation("Nesting Levels have exceeded supported limits"));
    }
    for index in &record.indexes {
        for key in index.keys.attributes() {
            let Some(value) = item.get(&key.name) else { continue };
            let Some(value_as_key) = KeyValue::new(value, key.kind) else {
                return Err(invalid_value(format_args!(
                    "Type mismatch for Index Key {} Expected: {} Actual: {} IndexName: {}",
                    key.name,
                    key.kind.as_str(),
                    value.kind(),
                    index.name
                )));
            };
            if value_as_key.len() == Some(0) {
                return Err(validation(format!(
                    "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The \
                     AttributeValue for a key attribute cannot contain an empty string value. IndexName: {}, IndexKey: {}",
                    index.name, key.name
                )));
            }
            let max = match key.name == index.keys.hash.name {
                true => limits::HASH_KEY_BYTES_MAX,
                false => limits::RANGE_KEY_BYTES_MAX,
            };
            if value_as_key.len().is_some_and(|len| len > max) {
                return Err(invalid_value(format_args!(
                    "Size of the key {} of index {} has exceeded the maximum size limit of {max} bytes",
                    key.name, index.name
                )));
            }
        }
    }
    Ok(())
}
