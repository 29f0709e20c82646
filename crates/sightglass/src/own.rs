//! The server as a client of itself: where it reaches its own port, and with what its own work signs. That work goes the
//! road of everybody's requests, with the same checks of rights: a session of a key of the account's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use analytics::ports::{Access, Session};
use auth::{Credentials, KeyStore, Sts};
use base::{AccountId, Clock, Region};

/// How long a session's credentials last.
const SESSION_SECONDS: i64 = 36 * 3600;

/// Where the server reaches itself: by plain HTTP, which shares the port with TLS.
pub fn endpoint(listens: SocketAddr) -> String {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, listens.port()))
}

/// Credentials of a session of the account's own key, for a day and a half.
pub fn session(
    keys: &Arc<KeyStore>,
    clock: &Arc<dyn Clock>,
    account: AccountId,
    region: &Region,
) -> Result<Credentials, String> {
    let caller = keys.caller_of(account, region.clone());
    let caller = caller.ok_or_else(|| format!("account {account} has no key to sign with"))?;
    let sts = Sts::new(Arc::clone(keys), Arc::clone(clock));
    let session = sts.get_session_token(&caller, Some(SESSION_SECONDS));
    let session = session.map_err(|error| format!("no session to sign with: {error:?}"))?;
    Ok(session.credentials)
}

/// Gives applications their sessions, once the server listens.
pub struct OwnAccess {
    keys: Arc<KeyStore>,
    clock: Arc<dyn Clock>,
    endpoint: OnceLock<String>,
}

impl OwnAccess {
    /// Gives none before [`OwnAccess::listens`].
    pub fn new(keys: Arc<KeyStore>, clock: Arc<dyn Clock>) -> Self {
        OwnAccess {
            keys,
            clock,
            endpoint: OnceLock::new(),
        }
    }

    /// The server listens.
    pub fn listens(&self, at: SocketAddr) {
        let _ = self.endpoint.set(endpoint(at));
    }
}

impl Access for OwnAccess {
    fn session(&self, account: AccountId, region: &Region) -> Result<Session, String> {
        let endpoint = self.endpoint.get().cloned().ok_or("the server does not listen yet")?;
        let credentials = session(&self.keys, &self.clock, account, region)?;
        Ok(Session {
            endpoint,
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret.reveal().to_owned(),
            session_token: credentials.session_token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_reaches_itself_wherever_it_listens() {
        for (listens, reached) in [
            ("0.0.0.0:4577", "http://127.0.0.1:4577"),
            ("[::]:80", "http://[::1]:80"),
            ("192.0.2.7:443", "http://192.0.2.7:443"),
        ] {
            assert_eq!(endpoint(listens.parse().unwrap()), reached);
        }
    }
}
