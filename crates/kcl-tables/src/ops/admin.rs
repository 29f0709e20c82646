//! What is set beside a table's items: tags, time to live, continuous backups; and what an account is told of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{ApiError, Handle, Reply, Request, Timestamp};
use wire::dynamodb::{
    self, ContinuousBackupsDescription, ContinuousBackupsStatus, PointInTimeRecoveryDescription,
    PointInTimeRecoveryStatus, Tag, TimeToLiveDescription, TimeToLiveStatus, op,
};

use crate::error::{invalid_value, validation};
use crate::expr::{Comparator, Condition, Operand, Path};
use crate::limits;
use crate::number::Number;
use crate::schema::{PitrRecord, TableRecord, TtlRecord};
use crate::service::KclTables;
use crate::table::Table;
use crate::value::Attr;
use crate::write::{Action, Step};

type Tags = BTreeMap<String, String>;

/// `tags` and `more` together.
pub fn read_tags(mut tags: Tags, more: Vec<Tag>) -> Result<Tags, ApiError> {
    for Tag { key, value } in more {
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(validation(format!(
                "Tag key {key} begins with \"aws:\", which is reserved."
            )));
        }
        tags.insert(key, value);
    }
    match tags.len() > limits::TAGS_MAX {
        true => Err(validation(format!("A table may have {} tags.", limits::TAGS_MAX))),
        false => Ok(tags),
    }
}

impl Handle<op::TagResource> for KclTables {
    async fn handle(&self, request: Request<dynamodb::TagResourceInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let table = self.by_arn(&request.context.caller, &input.resource_arn)?;
        self.change(&table, move |record| {
            record.tags = read_tags(std::mem::take(&mut record.tags), input.tags)?;
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::UntagResource> for KclTables {
    async fn handle(&self, request: Request<dynamodb::UntagResourceInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let table = self.by_arn(&request.context.caller, &input.resource_arn)?;
        self.change(&table, move |record| {
            record.tags.retain(|key, _| !input.tag_keys.contains(key));
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::ListTagsOfResource> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::ListTagsOfResourceInput>,
    ) -> Result<Reply<dynamodb::ListTagsOfResourceOutput>, ApiError> {
        if request.input.next_token.is_some() {
            return Err(invalid_value(
                "NextToken is not valid: all tags of a table are in one answer",
            ));
        }
        let table = self.by_arn(&request.context.caller, &request.input.resource_arn)?;
        let record = table.record();
        let tags = record.tags.iter().map(|(key, value)| Tag {
            key: key.clone(),
            value: value.clone(),
        });
        Ok(dynamodb::ListTagsOfResourceOutput {
            tags: Some(tags.collect()),
            next_token: None,
        }
        .into())
    }
}

impl Handle<op::DescribeTimeToLive> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::DescribeTimeToLiveInput>,
    ) -> Result<Reply<dynamodb::DescribeTimeToLiveOutput>, ApiError> {
        let table = self.itself(&request.context.caller, &request.input.table_name)?;
        let ttl = table.record().ttl.clone();
        let status = match ttl {
            Some(_) => TimeToLiveStatus::Enabled,
            None => TimeToLiveStatus::Disabled,
        };
        Ok(dynamodb::DescribeTimeToLiveOutput {
            time_to_live_description: Some(TimeToLiveDescription {
                attribute_name: ttl.map(|ttl| ttl.attribute),
                time_to_live_status: Some(status),
            }),
        }
        .into())
    }
}

impl Handle<op::UpdateTimeToLive> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::UpdateTimeToLiveInput>,
    ) -> Result<Reply<dynamodb::UpdateTimeToLiveOutput>, ApiError> {
        let wanted = request.input.time_to_live_specification;
        let table = self.itself(&request.context.caller, &request.input.table_name)?;
        let given = wanted.clone();
        self.change(&table, move |record| {
            match (wanted.enabled, &record.ttl) {
                (true, Some(_)) => return Err(validation("TimeToLive is already enabled")),
                (false, None) => return Err(validation("TimeToLive is already disabled")),
                (false, Some(ttl)) if ttl.attribute != wanted.attribute_name => {
                    return Err(validation(format!(
                        "TimeToLive is active on a different AttributeName: current AttributeName is {}",
                        ttl.attribute
                    )));
                }
                _ => {}
            }
            record.ttl = wanted.enabled.then_some(TtlRecord {
                attribute: wanted.attribute_name,
            });
            Ok(())
        })
        .await?;
        Ok(dynamodb::UpdateTimeToLiveOutput {
            time_to_live_specification: Some(given),
        }
        .into())
    }
}

impl KclTables {
    /// Deletes a table's items whose time is over; one that is given more time meanwhile stays.
    pub(crate) async fn expire(&self, table: &Arc<Table>) {
        let record = table.record();
        let Some(ttl) = &record.ttl else { return };
        let now = self.clock.now().millis() / 1000;
        let over = Condition::Compare(
            Comparator::Lt,
            Operand::Path(Path::top(&ttl.attribute)),
            Operand::Value(Attr::N(Number::from(now.unsigned_abs()))),
        );
        let mut from = std::ops::Bound::Unbounded;
        loop {
            let rows = table
                .data
                .read()
                .range(None, (from.as_ref(), std::ops::Bound::Unbounded), false, 1000);
            let Some((last, _)) = rows.last() else { return };
            let next = std::ops::Bound::Excluded(last.clone());
            for (_, row) in rows.iter().filter(|(_, row)| over.holds(&row.item)) {
                let Some(key) = record.keys.of(&row.item) else { continue };
                let step = Step {
                    table: Arc::clone(table),
                    key,
                    action: Action::Delete,
                    condition: over.clone(),
                };
                if let Err(crate::write::WriteError::Api(error)) = self.writer.run(vec![step]).await {
                    tracing::warn!(%error, table = table.arn, "an item beyond its time to live is still there");
                    return;
                }
            }
            from = next;
        }
    }
}

fn backups(record: &TableRecord, now: Timestamp) -> ContinuousBackupsDescription {
    let recovery = match record.pitr {
        None => PointInTimeRecoveryDescription {
            point_in_time_recovery_status: Some(PointInTimeRecoveryStatus::Disabled),
            ..PointInTimeRecoveryDescription::default()
        },
        Some(pitr) => PointInTimeRecoveryDescription {
            point_in_time_recovery_status: Some(PointInTimeRecoveryStatus::Enabled),
            recovery_period_in_days: Some(pitr.days),
            earliest_restorable_date_time: Some(Timestamp::from_millis(pitr.since_ms)),
            latest_restorable_date_time: Some(now),
        },
    };
    ContinuousBackupsDescription {
        continuous_backups_status: ContinuousBackupsStatus::Enabled,
        point_in_time_recovery_description: Some(recovery),
    }
}

impl Handle<op::DescribeContinuousBackups> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::DescribeContinuousBackupsInput>,
    ) -> Result<Reply<dynamodb::DescribeContinuousBackupsOutput>, ApiError> {
        let table = self.settings_table(&request.context.caller, &request.input.table_name)?;
        Ok(dynamodb::DescribeContinuousBackupsOutput {
            continuous_backups_description: Some(backups(&table.record(), self.clock.now())),
        }
        .into())
    }
}

/// The flag is kept and told back, as consumer libraries set it; what restores a table is the server's own backup.
impl Handle<op::UpdateContinuousBackups> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::UpdateContinuousBackupsInput>,
    ) -> Result<Reply<dynamodb::UpdateContinuousBackupsOutput>, ApiError> {
        const DAYS: i32 = 35;
        let wanted = request.input.point_in_time_recovery_specification;
        let table = self.settings_table(&request.context.caller, &request.input.table_name)?;
        let now = self.clock.now();
        self.change(&table, move |record| {
            let since_ms = record.pitr.map_or(now.millis(), |pitr| pitr.since_ms);
            record.pitr = wanted.point_in_time_recovery_enabled.then_some(PitrRecord {
                since_ms,
                days: wanted.recovery_period_in_days.unwrap_or(DAYS),
            });
            Ok(())
        })
        .await?;
        Ok(dynamodb::UpdateContinuousBackupsOutput {
            continuous_backups_description: Some(backups(&table.record(), now)),
        }
        .into())
    }
}

impl Handle<op::DescribeLimits> for KclTables {
    async fn handle(
        &self,
        _: Request<dynamodb::DescribeLimitsInput>,
    ) -> Result<Reply<dynamodb::DescribeLimitsOutput>, ApiError> {
        // The quotas of AWS's documentation; nothing here is limited by them.
        Ok(dynamodb::DescribeLimitsOutput {
            account_max_read_capacity_units: Some(80_000),
            account_max_write_capacity_units: Some(80_000),
            table_max_read_capacity_units: Some(40_000),
            table_max_write_capacity_units: Some(40_000),
        }
        .into())
    }
}

impl Handle<op::DescribeEndpoints> for KclTables {
    async fn handle(
        &self,
        request: Request<dynamodb::DescribeEndpointsRequest>,
    ) -> Result<Reply<dynamodb::DescribeEndpointsResponse>, ApiError> {
        let url = request.context.base_url.as_ref();
        let address = url.split_once("://").map_or(url, |(_, host)| host);
        Ok(dynamodb::DescribeEndpointsResponse {
            endpoints: vec![dynamodb::Endpoint {
                address: address.to_owned(),
                cache_period_in_minutes: 1440,
            }],
        }
        .into())
    }
}
