"""The real Kinesis Client Library, in its versions 2 and 3, by polling and by fan-out: fleets of several workers over shards that are split
and merged under load, one worker killed and one added. Every record is seen, in order for each key, and checkpoints follow.

The scenarios run at once against one server: a worker of the library takes half a minute to begin, most of which it waits."""

import collections
import concurrent.futures
import itertools
import shutil
import sys
import threading
import time

import pytest

import harness
from harness import ROOT, eventually

sys.path.append(str(ROOT / "conformance/kcl"))
from worker import Worker  # noqa: E402

KEYS = 20
BATCH_SECONDS = 0.2
# The library is made for fleets of hundreds; these are its settings for the impatient.
QUICK = {"failoverTimeMillis": 3000, "shardSyncIntervalMillis": 2000, "parentShardPollIntervalMillis": 500, "idleTimeBetweenReadsInMillis": 250,
         "schedulerInitializationBackoffTimeMillis": 200, "taskBackoffTimeMillis": 200}
QUICK_3 = {**QUICK, "leaseAssignmentIntervalMillis": 1500, "workerMetricsReporterFreqInMillis": 1000, "metricsBufferTimeMillis": 2000}
SCENARIOS = {
    # Version 2's metrics go to AWS alone: its CloudWatch client knows no other endpoint.
    "kcl-2-polling": (2, {**QUICK, "retrievalMode": "POLLING", "metricsLevel": "NONE"}),
    "kcl-3-polling": (3, {**QUICK_3, "retrievalMode": "POLLING"}),
    "kcl-3-fanout": (3, {**QUICK_3, "retrievalMode": "FANOUT"}),
}


class Writer(threading.Thread):
    """Puts a record for each key again and again; the n-th record of a key says n."""

    def __init__(self, kinesis, stream):
        super().__init__(daemon=True)
        self.kinesis, self.stream, self.rounds, self.ended = kinesis, stream, 0, threading.Event()
        self.failure = None

    def run(self):
        try:
            for number in itertools.count():
                records = [{"Data": str(number).encode(), "PartitionKey": f"key-{key}"} for key in range(KEYS)]
                answer = self.kinesis.put_records(StreamName=self.stream, Records=records)
                assert answer["FailedRecordCount"] == 0, answer
                self.rounds = number + 1
                if self.ended.wait(BATCH_SECONDS):
                    return
        except Exception as failure:
            self.failure = failure

    def stop(self):
        self.ended.set()
        self.join()
        assert self.failure is None, self.failure
        return self.rounds


class Fleet:
    def __init__(self, server, name, version, settings, folder):
        self.server, self.name, self.version, self.settings, self.folder = server, name, version, settings, folder
        self.kinesis, self.dynamodb = server.client("kinesis"), server.client("dynamodb")
        self.workers = {}

    def start(self, worker):
        self.workers[worker] = Worker(self.version, self.server, self.name, self.name, f"{self.name}-{worker}", self.folder, **self.settings)

    def leases(self):
        """The lease table: for each shard what the library keeps."""
        items = self.dynamodb.scan(TableName=self.name, ConsistentRead=True)["Items"]
        return {item["leaseKey"]["S"]: {key: next(iter(value.values())) for key, value in item.items()} for item in items if "leaseKey" in item}

    def owners(self):
        """Who owns the shards that are not at their end."""
        return {shard: lease.get("leaseOwner", "").rpartition("-")[2] for shard, lease in self.leases().items() if lease.get("checkpoint") != "SHARD_END"}

    def knows(self, worker):
        """True when the others count on a worker. With version 2 it owns something then, which may be a shard that is at its end."""
        if self.version == 3:
            return self.dynamodb.get_item(TableName=f"{self.name}-WorkerMetricStats", Key={"wid": {"S": f"{self.name}-{worker}"}}).get("Item")
        return any(lease.get("leaseOwner", "").endswith(f"-{worker}") for lease in self.leases().values())

    def leader(self):
        """Version 3 has one worker that assigns leases; it is followed by another only after two minutes."""
        if self.version == 2:
            return None
        row = self.dynamodb.get_item(TableName=f"{self.name}-CoordinatorState", Key={"key": {"S": "Leader"}}).get("Item")
        return row["ownerName"]["S"].rpartition("-")[2] if row else None

    def notes(self, kind):
        lines = [line for worker in self.workers.values() for line in worker.notes() if line[1] == kind]
        return sorted(lines)

    def seen(self):
        return {(line[3], int(line[5])) for line in self.notes("record")}

    def active(self):
        return self.kinesis.describe_stream_summary(StreamName=self.name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"

    def say(self):
        """What a person wants to see of a failure."""
        return "\n\n".join(f"{name}:\n{worker.log(25)}" for name, worker in self.workers.items())


def shards_of(kinesis, stream):
    return {shard["ShardId"]: shard for shard in kinesis.list_shards(StreamName=stream)["Shards"]}


def run(server, name, folder):
    version, settings = SCENARIOS[name]
    fleet = Fleet(server, name, version, settings, folder)
    kinesis = fleet.kinesis
    kinesis.create_stream(StreamName=name, ShardCount=2)
    eventually(fleet.active)
    writer = Writer(server.client("kinesis"), name)
    writer.start()
    times = {"begin": time.monotonic()}
    try:
        fleet.start("a")
        fleet.start("b")
        eventually(lambda: sorted(fleet.owners().values()) == ["a", "b"], within=120, every=0.5)
        eventually(lambda: {line[2] for line in fleet.notes("record")} >= {"shardId-000000000000", "shardId-000000000001"}, within=60, every=0.5)
        times["shared"] = time.monotonic()
        early = {shard: lease["checkpoint"] for shard, lease in fleet.leases().items()}
        # One is added, and a shard is split under load.
        fleet.start("c")
        kinesis.split_shard(StreamName=name, ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**126))
        eventually(fleet.active)
        eventually(lambda: {"shardId-000000000002", "shardId-000000000003"} <= set(fleet.owners()) and all(fleet.owners().values()), within=60, every=0.5)
        eventually(lambda: fleet.knows("c"), within=60, every=0.5)
        times["added"] = time.monotonic()
        # One that owns something is killed; others take over what it had.
        leader = eventually(fleet.leader, within=30) if version == 3 else None
        victim = eventually(lambda: next((owner for owner in ("b", "a") if owner != leader and owner in fleet.owners().values()), None), within=60, every=0.5)
        fleet.workers[victim].kill()
        eventually(lambda: all(owner and owner != victim for owner in fleet.owners().values()), within=120, every=0.5)
        times["taken over"] = time.monotonic()
        kinesis.merge_shards(StreamName=name, ShardToMerge="shardId-000000000002", AdjacentShardToMerge="shardId-000000000003")
        eventually(fleet.active)
        eventually(lambda: "shardId-000000000004" in fleet.owners() and any(line[2] == "shardId-000000000004" for line in fleet.notes("record")), within=120, every=0.5)
        times["merged"] = time.monotonic()
        rounds = writer.stop()
        everything = {(f"key-{key}", number) for key in range(KEYS) for number in range(rounds)}
        eventually(lambda: fleet.seen() == everything, within=60, every=0.5)
        check_order(fleet)
        check_checkpoints(fleet, early)
        assert {line[1] for line in fleet.workers["c"].notes()} >= {"begin", "record"}, "the added worker got nothing to do"
        times["end"] = time.monotonic()
        return {step: round(at - times["begin"], 1) for step, at in times.items()}, fleet
    except BaseException as failure:
        raise AssertionError(f"{name}: {failure!r} after {times}\n{fleet.say()}") from failure
    finally:
        writer.ended.set()
        for worker in fleet.workers.values():
            worker.stop()


def check_order(fleet):
    """A record may be seen again after a fail-over; what is new comes in the order of its key."""
    next_of = collections.Counter()
    repeated = 0
    for _, _, shard, key, _, data in fleet.notes("record"):
        number = int(data)
        assert number <= next_of[key], (shard, key, number, next_of[key])
        repeated += number < next_of[key]
        next_of[key] += number == next_of[key]
    total = sum(next_of.values())
    assert repeated <= total / 2, f"{repeated} of {total} records were seen again"


def check_checkpoints(fleet, early):
    """Each open shard is checkpointed at the last record that was seen of it, and those at their end say so."""
    last = {}
    for _, _, shard, _, sequence, _ in fleet.notes("record"):
        last[shard] = max(last.get(shard, 0), int(sequence))
    open_shards = {shard for shard, found in shards_of(fleet.kinesis, fleet.name).items() if "EndingSequenceNumber" not in found["SequenceNumberRange"]}
    assert open_shards == {"shardId-000000000001", "shardId-000000000004"}

    def reached():
        leases = fleet.leases()
        return all(leases[shard]["checkpoint"] == str(last[shard]) for shard in open_shards)

    eventually(reached, within=20)
    leases = fleet.leases()
    for shard, lease in leases.items():
        assert shard in open_shards or lease["checkpoint"] == "SHARD_END", lease
    checkpoint = early.get("shardId-000000000001")
    assert not checkpoint.isdigit() or int(checkpoint) < int(leases["shardId-000000000001"]["checkpoint"])


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    if not shutil.which("java"):
        pytest.skip("skipped: no Java to run the Kinesis Client Library")
    server = harness.Server()
    with concurrent.futures.ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield server, {name: pool.submit(run, server, name, tmp_path_factory.mktemp(name)) for name in SCENARIOS}
    assert server.stop() == 0, server.log()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_fleet_sees_every_record_in_order_through_reshards_and_a_killed_worker(running, name):
    times, fleet = running[1][name].result()
    print(name, times)
    tables = fleet.dynamodb.list_tables()["TableNames"]
    expected = {name} if fleet.version == 2 else {name, f"{name}-CoordinatorState", f"{name}-WorkerMetricStats"}
    assert expected <= set(tables)


@pytest.mark.timeout(300)
def test_what_the_library_measures_is_shown(running):
    import urllib.request
    server, runs = running
    runs["kcl-3-polling"].result()
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("client_metric_samples_total") and 'namespace="kcl-3-polling"' in line]
    assert any('metric="RecordsProcessed"' in line and 'dimension_ShardId="shardId-000000000001"' in line for line in lines), lines[:5]
