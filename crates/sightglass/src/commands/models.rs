//! `sightglass models list|verify`: what the folder of prepared models holds. Preparing it is `make models`, since it
//! needs the package registries' own clients.

use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

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
    let mut entries = read_manifest(&args.models)?;
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
fn read_manifest(folder: &Path) -> Result<Vec<Entry>, Failure> {
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("{}: {e}; `make models` prepares the folder", path.display()))?;
    let manifest: Map<String, Value> = serde_json::from_str(&text)?;
    let mut entries = Vec::new();
    for (role, value) in manifest {
        let listed = match value {
            Value::Object(_) => vec![value],
            Value::Array(others) => others,
            _ => continue,
        };
        for one in listed {
            entries.push(Entry {
                role: role.clone(),
                ..serde_json::from_value(one)?
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
    Ok(Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect())
}

fn print_table(entries: &[Entry]) {
    println!(
        "{:<9} {:<20} {:<30} {:<11} {:<8} source",
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
        println!("{role:<9} {id:<20} {file:<30} {licence:<11} {state:<8} {source}");
    }
}
