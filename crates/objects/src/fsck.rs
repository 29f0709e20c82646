//! Checks the buckets of a data directory that nobody uses: every object's bytes are there and are what was written.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base::Disk;
use crc_fast::CrcAlgorithm;
use serde::Serialize;
use storage::Catalog;

use crate::ObjectError;
use crate::files::Files;
use crate::limits::READ_BYTES;
use crate::local::{accounts, each_row};
use crate::row::{self, Body, Id, ObjectRow, PartRow};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FsckReport {
    /// Objects in all buckets.
    pub objects: u64,
    /// Parts, of objects and of uploads that are not complete.
    pub parts: u64,
    /// Bytes that were read and compared.
    pub bytes: u64,
    /// What is wrong, a line each: durable data that is not what was written.
    pub findings: Vec<String>,
}

impl fmt::Display for FsckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} objects, {} parts, {} bytes",
            self.objects, self.parts, self.bytes
        )?;
        for finding in &self.findings {
            writeln!(f, "DAMAGE: {finding}")?;
        }
        Ok(())
    }
}

/// Sizes of the parts of an upload, by number.
type Sizes = HashMap<Id, Vec<(u16, u64)>>;

/// Checks every object and every part. An error means that they could not be read at all.
pub async fn fsck(catalog: &dyn Catalog, disk: Arc<dyn Disk>) -> Result<FsckReport, ObjectError> {
    // Nothing is removed here.
    let files = Files::new(disk, Arc::new(|| Ok(None)), Arc::new(|_| {}));
    let mut report = FsckReport::default();
    for account in accounts(catalog).await? {
        let mut sizes = Sizes::new();
        let parts = row::all_parts(account);
        each_row::<PartRow>(catalog, &parts, |rest, part| {
            report.parts += 1;
            let name = format!("account {account}, part {rest}");
            match row::part_of(rest) {
                Some((upload, number)) => sizes.entry(upload).or_default().push((number, part.size)),
                None => report.findings.push(format!("{name}: not the key of a part")),
            }
            check(&files, &name, part.file, part.size, part.crc64, &mut report);
        })
        .await?;
        let objects = row::all_objects(account);
        each_row::<ObjectRow>(catalog, &objects, |rest, object| {
            report.objects += 1;
            let name = format!("account {account}, object {rest:?}");
            match &object.body {
                Body::Empty => check(&files, &name, None, object.size, 0, &mut report),
                Body::File { id, crc64 } => check(&files, &name, Some(*id), object.size, *crc64, &mut report),
                Body::Parts { upload, numbers, count } => {
                    let all = sizes.get(upload).map(Vec::as_slice).unwrap_or_default();
                    let own = all.iter().filter(|(number, _)| row::is_within(numbers, *number));
                    let (found, bytes) = own.fold((0u64, 0u64), |(n, sum), (_, size)| (n + 1, sum + size));
                    if found != u64::from(*count) || bytes != object.size {
                        let what = format!("{name}: {found} parts of {bytes} bytes, not {count} of {}", object.size);
                        report.findings.push(what);
                    }
                }
            }
        })
        .await?;
    }
    Ok(report)
}

fn check(files: &Arc<Files>, name: &str, id: Option<Id>, size: u64, crc64: u64, report: &mut FsckReport) {
    let fault = match id {
        None if size == 0 => None,
        None => Some(format!("{size} bytes without a file")),
        Some(id) => match compare(files, id, size, crc64) {
            Ok(fault) => {
                report.bytes += size;
                fault
            }
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(fault) = fault {
        report.findings.push(format!("{name}: {fault}"));
    }
}

fn compare(files: &Arc<Files>, id: Id, size: u64, crc64: u64) -> Result<Option<String>, ObjectError> {
    let Some(file) = files.open(id)? else {
        return Ok(Some(format!("the file {id} is missing")));
    };
    let fail = |error: std::io::Error| ObjectError::io("read a file", &error);
    let len = file.len().map_err(fail)?;
    if len != size {
        return Ok(Some(format!("the file {id} has {len} bytes, not {size}")));
    }
    let (mut crc, mut buffer, mut offset) = (crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme), vec![0; READ_BYTES], 0);
    while offset < size {
        let got = file.read_at(&mut buffer, offset).map_err(fail)?;
        crc.update(buffer.get(..got).unwrap_or_default());
        offset += got as u64;
        if got == 0 {
            break;
        }
    }
    Ok((crc.finalize() != crc64).then(|| format!("the file {id} is not what was written")))
}
