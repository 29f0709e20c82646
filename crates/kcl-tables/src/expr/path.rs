//! Document paths, `a.b[3]`, and what a projection leaves of an item.

use std::fmt;

use crate::value::{Attr, Item};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into a map, by name; the first step always is.
    Name(String),
    /// Into a list.
    Index(usize),
}

/// A path into an item. Never empty, and its first step is a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// The top-level attribute.
    pub root: String,
    /// The steps within it.
    pub steps: Vec<Step>,
}

impl Path {
    /// The path of a top-level attribute.
    pub fn top(name: &str) -> Self {
        Path {
            root: name.to_owned(),
            steps: Vec::new(),
        }
    }

    /// What the item has there.
    pub fn find<'a>(&self, item: &'a Item) -> Option<&'a Attr> {
        let root = item.get(&self.root)?;
        self.steps.iter().try_fold(root, |at, step| match (at, step) {
            (Attr::M(members), Step::Name(name)) => members.get(name),
            (Attr::L(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    /// True when one path leads through the other.
    pub fn overlaps(&self, other: &Path) -> bool {
        let shared = self.steps.len().min(other.steps.len());
        self.root == other.root && self.steps.get(..shared) == other.steps.get(..shared)
    }

    /// True when the two take one place for a map and for a list.
    pub fn conflicts(&self, other: &Path) -> bool {
        let mut pairs = self.steps.iter().zip(&other.steps);
        let differ = pairs.find(|(a, b)| a != b);
        self.root == other.root
            && matches!(
                differ,
                Some((Step::Name(_), Step::Index(_)) | (Step::Index(_), Step::Name(_)))
            )
    }
}

/// `[a, b, [3]]`, as DynamoDB's messages write it.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.root)?;
        for step in &self.steps {
            match step {
                Step::Name(name) => write!(f, ", {name}")?,
                Step::Index(index) => write!(f, ", [{index}]")?,
            }
        }
        f.write_str("]")
    }
}

/// What the paths leave of an item. Elements of a list move together.
pub fn project(item: &Item, paths: &[Path]) -> Item {
    // Sorted, so that the elements of a list come in their order.
    let mut sorted: Vec<&Path> = paths.iter().collect();
    sorted.sort();
    let mut out = Item::new();
    for path in sorted {
        let Some(value) = path.find(item) else { continue };
        let entry = out.entry(path.root.clone());
        match path.steps.as_slice() {
            [] => {
                entry.insert_entry(value.clone());
            }
            steps => {
                let Some(whole) = item.get(&path.root) else { continue };
                let slot = entry.or_insert_with(|| empty_like(whole));
                place(slot, &mut Vec::new(), (whole, steps), value, paths, path);
            }
        }
    }
    out
}

fn empty_like(value: &Attr) -> Attr {
    match value {
        Attr::L(_) => Attr::L(Vec::new()),
        _ => Attr::M(Item::new()),
    }
}

/// Puts `value` into `slot`, the projection of `whole`, where `steps` lead. Where a step into a list was made before, it
/// is found by counting the indexes below it that are projected too and present.
fn place(
    slot: &mut Attr,
    done: &mut Vec<Step>,
    (whole, steps): (&Attr, &[Step]),
    value: &Attr,
    paths: &[Path],
    path: &Path,
) {
    let Some((step, rest)) = steps.split_first() else {
        *slot = value.clone();
        return;
    };
    match (slot, step, whole) {
        (Attr::M(members), Step::Name(name), Attr::M(inner)) => {
            let Some(inner) = inner.get(name) else { return };
            done.push(step.clone());
            let next = members.entry(name.clone()).or_insert_with(|| empty_like(inner));
            place(next, done, (inner, rest), value, paths, path);
        }
        (Attr::L(items), Step::Index(index), Attr::L(inner)) => {
            let Some(element) = inner.get(*index) else { return };
            let mut before: Vec<usize> = paths
                .iter()
                .filter(|other| other.root == path.root && other.steps.starts_with(done))
                .filter_map(|other| match other.steps.get(done.len()) {
                    Some(Step::Index(other_index)) if other_index < index && *other_index < inner.len() => {
                        Some(*other_index)
                    }
                    _ => None,
                })
                .collect();
            before.sort_unstable();
            before.dedup();
            let at = before.len().min(items.len());
            done.push(step.clone());
            if at == items.len() {
                items.push(empty_like(element));
            }
            if let Some(next) = items.get_mut(at) {
                place(next, done, (element, rest), value, paths, path);
            }
        }
        _ => {}
    }
}
