//! GetDataEndpoint: every operation is served by the address under which the caller reached us.

use base::{ApiError, Handle, Reply, Request};
use wire::kinesisvideo::{GetDataEndpointInput, GetDataEndpointOutput, op};

use super::resolve;
use crate::VideoStreams;

impl Handle<op::GetDataEndpoint> for VideoStreams {
    async fn handle(&self, request: Request<GetDataEndpointInput>) -> Result<Reply<GetDataEndpointOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.stream_name.as_ref(), input.stream_arn.as_ref());
        resolve(&self.inner, &request.context, name, arn)?;
        let data_endpoint = Some(request.context.base_url.to_string());
        Ok(GetDataEndpointOutput { data_endpoint }.into())
    }
}
