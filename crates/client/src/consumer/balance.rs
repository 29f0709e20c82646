//! Who should read what. Each worker looks at the whole table and plans for itself alone: which leases that nobody holds
//! it takes, and which of others it asks for, of several workers at once. Pure.
//!
//! A lease weighs what flows through it where that is known, and as much as the others on average where it is not, with a
//! tenth of the average on top, since an idle shard is work too. A worker takes what is free until it has its share, which
//! leaves nothing over when all do. It asks for a lease only if the difference between giver and taker is clearly larger
//! than the lease itself, so that a move always makes the fleet more even, and noise moves nothing.

use std::collections::BTreeMap;

/// A lease as the planner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// The shard's id.
    pub key: &'a str,
    /// Who has it, or will have it when a hand-off that is under way is done; `None` where it is free.
    pub owner: Option<&'a str>,
    /// Whether a hand-off is under way.
    pub moving: bool,
    /// What flows through it.
    pub throughput_kbps: Option<f64>,
    /// Whether it has been free for so long that somebody must have it, whatever the shares are.
    pub abandoned: bool,
}

/// What a worker may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Most leases that it holds.
    pub leases_max: usize,
    /// Most leases that it asks for at once; 0 while it waits for the effect of what it asked before.
    pub asks_max: usize,
    /// Part of a worker's share by which two may differ before a lease moves.
    pub imbalance: f64,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Free leases to take, the heaviest first.
    pub take: Vec<String>,
    /// Leases to ask others for, with their holders.
    pub ask: Vec<(String, String)>,
    /// Free leases that are beyond `leases_max`.
    pub beyond_max: usize,
}

/// Plans for `me`. `order` gives each worker an order of its own among equal leases, so that workers that start together
/// do not run after the same.
pub fn plan(me: &str, leases: &[Candidate<'_>], policy: Policy, mut order: impl FnMut(&mut Vec<usize>)) -> Plan {
    let weights = weights(leases);
    let mut loads: BTreeMap<&str, f64> = BTreeMap::from([(me, 0.0)]);
    let mut mine = 0;
    for (lease, weight) in leases.iter().zip(&weights) {
        if let Some(owner) = lease.owner {
            *loads.entry(owner).or_default() += weight;
            mine += usize::from(owner == me);
        }
    }
    let share = weights.iter().sum::<f64>() / loads.len() as f64;
    let weight = |index: usize| weights.get(index).copied().unwrap_or_default();
    let mut my_load = loads.remove(me).unwrap_or_default();
    let mut plan = Plan::default();

    let mut free: Vec<usize> = (0..leases.len())
        .filter(|i| leases.get(*i).is_some_and(|l| l.owner.is_none()))
        .collect();
    order(&mut free);
    free.sort_by(|a, b| weight(*b).total_cmp(&weight(*a)));
    for index in free {
        let Some(lease) = leases.get(index) else { continue };
        if mine >= policy.leases_max {
            plan.beyond_max += 1;
        } else if lease.abandoned || my_load < share * (1.0 - 1e-9) {
            plan.take.push(lease.key.to_owned());
            my_load += weight(index);
            mine += 1;
        }
    }

    let slack = policy.imbalance * share;
    let mut movable: Vec<usize> = (0..leases.len())
        .filter(|i| {
            leases
                .get(*i)
                .is_some_and(|l| !l.moving && l.owner.is_some_and(|owner| owner != me))
        })
        .collect();
    order(&mut movable);
    while plan.ask.len() < policy.asks_max && mine < policy.leases_max {
        // The move that makes the fleet most even: with a difference d and a weight w, w * (d - w) is what it gains.
        let best = movable
            .iter()
            .enumerate()
            .filter_map(|(place, index)| {
                let owner = leases.get(*index)?.owner?;
                let difference = loads.get(owner)? - my_load;
                let weight = weight(*index);
                (difference - weight > slack + 1e-9).then_some((place, weight * (difference - weight)))
            })
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
        let Some((place, _)) = best else { break };
        let index = movable.swap_remove(place);
        if let Some((lease, owner)) = leases.get(index).and_then(|lease| Some((lease, lease.owner?))) {
            *loads.entry(owner).or_default() -= weight(index);
            my_load += weight(index);
            mine += 1;
            plan.ask.push((lease.key.to_owned(), owner.to_owned()));
        }
    }
    plan
}

fn weights(leases: &[Candidate<'_>]) -> Vec<f64> {
    let known: Vec<f64> = leases
        .iter()
        .filter_map(|lease| lease.throughput_kbps)
        .filter(|kbps| kbps.is_finite() && *kbps >= 0.0)
        .collect();
    let average = if known.is_empty() {
        0.0
    } else {
        known.iter().sum::<f64>() / known.len() as f64
    };
    // Where nothing flows, leases are counted.
    let base = if average > 0.0 { average * 0.1 } else { 1.0 };
    leases
        .iter()
        .map(|lease| {
            let flow = lease.throughput_kbps.filter(|kbps| kbps.is_finite() && *kbps >= 0.0);
            base + flow.unwrap_or(average)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        leases_max: usize::MAX,
        asks_max: 100,
        imbalance: 0.1,
    };

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("shard-{n:03}")).collect()
    }

    fn fleet<'a>(keys: &'a [String], owner: impl Fn(usize) -> Option<&'a str>) -> Vec<Candidate<'a>> {
        keys.iter()
            .enumerate()
            .map(|(n, key)| Candidate {
                key,
                owner: owner(n),
                moving: false,
                throughput_kbps: None,
                abandoned: false,
            })
            .collect()
    }

    /// Workers plan in turn until nobody has anything to do; gives how many leases moved.
    fn settle(workers: &[&'static str], leases: &mut [Candidate<'_>], policy: Policy) -> usize {
        let mut moves = 0;
        for _ in 0..100 {
            let before = moves;
            for me in workers {
                let plan = plan(me, leases, policy, |_| ());
                for key in plan.take.iter().chain(plan.ask.iter().map(|(key, _)| key)) {
                    leases.iter_mut().find(|lease| lease.key == key).unwrap().owner = Some(me);
                    moves += 1;
                }
            }
            if moves == before {
                return moves;
            }
        }
        panic!("leases move for ever");
    }

    fn counts(leases: &[Candidate<'_>]) -> Vec<usize> {
        let mut counts = BTreeMap::new();
        for lease in leases {
            *counts.entry(lease.owner.unwrap()).or_insert(0) += 1;
        }
        counts.into_values().collect()
    }

    #[test]
    fn a_first_worker_takes_everything_and_others_take_their_share_from_several_at_once() {
        let keys = keys(30);
        let mut leases = fleet(&keys, |_| None);
        assert_eq!(settle(&["a"], &mut leases, POLICY), 30);
        let asked = plan("b", &leases, POLICY, |_| ()).ask;
        assert_eq!(asked.len(), 14, "one round, and the tenth of the share that may differ");
        settle(&["a", "b"], &mut leases, POLICY);
        let asked = plan("c", &leases, POLICY, |_| ()).ask;
        let givers: std::collections::BTreeSet<_> = asked.iter().map(|(_, giver)| giver.as_str()).collect();
        assert_eq!(givers, ["a", "b"].into());
        settle(&["a", "b", "c"], &mut leases, POLICY);
        let counts = counts(&leases);
        assert!(counts.iter().all(|n| (9..=11).contains(n)), "{counts:?}");
    }

    #[test]
    fn nothing_moves_for_the_sake_of_one_lease_or_of_noise() {
        let keys = keys(5);
        let mut leases = fleet(&keys, |n| Some(if n < 3 { "a" } else { "b" }));
        assert_eq!(settle(&["a", "b"], &mut leases, POLICY), 0);
        for (n, lease) in leases.iter_mut().enumerate() {
            lease.throughput_kbps = Some([100.0, 101.0, 103.0, 150.0, 152.0][n]);
        }
        assert_eq!(settle(&["a", "b"], &mut leases, POLICY), 0);
    }

    #[test]
    fn load_counts_not_the_number_of_leases() {
        let keys = keys(6);
        let mut leases = fleet(&keys, |_| Some("a"));
        for (n, lease) in leases.iter_mut().enumerate() {
            lease.throughput_kbps = Some(if n == 0 { 1000.0 } else { 200.0 });
        }
        settle(&["a", "b"], &mut leases, POLICY);
        let heavy = leases[0].owner.unwrap();
        let with_heavy: Vec<_> = leases.iter().filter(|lease| lease.owner == Some(heavy)).collect();
        assert_eq!(with_heavy.len(), 1, "{leases:?}");
    }

    #[test]
    fn what_is_free_is_taken_even_if_shares_are_uneven_and_up_to_the_limit() {
        let keys = keys(7);
        let mut leases = fleet(&keys, |n| (n < 5).then_some(if n < 3 { "a" } else { "b" }));
        settle(&["a", "b"], &mut leases, POLICY);
        assert_eq!(counts(&leases), [4, 3]);

        let mut leases = fleet(&keys, |_| None);
        let capped = Policy {
            leases_max: 2,
            ..POLICY
        };
        let plan_a = plan("a", &leases, capped, |_| ());
        assert_eq!((plan_a.take.len(), plan_a.beyond_max), (2, 5));
        for lease in &mut leases[..5] {
            lease.owner = Some("b");
        }
        leases[5].abandoned = true;
        leases[6].owner = Some("a");
        leases[0].owner = Some("a");
        let plan_a = plan("a", &leases, POLICY, |_| ());
        assert_eq!(plan_a.take, ["shard-005"], "abandoned, though a has its share");
    }

    #[test]
    fn what_is_moving_already_counts_for_the_heir_and_is_not_asked_for_again() {
        let keys = keys(4);
        let mut leases = fleet(&keys, |n| Some(if n < 2 { "b" } else { "a" }));
        leases[0].moving = true;
        leases[1].moving = true;
        assert_eq!(plan("b", &leases, POLICY, |_| ()), Plan::default());
        assert_eq!(plan("c", &leases, POLICY, |_| ()).ask.len(), 1, "one of a's");
    }
}
