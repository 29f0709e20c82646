//! DescribeLimits, and the settings of an account in a region.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use wire::kinesis::{
    self, MinimumThroughputBillingCommitmentInputStatus as Wanted,
    MinimumThroughputBillingCommitmentOutput as Commitment, MinimumThroughputBillingCommitmentOutputStatus as Status,
    op,
};

use crate::error::catalog_failure;
use crate::limits;
use crate::service::DataStreams;
use crate::stored::AccountRecord;

fn narrow(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl Handle<op::DescribeLimits> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeLimitsInput>,
    ) -> Result<Reply<kinesis::DescribeLimitsOutput>, ApiError> {
        let caller = &request.context.caller;
        let own = |stream: &std::sync::Arc<crate::state::StreamState>| {
            let name = &stream.name;
            name.account == caller.account && name.region == caller.region && stream.record.on_demand
        };
        let on_demand = self.all().iter().filter(|s| own(s)).count();
        let (_, shards) = self.usage(caller.account, &caller.region);
        let channels = self.channels();
        let channels = channels.map(|channels| channels.of_account(caller.account, &caller.region));
        let (channels, channels_max) = channels.unwrap_or_default();
        Ok(kinesis::DescribeLimitsOutput {
            channel_count: Some(narrow(channels)),
            channel_count_limit: Some(narrow(channels_max)),
            on_demand_stream_count: narrow(on_demand),
            on_demand_stream_count_limit: narrow(limits::STREAMS_PER_ACCOUNT_MAX),
            open_shard_count: narrow(shards),
            shard_limit: narrow(limits::SHARDS_PER_ACCOUNT_MAX),
        }
        .into())
    }
}

/// What is billed is nothing, so a commitment can be ended as soon as it was begun.
fn commitment(record: &AccountRecord) -> Option<Commitment> {
    let time = |ms: Option<i64>| ms.map(Timestamp::from_millis);
    Some(Commitment {
        earliest_allowed_end_at: time(record.started_ms.filter(|_| record.committed)),
        ended_at: time(record.ended_ms.filter(|_| !record.committed)),
        started_at: time(record.started_ms),
        status: match record.committed {
            true => Status::Enabled,
            false => Status::Disabled,
        },
    })
}

impl Handle<op::DescribeAccountSettings> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::DescribeAccountSettingsInput>,
    ) -> Result<Reply<kinesis::DescribeAccountSettingsOutput>, ApiError> {
        let caller = &request.context.caller;
        let settings = self.stored.account(caller.account, &caller.region).await;
        Ok(kinesis::DescribeAccountSettingsOutput {
            minimum_throughput_billing_commitment: commitment(&settings.map_err(catalog_failure)?),
        }
        .into())
    }
}

impl Handle<op::UpdateAccountSettings> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::UpdateAccountSettingsInput>,
    ) -> Result<Reply<kinesis::UpdateAccountSettingsOutput>, ApiError> {
        let caller = &request.context.caller;
        let committed = request.input.minimum_throughput_billing_commitment.status == Wanted::Enabled;
        let now = self.clock.now().millis();
        let changed = self.stored.change_account(caller.account, &caller.region, |settings| {
            if settings.committed == committed {
                return;
            }
            settings.committed = committed;
            match committed {
                true => settings.started_ms = Some(now),
                false => settings.ended_ms = Some(now),
            }
        });
        Ok(kinesis::UpdateAccountSettingsOutput {
            minimum_throughput_billing_commitment: commitment(&changed.await.map_err(catalog_failure)?),
        }
        .into())
    }
}
