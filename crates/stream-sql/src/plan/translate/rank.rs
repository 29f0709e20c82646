//! `ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...)` whose number is compared: top-N and deduplication.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion_expr::expr::{Sort, WindowFunction, WindowFunctionParams};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, Window};
use datafusion_physical_expr::expressions::lit;

use super::{Rel, Translator, bound, column, role};
use crate::graph::Step;
use crate::plan::catalog::Catalog;
use crate::plan::functions::ROW_NUMBER;
use crate::plan::roles::{Role, window};
use crate::spec::{self, Deduplicate, Order, TopN};

/// The numbers that a condition lets through.
struct Range {
    from: u64,
    to: Option<u64>,
}

impl Translator {
    /// The steps of a condition over a number of rows; none where it is no such thing.
    pub(super) fn rank(&mut self, filter: &Filter, wanted: Option<&[bool]>, catalog: &Catalog) -> Result<Option<Rel>> {
        let Some((numbered, places)) = below(&filter.input) else {
            return Ok(None);
        };
        let number = numbered.input.schema().fields().len();
        let schema = filter.input.schema();
        let is_number = |expr: &Expr| {
            let at = column(expr).and_then(|column| schema.maybe_index_of_column(column));
            at.and_then(|at| places.get(at).copied().flatten()) == Some(number)
        };
        let mut range = Range { from: 1, to: None };
        let mut rest = Vec::new();
        for condition in split_conjunction(&filter.predicate) {
            if !range.narrow(condition, &is_number) {
                rest.push(condition.clone());
            }
        }
        let Some(to) = range.to else {
            return plan_err!("The number of ROW_NUMBER() must be compared with a greatest one: WHERE row_number <= N");
        };
        let seen = |wanted: &[bool]| {
            let pairs = wanted.iter().zip(&places);
            pairs
                .into_iter()
                .any(|(wanted, place)| *wanted && *place == Some(number))
        };
        let shown = wanted.is_none_or(seen)
            || rest.iter().any(|condition| {
                condition
                    .column_refs()
                    .iter()
                    .any(|column| is_number(&Expr::Column((*column).clone())))
            });
        let rel = self.numbered(numbered, &range, to, shown, catalog)?;
        let mut rel = self.above(&filter.input, rel)?;
        if let Some(rest) = datafusion_expr::utils::conjunction(rest) {
            let expr = self.physical(&rest, schema)?;
            let target = self.schema(rel.node);
            rel.node = self.add(Step::Filter(expr), vec![rel.node], target)?;
        }
        Ok(Some(rel))
    }

    /// The rows with their numbers, or with NULL where nobody looks at them.
    fn numbered(&mut self, plan: &Window, range: &Range, to: u64, shown: bool, catalog: &Catalog) -> Result<Rel> {
        let params = row_number(plan)?;
        let rel = self.relation(&plan.input, None, catalog)?;
        let rel = self.settle(rel)?;
        let schema = plan.input.schema();
        let roles: Vec<Role> = params
            .partition_by
            .iter()
            .map(|expr| role(expr, schema, &rel.roles))
            .collect();
        let of_window = window(&roles);
        if rel.changelog && of_window.is_some() {
            return plan_err!(
                "ROW_NUMBER() over rows that are updated or taken back is not there; over those of GROUP BY a window it is"
            );
        }
        let mine = |role: &Role| matches!((role, of_window), (Role::WindowStart(a) | Role::WindowEnd(a) | Role::WindowTime(a), Some(b)) if *a == b);
        let partition: Vec<Expr> = params
            .partition_by
            .iter()
            .zip(&roles)
            .filter(|(_, role)| !mine(role))
            .map(|(expr, _)| expr.clone())
            .collect();
        let partition = self.physicals(&partition, schema)?;
        let input = self.schema(rel.node);
        let numbered = with_number(&input);
        let first = (range.from, to) == (1, 1);
        if let (true, None, [one], false) = (first, of_window, params.order_by.as_slice(), rel.changelog)
            && let by = role(&one.expr, schema, &rel.roles)
            && (by.is_time() || by == Role::Proctime)
        {
            let time = column(&one.expr).and_then(|column| schema.maybe_index_of_column(column));
            let spec = Deduplicate {
                input: Arc::clone(&input),
                partition,
                time: time.filter(|_| by.is_time()),
                last: !one.asc,
            };
            let changelog = spec.time.is_some() || spec.last;
            let node = self.add(Step::Deduplicate(spec), vec![rel.node], Arc::clone(&input))?;
            return self.with_constant(
                Rel { node, changelog, ..rel },
                &input,
                numbered,
                ScalarValue::Int64(Some(1)),
            );
        }
        let window_end = match of_window {
            Some(id) => rel.roles.iter().position(|role| *role == Role::WindowEnd(id)),
            None => None,
        };
        let spec = TopN {
            input: Arc::clone(&input),
            partition,
            order: self.order(&params.order_by, plan)?,
            from: range.from,
            to,
            window_end,
            output: if shown {
                Arc::clone(&numbered)
            } else {
                Arc::clone(&input)
            },
            numbered: shown,
        };
        let target = Arc::clone(&spec.output);
        let node = self.add(Step::TopN(spec, rel.changelog), vec![rel.node], target)?;
        let changelog = of_window.is_none();
        let rel = Rel { node, changelog, ..rel };
        if shown {
            let mut roles = rel.roles.clone();
            roles.push(Role::Plain);
            return Ok(Rel { roles, ..rel });
        }
        self.with_constant(rel, &input, numbered, ScalarValue::Int64(None))
    }

    fn with_constant(&mut self, mut rel: Rel, input: &SchemaRef, target: SchemaRef, value: ScalarValue) -> Result<Rel> {
        let mut exprs: Vec<spec::Expr> = (0..input.fields().len()).map(|at| bound(input, at)).collect();
        exprs.push(lit(value));
        rel.node = self.add(Step::Project(exprs), vec![rel.node], target)?;
        rel.roles.push(Role::Plain);
        Ok(rel)
    }

    fn order(&self, sorts: &[Sort], plan: &Window) -> Result<Vec<Order>> {
        let order = sorts.iter().map(|sort| {
            Ok(Order {
                by: self.physical(&sort.expr, plan.input.schema())?,
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            })
        });
        order.collect()
    }

    /// What stands between the numbered rows and the condition.
    fn above(&mut self, plan: &LogicalPlan, rel: Rel) -> Result<Rel> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.above(&alias.input, rel),
            LogicalPlan::Projection(projection) => {
                let rel = self.above(&projection.input, rel)?;
                self.project(rel, projection)
            }
            _ => Ok(rel),
        }
    }
}

fn with_number(input: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<Field> = input.fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(ROW_NUMBER, DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

/// The window functions below, and which of their columns each column is.
fn below(plan: &LogicalPlan) -> Option<(&Window, Vec<Option<usize>>)> {
    match plan {
        LogicalPlan::Window(window) => {
            let places = (0..window.schema.fields().len()).map(Some).collect();
            Some((window, places))
        }
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input),
        LogicalPlan::Projection(projection) => {
            let (window, places) = below(&projection.input)?;
            let schema = projection.input.schema();
            let place = |expr: &Expr| {
                let at = column(expr).and_then(|column| schema.maybe_index_of_column(column))?;
                places.get(at).copied().flatten()
            };
            Some((window, projection.expr.iter().map(place).collect()))
        }
        _ => None,
    }
}

fn row_number(plan: &Window) -> Result<&WindowFunctionParams> {
    let [expr] = plan.window_expr.as_slice() else {
        return not_impl_err!("Only one ROW_NUMBER() in a query is there");
    };
    let inner = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    match inner {
        Expr::WindowFunction(function) if is_row_number(function) => Ok(&function.params),
        other => not_impl_err!("OVER is there for ROW_NUMBER() alone, not for {other}"),
    }
}

fn is_row_number(function: &WindowFunction) -> bool {
    function.fun.name() == ROW_NUMBER
}

impl Range {
    /// Takes a comparison of the number with a constant in; false where it is none.
    fn narrow(&mut self, condition: &Expr, is_number: &dyn Fn(&Expr) -> bool) -> bool {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                if let (true, Some(value)) = (is_number(left), constant(right)) {
                    return self.compare(*op, value);
                }
                match (is_number(right), constant(left), op.swap()) {
                    (true, Some(value), Some(op)) => self.compare(op, value),
                    _ => false,
                }
            }
            Expr::Between(between) if !between.negated && is_number(&between.expr) => {
                match (constant(&between.low), constant(&between.high)) {
                    (Some(low), Some(high)) => self.compare(Operator::GtEq, low) && self.compare(Operator::LtEq, high),
                    _ => false,
                }
            }
            _ => false,
        }
    }

    fn compare(&mut self, op: Operator, value: i64) -> bool {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let mut most = |value: u64| self.to = Some(self.to.map_or(value, |to| to.min(value)));
        match op {
            Operator::Eq => {
                most(number(value));
                self.from = self.from.max(number(value));
            }
            Operator::LtEq => most(number(value)),
            Operator::Lt => most(number(value.saturating_sub(1))),
            Operator::GtEq => self.from = self.from.max(number(value)),
            Operator::Gt => self.from = self.from.max(number(value.saturating_add(1))),
            _ => return false,
        }
        true
    }
}

fn constant(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(value)) => value,
            _ => None,
        },
        Expr::Cast(cast) => constant(&cast.expr),
        _ => None,
    }
}
