//! What the planner asks of the operators: one structure for each. Expressions are bound to the input's schema, by index;
//! output schemas are said where the operator does not make them of the input's.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use crate::operator::Millis;

/// An expression over the columns of an input.
pub type Expr = Arc<dyn PhysicalExpr>;

/// The windows of a table function. All milliseconds, greater than 0; `offset` shifts the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// `TUMBLE`
    Tumble {
        /// Length.
        size: Millis,
        /// Shift.
        offset: Millis,
    },
    /// `HOP`: `size` is a multiple of `slide` (Flink's rule; the planner refuses others).
    Hop {
        /// From one start to the next.
        slide: Millis,
        /// Length.
        size: Millis,
        /// Shift.
        offset: Millis,
    },
    /// `CUMULATE`: `max` is a multiple of `step`.
    Cumulate {
        /// From one end to the next.
        step: Millis,
        /// The greatest length.
        max: Millis,
        /// Shift.
        offset: Millis,
    },
    /// `SESSION`: ends when nothing came for `gap`; of each partition its own.
    Session {
        /// The gap.
        gap: Millis,
    },
}

/// Appends `window_start`, `window_end`, `window_time` to each row, once for each window that it is in. Where a
/// `WindowAggregate` follows directly, the planner leaves this out. Sessions need state; the others none.
#[derive(Clone, Debug)]
pub struct WindowAssign {
    /// The schema that comes in.
    pub input: SchemaRef,
    /// The windows.
    pub windows: Windows,
    /// Of the time column.
    pub time: usize,
    /// `PARTITION BY` of sessions.
    pub partition: Vec<Expr>,
    /// The input's columns, then the three of the window (`TIMESTAMP(3)`, `window_time` of the time column's type).
    pub output: SchemaRef,
}

/// `GROUP BY window_start, window_end, keys` : one row for each key and window, when the watermark passes its end.
#[derive(Clone, Debug)]
pub struct WindowAggregate {
    /// The schema that comes in (without window columns, unless `assigned`).
    pub input: SchemaRef,
    /// How rows get their windows.
    pub windows: WindowOf,
    /// The keys beside the window.
    pub keys: Vec<Expr>,
    /// The aggregates; filters and DISTINCT are inside.
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// For each aggregate the `FILTER (WHERE ...)`.
    pub filters: Vec<Option<Expr>>,
    /// keys, aggregates, `window_start`, `window_end`, `window_time`.
    pub output: SchemaRef,
}

/// Where windows come from.
#[derive(Clone, Debug)]
pub enum WindowOf {
    /// Made here from a time column.
    Made {
        /// The windows.
        windows: Windows,
        /// Of the time column.
        time: usize,
        /// `PARTITION BY` of sessions; a subset of the keys.
        partition: Vec<Expr>,
    },
    /// Columns of the input, for aggregates over what already has windows.
    Assigned {
        /// Of `window_start`.
        start: usize,
        /// Of `window_end`.
        end: usize,
    },
}

/// `GROUP BY keys` without a window: a changelog (`+I`, then `-U` and `+U`; `-D` where a key has no rows any more).
/// Takes changelogs where every aggregate can take back (COUNT, SUM, AVG); the planner refuses others. With no keys and
/// no aggregates taken back it is `SELECT DISTINCT`: `+I` only.
#[derive(Clone, Debug)]
pub struct GroupAggregate {
    /// The schema that comes in.
    pub input: SchemaRef,
    /// The keys.
    pub keys: Vec<Expr>,
    /// The aggregates; none: DISTINCT.
    pub aggregates: Vec<Arc<AggregateFunctionExpr>>,
    /// For each aggregate the `FILTER (WHERE ...)`.
    pub filters: Vec<Option<Expr>>,
    /// keys, aggregates.
    pub output: SchemaRef,
}

/// A column to sort by.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub by: Expr,
    /// From the greatest.
    pub descending: bool,
    /// Where NULL is.
    pub nulls_first: bool,
}

/// `ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...) <= limit`.
#[derive(Clone, Debug)]
pub struct TopN {
    /// The schema that comes in.
    pub input: SchemaRef,
    /// `PARTITION BY`, without the window's columns.
    pub partition: Vec<Expr>,
    /// `ORDER BY`; rows that are equal stay in the order of arrival.
    pub order: Vec<Order>,
    /// Rows before this number are left out: 1 is the first.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// Of `window_end` (TIMESTAMP(3)) where it is in `PARTITION BY`: given when the watermark passes, `+I` only. None:
    /// a changelog over all that came.
    pub window_end: Option<usize>,
    /// The input's columns, and the number (BIGINT) last where `numbered`.
    pub output: SchemaRef,
    /// Whether the number is a column of the output.
    pub numbered: bool,
}

/// The first or last row of each key by time: `ROW_NUMBER() ... ORDER BY rowtime = 1`. As Flink: in order of event time,
/// and a changelog where an earlier (or, for the last, later) row comes. Rows are given when they come, not at watermarks.
#[derive(Clone, Debug)]
pub struct Deduplicate {
    /// The schema that comes in and goes out.
    pub input: SchemaRef,
    /// The key.
    pub partition: Vec<Expr>,
    /// The time column; none: order of arrival, so that the first is never replaced.
    pub time: Option<usize>,
    /// The last instead of the first.
    pub last: bool,
}

/// Which rows without a partner are given too, with NULLs (or not, for the halves).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Only pairs.
    Inner,
    /// Every row of the left.
    Left,
    /// Every row of the right.
    Right,
    /// Every row.
    Full,
    /// Rows of the left that have a partner, once, without it.
    Semi,
    /// Rows of the left that have none.
    Anti,
}

/// Two streams whose times are within bounds: `left.t BETWEEN right.t + lower AND right.t + upper`.
#[derive(Clone, Debug)]
pub struct IntervalJoin {
    /// Which rows.
    pub kind: JoinKind,
    /// The left schema.
    pub left: SchemaRef,
    /// The right schema.
    pub right: SchemaRef,
    /// Equal keys, left and right; may be none.
    pub keys: Vec<(Expr, Expr)>,
    /// Of the left's time column.
    pub left_time: usize,
    /// Of the right's time column.
    pub right_time: usize,
    /// The least `left.t - right.t`, in milliseconds.
    pub lower: Millis,
    /// The greatest.
    pub upper: Millis,
    /// What else must hold, over the left's columns and then the right's.
    pub filter: Option<Expr>,
    /// The left's columns and then the right's; the left's alone for halves.
    pub output: SchemaRef,
}

/// Two inputs whose rows are in the same window: given when the watermark passes its end.
#[derive(Clone, Debug)]
pub struct WindowJoin {
    /// Which rows.
    pub kind: JoinKind,
    /// The left schema.
    pub left: SchemaRef,
    /// The right schema.
    pub right: SchemaRef,
    /// Equal keys, the window's start and end among them.
    pub keys: Vec<(Expr, Expr)>,
    /// Of `window_end` on the left.
    pub left_end: usize,
    /// Of `window_end` on the right.
    pub right_end: usize,
    /// What else must hold, over both.
    pub filter: Option<Expr>,
    /// As in [`IntervalJoin`].
    pub output: SchemaRef,
}

/// `JOIN reference FOR SYSTEM_TIME AS OF ...`: with the table as it is when the row comes. The rows of the table are set
/// by the job; [`crate::operator::Operator`] implementations get them by `set_reference`.
#[derive(Clone, Debug)]
pub struct LookupJoin {
    /// `Inner` or `Left`.
    pub kind: JoinKind,
    /// The reference table's name.
    pub table: String,
    /// The left schema.
    pub left: SchemaRef,
    /// The reference's schema.
    pub right: SchemaRef,
    /// Equal keys, left and right.
    pub keys: Vec<(Expr, Expr)>,
    /// What else must hold, over both.
    pub filter: Option<Expr>,
    /// The left's columns and then the right's.
    pub output: SchemaRef,
}

/// `MATCH_RECOGNIZE`. Rows are taken in order of time when the watermark passes them.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// The schema that comes in.
    pub input: SchemaRef,
    /// `PARTITION BY`.
    pub partition: Vec<Expr>,
    /// Of the time column of `ORDER BY`.
    pub time: usize,
    /// The variables in their order, each with how often: the pattern is their sequence (Flink has no alternation).
    pub elements: Vec<Element>,
    /// `WITHIN INTERVAL`: matches must span less than this.
    pub within: Option<Millis>,
    /// `AFTER MATCH SKIP PAST LAST ROW`; else `SKIP TO NEXT ROW`.
    pub skip_past_last: bool,
    /// `MEASURES`, after the partition's columns in the output: one row per match.
    pub measures: Vec<Measure>,
    /// The partition's columns, then the measures.
    pub output: SchemaRef,
}

/// A variable of a pattern.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// At least so many rows.
    pub least: u32,
    /// At most; none: no bound (the planner wants the next element not to be greedy-ambiguous, as Flink does).
    pub most: Option<u32>,
    /// `?` behind the quantifier: as few as may be.
    pub reluctant: bool,
    /// What holds for each of its rows; none: anything. Over the extended schema of [`Pattern`]: the row's own columns,
    /// then one column for each of `refers`.
    pub define: Option<Expr>,
    /// What `define` asks of other rows (`LAST(A.x)`, `PREV(x)`, `COUNT(A.x)`), in the order of the added columns.
    pub refers: Vec<Reference>,
}

/// A value taken from the rows matched so far.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Of which variable (the index among the elements); none: of all rows.
    pub variable: Option<usize>,
    /// Which.
    pub of: Pick,
    /// The value, over the row's columns.
    pub value: Expr,
}

/// Which of a variable's rows, or what of all.
#[derive(Clone, Debug)]
pub enum Pick {
    /// `FIRST(x, n)`: the n-th from the first.
    First(usize),
    /// `LAST(x, n)`: the n-th from the last.
    Last(usize),
    /// An aggregate of all.
    Aggregate(Arc<AggregateFunctionExpr>),
}

/// A column of a match: an expression over one column for each of `refers`.
#[derive(Clone, Debug)]
pub struct Measure {
    /// What it is made of.
    pub refers: Vec<Reference>,
    /// The value, over the columns of `refers`.
    pub value: Expr,
}
