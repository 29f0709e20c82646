//! `sightglass keys create|list|revoke`: works beside a running server, which sees the change within a second.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use auth::{KeyInfo, KeyStore};
use base::{AccountId, SystemClock};
use serde_json::json;
use storage::datadir::DataDir;
use storage::{KeyRows, SqliteOptions};

use super::Failure;
use crate::cli::{KeysAction, KeysArgs};

/// Runs the command.
pub fn run(args: &KeysArgs) -> Result<ExitCode, Failure> {
    super::small_runtime()?.block_on(act(args))
}

async fn act(args: &KeysArgs) -> Result<ExitCode, Failure> {
    let store = open(&args.data.data_dir).await?;
    match &args.action {
        KeysAction::Create { account, policy } => {
            let account: AccountId = account.parse()?;
            let policy = policy.as_deref().map(read).transpose()?;
            let made = store.create(account, policy.as_deref()).await?;
            if args.json {
                let shown = json!({"AccessKeyId": made.access_key_id, "SecretAccessKey": made.secret.reveal(), "Account": account.to_string()});
                println!("{}", serde_json::to_string_pretty(&shown)?);
            } else {
                println!(
                    "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}",
                    made.access_key_id,
                    made.secret.reveal()
                );
            }
        }
        KeysAction::List { account } => {
            let only: Option<AccountId> = account.as_deref().map(str::parse).transpose()?;
            let keys: Vec<KeyInfo> = store
                .list()
                .into_iter()
                .filter(|key| only.is_none_or(|account| key.account == account))
                .collect();
            print(&keys, args.json)?;
        }
        KeysAction::Revoke { access_key_id } => {
            store.revoke(access_key_id).await?;
            if !args.json {
                println!("{access_key_id} is revoked");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(data_dir: &Path) -> Result<KeyStore, Failure> {
    let data = DataDir::peek(data_dir)?;
    let root = super::root_key(&data)?;
    let ring = Arc::new(data.open_keyring()?);
    let catalog = Arc::new(data.open_catalog(SqliteOptions::default())?);
    let table = Arc::new(KeyRows::new(catalog));
    Ok(KeyStore::open(ring, table, Arc::new(SystemClock::new()), root, AccountId::DEFAULT).await?)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a policy file that the person at the terminal names"
)]
fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()).into())
}

fn print(keys: &[KeyInfo], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({"AccessKeyId": key.access_key_id, "Account": key.account.to_string(), "CreateDate": key.created.seconds(),
                       "Root": key.root, "Policy": key.policy})
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "{:<24} {:<14} {:<18} may do",
        "access key id", "account", "created (epoch s)"
    );
    for key in keys {
        let may = match (&key.policy, key.root) {
            (_, true) => "everything (root)",
            (None, false) => "everything in its account",
            (Some(_), false) => "what its policy allows",
        };
        println!(
            "{:<24} {:<14} {:<18} {may}",
            key.access_key_id, key.account, key.created
        );
    }
    Ok(())
}
