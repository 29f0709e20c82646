//! TransactWriteItems and TransactGetItems: all or none, and one moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use base::{ApiError, Caller, Handle, Reply, Request};
use md5::{Digest, Md5};
use parking_lot::Mutex;
use wire::Shape;
use wire::dynamodb::{self, ReturnValuesOnConditionCheckFailure, op};

use super::items::{collection, failed_item, units};
use super::request::{Chosen, Conditions, check_update, key_of_item, read_key};
use crate::capacity::{consumed, read_units};
use crate::error::validation;
use crate::expr::{Placeholders, parse_update};
use crate::key::Primary;
use crate::limits;
use crate::service::KclTables;
use crate::table::{Row, Table};
use crate::value::{WireItem, item_from_wire, item_to_wire};
use crate::write::{Action, Refused, Step, WriteError, check_item};

/// The tokens of transactions that were carried out, and what they stood for.
#[derive(Debug, Default)]
pub struct RequestTokens(Mutex<HashMap<String, (Duration, [u8; 16])>>);

impl RequestTokens {
    /// True when the token's transaction was carried out already. Errors: it was another transaction.
    fn seen(&self, token: &str, digest: [u8; 16], now: Duration) -> Result<bool, ApiError> {
        let life = Duration::from_millis(limits::REQUEST_TOKEN_LIFE_MS);
        match self.0.lock().get(token) {
            Some((at, _)) if now.saturating_sub(*at) > life => Ok(false),
            Some((_, known)) if *known == digest => Ok(true),
            Some(_) => Err(ApiError::client(
                "IdempotentParameterMismatchException",
                "The request uses the same client token as a previous, but non-identical request.",
            )),
            None => Ok(false),
        }
    }

    fn remember(&self, token: String, digest: [u8; 16], now: Duration) {
        let mut tokens = self.0.lock();
        if tokens.len() >= limits::REQUEST_TOKENS_MAX
            && let Some(oldest) = tokens
                .iter()
                .min_by_key(|(_, (at, _))| *at)
                .map(|(token, _)| token.clone())
        {
            tokens.remove(&oldest);
        }
        tokens.insert(token, (now, digest));
    }

    /// Forgets those whose time is over.
    pub fn forget_old(&self, now: Duration) {
        let life = Duration::from_millis(limits::REQUEST_TOKEN_LIFE_MS);
        self.0.lock().retain(|_, (at, _)| now.saturating_sub(*at) <= life);
    }
}

struct Part {
    name: String,
    step: Step,
    on_failure: Option<ReturnValuesOnConditionCheckFailure>,
}

type Names = Option<BTreeMap<String, String>>;

impl KclTables {
    fn part(&self, caller: &Caller, item: dynamodb::TransactWriteItem) -> Result<Part, ApiError> {
        match (item.condition_check, item.put, item.update, item.delete) {
            (Some(check), None, None, None) => {
                let target = self.target(caller, "dynamodb:ConditionCheckItem", &check.table_name)?;
                let key = read_key(&target.record(), check.key)?;
                let names = (check.expression_attribute_names, check.expression_attribute_values);
                let step = conditioned(target, key, Action::Check, Some(check.condition_expression), names)?;
                Ok(Part {
                    name: check.table_name,
                    step,
                    on_failure: check.return_values_on_condition_check_failure,
                })
            }
            (None, Some(put), None, None) => {
                let target = self.target(caller, "dynamodb:PutItem", &put.table_name)?;
                let item = item_from_wire(put.item)?;
                let key = key_of_item(&target.record(), &item)?;
                check_item(
                    &target.record(),
                    &item,
                    "Item size has exceeded the maximum allowed size",
                )?;
                let names = (put.expression_attribute_names, put.expression_attribute_values);
                let step = conditioned(target, key, Action::Put(item), put.condition_expression, names)?;
                Ok(Part {
                    name: put.table_name,
                    step,
                    on_failure: put.return_values_on_condition_check_failure,
                })
            }
            (None, None, Some(update), None) => {
                let target = self.target(caller, "dynamodb:UpdateItem", &update.table_name)?;
                let key = read_key(&target.record(), update.key)?;
                let names = (update.expression_attribute_names, update.expression_attribute_values);
                let mut placeholders = Placeholders::new(names.0, names.1, true)?;
                let change = parse_update(&update.update_expression, &mut placeholders)?;
                check_update(&target.record(), &change)?;
                let condition = condition(update.condition_expression, &mut placeholders)?;
                placeholders.finish()?;
                let action = Action::Update {
                    update: change,
                    creates: true,
                };
                Ok(Part {
                    name: update.table_name,
                    step: Step {
                        table: target,
                        key,
                        action,
                        condition,
                    },
                    on_failure: update.return_values_on_condition_check_failure,
                })
            }
            (None, None, None, Some(delete)) => {
                let target = self.target(caller, "dynamodb:DeleteItem", &delete.table_name)?;
                let key = read_key(&target.record(), delete.key)?;
                let names = (delete.expression_attribute_names, delete.expression_attribute_values);
                let step = conditioned(target, key, Action::Delete, delete.condition_expression, names)?;
                Ok(Part {
                    name: delete.table_name,
                    step,
                    on_failure: delete.return_values_on_condition_check_failure,
                })
            }
            _ => Err(validation(
                "TransactItems can only contain one of Check, Put, Update or Delete",
            )),
        }
    }

    fn target(&self, caller: &Caller, action: &str, name: &str) -> Result<Arc<Table>, ApiError> {
        self.permit::<op::TransactWriteItems>(caller, action, name, None)?;
        self.table(caller, name)
    }
}

fn condition(expression: Option<String>, placeholders: &mut Placeholders) -> Result<crate::expr::Condition, ApiError> {
    let conditions = Conditions {
        expression,
        expected: None,
        operator: None,
    };
    conditions.read(placeholders)
}

fn conditioned(
    table: Arc<Table>,
    key: Primary,
    action: Action,
    expression: Option<String>,
    (names, values): (Names, Option<WireItem>),
) -> Result<Step, ApiError> {
    let mut placeholders = Placeholders::new(names, values, expression.is_some())?;
    let condition = condition(expression, &mut placeholders)?;
    placeholders.finish()?;
    Ok(Step {
        table,
        key,
        action,
        condition,
    })
}

/// What a transaction is recognised by when it is sent again.
fn digest(input: &dynamodb::TransactWriteItemsInput) -> [u8; 16] {
    let items = dynamodb::TransactWriteItemsInput {
        client_request_token: None,
        ..input.clone()
    };
    let text = wire::json::write(
        &items.to_value(),
        <dynamodb::TransactWriteItemsInput as wire::Structure>::schema(),
    );
    Md5::digest(&text).into()
}

impl Handle<op::TransactWriteItems> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::TransactWriteItemsInput>,
    ) -> Result<Reply<dynamodb::TransactWriteItemsOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        let now = self.clock.monotonic();
        let token = input.client_request_token.clone().map(|token| {
            let whose = format!("{}/{}/{token}", caller.account, caller.region);
            (whose, digest(&input))
        });
        let parts = input.transact_items.into_iter().map(|item| self.part(caller, item));
        let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
        let mut seen = BTreeSet::new();
        if parts
            .iter()
            .any(|part| !seen.insert((part.step.table.id, part.step.key.clone())))
        {
            return Err(validation(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
        if let Some((token, digest)) = &token
            && self.request_tokens.seen(token, *digest, now)?
        {
            return Ok(dynamodb::TransactWriteItemsOutput::default().into());
        }
        let bytes: usize = parts.iter().map(|part| stored_bytes(&part.step)).sum();
        if bytes > limits::TRANSACTION_BYTES_MAX {
            return Err(validation(
                "Transaction size exceeded: the items of a transaction may have 4 MB together",
            ));
        }
        let steps: Vec<Step> = parts.iter().map(|part| part.step.clone()).collect();
        let outcomes = match self.writer.run(steps).await {
            Ok(outcomes) => outcomes,
            Err(WriteError::Api(error)) => return Err(error),
            Err(WriteError::Refused(refused)) => return Err(canceled(&parts, refused)),
        };
        if let Some((token, digest)) = token {
            self.request_tokens.remember(token, digest, now);
        }
        let (mut spent, mut collections) = (BTreeMap::<&str, f64>::new(), BTreeMap::<String, Vec<_>>::new());
        for (part, outcome) in parts.iter().zip(&outcomes) {
            // A transaction writes twice: to prepare and to commit.
            *spent.entry(&part.name).or_default() += 2.0 * units(outcome);
            let told = collection(input.return_item_collection_metrics, &part.step.table, &part.step.key);
            if let Some(told) = told {
                collections.entry(part.name.clone()).or_default().push(told);
            }
        }
        let told = spent
            .iter()
            .filter_map(|(name, units)| consumed(input.return_consumed_capacity, name, *units, None));
        Ok(dynamodb::TransactWriteItemsOutput {
            consumed_capacity: Some(told.collect::<Vec<_>>()).filter(|told| !told.is_empty()),
            item_collection_metrics: Some(collections).filter(|all| !all.is_empty()),
        }
        .into())
    }
}

/// What a step may write: for an update as much as there is and what it brings.
fn stored_bytes(step: &Step) -> usize {
    let there = || step.table.data.read().get(&step.key).map_or(0, |row| row.size);
    match &step.action {
        Action::Put(item) => crate::value::item_size(item),
        Action::Update { .. } => there(),
        Action::Delete | Action::Check => 0,
    }
}

/// Some parts were refused: each is told its reason, in the order of the request.
fn canceled(parts: &[Part], refused: Vec<Option<Refused>>) -> ApiError {
    let mut codes = Vec::with_capacity(refused.len());
    let mut reasons = Vec::with_capacity(refused.len());
    for (part, refusal) in parts.iter().zip(refused) {
        let text = |text: &str| {
            let mut out = Vec::new();
            wire::json::write_text(&mut out, text);
            String::from_utf8(out).unwrap_or_default()
        };
        match refusal {
            None => {
                codes.push("None");
                reasons.push("{\"Code\":\"None\"}".to_owned());
            }
            Some(Refused::Condition(row)) => {
                codes.push("ConditionalCheckFailed");
                let item =
                    failed_item(part.on_failure, row).map_or_else(String::new, |json| format!(",\"Item\":{json}"));
                reasons.push(format!(
                    "{{\"Code\":\"ConditionalCheckFailed\",\"Message\":\"The conditional request failed\"{item}}}"
                ));
            }
            Some(Refused::Invalid(error)) => {
                codes.push("ValidationError");
                reasons.push(format!(
                    "{{\"Code\":\"ValidationError\",\"Message\":{}}}",
                    text(&error.message)
                ));
            }
        }
    }
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    let mut error = ApiError::client("TransactionCanceledException", message);
    error
        .members
        .push(("CancellationReasons", format!("[{}]", reasons.join(","))));
    error
}

impl Handle<op::TransactGetItems> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::TransactGetItemsInput>,
    ) -> Result<Reply<dynamodb::TransactGetItemsOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        let mut wanted = Vec::with_capacity(input.transact_items.len());
        for dynamodb::TransactGetItem { get } in input.transact_items {
            self.permit::<op::TransactGetItems>(caller, "dynamodb:GetItem", &get.table_name, None)?;
            let any = get.projection_expression.is_some();
            let mut placeholders = Placeholders::new(get.expression_attribute_names, None, any)?;
            let chosen = Chosen::read(get.projection_expression.as_deref(), None, &mut placeholders)?;
            placeholders.finish()?;
            let table = self.table(caller, &get.table_name)?;
            let key = read_key(&table.record(), get.key)?;
            wanted.push((get.table_name, table, key, chosen));
        }
        let mut seen = BTreeSet::new();
        if wanted
            .iter()
            .any(|(_, table, key, _)| !seen.insert((table.id, key.clone())))
        {
            return Err(validation(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
        let rows = at_once(wanted.iter().map(|(_, table, key, _)| (table, key)));
        let mut spent = BTreeMap::<&str, f64>::new();
        let mut responses = Vec::with_capacity(rows.len());
        for ((name, _, _, chosen), row) in wanted.iter().zip(rows) {
            let size = row.as_ref().map_or(0, |row| row.size);
            *spent.entry(name).or_default() += 2.0 * read_units(size, true);
            responses.push(dynamodb::ItemResponse {
                item: row.map(|row| item_to_wire(&chosen.of(&row.item))),
            });
        }
        let told = spent
            .iter()
            .filter_map(|(name, units)| consumed(input.return_consumed_capacity, name, *units, None));
        Ok(dynamodb::TransactGetItemsOutput {
            consumed_capacity: Some(told.collect::<Vec<_>>()).filter(|told| !told.is_empty()),
            responses: Some(responses),
        }
        .into())
    }
}

/// Items as they are at one moment: all tables are held, in the order in which writers hold them.
fn at_once<'a>(wanted: impl Iterator<Item = (&'a Arc<Table>, &'a Primary)> + Clone) -> Vec<Option<Arc<Row>>> {
    let tables: BTreeMap<u64, &Arc<Table>> = wanted.clone().map(|(table, _)| (table.id, table)).collect();
    let views: BTreeMap<u64, _> = tables.iter().map(|(id, table)| (*id, table.data.read())).collect();
    wanted
        .map(|(table, key)| views.get(&table.id).and_then(|data| data.get(key).cloned()))
        .collect()
}
