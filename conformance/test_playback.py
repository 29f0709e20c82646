"""Playback sessions: what GetHLSStreamingSessionURL and GetDASHStreamingSessionURL give is read by ffprobe and ffmpeg, and
every token, range and codec that cannot be played is answered with its declared error."""

import json
import re
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree

import m3u8
import pytest
from mpegdash.parser import MPEGDASHParser

import mkv
from harness import eventually
from media import archived, list_fragments, make_stream
from putmedia import Put, persisted, put
import test_clip
from test_clip import START_MS, at, code_of, head, made, picture, track, upload

MPD = {"mpd": "urn:mpeg:dash:schema:mpd:2011"}
KVS = "{urn:amazon:kinesisvideo}"


def numbered(server, name, *arguments, **options):
    """A new stream of one-frame fragments."""
    make_stream(server, name)
    return test_clip.numbered(server, name, *arguments, **options)


def hls_url(server, name, **options):
    return archived(server).get_hls_streaming_session_url(StreamName=name, **options)["HLSStreamingSessionURL"]


def dash_url(server, name, **options):
    return archived(server).get_dash_streaming_session_url(StreamName=name, **options)["DASHStreamingSessionURL"]


def on_demand(kind="PRODUCER_TIMESTAMP", start_ms=0, end_ms=86_400_000, protocol="HLS"):
    return {"PlaybackMode": "ON_DEMAND", protocol + "FragmentSelector": {
        "FragmentSelectorType": kind, "TimestampRange": {"StartTimestamp": at(start_ms), "EndTimestamp": at(end_ms)}}}


# The fragments of `numbered` begin here.
RANGE = {"start_ms": START_MS, "end_ms": START_MS + 3_600_000}


def fetch(url, method="GET"):
    """Status, headers and body, without any signature."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def refusal(url):
    status, headers, _ = fetch(url)
    assert headers["Access-Control-Allow-Origin"] == "*", "a page must be able to read why"
    return headers["x-amzn-ErrorType"].split(":")[0], status


def text(url):
    status, headers, body = fetch(url)
    assert status == 200, body
    assert headers["Content-Type"] == "application/vnd.apple.mpegurl" and headers["Access-Control-Allow-Origin"] == "*"
    assert int(headers["Content-Length"]) == len(body)
    read_by_others(body.decode())
    return body.decode()


def read_by_others(playlist):
    """A parser of others reads what we read."""
    read = m3u8.loads(playlist)
    if read.is_variant:
        assert [variant.uri for variant in read.playlists] == uris(playlist)
        assert all(variant.stream_info.bandwidth > 0 and variant.stream_info.codecs for variant in read.playlists)
        return
    assert [segment.uri for segment in read.segments] == uris(playlist)
    assert [read.media_sequence] == [int(number) for number in tag(playlist, "MEDIA-SEQUENCE")]
    assert read.is_endlist == playlist.endswith("#EXT-X-ENDLIST\n")
    assert all(0 < segment.duration and round(segment.duration) <= read.target_duration for segment in read.segments)
    assert sum(segment.discontinuity for segment in read.segments) == playlist.count("#EXT-X-DISCONTINUITY\n")
    assert all(segment.init_section for segment in read.segments) or "#EXT-X-MAP" not in playlist


def segments_read_by_others(manifest):
    """The initialisation segment and the media segments (name, begin and length in seconds) of each track, as a parser of
    others reads a manifest."""
    mpd = MPEGDASHParser.parse(manifest.decode())
    [period] = mpd.periods
    tracks = []
    for adaptation in period.adaptation_sets:
        [representation] = adaptation.representations
        [template] = (adaptation.segment_templates or []) + (representation.segment_templates or [])
        assert representation.bandwidth > 0 and representation.codecs
        [timeline] = template.segment_timelines
        found, number, at = [], template.start_number, 0
        for entry in timeline.Ss:
            at = entry.t if entry.t is not None else at
            for _ in range((entry.r or 0) + 1):
                found.append((template.media.replace("$Number$", str(number)), at / template.timescale, entry.d / template.timescale))
                number, at = number + 1, at + entry.d
        tracks.append((template.initialization, found))
    return mpd, tracks


def uris(playlist):
    return [line for line in playlist.splitlines() if line and not line.startswith("#")]


def tag(playlist, name):
    return re.findall(rf"^#EXT-X-{name}:(.*)$", playlist, re.MULTILINE)


def media_playlist(master_url):
    [uri] = uris(text(master_url))
    return urllib.parse.urljoin(master_url, uri)


def packets(url, *options):
    said = subprocess.run(["ffprobe", "-v", "error", *options, "-count_packets", "-of", "json", "-show_streams", url], capture_output=True, timeout=60)
    assert said.returncode == 0, said.stderr
    return sorted((stream["codec_name"], int(stream["nb_read_packets"])) for stream in json.loads(said.stdout)["streams"])


def decodes(url, *options):
    said = subprocess.run(["ffmpeg", "-v", "error", "-xerror", "-i", url, *options, "-f", "null", "-"], capture_output=True, timeout=60)
    assert said.returncode == 0, said.stderr


def sent_frames(body):
    """Video and audio frames of a Matroska file."""
    said = subprocess.run(["ffprobe", "-v", "error", "-count_packets", "-of", "json", "-show_streams", "-"], input=body, capture_output=True, check=True)
    return sorted((stream["codec_name"], int(stream["nb_read_packets"])) for stream in json.loads(said.stdout)["streams"])


BOTH = [("-c:v", "libx264", "-bf", "2"), ("-c:a", "aac", "-ar", "48000")]


@pytest.mark.parametrize("container", ["FRAGMENTED_MP4", "MPEG_TS"])
@pytest.mark.parametrize("video, audio", [BOTH, (BOTH[0], ()), ((), BOTH[1])], ids=["both", "pictures", "sound"])
def test_a_stored_range_plays_as_hls_with_every_frame(server, name, tmp_path, container, video, audio):
    body = made(tmp_path, 8, video, audio)
    upload(server, name, body)
    url = hls_url(server, name, ContainerFormat=container, **on_demand())
    assert packets(url) == sent_frames(body)
    decodes(url)
    master = text(url)
    if video:
        assert 'CODECS="avc1.' in master and "RESOLUTION=320x180" in master and "FRAME-RATE=25.0" in master
    assert ("#EXT-X-MEDIA:TYPE=AUDIO" in master) == bool(video and audio and container == "FRAGMENTED_MP4")
    playlist = text(media_playlist(url))
    assert "#EXT-X-PLAYLIST-TYPE:VOD" in playlist and playlist.endswith("#EXT-X-ENDLIST\n")
    assert tag(playlist, "MEDIA-SEQUENCE") == ["1"] and ("#EXT-X-MAP" in playlist) == (container == "FRAGMENTED_MP4")


@pytest.mark.parametrize("video, audio", [BOTH, (BOTH[0], ()), ((), BOTH[1])], ids=["both", "pictures", "sound"])
def test_a_stored_range_plays_as_dash_with_every_frame(server, name, tmp_path, video, audio):
    body = made(tmp_path, 8, video, audio)
    upload(server, name, body)
    url = dash_url(server, name, DisplayFragmentNumber="ALWAYS", DisplayFragmentTimestamp="ALWAYS", **on_demand(protocol="DASH"))
    decodes(url)
    status, headers, manifest = fetch(url)
    assert (status, headers["Content-Type"]) == (200, "application/dash+xml")
    root = ElementTree.fromstring(manifest)
    assert root.get("type") == "static"
    listed = [fragment["FragmentNumber"] for fragment in list_fragments(server, name)]
    for timeline in root.iterfind(".//mpd:SegmentTimeline", MPD):
        assert [segment.get(KVS + "fn") for segment in timeline] == listed
        ends = [int(segment.get("t")) + int(segment.get("d")) for segment in timeline]
        assert [int(segment.get("t")) for segment in timeline] == [0, *ends[:-1]], "the time line has no gaps"
    # ffmpeg's reader of DASH ends when the shorter of two tracks ends, so that the last frames of the longer one may be missing,
    # with manifests of its own making too. So each track is counted alone.
    kinds = ["v"] * bool(video) + ["a"] * bool(audio)
    assert sorted(counted for kind in kinds for counted in packets(url, "-select_streams", kind)) == sent_frames(body)
    # The segments of each track behind its initialisation segment, as a player appends them.
    mpd, tracks = segments_read_by_others(manifest)
    assert mpd.type == "static" and mpd.media_presentation_duration.startswith("PT8")
    found = []
    for number, (initialization, segments) in enumerate(tracks):
        assert len(segments) == len(listed) and segments[0][1] == 0
        assert all(abs(at + length - next_at) < 1e-6 for (_, at, length), (_, next_at, _) in zip(segments, segments[1:]))
        assert 7.9 < sum(length for _, _, length in segments) < 8.1
        path = tmp_path / f"track{number}.mp4"
        path.write_bytes(b"".join(fetch(urllib.parse.urljoin(url, name))[2] for name in [initialization] + [name for name, _, _ in segments]))
        found += packets(str(path))
    assert sorted(found) == sent_frames(body)


def test_a_playlist_says_of_a_fragment_what_list_fragments_says(server, name):
    numbered(server, name, 6)
    url = hls_url(server, name, DisplayFragmentTimestamp="ALWAYS", **on_demand(**RANGE))
    playlist = text(media_playlist(url))
    listed = list_fragments(server, name)
    assert [float(length) for length in re.findall(r"#EXTINF:([\d.]+),", playlist)] == [
        # A frame without a duration makes a fragment without one; players take no segment of 0 s.
        max(1, f["FragmentLengthInMilliseconds"]) / 1000 for f in listed]
    assert [urllib.parse.parse_qs(uri.split("?")[1])["FragmentNumber"][0] for uri in uris(playlist)] == [f["FragmentNumber"] for f in listed]
    dates = tag(playlist, "PROGRAM-DATE-TIME")
    assert dates == [f["ProducerTimestamp"].strftime("%Y-%m-%dT%H:%M:%S.") + f"{f['ProducerTimestamp'].microsecond // 1000:03d}Z" for f in listed]
    named = text(media_playlist(url + "&DisplayFragmentNumber=ALWAYS"))
    assert [re.search(r'X-FRAGMENT-NUMBER="(\d+)"', line)[1] for line in tag(named, "DATERANGE")] == [f["FragmentNumber"] for f in listed]


def test_the_options_decide_what_a_playlist_holds(server, name):
    # The third fragment begins 200 ms late, the fourth has another codec private data.
    make_stream(server, name)
    other = bytes.fromhex("0142c00bffe100176742c00bd9047b011000000300100000030320f122648001000568cb83cb20")
    clusters = [mkv.cluster(START_MS + ms, mkv.block(picture())) for ms in (0, 40, 280, 320)]
    persisted(put(server, name, head(track()) + b"".join(clusters[:3])))
    persisted(put(server, name, head(track(private=other)) + clusters[3]))

    def flags(**options):
        playlist = text(media_playlist(hls_url(server, name, **options)))
        parts = playlist.split("#EXTINF")
        return ["#EXT-X-DISCONTINUITY\n" in part for part in parts[:-1]], len(tag(playlist, "MAP"))

    assert flags(**on_demand(**RANGE)) == ([False, False, False, True], 2), "NEVER on the producer's time, but for the codec"
    assert flags(DiscontinuityMode="ALWAYS", **on_demand(**RANGE)) == ([True] * 4, 2)
    lengths = [fragment["FragmentLengthInMilliseconds"] for fragment in list_fragments(server, name)]
    jumps = [abs(after - before - length) > 50 for before, after, length in zip((0, 40, 280), (40, 280, 320), lengths)]
    assert flags(DiscontinuityMode="ON_DISCONTINUITY", **on_demand(**RANGE)) == ([False, *jumps[:2], True], 2)
    few = text(media_playlist(hls_url(server, name, MaxMediaPlaylistFragmentResults=2, **on_demand(**RANGE))))
    assert len(uris(few)) == 2
    # DASH has no second initialisation segment.
    stored = on_demand(**RANGE, protocol="DASH")
    assert code_of(lambda: dash_url(server, name, **stored)) == ("InvalidCodecPrivateDataException", 400)
    listed = lambda url: len(segments_read_by_others(fetch(url)[2])[1][0][1])
    assert listed(dash_url(server, name, MaxManifestFragmentResults=3, **stored)) == 3, "what comes before the change"
    live = dash_url(server, name)
    assert listed(live) == 1, "what comes after it"
    persisted(put(server, name, head(track()) + mkv.cluster(START_MS + 360, mkv.block(picture()))))
    assert refusal(live) == ("InvalidCodecPrivateDataException", 400), "a change in a session"


class Camera(threading.Thread):
    """Sends a Matroska file's fragments as fast as they last."""

    def __init__(self, server, name, body):
        super().__init__(daemon=True)
        [document] = mkv.documents(body)
        self.start_of_body = document.ebml + mkv.SEGMENT_UNKNOWN + document.header
        self.fragments, self.connection, self.ended = document.fragments, Put(server, name, timecodes="RELATIVE"), threading.Event()

    def run(self):
        self.connection.send(self.start_of_body)
        for fragment in self.fragments:
            self.connection.send(fragment.data + mkv.tag(mkv.END_OF_FRAGMENT))
            if self.ended.wait(1.0):
                break

    def stop(self):
        self.ended.set()
        self.join()
        self.connection.close()


@pytest.mark.parametrize("kind", ["hls", "ts", "dash"])
def test_a_live_session_is_played_while_the_camera_sends(server, name, tmp_path, kind):
    body = made(tmp_path, 40, ("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency"), BOTH[1])
    make_stream(server, name)
    camera = Camera(server, name, body)
    camera.start()
    try:
        eventually(lambda: len(list_fragments(server, name)) >= 3)
        url = {"hls": lambda: hls_url(server, name, DiscontinuityMode="NEVER"), "ts": lambda: hls_url(server, name, ContainerFormat="MPEG_TS"),
               "dash": lambda: dash_url(server, name)}[kind]()
        decodes(url, "-frames:v", "150", "-frames:a", "200")
    finally:
        camera.stop()


def test_a_live_playlist_slides_and_counts_and_survives_a_silent_camera_and_a_restart(own_server, name):
    numbered(own_server, name, 7, every=40)
    url = media_playlist(hls_url(own_server, name, MaxMediaPlaylistFragmentResults=3))
    said = {}

    def reload():
        playlist = text(url)
        first, discontinuity = int(tag(playlist, "MEDIA-SEQUENCE")[0]), int(tag(playlist, "DISCONTINUITY-SEQUENCE")[0])
        for sequence, part in enumerate(playlist.split("#EXT-X-INDEPENDENT-SEGMENTS\n")[1].split("&TrackNumber=1\n")[:-1], first):
            discontinuity += "#EXT-X-DISCONTINUITY\n" in part
            identity = (re.search(r"(?m)^getMP4MediaFragment.mp4\?FragmentNumber=(\d+)", part)[1], discontinuity)
            assert said.setdefault(sequence, identity) == identity, "a segment is another one than before"
        return first

    assert reload() == 0
    for n in range(7, 11):
        persisted(put(own_server, name, head(track()) + mkv.cluster(START_MS + 40 * n, mkv.block(picture()))))
        assert reload() == n - 6
    own_server.stop()
    own_server.restart()
    url = re.sub(r"http://[^/]+", own_server.url, url)
    assert reload() == 4, "a token and its numbers survive the server"
    persisted(put(own_server, name, head(track()) + mkv.cluster(START_MS + 1000, mkv.block(picture()))))
    assert reload() == 5
    assert len(said) == 8


def test_a_page_of_any_origin_may_play_and_nothing_else(server, name):
    numbered(server, name)
    url = hls_url(server, name, **on_demand(**RANGE))
    status, headers, body = fetch(url, "OPTIONS")
    assert (status, body, headers["Access-Control-Allow-Origin"]) == (204, b"", "*")
    assert "GET" in headers["Access-Control-Allow-Methods"]
    assert fetch(url, "HEAD")[2] == b""
    status, headers, _ = fetch(server.url + "/getHLSStreamingSessionURL", "OPTIONS")
    assert status in (400, 403, 404, 405) and headers["Access-Control-Allow-Origin"] is None
    status, headers, _ = fetch(server.url + "/getHLSStreamingSessionURL", "POST")
    assert status == 403 and headers["Access-Control-Allow-Origin"] is None


def test_a_token_opens_its_own_session_alone(server, name):
    first = numbered(server, name)
    other = name + "-other"
    second = numbered(server, other)
    url = hls_url(server, name, **on_demand(**RANGE))
    token = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["SessionToken"][0]
    assert re.fullmatch(r"[A-Za-z0-9_-]+~", token)
    base = url.split("?")[0]
    altered = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
    assert refusal(f"{base}?SessionToken={altered}") == ("NotAuthorizedException", 401)
    for bad in ("x", token[:-1], "~", "%00~", "a" * 2000):
        assert refusal(f"{base}?SessionToken={bad}") == ("InvalidArgumentException", 400), bad
    assert refusal(base) == ("InvalidArgumentException", 400)
    fragment = f"{server.url}/hls/v1/getMP4MediaFragment.mp4?SessionToken={token}&TrackNumber=1&FragmentNumber="
    assert fetch(fragment + first[0])[0] == 200
    assert refusal(fragment + second[0]) == ("ResourceNotFoundException", 404), "a fragment of another stream"
    assert refusal(fragment + "9" * 47) in (("ResourceNotFoundException", 404), ("InvalidArgumentException", 400))
    assert refusal(fragment + "x") == ("InvalidArgumentException", 400)
    narrow = hls_url(server, name, **on_demand(start_ms=START_MS, end_ms=START_MS + 1))
    narrowed = fragment.replace(token, urllib.parse.parse_qs(urllib.parse.urlsplit(narrow).query)["SessionToken"][0])
    assert fetch(narrowed + first[0])[0] == 200
    assert refusal(narrowed + first[1]) == ("ResourceNotFoundException", 404), "a fragment outside of the range"
    dash = dash_url(server, name, **on_demand(**RANGE, protocol="DASH"))
    dashed = urllib.parse.urlsplit(dash).query
    assert refusal(f"{base}?{dashed}") == ("InvalidArgumentException", 400), "a token of DASH for HLS"
    assert refusal(f"{server.url}/hls/v1/getMP4InitFragment.mp4?SessionToken={token}&TrackNumber=1&SequenceNumber=7") == ("ResourceNotFoundException", 404)
    assert refusal(f"{server.url}/hls/v1/getTSFragment.ts?SessionToken={token}&FragmentNumber={first[0]}") == ("InvalidArgumentException", 400)
    server.client("kinesisvideo").delete_stream(StreamARN=server.client("kinesisvideo").describe_stream(StreamName=name)["StreamInfo"]["StreamARN"])
    assert refusal(url) == ("ResourceNotFoundException", 404)
    numbered(server, name)
    assert refusal(url) == ("ResourceNotFoundException", 404), "the stream of that name is another one"
    assert token not in server.log()


def selecting(protocol, kind, **times):
    return {protocol + "FragmentSelector": {"FragmentSelectorType": kind, "TimestampRange": {key: at(value) for key, value in times.items()}}}


@pytest.mark.parametrize("protocol", ["HLS", "DASH"])
def test_a_session_that_cannot_be_is_refused_when_it_is_asked_for(server, name, protocol):
    numbered(server, name)
    client = archived(server, parameter_validation=False)
    ask = getattr(client, f"get_{protocol.lower()}_streaming_session_url")
    invalid, missing = ("InvalidArgumentException", 400), ("ResourceNotFoundException", 404)
    producer, received = "PRODUCER_TIMESTAMP", "SERVER_TIMESTAMP"
    day = 86_400_000
    for want, options in [
        (invalid, {"PlaybackMode": "ON_DEMAND"}),
        (invalid, {"PlaybackMode": "LIVE_REPLAY"}),
        (invalid, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, producer, StartTimestamp=0)}),
        (invalid, {"PlaybackMode": "LIVE", **selecting(protocol, producer, StartTimestamp=0)}),
        (invalid, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, producer, StartTimestamp=5000, EndTimestamp=5000)}),
        (invalid, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, producer, StartTimestamp=5000, EndTimestamp=4000)}),
        (invalid, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, producer, StartTimestamp=0, EndTimestamp=day + 1)}),
        (invalid, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, received, StartTimestamp=4_000_000_000_000, EndTimestamp=4_000_000_001_000)}),
        (missing, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, producer, StartTimestamp=4_000_000_000_000, EndTimestamp=4_000_000_001_000)}),
        (missing, {"PlaybackMode": "ON_DEMAND", **selecting(protocol, producer, StartTimestamp=0, EndTimestamp=1000)}),
        (missing, {"PlaybackMode": "LIVE_REPLAY", **selecting(protocol, received, StartTimestamp=0, EndTimestamp=1000)}),
        (invalid, {"Expires": 299}), (invalid, {"Expires": 43_201}),
        (invalid, {"MaxMediaPlaylistFragmentResults" if protocol == "HLS" else "MaxManifestFragmentResults": 5001}),
    ]:
        assert code_of(lambda: ask(StreamName=name, **options)) == want, options
    assert code_of(lambda: ask(StreamName="nobody-made-this")) == missing
    assert ask(StreamName=name)[f"{protocol}StreamingSessionURL"].startswith(server.url)
    empty = name + "-empty"
    make_stream(server, empty)
    assert code_of(lambda: ask(StreamName=empty)) == missing, "nothing in the last 30 seconds"
    forgetful = name + "-forgetful"
    make_stream(server, forgetful, hours=0)
    assert code_of(lambda: ask(StreamName=forgetful)) == ("NoDataRetentionException", 400)


@pytest.mark.parametrize("codec, private, code", [
    ("V_VP9", b"", "UnsupportedStreamMediaTypeException"),
    ("V_MPEG4/ISO/AVC", b"", "MissingCodecPrivateDataException"),
    ("V_MPEG4/ISO/AVC", b"\x01\x02", "InvalidCodecPrivateDataException"),
])
def test_media_that_no_player_takes_is_refused_with_its_reason(server, name, codec, private, code):
    make_stream(server, name)
    persisted(put(server, name, head(track(codec=codec, private=private)) + mkv.cluster(START_MS, mkv.block(picture()))))
    for ask in (archived(server).get_hls_streaming_session_url, archived(server).get_dash_streaming_session_url):
        assert code_of(lambda: ask(StreamName=name)) == (code, 400)


def test_a_replay_begins_in_the_past_and_goes_on(server, name, tmp_path):
    # Fragments of two seconds from second 1 of the producer's clock on.
    upload(server, name, made(tmp_path, 30, BOTH[0], ()))
    url = hls_url(server, name, PlaybackMode="LIVE_REPLAY", **selecting("HLS", "PRODUCER_TIMESTAMP", StartTimestamp=2000))
    playlist = text(media_playlist(url))
    listed = [fragment["FragmentNumber"] for fragment in list_fragments(server, name)]
    shown = [urllib.parse.parse_qs(uri.split("?")[1])["FragmentNumber"][0] for uri in uris(playlist)]
    assert len(shown) in (3, 4, 5) and shown == listed[1:1 + len(shown)], "three at once, then one for each that has lasted"
    assert "ENDLIST" not in playlist


