//! What names in statements mean: tables, views, functions, types, operators of the language.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion_optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyExpressions};
use datafusion_optimizer::{AnalyzerRule, Optimizer, OptimizerContext, OptimizerRule};
use datafusion_sql::planner::{NullOrdering, ParserOptions};
use datafusion_sql::sqlparser::ast;

use super::flink;
use super::functions::Functions;
use super::matching::Matching;
use super::relation::Relations;
use super::types;
use crate::spec::Windows;
use crate::table::Table;

/// A table that statements may name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub table: Table,
    pub schema: SchemaRef,
}

/// What is scanned: everything that stands in FROM and is not the parser's own.
#[derive(Debug)]
pub(super) struct Source {
    pub schema: SchemaRef,
    pub relation: Relation,
}

/// Kinds of what is scanned.
#[derive(Debug)]
pub(super) enum Relation {
    /// A table, by its index in the catalog.
    Table(usize),
    /// A view, by its index.
    View(usize),
    /// `TABLE(TUMBLE(...))` and its like.
    Window {
        input: LogicalPlan,
        windows: Windows,
        time: usize,
        partition: Vec<usize>,
    },
    /// `FOR SYSTEM_TIME AS OF`, of a table by its index.
    Lookup(usize),
    /// `UNNEST(list)`, of what stands before it.
    Unnest(Expr),
    /// `MATCH_RECOGNIZE`
    Match(Box<Matching>),
}

impl TableSource for Source {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// What holds for every statement: the functions, and how expressions get their types.
#[derive(Debug)]
pub(super) struct Rules {
    functions: Functions,
    options: ConfigOptions,
}

impl Rules {
    /// A query's plan with Flink's types, every conversion said, and constants computed.
    pub fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let plan = flink::rewrite(plan, &self.functions)?;
        let plan = TypeCoercion::new().analyze(plan, &self.options)?;
        let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
            Arc::new(SimplifyExpressions::new()),
            Arc::new(DecorrelatePredicateSubquery::new()),
        ];
        let context = OptimizerContext::new()
            .without_query_execution_start_time()
            .with_max_passes(2);
        Optimizer::with_rules(rules).optimize(plan, &context, |_, _| {})
    }

    /// An expression by itself, in the same way.
    pub fn analyze_expression(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        let expr = flink::literals(expr)?;
        let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
        let simplifier = ExprSimplifier::new(context);
        let expr = simplifier.coerce(expr, schema)?;
        simplifier.simplify(expr)
    }

    /// Whether there is an aggregate of this name.
    pub fn is_aggregate(&self, name: &str) -> bool {
        self.functions.aggregate(name).is_some()
    }
}

/// All that names mean.
pub(super) struct Catalog {
    pub tables: Vec<Known>,
    by_name: HashMap<String, usize>,
    views: HashMap<String, (usize, SchemaRef)>,
    rules: Arc<Rules>,
    expressions: Vec<Arc<dyn ExprPlanner>>,
    relations: Vec<Arc<dyn RelationPlanner>>,
}

impl Catalog {
    pub fn new() -> Catalog {
        let mut options = ConfigOptions::default();
        options.sql_parser.enable_subquery_sort_elimination = false;
        let rules = Arc::new(Rules {
            functions: Functions::new(),
            options,
        });
        Catalog {
            tables: Vec::new(),
            by_name: HashMap::new(),
            views: HashMap::new(),
            expressions: vec![
                Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
                Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
                Arc::new(super::functions::Access),
                Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
            ],
            relations: vec![Arc::new(Relations(Arc::clone(&rules)))],
            rules,
        }
    }

    /// How the parser's tree is gone over.
    pub fn parser_options() -> ParserOptions {
        ParserOptions::new()
            .with_parse_float_as_decimal(true)
            .with_enable_ident_normalization(false)
            .with_map_string_types_to_utf8view(false)
            .with_collect_spans(true)
            .with_default_null_ordering(NullOrdering::NullsMin)
    }

    /// A query's plan with Flink's types, every conversion said, and constants computed.
    pub fn analyze(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        self.rules.analyze(plan)
    }

    /// An expression by itself, in the same way.
    pub fn analyze_expression(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        self.rules.analyze_expression(expr, schema)
    }

    pub fn add_table(&mut self, known: Known) -> usize {
        let index = self.tables.len();
        self.by_name.insert(known.table.name.clone(), index);
        self.tables.push(known);
        index
    }

    pub fn add_view(&mut self, name: &str, index: usize, schema: SchemaRef) {
        self.views.insert(name.to_owned(), (index, schema));
    }

    pub fn table(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn is_view(&self, name: &str) -> bool {
        self.views.contains_key(name)
    }

    pub fn scan(&self, name: &str) -> Result<Arc<dyn TableSource>> {
        if let Some((index, schema)) = self.views.get(name) {
            return Ok(Arc::new(Source {
                schema: Arc::clone(schema),
                relation: Relation::View(*index),
            }));
        }
        let found = self
            .table(name)
            .and_then(|index| Some((index, self.tables.get(index)?)));
        match found {
            Some((index, known)) => Ok(Arc::new(Source {
                schema: Arc::clone(&known.schema),
                relation: Relation::Table(index),
            })),
            None => plan_err!("Table '{name}' not found"),
        }
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match &name {
            TableReference::Bare { table } => self.scan(table),
            _ => plan_err!("Table '{name}' not found: there are no catalogs and databases"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expressions
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.rules.functions.scalar(name)
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.rules.functions.aggregate(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.rules.functions.window(name)
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.rules.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.rules.functions.names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.rules.functions.aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Flink's types in casts.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        match types::parse(&sql_type.to_string()) {
            Ok(data_type) => Ok(Some(Arc::new(Field::new("", data_type, true)))),
            Err(reason) => plan_err!("{sql_type} is no type: {reason}"),
        }
    }
}
