//! Where the service models come from: the wheel of botocore, pinned by version and SHA-256.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::Outcome;
use super::model::Model;
use super::services::SERVICES;

const VERSION: &str = "1.44.5";
const WHEEL: &str = "botocore-1.44.5-py3-none-any.whl";
const WHEEL_SHA256: &str = "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921";

/// The models of all services, from `folder` (an unpacked botocore or its `data` folder) or else from the pinned wheel.
pub fn load(root: &Path, folder: Option<PathBuf>) -> Outcome<Vec<Model>> {
    let data = match folder {
        Some(folder) => find_data(&folder)?,
        None => fetched(&root.join(".cache/models"))?,
    };
    SERVICES
        .iter()
        .map(|service| {
            let folder = data.join(service.model).join(service.version);
            let text = read_model(&folder)?;
            Model::parse(service, &text).map_err(|e| format!("{}: {e}", folder.display()))
        })
        .collect()
}

fn find_data(folder: &Path) -> Outcome<PathBuf> {
    [folder.join("botocore/data"), folder.join("data"), folder.to_owned()]
        .into_iter()
        .find(|candidate| candidate.join("kinesisvideo").is_dir())
        .ok_or_else(|| format!("{}: no service models there", folder.display()))
}

/// `service-2.json` or `service-2.json.gz` of a model's folder.
fn read_model(folder: &Path) -> Outcome<String> {
    let plain = folder.join("service-2.json");
    if let Ok(text) = std::fs::read_to_string(&plain) {
        return Ok(text);
    }
    let path = folder.join("service-2.json.gz");
    let packed = std::fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text)
}

/// Downloads the wheel with pip, checks it, and unpacks it beside itself; at once when that was done before.
fn fetched(cache: &Path) -> Outcome<PathBuf> {
    let unpacked = cache.join(VERSION);
    if let Ok(data) = find_data(&unpacked) {
        return Ok(data);
    }
    std::fs::create_dir_all(cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let wheel = cache.join(WHEEL);
    if !wheel.is_file() {
        let requirement = format!("botocore=={VERSION}");
        let arguments = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
        ];
        run(Command::new("python3").args(arguments).arg(cache).arg(requirement))?;
    }
    let bytes = std::fs::read(&wheel).map_err(|e| format!("{}: {e}", wheel.display()))?;
    let found: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != WHEEL_SHA256 {
        return Err(format!("{}: SHA-256 is {found}, not {WHEEL_SHA256}", wheel.display()));
    }
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&unpacked))?;
    find_data(&unpacked)
}

fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {status}"))
}
