//! Scripts in, rows out.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "not every test uses everything, and all of them may fail"
)]

use stream_sql::batch::Batch;
use stream_sql::{Job, JobConfig, Program, Record, Rows, Table, json_values};

/// A table of doors, with the time of events a column of the records.
pub const DOORS: &str = "CREATE TABLE doors (door STRING, person STRING, n INT, ts TIMESTAMP(3), \
    WATERMARK FOR ts AS ts - INTERVAL '2' SECOND) WITH ('connector' = 'kinesis', 'format' = 'json');\n";

pub fn program(script: &str) -> Program {
    Program::plan(script, &[]).unwrap_or_else(|error| panic!("{error}\n{script}"))
}

/// What is wrong with a script, with the place.
pub fn refused(script: &str) -> String {
    match Program::plan(script, &[]) {
        Ok(_) => panic!("planned: {script}"),
        Err(error) => error.to_string(),
    }
}

/// A job and where its state is.
pub struct Run {
    pub job: Job,
    directory: tempfile::TempDir,
}

impl Run {
    pub fn new(script: &str) -> Run {
        Run::with(script, &[])
    }

    pub fn with(script: &str, declared: &[Table]) -> Run {
        let program = Program::plan(script, declared).unwrap_or_else(|error| panic!("{error}\n{script}"));
        let directory = tempfile::tempdir().unwrap();
        let config = JobConfig {
            memory_limit: 1 << 30,
            state_dir: directory.path().to_owned(),
        };
        Run {
            job: Job::new(program, config).unwrap(),
            directory,
        }
    }

    pub fn source(&self, name: &str) -> usize {
        let names = self.job.program().sources().iter().position(|table| table.name == name);
        names.unwrap_or_else(|| panic!("no source {name}"))
    }

    /// Records of a source's first partition; each must fit.
    pub fn push(&mut self, source: &str, records: &[&str]) {
        self.push_to(source, 0, records);
    }

    pub fn push_to(&mut self, source: &str, partition: u32, records: &[&str]) {
        let rejected = self.push_any(source, partition, records);
        assert!(rejected.is_empty(), "{rejected:?}");
    }

    /// Gives the reasons of those that do not fit.
    pub fn push_any(&mut self, source: &str, partition: u32, records: &[&str]) -> Vec<String> {
        let index = self.source(source);
        let records: Vec<Record<'_>> = records.iter().map(|data| record(data)).collect();
        let decoded = self.job.program().decoder(index).decode(&records);
        let rejected = decoded
            .rejected
            .iter()
            .map(|one| format!("{}: {}", one.index, one.reason))
            .collect();
        self.job.push(index, partition, decoded).unwrap();
        rejected
    }

    /// What came out since, a line for each row: the kind if it is no insert, then the values.
    pub fn rows(&mut self) -> Vec<String> {
        shown(&self.job.take())
    }

    pub fn finish(&mut self) -> Vec<String> {
        self.job.finish().unwrap();
        self.rows()
    }

    /// Another job of the same program that goes on where this one is.
    pub fn restored(&mut self) -> Run {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = directory.path().join("snapshot");
        std::fs::create_dir(&snapshot).unwrap();
        self.job.snapshot(&snapshot).unwrap();
        let state = directory.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let config = JobConfig {
            memory_limit: 1 << 30,
            state_dir: state,
        };
        let mut job = Job::new(self.job.program().clone(), config).unwrap();
        job.restore(&snapshot, false).unwrap();
        Run { job, directory }
    }
}

pub fn record(data: &str) -> Record<'_> {
    Record {
        data: data.as_bytes(),
        arrival_ms: 1_767_323_045_678,
        partition_key: "key",
        sequence_number: "49590338271490256608559692538361571095921575989136588898",
        shard: "shardId-000000000000",
    }
}

pub fn shown(rows: &[Rows]) -> Vec<String> {
    rows.iter().flat_map(|rows| lines(&rows.batch)).collect()
}

fn lines(batch: &Batch) -> Vec<String> {
    let values = json_values(batch).into_iter().enumerate();
    let line = |(row, values): (usize, Vec<serde_json::Value>)| {
        let values: Vec<String> = values
            .iter()
            .map(|value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        let kind = match batch.kinds.is_empty() {
            true => String::new(),
            false => format!("{} ", batch.kind(row).symbol()),
        };
        format!("{kind}{}", values.join("|"))
    };
    values.map(line).collect()
}

/// A record of `DOORS`: second and minute of 2026-01-02 03:00.
pub fn at(second: u32, door: &str, person: &str, n: i32) -> String {
    format!(
        "{{\"door\":\"{door}\",\"person\":\"{person}\",\"n\":{n},\"ts\":\"2026-01-02 03:{:02}:{:02}\"}}",
        second / 60,
        second % 60
    )
}

/// Sorted, where the order does not matter.
pub fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}
