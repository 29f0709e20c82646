"""Firehose into a bucket of another S3 (SeaweedFS), which is killed in the middle of an upload, and so are we: every record that
was acknowledged is in exactly one object there."""

import base64
import collections
import os
import socket
import threading

import pytest

import harness
from harness import eventually
from test_firehose_delivery import destination, lines


class Between:
    """Hands bytes on between our server and the other S3, and at a number of bytes of uploads does something first."""

    def __init__(self, port):
        self.there, self.left, self.deed, self.done = ("127.0.0.1", port), 0, None, threading.Event()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def after(self, count, deed):
        with self.lock:
            self.left, self.deed = count, deed
            self.done.clear()

    def accept(self):
        while True:
            try:
                ours, _ = self.listener.accept()
            except OSError:
                return
            try:
                theirs = socket.create_connection(self.there)
            except OSError:
                ours.close()
                continue
            for pair in ((ours, theirs, True), (theirs, ours, False)):
                threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source, sink, counted):
        try:
            while block := source.recv(1 << 14):
                if counted:
                    self.count(len(block))
                sink.sendall(block)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def count(self, size):
        with self.lock:
            deed = None
            if self.deed:
                self.left -= size
                if self.left <= 0:
                    deed, self.deed = self.deed, None
        if deed:
            deed()
            self.done.set()


@pytest.fixture(scope="module")
def between(weed):
    made = Between(int(weed.url.rsplit(":", 1)[1]))
    yield made
    made.listener.close()


@pytest.fixture(scope="module")
def ours(weed, between, tmp_path_factory):
    """Our server, whose bucket `films` lies in the other S3."""
    weed.client("s3").create_bucket(Bucket="films-there")
    text, key = weed.configuration("films", "films-there")
    config = tmp_path_factory.mktemp("ours") / "sightglass.toml"
    config.write_text(text.replace(weed.url, f"http://127.0.0.1:{between.port}"))
    server = harness.Server(None, "--config", str(config), environment=key)
    try:
        yield server
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("whom", ["the other", "ours"])
def test_whoever_is_killed_in_mid_upload_each_record_is_in_one_object(ours, weed, between, name, whom):
    ours.client("firehose").create_delivery_stream(
        DeliveryStreamName=name, ExtendedS3DestinationConfiguration=dict(destination("films", seconds=1, Prefix=f"{name}/"),
                                                                         BufferingHints={"SizeInMBs": 16, "IntervalInSeconds": 1}))
    put = []
    for number, offset in enumerate((1, 500_000, 2_500_000, 4_000_000)):
        between.after(offset, weed.kill if whom == "the other" else ours.kill)
        records = [f"{number}-{index:04d}-{base64.b64encode(os.urandom(6000)).decode()}" for index in range(500)]
        answer = ours.client("firehose").put_record_batch(DeliveryStreamName=name, Records=[{"Data": f"{record}\n".encode()} for record in records])
        assert answer["FailedPutCount"] == 0
        put += records
        assert between.done.wait(60)
        if whom == "the other":
            weed.start()
            weed.answers()
        else:
            ours.restart()
        s3 = weed.client("s3")
        eventually(lambda: not set(put) - set(lines(s3, "films-there", f"{name}/")), within=90, every=0.5)
    counts = collections.Counter(lines(s3, "films-there", f"{name}/"))
    assert set(counts) == set(put) and set(counts.values()) == {1}
