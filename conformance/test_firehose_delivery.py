"""What Firehose delivers to S3, read back object by object: names, buffers, backups, errors, shards that are split, and a
server that is killed in mid-buffer: every acknowledged record is there, and none twice."""

import collections
import datetime
import gzip
import os
import random
import re
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from harness import eventually

ROLE = "arn:aws:iam::000000000000:role/firehose"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# How often the server is killed; the full test kills it 25 times.
ROUNDS = int(os.environ.get("FIREHOSE_KILLS", "4"))


def destination(bucket, seconds=0, **more):
    return dict({"BucketARN": f"arn:aws:s3:::{bucket}", "RoleARN": ROLE, "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": seconds}}, **more)


def objects(s3, bucket, prefix=""):
    """Bodies by name."""
    names, token = [], {}
    while True:
        page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, **token)
        names += [entry["Key"] for entry in page.get("Contents", [])]
        if not page["IsTruncated"]:
            return {name: s3.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}
        token = {"ContinuationToken": page["NextContinuationToken"]}


def lines(s3, bucket, prefix=""):
    return sorted(line for body in objects(s3, bucket, prefix).values() for line in body.decode().splitlines())


def bucket_of(name):
    return name.replace("_", "-").lower()[-60:].strip("-")


class World:
    def __init__(self, server, name):
        self.server, self.name, self.bucket = server, name, bucket_of(name)
        self.connect()
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})

    def connect(self):
        self.firehose, self.s3, self.kinesis = (self.server.client(service) for service in ("firehose", "s3", "kinesis"))

    def create(self, extended, name=None, **more):
        self.firehose.create_delivery_stream(DeliveryStreamName=name or self.name, ExtendedS3DestinationConfiguration=extended, **more)

    def put(self, *texts, name=None):
        records = [{"Data": f"{text}\n".encode()} for text in texts]
        assert self.firehose.put_record_batch(DeliveryStreamName=name or self.name, Records=records)["FailedPutCount"] == 0

    def source(self, shards=1):
        self.kinesis.create_stream(StreamName=self.name, ShardCount=shards)
        arn = self.kinesis.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]["StreamARN"]
        return {"DeliveryStreamType": "KinesisStreamAsSource", "KinesisStreamSourceConfiguration": {"KinesisStreamARN": arn, "RoleARN": ROLE}}


@pytest.fixture
def world(server, name):
    return World(server, name)


def test_records_that_are_put_become_an_object_with_the_name_that_aws_gives(world):
    world.create(destination(world.bucket))
    world.put("one", "two", "three")
    eventually(lambda: lines(world.s3, world.bucket) == ["one", "three", "two"])
    [name] = objects(world.s3, world.bucket)
    hour = datetime.datetime.now(datetime.timezone.utc)
    pattern = rf"(\d{{4}}/\d\d/\d\d/\d\d)/{re.escape(world.name)}-1-(\d{{4}}-\d\d-\d\d-\d\d)-\d\d-\d\d-{UUID}"
    found = re.fullmatch(pattern, name)
    assert found and found.group(1).replace("/", "-") == found.group(2), name
    assert abs((datetime.datetime.strptime(found.group(2), "%Y-%m-%d-%H").replace(tzinfo=datetime.timezone.utc) - hour).total_seconds()) < 7200


def test_a_full_buffer_goes_before_its_time(world):
    world.create(destination(world.bucket, seconds=900, Prefix="full/", FileExtension=".log"))
    filler = "x" * 100_000
    world.put(*(f"{number:03d}{filler}" for number in range(15)))
    eventually(lambda: len(objects(world.s3, world.bucket)) == 1)
    [(name, body)] = objects(world.s3, world.bucket).items()
    assert name.startswith("full/") and name.endswith(".log") and 1 << 20 <= len(body) < (1 << 20) + 110_000
    assert [line[:3] for line in body.decode().splitlines()] == [f"{number:03d}" for number in range(len(body.splitlines()))]


def test_an_update_sends_what_follows_elsewhere_and_loses_nothing(world):
    world.create(destination(world.bucket, seconds=900, Prefix="before/"))
    world.put("waits")
    world.firehose.update_destination(DeliveryStreamName=world.name, CurrentDeliveryStreamVersionId="1", DestinationId="destinationId-000000000001",
                                      ExtendedS3DestinationUpdate={"Prefix": "after/", "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}})
    world.put("follows")
    eventually(lambda: lines(world.s3, world.bucket, "after/") == ["follows", "waits"])
    assert lines(world.s3, world.bucket) == ["follows", "waits"]
    assert all(f"{world.name}-2-" in name for name in objects(world.s3, world.bucket))


def test_source_records_are_backed_up(world):
    raw = {"BucketARN": f"arn:aws:s3:::{world.bucket}", "RoleARN": ROLE, "Prefix": "raw/"}
    world.create(destination(world.bucket, Prefix="out/", S3BackupMode="Enabled", S3BackupConfiguration=raw))
    world.put("a", "b")
    eventually(lambda: lines(world.s3, world.bucket, "out/") == lines(world.s3, world.bucket, "raw/") == ["a", "b"])


def test_encrypted_records_arrive_and_are_not_on_disk_before(own_server, name):
    world = World(own_server, name)
    world.create(destination(world.bucket, seconds=900), DeliveryStreamEncryptionConfigurationInput={"KeyType": "AWS_OWNED_CMK"})
    secret = "what nobody may read " * 40
    world.put(secret)
    files = [path for path in own_server.data_dir.rglob("*") if path.is_file()]
    assert not any(secret[:40].encode() in path.read_bytes() for path in files)
    world.firehose.stop_delivery_stream_encryption(DeliveryStreamName=name)
    world.put("open")
    own_server.kill()
    own_server.restart()
    world.connect()
    world.firehose.update_destination(DeliveryStreamName=name, CurrentDeliveryStreamVersionId="1", DestinationId="destinationId-000000000001",
                                      ExtendedS3DestinationUpdate={"BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}})
    eventually(lambda: lines(world.s3, world.bucket) == sorted([secret, "open"]))


def test_a_data_stream_is_read_from_now_on_through_splits_and_merges(world):
    source = world.source(shards=2)
    world.kinesis.put_record(StreamName=world.name, Data=b"before\n", PartitionKey="k")
    world.create(destination(world.bucket), **source)
    expected = []

    def put(count):
        for _ in range(count):
            text = f"{len(expected):04d}"
            world.kinesis.put_record(StreamName=world.name, Data=f"{text}\n".encode(), PartitionKey=text)
            expected.append(text)

    put(20)
    world.kinesis.update_shard_count(StreamName=world.name, TargetShardCount=4, ScalingType="UNIFORM_SCALING")
    put(20)
    open_shards = [s for s in world.kinesis.list_shards(StreamName=world.name)["Shards"] if "EndingSequenceNumber" not in s["SequenceNumberRange"]]
    open_shards.sort(key=lambda s: int(s["HashKeyRange"]["StartingHashKey"]))
    world.kinesis.merge_shards(StreamName=world.name, ShardToMerge=open_shards[0]["ShardId"], AdjacentShardToMerge=open_shards[1]["ShardId"])
    put(20)
    eventually(lambda: lines(world.s3, world.bucket) == expected, within=20)


def test_a_bucket_that_is_missing_is_told_and_what_waits_comes_when_it_is_there(world):
    missing = f"{world.bucket[:50]}-later"
    world.create(destination(missing))
    world.put("patient")

    def why():
        return world.firehose.describe_delivery_stream(DeliveryStreamName=world.name)["DeliveryStreamDescription"].get("FailureDescription", {}).get("Details", "")

    eventually(lambda: why().startswith("S3.NoSuchBucket") and missing in why())
    world.s3.create_bucket(Bucket=missing, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    eventually(lambda: lines(world.s3, missing) == ["patient"], within=40)
    eventually(lambda: why() == "")
    # Deleted in between: the same again.
    for name in objects(world.s3, missing):
        world.s3.delete_object(Bucket=missing, Key=name)
    world.s3.delete_bucket(Bucket=missing)
    world.put("again")
    eventually(lambda: why().startswith("S3.NoSuchBucket"))
    world.s3.create_bucket(Bucket=missing, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    eventually(lambda: lines(world.s3, missing) == ["again"], within=40)


def test_a_deleted_source_is_told(world):
    source = world.source()
    world.create(destination(world.bucket), **source)
    world.kinesis.delete_stream(StreamName=world.name)

    def why():
        return world.firehose.describe_delivery_stream(DeliveryStreamName=world.name)["DeliveryStreamDescription"].get("FailureDescription", {}).get("Details", "")

    eventually(lambda: "does not exist" in why())


class Producer(threading.Thread):
    """Puts numbered records until the server is gone; keeps what was acknowledged."""

    def __init__(self, label, put):
        super().__init__()
        self.label, self.put, self.number, self.acknowledged, self.ended = label, put, 0, [], False

    def run(self):
        while not self.ended:
            texts = [f"{self.label}-{self.number + more:06d}" for more in range(random.randint(1, 40))]
            self.number += len(texts)
            try:
                self.put(texts)
            except (ClientError, BotoCoreError):
                return
            self.acknowledged += texts


def test_a_server_that_is_killed_in_mid_buffer_delivers_every_acknowledged_record_once(own_server, name):
    world = World(own_server, name)
    source = world.source(shards=2)
    direct_name = f"direct-{name[-50:]}"
    world.create(destination(world.bucket, seconds=1, Prefix="direct/"), name=direct_name)
    world.create(destination(world.bucket, seconds=1, Prefix="stream/", CompressionFormat="GZIP"), **source)
    acknowledged = collections.defaultdict(list)
    for round_number in range(ROUNDS):
        world.connect()
        firehose, kinesis = world.firehose, world.kinesis

        def direct(texts):
            firehose.put_record_batch(DeliveryStreamName=direct_name, Records=[{"Data": f"{text}\n".encode()} for text in texts])

        def stream(texts):
            records = [{"Data": f"{text}\n".encode(), "PartitionKey": text} for text in texts]
            assert kinesis.put_records(StreamName=name, Records=records)["FailedRecordCount"] == 0

        producers = {"direct": Producer(f"d{round_number}", direct), "stream": Producer(f"s{round_number}", stream)}
        for producer in producers.values():
            producer.start()
        # The moment is left to chance: before, in, or after a delivery.
        time.sleep(random.uniform(0.3, 2.5))
        own_server.kill()
        for kind, producer in producers.items():
            producer.ended = True
            producer.join()
            acknowledged[kind] += producer.acknowledged
        own_server.restart()
    world.connect()

    def delivered(kind):
        bodies = objects(world.s3, world.bucket, f"{kind}/").items()
        texts = [gzip.decompress(body) if kind == "stream" else body for _, body in bodies]
        return [line for text in texts for line in text.decode().splitlines()]

    for kind in ("direct", "stream"):
        assert len(acknowledged[kind]) > 10 * ROUNDS
        eventually(lambda: not set(acknowledged[kind]) - set(delivered(kind)), within=60, every=0.5)
        counts = collections.Counter(delivered(kind))
        twice = {line: count for line, count in counts.items() if count > 1}
        assert not twice, twice
    assert own_server.stop() == 0
    assert own_server.run("fsck").returncode == 0
