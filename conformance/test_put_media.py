"""PutMedia: captured uploads replayed byte for byte, and what a producer is told at each step."""

import time

import pytest

import mkv
import sigv4
from media import get_media, list_fragments, make_stream
from putmedia import Put, Refused, errors, persisted, put, summary

STEPS = ("BUFFERING", "RECEIVED", "PERSISTED")
CAPTURES = ["c-sample-video-metadata3.mkv", "kvssink-h264-noEOFRack.mkv"]


def expected_acks(document):
    return [(step, fragment.timecode) for fragment in document.fragments for step in STEPS]


def per_fragment(acks):
    """Acks in the order of their fragments; those of different fragments may interleave."""
    order = list(dict.fromkeys(ack["FragmentTimecode"] for ack in acks))
    return sorted(acks, key=lambda ack: order.index(ack["FragmentTimecode"]))


@pytest.mark.parametrize("capture", CAPTURES)
@pytest.mark.parametrize("variant", ["c", "java", "presigned"])
def test_a_captured_upload_is_acknowledged_fragment_by_fragment(server, data, name, capture, variant):
    body = (data / "putmedia" / capture).read_bytes()
    [sent] = mkv.documents(body)
    make_stream(server, name)
    acks = put(server, name, body, variant=variant)
    assert summary(per_fragment(acks)) == expected_acks(sent)
    numbers = persisted(acks)
    assert numbers == sorted(numbers, key=int) and len(set(numbers)) == len(sent.fragments)
    for number in numbers:
        # 2^156 | sequence << 92 | server time in ms << 28 | random
        assert int(number) >> 156 == 1 and len(number) == 47
        assert abs((int(number) >> 28 & (1 << 64) - 1) / 1000 - time.time()) < 60


def test_each_ack_is_a_chunk_of_its_own(server, name):
    """libcurl hands the producer SDK a chunk at a time. Of several acks in one piece the SDK heeds the first alone, and a
    piece of more than 1024 bytes it refuses whole: the PERSISTED for which it waits at the end would be lost."""
    make_stream(server, name)
    connection = Put(server, name)
    media = mkv.header() + b"".join(mkv.cluster(1000 * at, mkv.block(b"frame"), mkv.tag(mkv.END_OF_FRAGMENT)) for at in range(1, 41))
    connection.send(media, piece=len(media))
    connection.finish()
    assert len(connection.rest()) == 3 * 40
    assert [chunk.count(b"\n") for chunk in connection.chunks] == [1] * 120
    assert all(chunk.endswith(b"}\n") and len(chunk) <= 1024 for chunk in connection.chunks)


@pytest.mark.parametrize("piece", [201, 1460, 65_524])
def test_the_size_of_the_chunks_changes_nothing(server, data, name, piece):
    body = (data / "putmedia" / "kvssink-h264-noEOFRack.mkv").read_bytes()
    [sent] = mkv.documents(body)
    make_stream(server, name)
    assert summary(per_fragment(put(server, name, body, piece=piece))) == expected_acks(sent)


def test_a_broken_off_upload_keeps_its_whole_fragments_and_drops_the_last(server, data, name):
    body = (data / "putmedia" / "kvssink-aborted-after-4002.mkv").read_bytes()
    [sent] = mkv.documents(body)
    make_stream(server, name)
    connection = Put(server, name)
    connection.send(body)
    timecodes = [fragment.timecode for fragment in sent.fragments]
    seen = []
    while ("PERSISTED", timecodes[1]) not in summary(seen):
        seen.append(connection.ack())
    connection.close()
    assert [ack["FragmentTimecode"] for ack in seen if ack["EventType"] == "PERSISTED"] == timecodes[:2]
    # The producer comes back at once with a new connection, as kvssink does after an error.
    again = mkv.header() + mkv.cluster(timecodes[2] + 2000, mkv.block(b"frame")) + mkv.tag(mkv.END_OF_FRAGMENT)
    assert errors(put(server, name, again)) == []
    assert len(list_fragments(server, name)) == 3


def test_acks_are_lines_of_json_with_the_keys_that_producers_parse(server, name):
    make_stream(server, name)
    acks = put(server, name, mkv.header() + mkv.cluster(1_795_347_223_436, mkv.block(b"frame")))
    assert len(acks) == 3
    for ack, step in zip(acks, STEPS):
        number = ack["FragmentNumber"]
        assert ack["line"] == f'{{"EventType":"{step}","FragmentTimecode":1795347223436,"FragmentNumber":"{number}"}}'
        assert len(ack["line"]) <= 1024


def test_an_end_of_fragment_tag_closes_the_fragment_at_once(server, name):
    make_stream(server, name)
    connection = Put(server, name)
    connection.send(mkv.header() + mkv.cluster(1000, mkv.block(b"frame")))
    assert connection.until("BUFFERING")[0]["FragmentTimecode"] == 1000
    began = time.monotonic()
    connection.send(mkv.tag("PLACE", "gate") + mkv.tag(mkv.END_OF_FRAGMENT))
    # Nothing else is sent, and the body stays open.
    connection.until("PERSISTED", within=5)
    assert time.monotonic() - began < 2
    connection.finish()
    assert connection.rest() == []
    connection.close()


def test_without_the_tag_the_next_cluster_or_the_end_closes_the_fragment(server, name):
    make_stream(server, name)
    connection = Put(server, name)
    connection.send(mkv.header() + mkv.cluster(1000, mkv.block(b"a")))
    connection.until("BUFFERING")
    connection.send(mkv.cluster(2000, mkv.block(b"b")))
    connection.until("PERSISTED")
    connection.finish()
    rest = connection.rest()
    assert [entry for entry in summary(rest) if entry[1] == 2000][-1] == ("PERSISTED", 2000)
    connection.close()


def test_the_answer_begins_before_the_body_and_continues_on_request(server, name):
    make_stream(server, name)
    connection = Put(server, name)
    assert connection.continued, "no 100 Continue came"
    assert connection.status == 200
    assert "x-amzn-requestid" in connection.answer_headers
    connection.close()
    quiet = Put(server, name, drop=("expect",))
    assert not quiet.continued and quiet.status == 200
    quiet.close()


def test_a_stream_is_found_by_its_arn_too(server, name):
    arn = make_stream(server, name)
    assert len(persisted(put(server, arn, mkv.header() + mkv.cluster(1, mkv.block(b"x"))))) == 1


def test_relative_timecodes_count_from_the_producers_start(server, name):
    make_stream(server, name)
    body = mkv.header() + mkv.cluster(0, mkv.block(b"a")) + mkv.cluster(2000, mkv.block(b"b"))
    acks = put(server, name, body, timecodes="RELATIVE", start="1795347223.436")
    assert [time for step, time in summary(per_fragment(acks)) if step == "PERSISTED"] == [0, 2000], "as sent"
    fragments = list_fragments(server, name)
    assert [round(f["ProducerTimestamp"].timestamp() * 1000) for f in fragments] == [1_795_347_223_436, 1_795_347_225_436]


def test_a_timecode_scale_other_than_a_millisecond_is_honoured(server, name):
    make_stream(server, name)
    body = mkv.header(scale=100_000) + mkv.cluster(17_953_472_234_360, mkv.block(b"a"))
    [_, _, ack] = put(server, name, body)
    assert ack["FragmentTimecode"] == 17_953_472_234_360
    [fragment] = list_fragments(server, name)
    assert round(fragment["ProducerTimestamp"].timestamp() * 1000) == 1_795_347_223_436


def test_a_producer_that_wants_no_acks_gets_none(server, name):
    make_stream(server, name)
    assert put(server, name, mkv.header() + mkv.cluster(1, mkv.block(b"x")), acks="0") == []
    assert len(list_fragments(server, name)) == 1


def test_without_retention_nothing_is_called_persisted_but_it_can_be_watched(server, name):
    make_stream(server, name, hours=0)
    acks = put(server, name, mkv.header() + mkv.cluster(1, mkv.block(b"x")) + mkv.cluster(2, mkv.block(b"y")))
    assert {step for step, _ in summary(acks)} == {"BUFFERING", "RECEIVED"}
    found, _ = get_media(server, name, 2)
    assert [document.fragments[0].blocks[0].payload for document in found[:2]] == [b"x", b"y"]


def test_connections_overlap_when_a_token_is_rotated(server, name):
    make_stream(server, name)
    first, second = Put(server, name), Put(server, name)
    first.send(mkv.header() + mkv.cluster(1000, mkv.block(b"a")))
    second.send(mkv.header() + mkv.cluster(2000, mkv.block(b"b")))
    first.until("BUFFERING")
    second.until("BUFFERING")
    for connection in (first, second):
        connection.finish()
    numbers = [persisted(connection.rest())[0] for connection in (first, second)]
    assert len(set(numbers)) == 2
    for connection in (first, second):
        connection.close()
    assert {f["FragmentNumber"] for f in list_fragments(server, name)} == set(numbers)


def test_more_connections_than_allowed_are_refused(server, name):
    make_stream(server, name)
    held = [Put(server, name) for _ in range(5)]
    with pytest.raises(Refused) as refused:
        Put(server, name)
    assert (refused.value.status, refused.value.code) == (400, "ConnectionLimitExceededException")
    for connection in held:
        connection.close()


def test_token_credentials_added_after_signing_are_accepted(server, name):
    make_stream(server, name)
    session = server.client("sts").get_session_token()["Credentials"]
    acks = put(server, name, mkv.header() + mkv.cluster(1, mkv.block(b"x")), key=session["AccessKeyId"],
               secret=session["SecretAccessKey"], token=session["SessionToken"])
    assert len(persisted(acks)) == 1


@pytest.mark.parametrize("variant", ["c", "java", "presigned"])
def test_a_wrong_signature_is_refused_before_the_body(server, name, variant):
    make_stream(server, name)
    with pytest.raises(Refused) as refused:
        Put(server, name, variant=variant, corrupt=True)
    assert (refused.value.status, refused.value.code) == (403, "InvalidSignatureException")


def test_an_unsigned_upload_is_refused(server, name):
    make_stream(server, name)
    with pytest.raises(Refused) as refused:
        Put(server, name, variant="unsigned")
    assert (refused.value.status, refused.value.code) == (403, "MissingAuthenticationTokenException")


@pytest.mark.parametrize("offset", [-600, 600])
def test_a_stale_upload_learns_the_servers_time(server, name, offset):
    make_stream(server, name)
    with pytest.raises(Refused) as refused:
        Put(server, name, date=sigv4.now(offset))
    assert (refused.value.status, refused.value.code) == (403, "InvalidSignatureException")
    assert "date" in refused.value.headers
    assert b"Signature expired" in refused.value.body or b"Signature not yet current" in refused.value.body


def test_an_unknown_stream_and_a_bad_header_are_declared_errors(server, name):
    with pytest.raises(Refused) as refused:
        Put(server, name)
    assert (refused.value.status, refused.value.code) == (404, "ResourceNotFoundException")
    make_stream(server, name)
    for options in ({"timecodes": "SOMETIMES"}, {"timecodes": "RELATIVE", "drop": ("x-amzn-producer-start-timestamp",)},
                    {"start": "yesterday", "timecodes": "RELATIVE"}, {"drop": ("x-amzn-stream-name",)}):
        with pytest.raises(Refused) as refused:
            Put(server, name, **options)
        assert refused.value.status == 400, options
        assert refused.value.code in ("InvalidArgumentException", "ValidationException", "SerializationException"), options


def test_who_is_denied_or_of_another_account_cannot_upload(server, name):
    make_stream(server, name)
    key, secret = server.make_key(policy={"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"}, {"Effect": "Deny", "Action": "kinesisvideo:PutMedia", "Resource": "*"}]})
    with pytest.raises(Refused) as refused:
        Put(server, name, key=key, secret=secret)
    assert refused.value.status in (400, 401, 403) and refused.value.code in ("NotAuthorizedException", "AccessDeniedException")
    key, secret = server.make_key(account="444455556666")
    with pytest.raises(Refused) as refused:
        Put(server, name, key=key, secret=secret)
    assert (refused.value.status, refused.value.code) == (404, "ResourceNotFoundException")


def test_a_silent_producer_is_told_that_it_idles_and_is_hung_up_on_after_half_a_minute(server, name):
    make_stream(server, name)
    connection = Put(server, name)
    connection.send(mkv.header() + mkv.cluster(1000, mkv.block(b"frame")) + mkv.tag(mkv.END_OF_FRAGMENT))
    connection.until("PERSISTED")
    began = time.monotonic()
    rest = connection.rest(within=45)
    assert 25 < time.monotonic() - began < 40
    assert rest and {ack["EventType"] for ack in rest} == {"IDLE"}
    connection.close()
    assert len(list_fragments(server, name)) == 1
