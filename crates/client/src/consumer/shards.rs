//! Which leases are missing and which are done with, by the shards of the stream. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::config::InitialPosition;
use super::lease::{Checkpoint, Lease};
use super::source::{ChildShard, Shard};

/// The leases by their keys.
pub(crate) type Leases = BTreeMap<String, Lease>;

/// Leases by their keys.
pub(crate) fn by_key(leases: Vec<Lease>) -> Leases {
    leases.into_iter().map(|lease| (lease.key.clone(), lease)).collect()
}

/// Whether a lease's parents are done with, so that no record is read before an older one of its key.
pub(crate) fn is_ready(lease: &Lease, leases: &Leases) -> bool {
    lease
        .parents
        .iter()
        .all(|parent| leases.get(parent).is_none_or(Lease::is_finished))
}

/// The leases of the shards that came from one that ended.
pub(crate) fn of_children(children: &[ChildShard]) -> Vec<Lease> {
    children
        .iter()
        .map(|child| Lease {
            parents: child.parents.iter().cloned().collect(),
            range: Some(child.range),
            ..Lease::new(child.id.clone(), Checkpoint::TrimHorizon)
        })
        .collect()
}

/// The leases that are missing, parents before children: they must be made in this order, so that a worker that dies in
/// the middle leaves nothing out.
///
/// A shard with a descendant that has a lease was done with before and is left alone. One with an ancestor that has a lease
/// is read from its beginning. Any other begins where the consumers were told to.
pub(crate) fn missing(shards: &[Shard], leases: &Leases, initial: &InitialPosition) -> Vec<Lease> {
    let by_id: BTreeMap<&str, &Shard> = shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
    let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for shard in shards {
        for parent in &shard.parents {
            children.entry(parent).or_default().push(&shard.id);
        }
    }
    let leased = |id: &str| leases.contains_key(id);
    let none: Vec<&str> = Vec::new();
    let mut made = Vec::new();
    for shard in parents_first(&by_id) {
        let descended = reaches(&shard.id, leased, |id| children.get(id).unwrap_or(&none).clone());
        if leased(&shard.id) || descended {
            continue;
        }
        let ancestors = |id: &str| {
            by_id
                .get(id)
                .map_or(Vec::new(), |shard| shard.parents.iter().map(String::as_str).collect())
        };
        let checkpoint = if reaches(&shard.id, leased, ancestors) {
            Checkpoint::TrimHorizon
        } else {
            match initial {
                InitialPosition::Latest if !shard.open => continue,
                InitialPosition::Latest => Checkpoint::Latest,
                InitialPosition::TrimHorizon => Checkpoint::TrimHorizon,
                InitialPosition::At(_) => Checkpoint::AtTimestamp,
            }
        };
        made.push(Lease {
            parents: shard.parents.iter().cloned().collect(),
            range: Some(shard.range),
            ..Lease::new(shard.id.clone(), checkpoint)
        });
    }
    made
}

/// Whether one of those that can be reached is so; the start does not count.
fn reaches<'a>(start: &'a str, is_so: impl Fn(&str) -> bool, next: impl Fn(&'a str) -> Vec<&'a str>) -> bool {
    let mut seen: BTreeSet<&str> = BTreeSet::from([start]);
    let mut ahead = next(start);
    while let Some(id) = ahead.pop() {
        if is_so(id) {
            return true;
        }
        if seen.insert(id) {
            ahead.extend(next(id));
        }
    }
    false
}

fn parents_first<'a>(by_id: &BTreeMap<&'a str, &'a Shard>) -> Vec<&'a Shard> {
    let mut left: BTreeMap<&str, &Shard> = by_id.clone();
    let mut sorted = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready: Vec<&str> = left
            .iter()
            .filter(|(_, shard)| !shard.parents.iter().any(|parent| left.contains_key(parent.as_str())))
            .map(|(id, _)| *id)
            .collect();
        if ready.is_empty() {
            // Shards that are each other's parents are no stream of this world; take them as they come.
            sorted.extend(left.into_values());
            break;
        }
        sorted.extend(ready.iter().filter_map(|id| left.remove(id)));
    }
    sorted
}

/// Leases that are finished and of no more use: their children are known and have begun, or the shard itself is gone.
pub(crate) fn done_with<'a>(leases: &'a Leases, shards: Option<&[Shard]>) -> Vec<&'a str> {
    let listed: Option<BTreeSet<&str>> = shards.map(|shards| shards.iter().map(|shard| shard.id.as_str()).collect());
    leases
        .values()
        .filter(|lease| lease.is_finished())
        .filter(|lease| {
            let begun = |child: &String| leases.get(child).is_some_and(|child| child.checkpoint.has_begun());
            let followed = !lease.children.is_empty() && lease.children.iter().all(begun);
            let gone = listed
                .as_ref()
                .is_some_and(|listed| !listed.contains(lease.key.as_str()));
            followed || gone
        })
        .map(|lease| lease.key.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::HashRange;

    fn shard(id: &str, parents: &[&str], open: bool) -> Shard {
        Shard {
            id: id.to_owned(),
            parents: parents.iter().map(|p| (*p).to_owned()).collect(),
            range: HashRange::WHOLE,
            open,
        }
    }

    /// One split in two, these merged again.
    fn storm() -> Vec<Shard> {
        vec![
            shard("d", &["b", "c"], true),
            shard("b", &["a"], false),
            shard("c", &["a"], false),
            shard("a", &[], false),
        ]
    }

    fn leases(of: &[(&str, Checkpoint)]) -> Leases {
        of.iter()
            .map(|(key, at)| ((*key).to_owned(), Lease::new(*key, at.clone())))
            .collect()
    }

    fn made(shards: &[Shard], leases: &Leases, initial: &InitialPosition) -> Vec<String> {
        missing(shards, leases, initial)
            .into_iter()
            .map(|lease| format!("{} {}", lease.key, lease.checkpoint))
            .collect()
    }

    #[test]
    fn an_empty_table_begins_where_it_was_told_to() {
        let none = Leases::new();
        let all = made(&storm(), &none, &InitialPosition::TrimHorizon);
        assert_eq!(
            all,
            ["a TRIM_HORIZON", "b TRIM_HORIZON", "c TRIM_HORIZON", "d TRIM_HORIZON"]
        );
        assert_eq!(made(&storm(), &none, &InitialPosition::Latest), ["d LATEST"]);
    }

    #[test]
    fn what_was_read_before_is_not_read_again_and_what_came_from_it_is_read_whole() {
        let latest = &InitialPosition::Latest;
        let parent = leases(&[("a", Checkpoint::Latest)]);
        assert_eq!(
            made(&storm(), &parent, latest),
            ["b TRIM_HORIZON", "c TRIM_HORIZON", "d TRIM_HORIZON"]
        );
        let child = leases(&[("c", Checkpoint::ShardEnd)]);
        assert_eq!(
            made(&storm(), &child, latest),
            ["d TRIM_HORIZON"],
            "a is done with; b's only kin is a"
        );
        let last = leases(&[("d", Checkpoint::TrimHorizon)]);
        assert_eq!(made(&storm(), &last, latest), Vec::<String>::new());
    }

    #[test]
    fn a_child_waits_for_both_its_parents() {
        let mut all = leases(&[
            ("b", Checkpoint::ShardEnd),
            ("c", Checkpoint::TrimHorizon),
            ("d", Checkpoint::TrimHorizon),
        ]);
        let child = Lease {
            parents: ["b".to_owned(), "c".to_owned()].into(),
            ..all["d"].clone()
        };
        assert!(!is_ready(&child, &all));
        all.get_mut("c").unwrap().checkpoint = Checkpoint::ShardEnd;
        assert!(is_ready(&child, &all));
        all.remove("b");
        assert!(is_ready(&child, &all));
    }

    #[test]
    fn a_lease_goes_when_its_children_have_begun_or_its_shard_is_gone() {
        let mut all = leases(&[
            ("a", Checkpoint::ShardEnd),
            ("b", Checkpoint::TrimHorizon),
            ("c", Checkpoint::ShardEnd),
        ]);
        all.get_mut("a").unwrap().children = ["b".to_owned(), "c".to_owned()].into();
        assert!(done_with(&all, None).is_empty());
        assert_eq!(
            done_with(&all, Some(&[shard("a", &[], false), shard("b", &[], true)])),
            ["c"]
        );
        all.get_mut("b").unwrap().checkpoint = Checkpoint::At(crate::consumer::Position {
            sequence_number: "7".parse().unwrap(),
            sub_sequence_number: 0,
        });
        assert_eq!(done_with(&all, None), ["a"]);
    }
}
