//! What stands in FROM and is Flink's own: window functions, `FOR SYSTEM_TIME AS OF`, `UNNEST`, `MATCH_RECOGNIZE`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::{DFSchema, Result, not_impl_err, plan_err};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, TableAlias, TableFactor,
    TableVersion,
};

use super::catalog::{Relation, Rules, Source};
use super::script::PARTITIONED;
use super::{interval, types};
use crate::limits;
use crate::spec::Windows;

/// The columns that windows add.
pub(super) const WINDOW_COLUMNS: [&str; 3] = ["window_start", "window_end", "window_time"];

/// The planner of these relations.
#[derive(Debug)]
pub(super) struct Relations(pub Arc<Rules>);

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let (plan, alias) = match relation {
            TableFactor::Table {
                name,
                alias,
                version: Some(version),
                ..
            } => (lookup(name, &version, context)?, alias),
            TableFactor::TableFunction {
                expr: Expr::Function(function),
                alias,
            } => (window(function, context)?, alias),
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_ordinality: false,
                ..
            } => (unnest(array_exprs, alias.as_ref(), context)?, alias),
            TableFactor::MatchRecognize { .. } => super::matching::plan(relation, context, &self.0)?,
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// A scan of a source of ours.
pub(super) fn scan(name: &str, schema: SchemaRef, relation: Relation) -> Result<LogicalPlan> {
    let source: Arc<dyn TableSource> = Arc::new(Source { schema, relation });
    LogicalPlanBuilder::scan(name, source, None)?.build()
}

fn lookup(name: ObjectName, version: &TableVersion, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let TableVersion::ForSystemTimeAsOf(_) = version else {
        return plan_err!("'{version}' is not there; a table is looked up in by FOR SYSTEM_TIME AS OF");
    };
    let reference = context.object_name_to_table_reference(name)?;
    let called = reference.table().to_owned();
    let source = context.context_provider().get_table_source(reference)?;
    match source.downcast_ref::<Source>() {
        Some(Source {
            schema,
            relation: Relation::Table(index),
        }) => scan(&called, Arc::clone(schema), Relation::Lookup(*index)),
        _ => plan_err!("FOR SYSTEM_TIME AS OF is for tables; '{called}' is a view"),
    }
}

fn unnest(
    mut lists: Vec<Expr>,
    alias: Option<&TableAlias>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let (Some(list), true) = (lists.pop(), lists.is_empty()) else {
        return plan_err!("UNNEST takes one list");
    };
    let shown = list.to_string();
    let expr = context.sql_expr_to_logical_expr(list, &DFSchema::empty())?;
    let list_type = match expr.get_type(&DFSchema::empty()) {
        Ok(list_type) => list_type,
        Err(_) => return plan_err!("UNNEST: column '{shown}' not found before it"),
    };
    let fields = match &list_type {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => fields
                .iter()
                .map(|field| Field::new(field.name(), field.data_type().clone(), true))
                .collect(),
            other => {
                let called = alias.map_or_else(|| "EXPR$0".to_owned(), |alias| alias.name.value.clone());
                vec![Field::new(called, other.clone(), true)]
            }
        },
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => fields
                .iter()
                .map(|field| Field::new(field.name(), field.data_type().clone(), true))
                .collect(),
            _ => return plan_err!("UNNEST: '{shown}' is {}", types::name(&list_type)),
        },
        other => return plan_err!("UNNEST is of an ARRAY or a MAP; '{shown}' is {}", types::name(other)),
    };
    scan("unnest", Arc::new(Schema::new(fields)), Relation::Unnest(expr))
}

/// The arguments of a window function, by name and place.
struct Arguments {
    function: String,
    positional: Vec<Expr>,
    named: Vec<(String, Expr)>,
}

impl Arguments {
    fn of(function: Function) -> Result<Arguments> {
        let name = function.name.to_string().to_ascii_uppercase();
        let mut arguments = Arguments {
            function: name,
            positional: Vec::new(),
            named: Vec::new(),
        };
        let FunctionArguments::List(list) = function.args else {
            return plan_err!("{} without arguments", arguments.function);
        };
        for argument in list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) if arguments.named.is_empty() => {
                    arguments.positional.push(expr);
                }
                FunctionArg::Named {
                    name,
                    arg: FunctionArgExpr::Expr(expr),
                    ..
                } if arguments.positional.is_empty() => arguments.named.push((name.value.to_ascii_uppercase(), expr)),
                other => return plan_err!("{}: '{other}' is no argument here", arguments.function),
            }
        }
        Ok(arguments)
    }

    fn take(&mut self, name: &str) -> Option<Expr> {
        match self.named.iter().position(|(known, _)| known == name) {
            Some(at) => Some(self.named.remove(at).1),
            None if self.positional.is_empty() => None,
            None => Some(self.positional.remove(0)),
        }
    }

    fn wanted(&mut self, name: &str) -> Result<Expr> {
        match self.take(name) {
            Some(expr) => Ok(expr),
            None => plan_err!("{} without {name}", self.function),
        }
    }

    fn length(&mut self, name: &str) -> Result<i64> {
        let expr = self.wanted(name)?;
        match interval::of_sql(&expr) {
            Some(length) if length > 0 => Ok(length),
            _ => plan_err!(
                "{}: {name} must be an interval of days, hours, minutes or seconds greater than 0, not {expr}",
                self.function
            ),
        }
    }

    fn offset(&mut self) -> Result<i64> {
        let Some(expr) = self.take("OFFSET") else { return Ok(0) };
        match interval::of_sql(&expr) {
            Some(offset) => Ok(offset),
            None => plan_err!("{}: OFFSET must be an interval, not {expr}", self.function),
        }
    }

    fn end(&self) -> Result<()> {
        let left = self.positional.first().or(self.named.first().map(|(_, expr)| expr));
        match left {
            None => Ok(()),
            Some(left) => plan_err!("{}: '{left}' is one argument too many", self.function),
        }
    }
}

fn window(function: Function, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let mut arguments = Arguments::of(function)?;
    if !matches!(arguments.function.as_str(), "TUMBLE" | "HOP" | "CUMULATE" | "SESSION") {
        return plan_err!(
            "Table function {} is not there; TUMBLE, HOP, CUMULATE and SESSION are",
            arguments.function
        );
    }
    let (table, partition) = data(arguments.wanted("DATA")?)?;
    let time = descriptor(&arguments.wanted("TIMECOL")?)?;
    let windows = lengths(&mut arguments)?;
    arguments.end()?;
    let input = context.plan(table)?;
    let schema = Arc::clone(input.schema());
    let find = |name: &Ident| match schema.fields().iter().position(|field| *field.name() == name.value) {
        Some(at) => Ok(at),
        None => plan_err!(
            "Column '{}' not found in the table of {}",
            name.value,
            arguments.function
        ),
    };
    let time = find(&time)?;
    let partition = partition.iter().map(find).collect::<Result<Vec<usize>>>()?;
    let time_type = schema.field(time).data_type().clone();
    if !matches!(time_type, DataType::Timestamp(TimeUnit::Millisecond, _)) {
        return plan_err!(
            "The window function requires the timecol is a time attribute type, but is {}",
            types::name(&time_type)
        );
    }
    let mut fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), true))
        .collect();
    let added = [types::timestamp(), types::timestamp(), time_type];
    fields.extend(
        WINDOW_COLUMNS
            .iter()
            .zip(added)
            .map(|(name, of)| Field::new(*name, of, true)),
    );
    let relation = Relation::Window {
        input,
        windows,
        time,
        partition,
    };
    scan("window_table", Arc::new(Schema::new(fields)), relation)
}

fn lengths(arguments: &mut Arguments) -> Result<Windows> {
    let windows = match arguments.function.as_str() {
        "TUMBLE" => Windows::Tumble {
            size: arguments.length("SIZE")?,
            offset: arguments.offset()?,
        },
        "HOP" => Windows::Hop {
            slide: arguments.length("SLIDE")?,
            size: arguments.length("SIZE")?,
            offset: arguments.offset()?,
        },
        "CUMULATE" => Windows::Cumulate {
            step: arguments.length("STEP")?,
            max: arguments.length("SIZE")?,
            offset: arguments.offset()?,
        },
        _ => Windows::Session {
            gap: arguments.length("GAP")?,
        },
    };
    let (whole, part, names) = match windows {
        Windows::Hop { slide, size, .. } => (size, slide, "HOP: SIZE must be a multiple of SLIDE"),
        Windows::Cumulate { step, max, .. } => (max, step, "CUMULATE: SIZE must be a multiple of STEP"),
        Windows::Tumble { .. } | Windows::Session { .. } => return Ok(windows),
    };
    if whole % part != 0 {
        return plan_err!("{names}, but {whole} ms is no multiple of {part} ms");
    }
    if whole / part > limits::WINDOWS_OF_ROW_MAX {
        return plan_err!(
            "{}: a row would be in more than {} windows",
            arguments.function,
            limits::WINDOWS_OF_ROW_MAX
        );
    }
    Ok(windows)
}

/// The table of a window function, and the columns of `PARTITION BY`.
fn data(expr: Expr) -> Result<(TableFactor, Vec<Ident>)> {
    match expr {
        Expr::Identifier(name) => Ok((table(name), Vec::new())),
        Expr::Function(function) if function.name.to_string().trim_matches('`') == PARTITIONED => {
            let arguments = Arguments::of(function)?;
            let mut names = arguments.positional.into_iter().map(|expr| match expr {
                Expr::Identifier(name) => Ok(name),
                other => plan_err!("'{other}' in PARTITION BY is no column"),
            });
            let Some(name) = names.next() else {
                return plan_err!("a table is missing");
            };
            Ok((table(name?), names.collect::<Result<_>>()?))
        }
        Expr::Subquery(subquery) => {
            let factor = TableFactor::Derived {
                lateral: false,
                subquery,
                alias: None,
                sample: None,
            };
            Ok((factor, Vec::new()))
        }
        other => plan_err!("A window function is of TABLE name, not of '{other}'"),
    }
}

fn table(name: Ident) -> TableFactor {
    TableFactor::Table {
        name: ObjectName::from(vec![name]),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn descriptor(expr: &Expr) -> Result<Ident> {
    if let Expr::Function(function) = expr
        && function.name.to_string().eq_ignore_ascii_case("DESCRIPTOR")
        && let FunctionArguments::List(list) = &function.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] = list.args.as_slice()
    {
        return Ok(name.clone());
    }
    not_impl_err!("The time column is named by DESCRIPTOR(column), not by '{expr}'")
}
