//! Resource policies: who else may use a stream or a consumer.

use auth::ResourcePolicy;
use base::{ApiError, Handle, Reply, Request};
use wire::kinesis::{self, op};

use crate::error::invalid;
use crate::service::DataStreams;
use crate::stored::StreamRecord;
use crate::target::{Target, consumer_mut};

fn policy_of<'a>(record: &'a mut StreamRecord, target: &Target) -> Result<&'a mut Option<String>, ApiError> {
    match &target.consumer {
        None => Ok(&mut record.policy),
        Some(consumer) => consumer_mut(record, consumer, target.stream.name.account).map(|c| &mut c.policy),
    }
}

impl Handle<op::PutResourcePolicy> for DataStreams {
    async fn handle(&self, request: Request<kinesis::PutResourcePolicyInput>) -> Result<Reply<()>, ApiError> {
        let input = request.input;
        let target = self.target::<op::PutResourcePolicy>(&request.context.caller, &input.resource_arn)?;
        ResourcePolicy::parse(&input.policy).map_err(|e| invalid(format!("The policy cannot be used: {e}")))?;
        let stream = target.stream.clone();
        self.change(&stream, move |record| {
            *policy_of(record, &target)? = Some(input.policy);
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
        let policy = match target.consumer_record() {
            Some(consumer) => consumer.policy.clone(),
            None => target.stream.record.policy.clone(),
        };
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
        self.change(&stream, move |record| match policy_of(record, &target)?.take() {
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
