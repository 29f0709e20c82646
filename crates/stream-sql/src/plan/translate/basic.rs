//! Projections, conditions and unions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, plan_err};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, Filter, JoinType, LogicalPlan, Projection, Union};

use super::{Rel, Translator, greatest, output, role};
use crate::graph::Step;
use crate::plan::catalog::Catalog;
use crate::plan::roles::Role;

impl Translator {
    pub(super) fn projection(&mut self, projection: &Projection, catalog: &Catalog) -> Result<Rel> {
        let schema = projection.input.schema();
        let mut wanted = vec![false; schema.fields().len()];
        for expr in &projection.expr {
            for column in expr.column_refs() {
                if let Some(index) = schema.maybe_index_of_column(column)
                    && let Some(wanted) = wanted.get_mut(index)
                {
                    *wanted = true;
                }
            }
        }
        let rel = self.relation(&projection.input, Some(&wanted), catalog)?;
        self.project(rel, projection)
    }

    /// The columns of a projection over rows.
    pub(super) fn project(&mut self, rel: Rel, projection: &Projection) -> Result<Rel> {
        let schema = projection.input.schema();
        let rel = self.settle(rel)?;
        let exprs = self.physicals(&projection.expr, schema)?;
        let roles = projection
            .expr
            .iter()
            .map(|expr| role(expr, schema, &rel.roles))
            .collect();
        let node = self.add(Step::Project(exprs), vec![rel.node], output(&projection.schema))?;
        Ok(Rel {
            node,
            roles,
            changelog: rel.changelog,
            pending: None,
        })
    }

    pub(super) fn filter(&mut self, filter: &Filter, wanted: Option<&[bool]>, catalog: &Catalog) -> Result<Rel> {
        if let Some(rel) = self.rank(filter, wanted, catalog)? {
            return Ok(rel);
        }
        if let LogicalPlan::Join(join) = filter.input.as_ref()
            && join.join_type == JoinType::Inner
        {
            let conditions: Vec<Expr> = split_conjunction(&filter.predicate).into_iter().cloned().collect();
            return self.join(join, &conditions, catalog);
        }
        let rel = self.relation(&filter.input, wanted, catalog)?;
        let expr = self.physical(&filter.predicate, filter.input.schema())?;
        let inner = self.schema(rel.node).fields().len();
        let rel = match greatest(&expr).is_some_and(|at| at >= inner) {
            true => self.settle(rel)?,
            false => rel,
        };
        let schema = self.schema(rel.node);
        let node = self.add(Step::Filter(expr), vec![rel.node], schema)?;
        Ok(Rel { node, ..rel })
    }

    pub(super) fn union(&mut self, union: &Union, catalog: &Catalog) -> Result<Rel> {
        let target = output(&union.schema);
        let mut inputs = Vec::new();
        let mut roles: Option<Vec<Role>> = None;
        let mut changelog = false;
        for input in &union.inputs {
            let rel = self.relation(input, None, catalog)?;
            let rel = self.settle(rel)?;
            let schema = self.schema(rel.node);
            let types: Vec<&DataType> = schema.fields().iter().map(|field| field.data_type()).collect();
            let wanted: Vec<&DataType> = target.fields().iter().map(|field| field.data_type()).collect();
            if types != wanted {
                return plan_err!("The queries of a UNION have columns of different types");
            }
            roles = Some(match roles {
                None => rel.roles,
                Some(known) => known.into_iter().zip(rel.roles).map(|(a, b)| both(a, b)).collect(),
            });
            changelog |= rel.changelog;
            inputs.push(rel.node);
        }
        let node = self.add(Step::Union, inputs, Arc::clone(&target))?;
        Ok(Rel {
            node,
            roles: roles.unwrap_or_default(),
            changelog,
            pending: None,
        })
    }
}

/// What a column is that comes from two inputs.
pub(super) fn both(a: Role, b: Role) -> Role {
    match (a, b) {
        (a, b) if a == b => a,
        (a, b) if a.is_time() && b.is_time() => Role::Rowtime,
        _ => Role::Plain,
    }
}
