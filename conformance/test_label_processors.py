"""Label detection in a stream as boto3 asks for it: a film of nobody, a cat and a man; notifications at a receiver of the
test's own, images and report read back from S3; a server killed in the middle of a session."""

import hashlib
import json
import queue
import subprocess
import sys
import zipfile

import pytest

import harness
from harness import eventually, failure
from media import make_stream
from putmedia import persisted, put
from test_images import difference, pixels
from test_notifications import Receiver
from test_stream_processor import ROLE, prepared

pytestmark = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")

TOPIC = f"arn:aws:sns:{harness.REGION}:000000000000:home"
START_MS = 1795347223000
SIZE, RATE = (640, 480), 10
# What is seen from which second on.
CAT, MAN, END = 2, 4, 6
# A whole wheel for one photograph of a cat, which is in the public domain.
WHEEL = "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl"
WHEEL_SHA256 = "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af"


@pytest.fixture(scope="module")
def cat():
    cache = harness.ROOT / ".cache/labels"
    if not (cache / WHEEL).exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--platform", "manylinux_2_28_x86_64",
                        "--python-version", "311", "--dest", str(cache), "scikit-image==0.26.0"], check=True)
    assert hashlib.sha256((cache / WHEEL).read_bytes()).hexdigest() == WHEEL_SHA256
    return zipfile.ZipFile(cache / WHEEL).read("skimage/data/chelsea.png")


@pytest.fixture(scope="module")
def film(cat, photographs, tmp_path_factory):
    """As a camera sends it: a key frame and a cluster a second."""
    folder = tmp_path_factory.mktemp("film")
    (folder / "cat.png").write_bytes(cat)
    (folder / "man.jpg").write_bytes(photographs["biden"])
    size = "x".join(map(str, SIZE))
    fit = f"scale={size}:force_original_aspect_ratio=decrease,pad={SIZE[0]}:{SIZE[1]}:(ow-iw)/2:(oh-ih)/2,setsar=1,fps={RATE}"
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-t", str(CAT), "-i", f"color=gray:size={size}:rate={RATE}",
                    "-loop", "1", "-t", str(MAN - CAT), "-i", str(folder / "cat.png"), "-loop", "1", "-t", str(END - MAN), "-i", str(folder / "man.jpg"),
                    "-filter_complex", f"[0]setsar=1[a];[1]{fit}[b];[2]{fit}[c];[a][b][c]concat=n=3:v=1", "-c:v", "libx264", "-preset", "veryfast",
                    "-bf", "0", "-pix_fmt", "yuv420p", "-force_key_frames", "expr:gte(t,n_forced*1)", "-cluster_time_limit", "1000", str(folder / "home.mkv")],
                   check=True)
    return (folder / "home.mkv").read_bytes()


@pytest.fixture
def receiver():
    started = Receiver()
    yield started
    started.close()


class Home:
    """A server whose topic goes to the receiver, a stream, a bucket and a processor between them."""

    def __init__(self, folder, receiver, name, **processor):
        config = folder / "sightglass.toml"
        config.write_text(f'[topics]\n"{TOPIC}" = "http://127.0.0.1:{receiver.port}/home"\n')
        self.server, self.receiver, self.name = harness.Server(folder / "data", "--config", str(config)), receiver, name
        self.bucket = name.lower()[-60:].strip("-")
        self.connect()
        self.s3.create_bucket(Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": harness.REGION})
        self.stream = make_stream(self.server, name)
        self.labels.create_stream_processor(**{**self.request(), **processor})

    def connect(self):
        """The port is another one after a restart."""
        self.s3 = self.server.client("s3")
        self.labels = self.server.client("rekognition", parameter_validation=False)

    def request(self):
        return {"Name": self.name, "RoleArn": ROLE, "Input": {"KinesisVideoStream": {"Arn": self.stream}},
                "Output": {"S3Destination": {"Bucket": self.bucket, "KeyPrefix": "seen/here"}}, "Settings": {"ConnectedHome": {"Labels": ["ALL"]}},
                "NotificationChannel": {"SNSTopicArn": TOPIC}}

    def send(self, film, start_ms=START_MS):
        acks = put(self.server, self.name, film, timecodes="RELATIVE", start=f"{start_ms / 1000:.3f}")
        assert len(persisted(acks)) >= END, acks

    def start(self, seconds, **begin):
        begin = begin or {"ProducerTimestamp": START_MS}
        return self.labels.start_stream_processor(Name=self.name, StartSelector={"KVSStreamStartSelector": begin},
                                                  StopSelector={"MaxDurationInSeconds": seconds})["SessionId"]

    def status(self):
        return self.labels.describe_stream_processor(Name=self.name)["Status"]

    def told(self, within=60):
        path, headers, envelope = self.receiver.next(within)
        assert path == "/home" and headers["x-amz-sns-topic-arn"] == envelope["TopicArn"] == TOPIC
        assert envelope["Type"] == "Notification" and envelope["Subject"] == "Rekognition Stream Processing Event"
        message = json.loads(envelope["Message"])
        assert message["eventId"] == envelope["MessageId"] == headers["x-amz-sns-message-id"]
        return message

    def object(self, uri):
        assert uri.startswith(f"s3://{self.bucket}/")
        answer = self.s3.get_object(Bucket=self.bucket, Key=uri.removeprefix(f"s3://{self.bucket}/"))
        return answer["ContentType"], answer["Body"].read()


@pytest.fixture
def home(tmp_path, receiver, name):
    made = []

    def make(**processor):
        made.append(Home(tmp_path, receiver, name, **processor))
        return made[0]
    yield make
    for one in made:
        if one.server.child.poll() is None:
            assert one.server.stop() == 0, one.server.log()


def at(message):
    """Seconds from the film's beginning."""
    where = message["labels"][0]["videoMapping"]["kinesisVideoMapping"]
    return (where["producerTimestamp"] + where["frameOffsetMillis"] - START_MS) / 1000


def check_images(home, label, frames, second):
    kind, whole = home.object(label["frameImageUri"])
    assert kind == "image/jpeg" and whole.startswith(b"\xff\xd8\xff")
    [seen] = pixels(whole, SIZE)
    assert difference(seen, frames[round(second * RATE)]) < 5
    kind, part = home.object(label["croppedImageUri"])
    assert kind == "image/jpeg" and part.startswith(b"\xff\xd8\xff")
    said = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "stream=width,height", "-of", "csv=p=0", "-"], input=part, check=True, capture_output=True)
    width, height = map(int, said.stdout.decode().strip().split(","))
    box = label["boundingBox"]
    assert abs(width - box["width"] * SIZE[0]) <= 3 and abs(height - box["height"] * SIZE[1]) <= 3
    # The part is what the frame shows there.
    left, top = int(box["left"] * SIZE[0]) & ~1, int(box["top"] * SIZE[1]) & ~1
    rows = [seen[3 * ((top + y) * SIZE[0] + left):][:3 * width] for y in range(height)]
    [cut] = pixels(part, (width, height))
    assert difference(cut, b"".join(rows)) < 6


def test_a_cat_and_a_man_are_told_once_with_their_pictures_and_then_the_end(home, film):
    home = home(Tags={"room": "hall"})
    home.send(film)
    session = home.start(END)
    pet, person, end = home.told(), home.told(), home.told()
    frames = pixels(film, SIZE)
    folder = f"s3://{home.bucket}/seen/here/{home.name}/{session}/"
    for message, name, second in ((pet, "PET", CAT), (person, "PERSON", MAN)):
        assert set(message) == {"inputInformation", "eventNamespace", "labels", "eventId", "tags", "sessionId", "startStreamProcessorRequest"}
        assert message["eventNamespace"] == {"type": "LABEL_DETECTED"} and message["inputInformation"] == {"kinesisVideo": {"streamArn": home.stream}}
        assert message["tags"] == {"room": "hall"} and message["sessionId"] == session and message["startStreamProcessorRequest"]["name"] == home.name
        [label] = message["labels"]
        assert set(label) == {"id", "name", "confidence", "frameImageUri", "croppedImageUri", "videoMapping", "boundingBox"}
        assert label["name"] == name and 50 <= label["confidence"] <= 100
        assert second <= at(message) <= second + 1, "it is told of the first frames that show it"
        assert label["frameImageUri"].startswith(folder) and label["croppedImageUri"].startswith(folder)
        check_images(home, label, frames, at(message))
    assert end["eventNamespace"] == {"type": "STREAM_PROCESSING_COMPLETE"} and "labels" not in end
    lasted = end["inputInformation"]["kinesisVideo"]["processedVideoDurationMillis"]
    assert abs(lasted - END * 1000) < 200 and end["streamProcessingResults"]["message"]
    eventually(lambda: home.status() == "STOPPED")
    kind, report = home.object(f"{folder}report.json")
    assert kind == "application/json" and json.loads(report)["labels"] == pet["labels"] + person["labels"]
    listed = home.s3.list_objects_v2(Bucket=home.bucket)["Contents"]
    assert len(listed) == 5, "two frames, two parts, a report"
    # The stored fragment is the one that the notification names.
    archived = home.server.client("kinesis-video-archived-media")
    fragments = {f["FragmentNumber"]: f for page in archived.get_paginator("list_fragments").paginate(StreamName=home.name) for f in page["Fragments"]}
    where = pet["labels"][0]["videoMapping"]["kinesisVideoMapping"]
    assert round(fragments[where["fragmentNumber"]]["ProducerTimestamp"].timestamp() * 1000) == where["producerTimestamp"]
    assert round(fragments[where["fragmentNumber"]]["ServerTimestamp"].timestamp() * 1000) == where["serverTimestamp"]
    # Another session, of a second with the man alone, by the number of its fragment.
    number = person["labels"][0]["videoMapping"]["kinesisVideoMapping"]["fragmentNumber"]
    again = home.start(1, FragmentNumber=number)
    anew, end = home.told(), home.told()
    assert (anew["labels"][0]["name"], anew["sessionId"], end["sessionId"]) == ("PERSON", again, again)
    assert again != session and at(anew) == at(person) and anew["eventId"] != person["eventId"]


def test_regions_and_updates_decide_what_counts(home, film):
    edge = {"BoundingBox": {"Left": 0.0, "Top": 0.0, "Width": 0.15, "Height": 1.0}}
    home = home(RegionsOfInterest=[edge])
    home.send(film)
    home.start(END)
    assert home.told()["eventNamespace"]["type"] == "STREAM_PROCESSING_COMPLETE", "neither is at the left edge"
    eventually(lambda: home.status() == "STOPPED")
    middle = {"Polygon": [{"X": 0.05, "Y": 0.0}, {"X": 0.95, "Y": 0.0}, {"X": 0.95, "Y": 1.0}, {"X": 0.05, "Y": 1.0}]}
    home.labels.update_stream_processor(Name=home.name, RegionsOfInterestForUpdate=[middle],
                                        SettingsForUpdate={"ConnectedHomeForUpdate": {"Labels": ["PERSON"], "MinConfidence": 60}})
    described = home.labels.describe_stream_processor(Name=home.name)
    assert described["RegionsOfInterest"][0]["Polygon"][2] == pytest.approx({"X": 0.95, "Y": 1.0})
    assert described["Settings"] == {"ConnectedHome": {"Labels": ["PERSON"], "MinConfidence": 60}}
    home.start(END)
    assert [home.told()["eventNamespace"]["type"] for _ in range(2)] == ["LABEL_DETECTED", "STREAM_PROCESSING_COMPLETE"]
    home.labels.update_stream_processor(Name=home.name, ParametersToDelete=["RegionsOfInterest", "ConnectedHomeMinConfidence"])
    described = home.labels.describe_stream_processor(Name=home.name)
    assert "RegionsOfInterest" not in described and described["Settings"]["ConnectedHome"]["MinConfidence"] == 50
    assert described["Output"] == home.request()["Output"] and described["NotificationChannel"] == {"SNSTopicArn": TOPIC}


def test_a_killed_server_goes_on_with_the_session_and_the_receiver_hears_everything(home, film):
    home = home()
    home.receiver.answers.put(503)
    session = home.start(120)
    assert home.status() == "STARTING", "it stays so while it runs"
    for call in (lambda: home.labels.delete_stream_processor(Name=home.name), lambda: home.labels.update_stream_processor(Name=home.name), lambda: home.start(1)):
        assert failure(call) == ("ResourceInUseException", 400)
    home.send(film)
    refused = home.told()
    home.server.kill()
    # What was accepted in the last moment may come again: it has the same id.
    kept = {refused["eventId"]: refused}
    while not home.receiver.requests.empty():
        message = home.told()
        kept[message["eventId"]] = message
    home.server.restart()
    home.connect()
    assert home.status() == "STARTING"
    home.send(film, START_MS + 60_000)

    def both():
        try:
            message = home.told(within=1)
        except queue.Empty:
            return False
        kept[message["eventId"]] = message
        return len(kept) >= 2
    eventually(both, within=60, every=0)
    assert sorted(message["labels"][0]["name"] for message in kept.values()) == ["PERSON", "PET"]
    assert {message["sessionId"] for message in kept.values()} == {session}
    home.labels.stop_stream_processor(Name=home.name)
    assert home.status() == "STOPPED"
    while (last := home.told())["eventId"] in kept:
        pass
    assert last["eventNamespace"]["type"] == "STREAM_PROCESSING_COMPLETE" and last["sessionId"] == session


def test_bad_requests_are_declared_errors_and_leave_nothing(home):
    home = home()
    good = {**home.request(), "Name": "other"}
    box = {"Left": 0.1, "Top": 0.1, "Width": 0.5, "Height": 0.5}
    bow_tie = [{"X": 0, "Y": 0}, {"X": 1, "Y": 1}, {"X": 1, "Y": 0}, {"X": 0, "Y": 1}]
    triangle = [{"X": 0, "Y": 0}, {"X": 1, "Y": 0}, {"X": 0, "Y": 1}]

    def connected(**settings):
        return {"Settings": {"ConnectedHome": settings}}
    bad = [connected(Labels=[]), connected(Labels=["PERSON"] * 129), connected(Labels=["BIRD"]), connected(Labels=["PACKAGE"]), connected(),
           connected(Labels=["ALL"], MinConfidence=100.1), connected(Labels=["ALL"], MinConfidence=-1), {"Settings": {}},
           {"Settings": {"ConnectedHome": {"Labels": ["ALL"]}, "FaceSearch": {"CollectionId": "a"}}},
           {"Output": {}}, {"Output": {"S3Destination": {}}}, {"Output": {"S3Destination": {"Bucket": "no-such-bucket"}}}, {"Output": {"S3Destination": {"Bucket": "ab"}}},
           {"Output": {"S3Destination": {"Bucket": home.bucket, "KeyPrefix": "p" * 1025}}},
           {"Output": {"KinesisDataStream": {"Arn": f"arn:aws:kinesis:{harness.REGION}:000000000000:stream/a"}}},
           {"NotificationChannel": {}}, {"NotificationChannel": {"SNSTopicArn": "home"}}, {"NotificationChannel": {"SNSTopicArn": TOPIC + "s"}},
           {"KmsKeyId": ""}, {"KmsKeyId": "-"}, {"DataSharingPreference": {}}, {"RoleArn": "arn:aws:iam::111111111111:role/processor"},
           *({"RegionsOfInterest": regions} for regions in (
               [{}], [{"BoundingBox": box}] * 11, [{"BoundingBox": box, "Polygon": triangle}], [{"BoundingBox": {**box, "Width": 1}}],
               [{"BoundingBox": {**box, "Height": 0}}], [{"BoundingBox": {"Left": 0.1}}], [{"Polygon": bow_tie}], [{"Polygon": triangle[:2]}],
               [{"Polygon": triangle + triangle[:1]}], [{"Polygon": [{"X": i / 20, "Y": i * i / 400} for i in range(11)]}], [{"Polygon": [{"X": 0}] * 3}]))]
    for change in bad:
        code, status = failure(lambda: home.labels.create_stream_processor(**{**good, **change}))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException"), change
    assert [one["Name"] for one in home.labels.list_stream_processors()["StreamProcessors"]] == [home.name]

    def start(begin, stop):
        return home.labels.start_stream_processor(Name=home.name, **({"StartSelector": begin} if begin is not None else {}),
                                                  **({"StopSelector": stop} if stop is not None else {}))
    kvs = {"KVSStreamStartSelector": {"ProducerTimestamp": START_MS}}
    number = "91343852333181432392682062607743920146264094318"
    for begin, stop in ((None, {"MaxDurationInSeconds": 1}), ({}, {}), ({"KVSStreamStartSelector": {}}, {}), (kvs, None), (kvs, {"MaxDurationInSeconds": 0}),
                        (kvs, {"MaxDurationInSeconds": 121}), ({"KVSStreamStartSelector": {"ProducerTimestamp": -1}}, {}),
                        ({"KVSStreamStartSelector": {"FragmentNumber": "7"}}, {}), ({"KVSStreamStartSelector": {"FragmentNumber": "x"}}, {}),
                        ({"KVSStreamStartSelector": {"FragmentNumber": number, "ProducerTimestamp": 1}}, {})):
        code, status = failure(lambda: start(begin, stop))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException"), (begin, stop)
    for change in ({"SettingsForUpdate": {}}, {"RegionsOfInterestForUpdate": [{"Polygon": bow_tie}]}, {"ParametersToDelete": ["Labels"]},
                   {"SettingsForUpdate": {"ConnectedHomeForUpdate": {"Labels": ["PACKAGE"]}}}):
        code, status = failure(lambda: home.labels.update_stream_processor(Name=home.name, **change))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException"), change
    assert home.status() == "STOPPED"
    assert failure(lambda: home.labels.update_stream_processor(Name="nobody")) == ("ResourceNotFoundException", 400)
    # A stream that is gone: the start is taken, and the state and the topic say why it came to nothing.
    home.server.client("kinesisvideo").delete_stream(StreamARN=home.stream)
    home.start(1)
    eventually(lambda: home.status() == "FAILED")
    described = home.labels.describe_stream_processor(Name=home.name)
    assert described["StatusMessage"] == f"Stream {home.name} doesn't exist"
    assert home.told()["streamProcessingResults"]["message"].endswith(described["StatusMessage"])
    home.labels.delete_stream_processor(Name=home.name)
    assert failure(home.status) == ("ResourceNotFoundException", 400)
