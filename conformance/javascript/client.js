// Calls data streams as a program that uses the AWS SDK for JavaScript does: node client.js SCENARIO http1|http2 STREAM.
// Server, region and key come from AWS's variables. Prints what it saw as one JSON object; test_javascript.py judges it.

import * as sdk from "@aws-sdk/client-kinesis";
import { NodeHttp2Handler, NodeHttpHandler } from "@smithy/node-http-handler";

const [scenario, transport, name] = process.argv.slice(2);
const handler = transport === "http1" ? new NodeHttpHandler() : new NodeHttp2Handler();
const client = new sdk.KinesisClient({ endpoint: process.env.AWS_ENDPOINT_URL, requestHandler: handler, maxAttempts: 1 });
const text = new TextDecoder();

async function call(command, input) {
  return client.send(new sdk[`${command}Command`](input));
}

// The name of an error's class, as `instanceof` tells it, and what it says.
async function failure(command, input) {
  try {
    await call(command, input);
  } catch (error) {
    const kind = Object.keys(sdk).find((name) => name.endsWith("Exception") && name !== "KinesisServiceException" && error instanceof sdk[name]);
    return [kind ?? error.name, error instanceof sdk.KinesisServiceException, error.$metadata.httpStatusCode, error.message];
  }
  return null;
}

async function drained(shard) {
  const found = [];
  let { ShardIterator } = await call("GetShardIterator", { StreamName: name, ShardId: shard, ShardIteratorType: "TRIM_HORIZON" });
  while (ShardIterator) {
    const answer = await call("GetRecords", { ShardIterator, Limit: 3 });
    found.push(...answer.Records);
    if (answer.Records.length === 0 && answer.MillisBehindLatest === 0) break;
    ShardIterator = answer.NextShardIterator;
  }
  return found;
}

const scenarios = {
  async records() {
    await call("CreateStream", { StreamName: name, ShardCount: 2 });
    await sdk.waitUntilStreamExists({ client, maxWaitTime: 10, minDelay: 1 }, { StreamName: name });
    const one = await call("PutRecord", { StreamName: name, PartitionKey: "k", Data: new Uint8Array([0, 255, 128]), ExplicitHashKey: "0" });
    const entries = Array.from({ length: 7 }, (_, n) => ({ PartitionKey: `k${n}`, Data: Buffer.from(`record ${n} ü`), ExplicitHashKey: n % 2 ? "1" : String(2n ** 128n - 1n) }));
    const many = await call("PutRecords", { StreamName: name, Records: entries });
    const shards = (await call("ListShards", { StreamName: name })).Shards.map((shard) => shard.ShardId);
    const first = await drained(shards[0]);
    const second = await drained(shards[1]);
    return {
      failed: many.FailedRecordCount,
      shards: many.Records.map((record) => record.ShardId),
      binary: Array.from(first[0].Data),
      number: [one.SequenceNumber, first[0].SequenceNumber],
      texts: [...first.slice(1), ...second].map((record) => text.decode(record.Data)).sort(),
      age: Date.now() - first[0].ApproximateArrivalTimestamp.getTime(),
    };
  },

  async pages() {
    const { StreamARN } = (await call("DescribeStreamSummary", { StreamName: name })).StreamDescriptionSummary;
    for (let n = 0; n < 5; n += 1) await call("RegisterStreamConsumer", { StreamARN, ConsumerName: `app${n}` });
    const consumers = [];
    for await (const page of sdk.paginateListStreamConsumers({ client, pageSize: 2 }, { StreamARN })) consumers.push(page.Consumers.map((one) => one.ConsumerName));
    const streams = [];
    for await (const page of sdk.paginateListStreams({ client, pageSize: 1 }, {})) streams.push(page.StreamNames);
    const shards = [];
    let NextToken;
    do {
      const page = await call("ListShards", NextToken ? { NextToken, MaxResults: 1 } : { StreamARN, MaxResults: 1 });
      shards.push(page.Shards.map((shard) => shard.ShardId));
      ({ NextToken } = page);
    } while (NextToken);
    return { consumers, streams: streams.map((page) => page.length), listed: streams.flat().includes(name), shards };
  },

  async errors() {
    const [StreamName, ShardId] = [name, "shardId-000000000000"];
    return {
      missing: await failure("DescribeStream", { StreamName: `${name}-missing` }),
      again: await failure("CreateStream", { StreamName, ShardCount: 1 }),
      forged: await failure("GetRecords", { ShardIterator: "forged" }),
      invalid: await failure("GetShardIterator", { StreamName, ShardId, ShardIteratorType: "AT_SEQUENCE_NUMBER" }),
      constraint: await failure("PutRecord", { StreamName, PartitionKey: "", Data: new Uint8Array() }),
      subscription: await failure("SubscribeToShard", { ConsumerARN: `arn:aws:kinesis:${process.env.AWS_REGION}:000000000000:stream/${name}/consumer/none:1`, ShardId, StartingPosition: { Type: "LATEST" } }),
    };
  },

  // Reads through a split: the parent's subscription ends with its children, and theirs go on.
  async subscribe() {
    const { StreamARN } = (await call("DescribeStreamSummary", { StreamName: name })).StreamDescriptionSummary;
    const { ConsumerARN } = (await call("RegisterStreamConsumer", { StreamARN, ConsumerName: "app" })).Consumer;
    const put = (data, ExplicitHashKey) => call("PutRecord", { StreamName: name, PartitionKey: "k", Data: Buffer.from(data), ExplicitHashKey });
    const read = async (ShardId, visit) => {
      const { EventStream } = await call("SubscribeToShard", { ConsumerARN, ShardId, StartingPosition: { Type: "TRIM_HORIZON" } });
      for await (const event of EventStream) {
        if (!event.SubscribeToShardEvent) throw new Error(`unexpected ${JSON.stringify(event)}`);
        if (await visit(event.SubscribeToShardEvent)) break;
      }
    };
    await put("0");
    const seen = [];
    let children = [];
    let typed = null;
    await read("shardId-000000000000", async (event) => {
      for (const record of event.Records) {
        seen.push(text.decode(record.Data));
        if (seen.length < 4) await put(String(seen.length));
        else {
          typed = (await failure("SubscribeToShard", { ConsumerARN, ShardId: "shardId-000000000000", StartingPosition: { Type: "LATEST" } }))?.[0];
          await call("SplitShard", { StreamName: name, ShardToSplit: "shardId-000000000000", NewStartingHashKey: String(2n ** 127n) });
        }
      }
      children = (event.ChildShards ?? []).map((child) => [child.ShardId, child.ParentShards]);
      return children.length > 0;
    });
    await put("low", "0");
    await put("high", String(2n ** 128n - 1n));
    for (const [child] of children) {
      await read(child, async (event) => {
        seen.push(...event.Records.map((record) => text.decode(record.Data)));
        return event.Records.length > 0;
      });
    }
    return { seen, children, typed };
  },

  // A stream that goes away under its subscriber: an exception of the event stream.
  async gone() {
    const { StreamARN } = (await call("DescribeStreamSummary", { StreamName: name })).StreamDescriptionSummary;
    const { ConsumerARN } = (await call("RegisterStreamConsumer", { StreamARN, ConsumerName: "app" })).Consumer;
    const { EventStream } = await call("SubscribeToShard", { ConsumerARN, ShardId: "shardId-000000000000", StartingPosition: { Type: "LATEST" } });
    await call("DeleteStream", { StreamName: name, EnforceConsumerDeletion: true });
    try {
      for await (const event of EventStream) if (!event.SubscribeToShardEvent) return { event: Object.keys(event) };
    } catch (error) {
      return { typed: error instanceof sdk.ResourceNotFoundException, name: error.name, message: error.message };
    }
    return { ended: true };
  },
};

const seen = await scenarios[scenario]();
client.destroy();
console.log(JSON.stringify(seen));
process.exit(0);
