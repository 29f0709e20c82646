//! What an application's inputs, outputs and reference tables are to a worker: declared tables, with the options of the
//! engine's connectors. Whatever the API can describe and a worker cannot do is refused here, in words for the caller.
//!
//! An input with the prefix `FACES` is the table `FACES_001`, over all shards of its stream, with the columns of its schema
//! and `ROWTIME`, when a record arrived. An output is the table of its name. Property groups say what the API has no words
//! for: see [`INPUT_GROUP`], [`OUTPUT_GROUP`], [`APPLICATION_GROUP`].

use std::collections::BTreeMap;

use sql::application::{ColumnSpec, RowtimeSpec, TableSpec};
use wire::kinesisanalyticsv2::{
    InputDescription, OutputDescription, PropertyGroup, RecordFormatType, ReferenceDataSourceDescription, SourceSchema,
    SqlApplicationConfigurationDescription,
};

use crate::limits;
use crate::stored::VersionRecord;

/// `sightglass.input.PREFIX`: `rowtime` names the column with the time of events, `lateness` says how late they may be
/// (`5 s`), `idle` after which silence a shard holds nothing back.
pub const INPUT_GROUP: &str = "sightglass.input.";
/// `sightglass.output.NAME`: `columns` are the columns that are written (`door STRING, n BIGINT`), `partitioned_by` those
/// that decide on the shard.
pub const OUTPUT_GROUP: &str = "sightglass.output.";
/// `sightglass.application`: `checkpoint_interval_ms`, `memory_bytes`.
pub const APPLICATION_GROUP: &str = "sightglass.application";

/// The column of an input that says when a record arrived.
pub const ROWTIME: &str = "ROWTIME";
/// The output of this name takes the records that do not fit, as AWS's in-application error stream does.
pub const ERROR_STREAM: &str = "error_stream";

/// What a worker is told of an application's inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The tables.
    pub tables: Vec<TableSpec>,
    /// Where records go that do not fit.
    pub error_stream: Option<String>,
    /// The application's own checkpoint interval.
    pub checkpoint_interval_ms: Option<u64>,
    /// The application's own limit of memory.
    pub memory_bytes: Option<u64>,
}

type Groups<'a> = &'a [PropertyGroup];

/// The tables of a version. `positions` says where inputs are read from, by their ids.
pub fn tables(version: &VersionRecord, positions: &BTreeMap<String, String>) -> Result<Tables, String> {
    let nothing = SqlApplicationConfigurationDescription::default();
    let configuration = &version.configuration;
    let described = configuration.sql_application_configuration_description.as_ref();
    let described = described.unwrap_or(&nothing);
    let groups = configuration.environment_property_descriptions.as_ref();
    let groups = groups.and_then(|groups| groups.property_group_descriptions.as_deref());
    let groups = groups.unwrap_or_default();
    let mut made = Tables::default();
    for given in described.input_descriptions.iter().flatten() {
        made.tables.push(input(given, groups, positions)?);
    }
    for given in described.output_descriptions.iter().flatten() {
        match error_stream(given) {
            Some(stream) => made.error_stream = Some(stream?),
            None => made.tables.push(output(given, groups)?),
        }
    }
    for given in described.reference_data_source_descriptions.iter().flatten() {
        made.tables.push(reference(given)?);
    }
    let own = |key: &str| match property(groups, APPLICATION_GROUP, key) {
        Some(text) => {
            let number = text.parse::<u64>();
            number
                .map(Some)
                .map_err(|_| format!("{APPLICATION_GROUP}: {key} = {text:?} is no number"))
        }
        None => Ok(None),
    };
    made.checkpoint_interval_ms = own("checkpoint_interval_ms")?;
    if let Some(interval) = made.checkpoint_interval_ms
        && !limits::CHECKPOINT_INTERVAL_MS.contains(&interval)
    {
        let (least, most) = (
            limits::CHECKPOINT_INTERVAL_MS.start(),
            limits::CHECKPOINT_INTERVAL_MS.end(),
        );
        return Err(format!(
            "{APPLICATION_GROUP}: checkpoint_interval_ms must be {least} to {most}"
        ));
    }
    made.memory_bytes = own("memory_bytes")?;
    Ok(made)
}

fn property<'a>(groups: Groups<'a>, group: &str, key: &str) -> Option<&'a str> {
    let group = groups.iter().find(|g| g.property_group_id == group)?;
    group
        .property_map
        .get(key)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

fn input(
    given: &InputDescription,
    groups: Groups<'_>,
    positions: &BTreeMap<String, String>,
) -> Result<TableSpec, String> {
    let prefix = given.name_prefix.as_deref().unwrap_or_default();
    let id = given.input_id.as_deref().unwrap_or_default();
    if given.input_processing_configuration_description.is_some() {
        return Err(format!(
            "Input {id} has an input processor; functions are not called for applications by this server."
        ));
    }
    let Some(stream) = &given.kinesis_streams_input_description else {
        return Err(format!(
            "Input {id} is no data stream; applications read data streams alone."
        ));
    };
    let Some(schema) = &given.input_schema else {
        return Err(format!("Input {id} has no schema."));
    };
    json_records(schema, &format!("Input {id}"))?;
    let mut columns = columns(schema);
    if columns.iter().any(|column| column.name == ROWTIME) {
        return Err(format!(
            "Input {id}: {ROWTIME} is when a record arrived; give the column another name."
        ));
    }
    columns.push(ColumnSpec {
        name: ROWTIME.to_owned(),
        sql_type: "TIMESTAMP_LTZ(3)".to_owned(),
        nullable: false,
        metadata: Some("timestamp".to_owned()),
        ..ColumnSpec::default()
    });
    let group = format!("{INPUT_GROUP}{prefix}");
    let mut options = options(&[
        ("connector", "kinesis"),
        ("stream.arn", &stream.resource_arn),
        ("format", "json"),
    ]);
    if let Some(position) = positions.get(id).and_then(|position| connector_position(position)) {
        options.insert("source.init.position".to_owned(), position.to_owned());
    }
    if let Some(idle) = property(groups, &group, "idle") {
        options.insert("scan.watermark.idle-timeout".to_owned(), idle.to_owned());
    }
    Ok(TableSpec {
        name: format!("{prefix}_001"),
        rowtime: Some(rowtime(&columns, groups, &group)?),
        columns,
        options,
        ..TableSpec::default()
    })
}

/// The connector's word for where reading begins; none where the worker's own positions decide.
fn connector_position(position: &str) -> Option<&'static str> {
    match position {
        "NOW" => Some("LATEST"),
        "TRIM_HORIZON" => Some("TRIM_HORIZON"),
        _ => None,
    }
}

fn rowtime(columns: &[ColumnSpec], groups: Groups<'_>, group: &str) -> Result<RowtimeSpec, String> {
    let column = property(groups, group, "rowtime").unwrap_or(ROWTIME);
    let Some(found) = columns.iter().find(|c| c.name == column) else {
        return Err(format!("{group}: rowtime = {column:?} is no column of the input"));
    };
    if !found.sql_type.starts_with("TIMESTAMP") {
        return Err(format!(
            "{group}: rowtime = {column:?} must be a TIMESTAMP, and is {}",
            found.sql_type
        ));
    }
    let delay_ms = match property(groups, group, "lateness") {
        None => 0,
        Some(text) => {
            let late = milliseconds(text).filter(|late| (0..=limits::LATENESS_MS_MAX).contains(late));
            late.ok_or_else(|| format!("{group}: lateness = {text:?} is no duration up to a day, such as \"5 s\""))?
        }
    };
    Ok(RowtimeSpec {
        column: column.to_owned(),
        delay_ms,
    })
}

/// `250 ms`, `5 s`, `2 min`, `1 h`.
fn milliseconds(text: &str) -> Option<i64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let each = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(each)
}

/// The data stream that takes records which do not fit, if the output is AWS's error stream.
fn error_stream(given: &OutputDescription) -> Option<Result<String, String>> {
    let name = given
        .name
        .as_deref()
        .filter(|name| name.eq_ignore_ascii_case(ERROR_STREAM))?;
    let stream = given.kinesis_streams_output_description.as_ref();
    let stream = stream.map(|stream| stream.resource_arn.clone());
    Some(stream.ok_or_else(|| format!("Output {name} must be a data stream.")))
}

fn output(given: &OutputDescription, groups: Groups<'_>) -> Result<TableSpec, String> {
    let name = given.name.as_deref().unwrap_or_default();
    let stream = given.kinesis_streams_output_description.as_ref();
    let firehose = given.kinesis_firehose_output_description.as_ref();
    let mut options = match (stream, firehose) {
        (Some(stream), _) => options(&[("connector", "kinesis"), ("stream.arn", &stream.resource_arn)]),
        (_, Some(firehose)) => options(&[("connector", "firehose"), ("delivery-stream", &firehose.resource_arn)]),
        _ => {
            return Err(format!(
                "Output {name} is a function; functions are not called for applications by this server. Write to a data stream."
            ));
        }
    };
    let schema = given.destination_schema.as_ref();
    if schema.is_some_and(|schema| schema.record_format_type == RecordFormatType::Csv) {
        return Err(format!("Output {name}: rows are written as JSON, not as CSV."));
    }
    options.insert("format".to_owned(), "json".to_owned());
    let group = format!("{OUTPUT_GROUP}{name}");
    let list = |key: &str| property(groups, &group, key).map(split_list).unwrap_or_default();
    let column = |text: String| {
        let (name, sql_type) = text.split_once(char::is_whitespace).unwrap_or((&text, ""));
        let sql_type = sql_type.trim();
        if sql_type.is_empty() {
            return Err(format!("{group}: {text:?} is not a name and a type"));
        }
        Ok(ColumnSpec {
            name: name.trim_matches('`').to_owned(),
            sql_type: flink_type(sql_type),
            nullable: true,
            ..ColumnSpec::default()
        })
    };
    Ok(TableSpec {
        name: name.to_owned(),
        columns: list("columns").into_iter().map(column).collect::<Result<_, _>>()?,
        partitioned_by: list("partitioned_by"),
        options,
        ..TableSpec::default()
    })
}

/// The parts between commas that stand in no brackets.
fn split_list(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0usize);
    for c in text.chars() {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (c, parts.last_mut()) {
            (',', _) if depth == 0 => parts.push(String::new()),
            (_, Some(part)) => part.push(c),
            _ => {}
        }
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

fn reference(given: &ReferenceDataSourceDescription) -> Result<TableSpec, String> {
    let name = &given.table_name;
    let place = &given.s3_reference_data_source_description;
    let bucket = place.bucket_arn.rsplit(':').next().unwrap_or_default();
    let path = format!("s3://{bucket}/{}", place.file_key);
    let Some(schema) = &given.reference_schema else {
        return Err(format!("Reference table {name} has no schema."));
    };
    let mut options = options(&[("connector", "filesystem"), ("path", &path)]);
    match schema.record_format.record_format_type {
        RecordFormatType::Json => {
            json_records(schema, &format!("Reference table {name}"))?;
            options.insert("format".to_owned(), "json".to_owned());
        }
        RecordFormatType::Csv => {
            let mapping = schema.record_format.mapping_parameters.as_ref();
            let csv = mapping.and_then(|mapping| mapping.csv_mapping_parameters.as_ref());
            let row = csv.map_or("\n", |csv| &csv.record_row_delimiter);
            if !matches!(row, "\n" | "\r\n" | "\\n" | "\\r\\n") {
                return Err(format!(
                    "Reference table {name}: rows of CSV end with the end of a line."
                ));
            }
            let column = csv.map_or(",", |csv| &csv.record_column_delimiter);
            options.insert("format".to_owned(), "csv".to_owned());
            options.insert("csv.field-delimiter".to_owned(), column.replace("\\t", "\t"));
        }
    }
    Ok(TableSpec {
        name: name.clone(),
        columns: columns(schema),
        options,
        ..TableSpec::default()
    })
}

/// Refuses records that are not one JSON object each.
fn json_records(schema: &SourceSchema, what: &str) -> Result<(), String> {
    if schema.record_format.record_format_type != RecordFormatType::Json {
        return Err(format!("{what}: records are read as JSON, not as CSV."));
    }
    let mapping = schema.record_format.mapping_parameters.as_ref();
    let path = mapping.and_then(|mapping| mapping.json_mapping_parameters.as_ref());
    match path.map_or("$", |path| &path.record_row_path) {
        "$" => Ok(()),
        other => Err(format!(
            "{what}: RecordRowPath {other:?} is not read; each record is one row, \"$\"."
        )),
    }
}

fn columns(schema: &SourceSchema) -> Vec<ColumnSpec> {
    let column = |column: &wire::kinesisanalyticsv2::RecordColumn| {
        let path = column.mapping.as_deref().map(str::trim).filter(|path| !path.is_empty());
        ColumnSpec {
            name: column.name.clone(),
            sql_type: flink_type(&column.sql_type),
            nullable: true,
            path: path.map(|path| match path.starts_with('$') {
                true => path.to_owned(),
                false => format!("$.{path}"),
            }),
            ..ColumnSpec::default()
        }
    };
    schema.record_columns.iter().map(column).collect()
}

/// AWS's types are those of another dialect; the ones that Flink calls otherwise are renamed. A timestamp without a
/// precision has milliseconds, as AWS's has, so that it may be the time of events.
pub fn flink_type(sql_type: &str) -> String {
    let upper = sql_type.trim().to_ascii_uppercase();
    let (name, arguments) = match upper.find('(') {
        Some(at) => upper.split_at_checked(at).unwrap_or((upper.as_str(), "")),
        None => (&*upper, ""),
    };
    match (name.trim(), arguments) {
        ("TIMESTAMP", "") => "TIMESTAMP(3)".to_owned(),
        ("REAL", _) => "FLOAT".to_owned(),
        ("INTEGER", _) => "INT".to_owned(),
        ("NUMERIC", arguments) => format!("DECIMAL{arguments}"),
        _ => sql_type.trim().to_owned(),
    }
}

fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_old_dialect_have_names_in_the_new_one() {
        let types = [
            ("INTEGER", "INT"),
            ("real", "FLOAT"),
            ("TIMESTAMP", "TIMESTAMP(3)"),
            ("TIMESTAMP(0)", "TIMESTAMP(0)"),
            ("NUMERIC(10,2)", "DECIMAL(10,2)"),
            ("VARCHAR(16)", "VARCHAR(16)"),
            ("ROW<a INT, b STRING>", "ROW<a INT, b STRING>"),
        ];
        for (aws, flink) in types {
            assert_eq!(flink_type(aws), flink);
        }
    }

    #[test]
    fn durations_and_lists_are_read_as_documented() {
        assert_eq!(milliseconds("250 ms"), Some(250));
        assert_eq!(milliseconds("5s"), Some(5_000));
        assert_eq!(milliseconds("2 min"), Some(120_000));
        for wrong in ["", "s", "5", "5 days", "99999999999999999999 s", "-1 s"] {
            assert_eq!(milliseconds(wrong), None, "{wrong:?}");
        }
        assert_eq!(
            split_list("a INT, b DECIMAL(10, 2) ,c ROW<x INT, y INT>,"),
            ["a INT", "b DECIMAL(10, 2)", "c ROW<x INT, y INT>"]
        );
    }
}
