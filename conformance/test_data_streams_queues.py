"""Queues: boto3 and CBOR, several receivers at once, and a server that is killed under them."""

import http.client
import itertools
import threading
import time

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import kinesis as raw
from harness import code_of, eventually, refusal


def make_stream(kinesis, name):
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]


def make_queue(kinesis, stream, name, **attributes):
    where = [{"StreamARN": stream, "StartingPosition": {"Type": "TRIM_HORIZON"}}]
    made = kinesis.create_queue(QueueName=name, StreamConfigurationList=where, QueueAttributes=attributes)["QueueDescription"]
    return made["QueueARN"]


@pytest.fixture
def stream(kinesis, name):
    return make_stream(kinesis, name)


@pytest.fixture
def queue(kinesis, stream, name):
    return make_queue(kinesis, stream, name)


def entries(records):
    return [{"ReceiptHandle": record["ReceiptHandle"]} for record in records]


def test_a_queue_is_active_at_once_and_keeps_its_stream(kinesis, stream, queue, name):
    began = time.monotonic()
    eventually(lambda: kinesis.describe_queue(QueueARN=queue)["QueueDescription"]["QueueStatus"] == "ACTIVE", every=0.01)
    assert time.monotonic() - began < 0.2
    assert code_of(lambda: kinesis.delete_stream(StreamARN=stream, EnforceConsumerDeletion=True)) == "ResourceInUseException"
    listed = kinesis.list_queues(StreamFilter=[{"StreamARN": stream}])["QueueSummaries"]
    assert [(found["QueueName"], found["QueueARN"]) for found in listed] == [(name, queue)]
    kinesis.tag_resource(ResourceARN=queue, Tags={"team": "a"})
    assert kinesis.list_tags_for_resource(ResourceARN=queue)["Tags"] == [{"Key": "team", "Value": "a"}]
    kinesis.delete_queue(QueueARN=queue)
    assert code_of(lambda: kinesis.describe_queue(QueueARN=queue)) == "ResourceNotFoundException"
    kinesis.delete_stream(StreamARN=stream)


def test_a_record_is_received_hidden_acknowledged_and_gone(kinesis, stream, queue):
    kinesis.put_records(StreamARN=stream, Records=[{"Data": b"%d" % n, "PartitionKey": str(n)} for n in range(10)])
    got = []
    while len(got) < 10:
        got += kinesis.receive_queue_records(QueueARN=queue)["QueueRecords"]
    assert sorted(int(record["Data"]) for record in got) == list(range(10))
    assert all(record["PartitionKey"] == record["Data"].decode() and record["ReceiveCount"] == 1 for record in got)
    answer = kinesis.acknowledge_queue_records(QueueARN=queue, Entries=[*entries(got[:4]), {"ReceiptHandle": "forged"}])
    assert answer["Successful"] == entries(got[:4])
    assert [(f["ReceiptHandle"], f["ErrorCode"]) for f in answer["Failed"]] == [("forged", "InvalidArgumentException")]
    shown = [dict(entry, VisibilityTimeoutSeconds=0) for entry in entries(got[4:])]
    assert len(kinesis.update_queue_records_visibility(QueueARN=queue, Entries=shown)["Successful"]) == 6
    again = kinesis.receive_queue_records(QueueARN=queue)["QueueRecords"]
    assert {record["Data"] for record in again} == {record["Data"] for record in got[4:]}
    assert all(record["ReceiveCount"] == 2 for record in again)
    kinesis.acknowledge_queue_records(QueueARN=queue, Entries=entries(again))
    assert kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    failed = kinesis.acknowledge_queue_records(QueueARN=queue, Entries=entries(again[:1]))["Failed"]
    assert [f["ErrorCode"] for f in failed] == ["ResourceNotFoundException"]


def test_a_poison_record_becomes_a_dead_letter_and_comes_back_when_it_is_restored(kinesis, stream, name):
    dead = {"TargetType": "BUILT_IN", "MaxReceiveCount": 2}
    queue = make_queue(kinesis, stream, name, VisibilityTimeoutSeconds=0, DeadLetterConfiguration=dead)
    kinesis.put_record(StreamARN=stream, Data=b"poison", PartitionKey="k")
    assert [kinesis.receive_queue_records(QueueARN=queue)["QueueRecords"][0]["ReceiveCount"] for _ in range(2)] == [1, 2]
    assert kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    [letter] = kinesis.receive_dead_letter_queue_records(QueueARN=queue, VisibilityTimeoutSeconds=60)["QueueRecords"]
    assert letter["Data"] == b"poison"
    hidden = [dict(entry, VisibilityTimeoutSeconds=120) for entry in entries([letter])]
    assert kinesis.update_dead_letter_queue_records_visibility(QueueARN=queue, Entries=hidden)["Failed"] == []
    assert kinesis.restore_dead_letter_queue_records(QueueARN=queue, Entries=entries([letter]))["Failed"] == []
    [restored] = kinesis.receive_queue_records(QueueARN=queue)["QueueRecords"]
    assert (restored["RecordId"], restored["ReceiveCount"]) == (letter["RecordId"], 1)
    kinesis.receive_queue_records(QueueARN=queue)
    letters = kinesis.receive_dead_letter_queue_records(QueueARN=queue, VisibilityTimeoutSeconds=60)["QueueRecords"]
    assert kinesis.acknowledge_dead_letter_queue_records(QueueARN=queue, Entries=entries(letters))["Failed"] == []


def test_queues_in_cbor(server, stream, name):
    def call(operation, **arguments):
        status, kind, answer = raw.call(server, operation, arguments)
        assert kind == raw.TYPES["cbor"]
        return status, answer

    where = [{"StreamARN": stream, "StartingPosition": {"Type": "TRIM_HORIZON"}}]
    status, made = call("CreateQueue", QueueName=name, StreamConfigurationList=where, Tags={"a": "b"})
    assert status == 200
    queue = made["QueueDescription"]["QueueARN"]
    status, described = call("DescribeQueue", QueueARN=queue)
    assert described["QueueDescription"]["QueueAttributes"]["VisibilityTimeoutSeconds"] == 30
    call("PutRecord", StreamARN=stream, Data=b"\x00\xff", PartitionKey="k")
    status, answer = call("ReceiveQueueRecords", QueueARN=queue, Limit=3, WaitTimeSeconds=5)
    [record] = answer["QueueRecords"]
    assert (record["Data"], record["PartitionKey"], record["ReceiveCount"]) == (b"\x00\xff", "k", 1)
    assert record["FirstReceiveTimestamp"] >= record["ApproximateArrivalTimestamp"]
    status, answer = call("AcknowledgeQueueRecords", QueueARN=queue, Entries=entries([record]))
    assert (status, answer) == (200, {"Failed": [], "Successful": entries([record])})
    status, answer = call("ReceiveQueueRecords", QueueARN=queue, Limit=11)
    assert status == 400 and answer["__type"].endswith("ValidationException")
    status, answer = call("DescribeQueue", QueueARN=queue + "0")
    assert status == 400 and answer["__type"].endswith("ResourceNotFoundException")
    assert [call(name, QueueARN=queue)[0] for name in ("DeleteQueue", "DeleteQueue")] == [200, 400]


def test_another_account_does_not_learn_of_a_queue(server, kinesis, queue):
    key, secret = server.make_key(account="111122223333")
    theirs = server.client("kinesis", access_key=key, secret=secret)
    nowhere = queue[:-1] + ("1" if queue[-1] == "0" else "0")
    given = [{"ReceiptHandle": "x"}]
    hidden = [{"ReceiptHandle": "x", "VisibilityTimeoutSeconds": 1}]
    for call in (
        lambda arn: theirs.describe_queue(QueueARN=arn), lambda arn: theirs.delete_queue(QueueARN=arn),
        lambda arn: theirs.update_queue(QueueARN=arn, QueueAttributes={}),
        lambda arn: theirs.receive_queue_records(QueueARN=arn), lambda arn: theirs.receive_dead_letter_queue_records(QueueARN=arn),
        lambda arn: theirs.acknowledge_queue_records(QueueARN=arn, Entries=given),
        lambda arn: theirs.acknowledge_dead_letter_queue_records(QueueARN=arn, Entries=given),
        lambda arn: theirs.restore_dead_letter_queue_records(QueueARN=arn, Entries=given),
        lambda arn: theirs.update_queue_records_visibility(QueueARN=arn, Entries=hidden),
        lambda arn: theirs.update_dead_letter_queue_records_visibility(QueueARN=arn, Entries=hidden),
        lambda arn: theirs.tag_resource(ResourceARN=arn, Tags={"a": "b"}), lambda arn: theirs.list_tags_for_resource(ResourceARN=arn),
    ):
        told = []
        for arn in (queue, nowhere):
            code, status, message = refusal(lambda: call(arn))
            told.append((code, status, message.replace(arn.split("/")[1], "")))
        assert told[0] == told[1] and told[0][0] == "ResourceNotFoundException"
    assert queue not in [found["QueueARN"] for found in theirs.list_queues()["QueueSummaries"]]
    assert kinesis.describe_queue(QueueARN=queue)


def test_a_key_that_may_receive_may_do_nothing_else(server, stream, queue):
    statement = {"Effect": "Allow", "Action": "kinesis:ReceiveQueueRecords", "Resource": queue}
    key, secret = server.make_key(policy={"Version": "2012-10-17", "Statement": [statement]})
    limited = server.client("kinesis", access_key=key, secret=secret)
    assert limited.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    assert code_of(lambda: limited.acknowledge_queue_records(QueueARN=queue, Entries=[{"ReceiptHandle": "x"}])) == "AccessDeniedException"
    where = [{"StreamARN": stream}]
    assert code_of(lambda: limited.create_queue(QueueName="other", StreamConfigurationList=where)) == "AccessDeniedException"


def test_a_waiting_receiver_is_woken_by_a_record(kinesis, stream, queue):
    woken = {}

    def wait():
        woken["records"] = kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=20)["QueueRecords"]
        woken["at"] = time.monotonic()

    receiver = threading.Thread(target=wait)
    receiver.start()
    kinesis.put_record(StreamARN=stream, Data=b"x", PartitionKey="k")
    put = time.monotonic()
    receiver.join(25)
    assert [record["Data"] for record in woken["records"]] == [b"x"]
    assert woken["at"] - put < 2


def begin_to_wait(server, queue):
    """A connection on which a receiver waits."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    body = raw.write({"QueueARN": queue, "WaitTimeSeconds": 20}, "json")
    connection.request("POST", "/", body, raw._headers(server, "ReceiveQueueRecords", body, "json"))
    return connection


def test_a_receiver_that_hangs_up_takes_no_record(server, kinesis, stream, queue):
    for _ in range(5):
        begin_to_wait(server, queue).close()
    kinesis.put_record(StreamARN=stream, Data=b"x", PartitionKey="k")
    [record] = kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=5)["QueueRecords"]
    assert (record["Data"], record["ReceiveCount"]) == (b"x", 1)


def test_a_server_that_stops_does_not_wait_for_those_who_wait_for_records(own_server, name):
    kinesis = own_server.client("kinesis")
    queue = make_queue(kinesis, make_stream(kinesis, name), name)
    waiting = begin_to_wait(own_server, queue)
    assert kinesis.receive_queue_records(QueueARN=queue, WaitTimeSeconds=1)["QueueRecords"] == []
    began = time.monotonic()
    assert own_server.stop() == 0
    assert time.monotonic() - began < 8
    assert waiting.getresponse().status == 503


class Receivers:
    """Threads that receive and acknowledge; an acknowledgement counts when it was answered."""

    def __init__(self, server, queue, count=4):
        self.server, self.queue = server, queue
        self.received, self.acknowledged, self.twice, self.answers = [], set(), [], itertools.count()
        self.lock, self.over = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self):
        client = self.server.client("kinesis")
        while not self.over.is_set():
            try:
                records = client.receive_queue_records(QueueARN=self.queue, WaitTimeSeconds=1)["QueueRecords"]
                with self.lock:
                    self.received += [record["Data"] for record in records]
                    self.twice += [record["Data"] for record in records if record["Data"] in self.acknowledged]
                # Every fifth answer is lost: those records are to come again.
                if not records or next(self.answers) % 5 == 0:
                    continue
                named = {record["ReceiptHandle"]: record["Data"] for record in records}
                answer = client.acknowledge_queue_records(QueueARN=self.queue, Entries=entries(records))
                with self.lock:
                    self.acknowledged |= {named[done["ReceiptHandle"]] for done in answer["Successful"]}
            except (BotoCoreError, ClientError):
                # Killed, or not there again yet.
                self.over.wait(0.05)
                client = self.server.client("kinesis")

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


def test_a_killed_server_delivers_nothing_that_was_acknowledged_and_loses_nothing(own_server, name):
    kinesis = own_server.client("kinesis")
    stream = make_stream(kinesis, name)
    queue = make_queue(kinesis, stream, name, VisibilityTimeoutSeconds=1, DeadLetterConfiguration={"TargetType": "NONE"})
    wanted = {b"%d" % n for n in range(600)}
    records = [{"Data": data, "PartitionKey": data.decode()} for data in sorted(wanted)]
    kinesis.put_records(StreamARN=stream, Records=records[:300])
    kinesis.put_records(StreamARN=stream, Records=records[300:])
    receivers = Receivers(own_server, queue)
    try:
        for enough in (60, 200, 400):
            eventually(lambda: len(receivers.acknowledged) >= enough, within=60)
            own_server.kill()
            own_server.restart()
        # An acknowledgement whose answer was cut off may hold: that record came, and comes no more.
        eventually(lambda: set(receivers.received) == wanted, within=90)
        eventually(lambda: quiet(receivers), within=60)
    finally:
        receivers.stop()
    # Asked for once the receivers have gone: beside them this call could be the first in the row each time, and take for ever.
    assert own_server.client("kinesis").receive_queue_records(QueueARN=queue, WaitTimeSeconds=2)["QueueRecords"] == []
    assert receivers.twice == [], "a record came again after its acknowledgement was answered"
    assert len(receivers.acknowledged) > 550


def quiet(receivers):
    """Nobody has received anything for longer than a record is hidden."""
    before = len(receivers.received)
    time.sleep(1.5)
    return len(receivers.received) == before
