//! What flows between operators: rows with, where rows are taken back, the kind of each.

use arrow::record_batch::RecordBatch;

/// The kind of a row in a changelog, as in Flink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `+I`
    Insert,
    /// `-U`: the row as it was before.
    UpdateBefore,
    /// `+U`: the row as it is now.
    UpdateAfter,
    /// `-D`
    Delete,
}

impl Kind {
    /// `+I`, `-U`, `+U`, `-D`.
    pub fn symbol(self) -> &'static str {
        match self {
            Kind::Insert => "+I",
            Kind::UpdateBefore => "-U",
            Kind::UpdateAfter => "+U",
            Kind::Delete => "-D",
        }
    }

    /// Whether the row is added (`+I`, `+U`) and not taken away.
    pub fn adds(self) -> bool {
        matches!(self, Kind::Insert | Kind::UpdateAfter)
    }
}

/// Rows. `kinds` is empty where each is an insert, else as long as `rows`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The rows, in order.
    pub rows: RecordBatch,
    /// The kinds, or none.
    pub kinds: Vec<Kind>,
}

impl Batch {
    /// Rows that are all added.
    pub fn inserts(rows: RecordBatch) -> Batch {
        Batch {
            rows,
            kinds: Vec::new(),
        }
    }

    /// The kind of a row.
    pub fn kind(&self, row: usize) -> Kind {
        self.kinds.get(row).copied().unwrap_or(Kind::Insert)
    }
}
