//! Page tokens: sealed like iterators, each good for the operation, the account and the region that it was made for.

use auth::KeyRing;
use auth::seal::Form;
use base::{ApiError, Caller, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::invalid;
use crate::limits::PAGE_TOKEN_LIFE_MS;

/// What a token is bound to.
pub fn context(caller: &Caller) -> String {
    format!("{}/{}", caller.account, caller.region)
}

/// Makes a page token that is good for five minutes. `purpose` keeps the tokens of one operation out of another.
pub fn seal_page<T: Serialize>(
    purpose: &str,
    page: &T,
    ring: &KeyRing,
    caller: &Caller,
    now: Timestamp,
) -> Result<String, ApiError> {
    let failed = |e: &dyn std::fmt::Display| ApiError::server("InternalFailure", "No token could be made.", e);
    let plain = serde_json::to_vec(page).map_err(|e| failed(&e))?;
    let end = Some(now.plus_millis(PAGE_TOKEN_LIFE_MS));
    ring.seal(purpose, &context(caller), end, &plain, Form::Base64)
        .map_err(|e| failed(&e))
}

/// Opens what [`seal_page`] made.
pub fn open_page<T: DeserializeOwned>(
    purpose: &str,
    text: &str,
    ring: &KeyRing,
    caller: &Caller,
    now: Timestamp,
) -> Result<T, ApiError> {
    let plain = ring
        .open(purpose, &context(caller), now, text, Form::Base64)
        .map_err(|e| match e {
            auth::seal::SealError::Expired => {
                ApiError::client("ExpiredNextTokenException", "The NextToken is older than 300 seconds.")
            }
            _ => invalid("NextToken is not valid."),
        })?;
    serde_json::from_slice(&plain).map_err(|_| invalid("NextToken is not valid."))
}
