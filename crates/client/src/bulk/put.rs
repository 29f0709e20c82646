//! PutRecords of many rows.

use super::cbor::{ARRAY, MAP, Reader, write_bytes, write_head, write_text};
use super::{BulkStream, CBOR};
use crate::call::Service;
use crate::error::ClientError;

/// Rows of one call. AWS: 500.
pub const PUT_RECORDS_MAX: usize = 500;

/// Bytes of data and keys of one call. AWS: 5 MiB until 2025, 10 MiB since.
pub const PUT_BYTES_MAX: usize = 5 * 1024 * 1024;

/// A row that is to be put.
#[derive(Clone, Copy, Debug)]
pub struct PutRow<'a> {
    /// Its payload.
    pub data: &'a [u8],
    /// Its partition key.
    pub partition_key: &'a str,
    /// Decides on the shard in the key's stead.
    pub explicit_hash_key: Option<u128>,
}

impl PutRow<'_> {
    fn bytes(&self) -> usize {
        self.data.len() + self.partition_key.len()
    }
}

/// A row that the server did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPut {
    /// Which.
    pub index: usize,
    /// The error's name.
    pub code: String,
    /// The server's words.
    pub message: String,
}

impl BulkStream {
    /// Puts rows with as many calls as it takes, one after the other, and names those that the server did not take. After an
    /// error it is not known which rows of the call are in the stream; `done` says how many rows were settled before it.
    pub async fn put(&self, rows: &[PutRow<'_>], done: &mut usize) -> Result<Vec<NotPut>, ClientError> {
        let mut failed = Vec::new();
        *done = 0;
        while let Some(rest) = rows.get(*done..).filter(|rest| !rest.is_empty()) {
            let count = fitting(rest);
            let call = rest.get(..count).unwrap_or(rest);
            let answer = self
                .client
                .call_bytes(Service::Kinesis, "PutRecords", CBOR, self.request(call).into());
            let not_put = not_put(&answer.await?)?;
            failed.extend(not_put.into_iter().map(|row| NotPut {
                index: row.index + *done,
                ..row
            }));
            *done += count;
        }
        Ok(failed)
    }

    fn request(&self, rows: &[PutRow<'_>]) -> Vec<u8> {
        let bytes: usize = rows.iter().map(|row| row.bytes() + 96).sum();
        let mut out = Vec::with_capacity(bytes + 256);
        write_head(&mut out, MAP, 2);
        write_text(&mut out, self.field());
        write_text(&mut out, self.stream());
        write_text(&mut out, "Records");
        write_head(&mut out, ARRAY, rows.len() as u64);
        for row in rows {
            write_head(&mut out, MAP, 2 + u64::from(row.explicit_hash_key.is_some()));
            write_text(&mut out, "Data");
            write_bytes(&mut out, row.data);
            write_text(&mut out, "PartitionKey");
            write_text(&mut out, row.partition_key);
            if let Some(key) = row.explicit_hash_key {
                write_text(&mut out, "ExplicitHashKey");
                write_text(&mut out, &key.to_string());
            }
        }
        out
    }
}

/// How many rows from the first on go into one call; one at least.
fn fitting(rows: &[PutRow<'_>]) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take(PUT_RECORDS_MAX).take_while(|row| {
        bytes += row.bytes();
        bytes <= PUT_BYTES_MAX
    });
    fits.count().max(1)
}

fn not_put(answer: &[u8]) -> Result<Vec<NotPut>, ClientError> {
    let mut reader = Reader::new(answer);
    let mut failed = Vec::new();
    let Some(mut members) = reader.begin(MAP)? else {
        return Ok(failed);
    };
    while reader.more(&mut members)? {
        if reader.text()? != "Records" {
            reader.skip()?;
            continue;
        }
        let mut list = reader.begin(ARRAY)?;
        let mut index = 0;
        while let Some(entries) = &mut list
            && reader.more(entries)?
        {
            let (code, message) = entry(&mut reader)?;
            if !code.is_empty() {
                failed.push(NotPut { index, code, message });
            }
            index += 1;
        }
    }
    Ok(failed)
}

fn entry(reader: &mut Reader<'_>) -> Result<(String, String), ClientError> {
    let (mut code, mut message) = (String::new(), String::new());
    let mut members = reader.begin(MAP)?;
    while let Some(entries) = &mut members
        && reader.more(entries)?
    {
        match reader.text()? {
            "ErrorCode" => code = reader.text()?.to_owned(),
            "ErrorMessage" => message = reader.text()?.to_owned(),
            _ => reader.skip()?,
        }
    }
    Ok((code, message))
}

#[cfg(test)]
mod tests {
    use super::super::cbor::write_json;
    use super::*;

    #[test]
    fn a_call_takes_as_much_as_it_may_and_never_nothing() {
        let row = |data| PutRow {
            data,
            partition_key: "k",
            explicit_hash_key: None,
        };
        let (small, large) = (vec![0; 10], vec![0; PUT_BYTES_MAX]);
        assert_eq!(fitting(&vec![row(&small); 501]), 500);
        assert_eq!(fitting(&[row(&large), row(&small)]), 1);
        let mebibyte = vec![0; 1024 * 1024];
        assert_eq!(fitting(&vec![row(&mebibyte); 6]), 4);
    }

    #[test]
    fn rows_that_were_not_taken_are_named() {
        let mut answer = Vec::new();
        let entries = serde_json::json!({"FailedRecordCount": 1, "Records": [
            {"SequenceNumber": "1", "ShardId": "s"},
            {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow"},
            {"SequenceNumber": "2", "ShardId": "s", "ErrorCode": null},
        ]});
        write_json(&mut answer, &entries);
        let failed = not_put(&answer).unwrap();
        assert_eq!(failed.len(), 1);
        assert_eq!((failed[0].index, &*failed[0].message), (1, "slow"));
    }
}
