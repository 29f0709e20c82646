//! Records of JSON into columns, in one pass: what no column wants is gone over without being made into anything.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::column::{Column, Values, end};
use super::path::Tree;
use super::scalar::{Scalar, put};

/// What to do about values that do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The record is refused.
    Refuse,
    /// The value is NULL (`json.ignore-parse-errors`).
    Null,
}

/// Adds what a record has to the columns, each of which has `row` values. After an error they must be cut back.
pub(super) fn read(record: &[u8], tree: &Tree, columns: &mut [Column], row: usize, unfit: Unfit) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_slice(record);
    let seed = AtTree {
        tree,
        columns,
        row,
        unfit,
        top: true,
    };
    let read = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| error.to_string())
}

/// Takes the value at a place of the tree.
struct AtTree<'a> {
    tree: &'a Tree,
    columns: &'a mut [Column],
    row: usize,
    unfit: Unfit,
    /// The whole record, which must be an object.
    top: bool,
}

impl<'de> DeserializeSeed<'de> for AtTree<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.tree.columns.as_slice() {
            [] => deserializer.deserialize_any(self),
            [column] if self.tree.is_leaf() => match self.columns.get_mut(*column) {
                // Of a name that comes twice the first is taken.
                Some(column) if column.len() == self.row => Into {
                    column,
                    row: self.row,
                    unfit: self.unfit,
                }
                .deserialize(deserializer),
                _ => IgnoredAny::deserialize_any_of(deserializer),
            },
            columns => {
                let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
                let again = |tree: &Tree, all: &mut [Column], top: bool| {
                    let seed = AtTree {
                        tree,
                        columns: all,
                        row: self.row,
                        unfit: self.unfit,
                        top,
                    };
                    seed.deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
                };
                for column in columns {
                    let leaf = Tree {
                        columns: vec![*column],
                        ..Tree::default()
                    };
                    again(&leaf, self.columns, false).map_err(D::Error::custom)?;
                }
                let within = Tree {
                    columns: Vec::new(),
                    ..self.tree.clone()
                };
                again(&within, self.columns, self.top).map_err(D::Error::custom)
            }
        }
    }
}

trait Skip<'de>: Sized {
    fn deserialize_any_of<D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error>;
}

impl<'de> Skip<'de> for IgnoredAny {
    fn deserialize_any_of<D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ())
    }
}

impl<'a> AtTree<'a> {
    fn below(&mut self, tree: &'a Tree) -> AtTree<'_> {
        AtTree {
            tree,
            columns: self.columns,
            row: self.row,
            unfit: self.unfit,
            top: false,
        }
    }

    fn nothing<E: Error>(&self) -> Result<(), E> {
        match self.top {
            true => Err(E::custom("the record is no JSON object")),
            false => Ok(()),
        }
    }
}

impl<'de> Visitor<'de> for AtTree<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let tree = self.tree;
        while let Some(found) = map.next_key_seed(Key(&tree.members))? {
            match found.and_then(|at| tree.members.get(at)) {
                Some((_, tree)) => map.next_value_seed(self.below(tree))?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.nothing()?;
        let tree = self.tree;
        for index in 0usize.. {
            let wanted = tree.items.iter().find(|(item, _)| *item == index);
            let more = match wanted {
                Some((_, tree)) => seq.next_element_seed(self.below(tree))?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.nothing()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.nothing()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.nothing()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.nothing()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.nothing()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.nothing()
    }
}

/// Which of the wanted members a name is.
struct Key<'a>(&'a [(String, Tree)]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|(known, _)| known == name))
    }
}

/// Adds a value to a column.
struct Into<'a> {
    column: &'a mut Column,
    row: usize,
    unfit: Unfit,
}

impl<'de> DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Every digit of a decimal counts, so its text is needed.
        if !matches!(self.column.values, Values::Decimal(..)) {
            return deserializer.deserialize_any(self);
        }
        let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        let text = raw.get();
        match text.bytes().next() {
            Some(b'0'..=b'9' | b'-') => self.scalar(Scalar::Text(text)),
            _ => serde_json::Deserializer::from_str(text)
                .deserialize_any(self)
                .map_err(D::Error::custom),
        }
    }
}

impl Into<'_> {
    fn scalar<E: Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        match put(self.column, scalar) {
            Ok(()) => Ok(()),
            Err(reason) => self.unfit(reason),
        }
    }

    fn unfit<E: Error>(self, reason: String) -> Result<(), E> {
        match self.unfit {
            Unfit::Refuse => Err(E::custom(reason)),
            Unfit::Null => {
                self.column.truncate(self.row);
                self.column.null();
                Ok(())
            }
        }
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Scalar::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(i64::try_from(value).map_or(Scalar::Big(value), Scalar::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.column.null();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let unfit = self.unfit;
        match &mut self.column.values {
            Values::Struct(columns, fields) => {
                while let Some(found) = map.next_key_seed(FieldKey(fields))? {
                    let column = found
                        .and_then(|at| columns.get_mut(at))
                        .filter(|column| column.len() == self.row);
                    match column {
                        Some(column) => map.next_value_seed(Into {
                            column,
                            row: self.row,
                            unfit,
                        })?,
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let missing = columns.iter_mut().filter(|column| column.len() == self.row);
                missing.for_each(Column::null);
            }
            Values::Map(keys, values, ends, _) => {
                while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                    put(keys, Scalar::Text(&key)).map_err(A::Error::custom)?;
                    let row = values.len();
                    map.next_value_seed(Into {
                        column: values,
                        row,
                        unfit,
                    })?;
                }
                ends.push(end(keys.len()).map_err(A::Error::custom)?);
            }
            Values::Text(bytes, ends) => {
                Compact(bytes).visit_map(map)?;
                ends.push(end(bytes.len()).map_err(A::Error::custom)?);
            }
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return self.unfit("an object where a value is wanted".to_owned());
            }
        }
        self.column.added();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let unfit = self.unfit;
        match &mut self.column.values {
            Values::List(items, ends, _) => {
                loop {
                    let row = items.len();
                    if seq
                        .next_element_seed(Into {
                            column: items,
                            row,
                            unfit,
                        })?
                        .is_none()
                    {
                        break;
                    }
                }
                ends.push(end(items.len()).map_err(A::Error::custom)?);
            }
            Values::Text(bytes, ends) => {
                Compact(bytes).visit_seq(seq)?;
                ends.push(end(bytes.len()).map_err(A::Error::custom)?);
            }
            _ => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return self.unfit("a list where a value is wanted".to_owned());
            }
        }
        self.column.added();
        Ok(())
    }
}

/// Which of a row's fields a name is.
struct FieldKey<'a>(&'a arrow::datatypes::Fields);

impl<'de> DeserializeSeed<'de> for FieldKey<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldKey<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|field| field.name() == name))
    }
}

/// Writes a value as JSON without spaces, for columns of text that get an object or a list.
struct Compact<'a>(&'a mut Vec<u8>);

impl Compact<'_> {
    fn write<E: Error>(self, value: &impl serde::Serialize) -> Result<(), E> {
        serde_json::to_writer(self.0, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Compact<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Compact<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.write(&())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.push(b'{');
        let mut first = true;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if !std::mem::take(&mut first) {
                self.0.push(b',');
            }
            Compact(self.0).write(&key)?;
            self.0.push(b':');
            map.next_value_seed(Compact(self.0))?;
        }
        self.0.push(b'}');
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.push(b'[');
        let mut first = true;
        loop {
            let begin = self.0.len();
            if !first {
                self.0.push(b',');
            }
            if seq.next_element_seed(Compact(self.0))?.is_none() {
                self.0.truncate(begin);
                break;
            }
            first = false;
        }
        self.0.push(b']');
        Ok(())
    }
}
