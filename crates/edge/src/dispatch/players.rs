//! The operations of players: a GET whose query string holds a session token that another, signed, call has made. They
//! alone need no signature, and they alone may be called by the pages of any origin (CORS): a player is a program in a
//! page, and the token is all that it is let in by.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use base::{AccountId, ApiError, Authorizer, Caller, Timestamp};
use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use http::request::Parts;
use hyper::Response;
use wire::{Access, Address, RawBody, RawReply, Route};

use super::{Connection, Dispatch, Inbound, call, internal_failure};
use crate::body::AnswerBody;
use crate::exchange::Exchange;

/// Seconds for which a browser may remember a preflight. Chromium caps it at two hours.
const PREFLIGHT_SECONDS: &str = "7200";

/// May do nothing that a policy speaks of.
#[derive(Debug)]
struct Nothing;

impl Authorizer for Nothing {
    fn allows(&self, _action: &str, _resource: &str) -> bool {
        false
    }
}

/// Whoever holds a token: no account, no rights of its own.
fn bearer() -> Result<Caller, ApiError> {
    let region = "none".parse();
    Ok(Caller {
        account: AccountId::DEFAULT,
        region: region.map_err(|error| ApiError::server("InternalFailure", "The request could not be read.", error))?,
        access_key_id: "session-token".into(),
        principal_arn: "session-token".into(),
        authorizer: Arc::new(Nothing),
    })
}

impl Dispatch {
    /// The player's operation that a request means, by its path; its method is GET, or one that goes with it.
    pub(super) fn for_players(&self, parts: &Parts) -> Option<Route> {
        if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method) {
            return None;
        }
        let address = Address {
            method: Method::GET.as_str(),
            path: parts.uri.path(),
            ..Address::default()
        };
        let route = self.registry.resolve(&address).ok()?;
        (route.info().access == Access::SessionToken).then_some(route)
    }

    /// Answers a player.
    pub(super) async fn play(
        &self,
        connection: &Connection,
        parts: &Parts,
        route: &Route,
        received_at: Timestamp,
        mut exchange: Exchange,
    ) -> Response<AnswerBody> {
        exchange.name(route.info().service.name, route.info().name);
        if parts.method == Method::OPTIONS {
            return self.respond(preflight(), None, exchange);
        }
        let request = Inbound {
            connection,
            parts,
            received_at,
        };
        let query = Bytes::from(parts.uri.query().unwrap_or_default().to_owned());
        let played = async {
            let context = self.context(&request, bearer()?, &exchange);
            call(route, context, &parts.headers, RawBody::Bytes(query)).await
        };
        let outcome = match AssertUnwindSafe(played).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_panic) => {
                exchange.panicked();
                Err(internal_failure())
            }
        };
        let (mut reply, stop) = match outcome {
            Ok(reply) => (reply, Some(self.stop_signal(&request))),
            Err(error) => {
                exchange.error(&error);
                (route.render_error(&error, exchange.request_id()), None)
            }
        };
        reply
            .headers
            .push(("access-control-allow-origin".into(), "*".to_owned()));
        reply
            .headers
            .push(("access-control-expose-headers".into(), "*".to_owned()));
        self.respond(reply, stop, exchange)
    }
}

fn preflight() -> RawReply {
    let header = |name: &'static str, value: &str| (name.into(), value.to_owned());
    RawReply {
        status: 204,
        content_type: "text/plain".into(),
        headers: vec![
            header("access-control-allow-origin", "*"),
            header("access-control-allow-methods", "GET, HEAD, OPTIONS"),
            header("access-control-allow-headers", "*, Range, Authorization"),
            header("access-control-max-age", PREFLIGHT_SECONDS),
        ],
        body: RawBody::Bytes(Bytes::new()),
        crowd: None,
    }
}
