//! `sightglass firehose create|list|describe|put|delete|tail-errors`.

mod errors;
mod put;
mod show;

use std::path::Path;
use std::process::ExitCode;

use client::{Client, Service};
use serde_json::{Value, json};

use super::paint::{Paint, harmless};
use super::{Failure, connect};
use crate::cli::{FirehoseAction, FirehoseArgs, FirehoseCreateArgs, ServerArgs};

/// Names of one page of ListDeliveryStreams. AWS: 10,000.
const PAGE: u32 = 1000;

/// Runs the command.
pub fn run(args: &FirehoseArgs) -> Result<ExitCode, Failure> {
    let server = ServerArgs {
        data: args.data.clone(),
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        ca: args.ca.clone(),
    };
    let client = connect::client(&server)?;
    let paint = Paint::for_stdout(args.color);
    let runtime = super::small_runtime()?;
    let outcome = runtime.block_on(async {
        match &args.action {
            FirehoseAction::Create(create) => make(&client, create, args).await,
            FirehoseAction::List => list(&client, args).await,
            FirehoseAction::Describe { names } => show::describe(&client, names, args.json, paint).await,
            FirehoseAction::Put(put) => put::run(&client, put, args.json).await,
            FirehoseAction::Delete { name } => delete(&client, name, args).await,
            FirehoseAction::TailErrors(tail) => errors::tail(&client, tail, &server, args.json, paint).await,
        }
    });
    // A thread that waits for standard input would hold the end up.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn call(client: &Client, operation: &str, input: &Value) -> Result<Value, Failure> {
    let answer = client.call(Service::Firehose, operation, input).await;
    answer.map_err(connect::explained)
}

async fn make(client: &Client, create: &FirehoseCreateArgs, args: &FirehoseArgs) -> Result<(), Failure> {
    let input = match (&create.request, &create.to) {
        (Some(file), _) => {
            let mut input: Value = serde_json::from_slice(&read(file)?)?;
            set(&mut input, "DeliveryStreamName", json!(create.name));
            input
        }
        (None, Some(to)) => request(client, create, to).await?,
        (None, None) => return Err("give --to s3://BUCKET/PREFIX, or --request FILE".into()),
    };
    let made = call(client, "CreateDeliveryStream", &input).await?;
    if args.json {
        println!("{made}");
    } else {
        println!("{}", text(&made, "DeliveryStreamARN"));
    }
    Ok(())
}

/// The input of CreateDeliveryStream that the flags mean.
async fn request(client: &Client, create: &FirehoseCreateArgs, to: &str) -> Result<Value, Failure> {
    let place = to
        .strip_prefix("s3://")
        .ok_or_else(|| format!("{to:?} is not s3://BUCKET/PREFIX"))?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let stream = match &create.from {
        Some(stream) => {
            let input = json!({ "StreamName": stream });
            let described = client.call(Service::Kinesis, "DescribeStreamSummary", &input).await;
            let described = described.map_err(connect::explained)?;
            described
                .pointer("/StreamDescriptionSummary/StreamARN")
                .and_then(Value::as_str)
                .map(str::to_owned)
        }
        None => None,
    };
    // Roles are stored and not assumed; one of the account must be named.
    let account = stream
        .as_deref()
        .and_then(|arn| arn.split(':').nth(4))
        .unwrap_or("000000000000");
    let default = || format!("arn:aws:iam::{account}:role/firehose");
    let role = create.role.clone().unwrap_or_else(default);
    let mut destination = json!({ "RoleARN": role, "BucketARN": format!("arn:aws:s3:::{bucket}") });
    let mut hints = json!({});
    if let Some(megabytes) = create.buffer_mb {
        set(&mut hints, "SizeInMBs", json!(megabytes));
    }
    if let Some(seconds) = create.buffer_seconds {
        set(&mut hints, "IntervalInSeconds", json!(seconds));
    }
    if hints != json!({}) {
        set(&mut destination, "BufferingHints", hints);
    }
    if !prefix.is_empty() {
        set(&mut destination, "Prefix", json!(prefix));
    }
    if let Some(errors) = &create.error_prefix {
        set(&mut destination, "ErrorOutputPrefix", json!(errors));
    }
    if create.gzip {
        set(&mut destination, "CompressionFormat", json!("GZIP"));
    }
    let mut input = json!({ "DeliveryStreamName": create.name, "DeliveryStreamType": "DirectPut",
        "ExtendedS3DestinationConfiguration": destination });
    if let Some(arn) = stream {
        set(&mut input, "DeliveryStreamType", json!("KinesisStreamAsSource"));
        let source = json!({ "KinesisStreamARN": arn, "RoleARN": role });
        set(&mut input, "KinesisStreamSourceConfiguration", source);
    }
    Ok(input)
}

/// All names.
async fn names(client: &Client) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let mut input = json!({ "Limit": PAGE });
        if let Some(last) = names.last() {
            set(&mut input, "ExclusiveStartDeliveryStreamName", json!(last));
        }
        let page = call(client, "ListDeliveryStreams", &input).await?;
        let found = page.get("DeliveryStreamNames").and_then(Value::as_array);
        names.extend(found.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
        let more = page
            .get("HasMoreDeliveryStreams")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        if !more {
            return Ok(names);
        }
    }
}

async fn list(client: &Client, args: &FirehoseArgs) -> Result<(), Failure> {
    let names = names(client).await?;
    if args.json {
        println!("{}", json!(names));
    } else {
        names.iter().for_each(|name| println!("{}", harmless(name)));
    }
    Ok(())
}

async fn delete(client: &Client, name: &str, args: &FirehoseArgs) -> Result<(), Failure> {
    call(client, "DeleteDeliveryStream", &json!({ "DeliveryStreamName": name })).await?;
    if args.json {
        println!("{}", json!({ "deleted": name }));
    } else {
        println!("{name} is deleted");
    }
    Ok(())
}

/// Sets a member of an object.
fn set(object: &mut Value, member: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(member.to_owned(), value);
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or_default()
}

#[allow(clippy::disallowed_methods, reason = "a file named on the command line")]
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into())
}
