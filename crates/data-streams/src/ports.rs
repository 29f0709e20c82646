//! What another room hangs on streams, as far as this room must know of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base::{AccountId, ApiError, Caller, Region, ResourceName};

/// Tags by their keys.
pub type Tags = BTreeMap<String, String>;

/// A change of tags, which may be refused.
pub type TagChange = Box<dyn FnOnce(&mut Tags) -> Result<(), ApiError> + Send>;

/// The channels of streams. A stream that has some is not deleted, and they have tags by the operations for ARNs.
#[async_trait]
pub trait Channels: Send + Sync + 'static {
    /// How many channels a stream has. A new one is counted before the stream's [`Pinned`](crate::Pinned) is dropped.
    fn of_stream(&self, stream: &ResourceName) -> usize;

    /// How many channels an account has in a region, and how many it may have.
    fn of_account(&self, account: AccountId, region: &Region) -> (usize, usize);

    /// The tags of the channel of an ARN.
    fn tags(&self, caller: &Caller, arn: &str) -> Result<Tags, ApiError>;

    /// Changes them.
    async fn change_tags(&self, caller: &Caller, arn: &str, change: TagChange) -> Result<(), ApiError>;
}

/// Whether an ARN is that of a channel.
pub fn is_channel(arn: &str) -> bool {
    let resource = arn.splitn(6, ':').nth(5);
    resource.is_some_and(|resource| resource.starts_with("channel/"))
}
