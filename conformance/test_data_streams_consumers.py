"""Registered consumers: boto3, the events of a subscription as they are on HTTP/1.1 and HTTP/2, in JSON and in CBOR."""

import statistics
import threading
import time

import pytest

import kinesis as raw
from harness import code_of, eventually

SHARD = "shardId-000000000000"


@pytest.fixture
def consumer(kinesis, arn):
    return kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app")["Consumer"]["ConsumerARN"]


def test_consumers_are_registered_described_listed_and_deregistered(kinesis, arn, consumer):
    described = kinesis.describe_stream_consumer(StreamARN=arn, ConsumerName="app")["ConsumerDescription"]
    assert described["ConsumerARN"] == consumer and described["StreamARN"] == arn
    assert eventually(lambda: kinesis.describe_stream_consumer(ConsumerARN=consumer)["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE")
    assert consumer == f"{arn}/consumer/app:{int(described['ConsumerCreationTimestamp'].timestamp())}"
    assert [c["ConsumerName"] for c in kinesis.list_stream_consumers(StreamARN=arn)["Consumers"]] == ["app"]
    assert code_of(lambda: kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app")) == "ResourceInUseException"
    assert code_of(lambda: kinesis.describe_stream_consumer(StreamARN=arn, ConsumerName="b")) == "ResourceNotFoundException"
    kinesis.deregister_stream_consumer(ConsumerARN=consumer)
    assert code_of(lambda: kinesis.describe_stream_consumer(ConsumerARN=consumer)) == "ResourceNotFoundException"


def test_boto3_is_pushed_what_is_there_and_what_comes(kinesis, arn, consumer):
    kinesis.put_record(StreamARN=arn, Data=b"0", PartitionKey="k")
    answer = kinesis.subscribe_to_shard(ConsumerARN=consumer, ShardId=SHARD, StartingPosition={"Type": "TRIM_HORIZON"})
    got = []
    for event in answer["EventStream"]:
        event = event["SubscribeToShardEvent"]
        got += [r["Data"] for r in event["Records"]]
        assert event["MillisBehindLatest"] == 0 and int(event["ContinuationSequenceNumber"])
        if len(got) == 5:
            break
        if event["Records"]:
            kinesis.put_record(StreamARN=arn, Data=str(len(got)).encode(), PartitionKey="k")
    answer["EventStream"].close()
    assert got == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("notation", ["json", "cbor"])
def test_the_events_of_a_subscription(server, kinesis, arn, consumer, notation, http2):
    if http2 and not raw.CURL:
        pytest.skip("skipped: no curl")
    kinesis.put_record(StreamARN=arn, Data=b"first", PartitionKey="k")
    subscription = raw.Subscription(
        server, {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": {"Type": "TRIM_HORIZON"}}, notation, http2)
    try:
        assert subscription.status == 200 and subscription.content_type in (None, "application/vnd.amazon.eventstream")
        messages = iter(subscription)
        assert next(messages) == ("initial-response", raw.TYPES[notation], {})
        name, content_type, event = next(messages)
        assert (name, content_type) == ("SubscribeToShardEvent", raw.TYPES[notation])
        [record] = event["Records"]
        assert record["Data"] == (b"first" if notation == "cbor" else "Zmlyc3Q=")
        kinesis.split_shard(StreamARN=arn, ShardToSplit=SHARD, NewStartingHashKey="77")
        events = [event for _, _, event in messages]
        assert [c["ShardId"] for c in events[-1]["ChildShards"]] == ["shardId-000000000001", "shardId-000000000002"]
        assert events[-1].get("ContinuationSequenceNumber") is None, "so the consumer library knows that the shard has ended"
    finally:
        subscription.close()


def test_a_subscription_is_taken_over_after_five_seconds(server, kinesis, arn, consumer):
    arguments = {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": {"Type": "LATEST"}}
    first = raw.Subscription(server, arguments)
    messages = iter(first)
    assert next(messages)[0] == "initial-response" and next(messages)[0] == "SubscribeToShardEvent"
    assert raw.Subscription(server, arguments).status == 400
    second = eventually(lambda: (lambda s: s if s.status == 200 else s.close())(raw.Subscription(server, arguments)), within=8, every=0.5)
    told = [name for name, _, _ in messages]
    assert told[-1] == "ResourceInUseException" and set(told[:-1]) <= {"SubscribeToShardEvent"}
    kinesis.put_record(StreamARN=arn, Data=b"mine", PartitionKey="k")
    assert next(second.records())["Data"] == "bWluZQ=="
    first.close()
    second.close()


def test_a_record_reaches_its_subscriber_at_once(server, kinesis, arn, consumer):
    subscription = raw.Subscription(server, {"ConsumerARN": consumer, "ShardId": SHARD, "StartingPosition": {"Type": "LATEST"}})
    arrived = {}

    def listen():
        for record in subscription.records():
            arrived[record["SequenceNumber"]] = time.monotonic()
            if len(arrived) == 60:
                return

    messages = iter(subscription)
    assert [next(messages)[0] for _ in range(2)] == ["initial-response", "SubscribeToShardEvent"]
    listener = threading.Thread(target=listen)
    listener.start()
    answered = {}
    for n in range(60):
        number = kinesis.put_record(StreamARN=arn, Data=b"x" * 1024, PartitionKey=str(n))["SequenceNumber"]
        answered[number] = time.monotonic()
    listener.join(20)
    subscription.close()
    delays = sorted(arrived[number] - at for number, at in answered.items())
    print(f"delivery after the answer: p50 {statistics.median(delays) * 1000:.1f} ms, most {delays[-1] * 1000:.1f} ms")
    assert statistics.median(delays) < 0.02
