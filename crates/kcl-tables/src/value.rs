//! Attribute values and items: from and to the wire, and how many bytes DynamoDB counts for them.

use std::collections::{BTreeMap, BTreeSet};

use base::ApiError;
use bytes::Bytes;
use wire::dynamodb::AttributeValue;

use crate::error::validation;
use crate::limits::NESTING_MAX;
use crate::number::Number;

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// Text.
    S(String),
    /// A number.
    N(Number),
    /// Bytes.
    B(Bytes),
    /// True or false.
    Bool(bool),
    /// Null.
    Null,
    /// A list.
    L(Vec<Attr>),
    /// A map.
    M(Item),
    /// A set of texts.
    Ss(BTreeSet<String>),
    /// A set of numbers.
    Ns(BTreeSet<Number>),
    /// A set of bytes.
    Bs(BTreeSet<Bytes>),
}

/// Attributes by name.
pub type Item = BTreeMap<String, Attr>;

/// Attributes as the wire has them.
pub type WireItem = BTreeMap<String, AttributeValue>;

impl Attr {
    /// The type's short name.
    pub fn kind(&self) -> &'static str {
        match self {
            Attr::S(_) => "S",
            Attr::N(_) => "N",
            Attr::B(_) => "B",
            Attr::Bool(_) => "BOOL",
            Attr::Null => "NULL",
            Attr::L(_) => "L",
            Attr::M(_) => "M",
            Attr::Ss(_) => "SS",
            Attr::Ns(_) => "NS",
            Attr::Bs(_) => "BS",
        }
    }

    /// True for what can be ordered: text, numbers, bytes.
    pub fn is_scalar(&self) -> bool {
        matches!(self, Attr::S(_) | Attr::N(_) | Attr::B(_))
    }

    /// Bytes that DynamoDB counts for it (developer guide, "Item sizes and formats").
    pub fn size(&self) -> usize {
        match self {
            Attr::S(text) => text.len(),
            Attr::N(number) => number.size(),
            Attr::B(bytes) => bytes.len(),
            Attr::Bool(_) | Attr::Null => 1,
            Attr::L(items) => 3 + items.iter().map(|item| 1 + item.size()).sum::<usize>(),
            Attr::M(members) => {
                3 + members
                    .iter()
                    .map(|(name, value)| 1 + name.len() + value.size())
                    .sum::<usize>()
            }
            Attr::Ss(set) => set.iter().map(String::len).sum(),
            Attr::Ns(set) => set.iter().map(Number::size).sum(),
            Attr::Bs(set) => set.iter().map(Bytes::len).sum(),
        }
    }

    /// Length as the function `size` tells it; `None` for what has none.
    pub fn length(&self) -> Option<usize> {
        match self {
            Attr::S(text) => Some(text.chars().map(char::len_utf16).sum()),
            Attr::B(bytes) => Some(bytes.len()),
            Attr::L(items) => Some(items.len()),
            Attr::M(members) => Some(members.len()),
            Attr::Ss(set) => Some(set.len()),
            Attr::Ns(set) => Some(set.len()),
            Attr::Bs(set) => Some(set.len()),
            Attr::N(_) | Attr::Bool(_) | Attr::Null => None,
        }
    }

    /// True when a value nests no deeper than an item may.
    pub fn is_shallow(&self) -> bool {
        fn fits(value: &Attr, left: usize) -> bool {
            match value {
                Attr::L(items) => left > 0 && items.iter().all(|item| fits(item, left - 1)),
                Attr::M(members) => left > 0 && members.values().all(|member| fits(member, left - 1)),
                _ => true,
            }
        }
        fits(self, NESTING_MAX)
    }
}

/// Bytes that DynamoDB counts for an item.
pub fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.size()).sum()
}

/// Reads one value.
pub fn from_wire(value: AttributeValue) -> Result<Attr, ApiError> {
    let attr = unchecked(value)?;
    if !attr.is_shallow() {
        return Err(validation(
            "Nesting Levels have exceeded supported limits: Attributes can have 32 levels at most",
        ));
    }
    Ok(attr)
}

fn unchecked(value: AttributeValue) -> Result<Attr, ApiError> {
    let mut found: Option<Attr> = None;
    let mut kinds = 0;
    let mut take = |attr: Option<Attr>| {
        if let Some(attr) = attr {
            kinds += 1;
            found = Some(attr);
        }
    };
    take(value.s.map(Attr::S));
    take(value.n.map(|text| number(&text).map(Attr::N)).transpose()?);
    take(value.b.map(Attr::B));
    take(value.bool.map(Attr::Bool));
    take(value.null.map(null).transpose()?);
    take(value.l.map(list).transpose()?.map(Attr::L));
    take(value.m.map(map).transpose()?.map(Attr::M));
    take(value.ss.map(|ss| set("string", ss, Ok).map(Attr::Ss)).transpose()?);
    take(
        value
            .ns
            .map(|ns| set("number", ns, |n| number(&n)).map(Attr::Ns))
            .transpose()?,
    );
    take(value.bs.map(|bs| set("binary", bs, Ok).map(Attr::Bs)).transpose()?);
    match (found, kinds) {
        (Some(attr), 1) => Ok(attr),
        (None, _) => Err(validation(
            "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
        )),
        _ => Err(validation(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes",
        )),
    }
}

fn null(flag: bool) -> Result<Attr, ApiError> {
    match flag {
        true => Ok(Attr::Null),
        false => Err(validation(
            "One or more parameter values were invalid: Null attribute value types must have the value of true",
        )),
    }
}

fn list(items: Vec<AttributeValue>) -> Result<Vec<Attr>, ApiError> {
    items.into_iter().map(unchecked).collect()
}

fn map(members: WireItem) -> Result<Item, ApiError> {
    members
        .into_iter()
        .map(|(name, value)| Ok((name, unchecked(value)?)))
        .collect()
}

fn number(text: &str) -> Result<Number, ApiError> {
    text.parse().map_err(|e: crate::number::NumberError| match e {
        crate::number::NumberError::NotANumber(_) if text.is_empty() => {
            validation("The parameter cannot be converted to a numeric value")
        }
        other => validation(other.to_string()),
    })
}

fn set<T: Ord + std::fmt::Debug, U>(
    kind: &str,
    values: Vec<U>,
    read: impl Fn(U) -> Result<T, ApiError>,
) -> Result<BTreeSet<T>, ApiError> {
    let count = values.len();
    let read: BTreeSet<T> = values.into_iter().map(read).collect::<Result<_, _>>()?;
    if count == 0 {
        return Err(validation(format!(
            "One or more parameter values were invalid: An {kind} set  may not be empty"
        )));
    }
    if read.len() < count {
        return Err(validation(
            "One or more parameter values were invalid: Input collection contains duplicates.",
        ));
    }
    Ok(read)
}

/// Reads attributes.
pub fn item_from_wire(item: WireItem) -> Result<Item, ApiError> {
    item.into_iter()
        .map(|(name, value)| Ok((name, from_wire(value)?)))
        .collect()
}

/// Writes one value.
pub fn to_wire(attr: &Attr) -> AttributeValue {
    let mut value = AttributeValue::default();
    match attr {
        Attr::S(text) => value.s = Some(text.clone()),
        Attr::N(number) => value.n = Some(number.to_string()),
        Attr::B(bytes) => value.b = Some(bytes.clone()),
        Attr::Bool(flag) => value.bool = Some(*flag),
        Attr::Null => value.null = Some(true),
        Attr::L(items) => value.l = Some(items.iter().map(to_wire).collect()),
        Attr::M(members) => value.m = Some(item_to_wire(members)),
        Attr::Ss(set) => value.ss = Some(set.iter().cloned().collect()),
        Attr::Ns(set) => value.ns = Some(set.iter().map(Number::to_string).collect()),
        Attr::Bs(set) => value.bs = Some(set.iter().cloned().collect()),
    }
    value
}

/// Writes attributes.
pub fn item_to_wire(item: &Item) -> WireItem {
    item.iter()
        .map(|(name, value)| (name.clone(), to_wire(value)))
        .collect()
}

/// Attributes as JSON text, for the members of an error.
pub fn item_to_json(item: &Item) -> String {
    use wire::Shape;
    let mut out = vec![b'{'];
    for (i, (name, value)) in item.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        wire::json::write_text(&mut out, name);
        out.push(b':');
        let value = to_wire(value);
        out.extend_from_slice(&wire::json::write(
            &value.to_value(),
            <AttributeValue as wire::Structure>::schema(),
        ));
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}
