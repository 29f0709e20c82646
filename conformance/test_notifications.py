"""Notifications of tagged fragments: configured by boto3, received by an HTTP server of the test's own, also after the
server was killed between PERSISTED and delivery."""

import http.server
import json
import queue
import ssl
import threading

import pytest

import harness
import mkv
from media import list_fragments, make_stream
from putmedia import persisted, put

TOPIC = f"arn:aws:sns:{harness.REGION}:000000000000:door"
START_MS = 1795347223000


class Receiver:
    """Takes what is posted; answers what the test says."""

    def __init__(self, certificate=None):
        self.requests, self.answers = queue.Queue(), queue.Queue()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                try:
                    status = receiver.answers.get_nowait()
                except queue.Empty:
                    status = 200
                receiver.requests.put((self.path, dict(self.headers), json.loads(body)))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self, within=20):
        path, headers, envelope = self.requests.get(timeout=within)
        return path, {name.lower(): value for name, value in headers.items()}, envelope

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    started = Receiver()
    yield started
    started.close()


def start(folder, port):
    config = folder / "sightglass.toml"
    config.write_text(f'[topics]\n"{TOPIC}" = "http://127.0.0.1:{port}/hooks/door"\n')
    return harness.Server(folder / "data", "--config", str(config))


@pytest.fixture
def told(receiver, tmp_path):
    """A server whose topic goes to the receiver."""
    server = start(tmp_path, receiver.port)
    yield server
    if server.child.poll() is None:
        assert server.stop() == 0, server.log()


def body(*fragments):
    """Fragments as (milliseconds, tags)."""
    made = mkv.header()
    for time, tags in fragments:
        made += mkv.cluster(time, mkv.block(b"frame", 0), mkv.block(b"frame", 40))
        made += b"".join(mkv.tag(name, value) for name, value in tags) + mkv.tag(mkv.END_OF_FRAGMENT)
    return made


NOTIFY = ("AWS_KINESISVIDEO_NOTIFICATION", "")


def enable(server, name, topic=TOPIC, status="ENABLED"):
    server.client("kinesisvideo").update_notification_configuration(
        StreamName=name, NotificationConfiguration={"Status": status, "DestinationConfig": {"Uri": topic}})


def test_a_tagged_fragment_is_told_in_the_envelope_of_sns(told, receiver, name):
    arn = make_stream(told, name)
    enable(told, name)
    described = told.client("kinesisvideo").describe_notification_configuration(StreamARN=arn)
    assert described["NotificationConfiguration"] == {"Status": "ENABLED", "DestinationConfig": {"Uri": TOPIC}}
    acks = put(told, name, body((START_MS, []), (START_MS + 1000, [NOTIFY, ("door", "front"), ("who", "cat")])))
    assert len(persisted(acks)) == 2
    path, headers, envelope = receiver.next()
    assert path == "/hooks/door"
    assert headers["x-amz-sns-message-type"] == "Notification" and headers["x-amz-sns-topic-arn"] == TOPIC
    assert headers["x-amz-sns-message-id"] == envelope["MessageId"]
    assert (envelope["Type"], envelope["TopicArn"]) == ("Notification", TOPIC)
    assert envelope["Subject"] == "Kinesis Video Streams Notification" and envelope["Timestamp"].endswith("Z")
    fragment = list_fragments(told, name)[1]
    assert json.loads(envelope["Message"]) == {
        "StreamArn": arn, "FragmentNumber": fragment["FragmentNumber"],
        "FragmentStartProducerTimestamp": START_MS + 1000,
        "FragmentStartServerTimestamp": round(fragment["ServerTimestamp"].timestamp() * 1000),
        "NotificationType": "PERSISTED", "NotificationPayload": {"door": "front", "who": "cat"}}
    # Nothing of the untagged one.
    assert receiver.requests.empty()


def test_a_receiver_that_fails_is_tried_again_with_the_same_message(told, receiver, name):
    make_stream(told, name)
    enable(told, name)
    for status in (503, 500):
        receiver.answers.put(status)
    assert persisted(put(told, name, body((START_MS, [NOTIFY]))))
    tries = [receiver.next()[2] for _ in range(3)]
    assert len({envelope["MessageId"] for envelope in tries}) == 1
    assert len({envelope["Message"] for envelope in tries}) == 1


@pytest.mark.parametrize("trusted", [True, False])
def test_an_https_receiver_is_told_if_its_authority_is_trusted(tmp_path, authority, name, trusted):
    receiver = Receiver((authority.certificate, authority.key))
    config = tmp_path / "sightglass.toml"
    trust = f'webhook_ca = "{authority.ca}"\n' if trusted else ""
    config.write_text(f'{trust}[topics]\n"{TOPIC}" = "https://127.0.0.1:{receiver.port}/hooks/door"\n')
    server = harness.Server(tmp_path / "data", "--config", str(config))
    try:
        make_stream(server, name)
        enable(server, name)
        assert persisted(put(server, name, body((START_MS, [NOTIFY]))))
        if trusted:
            path, _, envelope = receiver.next()
            assert path == "/hooks/door" and envelope["TopicArn"] == TOPIC
        else:
            # Nothing is told to whom nobody vouches for; the log says why.
            harness.eventually(lambda: "certificate" in server.log())
            assert receiver.requests.empty()
    finally:
        server.stop()
        receiver.close()


def test_a_server_killed_between_persisted_and_delivery_delivers_when_it_is_back(tmp_path, name):
    gone = Receiver()
    port = gone.port
    gone.close()
    server = start(tmp_path, port)
    try:
        make_stream(server, name)
        enable(server, name)
        sent = body(*((START_MS + 1000 * index, [NOTIFY, ("index", str(index))]) for index in range(5)))
        assert len(persisted(put(server, name, sent))) == 5
        server.kill()
        back = Receiver()
        try:
            (tmp_path / "sightglass.toml").write_text(f'[topics]\n"{TOPIC}" = "http://127.0.0.1:{back.port}/"\n')
            server.restart()
            told = [json.loads(back.next()[2]["Message"])["NotificationPayload"]["index"] for _ in range(5)]
            assert told == ["0", "1", "2", "3", "4"]
        finally:
            back.close()
    finally:
        if server.child.poll() is None:
            server.stop()


def test_what_cannot_be_configured_is_a_declared_error(told, name):
    make_stream(told, name)
    make_stream(told, f"{name}-live", hours=0)
    unknown = TOPIC.replace("door", "window")
    code, status, message = harness.refusal(lambda: enable(told, name, unknown))
    assert (code, status) == ("InvalidArgumentException", 400) and "[topics]" in message and unknown in message
    assert harness.refusal(lambda: enable(told, name, TOPIC + ".fifo"))[0] == "InvalidArgumentException"
    assert harness.refusal(lambda: enable(told, f"{name}-live"))[0] == "NoDataRetentionException"
    assert harness.refusal(lambda: enable(told, f"{name}-none"))[:2] == ("ResourceNotFoundException", 404)
    assert "NotificationConfiguration" not in told.client("kinesisvideo").describe_notification_configuration(StreamName=name)
    enable(told, name)
    told.client("kinesisvideo").update_notification_configuration(StreamName=name)
    assert "NotificationConfiguration" not in told.client("kinesisvideo").describe_notification_configuration(StreamName=name)
