"""`sightglass tail` and `sightglass records put`, as a person at a terminal and a script use them."""

import base64
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from harness import REGION, binary, eventually

FIRST, SECOND, THIRD = (f"shardId-{n:012d}" for n in range(3))
FACES = {
    "InputInformation": {"KinesisVideo": {"StreamArn": f"arn:aws:kinesisvideo:{REGION}:000000000000:stream/door/1795347223436",
                                          "ProducerTimestamp": 1795347222.98, "FrameOffsetInSeconds": 0.066}},
    "FaceSearchResponse": [{"MatchedFaces": [{"Similarity": 99.25, "Face": {"FaceId": "6a6f", "ExternalImageId": "Ann"}}]}, {"MatchedFaces": []}],
}


@pytest.fixture
def kinesis(server):
    return server.client("kinesis")


@pytest.fixture
def stream(kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    return name


@pytest.fixture
def environment(server):
    return {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret}


@pytest.fixture
def tool(environment):
    def run(*arguments, ok=True, stdin=b"", extra=None):
        done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, env=environment | (extra or {}), timeout=60, input=stdin)
        assert (done.returncode == 0) == ok, (done.stdout[-2000:], done.stderr.decode())
        return done

    return run


class Tail:
    """A `tail` that runs beside the test."""

    def __init__(self, environment, *arguments, **extra):
        self.child = subprocess.Popen([binary(), "tail", *arguments], env=environment | extra, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def lines(self, count, within=20):
        """The next so many lines; none is waited for longer than that."""
        found, deadline = [], time.monotonic() + within
        os.set_blocking(self.child.stdout.fileno(), False)
        buffer = getattr(self, "buffer", b"")
        while len(found) < count:
            while b"\n" in buffer and len(found) < count:
                line, buffer = buffer.split(b"\n", 1)
                found.append(line.decode())
            if len(found) < count:
                assert time.monotonic() < deadline, (found, self.child.poll())
                if select.select([self.child.stdout], [], [], 0.5)[0]:
                    piece = os.read(self.child.stdout.fileno(), 65536)
                    assert piece, ("ended", found, self.child.stderr.read())
                    buffer += piece
        self.buffer = buffer
        return found

    def interrupt(self):
        self.child.send_signal(signal.SIGINT)
        self.child.wait(timeout=10)
        said = self.child.stderr.read()
        self.child.stdout.close()
        self.child.stderr.close()
        return self.child.returncode, said


@pytest.fixture
def tails(environment):
    running = []

    def start(*arguments, **extra):
        running.append(Tail(environment, *arguments, **extra))
        return running[-1]

    yield start
    for tail in running:
        if tail.child.poll() is None:
            tail.child.kill()
            tail.child.wait()


def rows(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def stored(tool, stream, *arguments, since="start"):
    return rows(tool("tail", stream, "--from", since, "--no-follow", "--json", *arguments))


def ready(tail, kinesis, stream):
    """A tail from now on has pinned its place when it shows a record."""

    def probe():
        kinesis.put_record(StreamName=stream, Data=b"probe", PartitionKey="probe")
        return select.select([tail.child.stdout], [], [], 0.3)[0]

    eventually(probe)


def test_a_tail_follows_through_splits_and_merges_in_order(tails, kinesis, stream):
    tail = tails(stream, "--from", "start", "--json")
    put = lambda n: kinesis.put_records(StreamName=stream, Records=[{"Data": json.dumps(n).encode(), "PartitionKey": f"k{k}"} for k in range(8)])
    idle = lambda: kinesis.describe_stream_summary(StreamName=stream)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
    put(0)
    kinesis.split_shard(StreamName=stream, ShardToSplit=FIRST, NewStartingHashKey=str(2**127))
    eventually(idle)
    put(1)
    kinesis.merge_shards(StreamName=stream, ShardToMerge=SECOND, AdjacentShardToMerge=THIRD)
    eventually(idle)
    put(2)
    kinesis.update_shard_count(StreamName=stream, TargetShardCount=5, ScalingType="UNIFORM_SCALING")
    eventually(idle)
    put(3)
    found = [json.loads(line) for line in tail.lines(32)]
    by_key = {}
    for row in found:
        by_key.setdefault(row["partition_key"], []).append(row["data"])
    assert by_key == {f"k{k}": [0, 1, 2, 3] for k in range(8)}
    assert {row["shard"] for row in found} >= {FIRST, SECOND, THIRD} and len({row["sequence_number"] for row in found}) == 32
    put(4)
    assert [json.loads(line)["data"] for line in tail.lines(8)] == [4] * 8
    assert tail.interrupt() == (0, b"")


def test_a_tail_from_now_shows_what_comes_and_one_from_a_time_what_came_since(tails, tool, kinesis, stream):
    kinesis.put_record(StreamName=stream, Data=b"before", PartitionKey="k")
    tail = tails(stream, "--json")
    ready(tail, kinesis, stream)
    kinesis.put_record(StreamName=stream, Data=b"after", PartitionKey="k")
    shown = []
    while "after" not in shown:
        shown.append(json.loads(tail.lines(1)[0])["data"])
    assert set(shown[:-1]) == {"probe"}
    everything = stored(tool, stream)
    middle = everything[-1]["arrival_time"]
    assert everything[0]["data"] == "before"
    late = stored(tool, stream, since=str(middle))
    assert late[-1]["data"] == "after" and all(row["arrival_time"] >= middle for row in late) and late == everything[-len(late):]
    assert stored(tool, stream, since="10m") == everything == stored(tool, stream, since="-1h")
    until = tool("tail", stream, "--from", "start", "--until", str(middle - 0.001), "--json")
    assert "after" not in [row["data"] for row in rows(until)] and rows(until)[0] == everything[0]
    assert [row["data"] for row in stored(tool, stream, "-n", "1")] == ["before"]


def test_records_are_filtered_and_selected_by_json_path(tool, kinesis, stream):
    records = [FACES, FACES | {"FaceSearchResponse": []}, {"temperature": 31, "room": "hall"}, {"temperature": 12, "room": "hall"}, "text", 7]
    for record in records:
        kinesis.put_record(StreamName=stream, Data=json.dumps(record).encode(), PartitionKey="k")
    kinesis.put_record(StreamName=stream, Data=b"\xff\x00 no JSON", PartitionKey="other")
    data = lambda *arguments: [row["data"] for row in stored(tool, stream, *arguments)]
    assert data() == [*records, base64.b64encode(b"\xff\x00 no JSON").decode()]
    assert data("--where", "$.FaceSearchResponse[*].MatchedFaces[?@.Similarity > 95]") == [FACES]
    assert data("--where", "$.FaceSearchResponse[*].MatchedFaces[?@.Similarity > 99.5]") == []
    assert data("--where", "@.room == 'hall'", "--where", "@.temperature > 30") == [records[2]]
    assert data("--filter", "@ == 7") == [7]
    assert len(data("--partition-key", "other")) == 1
    selected = stored(tool, stream, "--select", "$.FaceSearchResponse[*].MatchedFaces[*].Face.ExternalImageId")
    assert [(row["selected"], "data" in row) for row in selected] == [(["Ann"], False)]
    assert tool("tail", stream, "--from", "start", "--no-follow", "--raw", "--where", "@.room").stdout.splitlines() == [json.dumps(r).encode() for r in records[2:4]]
    assert tool("tail", stream, "--from", "start", "--no-follow", "--raw").stdout.endswith(b"\xff\x00 no JSON\n")
    assert b"is no JSON path" in tool("tail", stream, "--where", "$.a >", ok=False).stderr
    assert b"@.temperature > 30" in tool("tail", stream, "--where", "temperature > 30", ok=False).stderr


def on_a_terminal(environment, *arguments):
    """What a command writes on a terminal that is its standard output."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([binary(), *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65_536):
            seen += piece
    except OSError:  # the last one who had it open is gone
        pass
    os.close(ours)
    assert child.wait(timeout=60) == 0, child.stderr.read()
    child.stderr.close()
    return seen.decode()


def test_a_person_sees_colour_unless_it_is_unwanted_and_no_record_steers_the_terminal(environment, kinesis, stream):
    kinesis.put_record(StreamName=stream, Data=json.dumps(FACES).encode(), PartitionKey="k")
    kinesis.put_record(StreamName=stream, Data=b"\x1b[2J\x1b]0;title\x07", PartitionKey="evil\x1b[31m")
    arguments = ["tail", stream, "--from", "start", "--no-follow"]
    coloured = on_a_terminal(environment, *arguments)
    plain = "2026-11-22T11:33:43.046Z door  Ann 99.2 %, unknown"
    assert "\x1b[36mdoor\x1b[0m" in coloured and plain in re.sub(r"\x1b\[\d*m", "", coloured)
    assert "\x1b[2J" not in coloured and "\x1b]" not in coloured and "\x07" not in coloured and "evil\\u{1b}[31m" in coloured
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        shown = on_a_terminal(environment | quiet, *arguments)
        assert "\x1b" not in shown and plain in shown
    assert "\x1b[36m" in on_a_terminal(environment | {"NO_COLOR": ""}, *arguments)
    assert "\x1b[36m" in on_a_terminal(environment | {"NO_COLOR": "1"}, *arguments, "--color", "always")
    assert "\x1b" not in on_a_terminal(environment, *arguments, "--color", "never")
    piped = subprocess.run([binary(), *arguments], env=environment, capture_output=True, check=True, timeout=60)
    assert b"\x1b" not in piped.stdout


def test_a_tail_ends_quietly_with_its_reader_and_says_what_is_wrong(environment, tool, kinesis, stream, name):
    entries = [{"Data": b"x" * 10_000, "PartitionKey": str(n)} for n in range(100)]
    for _ in range(5):
        kinesis.put_records(StreamName=stream, Records=entries)
    piped = subprocess.run(f"'{binary()}' tail {stream} --from start --raw | head -c 10", shell=True, env=environment, capture_output=True, timeout=60)
    assert (piped.stdout, piped.stderr) == (b"x" * 10, b"")
    said = tool("tail", name + "-missing", ok=False).stderr
    assert b"ResourceNotFoundException" in said and b"make the stream first" in said
    assert b"is no time" in tool("tail", stream, "--from", "yesterday", ok=False).stderr
    assert b"cannot reach" in tool("tail", stream, ok=False, extra={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).stderr
    assert b"does not know the access key" in tool("tail", stream, ok=False, extra={"AWS_ACCESS_KEY_ID": "AKIAWRONG"}).stderr
    began = time.monotonic()
    assert tool("tail", stream, "--seconds", "1").stdout == b"" and time.monotonic() - began < 10


def test_a_tail_goes_on_when_the_server_comes_back_and_ends_with_its_stream(own_server, name):
    kinesis = own_server.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=2)
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": own_server.url, "AWS_ACCESS_KEY_ID": own_server.access_key,
                   "AWS_SECRET_ACCESS_KEY": own_server.secret}
    tail = Tail(environment, name, "--from", "start", "--raw")
    kinesis.put_record(StreamName=name, Data=b"one", PartitionKey="k")
    assert tail.lines(1) == ["one"]
    own_server.kill()
    said = tail.child.stderr.readline()
    assert b"trying again" in said
    own_server.listen = f"{own_server.host}:{own_server.port}"
    own_server.start()
    own_server.client("kinesis").put_record(StreamName=name, Data=b"two", PartitionKey="k")
    assert tail.lines(1) == ["two"]
    own_server.client("kinesis").delete_stream(StreamName=name)
    assert tail.child.wait(timeout=20) == 1
    assert b"ResourceNotFoundException" in tail.child.stderr.read()
    tail.child.stdout.close()
    tail.child.stderr.close()


def test_lines_and_files_are_put_in_batches_with_the_keys_that_are_asked_for(tool, kinesis, stream, tmp_path):
    lines = [json.dumps({"camera": f"c{n % 3}", "n": n}) for n in range(1234)]
    summary = rows(tool("records", "put", stream, "--key-path", "$.camera", "--json", stdin="\n".join(lines).encode()))[0]
    assert (summary["records"], summary["unconfirmed"], summary["shards"]) == (1234, 0, {FIRST: 1234})
    assert summary["bytes"] == sum(map(len, lines)) and summary["seconds"] >= 0
    found = stored(tool, stream)
    assert [row["data"]["n"] for row in found] == list(range(1234)) and all(row["partition_key"] == row["data"]["camera"] for row in found)

    def put(*arguments, **more):
        """What a call adds to the stream."""
        before = len(stored(tool, stream))
        tool("records", "put", stream, *arguments, **more)
        return stored(tool, stream)[before:]

    path = tmp_path / "records"
    path.write_bytes(b"one\r\n\ntwo")
    assert [(row["data"], row["partition_key"]) for row in put(path, "--partition-key", "k")] == [("one", "k"), ("two", "k")]
    whole = put(path, "--whole", "--explicit-hash-key", "0")
    assert [(row["data"], row["encoding"]) for row in whole] == [("one\r\n\ntwo", "text")]
    spread = put("--data", "a", "--data", "", "--data", "-b")
    assert [row["data"] for row in spread] == ["a", "", "-b"] and len({row["partition_key"] for row in spread}) == 3
    assert put("--base64", stdin=base64.b64encode(b"\xff\x00") + b"\n")[0]["data"] == base64.b64encode(b"\xff\x00").decode()
    assert put(stdin=b"") == []


def test_records_that_a_shard_refuses_are_put_again_and_what_cannot_be_put_fails(tool, server, kinesis, stream, name, tmp_path):
    good, bad = json.dumps({"k": "a"}), json.dumps({"other": 1})
    done = tool("records", "put", stream, "--key-path", "$.k", "--json", stdin=f"{good}\n{good}\n{bad}\n{good}\n".encode(), ok=False)
    assert b"line 3: --key-path leads nowhere" in done.stderr and rows(done)[0]["records"] == 2
    assert len(stored(tool, stream)) == 2
    done = tool("records", "put", name + "-missing", "--data", "x", "--json", ok=False)
    assert b"make the stream first" in done.stderr and (rows(done)[0]["records"], rows(done)[0]["unconfirmed"]) == (0, 1)
    assert b"Base64" in tool("records", "put", stream, "--base64", "--data", "?", ok=False).stderr
    assert b"No such file" in tool("records", "put", stream, tmp_path / "missing", ok=False).stderr
    assert b"no hash key" in tool("records", "put", stream, "--data", "x", "--explicit-hash-key", "340282366920938463463374607431768211456", ok=False).stderr
    big = tmp_path / "big"
    big.write_bytes(b"x" * (2 << 20))
    assert b"Exception" in tool("records", "put", stream, big, ok=False).stderr
    away = tool("records", "put", stream, "--data", "x", "--give-up-after", "1", ok=False, extra={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}).stderr
    assert b"cannot reach" in away and b"1 records were not stored" in away


def test_a_shard_that_takes_no_more_gets_the_rest_later(tmp_path, name):
    import harness

    config = tmp_path / "config.toml"
    config.write_text("[data_streams]\nshard_limits = true\n")
    server = harness.Server(None, "--config", str(config))
    try:
        kinesis = server.client("kinesis")
        kinesis.create_stream(StreamName=name, ShardCount=1)
        environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
                       "AWS_SECRET_ACCESS_KEY": server.secret}
        lines = "".join(f"{n}\n" for n in range(2500)).encode()
        done = subprocess.run([binary(), "records", "put", name, "--partition-key", "k", "--json"], env=environment, input=lines, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["records"] == 2500 and summary["sent_again"] > 0 and b"ProvisionedThroughputExceededException" in done.stderr
        read = subprocess.run([binary(), "tail", name, "--from", "start", "--no-follow", "--json"], env=environment, capture_output=True, timeout=60)
        assert sorted(json.loads(line)["data"] for line in read.stdout.splitlines()) == list(range(2500))
    finally:
        assert server.stop() == 0


def test_a_pipe_that_stays_open_is_put_as_it_comes_and_ctrl_c_ends_it(environment, tool, stream):
    child = subprocess.Popen([binary(), "records", "put", stream, "--json"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdin.write(b"now\n")
    child.stdin.flush()
    eventually(lambda: [row["data"] for row in stored(tool, stream)] == ["now"])
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=10) == 0, child.stderr.read()
    assert json.loads(child.stdout.read())["records"] == 1
    for pipe in (child.stdin, child.stdout, child.stderr):
        pipe.close()
