"""PutMedia bodies that break a rule: the ack that names it, the fragments before it kept, the server unharmed."""

import pytest

import mkv
from media import list_fragments, make_stream
from putmedia import Put, errors, persisted, put, summary

GOOD = mkv.header() + mkv.cluster(1000, mkv.block(b"good"))
FRAME = mkv.block(b"frame")


def big(count):
    return b"\0" * count


CASES = {
    "4002-longer-than-20-s": (GOOD + mkv.cluster(2000, FRAME, mkv.block(b"late", relative=20_100)), 4002, "MAX_FRAGMENT_DURATION_REACHED"),
    "4004-backwards": (GOOD + mkv.cluster(999, FRAME), 4004, "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS"),
    "4004-equal": (GOOD + mkv.cluster(1000, FRAME), 4004, "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS"),
    # The producer SDK goes on like this after the server was away; 4006 would have it drop what it still holds.
    "4000-resumed-at-a-block": (FRAME + mkv.cluster(2000, FRAME), 4000, "STREAM_READ_ERROR"),
    "4000-resumed-at-a-cluster": (mkv.cluster(2000, FRAME), 4000, "STREAM_READ_ERROR"),
    "4006-noise": (GOOD + b"\0\0\0\0not matroska", 4006, "INVALID_MKV_DATA"),
    "4006-second-header": (GOOD + mkv.header() + mkv.cluster(2000, FRAME), 4006, "INVALID_MKV_DATA"),
    "4006-truncated": (GOOD + mkv.cluster(2000, FRAME)[:-2], 4006, "INVALID_MKV_DATA"),
    "4006-size-beyond-parent": (GOOD + mkv.element(mkv.CLUSTER, mkv.number(mkv.TIMECODE, 2000) + b"\xa3\x90short"), 4006, "INVALID_MKV_DATA"),
    "4009-too-many-tags": (GOOD + b"".join(mkv.tag(f"NAME_{n}", "value") for n in range(11)), 4009, "FRAGMENT_METADATA_LIMIT_REACHED"),
    "4009-long-name": (GOOD + mkv.tag("N" * 129, "value"), 4009, "FRAGMENT_METADATA_LIMIT_REACHED"),
    "4009-long-value": (GOOD + mkv.tag("NAME", "v" * 257), 4009, "FRAGMENT_METADATA_LIMIT_REACHED"),
    "4010-undeclared-track": (GOOD + mkv.cluster(2000, mkv.block(b"frame", track=2)), 4010, "TRACK_NUMBER_MISMATCH"),
    "4011-track-without-frames": (mkv.header(tracks=2) + mkv.cluster(2000, FRAME) + mkv.tag(mkv.END_OF_FRAGMENT), 4011, "FRAMES_MISSING_FOR_TRACK"),
    "4012-four-tracks": (mkv.header(tracks=4) + mkv.cluster(1000, FRAME), 4012, "MORE_THAN_ALLOWED_TRACKS_FOUND"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_rule_is_named_by_its_ack(server, name, case):
    body, number, code = CASES[case]
    make_stream(server, name)
    acks = put(server, name, body)
    assert errors(acks) == [(number, code)], summary(acks)
    assert acks[-1]["EventType"] == "ERROR", "the error is the last word"
    # What was whole before the error is stored, and nothing else.
    assert [f["FragmentNumber"] for f in list_fragments(server, name)] == persisted(acks)
    # The stream takes the next connection at once.
    assert errors(put(server, name, GOOD)) == []


@pytest.mark.parametrize("tags, legal", [(9, True), (10, False)])
def test_the_end_of_fragment_tag_counts_among_the_ten(server, name, tags, legal):
    make_stream(server, name)
    body = GOOD + b"".join(mkv.tag(f"NAME_{n}", "value") for n in range(tags)) + mkv.tag(mkv.END_OF_FRAGMENT)
    assert (errors(put(server, name, body)) == []) == legal


@pytest.mark.parametrize("known_size", [False, True])
def test_a_fragment_of_51_mb_is_refused_and_not_held(server, name, known_size):
    make_stream(server, name)
    before = server.rss_kib()
    blocks = [mkv.block(big(1 << 20)) for _ in range(51)]
    cluster = mkv.cluster(1000, *blocks)
    if known_size:
        cluster = mkv.element(mkv.CLUSTER, mkv.number(mkv.TIMECODE, 1000) + b"".join(blocks))
    connection = Put(server, name)
    connection.send(mkv.header() + cluster, piece=65_536)
    connection.finish()
    acks = connection.rest()
    connection.close()
    assert errors(acks) == [(4001, "MAX_FRAGMENT_SIZE_REACHED")], summary(acks)
    assert list_fragments(server, name) == []
    assert server.rss_kib() - before < 120_000


def test_a_producer_timestamp_beyond_time_is_refused(server, name):
    make_stream(server, name)
    assert errors(put(server, name, mkv.header() + mkv.cluster((1 << 63) + 5, FRAME))) == [(4007, "INVALID_PRODUCER_TIMESTAMP")]


def test_deleting_the_stream_ends_its_uploads_in_words(server, name):
    arn = make_stream(server, name)
    connection = Put(server, name)
    connection.send(GOOD)
    connection.until("BUFFERING")
    server.client("kinesisvideo").delete_stream(StreamARN=arn)
    connection.send(mkv.cluster(2000, FRAME) + mkv.cluster(3000, FRAME))
    assert errors(connection.rest()) == [(4008, "STREAM_NOT_ACTIVE")]
    connection.close()
