"""`sightglass put`, `get`, `clip` and `play`, as a person at a terminal uses them."""

import json
import os
import pathlib
import pty
import re
import subprocess

import pytest

import harness
from harness import REGION, binary


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=6", "-c:v", "libx264", "-bf", "0",
                    "-g", "25", "-pix_fmt", "yuv420p", "-cluster_time_limit", "1000", str(path)], check=True)
    return path


@pytest.fixture
def environment(server):
    return {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret}


@pytest.fixture
def tool(environment):
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


def on_a_terminal(environment, *arguments):
    """What a command writes on a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen([binary(), *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65_536):
            seen += piece
    except OSError:  # the last one who had it open is gone
        pass
    os.close(ours)
    child.stdout.close()
    assert child.wait(timeout=60) == 0, seen
    return seen.decode()


def test_a_person_at_a_terminal_sees_how_far_it_is(tool, environment, name, film, tmp_path):
    assert "fragments stored, the last 9" in on_a_terminal(environment, "put", name, film, "--create", "1")
    said = on_a_terminal(environment, "get", name, "-o", tmp_path / "film.mkv")
    assert re.search(r"\r1 of \d+ fragments, [\d.]+ [kM]?B, 0:00:0\d", said), said
    assert re.search(r"\r[\d.]+ [kM]?B of [\d.]+ [kM]?B \(\d+ %\)", on_a_terminal(environment, "clip", name, "--from", "-10m", "-o", tmp_path / "clip.mp4"))
    for quiet in (["get", name, "-o", tmp_path / "film.mkv", "--json"], ["clip", name, "--from", "-10m", "-o", tmp_path / "clip.mp4", "--json"]):
        assert on_a_terminal(environment, *quiet) == ""
    assert "\r1 of" not in on_a_terminal(environment | {"TERM": "dumb"}, "get", name, "-o", tmp_path / "film.mkv")
    assert b"\r" not in tool("get", name, "-o", tmp_path / "film.mkv").stderr, "no terminal, no moving line"


def test_a_film_can_be_sought_without_reading_it_all(tool, name, tmp_path):
    film, out = tmp_path / "long.mkv", tmp_path / "out.mkv"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=60", "-f", "lavfi", "-i", "sine=440:d=60",
                    "-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac", "-cluster_time_limit", "2000",
                    str(film)], check=True)
    tool("put", name, film, "--create", "1")
    rows = tool("get", name, "-o", out, "--json").stdout.splitlines()
    size = out.stat().st_size
    for second in (58, 31, 4):
        said = subprocess.run(["ffmpeg", "-loglevel", "verbose", "-ss", str(second), "-i", str(out), "-frames:v", "1", "-f", "framemd5", "-"], check=True,
                              capture_output=True, text=True)
        [read] = [int(found) for found in re.findall(r"Statistics: (\d+) bytes read", said.stderr)]
        assert read < size / 4, f"{read} of {size} bytes"
        # The picture is the one that the film shows then.
        shown = subprocess.run(["ffmpeg", "-loglevel", "error", "-ss", str(second), "-i", str(film), "-frames:v", "1", "-f", "framemd5", "-"], check=True,
                               capture_output=True, text=True)
        picture = lambda text: [line.split(",")[-1] for line in text.splitlines() if line and line[0] == "0"]
        assert picture(said.stdout) == picture(shown.stdout) != []
    # A reader of others: every fragment has its entry, and mkvinfo finds nothing to complain about.
    said = subprocess.run(["mkvinfo", "--all", str(out)], capture_output=True, text=True)
    assert said.returncode == 0 and "Error" not in said.stdout and "(unknown" not in said.stdout, said.stdout[:4000]
    assert said.stdout.count("+ Cue point") == 30 <= len(rows), "one for each key frame"
    assert said.stdout.count("+ Seek entry") == 3


def example(name):
    """A built example of the crate `client`: `cargo test` builds them beside the server."""
    path = pathlib.Path(binary()).parent / "examples" / name
    if not path.exists():
        pytest.skip("the examples are not built beside the server")
    return str(path)


def run_example(environment, name, *arguments):
    return subprocess.run([example(name), *map(str, arguments)], check=True, capture_output=True, text=True, env=environment, timeout=60).stdout


def test_the_examples_send_frames_and_count_them(environment, server, name):
    server.client("kinesisvideo").create_stream(StreamName=name, DataRetentionInHours=1)
    assert "4 fragments stored" in run_example(environment, "put_frames", name)
    counted = run_example(environment, "count_frames", name, "2")
    assert "4 fragments, frames by track: {1: 100}" in counted and counted.count("key frame of V_UNCOMPRESSED") == 4


def test_the_examples_send_a_file_and_give_it_back_as_one_film(environment, server, name, film, tmp_path):
    server.client("kinesisvideo").create_stream(StreamName=name, DataRetentionInHours=1)
    stored = re.fullmatch(r"(\d+) of \1 fragments stored, \d+ bytes\n", run_example(environment, "put_file", name, film))
    assert stored and int(stored[1]) >= 6
    out = tmp_path / "film.mkv"
    joined = re.fullmatch(r"(\d+) fragments, (\d+) bytes\n", run_example(environment, "merge_range", name, 10, out))
    assert joined[1] == stored[1] and 0 < int(joined[2]) <= out.stat().st_size
    frames, seconds = probe(out)
    assert frames == 150 and 5.9 < seconds < 6.1


def test_the_example_archives_a_live_stream_and_goes_on_where_it_ended(environment, server, name, film, tmp_path):
    server.client("kinesisvideo").create_stream(StreamName=name, DataRetentionInHours=1)
    folder = tmp_path / "archive"

    def archive(fragments):
        """Runs until so many fragments have a file; gives their numbers, as printed."""
        child = subprocess.Popen([example("archive_live"), name, str(folder)], env=environment, stdout=subprocess.PIPE, text=True)
        lines = [child.stdout.readline() for _ in range(fragments)]
        child.kill()
        child.wait()
        child.stdout.close()
        return [re.fullmatch(r"(\d+): \d+ frames\n", line)[1] for line in lines]

    stored = int(run_example(environment, "put_file", name, film).split()[0])
    first = archive(stored)
    again = int(run_example(environment, "put_file", name, film).split()[0])
    second = archive(again)
    files = sorted((path.stem for path in folder.glob("*.mkv")), key=int)
    assert files == first + second, "each fragment once, in order"
    assert sum(probe(folder / f"{number}.mkv")[0] for number in files) == 300


@pytest.mark.parametrize("trust, ok", [("platform", True), ("--ca", True), ("nothing", False)])
def test_a_tls_server_is_trusted_by_the_machines_roots_or_by_the_named_authority(authority, name, film, tmp_path, trust, ok):
    """The machine's roots are those that SSL_CERT_FILE names, as for other programs."""
    server = harness.Server(None, "--tls-cert", str(authority.certificate), "--tls-key", str(authority.key))
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": f"https://{server.host}:{server.port}",
                   "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret}
    if trust == "platform":
        environment["SSL_CERT_FILE"] = str(authority.ca)
    options = ["--ca", str(authority.ca)] if trust == "--ca" else []
    run = lambda *arguments: subprocess.run([binary(), *map(str, arguments), *options], capture_output=True, env=environment, timeout=60)
    try:
        sent = run("put", name, film, "--create", "1")
        assert (sent.returncode == 0) == ok, sent.stderr.decode()
        if not ok:
            assert "certificate" in sent.stderr.decode().lower()
            return
        out = tmp_path / "back.mkv"
        assert run("get", name, "-o", out).returncode == 0
        assert probe(out)[0] == 150
    finally:
        server.stop()
