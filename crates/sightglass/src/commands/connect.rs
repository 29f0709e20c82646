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
    let folder = &args.data.data_dir;
    let endpoint = args.endpoint.clone().unwrap_or_else(|| env::endpoint(folder));
    let credentials = match from_environment() {
        Some(credentials) => credentials,
        None => super::root_key(&DataDir::peek(folder)?)?,
    };
    let mut config = ClientConfig::new(endpoint.parse()?, args.region.parse()?, credentials);
    config.timeout = TIMEOUT;
    if let Some(ca) = args.ca.as_deref() {
        config.trust = Trust::Pem(read(ca)?);
    }
    Ok(Client::new(config, Arc::new(SystemClock::new()))?)
}

/// What the person can do about it, where that is known.
pub fn explained(error: ClientError) -> Failure {
    match error.advice() {
        Some(advice) => format!("{error} ({advice})").into(),
        None => error.into(),
    }
}

fn from_environment() -> Option<Credentials> {
    let value = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    Some(Credentials {
        access_key_id: value("AWS_ACCESS_KEY_ID")?,
        secret: Secret::new(value("AWS_SECRET_ACCESS_KEY")?),
        session_token: value("AWS_SESSION_TOKEN"),
    })
}

#[allow(clippy::disallowed_methods, reason = "a certificate named on the command line")]
fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
