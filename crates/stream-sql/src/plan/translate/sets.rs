//! GROUPING SETS, ROLLUP and CUBE: a GROUP BY for each set, together.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion_common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion_expr::{Aggregate, Expr, GroupingSet};
use datafusion_physical_expr::expressions::lit;

use super::basic::both;
use super::{Rel, Translator, bound, output};
use crate::graph::Step;
use crate::plan::roles::Role;

/// The most sets: of CUBE over 6 columns.
const SETS_MAX: usize = 64;

impl Translator {
    pub(super) fn grouping_sets(&mut self, rel: &Rel, aggregate: &Aggregate, set: &GroupingSet) -> Result<Rel> {
        let sets = sets(set)?;
        let all: Vec<&Expr> = set.distinct_expr();
        let target = output(&aggregate.schema);
        // Behind the keys is the number of the set, and behind it the aggregates.
        let first = all.len() + 1;
        let mut inputs = Vec::new();
        let mut roles: Option<Vec<Role>> = None;
        let mut changelog = false;
        for keys in sets {
            let mut places: Vec<usize> = keys
                .iter()
                .filter_map(|key| all.iter().position(|one| *one == key))
                .collect();
            places.extend(first..target.fields().len());
            let schema: SchemaRef = Arc::new(Schema::new(
                places
                    .iter()
                    .filter_map(|at| target.fields().get(*at).cloned())
                    .collect::<Vec<_>>(),
            ));
            let made = self.group(
                rel.clone(),
                &aggregate.input,
                &keys,
                &aggregate.aggr_expr,
                Arc::clone(&schema),
            )?;
            let mut exprs = Vec::new();
            let mut mine = Vec::new();
            for (at, field) in target.fields().iter().enumerate() {
                match places.iter().position(|place| *place == at) {
                    Some(place) => {
                        exprs.push(bound(&schema, place));
                        mine.push(made.roles.get(place).copied().unwrap_or(Role::Plain));
                    }
                    None => {
                        exprs.push(lit(ScalarValue::try_from(field.data_type())?));
                        mine.push(Role::Plain);
                    }
                }
            }
            inputs.push(self.add(Step::Project(exprs), vec![made.node], Arc::clone(&target))?);
            changelog |= made.changelog;
            roles = Some(match roles {
                None => mine,
                Some(known) => known.into_iter().zip(mine).map(|(a, b)| both(a, b)).collect(),
            });
        }
        let node = self.add(Step::Union, inputs, target)?;
        Ok(Rel {
            node,
            roles: roles.unwrap_or_default(),
            changelog,
            pending: None,
        })
    }
}

fn sets(set: &GroupingSet) -> Result<Vec<Vec<Expr>>> {
    let sets = match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(keys) => (0..=keys.len())
            .rev()
            .map(|many| keys.iter().take(many).cloned().collect())
            .collect(),
        GroupingSet::Cube(keys) if keys.len() <= 6 => {
            let of = |bits: usize| {
                keys.iter()
                    .enumerate()
                    .filter(move |(at, _)| bits & (1 << at) != 0)
                    .map(|(_, key)| key.clone())
            };
            (0..1usize << keys.len()).rev().map(|bits| of(bits).collect()).collect()
        }
        GroupingSet::Cube(_) => return not_impl_err!("CUBE is there for at most 6 columns"),
    };
    match sets.len() {
        0 => plan_err!("GROUPING SETS without a set"),
        1..=SETS_MAX => Ok(sets),
        _ => not_impl_err!("There are more than {SETS_MAX} GROUPING SETS"),
    }
}
