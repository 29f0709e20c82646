//! ListQueues.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use serde::{Deserialize, Serialize};
use wire::kinesis::{self, QueueStatus, op};

use crate::arn::{parse_stream_arn, queue_arn};
use crate::error::invalid;
use crate::limits;
use crate::page::{open_page, seal_page};
use crate::service::DataStreams;
use crate::state::StreamState;

/// Where a listing goes on.
#[derive(Serialize, Deserialize)]
struct QueuePage {
    after: String,
}

/// A stream whose queues are wanted: its ARN, and the second of its creation where that matters.
struct Wanted {
    arn: String,
    created_s: Option<i64>,
}

fn seconds(at: Timestamp) -> i64 {
    at.millis().div_euclid(1000)
}

impl Wanted {
    fn parse(filter: &kinesis::QueueStreamFilter) -> Result<Self, ApiError> {
        if parse_stream_arn(&filter.stream_arn).is_none() {
            return Err(invalid(format!("{} is not the ARN of a stream.", filter.stream_arn)));
        }
        Ok(Wanted {
            arn: filter.stream_arn.clone(),
            created_s: filter.stream_creation_timestamp.map(seconds),
        })
    }

    fn is(&self, stream: &StreamState) -> bool {
        let created_s = seconds(stream.record.created());
        self.arn == stream.arn && self.created_s.is_none_or(|wanted| wanted == created_s)
    }
}

impl Handle<op::ListQueues> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::ListQueuesInput>,
    ) -> Result<Reply<kinesis::ListQueuesOutput>, ApiError> {
        let (input, caller) = (&request.input, &request.context.caller);
        let (ring, now) = (&self.key_ring, self.clock.now());
        let page = input.next_token.as_ref();
        let page = page.map(|token| open_page::<QueuePage>("list-queues", token, ring, caller, now));
        let page = page.transpose()?;
        let filter = input.stream_filter.as_ref();
        let filter = filter.map(|all| all.iter().map(Wanted::parse).collect::<Result<Vec<_>, _>>());
        let filter = filter.transpose()?;
        let limit = input
            .max_results
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(limits::LIST_QUEUES_DEFAULT);
        let after = page.as_ref().map(|page| page.after.as_str());
        let known = self.queues.of_account(caller.account, &caller.region, after);
        let mut rest = known.into_iter().filter_map(|(name, known)| {
            let stream = self.state(&known.stream)?;
            // One whose creation is not written yet is not there.
            let queue = stream.record.queue(&known.key)?;
            let wanted = filter.as_ref();
            wanted
                .is_none_or(|all| all.iter().any(|w| w.is(&stream)))
                .then(|| kinesis::QueueSummary {
                    queue_arn: queue_arn(&stream.name, &queue.key),
                    queue_creation_timestamp: Timestamp::from_millis(queue.created_ms),
                    queue_name: name,
                    queue_status: QueueStatus::Active,
                    streams: vec![kinesis::QueueStreamIdentifier {
                        stream_arn: stream.arn.clone(),
                        stream_creation_timestamp: stream.record.created(),
                    }],
                })
        });
        let queues: Vec<_> = rest.by_ref().take(limit).collect();
        let next = queues.last().filter(|_| rest.next().is_some()).map(|last| QueuePage {
            after: last.queue_name.clone(),
        });
        Ok(kinesis::ListQueuesOutput {
            next_token: next
                .map(|page| seal_page("list-queues", &page, ring, caller, now))
                .transpose()?,
            queue_summaries: queues,
        }
        .into())
    }
}
