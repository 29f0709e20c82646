"""Stored video through the AWS SDK: films in S3 and the footage of a stream, of a real video; broken films; a server killed
in the middle of a job."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import harness
from test_notifications import Receiver
from test_stream_processor import ROLE, VIDEO, clip, photograph, prepared  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")

# Somebody looks into the camera in these seconds of the video (see the photograph's).
START, LENGTH = 12, 6


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def films(data, tmp_path_factory):
    """The same seconds in several containers, and with H.265."""
    folder = tmp_path_factory.mktemp("films")
    source = ["-ss", START, "-t", LENGTH, "-i", data / VIDEO, "-an"]
    ffmpeg(*source, "-c:v", "libx264", "-preset", "veryfast", "-g", 30, folder / "door.mp4")
    for name in ("door.mov", "door.mkv"):
        ffmpeg("-i", folder / "door.mp4", "-c", "copy", folder / name)
    ffmpeg(*source, "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-tag:v", "hvc1", folder / "hevc.mp4")
    return folder


@pytest.fixture
def bucket(server, name):
    s3 = server.client("s3")
    # The end of the name is its own number.
    bucket = name.lower()[-60:].strip("-")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": harness.REGION})

    def put(key, body):
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return {"S3Object": {"Bucket": bucket, "Name": key}}
    return put


def finished(get, job, within=120):
    found = {}

    def ended():
        found.update(get(JobId=job))
        return found["JobStatus"] != "IN_PROGRESS"
    harness.eventually(ended, within=within, every=0.1)
    return found


def everything(get, job, member, **arguments):
    pages, token = [], None
    while True:
        page = get(JobId=job, **arguments, **({"NextToken": token} if token else {}))
        pages.append(page[member])
        token = page.get("NextToken")
        if not token:
            return pages


def overlap(one, other):
    width = min(one["Left"] + one["Width"], other["Left"] + other["Width"]) - max(one["Left"], other["Left"])
    height = min(one["Top"] + one["Height"], other["Top"] + other["Height"]) - max(one["Top"], other["Top"])
    both = max(width, 0) * max(height, 0)
    return both / (one["Width"] * one["Height"] + other["Width"] * other["Height"] - both)


@pytest.mark.parametrize("film", ["door.mp4", "door.mov", "door.mkv", "hevc.mp4"])
def test_the_faces_of_a_film_are_where_detect_faces_sees_them_in_its_frames(server, films, bucket, tmp_path, film):
    faces = server.client("rekognition")
    video = bucket(film, (films / film).read_bytes())
    job = faces.start_face_detection(Video=video, JobTag="tagged")["JobId"]
    answer = finished(faces.get_face_detection, job)
    assert answer["JobStatus"] == "SUCCEEDED", answer.get("StatusMessage")
    facts = answer["VideoMetadata"]
    assert facts["Codec"] == ("hevc" if film == "hevc.mp4" else "h264")
    assert facts["Format"] == ("Matroska / WebM" if film.endswith("mkv") else "QuickTime / MOV")
    assert abs(facts["DurationMillis"] - 1000 * LENGTH) < 300 and facts["FrameRate"] > 5 and facts["FrameWidth"] > facts["FrameHeight"] > 100
    assert answer["JobTag"] == "tagged" and answer["JobId"] == job and answer["Video"] == video
    pages = everything(faces.get_face_detection, job, "Faces", MaxResults=7)
    assert all(len(page) <= 7 for page in pages)
    found = [face for page in pages for face in page]
    times = [face["Timestamp"] for face in found]
    assert times == sorted(times) and times[0] >= 0 and times[-1] < 1000 * LENGTH + 100
    # At most five analysed frames a second, and most of them with a face.
    seen = sorted(set(times))
    assert all(later - earlier >= 150 for earlier, later in zip(seen, seen[1:])) and len(seen) >= 2 * LENGTH
    # Three of those frames, cut out by ffmpeg, show their largest face at the same place.
    for at in (seen[2], seen[len(seen) // 2], seen[-3]):
        still = tmp_path / f"{at}.png"
        ffmpeg("-i", films / film, "-vf", f"select=gte(t\\,{(at - 5) / 1000})", "-frames:v", 1, still)
        details = faces.detect_faces(Image={"Bytes": still.read_bytes()})["FaceDetails"]
        largest = details[0]["BoundingBox"]
        assert max(overlap(largest, face["Face"]["BoundingBox"]) for face in found if face["Timestamp"] == at) > 0.6, at
    assert {"BoundingBox", "Confidence", "Landmarks", "Pose", "Quality"} <= set(found[0]["Face"])


def test_a_job_with_all_attributes_tells_of_each_face_what_detect_faces_tells(server, films, bucket, tmp_path):
    faces = server.client("rekognition")
    still, short = tmp_path / "still.png", tmp_path / "short.mp4"
    ffmpeg("-i", films / "door.mp4", "-t", 1.5, "-c", "copy", short)
    ffmpeg("-i", short, "-frames:v", 1, still)
    photographed = faces.detect_faces(Image={"Bytes": still.read_bytes()}, Attributes=["ALL"])["FaceDetails"][0]
    if "Gender" not in photographed:
        pytest.skip("skipped: models prepared without attributes")
    job = faces.start_face_detection(Video=bucket("short.mp4", short.read_bytes()), FaceAttributes="ALL")["JobId"]
    assert finished(faces.get_face_detection, job)["JobStatus"] == "SUCCEEDED"
    found = [face["Face"] for page in everything(faces.get_face_detection, job, "Faces") for face in page]
    first = max(found, key=lambda face: overlap(face["BoundingBox"], photographed["BoundingBox"]))
    assert first.keys() == photographed.keys() and first["Gender"]["Value"] == photographed["Gender"]["Value"]
    assert {mark["Type"] for mark in first["Landmarks"]} == {mark["Type"] for mark in photographed["Landmarks"]}
    assert all({"AgeRange", "Gender", "Emotions", "Smile"} <= face.keys() for face in found)


def signed(server, operation, credentials=None, **request):
    """An operation of ours, which no SDK knows. `credentials`: other ones, or () to sign with none."""
    call = AWSRequest("POST", server.url + "/", data=json.dumps(request),
                      headers={"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"RekognitionService.{operation}"})
    if credentials != ():
        SigV4Auth(Credentials(*(credentials or (server.access_key, server.secret))), "rekognition", harness.REGION).add_auth(call)
    asked = urllib.request.Request(call.url, call.data.encode() if isinstance(call.data, str) else call.data, dict(call.headers))
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["__type"]


def persons(faces, job, **arguments):
    answer = finished(faces.get_face_search, job)
    assert answer["JobStatus"] == "SUCCEEDED", answer.get("StatusMessage")
    return [person for page in everything(faces.get_face_search, job, "Persons", **arguments) for person in page]


def enrol(faces, collection, photograph):
    faces.create_collection(CollectionId=collection)
    records = faces.index_faces(CollectionId=collection, Image={"Bytes": photograph}, ExternalImageId="enrolled")["FaceRecords"]
    return records[0]["Face"]["FaceId"]


def test_a_person_enrolled_today_is_found_in_a_film_and_in_what_a_stream_stored(server, name, films, bucket, clip, photograph):
    faces = server.client("rekognition")
    face = enrol(faces, name, photograph)
    video = bucket("door.mp4", (films / "door.mp4").read_bytes())
    job = faces.start_face_search(Video=video, CollectionId=name, FaceMatchThreshold=90)["JobId"]
    found = persons(faces, job, MaxResults=10)
    matched = [person for person in found if person["FaceMatches"]]
    assert matched and all(person["FaceMatches"][0]["Face"]["FaceId"] == face for person in matched)
    assert all(person["FaceMatches"][0]["Similarity"] >= 90 and person["FaceMatches"][0]["Face"]["ExternalImageId"] == "enrolled" for person in matched)
    indexes = {person["Person"]["Index"] for person in matched}
    assert len(indexes) == 1, "one person, however often the face was lost"
    by_index = persons(faces, job, SortBy="INDEX", MaxResults=9)
    keys = [(person["Person"]["Index"], person["Timestamp"]) for person in by_index]
    assert keys == sorted(keys) and len(keys) == len(found)

    # The same in the stream, where the camera's video was stored before anybody was enrolled.
    arn = server.client("kinesisvideo").create_stream(StreamName=name, DataRetentionInHours=24)["StreamARN"]
    environment = dict(os.environ, AWS_ACCESS_KEY_ID=server.access_key, AWS_SECRET_ACCESS_KEY=server.secret,
                       AWS_REGION=harness.REGION, AWS_ENDPOINT_URL=server.url)
    subprocess.run([harness.binary(), "put", name, str(clip)], env=environment, check=True, stdout=subprocess.DEVNULL)
    archive = server.client("kinesis-video-archived-media")
    fragments = archive.list_fragments(StreamName=name)["Fragments"]
    first = min(fragment["ProducerTimestamp"].timestamp() for fragment in fragments)
    stretch = {"StreamArn": arn, "StartTimestamp": first + START, "EndTimestamp": first + START + LENGTH}
    status, started = signed(server, "StartStreamFaceSearch", CollectionId=name, FaceMatchThreshold=90, **stretch)
    assert status == 200, started
    stored = persons(faces, started["JobId"])
    times = [person["Timestamp"] for person in stored]
    assert times and 0 <= min(times) and max(times) < 1000 * LENGTH
    assert any(match["Face"]["FaceId"] == face for person in stored for match in person["FaceMatches"])
    status, started = signed(server, "StartStreamFaceDetection", TimestampType="SERVER_TIMESTAMP", StreamArn=arn, StartTimestamp=1, EndTimestamp=2)
    assert status == 200
    answer = finished(faces.get_face_detection, started["JobId"])
    assert (answer["JobStatus"], answer["StatusMessage"]) == ("FAILED", "The video has no frames.")
    # Deleted is deleted in the answers too.
    faces.delete_faces(CollectionId=name, FaceIds=[face])
    assert not any(person["FaceMatches"] for person in persons(faces, job))


def test_films_that_nobody_can_read_fail_with_a_reason_and_the_next_one_is_read(server, films, bucket):
    faces = server.client("rekognition")
    whole = (films / "door.mp4").read_bytes()
    index_first = films / "first.mp4"
    ffmpeg("-i", films / "door.mp4", "-c", "copy", "-movflags", "faststart", index_first)
    first = index_first.read_bytes()
    head = first.index(b"mdat")
    lying = bytearray(first)
    for at in range(head - 400, head - 100, 3):
        lying[at] = 0xFF
    mpeg4 = films / "mpeg4.mp4"
    ffmpeg("-i", films / "door.mp4", "-c:v", "mpeg4", "-frames:v", 5, mpeg4)
    for key, body, reason in [
        ("text.mp4", b"no film" * 1000, "not an MP4"),
        ("empty.mp4", b"", "not an MP4"),
        ("cut.mp4", whole[:len(whole) // 2], "damaged"),
        ("first.mp4", first[:len(first) // 2], "damaged"),
        ("codec.mp4", mpeg4.read_bytes(), "mpeg4"),
        ("lying.mp4", bytes(lying), None),
    ]:
        job = faces.start_face_detection(Video=bucket(key, body))["JobId"]
        answer = finished(faces.get_face_detection, job)
        assert answer["JobStatus"] == "FAILED" or reason is None, key
        assert reason is None or reason in answer["StatusMessage"], (key, answer["StatusMessage"])
    job = faces.start_face_detection(Video=bucket("whole.mp4", whole))["JobId"]
    assert finished(faces.get_face_detection, job)["JobStatus"] == "SUCCEEDED"


def test_requests_that_cannot_be_carried_out_are_refused_at_once(server, name, films, bucket):
    faces = server.client("rekognition")
    video = bucket("door.mp4", (films / "door.mp4").read_bytes())
    start = faces.start_face_detection
    missing = {"S3Object": {**video["S3Object"], "Name": "missing.mp4"}}
    assert harness.code_of(lambda: start(Video=missing)) == "InvalidS3ObjectException"
    elsewhere = {"S3Object": {"Bucket": "nobodys-bucket", "Name": "door.mp4"}}
    assert harness.code_of(lambda: start(Video=elsewhere)) == "InvalidS3ObjectException"
    channel = {"RoleArn": ROLE, "SNSTopicArn": f"arn:aws:sns:{harness.REGION}:000000000000:unknown"}
    assert harness.code_of(lambda: start(Video=video, NotificationChannel=channel)) == "InvalidParameterException"
    assert harness.code_of(lambda: faces.start_face_search(Video=video, CollectionId=name)) == "ResourceNotFoundException"
    assert harness.code_of(lambda: faces.get_face_detection(JobId="0" * 64)) == "ResourceNotFoundException"
    job = start(Video=video, ClientRequestToken="once")["JobId"]
    assert start(Video=video, ClientRequestToken="once")["JobId"] == job
    assert harness.code_of(lambda: start(Video=video, ClientRequestToken="once", JobTag="b")) == "IdempotentParameterMismatchException"
    assert harness.code_of(lambda: faces.get_face_detection(JobId=job, NextToken="AAAA")) == "InvalidPaginationTokenException"
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "rekognition:*", "Resource": "*"}]}
    access_key, secret = server.make_key(policy=policy)
    limited = server.client("rekognition", access_key=access_key, secret=secret)
    assert harness.code_of(lambda: limited.start_face_detection(Video=video)) == "AccessDeniedException"


def test_the_calls_over_streams_are_signed_allowed_and_of_one_account(server, name):
    arn = server.client("kinesisvideo").create_stream(StreamName=name, DataRetentionInHours=1)["StreamARN"]
    server.client("rekognition").create_collection(CollectionId=name)
    stretch = {"StreamArn": arn, "StartTimestamp": 1, "EndTimestamp": 2}
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesisvideo:*", "Resource": "*"}]}
    denied, other = server.make_key(policy=policy), server.make_key(account="111111111111")
    for operation, more in (("StartStreamFaceSearch", {"CollectionId": name}), ("StartStreamFaceDetection", {})):
        assert signed(server, operation, (), **stretch, **more)[1] == "MissingAuthenticationTokenException"
        assert signed(server, operation, denied, **stretch, **more) == (400, "AccessDeniedException")
        assert signed(server, operation, other, **stretch, **more) == (400, "ResourceNotFoundException")
        assert signed(server, operation, **{**stretch, "EndTimestamp": 1}, **more) == (400, "InvalidParameterException")
        assert signed(server, operation, **{**stretch, "StreamArn": "no arn"}, **more) == (400, "InvalidParameterException")
        assert signed(server, operation, **{**stretch, "EndTimestamp": 90_000}, **more) == (400, "VideoTooLargeException")


def test_a_server_killed_in_the_middle_of_a_job_ends_it_once_after_its_restart(films, tmp_path):
    receiver = Receiver()
    topic = f"arn:aws:sns:{harness.REGION}:000000000000:ended"
    configuration = tmp_path / "sightglass.toml"
    configuration.write_text(f'[topics]\n"{topic}" = "http://127.0.0.1:{receiver.port}/ended"\n')
    server = harness.Server(None, "--config", str(configuration))
    try:
        s3, faces = server.client("s3"), server.client("rekognition")
        s3.create_bucket(Bucket="films", CreateBucketConfiguration={"LocationConstraint": harness.REGION})
        long, times_over = tmp_path / "long.mp4", 7
        ffmpeg("-stream_loop", times_over - 1, "-i", films / "door.mp4", "-c", "copy", long)
        s3.put_object(Bucket="films", Key="long.mp4", Body=long.read_bytes())
        job = faces.start_face_detection(Video={"S3Object": {"Bucket": "films", "Name": "long.mp4"}}, JobTag="monday",
                                         NotificationChannel={"RoleArn": ROLE, "SNSTopicArn": topic})["JobId"]
        assert faces.get_face_detection(JobId=job)["JobStatus"] == "IN_PROGRESS"
        harness.eventually(lambda: analysed(server) > 20, within=60)
        server.kill()
        server.restart()
        faces = server.client("rekognition")
        answer = finished(faces.get_face_detection, job, within=240)
        assert answer["JobStatus"] == "SUCCEEDED" and answer["Faces"]
        path, headers, envelope = receiver.next()
        message = json.loads(envelope["Message"])
        assert path == "/ended" and headers["x-amz-sns-topic-arn"] == topic
        assert {key: message[key] for key in ("JobId", "Status", "API", "JobTag", "Video")} == {
            "JobId": job, "Status": "SUCCEEDED", "API": "StartFaceDetection", "JobTag": "monday",
            "Video": {"S3ObjectName": "long.mp4", "S3Bucket": "films"}}
        assert abs(message["Timestamp"] / 1000 - time.time()) < 600
        pages = everything(faces.get_face_detection, job, "Faces")
        times = [face["Timestamp"] for page in pages for face in page]
        assert times == sorted(times) and max(times) > (times_over - 1) * 1000 * LENGTH and len(set(times)) > 2 * times_over * LENGTH
        assert len(set(times)) <= 5 * times_over * LENGTH + times_over, "every frame once"
        server.stop()
        server.restart()
        assert receiver.requests.empty()
    finally:
        server.stop()
        receiver.close()


def analysed(server):
    text = urllib.request.urlopen(server.url + "/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith('sightglass_vision_frames_total{outcome="analysed"}')]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0
