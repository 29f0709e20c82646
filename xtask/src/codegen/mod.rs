//! `cargo xtask codegen [--check] [--models DIR]` writes `crates/wire/src/generated` and `docs/reference/coverage.md` from
//! the service models, or with `--check` says whether they are up to date.

mod coverage;
mod generate;
mod model;
mod models;
mod names;
mod operations;
mod services;

use std::path::{Path, PathBuf};

/// What every step returns: words for the person at the terminal.
type Outcome<T = ()> = Result<T, String>;

/// Runs the chore with the arguments that follow its name.
pub fn run(mut rest: impl Iterator<Item = String>) -> Outcome {
    let mut check = false;
    let mut folder = std::env::var_os("SIGHTGLASS_BOTOCORE").map(PathBuf::from);
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--check" => check = true,
            "--models" => folder = Some(rest.next().ok_or("--models needs a folder")?.into()),
            other => return Err(format!("codegen: unknown argument {other}")),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("xtask has no parent folder")?;
    let models = models::load(root, folder)?;
    let mut files = generate::all(&models)?;
    let coverage = coverage::Coverage::read(root, &models)?;
    files.push(coverage.source());
    for file in &mut files {
        file.text = format_rust(root, &file.text)?;
    }
    files.push(coverage.table(&models));
    let mut stale = Vec::new();
    for file in &files {
        let path = root.join(&file.path);
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        if old == file.text {
            continue;
        }
        stale.push(file.path.clone());
        if !check {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
            }
            std::fs::write(&path, &file.text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    if check && !stale.is_empty() {
        return Err(format!(
            "not what the models say, run `cargo xtask codegen`: {}",
            stale.join(", ")
        ));
    }
    println!(
        "{} files, {} {}",
        files.len(),
        stale.len(),
        if check { "stale" } else { "written" }
    );
    Ok(())
}

/// Formats Rust source as `cargo fmt` would.
fn format_rust(root: &Path, source: &str) -> Outcome<String> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let failed = |e: std::io::Error| format!("rustfmt: {e}");
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().ok_or("rustfmt: no stdin")?;
    let text = source.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    writer.join().map_err(|_| "rustfmt: writer broke")?.map_err(failed)?;
    if !output.status.success() {
        return Err("rustfmt refused the generated source".to_owned());
    }
    String::from_utf8(output.stdout).map_err(|_| "rustfmt wrote no UTF-8".to_owned())
}

/// A file to write, its path relative to the repository.
struct GeneratedFile {
    path: String,
    text: String,
}
