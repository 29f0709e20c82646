//! `MATCH_RECOGNIZE`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, Result, not_impl_err, plan_err};
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion_physical_expr::expressions::lit;

use super::{Rel, Translator, bound};
use crate::graph::Step;
use crate::plan::catalog::Catalog;
use crate::plan::matching::{Asked, Matching, Picked, Slot};
use crate::plan::roles::Role;
use crate::spec::{Element, Measure, Pattern, Pick, Reference};

/// What an expression asks of other rows, and the columns that it gets for it.
#[derive(Default)]
struct Parts {
    refers: Vec<Reference>,
    fields: Vec<Field>,
    /// For each slot an expression over the columns.
    results: Vec<Expr>,
}

impl Parts {
    fn add(&mut self, reference: Reference, data_type: DataType) -> Expr {
        let name = format!("$${}", self.refers.len());
        self.refers.push(reference);
        self.fields.push(Field::new(&name, data_type, true));
        Expr::Column(Column::from_name(name))
    }

    /// The expression over the columns.
    fn of(&self, expr: &Expr) -> Result<Expr> {
        let put = expr.clone().transform_up(|expr| {
            Ok(match &expr {
                Expr::Column(column) => {
                    let number = column
                        .name
                        .strip_prefix('$')
                        .and_then(|number| number.parse::<usize>().ok());
                    match number.and_then(|number| self.results.get(number)) {
                        Some(result) => Transformed::yes(result.clone()),
                        None => Transformed::no(expr),
                    }
                }
                _ => Transformed::no(expr),
            })
        })?;
        Ok(put.data)
    }
}

impl Translator {
    pub(super) fn matching(&mut self, matching: &Matching, target: SchemaRef, catalog: &Catalog) -> Result<Rel> {
        let input = catalog.analyze(matching.input.clone())?;
        let rel = self.relation(&input, None, catalog)?;
        let rel = self.settle(rel)?;
        if rel.changelog {
            return plan_err!(
                "MATCH_RECOGNIZE cannot take rows that are updated or taken back, as those of GROUP BY are"
            );
        }
        let schema = self.schema(rel.node);
        if !rel.roles.get(matching.time).is_some_and(|role| role.is_time()) {
            let name = schema.fields().get(matching.time).map_or("", |field| field.name());
            return plan_err!("ORDER BY of MATCH_RECOGNIZE must be the time of events, and '{name}' is not");
        }
        let names = DFSchema::try_from(Arc::clone(&schema))?;
        let mut elements = Vec::new();
        for (variable, define) in matching.variables.iter().zip(&matching.defines) {
            let mut element = Element {
                name: variable.name.clone(),
                least: variable.least,
                most: variable.most,
                reluctant: variable.reluctant,
                define: None,
                refers: Vec::new(),
            };
            if let Some(asked) = define {
                let parts = self.parts(asked, &names)?;
                let fields = schema
                    .fields()
                    .iter()
                    .map(|field| field.as_ref().clone())
                    .chain(parts.fields.clone());
                let all = DFSchema::try_from(Schema::new(fields.collect::<Vec<_>>()))?;
                element.define = Some(self.physical(&parts.of(&asked.expr)?, &all)?);
                element.refers = parts.refers;
            }
            elements.push(element);
        }
        let mut measures = Vec::new();
        let mut roles: Vec<Role> = vec![Role::Plain; matching.partition.len()];
        for asked in &matching.measures {
            let parts = self.parts(asked, &names)?;
            let all = DFSchema::try_from(Schema::new(parts.fields.clone()))?;
            let value = self.physical(&parts.of(&asked.expr)?, &all)?;
            roles.push(match is_time(asked, schema.field(matching.time).name()) {
                true => Role::Rowtime,
                false => Role::Plain,
            });
            measures.push(Measure {
                refers: parts.refers,
                value,
            });
        }
        let spec = Pattern {
            partition: matching.partition.iter().map(|at| bound(&schema, *at)).collect(),
            time: matching.time,
            elements,
            within: matching.within,
            skip_past_last: matching.skip_past_last,
            measures,
            input: schema,
            output: Arc::clone(&target),
        };
        let node = self.add(Step::Pattern(spec), vec![rel.node], target)?;
        Ok(Rel {
            node,
            roles,
            changelog: false,
            pending: None,
        })
    }

    fn parts(&self, asked: &Asked, names: &DFSchema) -> Result<Parts> {
        let mut parts = Parts::default();
        for slot in &asked.slots {
            let result = match &slot.of {
                Picked::First(number, value) => self.picked(slot, Pick::First(*number), value, names, &mut parts)?,
                Picked::Last(number, value) => self.picked(slot, Pick::Last(*number), value, names, &mut parts)?,
                Picked::Aggregate(plan) => self.aggregated(slot, plan, names, &mut parts)?,
            };
            parts.results.push(result);
        }
        Ok(parts)
    }

    fn picked(&self, slot: &Slot, of: Pick, value: &Expr, names: &DFSchema, parts: &mut Parts) -> Result<Expr> {
        let value = self.physical(value, names)?;
        let data_type = value.data_type(names.as_arrow())?;
        let reference = Reference {
            variable: slot.variable,
            of,
            value,
        };
        Ok(parts.add(reference, data_type))
    }

    fn aggregated(&self, slot: &Slot, plan: &LogicalPlan, names: &DFSchema, parts: &mut Parts) -> Result<Expr> {
        let (aggregate, mut result) = match plan {
            LogicalPlan::Aggregate(aggregate) => (aggregate, None),
            LogicalPlan::Projection(projection) => match (projection.input.as_ref(), projection.expr.as_slice()) {
                (LogicalPlan::Aggregate(aggregate), [expr]) => (aggregate, Some(expr.clone())),
                _ => return not_impl_err!("{} in MATCH_RECOGNIZE is not there", plan.display()),
            },
            other => return not_impl_err!("{} in MATCH_RECOGNIZE is not there", other.display()),
        };
        let (props, context) = self.props();
        for (number, expr) in aggregate.aggr_expr.iter().enumerate() {
            let made = LoweredAggregateBuilder::new(expr, names, names.as_arrow(), props, context).build()?;
            if made.filter.is_some() {
                return not_impl_err!("FILTER in MATCH_RECOGNIZE is not there");
            }
            let value = made
                .aggregate
                .expressions()
                .into_iter()
                .next()
                .unwrap_or_else(|| lit(1));
            let reference = Reference {
                variable: slot.variable,
                of: Pick::Aggregate(Arc::clone(&made.aggregate)),
                value,
            };
            let data_type = made.aggregate.field().data_type().clone();
            let name = aggregate
                .schema
                .field(aggregate.group_expr.len() + number)
                .name()
                .clone();
            let part = parts.add(reference, data_type);
            result = Some(match result {
                None => part,
                Some(result) => replace(result, &name, &part)?,
            });
        }
        match result {
            Some(Expr::Alias(alias)) => Ok(*alias.expr),
            Some(result) => Ok(result),
            None => plan_err!("An aggregate of nothing in MATCH_RECOGNIZE"),
        }
    }
}

fn replace(expr: Expr, name: &str, by: &Expr) -> Result<Expr> {
    let replaced = expr.transform_up(|expr| {
        Ok(match &expr {
            Expr::Column(column) if column.name == name => Transformed::yes(by.clone()),
            _ => Transformed::no(expr),
        })
    })?;
    Ok(replaced.data)
}

/// Whether a measure is the time of the match's last row.
fn is_time(asked: &Asked, time: &str) -> bool {
    let last = |slot: &Slot| match &slot.of {
        Picked::Last(0, Expr::Cast(cast)) if slot.variable.is_none() => {
            matches!(cast.expr.as_ref(), Expr::Column(column) if column.name == time)
        }
        _ => false,
    };
    matches!((&asked.expr, asked.slots.as_slice()), (Expr::Column(_), [slot]) if last(slot))
}
