//! `sightglass models add`: a user's embedding model is tried out in the worker, and then taken into the folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use vision::manifest::{ID_DIGITS, Manifest};

use super::super::Failure;
use super::{CALIBRATIONS, digest, hex, read_added, read_manifest};
use crate::cli::{Colours, ModelsAddArgs};

/// Characters of a name; with the digits it must be a FaceModelVersion.
const NAME_CHARS_MAX: usize = 64;
/// The list of `added.json`.
const EMBEDDERS: &str = "embedders";

/// Runs the command.
pub fn run(folder: &Path, args: &ModelsAddArgs, as_json: bool) -> Result<ExitCode, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if args.name.is_empty()
        || args.name.len() > NAME_CHARS_MAX
        || !args.name.starts_with(char::is_alphanumeric)
        || !args.name.chars().all(plain)
    {
        return Err(format!("a name is 1 to {NAME_CHARS_MAX} letters, digits, '.' and '-'").into());
    }
    if !args.mean.is_finite() || !args.scale.is_normal() {
        return Err("--mean and --scale must be numbers, and --scale not 0".into());
    }
    let manifest = read_manifest(folder)?;
    let mut added = read_added(folder)?;
    let mut entry = entry(args)?;
    let id = text(&entry, "id").to_owned();
    if ids(&manifest, &added).any(|known| known == id) {
        return Err(format!("{id} is in the folder already").into());
    }
    let worker = crate::sight::program(args.worker.as_ref(), "SIGHTGLASS_WORKER", crate::sight::WORKER);
    let length = tried(folder, &manifest, &entry, &args.file, &worker)?;
    entry.insert("length".to_owned(), json!(length));
    let file = text(&entry, "file").to_owned();
    put(&args.file, &folder.join(&file))?;
    let others = added.entry(EMBEDDERS).or_insert_with(|| json!([]));
    let others = others.as_array_mut().ok_or("the list of added embedders is none")?;
    others.push(Value::Object(entry.clone()));
    write_json(&Manifest::added_path(folder), &added)?;
    if as_json {
        println!("{}", Value::Object(entry));
    } else {
        println!("{id}: vectors of {length} numbers, in {file}");
        println!(
            "Choose it by vision.embedder = \"{}\" in the server's configuration.",
            args.name
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The embedder as the manifest has it, but for its length. Its id says what it is: the same name over another file or
/// form is another model.
fn entry(args: &ModelsAddArgs) -> Result<Map<String, Value>, Failure> {
    let sha256 = digest(&args.file)?;
    let channels = match args.colours {
        Colours::Rgb => "rgb",
        Colours::Bgr => "bgr",
    };
    let form = format!("{sha256} {channels} {} {}", args.mean, args.scale);
    let content: String = hex(&Sha256::digest(form)).chars().take(ID_DIGITS).collect();
    let id = format!("{}-{content}", args.name);
    let value = json!({
        "id": id, "licence": args.licence, "source": args.source, "file": format!("{id}.onnx"), "sha256": sha256,
        "channels": channels, "mean": args.mean, "scale": args.scale,
    });
    match value {
        Value::Object(entry) => Ok(entry),
        _ => Err("no entry".into()),
    }
}

/// Runs the model in a folder of its own that has the other files beside it; how long its vectors are.
fn tried(
    folder: &Path,
    manifest: &Map<String, Value>,
    entry: &Map<String, Value>,
    file: &Path,
    worker: &Path,
) -> Result<usize, Failure> {
    let stage = tempfile::Builder::new().prefix(".trial-").tempdir_in(folder)?;
    let mut files = Vec::new();
    manifest.values().for_each(|value| collect_files(value, &mut files));
    for name in files {
        let from = folder.join(&name);
        if from.is_file() {
            link(&from, &stage.path().join(&name))?;
        }
    }
    put(file, &stage.path().join(text(entry, "file")))?;
    let mut trial = manifest.clone();
    trial.insert("embedder".to_owned(), Value::Object(entry.clone()));
    write_json(&Manifest::path(stage.path()), &trial)?;
    let failed = |why: String| format!("{} cannot be used: {why}", file.display());
    Ok(vision::candidate::measure(worker, &std::path::absolute(stage.path())?).map_err(failed)?)
}

/// The files that a manifest's entries name, wherever they stand.
fn collect_files(value: &Value, files: &mut Vec<PathBuf>) {
    match value {
        Value::Object(members) => {
            let file = members.get("file").and_then(Value::as_str).map(Path::new);
            files.extend(file.and_then(Path::file_name).map(PathBuf::from));
            members.values().for_each(|value| collect_files(value, files));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_files(value, files)),
        _ => {}
    }
}

/// Every id that a collection may have as its model.
fn ids<'a>(manifest: &'a Map<String, Value>, added: &'a Map<String, Value>) -> impl Iterator<Item = &'a str> {
    let others = added.get(EMBEDDERS).and_then(Value::as_array).into_iter().flatten();
    let all = manifest.get("embedder").into_iter().chain(others);
    all.filter_map(|entry| entry.get("id")?.as_str())
}

/// Writes what the cosines of one of the folder's embedders mean, in the place of what was known of it.
pub fn calibrate(folder: &Path, id: &str, points: &[(f64, f64)]) -> Result<(), Failure> {
    let mut added = read_added(folder)?;
    if !ids(&read_manifest(folder)?, &added).any(|known| known == id) {
        return Err(format!("{} has no embedder {id}", folder.display()).into());
    }
    let calibrations = added.entry(CALIBRATIONS).or_insert_with(|| json!({}));
    let calibrations = calibrations
        .as_object_mut()
        .ok_or("the calibrations that were added are no object")?;
    calibrations.insert(id.to_owned(), json!(points));
    write_json(&Manifest::added_path(folder), &added)
}

fn text<'a>(entry: &'a Map<String, Value>, member: &str) -> &'a str {
    entry.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// The file under its new name, without a copy where the file system can do without.
fn link(from: &Path, to: &Path) -> Result<(), Failure> {
    if std::fs::hard_link(from, to).is_err() {
        put(from, to)?;
    }
    Ok(())
}

/// Copies a file so that it is whole or not there.
#[allow(
    clippy::disallowed_methods,
    reason = "models are written where there is no Disk: they are not data"
)]
fn put(from: &Path, to: &Path) -> Result<(), Failure> {
    let beside = to.with_extension("new");
    std::fs::copy(from, &beside).map_err(|error| format!("{}: {error}", from.display()))?;
    std::fs::rename(&beside, to)?;
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "models are written where there is no Disk: they are not data"
)]
fn write_json(path: &Path, manifest: &Map<String, Value>) -> Result<(), Failure> {
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, serde_json::to_string_pretty(manifest)? + "\n")?;
    std::fs::rename(&beside, path)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "makes a folder to read")]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_is_written_for_the_embedder_that_is_named_and_takes_the_place_of_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = json!({ "format": 1, "embedder": { "id": "a", "file": "a.onnx" } });
        std::fs::write(Manifest::path(folder.path()), manifest.to_string()).unwrap();
        let added = json!({ "embedders": [{ "id": "b", "x": 1 }] });
        std::fs::write(Manifest::added_path(folder.path()), added.to_string()).unwrap();
        calibrate(folder.path(), "b", &[(0.5, 80.0)]).unwrap();
        calibrate(folder.path(), "a", &[(0.75, 90.0)]).unwrap();
        calibrate(folder.path(), "a", &[(0.25, 70.0), (0.75, 90.0)]).unwrap();
        assert!(calibrate(folder.path(), "c", &[]).is_err());
        let wanted = json!({ "embedders": [{ "id": "b", "x": 1 }],
            "calibrations": { "a": [[0.25, 70.0], [0.75, 90.0]], "b": [[0.5, 80.0]] } });
        assert_eq!(Value::Object(read_added(folder.path()).unwrap()), wanted);
        assert_eq!(Value::Object(read_manifest(folder.path()).unwrap()), manifest);
    }

    #[test]
    fn the_same_file_read_in_another_way_is_another_model() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.onnx");
        std::fs::write(&file, b"weights").unwrap();
        let args = |mean, colours| ModelsAddArgs {
            name: "mine".to_owned(),
            file: file.clone(),
            mean,
            scale: 1.0,
            colours,
            licence: String::new(),
            source: String::new(),
            worker: None,
        };
        let id = |mean, colours| text(&entry(&args(mean, colours)).unwrap(), "id").to_owned();
        let first = id(0.0, Colours::Rgb);
        assert_eq!((first.len(), first.starts_with("mine-")), (5 + ID_DIGITS, true));
        assert_eq!(first, id(0.0, Colours::Rgb));
        assert!(first != id(1.0, Colours::Rgb) && first != id(0.0, Colours::Bgr));
    }
}
