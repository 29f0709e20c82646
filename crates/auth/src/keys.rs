//! Access keys: the root key, the keys that `sightglass keys` makes, and the identity behind a session token.
//!
//! All keys are held in memory, so that a request waits for no storage; [`KeyStore::refresh`] brings in what another
//! process changed. Secrets rest sealed under the key ring; a SigV4 secret cannot be kept as a hash.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base::{AccountId, Authorizer, Caller, Clock, Region, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::error::AuthError;
use crate::keyring::KeyRing;
use crate::limits::{KEYS_MAX, SECURITY_TOKEN_BYTES_MAX, SESSION_POLICIES_MAX};
use crate::policy::{Policy, PolicyError};
use crate::seal::{Form, SealError};

const KEY_PURPOSE: &str = "access-key";
const SESSION_PURPOSE: &str = "session";

/// A secret access key. Its text appears in no debug output and no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The secret itself: for signing, and for showing it once to the operator who made it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a client signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The access key id, e.g. `AKIA…`; not a secret.
    pub access_key_id: String,
    /// The secret access key.
    pub secret: Secret,
    /// The session token of temporary credentials.
    pub session_token: Option<String>,
}

impl Credentials {
    /// Fresh permanent credentials in AWS's shape: `AKIA` and 16 characters, and a secret of 40.
    pub fn generate() -> Result<Self, KeyError> {
        fresh("AKIA")
    }
}

fn fresh(prefix: &str) -> Result<Credentials, KeyError> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bytes = [0u8; 46];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    let (name, secret) = bytes.split_at(16);
    let letters = name.iter().filter_map(|b| ALPHABET.get(usize::from(b % 32)));
    Ok(Credentials {
        access_key_id: prefix.chars().chain(letters.map(|b| char::from(*b))).collect(),
        secret: Secret(STANDARD.encode(secret)),
        session_token: None,
    })
}

/// Where sealed key records are kept; `storage` implements it over the catalog.
#[async_trait]
pub trait KeyTable: Send + Sync + 'static {
    /// Every record, by access key id.
    async fn all(&self) -> Result<Vec<(String, Bytes)>, KeyTableError>;
    /// Adds a record durably; `Exists` when there is one of that id.
    async fn insert(&self, id: &str, record: Bytes) -> Result<(), KeyTableError>;
    /// Replaces a record durably; `Missing` when there is none of that id.
    async fn replace(&self, id: &str, record: Bytes) -> Result<(), KeyTableError>;
    /// Removes a record durably; `Missing` when there is none of that id.
    async fn remove(&self, id: &str) -> Result<(), KeyTableError>;
}

/// What a key table answers beside success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTableError {
    /// A record of that id exists.
    #[error("an access key of this id exists")]
    Exists,
    /// There is no record of that id.
    #[error("there is no access key of this id")]
    Missing,
    /// The storage is in trouble; the text is for the log.
    #[error("key table: {0}")]
    Storage(String),
}

/// A key table in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryKeyTable(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl KeyTable for MemoryKeyTable {
    async fn all(&self) -> Result<Vec<(String, Bytes)>, KeyTableError> {
        Ok(self.0.lock().clone().into_iter().collect())
    }

    async fn insert(&self, id: &str, record: Bytes) -> Result<(), KeyTableError> {
        let mut table = self.0.lock();
        if table.contains_key(id) {
            return Err(KeyTableError::Exists);
        }
        table.insert(id.to_owned(), record);
        Ok(())
    }

    async fn replace(&self, id: &str, record: Bytes) -> Result<(), KeyTableError> {
        let mut table = self.0.lock();
        *table.get_mut(id).ok_or(KeyTableError::Missing)? = record;
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<(), KeyTableError> {
        self.0.lock().remove(id).map(drop).ok_or(KeyTableError::Missing)
    }
}

/// Why a key could not be made, listed or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The policy is not one of the subset.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The table refused.
    #[error(transparent)]
    Table(#[from] KeyTableError),
    /// Sealing failed.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// No random bytes.
    #[error("the system gave no random bytes")]
    Random,
    /// The root key is not revoked: it is given by configuration or by the data directory.
    #[error("the root key cannot be revoked; change SIGHTGLASS_ACCESS_KEY_ID and SIGHTGLASS_SECRET_ACCESS_KEY instead")]
    Root,
    /// There are as many keys as a server holds.
    #[error("there are {KEYS_MAX} access keys; revoke some first")]
    TooMany,
    /// A stored record could not be read; the text is for the log.
    #[error("access key {id}: {why}")]
    Damaged {
        /// The access key id.
        id: String,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Record {
    account: String,
    secret: Secret,
    created_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    policy: Option<String>,
}

/// What a session token holds, sealed.
#[derive(Serialize, Deserialize)]
struct Session {
    parent: String,
    secret: Secret,
    principal: String,
    policies: Vec<String>,
}

struct Key {
    account: AccountId,
    secret: Secret,
    created: Timestamp,
    policy: Option<Arc<Policy>>,
    root: bool,
}

/// What is told of a key; never its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The access key id.
    pub access_key_id: String,
    /// The account it acts in.
    pub account: AccountId,
    /// When it was made.
    pub created: Timestamp,
    /// The text of its policy; `None` allows everything in its account.
    pub policy: Option<String>,
    /// True for the root key.
    pub root: bool,
}

/// What a caller may do: the policy of the key, and every session policy laid over it.
#[derive(Debug)]
pub struct Grant {
    pub(crate) parent: Arc<str>,
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) session: Vec<Arc<Policy>>,
    pub(crate) temporary: bool,
}

impl Authorizer for Grant {
    fn allows(&self, action: &str, resource: &str) -> bool {
        self.policy
            .iter()
            .chain(&self.session)
            .all(|policy| policy.allows(action, resource))
    }

    fn as_any(&self) -> Option<&dyn std::any::Any> {
        Some(self)
    }
}

/// Who a key id and a session token stand for.
pub(crate) struct Identity {
    pub(crate) secret: Secret,
    pub(crate) account: AccountId,
    pub(crate) principal: Arc<str>,
    pub(crate) grant: Arc<Grant>,
}

/// All access keys of the server.
pub struct KeyStore {
    ring: Arc<KeyRing>,
    table: Arc<dyn KeyTable>,
    clock: Arc<dyn Clock>,
    root_id: String,
    keys: RwLock<HashMap<String, Arc<Key>>>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore")
            .field("root", &self.root_id)
            .finish_non_exhaustive()
    }
}

impl KeyStore {
    /// Opens the store: `root` is the root key, all others come from the table.
    pub async fn open(
        ring: Arc<KeyRing>,
        table: Arc<dyn KeyTable>,
        clock: Arc<dyn Clock>,
        root: Credentials,
        account: AccountId,
    ) -> Result<Self, KeyError> {
        let key = Key {
            account,
            secret: root.secret,
            created: clock.now(),
            policy: None,
            root: true,
        };
        let store = KeyStore {
            ring,
            table,
            clock,
            root_id: root.access_key_id.clone(),
            keys: RwLock::new(HashMap::from([(root.access_key_id, Arc::new(key))])),
        };
        store.refresh().await?;
        Ok(store)
    }

    /// Reads the table anew: keys that another process made or revoked count from then on. A record that cannot be read
    /// is an error, and leaves the keys as they were.
    pub async fn refresh(&self) -> Result<(), KeyError> {
        let mut fresh = HashMap::new();
        for (id, sealed) in self.table.all().await? {
            let key = self.unseal(&id, &sealed)?;
            fresh.insert(id, Arc::new(key));
        }
        let mut keys = self.keys.write();
        if let Some(root) = keys.get(&self.root_id) {
            fresh.insert(self.root_id.clone(), Arc::clone(root));
        }
        *keys = fresh;
        Ok(())
    }

    /// Makes a key of an account; without a policy it may do everything there. The key is on stable storage when this
    /// returns, and its secret is shown nowhere else again.
    pub async fn create(&self, account: AccountId, policy: Option<&str>) -> Result<Credentials, KeyError> {
        let parsed = policy.map(Policy::parse).transpose()?.map(Arc::new);
        if self.keys.read().len() >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let made = Credentials::generate()?;
        let created = self.clock.now();
        let record = Record {
            account: account.to_string(),
            secret: made.secret.clone(),
            created_ms: created.millis(),
            policy: policy.map(str::to_owned),
        };
        let sealed = self.seal(&made.access_key_id, &record)?;
        self.table.insert(&made.access_key_id, sealed).await?;
        let key = Key {
            account,
            secret: made.secret.clone(),
            created,
            policy: parsed,
            root: false,
        };
        self.keys.write().insert(made.access_key_id.clone(), Arc::new(key));
        Ok(made)
    }

    /// Every key, the root key first, then by age.
    pub fn list(&self) -> Vec<KeyInfo> {
        let keys = self.keys.read();
        let mut all: Vec<KeyInfo> = keys
            .iter()
            .map(|(id, key)| KeyInfo {
                access_key_id: id.clone(),
                account: key.account,
                created: key.created,
                policy: key.policy.as_ref().map(|p| p.text().to_owned()),
                root: key.root,
            })
            .collect();
        all.sort_by(|a, b| (!a.root, a.created, &a.access_key_id).cmp(&(!b.root, b.created, &b.access_key_id)));
        all
    }

    /// Revokes a key and every session made with it, from the next request on.
    pub async fn revoke(&self, id: &str) -> Result<(), KeyError> {
        if id == self.root_id {
            return Err(KeyError::Root);
        }
        self.table.remove(id).await?;
        self.keys.write().remove(id);
        Ok(())
    }

    /// Seals every stored record under the newest key of the ring; after it, older keys may be forgotten.
    pub async fn reseal(&self) -> Result<(), KeyError> {
        for (id, sealed) in self.table.all().await? {
            let plain = self.ring.open_bytes(KEY_PURPOSE, &id, self.clock.now(), &sealed)?;
            let sealed = self.ring.seal_bytes(KEY_PURPOSE, &id, None, &plain)?;
            match self.table.replace(&id, sealed.into()).await {
                Err(KeyTableError::Missing) | Ok(()) => {}
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    /// The ring that seals this store's records and tokens.
    pub fn ring(&self) -> &Arc<KeyRing> {
        &self.ring
    }

    /// The root key as a caller: for servers whose operator switched authentication off, and for work of the server's own.
    pub fn root_caller(&self, region: Region) -> Caller {
        let account = self
            .keys
            .read()
            .get(&self.root_id)
            .map_or(AccountId::DEFAULT, |key| key.account);
        Caller {
            account,
            region,
            access_key_id: self.root_id.as_str().into(),
            principal_arn: principal(&self.root_id, account, true),
            authorizer: Arc::new(Grant {
                parent: self.root_id.as_str().into(),
                policy: None,
                session: Vec::new(),
                temporary: false,
            }),
        }
    }

    /// One of the account's keys as a caller, that of the root if it is its own, for work of the server's own in an account.
    /// `None` where the account has no key. It may do what the key may.
    pub fn caller_of(&self, account: AccountId, region: Region) -> Option<Caller> {
        let root = self.root_caller(region.clone());
        if root.account == account {
            return Some(root);
        }
        let mut of_account: Vec<KeyInfo> = self.list().into_iter().filter(|key| key.account == account).collect();
        of_account.sort_by_key(|key| key.policy.is_some());
        let id = of_account.into_iter().next()?.access_key_id;
        let policy = self.keys.read().get(&id)?.policy.clone();
        Some(Caller {
            account,
            region,
            access_key_id: id.as_str().into(),
            principal_arn: principal(&id, account, false),
            authorizer: Arc::new(Grant {
                parent: id.as_str().into(),
                policy,
                session: Vec::new(),
                temporary: false,
            }),
        })
    }

    fn seal(&self, id: &str, record: &Record) -> Result<Bytes, KeyError> {
        let damaged = |e: serde_json::Error| KeyError::Damaged {
            id: id.to_owned(),
            why: e.to_string(),
        };
        let plain = serde_json::to_vec(record).map_err(damaged)?;
        Ok(self.ring.seal_bytes(KEY_PURPOSE, id, None, &plain)?.into())
    }

    fn unseal(&self, id: &str, sealed: &[u8]) -> Result<Key, KeyError> {
        let damaged = |why: String| KeyError::Damaged { id: id.to_owned(), why };
        let plain = self.ring.open_bytes(KEY_PURPOSE, id, self.clock.now(), sealed);
        let plain = plain.map_err(|e| damaged(format!("{e}; is this the key ring it was sealed with?")))?;
        let record: Record = serde_json::from_slice(&plain).map_err(|e| damaged(e.to_string()))?;
        let policy = record.policy.as_deref().map(Policy::parse).transpose()?;
        Ok(Key {
            account: record
                .account
                .parse()
                .map_err(|_| damaged("its account id is malformed".to_owned()))?,
            secret: record.secret,
            created: Timestamp::from_millis(record.created_ms),
            policy: policy.map(Arc::new),
            root: false,
        })
    }

    /// Temporary credentials of the caller, sealed into their own token: nothing is stored.
    pub(crate) fn open_session(
        &self,
        grant: &Grant,
        principal: &str,
        more: Option<&Arc<Policy>>,
        expires: Timestamp,
    ) -> Result<Credentials, KeyError> {
        let mut made = fresh("ASIA")?;
        let session = Session {
            parent: grant.parent.to_string(),
            secret: made.secret.clone(),
            principal: principal.to_owned(),
            policies: grant.session.iter().chain(more).map(|p| p.text().to_owned()).collect(),
        };
        let plain = serde_json::to_vec(&session).map_err(|e| KeyError::Damaged {
            id: made.access_key_id.clone(),
            why: e.to_string(),
        })?;
        let token = self.ring.seal(
            SESSION_PURPOSE,
            &made.access_key_id,
            Some(expires),
            &plain,
            Form::Base64,
        )?;
        made.session_token = Some(token);
        Ok(made)
    }

    /// Who signs with a permanent key, not proven, and the secret to prove it with: for a signature that is found only in
    /// the body (S3's forms).
    pub fn unproven(&self, id: &str, region: Region) -> Result<(Caller, Secret), AuthError> {
        let identity = self.resolve(id, None, self.clock.now())?;
        let caller = Caller {
            account: identity.account,
            region,
            access_key_id: id.into(),
            principal_arn: identity.principal,
            authorizer: identity.grant,
        };
        Ok((caller, identity.secret))
    }

    /// Who the key id, with its session token if any, stands for at this moment.
    pub(crate) fn resolve(&self, id: &str, token: Option<&str>, now: Timestamp) -> Result<Identity, AuthError> {
        let Some(token) = token else {
            let key = self.keys.read().get(id).cloned().ok_or(AuthError::UnknownKey)?;
            return Ok(Identity {
                secret: key.secret.clone(),
                account: key.account,
                principal: principal(id, key.account, key.root),
                grant: Arc::new(Grant {
                    parent: id.into(),
                    policy: key.policy.clone(),
                    session: Vec::new(),
                    temporary: false,
                }),
            });
        };
        if token.len() > SECURITY_TOKEN_BYTES_MAX {
            return Err(AuthError::UnknownKey);
        }
        let plain = self
            .ring
            .open(SESSION_PURPOSE, id, now, token, Form::Base64)
            .map_err(|e| match e {
                SealError::Expired => AuthError::ExpiredToken,
                _ => AuthError::UnknownKey,
            })?;
        let session: Session = serde_json::from_slice(&plain).map_err(|_| AuthError::UnknownKey)?;
        let key = self
            .keys
            .read()
            .get(&session.parent)
            .cloned()
            .ok_or(AuthError::UnknownKey)?;
        let laid: Result<Vec<_>, _> = session
            .policies
            .iter()
            .map(|text| Policy::parse(text).map(Arc::new))
            .collect();
        let laid = laid
            .ok()
            .filter(|laid| laid.len() <= SESSION_POLICIES_MAX)
            .ok_or(AuthError::UnknownKey)?;
        Ok(Identity {
            secret: session.secret,
            account: key.account,
            principal: session.principal.into(),
            grant: Arc::new(Grant {
                parent: session.parent.into(),
                policy: key.policy.clone(),
                session: laid,
                temporary: true,
            }),
        })
    }
}

fn principal(id: &str, account: AccountId, root: bool) -> Arc<str> {
    if root {
        return format!("arn:aws:iam::{account}:root").into();
    }
    format!("arn:aws:iam::{account}:user/{id}").into()
}
