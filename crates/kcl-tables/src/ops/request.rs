//! What the requests on items have in common: keys, conditions, projections.

use std::collections::BTreeMap;

use base::ApiError;
use wire::dynamodb::{ConditionalOperator, ExpectedAttributeValue};

use crate::error::{invalid_value, validation};
use crate::expr::{Condition, Path, Placeholders, Update, parse_condition, parse_projection, project};
use crate::key::{KeyValue, Primary};
use crate::legacy;
use crate::limits;
use crate::schema::TableRecord;
use crate::value::{Item, WireItem, item_from_wire};

/// Refuses a request that mixes expressions with the parameters that were there before them.
pub fn refuse_mix(expressions: &[(&str, bool)], others: &[(&str, bool)]) -> Result<(), ApiError> {
    let given = |list: &[(&str, bool)]| {
        let names: Vec<String> = list
            .iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| (*name).to_owned())
            .collect();
        names.join(", ")
    };
    let (expressions, others) = (given(expressions), given(others));
    if expressions.is_empty() || others.is_empty() {
        return Ok(());
    }
    Err(validation(format!(
        "Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {{{others}}} \
         Expression parameters: {{{expressions}}}"
    )))
}

/// Reads the `Key` of a request.
pub fn read_key(record: &TableRecord, key: WireItem) -> Result<Primary, ApiError> {
    let item = item_from_wire(key)?;
    let wrong = || validation("The provided key element does not match the schema");
    if item.len() != record.keys.attributes().count() {
        return Err(wrong());
    }
    let key = record.keys.of(&item).ok_or_else(wrong)?;
    check_key(record, &key)?;
    Ok(key)
}

/// The key of an item that is put.
pub fn key_of_item(record: &TableRecord, item: &Item) -> Result<Primary, ApiError> {
    for attr in record.keys.attributes() {
        let Some(value) = item.get(&attr.name) else {
            return Err(invalid_value(format_args!("Missing the key {} in the item", attr.name)));
        };
        if KeyValue::new(value, attr.kind).is_none() {
            return Err(invalid_value(format_args!(
                "Type mismatch for key {} expected: {} actual: {}",
                attr.name,
                attr.kind.as_str(),
                value.kind()
            )));
        }
    }
    let key = record.keys.of(item);
    let key = key.ok_or_else(|| validation("The provided key element does not match the schema"))?;
    check_key(record, &key)?;
    Ok(key)
}

fn check_key(record: &TableRecord, key: &Primary) -> Result<(), ApiError> {
    let values = std::iter::once(&key.hash).chain(&key.range);
    for (attr, value) in record.keys.attributes().zip(values) {
        if value.len() == Some(0) {
            let what = match value {
                KeyValue::B(_) => "binary",
                _ => "string",
            };
            return Err(validation(format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty {what} \
                 value. Key: {}",
                attr.name
            )));
        }
    }
    if key.hash.len().is_some_and(|len| len > limits::HASH_KEY_BYTES_MAX) {
        return Err(invalid_value(
            "Size of hashkey has exceeded the maximum size limit of2048 bytes",
        ));
    }
    if key
        .range
        .as_ref()
        .and_then(KeyValue::len)
        .is_some_and(|len| len > limits::RANGE_KEY_BYTES_MAX)
    {
        return Err(invalid_value(
            "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
        ));
    }
    Ok(())
}

/// The condition of a write, in either way of writing it.
pub struct Conditions {
    /// `ConditionExpression`.
    pub expression: Option<String>,
    /// `Expected`.
    pub expected: Option<BTreeMap<String, ExpectedAttributeValue>>,
    /// `ConditionalOperator`.
    pub operator: Option<ConditionalOperator>,
}

impl Conditions {
    /// The condition.
    pub fn read(self, placeholders: &mut Placeholders) -> Result<Condition, ApiError> {
        match self.expression {
            Some(text) => parse_condition("ConditionExpression", &text, placeholders),
            None => legacy::expected(self.expected, self.operator),
        }
    }
}

/// Refuses an update of the key.
pub fn check_update(record: &TableRecord, update: &Update) -> Result<(), ApiError> {
    match update.targets().find(|path| record.keys.has(&path.root)) {
        Some(path) => Err(invalid_value(format_args!(
            "Cannot update attribute {}. This attribute is part of the key",
            path.root
        ))),
        None => Ok(()),
    }
}

/// What of an item is answered.
#[derive(Clone, Debug, Default)]
pub struct Chosen(pub Option<Vec<Path>>);

impl Chosen {
    /// From `ProjectionExpression` or `AttributesToGet`.
    pub fn read(
        expression: Option<&str>,
        attributes: Option<&[String]>,
        placeholders: &mut Placeholders,
    ) -> Result<Self, ApiError> {
        if let Some(text) = expression {
            return parse_projection(text, placeholders).map(|paths| Chosen(Some(paths)));
        }
        let Some(names) = attributes else {
            return Ok(Chosen(None));
        };
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort();
        sorted.dedup();
        if sorted.len() < names.len() {
            return Err(invalid_value("Duplicate value in attribute name"));
        }
        Ok(Chosen(Some(names.iter().map(|name| Path::top(name)).collect())))
    }

    /// What is answered of an item.
    pub fn of(&self, item: &Item) -> Item {
        match &self.0 {
            Some(paths) => project(item, paths),
            None => item.clone(),
        }
    }
}
