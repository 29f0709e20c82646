//! The lease table's format: how a lease and its conditional writes look in DynamoDB's JSON. Names and types are the KCL's;
//! a field that is not there means what it means to the KCL. Pure.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::lease::{Checkpoint, Lease, Pending, Position};
use super::write::{Change, Condition, Expect, Field, Number};
use crate::records::HashRange;

/// The table's key.
pub(crate) const KEY: &str = "leaseKey";
const OWNER: &str = "leaseOwner";
const COUNTER: &str = "leaseCounter";
pub(crate) const CHECKPOINT: &str = "checkpoint";
const SUB_CHECKPOINT: &str = "checkpointSubSequenceNumber";
const PENDING: &str = "pendingCheckpoint";
const SUB_PENDING: &str = "pendingCheckpointSubSequenceNumber";
const PENDING_STATE: &str = "pendingCheckpointState";
const SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
const PARENTS: &str = "parentShardId";
const CHILDREN: &str = "childShardIds";
const FIRST_HASH_KEY: &str = "startingHashKey";
const LAST_HASH_KEY: &str = "endingHashKey";
const CHECKPOINT_OWNER: &str = "checkpointOwner";
const THROUGHPUT: &str = "throughputKBps";
/// What a row is, in tables that hold more than leases.
const ENTITY: &str = "entityType";

fn text(value: &str) -> Value {
    json!({ "S": value })
}

fn number(value: u64) -> Value {
    json!({ "N": value.to_string() })
}

fn set(values: &BTreeSet<String>) -> Value {
    json!({ "SS": values })
}

/// The place and the sub-sequence number of a checkpoint.
fn checkpoint_values(checkpoint: &Checkpoint) -> (Value, Value) {
    let sub = match checkpoint {
        Checkpoint::At(position) => position.sub_sequence_number,
        _ => 0,
    };
    (text(&checkpoint.to_string()), number(sub))
}

/// The key of a row.
pub(crate) fn key(key: &str) -> Value {
    json!({ KEY: text(key) })
}

/// A whole row.
pub(crate) fn item(lease: &Lease) -> Value {
    let (checkpoint, sub) = checkpoint_values(&lease.checkpoint);
    let mut item = Map::from_iter([
        (KEY.to_owned(), text(&lease.key)),
        (COUNTER.to_owned(), number(lease.counter)),
        (CHECKPOINT.to_owned(), checkpoint),
        (SUB_CHECKPOINT.to_owned(), sub),
        (SWITCHES.to_owned(), number(lease.owner_switches)),
    ]);
    let mut put = |name: &str, value: Option<Value>| value.map(|value| item.insert(name.to_owned(), value));
    put(OWNER, lease.owner.as_deref().map(text));
    put(CHECKPOINT_OWNER, lease.checkpoint_owner.as_deref().map(text));
    put(PARENTS, (!lease.parents.is_empty()).then(|| set(&lease.parents)));
    put(CHILDREN, (!lease.children.is_empty()).then(|| set(&lease.children)));
    put(FIRST_HASH_KEY, lease.range.map(|range| text(&range.first.to_string())));
    put(LAST_HASH_KEY, lease.range.map(|range| text(&range.last.to_string())));
    put(
        THROUGHPUT,
        lease.throughput_kbps.map(|kbps| json!({ "N": kbps.to_string() })),
    );
    if let Some(pending) = &lease.pending {
        let (place, sub) = checkpoint_values(&pending.checkpoint);
        put(PENDING, Some(place));
        put(SUB_PENDING, Some(sub));
        put(PENDING_STATE, Some(state(pending)));
    }
    Value::Object(item)
}

fn state(pending: &Pending) -> Value {
    json!({ "B": STANDARD.encode(&pending.state) })
}

/// A lease from a row. `Ok(None)` where the row is something else that the KCL keeps beside the leases; an error says which
/// field is not a lease's.
pub(crate) fn lease(item: &Value) -> Result<Option<Lease>, &'static str> {
    let field = |name: &str, kind: &str| item.get(name)?.get(kind);
    let text = |name: &str| field(name, "S").and_then(Value::as_str);
    let count = |name: &str| {
        field(name, "N")
            .and_then(Value::as_str)
            .and_then(|n| n.parse::<u64>().ok())
    };
    if text(ENTITY).is_some_and(|entity| entity != "LEASE") {
        return Ok(None);
    }
    let names = |name: &str| -> BTreeSet<String> {
        let names = field(name, "SS").and_then(Value::as_array);
        names
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let place = |name: &str, sub: &str| text(name).map(|place| checkpoint(place, count(sub).unwrap_or(0)));
    let pending = match place(PENDING, SUB_PENDING) {
        Some(place) => {
            let state = field(PENDING_STATE, "B").and_then(Value::as_str).unwrap_or_default();
            Some(Pending {
                checkpoint: place.ok_or(PENDING)?,
                state: STANDARD.decode(state).map_err(|_| PENDING_STATE)?,
            })
        }
        None => None,
    };
    let range = match (text(FIRST_HASH_KEY), text(LAST_HASH_KEY)) {
        (Some(first), Some(last)) => Some(HashRange {
            first: first.parse().map_err(|_| FIRST_HASH_KEY)?,
            last: last.parse().map_err(|_| LAST_HASH_KEY)?,
        }),
        _ => None,
    };
    Ok(Some(Lease {
        key: text(KEY).ok_or(KEY)?.to_owned(),
        owner: text(OWNER).map(str::to_owned),
        counter: count(COUNTER).ok_or(COUNTER)?,
        checkpoint: place(CHECKPOINT, SUB_CHECKPOINT).flatten().ok_or(CHECKPOINT)?,
        pending,
        owner_switches: count(SWITCHES).unwrap_or(0),
        parents: names(PARENTS),
        children: names(CHILDREN),
        range,
        checkpoint_owner: text(CHECKPOINT_OWNER).map(str::to_owned),
        throughput_kbps: field(THROUGHPUT, "N")
            .and_then(Value::as_str)
            .and_then(|n| n.parse().ok()),
    }))
}

fn checkpoint(place: &str, sub_sequence_number: u64) -> Option<Checkpoint> {
    Some(match place {
        "TRIM_HORIZON" => Checkpoint::TrimHorizon,
        "LATEST" => Checkpoint::Latest,
        "AT_TIMESTAMP" => Checkpoint::AtTimestamp,
        "SHARD_END" => Checkpoint::ShardEnd,
        number => Checkpoint::At(Position {
            sequence_number: number.parse().ok()?,
            sub_sequence_number,
        }),
    })
}

/// The `Expected` of a write.
pub(crate) fn expected(key: &str, condition: &Condition) -> Value {
    let mut expected = Map::new();
    match condition.counter {
        Some(counter) => {
            expected.insert(COUNTER.to_owned(), json!({ "Value": number(counter) }));
        }
        // Nothing else that may be expected is missing where the row itself is.
        None => {
            expected.insert(KEY.to_owned(), json!({ "Exists": true, "Value": text(key) }));
        }
    }
    for (name, expect) in [
        (OWNER, &condition.owner),
        (CHECKPOINT_OWNER, &condition.checkpoint_owner),
    ] {
        if let Some(expect) = expect {
            let value = match expect {
                Expect::Absent => json!({ "Exists": false }),
                Expect::Is(owner) => json!({ "Value": text(owner) }),
            };
            expected.insert(name.to_owned(), value);
        }
    }
    Value::Object(expected)
}

/// The `AttributeUpdates` of a write.
pub(crate) fn updates(change: &Change) -> Value {
    let put = |value: Value| {
        Value::Object(Map::from_iter([
            ("Action".to_owned(), "PUT".into()),
            ("Value".to_owned(), value),
        ]))
    };
    let delete = || json!({ "Action": "DELETE" });
    let counted = |change: Number| match change {
        Number::Put(value) => put(number(value)),
        Number::Increment => json!({ "Action": "ADD", "Value": number(1) }),
    };
    let named = |field: &Field<String>| match field {
        Field::Put(name) => put(text(name)),
        Field::Delete => delete(),
    };
    let mut updates = Map::new();
    let mut set_to = |name: &str, value: Option<Value>| value.map(|value| updates.insert(name.to_owned(), value));
    set_to(COUNTER, change.counter.map(counted));
    set_to(SWITCHES, change.owner_switches.map(counted));
    set_to(OWNER, change.owner.as_ref().map(named));
    set_to(CHECKPOINT_OWNER, change.checkpoint_owner.as_ref().map(named));
    set_to(
        THROUGHPUT,
        change.throughput_kbps.map(|kbps| put(json!({ "N": kbps.to_string() }))),
    );
    set_to(
        CHILDREN,
        change
            .children
            .as_ref()
            .filter(|c| !c.is_empty())
            .map(|children| put(set(children))),
    );
    if let Some(checkpoint) = &change.checkpoint {
        let (place, sub) = checkpoint_values(checkpoint);
        set_to(CHECKPOINT, Some(put(place)));
        set_to(SUB_CHECKPOINT, Some(put(sub)));
    }
    if let Some(pending) = &change.pending {
        let values = match pending {
            Field::Put(pending) => {
                let (place, sub) = checkpoint_values(&pending.checkpoint);
                [put(place), put(sub), put(state(pending))]
            }
            Field::Delete => [delete(), delete(), delete()],
        };
        for (name, value) in [PENDING, SUB_PENDING, PENDING_STATE].into_iter().zip(values) {
            set_to(name, Some(value));
        }
    }
    Value::Object(updates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::write::Write;

    fn whole() -> Lease {
        Lease {
            owner: Some("b".into()),
            counter: 41,
            pending: Some(Pending {
                checkpoint: checkpoint("7", 3).unwrap(),
                state: b"\x00transaction".to_vec(),
            }),
            owner_switches: 2,
            parents: ["p".to_owned()].into(),
            children: ["c".to_owned(), "d".to_owned()].into(),
            range: Some(HashRange::WHOLE),
            checkpoint_owner: Some("a".into()),
            throughput_kbps: Some(12.5),
            ..Lease::new("shardId-0", checkpoint("6", 1).unwrap())
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for lease in [
            whole(),
            Lease::new("s", Checkpoint::TrimHorizon),
            Lease::new("s", Checkpoint::ShardEnd),
        ] {
            assert_eq!(super::lease(&item(&lease)).unwrap().unwrap(), lease);
        }
    }

    /// As a Java worker left it, but for the names.
    #[test]
    fn a_row_of_the_kcl_is_a_lease() {
        let row = json!({
            "leaseKey": {"S": "shardId-000000000001"}, "leaseOwner": {"S": "host:1"}, "leaseCounter": {"N": "12"},
            "ownerSwitchesSinceCheckpoint": {"N": "0"}, "checkpoint": {"S": "49590338271490256608559692538361571095921575989136588898"},
            "checkpointSubSequenceNumber": {"N": "0"}, "parentShardId": {"SS": ["shardId-000000000000"]},
            "startingHashKey": {"S": "0"}, "endingHashKey": {"S": "170141183460469231731687303715884105727"},
            "throughputKBps": {"N": "1.0E-4"}, "entityType": {"S": "LEASE"}, "somethingNew": {"BOOL": true},
        });
        let lease = lease(&row).unwrap().unwrap();
        assert_eq!((lease.counter, lease.throughput_kbps), (12, Some(0.0001)));
        assert!(lease.checkpoint.has_begun() && lease.parents.len() == 1 && lease.range.is_some());
    }

    #[test]
    fn what_is_no_lease_is_told_apart() {
        let leader = json!({ "leaseKey": {"S": "Leader"}, "entityType": {"S": "LEADER"}, "ownerName": {"S": "a"} });
        assert_eq!(lease(&leader), Ok(None));
        let mut row = item(&whole());
        row["checkpoint"] = text("yesterday");
        assert_eq!(lease(&row), Err(CHECKPOINT));
        row["leaseCounter"] = text("1");
        assert_eq!(lease(&row), Err(CHECKPOINT).or(Err(COUNTER)));
    }

    /// Names of updates with their actions, and of expectations, as they were seen on the wire between a KCL 3.1.3 and a
    /// table.
    fn shape(write: &Write) -> (Vec<String>, Vec<String>) {
        let names = |value: &Value, of: fn(&Value) -> String| -> Vec<String> {
            let names = value.as_object().unwrap().iter();
            names.map(|(name, value)| format!("{name}:{}", of(value))).collect()
        };
        let condition = |value: &Value| {
            value
                .get("Exists")
                .map_or("eq".to_owned(), |exists| format!("exists={exists}"))
        };
        (
            names(&updates(&write.change), |value| {
                value["Action"].as_str().unwrap().to_owned()
            }),
            names(&expected(&write.key, &write.condition), condition),
        )
    }

    #[test]
    fn the_writes_are_the_kcls() {
        let mut lease = whole();
        lease.checkpoint_owner = None;
        let (update, expect) = shape(&lease.renewal(Some(1.0)));
        assert_eq!(update, ["leaseCounter:PUT", "throughputKBps:PUT"]);
        assert_eq!(expect, ["checkpointOwner:exists=false", "leaseCounter:eq"]);
        let (update, expect) = shape(&lease.checkpointed(&Checkpoint::ShardEnd));
        let of_checkpoint = [
            "checkpoint:PUT",
            "checkpointSubSequenceNumber:PUT",
            "leaseCounter:PUT",
            "ownerSwitchesSinceCheckpoint:PUT",
            "pendingCheckpoint:DELETE",
            "pendingCheckpointState:DELETE",
            "pendingCheckpointSubSequenceNumber:DELETE",
        ];
        assert_eq!(
            (update, expect),
            (
                of_checkpoint.map(str::to_owned).to_vec(),
                vec!["leaseCounter:eq".to_owned()]
            )
        );
        let (update, expect) = shape(&lease.hand_off("b", "c"));
        assert_eq!(update, ["checkpointOwner:PUT", "leaseOwner:PUT"]);
        assert_eq!(
            expect,
            ["checkpointOwner:exists=false", "leaseKey:exists=true", "leaseOwner:eq"]
        );
        lease.owner = None;
        let (update, expect) = shape(&lease.take("c"));
        assert_eq!(update, ["checkpointOwner:DELETE", "leaseCounter:PUT", "leaseOwner:PUT"]);
        assert_eq!(expect, ["leaseCounter:eq"]);
        let (update, expect) = shape(&whole().release());
        assert_eq!(
            update,
            [
                "checkpointOwner:DELETE",
                "leaseCounter:ADD",
                "ownerSwitchesSinceCheckpoint:ADD"
            ]
        );
        assert_eq!(expect, ["checkpointOwner:eq", "leaseKey:exists=true", "leaseOwner:eq"]);
    }
}
