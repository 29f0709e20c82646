//! The parameters that were there before expressions, as the same conditions and updates.

use std::collections::BTreeMap;

use base::ApiError;
use wire::dynamodb::{
    AttributeAction, AttributeValue, AttributeValueUpdate, ComparisonOperator, Condition as WireCondition,
    ConditionalOperator, ExpectedAttributeValue,
};

use crate::error::{invalid_value, validation};
use crate::expr::{Comparator, Condition, Operand, Path, SetValue, Update};
use crate::value::{Attr, from_wire};

/// `Expected` with its `ConditionalOperator`.
pub fn expected(
    expected: Option<BTreeMap<String, ExpectedAttributeValue>>,
    operator: Option<ConditionalOperator>,
) -> Result<Condition, ApiError> {
    let Some(expected) = expected else {
        return match operator {
            None => Ok(Condition::always()),
            Some(_) => Err(validation(
                "ConditionalOperator cannot be used without Filter or Expected",
            )),
        };
    };
    let conditions = expected.into_iter().map(|(name, one)| expect_one(&name, one));
    Ok(joined(conditions.collect::<Result<_, _>>()?, operator))
}

fn expect_one(name: &str, one: ExpectedAttributeValue) -> Result<Condition, ApiError> {
    let path = Path::top(name);
    match (one.exists, one.value, one.comparison_operator, one.attribute_value_list) {
        (exists, value, Some(operator), list) => {
            if exists.is_some() {
                return Err(invalid_value(format_args!(
                    "Exists and ComparisonOperator cannot be used together for Attribute: {name}"
                )));
            }
            let list = match (value, list) {
                (Some(_), Some(_)) => {
                    return Err(invalid_value(format_args!(
                        "Value and AttributeValueList cannot be used together for Attribute: {name}"
                    )));
                }
                (Some(value), None) => vec![value],
                (None, list) => list.unwrap_or_default(),
            };
            compare(name, operator, list)
        }
        (_, _, None, Some(_)) => Err(invalid_value(format_args!(
            "AttributeValueList can only be used with a ComparisonOperator for Attribute: {name}"
        ))),
        (Some(false), None, None, None) => Ok(Condition::Not(Box::new(Condition::Exists(path)))),
        (Some(false), Some(_), None, None) => Err(invalid_value(format_args!(
            "Value cannot be used when Exists is false for Attribute: {name}"
        ))),
        (_, Some(value), None, None) => {
            let value = Operand::Value(from_wire(value)?);
            Ok(Condition::Compare(Comparator::Eq, Operand::Path(path), value))
        }
        (exists, None, None, None) => Err(invalid_value(format_args!(
            "Value must be provided when Exists is {} for Attribute: {name}",
            exists.map_or("null", |_| "true")
        ))),
    }
}

/// `ScanFilter` or `QueryFilter` with its `ConditionalOperator`.
pub fn filter(
    conditions: Option<BTreeMap<String, WireCondition>>,
    operator: Option<ConditionalOperator>,
) -> Result<Condition, ApiError> {
    let Some(conditions) = conditions else {
        return match operator {
            None => Ok(Condition::always()),
            Some(_) => Err(validation(
                "ConditionalOperator cannot be used without Filter or Expected",
            )),
        };
    };
    Ok(joined(key_conditions(conditions)?, operator))
}

/// `KeyConditions`, one condition for each attribute.
pub fn key_conditions(conditions: BTreeMap<String, WireCondition>) -> Result<Vec<Condition>, ApiError> {
    let one = |(name, one): (String, WireCondition)| {
        compare(
            &name,
            one.comparison_operator,
            one.attribute_value_list.unwrap_or_default(),
        )
    };
    conditions.into_iter().map(one).collect()
}

fn joined(conditions: Vec<Condition>, operator: Option<ConditionalOperator>) -> Condition {
    match operator {
        Some(ConditionalOperator::Or) if !conditions.is_empty() => Condition::Any(conditions),
        _ => Condition::All(conditions),
    }
}

fn compare(name: &str, operator: ComparisonOperator, list: Vec<AttributeValue>) -> Result<Condition, ApiError> {
    use ComparisonOperator as Op;
    let values = list.into_iter().map(from_wire).collect::<Result<Vec<Attr>, _>>()?;
    let legal = match operator {
        Op::Null | Op::NotNull => values.is_empty(),
        Op::Between => values.len() == 2,
        Op::In => !values.is_empty(),
        _ => values.len() == 1,
    };
    if !legal {
        return Err(invalid_value(format_args!(
            "Invalid number of argument(s) for the {operator} ComparisonOperator"
        )));
    }
    let ordered = matches!(operator, Op::Le | Op::Lt | Op::Ge | Op::Gt | Op::Between);
    let wrong = |value: &&Attr| match operator {
        _ if ordered => !value.is_scalar(),
        Op::BeginsWith => !matches!(value, Attr::S(_) | Attr::B(_)),
        Op::Contains | Op::NotContains | Op::In => !value.is_scalar() && !matches!(value, Attr::Bool(_) | Attr::Null),
        _ => false,
    };
    if let Some(value) = values.iter().find(wrong) {
        return Err(invalid_value(format_args!(
            "ComparisonOperator {operator} is not valid for {} AttributeValue type",
            value.kind()
        )));
    }
    let path = Path::top(name);
    let own = || Operand::Path(path.clone());
    let mut values = values.into_iter().map(Operand::Value);
    let condition = match (operator, values.next()) {
        (Op::Null, _) => Condition::Not(Box::new(Condition::Exists(path))),
        (Op::NotNull, _) => Condition::Exists(path),
        (Op::In, Some(first)) => Condition::In(own(), std::iter::once(first).chain(values).collect()),
        (Op::Between, Some(low)) => {
            let high = values.next().unwrap_or_else(|| low.clone());
            Condition::Between(own(), low, high)
        }
        (Op::Contains, Some(value)) => Condition::Contains(own(), value),
        // What is not there contains nothing, and does not fail to contain it either.
        (Op::NotContains, Some(value)) => Condition::All(vec![
            Condition::Exists(path.clone()),
            Condition::Not(Box::new(Condition::Contains(own(), value))),
        ]),
        (Op::BeginsWith, Some(value)) => Condition::BeginsWith(own(), value),
        (operator, Some(value)) => {
            let comparator = match operator {
                Op::Ne => Comparator::Ne,
                Op::Le => Comparator::Le,
                Op::Lt => Comparator::Lt,
                Op::Ge => Comparator::Ge,
                Op::Gt => Comparator::Gt,
                _ => Comparator::Eq,
            };
            Condition::Compare(comparator, own(), value)
        }
        (operator, None) => {
            return Err(invalid_value(format_args!(
                "Invalid number of argument(s) for the {operator} ComparisonOperator"
            )));
        }
    };
    Ok(condition)
}

/// `AttributeUpdates`, and whether they make an item that is not there.
pub fn updates(updates: BTreeMap<String, AttributeValueUpdate>) -> Result<(Update, bool), ApiError> {
    let mut update = Update::default();
    let mut creates = updates.is_empty();
    for (name, one) in updates {
        let path = Path::top(&name);
        let value = one.value.map(from_wire).transpose()?;
        let action = one.action.unwrap_or(AttributeAction::Put);
        creates |= action != AttributeAction::Delete;
        match (action, value) {
            (AttributeAction::Put, Some(value)) => update.set.push((path, SetValue::Value(value))),
            (AttributeAction::Add, Some(Attr::L(list))) => update.append.push((path, list)),
            (AttributeAction::Add, Some(value @ (Attr::N(_) | Attr::Ss(_) | Attr::Ns(_) | Attr::Bs(_)))) => {
                update.add.push((path, value));
            }
            (AttributeAction::Delete, None) => update.remove.push(path),
            (AttributeAction::Delete, Some(value @ (Attr::Ss(_) | Attr::Ns(_) | Attr::Bs(_)))) => {
                update.delete.push((path, value));
            }
            (action, Some(value)) => {
                return Err(invalid_value(format_args!(
                    "Action {action} is not supported for the type {}",
                    value.kind()
                )));
            }
            (action, None) => {
                return Err(invalid_value(format_args!(
                    "Only DELETE action is allowed when no attribute value is specified, not {action}"
                )));
            }
        }
    }
    Ok((update, creates))
}
