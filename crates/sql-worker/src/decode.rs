//! Records of JSON to rows of columns, as the SerDes of Hive read them. A record is one JSON object, or several, one behind
//! the other; it becomes rows whole or not at all.
//!
//! What fits what follows the SerDe that the caller chose. OpenX's is lenient: a text that is a number is one, and whatever
//! is no text becomes its text. Hive's own wants the types that the columns have; times are read by patterns.

use std::fmt;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sql::hive::HiveType;
use sql::job::{Input, Job, Reason};
use sql::joda::TimestampPattern;

use crate::column::{Column, Data, Group, schema};
use crate::value;

/// How JSON is read.
#[derive(Debug)]
struct Rules {
    lenient: bool,
    fold_case: bool,
    dots: bool,
    formats: Vec<TimestampPattern>,
}

impl Rules {
    fn new(input: &Input) -> Self {
        match input {
            Input::OpenX {
                case_insensitive,
                dots_to_underscores,
                ..
            } => Rules {
                lenient: true,
                fold_case: *case_insensitive,
                dots: *dots_to_underscores,
                formats: Vec::new(),
            },
            Input::Hive { timestamp_formats } => Rules {
                lenient: false,
                fold_case: true,
                dots: false,
                // What is no pattern was refused before the job came here.
                formats: timestamp_formats
                    .iter()
                    .filter_map(|format| format.parse().ok())
                    .collect(),
            },
        }
    }

    /// A key as columns are looked up by it.
    fn key(&self, key: &str) -> String {
        let key = if self.fold_case {
            key.to_lowercase()
        } else {
            key.to_owned()
        };
        if self.dots { key.replace('.', "_") } else { key }
    }
}

/// The rows that are being gathered.
#[derive(Debug)]
pub struct Table {
    schema: SchemaRef,
    rules: Rules,
    group: Group,
    rows: usize,
    /// The column that is being read, for the reason of a rejection.
    current: Option<usize>,
}

impl Table {
    /// An empty one.
    pub fn new(job: &Job) -> Self {
        let rules = Rules::new(&job.input);
        let mapped = |name: &str| match &job.input {
            Input::OpenX { mappings, .. } => {
                let found = mappings.iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
                found.map(|(_, key)| rules.key(key))
            }
            Input::Hive { .. } => None,
        };
        let key = |name: &str| rules.key(name);
        let fields = job.columns.iter().map(|column| {
            let json_key = mapped(&column.name).unwrap_or_else(|| key(&column.name));
            (column.name.as_str(), &column.hive, json_key)
        });
        let group = Group::new(fields, &key);
        Table {
            schema: schema(job),
            rules,
            group,
            rows: 0,
            current: None,
        }
    }

    /// Appends the rows of a record; returns how many. A record that is rejected leaves no trace.
    pub fn push(&mut self, record: &[u8]) -> Result<u64, Reason> {
        let before = self.rows;
        if record.iter().all(u8::is_ascii_whitespace) {
            return Err(Reason::Mismatch(
                "The record was empty or contained only whitespace.".to_owned(),
            ));
        }
        let mut reader = serde_json::Deserializer::from_slice(record);
        loop {
            let row = Row {
                group: &mut self.group,
                rules: &self.rules,
                rows: self.rows,
                current: &mut self.current,
            };
            if let Err(error) = row.deserialize(&mut reader) {
                let reason = self.reason(&error);
                self.group.columns.iter_mut().for_each(|column| column.truncate(before));
                self.rows = before;
                return Err(reason);
            }
            self.rows += 1;
            if reader.end().is_ok() {
                return Ok((self.rows - before) as u64);
            }
        }
    }

    fn reason(&self, error: &serde_json::Error) -> Reason {
        let name = self.current.and_then(|column| self.group.names.get(column));
        match (error.is_data(), name) {
            (true, Some(name)) => Reason::Mismatch(format!("Column {name}: {error}")),
            (true, None) => Reason::Mismatch(error.to_string()),
            (false, _) => Reason::Malformed(error.to_string()),
        }
    }

    /// The rows, if there are any; it is empty afterwards.
    pub fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.rows == 0 {
            return Ok(None);
        }
        self.rows = 0;
        let columns = self
            .group
            .columns
            .iter_mut()
            .map(Column::take)
            .collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map(Some)
    }
}

/// Reads an object into the columns of a group.
fn read_object<'de, A: MapAccess<'de>>(
    group: &mut Group,
    rules: &Rules,
    rows: usize,
    mut map: A,
    mut at: impl FnMut(Option<usize>),
) -> Result<(), A::Error> {
    group.next = 0;
    while let Some(place) = map.next_key_seed(KeySeed { group, rules })? {
        let Some(column) = place.and_then(|place| group.columns.get_mut(place)) else {
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        at(place);
        // A key that comes again replaces what it said before.
        column.truncate(rows);
        map.next_value_seed(Slot { column, rules })?;
        at(None);
    }
    for column in &mut group.columns {
        if column.len() == rows {
            column.push_null();
        }
    }
    Ok(())
}

/// Finds the column of a key without keeping the key.
struct KeySeed<'a> {
    group: &'a mut Group,
    rules: &'a Rules,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let expected = self
            .group
            .keys
            .get(self.group.next)
            .is_some_and(|expected| expected == key);
        let found = match expected {
            true => Some(self.group.next),
            false => match self.group.by_key.get(key) {
                Some(place) => Some(*place),
                None if self.rules.dots || self.rules.fold_case => {
                    self.group.by_key.get(self.rules.key(key).as_str()).copied()
                }
                None => None,
            },
        };
        if let Some(place) = found {
            self.group.next = place + 1;
        }
        Ok(found)
    }
}

/// One object on the top level.
struct Row<'a> {
    group: &'a mut Group,
    rules: &'a Rules,
    rows: usize,
    current: &'a mut Option<usize>,
}

const TOP_LEVEL: &str =
    "The input JSON contained a primitive or an array at the top level. The top level must be an object.";

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        *self.current = None;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Row {
            group,
            rules,
            rows,
            current,
            ..
        } = self;
        read_object(group, rules, rows, map, |place| *current = place)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(de::Error::custom(TOP_LEVEL))
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom(TOP_LEVEL))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom(TOP_LEVEL))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom(TOP_LEVEL))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom(TOP_LEVEL))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom(TOP_LEVEL))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(E::custom(TOP_LEVEL))
    }
}

/// The end of a column, where the next value goes.
struct Slot<'a> {
    column: &'a mut Column,
    rules: &'a Rules,
}

fn mismatch<E: de::Error>(hive: &HiveType, value: impl fmt::Display) -> E {
    let value: String = value.to_string().chars().take(80).collect();
    E::custom(format_args!("For input string: {value:?} is no {hive}."))
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match self.column.data {
            // A binary fraction would not keep the digits of a decimal one.
            Data::Decimal(_) => {
                let raw: &RawValue = serde::Deserialize::deserialize(reader)?;
                self.decimal(raw.get())
            }
            _ => reader.deserialize_any(self),
        }
    }
}

impl Slot<'_> {
    fn decimal<E: de::Error>(self, raw: &str) -> Result<(), E> {
        let Slot { column, rules } = self;
        let HiveType::Decimal(precision, scale) = column.hive else {
            return Err(mismatch(&column.hive, raw));
        };
        if raw == "null" {
            column.push_null();
            return Ok(());
        }
        let text = match raw.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            Some(text) if rules.lenient => text,
            Some(_) => return Err(mismatch(&column.hive, raw)),
            None => raw,
        };
        let value = value::decimal(text, precision, scale).ok_or_else(|| mismatch(&column.hive, raw))?;
        if let Data::Decimal(values) = &mut column.data {
            values.push(value);
            column.is_there();
        }
        Ok(())
    }

    fn whole<E: de::Error>(self, number: i64) -> Result<(), E> {
        let Slot { column, rules } = self;
        let fits = match &mut column.data {
            Data::Int8(values) => i8::try_from(number).map(|number| values.push(number)).is_ok(),
            Data::Int16(values) => i16::try_from(number).map(|number| values.push(number)).is_ok(),
            Data::Int32(values) => i32::try_from(number).map(|number| values.push(number)).is_ok(),
            Data::Int64(values) => {
                values.push(number);
                true
            }
            Data::Float32(values) => {
                values.push(number as f32);
                true
            }
            Data::Float64(values) => {
                values.push(number as f64);
                true
            }
            Data::Timestamp(values) => {
                let micros = match rules.lenient {
                    true => value::epoch(number),
                    false => rules.formats.iter().find_map(|format| format.read_millis(number)),
                };
                micros.map(|micros| values.push(micros)).is_some()
            }
            Data::Text(..) => return text(column, &number.to_string()),
            _ => false,
        };
        match fits {
            true => {
                column.is_there();
                Ok(())
            }
            false => Err(mismatch(&column.hive, number)),
        }
    }

    fn fraction<E: de::Error>(self, number: f64) -> Result<(), E> {
        let Slot { column, rules } = self;
        match &mut column.data {
            Data::Float32(values) => values.push(number as f32),
            Data::Float64(values) => values.push(number),
            Data::Timestamp(values) => match value::epoch_float(number).filter(|_| rules.lenient) {
                Some(micros) => values.push(micros),
                None => return Err(mismatch(&column.hive, number)),
            },
            Data::Text(..) => return text(column, &serde_json::Value::from(number).to_string()),
            Data::Int8(_) | Data::Int16(_) | Data::Int32(_) | Data::Int64(_)
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 =>
            {
                return Slot { column, rules }.whole(number as i64);
            }
            _ => return Err(mismatch(&column.hive, number)),
        }
        column.is_there();
        Ok(())
    }

    /// A text for a column that is none.
    fn parsed<E: de::Error>(self, given: &str) -> Result<(), E> {
        let Slot { column, rules } = self;
        let lenient = rules.lenient;
        let fits = match &mut column.data {
            Data::Date(values) => value::date(given).map(|days| values.push(days)).is_some(),
            Data::Timestamp(values) => {
                let micros = match (lenient, rules.formats.is_empty()) {
                    (true, _) => value::open_x_timestamp(given),
                    (false, true) => value::sql_timestamp(given),
                    (false, false) => rules.formats.iter().find_map(|format| format.read(given)),
                };
                micros.map(|micros| values.push(micros)).is_some()
            }
            Data::Binary(ends, bytes) => {
                let decoded = base64_simd::STANDARD.decode_to_vec(given.as_bytes());
                let end = decoded.ok().and_then(|decoded| {
                    bytes.extend_from_slice(&decoded);
                    i32::try_from(bytes.len()).ok()
                });
                end.map(|end| ends.push(end)).is_some()
            }
            Data::Bool(values) if lenient => {
                let value = given.eq_ignore_ascii_case("true");
                let fits = value || given.eq_ignore_ascii_case("false");
                fits.then(|| values.push(value)).is_some()
            }
            Data::Int8(_) | Data::Int16(_) | Data::Int32(_) | Data::Int64(_) if lenient => {
                let number: Option<i64> = given.trim().parse().ok();
                let number = number.ok_or_else(|| mismatch(&column.hive, given))?;
                return Slot { column, rules }.whole(number);
            }
            Data::Float32(_) | Data::Float64(_) if lenient => {
                let number: Option<f64> = given.trim().parse().ok();
                let number = number.ok_or_else(|| mismatch(&column.hive, given))?;
                return Slot { column, rules }.fraction(number);
            }
            _ => false,
        };
        match fits {
            true => {
                column.is_there();
                Ok(())
            }
            false => Err(mismatch(&column.hive, given)),
        }
    }
}

/// Appends a text, cut to the length of its type.
fn text<E: de::Error>(column: &mut Column, given: &str) -> Result<(), E> {
    let kept = match column.hive {
        HiveType::Varchar(length) | HiveType::Char(length) => {
            let end = given
                .char_indices()
                .nth(length as usize)
                .map_or(given.len(), |(at, _)| at);
            given.get(..end).unwrap_or(given)
        }
        _ => given,
    };
    let Data::Text(ends, bytes) = &mut column.data else {
        return Err(mismatch(&column.hive, given));
    };
    bytes.extend_from_slice(kept.as_bytes());
    let end = i32::try_from(bytes.len()).map_err(|_| E::custom("The text is too long."))?;
    ends.push(end);
    column.is_there();
    Ok(())
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of the type {}", self.column.hive)
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.column.push_null();
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, given: bool) -> Result<(), E> {
        match &mut self.column.data {
            Data::Bool(values) => {
                values.push(given);
                self.column.is_there();
                Ok(())
            }
            Data::Text(..) => text(self.column, if given { "true" } else { "false" }),
            _ => Err(mismatch(&self.column.hive, given)),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.whole(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        match (i64::try_from(number), &self.column.data) {
            (Ok(number), _) => self.whole(number),
            (Err(_), Data::Text(..)) => text(self.column, &number.to_string()),
            (Err(_), _) => self.fraction(number as f64),
        }
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.fraction(number)
    }

    fn visit_str<E: de::Error>(self, given: &str) -> Result<(), E> {
        match self.column.data {
            Data::Text(..) => text(self.column, given),
            _ => self.parsed(given),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Slot { column, rules } = self;
        match &mut column.data {
            Data::List(ends, list) => {
                while items
                    .next_element_seed(Slot {
                        column: &mut *list,
                        rules,
                    })?
                    .is_some()
                {}
                let end = i32::try_from(list.len()).map_err(|_| de::Error::custom("The array is too long."))?;
                ends.push(end);
                column.is_there();
                Ok(())
            }
            Data::Text(..) if rules.lenient => {
                let mut out = String::from("[");
                let mut first = true;
                while items
                    .next_element_seed(Written {
                        out: &mut out,
                        comma: !first,
                    })?
                    .is_some()
                {
                    first = false;
                }
                out.push(']');
                text(column, &out)
            }
            _ => Err(mismatch(&column.hive, "[...]")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Slot { column, rules } = self;
        let rows = column.len();
        match &mut column.data {
            Data::Struct(group) => read_object(group, rules, rows, map, |_| {})?,
            Data::Map(ends, entries) => {
                let (keys, values) = &mut **entries;
                while map.next_key_seed(EntryKey(Slot { column: keys, rules }))?.is_some() {
                    map.next_value_seed(Slot { column: values, rules })?;
                }
                let end = i32::try_from(keys.len()).map_err(|_| de::Error::custom("The map is too long."))?;
                ends.push(end);
            }
            Data::Text(..) if rules.lenient => {
                let mut out = String::new();
                write_object(&mut out, map)?;
                return text(column, &out);
            }
            _ => return Err(mismatch(&column.hive, "{...}")),
        }
        column.is_there();
        Ok(())
    }
}

/// The key of a map's entry: a text of JSON that may be a number to Hive, whichever SerDe reads it.
struct EntryKey<'a>(Slot<'a>);

impl<'de> DeserializeSeed<'de> for EntryKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for EntryKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<(), E> {
        const LENIENT: Rules = Rules {
            lenient: true,
            fold_case: false,
            dots: false,
            formats: Vec::new(),
        };
        let column = self.0.column;
        match column.data {
            Data::Text(..) => text(column, key),
            Data::Decimal(_) if key != "null" => Slot {
                column,
                rules: &LENIENT,
            }
            .decimal(key),
            _ => Slot {
                column,
                rules: &LENIENT,
            }
            .parsed(key),
        }
    }
}

/// Writes a value as JSON, in the order in which it came: what OpenX's SerDe makes of a nested value for a text.
struct Written<'a> {
    out: &'a mut String,
    comma: bool,
}

fn write_object<'de, A: MapAccess<'de>>(out: &mut String, mut map: A) -> Result<(), A::Error> {
    out.push('{');
    let mut first = true;
    while let Some(key) = map.next_key::<String>()? {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(key).to_string());
        out.push(':');
        map.next_value_seed(Written {
            out: &mut *out,
            comma: false,
        })?;
    }
    out.push('}');
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Written<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let raw: &RawValue = serde::Deserialize::deserialize(reader)?;
        if self.comma {
            self.out.push(',');
        }
        self.out.push_str(raw.get());
        Ok(())
    }
}
