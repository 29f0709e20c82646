//! Tables as columns: their types, what is computed, where values are in records.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::DFSchema;
use datafusion_expr::ExprSchemable;
use datafusion_sql::planner::{PlannerContext, SqlToRel};

use super::catalog::{Catalog, Known};
use super::translate::Translator;
use super::{script, types};
use crate::decode::path::{self, Step, Tree};
use crate::decode::{Decoder, Inner, Metadata, Origin};
use crate::spec::Expr;
use crate::table::{Column, Table};

/// `PROCTIME()` as a computed column: when the record arrived.
pub(super) fn is_proctime(column: &Column) -> bool {
    let text = column.computed.as_deref().unwrap_or_default();
    text.trim().eq_ignore_ascii_case("proctime()")
}

/// A declared table with the types of its columns, or what is wrong with it.
pub(super) fn known(table: Table, catalog: &Catalog) -> Result<Known, String> {
    let name = table.name.clone();
    let wrong = |column: &Column, reason: String| format!("Table '{name}', column '{}': {reason}", column.name);
    let mut fields = Vec::new();
    for column in table.columns.iter().filter(|column| column.computed.is_none()) {
        let data_type = types::parse(&column.sql_type).map_err(|reason| wrong(column, reason))?;
        if let Some(key) = &column.metadata {
            metadata(key, &data_type).map_err(|reason| wrong(column, reason))?;
        } else if let Some(text) = &column.path {
            path::parse(text).map_err(|reason| wrong(column, reason))?;
        }
        fields.push(Field::new(&column.name, data_type, true));
    }
    let stored: SchemaRef = Arc::new(Schema::new(fields));
    let mut all = Vec::new();
    for column in &table.columns {
        let data_type = match &column.computed {
            None => stored
                .field_with_name(&column.name)
                .map(|field| field.data_type().clone())
                .unwrap_or(DataType::Null),
            Some(_) if is_proctime(column) => types::timestamp_ltz(),
            Some(text) => {
                let (expr, schema) = computed(text, &stored, catalog).map_err(|reason| wrong(column, reason))?;
                expr.get_type(&schema)
                    .map_err(|error| wrong(column, error.strip_backtrace()))?
            }
        };
        all.push(Field::new(&column.name, data_type, true));
    }
    let schema: SchemaRef = Arc::new(Schema::new(all));
    if let Some(rowtime) = &table.rowtime {
        let Ok(field) = schema.field_with_name(&rowtime.column) else {
            return Err(format!(
                "Table '{name}': the watermark is for column '{}', which is not there",
                rowtime.column
            ));
        };
        if !matches!(field.data_type(), DataType::Timestamp(TimeUnit::Millisecond, _)) {
            return Err(format!(
                "Table '{name}': the time of events must be TIMESTAMP(3) or TIMESTAMP_LTZ(3); column '{}' is {}",
                rowtime.column,
                types::name(field.data_type())
            ));
        }
        if rowtime.delay_ms < 0 {
            return Err(format!("Table '{name}': the delay of the watermark is less than 0"));
        }
    }
    Ok(Known { table, schema })
}

/// A computed column's expression over the columns that are stored.
fn computed(text: &str, stored: &SchemaRef, catalog: &Catalog) -> Result<(datafusion_expr::Expr, DFSchema), String> {
    let mut parsed = script::parse_expression(text).map_err(|error| error.message)?;
    super::rewrite::rewrite(&mut parsed);
    let schema = DFSchema::try_from(Arc::clone(stored)).map_err(|error| error.strip_backtrace())?;
    let planner = SqlToRel::new_with_options(catalog, Catalog::parser_options());
    let expr = planner.sql_to_expr(parsed, &schema, &mut PlannerContext::new());
    let expr = expr.and_then(|expr| catalog.analyze_expression(expr, &schema));
    let expr = expr.map_err(|error| super::error::words(&error))?;
    Ok((expr, schema))
}

fn metadata(key: &str, data_type: &DataType) -> Result<Metadata, String> {
    let (what, wanted) = match key {
        "timestamp" => (Metadata::Timestamp, types::timestamp_ltz()),
        "partition-key" => (Metadata::PartitionKey, DataType::Utf8),
        "sequence-number" => (Metadata::SequenceNumber, DataType::Utf8),
        "shard-id" => (Metadata::Shard, DataType::Utf8),
        other => {
            return Err(format!(
                "METADATA '{other}' is not there; timestamp, partition-key, sequence-number and shard-id are"
            ));
        }
    };
    match *data_type == wanted {
        true => Ok(what),
        false => Err(format!(
            "METADATA '{key}' is {}, not {}",
            types::name(&wanted),
            types::name(data_type)
        )),
    }
}

/// What makes batches of a table's records; of columns that nobody uses it makes NULL.
pub(super) fn decoder(
    known: &Known,
    used: &[bool],
    catalog: &Catalog,
    translator: &Translator,
) -> Result<Decoder, String> {
    let table = &known.table;
    let stored: Vec<Field> = table
        .columns
        .iter()
        .zip(known.schema.fields())
        .filter(|(column, _)| column.computed.is_none())
        .map(|(_, field)| field.as_ref().clone())
        .collect();
    let stored: SchemaRef = Arc::new(Schema::new(stored));
    let mut used = used.to_vec();
    used.resize(table.columns.len(), false);
    let mut expressions: Vec<Option<Expr>> = Vec::new();
    for (at, column) in table.columns.iter().enumerate() {
        let needed = used.get(at).copied().unwrap_or(false);
        let expr = match &column.computed {
            Some(text) if needed && !is_proctime(column) => {
                Some(bind(text, &stored, known, catalog, translator, &mut used)?)
            }
            _ => None,
        };
        expressions.push(expr);
    }
    let mut tree = Tree::default();
    let mut origins = Vec::new();
    let mut json = 0;
    for ((column, field), (needed, expr)) in table
        .columns
        .iter()
        .zip(known.schema.fields())
        .zip(used.into_iter().zip(expressions))
    {
        origins.push(match (&column.metadata, expr) {
            _ if !needed => Origin::Unused,
            (_, Some(expr)) => Origin::Computed(expr),
            (None, None) if is_proctime(column) => Origin::Metadata(Metadata::Timestamp),
            (Some(key), None) => Origin::Metadata(metadata(key, field.data_type())?),
            (None, None) => {
                let steps = match &column.path {
                    Some(text) => path::parse(text)?,
                    None => vec![Step::Member(column.name.clone())],
                };
                tree.add(&steps, json);
                json += 1;
                Origin::Json
            }
        });
    }
    let rowtime = table.rowtime.as_ref();
    let option = |key: &str| table.options.get(key).is_some_and(|value| value == "true");
    Ok(Decoder::new(Inner {
        rowtime: rowtime.and_then(|rowtime| known.schema.index_of(&rowtime.column).ok()),
        schema: Arc::clone(&known.schema),
        tree,
        origins,
        fail_on_missing: option("json.fail-on-missing-field"),
        ignore_errors: option("json.ignore-parse-errors"),
    }))
}

/// A computed column over the whole table; marks the columns that it uses.
fn bind(
    text: &str,
    stored: &SchemaRef,
    known: &Known,
    catalog: &Catalog,
    translator: &Translator,
    used: &mut [bool],
) -> Result<Expr, String> {
    let (expr, _) = computed(text, stored, catalog)?;
    for column in expr.column_refs() {
        if let Ok(at) = known.schema.index_of(&column.name)
            && let Some(used) = used.get_mut(at)
        {
            *used = true;
        }
    }
    let schema = DFSchema::try_from(Arc::clone(&known.schema)).map_err(|error| error.strip_backtrace())?;
    translator
        .physical(&expr, &schema)
        .map_err(|error| error.strip_backtrace())
}
