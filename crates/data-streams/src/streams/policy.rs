//! Resource policies: who else may use a stream, a consumer or a queue.

use auth::ResourcePolicy;
use base::{ApiError, Handle, Reply, Request};
use wire::kinesis::{self, op};

use crate::error::invalid;
use crate::service::DataStreams;

impl Handle<op::PutResourcePolicy> for DataStreams {
    async fn handle(&self, request: Request<kinesis::PutResourcePolicyInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let target = self.target::<op::PutResourcePolicy>(&request.context.caller, &input.resource_arn)?;
        ResourcePolicy::parse(&input.policy).map_err(|e| invalid(format!("The policy cannot be used: {e}")))?;
        let stream = target.stream.clone();
        self.change(&stream, move |record| {
            *target.policy_mut(record)? = Some(input.policy);
            Ok(())
        })
        .await?;
        Ok(().into())
    }
}

impl Handle<op::GetResourcePolicy> for DataStreams {
    async fn handle(
        &self,
        request: Request<kinesis::GetResourcePolicyInput>,
    ) -> Result<Reply<kinesis::GetResourcePolicyOutput>, ApiError> {
        let arn = &request.input.resource_arn;
        let target = self.target::<op::GetResourcePolicy>(&request.context.caller, arn)?;
        let policy = target.policy().map(str::to_owned);
        Ok(kinesis::GetResourcePolicyOutput {
            policy: policy.unwrap_or_else(|| "{}".to_owned()),
        }
        .into())
    }
}

impl Handle<op::DeleteResourcePolicy> for DataStreams {
    async fn handle(&self, request: Request<kinesis::DeleteResourcePolicyInput>) -> Result<Reply<()>, ApiError> {
        let arn = request.input.resource_arn;
        let target = self.target::<op::DeleteResourcePolicy>(&request.context.caller, &arn)?;
        let stream = target.stream.clone();
        self.change(&stream, move |record| match target.policy_mut(record)?.take() {
            Some(_) => Ok(()),
            None => Err(ApiError::client(
                "ResourceNotFoundException",
                format!("No resource policy found for resource ARN {arn}"),
            )),
        })
        .await?;
        Ok(().into())
    }
}
