//! From DataFusion's plan of a query to steps.

mod aggregate;
mod basic;
mod join;
mod matching;
mod rank;
mod sets;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{Column, DFSchema, Result, not_impl_err, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::logical_plan::TableScan;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::{Distinct, Expr, LogicalPlan};
use datafusion_physical_expr::create_physical_expr;
use datafusion_physical_expr::expressions::Column as Bound;
use datafusion_physical_expr::utils::collect_columns;

use super::catalog::{Catalog, Relation, Source};
use super::roles::Role;
use crate::graph::{Node, Step};
use crate::limits;
use crate::spec::{self, WindowAssign, Windows};

/// Rows of a step, as a query sees them.
#[derive(Clone, Debug)]
pub(super) struct Rel {
    /// The step.
    pub node: usize,
    /// What each column is; with windows that are still to be assigned those three too.
    pub roles: Vec<Role>,
    /// Whether rows are taken back.
    pub changelog: bool,
    /// Windows that nobody has assigned yet: an aggregate does it itself.
    pub pending: Option<Pending>,
}

/// Windows over the rows of a step.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub windows: Windows,
    pub time: usize,
    pub partition: Vec<usize>,
}

/// What is made of all statements.
pub(super) struct Translator {
    pub nodes: Vec<Node>,
    pub views: Vec<Rel>,
    /// The step of each table that is read, by the table's index.
    pub scans: HashMap<usize, Rel>,
    windows: usize,
    props: ExecutionProps,
    context: PhysicalPlanningContext,
}

impl Translator {
    pub fn new() -> Translator {
        Translator {
            nodes: Vec::new(),
            views: Vec::new(),
            scans: HashMap::new(),
            windows: 0,
            props: ExecutionProps::new(),
            context: PhysicalPlanningContext::default(),
        }
    }

    /// Adds a step.
    pub fn add(&mut self, step: Step, inputs: Vec<usize>, schema: SchemaRef) -> Result<usize> {
        if self.nodes.len() >= limits::STEPS_MAX {
            return plan_err!("The statements make more than {} steps", limits::STEPS_MAX);
        }
        if let Err(reason) = crate::job::can_do(&step) {
            return not_impl_err!("{reason}");
        }
        self.nodes.push(Node { step, inputs, schema });
        Ok(self.nodes.len() - 1)
    }

    /// The columns of a step.
    pub fn schema(&self, node: usize) -> SchemaRef {
        self.nodes
            .get(node)
            .map_or_else(|| Arc::new(Schema::empty()), |node| Arc::clone(&node.schema))
    }

    /// The steps of a plan. `wanted` says which columns are looked at above, where that is known.
    pub fn relation(&mut self, plan: &LogicalPlan, wanted: Option<&[bool]>, catalog: &Catalog) -> Result<Rel> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, catalog),
            LogicalPlan::SubqueryAlias(alias) => self.relation(&alias.input, wanted, catalog),
            LogicalPlan::Projection(projection) => self.projection(projection, catalog),
            LogicalPlan::Filter(filter) => self.filter(filter, wanted, catalog),
            LogicalPlan::Union(union) => self.union(union, catalog),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, catalog),
            LogicalPlan::Join(join) => self.join(join, &[], catalog),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input, catalog),
            LogicalPlan::Sort(_) => {
                not_impl_err!("ORDER BY: a stream that never ends cannot be sorted; ROW_NUMBER() gives the first N")
            }
            LogicalPlan::Limit(_) => not_impl_err!("LIMIT: ROW_NUMBER() gives the first N"),
            LogicalPlan::Window(_) => {
                not_impl_err!("OVER is there for ROW_NUMBER() whose number is compared in WHERE, not for aggregates")
            }
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                plan_err!("A query reads at least one table; rows written in the statement are not there")
            }
            other => not_impl_err!(
                "{} is not there",
                other.display().to_string().split([':', ' ']).next().unwrap_or_default()
            ),
        }
    }

    fn scan(&mut self, scan: &TableScan, catalog: &Catalog) -> Result<Rel> {
        let Some(source) = scan.source.downcast_ref::<Source>() else {
            return plan_err!("Table '{}' not found", scan.table_name);
        };
        match &source.relation {
            Relation::Table(index) => self.table(*index, catalog),
            Relation::View(index) => match self.views.get(*index) {
                Some(rel) => Ok(rel.clone()),
                None => plan_err!("View '{}' not found", scan.table_name),
            },
            Relation::Window {
                input,
                windows,
                time,
                partition,
            } => self.window(input, *windows, *time, partition, catalog),
            Relation::Lookup(_) => plan_err!("FOR SYSTEM_TIME AS OF stands on the right of a join"),
            Relation::Unnest(_) => {
                plan_err!("UNNEST stands behind the table whose list it takes: FROM t CROSS JOIN UNNEST(t.list)")
            }
            Relation::Match(matching) => self.matching(matching, Arc::clone(&source.schema), catalog),
        }
    }

    fn table(&mut self, index: usize, catalog: &Catalog) -> Result<Rel> {
        if let Some(rel) = self.scans.get(&index) {
            return Ok(rel.clone());
        }
        let Some(known) = catalog.tables.get(index) else {
            return plan_err!("Table {index} not found");
        };
        let name = &known.table.name;
        let connector = known.table.options.get("connector").map_or("", String::as_str);
        match connector {
            "firehose" | "print" | "blackhole" => {
                return plan_err!("Table '{name}' is written to; the connector '{connector}' cannot be read");
            }
            "filesystem" | "face-collection" => {
                return plan_err!(
                    "Table '{name}' is no stream: rows are looked up in it, JOIN {name} FOR SYSTEM_TIME AS OF ... ON ..."
                );
            }
            _ => {}
        }
        let roles = known.table.columns.iter().map(|column| {
            let rowtime = known.table.rowtime.as_ref();
            if rowtime.is_some_and(|rowtime| rowtime.column == column.name) {
                Role::Rowtime
            } else if super::tables::is_proctime(column) {
                Role::Proctime
            } else {
                Role::Plain
            }
        });
        let roles = roles.collect();
        let node = self.add(Step::Source(index), Vec::new(), Arc::clone(&known.schema))?;
        let rel = Rel {
            node,
            roles,
            changelog: false,
            pending: None,
        };
        self.scans.insert(index, rel.clone());
        Ok(rel)
    }

    fn window(
        &mut self,
        input: &LogicalPlan,
        windows: Windows,
        time: usize,
        partition: &[usize],
        catalog: &Catalog,
    ) -> Result<Rel> {
        let input = catalog.analyze(input.clone())?;
        let rel = self.relation(&input, None, catalog)?;
        let mut rel = self.settle(rel)?;
        if rel.changelog {
            return plan_err!(
                "A window function cannot take rows that are updated or taken back, as those of GROUP BY are"
            );
        }
        let name = self
            .schema(rel.node)
            .fields()
            .get(time)
            .map_or_else(String::new, |field| field.name().clone());
        if !rel.roles.get(time).is_some_and(|role| role.is_time()) {
            return plan_err!(
                "The window function requires the timecol is a time attribute type, but '{name}' is none: a table has it by WATERMARK FOR"
            );
        }
        let id = self.windows;
        self.windows += 1;
        rel.roles
            .extend([Role::WindowStart(id), Role::WindowEnd(id), Role::WindowTime(id)]);
        rel.pending = Some(Pending {
            windows,
            time,
            partition: partition.to_vec(),
        });
        Ok(rel)
    }

    /// Assigns the windows that are still to be assigned.
    pub fn settle(&mut self, mut rel: Rel) -> Result<Rel> {
        let Some(pending) = rel.pending.take() else {
            return Ok(rel);
        };
        let input = self.schema(rel.node);
        let time_type = input
            .fields()
            .get(pending.time)
            .map_or(DataType::Null, |field| field.data_type().clone());
        let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
        let added = [super::types::timestamp(), super::types::timestamp(), time_type];
        let names = super::relation::WINDOW_COLUMNS;
        fields.extend(names.iter().zip(added).map(|(name, of)| Field::new(*name, of, true)));
        let output: SchemaRef = Arc::new(Schema::new(fields));
        let assign = WindowAssign {
            windows: pending.windows,
            time: pending.time,
            partition: pending.partition.iter().map(|at| bound(&input, *at)).collect(),
            output: Arc::clone(&output),
            input,
        };
        rel.node = self.add(Step::Assign(assign), vec![rel.node], output)?;
        Ok(rel)
    }

    /// An expression bound to the columns of an input.
    pub fn physical(&self, expr: &Expr, schema: &DFSchema) -> Result<spec::Expr> {
        create_physical_expr(expr, schema, &self.props, &self.context)
    }

    /// Expressions bound to the columns of an input.
    pub fn physicals(&self, exprs: &[Expr], schema: &DFSchema) -> Result<Vec<spec::Expr>> {
        exprs.iter().map(|expr| self.physical(expr, schema)).collect()
    }

    pub fn props(&self) -> (&ExecutionProps, &PhysicalPlanningContext) {
        (&self.props, &self.context)
    }
}

/// A column of a schema as an expression.
pub(super) fn bound(schema: &SchemaRef, at: usize) -> spec::Expr {
    let name = schema.fields().get(at).map_or("", |field| field.name());
    Arc::new(Bound::new(name, at))
}

/// The greatest index of a column that an expression looks at.
pub(super) fn greatest(expr: &spec::Expr) -> Option<usize> {
    collect_columns(expr).iter().map(Bound::index).max()
}

/// The column that an expression is, under whatever names.
pub(super) fn column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => column_of(&alias.expr),
        _ => None,
    }
}

fn column_of(expr: &Expr) -> Option<&Column> {
    column(expr)
}

/// What an expression is by the roles of its input.
pub(super) fn role(expr: &Expr, schema: &DFSchema, roles: &[Role]) -> Role {
    let index = column(expr).and_then(|column| schema.maybe_index_of_column(column));
    index.and_then(|index| roles.get(index).copied()).unwrap_or(Role::Plain)
}

/// The columns of a plan, each of which may be NULL.
pub(super) fn output(schema: &DFSchema) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// A schema with other names.
pub(super) fn renamed(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| Field::new(name, field.data_type().clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The tables that steps read, by their indices in the catalog.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub sources: Vec<usize>,
    pub references: Vec<usize>,
}

/// The steps that lead to a sink, with sources and references numbered as they are read.
pub(super) fn prune(nodes: &[Node]) -> (Vec<Node>, Read) {
    let mut alive = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        let lives = matches!(node.step, Step::Sink(..)) || alive.get(index).copied().unwrap_or(false);
        if !lives {
            continue;
        }
        for at in node.inputs.iter().copied().chain([index]) {
            if let Some(alive) = alive.get_mut(at) {
                *alive = true;
            }
        }
    }
    let mut read = Read::default();
    let mut places = vec![0; nodes.len()];
    let mut kept: Vec<Node> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        if !alive.get(index).copied().unwrap_or(false) {
            continue;
        }
        if let Some(place) = places.get_mut(index) {
            *place = kept.len();
        }
        let mut node = node.clone();
        node.inputs = node
            .inputs
            .iter()
            .filter_map(|input| places.get(*input).copied())
            .collect();
        match &mut node.step {
            Step::Source(table) => *table = number(&mut read.sources, *table),
            Step::LookupJoin(_, table) => *table = number(&mut read.references, *table),
            _ => {}
        }
        kept.push(node);
    }
    (kept, read)
}

/// The place of a table in a list, where it is put if it is not there.
fn number(tables: &mut Vec<usize>, table: usize) -> usize {
    match tables.iter().position(|known| *known == table) {
        Some(at) => at,
        None => {
            tables.push(table);
            tables.len() - 1
        }
    }
}
