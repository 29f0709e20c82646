//! Functions of text and of JSON in text.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::binary::BinaryTypeCoercer;
use datafusion_expr::{Operator, Signature, TypeSignature, Volatility};
use serde_json::Value;

use super::{Simple, any, arrow, exact, typed};
use crate::decode::path::{self, Step};

pub(super) fn all() -> Vec<Simple> {
    let text = || DataType::Utf8;
    let returns_text = |_: &[DataType]| Ok(DataType::Utf8);
    vec![
        Simple::new(
            "split_index",
            exact(vec![text(), text(), DataType::Int64]),
            returns_text,
            split_index,
        ),
        Simple::new(
            "regexp_extract",
            one_of(vec![vec![text(), text()], vec![text(), text(), DataType::Int64]]),
            returns_text,
            extract,
        ),
        Simple::new("json_value", exact(vec![text(), text()]), returns_text, json_value),
        Simple::new(
            "json_exists",
            exact(vec![text(), text()]),
            |_| Ok(DataType::Boolean),
            json_exists,
        ),
        Simple::new(
            "concat",
            Signature::variadic(vec![text()], Volatility::Immutable),
            returns_text,
            concat,
        ),
        Simple::new("if", any(3), if_type, if_else),
        Simple::new("mod", any(2), mod_type, modulo),
        Simple::new(
            "$narrow_1",
            any(1),
            |_| Ok(DataType::Int8),
            |arrays, _| narrow(arrays, &DataType::Int8),
        ),
        Simple::new(
            "$narrow_2",
            any(1),
            |_| Ok(DataType::Int16),
            |arrays, _| narrow(arrays, &DataType::Int16),
        ),
        Simple::new(
            "$narrow_4",
            any(1),
            |_| Ok(DataType::Int32),
            |arrays, _| narrow(arrays, &DataType::Int32),
        ),
    ]
}

pub(super) fn one_of(lists: Vec<Vec<DataType>>) -> Signature {
    Signature::one_of(
        lists.into_iter().map(TypeSignature::Exact).collect(),
        Volatility::Immutable,
    )
}

/// Sums of narrow integers go round, as they do in Java.
fn narrow(arrays: &[ArrayRef], to: &DataType) -> Result<ArrayRef> {
    let wide = typed::<Int64Array>(arrays, 0)?;
    let bits = match to {
        DataType::Int8 => 8,
        DataType::Int16 => 16,
        _ => 32,
    };
    let turned: Int64Array = wide.unary(|value| (value << (64 - bits)) >> (64 - bits));
    ::arrow::compute::cast(&turned, to).map_err(arrow)
}

fn rows(arrays: &[ArrayRef], at: usize, rows: usize) -> Result<impl Iterator<Item = Option<&str>>> {
    let array = typed::<StringArray>(arrays, at)?;
    Ok((0..rows).map(move |row| array.is_valid(row).then(|| array.value(row))))
}

fn split_index(arrays: &[ArrayRef], many: usize) -> Result<ArrayRef> {
    let index = typed::<Int64Array>(arrays, 2)?;
    let made = rows(arrays, 0, many)?
        .zip(rows(arrays, 1, many)?)
        .enumerate()
        .map(|(row, (text, separator))| {
            let wanted = index
                .is_valid(row)
                .then(|| usize::try_from(index.value(row)).ok())
                .flatten()?;
            text?
                .split(separator.filter(|separator| !separator.is_empty())?)
                .nth(wanted)
                .map(str::to_owned)
        });
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn extract(arrays: &[ArrayRef], many: usize) -> Result<ArrayRef> {
    let group = arrays.get(2).map(|_| typed::<Int64Array>(arrays, 2)).transpose()?;
    let mut compiled: Option<(String, regex_lite::Regex)> = None;
    let mut made = Vec::with_capacity(many);
    for (row, (text, pattern)) in rows(arrays, 0, many)?.zip(rows(arrays, 1, many)?).enumerate() {
        let (Some(text), Some(pattern)) = (text, pattern) else {
            made.push(None);
            continue;
        };
        if compiled.as_ref().is_none_or(|(known, _)| known != pattern) {
            let expression = regex_lite::RegexBuilder::new(pattern).size_limit(1 << 20).build();
            match expression {
                Ok(expression) => compiled = Some((pattern.to_owned(), expression)),
                Err(error) => return exec_err!("{pattern:?} is no regular expression: {error}"),
            }
        }
        let wanted = group.map_or(0, |group| if group.is_valid(row) { group.value(row) } else { -1 });
        let found = usize::try_from(wanted).ok().and_then(|wanted| {
            let captures = compiled.as_ref()?.1.captures(text)?;
            captures.get(wanted).map(|found| found.as_str().to_owned())
        });
        made.push(found);
    }
    Ok(Arc::new(StringArray::from(made)))
}

/// What is at a path of a text that is JSON.
fn at<'a>(value: &'a Value, steps: &[Step]) -> Option<&'a Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Item(index) => value.get(index),
    })
}

fn each_json<T>(arrays: &[ArrayRef], many: usize, of: impl Fn(Option<&Value>) -> Option<T>) -> Result<Vec<Option<T>>> {
    let mut made = Vec::with_capacity(many);
    for (text, at_path) in rows(arrays, 0, many)?.zip(rows(arrays, 1, many)?) {
        let (Some(text), Some(at_path)) = (text, at_path) else {
            made.push(None);
            continue;
        };
        let at_path = at_path.trim();
        let at_path = at_path
            .strip_prefix("lax")
            .or_else(|| at_path.strip_prefix("strict"))
            .unwrap_or(at_path);
        let steps = match path::parse(at_path) {
            Ok(steps) => steps,
            Err(reason) => return exec_err!("{reason}"),
        };
        let value: Option<Value> = serde_json::from_str(text).ok();
        made.push(of(value.as_ref().and_then(|value| at(value, &steps))));
    }
    Ok(made)
}

fn json_value(arrays: &[ArrayRef], many: usize) -> Result<ArrayRef> {
    let made = each_json(arrays, many, |value| match value? {
        Value::String(text) => Some(text.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    })?;
    Ok(Arc::new(StringArray::from(made)))
}

fn json_exists(arrays: &[ArrayRef], many: usize) -> Result<ArrayRef> {
    let made = each_json(arrays, many, |value| Some(value.is_some()))?;
    Ok(Arc::new(BooleanArray::from(made)))
}

/// NULL where a piece is NULL.
fn concat(arrays: &[ArrayRef], many: usize) -> Result<ArrayRef> {
    let pieces = (0..arrays.len())
        .map(|at| typed::<StringArray>(arrays, at))
        .collect::<Result<Vec<_>>>()?;
    let made = (0..many).map(|row| {
        let whole = pieces.iter().all(|piece| piece.is_valid(row));
        whole.then(|| pieces.iter().map(|piece| piece.value(row)).collect::<String>())
    });
    Ok(Arc::new(made.collect::<StringArray>()))
}

fn if_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [DataType::Boolean, DataType::Null, other] | [DataType::Boolean, other, DataType::Null] => Ok(other.clone()),
        [DataType::Boolean, a, b] if a == b => Ok(a.clone()),
        [DataType::Boolean, a, b] => match datafusion_expr::binary::comparison_coercion(a, b) {
            Some(both) => Ok(both),
            None => plan_err!(
                "IF gives {} or {}, which are not of one type",
                crate::plan::types::name(a),
                crate::plan::types::name(b)
            ),
        },
        _ => plan_err!("IF is of a condition and two values"),
    }
}

fn if_else(arrays: &[ArrayRef], _many: usize) -> Result<ArrayRef> {
    let condition = typed::<BooleanArray>(arrays, 0)?;
    let types: Vec<DataType> = arrays.iter().map(|array| array.data_type().clone()).collect();
    let to = if_type(&types)?;
    let [_, a, b] = arrays else {
        return exec_err!("IF is of a condition and two values");
    };
    let (a, b) = (
        ::arrow::compute::cast(a, &to).map_err(arrow)?,
        ::arrow::compute::cast(b, &to).map_err(arrow)?,
    );
    let condition = match condition.null_count() {
        0 => condition.clone(),
        _ => ::arrow::compute::prep_null_mask_filter(condition),
    };
    zip(&condition, &a, &b).map_err(arrow)
}

fn mod_type(types: &[DataType]) -> Result<DataType> {
    match types {
        [a, b] => BinaryTypeCoercer::new(a, &Operator::Modulo, b).get_result_type(),
        _ => plan_err!("MOD is of two numbers"),
    }
}

fn modulo(arrays: &[ArrayRef], _many: usize) -> Result<ArrayRef> {
    let [a, b] = arrays else {
        return exec_err!("MOD is of two numbers");
    };
    let to = mod_type(&[a.data_type().clone(), b.data_type().clone()])?;
    let (a, b) = (
        ::arrow::compute::cast(a, &to).map_err(arrow)?,
        ::arrow::compute::cast(b, &to).map_err(arrow)?,
    );
    ::arrow::compute::kernels::numeric::rem(&a, &b).map_err(arrow)
}
