//! Where columns are in records: paths such as `$.a.b[0]`, gathered into a tree so that a record is gone through once.

/// A piece of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Item(usize),
}

/// The steps of `$.a['b c'][0]`; a name by itself is the member of that name.
pub(crate) fn parse(path: &str) -> Result<Vec<Step>, String> {
    let wrong = || format!("{path:?} is no path such as $.a.b[0]");
    let mut rest = path.trim().strip_prefix('$').ok_or_else(wrong)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, behind) = after.split_at_checked(end).ok_or_else(wrong)?;
            if name.is_empty() {
                return Err(wrong());
            }
            steps.push(Step::Member(name.to_owned()));
            rest = behind;
        } else if let Some(after) = rest.strip_prefix("['") {
            let (name, behind) = after.split_once("']").ok_or_else(wrong)?;
            steps.push(Step::Member(name.to_owned()));
            rest = behind;
        } else {
            let (number, behind) = rest
                .strip_prefix('[')
                .and_then(|r| r.split_once(']'))
                .ok_or_else(wrong)?;
            steps.push(Step::Item(number.parse().map_err(|_| wrong())?));
            rest = behind;
        }
    }
    Ok(steps)
}

/// A place in a record: what is wanted of it, and of what is within.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    /// The columns that take the whole value.
    pub(crate) columns: Vec<usize>,
    /// What is wanted of an object.
    pub(crate) members: Vec<(String, Tree)>,
    /// What is wanted of a list, by position.
    pub(crate) items: Vec<(usize, Tree)>,
}

impl Tree {
    /// Adds a column at a path.
    pub(crate) fn add(&mut self, path: &[Step], column: usize) {
        let Some((first, rest)) = path.split_first() else {
            self.columns.push(column);
            return;
        };
        let next = match first {
            Step::Member(name) => child(&mut self.members, name.clone()),
            Step::Item(index) => child(&mut self.items, *index),
        };
        if let Some(next) = next {
            next.add(rest, column);
        }
    }

    /// Whether nothing is wanted of what is within.
    pub(crate) fn is_leaf(&self) -> bool {
        self.members.is_empty() && self.items.is_empty()
    }
}

fn child<K: PartialEq>(children: &mut Vec<(K, Tree)>, key: K) -> Option<&mut Tree> {
    let at = match children.iter().position(|(known, _)| *known == key) {
        Some(at) => at,
        None => {
            children.push((key, Tree::default()));
            children.len() - 1
        }
    };
    children.get_mut(at).map(|(_, tree)| tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_step_by_step() {
        let member = |name: &str| Step::Member(name.to_owned());
        assert_eq!(parse("$"), Ok(vec![]));
        assert_eq!(parse("$.a.b[0]"), Ok(vec![member("a"), member("b"), Step::Item(0)]));
        assert_eq!(parse("$['a b'].c"), Ok(vec![member("a b"), member("c")]));
        for wrong in ["", "a", "$a", "$.", "$..a", "$[x]", "$[0", "$['a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
