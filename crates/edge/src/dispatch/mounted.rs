//! Requests that a mount answers.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::Version;
use http::header::{self, HeaderName};
use http::request::Parts;
use hyper::Response;
use hyper::body::Incoming;

use super::{Connection, Dispatch, Inbound, REQUEST_ID_HEADERS, http_date, internal_failure, set};
use crate::body::{AnswerBody, Upload};
use crate::exchange::Exchange;
use crate::mount::{Mount, MountAnswer, MountBody, MountRequest};

impl Dispatch {
    /// The mount that claims a request.
    pub(super) fn mount_of(&self, head: &Parts) -> Option<&dyn Mount> {
        self.mounts.iter().find(|mount| mount.claims(head)).map(AsRef::as_ref)
    }

    pub(super) async fn mounted(
        &self,
        mount: &dyn Mount,
        connection: &Connection,
        head: Parts,
        incoming: Incoming,
        mut exchange: Exchange,
    ) -> Response<AnswerBody> {
        let request = Inbound {
            connection,
            parts: &head,
            received_at: self.clock.now(),
        };
        let (expects_continue, stop) = (request.expects_continue(), self.stop_signal(&request));
        let multiplexed = head.version == Version::HTTP_2;
        let body_len = http_body::Body::size_hint(&incoming).exact();
        let (upload, flow) = Upload::new(incoming, self.draining.clone(), exchange.body_bytes_in());
        let handed = MountRequest {
            head,
            body: Box::pin(upload),
            body_len,
            request_id: exchange.request_id().clone(),
            local_port: connection.arrival.local_port,
        };
        let answered = AssertUnwindSafe(mount.answer(handed)).catch_unwind().await;
        // A client that still waits for `100 Continue` sends nothing; any other gets to send what nobody reads.
        let still_waits = expects_continue && !flow.was_asked();
        if !still_waits {
            flow.discard();
        }
        let Ok(answer) = answered else {
            exchange.panicked();
            let error = internal_failure();
            exchange.error(&error);
            let reply = wire::render_unrouted_error(&error, wire::Protocol::RestJson, exchange.request_id());
            return self.respond(reply, None, exchange);
        };
        let MountAnswer {
            response,
            name: (service, operation),
            account,
            error,
        } = answer;
        exchange.name(service, operation);
        if let Some(account) = account {
            exchange.account(account);
        }
        if let Some(error) = error {
            exchange.error_text(error);
        }
        exchange.head(response.status().as_u16());
        let (mut parts, body) = response.into_parts();
        set(&mut parts.headers, header::DATE, &http_date(self.clock.now()));
        for name in REQUEST_ID_HEADERS {
            set(&mut parts.headers, HeaderName::from_static(name), exchange.request_id());
        }
        // Its connection ends with the answer, since nobody knows whether the body follows: the client is not to use it again.
        if still_waits && !multiplexed {
            set(&mut parts.headers, header::CONNECTION, "close");
        }
        let body = match body {
            MountBody::Bytes(bytes) => AnswerBody::bytes(bytes, exchange),
            MountBody::Stream(stream) => AnswerBody::stream(stream, Some(stop), exchange),
        };
        Response::from_parts(parts, body)
    }
}
