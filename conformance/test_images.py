"""GetImages against frames that ffmpeg extracts from the same file, and its declared errors."""

import base64
import datetime
import hashlib
import http.client
import json
import subprocess
import urllib.request

import pytest
from botocore.exceptions import ClientError

import harness
import mkv
import sigv4
import test_clip
from media import archived, make_stream
from putmedia import persisted, put
from test_stream_processor import prepared

needs_worker = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")

START = 1795347223.0
WIDTH, HEIGHT, RATE, SECONDS = 320, 180, 10, 6
# Of 255 levels, over all colours: JPEG at quality 80 and the rounding of two colour conversions.
CLOSE = {"JPEG": 5.0, "PNG": 2.5}
CODECS = {"h264": ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "20"],
          "h265": ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=20:log-level=none"]}


def ffmpeg(*arguments, stdin=None):
    return subprocess.run(["ffmpeg", "-v", "error", *arguments], input=stdin, check=True, capture_output=True).stdout


@pytest.fixture(scope="module", params=sorted(CODECS))
def video(request, tmp_path_factory):
    """A moving test picture with B-frames and a key frame every two seconds, and its frames as ffmpeg sees them."""
    path = tmp_path_factory.mktemp("video") / "test.mkv"
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration={SECONDS}", *CODECS[request.param],
           "-pix_fmt", "yuv420p", "-cluster_time_limit", "1000", str(path))
    return path.read_bytes(), pixels(path.read_bytes())


def pixels(file, size=(WIDTH, HEIGHT)):
    """The frames of a video or an image as raw RGB."""
    raw = ffmpeg("-i", "-", "-vf", f"scale={size[0]}:{size[1]}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-", stdin=file)
    frame = size[0] * size[1] * 3
    return [raw[at:at + frame] for at in range(0, len(raw), frame)]


def difference(one, other):
    """Mean absolute difference of two pictures' samples; every 7th is enough."""
    assert len(one) == len(other)
    pairs = list(zip(one[::7], other[::7]))
    return sum(abs(a - b) for a, b in pairs) / len(pairs)


def at(seconds):
    return datetime.datetime.fromtimestamp(START + seconds, datetime.timezone.utc)


def request(name, start=0.0, end=1.0, **options):
    return {"StreamName": name, "ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": at(start), "EndTimestamp": at(end),
            "SamplingInterval": 1000, "Format": "JPEG", **options}


def stored(server, name, video):
    make_stream(server, name)
    acks = put(server, name, video, timecodes="RELATIVE", start=f"{START:.3f}")
    assert persisted(acks), acks


@needs_worker
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_images_are_the_frames_of_their_times(server, name, video, form):
    file, frames = video
    stored(server, name, file)
    client = archived(server)
    answer = client.get_images(**request(name, 0.0, SECONDS + 0.9, SamplingInterval=700, Format=form))
    points = [index * 0.7 for index in range(int((SECONDS + 0.9) / 0.7) + 1)]
    assert [image["TimeStamp"] for image in answer["Images"]] == [at(point) for point in points]
    assert "NextToken" not in answer
    for point, image in zip(points, answer["Images"]):
        index = round(point * RATE)
        if index >= len(frames):
            assert image.get("Error") == "NO_MEDIA" and "ImageContent" not in image, (point, image.get("Error"))
            continue
        content = base64.b64decode(image["ImageContent"])
        assert content.startswith(b"\xff\xd8\xff" if form == "JPEG" else b"\x89PNG\r\n\x1a\n")
        [picture] = pixels(content)
        assert difference(picture, frames[index]) < CLOSE[form], point
        # It is that frame and no neighbour.
        others = [difference(picture, frames[other]) for other in (index - 3, index + 3) if 0 <= other < len(frames)]
        assert difference(picture, frames[index]) < min(others), point


@needs_worker
def test_sizes_qualities_and_pages(server, name, video):
    file, frames = video
    stored(server, name, file)
    client = archived(server)

    def one(**options):
        [image] = client.get_images(**request(name, 2.0, 2.0, **options))["Images"]
        return base64.b64decode(image["ImageContent"])

    for options, size in (({"HeightPixels": 90}, (160, 90)), ({"WidthPixels": 64, "HeightPixels": 64}, (64, 64))):
        content = one(Format="PNG", **options)
        assert (int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")) == size
        [picture] = pixels(content, size)
        [expected] = pixels(one(Format="PNG"), size)
        assert difference(picture, expected) < 12, options
    lengths = [len(one(FormatConfig={"JPEGQuality": quality})) for quality in ("1", "50", "80", "100")]
    assert lengths == sorted(set(lengths)) and len(one()) == lengths[2], lengths

    pages = list(client.get_paginator("get_images").paginate(**request(name, 0.0, SECONDS - 0.1, SamplingInterval=200), PaginationConfig={"PageSize": 100}))
    assert [len(page["Images"]) for page in pages] == [25, 5]
    times = [image["TimeStamp"] for page in pages for image in page["Images"]]
    assert times == [at(index / 5) for index in range(30)]
    failed = [(image["TimeStamp"], image["Error"]) for page in pages for image in page["Images"] if "Error" in image]
    assert failed == []


def test_what_may_not_be_asked_for_is_a_declared_error(server, name):
    make_stream(server, name)
    make_stream(server, f"{name}-live", hours=0)
    client = archived(server)
    invalid = ("InvalidArgumentException", 400)
    for options in ({"start": 1.0, "end": 0.0}, {"end": 300.001}, {"SamplingInterval": 199}, {"WidthPixels": 100},
                    {"FormatConfig": {"JPEGQuality": "0"}}, {"FormatConfig": {"JPEGQuality": "best"}}, {"NextToken": "bm9uZSBvZiBvdXJz"}):
        assert harness.failure(lambda: client.get_images(**request(name, **options))) == invalid, options
    assert harness.failure(lambda: client.get_images(**request(f"{name}-none"))) == ("ResourceNotFoundException", 404)
    assert harness.failure(lambda: client.get_images(**request(f"{name}-live"))) == ("NoDataRetentionException", 400)
    # Nothing is stored there: an answer, not an error.
    assert [image["Error"] for image in client.get_images(**request(name))["Images"]] == ["NO_MEDIA", "NO_MEDIA"]


@needs_worker
def test_damaged_frames_and_other_codecs_are_media_errors(server, name, data):
    make_stream(server, name)
    body = (data / "mkv/test_mixed_tags.mkv").read_bytes()
    assert persisted(put(server, name, body, timecodes="RELATIVE", start=f"{START:.3f}"))
    images = archived(server).get_images(**request(name, 0.0, 0.4, SamplingInterval=200))["Images"]
    assert {image["Error"] for image in images} == {"MEDIA_ERROR"}


def pictures(stream):
    """The frames of an Annex B stream whose pictures are of one slice each, as lists of their units; whether each is a key frame."""
    found, units = [], []
    for unit in stream.split(b"\0\0\x01"):
        unit = unit.rstrip(b"\0")
        if unit:
            units.append(unit)
            if unit[0] & 0x1F in (1, 5):
                found.append((units, unit[0] & 0x1F == 5))
                units = []
    return found


@needs_worker
@pytest.mark.parametrize("declared", [False, True], ids=["undeclared", "declared"])
@pytest.mark.parametrize("framing", ["annex-b", "lengths"])
def test_images_of_what_players_are_given_too(server, name, framing, declared):
    """Cameras that declare no codec private data, that frame by start codes whatever they declare, and both."""
    raw = ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration=2", "-c:v", "libx264", "-profile:v", "baseline",
                 "-x264-params", "slices=1:keyint=10", "-pix_fmt", "yuv420p", "-f", "h264", "-")
    coded, expected = pictures(raw), pixels(raw)
    assert len(coded) == len(expected) == 20
    sets = {unit[0] & 0x1F: unit for units, _ in coded for unit in units}
    sps, pps = sets[7], sets[8]
    avcc = b"\x01" + sps[1:4] + b"\xff\xe1" + len(sps).to_bytes(2, "big") + sps + b"\x01" + len(pps).to_bytes(2, "big") + pps
    start = (lambda unit: b"\0\0\0\x01") if framing == "annex-b" else (lambda unit: len(unit).to_bytes(4, "big"))
    blocks = [mkv.block(b"".join(start(unit) + unit for unit in units), relative=100 * (n % 10), key=key) for n, (units, key) in enumerate(coded)]
    body = test_clip.head(test_clip.track(private=avcc if declared else b"")) + mkv.cluster(0, *blocks[:10]) + mkv.cluster(1000, *blocks[10:])
    stored(server, name, body)
    images = archived(server).get_images(**request(name, 0.0, 1.9, SamplingInterval=700, Format="PNG"))["Images"]
    for index, image in zip((0, 7, 14), images, strict=True):
        assert "Error" not in image, (index, image["Error"])
        [picture] = pixels(base64.b64decode(image["ImageContent"]))
        assert difference(picture, expected[index]) < CLOSE["PNG"], index


@needs_worker
def test_images_that_nobody_waits_for_any_more_are_not_made(own_server, name):
    """A page of large PNG files, and a client that hangs up while they are made: its worker ends, and the next client is served."""
    server = own_server
    file = ffmpeg("-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=10:duration=12", "-c:v", "libx264", "-preset", "ultrafast", "-g", "120",
                  "-pix_fmt", "yuv420p", "-cluster_time_limit", "20000", "-cluster_size_limit", "40000000", "-f", "matroska", "-")
    stored(server, name, file)

    def shows(line):
        with urllib.request.urlopen(server.url + "/metrics") as page:
            return line in page.read().decode()

    body = json.dumps({"StreamName": name, "ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": START, "EndTimestamp": START + 11.9,
                       "SamplingInterval": 200, "Format": "PNG"}).encode()
    headers = [("host", f"{server.host}:{server.port}"), ("x-amz-date", sigv4.now())]
    headers.append(("authorization", sigv4.authorization("POST", "/getImages", headers, hashlib.sha256(body).hexdigest(), server.access_key,
                                                         server.secret, headers[1][1], harness.REGION, "kinesisvideo")))
    leaving = http.client.HTTPConnection(server.host, server.port)
    leaving.request("POST", "/getImages", body, dict(headers))
    harness.eventually(lambda: shows('sightglass_vision_workers{kind="stills"} 1'))
    leaving.close()
    harness.eventually(lambda: shows('sightglass_vision_workers{kind="stills"} 0'))
    [image] = archived(server).get_images(**request(name, 0.0, 0.0, WidthPixels=64, HeightPixels=36))["Images"]
    assert "Error" not in image
    assert shows('sightglass_vision_stills_total{result="made"} 1')


def test_a_server_without_a_vision_worker_says_so(name, tmp_path):
    own = harness.Server(environment={"SIGHTGLASS_WORKER": str(tmp_path / "none")})
    try:
        make_stream(own, name)
        file = ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "matroska", "-")
        assert persisted(put(own, name, file, timecodes="RELATIVE", start=f"{START:.3f}"))
        with pytest.raises(ClientError) as failed:
            archived(own).get_images(**request(name))
        error = failed.value.response["Error"]
        assert error["Code"] == "InvalidArgumentException" and "no vision worker" in error["Message"], error
    finally:
        own.stop()


def test_image_generation_is_configured_and_needs_a_bucket(server, name):
    kvs = server.client("kinesisvideo")
    make_stream(server, name)
    wanted = {"Status": "DISABLED", "ImageSelectorType": "SERVER_TIMESTAMP", "SamplingInterval": 3000, "Format": "JPEG",
              "FormatConfig": {"JPEGQuality": "70"}, "WidthPixels": 320, "HeightPixels": 240,
              "DestinationConfig": {"Uri": "s3://pictures", "DestinationRegion": harness.REGION}}

    def update(**changes):
        return kvs.update_image_generation_configuration(StreamName=name, ImageGenerationConfiguration={**wanted, **changes})

    update()
    described = kvs.describe_image_generation_configuration(StreamName=name)
    assert described["ImageGenerationConfiguration"] == wanted
    invalid = ("InvalidArgumentException", 400)
    assert harness.failure(lambda: update(Status="ENABLED")) == invalid
    assert harness.failure(lambda: update(SamplingInterval=100)) == invalid
    assert harness.failure(lambda: update(DestinationConfig={"Uri": "s3://pictures", "DestinationRegion": "eu-west-1"})) == invalid
    assert kvs.describe_image_generation_configuration(StreamName=name)["ImageGenerationConfiguration"] == wanted
    kvs.update_image_generation_configuration(StreamName=name)
    assert "ImageGenerationConfiguration" not in kvs.describe_image_generation_configuration(StreamName=name)


@needs_worker
def test_images_of_a_tagged_fragment_appear_in_the_bucket(server, name):
    kvs, s3, bucket = server.client("kinesisvideo"), server.client("s3"), "generated-images"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": harness.REGION})
    make_stream(server, name)
    wanted = {"Status": "ENABLED", "ImageSelectorType": "PRODUCER_TIMESTAMP", "SamplingInterval": 500, "Format": "JPEG", "WidthPixels": 160,
              "HeightPixels": 90, "DestinationConfig": {"Uri": f"s3://{bucket}/doors", "DestinationRegion": harness.REGION}}
    kvs.update_image_generation_configuration(StreamName=name, ImageGenerationConfiguration=wanted)
    film = ffmpeg("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=1", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "matroska",
                  "-live", "1", "-")
    tags = [("AWS_KINESISVIDEO_IMAGE_GENERATION", ""), ("AWS_KINESISVIDEO_IMAGE_PREFIX", "alarm"), ("Door", "front")]
    film += b"".join(mkv.tag(*tag) for tag in tags) + mkv.tag(mkv.END_OF_FRAGMENT)
    assert len(persisted(put(server, name, film, timecodes="RELATIVE", start=f"{START:.3f}"))) == 1
    rows = harness.eventually(lambda: (found := s3.list_objects_v2(Bucket=bucket).get("Contents", [])) and len(found) == 2 and found, within=30)
    keys = sorted(row["Key"] for row in rows)
    for key, offset_ms in zip(keys, (0, 500)):
        # As AWS names them: ImagePrefix_AccountID_StreamName_ImageTimecode_RandomID.extension
        assert key.startswith(f"doors/alarm_000000000000_{name}_{int(START * 1000) + offset_ms}_") and key.endswith(".jpg"), key
        image = s3.get_object(Bucket=bucket, Key=key)
        assert image["ContentType"] == "image/jpeg" and image["Metadata"] == {"door": "front"}
        [picture] = pixels(image["Body"].read(), (160, 90))
        assert len(set(picture)) > 20, "a picture, not a blank"
