//! What a data stream must be after a kill: every record that was acknowledged or seen, in the order of its shard and of
//! its key, under a number that no other record ever had, in shards that follow one another without a gap.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bench::Failure;
use bench::fragment::sha256;
use client::{Client, ClientError, Service};
use serde_json::{Value, json};

use crate::records::{Ledger, STREAMS, Stored};
use crate::text;

/// A shard as ListShards tells it.
#[derive(Clone, Debug)]
pub struct Shard {
    pub id: String,
    pub parents: Vec<String>,
    /// First and last hash key.
    pub from: u128,
    pub to: u128,
    /// First and, of a closed one, last sequence number.
    pub start: u128,
    pub end: Option<u128>,
}

/// All shards of a stream.
pub async fn list_shards(client: &Client, stream: &str) -> Result<Vec<Shard>, Failure> {
    let mut shards = Vec::new();
    let mut input = json!({ "StreamName": stream });
    loop {
        let answer = client.call(Service::Kinesis, "ListShards", &input).await?;
        for shard in answer["Shards"].as_array().ok_or("no Shards")? {
            shards.push(Shard::read(shard)?);
        }
        match answer["NextToken"].as_str() {
            Some(token) => input = json!({ "NextToken": token }),
            None => return Ok(shards),
        }
    }
}

impl Shard {
    fn read(shard: &Value) -> Result<Self, Failure> {
        let (hashes, numbers) = (&shard["HashKeyRange"], &shard["SequenceNumberRange"]);
        let parents = ["ParentShardId", "AdjacentParentShardId"];
        let end = numbers["EndingSequenceNumber"].as_str().map(str::parse).transpose()?;
        Ok(Shard {
            id: text(shard, "ShardId")?,
            parents: parents
                .iter()
                .filter_map(|member| Some(shard[member].as_str()?.to_owned()))
                .collect(),
            from: text(hashes, "StartingHashKey")?.parse()?,
            to: text(hashes, "EndingHashKey")?.parse()?,
            start: text(numbers, "StartingSequenceNumber")?.parse()?,
            end,
        })
    }
}

/// Everything that was read of a stream.
#[derive(Default)]
pub struct World {
    pub stream: usize,
    stored: BTreeMap<u128, Stored>,
    /// By shard: the last number that was read, and whether the shard's end was.
    read: BTreeMap<String, (Option<u128>, bool)>,
    /// By partition key: which of its producer's records came last.
    counts: BTreeMap<String, u64>,
    pub shards: usize,
}

impl World {
    pub fn new(stream: usize) -> Self {
        World {
            stream,
            ..World::default()
        }
    }

    pub fn len(&self) -> usize {
        self.stored.len()
    }

    fn name(&self) -> &'static str {
        STREAMS.get(self.stream).copied().unwrap_or_default()
    }

    /// Reads on from where it was, parents before their children, and looks for what one life of the server promised.
    pub async fn check(&mut self, client: &Client, ledger: &Ledger) -> Result<(), Failure> {
        let name = self.name();
        let shards = list_shards(client, name).await?;
        check_family(&shards).map_err(|wrong| format!("{name}: {wrong}"))?;
        self.shards = shards.len();
        let mut left: Vec<&Shard> = shards.iter().collect();
        while !left.is_empty() {
            let waiting: BTreeSet<&str> = left.iter().map(|shard| shard.id.as_str()).collect();
            let ready = |shard: &&Shard| !shard.parents.iter().any(|parent| waiting.contains(parent.as_str()));
            let (now, later): (Vec<_>, Vec<_>) = left.iter().partition(|shard| ready(shard));
            if now.is_empty() {
                return Err(format!("{name}: shards are each other's parents").into());
            }
            for shard in now {
                self.read_shard(client, shard, &shards)
                    .await
                    .map_err(|wrong| format!("{name}, {}: {wrong}", shard.id))?;
            }
            left = later;
        }
        for (what, promised) in [("acknowledged", &ledger.acknowledged), ("seen", &ledger.seen)] {
            for ((_, number), expected) in promised.iter().filter(|((stream, _), _)| *stream == self.stream) {
                match self.stored.get(number) {
                    Some(found) if found == expected => {}
                    Some(_) => return Err(format!("DAMAGED: {name}, {number}: {what}, and another record now").into()),
                    None => {
                        return Err(
                            format!("LOST: {name}, {number} of {}: {what} and not there", expected.shard).into(),
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads a shard on to its tip or its end.
    async fn read_shard(&mut self, client: &Client, shard: &Shard, all: &[Shard]) -> Result<(), Failure> {
        let (mut last, finished) = self.read.get(&shard.id).copied().unwrap_or_default();
        if finished {
            return Ok(());
        }
        let mut input = json!({ "StreamName": self.name(), "ShardId": shard.id, "ShardIteratorType": "TRIM_HORIZON" });
        if let Some(last) = last {
            input["ShardIteratorType"] = json!("AFTER_SEQUENCE_NUMBER");
            input["StartingSequenceNumber"] = json!(last.to_string());
        }
        let answer = client.call(Service::Kinesis, "GetShardIterator", &input).await?;
        let mut iterator = Some(text(&answer, "ShardIterator")?);
        while let Some(at) = iterator {
            let answer = client
                .call(Service::Kinesis, "GetRecords", &json!({ "ShardIterator": at }))
                .await?;
            let records = answer["Records"].as_array().ok_or("no Records")?;
            for record in records {
                last = Some(self.take(shard, record, last)?);
            }
            iterator = answer["NextShardIterator"].as_str().map(str::to_owned);
            if iterator.is_none() {
                check_end(shard, last, &answer, all)?;
            } else if records.is_empty() && answer["MillisBehindLatest"] == 0 {
                break;
            }
            self.read.insert(shard.id.clone(), (last, iterator.is_none()));
        }
        Ok(())
    }

    fn take(&mut self, shard: &Shard, record: &Value, last: Option<u128>) -> Result<u128, Failure> {
        let number: u128 = text(record, "SequenceNumber")?.parse()?;
        if last.is_some_and(|last| number <= last) || number < shard.start || shard.end.is_some_and(|end| number > end)
        {
            return Err(format!(
                "ORDER: {number} after {last:?} in a shard of {}..{:?}",
                shard.start, shard.end
            )
            .into());
        }
        let (key, data) = (text(record, "PartitionKey")?, STANDARD.decode(text(record, "Data")?)?);
        let count = data.split(|byte| *byte == b':').next().unwrap_or_default();
        let count: u64 = std::str::from_utf8(count)?.parse()?;
        if self
            .counts
            .insert(key.clone(), count)
            .is_some_and(|before| count <= before)
        {
            return Err(format!("ORDER: record {count} of {key} came late").into());
        }
        let stored = Stored {
            shard: shard.id.clone(),
            key,
            sha: sha256(&data),
        };
        match self.stored.insert(number, stored) {
            Some(before) => Err(format!("number {number} was given twice, before in {}", before.shard).into()),
            None => Ok(number),
        }
    }

    /// Another reading of everything must give the same.
    pub fn check_same(&self, again: &World) -> Result<(), Failure> {
        if self.stored == again.stored {
            return Ok(());
        }
        let differs = |number: &&u128| self.stored.get(*number) != again.stored.get(*number);
        let number = self.stored.keys().chain(again.stored.keys()).find(differs);
        Err(format!("{}: record {number:?} is not what it was", self.name()).into())
    }
}

/// Open shards share out the hash keys; a closed one has children that take its keys over with higher numbers.
fn check_family(shards: &[Shard]) -> Result<(), Failure> {
    let mut open: Vec<&Shard> = shards.iter().filter(|shard| shard.end.is_none()).collect();
    open.sort_by_key(|shard| shard.from);
    let whole = open.first().map(|shard| shard.from) == Some(0) && open.last().map(|shard| shard.to) == Some(u128::MAX);
    let gapless = open
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.to.checked_add(1) == Some(b.from)));
    if !(whole && gapless) {
        return Err(format!("SHARDS: the open ones do not share out the hash keys: {open:?}").into());
    }
    for shard in shards {
        let Some(end) = shard.end else { continue };
        let children: Vec<&Shard> = children(shard, shards).collect();
        let (from, to) = (
            children.iter().map(|c| c.from).min(),
            children.iter().map(|c| c.to).max(),
        );
        let covered = from.is_some_and(|from| from <= shard.from) && to.is_some_and(|to| to >= shard.to);
        if !covered || children.iter().any(|child| child.start <= end) {
            return Err(format!("SHARDS: {shard:?} is closed and followed by {children:?}").into());
        }
    }
    Ok(())
}

fn children<'a>(shard: &'a Shard, all: &'a [Shard]) -> impl Iterator<Item = &'a Shard> {
    all.iter().filter(|child| child.parents.contains(&shard.id))
}

/// A shard that gives no further iterator is closed, and names its children.
fn check_end(shard: &Shard, last: Option<u128>, answer: &Value, all: &[Shard]) -> Result<(), Failure> {
    let named = answer["ChildShards"].as_array().into_iter().flatten();
    let named: BTreeSet<&str> = named.filter_map(|child| child["ShardId"].as_str()).collect();
    let listed: BTreeSet<&str> = children(shard, all).map(|child| child.id.as_str()).collect();
    if shard.end.is_none() || named != listed || named.is_empty() {
        return Err(format!("END: after {last:?} of {shard:?} come {named:?}").into());
    }
    Ok(())
}

/// The server finishes in its start what the kill interrupted.
pub async fn check_active(client: &Client) -> Result<(), Failure> {
    for name in STREAMS {
        let input = json!({ "StreamName": name });
        let answer: Result<Value, ClientError> = client.call(Service::Kinesis, "DescribeStreamSummary", &input).await;
        let status = &answer?["StreamDescriptionSummary"]["StreamStatus"];
        if status != "ACTIVE" {
            return Err(format!("{name} is {status} after the start").into());
        }
    }
    Ok(())
}
