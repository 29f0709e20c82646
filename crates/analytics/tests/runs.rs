//! How an application runs: what its worker is told, and what follows on what the worker tells.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![allow(clippy::needless_pass_by_value, reason = "json!(...) stands in the calls")]

mod common;

use common::{Server, World, application};
use serde_json::{Value, json};
use sql::application::{Command, Event, Restore, StartPoint};

const NAME: &str = "doors";

fn named() -> Value {
    json!({"ApplicationName": NAME})
}

/// Stops the application and gives the name of the snapshot that the worker was asked for.
async fn stop(server: &Server, worker: &mut common::Started) -> String {
    server.ok("StopApplication", named()).await;
    let Command::Stop { snapshot: Some(name) } = worker.told().await else {
        panic!("no snapshot was asked for")
    };
    let kept = Event::Snapshot {
        name: name.clone(),
        bytes: 1,
    };
    worker.tell(kept);
    worker.tell(Event::Stopped);
    name
}

#[tokio::test]
async fn an_application_runs_from_the_workers_word_to_the_workers_word() {
    let (world, begun) = (World::new(), "StartApplication");
    let server = world.start().await;
    server.make_stream().await;
    server.ok("CreateApplication", application()).await;
    let id = server.ok(begun, named()).await["OperationId"].clone();
    assert_eq!(server.detail().await["ApplicationStatus"], "STARTING");
    assert_eq!(server.operation(&id).await["OperationStatus"], "IN_PROGRESS");
    let mut worker = server.worker().await;
    assert_eq!(
        (worker.spec.restore.clone(), worker.spec.start),
        (Restore::Latest, StartPoint::Now)
    );
    assert_eq!(worker.spec.access_key_id, "key of 000000000000");
    let names: Vec<&str> = worker.spec.tables.iter().map(|table| &*table.name).collect();
    assert_eq!(names, ["FACES_001", "OUT"]);
    worker.tell(Event::Running);
    server.status("RUNNING").await;
    assert_eq!(server.operation(&id).await["OperationStatus"], "SUCCESSFUL");
    assert_eq!(server.refused(begun, named()).await.0, "ResourceInUseException");
    let snapshot = stop(&server, &mut worker).await;
    drop(worker);
    server.status("READY").await;
    assert_eq!(server.snapshot(&snapshot).await, "READY");
    server.no_worker().await;
}

#[tokio::test]
async fn a_worker_that_dies_is_started_again_from_its_own_checkpoint() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    server.ok("CreateApplication", application()).await;
    let skip = json!({"ApplicationName": NAME, "RunConfiguration": {"ApplicationRestoreConfiguration": {"ApplicationRestoreType": "SKIP_RESTORE_FROM_SNAPSHOT"}}});
    server.ok("StartApplication", skip).await;
    let first = server.worker().await;
    assert_eq!(first.spec.restore, Restore::Nothing);
    drop(first);
    let second = server.worker().await;
    assert_eq!(second.spec.restore, Restore::Nothing, "it was never seen to read");
    second.tell(Event::Running);
    server.status("RUNNING").await;
    second.fails("the server was away", true);
    let third = server.worker().await;
    assert_eq!(third.spec.restore, Restore::Latest);
    assert_eq!(server.detail().await["ApplicationStatus"], "RUNNING");
    let more = json!({"ApplicationName": NAME, "IncludeAdditionalDetails": true});
    let answer = server.ok("DescribeApplication", more).await;
    let configuration = &answer["ApplicationDetail"]["ApplicationConfigurationDescription"];
    let plan = configuration["FlinkApplicationConfigurationDescription"]["JobPlanDescription"]
        .as_str()
        .unwrap();
    let plan: Value = serde_json::from_str(plan).unwrap();
    assert_eq!(
        (&plan["worker"]["starts"], &plan["worker"]["last_failure"]),
        (&json!(3), &json!("the server was away"))
    );
}

#[tokio::test]
async fn a_start_that_cannot_be_leaves_a_ready_application_and_the_reason() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    server.ok("CreateApplication", application()).await;
    let id = server.ok("StartApplication", named()).await["OperationId"].clone();
    server.worker().await.fails("a snapshot does not fit", false);
    server.status("READY").await;
    let operation = server.operation(&id).await;
    assert_eq!(operation["OperationStatus"], "FAILED");
    assert_eq!(
        operation["OperationFailureDetails"]["ErrorInfo"]["ErrorString"],
        "a snapshot does not fit"
    );
    server.no_worker().await;
}

#[tokio::test]
async fn snapshots_are_what_the_worker_says_and_can_be_gone_back_to() {
    let world = World::new();
    let server = world.start().await;
    let mut worker = server.running().await;
    let create = |name: &str| json!({"ApplicationName": NAME, "SnapshotName": name});
    for name in ["good", "bad"] {
        server.ok("CreateApplicationSnapshot", create(name)).await;
        assert_eq!(worker.told().await, Command::Snapshot { name: name.to_owned() });
    }
    worker.tell(Event::Snapshot {
        name: "good".to_owned(),
        bytes: 1,
    });
    worker.tell(Event::SnapshotFailed {
        name: "bad".to_owned(),
        reason: "the disk is full".to_owned(),
    });
    assert_eq!(
        (server.snapshot("good").await, server.snapshot("bad").await),
        ("READY".to_owned(), "FAILED".to_owned())
    );
    assert_eq!(
        server.refused("CreateApplicationSnapshot", create("good")).await.0,
        "ResourceInUseException"
    );
    stop(&server, &mut worker).await;
    drop(worker);
    server.status("READY").await;
    assert_eq!(
        server.refused("CreateApplicationSnapshot", create("late")).await.0,
        "ResourceInUseException"
    );
    let from = |name: &str| {
        let restore = json!({"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT", "SnapshotName": name});
        json!({"ApplicationName": NAME, "RunConfiguration": {"ApplicationRestoreConfiguration": restore}})
    };
    for unfit in ["bad", "none"] {
        assert_eq!(
            server.refused("StartApplication", from(unfit)).await.0,
            "InvalidArgumentException"
        );
    }
    server.ok("StartApplication", from("good")).await;
    assert_eq!(server.worker().await.spec.restore, Restore::Snapshot("good".to_owned()));
}

#[tokio::test]
async fn an_update_of_a_running_application_takes_the_place_of_its_worker() {
    let world = World::new();
    let server = world.start().await;
    let mut first = server.running().await;
    let update = |code: &str| {
        let code = json!({"CodeContentUpdate": {"TextContentUpdate": code}});
        json!({"ApplicationName": NAME, "CurrentApplicationVersionId": 1,
               "ApplicationConfigurationUpdate": {"ApplicationCodeConfigurationUpdate": code}})
    };
    let (code, message) = server.refused("UpdateApplication", update("SELECT BROKEN")).await;
    assert!(
        code == "CodeValidationException" && message.contains("line 1, column 8"),
        "{message}"
    );
    let answer = server
        .ok("UpdateApplication", update("INSERT INTO OUT SELECT 'x' FROM FACES_001"))
        .await;
    assert_eq!(answer["ApplicationDetail"]["ApplicationStatus"], "UPDATING");
    let Command::Stop {
        snapshot: Some(snapshot),
    } = first.told().await
    else {
        panic!("the worker was not told to end")
    };
    first.tell(Event::Snapshot {
        name: snapshot.clone(),
        bytes: 1,
    });
    first.tell(Event::Stopped);
    drop(first);
    let second = server.worker().await;
    assert_eq!((second.spec.version, second.spec.restore.clone()), (2, Restore::Latest));
    assert!(second.spec.script.contains("'x'") && second.spec.allow_non_restored);
    // It cannot run: it stays an update, and may be rolled back.
    second.fails("no such column", false);
    let third = server.worker().await;
    assert_eq!(
        server.operation(&answer["OperationId"]).await["OperationStatus"],
        "FAILED"
    );
    assert_eq!(server.detail().await["ApplicationStatus"], "UPDATING");
    let rolled = json!({"ApplicationName": NAME, "CurrentApplicationVersionId": 2});
    let detail = server.ok("RollbackApplication", rolled).await["ApplicationDetail"].clone();
    assert_eq!(
        (
            &detail["ApplicationVersionId"],
            &detail["ApplicationVersionRolledBackFrom"],
            &detail["ApplicationVersionRolledBackTo"]
        ),
        (&json!(3), &json!(2), &json!(1))
    );
    third.ended().await;
    let fourth = server.worker().await;
    assert_eq!(fourth.spec.restore, Restore::Snapshot(snapshot));
    assert!(fourth.spec.script.contains("door"));
    fourth.tell(Event::Running);
    server.status("RUNNING").await;
    let versions = server.ok("ListApplicationVersions", named()).await["ApplicationVersionSummaries"].clone();
    let seen: Vec<_> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            (
                v["ApplicationVersionId"].as_u64().unwrap(),
                v["ApplicationStatus"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [(3, "RUNNING"), (2, "ROLLED_BACK"), (1, "RUNNING")]);
}

#[tokio::test]
async fn what_ran_runs_again_when_the_server_comes_back() {
    let world = World::new();
    {
        let server = world.start().await;
        let worker = server.running().await;
        server
            .ok(
                "CreateApplicationSnapshot",
                json!({"ApplicationName": NAME, "SnapshotName": "half"}),
            )
            .await;
        drop(server);
        drop(worker);
    }
    let server = world.start().await;
    let worker = server.worker().await;
    assert_eq!(worker.spec.restore, Restore::Latest);
    assert_eq!(server.snapshot("half").await, "FAILED");
    assert_eq!(server.detail().await["ApplicationStatus"], "RUNNING");
}

#[tokio::test]
async fn force_and_deletion_end_the_worker_at_once() {
    let world = World::new();
    let server = world.start().await;
    let worker = server.running().await;
    let force = json!({"ApplicationName": NAME, "Force": true});
    server.ok("StopApplication", force.clone()).await;
    worker.ended().await;
    assert_eq!(server.detail().await["ApplicationStatus"], "READY");
    assert_eq!(
        server.refused("StopApplication", force).await.0,
        "ResourceInUseException"
    );
    server.ok("StartApplication", named()).await;
    let worker = server.worker().await;
    worker.tell(Event::Running);
    let detail = server.status("RUNNING").await;
    assert_eq!(std::fs::read_dir(world.folders()).unwrap().count(), 1);
    let delete =
        json!({"ApplicationName": NAME, "CreateTimestamp": detail["CreateTimestamp"].as_f64().unwrap().floor()});
    server.ok("DeleteApplication", delete).await;
    worker.ended().await;
    assert_eq!(
        server.refused("DescribeApplication", named()).await.0,
        "ResourceNotFoundException"
    );
    assert_eq!(std::fs::read_dir(world.folders()).unwrap().count(), 0);
    server.ok("CreateApplication", application()).await;
}

#[tokio::test]
async fn nothing_runs_that_cannot_or_beyond_the_limit() {
    let world = World::new();
    let server = world.start().await;
    server.ok("CreateApplication", application()).await;
    let (code, message) = server.refused("StartApplication", named()).await;
    assert!(
        code == "InvalidApplicationConfigurationException" && message.contains("does not exist"),
        "{message}"
    );
    server.make_stream().await;
    for name in ["a", "b", "c"] {
        let mut wanted = application();
        wanted["ApplicationName"] = json!(name);
        server.ok("CreateApplication", wanted).await;
    }
    for name in ["a", "b"] {
        server.ok("StartApplication", json!({"ApplicationName": name})).await;
        server.worker().await.tell(Event::Running);
    }
    let (code, message) = server
        .refused("StartApplication", json!({"ApplicationName": "c"}))
        .await;
    assert!(
        code == "ResourceInUseException" && message.contains("analytics.max_running"),
        "{message}"
    );
}

#[tokio::test]
async fn without_the_program_everything_but_running_is_there() {
    let world = World::new();
    let server = world.start_without_workers().await;
    server.make_stream().await;
    server.ok("CreateApplication", application()).await;
    let (code, message) = server.refused("StartApplication", named()).await;
    assert!(
        code == "UnsupportedOperationException" && message.contains("sql-worker"),
        "{message}"
    );
    assert_eq!(server.detail().await["ApplicationStatus"], "READY");
}

#[tokio::test]
async fn code_in_an_object_is_what_it_was_when_it_was_named() {
    let world = World::new();
    let server = world.start().await;
    server.make_stream().await;
    world
        .put_object("door.sql", "INSERT INTO OUT SELECT door FROM FACES_001")
        .await;
    let place = json!({"BucketARN": "arn:aws:s3:::code", "FileKey": "door.sql"});
    let mut wanted = application();
    wanted["ApplicationConfiguration"]["ApplicationCodeConfiguration"]["CodeContent"] =
        json!({"S3ContentLocation": place});
    server.ok("CreateApplication", wanted).await;
    let code =
        server.detail().await["ApplicationConfigurationDescription"]["ApplicationCodeConfigurationDescription"].clone();
    assert_eq!(
        code["CodeContentDescription"]["S3ApplicationCodeLocationDescription"],
        place
    );
    assert_eq!(code["CodeContentDescription"]["CodeSize"], 42);
    assert_eq!(code["CodeContentDescription"]["CodeMD5"].as_str().unwrap().len(), 24);
    world.put_object("door.sql", "SELECT BROKEN").await;
    server.ok("StartApplication", named()).await;
    assert!(server.worker().await.spec.script.contains("SELECT door"));
}
