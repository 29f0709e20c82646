//! Whose key signs, and where the next key comes from when this one expires.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use auth::Credentials;
use base::Timestamp;
use tokio::sync::Mutex;

use crate::error::ClientError;
use crate::limits::RENEW_BEFORE_EXPIRY;

/// Credentials and how long they may be used.
#[derive(Clone, Debug)]
pub struct ProvidedCredentials {
    /// The key, its secret and, where they are temporary, the session token.
    pub credentials: Credentials,
    /// When they stop being accepted; `None` when they do not.
    pub expires: Option<Timestamp>,
}

/// Why no credentials could be had.
pub type CredentialsError = Box<dyn std::error::Error + Send + Sync>;

/// Where credentials come from: a fixed key, STS, an instance's metadata service, a device's certificate.
///
/// A [`Client`](crate::Client) asks once, keeps the answer, and asks again some minutes before it expires (a fifth of the
/// life of short-lived ones). A [`Producer`](crate::producer::Producer) then also moves to a connection that is signed
/// with the new ones, before the server ends the old one.
#[async_trait]
pub trait ProvideCredentials: Send + Sync + 'static {
    /// Credentials to sign with from now on.
    ///
    /// # Errors
    /// They cannot be had now. Earlier ones are used on while they last.
    async fn provide(&self) -> Result<ProvidedCredentials, CredentialsError>;
}

/// A key that does not expire.
#[async_trait]
impl ProvideCredentials for Credentials {
    async fn provide(&self) -> Result<ProvidedCredentials, CredentialsError> {
        Ok(ProvidedCredentials {
            credentials: self.clone(),
            expires: None,
        })
    }
}

/// What a provider said last, shared by the clones of a client.
pub(crate) struct CredentialsCache {
    provider: Arc<dyn ProvideCredentials>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    provided: ProvidedCredentials,
    /// When the provider is asked again.
    renew: Option<Timestamp>,
}

impl CredentialsCache {
    pub fn new(provider: Arc<dyn ProvideCredentials>) -> Self {
        CredentialsCache {
            provider,
            kept: Mutex::new(None),
        }
    }

    /// Credentials for a signature made now.
    pub async fn get(&self, now: Timestamp) -> Result<Credentials, ClientError> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref()
            && kept.renew.is_none_or(|renew| now < renew)
        {
            return Ok(kept.provided.credentials.clone());
        }
        match self.provider.provide().await {
            Ok(provided) => {
                let renew = provided.expires.map(|expires| renew_at(now, expires));
                let credentials = provided.credentials.clone();
                *kept = Some(Kept { provided, renew });
                Ok(credentials)
            }
            Err(error) => match kept.as_ref() {
                Some(kept) if kept.provided.expires.is_none_or(|expires| now < expires) => {
                    tracing::warn!(%error, "no new credentials; the old ones are used on");
                    Ok(kept.provided.credentials.clone())
                }
                _ => Err(ClientError::Credentials(error)),
            },
        }
    }

    /// How long until the kept credentials are to be renewed; `None` when they never are.
    pub async fn renew_in(&self, now: Timestamp) -> Option<Duration> {
        let renew = self.kept.lock().await.as_ref()?.renew?;
        Some(Duration::from_millis(
            u64::try_from(renew.millis_since(now)).unwrap_or(0),
        ))
    }

    /// The server refused what was kept.
    pub async fn forget(&self) {
        *self.kept.lock().await = None;
    }
}

fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life_ms = expires.millis_since(now).max(0);
    let before_ms = i64::try_from(RENEW_BEFORE_EXPIRY.as_millis()).unwrap_or(i64::MAX);
    expires.plus_millis(-before_ms.min(life_ms / 5))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use auth::Secret;

    use super::*;

    /// Gives keys that live for a minute; fails from the third on.
    struct Rotating(AtomicI64);

    #[async_trait]
    impl ProvideCredentials for Rotating {
        async fn provide(&self) -> Result<ProvidedCredentials, CredentialsError> {
            let count = self.0.fetch_add(1, Ordering::SeqCst);
            if count > 1 {
                return Err("the token service is away".into());
            }
            let credentials = Credentials {
                access_key_id: format!("key-{count}"),
                secret: Secret::new("s"),
                session_token: None,
            };
            let expires = Some(Timestamp::from_millis((count + 1) * 60_000));
            Ok(ProvidedCredentials { credentials, expires })
        }
    }

    #[tokio::test]
    async fn credentials_are_renewed_before_they_expire_and_used_to_their_end() {
        let cache = CredentialsCache::new(Arc::new(Rotating(AtomicI64::new(0))));
        let at = |ms| Timestamp::from_millis(ms);
        assert_eq!(cache.get(at(0)).await.unwrap().access_key_id, "key-0");
        assert_eq!(cache.renew_in(at(0)).await, Some(Duration::from_secs(48)));
        assert_eq!(cache.get(at(47_999)).await.unwrap().access_key_id, "key-0");
        assert_eq!(cache.get(at(48_000)).await.unwrap().access_key_id, "key-1");
        // The provider fails from here on.
        assert_eq!(cache.get(at(119_000)).await.unwrap().access_key_id, "key-1");
        assert!(matches!(cache.get(at(120_000)).await, Err(ClientError::Credentials(_))));
    }
}
