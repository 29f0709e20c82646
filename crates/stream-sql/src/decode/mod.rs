//! Records into batches: JSON at the paths of columns, metadata, computed columns, and the time of events.
//!
//! Only what statements use is decoded; other columns of a table are NULL in its batches.

mod column;
mod json;
pub(crate) mod path;
pub(crate) mod scalar;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, StringArray, TimestampMillisecondArray, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::operator::Millis;
use crate::plan::types::UTC;
use crate::spec::Expr;
use column::Column;
use json::Unfit;
use path::Tree;

/// A record of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// When it arrived, in milliseconds since 1970.
    pub arrival_ms: i64,
    /// Its partition key.
    pub partition_key: &'a str,
    /// Its sequence number.
    pub sequence_number: &'a str,
    /// The shard it came from.
    pub shard: &'a str,
}

/// A record that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its position among the records given.
    pub index: usize,
    /// Why, for people.
    pub reason: String,
}

/// What records are.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// A row for each record that fits.
    pub batch: RecordBatch,
    /// The others, by position.
    pub rejected: Vec<Rejected>,
    /// The greatest time of events, where the table has one and there are rows.
    pub greatest: Option<Millis>,
}

/// Where a column's values come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A place in the record.
    Json,
    /// What the stream says of it.
    Metadata(Metadata),
    /// The other columns.
    Computed(Expr),
    /// Nobody asks.
    Unused,
}

/// What a stream says of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Metadata {
    Timestamp,
    PartitionKey,
    SequenceNumber,
    Shard,
}

/// Makes batches of a table's records. A function of the records alone; clones share what they are made of.
#[derive(Clone, Debug)]
pub struct Decoder(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub schema: SchemaRef,
    pub tree: Tree,
    pub origins: Vec<Origin>,
    pub rowtime: Option<usize>,
    pub fail_on_missing: bool,
    pub ignore_errors: bool,
}

impl Decoder {
    pub(crate) fn new(inner: Inner) -> Decoder {
        Decoder(Arc::new(inner))
    }

    /// The columns of the batches.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    /// Decodes records. Those that do not fit are told and left out.
    pub fn decode(&self, records: &[Record<'_>]) -> Decoded {
        let mut rejected = Vec::new();
        let batch = match self.0.physical(records, &mut rejected) {
            Ok((batch, kept)) => self.0.complete(batch, kept, &mut rejected),
            // A column of more than 2 GiB: nothing of this call can be kept.
            Err(reason) => {
                rejected = (0..records.len())
                    .map(|index| Rejected {
                        index,
                        reason: reason.clone(),
                    })
                    .collect();
                RecordBatch::new_empty(self.schema())
            }
        };
        rejected.sort_by_key(|one| one.index);
        let greatest = self.0.rowtime.and_then(|at| greatest(batch.column(at).as_ref()));
        Decoded {
            batch,
            rejected,
            greatest,
        }
    }
}

fn greatest(times: &dyn Array) -> Option<Millis> {
    let times = times.as_any().downcast_ref::<TimestampMillisecondArray>()?;
    arrow::compute::max(times)
}

impl Inner {
    /// The columns that are in the records themselves, and the index of each row's record.
    fn physical(
        &self,
        records: &[Record<'_>],
        rejected: &mut Vec<Rejected>,
    ) -> Result<(RecordBatch, Vec<usize>), String> {
        let json = |origin: &Origin| matches!(origin, Origin::Json);
        let types = self
            .schema
            .fields()
            .iter()
            .zip(&self.origins)
            .filter(|(_, origin)| json(origin));
        let mut columns = types
            .map(|(field, _)| Column::new(field.data_type()))
            .collect::<Result<Vec<_>, _>>()?;
        let unfit = if self.ignore_errors { Unfit::Null } else { Unfit::Refuse };
        let mut kept = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let row = kept.len();
            let mut read = json::read(record.data, &self.tree, &mut columns, row, unfit);
            if self.fail_on_missing && read.is_ok() && columns.iter().any(|column| column.len() == row) {
                read = Err("a member is missing".to_owned());
            }
            match read {
                Ok(()) => {
                    columns
                        .iter_mut()
                        .filter(|column| column.len() == row)
                        .for_each(Column::null);
                    kept.push(index);
                }
                Err(reason) => {
                    columns.iter_mut().for_each(|column| column.truncate(row));
                    rejected.push(Rejected { index, reason });
                }
            }
        }
        let mut columns = columns
            .into_iter()
            .map(|column| column.finish().map_err(|e| e.to_string()));
        let of = |origin: &Origin, data_type: &arrow::datatypes::DataType| match origin {
            Origin::Json => columns
                .next()
                .unwrap_or_else(|| Ok(new_null_array(data_type, kept.len()))),
            Origin::Metadata(what) => Ok(metadata(*what, records, &kept)),
            Origin::Computed(_) | Origin::Unused => Ok(new_null_array(data_type, kept.len())),
        };
        let arrays = self.arrays(of)?;
        Ok((self.batch(arrays, kept.len())?, kept))
    }

    fn arrays(
        &self,
        mut of: impl FnMut(&Origin, &arrow::datatypes::DataType) -> Result<ArrayRef, String>,
    ) -> Result<Vec<ArrayRef>, String> {
        let fields = self.schema.fields().iter().zip(&self.origins);
        fields.map(|(field, origin)| of(origin, field.data_type())).collect()
    }

    fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, String> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(|e| e.to_string())
    }

    /// Adds the computed columns and leaves out rows without a time.
    fn complete(&self, batch: RecordBatch, mut kept: Vec<usize>, rejected: &mut Vec<Rejected>) -> RecordBatch {
        let computes = self.origins.iter().any(|origin| matches!(origin, Origin::Computed(_)));
        let batch = match computes {
            false => batch,
            true => match self.compute(&batch) {
                Ok(batch) => batch,
                Err(_) => self.compute_singly(&batch, &mut kept, rejected),
            },
        };
        let Some(times) = self.rowtime.map(|at| batch.column(at)) else {
            return batch;
        };
        if times.null_count() == 0 {
            return batch;
        }
        let timed: BooleanArray = (0..times.len()).map(|row| Some(times.is_valid(row))).collect();
        for (row, index) in kept.iter().enumerate() {
            if times.is_null(row) {
                let reason = "the time of the event is NULL".to_owned();
                rejected.push(Rejected { index: *index, reason });
            }
        }
        filter_record_batch(&batch, &timed).unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&self.schema)))
    }

    fn compute(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let mut arrays = Vec::with_capacity(batch.num_columns());
        for (origin, array) in self.origins.iter().zip(batch.columns()) {
            arrays.push(match origin {
                Origin::Computed(expr) => {
                    let value = expr
                        .evaluate(batch)
                        .and_then(|value| value.into_array(batch.num_rows()));
                    value.map_err(|error| error.strip_backtrace())?
                }
                _ => Arc::clone(array),
            });
        }
        self.batch(arrays, batch.num_rows())
    }

    /// Row by row, to find those that cannot be computed.
    fn compute_singly(&self, batch: &RecordBatch, kept: &mut Vec<usize>, rejected: &mut Vec<Rejected>) -> RecordBatch {
        let (mut rows, mut indices) = (Vec::new(), Vec::new());
        for (row, index) in kept.iter().enumerate() {
            match self.compute(&batch.slice(row, 1)) {
                Ok(one) => {
                    rows.push(one);
                    indices.push(*index);
                }
                Err(reason) => rejected.push(Rejected { index: *index, reason }),
            }
        }
        *kept = indices;
        let joined = arrow::compute::concat_batches(&self.schema, &rows);
        joined.unwrap_or_else(|_| RecordBatch::new_empty(Arc::clone(&self.schema)))
    }
}

fn metadata(what: Metadata, records: &[Record<'_>], kept: &[usize]) -> ArrayRef {
    let kept = kept.iter().filter_map(|index| records.get(*index));
    let text = |of: fn(&Record<'_>) -> String, kept: &mut dyn Iterator<Item = &Record<'_>>| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(kept.map(of)))
    };
    let mut kept = kept;
    match what {
        Metadata::Timestamp => {
            let times = TimestampMillisecondArray::from_iter_values(kept.map(|record| record.arrival_ms));
            Arc::new(times.with_timezone(UTC))
        }
        Metadata::PartitionKey => text(|record| record.partition_key.to_owned(), &mut kept),
        Metadata::SequenceNumber => text(|record| record.sequence_number.to_owned(), &mut kept),
        Metadata::Shard => text(|record| record.shard.to_owned(), &mut kept),
    }
}

impl Decoder {
    /// One of no columns.
    pub(crate) fn none() -> Decoder {
        Decoder::new(Inner {
            schema: Arc::new(arrow::datatypes::Schema::empty()),
            tree: Tree::default(),
            origins: Vec::new(),
            rowtime: None,
            fail_on_missing: false,
            ignore_errors: false,
        })
    }
}
