//! `sightglass models list|verify|add`: what the folder of prepared models holds, and models of the user's own in it.
//! Preparing it is `make models`, since that needs the package registries' own clients.

pub mod add;

use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use vision::manifest::Manifest;

use super::Failure;
use crate::cli::{ModelsAction, ModelsArgs};

/// One file of the folder.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(default)]
    role: String,
    id: String,
    file: String,
    sha256: String,
    licence: String,
    source: String,
    /// What `verify` found: `None` before it looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intact: Option<bool>,
}

/// Runs the command; exit code 1 when a file is not what the manifest says.
pub fn run(args: &ModelsArgs) -> Result<ExitCode, Failure> {
    if let ModelsAction::Add(model) = &args.action {
        return add::run(&args.models, model, args.json);
    }
    let mut entries = entries(&read_manifest(&args.models)?)?;
    entries.extend(self::entries(&read_added(&args.models)?)?);
    if matches!(args.action, ModelsAction::Verify) {
        for entry in &mut entries {
            entry.intact = Some(digest(&args.models.join(&entry.file))? == entry.sha256);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
    } else {
        print_table(&entries);
    }
    let damaged = entries.iter().any(|entry| entry.intact == Some(false));
    Ok(if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[allow(
    clippy::disallowed_methods,
    reason = "models are read where there is no Disk: they are not data"
)]
fn read_json(path: &Path) -> Result<Option<Map<String, Value>>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?,
        )),
        Err(none) if none.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

fn read_manifest(folder: &Path) -> Result<Map<String, Value>, Failure> {
    let path = Manifest::path(folder);
    let absent = || format!("there is no {}; `make models` prepares the folder", path.display());
    Ok(read_json(&path)?.ok_or_else(absent)?)
}

/// What was added to the folder by hand.
fn read_added(folder: &Path) -> Result<Map<String, Value>, Failure> {
    Ok(read_json(&Manifest::added_path(folder))?.unwrap_or_default())
}

/// What `faces eval --calibrate` measured, in `added.json`; no list of files.
const CALIBRATIONS: &str = "calibrations";

/// The files of a manifest, by their roles; an object without a file is a group of them.
fn entries(manifest: &Map<String, Value>) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for (role, value) in manifest.iter().filter(|(role, _)| *role != CALIBRATIONS) {
        let listed: Vec<&Value> = match value {
            Value::Object(one) if one.contains_key("file") => vec![value],
            Value::Object(group) => group.values().collect(),
            Value::Array(others) => others.iter().collect(),
            _ => continue,
        };
        for one in listed {
            entries.push(Entry {
                role: role.clone(),
                ..Entry::deserialize(one)?
            });
        }
    }
    Ok(entries)
}

#[allow(
    clippy::disallowed_methods,
    reason = "models are read where there is no Disk: they are not data"
)]
fn digest(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn print_table(entries: &[Entry]) {
    println!(
        "{:<10} {:<20} {:<30} {:<11} {:<8} source",
        "role", "id", "file", "licence", ""
    );
    for entry in entries {
        let state = match entry.intact {
            None => "",
            Some(true) => "intact",
            Some(false) => "DAMAGED",
        };
        let Entry {
            role,
            id,
            file,
            licence,
            source,
            ..
        } = entry;
        println!("{role:<10} {id:<20} {file:<30} {licence:<11} {state:<8} {source}");
    }
}
