"""Applications that run, with the real worker: two streams in, counts out, while they are stopped, updated, rolled back, and killed in mid-window."""

import json
import time

import pytest

import analytics
from analytics import configuration, create, describe, reach, stream_arn, stream_input, stream_output
from harness import REGION, code_of, eventually, refusal

WHY_NOT = analytics.no_applications()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

COLUMNS = (("door", "VARCHAR(16)"), ("at", "TIMESTAMP(3)"))
COUNT = ("CREATE VIEW seen AS SELECT door, at FROM FACES_001 UNION ALL SELECT door, at FROM BADGES_001;\n"
         "INSERT INTO COUNTS SELECT window_start, door, COUNT(*) FROM TABLE(TUMBLE(TABLE seen, DESCRIPTOR(at), INTERVAL '10' SECOND)) GROUP BY window_start, window_end, door")
# Two tables, each with the time of events; a view of both has it too.
PROPERTIES = {"sightglass.input.FACES": {"rowtime": "at"}, "sightglass.input.BADGES": {"rowtime": "at"},
              "sightglass.output.COUNTS": {"columns": "window_start TIMESTAMP(3), door STRING, n BIGINT"},
              "sightglass.application": {"checkpoint_interval_ms": "200"}}


class Doors:
    """A server's application and its streams."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.streams = {kind: f"{name}-{kind}" for kind in ("faces", "badges", "counts")}
        self.connect()
        for stream in self.streams.values():
            self.kinesis.create_stream(StreamName=stream, ShardCount=1)

    def connect(self):
        self.client, self.kinesis = self.server.client("kinesisanalyticsv2"), self.server.client("kinesis")

    def create(self, code=COUNT, **more):
        return create(self.client, self.name, ApplicationConfiguration=configuration(
            code, [stream_input("FACES", self.streams["faces"], *COLUMNS), stream_input("BADGES", self.streams["badges"], *COLUMNS)],
            [stream_output("COUNTS", self.streams["counts"])], properties=PROPERTIES, **more))

    def start(self, **run):
        positions = [{"InputId": one, "InputStartingPositionConfiguration": {"InputStartingPosition": "TRIM_HORIZON"}} for one in ("1.1", "1.2")]
        started = self.client.start_application(ApplicationName=self.name, RunConfiguration=run or {"SqlRunConfigurations": positions})
        reach(self.client, self.name, "RUNNING")
        return started["OperationId"]

    def stop(self):
        self.client.stop_application(ApplicationName=self.name)
        reach(self.client, self.name, "READY")

    def put(self, second, *doors):
        """One person at each door, in both streams."""
        for kind in ("faces", "badges"):
            records = [{"Data": json.dumps({"door": door, "at": f"2026-01-02 03:{second // 60:02}:{second % 60:02}.500"}), "PartitionKey": "k"} for door in doors]
            assert self.kinesis.put_records(StreamName=self.streams[kind], Records=records)["FailedRecordCount"] == 0

    def rows(self):
        """Everything that was written, in its order."""
        shard = self.kinesis.list_shards(StreamName=self.streams["counts"])["Shards"][0]["ShardId"]
        iterator = self.kinesis.get_shard_iterator(StreamName=self.streams["counts"], ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        return [json.loads(record["Data"]) for record in self.kinesis.get_records(ShardIterator=iterator)["Records"]]

    def counts(self):
        """Door and number of each row, by window."""
        return sorted((row["window_start"][14:19], row["door"], row["n"]) for row in self.rows())

    def has(self, *counts):
        wanted = sorted(counts)
        eventually(lambda: self.counts() == wanted, within=30)

    def told(self):
        more = describe(self.client, self.name, IncludeAdditionalDetails=True)["ApplicationConfigurationDescription"]["FlinkApplicationConfigurationDescription"]
        return json.loads(more["JobPlanDescription"])["worker"]

    def has_read(self, records):
        """Waits until what was read is in a checkpoint."""
        eventually(lambda: self.told()["records_in"] >= records, within=30)
        last = self.told()["checkpoint"]
        eventually(lambda: self.told()["checkpoint"] > last, within=30)

    def operation(self, id):
        return self.client.describe_application_operation(ApplicationName=self.name, OperationId=id)["ApplicationOperationInfoDetails"]


@pytest.fixture
def doors(server, name):
    made = Doors(server, name)
    yield made
    state = describe(made.client, name)["ApplicationStatus"]
    if state not in ("READY", "RUNNING"):
        made.client.stop_application(ApplicationName=name, Force=True)
    analytics.delete(made.client, name)


def test_two_streams_are_counted_by_window_and_a_stop_loses_nothing(doors):
    doors.create()
    id = doors.start()
    assert doors.operation(id)["OperationStatus"] == "SUCCESSFUL"
    doors.put(1, "north", "south")
    doors.put(12, "north")
    doors.has(("03:00", "north", 2), ("03:00", "south", 2))
    doors.stop()
    snapshots = doors.client.list_application_snapshots(ApplicationName=doors.name)["SnapshotSummaries"]
    assert [(one["SnapshotStatus"], one["ApplicationVersionId"], one["RuntimeEnvironment"]) for one in snapshots] == [("READY", 1, "SQL-1_0")]
    # While nothing runs somebody passes; the window that was half counted is finished.
    doors.put(13, "north", "west")
    doors.start(ApplicationRestoreConfiguration={"ApplicationRestoreType": "RESTORE_FROM_LATEST_SNAPSHOT"})
    doors.put(25, "north")
    doors.has(("03:00", "north", 2), ("03:00", "south", 2), ("03:10", "north", 4), ("03:10", "west", 2))
    assert doors.told()["errors"] == 0


def test_a_snapshot_is_gone_back_to_and_an_update_is_rolled_back(doors):
    doors.create()
    doors.start()
    doors.put(1, "north")
    doors.has_read(2)
    doors.client.create_application_snapshot(ApplicationName=doors.name, SnapshotName="early")
    eventually(lambda: doors.client.describe_application_snapshot(ApplicationName=doors.name, SnapshotName="early")["SnapshotDetails"]["SnapshotStatus"] == "READY", within=30)
    doors.put(2, "north")
    doors.put(11, "south")
    doors.has(("03:00", "north", 4))
    doors.stop()
    doors.start(ApplicationRestoreConfiguration={"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT", "SnapshotName": "early"})
    # From the snapshot on everything is read once more: the window is counted again, to the same number.
    doors.has(("03:00", "north", 4), ("03:00", "north", 4))
    update = {"ApplicationCodeConfigurationUpdate": {"CodeContentUpdate": {"TextContentUpdate": COUNT.replace("door, COUNT(*)", "UPPER(door), COUNT(*)")}}}
    doors.client.update_application(ApplicationName=doors.name, CurrentApplicationVersionId=1, ApplicationConfigurationUpdate=update)
    reach(doors.client, doors.name, "RUNNING")
    doors.put(12, "south")
    doors.put(21, "x")
    eventually(lambda: any(door == "SOUTH" for _, door, _ in doors.counts()), within=30)
    told = doors.client.rollback_application(ApplicationName=doors.name, CurrentApplicationVersionId=2)["ApplicationDetail"]
    assert told["ApplicationVersionId"] == 3 and told["ApplicationVersionRolledBackTo"] == 1
    reach(doors.client, doors.name, "RUNNING")
    doors.put(31, "y")
    eventually(lambda: ("03:20", "x", 2) in doors.counts(), within=30)
    summaries = doors.client.list_application_versions(ApplicationName=doors.name)["ApplicationVersionSummaries"]
    assert [(one["ApplicationVersionId"], one["ApplicationStatus"]) for one in summaries] == [(3, "RUNNING"), (2, "ROLLED_BACK"), (1, "RUNNING")]
    created = doors.client.describe_application_snapshot(ApplicationName=doors.name, SnapshotName="early")["SnapshotDetails"]["SnapshotCreationTimestamp"]
    doors.client.delete_application_snapshot(ApplicationName=doors.name, SnapshotName="early", SnapshotCreationTimestamp=created)
    assert code_of(lambda: doors.client.describe_application_snapshot(ApplicationName=doors.name, SnapshotName="early")) == "ResourceNotFoundException"


def test_statements_that_cannot_be_are_refused_with_their_place(doors):
    for code, word in (("INSERT INTO COUNTS SELECT window_start,\n nowhere FROM FACES_001", "nowhere"), ("SELEC 1", "line 1"),
                       ("INSERT INTO COUNTS SELECT door, door, door FROM FACES_001", "TIMESTAMP"), ("INSERT INTO NOWHERE SELECT * FROM FACES_001", "NOWHERE")):
        got, status, message = refusal(lambda: doors.create(code))
        assert (got, status) == ("CodeValidationException", 400) and "line " in message and word in message, (code, got, message)
    doors.create()
    for wrong in ("SELECT", "INSERT INTO COUNTS SELECT 1"):
        update = {"ApplicationCodeConfigurationUpdate": {"CodeContentUpdate": {"TextContentUpdate": wrong}}}
        got, _, message = refusal(lambda: doors.client.update_application(ApplicationName=doors.name, CurrentApplicationVersionId=1, ApplicationConfigurationUpdate=update))
        assert got == "CodeValidationException" and "line 1" in message
    assert describe(doors.client, doors.name)["ApplicationVersionId"] == 1


def test_records_that_do_not_fit_go_to_the_error_stream_with_the_reason(doors):
    errors = f"{doors.name}-errors"
    doors.kinesis.create_stream(StreamName=errors, ShardCount=1)
    doors.create()
    doors.client.add_application_output(ApplicationName=doors.name, CurrentApplicationVersionId=1, Output=stream_output("error_stream", errors))
    doors.start()
    doors.kinesis.put_record(StreamName=doors.streams["faces"], Data=b"no json", PartitionKey="k")
    doors.put(1, "north")
    doors.put(11, "north")
    doors.has(("03:00", "north", 2))
    shard = doors.kinesis.list_shards(StreamName=errors)["Shards"][0]["ShardId"]
    iterator = doors.kinesis.get_shard_iterator(StreamName=errors, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    [record] = eventually(lambda: doors.kinesis.get_records(ShardIterator=iterator)["Records"])
    assert b"FACES_001" in record["Data"]


def test_an_application_outlives_a_server_that_is_killed_in_mid_window(own_server):
    doors = Doors(own_server, "doors")
    doors.create()
    doors.start()
    wanted = []
    for window in range(3):
        doors.put(window * 10 + 1, "north", "south")
        doors.has_read(4 if window == 0 else 1)
        own_server.kill()
        own_server.restart()
        doors.connect()
        reach(doors.client, "doors", "RUNNING")
        doors.put(window * 10 + 5, "north")
        doors.put(window * 10 + 11, "closer")
        minute = f"03:{window * 10:02}"
        wanted += [(minute, "north", 4), (minute, "south", 2)] + ([(minute, "closer", 2)] if window else [])
        doors.has(*wanted)
    doors.stop()
    time_left = own_server.stop()
    assert time_left == 0, own_server.log()
    assert "panicked" not in own_server.log()


def test_what_is_gone_from_under_an_application_is_told_and_mended(doors):
    doors.create()
    doors.start()
    doors.put(1, "north")
    doors.has_read(2)
    doors.kinesis.delete_stream(StreamName=doors.streams["counts"])
    doors.put(12, "north")
    eventually(lambda: doors.told()["last_failure"], within=30)
    assert describe(doors.client, doors.name)["ApplicationStatus"] == "RUNNING"
    eventually(lambda: doors.kinesis.create_stream(StreamName=doors.streams["counts"], ShardCount=1) is not None)
    doors.has(("03:00", "north", 2))
