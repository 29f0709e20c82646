//! Writes that meet, deletions, expiry, limits, and who may do what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use base::Authorizer;
use common::{Answer, Server, code};
use serde_json::{Value, json};
use storage::Catalog;

async fn table(server: &Server, name: &str) -> Value {
    let body = json!({"TableName": name, "BillingMode": "PAY_PER_REQUEST", "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}]});
    server.call("CreateTable", body).await.unwrap()
}

fn key(name: &str) -> Value {
    json!({"pk": {"S": name}})
}

async fn get(server: &Server, table: &str, name: &str) -> Option<Value> {
    let answer = server
        .call("GetItem", json!({"TableName": table, "Key": key(name)}))
        .await
        .unwrap();
    answer.get("Item").cloned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_take_a_lease_at_once_one_gets_it_each_time() {
    let server = Server::start().await;
    table(&server, "leases").await;
    server
        .call(
            "PutItem",
            json!({"TableName": "leases", "Item": {"pk": {"S": "shard"}, "counter": {"N": "0"}}}),
        )
        .await
        .unwrap();
    let mut tasks = Vec::new();
    for worker in 0..8 {
        let server = server.clone();
        tasks.push(tokio::spawn(async move {
            let mut won = 0;
            for round in 0..50 {
                let body = json!({"TableName": "leases", "Key": key("shard"),
                    "AttributeUpdates": {"counter": {"Action": "PUT", "Value": {"N": (round + 1).to_string()}}, "owner": {"Action": "PUT", "Value": {"S": worker.to_string()}}},
                    "Expected": {"counter": {"Value": {"N": round.to_string()}}}});
                won += usize::from(server.call("UpdateItem", body).await.is_ok());
            }
            won
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    let counter: usize = get(&server, "leases", "shard").await.unwrap()["counter"]["N"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(won, counter, "every success counts once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_half_of_a_transaction() {
    let server = Server::start().await;
    for name in ["left", "right"] {
        table(&server, name).await;
        server
            .call(
                "PutItem",
                json!({"TableName": name, "Item": {"pk": {"S": "a"}, "n": {"N": "100"}}}),
            )
            .await
            .unwrap();
    }
    let mover = |from: &'static str, to: &'static str| {
        let server = server.clone();
        async move {
            for _ in 0..200 {
                let update = |table: &str, by: &str| {
                    json!({"Update": {"TableName": table, "Key": key("a"), "UpdateExpression": "ADD n :by",
                    "ExpressionAttributeValues": {":by": {"N": by}}}})
                };
                let body = json!({"TransactItems": [update(from, "-1"), update(to, "1")]});
                server.call("TransactWriteItems", body).await.unwrap();
            }
        }
    };
    let movers = [
        tokio::spawn(mover("left", "right")),
        tokio::spawn(mover("right", "left")),
    ];
    for _ in 0..300 {
        let get = |table: &str| json!({"Get": {"TableName": table, "Key": key("a")}});
        let answer = server
            .call(
                "TransactGetItems",
                json!({"TransactItems": [get("left"), get("right")]}),
            )
            .await
            .unwrap();
        let sum: i64 = (0..2)
            .map(|i| {
                answer["Responses"][i]["Item"]["n"]["N"]
                    .as_str()
                    .unwrap()
                    .parse::<i64>()
                    .unwrap()
            })
            .sum();
        assert_eq!(sum, 200);
    }
    for task in movers {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_table_leaves_nothing_and_its_name_is_free() {
    let server = Server::start().await;
    let first = table(&server, "again").await["TableDescription"]["TableId"].clone();
    for i in 0..450 {
        server
            .call("PutItem", json!({"TableName": "again", "Item": key(&i.to_string())}))
            .await
            .unwrap();
    }
    server.call("DeleteTable", json!({"TableName": "again"})).await.unwrap();
    let second = table(&server, "again").await["TableDescription"]["TableId"].clone();
    assert_ne!(first, second);
    assert_eq!(get(&server, "again", "7").await, None);
    // A start finishes what the end of the process had cut off.
    let server = server.restart().await;
    server.service.sweep().await;
    let rows = server
        .memory
        .page("000000000000/us-west-2/table-item/", None, 1000)
        .await
        .unwrap();
    assert_eq!(rows.entries.len(), 0);
    assert_eq!(
        server
            .memory
            .page("-/-/table-id/", None, 1000)
            .await
            .unwrap()
            .entries
            .len(),
        1
    );
    server
        .call(
            "UpdateTable",
            json!({"TableName": "again", "DeletionProtectionEnabled": true}),
        )
        .await
        .unwrap();
    let refused = server.call("DeleteTable", json!({"TableName": "again"})).await;
    assert_eq!(code(&refused), "ValidationException");
}

#[tokio::test]
async fn items_go_when_their_time_is_over() {
    let server = Server::start().await;
    table(&server, "expiring").await;
    let ttl = json!({"TableName": "expiring", "TimeToLiveSpecification": {"AttributeName": "until", "Enabled": true}});
    server.call("UpdateTimeToLive", ttl).await.unwrap();
    let now = common::START.millis() / 1000;
    for (name, until) in [("past", now - 5), ("soon", now + 60), ("later", now + 3600)] {
        let item = json!({"pk": {"S": name}, "until": {"N": until.to_string()}});
        server
            .call("PutItem", json!({"TableName": "expiring", "Item": item}))
            .await
            .unwrap();
    }
    server
        .call(
            "PutItem",
            json!({"TableName": "expiring", "Item": {"pk": {"S": "text"}, "until": {"S": "0"}}}),
        )
        .await
        .unwrap();
    server.clock.advance(Duration::from_secs(120));
    server.service.sweep().await;
    let left = server.call("Scan", json!({"TableName": "expiring"})).await.unwrap();
    let mut names: Vec<&str> = left["Items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["pk"]["S"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["later", "text"]);
}

#[tokio::test]
async fn a_transaction_that_is_sent_again_happens_once() {
    let server = Server::start().await;
    table(&server, "tokens").await;
    let body = |by: &str| {
        json!({"ClientRequestToken": "token", "TransactItems": [{"Update": {"TableName": "tokens", "Key": key("a"),
        "UpdateExpression": "ADD n :by", "ExpressionAttributeValues": {":by": {"N": by}}}}]})
    };
    server.call("TransactWriteItems", body("1")).await.unwrap();
    server.call("TransactWriteItems", body("1")).await.unwrap();
    assert_eq!(get(&server, "tokens", "a").await.unwrap()["n"]["N"], "1");
    let other = server.call("TransactWriteItems", body("2")).await;
    assert_eq!(code(&other), "IdempotentParameterMismatchException");
    server.clock.advance(Duration::from_secs(601));
    server.call("TransactWriteItems", body("2")).await.unwrap();
    assert_eq!(get(&server, "tokens", "a").await.unwrap()["n"]["N"], "3");
}

#[tokio::test]
async fn an_index_that_is_added_has_what_is_there_and_keeps_up() {
    let server = Server::start().await;
    table(&server, "leases").await;
    for (name, owner) in [("a", "w1"), ("b", "w2"), ("c", "w1")] {
        let item = json!({"pk": {"S": name}, "leaseOwner": {"S": owner}, "more": {"N": "1"}});
        server
            .call("PutItem", json!({"TableName": "leases", "Item": item}))
            .await
            .unwrap();
    }
    let update = json!({"TableName": "leases", "AttributeDefinitions": [{"AttributeName": "leaseOwner", "AttributeType": "S"}, {"AttributeName": "pk", "AttributeType": "S"}],
        "GlobalSecondaryIndexUpdates": [{"Create": {"IndexName": "by-owner", "Projection": {"ProjectionType": "KEYS_ONLY"},
            "KeySchema": [{"AttributeName": "leaseOwner", "KeyType": "HASH"}, {"AttributeName": "pk", "KeyType": "RANGE"}]}}]});
    let answer = server.call("UpdateTable", update).await.unwrap();
    assert_eq!(
        answer["TableDescription"]["GlobalSecondaryIndexes"][0]["IndexStatus"],
        "ACTIVE"
    );
    let owned = async |server: &Server, owner: &str| {
        let body = json!({"TableName": "leases", "IndexName": "by-owner", "KeyConditionExpression": "leaseOwner = :o",
            "ExpressionAttributeValues": {":o": {"S": owner}}});
        let answer = server.call("Query", body).await.unwrap();
        let items = answer["Items"].as_array().unwrap().clone();
        assert!(items.iter().all(|item| item.get("more").is_none()));
        items
            .iter()
            .map(|item| item["pk"]["S"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(owned(&server, "w1").await, ["a", "c"]);
    let take = json!({"TableName": "leases", "Key": key("c"), "UpdateExpression": "SET leaseOwner = :o", "ExpressionAttributeValues": {":o": {"S": "w2"}}});
    server.call("UpdateItem", take).await.unwrap();
    let server = server.restart().await;
    assert_eq!(
        (owned(&server, "w1").await, owned(&server, "w2").await),
        (vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()])
    );
    let wrong = json!({"TableName": "leases", "Item": {"pk": {"S": "d"}, "leaseOwner": {"N": "1"}}});
    assert_eq!(code(&server.call("PutItem", wrong).await), "ValidationException");
    let drop = json!({"TableName": "leases", "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "by-owner"}}]});
    server.call("UpdateTable", drop).await.unwrap();
    let described = server
        .call("DescribeTable", json!({"TableName": "leases"}))
        .await
        .unwrap();
    assert!(described["Table"].get("GlobalSecondaryIndexes").is_none());
    assert_eq!(described["Table"]["AttributeDefinitions"].as_array().unwrap().len(), 1);
}

#[derive(Debug)]
struct Only(&'static [(&'static str, &'static str)]);

impl Authorizer for Only {
    fn allows(&self, action: &str, resource: &str) -> bool {
        self.0.contains(&(action, resource))
    }
}

#[tokio::test]
async fn a_policy_speaks_of_tables_indexes_and_the_parts_of_a_transaction() {
    const ARN: &str = "arn:aws:dynamodb:us-west-2:000000000000:table/mine";
    let server = Server::start().await;
    table(&server, "mine").await;
    let only = Arc::new(Only(&[
        ("dynamodb:PutItem", ARN),
        (
            "dynamodb:Query",
            "arn:aws:dynamodb:us-west-2:000000000000:table/mine/index/i",
        ),
        ("dynamodb:BatchGetItem", ARN),
    ]));
    let call = async |operation: &str, body: Value| -> Answer { server.call_as(only.clone(), operation, body).await };
    let denied = |answer: &Answer| answer.is_err() && code(answer) == "AccessDeniedException";
    let put = json!({"Put": {"TableName": "mine", "Item": key("a")}});
    let delete = json!({"Delete": {"TableName": "mine", "Key": key("b")}});
    call("TransactWriteItems", json!({"TransactItems": [put]}))
        .await
        .unwrap();
    assert!(denied(
        &call("TransactWriteItems", json!({"TransactItems": [put, delete]})).await
    ));
    call("BatchGetItem", json!({"RequestItems": {"mine": {"Keys": [key("a")]}}}))
        .await
        .unwrap();
    assert!(denied(
        &call(
            "BatchWriteItem",
            json!({"RequestItems": {"mine": [{"DeleteRequest": {"Key": key("a")}}]}})
        )
        .await
    ));
    assert!(denied(&call("Scan", json!({"TableName": "mine"})).await));
    assert!(denied(
        &call("GetItem", json!({"TableName": ARN, "Key": key("a")})).await
    ));
    let query = json!({"KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "a"}}, "TableName": "mine"});
    assert!(denied(&call("Query", query.clone()).await));
    let mut by_index = query;
    by_index["IndexName"] = json!("i");
    assert_eq!(
        code(&call("Query", by_index).await),
        "ValidationException",
        "it may, and there is no such index"
    );
    // An ARN of somebody else's is that of nothing.
    let theirs = "arn:aws:dynamodb:us-west-2:111122223333:table/mine";
    assert_eq!(
        code(
            &server
                .call("GetItem", json!({"TableName": theirs, "Key": key("a")}))
                .await
        ),
        "ResourceNotFoundException"
    );
    assert!(
        server
            .call("GetItem", json!({"TableName": ARN, "Key": key("a")}))
            .await
            .unwrap()
            .get("Item")
            .is_some()
    );
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let server = Server::start().await;
    table(&server, "limits").await;
    let put = async |item: Value| {
        server
            .call("PutItem", json!({"TableName": "limits", "Item": item}))
            .await
    };
    assert_eq!(
        code(&put(json!({"pk": {"S": "k".repeat(2049)}})).await),
        "ValidationException"
    );
    put(json!({"pk": {"S": "k".repeat(2048)}})).await.unwrap();
    let size = 400 * 1024 - "pk".len() - "a".len() - "v".len();
    put(json!({"pk": {"S": "a"}, "v": {"S": "x".repeat(size)}}))
        .await
        .unwrap();
    assert_eq!(
        code(&put(json!({"pk": {"S": "a"}, "v": {"S": "x".repeat(size + 1)}})).await),
        "ValidationException"
    );
    let grow = json!({"TableName": "limits", "Key": key("a"), "UpdateExpression": "SET w = v"});
    assert_eq!(code(&server.call("UpdateItem", grow).await), "ValidationException");
    let nested = |depth: usize| (0..depth).fold(json!({"S": "x"}), |inner, _| json!({"L": [inner]}));
    put(json!({"pk": {"S": "deep"}, "v": nested(32)})).await.unwrap();
    assert_eq!(
        code(&put(json!({"pk": {"S": "deep"}, "v": nested(33)})).await),
        "ValidationException"
    );
    // A page ends when it has looked at a mebibyte.
    for i in 0..4 {
        put(json!({"pk": {"S": format!("big{i}")}, "v": {"S": "x".repeat(size - 10)}}))
            .await
            .unwrap();
    }
    let page = server.call("Scan", json!({"TableName": "limits"})).await.unwrap();
    assert!(
        page.get("LastEvaluatedKey").is_some() && page["Count"].as_i64().unwrap() < 7,
        "{}",
        page["Count"]
    );
    let conditions = |text: String| json!({"TableName": "limits", "Item": key("z"), "ConditionExpression": text});
    for text in [
        "(".repeat(2000),
        format!("{}a = b", "NOT ".repeat(900)),
        vec!["a=b"; 400].join(" OR "),
        "a".repeat(5000),
    ] {
        assert_eq!(
            code(&server.call("PutItem", conditions(text)).await),
            "ValidationException"
        );
    }
}
