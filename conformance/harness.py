"""A real server as a child process, and what the tests need to talk to it."""

import atexit
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY = re.compile(r"sightglass ready (https?)://([^:\s]+|\[[^\]]+\]):(\d+)")
START_SECONDS = 60
REGION = "us-west-2"


def binary():
    """The server under test: SIGHTGLASS_BIN, else the debug build of this checkout."""
    return os.environ.get("SIGHTGLASS_BIN", str(ROOT / "target/debug/sightglass"))


def test_data():
    """The folder of captured streams, or None where it is not there."""
    named = os.environ.get("SIGHTGLASS_TEST_DATA")
    candidates = [pathlib.Path(named)] if named else [parent / "shared/data" for parent in ROOT.parents]
    return next((folder for folder in candidates if folder.is_dir()), None)


_servers = []


@atexit.register
def sweep():
    """Deletes what servers that run no more have stored: hundreds of megabytes each. Their logs stay."""
    for server in [server for server in _servers if server.child is None or server.child.poll() is not None]:
        _servers.remove(server)
        shutil.rmtree(server.folder / "data", ignore_errors=True)


class Server:
    """`sightglass serve` in a data directory of its own. Its log is in `log_path`."""

    def __init__(self, data_dir=None, *args, environment=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sightglass-conformance-"))
        self.data_dir = pathlib.Path(data_dir) if data_dir else self.folder / "data"
        self.log_path = self.folder / "server.log"
        self.args = args
        self.listen = "127.0.0.1:0"
        self.environment = dict(os.environ, **(environment or {}))
        self.child = None
        _servers.append(self)
        self.start()

    def start(self):
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(
                [binary(), "serve", "--data-dir", str(self.data_dir), "--listen", self.listen, *self.args],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment)
        lines = queue.Queue()
        threading.Thread(target=lambda: [lines.put(line) for line in self.child.stdout], daemon=True).start()
        try:
            found = READY.search(lines.get(timeout=START_SECONDS))
        except queue.Empty:
            found = None
        if not found:
            self.child.kill()
            raise RuntimeError(f"the server did not become ready:\n{self.log()}")
        self.scheme, self.host, self.port = found.group(1), found.group(2), int(found.group(3))
        self.url = f"{self.scheme}://{self.host}:{self.port}"
        said = subprocess.run([binary(), "env", "--data-dir", str(self.data_dir), "--json"], check=True, capture_output=True, text=True)
        environment = json.loads(said.stdout)
        self.access_key, self.secret = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]

    def log(self):
        return self.log_path.read_text(errors="replace")[-4000:]

    def kill(self):
        """SIGKILL: nothing is drained."""
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def stop(self):
        """SIGTERM; returns the exit code."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                raise
        return self.child.returncode

    def restart(self):
        self.start()

    def rss_kib(self):
        """Resident memory of the server process."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    def client(self, service, *, access_key=None, secret=None, token=None, region=REGION, **config):
        return boto3.client(service, endpoint_url=self.url, region_name=region,
                            aws_access_key_id=access_key or self.access_key, aws_secret_access_key=secret or self.secret,
                            aws_session_token=token, verify=False,
                            config=Config(retries={"total_max_attempts": 1}, read_timeout=30, **config))

    def run(self, *command, check=True):
        """A sightglass command on this server's data directory."""
        name, *rest = command
        return subprocess.run([binary(), name, "--data-dir", str(self.data_dir), *rest], check=check, capture_output=True, text=True)

    def make_key(self, *, account="000000000000", policy=None):
        """Access key id and secret of a new key, known to the running server when this returns."""
        arguments = ["keys", "--json", "create", "--account", account]
        if policy is not None:
            path = self.folder / f"policy-{time.monotonic_ns()}.json"
            path.write_text(json.dumps(policy))
            arguments += ["--policy", str(path)]
        made = json.loads(subprocess.run([binary(), arguments[0], "--data-dir", str(self.data_dir), *arguments[1:]],
                                         check=True, capture_output=True, text=True).stdout)
        key, secret = made["AccessKeyId"], made["SecretAccessKey"]
        sts = self.client("sts", access_key=key, secret=secret)
        eventually(lambda: sts.get_caller_identity()["Account"] == account)
        return key, secret


def refusal(call):
    """Code, status and message of the error that a boto3 call must end in."""
    try:
        answer = call()
    except ClientError as failed:
        error = failed.response
        return error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Message"]
    raise AssertionError(f"it succeeded: {answer}")


def failure(call):
    """Code and status of the error that a boto3 call must end in."""
    return refusal(call)[:2]


def code_of(call):
    """Code of the error that a boto3 call must end in."""
    return refusal(call)[0]


def eventually(check, within=10.0, every=0.02):
    """Waits until `check` is true; an exception counts as not yet. Fails with the last one after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        failure = None
        try:
            value = check()
            if value:
                return value
        except Exception as error:  # whatever it is, it may pass
            failure = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s") from failure
        time.sleep(every)
