//! `cargo xtask deps`: every dependency comes from the registry, under a licence that deny.toml allows, and is not
//! banned there. Advisories need a database that is no registry package; `make audit` checks those.

use std::process::Command;

use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

/// What deny.toml allows and bans; the same file serves cargo-deny.
struct Policy {
    licences: Vec<String>,
    banned: Vec<(String, String)>,
}

/// Checks the whole dependency graph; the error lists every violation.
pub fn check() -> Result<(), Failure> {
    let policy = read_policy()?;
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata lists no packages")?;
    let violations: Vec<String> = packages
        .iter()
        .filter_map(|package| violation(package, &policy))
        .collect();
    if violations.is_empty() {
        println!("deps: {} packages, licences, sources and bans hold", packages.len());
        return Ok(());
    }
    Err(violations.join("\n").into())
}

fn read_policy() -> Result<Policy, Failure> {
    let text: toml::Table = std::fs::read_to_string("deny.toml")?.parse()?;
    let licences = text["licenses"]["allow"]
        .as_array()
        .ok_or("deny.toml: licenses.allow is no list")?;
    let bans = text["bans"]["deny"]
        .as_array()
        .ok_or("deny.toml: bans.deny is no list")?;
    let field = |ban: &toml::Value, key: &str| ban[key].as_str().unwrap_or_default().to_owned();
    Ok(Policy {
        licences: licences.iter().filter_map(|l| l.as_str().map(str::to_owned)).collect(),
        banned: bans
            .iter()
            .map(|ban| (field(ban, "name"), field(ban, "reason")))
            .collect(),
    })
}

fn violation(package: &Value, policy: &Policy) -> Option<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let version = package["version"].as_str().unwrap_or("?");
    if let Some((_, reason)) = policy.banned.iter().find(|(banned, _)| banned == name) {
        return Some(format!("{name} {version} is banned: {reason}"));
    }
    match package["source"].as_str() {
        None => return None,
        Some(source) if source.starts_with("registry+") => {}
        Some(source) => return Some(format!("{name} {version} comes from {source}, not from the registry")),
    }
    let licence = package["license"].as_str().unwrap_or("");
    (!allowed(licence, &policy.licences))
        .then(|| format!("{name} {version} has the licence {licence:?}, which deny.toml does not allow"))
}

/// An SPDX expression of AND, OR and brackets, or the older `A/B`, is allowed when a choice within it is.
fn allowed(expression: &str, licences: &[String]) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" AND ")
        .all(|all| all.split(" OR ").any(|one| licences.iter().any(|l| l == one.trim())))
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn a_licence_expression_is_allowed_when_one_choice_of_each_part_is() {
        let ours = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
        for good in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-2.0/MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(allowed(good, &ours), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0"] {
            assert!(!allowed(bad, &ours), "{bad}");
        }
    }
}
