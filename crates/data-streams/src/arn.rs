//! Names and ARNs of streams and consumers, and the ids of shards.

use base::{AccountId, Region, ResourceName};
use storage::ShardId;

/// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`
pub fn stream_arn(name: &ResourceName) -> String {
    let ResourceName { account, region, name } = name;
    format!("arn:aws:kinesis:{region}:{account}:stream/{name}")
}

/// `STREAM_ARN/consumer/NAME:SECONDS`
pub fn consumer_arn(stream_arn: &str, name: &str, created_s: i64) -> String {
    format!("{stream_arn}/consumer/{name}:{created_s}")
}

/// `arn:aws:kinesis:REGION:ACCOUNT:queue/KEY`, of the account and region of the queue's stream.
pub fn queue_arn(stream: &ResourceName, key: &str) -> String {
    let ResourceName { account, region, .. } = stream;
    format!("arn:aws:kinesis:{region}:{account}:queue/{key}")
}

/// Account, region and, as the name, the key of the queue that an ARN names; `None` if it is not the ARN of a queue.
pub fn parse_queue_arn(arn: &str) -> Option<ResourceName> {
    let (account, region, rest) = parse_head(arn)?;
    let name = rest.strip_prefix("queue/")?;
    legal_name(name).then(|| ResourceName {
        account,
        region,
        name: name.to_owned(),
    })
}

/// A consumer as its ARN names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerName {
    /// Its name.
    pub name: String,
    /// When it was registered, in seconds since the epoch.
    pub created_s: i64,
}

/// What an ARN of this service names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The stream.
    pub stream: ResourceName,
    /// The consumer of the stream, where it is one that is named.
    pub consumer: Option<ConsumerName>,
}

fn legal_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&name.len()) && name.bytes().all(legal)
}

/// The stream or consumer that an ARN names; `None` if it is neither's.
pub fn parse_arn(arn: &str) -> Option<Resource> {
    let (account, region, rest) = parse_head(arn)?;
    let rest = rest.strip_prefix("stream/")?;
    let (name, consumer) = match rest.split_once("/consumer/") {
        None => (rest, None),
        Some((name, consumer)) => (name, Some(parse_consumer(consumer)?)),
    };
    let stream = ResourceName {
        account,
        region,
        name: name.to_owned(),
    };
    legal_name(name).then_some(Resource { stream, consumer })
}

/// Account, region and the rest of an ARN of this service.
fn parse_head(arn: &str) -> Option<(AccountId, Region, &str)> {
    let mut parts = arn.splitn(6, ':');
    let head = parts.next() == Some("arn") && parts.next()?.starts_with("aws") && parts.next() == Some("kinesis");
    let (region, account) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().filter(|_| head).map(|rest| (account, region, rest))
}

fn parse_consumer(text: &str) -> Option<ConsumerName> {
    let (name, seconds) = text.split_once(':')?;
    let digits = seconds.bytes().all(|b| b.is_ascii_digit());
    let created_s = seconds.parse().ok().filter(|_| digits)?;
    legal_name(name).then(|| ConsumerName {
        name: name.to_owned(),
        created_s,
    })
}

/// The stream that an ARN names; `None` if it is not the ARN of a data stream.
pub fn parse_stream_arn(arn: &str) -> Option<ResourceName> {
    parse_arn(arn).filter(|r| r.consumer.is_none()).map(|r| r.stream)
}

/// `shardId-000000000007`
pub fn shard_id_text(shard: ShardId) -> String {
    format!("shardId-{:012}", shard.0)
}

/// The shard that an id names; `None` if no shard can have it.
pub fn parse_shard_id(text: &str) -> Option<ShardId> {
    let digits = text
        .strip_prefix("shardId-")
        .filter(|d| d.len() == 12 && d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().map(ShardId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_and_shard_ids_are_read_back_and_others_refused() {
        let text = "arn:aws:kinesis:us-west-2:000000000000:stream/faces";
        assert_eq!(stream_arn(&parse_stream_arn(text).unwrap()), text);
        for bad in [
            "",
            "faces",
            "arn:aws:kinesisvideo:us-west-2:000000000000:stream/faces/1",
            "arn:aws:kinesis:us-west-2:000000000000:stream/",
            "arn:aws:kinesis:us-west-2:000000000000:stream/a/consumer/b:1",
            "arn:aws:kinesis:us-west-2:0:stream/a",
            "arn:aws:kinesis:us-west-2:000000000000:topic/a",
        ] {
            assert_eq!(parse_stream_arn(bad), None, "{bad}");
        }
        assert_eq!(shard_id_text(ShardId(7)), "shardId-000000000007");
        assert_eq!(parse_shard_id("shardId-000000000007"), Some(ShardId(7)));
        for bad in [
            "",
            "7",
            "shardId-7",
            "shardId-00000000000x",
            "shardId-999999999999",
            "shardId-+00000000007",
        ] {
            assert_eq!(parse_shard_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_consumers_arn_names_its_stream_and_its_second() {
        let stream = "arn:aws:kinesis:us-west-2:000000000000:stream/faces";
        let arn = consumer_arn(stream, "app", 1_767_323_045);
        let named = parse_arn(&arn).unwrap();
        assert_eq!(stream_arn(&named.stream), stream);
        let consumer = named.consumer.unwrap();
        assert_eq!((consumer.name.as_str(), consumer.created_s), ("app", 1_767_323_045));
        for bad in [
            "/consumer/app",
            "/consumer/app:",
            "/consumer/app:x",
            "/consumer/:1",
            "/consumer/a/b:1",
            "/consumer/app:+1",
        ] {
            assert_eq!(parse_arn(&format!("{stream}{bad}")), None, "{bad}");
        }
    }
}
