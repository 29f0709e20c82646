"""`aws s3`, unchanged: what people type."""

import os
import pathlib
import subprocess
import sys

import pytest

import harness
from harness import REGION, binary
from s3 import raw

AWS = pathlib.Path(sys.executable).with_name("aws")
MIB = 1 << 20


@pytest.fixture(scope="module")
def aws(server, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_PAGER": "", "AWS_PROFILE": "sightglass", "AWS_DEFAULT_REGION": REGION}
    subprocess.run([binary(), "env", "--data-dir", str(server.data_dir), "--profile", "sightglass"], check=True, env=environment, capture_output=True)

    def run(*arguments, ok=True):
        done = subprocess.run([str(AWS), "s3", *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=120)
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout

    return run


def test_buckets_files_folders_and_links(aws, server, tmp_path):
    aws("mb", "s3://cli-bucket")
    assert "cli-bucket" in aws("ls")
    folder = tmp_path / "clips"
    (folder / "deep er").mkdir(parents=True)
    bodies = {"a.txt": b"one", "deep er/b ü.bin": os.urandom(3 * MIB), "large.bin": os.urandom(20 * MIB + 7)}
    for name, body in bodies.items():
        (folder / name).write_bytes(body)
    aws("cp", folder / "large.bin", "s3://cli-bucket/large.bin")
    listed = aws("ls", "s3://cli-bucket/")
    assert f"{20 * MIB + 7} large.bin" in listed
    aws("cp", "s3://cli-bucket/large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == bodies["large.bin"]
    said = aws("sync", folder, "s3://cli-bucket/clips")
    assert said.count("upload:") == 3
    assert aws("sync", folder, "s3://cli-bucket/clips") == ""
    (folder / "a.txt").write_bytes(b"changed")
    assert aws("sync", folder, "s3://cli-bucket/clips").count("upload:") == 1
    (folder / "a.txt").unlink()
    assert aws("sync", "--delete", folder, "s3://cli-bucket/clips").count("delete:") == 1
    assert "PRE deep er/" in aws("ls", "s3://cli-bucket/clips/")
    assert len(aws("ls", "--recursive", "s3://cli-bucket/").splitlines()) == 3
    aws("sync", "s3://cli-bucket/clips", tmp_path / "down")
    for name in ("deep er/b ü.bin", "large.bin"):
        assert (tmp_path / "down" / name).read_bytes() == bodies[name]
    aws("cp", "s3://cli-bucket/clips/large.bin", "s3://cli-bucket/copied.bin")
    aws("mv", "s3://cli-bucket/copied.bin", "s3://cli-bucket/moved.bin")
    url = aws("presign", "s3://cli-bucket/moved.bin", "--expires-in", "60").strip()
    assert raw("GET", url).data == bodies["large.bin"]
    aws("rb", "s3://cli-bucket", ok=False)
    assert aws("rm", "--recursive", "s3://cli-bucket/clips").count("delete:") == 2
    aws("rb", "--force", "s3://cli-bucket")
    assert "cli-bucket" not in aws("ls")


def test_a_bucket_in_the_host_name(server):
    import boto3
    from botocore.config import Config
    # Not every resolver knows such names: the address is 127.0.0.1, the host in the signature is the bucket's.
    s3 = boto3.client("s3", endpoint_url=f"http://localhost:{server.port}", region_name=REGION, aws_access_key_id=server.access_key,
                      aws_secret_access_key=server.secret, config=Config(s3={"addressing_style": "virtual"}, signature_version="s3v4"))
    server.client("s3").create_bucket(Bucket="in-the-host", CreateBucketConfiguration={"LocationConstraint": REGION})
    url = s3.generate_presigned_url("put_object", Params={"Bucket": "in-the-host", "Key": "a b"})
    assert url.startswith(f"http://in-the-host.localhost:{server.port}/a%20b?")
    direct = url.replace("in-the-host.localhost", "127.0.0.1")
    assert raw("PUT", direct, b"x", {"host": f"in-the-host.localhost:{server.port}"}).status == 200
    plain = server.client("s3")
    assert plain.get_object(Bucket="in-the-host", Key="a b")["Body"].read() == b"x"
    assert harness.failure(lambda: plain.get_object(Bucket="in-the-host", Key="other")) == ("NoSuchKey", 404)
