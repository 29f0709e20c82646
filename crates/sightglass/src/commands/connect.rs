//! How the commands that call a running server find it and sign: the variables of an AWS client where they are set,
//! otherwise the data directory of a server on this machine.

use std::sync::Arc;
use std::time::Duration;

use auth::{Credentials, Secret};
use base::SystemClock;
use client::{Client, ClientConfig, ClientError, Trust};
use storage::datadir::DataDir;

use super::{Failure, env};
use crate::cli::ServerArgs;

/// A call that takes longer is given up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client for the server that the arguments name.
pub fn client(args: &ServerArgs) -> Result<Client, Failure> {
    let mut config = ClientConfig::new(endpoint(args).parse()?, args.region.parse()?, credentials(args)?);
    config.timeout = TIMEOUT;
    if let Some(pem) = certificates(args)? {
        config.trust = Trust::Pem(pem);
    }
    Ok(Client::new(config, Arc::new(SystemClock::new()))?)
}

/// The URL of the server.
pub fn endpoint(args: &ServerArgs) -> String {
    let known = || env::endpoint(&args.data.data_dir);
    args.endpoint.clone().unwrap_or_else(known)
}

/// Whose key signs.
pub fn credentials(args: &ServerArgs) -> Result<Credentials, Failure> {
    match from_environment("AWS") {
        Some(credentials) => Ok(credentials),
        None => super::root_key(&DataDir::peek(&args.data.data_dir)?),
    }
}

/// PEM of the certificates to trust, where the arguments name any.
pub fn certificates(args: &ServerArgs) -> Result<Option<Vec<u8>>, Failure> {
    args.ca.as_deref().map(read).transpose()
}

/// What the person can do about it, where that is known.
pub fn explained(error: ClientError) -> Failure {
    match error.advice() {
        Some(advice) => format!("{error} ({advice})").into(),
        None => error.into(),
    }
}

/// The key in the variables `PREFIX_ACCESS_KEY_ID` and so on.
pub fn from_environment(prefix: &str) -> Option<Credentials> {
    let value = |name: &str| {
        std::env::var(format!("{prefix}_{name}"))
            .ok()
            .filter(|value| !value.is_empty())
    };
    Some(Credentials {
        access_key_id: value("ACCESS_KEY_ID")?,
        secret: Secret::new(value("SECRET_ACCESS_KEY")?),
        session_token: value("SESSION_TOKEN"),
    })
}

#[allow(clippy::disallowed_methods, reason = "a certificate named on the command line")]
fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
