//! The PutMedia operation: checks what can be refused before the body is read, then hands the connection to its session.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisvideo_media::{FragmentTimecodeType, PutMediaInput, PutMediaOutput, op};

use crate::VideoStreams;
use crate::error::MediaError;
use crate::ingest::leniency::IngestSettings;
use crate::ingest::rules::Timecodes;
use crate::ingest::session::{self, SessionContext};
use crate::limits;
use crate::media;
use crate::state::ConnectionKind;

impl Handle<op::PutMedia> for VideoStreams {
    async fn handle(&self, request: Request<PutMediaInput>) -> Result<Reply<PutMediaOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        let stream = media::resolve(inner, &request.context, name, arn)?;
        let timecodes = match (input.fragment_timecode_type, input.producer_start_timestamp) {
            (FragmentTimecodeType::Absolute, _) => Timecodes::Absolute,
            (FragmentTimecodeType::Relative, Some(start)) => Timecodes::Relative(start),
            (FragmentTimecodeType::Relative, None) => {
                let why = "x-amzn-producer-start-timestamp is needed when fragment timecodes are RELATIVE.";
                return Err(MediaError::InvalidArgument(why.to_owned()).into());
            }
        };
        let body = request
            .body
            .ok_or_else(|| MediaError::InvalidArgument("PutMedia has a body.".to_owned()))?;
        let settings = IngestSettings::from_tags(&stream.record().tags, inner.settings.rules);
        let settings = settings.unwrap_or_else(|error| {
            tracing::warn!(stream = %stream.arn, %error, "the stream's settings are left aside");
            IngestSettings::plain(inner.settings.rules)
        });
        // Where the newest wins, those before it are about to end.
        let limit = match settings.newest_wins {
            true => inner.settings.put_connections.max(limits::PUT_CONNECTIONS),
            false => inner.settings.put_connections,
        };
        let connection = stream.connect(ConnectionKind::Put, limit, &inner.metrics);
        let connection = connection.ok_or(MediaError::ConnectionLimit { limit })?;
        if settings.newest_wins {
            stream.supersede();
        }
        let context = SessionContext {
            connection,
            clock: inner.clock.clone(),
            metrics: inner.metrics.clone(),
            timecodes,
            settings,
            acks: input.fragment_acknowledgment_required.unwrap_or(true),
            sweep: inner.sweep.clone(),
            request_id: request.context.request_id.clone(),
        };
        Ok(Reply {
            output: PutMediaOutput {
                content_type: Some("application/json".to_owned()),
            },
            stream: Some(session::start(context, body)),
            stream_len: None,
            crowd: None,
        })
    }
}
