//! Trying an embedding model out before it is taken into a folder of models: the worker itself loads and runs it, behind
//! its locks, since the file is a stranger's.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::protocol::{FromWorker, MAX_EMBEDDING, MAX_FROM_WORKER, VERSION, length};

/// Tells the worker that the embedder's length is to be found out.
pub const MEASURE: &str = "--measure";

/// Runs the embedder of a folder whose manifest may leave its length out; the numbers in its vectors. The error is in
/// words for the operator.
pub fn measure(worker: &Path, folder: &Path) -> Result<usize, String> {
    let output = Command::new(worker)
        .arg(folder)
        .arg(MEASURE)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", worker.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("vision-worker: ");
        return Err(if said.is_empty() {
            output.status.to_string()
        } else {
            said.to_owned()
        });
    }
    match ready(&output.stdout) {
        Some(found @ 1..=MAX_EMBEDDING) => Ok(found),
        Some(found) => Err(format!(
            "its vectors have {found} numbers, and not 1 to {MAX_EMBEDDING}"
        )),
        None => Err("the worker is of another build".to_owned()),
    }
}

fn ready(said: &[u8]) -> Option<usize> {
    let whole = length(*said.first_chunk::<4>()?, MAX_FROM_WORKER).ok()?;
    match FromWorker::decode(said.get(4..4 + whole)?).ok()? {
        FromWorker::Ready {
            version, embedding_len, ..
        } if version == VERSION => usize::try_from(embedding_len).ok(),
        _ => None,
    }
}
