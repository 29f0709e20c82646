//! The `[buckets]` of the configuration: which names stand for buckets of another S3, and how it is reached. Secrets are
//! named, not written: by an environment variable or a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::AccountId;
use objects::{External, ExternalBucket, is_bucket_name};
use serde::Deserialize;

use crate::config::ConfigError;

/// One table `[buckets."name"]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketTable {
    endpoint: String,
    region: Option<String>,
    bucket: Option<String>,
    account: Option<String>,
    access_key_id_env: Option<String>,
    access_key_id_file: Option<PathBuf>,
    secret_access_key_env: Option<String>,
    secret_access_key_file: Option<PathBuf>,
    session_token_env: Option<String>,
    #[serde(default = "yes")]
    path_style: bool,
    ca: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

fn wrong(name: &str, why: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value {
        key: "buckets",
        why: format!("{name:?}: {why}"),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "secrets and certificates are configuration, read before there is a Disk"
)]
fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// A value that the configuration names: one place is enough, two are a contradiction.
fn value(what: &str, env: Option<&str>, file: Option<&Path>) -> Result<String, String> {
    let text = match (env, file) {
        (Some(name), None) => std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?,
        (None, Some(path)) => String::from_utf8(read(path)?).map_err(|_| format!("{} is not text", path.display()))?,
        _ => return Err(format!("exactly one of {what}_env and {what}_file is needed")),
    };
    let text = text.trim();
    match text.is_empty() {
        true => Err(format!("{what} is empty")),
        false => Ok(text.to_owned()),
    }
}

impl BucketTable {
    fn place(self, name: &str) -> Result<External, String> {
        if !(self.endpoint.starts_with("http://") || self.endpoint.starts_with("https://")) {
            return Err("endpoint must begin with http:// or https://".to_owned());
        }
        let id = value(
            "access_key_id",
            self.access_key_id_env.as_deref(),
            self.access_key_id_file.as_deref(),
        )?;
        let secret = value(
            "secret_access_key",
            self.secret_access_key_env.as_deref(),
            self.secret_access_key_file.as_deref(),
        )?;
        let token = self
            .session_token_env
            .as_deref()
            .map(|name| value("session_token", Some(name), None));
        Ok(External {
            bucket: self.bucket.unwrap_or_else(|| name.to_owned()),
            endpoint: self.endpoint.trim_end_matches('/').to_owned(),
            region: self.region.unwrap_or_else(|| "us-east-1".to_owned()),
            access_key_id: id,
            secret_access_key: secret,
            session_token: token.transpose()?,
            path_style: self.path_style,
            certificates: self.ca.as_deref().map(read).transpose()?,
        })
    }
}

/// The places of all buckets of the configuration; a bucket without an account is that of the root key.
pub fn named(
    tables: BTreeMap<String, BucketTable>,
    default: AccountId,
) -> Result<BTreeMap<(AccountId, String), External>, ConfigError> {
    let one = |(name, table): (String, BucketTable)| {
        if !is_bucket_name(&name) {
            return Err(wrong(&name, "is not the name of a bucket"));
        }
        let account = table.account.as_deref().map(str::parse).transpose();
        let account = account.map_err(|error: base::ids::InvalidAccountId| wrong(&name, error))?;
        let place = table.place(&name).map_err(|why| wrong(&name, why))?;
        ExternalBucket::new(&name, &place).map_err(|why| wrong(&name, why))?;
        Ok(((account.unwrap_or(default), name), place))
    };
    tables.into_iter().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test writes its own files")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BTreeMap<(AccountId, String), External>, String> {
        let tables = toml::from_str(text).map_err(|error| error.to_string())?;
        named(tables, AccountId::DEFAULT).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bucket_elsewhere_needs_an_address_and_secrets_that_are_named_and_there() {
        let folder = tempfile::tempdir().unwrap();
        let (id, secret) = (folder.path().join("id"), folder.path().join("secret"));
        std::fs::write(&id, "AKIAX\n").unwrap();
        std::fs::write(&secret, "hush\n").unwrap();
        let keys = format!("access_key_id_file = {id:?}\nsecret_access_key_file = {secret:?}\n");
        let good = parse(&format!(
            "[cold]\nendpoint = \"http://127.0.0.1:9/\"\nbucket = \"x-y\"\n{keys}"
        ))
        .unwrap();
        let place = &good[&(AccountId::DEFAULT, "cold".to_owned())];
        assert_eq!(
            (place.bucket.as_str(), place.endpoint.as_str()),
            ("x-y", "http://127.0.0.1:9")
        );
        assert_eq!(
            (place.access_key_id.as_str(), place.secret_access_key.as_str()),
            ("AKIAX", "hush")
        );
        assert!(!format!("{place:?}").contains("hush"));
        for (text, word) in [
            (format!("[cold]\n{keys}"), "endpoint"),
            (format!("[cold]\nendpoint = \"127.0.0.1\"\n{keys}"), "endpoint"),
            (format!("[Cold]\nendpoint = \"http://a\"\n{keys}"), "name of a bucket"),
            ("[cold]\nendpoint = \"http://a\"\n".to_owned(), "access_key_id"),
            (
                format!("[cold]\nendpoint = \"http://a\"\naccess_key_id_env = \"NONE_OF_OURS\"\n{keys}"),
                "exactly one",
            ),
            (
                format!("[cold]\nendpoint = \"http://a\"\naccount = \"1\"\n{keys}"),
                "twelve",
            ),
            (
                format!("[cold]\nendpoint = \"http://a\"\nsecret = \"x\"\n{keys}"),
                "secret",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
