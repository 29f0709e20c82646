//! The schema of records that nobody described, from samples of them: JSON objects, or rows of CSV. It guesses, and says
//! so by what it gives back: the samples, and what each column has of them.
//!
//! Members of objects within objects become columns of their own, `a_b` for `$.a.b`; lists are text. A number without a
//! fraction is an INTEGER or a BIGINT by its size, others are DOUBLE; text is a VARCHAR of the next power of two, and a
//! TIMESTAMP where every sample is one as SQL writes it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wire::kinesisanalyticsv2::{
    CSVMappingParameters, JSONMappingParameters, MappingParameters, RecordColumn, RecordFormat, RecordFormatType,
    SourceSchema,
};

use crate::limits;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovered {
    /// The schema.
    pub schema: SourceSchema,
    /// The columns of each row of the samples, as text; empty where a row has none.
    pub rows: Vec<Vec<String>>,
}

/// What values of a column have in common. The later ones hold the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Unknown,
    Boolean,
    Integer,
    Bigint,
    Double,
    Timestamp,
    Text,
}

impl Kind {
    fn of_number(number: &serde_json::Number) -> Kind {
        match number.as_i64() {
            Some(whole) if i32::try_from(whole).is_ok() => Kind::Integer,
            Some(_) => Kind::Bigint,
            None => Kind::Double,
        }
    }

    fn of_text(text: &str) -> Kind {
        match is_timestamp(text) {
            true => Kind::Timestamp,
            false => Kind::Text,
        }
    }

    /// The kind that holds both.
    fn and(self, other: Kind) -> Kind {
        let (low, high) = (self.min(other), self.max(other));
        match (low, high) {
            (Kind::Unknown, _) => high,
            _ if low == high => high,
            (Kind::Integer | Kind::Bigint, Kind::Bigint | Kind::Double) => high,
            _ => Kind::Text,
        }
    }
}

/// `2026-01-02 03:04:05`, with a fraction or without.
fn is_timestamp(text: &str) -> bool {
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    let Some((date, time)) = text.split_once(' ') else {
        return false;
    };
    let date: Vec<&str> = date.split('-').collect();
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let time: Vec<&str> = time.split(':').collect();
    let fits = |parts: &[&str], first: usize| {
        parts.len() == 3
            && parts
                .iter()
                .enumerate()
                .all(|(at, part)| digits(part, if at == 0 { first } else { 2 }))
    };
    fits(&date, 4) && fits(&time, 2) && (1..=9).contains(&fraction.len()) && digits(fraction, fraction.len())
}

#[derive(Debug)]
struct Column {
    name: String,
    mapping: String,
    kind: Kind,
    longest: usize,
}

impl Column {
    fn sql_type(&self) -> String {
        match self.kind {
            Kind::Boolean => "BOOLEAN".to_owned(),
            Kind::Integer => "INTEGER".to_owned(),
            Kind::Bigint => "BIGINT".to_owned(),
            Kind::Double => "DOUBLE".to_owned(),
            Kind::Timestamp => "TIMESTAMP".to_owned(),
            Kind::Unknown | Kind::Text => format!(
                "VARCHAR({})",
                self.longest.next_power_of_two().clamp(4, 65_536).min(65_535)
            ),
        }
    }

    fn take(&mut self, kind: Kind, characters: usize) {
        self.kind = self.kind.and(kind);
        self.longest = self.longest.max(characters);
    }
}

/// The schema of samples, each a record of a stream or the text of an object; `None` if there is none to be found.
pub fn discover(samples: &[String]) -> Option<Discovered> {
    // A list of what are no objects is no line of CSV for the commas in it.
    let is_json = |sample: &String| {
        serde_json::from_str::<Value>(sample).is_ok_and(|value| value.is_array() || value.is_object())
    };
    json(samples).or_else(|| (!samples.iter().any(is_json)).then(|| csv(samples)).flatten())
}

/// The schema where every sample is one or more JSON objects, one behind the other or in a list.
fn json(samples: &[String]) -> Option<Discovered> {
    let mut objects = Vec::new();
    let mut lists = false;
    for sample in samples {
        for value in serde_json::Deserializer::from_str(sample).into_iter::<Value>() {
            match value {
                Ok(object @ Value::Object(_)) => objects.push(object),
                Ok(Value::Array(items)) if items.iter().all(Value::is_object) => {
                    lists = true;
                    objects.extend(items);
                }
                // An object of a bucket that was not read to its end is cut in the middle of a row.
                Err(error) if error.is_eof() && !objects.is_empty() => break,
                _ => return None,
            }
            if objects.len() >= limits::SAMPLE_RECORDS {
                break;
            }
        }
    }
    let mut columns = Vec::new();
    let mut places = BTreeMap::new();
    for object in &objects {
        walk(object, "$", "", 0, &mut |path, name, leaf| {
            let next = columns.len();
            let at = *places.entry(path.to_owned()).or_insert(next);
            if at == next && next < limits::COLUMNS_MAX {
                columns.push(Column {
                    name: name.to_owned(),
                    mapping: path.to_owned(),
                    kind: Kind::Unknown,
                    longest: 0,
                });
            }
            if let Some(column) = columns.get_mut(at) {
                let (kind, characters) = leaf_kind(leaf);
                column.take(kind, characters);
            }
        });
    }
    if columns.is_empty() {
        return None;
    }
    tell_apart(&mut columns);
    let row = |object: &Value| {
        let mut found = BTreeMap::new();
        walk(object, "$", "", 0, &mut |path, _, leaf| {
            found.insert(path.to_owned(), text_of(leaf));
        });
        columns
            .iter()
            .map(|column| found.remove(&column.mapping).unwrap_or_default())
            .collect()
    };
    let rows = objects.iter().map(row).collect();
    let path = if lists { "$[0:]" } else { "$" };
    let mapping = MappingParameters {
        json_mapping_parameters: Some(JSONMappingParameters {
            record_row_path: path.to_owned(),
        }),
        csv_mapping_parameters: None,
    };
    Some(Discovered {
        schema: schema(&columns, RecordFormatType::Json, mapping),
        rows,
    })
}

/// Calls `leaf` with the path, the name and the value of everything that is no object.
fn walk<'v>(value: &'v Value, path: &str, name: &str, depth: usize, leaf: &mut impl FnMut(&str, &str, &'v Value)) {
    match value {
        Value::Object(members) if depth < limits::SAMPLE_DEPTH_MAX => {
            for (key, member) in members {
                let plain = key.chars().all(|c| c.is_alphanumeric() || c == '_');
                let path = match plain {
                    true => format!("{path}.{key}"),
                    false => format!("{path}['{key}']"),
                };
                let joined = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}_{key}")
                };
                walk(member, &path, &joined, depth + 1, leaf);
            }
        }
        other if depth > 0 => leaf(path, name, other),
        _ => {}
    }
}

fn leaf_kind(leaf: &Value) -> (Kind, usize) {
    match leaf {
        Value::Null => (Kind::Unknown, 0),
        Value::Bool(_) => (Kind::Boolean, 5),
        Value::Number(number) => (Kind::of_number(number), number.to_string().len()),
        Value::String(text) => (Kind::of_text(text), text.chars().count()),
        Value::Array(_) | Value::Object(_) => (Kind::Text, leaf.to_string().chars().count()),
    }
}

fn text_of(leaf: &Value) -> String {
    match leaf {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names as columns may have them, each once.
fn tell_apart(columns: &mut [Column]) {
    let mut taken = BTreeSet::new();
    for column in columns {
        let legal = |c: char| if c.is_alphanumeric() || c == '_' { c } else { '_' };
        let base: String = column.name.chars().map(legal).take(200).collect();
        let base = match base.chars().next() {
            None => "COL".to_owned(),
            Some(first) if first.is_ascii_digit() => format!("COL_{base}"),
            Some(_) => base,
        };
        let numbered = (2..).map(|number| format!("{base}_{number}"));
        let free = std::iter::once(base.clone())
            .chain(numbered)
            .find(|name| !taken.contains(name));
        let name = free.unwrap_or(base);
        taken.insert(name.clone());
        column.name = name;
    }
}

fn schema(columns: &[Column], format: RecordFormatType, mapping: MappingParameters) -> SourceSchema {
    let column = |column: &Column| RecordColumn {
        mapping: Some(column.mapping.clone()).filter(|mapping| !mapping.is_empty()),
        name: column.name.clone(),
        sql_type: column.sql_type(),
    };
    SourceSchema {
        record_columns: columns.iter().map(column).collect(),
        record_encoding: Some("UTF-8".to_owned()),
        record_format: RecordFormat {
            mapping_parameters: Some(mapping),
            record_format_type: format,
        },
    }
}

/// The schema where the samples are lines with the same number of fields.
fn csv(samples: &[String]) -> Option<Discovered> {
    let lines = samples.iter().flat_map(|sample| sample.lines());
    let lines: Vec<&str> = lines
        .filter(|line| !line.trim().is_empty())
        .take(limits::SAMPLE_RECORDS + 1)
        .collect();
    let split_by = |delimiter: char| {
        let rows: Vec<Vec<String>> = lines.iter().map(|line| fields(line, delimiter)).collect();
        let width = rows.first()?.len();
        let same = width > 1 && width <= limits::COLUMNS_MAX && rows.iter().all(|row| row.len() == width);
        same.then_some((delimiter, rows))
    };
    let found = [',', '\t', '|', ';'].into_iter().filter_map(split_by);
    let (delimiter, mut rows) = found.max_by_key(|(_, rows)| rows.first().map_or(0, Vec::len))?;
    let names = header(&rows);
    if names.is_some() {
        rows.remove(0);
    }
    let width = rows.first().map_or(0, Vec::len);
    let mut columns: Vec<Column> = (0..width)
        .map(|at| Column {
            name: names
                .as_ref()
                .and_then(|names| names.get(at).cloned())
                .unwrap_or_else(|| format!("COL_{}", at + 1)),
            mapping: String::new(),
            kind: Kind::Unknown,
            longest: 0,
        })
        .collect();
    for row in &rows {
        for (column, field) in columns.iter_mut().zip(row) {
            column.take(field_kind(field), field.chars().count());
        }
    }
    tell_apart(&mut columns);
    rows.truncate(limits::SAMPLE_RECORDS);
    let mapping = MappingParameters {
        json_mapping_parameters: None,
        csv_mapping_parameters: Some(CSVMappingParameters {
            record_column_delimiter: delimiter.to_string(),
            record_row_delimiter: "\n".to_owned(),
        }),
    };
    Some(Discovered {
        schema: schema(&columns, RecordFormatType::Csv, mapping),
        rows,
    })
}

/// The names of the first row, if it has nothing but words that differ, and the others have something else.
fn header(rows: &[Vec<String>]) -> Option<Vec<String>> {
    let (first, others) = rows.split_first()?;
    let word = |field: &String| field.chars().next().is_some_and(char::is_alphabetic);
    let distinct: BTreeSet<&String> = first.iter().collect();
    let other = |row: &Vec<String>| {
        row.iter()
            .any(|field| !matches!(field_kind(field), Kind::Text | Kind::Unknown))
    };
    let is_header = first.iter().all(word) && distinct.len() == first.len() && !others.is_empty();
    (is_header && others.iter().all(other)).then(|| first.clone())
}

fn field_kind(field: &str) -> Kind {
    let text = field.trim();
    if text.is_empty() {
        return Kind::Unknown;
    }
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return Kind::Boolean;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Kind::of_number(&whole.into());
    }
    let number = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) && text.parse::<f64>().is_ok();
    match number {
        true => Kind::Double,
        false => Kind::of_text(text),
    }
}

/// The fields of a line; one in double quotes may hold the delimiter, and two quotes are one.
fn fields(line: &str, delimiter: char) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut rest = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' if quoted && rest.peek() == Some(&'"') => {
                rest.next();
                field.push('"');
            }
            '"' if quoted || field.trim().is_empty() => quoted = !quoted,
            c if c == delimiter && !quoted => fields.push(std::mem::take(&mut field).trim().to_owned()),
            c => field.push(c),
        }
    }
    fields.push(field.trim().to_owned());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(samples: &[&str]) -> Discovered {
        let samples: Vec<String> = samples.iter().map(|s| (*s).to_owned()).collect();
        discover(&samples).unwrap()
    }

    fn columns(found: &Discovered) -> Vec<(&str, &str, &str)> {
        let columns = found.schema.record_columns.iter();
        columns
            .map(|c| (&*c.name, c.mapping.as_deref().unwrap_or(""), &*c.sql_type))
            .collect()
    }

    #[test]
    fn members_of_objects_become_columns_with_the_types_of_all_samples() {
        let found = found(&[
            r#"{"door": "north", "seen": {"at": "2026-01-02 03:04:05.678", "n": 1}, "score": 1, "ok": true, "tags": [1]}"#,
            r#"{"door": null, "seen": {"at": "2026-01-02 03:04:06", "n": 5000000000}, "score": 0.5, "late": "x"}"#,
        ]);
        assert_eq!(
            columns(&found),
            [
                ("door", "$.door", "VARCHAR(8)"),
                ("ok", "$.ok", "BOOLEAN"),
                ("score", "$.score", "DOUBLE"),
                ("seen_at", "$.seen.at", "TIMESTAMP"),
                ("seen_n", "$.seen.n", "BIGINT"),
                ("tags", "$.tags", "VARCHAR(4)"),
                ("late", "$.late", "VARCHAR(4)"),
            ]
        );
        assert_eq!(
            found.rows[1],
            ["", "", "0.5", "2026-01-02 03:04:06", "5000000000", "", "x"]
        );
        assert_eq!(found.schema.record_format.record_format_type, RecordFormatType::Json);
    }

    #[test]
    fn names_that_collide_or_are_none_are_told_apart() {
        let found = found(&[r#"{"a_b": 1, "a": {"b": 2}, "1st": 3, "x-y": 4}"#]);
        let mut names: Vec<&str> = columns(&found).into_iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["COL_1st", "a_b", "a_b_2", "x_y"]);
        assert!(columns(&found).iter().any(|(_, path, _)| *path == "$['x-y']"));
    }

    #[test]
    fn lines_with_a_header_or_without_become_columns() {
        let with = found(&["door,n,at\nnorth,1,2026-01-02 03:04:05\n\"a, \"\"b\"\"\",2,2026-01-02 03:04:06\n"]);
        assert_eq!(
            columns(&with),
            [
                ("door", "", "VARCHAR(8)"),
                ("n", "", "INTEGER"),
                ("at", "", "TIMESTAMP")
            ]
        );
        assert_eq!(with.rows[1][0], "a, \"b\"");
        let without = found(&["a|1.5", "b|2"]);
        assert_eq!(
            columns(&without),
            [("COL_1", "", "VARCHAR(4)"), ("COL_2", "", "DOUBLE")]
        );
        let csv = without
            .schema
            .record_format
            .mapping_parameters
            .unwrap()
            .csv_mapping_parameters
            .unwrap();
        assert_eq!(csv.record_column_delimiter, "|");
    }

    #[test]
    fn what_has_no_columns_has_no_schema() {
        for samples in [&[][..], &["plain text"], &["[1, 2]"], &["{}"], &["\u{0}\u{1}"]] {
            let samples: Vec<String> = samples.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(discover(&samples), None, "{samples:?}");
        }
    }
}
