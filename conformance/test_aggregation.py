"""Records packed by AWS's own library for Python and by ours: each unpacks what the other packed, and the bytes are the same."""

import base64
import json
import pathlib
import random
import subprocess

import aws_kinesis_agg.aggregator
import aws_kinesis_agg.deaggregator
import pytest

from harness import REGION, binary


@pytest.fixture(scope="module")
def ours():
    """The example `aggregate` of the crate `client`, which `cargo test` builds beside the server."""
    path = pathlib.Path(binary()).parent / "examples/aggregate"
    if not path.exists():
        pytest.skip("the examples are not built beside the server")

    def ask(*requests):
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run([str(path)], input=lines, capture_output=True, text=True, check=True, timeout=60)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


def text(data):
    return base64.b64encode(data).decode()


def vectors():
    """Lists of partition key, explicit hash key and data."""
    dice = random.Random(7)
    keys = ["k", "ключ", "x" * 256, "same", "same"]
    many = [(dice.choice(keys), dice.choice([None, None, "0", str(2**128 - 1), str(dice.randrange(2**128))]), dice.randbytes(dice.randrange(300)))
            for _ in range(500)]
    return [[("k", None, b"one")], [("k", "7", b"")], [("a", None, b"1"), ("b", None, b"2"), ("a", None, b"3")],
            [("a", str(2**128 - 1), b"x" * 200), ("a", None, b"\xff"), ("b", "0", b"")], many]


def packed_by_theirs(records):
    packer = aws_kinesis_agg.aggregator.RecordAggregator()
    for key, explicit, data in records:
        assert packer.add_user_record(key, data, explicit) is None, "all of it fits into one"
    return packer.clear_and_get()


def test_ours_unpacks_what_theirs_packed(ours):
    wanted = vectors()
    answers = ours(*({"deaggregate": text(packed_by_theirs(records).get_contents()[2])} for records in wanted))
    for records, answer in zip(wanted, answers):
        found = [(record["partition_key"], base64.b64decode(record["data"])) for record in answer["records"]]
        assert found == [(key, data) for key, _, data in records]
        assert [record["explicit_hash_key"] for record in answer["records"]] == [explicit for _, explicit, _ in records]


def test_theirs_unpacks_what_ours_packed(ours):
    wanted = vectors()
    packed = ours(*({"aggregate": [{"partition_key": key, "explicit_hash_key": explicit, "data": text(data)} for key, explicit, data in records]}
                    for records in wanted))
    for records, one in zip(wanted, packed):
        kinesis = {"data": one["data"], "partitionKey": one["partition_key"], "sequenceNumber": "1", "kinesisSchemaVersion": "1.0", "approximateArrivalTimestamp": 1}
        names = ("eventSource", "eventVersion", "eventID", "eventName", "invokeIdentityArn", "awsRegion", "eventSourceARN")
        found = [record["kinesis"] for record in aws_kinesis_agg.deaggregator.deaggregate_records({"kinesis": kinesis} | dict.fromkeys(names, "x"))]
        assert [(record["partitionKey"], base64.b64decode(record["data"])) for record in found] == [(key, data) for key, _, data in records]
        # Theirs shows the first hash key of the table where a record has none.
        assert all(record["explicitHashKey"] == explicit for record, (_, explicit, _) in zip(found, records) if explicit)
        assert [(record["aggregated"], record["subSequenceNumber"]) for record in found] == [(True, place) for place in range(len(records))]


def test_a_packed_record_goes_through_a_stream_and_is_shown_one_by_one(server, name):
    kinesis = server.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=2)
    records = [(f"k{n}", None, json.dumps({"n": n}).encode()) for n in range(5)]
    key, _, data = packed_by_theirs(records).get_contents()
    kinesis.put_record(StreamName=name, PartitionKey=key, Data=data)
    stored = []
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        stored += kinesis.get_records(ShardIterator=iterator)["Records"]
    found = list(aws_kinesis_agg.deaggregator.iter_deaggregate_records(stored, data_format="Boto3"))
    assert [base64.b64decode(record["kinesis"]["data"]) for record in found] == [data for _, _, data in records]
    done = subprocess.run([binary(), "tail", name, "--data-dir", str(server.data_dir), "--region", REGION, "--endpoint", server.url, "--from", "start", "--no-follow", "--json"],
                          check=True, capture_output=True, text=True, timeout=60, env={})
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["partition_key"], row["data"]["n"], row["sub_sequence_number"]) for row in rows] == [(f"k{n}", n, n) for n in range(5)]


def test_what_is_no_aggregate_stays_one_record_for_both(ours):
    good = packed_by_theirs([("k", None, b"one"), ("k", None, b"two")]).get_contents()[2]
    for broken in (b"", b"plain", good[:4], good[:-1], good[:-1] + bytes([good[-1] ^ 1]), good[:6] + bytes([good[6] ^ 1]) + good[7:], b"\xf3\x89\x9a\xc2" + b"x" * 20):
        [answer] = ours({"deaggregate": text(broken)})
        stored = {"kinesis": {"data": text(broken), "partitionKey": "k", "sequenceNumber": "1"}}
        assert answer["records"] is None and aws_kinesis_agg.deaggregator.deaggregate_records(stored) == [stored], broken
