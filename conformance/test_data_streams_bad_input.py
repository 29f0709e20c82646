"""What is wrong gets the declared error: every constraint of the model broken once for every operation, hostile CBOR, forged
iterators, numbers of other shards, batches that are too large. In JSON and in CBOR."""

import base64
import http.client
import re
import time

import botocore.session
import pytest

import cbor
import constraints
import harness
import kinesis as raw
from test_coverage import documented

MODEL = botocore.session.get_session().get_service_model("kinesis")
THERE = sorted(operation for (service, operation), there in documented().items() if service == "kinesis" and there == "yes")


@pytest.fixture(scope="module")
def server():
    """A server of this file's own: some requests are right, and change settings of the account."""
    started = harness.Server()
    yield started
    assert started.stop() == 0, started.log()


class Caller:
    """Signed calls over one connection."""

    def __init__(self, server, notation):
        self.server, self.notation = server, notation
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=60)

    def send(self, operation, body):
        """Status, error code and message of a body as it is."""
        self.connection.request("POST", "/", body, raw._headers(self.server, operation, body, self.notation))
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status == 200:
            return 200, None, ""
        assert answer.headers["content-type"] == raw.TYPES[self.notation]
        document = raw.read(content, self.notation)
        return answer.status, document["__type"].split("#")[-1], document.get("message") or document.get("Message") or ""

    def call(self, operation, arguments):
        if self.notation == "json":
            arguments = plain(arguments)
        return self.send(operation, raw.write(arguments, self.notation))


def plain(value):
    """As JSON has it: blobs in base64, times in seconds."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.timestamp() if hasattr(value, "timestamp") else value


@pytest.fixture(params=["json", "cbor"])
def caller(server, request):
    made = Caller(server, request.param)
    yield made
    made.connection.close()


def test_every_operation_of_the_model_that_is_there_is_tried():
    assert len(THERE) >= 52 and set(THERE) <= set(MODEL.operation_names)


@pytest.mark.parametrize("operation", THERE)
def test_every_constraint_broken_once_is_named_in_awss_words(caller, operation):
    shape = MODEL.operation_model(operation).input_shape
    if not shape.members:
        assert caller.call(operation, {})[0] == 200
        return
    whole = constraints.fitting(shape)
    status, code, message = caller.call(operation, whole)
    assert not re.match(r"\d+ validation error", message) and code != "SerializationException", (code, message)
    count = 0
    for violation in constraints.violations(shape):
        status, code, message = caller.call(operation, violation.arguments)
        assert (status, code) == (400, violation.code), (violation.name, status, code, message)
        assert violation.words in message, (violation.name, message)
        if code == "ValidationException":
            said = re.match(r"(\d+) validation errors? detected: ", message)
            assert said and int(said[1]) == message.count("failed to satisfy constraint"), message
        count += 1
    assert count


def wrong_cbor():
    """Documents that are no CBOR, or none of this request's."""
    good = cbor.encode({"StreamName": "x", "ShardCount": 1, "Tags": {"a": "b"}})
    for length in range(1, len(good)):
        yield f"cut off after {length} bytes", good[:length]
    name = cbor.encode("StreamName")
    for what, item in {
        "a text of 2^63 bytes": b"\x7b" + b"\xff" * 8, "bytes of 4 GiB": b"\x5a" + b"\xff" * 4, "a list of 2^64 - 1": b"\x9b" + b"\xff" * 8 + b"\x01",
        "a map of 2^64 - 1": b"\xbb" + b"\xff" * 8, "a break": b"\xff", "a reserved head": b"\x7c", "a reserved simple value": b"\xf8\x1f",
        "text that is not UTF-8": b"\x62\xff\xfe", "text in pieces of bytes": b"\x7f\x41x\xff", "text in pieces that never end": b"\x7f" + b"\x61x" * 1000,
        "a tag without an item": b"\xc1", "tags in tags": b"\xc1" * 100_000 + b"\x01", "a list as a name": b"\x80",
        "lists in lists": b"\x9f" * 100_000 + b"\xff" * 100_000, "maps in maps": (b"\xbf" + cbor.encode("a")) * 100_000,
        "lists in lists of known length": b"\x81" * 100_000 + b"\x01", "a million empty lists": b"\x9a\x00\x0f\x42\x40" + b"\x80" * 1_000_000,
        "a big number": b"\xc2\x49" + b"\xff" * 9, "half a number": b"\xf9\x3c", "undefined": b"\xf7\xf7", "a number": b"\x01",
    }.items():
        yield what, b"\xa1" + name + item
    yield "a map whose name is a number", b"\xa1\x01\x01"
    yield "no map", b"\x81\x01"
    yield "JSON", b'{"StreamName":"x","ShardCount":1}'
    yield "something behind the document", good + b"\x00"


def test_wrong_cbor_is_refused_at_once(server):
    caller = Caller(server, "cbor")
    before = server.rss_kib()
    for what, body in wrong_cbor():
        began = time.monotonic()
        status, code, message = caller.send("CreateStream", body)
        assert (status, code) == (400, "SerializationException") and message and len(message) < 1000, (what, status, code, message)
        assert time.monotonic() - began < 2, what
    assert server.rss_kib() - before < 65_536
    assert "x" not in server.client("kinesis").list_streams()["StreamNames"]


def test_wrong_json_is_refused_at_once(server):
    caller = Caller(server, "json")
    good = b'{"StreamName":"x","ShardCount":1,"Tags":{"a":"b"}}'
    bodies = [good[:length] for length in range(1, len(good))]
    bodies += [b"[" * 100_000, b'{"a":' * 100_000, b'{"StreamName":"\xff"}', b'{"StreamName":"\\ud800"}', b"null", b"[]", b'"x"', good + b"x", b'{"ShardCount":1e999}',
               b'{"ShardCount":' + b"9" * 100_000 + b"}"]
    for body in bodies:
        status, code, message = caller.send("CreateStream", body)
        assert (status, code) == (400, "SerializationException") and len(message) < 1000, (body[:60], status, code, message)


@pytest.fixture
def stream(server, name):
    server.client("kinesis").create_stream(StreamName=name, ShardCount=2)
    return name


def test_a_forged_iterator_is_refused(server, caller, stream):
    kinesis = server.client("kinesis")
    good = kinesis.get_shard_iterator(StreamName=stream, ShardId="shardId-000000000000", ShardIteratorType="LATEST")["ShardIterator"]
    assert caller.call("GetRecords", {"ShardIterator": good})[0] == 200
    other = {"A": "B"}
    forged = [good[:at] + other.get(good[at], "A") + good[at + 1:] for at in range(len(good) - 2)]
    forged += [good[:-4], good + "AAAA", good[::-1], "A" * 512]
    for iterator in forged:
        assert caller.call("GetRecords", {"ShardIterator": iterator})[:2] == (400, "InvalidArgumentException"), iterator
    key, secret = server.make_key(account="111122223333")
    theirs = server.client("kinesis", access_key=key, secret=secret)
    with pytest.raises(theirs.exceptions.InvalidArgumentException):
        theirs.get_records(ShardIterator=good)
    # A token of a listing is no iterator.
    token = kinesis.list_shards(StreamName=stream, MaxResults=1)["NextToken"]
    assert caller.call("GetRecords", {"ShardIterator": token})[:2] == (400, "InvalidArgumentException")
    assert caller.call("ListShards", {"NextToken": good})[:2] == (400, "InvalidArgumentException")


def test_a_number_of_another_shard_is_refused_wherever_one_is_taken(server, caller, stream):
    kinesis = server.client("kinesis")
    arn = kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamARN"]
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app")["Consumer"]["ConsumerARN"]
    numbers = {}
    for n in range(20):
        put = kinesis.put_record(StreamName=stream, Data=b"x", PartitionKey=str(n))
        numbers[put["ShardId"]] = put["SequenceNumber"]
    assert len(numbers) == 2
    shard, other = "shardId-000000000000", numbers["shardId-000000000001"]
    later = str(int(numbers[shard]) + 2**40)
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        wanted = {"StreamName": stream, "ShardId": shard, "ShardIteratorType": kind, "StartingSequenceNumber": other}
        status, code, message = caller.call("GetShardIterator", wanted)
        assert (status, code) == (400, "InvalidArgumentException")
        assert message == f"Invalid StartingSequenceNumber. It encodes shardId-000000000001, while it was used in a call to a shard with {shard}"
        start = {"Type": kind, "SequenceNumber": other}
        status, code, message = caller.call("SubscribeToShard", {"ConsumerARN": consumer, "ShardId": shard, "StartingPosition": start})
        assert (status, code) == (400, "InvalidArgumentException") and message.startswith("Invalid StartingSequenceNumber. It encodes")
    for number in (later, "7"):
        wanted = {"StreamName": stream, "Data": b"x", "PartitionKey": "a", "SequenceNumberForOrdering": number}
        status, code, message = caller.call("PutRecord", wanted)
        assert (status, code) == (400, "InvalidArgumentException") and message.startswith(f"ExclusiveMinimumSequenceNumber {number} used in PutRecord")


def test_batches_that_are_too_large_are_refused_whole(server, caller, stream):
    entry = {"Data": b"x", "PartitionKey": "k"}
    status, code, message = caller.call("PutRecords", {"StreamName": stream, "Records": [entry] * 501})
    assert (status, code) == (400, "ValidationException")
    assert message == "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"
    big = {"Data": b"x" * (1024 * 1024 - 1), "PartitionKey": "k"}
    assert caller.call("PutRecords", {"StreamName": stream, "Records": [big] * 10 + [entry]})[:2] == (400, "InvalidArgumentException")
    status, code, message = caller.call("PutRecord", {"StreamName": stream, "Data": bytes(10 * 1024 * 1024 + 1), "PartitionKey": "k"})
    assert (status, code) == (400, "ValidationException")
    assert message == "1 validation error detected: Value at 'data' failed to satisfy constraint: Member must have length less than or equal to 10485760"
    beyond = {"Data": b"x" * (1024 * 1024), "PartitionKey": "k"}
    assert caller.call("PutRecords", {"StreamName": stream, "Records": [entry, beyond]})[:2] == (400, "InvalidArgumentException")
    for shard in ("shardId-000000000000", "shardId-000000000001"):
        kinesis = server.client("kinesis")
        iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        assert kinesis.get_records(ShardIterator=iterator)["Records"] == [], "nothing of a batch that was refused is stored"
