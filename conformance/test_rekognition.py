"""The core of Rekognition as boto3 drives it: collections, faces in photographs, stream processors."""

import json
import time

import pytest

import mkv
from harness import eventually, failure
from media import make_stream
from putmedia import Put, persisted

ROLE = "arn:aws:iam::000000000000:role/any"


@pytest.fixture
def rekognition(server):
    # Bad arguments must reach the server, not the SDK's own checks.
    return server.client("rekognition", parameter_validation=False)


@pytest.fixture
def collection(rekognition, name):
    rekognition.create_collection(CollectionId=name)
    return name


def test_a_collection_is_created_described_listed_and_deleted(rekognition, name):
    made = rekognition.create_collection(CollectionId=name)
    assert made["StatusCode"] == 200 and made["FaceModelVersion"]
    assert made["CollectionArn"] == f"arn:aws:rekognition:us-west-2:000000000000:collection/{name}" or made["CollectionArn"].endswith(f"collection/{name}")
    described = rekognition.describe_collection(CollectionId=name)
    assert (described["FaceCount"], described["FaceModelVersion"]) == (0, made["FaceModelVersion"])
    assert failure(lambda: rekognition.create_collection(CollectionId=name)) == ("ResourceAlreadyExistsException", 400)
    listed = [c for page in rekognition.get_paginator("list_collections").paginate(PaginationConfig={"PageSize": 3}) for c in page["CollectionIds"]]
    assert name in listed and len(listed) == len(set(listed))
    assert rekognition.delete_collection(CollectionId=name)["StatusCode"] == 200
    assert failure(lambda: rekognition.describe_collection(CollectionId=name)) == ("ResourceNotFoundException", 400)
    rekognition.create_collection(CollectionId=name)


def test_people_are_enrolled_found_and_forgotten(rekognition, collection, photographs):
    enrolled = {}
    for person in ("obama", "biden"):
        answer = rekognition.index_faces(CollectionId=collection, Image={"Bytes": photographs[person]}, ExternalImageId=person, MaxFaces=1)
        [record] = answer["FaceRecords"]
        assert record["Face"]["ExternalImageId"] == person and record["Face"]["Confidence"] > 90
        box = record["Face"]["BoundingBox"]
        assert all(0 < box[side] < 1 for side in ("Width", "Height")) and len(record["FaceDetail"]["Landmarks"]) == 5
        enrolled[person] = record["Face"]["FaceId"]
    # The same photograph again is no second face.
    rekognition.index_faces(CollectionId=collection, Image={"Bytes": photographs["obama"]}, ExternalImageId="obama", MaxFaces=1)
    assert rekognition.describe_collection(CollectionId=collection)["FaceCount"] == 2
    faces = [f for page in rekognition.get_paginator("list_faces").paginate(CollectionId=collection, PaginationConfig={"PageSize": 1}) for f in page["Faces"]]
    assert {f["ExternalImageId"]: f["FaceId"] for f in faces} == enrolled
    # Another photograph of the same man.
    match = rekognition.search_faces_by_image(CollectionId=collection, Image={"Bytes": photographs["obama-2"]})["FaceMatches"]
    assert [m["Face"]["ExternalImageId"] for m in match] == ["obama"] and match[0]["Similarity"] >= 80
    nobody = rekognition.search_faces_by_image(CollectionId=collection, Image={"Bytes": photographs["resident"]})
    assert nobody["FaceMatches"] == []
    alike = rekognition.search_faces(CollectionId=collection, FaceId=enrolled["obama"], FaceMatchThreshold=0)
    assert enrolled["obama"] not in [m["Face"]["FaceId"] for m in alike["FaceMatches"]], "a face does not match itself"
    gone = rekognition.delete_faces(CollectionId=collection, FaceIds=[enrolled["obama"], "11111111-2222-3333-4444-555555555555"])
    assert gone["DeletedFaces"] == [enrolled["obama"]]
    assert gone["UnsuccessfulFaceDeletions"][0]["Reasons"] == ["FACE_NOT_FOUND"]
    assert rekognition.search_faces_by_image(CollectionId=collection, Image={"Bytes": photographs["obama-2"]})["FaceMatches"] == []


def test_faces_are_detected_with_box_landmarks_pose_and_quality(rekognition, photographs):
    [face] = rekognition.detect_faces(Image={"Bytes": photographs["biden"]})["FaceDetails"]
    assert {"BoundingBox", "Landmarks", "Pose", "Quality", "Confidence"} <= set(face)
    assert {mark["Type"] for mark in face["Landmarks"]} == {"eyeLeft", "eyeRight", "nose", "mouthLeft", "mouthRight"}
    assert 0 <= face["Quality"]["Brightness"] <= 100 and 0 <= face["Quality"]["Sharpness"] <= 100


def png(width, height):
    """A picture of one colour."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress((b"\0" + b"\x7f" * (3 * width)) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "text": b"this is no image at all",
    "jpeg-head-only": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "gif": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    "png-cut": png(200, 200)[:60],
    "one-pixel": png(1, 1),
    "ten-thousand-pixels": png(10_000, 10_000),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_image_that_is_none_or_of_an_absurd_size_is_a_declared_error(server, rekognition, collection, case):
    before = server.rss_kib()
    image = {"Bytes": BAD_IMAGES[case]}
    for call in (lambda: rekognition.detect_faces(Image=image), lambda: rekognition.index_faces(CollectionId=collection, Image=image),
                 lambda: rekognition.search_faces_by_image(CollectionId=collection, Image=image)):
        code, status = failure(call)
        assert status == 400 and code in ("InvalidImageFormatException", "InvalidParameterException", "ImageTooLargeException"), code
    assert server.rss_kib() - before < 50_000
    assert rekognition.describe_collection(CollectionId=collection)["FaceCount"] == 0


def test_a_picture_without_a_face_has_none(rekognition, collection):
    image = {"Bytes": png(320, 240)}
    assert rekognition.detect_faces(Image=image)["FaceDetails"] == []
    assert rekognition.index_faces(CollectionId=collection, Image=image)["FaceRecords"] == []
    assert failure(lambda: rekognition.search_faces_by_image(CollectionId=collection, Image=image)) == ("InvalidParameterException", 400)


def test_errors_of_collections_are_declared(rekognition, collection):
    missing = ("ResourceNotFoundException", 400)
    assert failure(lambda: rekognition.delete_collection(CollectionId="missing")) == missing
    assert failure(lambda: rekognition.list_faces(CollectionId="missing")) == missing
    assert failure(lambda: rekognition.index_faces(CollectionId="missing", Image={"Bytes": png(100, 100)})) == missing
    unknown = "11111111-2222-3333-4444-555555555555"
    assert failure(lambda: rekognition.search_faces(CollectionId=collection, FaceId=unknown))[0] in ("InvalidParameterException", "ResourceNotFoundException")
    code, status = failure(lambda: rekognition.create_collection(CollectionId="no spaces"))
    assert status == 400 and code in ("InvalidParameterException", "ValidationException")


class Processor:
    """A stream processor with its streams and collection."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.video = make_stream(server, name)
        self.kinesis, self.rekognition = server.client("kinesis"), server.client("rekognition", parameter_validation=False)
        self.kinesis.create_stream(StreamName=name, ShardCount=1)
        self.output = self.kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
        self.rekognition.create_collection(CollectionId=name)
        self.arn = self.rekognition.create_stream_processor(
            Name=name, RoleArn=ROLE, Input={"KinesisVideoStream": {"Arn": self.video}}, Output={"KinesisDataStream": {"Arn": self.output}},
            Settings={"FaceSearch": {"CollectionId": name, "FaceMatchThreshold": 80}})["StreamProcessorArn"]

    def describe(self):
        return self.rekognition.describe_stream_processor(Name=self.name)

    def start(self):
        self.rekognition.start_stream_processor(Name=self.name)
        eventually(lambda: self.describe()["Status"] == "RUNNING")

    def records(self):
        iterator = self.kinesis.get_shard_iterator(StreamName=self.name, ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        found = []
        while True:
            answer = self.kinesis.get_records(ShardIterator=iterator)
            found += answer["Records"]
            iterator = answer["NextShardIterator"]
            if not answer["Records"] and answer["MillisBehindLatest"] == 0:
                return found


def test_a_stream_processor_goes_through_its_states(server, name):
    processor = Processor(server, name)
    assert processor.arn.endswith(f":streamprocessor/{name}")
    described = processor.describe()
    assert (described["Status"], described["Name"], described["RoleArn"]) == ("STOPPED", name, ROLE)
    assert described["Settings"]["FaceSearch"] == {"CollectionId": name, "FaceMatchThreshold": 80.0}
    rekognition = processor.rekognition
    assert {"Name": name, "Status": "STOPPED"} in [p for page in rekognition.get_paginator("list_stream_processors").paginate() for p in page["StreamProcessors"]]
    assert failure(lambda: rekognition.stop_stream_processor(Name=name))[1] == 400
    processor.start()
    assert failure(lambda: rekognition.start_stream_processor(Name=name)) == ("ResourceInUseException", 400)
    assert failure(lambda: rekognition.delete_stream_processor(Name=name)) == ("ResourceInUseException", 400)
    rekognition.stop_stream_processor(Name=name)
    eventually(lambda: processor.describe()["Status"] == "STOPPED")
    rekognition.delete_stream_processor(Name=name)
    assert failure(processor.describe) == ("ResourceNotFoundException", 400)


def test_every_analysed_frame_has_its_record_and_joins_its_fragment(server, data, name):
    processor = Processor(server, name)
    processor.start()
    body = (data / "mkv/bezos_vogels.mkv").read_bytes()
    [sent] = mkv.documents(body)
    connection = Put(server, name, timecodes="RELATIVE", start=f"{time.time():.3f}")
    connection.send(body, piece=65_536)
    connection.finish()
    numbers = persisted(connection.rest())
    fragments = dict(zip(numbers, sent.fragments))
    records = eventually(lambda: (found := processor.records()) and len(found) >= 5 and found, within=60)
    faces = 0
    for record in records:
        assert record["PartitionKey"] == processor.video
        said = json.loads(record["Data"])
        assert set(said) >= {"InputInformation", "StreamProcessorInformation", "FaceSearchResponse"}
        video = said["InputInformation"]["KinesisVideo"]
        assert video["StreamArn"] == processor.video and said["StreamProcessorInformation"] == {"Status": "RUNNING"}
        fragment = fragments[video["FragmentNumber"]]
        offsets = [(b.time - fragment.timecode) / 1000 for b in fragment.blocks if b.track == 1]
        assert min(abs(video["FrameOffsetInSeconds"] - offset) for offset in offsets) <= 0.01
        assert video["ServerTimestamp"] > 1_700_000_000 and video["ProducerTimestamp"] > 1_700_000_000
        for face in said["FaceSearchResponse"]:
            faces += 1
            assert set(face["DetectedFace"]) >= {"BoundingBox", "Confidence", "Landmarks", "Pose", "Quality"}
            assert face["MatchedFaces"] == [], "nobody is enrolled"
    assert faces > 0


def test_a_processor_whose_collection_or_output_is_deleted_fails_in_awss_words(server, name):
    lost = Processor(server, f"{name}-c")
    lost.start()
    lost.rekognition.delete_collection(CollectionId=lost.name)
    eventually(lambda: lost.describe()["Status"] == "FAILED" and lost.describe()["StatusMessage"] == "Collection not found")
    lost = Processor(server, f"{name}-v")
    lost.start()
    server.client("kinesisvideo").delete_stream(StreamARN=lost.video)
    eventually(lambda: lost.describe()["Status"] == "FAILED" and lost.describe()["StatusMessage"] == f"Stream {lost.name} doesn't exist")
    lost = Processor(server, f"{name}-k")
    lost.start()
    lost.kinesis.delete_stream(StreamName=lost.name)
    eventually(lambda: lost.describe()["Status"] == "FAILED"
               and lost.describe()["StatusMessage"] == f"Stream {lost.name} under account 000000000000 not found")


def test_a_running_processor_runs_again_after_a_kill(own_server, name):
    processor = Processor(own_server, name)
    processor.start()
    own_server.kill()
    own_server.restart()
    rekognition = own_server.client("rekognition")
    eventually(lambda: rekognition.describe_stream_processor(Name=name)["Status"] == "RUNNING", within=15)


def test_errors_of_processors_are_declared(server, name):
    processor = Processor(server, name)
    rekognition = processor.rekognition
    missing = ("ResourceNotFoundException", 400)
    for call in ("describe", "start", "stop", "delete"):
        assert failure(lambda: getattr(rekognition, f"{call}_stream_processor")(Name="missing")) == missing
    settings = {"FaceSearch": {"CollectionId": name}}
    arguments = {"Name": f"{name}-2", "RoleArn": ROLE, "Settings": settings, "Input": {"KinesisVideoStream": {"Arn": processor.video}},
                 "Output": {"KinesisDataStream": {"Arn": processor.output}}}
    assert failure(lambda: rekognition.create_stream_processor(**{**arguments, "Name": name})) == ("ResourceInUseException", 400)
    for changed in ({"RoleArn": "arn:aws:iam::999999999999:role/any"}, {"Settings": {}}, {"Input": {}}, {"Name": "no spaces"}):
        code, status = failure(lambda: rekognition.create_stream_processor(**{**arguments, **changed}))
        assert status == 400 and code in ("InvalidParameterException", "ValidationException", "AccessDeniedException"), (changed, code)
