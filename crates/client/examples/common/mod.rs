//! A client from the variables that `sightglass env` prints.

use std::error::Error;
use std::sync::Arc;

use base::SystemClock;
use client::{Client, ClientConfig, Credentials, Secret};

pub fn client() -> Result<Client, Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("set {name}; `sightglass env` prints it"));
    let credentials = Credentials {
        access_key_id: variable("AWS_ACCESS_KEY_ID")?,
        secret: Secret::new(variable("AWS_SECRET_ACCESS_KEY")?),
        session_token: std::env::var("AWS_SESSION_TOKEN").ok(),
    };
    let region = variable("AWS_REGION")?.parse()?;
    let config = ClientConfig::new(variable("AWS_ENDPOINT_URL")?.parse()?, region, credentials);
    Ok(Client::new(config, Arc::new(SystemClock::new()))?)
}

pub fn argument(index: usize, what: &str) -> Result<String, String> {
    std::env::args()
        .nth(index)
        .ok_or_else(|| format!("argument {index} is missing: {what}"))
}
