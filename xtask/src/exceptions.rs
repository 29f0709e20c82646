//! `cargo xtask exceptions`: the places that take time or bytes past Clock and Disk are the ones that
//! docs/design/clock-and-disk.md lists, each with its reason (invariant 10).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

const LIST: &str = "docs/design/clock-and-disk.md";

/// Compares the files with an `allow(clippy::disallowed_methods)` with the list; the error names each difference.
pub fn check() -> Result<(), Failure> {
    let mut found = BTreeSet::new();
    collect(Path::new("crates"), &mut found)?;
    let text = std::fs::read_to_string(LIST)?;
    let listed: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    let unlisted = found
        .difference(&listed)
        .map(|file| format!("{file}: goes past Clock or Disk; list it in {LIST}"));
    let stale = listed
        .difference(&found)
        .map(|file| format!("{file}: listed in {LIST}, needs no exception any more"));
    let differences: Vec<String> = unlisted.chain(stale).collect();
    if differences.is_empty() {
        println!("exceptions: {} files go past Clock or Disk, all listed", found.len());
        return Ok(());
    }
    Err(differences.join("\n").into())
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) -> Result<(), Failure> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let is_test = path
            .file_name()
            .is_some_and(|name| name == "tests" || name == "examples");
        if path.is_dir() && !is_test {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path)?;
            if text.contains("clippy::disallowed_methods") {
                found.insert(path.display().to_string());
            }
        }
    }
    Ok(())
}
