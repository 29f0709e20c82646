//! The streams that exist, in memory (the catalog has the truth, see [`crate::records`]), and their ARNs. Names are
//! unique per account and region; an ARN holds the millisecond of creation, so that the ARN of a deleted stream never
//! resolves again, and that of another account's stream looks like one that never was.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;
use std::sync::Arc;

use base::{AccountId, Region, ResourceName};
use parking_lot::RwLock;
use storage::StreamId;

use crate::consumer::StreamRef;
use crate::state::StreamState;

/// The ARN of a stream, `arn:aws:kinesisvideo:REGION:ACCOUNT:stream/NAME/CREATION_MS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamArn {
    /// Owner, region and name.
    pub name: ResourceName,
    /// Milliseconds since the epoch at which the stream was created; unique per account and region.
    pub created_ms: i64,
}

/// The text is not the ARN of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the ARN of a video stream")]
pub struct InvalidStreamArn(pub String);

impl FromStr for StreamArn {
    type Err = InvalidStreamArn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_arn(text, "stream")
            .map(|(name, created_ms)| StreamArn { name, created_ms })
            .ok_or_else(|| InvalidStreamArn(text.chars().take(256).collect()))
    }
}

/// Name and creation of an ARN `arn:aws:kinesisvideo:REGION:ACCOUNT:KIND/NAME/CREATION_MS`; `None` if it is none.
pub(crate) fn parse_arn(text: &str, kind: &str) -> Option<(ResourceName, i64)> {
    let mut parts = text.splitn(6, ':');
    let head = (parts.next()?, parts.next()?, parts.next()?);
    // AWS's partitions (aws, aws-cn, aws-us-gov) are all taken for ours.
    if head.0 != "arn" || !head.1.starts_with("aws") || head.2 != "kinesisvideo" {
        return None;
    }
    let region: Region = parts.next()?.parse().ok()?;
    let account: AccountId = parts.next()?.parse().ok()?;
    let resource = parts.next()?.strip_prefix(kind)?.strip_prefix('/')?;
    let (name, created) = resource.rsplit_once('/')?;
    let digits = !created.is_empty() && created.bytes().all(|b| b.is_ascii_digit());
    let created_ms = created.parse().ok().filter(|_| digits && is_name(name))?;
    let name = name.to_owned();
    Some((ResourceName { account, region, name }, created_ms))
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ResourceName { account, region, name } = &self.name;
        let created = self.created_ms;
        write!(f, "arn:aws:kinesisvideo:{region}:{account}:stream/{name}/{created}")
    }
}

/// True for a legal stream name: 1 to 256 of `a-z A-Z 0-9 _ . -` (service model).
pub fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=256).contains(&text.len()) && text.bytes().all(legal)
}

/// In whose name and where streams are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// The region.
    pub region: Region,
}

impl Owner {
    /// The resource of that name.
    pub fn named(&self, name: &str) -> ResourceName {
        ResourceName {
            account: self.account,
            region: self.region.clone(),
            name: name.to_owned(),
        }
    }
}

/// The streams in memory, by owner, region and name.
#[derive(Debug, Default)]
pub struct Streams {
    by_name: RwLock<BTreeMap<ResourceName, Arc<StreamState>>>,
    by_id: RwLock<HashMap<StreamId, Arc<StreamState>>>,
}

impl Streams {
    /// The stream of that owner, region and name.
    pub fn by_name(&self, name: &ResourceName) -> Option<Arc<StreamState>> {
        self.by_name.read().get(name).cloned()
    }

    /// The stream with that number, whoever asks: session tokens name streams so.
    pub fn by_id(&self, id: StreamId) -> Option<Arc<StreamState>> {
        self.by_id.read().get(&id).cloned()
    }

    /// The stream with that ARN, if it is one of the account and region that ask.
    pub fn by_arn(&self, owner: &Owner, arn: &str) -> Option<Arc<StreamState>> {
        let parsed: StreamArn = arn.parse().ok()?;
        if parsed.name.account != owner.account || parsed.name.region != owner.region {
            return None;
        }
        self.by_name(&parsed.name)
            .filter(|state| state.arn.created_ms == parsed.created_ms)
    }

    /// The stream that is meant by an ARN or a name.
    pub fn find(&self, stream: &StreamRef) -> Option<Arc<StreamState>> {
        let (account, region) = (stream.account, stream.region.clone());
        if stream.stream.starts_with("arn:") {
            return self.by_arn(&Owner { account, region }, &stream.stream);
        }
        let name = stream.stream.clone();
        self.by_name(&ResourceName { account, region, name })
    }

    /// Adds a stream that was made.
    pub fn insert(&self, state: Arc<StreamState>) {
        self.by_id.write().insert(state.id, state.clone());
        self.by_name.write().insert(state.arn.name.clone(), state);
    }

    /// Takes out a stream that was deleted; a younger one of the same name stays.
    pub fn remove(&self, arn: &StreamArn) -> Option<Arc<StreamState>> {
        let mut streams = self.by_name.write();
        let found = streams.get(&arn.name).is_some_and(|state| state.arn == *arn);
        let removed = found.then(|| streams.remove(&arn.name)).flatten();
        if let Some(state) = &removed {
            self.by_id.write().remove(&state.id);
        }
        removed
    }

    /// Streams of one account and region whose names begin with `prefix` and come after `after`, in the order of their
    /// names, at most `limit`; and whether there are more.
    pub fn page(
        &self,
        owner: &Owner,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Arc<StreamState>>, bool) {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(owner.named(after)),
            _ => Bound::Included(owner.named(prefix)),
        };
        let streams = self.by_name.read();
        let mut matching = streams
            .range((start, Bound::Unbounded))
            .take_while(|(name, _)| name.account == owner.account && name.region == owner.region)
            .take_while(|(name, _)| name.name.starts_with(prefix))
            .map(|(_, state)| state.clone());
        let page: Vec<_> = matching.by_ref().take(limit).collect();
        let more = matching.next().is_some();
        (page, more)
    }

    /// How many streams an account has in a region.
    pub fn count(&self, owner: &Owner) -> usize {
        let streams = self.by_name.read();
        let all = streams.range(owner.named("")..);
        all.take_while(|(name, _)| name.account == owner.account && name.region == owner.region)
            .count()
    }

    /// Every stream.
    pub fn all(&self) -> Vec<Arc<StreamState>> {
        self.by_name.read().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_says_owner_region_name_and_creation_and_nothing_else_is_one() {
        let text = "arn:aws:kinesisvideo:us-west-2:123456789012:stream/front.door_1/1795347223436";
        let arn: StreamArn = text.parse().unwrap();
        assert_eq!(arn.to_string(), text);
        assert_eq!(
            (arn.name.name.as_str(), arn.created_ms),
            ("front.door_1", 1_795_347_223_436)
        );
        for bad in [
            "",
            "front",
            "arn:aws:kinesisvideo:us-west-2:123456789012:channel/a/1",
            "arn:aws:kinesisvideo:us-west-2:123456789012:stream/a",
            "arn:aws:kinesisvideo:us-west-2:123456789012:stream/a/",
            "arn:aws:kinesisvideo:us-west-2:123456789012:stream/a/+1",
            "arn:aws:kinesisvideo:us-west-2:123456789012:stream/a b/1",
            "arn:aws:kinesisvideo:us-west-2:123456789012:stream//1",
            "arn:aws:kinesisvideo:us-west-2:12345:stream/a/1",
            "arn:aws:kinesis:us-west-2:123456789012:stream/a/1",
        ] {
            assert!(bad.parse::<StreamArn>().is_err(), "{bad}");
        }
    }
}
