//! Where DataFusion's types are not Flink's: literals and the results of aggregates.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, Result, ScalarValue};
use datafusion_expr::expr::{AggregateFunction, Cast, ScalarFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::{Aggregate, AggregateUDF, Expr, ExprSchemable, LogicalPlan, Projection, lit};
use std::sync::Arc;

use super::functions::Functions;

/// Gives expressions of a query Flink's types.
pub(super) fn rewrite(plan: LogicalPlan, functions: &Functions) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let saved = names.save(&expr);
            Ok(expr
                .transform_up(|expr| Ok(literal(expr)))?
                .update_data(|expr| saved.restore(expr)))
        })?;
        let plan = plan.data.recompute_schema()?;
        match plan {
            LogicalPlan::Aggregate(aggregate) => aggregates(aggregate, functions).map(Transformed::yes),
            other => Ok(Transformed::yes(other)),
        }
    })?;
    Ok(rewritten.data)
}

/// Gives an expression's literals Flink's types.
pub(super) fn literals(expr: Expr) -> Result<Expr> {
    Ok(expr.transform_up(|expr| Ok(literal(expr)))?.data)
}

/// A whole number is an INT where it fits.
fn literal(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), metadata)),
            Err(_) => Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata)),
        },
        other => Transformed::no(other),
    }
}

/// Aggregates and, above them, what makes Flink's results of theirs, under the same names.
fn aggregates(aggregate: Aggregate, functions: &Functions) -> Result<LogicalPlan> {
    let input = Arc::clone(&aggregate.input);
    let mut wanted: Vec<Expr> = Vec::new();
    let mut results: Vec<Expr> = Vec::new();
    let mut changed = false;
    let keys = aggregate.schema.iter().take(aggregate.group_expr_len()?);
    let keys: Vec<Expr> = keys
        .map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field))))
        .collect();
    for expr in &aggregate.aggr_expr {
        let name = expr.schema_name().to_string();
        let inner = match expr.clone() {
            Expr::Alias(alias) => *alias.expr,
            other => other,
        };
        let made = match inner {
            Expr::AggregateFunction(function) => replaced(&function, &input, functions)?,
            _ => None,
        };
        match made {
            Some((parts, result)) => {
                changed = true;
                wanted.extend(parts);
                results.push(result.alias(name));
            }
            None => {
                wanted.push(expr.clone());
                results.push(Expr::Column(Column::from_name(name)));
            }
        }
    }
    if !changed {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let mut unique: Vec<Expr> = Vec::new();
    for expr in wanted {
        if !unique
            .iter()
            .any(|known| known.schema_name().to_string() == expr.schema_name().to_string())
        {
            unique.push(expr);
        }
    }
    let below = LogicalPlan::Aggregate(Aggregate::try_new(input, aggregate.group_expr, unique)?);
    let exprs = keys.into_iter().chain(results).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(below))?))
}

/// For an aggregate whose result is of another type in Flink: the aggregates it is made of, and how.
fn replaced(
    function: &AggregateFunction,
    input: &LogicalPlan,
    functions: &Functions,
) -> Result<Option<(Vec<Expr>, Expr)>> {
    let Some(argument) = function.params.args.first() else {
        return Ok(None);
    };
    let of = argument.get_type(input.schema())?;
    let column = |expr: &Expr| Expr::Column(Column::from_name(expr.schema_name().to_string()));
    let whole = of.is_integer();
    match function.func.name() {
        "sum" => {
            let sum = Expr::AggregateFunction(function.clone());
            let result = match &of {
                DataType::Decimal128(_, scale) => cast(column(&sum), DataType::Decimal128(38, *scale)),
                DataType::Float32 => cast(column(&sum), DataType::Float32),
                _ if whole => narrow(column(&sum), &of, functions),
                _ => return Ok(None),
            };
            Ok(Some((vec![sum], result)))
        }
        "avg" if whole => {
            let sum = with(function, functions.aggregate("sum"), None);
            let count = with(function, functions.aggregate("count"), None);
            let many = Expr::ScalarFunction(ScalarFunction::new_udf(
                datafusion_functions::core::nullif(),
                vec![column(&count), lit(0i64)],
            ));
            let result = narrow(column(&sum) / many, &of, functions);
            Ok(Some((vec![sum, count], result)))
        }
        "avg" => {
            let (average, result) = match &of {
                DataType::Float32 => (Expr::AggregateFunction(function.clone()), DataType::Float32),
                DataType::Decimal128(digits, scale) => {
                    let more = (6 - *scale).max(0);
                    let finer = DataType::Decimal128((*digits + more.unsigned_abs()).min(34), *scale + more);
                    let argument = cast(argument.clone(), finer);
                    (
                        with(function, None, Some(argument)),
                        DataType::Decimal128(38, *scale + more),
                    )
                }
                _ => return Ok(None),
            };
            let made = cast(column(&average), result);
            Ok(Some((vec![average], made)))
        }
        "string_agg" => {
            let text = Expr::AggregateFunction(function.clone());
            let result = cast(column(&text), DataType::Utf8);
            Ok(Some((vec![text], result)))
        }
        "stddev" | "stddev_pop" | "var" | "var_pop" if of != DataType::Float64 => {
            let wide = with(function, None, Some(cast(argument.clone(), DataType::Float64)));
            let result = match &of {
                DataType::Decimal128(_, scale) => cast(column(&wide), DataType::Decimal128(38, (*scale).max(6))),
                other => cast(column(&wide), other.clone()),
            };
            Ok(Some((vec![wide], result)))
        }
        _ => Ok(None),
    }
}

fn with(function: &AggregateFunction, other: Option<Arc<AggregateUDF>>, argument: Option<Expr>) -> Expr {
    let mut function = function.clone();
    if let Some(other) = other {
        function.func = other;
    }
    if let (Some(argument), Some(first)) = (argument, function.params.args.first_mut()) {
        *first = argument;
    }
    Expr::AggregateFunction(function)
}

fn cast(expr: Expr, to: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), to))
}

/// A BIGINT as a narrower number, which goes round where it does not fit.
fn narrow(expr: Expr, to: &DataType, functions: &Functions) -> Expr {
    let name = match to {
        DataType::Int8 => "$narrow_1",
        DataType::Int16 => "$narrow_2",
        DataType::Int32 => "$narrow_4",
        _ => return expr,
    };
    match functions.scalar(name) {
        Some(function) => Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![expr])),
        None => expr,
    }
}
