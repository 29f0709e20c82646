"""A full disk, on a small filesystem of the test's own: nothing acknowledged is lost, deleting makes room, ingest resumes."""

import os
import subprocess

import botocore.exceptions
import pytest

import harness

FILESYSTEM_BYTES = 96 << 20
RECORD = b"x" * (900 << 10)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={FILESYSTEM_BYTES}", "tmpfs", str(folder)], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("skipped: a small filesystem can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(kinesis, stream, ledger):
    """Puts records until the server says that it cannot; returns its answer."""
    for number in range(10 * FILESYSTEM_BYTES // len(RECORD)):
        try:
            answer = kinesis.put_record(StreamName=stream, PartitionKey=str(number), Data=number.to_bytes(8, "big") + RECORD)
        except botocore.exceptions.ClientError as error:
            return error.response
        ledger[answer["SequenceNumber"]] = number
    raise AssertionError("the disk never became full")


def read_all(kinesis, stream):
    shard = kinesis.list_shards(StreamName=stream)["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    found = {}
    while True:
        answer = kinesis.get_records(ShardIterator=iterator, Limit=5)
        for record in answer["Records"]:
            assert record["Data"][8:] == RECORD
            found[record["SequenceNumber"]] = int.from_bytes(record["Data"][:8], "big")
        iterator = answer["NextShardIterator"]
        if not answer["Records"]:
            return found


def test_a_full_disk_refuses_records_keeps_what_it_took_and_takes_more_when_there_is_room(small_disk):
    server = harness.Server(small_disk / "data")
    try:
        kinesis = server.client("kinesis")
        for stream in ("first", "second"):
            kinesis.create_stream(StreamName=stream, ShardCount=1)
        ledger = {}
        refusal = fill(kinesis, "first", ledger)
        assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 500, refusal
        assert ledger and read_all(kinesis, "first") == ledger
        kinesis.delete_stream(StreamName="first")
        harness.eventually(lambda: kinesis.put_record(StreamName="second", PartitionKey="k", Data=RECORD), within=60, every=0.2)
        assert server.child.poll() is None
    finally:
        server.stop()


def test_what_a_full_disk_acknowledged_is_there_after_a_kill(small_disk):
    server = harness.Server(small_disk / "data")
    try:
        kinesis = server.client("kinesis")
        kinesis.create_stream(StreamName="first", ShardCount=1)
        ledger = {}
        fill(kinesis, "first", ledger)
        server.kill()
        server.restart()
        assert read_all(server.client("kinesis"), "first") == ledger
    finally:
        server.stop()
