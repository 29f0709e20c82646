"""`sightglass firehose …`, as a person at a terminal and a program use it."""

import base64
import json
import os
import subprocess

import pytest

from harness import REGION, binary, eventually


@pytest.fixture
def tool(server):
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
                   "AWS_SECRET_ACCESS_KEY": server.secret}

    def run(*arguments, ok=True, stdin=None):
        done = subprocess.run([binary(), "firehose", *map(str, arguments)], capture_output=True, env=environment, timeout=60, text=True, input=stdin)
        assert (done.returncode == 0) == ok, done.stderr + done.stdout
        return done

    return run


@pytest.fixture
def bucket(server, name):
    bucket = name.lower()[-50:].strip("-")
    server.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return bucket


def test_lines_of_standard_input_become_an_object(tool, server, bucket, name):
    made = tool("create", name, "--to", f"s3://{bucket}/lines/", "--buffer-seconds", "1", "--buffer-mb", "1", "--json").stdout
    assert json.loads(made)["DeliveryStreamARN"].endswith(f"deliverystream/{name}")
    assert name in tool("list").stdout.splitlines() and name in json.loads(tool("list", "--json").stdout)
    lines = [json.dumps({"n": n}) for n in range(1200)]
    said = json.loads(tool("put", name, "--newline", "--json", stdin="\n".join(lines)).stdout)
    assert said["records"] == 1200
    s3 = server.client("s3")

    def delivered():
        rows = s3.list_objects_v2(Bucket=bucket, Prefix="lines/").get("Contents", [])
        bodies = [s3.get_object(Bucket=bucket, Key=row["Key"])["Body"].read().decode() for row in rows]
        return "".join(bodies).splitlines() == lines

    eventually(delivered, within=30, every=0.2)
    [row] = [json.loads(line) for line in tool("describe", name, "--json").stdout.splitlines()]
    assert (row["name"], row["status"], row["source"], row["destination"]) == (name, "ACTIVE", "put", f"s3://{bucket}/lines/")
    assert row["lag_seconds"] is not None and row["last_error"] is None
    table = tool("describe").stdout
    assert table.splitlines()[0].split() == ["NAME", "STATUS", "FROM", "TO", "LAG", "WAITING"] and name in table and "\x1b" not in table
    assert "\x1b[" in tool("describe", "--color", "always").stdout
    tool("delete", name)
    assert name not in tool("list").stdout.splitlines()


def test_what_could_not_be_delivered_is_shown_from_the_bucket(tool, server, bucket, name):
    tool("create", name, "--to", f"s3://{bucket}/", "--error-prefix", "errors/!{firehose:error-output-type}/")
    row = {"attemptsMade": 1, "errorCode": "Lambda.FunctionError", "errorMessage": "it said \x1b[2J", "rawData": base64.b64encode(b"a record").decode()}
    server.client("s3").put_object(Bucket=bucket, Key="errors/processing-failed/one", Body=json.dumps(row) + "\n")
    shown = tool("tail-errors", name, "--no-follow").stdout
    assert "Lambda.FunctionError" in shown and "a record" in shown and "\x1b" not in shown
    [error] = [json.loads(line) for line in tool("tail-errors", name, "--no-follow", "--json").stdout.splitlines()]
    assert (error["data"], error["key"]) == ("a record", "errors/processing-failed/one")


def test_errors_say_what_is_wrong(tool, name):
    assert "s3://BUCKET/PREFIX" in tool("create", name, "--to", "results", ok=False).stderr
    assert "ResourceNotFoundException" in tool("delete", name, ok=False).stderr
    assert "ResourceNotFoundException" in tool("put", name, stdin="x\n", ok=False).stderr
