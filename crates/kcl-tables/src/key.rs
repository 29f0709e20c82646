//! Keys and the order of items. A table is ordered by a hash of its partition key and then by its sort key; an index in the same way, with
//! the table's own key behind. One type of position serves both, so that one reader serves Query and Scan of either.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::number::Number;
use crate::value::{Attr, Item};

/// The types that a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyKind {
    /// Text.
    S,
    /// A number.
    N,
    /// Bytes.
    B,
}

impl KeyKind {
    /// The type's short name.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::S => "S",
            KeyKind::N => "N",
            KeyKind::B => "B",
        }
    }
}

/// A value of a key attribute. Values of one key have one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// Text, ordered by its bytes.
    S(String),
    /// A number.
    N(Number),
    /// Bytes.
    B(Bytes),
}

impl KeyValue {
    /// A value as a key; `None` if it has another type.
    pub fn new(value: &Attr, kind: KeyKind) -> Option<Self> {
        match (value, kind) {
            (Attr::S(text), KeyKind::S) => Some(KeyValue::S(text.clone())),
            (Attr::N(number), KeyKind::N) => Some(KeyValue::N(*number)),
            (Attr::B(bytes), KeyKind::B) => Some(KeyValue::B(bytes.clone())),
            _ => None,
        }
    }

    /// The value as an attribute.
    pub fn to_attr(&self) -> Attr {
        match self {
            KeyValue::S(text) => Attr::S(text.clone()),
            KeyValue::N(number) => Attr::N(*number),
            KeyValue::B(bytes) => Attr::B(bytes.clone()),
        }
    }

    /// Bytes of text or bytes; numbers have none that could be too many or none at all.
    pub fn len(&self) -> Option<usize> {
        match self {
            KeyValue::S(text) => Some(text.len()),
            KeyValue::B(bytes) => Some(bytes.len()),
            KeyValue::N(_) => None,
        }
    }

    /// Where a partition lies. It does not change from one start of the server to the next: clients hold keys to go on from.
    fn token(&self) -> u64 {
        let digest = match self {
            KeyValue::S(text) => Md5::digest(text.as_bytes()),
            KeyValue::B(bytes) => Md5::digest(bytes),
            KeyValue::N(number) => Md5::digest(number.to_string().as_bytes()),
        };
        digest
            .iter()
            .take(8)
            .fold(0, |token, byte| (token << 8) | u64::from(*byte))
    }

    /// The least key that is above every key that begins with this one; `None` if there is none, or for numbers.
    pub fn after_prefix(&self) -> Option<KeyValue> {
        match self {
            KeyValue::S(text) => {
                let mut chars: Vec<char> = text.chars().collect();
                while let Some(last) = chars.pop() {
                    let next = match last as u32 + 1 {
                        0xd800 => char::from_u32(0xe000),
                        next => char::from_u32(next),
                    };
                    if let Some(next) = next {
                        chars.push(next);
                        return Some(KeyValue::S(chars.into_iter().collect()));
                    }
                }
                None
            }
            KeyValue::B(bytes) => {
                let mut bytes = bytes.to_vec();
                while let Some(last) = bytes.pop() {
                    if last < 0xff {
                        bytes.push(last + 1);
                        return Some(KeyValue::B(bytes.into()));
                    }
                }
                None
            }
            KeyValue::N(_) => None,
        }
    }
}

/// A key attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAttr {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: KeyKind,
}

/// The key of a table or of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// The partition key.
    pub hash: KeyAttr,
    /// The sort key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<KeyAttr>,
}

impl Keys {
    /// The key's attributes.
    pub fn attributes(&self) -> impl Iterator<Item = &KeyAttr> {
        std::iter::once(&self.hash).chain(&self.range)
    }

    /// The key that an item has; `None` if it lacks an attribute or one has another type.
    pub fn of(&self, item: &Item) -> Option<Primary> {
        let read = |key: &KeyAttr| KeyValue::new(item.get(&key.name)?, key.kind);
        let hash = read(&self.hash)?;
        let range = match &self.range {
            Some(range) => Some(read(range)?),
            None => None,
        };
        Some(Primary { hash, range })
    }

    /// The attributes of a key.
    pub fn item(&self, key: &Primary) -> Item {
        let mut item = BTreeMap::from([(self.hash.name.clone(), key.hash.to_attr())]);
        if let (Some(attr), Some(value)) = (&self.range, &key.range) {
            item.insert(attr.name.clone(), value.to_attr());
        }
        item
    }

    /// True when the attribute belongs to the key.
    pub fn has(&self, name: &str) -> bool {
        self.attributes().any(|key| key.name == name)
    }
}

/// The values of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Primary {
    /// Of the partition key.
    pub hash: KeyValue,
    /// Of the sort key.
    pub range: Option<KeyValue>,
}

/// Something, or what is before or behind everything of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge<T> {
    /// Before every value; also what has no value.
    Low,
    /// A value.
    At(T),
    /// Behind every value.
    High,
}

/// A place in the order of a table or an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    token: u64,
    hash: Edge<KeyValue>,
    range: Edge<KeyValue>,
    primary: Edge<Box<Primary>>,
}

impl Position {
    /// The place of an item in its table.
    pub fn in_table(key: &Primary) -> Self {
        Position {
            token: key.hash.token(),
            hash: Edge::At(key.hash.clone()),
            range: key.range.clone().map_or(Edge::Low, Edge::At),
            primary: Edge::Low,
        }
    }

    /// The place of an item in an index.
    pub fn in_index(key: &Primary, primary: &Primary) -> Self {
        Position {
            primary: Edge::At(Box::new(primary.clone())),
            ..Position::in_table(key)
        }
    }

    /// The lower end of a partition from a sort key on (with all items that have it).
    pub fn lower(hash: &KeyValue, range: Edge<KeyValue>) -> Self {
        Position {
            token: hash.token(),
            hash: Edge::At(hash.clone()),
            range,
            primary: Edge::Low,
        }
    }

    /// The upper end of a partition up to a sort key (with all items that have it).
    pub fn upper(hash: &KeyValue, range: Edge<KeyValue>) -> Self {
        Position {
            primary: Edge::High,
            ..Position::lower(hash, range)
        }
    }

    /// The beginning of a part of all partitions, where `parts` share them evenly.
    pub fn part(part: u64, parts: u64) -> Self {
        let share = u128::from(part) * (u128::from(u64::MAX) + 1) / u128::from(parts.max(1));
        Position {
            token: u64::try_from(share).unwrap_or(u64::MAX),
            hash: if share > u128::from(u64::MAX) {
                Edge::High
            } else {
                Edge::Low
            },
            range: Edge::Low,
            primary: Edge::Low,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_prefix_is_the_least_that_does() {
        let s = |text: &str| KeyValue::S(text.to_owned());
        assert_eq!(s("ab").after_prefix(), Some(s("ac")));
        assert_eq!(s("a\u{10ffff}").after_prefix(), Some(s("b")));
        assert_eq!(s("\u{d7ff}").after_prefix(), Some(s("\u{e000}")));
        assert_eq!(s("\u{10ffff}").after_prefix(), None);
        assert_eq!(
            KeyValue::B(Bytes::from_static(&[1, 255])).after_prefix(),
            Some(KeyValue::B(Bytes::from_static(&[2])))
        );
        assert_eq!(KeyValue::B(Bytes::from_static(&[255])).after_prefix(), None);
    }

    #[test]
    fn parts_cover_every_partition_once() {
        for parts in [1, 2, 3, 1000] {
            for key in 0..200 {
                let at = Position::in_table(&Primary {
                    hash: KeyValue::S(key.to_string()),
                    range: None,
                });
                let within =
                    (0..parts).filter(|p| Position::part(*p, parts) <= at && at < Position::part(p + 1, parts));
                assert_eq!(within.count(), 1);
            }
        }
    }
}
