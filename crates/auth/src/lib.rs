//! Who asks, and what they may do: SigV4 (verifying and signing), access keys, policies in IAM's JSON subset, sealed
//! tokens, the key ring and the three STS operations.
//!
//! An `edge` uses it in three steps. [`Authenticator::identify`] reads the head of a request, before its body, and names
//! the key, the account and the service of the signature's scope. [`Claim::verify`] checks the signature against what the
//! body turned out to be and gives a [`base::Caller`]. [`base::Authorizer::allows`] of that caller then answers for one
//! action on one resource.
//!
//! It refuses to know HTTP crates, the services, and how keys are stored: a [`KeyTable`] keeps sealed records for it.

pub mod data_key;
pub mod date;
pub mod error;
pub mod head;
pub mod keyring;
pub mod keys;
pub mod limits;
pub mod policy;
pub mod resource_policy;
pub mod seal;
pub mod sign;
pub mod sigv4;
pub mod sts;

mod canonical;

pub use data_key::DataKey;
pub use error::AuthError;
pub use head::{PayloadHash, RequestHead};
pub use keyring::{KeyRing, KeyRingError};
pub use keys::{Credentials, Grant, KeyError, KeyInfo, KeyStore, KeyTable, KeyTableError, MemoryKeyTable, Secret};
pub use policy::{Policy, PolicyError, access_denied};
pub use resource_policy::{ResourcePolicy, Verdict};
pub use seal::{Form, SealError};
pub use sign::{Scope, payload_hash, presign, sign};
pub use sigv4::{Authenticator, Claim};
pub use sts::Sts;
