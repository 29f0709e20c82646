//! Whether the rows of a query fit the table that they are written to.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_physical_expr::expressions;

use super::translate::{Rel, Translator, bound};
use super::types;
use crate::graph::Step;
use crate::spec::Expr;
use crate::table::{Column, Table};

/// The columns that are written: not those that are computed, and not metadata.
pub(super) fn written(table: &Table) -> impl Iterator<Item = &Column> {
    table
        .columns
        .iter()
        .filter(|column| column.computed.is_none() && column.metadata.is_none())
}

/// Columns of a table that has none, from the query's.
pub(super) fn adopt(table: &mut Table, names: &[String], schema: &SchemaRef) {
    let columns = names.iter().zip(schema.fields()).map(|(name, field)| Column {
        name: name.clone(),
        sql_type: types::name(field.data_type()),
        nullable: true,
        ..Column::default()
    });
    table.columns = columns.collect();
}

/// Refuses rows that are taken back where a table can only be added to.
pub(super) fn append_only(table: &Table, rel: &Rel, translator: &Translator) -> Result<(), String> {
    let connector = table.options.get("connector").map_or("", String::as_str);
    if !rel.changelog || matches!(connector, "print" | "blackhole") {
        return Ok(());
    }
    let mut at = rel.node;
    while let Some(node) = translator.nodes.get(at)
        && matches!(node.step, Step::Project(_) | Step::Filter(_))
        && let Some(input) = node.inputs.first()
    {
        at = *input;
    }
    let by = translator
        .nodes
        .get(at)
        .map_or_else(String::new, |node| node.step.describe());
    Err(format!(
        "Table sink '{}' doesn't support consuming update and delete changes which is produced by node {by}. GROUP BY a window gives rows that stay",
        table.name
    ))
}

/// Each column of the table as an expression over the query's, or why they do not fit. `listed` are the columns behind the
/// table's name; without them all are meant.
pub(super) fn fit(
    table: &Table,
    listed: &[String],
    names: &[String],
    query: &SchemaRef,
) -> Result<(Vec<Expr>, SchemaRef), String> {
    let all: Vec<&Column> = written(table).collect();
    for name in listed {
        if !all.iter().any(|column| column.name == *name) {
            return Err(format!("Table '{}' has no column '{name}' that is written", table.name));
        }
    }
    let targets: Vec<(&Column, DataType)> = all
        .iter()
        .map(|column| Ok((*column, types::parse(&column.sql_type)?)))
        .collect::<Result<_, String>>()?;
    let said: Vec<&(&Column, DataType)> = match listed.is_empty() {
        true => targets.iter().collect(),
        false => listed
            .iter()
            .filter_map(|name| targets.iter().find(|(column, _)| column.name == *name))
            .collect(),
    };
    let mismatch = |cause: String| {
        let shown = names
            .iter()
            .zip(query.fields())
            .map(|(name, field)| format!("{name}: {}", types::name(field.data_type())));
        let wanted = said
            .iter()
            .map(|(column, of)| format!("{}: {}", column.name, types::name(of)));
        format!(
            "Column types of query result and sink for '{}' do not match. Cause: {cause}. Query schema: [{}]. Sink schema: [{}]",
            table.name,
            shown.collect::<Vec<_>>().join(", "),
            wanted.collect::<Vec<_>>().join(", ")
        )
    };
    if said.len() != query.fields().len() {
        return Err(mismatch("Different number of columns".to_owned()));
    }
    for (at, ((column, wanted), field)) in said.iter().zip(query.fields()).enumerate() {
        if !fits(field.data_type(), wanted) {
            let (is, wanted) = (types::name(field.data_type()), types::name(wanted));
            return Err(mismatch(format!(
                "Incompatible types for sink column '{}' at position {at}: the query has {is}, the sink {wanted}",
                column.name
            )));
        }
    }
    let fields = targets
        .iter()
        .map(|(column, of)| Field::new(&column.name, of.clone(), true));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let exprs = targets.iter().map(|(column, of)| {
        let at = said.iter().position(|(known, _)| known.name == column.name);
        let wrong = |error: datafusion_common::DataFusionError| error.strip_backtrace();
        match at {
            Some(at) => expressions::cast(bound(query, at), query, of.clone()).map_err(wrong),
            None => {
                let null = datafusion_common::ScalarValue::try_from(of).map_err(wrong)?;
                Ok(expressions::lit(null))
            }
        }
    });
    let exprs = exprs.collect::<Result<Vec<Expr>, String>>()?;
    Ok((exprs, schema))
}

/// Whether a value goes into a column without a cast, by Flink's rules.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Boolean, Date32, Decimal128, Float32, Float64, Int8, Int16, Int32, Int64, LargeBinary,
        LargeUtf8, List, Map, Null, Struct, Timestamp, UInt64, Utf8, Utf8View,
    };
    let exact = |of: &DataType| matches!(of, Int8 | Int16 | Int32 | Int64 | UInt64);
    match (from, to) {
        (from, to) if from == to => true,
        (Null, _) => true,
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32 | UInt64, Int64) => true,
        (from, Decimal128(..)) => exact(from) || matches!(from, Decimal128(..) | Float32 | Float64),
        (from, Float32) => exact(from) || matches!(from, Decimal128(..)),
        (from, Float64) => exact(from) || matches!(from, Decimal128(..) | Float32),
        (LargeUtf8 | Utf8View, Utf8) | (LargeBinary | BinaryView, Binary) => true,
        (Boolean, Boolean) | (Date32, Date32 | Timestamp(..)) => true,
        // Of any precision, with and without the local zone.
        (Timestamp(..), Timestamp(..)) => true,
        (List(a), List(b)) => fits(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| fits(a.data_type(), b.data_type()))
        }
        (Map(a, _), Map(b, _)) => fits(a.data_type(), b.data_type()),
        _ => false,
    }
}
