"""GetClip: what was stored comes back as one plain MP4 that ffprobe and ffmpeg read, within AWS's limits and errors."""

import datetime
import json
import subprocess

import pytest
from botocore.exceptions import ClientError

import harness
import mkv
from harness import eventually
from media import archived, list_fragments, make_stream
from putmedia import persisted, put

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
START_MS = 1_795_347_220_000
CODEC_PRIVATE, VIDEO, AUDIO = 0x63A2, 0xE0, 0xE1
# What x264 declares for 64x48, Constrained Baseline.
AVCC = bytes.fromhex("0142c00affe1001767 42c00ad9047b0110000003001000000303 20f122648001000568cb83cb20".replace(" ", ""))
WAVE_ALAW = bytes.fromhex("060001 00401f0000 401f0000 0100 0800 0000".replace(" ", ""))


def at(milliseconds):
    return EPOCH + datetime.timedelta(milliseconds=milliseconds)


def selector(start_ms, end_ms, kind="PRODUCER_TIMESTAMP"):
    return {"FragmentSelectorType": kind, "TimestampRange": {"StartTimestamp": at(start_ms), "EndTimestamp": at(end_ms)}}


def get_clip(server, name, start_ms=0, end_ms=24 * 3600 * 1000, kind="PRODUCER_TIMESTAMP"):
    return archived(server).get_clip(StreamName=name, ClipFragmentSelector=selector(start_ms, end_ms, kind))


def clip(server, name, path, *arguments, **options):
    """The clip as a file, complete and with its headers in front."""
    answer = get_clip(server, name, *arguments, **options)
    body = answer["Payload"].read()
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert answer["ContentType"] == "video/mp4" and int(headers["content-length"]) == len(body)
    boxes, offset = [], 0
    while offset < len(body):
        size, kind = int.from_bytes(body[offset:offset + 4], "big"), body[offset + 4:offset + 8]
        boxes.append(kind)
        offset += size
    assert (boxes, offset) == ([b"ftyp", b"moov", b"mdat"], len(body))
    path.write_bytes(body)
    return path


def probe(path):
    said = subprocess.run(["ffprobe", "-v", "error", "-count_packets", "-of", "json", "-show_streams", str(path)], capture_output=True, check=True)
    return json.loads(said.stdout)["streams"]


def frames(path):
    return [(stream["codec_name"], int(stream["nb_read_packets"])) for stream in probe(path)]


def decodes(path):
    said = subprocess.run(["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], capture_output=True)
    assert (said.returncode, said.stderr) == (0, b"")


def made(tmp_path, seconds, video=("-c:v", "libx264", "-bf", "2"), audio=("-c:a", "aac", "-ar", "48000")):
    """A Matroska file whose clusters begin at key frames, two seconds apart."""
    path = tmp_path / "made.mkv"
    inputs = [*(["-f", "lavfi", "-i", f"testsrc2=s=320x180:r=25:d={seconds}"] if video else []),
              *(["-f", "lavfi", "-i", f"sine=440:d={seconds}"] if audio else [])]
    coding = [*(video and [*video, "-g", "50", "-sc_threshold", "0", "-pix_fmt", "yuv420p"]), *audio]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *inputs, *coding, "-cluster_time_limit", "2000", "-f", "matroska", str(path)], check=True)
    return path.read_bytes()


def upload(server, name, body, start="1.000"):
    make_stream(server, name)
    acks = put(server, name, body, piece=65_536, timecodes="RELATIVE", start=start)
    numbers = persisted(acks)
    assert numbers, acks
    return numbers


def track(number=1, codec="V_MPEG4/ISO/AVC", private=AVCC):
    kind = 1 if codec.startswith("V") else 2
    described = mkv.element(VIDEO, mkv.number(0xB0, 64, 2) + mkv.number(0xBA, 48, 2), 1) if kind == 1 else mkv.element(AUDIO, mkv.number(0x9F, 1, 1), 1)
    private = mkv.element(CODEC_PRIVATE, private, 2) if private else b""
    return mkv.element(0xAE, mkv.number(0xD7, number, 1) + mkv.number(0x73C5, number) + mkv.number(0x83, kind, 1)
                       + mkv.element(0x86, codec.encode(), 1) + private + described, 4)


def head(*tracks):
    return mkv.EBML_HEADER + mkv.SEGMENT_UNKNOWN + mkv.element(mkv.INFO, mkv.number(mkv.TIMECODE_SCALE, 1_000_000), 2) + mkv.element(
        mkv.TRACKS, b"".join(tracks), 4)


def picture(size=20, kind=0x65):
    """A frame of one unit that no decoder was asked about."""
    return (size + 1).to_bytes(4, "big") + bytes([kind]) + b"\x80" * size


def numbered(server, name, count=4, *, first=START_MS, every=2000, body=None, tracks=None):
    """A stream of one-frame fragments."""
    body = body if body is not None else picture()
    sent = head(*(tracks or [track()])) + b"".join(mkv.cluster(first + every * n, mkv.block(body)) for n in range(count))
    acks = put(server, name, sent, piece=1 << 20)
    numbers = persisted(acks)
    assert len(numbers) == count, acks
    return numbers


def code_of(call):
    with pytest.raises(ClientError) as failed:
        call()
    error = failed.value.response
    return error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("video, audio, codecs", [
    (("-c:v", "libx264", "-bf", "2"), ("-c:a", "aac"), ["h264", "aac"]),
    (("-c:v", "libx265", "-x265-params", "log-level=error"), (), ["hevc"]),
    (("-c:v", "libx264", "-bf", "0"), ("-c:a", "pcm_mulaw", "-ar", "8000"), ["h264", "pcm_mulaw"]),
    ((), ("-c:a", "aac"), ["aac"]),
], ids=["h264-aac", "h265", "g711", "sound-alone"])
def test_a_clip_holds_every_frame_that_was_sent_and_plays(server, name, tmp_path, video, audio, codecs):
    body = made(tmp_path, 6, video, audio)
    stored = len(upload(server, name, body))
    [sent] = mkv.documents(body)
    # A last cluster that has no frame of one of the tracks is refused by PutMedia.
    blocks = [block for fragment in sent.fragments[:stored] for block in fragment.blocks]
    wanted = [sum(block.track == number for block in blocks) for number in sorted({block.track for block in blocks})]
    path = clip(server, name, tmp_path / "clip.mp4")
    assert frames(path) == list(zip(codecs, wanted))
    decodes(path)
    for stream in probe(path):
        assert abs(float(stream["duration"]) - 6) < 0.1, stream


@pytest.mark.parametrize("capture", ["putmedia/c-sample-video-metadata3.mkv", "putmedia/kvssink-h264-noEOFRack.mkv", "mkv/vogels_330.mkv"])
def test_a_clip_of_what_a_producer_sent_plays(server, data, name, tmp_path, capture):
    body = (data / capture).read_bytes()
    upload(server, name, body)
    [sent] = mkv.documents(body)
    now = int((datetime.datetime.now(datetime.timezone.utc) - EPOCH).total_seconds() * 1000)
    path = clip(server, name, tmp_path / "clip.mp4", now - 60_000, now, "SERVER_TIMESTAMP")
    assert sum(count for _, count in frames(path)) == sum(len(fragment.blocks) for fragment in sent.fragments)
    decodes(path)


def test_a_range_takes_the_fragments_that_start_in_it_both_ends_included(server, name, tmp_path):
    make_stream(server, name)
    numbered(server, name, 6)

    def count(start, end, kind="PRODUCER_TIMESTAMP"):
        [(codec, count)] = frames(clip(server, name, tmp_path / "clip.mp4", start, end, kind))
        return count
    assert count(START_MS, START_MS + 10_000) == 6
    assert count(START_MS + 2000, START_MS + 6000) == 3
    assert count(START_MS + 2001, START_MS + 5999) == 1
    assert count(START_MS + 4000, START_MS + 4000) == 1
    times = [round(fragment["ServerTimestamp"].timestamp() * 1000) for fragment in list_fragments(server, name)]
    assert count(times[0], times[-1], "SERVER_TIMESTAMP") == 6


def test_what_was_ingested_again_is_in_the_clip_once(server, name, tmp_path):
    make_stream(server, name)
    numbered(server, name, 3)
    numbered(server, name, 5, body=picture(40))
    path = clip(server, name, tmp_path / "clip.mp4", START_MS, START_MS + 20_000)
    sizes = subprocess.run(["ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "packet=size", str(path)], capture_output=True, text=True)
    # The first three of the first upload, the two that only the second one has.
    assert [int(line) for line in sizes.stdout.split()] == [25, 25, 25, 45, 45]


def test_a_gap_in_what_is_stored_is_a_gap_in_the_clip(server, name, tmp_path):
    make_stream(server, name)
    numbered(server, name, 2)
    numbered(server, name, 2, first=START_MS + 60_000)
    path = clip(server, name, tmp_path / "clip.mp4", START_MS, START_MS + 100_000)
    times = subprocess.run(["ffprobe", "-v", "error", "-of", "csv=p=0", "-show_entries", "packet=pts_time", str(path)], capture_output=True, text=True)
    assert [float(line) for line in times.stdout.split()] == [0, 2, 60, 62]


def test_a_clip_ends_at_the_limits_of_the_service_and_of_the_configuration(server, name, tmp_path):
    make_stream(server, name)
    numbered(server, name, 203, every=100)
    assert frames(clip(server, name, tmp_path / "clip.mp4", START_MS, START_MS + 60_000)) == [("h264", 200)]
    settings = tmp_path / "settings.toml"
    settings.write_text("[clip]\nmax_fragments = 300\nmax_bytes = 1000\n")
    own = harness.Server(None, "--config", str(settings))
    try:
        make_stream(own, name)
        numbered(own, name, 203, every=100)
        # 40 fragments of 25 bytes are 1000 bytes.
        assert frames(clip(own, name, tmp_path / "clip.mp4", START_MS, START_MS + 60_000)) == [("h264", 40)]
    finally:
        assert own.stop() == 0


def test_one_clip_too_many_is_told_to_come_later(tmp_path, name):
    settings = tmp_path / "settings.toml"
    settings.write_text("[clip]\nat_once = 1\n")
    own = harness.Server(None, "--config", str(settings))
    try:
        make_stream(own, name)
        # More than the sockets between hold, so that the first clip stays under way while it is not read.
        large = 4 << 20
        numbered(own, name, 12, body=large.to_bytes(4, "big") + b"\x65" + bytes(large - 1))
        wanted = START_MS, START_MS + 60_000
        first = get_clip(own, name, *wanted)["Payload"]
        assert code_of(lambda: get_clip(own, name, *wanted)) == ("ClientLimitExceededException", 400)
        first.close()
        second = eventually(lambda: get_clip(own, name, *wanted))
        assert len(second["Payload"].read()) > 12 * large
    finally:
        assert own.stop() == 0


def test_a_range_that_is_none_or_holds_nothing_is_declined(server, name):
    missing, invalid = ("ResourceNotFoundException", 404), ("InvalidArgumentException", 400)
    assert code_of(lambda: get_clip(server, name)) == missing
    make_stream(server, name)
    numbered(server, name, 2)
    assert code_of(lambda: get_clip(server, name, START_MS + 50_000, START_MS + 60_000)) == missing
    assert code_of(lambda: get_clip(server, name, START_MS + 1, START_MS)) == invalid
    assert code_of(lambda: get_clip(server, name, START_MS, START_MS + 24 * 3600 * 1000 + 1)) == invalid
    future = int((datetime.datetime.now(datetime.timezone.utc) - EPOCH).total_seconds() * 1000) + 60_000
    assert code_of(lambda: get_clip(server, name, future - 120_000, future, "SERVER_TIMESTAMP")) == invalid


def test_media_that_cannot_be_packaged_is_declined_with_its_reason(server, name):
    def refused(part, tracks, *bodies):
        stream = f"{name}-{part}"
        make_stream(server, stream)
        for body, n in zip(bodies, range(9)):
            numbered(server, stream, 1, first=START_MS + 2000 * n, body=body, tracks=tracks[n % len(tracks)])
        return code_of(lambda: get_clip(server, stream, START_MS, START_MS + 20_000))
    frame = picture()
    assert refused("codec", [[track(codec="V_VP9")]], frame) == ("UnsupportedStreamMediaTypeException", 400)
    assert refused("missing", [[track(private=b"")]], frame) == ("MissingCodecPrivateDataException", 400)
    assert refused("garbage", [[track(private=b"\x07nonsense")]], frame) == ("InvalidCodecPrivateDataException", 400)
    other = AVCC[:3] + b"\x0b" + AVCC[4:]
    assert refused("change", [[track()], [track(private=other)]], frame, frame) == ("InvalidCodecPrivateDataException", 400)
    assert refused("frame", [[track()]], b"\0\0\xff\xff frame") == ("InvalidMediaFrameException", 400)
    stream = f"{name}-kept"
    make_stream(server, stream, hours=0)
    assert code_of(lambda: get_clip(server, stream)) == ("NoDataRetentionException", 400)


def test_a_stream_without_codec_private_data_is_described_by_its_own_frames(server, name, tmp_path):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2", "-c:v", "libx264", "-g", "25", "-bf", "0",
                    "-pix_fmt", "yuv420p", "-f", "h264", str(tmp_path / "made.h264")], check=True)
    # One frame for each access unit: cut in front of each parameter set and of each slice that follows a slice.
    stream = (tmp_path / "made.h264").read_bytes()
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\x01") if unit.strip(b"\0")]
    pictures, gathered = [], []
    for unit in units:
        gathered.append(b"\0\0\0\x01" + unit)
        if unit[0] & 0x1F in (1, 5):
            pictures.append((unit[0] & 0x1F == 5, b"".join(gathered)))
            gathered = []
    assert len(pictures) == 50
    body, cluster_blocks = head(track(private=b"")), []
    for n, (key, frame) in enumerate(pictures):
        if key and cluster_blocks:
            body += mkv.cluster(START_MS + 1000 * (n // 25 - 1), *cluster_blocks)
            cluster_blocks = []
        cluster_blocks.append(mkv.block(frame, relative=(n % 25) * 40, key=key))
    body += mkv.cluster(START_MS + 1000, *cluster_blocks)
    make_stream(server, name)
    assert len(persisted(put(server, name, body, piece=65_536))) == 2
    path = clip(server, name, tmp_path / "clip.mp4", START_MS, START_MS + 20_000)
    assert frames(path) == [("h264", 50)]
    decodes(path)
    # The log says so when it comes in, and the stream's tag can have it as AWS does.
    assert "the track declares no codec private data: players are given what the SPS and PPS in its first frame say" in server.log()
    server.client("kinesisvideo").tag_stream(StreamName=name, Tags={"sightglass:derive_codec_private": "false"})
    assert code_of(lambda: get_clip(server, name, START_MS, START_MS + 20_000)) == ("MissingCodecPrivateDataException", 400)
    live = lambda: server.client("kinesis-video-archived-media").get_hls_streaming_session_url(StreamName=name)
    assert code_of(live) == ("MissingCodecPrivateDataException", 400)
    server.client("kinesisvideo").untag_stream(StreamName=name, TagKeyList=["sightglass:derive_codec_private"])
    assert live()["HLSStreamingSessionURL"]
    assert frames(clip(server, name, path, START_MS, START_MS + 20_000)) == [("h264", 50)]


def big(server, name, fragments=45, megabytes=2):
    make_stream(server, name)
    numbered(server, name, fragments, body=picture(megabytes << 20))


def most_memory_during(server, name, size):
    """KiB that the server's memory grew by at most while it sent a clip of so many bytes and more, a restart behind it."""
    assert server.stop() == 0
    server.restart()
    eventually(lambda: list_fragments(server, name))
    before, most, received = server.rss_kib(), 0, 0
    body = get_clip(server, name, START_MS, START_MS + 3_600_000)["Payload"]
    while piece := body.read(1 << 20):
        received += len(piece)
        most = max(most, server.rss_kib())
    assert received > size
    return most - before


def test_memory_does_not_grow_with_the_clip(own_server, name):
    big(own_server, name)
    assert most_memory_during(own_server, name, 45 * (2 << 20)) < 24 * 1024


def test_memory_does_not_grow_with_a_clip_beyond_the_limits_of_the_service(name, tmp_path):
    """Seven times the largest clip of the service, in the memory of the one before."""
    settings = tmp_path / "settings.toml"
    settings.write_text("[clip]\nmax_fragments = 1000\nmax_bytes = 2000000000\n")
    own = harness.Server(None, "--config", str(settings))
    try:
        make_stream(own, name)
        frame = picture(2 << 20)
        for part in range(10):
            numbered(own, name, 34, first=START_MS + 68_000 * part, body=frame)
        assert most_memory_during(own, name, 340 * (2 << 20)) < 24 * 1024
    finally:
        assert own.stop() == 0


def test_a_clip_whose_stream_is_deleted_meanwhile_breaks_off(own_server, name):
    big(own_server, name)
    answer = get_clip(own_server, name, START_MS, START_MS + 100_000)
    size = int(answer["ResponseMetadata"]["HTTPHeaders"]["content-length"])
    received = len(answer["Payload"].read(1 << 20))
    kvs = own_server.client("kinesisvideo")
    kvs.delete_stream(StreamARN=kvs.describe_stream(StreamName=name)["StreamInfo"]["StreamARN"])
    with pytest.raises(Exception) as broken:
        while piece := answer["Payload"].read(1 << 20):
            received += len(piece)
    assert type(broken.value).__name__ in ("IncompleteReadError", "ResponseStreamingError", "ProtocolError"), broken
    assert received < size
