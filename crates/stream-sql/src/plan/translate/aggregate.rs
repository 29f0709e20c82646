//! GROUP BY: by windows, and without.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{Result, plan_err};
use datafusion_expr::{Aggregate, Expr, LogicalPlan};
use datafusion_physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};

use super::{Rel, Translator, bound, greatest, output, role};
use crate::graph::Step;
use crate::plan::catalog::Catalog;
use crate::plan::relation::WINDOW_COLUMNS;
use crate::plan::roles::{Role, window};
use crate::plan::types;
use crate::spec::{self, GroupAggregate, WindowAggregate, WindowOf};

/// Aggregates over an input.
#[derive(Default)]
struct Lowered {
    aggregates: Vec<Arc<AggregateFunctionExpr>>,
    filters: Vec<Option<spec::Expr>>,
}

impl Lowered {
    fn greatest(&self) -> Option<usize> {
        let arguments = self.aggregates.iter().flat_map(|aggregate| aggregate.expressions());
        let filters = self.filters.iter().flatten().cloned();
        arguments.chain(filters).filter_map(|expr| greatest(&expr)).max()
    }
}

impl Translator {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, catalog: &Catalog) -> Result<Rel> {
        let rel = self.relation(&aggregate.input, None, catalog)?;
        if let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() {
            return self.grouping_sets(&rel, aggregate, set);
        }
        self.group(
            rel,
            &aggregate.input,
            &aggregate.group_expr,
            &aggregate.aggr_expr,
            output(&aggregate.schema),
        )
    }

    /// SELECT DISTINCT is GROUP BY all columns.
    pub(super) fn distinct(&mut self, input: &Arc<LogicalPlan>, catalog: &Catalog) -> Result<Rel> {
        let rel = self.relation(input, None, catalog)?;
        let keys: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        self.group(rel, input, &keys, &[], output(input.schema()))
    }

    pub(super) fn group(
        &mut self,
        rel: Rel,
        input: &LogicalPlan,
        keys: &[Expr],
        aggregates: &[Expr],
        target: SchemaRef,
    ) -> Result<Rel> {
        let schema = input.schema();
        let roles: Vec<Role> = keys.iter().map(|key| role(key, schema, &rel.roles)).collect();
        let Some(id) = window(&roles) else {
            let rel = self.settle(rel)?;
            return self.group_for_ever(&rel, input, keys, aggregates, target);
        };
        if rel.changelog {
            return plan_err!("GROUP BY a window cannot take rows that are updated or taken back");
        }
        let of_window =
            |role: &Role| matches!(role, Role::WindowStart(w) | Role::WindowEnd(w) | Role::WindowTime(w) if *w == id);
        let others: Vec<Expr> = keys
            .iter()
            .zip(&roles)
            .filter(|(_, role)| !of_window(role))
            .map(|(key, _)| key.clone())
            .collect();
        let base = self.schema(rel.node).fields().len();
        let bound_keys = self.physicals(&others, schema)?;
        let lowered = self.lower(aggregates, input)?;
        let beyond = bound_keys.iter().filter_map(greatest).chain(lowered.greatest()).max();
        let mine = rel.roles.get(base) == Some(&Role::WindowStart(id));
        let rel = match beyond.is_some_and(|at| at >= base) || !mine {
            true => self.settle(rel)?,
            false => rel,
        };
        let at = |wanted: Role| rel.roles.iter().position(|role| *role == wanted);
        let (Some(start), Some(end)) = (at(Role::WindowStart(id)), at(Role::WindowEnd(id))) else {
            return plan_err!("GROUP BY a window needs window_start and window_end of the input");
        };
        let input_schema = self.schema(rel.node);
        let (windows, time_type) = match &rel.pending {
            Some(pending) => {
                let partition = pending.partition.iter().map(|at| bound(&input_schema, *at)).collect();
                let made = WindowOf::Made {
                    windows: pending.windows,
                    time: pending.time,
                    partition,
                };
                (
                    made,
                    input_schema
                        .fields()
                        .get(pending.time)
                        .map(|field| field.data_type().clone()),
                )
            }
            None => {
                let time = at(Role::WindowTime(id)).and_then(|at| input_schema.fields().get(at));
                (
                    WindowOf::Assigned { start, end },
                    time.map(|field| field.data_type().clone()),
                )
            }
        };
        let made = window_schema(&target, others.len(), &roles, &of_window, time_type, aggregates.len());
        let spec = WindowAggregate {
            input: input_schema,
            windows,
            keys: bound_keys,
            aggregates: lowered.aggregates,
            filters: lowered.filters,
            output: Arc::clone(&made),
        };
        let node = self.add(Step::WindowAggregate(spec), vec![rel.node], Arc::clone(&made))?;
        // In the order that the query has them.
        let (keys_len, all) = (others.len(), others.len() + aggregates.len());
        let mut next_key = 0;
        let mut order = Vec::new();
        for role in &roles {
            order.push(match role {
                Role::WindowStart(w) if *w == id => all,
                Role::WindowEnd(w) if *w == id => all + 1,
                Role::WindowTime(w) if *w == id => all + 2,
                _ => {
                    next_key += 1;
                    next_key - 1
                }
            });
        }
        order.extend(keys_len..all);
        let exprs = order.iter().map(|at| bound(&made, *at)).collect();
        let node = self.add(Step::Project(exprs), vec![node], target)?;
        let kept = roles
            .iter()
            .map(|role| if of_window(role) { *role } else { Role::Plain });
        let roles = kept.chain(std::iter::repeat_n(Role::Plain, aggregates.len())).collect();
        Ok(Rel {
            node,
            roles,
            changelog: false,
            pending: None,
        })
    }

    fn group_for_ever(
        &mut self,
        rel: &Rel,
        input: &LogicalPlan,
        keys: &[Expr],
        aggregates: &[Expr],
        target: SchemaRef,
    ) -> Result<Rel> {
        let lowered = self.lower(aggregates, input)?;
        if rel.changelog {
            let back = |aggregate: &&Arc<AggregateFunctionExpr>| {
                aggregate.is_distinct() || !matches!(aggregate.fun().name(), "count" | "sum" | "avg")
            };
            if let Some(one) = lowered.aggregates.iter().find(back) {
                return plan_err!(
                    "{} over rows that are updated or taken back is not there; COUNT, SUM and AVG are",
                    one.fun().name().to_ascii_uppercase()
                );
            }
        }
        let spec = GroupAggregate {
            input: self.schema(rel.node),
            keys: self.physicals(keys, input.schema())?,
            aggregates: lowered.aggregates,
            filters: lowered.filters,
            output: Arc::clone(&target),
        };
        let changelog = !aggregates.is_empty() || rel.changelog;
        let roles = vec![Role::Plain; target.fields().len()];
        let node = self.add(Step::GroupAggregate(spec), vec![rel.node], target)?;
        Ok(Rel {
            node,
            roles,
            changelog,
            pending: None,
        })
    }

    fn lower(&self, aggregates: &[Expr], input: &LogicalPlan) -> Result<Lowered> {
        let mut lowered = Lowered::default();
        let (props, context) = self.props();
        let physical = output(input.schema());
        for expr in aggregates {
            let made = LoweredAggregateBuilder::new(expr, input.schema(), &physical, props, context).build()?;
            lowered.aggregates.push(made.aggregate);
            lowered.filters.push(made.filter);
        }
        Ok(lowered)
    }
}

/// keys, aggregates, and the three columns of the window.
fn window_schema(
    target: &SchemaRef,
    keys: usize,
    roles: &[Role],
    of_window: &dyn Fn(&Role) -> bool,
    time_type: Option<DataType>,
    aggregates: usize,
) -> SchemaRef {
    let named = |(at, field): (usize, &Arc<Field>)| {
        Field::new(format!("{}${at}", field.name()), field.data_type().clone(), true)
    };
    let is_key = |at: &usize| roles.get(*at).is_some_and(|role| !of_window(role));
    let all = target.fields().iter().enumerate();
    let mut fields: Vec<Field> = all.clone().filter(|(at, _)| is_key(at)).take(keys).map(named).collect();
    fields.extend(all.skip(roles.len()).take(aggregates).map(named));
    let times = [
        types::timestamp(),
        types::timestamp(),
        time_type.unwrap_or_else(types::timestamp),
    ];
    fields.extend(
        WINDOW_COLUMNS
            .iter()
            .zip(times)
            .map(|(name, of)| Field::new(*name, of, true)),
    );
    Arc::new(Schema::new(fields))
}
