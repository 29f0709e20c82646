"""Kinesis Data Streams by the AWS SDK for JavaScript, over HTTP/1.1 and over HTTP/2 without TLS; the calls are in javascript/client.js."""

import json
import os
import shutil
import subprocess

import pytest

from harness import REGION, ROOT

FOLDER = ROOT / "conformance/javascript"
FIRST, SECOND, THIRD = (f"shardId-{n:012d}" for n in range(3))


@pytest.fixture(scope="module", autouse=True)
def installed():
    """The SDK needs Node.js 20."""
    node = shutil.which("node")
    if not node or not (FOLDER / "node_modules").is_dir():
        pytest.skip("skipped: no Node.js, or no packages in conformance/javascript (make test installs them)")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        pytest.skip(f"skipped: the SDK needs Node.js 20, this is {version}")


@pytest.fixture(params=["http1", "http2"])
def run(request, server, name):
    def run(scenario):
        environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
                       "AWS_SECRET_ACCESS_KEY": server.secret}
        done = subprocess.run(["node", "client.js", scenario, request.param, name], cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def kinesis(server):
    return server.client("kinesis")


def test_records_are_put_and_read_back(run):
    seen = run("records")
    assert seen["failed"] == 0 and seen["shards"] == [SECOND, FIRST] * 3 + [SECOND]
    assert seen["binary"] == [0, 255, 128] and seen["number"][0] == seen["number"][1]
    assert seen["texts"] == [f"record {n} ü" for n in range(7)] and -1000 < seen["age"] < 60_000


def test_lists_come_in_pages(run, kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=3)
    seen = run("pages")
    assert [len(page) for page in seen["consumers"]] == [2, 2, 1] and sorted(sum(seen["consumers"], [])) == [f"app{n}" for n in range(5)]
    assert seen["listed"] and set(seen["streams"]) == {1}
    assert seen["shards"] == [[FIRST], [SECOND], [THIRD]]


def test_errors_are_the_classes_that_the_sdk_declares(run, kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    seen = run("errors")
    kinds = {what: (kind, status) for what, (kind, _, status, _) in seen.items()}
    assert kinds == {
        "missing": ("ResourceNotFoundException", 400), "again": ("ResourceInUseException", 400), "forged": ("InvalidArgumentException", 400),
        "invalid": ("InvalidArgumentException", 400), "constraint": ("ValidationException", 400), "subscription": ("ResourceNotFoundException", 400)}
    assert all(declared and message for _, declared, _, message in seen.values())


def test_a_subscriber_is_pushed_records_through_a_split(run, kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    seen = run("subscribe")
    assert seen["seen"] == ["0", "1", "2", "3", "low", "high"]
    assert seen["children"] == [[SECOND, [FIRST]], [THIRD, [FIRST]]] and seen["typed"] == "ResourceInUseException"


def test_a_subscriber_learns_that_its_stream_is_gone(run, kinesis, name):
    kinesis.create_stream(StreamName=name, ShardCount=1)
    seen = run("gone")
    assert seen.get("typed"), seen
