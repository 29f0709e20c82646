"""Kinesis Data Streams without an SDK: for CBOR, for HTTP/2, and to see the events of a subscription as they are."""

import hashlib
import http.client
import json
import shutil
import subprocess

import botocore.eventstream

import cbor
import harness
import sigv4

CURL = shutil.which("curl")
TYPES = {"json": "application/x-amz-json-1.1", "cbor": "application/x-amz-cbor-1.1"}


def _headers(server, operation, body, notation):
    date, digest = sigv4.now(), hashlib.sha256(body).hexdigest()
    headers = [("host", f"{server.host}:{server.port}"), ("content-type", TYPES[notation]),
               ("x-amz-target", f"Kinesis_20131202.{operation}"), ("x-amz-date", date)]
    value = sigv4.authorization("POST", "/", headers, digest, server.access_key, server.secret, date, harness.REGION, "kinesis")
    return dict(headers) | {"authorization": value}


def write(arguments, notation):
    return cbor.encode(arguments) if notation == "cbor" else json.dumps(arguments).encode()


def read(body, notation):
    return cbor.decode(body) if notation == "cbor" else json.loads(body)


def call(server, operation, arguments, notation="cbor"):
    """Status, content type and document of an answer."""
    body = write(arguments, notation)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    try:
        connection.request("POST", "/", body, _headers(server, operation, body, notation))
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, answer.headers["content-type"], read(content, notation) if content else None
    finally:
        connection.close()


class Subscription:
    """The messages of SubscribeToShard, over HTTP/1.1 or HTTP/2."""

    def __init__(self, server, arguments, notation="json", http2=False):
        self.notation, self.buffer = notation, botocore.eventstream.EventStreamBuffer()
        body = write(arguments, notation)
        headers = _headers(server, "SubscribeToShard", body, notation)
        self.child = self.connection = None
        if http2:
            lines = [part for name, value in headers.items() if name != "host" for part in ("-H", f"{name}: {value}")]
            self.child = subprocess.Popen([CURL, "-sS", "-N", "--http2-prior-knowledge", *lines, "--data-binary", "@-", server.url + "/"],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.child.stdin.write(body)
            self.child.stdin.close()
            self.status, self.content_type = 200, None
        else:
            self.connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
            self.connection.request("POST", "/", body, headers)
            self.answer = self.connection.getresponse()
            self.status, self.content_type = self.answer.status, self.answer.headers["content-type"]

    def _more(self):
        return self.child.stdout.read1(65536) if self.child else self.answer.read1(65536)

    def __iter__(self):
        while True:
            for message in self.buffer:
                headers = message.headers
                name = headers.get(":event-type") or headers[":exception-type"]
                yield name, headers[":content-type"], read(message.payload, self.notation)
            data = self._more()
            if not data:
                return
            self.buffer.add_data(data)

    def records(self):
        """Each record as it comes; ends with the subscription."""
        for name, _, event in self:
            if name == "SubscribeToShardEvent":
                yield from event["Records"]

    def close(self):
        if self.child:
            self.child.kill()
            self.child.wait()
            self.child.stdout.close()
        else:
            self.connection.close()
