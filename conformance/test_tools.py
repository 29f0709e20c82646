"""`sightglass put`, `get`, `clip` and `play`, as a person at a terminal uses them."""

import json
import os
import pathlib
import subprocess

import pytest

from harness import REGION, binary


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=6", "-c:v", "libx264", "-bf", "0",
                    "-g", "25", "-pix_fmt", "yuv420p", "-cluster_time_limit", "1000", str(path)], check=True)
    return path


@pytest.fixture
def tool(server):
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
                   "AWS_SECRET_ACCESS_KEY": server.secret}

    def run(*arguments, ok=True, stdin=None):
        done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, env=environment, timeout=60, stdin=stdin)
        assert (done.returncode == 0) == ok, done.stderr.decode()
        return done

    return run


def probe(path):
    said = subprocess.run(["ffprobe", "-loglevel", "error", "-count_frames", "-show_entries", "stream=nb_read_frames:format=duration", "-of", "json",
                           str(path)], check=True, capture_output=True, text=True)
    found = json.loads(said.stdout)
    return int(found["streams"][0]["nb_read_frames"]), float(found["format"].get("duration", 0))


def test_a_film_put_twice_comes_back_as_one_film(tool, name, film, tmp_path):
    acks = [json.loads(line) for line in tool("put", name, film, "--create", "1", "--json").stdout.splitlines()]
    persisted = [ack["fragment_number"] for ack in acks if ack["event"] == "PERSISTED"]
    assert len(persisted) >= 6 and len(set(persisted)) == len(persisted)
    with open(film, "rb") as source:
        tool("put", name, "-", stdin=source)
    out = tmp_path / "all.mkv"
    rows = [json.loads(line) for line in tool("get", name, "-o", out, "--close-gaps", "--json").stdout.splitlines()]
    assert [row["fragment_number"] for row in rows][: len(persisted)] == persisted
    frames, seconds = probe(out)
    assert frames == 300 and 11.5 < seconds < 12.5
    raw = tool("get", name, "--raw").stdout
    assert raw.count(b"\x1a\x45\xdf\xa3") >= len(rows)
    assert tool("get", name, "--from", "2020-01-01T00:00:00Z", "--to", "1600000000", ok=False).stdout == b""


def test_a_live_get_begins_where_it_is_told_and_ends_with_a_whole_film(tool, name, film, tmp_path):
    tool("put", name, film, "--create", "1")
    out = tmp_path / "live.mkv"
    tool("get", name, "--live", "--from", "earliest", "--seconds", "3", "-o", out)
    assert probe(out)[0] == 150


def test_what_is_no_matroska_goes_through_ffmpeg(tool, name, film, tmp_path):
    mp4 = tmp_path / "film.mp4"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", str(film), "-c", "copy", str(mp4)], check=True)
    tool("put", name, mp4, "--create", "1")
    out = tmp_path / "back.mkv"
    tool("get", name, "-o", out)
    assert probe(out)[0] == 150


def test_a_clip_is_a_film_of_the_range(tool, name, film, tmp_path):
    tool("put", name, film, "--create", "1")
    clip = tmp_path / "clip.mp4"
    tool("clip", name, "--from", "-10m", "-o", clip)
    assert probe(clip)[0] == 150


def test_play_prints_the_url_of_a_session_that_ffmpeg_plays(tool, name, film):
    tool("put", name, film, "--create", "1")
    url = tool("play", name, "--from", "-10m", "--to", "now", "--url").stdout.decode().strip()
    said = json.loads(tool("play", name, "--from", "-10m", "--to", "now", "--json").stdout)
    assert url.startswith("http://") and said["url"].split("?")[0] == url.split("?")[0]
    assert probe(url)[0] == 150


def test_errors_say_what_to_do(tool, name, tmp_path):
    assert b"no time" in tool("get", name, "--from", "yesterday", "--raw", ok=False).stderr
    assert b"make the stream first" in tool("clip", name, "--from", "-10m", "-o", tmp_path / "x.mp4", ok=False).stderr
    assert not (tmp_path / "x.mp4").exists()
    assert b"ffmpeg" in tool("put", name, "nosuch://camera", ok=False).stderr


def test_the_client_crate_s_examples_run(server, name):
    """Built by `cargo test`, beside the server."""
    examples = pathlib.Path(binary()).parent / "examples"
    if not (examples / "put_frames").exists():
        pytest.skip("the examples are not built beside the server")
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
                   "AWS_SECRET_ACCESS_KEY": server.secret}
    run = lambda *command: subprocess.run([str(examples / command[0]), *command[1:]], check=True, capture_output=True, text=True, env=environment,
                                          timeout=60).stdout
    server.client("kinesisvideo").create_stream(StreamName=name, DataRetentionInHours=1)
    assert "4 fragments stored" in run("put_frames", name)
    counted = run("count_frames", name, "2")
    assert "4 fragments, frames by track: {1: 100}" in counted and counted.count("key frame of V_UNCOMPRESSED") == 4
