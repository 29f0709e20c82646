//! Runs a script over files to their end, and writes the rows of each sink as JSON lines:
//!
//! ```text
//! run_script SCRIPT.sql --input TABLE=FILE.jsonl ... [--out DIR] [--explain]
//! ```
//!
//! A table's file has a JSON record in each line; `--input` for a table that rows are looked up in gives all its rows.
//! Without `--out` each line is `{"sink":..., "kind":"+I", "row":{...}}`; with it `DIR/SINK.jsonl` has the rows, and their
//! kinds where rows are taken back.

#![allow(clippy::disallowed_methods, reason = "files that the person at the terminal names")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use stream_sql::{Job, JobConfig, Program, Record, Rows};

/// Lines that are decoded at once.
const LINES: usize = 1_000;

struct Arguments {
    script: PathBuf,
    inputs: BTreeMap<String, PathBuf>,
    out: Option<PathBuf>,
    explain: bool,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = arguments()?;
    let program = Program::plan(&fs::read_to_string(&arguments.script)?, &[])?;
    if arguments.explain {
        print!("{}", program.explain());
        return Ok(());
    }
    let state_dir = std::env::temp_dir().join(format!("run-script-{}", std::process::id()));
    fs::create_dir_all(&state_dir)?;
    let config = JobConfig {
        memory_limit: 4 << 30,
        state_dir: state_dir.clone(),
    };
    let mut job = Job::new(program.clone(), config)?;
    let mut out = Out::new(&program, arguments.out.as_deref())?;
    let given = |name: &str| match arguments.inputs.get(name) {
        Some(path) => Ok(BufReader::new(File::open(path)?)),
        None => Err(Box::<dyn Error>::from(format!("--input {name}=FILE is missing"))),
    };
    for (index, table) in program.references().iter().enumerate() {
        let mut lines = given(&table.name)?.lines();
        let mut rows = Vec::new();
        while let Some(decoded) = next(&program.reference_decoder(index), &mut lines)? {
            rows.push(decoded.batch);
        }
        job.set_reference(index, rows)?;
    }
    let mut inputs = Vec::new();
    for (index, table) in program.sources().iter().enumerate() {
        job.open_partition(index, 0);
        inputs.push((index, program.decoder(index), given(&table.name)?.lines(), false));
    }
    // A piece of each in turn, as they would flow.
    while inputs.iter().any(|(.., ended)| !ended) {
        for (index, decoder, lines, ended) in inputs.iter_mut().filter(|(.., ended)| !ended) {
            match next(decoder, lines)? {
                Some(decoded) => {
                    for one in &decoded.rejected {
                        eprintln!(
                            "{}: {}",
                            program.sources().get(*index).map_or("", |table| &table.name),
                            one.reason
                        );
                    }
                    job.push(*index, 0, decoded)?;
                }
                None => {
                    *ended = true;
                    job.set_idle(*index, 0, true)?;
                }
            }
            out.write(&job.take())?;
        }
    }
    job.finish()?;
    out.write(&job.take())?;
    eprintln!("late: {}", job.late());
    drop(job);
    fs::remove_dir_all(state_dir)?;
    out.end()
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments {
        script: PathBuf::new(),
        inputs: BTreeMap::new(),
        out: None,
        explain: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--input" => {
                let value = value()?;
                let (table, path) = value.split_once('=').ok_or("--input is TABLE=FILE")?;
                arguments.inputs.insert(table.to_owned(), PathBuf::from(path));
            }
            "--out" => arguments.out = Some(PathBuf::from(value()?)),
            "--explain" => arguments.explain = true,
            _ => arguments.script = PathBuf::from(argument),
        }
    }
    match arguments.script.as_os_str().is_empty() {
        true => Err("run_script SCRIPT.sql --input TABLE=FILE.jsonl ... [--out DIR] [--explain]".into()),
        false => Ok(arguments),
    }
}

type Lines = std::io::Lines<BufReader<File>>;

fn next(decoder: &stream_sql::Decoder, lines: &mut Lines) -> Result<Option<stream_sql::Decoded>, Box<dyn Error>> {
    let texts = lines.by_ref().take(LINES).collect::<Result<Vec<String>, _>>()?;
    if texts.is_empty() {
        return Ok(None);
    }
    let records: Vec<Record<'_>> = texts
        .iter()
        .map(|text| Record {
            data: text.as_bytes(),
            arrival_ms: 0,
            partition_key: "",
            sequence_number: "",
            shard: "",
        })
        .collect();
    Ok(Some(decoder.decode(&records)))
}

/// Where rows go.
struct Out {
    program: Program,
    files: Option<Vec<BufWriter<File>>>,
}

impl Out {
    fn new(program: &Program, directory: Option<&std::path::Path>) -> Result<Out, Box<dyn Error>> {
        let open = |directory: &std::path::Path| {
            fs::create_dir_all(directory)?;
            let names = program
                .sinks()
                .iter()
                .map(|sink| directory.join(format!("{}.jsonl", sink.name)));
            names
                .map(|path| File::create(path).map(BufWriter::new))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Out {
            program: program.clone(),
            files: directory.map(open).transpose()?,
        })
    }

    fn write(&mut self, all: &[Rows]) -> Result<(), Box<dyn Error>> {
        for rows in all {
            let mut lines = Vec::new();
            let mut row = 0;
            let name = self
                .program
                .sinks()
                .get(rows.sink)
                .map_or("", |sink| sink.name.as_str());
            let quiet = self.files.is_some();
            self.program.encoder(rows.sink).encode(&rows.batch, |line| {
                let kind = rows.batch.kind(row).symbol();
                row += 1;
                let head = match (quiet, rows.batch.kinds.is_empty()) {
                    (false, _) => format!("{{\"sink\":\"{name}\",\"kind\":\"{kind}\",\"row\":"),
                    (true, false) => format!("{{\"kind\":\"{kind}\",\"row\":"),
                    (true, true) => String::new(),
                };
                lines.extend_from_slice(head.as_bytes());
                lines.extend_from_slice(line);
                lines.extend_from_slice(if head.is_empty() { b"\n" } else { b"}\n" });
            });
            match self.files.as_mut().and_then(|files| files.get_mut(rows.sink)) {
                Some(file) => file.write_all(&lines)?,
                None => std::io::stdout().write_all(&lines)?,
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), Box<dyn Error>> {
        for mut file in self.files.into_iter().flatten() {
            file.flush()?;
        }
        Ok(())
    }
}
