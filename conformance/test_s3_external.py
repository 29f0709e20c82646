"""A bucket that lies in another S3 (SeaweedFS): the suite of the bucket trait, and what the server says of it."""

import os
import subprocess

import pytest

import harness
from harness import failure


def test_the_bucket_trait_is_the_same_there(weed):
    weed.client("s3").create_bucket(Bucket="cold-there")
    done = subprocess.run(["cargo", "test", "--workspace", "--test", "store", "the_suite_holds_for_a_bucket_of_another_s3", "--", "--nocapture"], cwd=harness.ROOT,
                          capture_output=True, text=True, env=dict(os.environ, SIGHTGLASS_TEST_S3=f"{weed.url},cold-there,{weed.access_key},{weed.secret}"))
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout + done.stderr


def test_our_own_port_says_where_such_a_bucket_lies(weed, tmp_path):
    configuration, key = weed.configuration("cold", "cold-there")
    config = tmp_path / "sightglass.toml"
    config.write_text(configuration)
    server = harness.Server(None, "--config", str(config), environment=key)
    try:
        s3 = server.client("s3")
        for call in (lambda: s3.put_object(Bucket="cold", Key="a", Body=b""), lambda: s3.get_object(Bucket="cold", Key="a"), lambda: s3.create_bucket(Bucket="cold")):
            code, status, message = harness.refusal(call)
            assert (code, status) == ("InvalidRequest", 400) and weed.url in message
        assert failure(lambda: s3.head_bucket(Bucket="cold"))[1] == 400
    finally:
        assert server.stop() == 0
