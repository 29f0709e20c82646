//! GetStoredMediaMap: which stretches of a range of time are stored and which are not, in one answer. It is no operation of
//! AWS's; docs/reference/stored-media-map.md describes it.

use base::{ApiError, Handle, Reply, Request, Timestamp};
use serde::{Deserialize, Serialize};
use storage::{Coverage, CoverageQuery, ListPlace, MediaStore, Span, StreamId, TimeAxis};
use wire::kinesisvideo_archived_media::{
    FragmentSelector, FragmentSelectorType, GetStoredMediaMapInput, GetStoredMediaMapOutput, StoredMediaGap,
    StoredMediaSpan, op,
};

use super::resolve;
use crate::VideoStreams;
use crate::error::MediaError;
use crate::limits;
use crate::token;

/// Where a map goes on. The token carries the selection, so that the caller need not repeat it.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    stream: u64,
    server_time: bool,
    /// Nothing where everything was asked for.
    range: Option<(i64, i64)>,
    gap_ms: u32,
    /// Start and number of the last fragment that was looked at; nothing when none is left.
    after: Option<(i64, String)>,
    done: bool,
    /// A span that may go on: start, end, fragments, bytes.
    open: Option<(i64, i64, u64, u64)>,
    /// Up to where spans and gaps were told.
    told_to: Option<i64>,
}

impl Place {
    fn new(stream: StreamId, selector: Option<&FragmentSelector>, gap_ms: u32) -> Result<Self, MediaError> {
        let range = selector.map(|selector| &selector.timestamp_range);
        if range.is_some_and(|range| range.start_timestamp > range.end_timestamp) {
            let why = "StartTimestamp must not be later than EndTimestamp.";
            return Err(MediaError::InvalidArgument(why.to_owned()));
        }
        let server = |s: &FragmentSelector| s.fragment_selector_type == FragmentSelectorType::ServerTimestamp;
        let range = range.map(|range| (range.start_timestamp.millis(), range.end_timestamp.millis()));
        Ok(Place {
            stream: stream.0,
            server_time: selector.is_none_or(server),
            range,
            gap_ms,
            after: None,
            done: false,
            open: None,
            told_to: range.map(|(start, _)| start),
        })
    }

    fn query(&self) -> Option<CoverageQuery> {
        let after = match &self.after {
            Some((time, number)) => Some(ListPlace {
                time: Timestamp::from_millis(*time),
                number: number.parse().ok()?,
            }),
            None => None,
        };
        let (from, to) = self.range.unwrap_or((i64::MIN, i64::MAX));
        Some(CoverageQuery {
            axis: if self.server_time {
                TimeAxis::Server
            } else {
                TimeAxis::Producer
            },
            from: Timestamp::from_millis(from),
            to: Timestamp::from_millis(to),
            gap_ms: self.gap_ms,
            after,
            limit: 1,
        })
    }

    /// Up to `limit` whole spans. One more, or one that the end of a step cut, is kept for the next page.
    async fn spans(
        &mut self,
        store: &dyn MediaStore,
        mut query: CoverageQuery,
        limit: usize,
    ) -> Result<Vec<Span>, storage::Error> {
        let mut whole = Coverage::default();
        whole
            .spans
            .extend(self.open.take().map(|(start, end, fragments, bytes)| Span {
                start: Timestamp::from_millis(start),
                end: Timestamp::from_millis(end),
                fragments,
                bytes,
            }));
        let mut steps = 0;
        while !self.done && whole.spans.len() <= limit && steps < limits::MAP_STEPS {
            // A span that melts into the one before makes no more of them.
            query.limit = limit + 1 - whole.spans.len().min(limit);
            let part = store.coverage(StreamId(self.stream), &query).await?;
            (query.after, self.done) = (part.next.or(query.after), part.next.is_none());
            whole.extend(part, self.gap_ms);
            steps += 1;
        }
        let mut spans = whole.spans;
        if !self.done || spans.len() > limit {
            let surplus = spans.pop();
            self.open = surplus.map(|s| (s.start.millis(), s.end.millis(), s.fragments, s.bytes));
        }
        self.after = query.after.map(|place| (place.time.millis(), place.number.to_string()));
        Ok(spans)
    }

    fn ended(&self) -> bool {
        self.done && self.open.is_none()
    }

    /// The gaps around `spans`, and at the end of the range or the present, whichever comes first.
    fn gaps(&mut self, spans: &[Span], now: Timestamp) -> Vec<StoredMediaGap> {
        let mut gaps = Vec::new();
        let mut told_to = self.told_to;
        let mut tell = |from: Option<i64>, to: i64| {
            if let Some(from) = from.filter(|from| to.saturating_sub(*from) > i64::from(self.gap_ms)) {
                gaps.push(StoredMediaGap {
                    start_timestamp: Some(Timestamp::from_millis(from)),
                    end_timestamp: Some(Timestamp::from_millis(to)),
                });
            }
        };
        for span in spans {
            tell(told_to, span.start.millis());
            told_to = Some(told_to.unwrap_or(i64::MIN).max(span.end.millis()));
        }
        if self.done
            && self.open.is_none()
            && let Some((_, end)) = self.range
        {
            tell(told_to, end.min(now.millis()));
        }
        self.told_to = told_to;
        gaps
    }
}

impl Handle<op::GetStoredMediaMap> for VideoStreams {
    async fn handle(
        &self,
        request: Request<GetStoredMediaMapInput>,
    ) -> Result<Reply<GetStoredMediaMapOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let state = resolve(&self.inner, &request.context, name, arn)?;
        let strange = || MediaError::InvalidArgument("The NextToken is not one of this stream.".to_owned());
        let gap_ms = input.max_gap_in_milliseconds.and_then(|gap| u32::try_from(gap).ok());
        let gap_ms = gap_ms.unwrap_or(limits::MAP_GAP_MS_DEFAULT);
        let mut place = match &input.next_token {
            Some(text) => {
                let place: Option<Place> = token::decode(text);
                place.filter(|place| place.stream == state.id.0).ok_or_else(strange)?
            }
            None => Place::new(state.id, input.fragment_selector.as_ref(), gap_ms)?,
        };
        let query = place.query().ok_or_else(strange)?;
        let limit = input.max_results.and_then(|max| usize::try_from(max).ok());
        let limit = limit.unwrap_or(limits::MAP_SPANS_MAX).clamp(1, limits::MAP_SPANS_MAX);
        let (store, _) = state.store();
        let spans = place.spans(&*store, query, limit).await.map_err(MediaError::from)?;
        let gaps = place.gaps(&spans, self.inner.clock.now());
        Ok(output(&spans, gaps, (!place.ended()).then(|| token::encode(&place))).into())
    }
}

fn output(spans: &[Span], gaps: Vec<StoredMediaGap>, next_token: Option<String>) -> GetStoredMediaMapOutput {
    let signed = |number: u64| Some(i64::try_from(number).unwrap_or(i64::MAX));
    let missing = gaps.iter().map(|gap| match (gap.start_timestamp, gap.end_timestamp) {
        (Some(start), Some(end)) => end.millis_since(start),
        _ => 0,
    });
    let stored = spans.iter().map(|span| span.end.millis_since(span.start));
    GetStoredMediaMapOutput {
        fragment_count: signed(spans.iter().map(|span| span.fragments).fold(0, u64::saturating_add)),
        size_in_bytes: signed(spans.iter().map(|span| span.bytes).fold(0, u64::saturating_add)),
        stored_milliseconds: Some(stored.fold(0, i64::saturating_add)),
        missing_milliseconds: Some(missing.fold(0, i64::saturating_add)),
        gaps: Some(gaps),
        spans: Some(
            spans
                .iter()
                .map(|span| StoredMediaSpan {
                    start_timestamp: Some(span.start),
                    end_timestamp: Some(span.end),
                    fragment_count: signed(span.fragments),
                    size_in_bytes: signed(span.bytes),
                })
                .collect(),
        ),
        next_token,
    }
}
