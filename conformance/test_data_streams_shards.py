"""Shards that are split, merged and scaled under boto3, in JSON and in CBOR, and a server that is killed in the middle."""

import datetime
import threading

import pytest
from botocore.exceptions import ClientError

import kinesis as raw
from harness import eventually

FIRST, SECOND, THIRD = (f"shardId-{n:012d}" for n in range(3))


@pytest.fixture
def stream(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    return name


def shards(kinesis, stream):
    return kinesis.list_shards(StreamName=stream)["Shards"]


def active(kinesis, stream):
    summary = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]
    return summary["OpenShardCount"] if summary["StreamStatus"] == "ACTIVE" else None


def drain(kinesis, stream, shard, limit=100):
    """The records of a shard up to its end or tip, and its children."""
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    records = []
    while True:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=limit)
        records += answer["Records"]
        iterator = answer.get("NextShardIterator")
        if not iterator or not answer["Records"] and answer["MillisBehindLatest"] == 0:
            return records, answer.get("ChildShards"), iterator


def read_all(kinesis, stream):
    """Every record, parents before their children."""
    left, found = {shard["ShardId"]: shard for shard in shards(kinesis, stream)}, []
    while left:
        ready = [name for name, shard in left.items() if not {shard.get("ParentShardId"), shard.get("AdjacentParentShardId")} & set(left)]
        assert ready, "a circle of shards"
        for name in ready:
            del left[name]
            found += drain(kinesis, stream, name)[0]
    return found


def test_a_stream_is_split_merged_and_scaled(kinesis, stream):
    kinesis.put_record(StreamName=stream, Data=b"before", PartitionKey="a")
    kinesis.split_shard(StreamName=stream, ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
    assert eventually(lambda: active(kinesis, stream)) == 2
    parent, low, high = shards(kinesis, stream)
    assert low["ParentShardId"] == high["ParentShardId"] == FIRST and "EndingSequenceNumber" not in low["SequenceNumberRange"]
    assert int(parent["SequenceNumberRange"]["EndingSequenceNumber"]) < int(low["SequenceNumberRange"]["StartingSequenceNumber"])
    records, children, iterator = drain(kinesis, stream, FIRST)
    assert [r["Data"] for r in records] == [b"before"] and iterator is None
    assert [(c["ShardId"], c["ParentShards"]) for c in children] == [(SECOND, [FIRST]), (THIRD, [FIRST])]
    kinesis.merge_shards(StreamName=stream, ShardToMerge=SECOND, AdjacentShardToMerge=THIRD)
    assert eventually(lambda: active(kinesis, stream)) == 1
    merged = shards(kinesis, stream)[-1]
    assert (merged["ParentShardId"], merged["AdjacentParentShardId"]) == (SECOND, THIRD)
    answer = kinesis.update_shard_count(StreamName=stream, TargetShardCount=6, ScalingType="UNIFORM_SCALING")
    assert (answer["CurrentShardCount"], answer["TargetShardCount"], answer["StreamName"]) == (1, 6, stream)
    assert eventually(lambda: active(kinesis, stream)) == 6
    open_now = kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
    ranges = sorted((int(s["HashKeyRange"]["StartingHashKey"]), int(s["HashKeyRange"]["EndingHashKey"])) for s in open_now)
    assert ranges[0][0] == 0 and ranges[-1][1] == 2**128 - 1 and all(a[1] + 1 == b[0] for a, b in zip(ranges, ranges[1:]))
    assert [s["ShardId"] for s in kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_TRIM_HORIZON"})["Shards"]] == [FIRST]


def test_records_put_while_shards_change_arrive_once_and_in_order(server, kinesis, stream):
    stop, sent, failed = threading.Event(), {}, []

    def write(writer):
        client, n = server.client("kinesis"), 0
        while not stop.is_set():
            entries = [{"Data": f"{n:06d}".encode(), "PartitionKey": f"{writer}-{k}"} for k in range(8)]
            answer = client.put_records(StreamName=stream, Records=entries)
            failed.extend(r for r in answer["Records"] if "ErrorCode" in r)
            n += 1
        sent[writer] = n

    writers = [threading.Thread(target=write, args=(w,)) for w in range(3)]
    [thread.start() for thread in writers]
    for target in (2, 5, 3, 1, 4):
        kinesis.update_shard_count(StreamName=stream, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        assert eventually(lambda: active(kinesis, stream)) == target
    stop.set()
    [thread.join() for thread in writers]
    assert failed == [] and all(sent.values())
    by_key = {}
    for record in read_all(kinesis, stream):
        by_key.setdefault(record["PartitionKey"], []).append(record["Data"])
    wanted = {f"{w}-{k}": [f"{n:06d}".encode() for n in range(count)] for w, count in sent.items() for k in range(8)}
    assert by_key == wanted


def test_a_server_killed_while_shards_change_loses_nothing(own_server, name):
    client = own_server.client("kinesis")
    client.create_stream(StreamName=name, ShardCount=2)
    put, stop = [], threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            try:
                client.put_record(StreamName=name, Data=f"{n:06d}".encode(), PartitionKey=f"k{n % 7}")
            except Exception:
                return
            put.append(f"{n:06d}".encode())
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    eventually(lambda: len(put) > 20)
    scale = threading.Thread(target=lambda: pytest.raises(Exception, scaling))

    def scaling():
        for target in (4, 3, 2) * 50:
            client.update_shard_count(StreamName=name, TargetShardCount=target, ScalingType="UNIFORM_SCALING")

    scale.start()
    eventually(lambda: len(put) > 80)
    own_server.kill()
    stop.set()
    [thread.join() for thread in (writer, scale)]
    own_server.start()
    client = own_server.client("kinesis")
    assert active(client, name) in (2, 3, 4)
    client.put_record(StreamName=name, Data=b"after", PartitionKey="k0")
    found = [r["Data"] for r in read_all(client, name)]
    assert len(found) == len(set(found)) and set(put) <= set(found) and b"after" in found
    for key in range(7):
        mine = [d for d in found if d != b"after" and int(d) % 7 == key]
        assert mine == sorted(mine)


def test_the_errors_of_shards_are_declared(kinesis, stream):
    def failure(call):
        with pytest.raises(ClientError) as failed:
            call()
        return failed.value.response["Error"]["Code"]

    assert failure(lambda: kinesis.split_shard(StreamName=stream, ShardToSplit=THIRD, NewStartingHashKey="9")) == "ResourceNotFoundException"
    assert failure(lambda: kinesis.split_shard(StreamName=stream, ShardToSplit=FIRST, NewStartingHashKey="0")) == "InvalidArgumentException"
    assert failure(lambda: kinesis.merge_shards(StreamName=stream, ShardToMerge=FIRST, AdjacentShardToMerge=FIRST)) == "InvalidArgumentException"
    assert failure(lambda: kinesis.update_shard_count(StreamName=stream, TargetShardCount=9999, ScalingType="UNIFORM_SCALING")) == "LimitExceededException"
    assert failure(lambda: kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_TIMESTAMP"})) == "InvalidArgumentException"


def test_the_same_in_cbor(server, name):
    def call(operation, **arguments):
        status, content_type, answer = raw.call(server, operation, arguments)
        assert status == 200 and (answer is None or content_type == "application/x-amz-cbor-1.1"), (operation, answer)
        return answer

    call("CreateStream", StreamName=name, ShardCount=1)
    before = datetime.datetime.now(datetime.timezone.utc)
    entries = [{"Data": bytes([n]), "PartitionKey": "k"} for n in range(5)]
    put = call("PutRecords", StreamName=name, Records=entries)
    assert put["FailedRecordCount"] == 0
    call("SplitShard", StreamName=name, ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
    described = call("DescribeStreamSummary", StreamName=name)["StreamDescriptionSummary"]
    assert described["OpenShardCount"] == 2 and abs((described["StreamCreationTimestamp"] - before).total_seconds()) < 60
    listed = call("ListShards", StreamName=name, ShardFilter={"Type": "AT_TIMESTAMP", "Timestamp": before})["Shards"]
    assert FIRST in [s["ShardId"] for s in listed] or listed == []
    iterator = call("GetShardIterator", StreamName=name, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    answer = call("GetRecords", ShardIterator=iterator)
    assert [r["Data"] for r in answer["Records"]] == [bytes([n]) for n in range(5)]
    assert abs((answer["Records"][0]["ApproximateArrivalTimestamp"] - before).total_seconds()) < 60
    assert answer.get("NextShardIterator") is None and [c["ShardId"] for c in answer["ChildShards"]] == [SECOND, THIRD]
    at = call("GetShardIterator", StreamName=name, ShardId=FIRST, ShardIteratorType="AT_TIMESTAMP", Timestamp=before)
    assert len(call("GetRecords", **at)["Records"]) == 5
    status, content_type, error = raw.call(server, "SplitShard", {"StreamName": name, "ShardToSplit": FIRST, "NewStartingHashKey": "9"})
    assert (status, content_type, error["__type"]) == (400, "application/x-amz-cbor-1.1", "InvalidArgumentException")


def test_the_limits_of_a_shard_are_kept_where_the_operator_wants_them(tmp_path, name):
    import harness

    config = tmp_path / "config.toml"
    config.write_text("[data_streams]\nshard_limits = true\n")
    server = harness.Server(None, "--config", str(config))
    try:
        client = server.client("kinesis")
        client.create_stream(StreamName=name, ShardCount=1)
        entries = [{"Data": b"x", "PartitionKey": "k"}] * 500
        failed = [client.put_records(StreamName=name, Records=entries)["FailedRecordCount"] for _ in range(4)]
        assert failed[0] == 0 and failed[3] > 0
        iterator = client.get_shard_iterator(StreamName=name, ShardId=FIRST, ShardIteratorType="LATEST")["ShardIterator"]
        with pytest.raises(ClientError) as refused:
            [client.get_records(ShardIterator=iterator) for _ in range(20)]
        error = refused.value.response["Error"]
        assert error["Code"] == "ProvisionedThroughputExceededException"
        assert error["Message"] == f"Rate exceeded for shard {FIRST} in stream {name} under account 000000000000."
    finally:
        server.stop()
