//! `MATCH_RECOGNIZE`, from the parser's tree to what the operator is asked.
//!
//! Whatever an expression asks of other rows (`LAST(A.x)`, `SUM(A.x)`) becomes a column of its own, `$n`; what is left is an
//! expression over these and the row itself.

mod pattern;
mod references;

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion_common::{DFSchema, Result, not_impl_err, plan_err};
use datafusion_expr::planner::RelationPlannerContext;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion_sql::sqlparser::ast::{self, AfterMatchSkip, RowsPerMatch, SymbolDefinition, TableAlias, TableFactor};

use super::catalog::{Relation, Rules};
use super::interval;
use super::relation::scan;
use super::script::WITHIN;
use crate::operator::Millis;
pub(super) use pattern::Variable;
pub(super) use references::{Picked, Slot};

/// A pattern over an input.
#[derive(Debug)]
pub(super) struct Matching {
    /// What is matched.
    pub input: LogicalPlan,
    /// The columns of `PARTITION BY`.
    pub partition: Vec<usize>,
    /// The column of `ORDER BY`.
    pub time: usize,
    /// The variables, in their order.
    pub variables: Vec<Variable>,
    /// What defines each variable, over the row's columns and those of its slots.
    pub defines: Vec<Option<Asked>>,
    /// The measures, over the row's columns and those of its slots.
    pub measures: Vec<Asked>,
    pub within: Option<Millis>,
    pub skip_past_last: bool,
}

/// An expression, and what it asks of other rows.
#[derive(Debug)]
pub(super) struct Asked {
    pub expr: Expr,
    pub slots: Vec<Slot>,
}

impl Asked {
    /// The columns that the expression is over: the row's, if there are any, and one for each slot.
    pub fn schema(&self, input: &DFSchema, rules: &Rules) -> Result<DFSchema> {
        extended(input, &self.slots, rules)
    }
}

/// The row's columns, without the table's name, and one for each slot.
pub(super) fn extended(input: &DFSchema, slots: &[Slot], rules: &Rules) -> Result<DFSchema> {
    let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
    for (number, slot) in slots.iter().enumerate() {
        fields.push(Field::new(format!("${number}"), slot.data_type(rules)?, true));
    }
    DFSchema::try_from(Schema::new(fields))
}

/// Plans a pattern.
pub(super) fn plan(
    factor: TableFactor,
    context: &mut dyn RelationPlannerContext,
    rules: &Arc<Rules>,
) -> Result<(LogicalPlan, Option<TableAlias>)> {
    let TableFactor::MatchRecognize {
        table,
        partition_by,
        order_by,
        measures,
        rows_per_match,
        after_match_skip,
        pattern,
        symbols,
        alias,
    } = factor
    else {
        return plan_err!("MATCH_RECOGNIZE is missing");
    };
    if matches!(rows_per_match, Some(RowsPerMatch::AllRows(_))) {
        return not_impl_err!("ALL ROWS PER MATCH is not there, as in Flink; ONE ROW PER MATCH is");
    }
    let skip_past_last = match after_match_skip {
        Some(AfterMatchSkip::PastLastRow) => true,
        None | Some(AfterMatchSkip::ToNextRow) => false,
        Some(other) => return not_impl_err!("{other} is not there; SKIP PAST LAST ROW and SKIP TO NEXT ROW are"),
    };
    let input = context.plan(*table)?;
    let names = DFSchema::try_from(input.schema().as_arrow().clone())?;
    let mut partition = Vec::new();
    for expr in &partition_by {
        partition.push(place(expr, &names, "PARTITION BY")?);
    }
    let [order] = order_by.as_slice() else {
        return plan_err!("ORDER BY of MATCH_RECOGNIZE is one column, the time of events");
    };
    if order.options.asc == Some(false) {
        return plan_err!("ORDER BY of MATCH_RECOGNIZE must be ascending");
    }
    let time = place(&order.expr, &names, "ORDER BY")?;
    let variables = pattern::variables(&pattern)?;
    let (within, definitions) = definitions(symbols)?;
    let mut reader = references::Reader {
        context,
        rules,
        names: &names,
        variables: &variables,
        time,
    };
    let mut defines = Vec::new();
    for variable in &variables {
        let define = definitions.iter().find(|one| one.symbol.value == variable.name);
        defines.push(match define {
            Some(define) => Some(reader.define(&variable.name, define.definition.clone())?),
            None => None,
        });
    }
    if let Some(stray) = definitions
        .iter()
        .find(|one| !variables.iter().any(|variable| variable.name == one.symbol.value))
    {
        return plan_err!(
            "DEFINE of '{}', which is no variable of the PATTERN",
            stray.symbol.value
        );
    }
    let mut fields: Vec<Field> = partition.iter().map(|at| names.field(*at).as_ref().clone()).collect();
    let mut asked = Vec::new();
    for measure in measures {
        let one = reader.measure(measure.expr)?;
        let schema = one.schema(&names, rules)?;
        fields.push(Field::new(measure.alias.value, one.expr.get_type(&schema)?, true));
        asked.push(one);
    }
    let matching = Matching {
        partition,
        time,
        defines,
        measures: asked,
        within,
        skip_past_last,
        variables,
        input,
    };
    let schema = Arc::new(Schema::new(fields));
    Ok((
        scan("match_recognize", schema, Relation::Match(Box::new(matching)))?,
        alias,
    ))
}

fn place(expr: &ast::Expr, names: &DFSchema, part: &str) -> Result<usize> {
    let name = match expr {
        ast::Expr::Identifier(name) => Some(name),
        ast::Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    };
    let Some(name) = name else {
        return plan_err!("{part} of MATCH_RECOGNIZE is of columns, not of '{expr}'");
    };
    match names.fields().iter().position(|field| *field.name() == name.value) {
        Some(at) => Ok(at),
        None => plan_err!("Column '{}' not found in MATCH_RECOGNIZE", name.value),
    }
}

/// `WITHIN` and the definitions.
fn definitions(symbols: Vec<SymbolDefinition>) -> Result<(Option<Millis>, Vec<SymbolDefinition>)> {
    let (within, definitions): (Vec<_>, Vec<_>) = symbols.into_iter().partition(|one| one.symbol.value == WITHIN);
    let within = match within.first() {
        None => None,
        Some(one) => match interval::of_sql(&one.definition) {
            Some(length) if length > 0 => Some(length),
            _ => {
                return plan_err!(
                    "WITHIN must be an interval of days, hours, minutes or seconds, not {}",
                    one.definition
                );
            }
        },
    };
    Ok((within, definitions))
}
