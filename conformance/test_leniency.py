"""Cameras that do not keep the rules: the log says what was measured and which tag allows it, and the tag does."""

import pytest
from botocore.exceptions import ClientError

import mkv
from harness import eventually
from media import list_fragments, make_stream
from putmedia import errors, persisted, put

FRAME = mkv.block(b"frame")
LONG = mkv.header() + mkv.cluster(1000, FRAME, mkv.block(b"late", relative=20_040)) + mkv.tag(mkv.END_OF_FRAGMENT)
SILENT = mkv.header(tracks=2) + mkv.cluster(1000, FRAME) + mkv.tag(mkv.END_OF_FRAGMENT)
BACKWARDS = mkv.header() + mkv.cluster(5000, FRAME) + mkv.cluster(1000, FRAME)

CASES = {
    "4002": (LONG, 4002, "MAX_FRAGMENT_DURATION_REACHED", {"sightglass:max_fragment_duration_ms": "30000"}, ["spans 20040 ms and may span 20000 ms"], "fragment_duration"),
    "4011": (SILENT, 4011, "FRAMES_MISSING_FOR_TRACK", {"sightglass:allow_missing_tracks": "true"}, ["no frame of track 2"], "missing_tracks"),
    "4004-accept": (BACKWARDS, 4004, "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS", {"sightglass:non_monotonic_timecodes": "accept"}, ["timecode 1000 comes after one of timecode 5000"], "timecodes"),
    "4004-continue": (BACKWARDS, 4004, "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS", {"sightglass:non_monotonic_timecodes": "continue"}, ["timecode 1000 comes after one of timecode 5000"], "timecodes"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_log_says_what_was_measured_and_the_tag_allows_it(server, name, case):
    body, number, code, tags, clues, kind = CASES[case]
    arn = make_stream(server, name)
    assert errors(put(server, name, body)) == [(number, code)]
    said = eventually(lambda: [line for line in server.log().splitlines() if "PutMedia is refused" in line and arn in line])
    assert len(said) == 1, "once for each connection"
    for clue in [*clues, code, *tags]:
        assert clue in said[0], said[0]
    kvs = server.client("kinesisvideo")
    kvs.tag_stream(StreamName=name, Tags=tags)
    before = len(list_fragments(server, name))
    acks = put(server, name, body)
    assert errors(acks) == []
    assert len(list_fragments(server, name)) == before + len(persisted(acks))
    taken = eventually(lambda: [line for line in server.log().splitlines() if "though AWS would refuse it" in line and arn in line])
    assert len(taken) == 1 and kind in taken[0]
    kvs.untag_stream(StreamName=name, TagKeyList=list(tags))
    assert errors(put(server, name, body)) == [(number, code)]


def test_a_setting_that_means_nothing_is_refused(server, name):
    make_stream(server, name)
    kvs = server.client("kinesisvideo")
    for key, value in (("max_fragment_duration_ms", "999"), ("allow_missing_tracks", "yes"), ("non_monotonic_timecodes", "ignore"),
                       ("derive_codec_private", "no"), ("newest_connection_wins", "2")):
        for call in (lambda tags: kvs.tag_stream(StreamName=name, Tags=tags), lambda tags: kvs.create_stream(StreamName=f"{name}-x", Tags=tags)):
            with pytest.raises(ClientError) as failed:
                call({f"sightglass:{key}": value})
            error = failed.value.response["Error"]
            assert error["Code"] == "InvalidArgumentException" and key in error["Message"]
