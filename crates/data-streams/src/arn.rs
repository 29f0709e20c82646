//! Names and ARNs of streams, and the ids of shards.

use base::ResourceName;
use storage::ShardId;

/// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`
pub fn stream_arn(name: &ResourceName) -> String {
    let ResourceName { account, region, name } = name;
    format!("arn:aws:kinesis:{region}:{account}:stream/{name}")
}

/// The stream that an ARN names; `None` if it is not the ARN of a data stream.
pub fn parse_stream_arn(arn: &str) -> Option<ResourceName> {
    let mut parts = arn.splitn(6, ':');
    let head = parts.next() == Some("arn") && parts.next()?.starts_with("aws") && parts.next() == Some("kinesis");
    let (region, account) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let name = parts.next()?.strip_prefix("stream/")?.to_owned();
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let named = (1..=128).contains(&name.len()) && name.bytes().all(legal);
    (head && named).then_some(ResourceName { account, region, name })
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
}
