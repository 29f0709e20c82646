"""Workers of the real Kinesis Client Library as child processes."""

import pathlib
import os
import shutil
import signal
import subprocess
import sys

from harness import REGION, ROOT

HERE = pathlib.Path(__file__).resolve().parent


def library(version):
    """The folder of the library's wheel, installed once and kept: it has thirty megabytes."""
    folder = ROOT / f".cache/kcl-{version}"
    requirements = HERE / f"requirements-{version}.txt"
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != requirements.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(requirements)], check=True)
        ready.write_text(requirements.read_text())
    return folder


LOGBACK = """<configuration><appender name="E" class="ch.qos.logback.core.ConsoleAppender"><target>System.err</target>
<encoder><pattern>%d [%thread] %-5level %logger{20} - %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="E"/></root></configuration>"""


def credentials(version):
    """Each version has its own word for: look into the environment."""
    if version == 3:
        return {"AwsCredentialsProvider": "DefaultCredentialsProvider"}
    return {"AWSCredentialsProvider": "DefaultAWSCredentialsProviderChain"}


class Worker:
    """One process of a fleet: a Java daemon and, for each of its shards, a Python child."""

    def __init__(self, version, server, stream, application, name, folder, **settings):
        self.name, self.folder = name, pathlib.Path(folder)
        self.log_path, self.ledger = self.folder / f"{name}.log", self.folder / f"{name}.ledger"
        home = library(version)
        properties = {
            "executableName": f"{sys.executable} {HERE / 'processor.py'}", "streamName": stream, "applicationName": application,
            "initialPositionInStream": "TRIM_HORIZON", "regionName": REGION, "workerId": name, "processingLanguage": "python/3",
            **credentials(version),
            "kinesisEndpoint": server.url, "dynamoDBEndpoint": server.url, **settings}
        path = self.folder / f"{name}.properties"
        path.write_text("".join(f"{key} = {value}\n" for key, value in properties.items()))
        logback = self.folder / f"{name}-logback.xml"
        logback.write_text(LOGBACK)
        environment = dict(os.environ, AWS_ACCESS_KEY_ID=server.access_key, AWS_SECRET_ACCESS_KEY=server.secret, AWS_REGION=REGION,
                           AWS_ENDPOINT_URL=server.url, AWS_EC2_METADATA_DISABLED="true", LEDGER=str(self.ledger), PYTHONPATH=str(home))
        # One worker of many on a machine that is shared: a small heap, one collector thread, no second compiler.
        java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ActiveProcessorCount=2", "-cp",
                f"{self.folder}:{home}/amazon_kclpy/jars/*", "software.amazon.kinesis.multilang.MultiLangDaemon",
                "--properties-file", str(path), "--log-configuration", str(logback)]
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(java, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)

    def kill(self):
        """SIGKILL to the daemon; its children see that their input ends."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def stop(self):
        """SIGTERM: the daemon gives its leases back."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def notes(self):
        """What its processors wrote down, in the order of time: when, what, and its words."""
        lines = []
        for path in self.folder.glob(f"{self.ledger.name}.*"):
            # The last line may be cut off by a kill, or be on its way.
            whole = path.read_text().rpartition("\n")[0]
            lines += [(int(line.split(" ")[0]), *line.split(" ")[1:]) for line in whole.splitlines()]
        return sorted(lines)

    def log(self, lines=40):
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
