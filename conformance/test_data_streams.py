"""The core of Kinesis Data Streams, as boto3 drives it."""

import datetime
import hashlib

import pytest

from harness import failure


@pytest.fixture
def kinesis(server):
    # Bad arguments must reach the server, not the SDK's own checks.
    return server.client("kinesis", parameter_validation=False)


@pytest.fixture
def stream(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    return name


def read(kinesis, stream, shard, kind="TRIM_HORIZON", count=None, **where):
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **where)["ShardIterator"]
    records = []
    while iterator:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=100)
        assert answer["MillisBehindLatest"] >= 0
        records += answer["Records"]
        iterator = answer.get("NextShardIterator")
        if not answer["Records"] and answer["MillisBehindLatest"] == 0 or (count and len(records) >= count):
            return records
    return records


def test_a_stream_is_created_described_listed_and_deleted(kinesis, stream):
    described = kinesis.describe_stream(StreamName=stream)["StreamDescription"]
    assert described["StreamARN"] == f"arn:aws:kinesis:us-west-2:000000000000:stream/{stream}"
    assert (described["StreamStatus"], described["RetentionPeriodHours"], described["HasMoreShards"]) == ("ACTIVE", 24, False)
    ranges = [(int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"])) for s in described["Shards"]]
    assert ranges[0][0] == 0 and ranges[0][1] + 1 == ranges[1][0] and ranges[1][1] == 2**128 - 1
    assert [s["ShardId"] for s in described["Shards"]] == ["shardId-000000000000", "shardId-000000000001"]
    summary = kinesis.describe_stream_summary(StreamARN=described["StreamARN"])["StreamDescriptionSummary"]
    assert (summary["OpenShardCount"], summary["StreamName"], summary["ConsumerCount"]) == (2, stream, 0)
    assert stream in kinesis.list_streams(Limit=10_000)["StreamNames"]
    assert [s["ShardId"] for s in kinesis.list_shards(StreamName=stream)["Shards"]] == ["shardId-000000000000", "shardId-000000000001"]
    kinesis.delete_stream(StreamName=stream)
    kinesis.get_waiter("stream_not_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    assert len(kinesis.list_shards(StreamName=stream)["Shards"]) == 1


def test_records_go_to_the_shard_of_their_key_and_come_back_in_order(kinesis, stream):
    put = []
    for n in range(20):
        key = f"key-{n % 5}"
        answer = kinesis.put_record(StreamName=stream, Data=f"record {n}".encode(), PartitionKey=key)
        shard = 0 if int.from_bytes(hashlib.md5(key.encode()).digest(), "big") < 2**127 else 1
        assert answer["ShardId"] == f"shardId-{shard:012d}"
        put.append((answer["ShardId"], answer["SequenceNumber"], key, f"record {n}".encode()))
    for shard in ("shardId-000000000000", "shardId-000000000001"):
        got = [(shard, r["SequenceNumber"], r["PartitionKey"], r["Data"]) for r in read(kinesis, stream, shard)]
        assert got == [record for record in put if record[0] == shard]
        numbers = [int(record[1]) for record in got]
        assert numbers == sorted(set(numbers))


def test_a_batch_is_taken_record_by_record(kinesis, stream):
    entries = [{"Data": bytes([n]), "PartitionKey": f"key-{n}"} for n in range(100)]
    entries[50]["ExplicitHashKey"] = str(2**128 - 1)
    answer = kinesis.put_records(StreamName=stream, Records=entries)
    assert answer["FailedRecordCount"] == 0 and len(answer["Records"]) == 100
    assert answer["Records"][50]["ShardId"] == "shardId-000000000001"
    got = [r["Data"] for shard in ("shardId-000000000000", "shardId-000000000001") for r in read(kinesis, stream, shard)]
    assert sorted(got) == [bytes([n]) for n in range(100)]
    assert failure(lambda: kinesis.put_records(StreamName=stream, Records=entries * 6))[1] == 400


def test_all_five_iterators_begin_where_they_say(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    shard = "shardId-000000000000"
    numbers = [kinesis.put_record(StreamName=name, Data=str(n).encode(), PartitionKey="k")["SequenceNumber"] for n in range(4)]
    latest = kinesis.get_shard_iterator(StreamName=name, ShardId=shard, ShardIteratorType="LATEST")["ShardIterator"]

    def data(**arguments):
        return [r["Data"] for r in read(kinesis, name, shard, **arguments)]

    assert data(kind="TRIM_HORIZON") == [b"0", b"1", b"2", b"3"]
    assert data(kind="AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2]) == [b"2", b"3"]
    assert data(kind="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[2]) == [b"3"]
    arrived = read(kinesis, name, shard)[0]["ApproximateArrivalTimestamp"]
    assert data(kind="AT_TIMESTAMP", Timestamp=arrived) == [b"0", b"1", b"2", b"3"]
    later = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    assert data(kind="AT_TIMESTAMP", Timestamp=later) == [b"0", b"1", b"2", b"3"]
    kinesis.put_record(StreamName=name, Data=b"new", PartitionKey="k")
    assert [r["Data"] for r in kinesis.get_records(ShardIterator=latest)["Records"]] == [b"new"]


@pytest.mark.parametrize("kib, settings", [(1024, {}), (10240, {"MaxRecordSizeInKiB": 10240})])
def test_a_record_of_the_largest_size_is_taken_and_a_larger_one_is_not(kinesis, name, kib, settings):
    # AWS's default is 1 MiB, data and partition key together; a stream can be made for more.
    kinesis.create_stream(StreamName=name, ShardCount=1, **settings)
    largest = b"x" * (kib * 1024 - 1)
    kinesis.put_record(StreamName=name, Data=largest, PartitionKey="k")
    code, status = failure(lambda: kinesis.put_record(StreamName=name, Data=largest + b"y", PartitionKey="k"))
    assert status == 400 and code in ("ValidationException", "InvalidArgumentException")
    assert [r["Data"] for r in read(kinesis, name, "shardId-000000000000")] == [largest]


def test_errors_are_declared(kinesis, stream):
    missing = ("ResourceNotFoundException", 400)
    assert failure(lambda: kinesis.describe_stream(StreamName="missing")) == missing
    assert failure(lambda: kinesis.put_record(StreamName="missing", Data=b"x", PartitionKey="k")) == missing
    assert failure(lambda: kinesis.create_stream(StreamName=stream, ShardCount=1)) == ("ResourceInUseException", 400)
    assert failure(lambda: kinesis.get_shard_iterator(StreamName=stream, ShardId="shardId-000000000009", ShardIteratorType="LATEST")) == missing
    for call in (lambda: kinesis.get_records(ShardIterator="AAAA"), lambda: kinesis.create_stream(StreamName="no spaces", ShardCount=1),
                 lambda: kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="k" * 257),
                 lambda: kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey="k", ExplicitHashKey=str(2**128)),
                 lambda: kinesis.get_shard_iterator(StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="AT_SEQUENCE_NUMBER")):
        code, status = failure(call)
        assert status == 400 and code in ("InvalidArgumentException", "ValidationException"), code
