//! ListFragments: what is stored, by the start of the fragments, in pages. AWS promises no order; ours is that of time.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use serde::{Deserialize, Serialize};
use storage::{FragmentInfo, FragmentQuery, FragmentRange, ListPlace, StreamId, TimeAxis};
use wire::kinesisvideo_archived_media::{
    Fragment, FragmentSelector, FragmentSelectorType, ListFragmentsInput, ListFragmentsOutput, op,
};

use super::resolve;
use crate::VideoStreams;
use crate::error::MediaError;
use crate::limits;
use crate::token;

/// Where a listing goes on. The token carries the selection, so that the caller need not repeat it.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    stream: u64,
    server_time: bool,
    start_ms: i64,
    end_ms: i64,
    /// Start and number of the last fragment of the page before.
    after: Option<(i64, String)>,
}

impl Place {
    fn new(stream: StreamId, selector: &FragmentSelector) -> Result<Self, MediaError> {
        let range = &selector.timestamp_range;
        if range.start_timestamp > range.end_timestamp {
            let why = "StartTimestamp must not be later than EndTimestamp.";
            return Err(MediaError::InvalidArgument(why.to_owned()));
        }
        Ok(Place {
            stream: stream.0,
            server_time: selector.fragment_selector_type == FragmentSelectorType::ServerTimestamp,
            start_ms: range.start_timestamp.millis(),
            end_ms: range.end_timestamp.millis(),
            after: None,
        })
    }

    /// The model does not require a selector; without one and without a token, everything is listed.
    fn everything(stream: StreamId) -> Self {
        Place {
            stream: stream.0,
            server_time: true,
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            after: None,
        }
    }

    fn query(&self, limit: usize) -> Option<FragmentQuery> {
        let after = match &self.after {
            Some((time, number)) => Some(ListPlace {
                time: Timestamp::from_millis(*time),
                number: number.parse().ok()?,
            }),
            None => None,
        };
        let query = FragmentQuery::first(self.range(), limit);
        Some(FragmentQuery { after, ..query })
    }

    fn range(&self) -> FragmentRange {
        let axis = if self.server_time {
            TimeAxis::Server
        } else {
            TimeAxis::Producer
        };
        let (start, end) = (
            Timestamp::from_millis(self.start_ms),
            Timestamp::from_millis(self.end_ms),
        );
        FragmentRange::Time(axis, start, end)
    }
}

impl Handle<op::ListFragments> for VideoStreams {
    async fn handle(&self, request: Request<ListFragmentsInput>) -> Result<Reply<ListFragmentsOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let invalid = |why: &str| MediaError::InvalidArgument(why.to_owned());
        let mut place = match (&input.next_token, &input.fragment_selector) {
            (Some(text), _) => {
                let place: Option<Place> = token::decode(text);
                let place = place.filter(|place| place.stream == state.id.0);
                place.ok_or_else(|| invalid("The NextToken is not one of this stream."))?
            }
            (None, Some(selector)) => Place::new(state.id, selector)?,
            (None, None) => Place::everything(state.id),
        };
        let limit = input.max_results.and_then(|max| usize::try_from(max).ok());
        let limit = limit
            .unwrap_or(limits::LIST_FRAGMENTS_DEFAULT)
            .clamp(1, limits::LIST_FRAGMENTS_MAX);
        let query = place.query(limit + 1);
        let query = query.ok_or_else(|| invalid("The NextToken is not one of this stream."))?;
        let (store, _) = state.store();
        let mut found = store.list(state.id, &query).await.map_err(MediaError::from)?;
        let more = found.len() > limit;
        found.truncate(limit);
        place.after = found.last().filter(|_| more).map(|last| {
            let ListPlace { time, number } = query.range.place_of(last);
            (time.millis(), number.to_string())
        });
        Ok(ListFragmentsOutput {
            next_token: place.after.is_some().then(|| token::encode(&place)),
            fragments: Some(found.iter().map(fragment).collect()),
        }
        .into())
    }
}

fn fragment(info: &FragmentInfo) -> Fragment {
    Fragment {
        fragment_length_in_milliseconds: Some(i64::from(info.length_ms)),
        fragment_number: Some(info.number.to_string()),
        fragment_size_in_bytes: Some(i64::from(info.size)),
        producer_timestamp: Some(info.producer_timestamp),
        server_timestamp: Some(info.server_timestamp),
    }
}
