"""hls.js and dash.js in headless Chromium play what the server gives them: every frame is read back from the screen and known
by the number in its squares, and every playlist that a player fetched obeys the rules for reloads."""

import datetime
import time

import pytest

import browser
import camera
import media
import playlists
import putmedia

playwright_api = pytest.importorskip("playwright.sync_api", reason="skipped: playwright is not installed")
pytestmark = pytest.mark.skipif(browser.executable() is None, reason="skipped: Chromium is not installed")

# A pause of the camera or of the browser that shows on the screen: parts of Low-Latency HLS are at most this long.
STARVED_MS = 200

AUTOPLAY = ["--autoplay-policy=no-user-gesture-required", "--no-sandbox", "--disable-gpu", "--mute-audio"]


@pytest.fixture(scope="module")
def context():
    with playwright_api.sync_playwright() as api:
        chromium = api.chromium.launch(executable_path=browser.executable(), args=AUTOPLAY)
        yield chromium.new_context()
        chromium.close()


@pytest.fixture
def play(context):
    """Opens players; closes them all at the end."""
    opened = []
    with browser.pages() as origin:
        def one(kind, url, options=None):
            opened.append(browser.Player(context, origin, kind, url, options))
            return opened[-1]
        yield one
        for player in opened:
            player.close()


def now_ms():
    return time.time_ns() // 1_000_000


def record(server, stream, *films):
    """Stores films, each on a connection of its own; returns the fragment numbers."""
    numbers = []
    for film in films:
        acks = putmedia.put(server, stream, film, piece=65536)
        assert not putmedia.errors(acks), acks
        numbers += putmedia.persisted(acks)
    return numbers


def moment(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)


def recorded(server, stream, kind, start, end, **options):
    """The URL of a recording between two producer times."""
    chosen = {"FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": {"StartTimestamp": moment(start), "EndTimestamp": moment(end)}}
    client = media.archived(server)
    if kind == "dash":
        return client.get_dash_streaming_session_url(
            StreamName=stream, PlaybackMode="ON_DEMAND", DASHFragmentSelector=chosen, **options)["DASHStreamingSessionURL"]
    return client.get_hls_streaming_session_url(
        StreamName=stream, PlaybackMode="ON_DEMAND", HLSFragmentSelector=chosen, **options)["HLSStreamingSessionURL"]


def live(server, stream, kind, **options):
    client = media.archived(server)
    if kind == "dash":
        return client.get_dash_streaming_session_url(StreamName=stream, PlaybackMode="LIVE", **options)["DASHStreamingSessionURL"]
    return client.get_hls_streaming_session_url(StreamName=stream, PlaybackMode="LIVE", **options)["HLSStreamingSessionURL"]


def media_playlists(player):
    """The media playlists that the player fetched of its first track, in order."""
    return [text for url, text in player.playlists if "#EXTINF" in text or "#EXT-X-PART:" in text if "TrackNumber=2" not in url]


def numbers(report):
    return [frame["number"] for frame in report["frames"]]


def assert_all_shown(shown, count):
    """Nearly every picture was seen, in order. A browser on a busy machine may leave pictures out; it must not repeat or turn
    back, nor leave out a whole fragment."""
    assert shown == sorted(shown), "pictures went backwards"
    missing = set(range(count)) - set(shown)
    assert len(missing) <= count // 5, f"{len(missing)} of {count} pictures were never shown: {sorted(missing)[:40]}"
    for second in range(count // camera.RATE):
        frames = range(second * camera.RATE, (second + 1) * camera.RATE)
        assert not missing.issuperset(frames), f"nothing of second {second} was shown"


def is_starved(report):
    """Whether the browser itself was kept from running for longer than it has pictures ahead. Then it stalls whatever it is
    sent, and nothing can be said of the server."""
    return report["longestPause"] > STARVED_MS


@pytest.mark.parametrize("sound", [False, True], ids=["video", "video-and-sound"])
@pytest.mark.parametrize(("kind", "options"), [
    ("hls", {}), ("hls", {"ContainerFormat": "MPEG_TS"}), ("hls", {"DiscontinuityMode": "ALWAYS"}), ("dash", {}),
], ids=["fmp4", "ts", "discontinuities", "dash"])
def test_a_recording_plays_to_its_end_and_seeks(server, name, play, kind, options, sound):
    stream, seconds, start = name, 6, now_ms() - 60_000
    media.make_stream(server, stream)
    record(server, stream, camera.film(start, seconds, sound=sound))
    player = play(kind, recorded(server, stream, kind, start, start + 60_000, **options))
    report = player.until(lambda report: report["ended"])
    assert_all_shown(numbers(report), seconds * camera.RATE)
    assert not player.failed, (report["errors"], player.failed)
    assert report["stalls"] == 0 or is_starved(report), (report["stalls"], report["errors"])
    if kind == "hls":
        assert playlists.check(media_playlists(player)).ended
    player.seek(2.5)
    wanted = int(2.5 * camera.RATE)
    report = player.until(lambda report: report["frames"])
    first = report["frames"][0]["number"]
    assert abs(first - wanted) <= 3, f"after seeking to 2.5 s picture {first} was shown, not {wanted}"


def test_a_gap_and_another_picture_size_are_played_through(server, name, play):
    stream, start = name, now_ms() - 120_000
    media.make_stream(server, stream)
    films = [camera.film(start, 3), camera.film(start + 20_000, 3, first=90), camera.film(start + 23_000, 3, first=180, width=640, height=384)]
    record(server, stream, *films)
    url = recorded(server, stream, "hls", start, start + 100_000, DiscontinuityMode="ON_DISCONTINUITY")
    player = play("hls", url)
    report = player.until(lambda report: report["ended"])
    assert_all_shown(numbers(report), 270)
    assert {frame["width"] for frame in report["frames"]} == {320, 640}
    last = playlists.check(media_playlists(player))
    assert [segment.discontinuity for segment in last.segments[1:]].count(True) >= 2, "the gap and the new size are discontinuities"
    assert len({segment.map for segment in last.segments}) == 2


@pytest.mark.parametrize("kind", ["hls", "dash"])
def test_a_live_camera_is_followed(server, name, play, kind):
    media.make_stream(server, name)
    eye = camera.LiveCamera(server, name)
    try:
        eye.sent.wait(20)
        media_ready(server, name, 3)
        # A player that knows no parts sees whole fragments and stays three of them behind.
        player = play(kind, live(server, name, kind), {"lowLatencyMode": False} if kind == "hls" else None)
        report = player.until(lambda report: len(report["frames"]) > 8 * camera.RATE, within=40)
        shown = numbers(report)
        assert shown == sorted(shown), "pictures went backwards"
        assert len(set(shown)) > 6 * camera.RATE
        assert report["errors"] == [] or kind == "dash", report["errors"]
        if kind == "hls":
            assert not playlists.check(media_playlists(player)).ended
    finally:
        eye.close()


def test_a_session_outlives_a_silent_camera(server, name, play):
    """AWS's session dies after 30 s without fragments; ours goes on when the camera speaks again."""
    media.make_stream(server, name)
    eye = camera.LiveCamera(server, name)
    try:
        media_ready(server, name, 3)
        player = play("hls", live(server, name, "hls"))
        player.until(lambda report: len(report["frames"]) > 2 * camera.RATE, within=40)
        eye.silence()
        # Longer than AWS's 30 s.
        player.page.wait_for_timeout(34_000)
        assert player.report()["fatal"] is None, player.report()["errors"]
        spoke = now_ms()
        eye.speak()
        mask = (1 << camera.BITS) - 1
        report = player.until(lambda report: report["frames"] and 0 <= report["frames"][-1]["number"] - (spoke & mask) < 60_000, within=40)
        assert report["fatal"] is None
        playlists.check(media_playlists(player))
    finally:
        eye.close()


def test_low_latency_shows_a_frame_within_a_second_and_a_half(server, name, play):
    """A time on a machine that others use too: one try of three must keep it. What the playlists say must be right in all.
    Where neither the camera nor the browser could run in time in any of them, the time says nothing of the server."""
    tries = []
    for attempt in range(3):
        tries.append(low_latency(server, f"{name}-{attempt}", play))
        # It begins less than a second behind the camera; on a busy machine the first picture comes late.
        if 0 < tries[-1]["p50_ms"] < 1500 and tries[-1]["stalls"] <= 2:
            return
    if all(one["camera_paused_ms"] > STARVED_MS or one["browser_paused_ms"] > STARVED_MS for one in tries):
        pytest.skip(f"skipped: the machine was too busy to tell how late a frame is shown: {tries}")
    raise AssertionError(f"promised under 1500 ms: {tries}")


def low_latency(server, stream, play):
    media.make_stream(server, stream)
    eye = camera.LiveCamera(server, stream)
    try:
        media_ready(server, stream, 4)
        player = play("hls", live(server, stream, "hls"), {"lowLatencyMode": True, "maxLiveSyncPlaybackRate": 1.5})
        report = player.until(lambda report: len(report["frames"]) > 12 * camera.RATE, within=60)
        # Frames that are this far apart cannot be cut into shorter parts.
        paused = eye.longest_gap_ms()
        mask = (1 << camera.BITS) - 1
        settled = report["frames"][-6 * camera.RATE:]
        delays = sorted((frame["clock"] & mask) - frame["number"] for frame in settled)
        middle, late = delays[len(delays) // 2], delays[len(delays) * 95 // 100]
        print(f"frame made to frame shown: p50 {middle} ms, p95 {late} ms (promised under 1500)")
        texts = media_playlists(player)
        player.close()
        assert any("#EXT-X-PART:" in text for text in texts), "the playlist has no parts"
        playlists.check(texts, parts_within_target=paused <= STARVED_MS)
        return {"p50_ms": middle, "p95_ms": late, "stalls": report["stalls"], "camera_paused_ms": paused,
                "browser_paused_ms": report["longestPause"], "errors": report["errors"]}
    finally:
        eye.close()


def media_ready(server, stream, fragments):
    """Waits until so many fragments are stored."""
    import harness
    harness.eventually(lambda: len(media.list_fragments(server, stream)) >= fragments, within=40, every=0.2)
