//! Random calls and restarts against a plain map: what is read is what a list of items would have.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;

use common::{Server, code};
use proptest::prelude::*;
use serde_json::{Value, json};

/// An item of the model: two numbers of attributes, and an owner that an index is over.
#[derive(Clone, Debug, PartialEq)]
struct Plain {
    count: i64,
    owner: Option<String>,
    flags: Vec<String>,
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64, Plain, bool),
    Delete(u8, i64, Option<i64>),
    Add(u8, i64, i64),
    SetOwner(u8, i64, Option<String>, Option<i64>),
    Flag(u8, i64, String, bool),
    Get(u8, i64),
    Query(u8, Option<(i64, i64)>, bool, Option<u8>),
    ByOwner(String),
    Scan(u8, Option<u8>),
    Transact(Vec<(u8, i64, i64)>, (u8, i64)),
    Restart,
}

fn owner() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["w1".to_owned(), "w2".to_owned(), "w3".to_owned()])
}

fn plain() -> impl Strategy<Value = Plain> {
    (0i64..5, prop::option::of(owner())).prop_map(|(count, owner)| Plain {
        count,
        owner,
        flags: Vec::new(),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (hash, range) = (0u8..4, -3i64..4);
    let key = (hash.clone(), range.clone());
    prop_oneof![
        4 => (key.clone(), plain(), any::<bool>()).prop_map(|((h, r), p, new)| Step::Put(h, r, p, new)),
        2 => (key.clone(), prop::option::of(0i64..5)).prop_map(|((h, r), c)| Step::Delete(h, r, c)),
        2 => (key.clone(), -3i64..4).prop_map(|((h, r), by)| Step::Add(h, r, by)),
        2 => (key.clone(), prop::option::of(owner()), prop::option::of(0i64..5)).prop_map(|((h, r), o, c)| Step::SetOwner(h, r, o, c)),
        2 => (key.clone(), "[ab]", any::<bool>()).prop_map(|((h, r), f, on)| Step::Flag(h, r, f, on)),
        2 => key.clone().prop_map(|(h, r)| Step::Get(h, r)),
        3 => (hash, prop::option::of((-4i64..5, -4i64..5)), any::<bool>(), prop::option::of(1u8..4))
            .prop_map(|(h, between, forward, limit)| Step::Query(h, between, forward, limit)),
        2 => owner().prop_map(Step::ByOwner),
        2 => (1u8..4, prop::option::of(1u8..5)).prop_map(|(parts, limit)| Step::Scan(parts, limit)),
        2 => (prop::collection::vec((0u8..4, -3i64..4, -3i64..4), 1..4), key).prop_map(|(adds, check)| Step::Transact(adds, check)),
        1 => Just(Step::Restart),
    ]
}

type Model = BTreeMap<(u8, i64), Plain>;

fn key(hash: u8, range: i64) -> Value {
    json!({"pk": {"S": format!("p{hash}")}, "sk": {"N": range.to_string()}})
}

fn item(hash: u8, range: i64, plain: &Plain) -> Value {
    let mut item = key(hash, range);
    item["n"] = json!({"N": plain.count.to_string()});
    if let Some(owner) = &plain.owner {
        item["owner"] = json!({"S": owner});
    }
    if !plain.flags.is_empty() {
        item["flags"] = json!({"SS": plain.flags});
    }
    item
}

/// All pages of a Query or Scan.
async fn pages(server: &Server, operation: &str, mut body: Value) -> Vec<Value> {
    let mut found = Vec::new();
    loop {
        let page = server.call(operation, body.clone()).await.unwrap();
        let items = page["Items"].as_array().unwrap();
        assert_eq!(page["Count"], items.len());
        if let Some(limit) = body.get("Limit") {
            assert!(page["ScannedCount"].as_i64() <= limit.as_i64());
        }
        found.extend(items.iter().cloned());
        match page.get("LastEvaluatedKey") {
            Some(last) => body["ExclusiveStartKey"] = last.clone(),
            None => return found,
        }
    }
}

fn sorted(mut items: Vec<Value>) -> Vec<Value> {
    items.sort_by_key(Value::to_string);
    items
}

const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

async fn write(server: &Server, model: &mut Model, step: &Step) {
    match step {
        Step::Put(h, r, plain, new) => {
            let mut body = json!({"TableName": "table", "Item": item(*h, *r, plain)});
            if *new {
                body["ConditionExpression"] = json!("attribute_not_exists(pk)");
            }
            let answer = server.call("PutItem", body).await;
            if *new && model.contains_key(&(*h, *r)) {
                assert_eq!(code(&answer), CONDITION_FAILED);
            } else {
                answer.unwrap();
                model.insert((*h, *r), plain.clone());
            }
        }
        Step::Delete(h, r, count) => {
            let mut body = json!({"TableName": "table", "Key": key(*h, *r), "ReturnValues": "ALL_OLD"});
            if let Some(count) = count {
                body["Expected"] = json!({"n": {"Value": {"N": count.to_string()}}});
            }
            let answer = server.call("DeleteItem", body).await;
            let old = model.get(&(*h, *r)).cloned();
            if count.is_some_and(|count| old.as_ref().is_none_or(|old| old.count != count)) {
                assert_eq!(code(&answer), CONDITION_FAILED);
            } else {
                let expected = old.map(|old| item(*h, *r, &old));
                assert_eq!(answer.unwrap().get("Attributes"), expected.as_ref());
                model.remove(&(*h, *r));
            }
        }
        Step::Add(h, r, by) => {
            let body = json!({"TableName": "table", "Key": key(*h, *r), "UpdateExpression": "ADD n :by",
                "ExpressionAttributeValues": {":by": {"N": by.to_string()}}, "ReturnValues": "ALL_NEW"});
            let answer = server.call("UpdateItem", body).await.unwrap();
            let now = model.entry((*h, *r)).or_insert(Plain {
                count: 0,
                owner: None,
                flags: Vec::new(),
            });
            now.count += by;
            assert_eq!(answer["Attributes"], item(*h, *r, now));
        }
        Step::SetOwner(h, r, owner, expected) => {
            let update = match owner {
                Some(_) => "SET #o = :o, n = if_not_exists(n, :zero)",
                None => "REMOVE #o SET n = if_not_exists(n, :zero)",
            };
            let mut values = json!({":zero": {"N": "0"}});
            if let Some(owner) = owner {
                values[":o"] = json!({"S": owner});
            }
            let mut body = json!({"TableName": "table", "Key": key(*h, *r), "UpdateExpression": update, "ExpressionAttributeNames": {"#o": "owner"}});
            if let Some(expected) = expected {
                body["ConditionExpression"] = json!("n = :expected");
                values[":expected"] = json!({"N": format!("{expected}.0")});
            }
            body["ExpressionAttributeValues"] = values;
            let answer = server.call("UpdateItem", body).await;
            let old = model.get(&(*h, *r)).map(|old| old.count);
            if expected.is_some() && *expected != old {
                assert_eq!(code(&answer), CONDITION_FAILED);
            } else {
                answer.unwrap();
                let now = model.entry((*h, *r)).or_insert(Plain {
                    count: 0,
                    owner: None,
                    flags: Vec::new(),
                });
                now.owner.clone_from(owner);
            }
        }
        Step::Flag(h, r, flag, on) => {
            let Some(now) = model.get_mut(&(*h, *r)) else { return };
            let update = if *on { "ADD flags :f" } else { "DELETE flags :f" };
            let body = json!({"TableName": "table", "Key": key(*h, *r), "UpdateExpression": update, "ExpressionAttributeValues": {":f": {"SS": [flag]}}});
            server.call("UpdateItem", body).await.unwrap();
            now.flags.retain(|known| known != flag);
            if *on {
                now.flags.push(flag.clone());
                now.flags.sort();
            }
        }
        Step::Transact(adds, check) => transact(server, model, adds, *check).await,
        _ => {}
    }
}

async fn transact(server: &Server, model: &mut Model, adds: &[(u8, i64, i64)], check: (u8, i64)) {
    let mut unique = BTreeMap::new();
    for (h, r, by) in adds {
        unique.insert((*h, *r), *by);
    }
    unique.remove(&check);
    let mut items = vec![
        json!({"ConditionCheck": {"TableName": "table", "Key": key(check.0, check.1), "ConditionExpression": "attribute_exists(n)"}}),
    ];
    for ((h, r), by) in &unique {
        items.push(
            json!({"Update": {"TableName": "table", "Key": key(*h, *r), "UpdateExpression": "ADD n :by",
            "ExpressionAttributeValues": {":by": {"N": by.to_string()}}}}),
        );
    }
    let answer = server.call("TransactWriteItems", json!({"TransactItems": items})).await;
    if !model.contains_key(&check) {
        assert_eq!(code(&answer), "TransactionCanceledException");
        let error = answer.unwrap_err();
        assert_eq!(error["CancellationReasons"][0]["Code"], "ConditionalCheckFailed");
        return;
    }
    answer.unwrap();
    for (at, by) in unique {
        let now = model.entry(at).or_insert(Plain {
            count: 0,
            owner: None,
            flags: Vec::new(),
        });
        now.count += by;
    }
}

async fn read(server: &Server, model: &Model, step: &Step) {
    match step {
        Step::Get(h, r) => {
            let answer = server
                .call("GetItem", json!({"TableName": "table", "Key": key(*h, *r)}))
                .await
                .unwrap();
            let expected = model.get(&(*h, *r)).map(|plain| item(*h, *r, plain));
            assert_eq!(answer.get("Item"), expected.as_ref());
        }
        Step::Query(h, between, forward, limit) => {
            let mut values = json!({":p": {"S": format!("p{h}")}});
            let mut condition = "pk = :p".to_owned();
            if let Some((a, b)) = between {
                let (low, high) = (a.min(b), a.max(b));
                condition.push_str(" AND sk BETWEEN :a AND :b");
                values[":a"] = json!({"N": low.to_string()});
                values[":b"] = json!({"N": high.to_string()});
            }
            let mut body = json!({"TableName": "table", "KeyConditionExpression": condition, "ExpressionAttributeValues": values, "ScanIndexForward": forward});
            if let Some(limit) = limit {
                body["Limit"] = json!(limit);
            }
            let found = pages(server, "Query", body).await;
            let within = |r: i64| between.is_none_or(|(a, b)| (a.min(b)..=a.max(b)).contains(&r));
            let mut expected: Vec<Value> = model
                .iter()
                .filter(|((hash, r), _)| hash == h && within(*r))
                .map(|((h, r), p)| item(*h, *r, p))
                .collect();
            if !forward {
                expected.reverse();
            }
            assert_eq!(found, expected);
        }
        Step::ByOwner(owner) => {
            let body = json!({"TableName": "table", "IndexName": "by-owner", "KeyConditionExpression": "#o = :o", "ExpressionAttributeNames": {"#o": "owner"},
                "ExpressionAttributeValues": {":o": {"S": owner}}});
            let found = sorted(pages(server, "Query", body).await);
            let own = model.iter().filter(|(_, plain)| plain.owner.as_ref() == Some(owner));
            let projected = own.map(|((h, r), _)| {
                let mut item = key(*h, *r);
                item["owner"] = json!({"S": owner});
                item
            });
            assert_eq!(found, sorted(projected.collect()));
        }
        Step::Scan(parts, limit) => {
            let mut found = Vec::new();
            for part in 0..*parts {
                let mut body = json!({"TableName": "table", "Segment": part, "TotalSegments": parts});
                if let Some(limit) = limit {
                    body["Limit"] = json!(limit);
                }
                found.extend(pages(server, "Scan", body).await);
            }
            assert_eq!(
                sorted(found),
                sorted(model.iter().map(|((h, r), p)| item(*h, *r, p)).collect())
            );
        }
        _ => {}
    }
}

async fn run(steps: Vec<Step>) {
    let mut server = Server::start().await;
    let attribute = |name, kind| json!({"AttributeName": name, "AttributeType": kind});
    let part = |name, kind| json!({"AttributeName": name, "KeyType": kind});
    let table = json!({"TableName": "table", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [attribute("pk", "S"), attribute("sk", "N"), attribute("owner", "S")],
        "KeySchema": [part("pk", "HASH"), part("sk", "RANGE")],
        "GlobalSecondaryIndexes": [{"IndexName": "by-owner", "KeySchema": [part("owner", "HASH")], "Projection": {"ProjectionType": "KEYS_ONLY"}}]});
    server.call("CreateTable", table).await.unwrap();
    let mut model = Model::new();
    for step in steps {
        if matches!(step, Step::Restart) {
            server = server.restart().await;
        }
        write(&server, &mut model, &step).await;
        read(&server, &model, &step).await;
    }
    let server = server.restart().await;
    read(&server, &model, &Step::Scan(1, None)).await;
    let described = server
        .call("DescribeTable", json!({"TableName": "table"}))
        .await
        .unwrap();
    assert_eq!(described["Table"]["ItemCount"], model.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_is_what_a_plain_map_would_be(steps in prop::collection::vec(step(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(steps));
    }
}
