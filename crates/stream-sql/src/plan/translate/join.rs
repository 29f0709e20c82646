//! Joins: of two streams within bounds of time, of two inputs in the same windows, with a table, with a row's own list.

use std::sync::Arc;

use datafusion_common::{DFSchema, Result, not_impl_err, plan_err};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr, Join, JoinType, LogicalPlan, Operator};

use super::{Rel, Translator, bound, column, output, role};
use crate::graph::Step;
use crate::plan::catalog::{Catalog, Relation, Source};
use crate::plan::interval;
use crate::plan::roles::Role;
use crate::spec::{self, IntervalJoin, JoinKind, LookupJoin, WindowJoin};
use crate::steps::Unnest;

/// What a join asks.
struct Asked {
    kind: JoinKind,
    /// Equal pairs, left and right.
    keys: Vec<(Expr, Expr)>,
    /// Everything else.
    others: Vec<Expr>,
}

/// The bounds of `left.t - right.t`.
#[derive(Default)]
struct Bounds {
    columns: Option<(usize, usize)>,
    lower: Option<i64>,
    upper: Option<i64>,
}

impl Translator {
    /// A join, with the conditions of WHERE above it.
    pub(super) fn join(&mut self, join: &Join, above: &[Expr], catalog: &Catalog) -> Result<Rel> {
        let (mine, theirs) = share(join, above);
        let left = match (join.left.as_ref(), theirs.is_empty()) {
            (LogicalPlan::Join(inner), false) => self.join(inner, &theirs, catalog)?,
            (left, _) => self.relation(left, None, catalog)?,
        };
        let left = self.settle(left)?;
        let asked = asked(join, mine)?;
        if let Some(list) = unnested(&join.right) {
            return self.unnest(join, left, &list, &asked);
        }
        if let Some(table) = looked_up(&join.right) {
            return self.look_up(join, left, table, &asked, catalog);
        }
        let right = self.relation(&join.right, None, catalog)?;
        let right = self.settle(right)?;
        if left.changelog || right.changelog {
            return plan_err!("A join cannot take rows that are updated or taken back, as those of GROUP BY are");
        }
        if let Some(ends) = windows(join, &asked, &left, &right) {
            return self.window_join(join, &left, &right, &asked, ends);
        }
        self.interval_join(join, &left, &right, asked)
    }

    fn keys(&self, join: &Join, asked: &Asked) -> Result<Vec<(spec::Expr, spec::Expr)>> {
        let pair = |(left, right): &(Expr, Expr)| {
            Ok((
                self.physical(left, join.left.schema())?,
                self.physical(right, join.right.schema())?,
            ))
        };
        asked.keys.iter().map(pair).collect()
    }

    fn rest(&self, join: &Join, others: &[Expr]) -> Result<Option<spec::Expr>> {
        let both = join.left.schema().join(join.right.schema())?;
        let filter = conjunction(others.iter().cloned());
        filter.map(|filter| self.physical(&filter, &both)).transpose()
    }

    fn interval_join(&mut self, join: &Join, left: &Rel, right: &Rel, asked: Asked) -> Result<Rel> {
        let mut bounds = Bounds::default();
        let mut others = Vec::new();
        for condition in &asked.others {
            if !bounds.narrow(condition, join, left, right) {
                others.push(condition.clone());
            }
        }
        // Equal times are bounds too.
        let mut keys = Vec::new();
        for (a, b) in asked.keys {
            let equal = Expr::BinaryExpr(BinaryExpr::new(Box::new(a.clone()), Operator::Eq, Box::new(b.clone())));
            if !bounds.narrow(&equal, join, left, right) {
                keys.push((a, b));
            }
        }
        let asked = Asked { keys, others, ..asked };
        let (Some((left_time, right_time)), Some(lower), Some(upper)) = (bounds.columns, bounds.lower, bounds.upper)
        else {
            return plan_err!(
                "A join of two streams would have to remember them for ever. It needs bounds of their times in ON, as in \
                 a.ts BETWEEN b.ts - INTERVAL '5' MINUTE AND b.ts + INTERVAL '5' MINUTE, or the same window on both sides, or \
                 FOR SYSTEM_TIME AS OF for a table"
            );
        };
        if lower > upper {
            return plan_err!("The bounds of time in ON let nothing through");
        }
        let spec = IntervalJoin {
            kind: asked.kind,
            left: self.schema(left.node),
            right: self.schema(right.node),
            keys: self.keys(join, &asked)?,
            left_time,
            right_time,
            lower,
            upper,
            filter: self.rest(join, &asked.others)?,
            output: output(&join.schema),
        };
        let node = self.add(
            Step::IntervalJoin(spec),
            vec![left.node, right.node],
            output(&join.schema),
        )?;
        Ok(joined(node, asked.kind, left, right))
    }

    fn window_join(
        &mut self,
        join: &Join,
        left: &Rel,
        right: &Rel,
        asked: &Asked,
        ends: (usize, usize),
    ) -> Result<Rel> {
        let spec = WindowJoin {
            kind: asked.kind,
            left: self.schema(left.node),
            right: self.schema(right.node),
            keys: self.keys(join, asked)?,
            left_end: ends.0,
            right_end: ends.1,
            filter: self.rest(join, &asked.others)?,
            output: output(&join.schema),
        };
        let node = self.add(
            Step::WindowJoin(spec),
            vec![left.node, right.node],
            output(&join.schema),
        )?;
        Ok(joined(node, asked.kind, left, right))
    }

    fn look_up(&mut self, join: &Join, left: Rel, table: usize, asked: &Asked, catalog: &Catalog) -> Result<Rel> {
        if !matches!(asked.kind, JoinKind::Inner | JoinKind::Left) {
            return not_impl_err!("FOR SYSTEM_TIME AS OF is there for JOIN and LEFT JOIN");
        }
        let Some(known) = catalog.tables.get(table) else {
            return plan_err!("Table {table} not found");
        };
        if !matches!(
            known.table.options.get("connector").map(String::as_str),
            Some("filesystem" | "face-collection")
        ) {
            return plan_err!(
                "Rows are looked up in tables of the connectors filesystem and face-collection; '{}' is none",
                known.table.name
            );
        }
        if asked.keys.is_empty() {
            return plan_err!("A look-up needs a column that is equal on both sides in ON");
        }
        let spec = LookupJoin {
            kind: asked.kind,
            table: known.table.name.clone(),
            left: self.schema(left.node),
            right: Arc::clone(&known.schema),
            keys: self.keys(join, asked)?,
            filter: self.rest(join, &asked.others)?,
            output: output(&join.schema),
        };
        let node = self.add(Step::LookupJoin(spec, table), vec![left.node], output(&join.schema))?;
        let mut roles = left.roles;
        roles.resize(join.schema.fields().len(), Role::Plain);
        Ok(Rel { node, roles, ..left })
    }

    fn unnest(&mut self, join: &Join, left: Rel, list: &Unnested<'_>, asked: &Asked) -> Result<Rel> {
        let keep = match asked.kind {
            JoinKind::Inner => false,
            JoinKind::Left if asked.keys.is_empty() && asked.others.is_empty() => true,
            _ => return not_impl_err!("UNNEST is there for CROSS JOIN, JOIN and LEFT JOIN ... ON TRUE"),
        };
        let here = inwards(list.expr.clone())?;
        let input = self.schema(left.node);
        let mut fields: Vec<arrow::datatypes::Field> =
            input.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend(list.source.schema.fields().iter().map(|field| field.as_ref().clone()));
        let all: arrow::datatypes::SchemaRef = Arc::new(arrow::datatypes::Schema::new(fields));
        let spec = Unnest {
            list: self.physical(&here, join.left.schema())?,
            keep,
            output: Arc::clone(&all),
        };
        let node = self.add(Step::Unnest(spec), vec![left.node], Arc::clone(&all))?;
        let width = input.fields().len();
        let places = (0..width).chain(list.places.iter().map(|at| width + at));
        let exprs = places.map(|at| bound(&all, at)).collect();
        let target = output(&join.left.schema().join(join.right.schema())?);
        let mut node = self.add(Step::Project(exprs), vec![node], Arc::clone(&target))?;
        let pairs = asked.keys.iter().map(|(a, b)| a.clone().eq(b.clone()));
        if let Some(filter) = self.rest(join, &pairs.chain(asked.others.iter().cloned()).collect::<Vec<_>>())? {
            node = self.add(Step::Filter(filter), vec![node], target)?;
        }
        let mut roles = left.roles;
        roles.resize(join.schema.fields().len(), Role::Plain);
        Ok(Rel { node, roles, ..left })
    }
}

/// What columns are behind a join: times of a side that may be missing are times no more.
fn joined(node: usize, kind: JoinKind, left: &Rel, right: &Rel) -> Rel {
    let plain = |roles: &[Role]| vec![Role::Plain; roles.len()];
    let roles = match kind {
        JoinKind::Inner => [left.roles.clone(), right.roles.clone()].concat(),
        JoinKind::Left => [left.roles.clone(), plain(&right.roles)].concat(),
        JoinKind::Right => [plain(&left.roles), right.roles.clone()].concat(),
        JoinKind::Full => [plain(&left.roles), plain(&right.roles)].concat(),
        JoinKind::Semi | JoinKind::Anti => left.roles.clone(),
    };
    Rel {
        node,
        roles,
        changelog: false,
        pending: None,
    }
}

/// The conditions above a join that are its own, and those of the join on its left.
fn share(join: &Join, above: &[Expr]) -> (Vec<Expr>, Vec<Expr>) {
    let inner = matches!(join.left.as_ref(), LogicalPlan::Join(left) if left.join_type == JoinType::Inner);
    let left = join.left.schema();
    let of_left = |expr: &Expr| inner && expr.column_refs().iter().all(|column| left.has_column(column));
    let (theirs, mine) = above.iter().cloned().partition(|expr| of_left(expr));
    (mine, theirs)
}

fn asked(join: &Join, above: Vec<Expr>) -> Result<Asked> {
    let kind = match join.join_type {
        JoinType::Inner => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Right => JoinKind::Right,
        JoinType::Full => JoinKind::Full,
        JoinType::LeftSemi => JoinKind::Semi,
        JoinType::LeftAnti => JoinKind::Anti,
        other => return not_impl_err!("{other} JOIN is not there"),
    };
    let mut asked = Asked {
        kind,
        keys: join.on.clone(),
        others: Vec::new(),
    };
    let filter = join.filter.iter().flat_map(split_conjunction).cloned();
    for condition in filter.chain(above) {
        if matches!(&condition, Expr::Literal(value, _) if *value == datafusion_common::ScalarValue::Boolean(Some(true)))
        {
            continue;
        }
        match equal(&condition, join.left.schema(), join.right.schema()) {
            Some(pair) => asked.keys.push(pair),
            None => asked.others.push(condition),
        }
    }
    Ok(asked)
}

/// `left = right`, each over one side.
fn equal(condition: &Expr, left: &DFSchema, right: &DFSchema) -> Option<(Expr, Expr)> {
    let Expr::BinaryExpr(BinaryExpr {
        left: a,
        op: Operator::Eq,
        right: b,
    }) = condition
    else {
        return None;
    };
    let of = |expr: &Expr, schema: &DFSchema| {
        let columns = expr.column_refs();
        !columns.is_empty() && columns.iter().all(|column| schema.has_column(column))
    };
    if of(a, left) && of(b, right) {
        return Some((a.as_ref().clone(), b.as_ref().clone()));
    }
    (of(b, left) && of(a, right)).then(|| (b.as_ref().clone(), a.as_ref().clone()))
}

/// The columns of both windows' ends, where start and end of a window are equal on both sides.
fn windows(join: &Join, asked: &Asked, left: &Rel, right: &Rel) -> Option<(usize, usize)> {
    let roles = asked.keys.iter().map(|(a, b)| {
        (
            role(a, join.left.schema(), &left.roles),
            role(b, join.right.schema(), &right.roles),
        )
    });
    let roles: Vec<(Role, Role)> = roles.collect();
    roles.iter().find_map(|pair| match pair {
        (Role::WindowStart(a), Role::WindowStart(b)) if roles.contains(&(Role::WindowEnd(*a), Role::WindowEnd(*b))) => {
            let end = |rel: &Rel, id: usize| rel.roles.iter().position(|role| *role == Role::WindowEnd(id));
            Some((end(left, *a)?, end(right, *b)?))
        }
        _ => None,
    })
}

/// A time of one side, and what is added to it.
struct Time {
    of_left: bool,
    at: usize,
    plus: i64,
}

fn time(expr: &Expr, join: &Join, left: &Rel, right: &Rel) -> Option<Time> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) => {
            let (inner, length) = match (b.as_ref(), a.as_ref()) {
                (Expr::Literal(length, _), _) => (a, length),
                (_, Expr::Literal(length, _)) if *op == Operator::Plus => (b, length),
                _ => return None,
            };
            let length = interval::of_scalar(length)?;
            let mut time = time(inner, join, left, right)?;
            time.plus = match op {
                Operator::Plus => time.plus.checked_add(length)?,
                Operator::Minus => time.plus.checked_sub(length)?,
                _ => return None,
            };
            Some(time)
        }
        Expr::Cast(cast) => time(&cast.expr, join, left, right),
        other => {
            let named = column(other)?;
            let side = |schema: &DFSchema, rel: &Rel| {
                let at = schema.maybe_index_of_column(named)?;
                rel.roles.get(at).is_some_and(|role| role.is_time()).then_some(at)
            };
            let of_left = side(join.left.schema(), left).map(|at| Time {
                of_left: true,
                at,
                plus: 0,
            });
            of_left.or_else(|| {
                side(join.right.schema(), right).map(|at| Time {
                    of_left: false,
                    at,
                    plus: 0,
                })
            })
        }
    }
}

impl Bounds {
    /// Takes a comparison of the times of both sides in; false where it is none.
    fn narrow(&mut self, condition: &Expr, join: &Join, left: &Rel, right: &Rel) -> bool {
        let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = condition else {
            return self.between(condition, join, left, right);
        };
        let (Some(a), Some(b)) = (time(a, join, left, right), time(b, join, left, right)) else {
            return false;
        };
        let (l, r, op) = match (a.of_left, b.of_left) {
            (true, false) => (a, b, *op),
            (false, true) => match op.swap() {
                Some(op) => (b, a, op),
                None => return false,
            },
            _ => return false,
        };
        if self.columns.is_some_and(|known| known != (l.at, r.at)) {
            return false;
        }
        // l + x op r + y: l - r op y - x.
        if !self.limits(op, r.plus.saturating_sub(l.plus)) {
            return false;
        }
        self.columns = Some((l.at, r.at));
        true
    }

    fn between(&mut self, condition: &Expr, join: &Join, left: &Rel, right: &Rel) -> bool {
        let Expr::Between(between) = condition else {
            return false;
        };
        if between.negated {
            return false;
        }
        let compare = |op: Operator, bound: &Expr| {
            Expr::BinaryExpr(BinaryExpr::new(between.expr.clone(), op, Box::new(bound.clone())))
        };
        self.narrow(&compare(Operator::GtEq, &between.low), join, left, right)
            && self.narrow(&compare(Operator::LtEq, &between.high), join, left, right)
    }

    fn limits(&mut self, op: Operator, bound: i64) -> bool {
        let least = |known: Option<i64>, bound: i64| Some(known.map_or(bound, |known| known.max(bound)));
        let most = |known: Option<i64>, bound: i64| Some(known.map_or(bound, |known| known.min(bound)));
        match op {
            Operator::Eq => {
                self.lower = least(self.lower, bound);
                self.upper = most(self.upper, bound);
            }
            Operator::LtEq => self.upper = most(self.upper, bound),
            Operator::Lt => self.upper = most(self.upper, bound.saturating_sub(1)),
            Operator::GtEq => self.lower = least(self.lower, bound),
            Operator::Gt => self.lower = least(self.lower, bound.saturating_add(1)),
            _ => return false,
        }
        true
    }
}

/// A list on the right of a join, and which of its columns are seen.
struct Unnested<'a> {
    source: &'a Source,
    expr: &'a Expr,
    places: Vec<usize>,
}

fn unnested(plan: &LogicalPlan) -> Option<Unnested<'_>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => unnested(&alias.input),
        LogicalPlan::Projection(projection) => {
            let inner = unnested(&projection.input)?;
            let schema = projection.input.schema();
            let place = |expr: &Expr| {
                let at = column(expr).and_then(|column| schema.maybe_index_of_column(column))?;
                inner.places.get(at).copied()
            };
            let places = projection.expr.iter().map(place).collect::<Option<Vec<usize>>>()?;
            Some(Unnested { places, ..inner })
        }
        LogicalPlan::TableScan(scan) => {
            let source = scan.source.downcast_ref::<Source>()?;
            match &source.relation {
                Relation::Unnest(expr) => Some(Unnested {
                    source,
                    expr,
                    places: (0..source.schema.fields().len()).collect(),
                }),
                _ => None,
            }
        }
        _ => None,
    }
}

fn looked_up(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => looked_up(&alias.input),
        LogicalPlan::TableScan(scan) => match scan.source.downcast_ref::<Source>()?.relation {
            Relation::Lookup(table) => Some(table),
            _ => None,
        },
        _ => None,
    }
}

/// A column of what stands before is a column of the left side.
fn inwards(expr: Expr) -> Result<Expr> {
    use datafusion_common::tree_node::{Transformed, TreeNode};
    let inwards = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(_, column) => Transformed::yes(Expr::Column(column)),
            other => Transformed::no(other),
        })
    })?;
    Ok(inwards.data)
}
