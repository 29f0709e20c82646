//! From a script to a program: statements are parsed, their names resolved, their types checked, and steps made of them.

mod catalog;
mod ddl;
mod dialect;
pub(crate) mod error;
mod flink;
mod functions;
mod interval;
pub(crate) mod java_time;
mod legacy;
mod matching;
mod relation;
mod rewrite;
mod roles;
mod script;
mod sink;
mod tables;
mod translate;
pub(crate) mod types;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion_common::DataFusionError;
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::sqlparser::ast::{self, Ident, Query};
use datafusion_sql::sqlparser::tokenizer::Location;

use crate::graph::Step;
use crate::program::Program;
use crate::table::Table;
use catalog::Catalog;
use error::{PlanError, of_planner};
use script::{Statement, What};
use translate::{Rel, Translator};

/// The connector of queries by themselves, and the name of their table.
const PRINT: &str = "print";

/// Plans a script.
pub(crate) fn plan(script: &str, declared: &[Table]) -> Result<Program, PlanError> {
    let mut planner = Planner {
        catalog: Catalog::new(),
        translator: Translator::new(),
        sinks: Vec::new(),
        settings: BTreeMap::new(),
    };
    for table in declared {
        planner
            .declare(table.clone())
            .map_err(|reason| PlanError::at(Location::empty(), reason))?;
    }
    for statement in script::parse(script)? {
        planner.statement(&statement)?;
    }
    planner.finish()
}

struct Planner {
    catalog: Catalog,
    translator: Translator,
    sinks: Vec<Table>,
    settings: BTreeMap<String, String>,
}

impl Planner {
    fn declare(&mut self, table: Table) -> Result<usize, String> {
        let known = tables::known(table, &self.catalog)?;
        Ok(self.catalog.add_table(known))
    }

    fn statement(&mut self, statement: &Statement) -> Result<(), PlanError> {
        let place = statement.place();
        match &statement.what {
            What::Table(table) => {
                let declared = self.declare(table.clone());
                declared.map(|_| ()).map_err(|reason| self.placed(&reason, statement))
            }
            What::View { name, columns, query } => self.view(name, columns, query, statement),
            What::Insert { table, columns, query } => self.insert(table, columns, query, statement),
            What::Select(query) => self.select(query, statement),
            What::Set { key, value } => {
                if key.is_empty() {
                    return Err(PlanError::at(place, "SET without a key"));
                }
                self.settings.insert(key.clone(), value.clone());
                Ok(())
            }
        }
    }

    /// A reason at the place of the name that it speaks of.
    fn placed(&self, reason: &str, statement: &Statement) -> PlanError {
        of_planner(&DataFusionError::Plan(reason.to_owned()), &statement.tokens)
    }

    /// The plan of a query, and the names of its columns.
    fn query(&self, query: &Query) -> Result<(LogicalPlan, Vec<String>), DataFusionError> {
        let planner = SqlToRel::new_with_options(&self.catalog, Catalog::parser_options());
        let mut query = query.clone();
        rewrite::rewrite(&mut query);
        legacy::rewrite(&mut query)?;
        let plan = planner.sql_statement_to_plan(ast::Statement::Query(Box::new(query)))?;
        let names = names(&plan);
        Ok((self.catalog.analyze(plan)?, names))
    }

    fn rows(&mut self, query: &Query) -> Result<(Rel, Vec<String>), DataFusionError> {
        let (plan, names) = self.query(query)?;
        let rel = self.translator.relation(&plan, None, &self.catalog)?;
        Ok((self.translator.settle(rel)?, names))
    }

    fn view(&mut self, name: &Ident, columns: &[Ident], query: &Query, statement: &Statement) -> Result<(), PlanError> {
        if self.catalog.is_view(&name.value) || self.catalog.table(&name.value).is_some() {
            let message = format!("There is a table or view '{}' already", name.value);
            return Err(PlanError::at(name.span.start, message));
        }
        let (rel, mut names) = self
            .rows(query)
            .map_err(|error| of_planner(&error, &statement.tokens))?;
        if !columns.is_empty() {
            if columns.len() != names.len() {
                let message = format!(
                    "View '{}' names {} columns, but its query has {}",
                    name.value,
                    columns.len(),
                    names.len()
                );
                return Err(PlanError::at(name.span.start, message));
            }
            names = columns.iter().map(|column| column.value.clone()).collect();
        }
        let schema = translate::renamed(&self.translator.schema(rel.node), &names);
        self.catalog.add_view(&name.value, self.translator.views.len(), schema);
        self.translator.views.push(rel);
        Ok(())
    }

    fn select(&mut self, query: &Query, statement: &Statement) -> Result<(), PlanError> {
        let before = self.sinks.iter().filter(|sink| sink.name.starts_with(PRINT)).count();
        let name = match before {
            0 => PRINT.to_owned(),
            many => format!("{PRINT}_{}", many + 1),
        };
        let table = Table {
            name,
            options: BTreeMap::from([("connector".to_owned(), PRINT.to_owned())]),
            ..Table::default()
        };
        self.write(table, &[], query, statement, statement.place())
    }

    fn insert(
        &mut self,
        name: &Ident,
        columns: &[Ident],
        query: &Query,
        statement: &Statement,
    ) -> Result<(), PlanError> {
        let place = name.span.start;
        let known = self.sinks.iter().find(|sink| sink.name == name.value).cloned();
        let declared = || {
            let index = self.catalog.table(&name.value)?;
            self.catalog.tables.get(index).map(|known| known.table.clone())
        };
        let Some(table) = known.or_else(declared) else {
            return Err(PlanError::at(
                place,
                format!("Cannot find table '{}' to write to", name.value),
            ));
        };
        if table
            .options
            .get("connector")
            .is_some_and(|connector| connector == "face-collection")
        {
            return Err(PlanError::at(
                place,
                format!("Table '{}' is a face collection, which is not written to", name.value),
            ));
        }
        let columns: Vec<String> = columns.iter().map(|column| column.value.clone()).collect();
        self.write(table, &columns, query, statement, place)
    }

    fn write(
        &mut self,
        mut table: Table,
        columns: &[String],
        query: &Query,
        statement: &Statement,
        place: Location,
    ) -> Result<(), PlanError> {
        let (rel, names) = self
            .rows(query)
            .map_err(|error| of_planner(&error, &statement.tokens))?;
        let schema = self.translator.schema(rel.node);
        let wrong = |reason: String| PlanError::at(place, reason);
        if sink::written(&table).next().is_none() {
            sink::adopt(&mut table, &names, &schema);
        }
        sink::append_only(&table, &rel, &self.translator).map_err(wrong)?;
        let (exprs, target) = sink::fit(&table, columns, &names, &schema).map_err(wrong)?;
        let index = match self.sinks.iter().position(|sink| sink.name == table.name) {
            Some(index) => index,
            None => {
                self.sinks.push(table);
                self.sinks.len() - 1
            }
        };
        let changelog = rel.changelog;
        let add = |translator: &mut Translator| {
            let node = translator.add(Step::Project(exprs), vec![rel.node], Arc::clone(&target))?;
            translator.add(Step::Sink(index, changelog), vec![node], target)
        };
        let added = add(&mut self.translator);
        added.map(|_| ()).map_err(|error| of_planner(&error, &statement.tokens))
    }

    fn finish(self) -> Result<Program, PlanError> {
        if self.sinks.is_empty() {
            return Err(PlanError::at(
                Location::empty(),
                "There is no INSERT INTO and no query among the statements",
            ));
        }
        let wrong = |reason: String| PlanError::at(Location::empty(), reason);
        let (nodes, read) = translate::prune(&self.translator.nodes);
        let used = usage::usage(&nodes);
        let mut program = Program {
            sinks: self.sinks,
            settings: self.settings,
            nodes: Vec::new(),
            sources: Vec::new(),
            references: Vec::new(),
            decoders: Vec::new(),
            reference_decoders: Vec::new(),
        };
        for table in &read.sources {
            let Some(known) = self.catalog.tables.get(*table) else {
                continue;
            };
            let at = nodes
                .iter()
                .position(|node| matches!(node.step, Step::Source(index) if index == program.sources.len()));
            let mut mine = at.and_then(|at| used.get(at)).cloned().unwrap_or_default();
            if let Some(rowtime) = &known.table.rowtime
                && let Ok(at) = known.schema.index_of(&rowtime.column)
                && let Some(used) = mine.get_mut(at)
            {
                *used = true;
            }
            let decoder = tables::decoder(known, &mine, &self.catalog, &self.translator).map_err(wrong)?;
            program.decoders.push(decoder);
            program.sources.push(known.table.clone());
        }
        for table in &read.references {
            let Some(known) = self.catalog.tables.get(*table) else {
                continue;
            };
            let all = vec![true; known.schema.fields().len()];
            let decoder = tables::decoder(known, &all, &self.catalog, &self.translator).map_err(wrong)?;
            program.reference_decoders.push(decoder);
            program.references.push(known.table.clone());
        }
        program.nodes = nodes;
        Ok(program)
    }
}

/// The names of a query's columns: an expression without one is `EXPR$` and its number, as in Flink.
fn names(plan: &LogicalPlan) -> Vec<String> {
    let exprs = match plan {
        LogicalPlan::Projection(projection) => projection.expr.as_slice(),
        _ => &[],
    };
    let fields = plan.schema().fields().iter().enumerate();
    let name = |(at, field): (usize, &Arc<arrow::datatypes::Field>)| match exprs.get(at) {
        Some(Expr::Column(column)) if column.relation.is_none() && column.name.contains('(') => format!("EXPR${at}"),
        None | Some(Expr::Column(_) | Expr::Alias(_)) => field.name().clone(),
        Some(_) => format!("EXPR${at}"),
    };
    fields.map(name).collect()
}
