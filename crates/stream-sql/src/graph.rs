//! What a program does: steps, each with the steps that it gets its rows from. A step stands behind its inputs.

use std::fmt::Write;

use arrow::datatypes::SchemaRef;

use crate::plan::types;
use crate::spec::{
    Deduplicate, Expr, GroupAggregate, IntervalJoin, LookupJoin, Order, Pattern, TopN, WindowAggregate, WindowAssign,
    WindowJoin, WindowOf, Windows,
};
use crate::steps::Unnest;

/// A step.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub step: Step,
    /// The indices of the steps before it.
    pub inputs: Vec<usize>,
    /// The columns of its rows.
    pub schema: SchemaRef,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The rows of a source, by its index.
    Source(usize),
    Project(Vec<Expr>),
    Filter(Expr),
    Union,
    Unnest(Unnest),
    Assign(WindowAssign),
    WindowAggregate(WindowAggregate),
    GroupAggregate(GroupAggregate),
    /// Of rows that may be taken back where it says so.
    TopN(TopN, bool),
    Deduplicate(Deduplicate),
    IntervalJoin(IntervalJoin),
    WindowJoin(WindowJoin),
    /// With the reference of an index.
    LookupJoin(LookupJoin, usize),
    Pattern(Pattern),
    /// The rows go to a sink, by its index; whether some are taken back.
    Sink(usize, bool),
}

impl Step {
    /// Whether there is something to remember.
    pub fn has_state(&self) -> bool {
        match self {
            Step::Assign(spec) => matches!(spec.windows, Windows::Session { .. }),
            Step::WindowAggregate(_)
            | Step::GroupAggregate(_)
            | Step::TopN(..)
            | Step::Deduplicate(_)
            | Step::IntervalJoin(_)
            | Step::WindowJoin(_)
            | Step::Pattern(_) => true,
            _ => false,
        }
    }

    /// In words, with everything that decides on what the step gives.
    pub fn describe(&self) -> String {
        match self {
            Step::Source(index) => format!("Source({index})"),
            Step::Sink(index, _) => format!("Sink({index})"),
            Step::Union => "Union".to_owned(),
            Step::Project(exprs) => format!("Calc(select=[{}])", list(exprs)),
            Step::Filter(expr) => format!("Calc(where=[{expr}])"),
            Step::Unnest(spec) => format!("Unnest({}{})", spec.list, if spec.keep { ", left" } else { "" }),
            Step::Assign(spec) => {
                let partition = list(&spec.partition);
                format!(
                    "WindowTableFunction({}, time={}, partition=[{partition}])",
                    windows(&spec.windows),
                    spec.time
                )
            }
            Step::WindowAggregate(spec) => window_aggregate(spec),
            Step::GroupAggregate(spec) => {
                let aggregates = aggregates(&spec.aggregates, &spec.filters);
                format!("GroupAggregate(groupBy=[{}], select=[{aggregates}])", list(&spec.keys))
            }
            Step::TopN(spec, changelog) => format!(
                "Rank(changelog={changelog}, partitionBy=[{}], orderBy=[{}], rank={}..{}, window={:?}, numbered={})",
                list(&spec.partition),
                order(&spec.order),
                spec.from,
                spec.to,
                spec.window_end,
                spec.numbered
            ),
            Step::Deduplicate(spec) => format!(
                "Deduplicate(keep={}, key=[{}], time={:?})",
                if spec.last { "last" } else { "first" },
                list(&spec.partition),
                spec.time
            ),
            Step::IntervalJoin(spec) => format!(
                "IntervalJoin({:?}, on=[{}], time={} - {} in {}..={} ms{})",
                spec.kind,
                pairs(&spec.keys),
                spec.left_time,
                spec.right_time,
                spec.lower,
                spec.upper,
                also(spec.filter.as_ref())
            ),
            Step::WindowJoin(spec) => format!(
                "WindowJoin({:?}, on=[{}]{})",
                spec.kind,
                pairs(&spec.keys),
                also(spec.filter.as_ref())
            ),
            Step::LookupJoin(spec, _) => format!(
                "LookupJoin({:?}, table={}, on=[{}]{})",
                spec.kind,
                spec.table,
                pairs(&spec.keys),
                also(spec.filter.as_ref())
            ),
            Step::Pattern(spec) => pattern(spec),
        }
    }
}

fn list(exprs: &[Expr]) -> String {
    exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn pairs(keys: &[(Expr, Expr)]) -> String {
    let shown = keys.iter().map(|(left, right)| format!("{left} = {right}"));
    shown.collect::<Vec<_>>().join(", ")
}

fn also(filter: Option<&Expr>) -> String {
    filter.map_or_else(String::new, |filter| format!(", where=[{filter}]"))
}

fn order(order: &[Order]) -> String {
    let shown = order.iter().map(|one| {
        let direction = if one.descending { "DESC" } else { "ASC" };
        let nulls = if one.nulls_first { "FIRST" } else { "LAST" };
        format!("{} {direction} NULLS {nulls}", one.by)
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn aggregates(
    aggregates: &[std::sync::Arc<datafusion_physical_expr::aggregate::AggregateFunctionExpr>],
    filters: &[Option<Expr>],
) -> String {
    let shown = aggregates.iter().zip(filters).map(|(aggregate, filter)| {
        let distinct = if aggregate.is_distinct() { "DISTINCT " } else { "" };
        let arguments = list(&aggregate.expressions());
        let filter = filter
            .as_ref()
            .map_or_else(String::new, |filter| format!(" FILTER ({filter})"));
        format!("{}({distinct}{arguments}){filter}", aggregate.fun().name())
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn windows(windows: &Windows) -> String {
    match windows {
        Windows::Tumble { size, offset } => format!("TUMBLE(size={size} ms, offset={offset} ms)"),
        Windows::Hop { slide, size, offset } => format!("HOP(slide={slide} ms, size={size} ms, offset={offset} ms)"),
        Windows::Cumulate { step, max, offset } => {
            format!("CUMULATE(step={step} ms, max={max} ms, offset={offset} ms)")
        }
        Windows::Session { gap } => format!("SESSION(gap={gap} ms)"),
    }
}

fn window_aggregate(spec: &WindowAggregate) -> String {
    let windows = match &spec.windows {
        WindowOf::Made {
            windows: made,
            time,
            partition,
        } => {
            format!("{}, time={time}, partition=[{}]", windows(made), list(partition))
        }
        WindowOf::Assigned { start, end } => format!("of columns {start} and {end}"),
    };
    format!(
        "WindowAggregate(window=[{windows}], groupBy=[{}], select=[{}])",
        list(&spec.keys),
        aggregates(&spec.aggregates, &spec.filters)
    )
}

fn pattern(spec: &Pattern) -> String {
    let element = |element: &crate::spec::Element| {
        let most = element.most.map_or_else(String::new, |most| most.to_string());
        let reluctant = if element.reluctant { "?" } else { "" };
        let define = also(element.define.as_ref());
        let refers: Vec<String> = element.refers.iter().map(reference).collect();
        format!(
            "{}{{{},{most}}}{reluctant}{define}{refers:?}",
            element.name, element.least
        )
    };
    let elements: Vec<String> = spec.elements.iter().map(element).collect();
    let measures = spec.measures.iter().map(|measure| {
        let refers: Vec<String> = measure.refers.iter().map(reference).collect();
        format!("{} of {refers:?}", measure.value)
    });
    format!(
        "Match(partitionBy=[{}], time={}, pattern=[{}], within={:?}, skipPastLast={}, measures=[{}])",
        list(&spec.partition),
        spec.time,
        elements.join(" "),
        spec.within,
        spec.skip_past_last,
        measures.collect::<Vec<_>>().join(", ")
    )
}

fn reference(reference: &crate::spec::Reference) -> String {
    let pick = match &reference.of {
        crate::spec::Pick::First(at) => format!("FIRST {at}"),
        crate::spec::Pick::Last(at) => format!("LAST {at}"),
        crate::spec::Pick::Aggregate(aggregate) => {
            format!("{} distinct={}", aggregate.fun().name(), aggregate.is_distinct())
        }
    };
    format!("{pick} of {:?}: {}", reference.variable, reference.value)
}

/// A number for each step that says what it does and on what: the same in every run and build.
pub(crate) fn fingerprints(nodes: &[Node], names: &dyn Fn(&Step) -> Option<String>) -> Vec<u64> {
    let mut made: Vec<u64> = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut text = names(&node.step).unwrap_or_else(|| node.step.describe());
        for field in node.schema.fields() {
            let _ = write!(text, ";{} {}", field.name(), types::name(field.data_type()));
        }
        for input in &node.inputs {
            let _ = write!(text, ";{:016x}", made.get(*input).copied().unwrap_or(0));
        }
        made.push(fnv(text.as_bytes()));
    }
    made
}

/// FNV-1a, 64 bits.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The steps as a tree for each sink, from the sink down.
pub(crate) fn explain(nodes: &[Node], names: &dyn Fn(&Step) -> Option<String>) -> String {
    let mut text = String::new();
    for (index, node) in nodes.iter().enumerate() {
        if matches!(node.step, Step::Sink(..)) {
            branch(nodes, names, index, 0, &mut text);
        }
    }
    text
}

fn branch(nodes: &[Node], names: &dyn Fn(&Step) -> Option<String>, index: usize, depth: usize, text: &mut String) {
    let Some(node) = nodes.get(index) else { return };
    let what = names(&node.step).unwrap_or_else(|| node.step.describe());
    let columns: Vec<String> = node
        .schema
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), types::name(field.data_type())))
        .collect();
    let _ = writeln!(text, "{}{what} -> [{}]", "  ".repeat(depth), columns.join(", "));
    for input in &node.inputs {
        branch(nodes, names, *input, depth + 1, text);
    }
}
