//! BatchGetItem and BatchWriteItem: many items, each for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use wire::dynamodb::{self, KeysAndAttributes, op};

use super::items::{collection, units};
use super::request::{Chosen, key_of_item, read_key, refuse_mix};
use crate::capacity::{consumed, read_units};
use crate::error::validation;
use crate::expr::{Condition, Placeholders};
use crate::limits;
use crate::service::KclTables;
use crate::value::{item_from_wire, item_to_wire};
use crate::write::{Action, Refused, Step, WriteError, check_item};

impl Handle<op::BatchGetItem> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::BatchGetItemInput>,
    ) -> Result<Reply<dynamodb::BatchGetItemOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        let count: usize = input.request_items.values().map(|one| one.keys.len()).sum();
        if count > limits::BATCH_GET_ITEMS_MAX {
            return Err(validation("Too many items requested for the BatchGetItem call"));
        }
        let mut answered = BTreeMap::new();
        let mut left: BTreeMap<String, KeysAndAttributes> = BTreeMap::new();
        let mut told = Vec::new();
        let mut bytes = 0;
        for (name, wanted) in input.request_items {
            self.permit::<op::BatchGetItem>(caller, "dynamodb:BatchGetItem", &name, None)?;
            refuse_mix(
                &[("ProjectionExpression", wanted.projection_expression.is_some())],
                &[("AttributesToGet", wanted.attributes_to_get.is_some())],
            )?;
            let any = wanted.projection_expression.is_some();
            let mut placeholders = Placeholders::new(wanted.expression_attribute_names.clone(), None, any)?;
            let chosen = Chosen::read(
                wanted.projection_expression.as_deref(),
                wanted.attributes_to_get.as_deref(),
                &mut placeholders,
            )?;
            placeholders.finish()?;
            let table = self.table(caller, &name)?;
            let record = table.record();
            let (mut found, mut spent, mut seen) = (Vec::new(), 0.0, BTreeSet::new());
            for wire_key in &wanted.keys {
                let key = read_key(&record, wire_key.clone())?;
                if !seen.insert(key.clone()) {
                    return Err(validation("Provided list of item keys contains duplicates"));
                }
                let row = table.data.read().get(&key).cloned();
                let size = row.as_ref().map_or(0, |row| row.size);
                if bytes + size > limits::BATCH_GET_BYTES_MAX {
                    let rest = left.entry(name.clone()).or_insert_with(|| KeysAndAttributes {
                        keys: Vec::new(),
                        ..wanted.clone()
                    });
                    rest.keys.push(wire_key.clone());
                    continue;
                }
                bytes += size;
                spent += read_units(size, wanted.consistent_read == Some(true));
                found.extend(row.map(|row| item_to_wire(&chosen.of(&row.item))));
            }
            told.extend(consumed(input.return_consumed_capacity, &name, spent, None));
            answered.insert(name, found);
        }
        Ok(dynamodb::BatchGetItemOutput {
            responses: Some(answered),
            unprocessed_keys: Some(left),
            consumed_capacity: Some(told).filter(|told| !told.is_empty()),
        }
        .into())
    }
}

impl Handle<op::BatchWriteItem> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::BatchWriteItemInput>,
    ) -> Result<Reply<dynamodb::BatchWriteItemOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        let count: usize = input.request_items.values().map(Vec::len).sum();
        if count > limits::BATCH_WRITE_ITEMS_MAX {
            return Err(validation("Too many items requested for the BatchWriteItem call"));
        }
        let mut steps = Vec::with_capacity(count);
        for (name, writes) in input.request_items {
            self.permit::<op::BatchWriteItem>(caller, "dynamodb:BatchWriteItem", &name, None)?;
            let table = self.table(caller, &name)?;
            let record = table.record();
            let mut seen = BTreeSet::new();
            for write in writes {
                let (key, action) = match (write.put_request, write.delete_request) {
                    (Some(put), None) => {
                        let item = item_from_wire(put.item)?;
                        let key = key_of_item(&record, &item)?;
                        check_item(&record, &item, "Item size has exceeded the maximum allowed size")?;
                        (key, Action::Put(item))
                    }
                    (None, Some(delete)) => (read_key(&record, delete.key)?, Action::Delete),
                    _ => {
                        return Err(validation(
                            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes",
                        ));
                    }
                };
                if !seen.insert(key.clone()) {
                    return Err(validation("Provided list of item keys contains duplicates"));
                }
                let step = Step {
                    table: Arc::clone(&table),
                    key,
                    action,
                    condition: Condition::always(),
                };
                steps.push((name.clone(), step));
            }
        }
        // Each for itself, but all at once, so that they share syncs.
        let runs = steps.into_iter().map(|(name, step)| {
            let writer = Arc::clone(&self.writer);
            let (table, key) = (Arc::clone(&step.table), step.key.clone());
            let run = tokio::spawn(async move { writer.run(vec![step]).await });
            (name, table, key, run)
        });
        let runs: Vec<_> = runs.collect();
        let (mut spent, mut collections) = (BTreeMap::<String, f64>::new(), BTreeMap::<String, Vec<_>>::new());
        let mut failed = None;
        for (name, table, key, run) in runs {
            match run.await {
                Ok(Ok(outcomes)) => {
                    *spent.entry(name.clone()).or_default() += outcomes.iter().map(units).sum::<f64>();
                    let told = collection(input.return_item_collection_metrics, &table, &key);
                    if let Some(told) = told {
                        collections.entry(name).or_default().push(told);
                    }
                }
                Ok(Err(error)) => failed = Some(single(error)),
                Err(error) => {
                    failed = Some(ApiError::server(
                        "InternalServerError",
                        "The request was cut off.",
                        error,
                    ));
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let told = spent
            .iter()
            .filter_map(|(name, units)| consumed(input.return_consumed_capacity, name, *units, None));
        Ok(dynamodb::BatchWriteItemOutput {
            unprocessed_items: Some(BTreeMap::new()),
            item_collection_metrics: Some(collections).filter(|all| !all.is_empty()),
            consumed_capacity: Some(told.collect::<Vec<_>>()).filter(|told| !told.is_empty()),
        }
        .into())
    }
}

fn single(error: WriteError) -> ApiError {
    match error {
        WriteError::Api(error) => error,
        WriteError::Refused(refused) => match refused.into_iter().flatten().next() {
            Some(Refused::Invalid(error)) => error,
            _ => crate::error::condition_failed(None),
        },
    }
}
