"""`sightglass archive` and the tag `sightglass:archive`: films in a bucket, read back by boto3, ffprobe and ffmpeg."""

import json
import os
import random
import signal
import subprocess
import time

import pytest

import harness
import media
from harness import REGION, binary, eventually


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Six seconds of pictures and sound, fragments of a second."""
    return make_film(tmp_path_factory.mktemp("film") / "film.mkv", "testsrc2=size=160x120:rate=25:duration=6", sound=True)


@pytest.fixture(scope="module")
def long_film(tmp_path_factory):
    """Some 40 MB that nothing can compress: an upload of several parts."""
    return make_film(tmp_path_factory.mktemp("long") / "long.mkv", "nullsrc=size=640x480:rate=10:duration=12,geq=random(1)*255:128:128", quality=4)


def make_film(path, pictures, *, quality=23, sound=False):
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=16000:duration=6", "-c:a", "aac"] if sound else []
    subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", pictures, *tone, "-c:v", "libx264", "-preset", "ultrafast", "-qp", str(quality),
                    "-bf", "0", "-g", "10", "-pix_fmt", "yuv420p", "-cluster_time_limit", "1000", str(path)], check=True)
    return path


def packets(path):
    """The frames of a film, by track: what ffmpeg reads, undecoded, as checksums in order."""
    said = subprocess.run(["ffmpeg", "-loglevel", "error", "-i", str(path), "-map", "0", "-c", "copy", "-f", "framemd5", "-"],
                          check=True, capture_output=True, text=True).stdout
    found = {}
    for line in said.splitlines():
        if line and not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            found.setdefault(int(fields[0]), []).append((fields[4], fields[5]))
    return found


class Archive:
    """A bucket of a server, and the command that fills it."""

    def __init__(self, server, bucket, elsewhere=None):
        self.server, self.bucket, self.elsewhere = server, bucket, elsewhere
        self.s3 = (elsewhere or server).client("s3")
        self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    @property
    def environment(self):
        other = self.elsewhere and {"AWS_ENDPOINT_URL_S3": self.elsewhere.url, "SIGHTGLASS_S3_ACCESS_KEY_ID": self.elsewhere.access_key,
                                    "SIGHTGLASS_S3_SECRET_ACCESS_KEY": self.elsewhere.secret}
        return {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": self.server.url,
                "AWS_ACCESS_KEY_ID": self.server.access_key, "AWS_SECRET_ACCESS_KEY": self.server.secret, **(other or {})}

    def tool(self, *arguments, ok=True):
        done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, env=self.environment, timeout=120, text=True)
        assert (done.returncode == 0) == ok, done.stderr + done.stdout
        return done

    def run(self, stream, *options, ok=True):
        done = self.tool("archive", stream, f"s3://{self.bucket}/films", "--json", *options, ok=ok)
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    def start(self, stream, *options):
        return subprocess.Popen([binary(), "archive", stream, f"s3://{self.bucket}/films", "--json", *options], env=self.environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def keys(self, stream):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"films/{stream}/")
        return [row["Key"] for page in pages for row in page.get("Contents", [])]

    def body(self, key):
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def indexes(self, stream):
        found = []
        for key in self.keys(stream):
            if key.endswith(".index.jsonl"):
                head, *rows = [json.loads(line) for line in self.body(key).splitlines()]
                found.append((head, rows))
        return found

    def films(self, stream, folder):
        """Files of the films, in order; every index told the truth about its film."""
        paths = []
        for head, rows in self.indexes(stream):
            assert head["state"] == "done" and head["fragments"] == len(rows)
            path = folder / f"{len(paths):03}-{head['key'].rsplit('/')[-1]}"
            body = self.body(head["key"])
            assert len(body) == head["bytes"]
            path.write_bytes(body)
            paths.append(path)
        assert len([key for key in self.keys(stream) if not key.endswith(".index.jsonl")]) == len(paths)
        return paths

    def assert_whole(self, stream, source, folder, times=1):
        """Frame for frame what was sent, and every fragment of the stream once."""
        paths = self.films(stream, folder)
        got = {}
        for path in paths:
            for track, found in packets(path).items():
                got.setdefault(track, []).extend(found)
        sent = {track: found * times for track, found in packets(source).items()}
        assert got == sent
        archived = [row["number"] for _, rows in self.indexes(stream) for row in rows]
        stored = [fragment["FragmentNumber"] for fragment in media.list_fragments(self.server, stream)]
        assert sorted(archived) == sorted(stored) and len(set(archived)) == len(archived)
        return paths


def test_another_s3_holds_the_same_archive(server, weed, name, long_film, tmp_path):
    archive = Archive(server, "films", elsewhere=weed)
    archive.tool("put", name, long_film, "--create", "24")
    child = archive.start(name, "--every", "1d")
    time.sleep(0.3)  # somewhere within the upload: where exactly must not matter
    child.send_signal(signal.SIGKILL)
    child.wait()
    archive.run(name, "--every", "1d", "--verify")
    archive.assert_whole(name, long_film, tmp_path)
    report, _ = archive.run(name, "--verify-only")
    assert report[-1]["good"] == 1 and not any(report[-1]["found"].values())


@pytest.fixture
def archive(server, name):
    return Archive(server, name.lower()[-50:].strip("-"))


@pytest.mark.parametrize("container", ["mkv", "mp4"])
def test_what_a_stream_holds_is_a_film_with_an_index(archive, name, film, tmp_path, container):
    archive.tool("put", name, film, "--create", "24")
    lines, _ = archive.run(name, "--every", "1d", "--format", container, "--verify")
    assert lines[-1]["objects"] >= 1 and lines[-1]["lost"] == 0
    paths = archive.assert_whole(name, film, tmp_path)
    [(head, rows)] = archive.indexes(name)
    info = archive.s3.head_object(Bucket=archive.bucket, Key=head["key"])
    assert info["ContentType"] == {"mkv": "video/x-matroska", "mp4": "video/mp4"}[container]
    assert head["key"].endswith(container) and rows[0]["at"][0] == 0
    said = subprocess.run(["ffprobe", "-loglevel", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(paths[0])],
                          check=True, capture_output=True, text=True).stdout
    assert 5.5 < float(said) < 6.5, "the film says how long it is"
    # A player can go to the middle without reading what is before it.
    seek = subprocess.run(["ffmpeg", "-loglevel", "error", "-ss", "3", "-i", str(paths[0]), "-frames:v", "1", "-f", "null", "-"], capture_output=True)
    assert seek.returncode == 0 and not seek.stderr, seek.stderr
    again, _ = archive.run(name, "--every", "1d", "--format", container)
    assert again[-1]["objects"] == 0, "there is nothing to do twice"


def test_films_end_at_the_hour_and_a_later_run_goes_on(archive, name, film, tmp_path):
    archive.tool("put", name, film, "--create", "24", "--realtime")
    archive.run(name, "--every", "2s")
    archive.tool("put", name, film)
    archive.run(name, "--every", "2s")
    archive.assert_whole(name, film, tmp_path, times=2)
    found = archive.indexes(name)
    assert len(found) >= 3
    for head, rows in found:
        assert len({row["server_ms"] // 2000 for row in rows}) == 1, head


def test_events_are_films_of_their_own(archive, name, film, tmp_path):
    for _ in range(2):
        archive.tool("put", name, film, "--create", "24")
    archive.run(name, "--by", "event", "--gap", "3s")
    archive.assert_whole(name, film, tmp_path, times=2)
    assert len(archive.indexes(name)) == 2


def test_an_archiver_that_is_killed_again_and_again_leaves_no_gap_and_no_double(archive, name, long_film, tmp_path):
    archive.tool("put", name, long_film, "--create", "24")
    chance = random.Random(5)
    for _ in range(8):
        child = archive.start(name, "--every", "1d")
        try:
            child.wait(timeout=chance.uniform(0.02, 0.6))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
    archive.run(name, "--every", "1d")
    archive.assert_whole(name, long_film, tmp_path)
    report, _ = archive.run(name, "--verify-only")
    assert report[-1]["good"] == 1 and not any(report[-1]["found"].values())


def test_an_archiver_goes_on_when_the_server_was_killed_in_the_middle(own_server, name, long_film, tmp_path):
    archive = Archive(own_server, "killed")
    archive.tool("put", name, long_film, "--create", "24")
    own_server.listen = f"127.0.0.1:{own_server.port}"
    child = archive.start(name, "--every", "1d")
    for pause in (0.15, 0.3):
        time.sleep(pause)  # somewhere within the upload: where exactly must not matter
        own_server.kill()
        own_server.restart()
    assert child.wait(timeout=120) == 0
    archive.assert_whole(name, long_film, tmp_path)


def test_reading_back_finds_what_somebody_changed(archive, name, film):
    archive.tool("put", name, film, "--create", "24")
    archive.run(name, "--every", "1d")
    [(head, _)] = archive.indexes(name)
    body = bytearray(archive.body(head["key"]))
    body[len(body) // 2] ^= 1
    archive.s3.put_object(Bucket=archive.bucket, Key=head["key"], Body=bytes(body))
    report, _ = archive.run(name, "--verify-only", ok=False)
    assert report[-1]["found"]["damaged"] == [head["key"]]


def test_errors_say_what_is_wrong(archive, name, film):
    archive.tool("put", name, film, "--create", "24")
    for destination, options, part in [
        ("films", [], "s3://BUCKET/PREFIX"),
        (f"s3://{archive.bucket}", ["--every", "2d"], "1d"),
        (f"s3://{archive.bucket}", ["--format", "avi"], "mkv or mp4"),
        ("s3://no-such-bucket", ["--give-up-after", "1"], "bucket"),
    ]:
        done = archive.tool("archive", name, destination, *options, ok=False)
        assert part in done.stderr, (destination, done.stderr)
    done = archive.tool("archive", "no-such-stream", f"s3://{archive.bucket}", ok=False)
    assert "make the stream first" in done.stderr


def test_a_tagged_stream_is_archived_by_the_server_and_retention_waits(archive, server, name, film, tmp_path):
    kvs = server.client("kinesisvideo")
    arn = media.make_stream(server, name, hours=24)
    for wrong in ("films", "s3://b every=x", "s3://b format=avi"):
        assert harness.code_of(lambda: kvs.tag_stream(StreamARN=arn, Tags={"sightglass:archive": wrong})) == "InvalidArgumentException"
    kvs.tag_stream(StreamARN=arn, Tags={"sightglass:archive": f"s3://{archive.bucket}/films every=2s"})
    archive.tool("put", name, film, "--realtime")
    stored = len(media.list_fragments(server, name))
    eventually(lambda: sum(head["fragments"] for head, _ in archive.indexes(name) if head["state"] == "done") == stored, within=60, every=0.5)
    archive.assert_whole(name, film, tmp_path)
    eventually(lambda: kvs.list_tags_for_stream(StreamARN=arn)["Tags"].get("sightglass:archived-until"), within=20)
    kvs.untag_stream(StreamARN=arn, TagKeyList=["sightglass:archive"])
