//! `sightglass faces eval`: how well faces are told apart, measured on a folder of labelled images. `faces report`: how far
//! apart the people of a collection are.

mod calibration;
mod collection;
mod folder;
mod measure;
mod metrics;
mod plot;
mod report;
mod temporary;

use std::process::ExitCode;

use client::Client;
use tokio::signal::unix::{SignalKind, signal};

use self::folder::{Labelled, Pairs};
use self::measure::{Measured, Session};
use self::report::Report;
use self::temporary::Temporary;
use super::paint::Paint;
use super::progress::Progress;
use super::{Failure, connect};
use crate::cli::{FacesAction, FacesArgs, FacesEvalArgs};

/// The file of pairs that is looked for in the folder.
const PAIRS_FILE: &str = "pairs.txt";

/// Runs the command.
pub fn run(args: &FacesArgs) -> Result<ExitCode, Failure> {
    let runtime = super::small_runtime()?;
    match &args.action {
        FacesAction::Eval(eval) => runtime.block_on(evaluate(eval))?,
        FacesAction::Report(report) => runtime.block_on(collection::run(report))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn evaluate(args: &FacesEvalArgs) -> Result<(), Failure> {
    let labelled = Labelled::read(&args.folder)?;
    let pairs = pairs(args, &labelled).await?;
    let temporary = if args.temporary || args.model.is_some() || args.calibrate {
        Some(Temporary::start(&args.models, args.model.as_deref(), &args.server.region).await?)
    } else {
        None
    };
    let client = match &temporary {
        Some(temporary) => temporary.client.clone(),
        None => connect::client(&args.server)?,
    };
    let measured = measured(&client, args, &labelled, &pairs).await?;
    drop(temporary);
    let calibration = if args.calibrate {
        Some(calibration::write(&args.models, &measured)?)
    } else {
        None
    };
    let report = Report::new(&args.folder, &labelled, &pairs, &measured, calibration);
    if let Some(folder) = &args.plots {
        report::write_plots(folder, &measured).await?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report.text(Paint::for_stdout(args.color)));
        if let Some(folder) = &args.plots {
            println!("plots: {}", folder.display());
        }
    }
    Ok(())
}

/// The pairs of the file that is named, or that lies in the folder; otherwise drawn ones.
async fn pairs(args: &FacesEvalArgs, labelled: &Labelled) -> Result<Pairs, Failure> {
    let beside = args.folder.join(PAIRS_FILE);
    let path = args.pairs.clone().or_else(|| beside.is_file().then_some(beside));
    let Some(path) = path else {
        return Ok(labelled.draw());
    };
    let text = tokio::fs::read_to_string(&path).await;
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    labelled
        .pairs_of(&text)
        .map_err(|why| format!("{}: {why}", path.display()).into())
}

/// Measures in a collection that is deleted whatever happens.
async fn measured(
    client: &Client,
    args: &FacesEvalArgs,
    labelled: &Labelled,
    pairs: &Pairs,
) -> Result<Measured, Failure> {
    let mut progress = Progress::new(client.clock().clone(), !args.json);
    let name = format!(
        "sightglass-eval-{}-{}",
        std::process::id(),
        client.clock().now().millis()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (session, model) = Session::open(client, name, args.quality_filter.name()).await?;
    let outcome = tokio::select! {
        measured = session.measure(labelled, pairs, model, &mut progress) => measured,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("ended".into()),
    };
    progress.clear();
    let closed = session.close().await;
    let measured = outcome?;
    closed?;
    Ok(measured)
}
