//! `sightglass env`: what an AWS client needs to reach this server, as export lines, as JSON, or as an AWS profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use storage::datadir::DataDir;

use super::Failure;
use crate::cli::EnvArgs;

/// Printed where no server has ever served this data directory.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:4577";

/// Runs the command.
pub fn run(args: &EnvArgs) -> Result<ExitCode, Failure> {
    let folder = &args.data.data_dir;
    let key = super::root_key(&DataDir::peek(folder)?)?;
    let endpoint = args.endpoint.clone().unwrap_or_else(|| endpoint(folder));
    let settings = BTreeMap::from([
        ("AWS_ACCESS_KEY_ID", key.access_key_id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", key.secret.reveal()),
        ("AWS_REGION", args.region.as_str()),
        ("AWS_DEFAULT_REGION", args.region.as_str()),
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
    ]);
    if let Some(profile) = &args.profile {
        return write_profile(profile, &settings);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&settings)?);
    } else {
        for (name, value) in &settings {
            println!("export {name}={}", quoted(value));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the server of a data directory is reached.
pub fn endpoint(folder: &Path) -> String {
    served_at(folder).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
}

/// The address that the server wrote down when it last became ready.
#[allow(
    clippy::disallowed_methods,
    reason = "a note beside the data, read by a command line"
)]
fn served_at(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(super::serve::ENDPOINT_FILE)).ok()?;
    Some(text.trim().to_owned())
}

/// Safe to paste into a shell whatever the value holds.
fn quoted(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:+=@".contains(&b);
    if value.bytes().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn write_profile(profile: &str, settings: &BTreeMap<&str, &str>) -> Result<ExitCode, Failure> {
    if profile.is_empty()
        || !profile
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return Err(format!("profile name {profile:?} is not letters, digits, '-', '_' and '.'").into());
    }
    let value = |name: &str| settings.get(name).copied().unwrap_or_default().to_owned();
    let config = aws_file("AWS_CONFIG_FILE", "config")?;
    let section = if profile == "default" {
        "[default]".to_owned()
    } else {
        format!("[profile {profile}]")
    };
    let lines = [
        ("region", value("AWS_REGION")),
        ("endpoint_url", value("AWS_ENDPOINT_URL")),
    ];
    put_section(&config, &section, &lines)?;
    let credentials = aws_file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let lines = [
        ("aws_access_key_id", value("AWS_ACCESS_KEY_ID")),
        ("aws_secret_access_key", value("AWS_SECRET_ACCESS_KEY")),
    ];
    put_section(&credentials, &format!("[{profile}]"), &lines)?;
    println!(
        "profile {profile} written to {} and {}",
        config.display(),
        credentials.display()
    );
    Ok(ExitCode::SUCCESS)
}

fn aws_file(variable: &str, name: &str) -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let home = std::env::var_os("HOME").ok_or("HOME is not set")?;
    Ok(PathBuf::from(home).join(".aws").join(name))
}

/// Replaces one section of an INI file and leaves every other line as it is. Written beside and renamed, mode 0600.
#[allow(
    clippy::disallowed_methods,
    reason = "the AWS files of the person at the terminal, not data"
)]
fn put_section(path: &Path, section: &str, lines: &[(&str, String)]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let old = match std::fs::read_to_string(path) {
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|e| format!("{}: {e}", path.display()))?,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("sightglass-new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(with_section(&old, section, lines).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(())
}

fn with_section(old: &str, section: &str, lines: &[(&str, String)]) -> String {
    let mut kept = Vec::new();
    let mut inside = false;
    for line in old.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == section;
        }
        if !inside {
            kept.push(line.to_owned());
        }
    }
    while kept.last().is_some_and(|line| line.trim().is_empty()) {
        kept.pop();
    }
    if !kept.is_empty() {
        kept.push(String::new());
    }
    kept.push(section.to_owned());
    kept.extend(lines.iter().map(|(name, value)| format!("{name} = {value}")));
    kept.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_replaces_its_own_section_and_nothing_else() {
        let old = "[default]\nregion = eu-west-1\n\n[profile sightglass]\nregion = old\nextra = gone\n\n[profile other]\nx = 1\n";
        let new = with_section(old, "[profile sightglass]", &[("region", "us-east-1".to_owned())]);
        assert_eq!(
            new,
            "[default]\nregion = eu-west-1\n\n[profile other]\nx = 1\n\n[profile sightglass]\nregion = us-east-1\n"
        );
        assert_eq!(
            with_section(&new, "[profile sightglass]", &[("region", "us-east-1".to_owned())]),
            new
        );
    }

    #[test]
    fn a_value_with_quotes_cannot_leave_its_quotes() {
        assert_eq!(quoted("abc/+="), "abc/+=");
        assert_eq!(quoted("a'; rm"), r"'a'\''; rm'");
    }
}
