//! What delivery streams need of the configuration: the tables of `[schemas]`, the functions of `[functions]`, and the
//! program `sql-worker`, without which nothing is converted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use firehose::format::columns::WorkerConverter;
use firehose::ports::{Conversion, ConvertError, Converted, Converter, Functions, Schemas, TableName, TableSchema};
use serde::Deserialize;
use sql::{SqlConfig, SqlPool};
use wire::firehose::{Deserializer, Serializer};

use crate::webhook::Address;

const WORKER: &str = "sql-worker";

/// The `[sql]` table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SqlSettings {
    /// The worker program; without it the one beside this program, then the one on PATH.
    pub worker: Option<PathBuf>,
    /// Most worker processes that work at once.
    pub max_workers: Option<usize>,
}

/// A table of `[schemas]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaTable {
    /// The columns in their order.
    columns: Vec<ColumnTable>,
    /// Columns that are in the names of objects and not in them, as Glue's tables list them.
    #[serde(default)]
    partition_columns: Vec<ColumnTable>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnTable {
    name: String,
    r#type: String,
}

/// The tables by `database.table`, or `catalog.database.table`.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    by_name: BTreeMap<String, Arc<TableSchema>>,
}

impl Tables {
    /// Checks the types of the columns.
    pub fn new(named: BTreeMap<String, SchemaTable>) -> Result<Self, String> {
        let one = |(name, table): (String, SchemaTable)| {
            if !(2..=3).contains(&name.split('.').count()) || name.split('.').any(str::is_empty) {
                return Err(format!(
                    "{name:?} must be \"database.table\" or \"catalog.database.table\""
                ));
            }
            for column in table.columns.iter().chain(&table.partition_columns) {
                let parsed = column.r#type.parse::<sql::HiveType>();
                parsed.map_err(|error| format!("{name:?}, column {:?}: {error}", column.name))?;
            }
            if table.columns.is_empty() {
                return Err(format!("{name:?} has no columns"));
            }
            let columns = table
                .columns
                .into_iter()
                .map(|column| (column.name.to_lowercase(), column.r#type));
            let columns = columns.collect();
            Ok((name.to_lowercase(), Arc::new(TableSchema { columns })))
        };
        let by_name = named.into_iter().map(one).collect::<Result<_, _>>()?;
        Ok(Tables { by_name })
    }
}

impl Schemas for Tables {
    fn schema(&self, table: &TableName) -> Option<Arc<TableSchema>> {
        let plain = format!("{}.{}", table.database, table.table).to_lowercase();
        let full = table
            .catalog
            .as_ref()
            .map(|catalog| format!("{}.{plain}", catalog.to_lowercase()));
        let found = full
            .and_then(|full| self.by_name.get(&full))
            .or_else(|| self.by_name.get(&plain));
        found.cloned()
    }
}

/// The functions by their ARNs, with or without a version or an alias.
#[derive(Debug, Clone, Default)]
pub struct FunctionUrls {
    by_arn: BTreeMap<String, String>,
    within: Option<Duration>,
}

impl FunctionUrls {
    /// Checks ARNs and addresses.
    pub fn new(named: BTreeMap<String, String>, within: Option<Duration>) -> Result<Self, String> {
        for (arn, url) in &named {
            if !arn.starts_with("arn:aws") || !arn.contains(":lambda:") {
                return Err(format!("{arn:?} is not the ARN of a Lambda function"));
            }
            url.parse::<Address>()?;
        }
        Ok(FunctionUrls { by_arn: named, within })
    }
}

impl Functions for FunctionUrls {
    fn url(&self, arn: &str) -> Option<String> {
        // arn:aws:lambda:REGION:ACCOUNT:function:NAME[:VERSION]
        let unqualified = arn.rmatch_indices(':').next().filter(|_| arn.matches(':').count() == 7);
        let unqualified = unqualified.and_then(|(at, _)| arn.get(..at));
        let found = self.by_arn.get(arn).or_else(|| self.by_arn.get(unqualified?));
        found.cloned()
    }

    fn within(&self) -> Duration {
        self.within.unwrap_or(firehose::limits::FUNCTION_WITHIN)
    }
}

/// The program `sql-worker`, or where it would be.
pub fn program(settings: &SqlSettings) -> PathBuf {
    crate::sight::program(settings.worker.as_ref(), "SIGHTGLASS_SQL_WORKER", WORKER)
}

/// What converts: worker processes, or an answer that says how to get the program.
pub fn converter(settings: &SqlSettings) -> Arc<dyn Converter> {
    let mut config = SqlConfig::new(program(settings));
    config.workers_max = settings.max_workers.unwrap_or(config.workers_max);
    match SqlPool::start(config) {
        Ok(pool) => Arc::new(WorkerConverter::new(pool)),
        Err(error) => Arc::new(Missing(error.to_string())),
    }
}

/// The program is not there.
struct Missing(String);

impl Missing {
    fn refuse<T>(&self) -> Result<T, ConvertError> {
        let why = format!("This server has no program that converts to Parquet or ORC: {}", self.0);
        Err(ConvertError::Refused(why))
    }
}

#[async_trait]
impl Converter for Missing {
    fn check(&self, _: &TableSchema, _: &Deserializer, _: &Serializer) -> Result<(), ConvertError> {
        self.refuse()
    }

    async fn convert(&self, _: Conversion) -> Result<Converted, ConvertError> {
        self.refuse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(text: &str) -> Result<Tables, String> {
        Tables::new(toml::from_str(text).unwrap())
    }

    fn name(catalog: Option<&str>, database: &str, table: &str) -> TableName {
        TableName {
            catalog: catalog.map(str::to_owned),
            database: database.to_owned(),
            table: table.to_owned(),
        }
    }

    #[test]
    fn tables_are_found_by_glues_names() {
        let text = "[\"door.events\"]\ncolumns = [{ name = \"At\", type = \"timestamp\" }]\npartition_columns = [{ name = \"day\", type = \"date\" }]\n\
                    [\"7.door.events\"]\ncolumns = [{ name = \"b\", type = \"int\" }]";
        let tables = tables(text).unwrap();
        let first = |catalog| {
            tables.schema(&name(catalog, "Door", "EVENTS")).unwrap().columns[0]
                .0
                .clone()
        };
        assert_eq!(
            (first(None), first(Some("7")), first(Some("8"))),
            ("at".to_owned(), "b".to_owned(), "at".to_owned())
        );
        assert!(tables.schema(&name(None, "door", "other")).is_none());
    }

    #[test]
    fn tables_that_cannot_be_are_refused_when_they_are_read() {
        for (text, word) in [
            (
                "[\"events\"]\ncolumns = [{ name = \"a\", type = \"int\" }]",
                "database.table",
            ),
            ("[\"d.e\"]\ncolumns = []", "no columns"),
            ("[\"d.e\"]\ncolumns = [{ name = \"a\", type = \"text\" }]", "\"text\""),
        ] {
            let error = tables(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn functions_are_found_with_and_without_their_versions() {
        let arn = "arn:aws:lambda:us-west-2:000000000000:function:shout";
        let named = |arn: &str, url: &str| BTreeMap::from([(arn.to_owned(), url.to_owned())]);
        let functions = FunctionUrls::new(named(arn, "http://127.0.0.1:1/shout"), None).unwrap();
        assert!(functions.url(arn).is_some() && functions.url(&format!("{arn}:$LATEST")).is_some());
        assert!(
            functions
                .url("arn:aws:lambda:us-west-2:000000000000:function")
                .is_none()
        );
        assert!(FunctionUrls::new(named("shout", "http://127.0.0.1:1"), None).is_err());
        assert!(FunctionUrls::new(named(arn, "127.0.0.1"), None).is_err());
    }
}
