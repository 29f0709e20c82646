//! The three STS operations on the wire, carried out by `auth::Sts`. An adapter: `auth` knows no wire, `wire` no keys.

use std::sync::Arc;

use auth::sts::{AssumeRole, TemporaryCredentials};
use base::{ApiError, Handle, Reply, Request};
use wire::sts::{self, op};

/// `auth::Sts` as a service.
pub struct StsService(pub auth::Sts);

/// Registers the operations.
pub fn register(registry: &mut wire::Registry, service: auth::Sts) {
    let service = Arc::new(StsService(service));
    registry.register::<op::GetCallerIdentity, _>(&service);
    registry.register::<op::GetSessionToken, _>(&service);
    registry.register::<op::AssumeRole, _>(&service);
}

fn credentials(temporary: TemporaryCredentials) -> sts::Credentials {
    sts::Credentials {
        access_key_id: temporary.credentials.access_key_id,
        secret_access_key: temporary.credentials.secret.reveal().to_owned(),
        session_token: temporary.credentials.session_token.unwrap_or_default(),
        expiration: temporary.expiration,
    }
}

/// Parameters that would change who is let in are refused, never ignored.
fn unsupported(name: &str) -> ApiError {
    ApiError::client(
        "ValidationError",
        format!("{name} is not supported by this server; leave it out"),
    )
    .with_status(400)
}

impl Handle<op::GetCallerIdentity> for StsService {
    async fn handle(
        &self,
        request: Request<sts::GetCallerIdentityRequest>,
    ) -> Result<Reply<sts::GetCallerIdentityResponse>, ApiError> {
        let identity = self.0.get_caller_identity(&request.context.caller);
        Ok(Reply::from(sts::GetCallerIdentityResponse {
            user_id: Some(identity.user_id),
            account: Some(identity.account.to_string()),
            arn: Some(identity.arn),
        }))
    }
}

impl Handle<op::GetSessionToken> for StsService {
    async fn handle(
        &self,
        request: Request<sts::GetSessionTokenRequest>,
    ) -> Result<Reply<sts::GetSessionTokenResponse>, ApiError> {
        let input = request.input;
        if input.serial_number.is_some() || input.token_code.is_some() {
            return Err(unsupported("SerialNumber (multi-factor authentication)"));
        }
        let issued = self
            .0
            .get_session_token(&request.context.caller, input.duration_seconds.map(i64::from))?;
        let output = sts::GetSessionTokenResponse {
            credentials: Some(credentials(issued)),
            ..Default::default()
        };
        Ok(Reply::from(output))
    }
}

impl Handle<op::AssumeRole> for StsService {
    async fn handle(
        &self,
        request: Request<sts::AssumeRoleRequest>,
    ) -> Result<Reply<sts::AssumeRoleResponse>, ApiError> {
        let input = request.input;
        if input.serial_number.is_some() || input.token_code.is_some() {
            return Err(unsupported("SerialNumber (multi-factor authentication)"));
        }
        if input.policy_arns.is_some_and(|arns| !arns.is_empty()) {
            return Err(unsupported("PolicyArns (managed policies)"));
        }
        let role = AssumeRole {
            role_arn: input.role_arn,
            role_session_name: input.role_session_name,
            policy: input.policy,
            duration_seconds: input.duration_seconds.map(i64::from),
        };
        let assumed = self.0.assume_role(&request.context.caller, &role)?;
        let user = sts::AssumedRoleUser {
            assumed_role_id: assumed.assumed_role_id,
            arn: assumed.arn,
        };
        Ok(Reply::from(sts::AssumeRoleResponse {
            assumed_role_user: Some(user),
            packed_policy_size: i32::try_from(assumed.packed_policy_percent).ok(),
            source_identity: input.source_identity,
            credentials: Some(credentials(assumed.credentials)),
            ..Default::default()
        }))
    }
}
