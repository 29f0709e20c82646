//! GetItem, PutItem, UpdateItem, DeleteItem.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use wire::dynamodb::{
    self, ItemCollectionMetrics, ReturnItemCollectionMetrics, ReturnValue, ReturnValuesOnConditionCheckFailure, op,
};

use super::request::{Chosen, Conditions, check_update, key_of_item, read_key, refuse_mix};
use crate::capacity::{consumed, read_units, write_units};
use crate::error::{condition_failed, validation};
use crate::expr::{Path, Placeholders, Update, parse_update, project};
use crate::key::Primary;
use crate::legacy;
use crate::service::KclTables;
use crate::table::{Row, Table};
use crate::value::{Item, WireItem, item_from_wire, item_to_json, item_to_wire, to_wire};
use crate::write::{Action, Outcome, Refused, Step, WriteError, check_item};

impl Handle<op::GetItem> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::GetItemInput>,
    ) -> Result<Reply<dynamodb::GetItemOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        refuse_mix(
            &[("ProjectionExpression", input.projection_expression.is_some())],
            &[("AttributesToGet", input.attributes_to_get.is_some())],
        )?;
        let any = input.projection_expression.is_some();
        let mut placeholders = Placeholders::new(input.expression_attribute_names, None, any)?;
        let chosen = Chosen::read(
            input.projection_expression.as_deref(),
            input.attributes_to_get.as_deref(),
            &mut placeholders,
        )?;
        placeholders.finish()?;
        let table = self.table(caller, &input.table_name)?;
        let key = read_key(&table.record(), input.key)?;
        let row = table.data.read().get(&key).cloned();
        let units = read_units(
            row.as_ref().map_or(0, |row| row.size),
            input.consistent_read == Some(true),
        );
        Ok(dynamodb::GetItemOutput {
            item: row.map(|row| item_to_wire(&chosen.of(&row.item))),
            consumed_capacity: consumed(input.return_consumed_capacity, &input.table_name, units, None),
        }
        .into())
    }
}

impl Handle<op::PutItem> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::PutItemInput>,
    ) -> Result<Reply<dynamodb::PutItemOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        refuse_mix(
            &[("ConditionExpression", input.condition_expression.is_some())],
            &[
                ("Expected", input.expected.is_some()),
                ("ConditionalOperator", input.conditional_operator.is_some()),
            ],
        )?;
        refuse_return(input.return_values)?;
        let any = input.condition_expression.is_some();
        let item = item_from_wire(input.item)?;
        let mut placeholders =
            Placeholders::new(input.expression_attribute_names, input.expression_attribute_values, any)?;
        let conditions = Conditions {
            expression: input.condition_expression,
            expected: input.expected,
            operator: input.conditional_operator,
        };
        let condition = conditions.read(&mut placeholders)?;
        placeholders.finish()?;
        let table = self.table(caller, &input.table_name)?;
        let record = table.record();
        let key = key_of_item(&record, &item)?;
        check_item(&record, &item, "Item size has exceeded the maximum allowed size")?;
        let step = Step {
            table: Arc::clone(&table),
            key: key.clone(),
            action: Action::Put(item),
            condition,
        };
        let outcome = self
            .write_one(step, input.return_values_on_condition_check_failure)
            .await?;
        Ok(dynamodb::PutItemOutput {
            attributes: old_attributes(input.return_values, &outcome),
            consumed_capacity: consumed(input.return_consumed_capacity, &input.table_name, units(&outcome), None),
            item_collection_metrics: collection(input.return_item_collection_metrics, &table, &key),
        }
        .into())
    }
}

impl Handle<op::DeleteItem> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::DeleteItemInput>,
    ) -> Result<Reply<dynamodb::DeleteItemOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        refuse_mix(
            &[("ConditionExpression", input.condition_expression.is_some())],
            &[
                ("Expected", input.expected.is_some()),
                ("ConditionalOperator", input.conditional_operator.is_some()),
            ],
        )?;
        refuse_return(input.return_values)?;
        let any = input.condition_expression.is_some();
        let mut placeholders =
            Placeholders::new(input.expression_attribute_names, input.expression_attribute_values, any)?;
        let conditions = Conditions {
            expression: input.condition_expression,
            expected: input.expected,
            operator: input.conditional_operator,
        };
        let condition = conditions.read(&mut placeholders)?;
        placeholders.finish()?;
        let table = self.table(caller, &input.table_name)?;
        let key = read_key(&table.record(), input.key)?;
        let step = Step {
            table: Arc::clone(&table),
            key: key.clone(),
            action: Action::Delete,
            condition,
        };
        let outcome = self
            .write_one(step, input.return_values_on_condition_check_failure)
            .await?;
        Ok(dynamodb::DeleteItemOutput {
            attributes: old_attributes(input.return_values, &outcome),
            consumed_capacity: consumed(input.return_consumed_capacity, &input.table_name, units(&outcome), None),
            item_collection_metrics: collection(input.return_item_collection_metrics, &table, &key),
        }
        .into())
    }
}

impl Handle<op::UpdateItem> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::UpdateItemInput>,
    ) -> Result<Reply<dynamodb::UpdateItemOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        refuse_mix(
            &[
                ("UpdateExpression", input.update_expression.is_some()),
                ("ConditionExpression", input.condition_expression.is_some()),
            ],
            &[
                ("AttributeUpdates", input.attribute_updates.is_some()),
                ("Expected", input.expected.is_some()),
                ("ConditionalOperator", input.conditional_operator.is_some()),
            ],
        )?;
        let any = input.update_expression.is_some() || input.condition_expression.is_some();
        let mut placeholders =
            Placeholders::new(input.expression_attribute_names, input.expression_attribute_values, any)?;
        let (update, creates) = match (&input.update_expression, input.attribute_updates) {
            (Some(text), _) => (parse_update(text, &mut placeholders)?, true),
            (None, Some(updates)) => legacy::updates(updates)?,
            (None, None) => (Update::default(), true),
        };
        let conditions = Conditions {
            expression: input.condition_expression,
            expected: input.expected,
            operator: input.conditional_operator,
        };
        let condition = conditions.read(&mut placeholders)?;
        placeholders.finish()?;
        let table = self.table(caller, &input.table_name)?;
        let key = read_key(&table.record(), input.key)?;
        check_update(&table.record(), &update)?;
        let touched: Vec<Path> = update.targets().cloned().collect();
        let step = Step {
            table: Arc::clone(&table),
            key: key.clone(),
            action: Action::Update { update, creates },
            condition,
        };
        let outcome = self
            .write_one(step, input.return_values_on_condition_check_failure)
            .await?;
        Ok(dynamodb::UpdateItemOutput {
            attributes: attributes(input.return_values, &outcome, &touched),
            consumed_capacity: consumed(input.return_consumed_capacity, &input.table_name, units(&outcome), None),
            item_collection_metrics: collection(input.return_item_collection_metrics, &table, &key),
        }
        .into())
    }
}

impl KclTables {
    async fn write_one(
        &self,
        step: Step,
        on_failure: Option<ReturnValuesOnConditionCheckFailure>,
    ) -> Result<Outcome, ApiError> {
        let error = match self.writer.run(vec![step]).await {
            Ok(outcomes) => {
                let lost = || {
                    ApiError::server(
                        "InternalServerError",
                        "The request could not be carried out.",
                        "no outcome",
                    )
                };
                return outcomes.into_iter().next().ok_or_else(lost);
            }
            Err(error) => error,
        };
        Err(match error {
            WriteError::Api(error) => error,
            WriteError::Refused(refused) => match refused.into_iter().flatten().next() {
                Some(Refused::Invalid(error)) => error,
                Some(Refused::Condition(row)) => condition_failed(failed_item(on_failure, row)),
                None => condition_failed(None),
            },
        })
    }
}

/// The item that did not fulfil its condition, where it was asked for.
pub fn failed_item(wanted: Option<ReturnValuesOnConditionCheckFailure>, row: Option<Arc<Row>>) -> Option<String> {
    let row = row.filter(|_| wanted == Some(ReturnValuesOnConditionCheckFailure::AllOld))?;
    Some(item_to_json(&row.item))
}

fn refuse_return(wanted: Option<ReturnValue>) -> Result<(), ApiError> {
    match wanted {
        None | Some(ReturnValue::None | ReturnValue::AllOld) => Ok(()),
        Some(_) => Err(validation("Return values set to invalid value")),
    }
}

fn old_attributes(wanted: Option<ReturnValue>, outcome: &Outcome) -> Option<WireItem> {
    let row = outcome.old.as_ref().filter(|_| wanted == Some(ReturnValue::AllOld))?;
    Some(item_to_wire(&row.item))
}

/// What an update answers. Of nested paths that were touched it is only what they lead to.
fn attributes(wanted: Option<ReturnValue>, outcome: &Outcome, touched: &[Path]) -> Option<WireItem> {
    let item = |row: &Option<Arc<Row>>| row.as_ref().map(|row| row.item.clone());
    let parts = |row: &Option<Arc<Row>>| row.as_ref().map(|row| project(&row.item, touched));
    let found: Option<Item> = match wanted? {
        ReturnValue::None => None,
        ReturnValue::AllOld => item(&outcome.old),
        ReturnValue::AllNew => item(&outcome.new),
        ReturnValue::UpdatedOld => parts(&outcome.old),
        ReturnValue::UpdatedNew => parts(&outcome.new),
    };
    found.filter(|item| !item.is_empty()).map(|item| item_to_wire(&item))
}

/// Units of a write: those of the bigger of the item as it was and as it is.
pub fn units(outcome: &Outcome) -> f64 {
    let size = |row: &Option<Arc<Row>>| row.as_ref().map_or(0, |row| row.size);
    write_units(size(&outcome.old).max(size(&outcome.new)))
}

/// Of tables with local indexes alone. Their partitions have no limit of their own here, so the estimate is that of a small one.
pub fn collection(
    wanted: Option<ReturnItemCollectionMetrics>,
    table: &Table,
    key: &Primary,
) -> Option<ItemCollectionMetrics> {
    let record = table.record();
    let wanted = wanted == Some(ReturnItemCollectionMetrics::Size) && record.indexes.iter().any(|index| index.local);
    wanted.then(|| ItemCollectionMetrics {
        item_collection_key: Some(BTreeMap::from([(
            record.keys.hash.name.clone(),
            to_wire(&key.hash.to_attr()),
        )])),
        size_estimate_range_gb: Some(vec![0.0, 1.0]),
    })
}
