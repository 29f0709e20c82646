//! `sightglass fsck`: reads the log, the databases and the objects of a data directory that no server uses, and changes
//! none of them.

use std::process::ExitCode;

use base::SystemClock;
use serde_json::json;
use storage::SqliteOptions;
use storage::datadir::DataDir;

use super::Failure;
use crate::cli::FsckArgs;

/// Runs the command. Exits 1 when durable data is damaged.
pub fn run(args: &FsckArgs) -> Result<ExitCode, Failure> {
    // A look first, so that a directory that is not ours is not made one by locking it.
    drop(DataDir::peek(&args.data.data_dir)?);
    let data = DataDir::lock(&args.data.data_dir, &SystemClock::new())?;
    let report = storage::fsck_with_index(&data.log_disk()?, &data.index_home())?;
    let databases = data.check_databases();
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let catalog = data.open_catalog(SqliteOptions::default())?;
    let objects = runtime.block_on(objects::fsck(&catalog, data.objects_disk()?))?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({"log": report, "databases": databases, "objects": objects}))?
        );
    } else {
        print!("{report}{objects}");
        for line in &databases {
            println!("{line}");
        }
    }
    let sound = databases.is_empty() && !report.has_damage() && objects.findings.is_empty();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
