//! Conditions: what they ask of an item. Those of expressions and those of the older parameters (`Expected`, `ScanFilter`) are the same
//! tree.

use std::borrow::Cow;

use super::path::Path;
use crate::number::Number;
use crate::value::{Attr, Item};

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// `=`
    Eq,
    /// `<>`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// What the item has at a path.
    Path(Path),
    /// A value of the request.
    Value(Attr),
    /// `size(path)`.
    Size(Path),
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of them; without any it always holds.
    All(Vec<Condition>),
    /// One of them.
    Any(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
    /// A comparison.
    Compare(Comparator, Operand, Operand),
    /// Between two values, both included.
    Between(Operand, Operand, Operand),
    /// Equal to one of the values.
    In(Operand, Vec<Operand>),
    /// The attribute is there.
    Exists(Path),
    /// The attribute has this type.
    HasType(Path, String),
    /// Text or bytes begin so.
    BeginsWith(Operand, Operand),
    /// A text holds a text, bytes hold bytes, a list or set holds an element.
    Contains(Operand, Operand),
}

impl Operand {
    fn of<'a>(&'a self, item: &'a Item) -> Option<Cow<'a, Attr>> {
        match self {
            Operand::Path(path) => path.find(item).map(Cow::Borrowed),
            Operand::Value(value) => Some(Cow::Borrowed(value)),
            Operand::Size(path) => {
                let length = path.find(item)?.length()?;
                Some(Cow::Owned(Attr::N(Number::from(length as u64))))
            }
        }
    }
}

impl Condition {
    /// What always holds.
    pub fn always() -> Self {
        Condition::All(Vec::new())
    }

    /// True when nothing is asked.
    pub fn is_always(&self) -> bool {
        matches!(self, Condition::All(all) if all.is_empty())
    }

    /// True when the item, or an item without attributes, fulfils it.
    pub fn holds(&self, item: &Item) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|one| one.holds(item)),
            Condition::Any(any) => any.iter().any(|one| one.holds(item)),
            Condition::Not(inner) => !inner.holds(item),
            Condition::Compare(comparator, a, b) => compare(*comparator, a.of(item).as_deref(), b.of(item).as_deref()),
            Condition::Between(value, low, high) => {
                let (value, low, high) = (value.of(item), low.of(item), high.of(item));
                compare(Comparator::Ge, value.as_deref(), low.as_deref())
                    && compare(Comparator::Le, value.as_deref(), high.as_deref())
            }
            Condition::In(value, list) => {
                let value = value.of(item);
                list.iter()
                    .any(|one| compare(Comparator::Eq, value.as_deref(), one.of(item).as_deref()))
            }
            Condition::Exists(path) => path.find(item).is_some(),
            Condition::HasType(path, kind) => path.find(item).is_some_and(|value| value.kind() == kind),
            Condition::BeginsWith(value, start) => match (value.of(item).as_deref(), start.of(item).as_deref()) {
                (Some(Attr::S(text)), Some(Attr::S(start))) => text.starts_with(start.as_str()),
                (Some(Attr::B(bytes)), Some(Attr::B(start))) => bytes.starts_with(start),
                _ => false,
            },
            Condition::Contains(value, part) => match (value.of(item), part.of(item)) {
                (Some(value), Some(part)) => contains(&value, &part),
                _ => false,
            },
        }
    }

    /// Calls `each` with every path that is asked for.
    pub fn paths(&self, each: &mut dyn FnMut(&Path)) {
        let mut operand = |operand: &Operand| {
            if let Operand::Path(path) | Operand::Size(path) = operand {
                each(path);
            }
        };
        match self {
            Condition::All(list) | Condition::Any(list) => list.iter().for_each(|one| one.paths(each)),
            Condition::Not(inner) => inner.paths(each),
            Condition::Compare(_, a, b) | Condition::BeginsWith(a, b) | Condition::Contains(a, b) => {
                operand(a);
                operand(b);
            }
            Condition::Between(a, b, c) => {
                operand(a);
                operand(b);
                operand(c);
            }
            Condition::In(a, list) => {
                operand(a);
                list.iter().for_each(operand);
            }
            Condition::Exists(path) | Condition::HasType(path, _) => each(path),
        }
    }
}

/// Values of different types are different and have no order. What is missing is different from what is there.
fn compare(comparator: Comparator, a: Option<&Attr>, b: Option<&Attr>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return comparator == Comparator::Ne && (a.is_some() || b.is_some());
    };
    match comparator {
        Comparator::Eq => return a == b,
        Comparator::Ne => return a != b,
        _ => {}
    }
    let order = match (a, b) {
        (Attr::S(a), Attr::S(b)) => a.cmp(b),
        (Attr::N(a), Attr::N(b)) => a.cmp(b),
        (Attr::B(a), Attr::B(b)) => a.cmp(b),
        _ => return false,
    };
    match comparator {
        Comparator::Lt => order.is_lt(),
        Comparator::Le => order.is_le(),
        Comparator::Gt => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn contains(value: &Attr, part: &Attr) -> bool {
    match (value, part) {
        (Attr::S(text), Attr::S(part)) => text.contains(part.as_str()),
        (Attr::B(bytes), Attr::B(part)) => part.is_empty() || bytes.windows(part.len()).any(|window| window == part),
        (Attr::L(items), part) => items.contains(part),
        (Attr::Ss(set), Attr::S(part)) => set.contains(part),
        (Attr::Ns(set), Attr::N(part)) => set.contains(part),
        (Attr::Bs(set), Attr::B(part)) => set.contains(part),
        _ => false,
    }
}
