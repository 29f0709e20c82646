"""The Rust consumer library and record producer, as their examples use them, against a real server with its real tables:
cold start, workers that come and are killed, hand-offs, splits and merges under load."""

import base64
import collections
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

import harness
from harness import eventually

LEASE = 3.0


def example(name):
    path = pathlib.Path(harness.binary()).parent / "examples" / name
    if not path.exists():
        pytest.skip("the examples are not built beside the server")
    return str(path)


def environment(server, trust=None):
    trusted = {"SSL_CERT_FILE": str(trust)} if trust else {}
    return dict(os.environ, **trusted, AWS_ACCESS_KEY_ID=server.access_key, AWS_SECRET_ACCESS_KEY=server.secret,
                AWS_REGION=harness.REGION, AWS_ENDPOINT_URL=server.url)


class Worker:
    """The example `consume` as a process; notes each record and when it came."""

    def __init__(self, server, stream, table, name, *options, trust=None):
        self.name, self.started, self.records, self.said = name, time.monotonic(), [], []
        self.child = subprocess.Popen(
            [example("consume"), stream, table, "--json", "--worker", name, "--lease", str(LEASE), *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(server, trust))
        self.threads = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._listen, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _read(self):
        for line in self.child.stdout:
            self.records.append((time.monotonic(), json.loads(line)))

    def _listen(self):
        self.said.extend(self.child.stderr)

    def kill(self):
        self.child.kill()
        self._end()

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        assert self.child.wait(timeout=30) == 0, self.said
        self._end()

    def _end(self):
        self.child.wait()
        for thread in self.threads:
            thread.join(timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.kill()


class Load:
    """Numbered records under some keys, put until it is stopped."""

    def __init__(self, server, stream):
        self.kinesis, self.stream, self.put, self.ended = server.client("kinesis"), stream, collections.Counter(), False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.failure = None

    def batch(self, count=20):
        entries = []
        for n in range(count):
            key = f"door-{(sum(self.put.values()) + n) % 13}"
            entries.append({"PartitionKey": key, "Data": f"{key} {self.put[key]}".encode()})
            self.put[key] += 1
        assert self.kinesis.put_records(StreamName=self.stream, Records=entries)["FailedRecordCount"] == 0

    def _run(self):
        try:
            while not self.ended:
                self.batch()
                time.sleep(0.05)
        except Exception as failure:  # told by the test's own thread
            self.failure = failure

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.ended = True
        self.thread.join()
        assert self.failure is None, self.failure


def seen(*workers):
    """Every record that was printed, in the order in which the workers had them: key and number."""
    records = [record for worker in workers for _, record in list(worker.records)]
    numbered = [(record["at"], *base64.b64decode(record["data"]).decode().split()) for record in records]
    return [(key, number) for _, number, key in sorted((at, int(number), key) for at, key, number in numbered)]


def all_seen(load, *workers):
    wanted = {(key, n) for key, count in load.put.items() for n in range(count)}
    return set(seen(*workers)) >= wanted


def assert_in_order(*workers):
    """Each worker's own records of a key rise but where it began again; nobody sees one before all older ones were."""
    after = collections.Counter()
    for key, number in seen(*workers):
        assert number <= after[key], (key, number, after[key])
        after[key] = max(after[key], number + 1)


@pytest.fixture
def stream(server, name):
    kinesis = server.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=4)
    yield name
    kinesis.delete_stream(StreamName=name, EnforceConsumerDeletion=True)


@pytest.mark.parametrize("options", [[], ["--fan-out", "faces"]], ids=["polling", "fan-out"])
def test_the_first_record_comes_within_three_seconds_of_a_cold_start(server, stream, options):
    load = Load(server, stream)
    load.batch(100)
    with Worker(server, stream, f"{stream}-cold", "a", *options) as worker:
        eventually(lambda: all_seen(load, worker), within=10)
        first = worker.records[0][0] - worker.started
        print(f"first record {first:.2f} s after the process was started")
        assert first < 3
        worker.stop()
    assert len(worker.records) == 100


def test_workers_share_by_hand_off_without_repeating_and_a_killed_one_is_missed_soon(server, stream):
    table = f"{stream}-fleet"
    with Load(server, stream) as load, Worker(server, stream, table, "a") as a:
        eventually(lambda: len(a.records) > 100)
        with Worker(server, stream, table, "b") as b:
            eventually(lambda: len(owners(server, table).get("b", [])) == 2, within=20)
            eventually(lambda: len(b.records) > 50)
            with Worker(server, stream, table, "c") as c:
                # One of four leases: a and b keep three among them.
                eventually(lambda: len(owners(server, table).get("c", [])) == 1, within=20)
                eventually(lambda: len(c.records) > 10)
                c.stop()
            b.stop()
            eventually(lambda: len(owners(server, table).get("a", [])) == 4, within=20)
            with Worker(server, stream, table, "d") as d:
                eventually(lambda: len(owners(server, table).get("d", [])) == 2, within=40)
                eventually(lambda: len(d.records) > 50)
                together = seen(a, b, c, d)
                assert len(together) == len(set(together)), "a planned move repeats nothing"
                lost = set(owners(server, table)["a"])
                a.kill()
                killed = time.monotonic()
                eventually(lambda: lost <= {record["shard"] for at, record in list(d.records) if at > killed}, within=2 * LEASE)
                print(f"a killed worker's shards were read again after {time.monotonic() - killed:.1f} s, a lease being {LEASE} s")
                load.stop()
                eventually(lambda: all_seen(load, a, b, c, d))
                d.stop()
    assert_in_order(a, b, c, d)


def owners(server, table):
    """Shards that are not done with, by who reads them."""
    found = collections.defaultdict(list)
    for item in server.client("dynamodb").scan(TableName=table)["Items"]:
        if "leaseOwner" in item and "checkpointOwner" not in item and item["checkpoint"]["S"] != "SHARD_END":
            found[item["leaseOwner"]["S"]].append(item["leaseKey"]["S"])
    return found


def test_splits_and_merges_under_load_lose_repeat_and_reorder_nothing(server, stream):
    kinesis, table = server.client("kinesis"), f"{stream}-reshard"

    def open_shards():
        shards = kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"})["Shards"]
        return sorted(shards, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    with Load(server, stream) as load, Worker(server, stream, table, "a") as a, Worker(server, stream, table, "b") as b:
        for round in range(3):
            for shard in open_shards()[:3]:
                low, high = (int(shard["HashKeyRange"][end]) for end in ("StartingHashKey", "EndingHashKey"))
                kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str((low + high) // 2))
            for _ in range(3):
                one, other = open_shards()[1:3]
                kinesis.merge_shards(StreamName=stream, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"])
            # Both go on before the next round.
            before = len(a.records) + len(b.records)
            eventually(lambda: len(a.records) + len(b.records) > before + 20, within=20)
        load.stop()
        eventually(lambda: all_seen(load, a, b), within=20)
        a.stop()
        b.stop()
    together = seen(a, b)
    assert len(together) == len(set(together))
    assert_in_order(a, b)
    rows = server.client("dynamodb").scan(TableName=table)["Items"]
    assert {shard["ShardId"] for shard in open_shards()} <= {row["leaseKey"]["S"] for row in rows}


def test_lines_go_in_packed_and_come_out_one_by_one_in_order(server, stream):
    lines = [f"door-{n % 7} {n // 7}" for n in range(7000)]
    done = subprocess.run([example("produce"), stream], input="\n".join(lines), text=True, capture_output=True,
                          env=environment(server), timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7000 records stored as "), done.stdout
    packed = int(done.stdout.split(" as ")[1].split()[0])
    assert packed < 700, done.stdout
    with Worker(server, stream, f"{stream}-packed", "a") as worker:
        eventually(lambda: len(worker.records) == 7000)
        worker.stop()
    assert sorted(seen(worker)) == sorted((line.split()[0], int(line.split()[1])) for line in lines)
    assert_in_order(worker)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_over_tls_records_are_sent_in_the_version_that_the_server_chooses(authority, tmp_path, name, http2):
    # What the two agree on by ALPN is what the server then speaks on that connection.
    config = tmp_path / "sightglass.toml"
    config.write_text(f"[tls]\nprefer_http2 = {str(http2).lower()}\n")
    server = harness.Server(None, "--config", str(config), "--tls-cert", str(authority.certificate), "--tls-key", str(authority.key))
    try:
        server.client("kinesis").create_stream(StreamName=name, ShardCount=2)
        load = Load(server, name)
        load.batch(100)
        with Worker(server, name, f"{name}-table", "a", "--fan-out", "faces", trust=authority.ca) as worker:
            eventually(lambda: all_seen(load, worker))
            load.batch(100)
            eventually(lambda: all_seen(load, worker))
            worker.stop()
        assert len(worker.records) == 200
        assert not any("fan-out" in line for line in worker.said)
    finally:
        server.stop()
