//! Query and Scan: pages of a table or of one of its indexes.

use std::ops::Bound;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request};
use wire::dynamodb::{self, Select, op};

use super::request::{Chosen, refuse_mix};
use crate::capacity::{consumed, read_units};
use crate::error::{invalid_value, validation};
use crate::expr::{Comparator, Condition, Operand, Path, Placeholders, parse_condition};
use crate::key::{Edge, KeyAttr, KeyValue, Keys, Position};
use crate::legacy;
use crate::limits::PAGE_BYTES_MAX;
use crate::schema::{IndexRecord, Projection, TableRecord};
use crate::service::KclTables;
use crate::table::Table;
use crate::value::{Attr, Item, WireItem, item_from_wire, item_size, item_to_wire};

/// Items that are looked at under one lock.
const BATCH: usize = 128;

/// What is read.
struct View {
    table: Arc<Table>,
    record: Arc<TableRecord>,
    index: Option<IndexRecord>,
}

impl View {
    fn keys(&self) -> &Keys {
        self.index.as_ref().map_or(&self.record.keys, |index| &index.keys)
    }

    fn index_name(&self) -> Option<&str> {
        self.index.as_ref().map(|index| index.name.as_str())
    }

    fn is_global(&self) -> bool {
        self.index.as_ref().is_some_and(|index| !index.local)
    }

    /// The key to go on from, as the client gets it.
    fn last_key(&self, item: &Item) -> Item {
        let attributes = self.record.keys.attributes().chain(self.keys().attributes());
        let known = attributes.filter_map(|key| item.get_key_value(&key.name));
        known.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The place that a key to go on from means.
    fn start(&self, key: WireItem) -> Result<Position, ApiError> {
        let wrong = || validation("The provided starting key is invalid");
        let item = item_from_wire(key)?;
        let primary = self.record.keys.of(&item);
        let primary = primary.ok_or_else(|| {
            validation("The provided starting key is invalid: The provided key element does not match the schema")
        })?;
        if self.last_key(&item).len() != item.len() {
            return Err(wrong());
        }
        Ok(match &self.index {
            None => Position::in_table(&primary),
            Some(index) => Position::in_index(&index.keys.of(&item).ok_or_else(wrong)?, &primary),
        })
    }
}

/// What is answered of each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// That it is there.
    Count,
    /// What the table or the index has of it.
    Visible,
    /// All of it, whatever the index has.
    Whole,
}

/// What of the items between two places is answered.
struct Reading {
    view: View,
    from: Bound<Position>,
    to: Bound<Position>,
    backwards: bool,
    filter: Condition,
    chosen: Chosen,
    asked: Asked,
    limit: Option<i32>,
}

#[derive(Default)]
struct Found {
    items: Vec<WireItem>,
    count: i32,
    scanned: i32,
    bytes: usize,
    last: Option<WireItem>,
}

impl Reading {
    fn run(self) -> Found {
        let mut found = Found::default();
        let limit = self.limit.unwrap_or(i32::MAX);
        let (mut from, mut to) = (self.from.clone(), self.to.clone());
        loop {
            let rows = {
                let data = self.view.table.data.read();
                data.range(
                    self.view.index_name(),
                    (from.as_ref(), to.as_ref()),
                    self.backwards,
                    BATCH,
                )
            };
            let full = rows.len() == BATCH;
            for (position, row) in rows {
                let projected = self
                    .view
                    .index
                    .as_ref()
                    .map(|index| self.view.record.projected(index, &row.item));
                let whole = match (&projected, &self.view.index) {
                    // A local index fetches from its table what it has not.
                    (Some(_), Some(index)) if index.local => &row.item,
                    (Some(projected), _) => projected,
                    (None, _) => &row.item,
                };
                found.bytes += projected.as_ref().map_or(row.size, item_size);
                found.scanned += 1;
                if self.filter.holds(whole) {
                    found.count += 1;
                    if self.asked != Asked::Count {
                        let visible = match (&self.chosen.0, &projected) {
                            (None, Some(projected)) if self.asked == Asked::Visible => projected.clone(),
                            _ => self.chosen.of(whole),
                        };
                        found.items.push(item_to_wire(&visible));
                    }
                }
                if found.scanned >= limit || found.bytes >= PAGE_BYTES_MAX {
                    found.last = Some(item_to_wire(&self.view.last_key(&row.item)));
                    return found;
                }
                match self.backwards {
                    true => to = Bound::Excluded(position),
                    false => from = Bound::Excluded(position),
                }
            }
            if !full {
                return found;
            }
        }
    }
}

impl KclTables {
    fn view(&self, caller: &base::Caller, table: &str, index: Option<&str>) -> Result<View, ApiError> {
        let table = self.table(caller, table)?;
        let record = table.record();
        let index = match index {
            None => None,
            Some(name) => {
                let missing = || validation(format!("The table does not have the specified index: {name}"));
                Some(record.index(name).cloned().ok_or_else(missing)?)
            }
        };
        Ok(View { table, record, index })
    }
}

/// What `Select` asks for.
fn select(select: Option<Select>, chosen: &Chosen, view: &View) -> Result<Asked, ApiError> {
    let specific = chosen.0.is_some();
    match select {
        None => {}
        Some(Select::SpecificAttributes) if !specific => {
            return Err(validation(
                "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES",
            ));
        }
        Some(Select::SpecificAttributes) => {}
        Some(other) if specific => {
            return Err(validation(format!(
                "Cannot specify the AttributesToGet or ProjectionExpression when choosing to get {other}"
            )));
        }
        Some(Select::AllProjectedAttributes) if view.index.is_none() => {
            return Err(validation(
                "ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName",
            ));
        }
        Some(Select::AllAttributes) => {
            if let Some(index) = view.index.as_ref().filter(|_| view.is_global())
                && index.projection != Projection::All
            {
                return Err(invalid_value(format_args!(
                    "Select type ALL_ATTRIBUTES is not supported for global secondary index {} because its projection type is not ALL",
                    index.name
                )));
            }
        }
        Some(Select::AllProjectedAttributes | Select::Count) => {}
    }
    if let (Some(paths), Some(index)) = (&chosen.0, view.index.as_ref().filter(|_| view.is_global()))
        && let Some(path) = paths.iter().find(|path| !view.record.is_projected(index, &path.root))
    {
        return Err(invalid_value(format_args!(
            "Global secondary index {} does not project [{}]",
            index.name, path.root
        )));
    }
    Ok(match select {
        Some(Select::Count) => Asked::Count,
        Some(Select::AllAttributes) => Asked::Whole,
        _ => Asked::Visible,
    })
}

fn refuse_consistent(view: &View, consistent: Option<bool>) -> Result<(), ApiError> {
    match view.is_global() && consistent == Some(true) {
        true => Err(validation(
            "Consistent reads are not supported on global secondary indexes",
        )),
        false => Ok(()),
    }
}

impl Handle<op::Scan> for KclTables {
    async fn handle(&self, request: Request<dynamodb::ScanInput>) -> Result<Reply<dynamodb::ScanOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        self.permit::<op::Scan>(caller, "dynamodb:Scan", &input.table_name, input.index_name.as_deref())?;
        refuse_mix(
            &[
                ("ProjectionExpression", input.projection_expression.is_some()),
                ("FilterExpression", input.filter_expression.is_some()),
            ],
            &[
                ("AttributesToGet", input.attributes_to_get.is_some()),
                ("ScanFilter", input.scan_filter.is_some()),
                ("ConditionalOperator", input.conditional_operator.is_some()),
            ],
        )?;
        let any = input.projection_expression.is_some() || input.filter_expression.is_some();
        let mut placeholders =
            Placeholders::new(input.expression_attribute_names, input.expression_attribute_values, any)?;
        let filter = match &input.filter_expression {
            Some(text) => parse_condition("FilterExpression", text, &mut placeholders)?,
            None => legacy::filter(input.scan_filter, input.conditional_operator)?,
        };
        let chosen = Chosen::read(
            input.projection_expression.as_deref(),
            input.attributes_to_get.as_deref(),
            &mut placeholders,
        )?;
        placeholders.finish()?;
        let (part, parts) = segment(input.segment, input.total_segments)?;
        let view = self.view(caller, &input.table_name, input.index_name.as_deref())?;
        refuse_consistent(&view, input.consistent_read)?;
        let asked = select(input.select, &chosen, &view)?;
        let (begin, end) = (Position::part(part, parts), Position::part(part + 1, parts));
        let from = match input.exclusive_start_key {
            Some(key) => {
                let start = view.start(key)?;
                if start < begin || start >= end {
                    return Err(validation(format!(
                        "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use ExclusiveStartKey with correct \
                         Segment. TotalSegments: {parts} Segment: {part}"
                    )));
                }
                Bound::Excluded(start)
            }
            None => Bound::Included(begin),
        };
        let index = view.index.as_ref().map(|index| (index.name.clone(), index.local));
        let reading = Reading {
            view,
            from,
            to: Bound::Excluded(end),
            backwards: false,
            filter,
            chosen,
            asked,
            limit: input.limit,
        };
        let found = reading.run();
        let units = read_units(found.bytes, input.consistent_read == Some(true));
        let index = index.as_ref().map(|(name, local)| (name.as_str(), *local));
        Ok(dynamodb::ScanOutput {
            count: Some(found.count),
            scanned_count: Some(found.scanned),
            items: (asked != Asked::Count).then_some(found.items),
            last_evaluated_key: found.last,
            consumed_capacity: consumed(input.return_consumed_capacity, &input.table_name, units, index),
        }
        .into())
    }
}

fn segment(segment: Option<i32>, total: Option<i32>) -> Result<(u64, u64), ApiError> {
    match (segment, total) {
        (None, None) => Ok((0, 1)),
        (Some(_), None) => Err(validation(
            "The TotalSegments parameter is required but was not present in the request when Segment parameter is present",
        )),
        (None, Some(_)) => Err(validation(
            "The Segment parameter is required but was not present in the request when parameter TotalSegments is present",
        )),
        (Some(segment), Some(total)) if segment >= total => Err(validation(format!(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: Segment: {segment} is not less than \
             TotalSegments: {total}"
        ))),
        (Some(segment), Some(total)) => Ok((u64::from(segment.unsigned_abs()), u64::from(total.unsigned_abs()))),
    }
}

impl Handle<op::Query> for KclTables {
    async fn handle(&self, request: Request<dynamodb::QueryInput>) -> Result<Reply<dynamodb::QueryOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        self.permit::<op::Query>(caller, "dynamodb:Query", &input.table_name, input.index_name.as_deref())?;
        refuse_mix(
            &[
                ("ProjectionExpression", input.projection_expression.is_some()),
                ("FilterExpression", input.filter_expression.is_some()),
                ("KeyConditionExpression", input.key_condition_expression.is_some()),
            ],
            &[
                ("AttributesToGet", input.attributes_to_get.is_some()),
                ("QueryFilter", input.query_filter.is_some()),
                ("ConditionalOperator", input.conditional_operator.is_some()),
                ("KeyConditions", input.key_conditions.is_some()),
            ],
        )?;
        let any = input.projection_expression.is_some()
            || input.filter_expression.is_some()
            || input.key_condition_expression.is_some();
        let mut placeholders =
            Placeholders::new(input.expression_attribute_names, input.expression_attribute_values, any)?;
        let conditions = match (&input.key_condition_expression, input.key_conditions) {
            (Some(text), _) => flattened(parse_condition("KeyConditionExpression", text, &mut placeholders)?)?,
            (None, Some(conditions)) => legacy::key_conditions(conditions)?,
            (None, None) => {
                return Err(validation(
                    "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.",
                ));
            }
        };
        let filter = match &input.filter_expression {
            Some(text) => parse_condition("FilterExpression", text, &mut placeholders)?,
            None => legacy::filter(input.query_filter, input.conditional_operator)?,
        };
        let chosen = Chosen::read(
            input.projection_expression.as_deref(),
            input.attributes_to_get.as_deref(),
            &mut placeholders,
        )?;
        placeholders.finish()?;
        let view = self.view(caller, &input.table_name, input.index_name.as_deref())?;
        refuse_consistent(&view, input.consistent_read)?;
        refuse_key_filter(&filter, &view)?;
        let asked = select(input.select, &chosen, &view)?;
        let (from, to) = bounds(view.keys(), conditions)?;
        let backwards = input.scan_index_forward == Some(false);
        let start = input.exclusive_start_key.map(|key| view.start(key)).transpose()?;
        let (from, to) = match start {
            Some(start) => {
                if !within(&start, &from, &to) {
                    return Err(validation(
                        "The provided starting key is outside query boundaries based on provided conditions",
                    ));
                }
                match backwards {
                    true => (from, Bound::Excluded(start)),
                    false => (Bound::Excluded(start), to),
                }
            }
            None => (from, to),
        };
        let index = view.index.as_ref().map(|index| (index.name.clone(), index.local));
        let reading = Reading {
            view,
            from,
            to,
            backwards,
            filter,
            chosen,
            asked,
            limit: input.limit,
        };
        let found = reading.run();
        let units = read_units(found.bytes, input.consistent_read == Some(true));
        let index = index.as_ref().map(|(name, local)| (name.as_str(), *local));
        Ok(dynamodb::QueryOutput {
            count: Some(found.count),
            scanned_count: Some(found.scanned),
            items: (asked != Asked::Count).then_some(found.items),
            last_evaluated_key: found.last,
            consumed_capacity: consumed(input.return_consumed_capacity, &input.table_name, units, index),
        }
        .into())
    }
}

fn within(at: &Position, from: &Bound<Position>, to: &Bound<Position>) -> bool {
    use std::ops::RangeBounds;
    (from.clone(), to.clone()).contains(at)
}

fn refuse_key_filter(filter: &Condition, view: &View) -> Result<(), ApiError> {
    let mut named = None;
    filter.paths(&mut |path| {
        if view.keys().has(&path.root) {
            named = Some(path.root.clone());
        }
    });
    match named {
        Some(name) => Err(validation(format!(
            "Filter Expression can only contain non-primary key attributes: Primary key attribute: {name}"
        ))),
        None => Ok(()),
    }
}

/// The parts of a key condition, which are joined by AND alone.
fn flattened(condition: Condition) -> Result<Vec<Condition>, ApiError> {
    let wrong = |operator: &str| {
        Err(validation(format!(
            "Invalid operator used in KeyConditionExpression: {operator}"
        )))
    };
    match condition {
        Condition::All(all) => Ok(all
            .into_iter()
            .map(flattened)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect()),
        Condition::Any(_) => wrong("OR"),
        Condition::Not(_) => wrong("NOT"),
        Condition::In(..) => wrong("IN"),
        Condition::Exists(_) => wrong("attribute_exists"),
        Condition::HasType(..) => wrong("attribute_type"),
        Condition::Contains(..) => wrong("contains"),
        Condition::Compare(Comparator::Ne, ..) => wrong("<>"),
        other => Ok(vec![other]),
    }
}

/// The attribute that a part of a key condition is about.
fn subject(condition: &Condition) -> Option<&str> {
    match condition {
        Condition::Compare(_, Operand::Path(Path { root, steps }), Operand::Value(_))
        | Condition::Between(Operand::Path(Path { root, steps }), Operand::Value(_), Operand::Value(_))
        | Condition::BeginsWith(Operand::Path(Path { root, steps }), Operand::Value(_))
            if steps.is_empty() =>
        {
            Some(root)
        }
        // The older parameters can say more of an attribute than a key takes.
        Condition::In(Operand::Path(path), _) | Condition::Exists(path) => Some(&path.root),
        Condition::Not(inner) => subject(inner),
        Condition::Contains(Operand::Path(path), _) => Some(&path.root),
        Condition::All(all) => all.first().and_then(subject),
        _ => None,
    }
}

/// The part of an order that a key condition means.
fn bounds(keys: &Keys, conditions: Vec<Condition>) -> Result<(Bound<Position>, Bound<Position>), ApiError> {
    let unsupported = || validation("Query key condition not supported");
    if conditions.len() > 2 {
        return Err(validation("Conditions can be of length 1 or 2 only"));
    }
    let (mut hash, mut range) = (None, None);
    for condition in conditions {
        let condition = turned(condition);
        let name = subject(&condition).ok_or_else(unsupported)?.to_owned();
        let slot = if name == keys.hash.name {
            &mut hash
        } else if keys.range.as_ref().is_some_and(|key| key.name == name) {
            &mut range
        } else {
            let missed = if hash.is_none() {
                &keys.hash.name
            } else {
                keys.range.as_ref().map_or(&name, |key| &key.name)
            };
            return Err(validation(format!(
                "Query condition missed key schema element: {missed}"
            )));
        };
        if slot.replace(condition).is_some() {
            return Err(validation(
                "KeyConditionExpressions must only contain one condition per key",
            ));
        }
    }
    let missed = || validation(format!("Query condition missed key schema element: {}", keys.hash.name));
    let Condition::Compare(Comparator::Eq, _, Operand::Value(value)) = hash.ok_or_else(missed)? else {
        return Err(unsupported());
    };
    let hash = key_value(&value, &keys.hash)?;
    let all = (Position::lower(&hash, Edge::Low), Position::upper(&hash, Edge::High));
    let (Some(attr), Some(condition)) = (&keys.range, range) else {
        return Ok((Bound::Included(all.0), Bound::Included(all.1)));
    };
    range_bounds(&hash, attr, condition, all)
}

fn range_bounds(
    hash: &KeyValue,
    attr: &KeyAttr,
    condition: Condition,
    all: (Position, Position),
) -> Result<(Bound<Position>, Bound<Position>), ApiError> {
    let lower = |value: KeyValue| Position::lower(hash, Edge::At(value));
    let upper = |value: KeyValue| Position::upper(hash, Edge::At(value));
    let (first, last) = (Bound::Included(all.0), Bound::Included(all.1));
    Ok(match condition {
        Condition::Compare(comparator, _, Operand::Value(value)) => {
            let value = key_value(&value, attr)?;
            match comparator {
                Comparator::Eq => (Bound::Included(lower(value.clone())), Bound::Included(upper(value))),
                Comparator::Lt => (first, Bound::Excluded(lower(value))),
                Comparator::Le => (first, Bound::Included(upper(value))),
                Comparator::Gt => (Bound::Excluded(upper(value)), last),
                Comparator::Ge => (Bound::Included(lower(value)), last),
                Comparator::Ne => return Err(validation("Query key condition not supported")),
            }
        }
        Condition::Between(_, Operand::Value(low), Operand::Value(high)) => {
            let (low, high) = (key_value(&low, attr)?, key_value(&high, attr)?);
            (Bound::Included(lower(low)), Bound::Included(upper(high)))
        }
        Condition::BeginsWith(_, Operand::Value(start)) => {
            let start = key_value(&start, attr)?;
            let end = start.after_prefix().map_or(last, |end| Bound::Excluded(lower(end)));
            (Bound::Included(lower(start)), end)
        }
        _ => return Err(validation("Query key condition not supported")),
    })
}

/// `:v < a` as `a > :v`.
fn turned(condition: Condition) -> Condition {
    match condition {
        Condition::Compare(comparator, value @ Operand::Value(_), path @ Operand::Path(_)) => {
            let comparator = match comparator {
                Comparator::Lt => Comparator::Gt,
                Comparator::Le => Comparator::Ge,
                Comparator::Gt => Comparator::Lt,
                Comparator::Ge => Comparator::Le,
                same => same,
            };
            Condition::Compare(comparator, path, value)
        }
        other => other,
    }
}

fn key_value(value: &Attr, attr: &KeyAttr) -> Result<KeyValue, ApiError> {
    let key = KeyValue::new(value, attr.kind);
    let key = key.ok_or_else(|| invalid_value("Condition parameter type does not match schema type"))?;
    match key.len() {
        Some(0) => Err(validation(format!(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. \
             Key: {}",
            attr.name
        ))),
        _ => Ok(key),
    }
}
