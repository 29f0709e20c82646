//! Leases in a DynamoDB table, or in one of a server that speaks as DynamoDB does: with the calls, conditions and names of
//! the KCL, so that its workers see ours as their own.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::lease::Lease;
use super::store::{LeaseStore, Outcome, StoreError};
use super::table;
use super::write::Write;
use crate::call::{Client, Service};
use crate::error::ClientError;

/// A new table is looked at so often until it can be used.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// One call of the table may take so long; it is tried again by who needs it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A lease table.
#[derive(Clone, Debug)]
pub struct DynamoLeaseStore {
    client: Client,
    table: String,
}

impl DynamoLeaseStore {
    /// The table of this name, which the KCL calls the application's. It is made when a consumer starts, if there is none.
    pub fn new(client: &Client, table: impl Into<String>) -> Self {
        DynamoLeaseStore {
            client: client.with_timeout(CALL_TIMEOUT),
            table: table.into(),
        }
    }

    async fn call(&self, operation: &str, mut input: Value) -> Result<Value, ClientError> {
        if let Some(input) = input.as_object_mut() {
            input.insert("TableName".to_owned(), Value::from(self.table.as_str()));
        }
        self.client.call(Service::DynamoDb, operation, &input).await
    }

    fn failed(&self, source: ClientError) -> StoreError {
        StoreError::Call {
            table: self.table.clone(),
            source,
        }
    }

    fn unusable(&self, why: impl Into<String>) -> StoreError {
        StoreError::Unusable {
            table: self.table.clone(),
            why: why.into(),
        }
    }

    /// A conditional call; false where its condition did not hold.
    async fn conditional(&self, operation: &str, input: Value) -> Result<bool, StoreError> {
        match self.call(operation, input).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some("ConditionalCheckFailedException") => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The table's state, after a look at its key; `None` where there is no table.
    async fn status(&self) -> Result<Option<String>, StoreError> {
        let described = match self.call("DescribeTable", json!({})).await {
            Ok(described) => described,
            Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let table = described.get("Table").unwrap_or(&Value::Null);
        let keys = table
            .get("KeySchema")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = keys
            .iter()
            .filter_map(|key| key.get("AttributeName")?.as_str())
            .collect();
        if names != [table::KEY] {
            let why = format!(
                "its key is {names:?} and not [\"{}\"]: this is no lease table, name another",
                table::KEY
            );
            return Err(self.unusable(why));
        }
        Ok(table.get("TableStatus").and_then(Value::as_str).map(str::to_owned))
    }

    async fn make(&self) -> Result<(), StoreError> {
        let input = json!({
            "AttributeDefinitions": [{ "AttributeName": table::KEY, "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": table::KEY, "KeyType": "HASH" }],
            "BillingMode": "PAY_PER_REQUEST",
        });
        match self.call("CreateTable", input).await {
            Ok(_) => Ok(()),
            // Another worker of the fleet was first.
            Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }
}

#[async_trait]
impl LeaseStore for DynamoLeaseStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        loop {
            match self.status().await?.as_deref() {
                Some("ACTIVE" | "UPDATING") => return Ok(()),
                Some("CREATING") => {}
                None => {
                    self.make().await?;
                    continue;
                }
                Some(other) => {
                    return Err(self.unusable(format!("it is {other}; wait until it is gone, or name another")));
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn list(&self) -> Result<Vec<Lease>, StoreError> {
        let mut leases = Vec::new();
        let mut start = Value::Null;
        loop {
            let input = match start {
                Value::Null => json!({ "ConsistentRead": true }),
                start => json!({ "ConsistentRead": true, "ExclusiveStartKey": start }),
            };
            let mut page = self.call("Scan", input).await.map_err(|error| self.failed(error))?;
            for item in page.get("Items").and_then(Value::as_array).into_iter().flatten() {
                match table::lease(item) {
                    Ok(lease) => leases.extend(lease),
                    Err(field) => {
                        tracing::warn!(table = self.table, field, ?item, "a row is no lease, it is left alone");
                    }
                }
            }
            start = page.get_mut("LastEvaluatedKey").map(Value::take).unwrap_or_default();
            if start.is_null() {
                leases.sort_by(|a, b| a.key.cmp(&b.key));
                return Ok(leases);
            }
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Lease>, StoreError> {
        let input = json!({ "Key": table::key(key), "ConsistentRead": true });
        let answer = self.call("GetItem", input).await.map_err(|error| self.failed(error))?;
        match answer.get("Item").map(table::lease) {
            None => Ok(None),
            Some(lease) => lease.map_err(|field| self.unusable(format!("the row {key} has no usable {field}"))),
        }
    }

    async fn create(&self, lease: &Lease) -> Result<bool, StoreError> {
        let input = json!({ "Item": table::item(lease), "Expected": { table::KEY: { "Exists": false } } });
        self.conditional("PutItem", input).await
    }

    async fn write(&self, write: &Write) -> Result<Outcome, StoreError> {
        let input = json!({
            "Key": table::key(&write.key),
            "AttributeUpdates": table::updates(&write.change),
            "Expected": table::expected(&write.key, &write.condition),
        });
        if self.conditional("UpdateItem", input).await? {
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Refused(self.get(&write.key).await?.map(Box::new)))
    }

    async fn delete_finished(&self, key: &str) -> Result<bool, StoreError> {
        let finished = json!({ "Value": { "S": super::lease::Checkpoint::ShardEnd.to_string() } });
        let input = json!({ "Key": table::key(key), "Expected": { table::CHECKPOINT: finished } });
        self.conditional("DeleteItem", input).await
    }
}
