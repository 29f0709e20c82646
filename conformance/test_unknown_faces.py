"""Unknown faces, with a real video: a stranger who comes twice is found by her photograph and by her earlier visit, enrolled from both, and
erased from the whole data directory. The calls are ours, so they are signed by hand."""

import base64
import json
import subprocess
import urllib.error
import urllib.request

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import harness
import vectors
from test_stream_processor import VIDEO, Job, prepared

pytestmark = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")

# Of one visit; every one is analysed.
FRAMES = 68
KEPT = {"table": "unknown_faces", "blocks": "unknown_blocks"}


def call(server, operation, credentials=None, signed=True, **request):
    """Status and answer of a call, or its error's name."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"RekognitionService.{operation}"}
    asked = AWSRequest("POST", server.url + "/", data=json.dumps(request), headers=headers)
    if signed:
        access_key, secret = credentials or (server.access_key, server.secret)
        SigV4Auth(Credentials(access_key, secret), "rekognition", harness.REGION).add_auth(asked)
    try:
        with urllib.request.urlopen(urllib.request.Request(asked.url, asked.data.encode(), dict(asked.headers))) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["__type"].split("#")[-1]


def answer(server, operation, **request):
    status, told = call(server, operation, **request)
    assert status == 200, told
    return told


@pytest.fixture(scope="module")
def visits(data, tmp_path_factory):
    """Twice some seconds in which the same person alone is in the picture; other frames, so other vectors."""
    paths = []
    for start in ("0.1", "2.5"):
        paths.append(tmp_path_factory.mktemp("visit") / "visit.mkv")
        subprocess.run(["ffmpeg", "-v", "error", "-ss", start, "-t", "2.4", "-i", str(data / VIDEO), "-an", "-vf", "scale=640:-2", "-c:v", "libx264",
                        "-preset", "veryfast", "-bf", "0", "-g", "30", str(paths[-1])], check=True)
    return paths


@pytest.fixture(scope="module")
def pictures(data, tmp_path_factory):
    """The stranger, and somebody else."""
    folder = tmp_path_factory.mktemp("pictures")
    made = {}
    for name, second in (("stranger", "2"), ("other", "14")):
        path = folder / f"{name}.jpg"
        subprocess.run(["ffmpeg", "-v", "error", "-ss", second, "-i", str(data / VIDEO), "-frames:v", "1", "-q:v", "2", str(path)], check=True)
        made[name] = path.read_bytes()
    return made


def faces(server, name, **request):
    return answer(server, "ListUnknownFaces", CollectionId=name, **request)["UnknownFaces"]


def come(job, visit):
    """The stranger comes; gives the records of her visit. The processor is stopped afterwards, so that the next visit is a track of its own."""
    before = len(job.records())
    job.start()
    assert job.send(visit).wait(timeout=60) == 0
    harness.eventually(lambda: len(job.records()) >= before + FRAMES, within=60, every=0.2)
    job.faces.stop_stream_processor(Name=job.name)
    return [record for _, _, record in job.records()[before:]]


def after_restart(server, job):
    """The same job after the server was started again."""
    again = object.__new__(Job)
    again.__dict__.update(job.__dict__, server=server)
    again.video, again.kinesis, again.faces = (server.client(s) for s in ("kinesisvideo", "kinesis", "rekognition"))
    return again


def test_a_stranger_is_found_again_enrolled_and_erased(own_server, name, visits, pictures):
    server = own_server
    job = Job(server, name, tags={"sightglass:mode": "every-frame", "sightglass:keep_unknown": "24"})
    job.faces.index_faces(CollectionId=name, Image={"Bytes": pictures["other"]}, ExternalImageId="somebody", MaxFaces=1)
    records = come(job, visits[0])
    [first] = faces(server, name)
    records += come(job, visits[1])
    second, still = faces(server, name)
    assert still == first
    assert first["FaceId"] != second["FaceId"] and first["StreamProcessorName"] == name and first["StreamArn"] == job.stream_arn
    assert first["FrameCount"] > 40 and 1.5 < first["LastSeen"] - first["FirstSeen"] < 3
    best = first["BestFrame"]
    assert best["FragmentNumber"] in job.fragments() and best["Quality"]["Sharpness"] > 0
    # The records name her.
    told = {face["Sightglass"].get("UnknownFaceId") for record in records for face in record["FaceSearchResponse"]}
    assert {first["FaceId"], second["FaceId"]} <= told
    # Has she been here before?
    earlier = answer(server, "SearchUnknownFaces", CollectionId=name, FaceId=second["FaceId"], FaceMatchThreshold=95)["UnknownFaceMatches"]
    assert [match["UnknownFace"]["FaceId"] for match in earlier] == [first["FaceId"]] and earlier[0]["Similarity"] > 99
    image = {"Bytes": base64.b64encode(pictures["stranger"]).decode()}
    by_image = answer(server, "SearchUnknownFacesByImage", CollectionId=name, Image=image)
    assert {match["UnknownFace"]["FaceId"] for match in by_image["UnknownFaceMatches"]} == {first["FaceId"], second["FaceId"]}
    other = {"Bytes": base64.b64encode(pictures["other"]).decode()}
    assert answer(server, "SearchUnknownFacesByImage", CollectionId=name, Image=other)["UnknownFaceMatches"] == []
    # One visit is erased: from every file, also when the server is killed at once.
    kept = vectors.stored(server.data_dir, **KEPT)
    assert set(kept) == {first["FaceId"], second["FaceId"]}
    erased = answer(server, "DeleteUnknownFaces", CollectionId=name, FaceIds=[first["FaceId"]])
    assert erased["DeletedFaces"] == [first["FaceId"]] and erased["UnsuccessfulFaceDeletions"] == []
    server.kill()
    assert vectors.found(server.data_dir, [kept[first["FaceId"]]]) == []
    assert vectors.found(server.data_dir, [kept[second["FaceId"]]])
    server.restart()
    assert [face["FaceId"] for face in faces(server, name)] == [second["FaceId"]]
    # The other makes her known: the next visit is a match, and nobody is unknown.
    enrolled = answer(server, "IndexUnknownFaces", CollectionId=name, FaceIds=[second["FaceId"]], ExternalImageId="stranger")["Faces"]
    assert [(face["FaceId"], face["ExternalImageId"]) for face in enrolled] == [(second["FaceId"], "stranger")]
    job = after_restart(server, job)
    last = come(job, visits[0])[-1]["FaceSearchResponse"][0]["MatchedFaces"]
    assert last[0]["Face"]["ExternalImageId"] == "stranger" and faces(server, name) == []
    # The collection's end takes everything.
    job.faces.delete_collection(CollectionId=name)
    assert vectors.found(server.data_dir, kept.values()) == []


def test_who_may_call_and_what_is_refused(server, name):
    server.client("rekognition").create_collection(CollectionId=name)
    nobody = "00000000-0000-0000-0000-000000000000"
    requests = {
        "ListUnknownFaces": {}, "SearchUnknownFaces": {"FaceId": nobody}, "SearchUnknownFacesByImage": {"Image": {"Bytes": "AAAA"}},
        "IndexUnknownFaces": {"FaceIds": [nobody]}, "DeleteUnknownFaces": {"FaceIds": [nobody]},
    }
    stranger = server.make_key(account="222222222222")
    arn = f"arn:aws:rekognition:{harness.REGION}:000000000000:collection/{name}"
    for operation, request in requests.items():
        status, code = call(server, operation, signed=False, CollectionId=name, **request)
        assert status in (400, 403) and "Token" in code or "Missing" in code, (operation, status, code)
        assert call(server, operation, stranger, CollectionId=name, **request) == (400, "ResourceNotFoundException"), operation
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "rekognition:*", "Resource": "*"},
                                                         {"Effect": "Deny", "Action": f"rekognition:{operation}", "Resource": arn}]}
        denied = server.make_key(policy=policy)
        assert call(server, operation, denied, CollectionId=name, **request)[1] == "AccessDeniedException", operation
    assert call(server, "SearchUnknownFaces", CollectionId=name, FaceId=nobody) == (400, "InvalidParameterException")
    assert call(server, "IndexUnknownFaces", CollectionId=name, FaceIds=[nobody]) == (400, "InvalidParameterException")
    assert call(server, "ListUnknownFaces", CollectionId=name, NextToken="x") == (400, "InvalidPaginationTokenException")
    assert call(server, "ListUnknownFaces", CollectionId=name, SeenAfter="yesterday")[0] == 400
    missing = answer(server, "DeleteUnknownFaces", CollectionId=name, FaceIds=[nobody])
    assert missing["UnsuccessfulFaceDeletions"] == [{"FaceId": nobody, "Reasons": ["FACE_NOT_FOUND"]}]
