//! Which columns of each step are looked at: sources decode no others.

use std::sync::Arc;

use datafusion_physical_expr::utils::collect_columns;

use crate::graph::{Node, Step};
use crate::spec::{Expr, Reference, WindowOf};

/// For each step which of its columns are used by those behind it.
pub(super) fn usage(nodes: &[Node]) -> Vec<Vec<bool>> {
    let mut used: Vec<Vec<bool>> = nodes
        .iter()
        .map(|node| vec![false; node.schema.fields().len()])
        .collect();
    for (index, node) in nodes.iter().enumerate().rev() {
        let mine = used.get(index).cloned().unwrap_or_default();
        let widths: Vec<usize> = node
            .inputs
            .iter()
            .map(|input| used.get(*input).map_or(0, Vec::len))
            .collect();
        let mut inputs = node.inputs.iter();
        for (number, input) in inputs.by_ref().enumerate() {
            let before: usize = widths.iter().take(number).sum();
            let wanted = wanted(&node.step, &mine, number, before);
            if let Some(theirs) = used.get_mut(*input) {
                for at in wanted {
                    if let Some(used) = theirs.get_mut(at) {
                        *used = true;
                    }
                }
            }
        }
    }
    used
}

fn columns<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Vec<usize> {
    let of = |expr: &Expr| {
        collect_columns(expr)
            .into_iter()
            .map(|column| column.index())
            .collect::<Vec<_>>()
    };
    exprs.into_iter().flat_map(of).collect()
}

fn references<'a>(all: impl IntoIterator<Item = &'a Reference>) -> Vec<usize> {
    all.into_iter()
        .flat_map(|reference| columns([&reference.value]))
        .collect()
}

/// The columns that a step looks at of one of its inputs; `before` is how many columns the inputs before have.
fn wanted(step: &Step, mine: &[bool], input: usize, before: usize) -> Vec<usize> {
    let through = || mine.iter().enumerate().filter(|(_, used)| **used).map(|(at, _)| at);
    // The columns of both sides stand behind each other.
    let side = |at: usize| at.checked_sub(before);
    let keys =
        |pairs: &[(Expr, Expr)]| columns(pairs.iter().map(|(left, right)| if input == 0 { left } else { right }));
    let aggregates = |aggregates: &[Arc<datafusion_physical_expr::aggregate::AggregateFunctionExpr>],
                      filters: &[Option<Expr>]| {
        let arguments: Vec<Expr> = aggregates
            .iter()
            .flat_map(|aggregate| aggregate.expressions())
            .collect();
        let orders = aggregates
            .iter()
            .flat_map(|aggregate| aggregate.order_bys().iter().map(|order| &order.expr));
        columns(arguments.iter().chain(orders).chain(filters.iter().flatten()))
    };
    match step {
        Step::Source(_) => Vec::new(),
        Step::Sink(..) => (0..mine.len()).collect(),
        Step::Project(exprs) => columns(through().filter_map(|at| exprs.get(at))),
        Step::Filter(expr) => through().chain(columns([expr])).collect(),
        Step::Union => through().collect(),
        Step::Unnest(spec) => through().chain(columns([&spec.list])).collect(),
        Step::Assign(spec) => through().chain([spec.time]).chain(columns(&spec.partition)).collect(),
        Step::WindowAggregate(spec) => {
            let mut all = columns(&spec.keys);
            all.extend(aggregates(&spec.aggregates, &spec.filters));
            match &spec.windows {
                WindowOf::Made { time, partition, .. } => {
                    all.push(*time);
                    all.extend(columns(partition));
                }
                WindowOf::Assigned { start, end } => all.extend([*start, *end]),
            }
            all
        }
        Step::GroupAggregate(spec) => {
            let mut all = columns(&spec.keys);
            all.extend(aggregates(&spec.aggregates, &spec.filters));
            all
        }
        Step::TopN(spec, _) => {
            let order = columns(spec.order.iter().map(|order| &order.by));
            through()
                .chain(columns(&spec.partition))
                .chain(order)
                .chain(spec.window_end)
                .collect()
        }
        Step::Deduplicate(spec) => through().chain(columns(&spec.partition)).chain(spec.time).collect(),
        Step::IntervalJoin(spec) => {
            let time = if input == 0 { spec.left_time } else { spec.right_time };
            let filter = columns(&spec.filter).into_iter().filter_map(side);
            through()
                .filter_map(side)
                .chain(filter)
                .chain(keys(&spec.keys))
                .chain([time])
                .collect()
        }
        Step::WindowJoin(spec) => {
            let end = if input == 0 { spec.left_end } else { spec.right_end };
            let filter = columns(&spec.filter).into_iter().filter_map(side);
            through()
                .filter_map(side)
                .chain(filter)
                .chain(keys(&spec.keys))
                .chain([end])
                .collect()
        }
        Step::LookupJoin(spec, _) => through().chain(columns(&spec.filter)).chain(keys(&spec.keys)).collect(),
        Step::Pattern(spec) => {
            let mut all = columns(&spec.partition);
            all.push(spec.time);
            for element in &spec.elements {
                all.extend(columns(&element.define));
                all.extend(references(&element.refers));
            }
            all.extend(spec.measures.iter().flat_map(|measure| references(&measure.refers)));
            all
        }
    }
}
