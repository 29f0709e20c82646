//! The three STS operations as plain functions: GetCallerIdentity, GetSessionToken and AssumeRole. Credentials they give
//! are stateless: everything about them is sealed in their session token, and they die with the key that made them.

use std::sync::Arc;

use base::{AccountId, ApiError, Caller, Clock, Timestamp};

use crate::keys::{Credentials, Grant, KeyError, KeyStore};
use crate::limits::{ROLE_SECONDS, SESSION_POLICIES_MAX, SESSION_POLICY_BYTES_MAX, SESSION_SECONDS};
use crate::policy::{Policy, access_denied};

/// A role's ARN that is well formed: `arn:aws:iam::ACCOUNT:role/[PATH/]NAME`. The role itself is not known to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleArn {
    /// The account in the ARN.
    pub account: AccountId,
    /// The last part of the path.
    pub name: String,
}

/// The text is not a role's ARN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the ARN of a role (arn:aws:iam::ACCOUNT:role/NAME)")]
pub struct InvalidRoleArn(pub String);

impl std::str::FromStr for RoleArn {
    type Err = InvalidRoleArn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let rest = text.strip_prefix("arn:")?;
            let (partition, rest) = rest.split_once(":iam::")?;
            let (account, path) = rest.split_once(":role/")?;
            let name = path.rsplit('/').next()?;
            let partition_ok = !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            let path_ok = path.len() <= 576 && path.bytes().all(|b| b.is_ascii_graphic() && b != b':');
            let name_ok = (1..=64).contains(&name.len()) && name.bytes().all(is_name_byte);
            (partition_ok && path_ok && name_ok).then_some(RoleArn {
                account: account.parse().ok()?,
                name: name.to_owned(),
            })
        };
        parse().ok_or_else(|| InvalidRoleArn(text.to_owned()))
    }
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b)
}

/// GetCallerIdentity's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The account id for root, else the access key id, with the session's name after a colon for a role.
    pub user_id: String,
    /// The account.
    pub account: AccountId,
    /// The caller's ARN.
    pub arn: String,
}

/// Temporary credentials and when they end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryCredentials {
    /// Key, secret and token.
    pub credentials: Credentials,
    /// When they end.
    pub expiration: Timestamp,
}

/// AssumeRole's input, as far as it counts here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssumeRole {
    /// A well-formed role ARN of the caller's account.
    pub role_arn: String,
    /// 2 to 64 characters of `[A-Za-z0-9_+=,.@-]`.
    pub role_session_name: String,
    /// A session policy; the caller's own permissions are cut down to it.
    pub policy: Option<String>,
    /// 900 to 43,200; default 3,600.
    pub duration_seconds: Option<i64>,
}

/// AssumeRole's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedRole {
    /// The new credentials.
    pub credentials: TemporaryCredentials,
    /// `ROLE-ID:SESSION-NAME`.
    pub assumed_role_id: String,
    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub arn: String,
    /// Percent of the allowed policy size that the session policies take.
    pub packed_policy_percent: i64,
}

/// The operations.
pub struct Sts {
    keys: Arc<KeyStore>,
    clock: Arc<dyn Clock>,
}

fn validation(message: String) -> ApiError {
    ApiError::client("ValidationError", message).with_status(400)
}

fn duration(asked: Option<i64>, (least, most, default): (i64, i64, i64)) -> Result<i64, ApiError> {
    let seconds = asked.unwrap_or(default);
    if (least..=most).contains(&seconds) {
        return Ok(seconds);
    }
    Err(validation(format!(
        "DurationSeconds {seconds} is not between {least} and {most}"
    )))
}

fn failure(error: &KeyError) -> ApiError {
    ApiError::server("InternalFailure", "The credentials could not be made.", error)
}

fn grant_of(caller: &Caller) -> Result<&Grant, ApiError> {
    let any = caller.authorizer.as_any().and_then(|any| any.downcast_ref());
    any.ok_or_else(|| {
        ApiError::client(
            "AccessDenied",
            "This caller has no access key to derive a session from.",
        )
        .with_status(403)
    })
}

impl Sts {
    /// STS over a key store.
    pub fn new(keys: Arc<KeyStore>, clock: Arc<dyn Clock>) -> Self {
        Sts { keys, clock }
    }

    /// Who the caller is. AWS needs no permission for it.
    pub fn get_caller_identity(&self, caller: &Caller) -> CallerIdentity {
        let arn = caller.principal_arn.to_string();
        let user_id = match arn.rsplit_once('/') {
            None => caller.account.to_string(),
            Some((role, session)) if role.contains(":assumed-role/") => format!("{}:{session}", caller.access_key_id),
            Some(_) => caller.access_key_id.to_string(),
        };
        CallerIdentity {
            user_id,
            account: caller.account,
            arn,
        }
    }

    /// Temporary credentials with the caller's own permissions. As on AWS, not from temporary credentials.
    pub fn get_session_token(
        &self,
        caller: &Caller,
        duration_seconds: Option<i64>,
    ) -> Result<TemporaryCredentials, ApiError> {
        let grant = grant_of(caller)?;
        if grant.temporary {
            let text = "Cannot call GetSessionToken with session credentials";
            return Err(ApiError::client("AccessDenied", text).with_status(403));
        }
        let seconds = duration(duration_seconds, SESSION_SECONDS)?;
        self.issue(grant, &caller.principal_arn, None, seconds)
    }

    /// Temporary credentials under a role's name: the caller's permissions, cut down to the session policy if one is given.
    pub fn assume_role(&self, caller: &Caller, input: &AssumeRole) -> Result<AssumedRole, ApiError> {
        let grant = grant_of(caller)?;
        let role: RoleArn = input
            .role_arn
            .parse()
            .map_err(|e: InvalidRoleArn| validation(e.to_string()))?;
        let name = &input.role_session_name;
        if !(2..=64).contains(&name.len()) || !name.bytes().all(is_name_byte) {
            let rule = "2 to 64 characters of letters, digits and _+=,.@-";
            return Err(validation(format!("RoleSessionName {name:?} is not {rule}")));
        }
        if role.account != caller.account {
            let denied = access_denied(caller, "sts:AssumeRole", &input.role_arn);
            return Err(ApiError {
                code: "AccessDenied".into(),
                ..denied
            }
            .with_status(403));
        }
        let seconds = duration(input.duration_seconds, ROLE_SECONDS)?;
        let policy = input.policy.as_deref().map(session_policy).transpose()?;
        if grant.session.len() + usize::from(policy.is_some()) > SESSION_POLICIES_MAX {
            let text = format!("at most {SESSION_POLICIES_MAX} session policies may be laid over each other");
            return Err(ApiError::client("PackedPolicyTooLarge", text).with_status(400));
        }
        let arn = format!("arn:aws:sts::{}:assumed-role/{}/{name}", caller.account, role.name);
        let credentials = self.issue(grant, &arn, policy.as_ref(), seconds)?;
        let laid: usize = grant.session.iter().chain(&policy).map(|p| p.text().len()).sum();
        let room = SESSION_POLICY_BYTES_MAX * SESSION_POLICIES_MAX;
        Ok(AssumedRole {
            assumed_role_id: format!("{}:{name}", credentials.credentials.access_key_id),
            credentials,
            arn,
            packed_policy_percent: i64::try_from((laid * 100).div_ceil(room)).unwrap_or(100),
        })
    }

    fn issue(
        &self,
        grant: &Grant,
        principal: &str,
        policy: Option<&Arc<Policy>>,
        seconds: i64,
    ) -> Result<TemporaryCredentials, ApiError> {
        // Whole seconds, because that is what the answer shows.
        let now = self.clock.now().millis().div_euclid(1000) * 1000;
        let expiration = Timestamp::from_millis(now).plus_millis(seconds * 1000);
        let credentials = self.keys.open_session(grant, principal, policy, expiration);
        Ok(TemporaryCredentials {
            credentials: credentials.map_err(|e| failure(&e))?,
            expiration,
        })
    }
}

fn session_policy(text: &str) -> Result<Arc<Policy>, ApiError> {
    if text.len() > SESSION_POLICY_BYTES_MAX {
        return Err(validation(format!(
            "Policy has {} bytes, at most {SESSION_POLICY_BYTES_MAX}",
            text.len()
        )));
    }
    let parsed = Policy::parse(text);
    let malformed = |e: crate::PolicyError| ApiError::client("MalformedPolicyDocument", e.to_string()).with_status(400);
    parsed.map(Arc::new).map_err(malformed)
}
