//! State on disk: a directory with a manifest and one file for each step that remembers something.
#![allow(
    clippy::disallowed_methods,
    reason = "snapshots are files in a directory of the caller"
)]

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Job;
use crate::marks::Partitions;
use crate::operator::{Fault, Millis};

/// The file that says what the others are.
const MANIFEST: &str = "manifest.json";
/// The layout of a snapshot; another one is refused.
const VERSION: u32 = 1;
/// The longest manifest.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    /// Event time of the partitions of each source, by the table's name.
    sources: Vec<(String, Partitions)>,
    steps: Vec<Kept>,
}

/// A step's state.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the step does, and on what.
    fingerprint: u64,
    /// For people.
    what: String,
    /// How far event time had come.
    applied: Option<Millis>,
    /// The file, where there is state.
    file: Option<String>,
    /// Its length.
    bytes: u64,
}

impl Job {
    /// Writes all state into an empty directory, durably; gives the bytes. The rows that wait to be taken are no part of it.
    pub fn snapshot(&mut self, into: &Path) -> Result<u64, Fault> {
        let wrong =
            |error: std::io::Error| Fault::State(format!("State cannot be written to {}: {error}", into.display()));
        let mut steps = Vec::new();
        let mut bytes = 0;
        let nodes = self.program.nodes.iter().zip(&self.fingerprints);
        for (index, (running, (node, fingerprint))) in self.steps.iter_mut().zip(nodes).enumerate() {
            let mut kept = Kept {
                fingerprint: *fingerprint,
                what: node.step.describe(),
                applied: running.applied,
                file: None,
                bytes: 0,
            };
            if node.step.has_state()
                && let Some(operator) = running.operation.operator_mut()
            {
                let name = format!("step-{index}");
                let file = File::create_new(into.join(&name)).map_err(wrong)?;
                let mut file = BufWriter::with_capacity(1 << 20, file);
                operator.snapshot(&mut file)?;
                let file = file.into_inner().map_err(|error| wrong(error.into_error()))?;
                file.sync_all().map_err(wrong)?;
                kept.bytes = file.metadata().map_err(wrong)?.len();
                kept.file = Some(name);
                bytes += kept.bytes;
            }
            steps.push(kept);
        }
        let names = self.program.sources.iter().map(|table| table.name.clone());
        let manifest = Manifest {
            version: VERSION,
            sources: names.zip(self.partitions.iter().cloned()).collect(),
            steps,
        };
        let text = serde_json::to_vec(&manifest).map_err(|error| wrong(error.into()))?;
        let mut file = File::create_new(into.join(MANIFEST)).map_err(wrong)?;
        file.write_all(&text).map_err(wrong)?;
        file.sync_all().map_err(wrong)?;
        File::open(into)
            .and_then(|directory| directory.sync_all())
            .map_err(wrong)?;
        Ok(bytes + u64::try_from(text.len()).unwrap_or(u64::MAX))
    }

    /// Brings state back, into a job that has none. State of steps that this program has not is refused, or left out where
    /// that is allowed; a step without state in the snapshot begins with none.
    pub fn restore(&mut self, from: &Path, allow_non_restored: bool) -> Result<(), Fault> {
        let manifest = read(from)?;
        let mut left: Vec<&Kept> = manifest.steps.iter().collect();
        for index in 0..self.steps.len() {
            let wanted = self.fingerprints.get(index).copied().unwrap_or(0);
            let Some(at) = left.iter().position(|kept| kept.fingerprint == wanted) else {
                continue;
            };
            let kept = left.remove(at);
            self.restore_step(index, kept, from)?;
        }
        let lost = left.iter().find(|kept| kept.file.is_some() && kept.bytes > 0);
        if let Some(lost) = lost.filter(|_| !allow_non_restored) {
            return Err(Fault::State(format!(
                "The snapshot has state of a step that the statements have not: {}",
                lost.what
            )));
        }
        for (name, partitions) in manifest.sources {
            let at = self.program.sources.iter().position(|table| table.name == name);
            if let Some(mine) = at.and_then(|at| self.partitions.get_mut(at)) {
                *mine = partitions;
            }
        }
        // Steps are told where event time was: nothing comes of it that was not given before.
        for index in 0..self.steps.len() {
            let Some(running) = self.steps.get_mut(index) else {
                continue;
            };
            let Some(at) = running.applied else { continue };
            let mut out = Vec::new();
            running.operation.watermark(at, &mut out)?;
            running.told = crate::marks::Mark::At(running.operation.passes_on(at));
            self.deliver(index, out)?;
        }
        self.advance()
    }

    fn restore_step(&mut self, index: usize, kept: &Kept, from: &Path) -> Result<(), Fault> {
        let Some(running) = self.steps.get_mut(index) else {
            return Ok(());
        };
        running.applied = kept.applied;
        let Some(name) = &kept.file else { return Ok(()) };
        let path = from.join(name);
        let wrong =
            |error: std::io::Error| Fault::State(format!("State cannot be read from {}: {error}", path.display()));
        if name.contains(['/', '\\']) {
            return Err(Fault::State(format!("{name:?} in a snapshot is no file of it")));
        }
        let file = File::open(&path).map_err(wrong)?;
        if file.metadata().map_err(wrong)?.len() != kept.bytes {
            return Err(Fault::State(format!(
                "{} has not the length that it had",
                path.display()
            )));
        }
        match running.operation.operator_mut() {
            Some(operator) => operator.restore(&mut BufReader::with_capacity(1 << 20, file)),
            None => Ok(()),
        }
    }
}

fn read(from: &Path) -> Result<Manifest, Fault> {
    let path = from.join(MANIFEST);
    let wrong =
        |error: &dyn std::fmt::Display| Fault::State(format!("State cannot be read from {}: {error}", path.display()));
    let length = fs::metadata(&path).map_err(|error| wrong(&error))?.len();
    if length > MANIFEST_BYTES_MAX {
        return Err(wrong(&format!("it has {length} bytes")));
    }
    let text = fs::read(&path).map_err(|error| wrong(&error))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| wrong(&error))?;
    match manifest.version {
        VERSION => Ok(manifest),
        other => Err(wrong(&format!("it is of version {other}, and {VERSION} is read"))),
    }
}
