//! CreateTable, DescribeTable, UpdateTable, DeleteTable, ListTables. A table and an index are usable when the call that makes them answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, ResourceName, Timestamp};
use wire::dynamodb::{
    self, AttributeDefinition, BillingMode, BillingModeSummary, GlobalSecondaryIndexDescription,
    GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement, KeyType, LocalSecondaryIndexDescription, ProjectionType,
    ProvisionedThroughput, ProvisionedThroughputDescription, ScalarAttributeType, TableClassSummary, TableDescription,
    TableStatus, op,
};

use crate::error::{invalid_value, table_not_found, unsupported, validation};
use crate::key::{KeyAttr, KeyKind, Keys};
use crate::limits;
use crate::ops::admin::read_tags;
use crate::schema::{IndexRecord, Projection, TableRecord, Throughput};
use crate::service::KclTables;
use crate::table::Table;

impl Handle<op::CreateTable> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::CreateTableInput>,
    ) -> Result<Reply<dynamodb::CreateTableOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        check_name(&input.table_name)?;
        for (given, what) in [
            (input.global_table_source_arn.is_some(), "A replica of a global table"),
            (input.vector_indexes.is_some(), "VectorIndexes"),
            (input.resource_policy.is_some(), "ResourcePolicy"),
            (
                input.stream_specification.as_ref().is_some_and(|s| s.stream_enabled),
                "StreamSpecification",
            ),
        ] {
            if given {
                return Err(unsupported(what));
            }
        }
        let now = self.clock.now().millis();
        let on_demand = input.billing_mode == Some(BillingMode::PayPerRequest);
        let throughput = throughput(
            on_demand,
            input.provisioned_throughput.as_ref(),
            "ProvisionedThroughput",
        )?;
        let attributes = definitions(input.attribute_definitions.unwrap_or_default())?;
        let keys = keys(&input.key_schema.unwrap_or_default(), &attributes)?;
        let mut indexes = Vec::new();
        let (locals, globals) = (input.local_secondary_indexes, input.global_secondary_indexes);
        refuse_empty(locals.as_deref(), globals.as_deref())?;
        for local in locals.unwrap_or_default() {
            let own = index_keys(&local.index_name, &local.key_schema, &attributes)?;
            if keys.range.is_none() {
                return Err(invalid_value(
                    "Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex",
                ));
            }
            if own.hash != keys.hash || own.range.is_none() {
                return Err(invalid_value(format_args!(
                    "Index KeySchema does not have the hash key of its table and a range key for index: {}",
                    local.index_name
                )));
            }
            indexes.push(index(
                &local.index_name,
                own,
                &local.projection,
                true,
                Throughput::default(),
            )?);
        }
        for global in globals.unwrap_or_default() {
            let own = index_keys(&global.index_name, &global.key_schema, &attributes)?;
            let units = self::throughput(
                on_demand,
                global.provisioned_throughput.as_ref(),
                "ProvisionedThroughput",
            )?;
            indexes.push(index(&global.index_name, own, &global.projection, false, units)?);
        }
        check_indexes(&indexes)?;
        refuse_unused(&attributes, &keys, &indexes)?;
        indexes.sort_by(|a, b| a.name.cmp(&b.name));
        let record = TableRecord {
            id: 0,
            uuid: uuid::Uuid::new_v4().to_string(),
            created_ms: now,
            keys,
            attributes,
            indexes,
            on_demand_since_ms: on_demand.then_some(now),
            throughput,
            protected: input.deletion_protection_enabled == Some(true),
            class: input.table_class.map(|class| class.as_str().to_owned()),
            tags: read_tags(BTreeMap::new(), input.tags.unwrap_or_default())?,
            pitr: None,
            ttl: None,
        };
        let name = ResourceName {
            account: caller.account,
            region: caller.region.clone(),
            name: input.table_name,
        };
        let table = self.shared()?.create(name, record).await?;
        Ok(dynamodb::CreateTableOutput {
            table_description: Some(describe(&table, TableStatus::Active)),
        }
        .into())
    }
}

impl Handle<op::DescribeTable> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::DescribeTableInput>,
    ) -> Result<Reply<dynamodb::DescribeTableOutput>, ApiError> {
        let table = self.itself(&request.context.caller, &request.input.table_name)?;
        Ok(dynamodb::DescribeTableOutput {
            table: Some(describe(&table, TableStatus::Active)),
        }
        .into())
    }
}

impl Handle<op::DeleteTable> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::DeleteTableInput>,
    ) -> Result<Reply<dynamodb::DeleteTableOutput>, ApiError> {
        let table = self.itself(&request.context.caller, &request.input.table_name)?;
        let described = describe(&table, TableStatus::Deleting);
        self.shared()?.delete(table).await?;
        Ok(dynamodb::DeleteTableOutput {
            table_description: Some(described),
        }
        .into())
    }
}

impl Handle<op::ListTables> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::ListTablesInput>,
    ) -> Result<Reply<dynamodb::ListTablesOutput>, ApiError> {
        let input = request.input;
        let limit = input
            .limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(limits::LIST_TABLES_MAX);
        let after = input.exclusive_start_table_name.as_deref();
        let (names, more) = self.list(&request.context.caller, after, limit);
        Ok(dynamodb::ListTablesOutput {
            last_evaluated_table_name: names.last().filter(|_| more).cloned(),
            table_names: Some(names),
        }
        .into())
    }
}

impl Handle<op::UpdateTable> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::UpdateTableInput>,
    ) -> Result<Reply<dynamodb::UpdateTableOutput>, ApiError> {
        let (input, caller) = (request.input, &request.context.caller);
        for (given, what) in [
            (input.replica_updates.is_some(), "ReplicaUpdates"),
            (input.vector_index_updates.is_some(), "VectorIndexUpdates"),
            (
                input.global_table_witness_updates.is_some(),
                "GlobalTableWitnessUpdates",
            ),
            (input.multi_region_consistency.is_some(), "MultiRegionConsistency"),
            (
                input.stream_specification.as_ref().is_some_and(|s| s.stream_enabled),
                "StreamSpecification",
            ),
        ] {
            if given {
                return Err(unsupported(what));
            }
        }
        let table = self.itself(caller, &input.table_name)?;
        let now = self.clock.now().millis();
        self.change(&table, move |record| {
            change(record, input, now)?;
            Ok(())
        })
        .await?;
        Ok(dynamodb::UpdateTableOutput {
            table_description: Some(describe(&table, TableStatus::Active)),
        }
        .into())
    }
}

fn change(record: &mut TableRecord, input: dynamodb::UpdateTableInput, now: i64) -> Result<(), ApiError> {
    if let Some(protected) = input.deletion_protection_enabled {
        record.protected = protected;
    }
    if let Some(class) = input.table_class {
        record.class = Some(class.as_str().to_owned());
    }
    match input.billing_mode {
        Some(BillingMode::PayPerRequest) => {
            record.on_demand_since_ms = record.on_demand_since_ms.or(Some(now));
            record.throughput = Throughput::default();
            record
                .indexes
                .iter_mut()
                .for_each(|index| index.throughput = Throughput::default());
        }
        Some(BillingMode::Provisioned) => {
            record.throughput = throughput(false, input.provisioned_throughput.as_ref(), "ProvisionedThroughput")?;
            record.on_demand_since_ms = None;
        }
        None => {
            let on_demand = record.on_demand_since_ms.is_some();
            if input.provisioned_throughput.is_some() {
                record.throughput = throughput(
                    on_demand,
                    input.provisioned_throughput.as_ref(),
                    "ProvisionedThroughput",
                )?;
            }
        }
    }
    let mut defined = record.attributes.clone();
    for attr in definitions(input.attribute_definitions.unwrap_or_default())? {
        match defined.iter().find(|known| known.name == attr.name) {
            Some(known) if known.kind != attr.kind => {
                return Err(invalid_value(format_args!(
                    "Attribute {} is defined with another type",
                    attr.name
                )));
            }
            Some(_) => {}
            None => defined.push(attr),
        }
    }
    for update in input.global_secondary_index_updates.unwrap_or_default() {
        change_index(record, update, &defined)?;
    }
    check_indexes(&record.indexes)?;
    record.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    let used: BTreeSet<&str> = used_names(&record.keys, &record.indexes);
    let kept: Vec<KeyAttr> = defined
        .into_iter()
        .filter(|attr| used.contains(attr.name.as_str()))
        .collect();
    record.attributes = kept;
    Ok(())
}

fn change_index(
    record: &mut TableRecord,
    update: GlobalSecondaryIndexUpdate,
    defined: &[KeyAttr],
) -> Result<(), ApiError> {
    let not_found = |name: &str| {
        ApiError::client(
            "ResourceNotFoundException",
            format!("Requested resource not found: Index: {name} not found"),
        )
    };
    let on_demand = record.on_demand_since_ms.is_some();
    match (update.create, update.delete, update.update) {
        (Some(create), None, None) => {
            if record.index(&create.index_name).is_some() {
                let message = format!(
                    "Attempting to create an index which already exists: {}",
                    create.index_name
                );
                return Err(validation(message));
            }
            let keys = index_keys(&create.index_name, &create.key_schema, defined)?;
            let units = throughput(
                on_demand,
                create.provisioned_throughput.as_ref(),
                "ProvisionedThroughput",
            )?;
            record
                .indexes
                .push(index(&create.index_name, keys, &create.projection, false, units)?);
        }
        (None, Some(delete), None) => {
            let found = record
                .indexes
                .iter()
                .position(|index| index.name == delete.index_name && !index.local);
            record
                .indexes
                .remove(found.ok_or_else(|| not_found(&delete.index_name))?);
        }
        (None, None, Some(update)) => {
            let units = throughput(
                on_demand,
                update.provisioned_throughput.as_ref(),
                "ProvisionedThroughput",
            )?;
            let found = record
                .indexes
                .iter_mut()
                .find(|index| index.name == update.index_name && !index.local);
            found.ok_or_else(|| not_found(&update.index_name))?.throughput = units;
        }
        _ => {
            return Err(invalid_value(
                "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, GlobalSecondaryIndexUpdate.Delete must \
                 not be null",
            ));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !(3..=255).contains(&name.len()) {
        return Err(validation(
            "TableName must be at least 3 characters long and at most 255 characters long",
        ));
    }
    if !name.chars().all(legal) {
        return Err(validation(format!(
            "1 validation error detected: Value '{name}' at 'tableName' failed to satisfy constraint: Member must satisfy regular \
             expression pattern: [a-zA-Z0-9_.-]+"
        )));
    }
    Ok(())
}

fn throughput(on_demand: bool, given: Option<&ProvisionedThroughput>, what: &str) -> Result<Throughput, ApiError> {
    match (on_demand, given) {
        (true, None) => Ok(Throughput::default()),
        (true, Some(units)) if units.read_capacity_units == 0 && units.write_capacity_units == 0 => {
            Ok(Throughput::default())
        }
        (true, Some(_)) => Err(invalid_value(
            "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST",
        )),
        (false, Some(units)) => Ok(Throughput {
            read: units.read_capacity_units,
            write: units.write_capacity_units,
        }),
        (false, None) => Err(invalid_value(format_args!(
            "{what} must be specified when BillingMode is PROVISIONED"
        ))),
    }
}

fn definitions(given: Vec<AttributeDefinition>) -> Result<Vec<KeyAttr>, ApiError> {
    let mut attributes: Vec<KeyAttr> = Vec::with_capacity(given.len());
    for definition in given {
        if attributes.iter().any(|attr| attr.name == definition.attribute_name) {
            return Err(invalid_value(format_args!(
                "Duplicate AttributeName in AttributeDefinitions: {}",
                definition.attribute_name
            )));
        }
        attributes.push(KeyAttr {
            name: definition.attribute_name,
            kind: match definition.attribute_type {
                ScalarAttributeType::S => KeyKind::S,
                ScalarAttributeType::N => KeyKind::N,
                ScalarAttributeType::B => KeyKind::B,
            },
        });
    }
    Ok(attributes)
}

fn keys(schema: &[KeySchemaElement], attributes: &[KeyAttr]) -> Result<Keys, ApiError> {
    let names = |list: &mut dyn Iterator<Item = &str>| format!("[{}]", list.collect::<Vec<_>>().join(", "));
    let find = |element: &KeySchemaElement| {
        let found = attributes.iter().find(|attr| attr.name == element.attribute_name);
        found.cloned().ok_or_else(|| {
            invalid_value(format_args!(
                "Some index key attributes are not defined in AttributeDefinitions. Keys: {}, AttributeDefinitions: {}",
                names(&mut schema.iter().map(|e| e.attribute_name.as_str())),
                names(&mut attributes.iter().map(|a| a.name.as_str()))
            ))
        })
    };
    match schema {
        [hash] if hash.key_type == KeyType::Hash => Ok(Keys {
            hash: find(hash)?,
            range: None,
        }),
        [hash, range] if hash.key_type == KeyType::Hash && range.key_type == KeyType::Range => {
            if hash.attribute_name == range.attribute_name {
                return Err(validation(
                    "Both the Hash Key and the Range Key element in the KeySchema have the same name",
                ));
            }
            Ok(Keys {
                hash: find(hash)?,
                range: Some(find(range)?),
            })
        }
        [] => Err(invalid_value("Missing KeySchema")),
        [first, ..] if first.key_type != KeyType::Hash => Err(validation(
            "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
        )),
        [_, second] if second.key_type != KeyType::Range => Err(validation(
            "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
        )),
        _ => Err(unsupported("A key of more than two attributes")),
    }
}

fn index_keys(name: &str, schema: &[KeySchemaElement], attributes: &[KeyAttr]) -> Result<Keys, ApiError> {
    keys(schema, attributes).map_err(|mut error| {
        error.message.push_str(&format!(" (index {name})"));
        error
    })
}

fn index(
    name: &str,
    keys: Keys,
    projection: &dynamodb::Projection,
    local: bool,
    throughput: Throughput,
) -> Result<IndexRecord, ApiError> {
    check_name(name)?;
    let names = projection.non_key_attributes.as_deref();
    let projection = match (projection.projection_type, names) {
        (Some(ProjectionType::All), None) => Projection::All,
        (Some(ProjectionType::KeysOnly), None) => Projection::KeysOnly,
        (Some(ProjectionType::Include), Some(names)) => Projection::Include(names.iter().cloned().collect()),
        (Some(ProjectionType::Include), None) => {
            return Err(invalid_value(
                "ProjectionType is INCLUDE, but NonKeyAttributes is not specified",
            ));
        }
        (Some(other), Some(_)) => {
            return Err(invalid_value(format_args!(
                "ProjectionType is {other}, but NonKeyAttributes is specified"
            )));
        }
        (None, _) => return Err(invalid_value("Unknown ProjectionType: null")),
    };
    Ok(IndexRecord {
        name: name.to_owned(),
        keys,
        projection,
        local,
        throughput,
    })
}

fn refuse_empty<L, G>(locals: Option<&[L]>, globals: Option<&[G]>) -> Result<(), ApiError> {
    let what = match (locals, globals) {
        (Some([]), _) => "LocalSecondaryIndexes",
        (_, Some([])) => "GlobalSecondaryIndexes",
        _ => return Ok(()),
    };
    Err(invalid_value(format_args!("List of {what} is empty")))
}

fn check_indexes(indexes: &[IndexRecord]) -> Result<(), ApiError> {
    let mut names = BTreeSet::new();
    if let Some(twice) = indexes.iter().find(|index| !names.insert(&index.name)) {
        return Err(invalid_value(format_args!("Duplicate index name: {}", twice.name)));
    }
    let locals = indexes.iter().filter(|index| index.local).count();
    let globals = indexes.len() - locals;
    for (count, max, what) in [
        (locals, limits::LOCAL_INDEXES_MAX, "LocalSecondaryIndex"),
        (globals, limits::GLOBAL_INDEXES_MAX, "GlobalSecondaryIndex"),
    ] {
        if count > max {
            return Err(invalid_value(format_args!(
                "{what} count exceeds the per-table limit of {max}"
            )));
        }
    }
    let projected: usize = indexes
        .iter()
        .map(|index| match &index.projection {
            Projection::Include(names) => names.len(),
            _ => 0,
        })
        .sum();
    match projected > limits::PROJECTED_ATTRIBUTES_MAX {
        true => Err(invalid_value(format_args!(
            "NonKeyAttributes of all indexes may be {} together",
            limits::PROJECTED_ATTRIBUTES_MAX
        ))),
        false => Ok(()),
    }
}

fn used_names<'a>(keys: &'a Keys, indexes: &'a [IndexRecord]) -> BTreeSet<&'a str> {
    let all = std::iter::once(keys).chain(indexes.iter().map(|index| &index.keys));
    all.flat_map(|keys| keys.attributes().map(|attr| attr.name.as_str()))
        .collect()
}

fn refuse_unused(attributes: &[KeyAttr], keys: &Keys, indexes: &[IndexRecord]) -> Result<(), ApiError> {
    let used = used_names(keys, indexes);
    if attributes.iter().all(|attr| used.contains(attr.name.as_str())) {
        return Ok(());
    }
    Err(match indexes.is_empty() {
        true => invalid_value(
            "Number of attributes in KeySchema does not exactly match number of attributes defined in AttributeDefinitions",
        ),
        false => invalid_value(format_args!(
            "Some AttributeDefinitions are not used. AttributeDefinitions: [{}], keys used: [{}]",
            attributes
                .iter()
                .map(|attr| attr.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
            used.into_iter().collect::<Vec<_>>().join(", ")
        )),
    })
}

fn wire_keys(keys: &Keys) -> Vec<KeySchemaElement> {
    let element = |attr: &KeyAttr, key_type| KeySchemaElement {
        attribute_name: attr.name.clone(),
        key_type,
    };
    let range = keys.range.iter().map(|range| element(range, KeyType::Range));
    std::iter::once(element(&keys.hash, KeyType::Hash))
        .chain(range)
        .collect()
}

fn wire_projection(projection: &Projection) -> dynamodb::Projection {
    let (kind, names) = match projection {
        Projection::All => (ProjectionType::All, None),
        Projection::KeysOnly => (ProjectionType::KeysOnly, None),
        Projection::Include(names) => (ProjectionType::Include, Some(names.iter().cloned().collect())),
    };
    dynamodb::Projection {
        projection_type: Some(kind),
        non_key_attributes: names,
    }
}

fn wire_throughput(units: Throughput) -> ProvisionedThroughputDescription {
    ProvisionedThroughputDescription {
        number_of_decreases_today: Some(0),
        read_capacity_units: Some(units.read),
        write_capacity_units: Some(units.write),
        ..ProvisionedThroughputDescription::default()
    }
}

/// A table as its owner sees it.
fn describe(table: &Table, status: TableStatus) -> TableDescription {
    let record = table.record();
    let data = table.data.read();
    let arn = |index: &IndexRecord| format!("{}/index/{}", table.arn, index.name);
    let size = |index: &IndexRecord| {
        let (count, bytes) = data.index_size(&record, &index.name);
        (i64::try_from(count).ok(), i64::try_from(bytes).ok())
    };
    let local = |index: &IndexRecord| {
        let (item_count, index_size_bytes) = size(index);
        LocalSecondaryIndexDescription {
            index_arn: Some(arn(index)),
            index_name: Some(index.name.clone()),
            key_schema: Some(wire_keys(&index.keys)),
            projection: Some(wire_projection(&index.projection)),
            item_count,
            index_size_bytes,
        }
    };
    let global = |index: &IndexRecord| {
        let (item_count, index_size_bytes) = size(index);
        GlobalSecondaryIndexDescription {
            index_arn: Some(arn(index)),
            index_name: Some(index.name.clone()),
            index_status: Some(IndexStatus::Active),
            key_schema: Some(wire_keys(&index.keys)),
            projection: Some(wire_projection(&index.projection)),
            provisioned_throughput: Some(wire_throughput(index.throughput)),
            item_count,
            index_size_bytes,
            ..GlobalSecondaryIndexDescription::default()
        }
    };
    let locals: Vec<_> = record.indexes.iter().filter(|index| index.local).map(local).collect();
    let globals: Vec<_> = record.indexes.iter().filter(|index| !index.local).map(global).collect();
    TableDescription {
        attribute_definitions: Some(record.attributes.iter().map(wire_attribute).collect()),
        billing_mode_summary: record.on_demand_since_ms.map(|since| BillingModeSummary {
            billing_mode: Some(BillingMode::PayPerRequest),
            last_update_to_pay_per_request_date_time: Some(Timestamp::from_millis(since)),
        }),
        creation_date_time: Some(Timestamp::from_millis(record.created_ms)),
        deletion_protection_enabled: Some(record.protected),
        local_secondary_indexes: Some(locals).filter(|list| !list.is_empty()),
        global_secondary_indexes: Some(globals).filter(|list| !list.is_empty()),
        item_count: i64::try_from(data.len()).ok(),
        key_schema: Some(wire_keys(&record.keys)),
        provisioned_throughput: Some(wire_throughput(record.throughput)),
        table_arn: Some(table.arn.clone()),
        table_class_summary: record
            .class
            .as_deref()
            .and_then(|class| class.parse().ok())
            .map(|class| TableClassSummary {
                table_class: Some(class),
                last_update_date_time: None,
            }),
        table_id: Some(record.uuid.clone()),
        table_name: Some(table.name.name.clone()),
        table_size_bytes: i64::try_from(data.bytes).ok(),
        table_status: Some(status),
        ..TableDescription::default()
    }
}

fn wire_attribute(attr: &KeyAttr) -> AttributeDefinition {
    AttributeDefinition {
        attribute_name: attr.name.clone(),
        attribute_type: match attr.kind {
            KeyKind::S => ScalarAttributeType::S,
            KeyKind::N => ScalarAttributeType::N,
            KeyKind::B => ScalarAttributeType::B,
        },
    }
}

impl KclTables {
    /// The table of an operation that answers the table's own error.
    pub(crate) fn settings_table(&self, caller: &base::Caller, named: &str) -> Result<Arc<Table>, ApiError> {
        let missing = || ApiError::client("TableNotFoundException", format!("Table not found: {named}"));
        self.find(caller, named).ok_or_else(missing)
    }

    /// A table by its ARN alone.
    pub(crate) fn by_arn(&self, caller: &base::Caller, arn: &str) -> Result<Arc<Table>, ApiError> {
        let found = self.find(caller, arn).filter(|_| arn.starts_with("arn:"));
        found.ok_or_else(|| table_not_found(arn))
    }
}
