//! Signalling channels as resources: made, described, listed, changed and deleted. It refuses to know who talks over
//! them; their endpoints are this server's own address.

pub(crate) mod record;

use base::{ApiError, Handle, Reply, Request, RequestContext, Timestamp};
use wire::kinesisvideo::{
    ChannelInfo, ChannelProtocol, ChannelType, CreateSignalingChannelInput, CreateSignalingChannelOutput,
    DeleteSignalingChannelInput, DeleteSignalingChannelOutput, DescribeSignalingChannelInput,
    DescribeSignalingChannelOutput, GetSignalingChannelEndpointInput, GetSignalingChannelEndpointOutput,
    ListSignalingChannelsInput, ListSignalingChannelsOutput, ResourceEndpointListItem, SingleMasterConfiguration,
    Status, UpdateSignalingChannelInput, UpdateSignalingChannelOutput, op,
};

use self::record::{ChannelArn, ChannelRecord, Topology};
use super::{check_version, list, tags};
use crate::VideoStreams;
use crate::error::ControlError;
use crate::limits;
use crate::service::{Inner, owner};
use crate::token;

/// The channel that a request means by its name or its ARN.
pub(super) async fn resolve(
    inner: &Inner,
    context: &RequestContext,
    name: Option<&str>,
    arn: Option<&str>,
) -> Result<(ChannelArn, ChannelRecord), ControlError> {
    let owner = owner(context);
    let Some(arn) = arn else {
        let name = name.ok_or_else(|| invalid("Either ChannelName or ChannelARN must be given."))?;
        let found = inner.channels.by_name(&owner.named(name)).await?;
        return found.ok_or(ControlError::ChannelNotFound);
    };
    let wanted =
        ChannelArn::parse(arn).filter(|arn| arn.name.region == owner.region && arn.name.account == owner.account);
    let wanted = wanted.ok_or(ControlError::ChannelNotFound)?;
    let found = inner.channels.by_name(&wanted.name).await?;
    let found = found.filter(|(arn, _)| *arn == wanted);
    let found = found.ok_or(ControlError::ChannelNotFound)?;
    if name.is_some_and(|name| name != wanted.name.name) {
        return Err(invalid("ChannelName and ChannelARN mean different channels."));
    }
    Ok(found)
}

fn invalid(why: &str) -> ControlError {
    ControlError::InvalidArgument(why.to_owned())
}

fn describe(arn: &ChannelArn, record: &ChannelRecord) -> ChannelInfo {
    let (channel_type, single_master_configuration) = match record.topology {
        Topology::SingleMaster { message_ttl_seconds } => (
            ChannelType::SingleMaster,
            Some(SingleMasterConfiguration {
                message_ttl_seconds: Some(message_ttl_seconds),
            }),
        ),
        Topology::FullMesh => (ChannelType::FullMesh, None),
    };
    ChannelInfo {
        channel_arn: Some(arn.to_string()),
        channel_name: Some(arn.name.name.clone()),
        channel_status: Some(Status::Active),
        channel_type: Some(channel_type),
        creation_time: Some(Timestamp::from_millis(record.created_ms)),
        single_master_configuration,
        version: Some(record.version.clone()),
    }
}

impl Handle<op::CreateSignalingChannel> for VideoStreams {
    async fn handle(
        &self,
        request: Request<CreateSignalingChannelInput>,
    ) -> Result<Reply<CreateSignalingChannelOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let topology = match (input.channel_type, input.single_master_configuration) {
            (Some(ChannelType::FullMesh), None) => Topology::FullMesh,
            (Some(ChannelType::FullMesh), Some(_)) => return Err(full_mesh_has_no_master().into()),
            (_, configuration) => Topology::SingleMaster {
                message_ttl_seconds: configuration
                    .and_then(|given| given.message_ttl_seconds)
                    .unwrap_or(limits::MESSAGE_TTL_SECONDS_DEFAULT),
            },
        };
        let given = input.tags.unwrap_or_default().into_iter();
        let new_tags = given.map(|tag| (tag.key, tag.value)).collect();
        tags::check_channel(&new_tags)?;
        let name = owner(&request.context).named(&input.channel_name);
        let _changing = inner.changes.lock().await;
        let arn = inner
            .channels
            .create(&name, topology, new_tags, inner.clock.now())
            .await?;
        let channel_arn = Some(arn.to_string());
        Ok(CreateSignalingChannelOutput { channel_arn }.into())
    }
}

fn full_mesh_has_no_master() -> ControlError {
    invalid("A SingleMasterConfiguration or an endpoint configuration belongs to a channel of type SINGLE_MASTER.")
}

impl Handle<op::DescribeSignalingChannel> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DescribeSignalingChannelInput>,
    ) -> Result<Reply<DescribeSignalingChannelOutput>, ApiError> {
        let input = request.input;
        let (name, arn) = (input.channel_name.as_deref(), input.channel_arn.as_deref());
        let (arn, record) = resolve(&self.inner, &request.context, name, arn).await?;
        let channel_info = Some(describe(&arn, &record));
        Ok(DescribeSignalingChannelOutput { channel_info }.into())
    }
}

impl Handle<op::UpdateSignalingChannel> for VideoStreams {
    async fn handle(
        &self,
        request: Request<UpdateSignalingChannelInput>,
    ) -> Result<Reply<UpdateSignalingChannelOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (arn, _) = resolve(inner, &request.context, None, Some(&input.channel_arn)).await?;
        let change = |record: &mut ChannelRecord| {
            check_version(&record.version, Some(&input.current_version))?;
            match (&mut record.topology, &input.single_master_configuration) {
                (_, None) => {}
                (Topology::FullMesh, Some(_)) => return Err(full_mesh_has_no_master()),
                (Topology::SingleMaster { message_ttl_seconds }, Some(given)) => {
                    *message_ttl_seconds = given.message_ttl_seconds.unwrap_or(*message_ttl_seconds);
                }
            }
            Ok(())
        };
        inner.channels.update(&arn, change).await?;
        Ok(UpdateSignalingChannelOutput {}.into())
    }
}

impl Handle<op::DeleteSignalingChannel> for VideoStreams {
    async fn handle(
        &self,
        request: Request<DeleteSignalingChannelInput>,
    ) -> Result<Reply<DeleteSignalingChannelOutput>, ApiError> {
        let (inner, input) = (&self.inner, request.input);
        let (arn, _) = resolve(inner, &request.context, None, Some(&input.channel_arn)).await?;
        let given = input.current_version.as_ref();
        let check = |record: &ChannelRecord| check_version(&record.version, given);
        inner.channels.delete(&arn, check).await?;
        Ok(DeleteSignalingChannelOutput {}.into())
    }
}

impl Handle<op::ListSignalingChannels> for VideoStreams {
    async fn handle(
        &self,
        request: Request<ListSignalingChannelsInput>,
    ) -> Result<Reply<ListSignalingChannelsOutput>, ApiError> {
        let input = request.input;
        let limit = list::limit(input.max_results, limits::LIST_CHANNELS_MAX);
        let prefix = input
            .channel_name_condition
            .and_then(|condition| condition.comparison_value)
            .unwrap_or_default();
        let after = list::after(input.next_token.as_deref())?;
        let owner = owner(&request.context);
        let channels = &self.inner.channels;
        let page = channels.page(&owner, &prefix, after.as_deref(), limit);
        let (page, more) = page.await?;
        let last = page.last().filter(|_| more);
        Ok(ListSignalingChannelsOutput {
            next_token: last.map(|(arn, _)| token::encode(&arn.name.name)),
            channel_info_list: Some(page.iter().map(|(arn, record)| describe(arn, record)).collect()),
        }
        .into())
    }
}

impl Handle<op::GetSignalingChannelEndpoint> for VideoStreams {
    async fn handle(
        &self,
        request: Request<GetSignalingChannelEndpointInput>,
    ) -> Result<Reply<GetSignalingChannelEndpointOutput>, ApiError> {
        let input = request.input;
        let (_, record) = resolve(&self.inner, &request.context, None, Some(&input.channel_arn)).await?;
        let configuration = input.single_master_channel_endpoint_configuration;
        if configuration.is_some() && record.topology == Topology::FullMesh {
            return Err(full_mesh_has_no_master().into());
        }
        // Both roles are served by the same address.
        let mut protocols = configuration
            .and_then(|given| given.protocols)
            .unwrap_or_else(|| vec![ChannelProtocol::Wss, ChannelProtocol::Https]);
        let mut seen = Vec::new();
        protocols.retain(|protocol| {
            let first = !seen.contains(protocol);
            seen.push(*protocol);
            first
        });
        if protocols.contains(&ChannelProtocol::Webrtc) && record.stored_in.is_none() {
            return Err(invalid("The channel stores no media, so that it has no WEBRTC endpoint.").into());
        }
        let base = &*request.context.base_url;
        let endpoints = protocols.into_iter().map(|protocol| ResourceEndpointListItem {
            resource_endpoint: Some(match protocol {
                ChannelProtocol::Wss => base.replacen("http", "ws", 1),
                ChannelProtocol::Https | ChannelProtocol::Webrtc => base.to_owned(),
            }),
            protocol: Some(protocol),
        });
        let resource_endpoint_list = Some(endpoints.collect());
        Ok(GetSignalingChannelEndpointOutput { resource_endpoint_list }.into())
    }
}
