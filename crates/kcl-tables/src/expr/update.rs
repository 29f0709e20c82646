//! Updates: what they make of an item. Every value is taken from the item as it was before.

use std::collections::BTreeSet;

use super::path::{Path, Step};
use crate::number::NumberError;
use crate::value::{Attr, Item};

/// What SET assigns.
#[derive(Clone, Debug, PartialEq)]
pub enum SetValue {
    /// A value of the request.
    Value(Attr),
    /// What the item has at a path.
    Path(Path),
    /// `a + b`
    Plus(Box<SetValue>, Box<SetValue>),
    /// `a - b`
    Minus(Box<SetValue>, Box<SetValue>),
    /// `if_not_exists(path, otherwise)`
    IfNotExists(Path, Box<SetValue>),
    /// `list_append(a, b)`
    ListAppend(Box<SetValue>, Box<SetValue>),
}

/// An update. No two of its paths overlap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Assignments.
    pub set: Vec<(Path, SetValue)>,
    /// What goes.
    pub remove: Vec<Path>,
    /// Numbers added, sets united.
    pub add: Vec<(Path, Attr)>,
    /// Elements taken out of sets.
    pub delete: Vec<(Path, Attr)>,
    /// `Action: PUT` and `ADD` of the older parameters: a list is appended to.
    pub append: Vec<(Path, Vec<Attr>)>,
}

/// Why an update cannot be carried out on this item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// A path of SET's right side leads nowhere.
    #[error("The provided expression refers to an attribute that does not exist in the item")]
    Missing,
    /// Addition of what is no number, and the like.
    #[error("An operand in the update expression has an incorrect data type")]
    WrongType,
    /// The parent of a path is not there, or not a map or list.
    #[error("The document path provided in the update expression is invalid for update")]
    BadPath,
    /// The older ADD or DELETE on an attribute of another type.
    #[error("Type mismatch for attribute to update")]
    Mismatch,
    /// The sum is no number that can be kept.
    #[error(transparent)]
    Number(#[from] NumberError),
}

impl SetValue {
    fn of(&self, item: &Item) -> Result<Attr, UpdateError> {
        match self {
            SetValue::Value(value) => Ok(value.clone()),
            SetValue::Path(path) => path.find(item).cloned().ok_or(UpdateError::Missing),
            SetValue::Plus(a, b) | SetValue::Minus(a, b) => match (a.of(item)?, b.of(item)?) {
                (Attr::N(a), Attr::N(b)) => Ok(Attr::N(match self {
                    SetValue::Minus(..) => a.minus(b)?,
                    _ => a.plus(b)?,
                })),
                _ => Err(UpdateError::WrongType),
            },
            SetValue::IfNotExists(path, otherwise) => match path.find(item) {
                Some(found) => Ok(found.clone()),
                None => otherwise.of(item),
            },
            SetValue::ListAppend(a, b) => match (a.of(item)?, b.of(item)?) {
                (Attr::L(mut a), Attr::L(b)) => {
                    a.extend(b);
                    Ok(Attr::L(a))
                }
                _ => Err(UpdateError::WrongType),
            },
        }
    }
}

impl Update {
    /// The item after the update.
    pub fn apply(&self, before: &Item) -> Result<Item, UpdateError> {
        let mut after = before.clone();
        let mut assigned = Vec::with_capacity(self.set.len());
        for (path, value) in &self.set {
            assigned.push((path, value.of(before)?));
        }
        // Elements beyond the end of a list are appended in the order of their indexes.
        assigned.sort_by_key(|(path, _)| *path);
        for (path, value) in assigned {
            put(&mut after, path, value)?;
        }
        for (path, value) in &self.add {
            let sum = added(path.find(before), value)?;
            put(&mut after, path, sum)?;
        }
        for (path, more) in &self.append {
            let list = match path.find(before) {
                None => more.clone(),
                Some(Attr::L(list)) => list.iter().chain(more).cloned().collect(),
                Some(_) => return Err(UpdateError::Mismatch),
            };
            put(&mut after, path, Attr::L(list))?;
        }
        let mut gone: Vec<Path> = self.remove.clone();
        for (path, value) in &self.delete {
            match without(path.find(before), value)? {
                Some(rest) => put(&mut after, path, rest)?,
                None => gone.push(path.clone()),
            }
        }
        // From the end of a list to its beginning, so that no index moves before it is used.
        gone.sort_by(|a, b| b.cmp(a));
        for path in &gone {
            remove(&mut after, path)?;
        }
        Ok(after)
    }

    /// Every path that is written.
    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        let set = self.set.iter().map(|(path, _)| path);
        let add = self.add.iter().chain(&self.delete).map(|(path, _)| path);
        let append = self.append.iter().map(|(path, _)| path);
        set.chain(&self.remove).chain(add).chain(append)
    }
}

fn added(old: Option<&Attr>, value: &Attr) -> Result<Attr, UpdateError> {
    fn union<T: Ord + Clone>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> BTreeSet<T> {
        a.union(b).cloned().collect()
    }
    match (old, value) {
        (None, Attr::N(_) | Attr::Ss(_) | Attr::Ns(_) | Attr::Bs(_)) => Ok(value.clone()),
        (Some(Attr::N(a)), Attr::N(b)) => Ok(Attr::N(a.plus(*b)?)),
        (Some(Attr::Ss(a)), Attr::Ss(b)) => Ok(Attr::Ss(union(a, b))),
        (Some(Attr::Ns(a)), Attr::Ns(b)) => Ok(Attr::Ns(union(a, b))),
        (Some(Attr::Bs(a)), Attr::Bs(b)) => Ok(Attr::Bs(union(a, b))),
        _ => Err(UpdateError::WrongType),
    }
}

/// A set without some elements; `None` when none is left.
fn without(old: Option<&Attr>, value: &Attr) -> Result<Option<Attr>, UpdateError> {
    fn rest<T: Ord + Clone>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> Option<BTreeSet<T>> {
        Some(a.difference(b).cloned().collect()).filter(|set: &BTreeSet<T>| !set.is_empty())
    }
    match (old, value) {
        (None, Attr::Ss(_) | Attr::Ns(_) | Attr::Bs(_)) => Ok(None),
        (Some(Attr::Ss(a)), Attr::Ss(b)) => Ok(rest(a, b).map(Attr::Ss)),
        (Some(Attr::Ns(a)), Attr::Ns(b)) => Ok(rest(a, b).map(Attr::Ns)),
        (Some(Attr::Bs(a)), Attr::Bs(b)) => Ok(rest(a, b).map(Attr::Bs)),
        _ => Err(UpdateError::WrongType),
    }
}

fn put(item: &mut Item, path: &Path, value: Attr) -> Result<(), UpdateError> {
    let Some((last, parents)) = path.steps.split_last() else {
        item.insert(path.root.clone(), value);
        return Ok(());
    };
    let root = item.get_mut(&path.root).ok_or(UpdateError::BadPath)?;
    match (descend(root, parents).ok_or(UpdateError::BadPath)?, last) {
        (Attr::M(members), Step::Name(name)) => {
            members.insert(name.clone(), value);
        }
        (Attr::L(items), Step::Index(index)) => match items.get_mut(*index) {
            Some(slot) => *slot = value,
            None => items.push(value),
        },
        _ => return Err(UpdateError::BadPath),
    }
    Ok(())
}

/// Takes out what a path leads to. Only the last step may lead nowhere.
fn remove(item: &mut Item, path: &Path) -> Result<(), UpdateError> {
    let Some((last, parents)) = path.steps.split_last() else {
        item.remove(&path.root);
        return Ok(());
    };
    let root = item.get_mut(&path.root).ok_or(UpdateError::BadPath)?;
    match (descend(root, parents).ok_or(UpdateError::BadPath)?, last) {
        (Attr::M(members), Step::Name(name)) => {
            members.remove(name);
        }
        (Attr::L(items), Step::Index(index)) => {
            if *index < items.len() {
                items.remove(*index);
            }
        }
        _ => return Err(UpdateError::BadPath),
    }
    Ok(())
}

fn descend<'a>(root: &'a mut Attr, steps: &[Step]) -> Option<&'a mut Attr> {
    steps.iter().try_fold(root, |at, step| match (at, step) {
        (Attr::M(members), Step::Name(name)) => members.get_mut(name),
        (Attr::L(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    })
}
