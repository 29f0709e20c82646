//! Which shards may be read: a child only when all of its parents have been.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A shard and those it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub id: Arc<str>,
    pub parents: Vec<Arc<str>>,
}

impl Planned {
    pub fn new(id: &str, parents: &[impl AsRef<str>]) -> Self {
        Planned {
            id: id.into(),
            parents: parents.iter().map(|parent| parent.as_ref().into()).collect(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    /// Known and not read to their end, with the parents that have not been either.
    open: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    ended: BTreeSet<Arc<str>>,
    started: BTreeSet<Arc<str>>,
}

impl Plan {
    /// Parents that are not among the shards are over. `ended` are those that are not asked for.
    pub fn new(shards: Vec<Planned>, ended: BTreeSet<Arc<str>>) -> Self {
        let known: BTreeSet<Arc<str>> = shards.iter().map(|shard| Arc::clone(&shard.id)).collect();
        let open = shards.into_iter().map(|shard| {
            let parents = shard.parents.into_iter().filter(|parent| known.contains(parent));
            (shard.id, parents.collect())
        });
        Plan {
            open: open.collect(),
            ended,
            started: BTreeSet::new(),
        }
    }

    /// Those that may be read and are not yet; each is given once.
    pub fn ready(&mut self) -> Vec<Arc<str>> {
        let free = self.open.iter().filter(|(_, parents)| parents.is_empty());
        let ready: Vec<Arc<str>> = free
            .map(|(id, _)| Arc::clone(id))
            .filter(|id| !self.started.contains(id))
            .collect();
        self.started.extend(ready.iter().cloned());
        ready
    }

    /// A shard was read to its end and named its children. Gives those that may be read now.
    pub fn ended(&mut self, shard: &Arc<str>, children: Vec<Planned>) -> Vec<Arc<str>> {
        self.open.remove(shard);
        self.started.remove(shard);
        self.ended.insert(Arc::clone(shard));
        for child in children {
            if self.ended.contains(&child.id) || self.open.contains_key(&child.id) {
                continue;
            }
            // A parent that is not known yet is one that another shard will name.
            let parents = child.parents.into_iter();
            let parents = parents.filter(|parent| !self.ended.contains(parent)).collect();
            self.open.insert(child.id, parents);
        }
        for parents in self.open.values_mut() {
            parents.remove(shard);
        }
        self.ready()
    }

    /// Whether a shard waits for one that no other has named so far.
    pub fn waits_for_strangers(&self) -> bool {
        let mut awaited = self.open.values().flatten();
        awaited.any(|parent| !self.open.contains_key(parent))
    }

    /// All shards that the stream has. Those that nobody named are read too, and those that are neither here nor there were
    /// forgotten, and are waited for no longer. Gives those that may be read now.
    pub fn listed(&mut self, shards: Vec<Planned>) -> Vec<Arc<str>> {
        for shard in shards {
            if !self.ended.contains(&shard.id) {
                let parents = shard.parents.into_iter().collect();
                self.open.entry(shard.id).or_insert(parents);
            }
        }
        let open: BTreeSet<Arc<str>> = self.open.keys().cloned().collect();
        for parents in self.open.values_mut() {
            parents.retain(|parent| open.contains(parent));
        }
        self.ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(id: &str, parents: &[&str]) -> Planned {
        Planned::new(id, parents)
    }

    fn ids(shards: &[Arc<str>]) -> Vec<&str> {
        shards.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn a_merged_shard_waits_for_both_of_its_parents() {
        let mut plan = Plan::new(vec![shard("a", &["gone"]), shard("b", &[])], BTreeSet::new());
        assert_eq!(ids(&plan.ready()), ["a", "b"]);
        let merged = || vec![shard("c", &["a", "b"])];
        assert!(plan.ended(&"a".into(), merged()).is_empty());
        assert_eq!(ids(&plan.ended(&"b".into(), merged())), ["c"]);
        assert!(plan.ready().is_empty(), "each once");
    }

    #[test]
    fn a_parent_that_is_not_known_yet_is_waited_for() {
        let mut plan = Plan::new(vec![shard("a", &[]), shard("b", &[])], BTreeSet::new());
        assert_eq!(ids(&plan.ready()), ["a", "b"]);
        let merged = || vec![shard("e", &["a", "c"])];
        assert!(plan.ended(&"a".into(), merged()).is_empty());
        let halves = vec![shard("c", &["b"]), shard("d", &["b"])];
        assert_eq!(ids(&plan.ended(&"b".into(), halves)), ["c", "d"]);
        assert_eq!(ids(&plan.ended(&"c".into(), merged())), ["e"]);
    }

    #[test]
    fn a_parent_that_was_forgotten_is_waited_for_no_longer() {
        let mut plan = Plan::new(vec![shard("a", &[]), shard("b", &[])], BTreeSet::from(["old".into()]));
        plan.ready();
        assert!(plan.ended(&"a".into(), vec![shard("e", &["a", "c"])]).is_empty());
        assert!(plan.waits_for_strangers(), "c is a child of b, which has not said so");
        let (old, e) = (|| shard("old", &[]), || shard("e", &["a", "c"]));
        let there = vec![old(), shard("b", &[]), shard("c", &["b"]), e()];
        assert!(plan.listed(there).is_empty());
        assert_eq!(ids(&plan.ended(&"b".into(), vec![])), ["c"]);
        let there = vec![old(), shard("d", &["b"]), e()];
        assert_eq!(ids(&plan.listed(there)), ["d"]);
        assert_eq!(ids(&plan.ended(&"c".into(), vec![])), ["e"]);
        assert!(!plan.waits_for_strangers());
    }

    #[test]
    fn a_listed_family_is_read_from_its_oldest_on() {
        let mut plan = Plan::new(
            vec![
                shard("c", &["a"]),
                shard("a", &[]),
                shard("d", &["a"]),
                shard("e", &["c", "d"]),
            ],
            BTreeSet::new(),
        );
        assert_eq!(ids(&plan.ready()), ["a"]);
        let children = vec![shard("c", &["a"]), shard("d", &["a"])];
        assert_eq!(ids(&plan.ended(&"a".into(), children)), ["c", "d"]);
        assert!(plan.ended(&"d".into(), vec![shard("e", &["c", "d"])]).is_empty());
        assert_eq!(ids(&plan.ended(&"c".into(), vec![shard("e", &["c", "d"])])), ["e"]);
    }
}
