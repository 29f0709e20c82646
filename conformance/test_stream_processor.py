"""The main job through the AWS SDK: frames of a real video become records that join with the stored fragments."""

import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

import harness

ROLE = "arn:aws:iam::000000000000:role/processor"
VIDEO = "mkv/bezos_vogels.mkv"
JOIN_TOLERANCE_MS = 10
FACE_KEYS = {"BoundingBox", "Confidence", "Landmarks", "Pose", "Quality"}


def prepared():
    models = pathlib.Path(os.environ.get("SIGHTGLASS_MODELS", harness.ROOT / "models"))
    worker = os.environ.get("SIGHTGLASS_WORKER", str(pathlib.Path(harness.binary()).parent / "vision-worker"))
    return (models / "manifest.json").exists() and pathlib.Path(worker).exists() and shutil.which("ffmpeg")


pytestmark = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")


@pytest.fixture(scope="module")
def clip(data, tmp_path_factory):
    """The video as a camera sends it: no B-frames, a key frame and a cluster a second."""
    path = tmp_path_factory.mktemp("clip") / "camera.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(data / VIDEO), "-an", "-c:v", "libx264", "-preset", "veryfast", "-bf", "0",
                    "-force_key_frames", "expr:gte(t,n_forced*1)", "-cluster_time_limit", "1000", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def photograph(data, tmp_path_factory):
    """One frame of the video in which somebody looks into the camera, as a photograph."""
    path = tmp_path_factory.mktemp("photo") / "face.jpg"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "14", "-i", str(data / VIDEO), "-frames:v", "1", "-q:v", "2", str(path)], check=True)
    return path.read_bytes()


class Job:
    """A stream, a collection, a data stream and a processor between them."""

    def __init__(self, server, name, retention=24, tags=None):
        self.server, self.name = server, name
        self.video, self.kinesis, self.faces = (server.client(s) for s in ("kinesisvideo", "kinesis", "rekognition"))
        self.stream_arn = self.video.create_stream(StreamName=name, DataRetentionInHours=retention)["StreamARN"]
        self.kinesis.create_stream(StreamName=name, ShardCount=1)
        self.output = self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
        self.faces.create_collection(CollectionId=name)
        self.processor = self.faces.create_stream_processor(
            Name=name, RoleArn=ROLE, Input={"KinesisVideoStream": {"Arn": self.stream_arn}},
            Output={"KinesisDataStream": {"Arn": self.output}},
            Settings={"FaceSearch": {"CollectionId": name, "FaceMatchThreshold": 0.08}}, Tags=tags or {})["StreamProcessorArn"]

    def describe(self):
        return self.faces.describe_stream_processor(Name=self.name)

    def start(self):
        self.faces.start_stream_processor(Name=self.name)
        harness.eventually(lambda: self.describe()["Status"] == "RUNNING", within=30)

    def send(self, clip, *flags):
        environment = dict(os.environ, AWS_ACCESS_KEY_ID=self.server.access_key, AWS_SECRET_ACCESS_KEY=self.server.secret,
                           AWS_REGION=harness.REGION, AWS_ENDPOINT_URL=self.server.url)
        return subprocess.Popen([harness.binary(), "put", self.name, str(clip), *flags], env=environment, stdout=subprocess.DEVNULL)

    def records(self):
        """Everything on the data stream so far, as (sequence number, partition key, record)."""
        shard = self.kinesis.list_shards(StreamName=self.name)["Shards"][0]["ShardId"]
        iterator = self.kinesis.get_shard_iterator(StreamName=self.name, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        found = []
        while True:
            answer = self.kinesis.get_records(ShardIterator=iterator)
            found += [(int(r["SequenceNumber"]), r["PartitionKey"], json.loads(r["Data"])) for r in answer["Records"]]
            iterator = answer["NextShardIterator"]
            if not answer["Records"] and answer["MillisBehindLatest"] == 0:
                return found

    def fragments(self):
        endpoint = self.video.get_data_endpoint(StreamName=self.name, APIName="LIST_FRAGMENTS")["DataEndpoint"]
        archived = self.server.client("kinesis-video-archived-media")
        assert endpoint == self.server.url
        pages = archived.get_paginator("list_fragments").paginate(StreamName=self.name)
        return {f["FragmentNumber"]: f for page in pages for f in page["Fragments"]}


def position(record):
    return record["InputInformation"]["KinesisVideo"]


def check_shape(record, stream_arn):
    """Key by key what Rekognition documents; more keys are allowed."""
    where = position(record)
    assert where["StreamArn"] == stream_arn
    assert where["FragmentNumber"].isdigit() and len(where["FragmentNumber"]) == 47
    for key in ("ServerTimestamp", "ProducerTimestamp", "FrameOffsetInSeconds"):
        assert isinstance(where[key], (int, float))
    assert record["StreamProcessorInformation"] == {"Status": "RUNNING"}
    assert isinstance(record["FaceSearchResponse"], list)
    for face in record["FaceSearchResponse"]:
        detected = face["DetectedFace"]
        assert FACE_KEYS <= set(detected)
        assert {"Height", "Width", "Left", "Top"} <= set(detected["BoundingBox"])
        assert {mark["Type"] for mark in detected["Landmarks"]} == {"eyeLeft", "eyeRight", "nose", "mouthLeft", "mouthRight"}
        assert {"Pitch", "Roll", "Yaw"} <= set(detected["Pose"]) and {"Brightness", "Sharpness"} <= set(detected["Quality"])
        assert isinstance(face["MatchedFaces"], list)
        similarities = [match["Similarity"] for match in face["MatchedFaces"]]
        assert similarities == sorted(similarities, reverse=True) and all(s >= 80 for s in similarities)
        for match in face["MatchedFaces"]:
            assert {"BoundingBox", "FaceId", "Confidence", "ImageId", "ExternalImageId"} <= set(match["Face"])


def frame_times(clip):
    """Milliseconds of every frame from the start of its cluster, per cluster, read by an independent demuxer."""
    probe = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0", str(clip)],
                           check=True, capture_output=True, text=True)
    return [float(line.split(",")[0]) * 1000 for line in probe.stdout.split()]


def test_every_record_joins_with_a_stored_frame_and_names_who_is_seen(own_server, name, clip, photograph):
    # However busy the machine is, no frame is skipped for a newer one.
    job = Job(own_server, name, tags={"sightglass:mode": "every-frame"})
    indexed = job.faces.index_faces(CollectionId=name, Image={"Bytes": photograph}, ExternalImageId="someone", MaxFaces=1)
    assert len(indexed["FaceRecords"]) == 1, indexed
    job.start()
    assert job.send(clip, "--realtime").wait(timeout=120) == 0
    times = frame_times(clip)
    harness.eventually(lambda: len(job.records()) >= len(times) // 2, within=60, every=0.5)
    stored, rows = job.fragments(), job.records()
    assert {key for _, key, _ in rows} == {job.stream_arn}
    started = min(f["ProducerTimestamp"].timestamp() for f in stored.values()) * 1000
    last = None
    for _, _, record in rows:
        check_shape(record, job.stream_arn)
        where = position(record)
        fragment = stored[where["FragmentNumber"]]
        assert abs(where["ProducerTimestamp"] - fragment["ProducerTimestamp"].timestamp()) < 0.002
        assert abs(where["ServerTimestamp"] - fragment["ServerTimestamp"].timestamp()) < 0.002
        at = where["ProducerTimestamp"] * 1000 + where["FrameOffsetInSeconds"] * 1000 - started
        assert min(abs(at - t) for t in times) <= JOIN_TOLERANCE_MS, f"no frame of the video is at {at} ms"
        order = (int(where["FragmentNumber"]), where["FrameOffsetInSeconds"])
        assert last is None or order >= last, "records leave in time order"
        last = order
    names = {m["Face"]["ExternalImageId"] for _, _, r in rows for f in r["FaceSearchResponse"] for m in f["MatchedFaces"]}
    assert names == {"someone"}


def test_a_running_processor_goes_on_after_sigkill_and_misses_no_stored_fragment(own_server, name, clip):
    job = Job(own_server, name)
    job.start()
    sender = job.send(clip, "--realtime")
    harness.eventually(lambda: len(job.records()) > 60, within=60, every=0.2)
    own_server.kill()
    sender.kill()
    sender.wait()
    own_server.restart()
    job = Job.__new__(Job)
    job.server, job.name = own_server, name
    job.video, job.kinesis, job.faces = (own_server.client(s) for s in ("kinesisvideo", "kinesis", "rekognition"))
    harness.eventually(lambda: job.describe()["Status"] == "RUNNING", within=30)
    stored = set(job.fragments())
    assert stored
    harness.eventually(lambda: stored <= {position(r)["FragmentNumber"] for _, _, r in job.records()}, within=60, every=0.5)
    before = len(job.records())
    assert job.send(clip).wait(timeout=120) == 0
    harness.eventually(lambda: len(job.records()) > before, within=60, every=0.2)


@pytest.mark.parametrize("gone, message", [
    ("collection", "Collection not found"),
    ("stream", "Stream {name} doesn't exist"),
    ("output", "Stream {name} under account 000000000000 not found"),
])
def test_a_processor_whose_surroundings_are_deleted_fails_with_awss_words(own_server, name, clip, gone, message):
    job = Job(own_server, name)
    job.start()
    sender = job.send(clip, "--realtime", "--loop")
    try:
        harness.eventually(lambda: job.records(), within=60, every=0.2)
        if gone == "collection":
            job.faces.delete_collection(CollectionId=name)
        elif gone == "stream":
            job.video.delete_stream(StreamARN=job.stream_arn)
        else:
            job.kinesis.delete_stream(StreamName=name)
        harness.eventually(lambda: job.describe()["Status"] == "FAILED", within=30)
        assert job.describe()["StatusMessage"] == message.format(name=name)
    finally:
        sender.kill()
        sender.wait()


def test_a_stopped_processor_stops_and_its_name_is_free_after_deletion(own_server, name):
    job = Job(own_server, name)
    assert job.describe()["Status"] == "STOPPED"
    began = time.monotonic()
    job.start()
    assert time.monotonic() - began < 5.0
    with pytest.raises(job.faces.exceptions.ResourceInUseException):
        job.faces.start_stream_processor(Name=name)
    with pytest.raises(job.faces.exceptions.ResourceInUseException):
        job.faces.delete_stream_processor(Name=name)
    job.faces.stop_stream_processor(Name=name)
    harness.eventually(lambda: job.describe()["Status"] == "STOPPED", within=30)
    assert [p["Name"] for p in job.faces.list_stream_processors()["StreamProcessors"]] == [name]
    job.faces.delete_stream_processor(Name=name)
    with pytest.raises(job.faces.exceptions.ResourceNotFoundException):
        job.describe()
