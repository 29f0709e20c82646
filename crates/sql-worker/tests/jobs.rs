//! Jobs from the first message to the last byte of the file, over pipes in memory; the files are read back by the
//! libraries' own readers here, and by others in `conformance/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Decimal128Type, Int8Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use proptest::prelude::*;
use sql::job::{Column, Compression, Input, Job, OrcOptions, Output, ParquetOptions, Reason};
use sql::protocol::{FromWorker, ToWorker};

#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_x() -> Input {
    Input::OpenX {
        case_insensitive: true,
        dots_to_underscores: false,
        mappings: BTreeMap::new(),
    }
}

fn parquet(compression: Compression) -> Output {
    Output::Parquet(ParquetOptions {
        compression,
        dictionary: false,
        page_bytes: 1 << 20,
        row_group_bytes: 256 << 20,
        version_2: false,
    })
}

fn orc(compression: Compression) -> Output {
    Output::Orc(OrcOptions {
        compression,
        stripe_bytes: 64 << 20,
    })
}

fn job(columns: &[(&str, &str)], input: Input, output: Output) -> Job {
    let column = |(name, hive): &(&str, &str)| Column {
        name: (*name).to_owned(),
        hive: hive.parse().unwrap(),
    };
    Job {
        columns: columns.iter().map(column).collect(),
        input,
        output,
    }
}

/// What came of a job: its file, its rows, and what was rejected.
struct Outcome {
    file: Vec<u8>,
    rows: u64,
    rejected: Vec<(u32, Reason)>,
    failed: Option<String>,
}

fn run(jobs: &[(Job, Vec<Bytes>)]) -> Vec<Outcome> {
    let mut input = Vec::new();
    for (job, records) in jobs {
        ToWorker::Begin(Box::new(job.clone())).encode(&mut input);
        for chunk in records.chunks(100) {
            ToWorker::Records(chunk.to_vec()).encode(&mut input);
        }
        ToWorker::End.encode(&mut input);
    }
    let pipe = Pipe::default();
    sql_worker::serve::serve(&mut &input[..], pipe.clone()).unwrap();
    let said = Bytes::from(pipe.0.lock().unwrap().clone());
    let mut outcomes = Vec::new();
    let (mut file, mut rejected, mut at) = (Vec::new(), Vec::new(), 0);
    while at < said.len() {
        let length = u32::from_le_bytes(said[at..at + 4].try_into().unwrap()) as usize;
        let (mut rows, mut failed) = (0, None);
        match FromWorker::decode(&said.slice(at + 4..at + 4 + length)).unwrap() {
            FromWorker::Output(bytes) => file.extend_from_slice(&bytes),
            FromWorker::Rejected(index, reason) => rejected.push((index, reason)),
            FromWorker::Done(count) => rows = count,
            FromWorker::Failed(why) => failed = Some(why),
            FromWorker::Ready { .. } => panic!("ready twice"),
        }
        if matches!(said[at + 4], 4 | 5) {
            outcomes.push(Outcome {
                file: std::mem::take(&mut file),
                rows,
                rejected: std::mem::take(&mut rejected),
                failed,
            });
        }
        at += 4 + length;
    }
    outcomes
}

fn one(job: Job, records: &[&str]) -> Outcome {
    let records = records.iter().map(|record| Bytes::from((*record).to_owned())).collect();
    run(&[(job, records)]).pop().unwrap()
}

fn read_parquet(file: Vec<u8>) -> RecordBatch {
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).unwrap();
    let batches: Vec<RecordBatch> = reader
        .with_batch_size(1 << 20)
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(batches.len(), 1);
    batches[0].clone()
}

fn mismatches(outcome: &Outcome) -> Vec<(u32, &str)> {
    let text = |reason| match reason {
        &Reason::Malformed(_) => "malformed",
        Reason::Mismatch(why) | Reason::Fatal(why) => why.as_str(),
    };
    outcome
        .rejected
        .iter()
        .map(|(index, reason)| (*index, text(reason)))
        .collect()
}

const EVERYTHING: [(&str, &str); 15] = [
    ("flag", "boolean"),
    ("tiny", "tinyint"),
    ("number", "int"),
    ("big", "bigint"),
    ("ratio", "float"),
    ("share", "double"),
    ("price", "decimal(10,2)"),
    ("name", "string"),
    ("code", "varchar(3)"),
    ("raw", "binary"),
    ("day", "date"),
    ("at", "timestamp"),
    ("tags", "array<string>"),
    ("counts", "map<string,int>"),
    ("place", "struct<city:string,spot:struct<x:double,y:double>>"),
];

#[test]
fn every_type_arrives_in_parquet() {
    let record = r#"{"flag":true,"tiny":-7,"number":"42","big":9007199254740993,"ratio":1.5,"share":2,"price":12.345,
        "name":"d\u00f6or\n","code":"abcdef","raw":"AQID","day":"2026-01-31","at":"2026-01-31T12:00:00.5Z",
        "tags":["a",null,3],"counts":{"a":1,"b":null},"place":{"city":"X","spot":{"y":2.5}},"unknown":[{}]}"#;
    let record = record.replace('\n', " ");
    let outcome = one(
        job(&EVERYTHING, open_x(), parquet(Compression::Snappy)),
        &[&record, "{}", "{\"NAME\":7}"],
    );
    assert_eq!((outcome.rows, outcome.rejected.len(), outcome.failed), (3, 0, None));
    let batch = read_parquet(outcome.file);
    let column = |name| batch.column_by_name(name).unwrap();
    assert!(column("flag").as_boolean().value(0));
    assert_eq!(column("tiny").as_primitive::<Int8Type>().value(0), -7);
    assert_eq!(column("number").as_primitive::<Int32Type>().value(0), 42);
    assert_eq!(
        column("big").as_primitive::<Int64Type>().value(0),
        9_007_199_254_740_993
    );
    assert_eq!(column("price").as_primitive::<Decimal128Type>().value(0), 1235);
    assert_eq!(column("name").as_string::<i32>().value(0), "döor\n");
    assert_eq!(column("name").as_string::<i32>().value(2), "7");
    assert_eq!(column("code").as_string::<i32>().value(0), "abc");
    assert_eq!(column("raw").as_binary::<i32>().value(0), [1, 2, 3]);
    assert_eq!(column("day").as_primitive::<Date32Type>().value(0), 20_484);
    assert_eq!(
        column("at").as_primitive::<TimestampMicrosecondType>().value(0),
        1_769_860_800_500_000
    );
    let tags = column("tags").as_list::<i32>().value(0);
    assert_eq!(
        (
            tags.as_string::<i32>().value(0),
            tags.is_null(1),
            tags.as_string::<i32>().value(2)
        ),
        ("a", true, "3")
    );
    let counts = column("counts").as_map().value(0);
    assert_eq!((counts.len(), counts.column(1).is_null(1)), (2, true));
    let spot = column("place").as_struct().column_by_name("spot").unwrap();
    assert!(spot.as_struct().column_by_name("x").unwrap().is_null(0));
    assert!(
        batch.columns().iter().all(|column| column.is_null(1)),
        "what is missing is null"
    );
}

#[test]
fn simple_types_arrive_in_orc() {
    let columns: Vec<(&str, &str)> = EVERYTHING
        .into_iter()
        .filter(|(_, hive)| !hive.contains(['<', ',', '(']))
        .collect();
    for compression in [Compression::None, Compression::Snappy, Compression::Gzip] {
        let records: Vec<String> = (0..3000)
            .map(|n| format!("{{\"number\":{n},\"name\":\"n{n}\",\"at\":{n}}}"))
            .collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let outcome = one(job(&columns, open_x(), orc(compression)), &records);
        assert_eq!((outcome.rows, outcome.failed), (3000, None));
        let reader = orc_rust::ArrowReaderBuilder::try_new(Bytes::from(outcome.file))
            .unwrap()
            .build();
        let numbers: Vec<i32> = reader
            .flat_map(|batch| {
                batch
                    .unwrap()
                    .column_by_name("number")
                    .unwrap()
                    .as_primitive::<Int32Type>()
                    .values()
                    .to_vec()
            })
            .collect();
        assert!(numbers.into_iter().eq(0..3000));
    }
    let outcome = one(job(&EVERYTHING, open_x(), orc(Compression::None)), &["{}"]);
    assert!(
        outcome.failed.unwrap().contains("\"price\""),
        "what the library cannot write is refused, not tried"
    );
}

#[test]
fn records_that_do_not_fit_are_left_out_alone() {
    let records = [
        r#"{"number":1}"#,
        r#"{"number":"abc"}"#,
        r#"{"number":1"#,
        r#"[{"number":1}]"#,
        "7",
        "   ",
        r#"{"number":3000000000}"#,
        r#"{"tags":["a",{"b":1}],"number":[1]}"#,
        r#"{"place":{"spot":{"x":"far"}}}"#,
        r#"{"day":"2026-02-30"}"#,
        r#"{"raw":"%%%"}"#,
        r#"{"price":1e20}"#,
        r#"{"number":1.5}"#,
        r#"{"number":2}{"number":3} {"number":4}"#,
        r#"{"number":5}{"number":"x"}"#,
        r#"{"number":6,"number":7}"#,
        "{\"name\":\"\u{1}\"}",
    ];
    let outcome = one(job(&EVERYTHING, open_x(), parquet(Compression::None)), &records);
    let expected = [
        (1, "Column number: For input string: \"abc\" is no int."),
        (2, "malformed"),
        (3, "The input JSON contained a primitive or an array"),
        (4, "The input JSON contained a primitive or an array"),
        (5, "The record was empty"),
        (6, "Column number"),
        (7, "Column number"),
        (8, "Column place"),
        (9, "Column day"),
        (10, "Column raw"),
        (11, "Column price"),
        (12, "Column number"),
        (14, "Column number"),
        (16, "malformed"),
    ];
    let found = mismatches(&outcome);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((index, text), (wanted, start)) in found.into_iter().zip(expected) {
        assert!(index == wanted && text.starts_with(start), "{index}: {text}");
    }
    let batch = read_parquet(outcome.file);
    let numbers = batch
        .column_by_name("number")
        .unwrap()
        .as_primitive::<Int32Type>()
        .values()
        .to_vec();
    assert_eq!(numbers, [1, 2, 3, 4, 7]);
    assert_eq!(outcome.rows, 5);
}

#[test]
fn hives_serde_wants_the_types_of_the_columns() {
    let input = |formats: &[&str]| Input::Hive {
        timestamp_formats: formats.iter().map(|format| (*format).to_owned()).collect(),
    };
    let records = [
        r#"{"Number":1,"at":"2026-01-31 12:00:00"}"#,
        r#"{"number":"1"}"#,
        r#"{"name":{"a":1}}"#,
        r#"{"name":7}"#,
        r#"{"at":1769860800}"#,
        r#"{"at":"2026-01-31T12:00:00Z"}"#,
    ];
    let outcome = one(job(&EVERYTHING, input(&[]), parquet(Compression::Gzip)), &records);
    let rejected: Vec<u32> = outcome.rejected.iter().map(|(index, _)| *index).collect();
    assert_eq!(rejected, [1, 2, 4, 5]);
    let records = [
        r#"{"at":"31/Jan/2026 12:00"}"#,
        r#"{"at":1769860800000}"#,
        r#"{"at":"2026-01-31 12:00:00"}"#,
    ];
    let outcome = one(
        job(
            &EVERYTHING,
            input(&["dd/MMM/yyyy HH:mm", "millis"]),
            parquet(Compression::Zstd),
        ),
        &records,
    );
    assert_eq!(outcome.rejected.len(), 1);
    let batch = read_parquet(outcome.file);
    let at = batch
        .column_by_name("at")
        .unwrap()
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .to_vec();
    assert_eq!(at, [1_769_860_800_000_000; 2]);
}

#[test]
fn keys_find_their_columns_as_openx_is_told() {
    let columns = [("user_name", "string"), ("ts", "bigint"), ("inner", "struct<a_b:int>")];
    let input = |case_insensitive, dots_to_underscores| Input::OpenX {
        case_insensitive,
        dots_to_underscores,
        mappings: BTreeMap::from([("ts".to_owned(), "Timestamp".to_owned())]),
    };
    let record = r#"{"User.Name":"x","timestamp":1,"Timestamp":2,"inner":{"a.b":3,"A_B":4}}"#;
    let values = |input| {
        let batch = read_parquet(one(job(&columns, input, parquet(Compression::None)), &[record]).file);
        let name = batch
            .column(0)
            .as_string_opt::<i32>()
            .filter(|names| names.is_valid(0))
            .map(|names| names.value(0).to_owned());
        let inner = batch.column(2).as_struct().column(0).as_primitive::<Int32Type>();
        (
            name,
            batch.column(1).as_primitive::<Int64Type>().value(0),
            inner.is_valid(0).then(|| inner.value(0)),
        )
    };
    assert_eq!(values(input(true, true)), (Some("x".to_owned()), 2, Some(4)));
    assert_eq!(values(input(false, true)), (None, 2, Some(3)));
    assert_eq!(values(input(true, false)), (None, 2, Some(4)));
}

#[test]
fn nested_json_becomes_the_text_of_a_column_as_it_stands() {
    let records = [
        r#"{"name":{"b":[1,2.50,{"c":null}],"a":"\"x"}}"#,
        r#"{"name":[true,"y"]}"#,
    ];
    let batch = read_parquet(one(job(&EVERYTHING, open_x(), parquet(Compression::None)), &records).file);
    let names = batch.column_by_name("name").unwrap().as_string::<i32>();
    assert_eq!(names.value(0), r#"{"b":[1,2.50,{"c":null}],"a":"\"x"}"#);
    assert_eq!(names.value(1), r#"[true,"y"]"#);
}

#[test]
fn jobs_follow_each_other_and_a_job_without_rows_has_no_file() {
    let bad = job(&[("a", "array<int>")], open_x(), orc(Compression::None));
    let good = job(&[("a", "int")], open_x(), parquet(Compression::None));
    let records = |text: &str| vec![Bytes::from(text.to_owned()); 250];
    let outcomes = run(&[
        (bad, records("{}")),
        (good.clone(), records("no json")),
        (good.clone(), Vec::new()),
        (good, records("{\"a\":1}")),
    ]);
    assert!(outcomes[0].failed.is_some());
    assert_eq!((outcomes[1].rows, outcomes[1].rejected.len()), (0, 250));
    assert_eq!(outcomes[2].rows, 0);
    assert_eq!(read_parquet(outcomes[3].file.clone()).num_rows(), 250);
}

#[test]
fn many_pieces_and_row_groups_make_one_file() {
    let text = "x".repeat(2000);
    let records: Vec<Bytes> = (0..6000)
        .map(|n| Bytes::from(format!("{{\"a\":{n},\"t\":\"{n}{text}\"}}")))
        .collect();
    let output = Output::Parquet(ParquetOptions {
        compression: Compression::None,
        dictionary: true,
        page_bytes: 64 << 10,
        row_group_bytes: 4 << 20,
        version_2: true,
    });
    let outcome = run(&[(job(&[("a", "int"), ("t", "string")], open_x(), output), records)])
        .pop()
        .unwrap();
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(Bytes::from(outcome.file)).unwrap();
    assert!(reader.metadata().num_row_groups() > 1);
    let numbers: Vec<i32> = reader
        .build()
        .unwrap()
        .flat_map(|batch| batch.unwrap().column(0).as_primitive::<Int32Type>().values().to_vec())
        .collect();
    assert!(numbers.into_iter().eq(0..6000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_record_does_more_than_be_rejected(records in proptest::collection::vec("(\\{|\\}|\\[|\\]|,|:|null|true|-?[0-9]{1,25}(\\.[0-9]{1,9})?|\"(flag|tiny|price|name|day|at|tags|counts|place|city|spot|x)\"|\"\\PC{0,4}\"){0,30}", 1..8)) {
        let whole: Vec<String> = records.iter().map(|record| format!("{{{record}}}")).collect();
        let texts: Vec<&str> = records.iter().chain(&whole).map(String::as_str).collect();
        for input in [open_x(), Input::Hive { timestamp_formats: vec![] }] {
            let outcome = one(job(&EVERYTHING, input, parquet(Compression::None)), &texts);
            prop_assert_eq!(outcome.failed, None);
            if outcome.rows > 0 {
                prop_assert_eq!(read_parquet(outcome.file).num_rows() as u64, outcome.rows);
            }
        }
    }

    #[test]
    fn values_that_fit_come_back(values in proptest::collection::vec((any::<i64>(), "\\PC{0,12}", proptest::option::of(any::<bool>())), 1..30)) {
        let records: Vec<String> = values.iter().map(|(big, name, flag)| serde_json::json!({ "big": big, "name": name, "flag": flag }).to_string()).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let batch = read_parquet(one(job(&EVERYTHING, open_x(), parquet(Compression::Snappy)), &records).file);
        let (bigs, names, flags) = (batch.column_by_name("big").unwrap(), batch.column_by_name("name").unwrap(), batch.column_by_name("flag").unwrap());
        for (row, (big, name, flag)) in values.iter().enumerate() {
            prop_assert_eq!(bigs.as_primitive::<Int64Type>().value(row), *big);
            prop_assert_eq!(names.as_string::<i32>().value(row), name);
            prop_assert_eq!(flags.is_valid(row).then(|| flags.as_boolean().value(row)), *flag);
        }
    }
}
