"""GetMedia, ListFragments and GetMediaForFragmentList: what was sent comes back, byte for byte, with the tags around it."""

import contextlib
import datetime
import hashlib

import pytest
from botocore.exceptions import ClientError

import mkv
from media import ALL_TIME, archived, expected_document, get_media, list_fragments, make_stream, media_client, seconds
from putmedia import Put, persisted, put

UPLOADS = ["putmedia/c-sample-video-metadata3.mkv", "putmedia/kvssink-h264-noEOFRack.mkv", "mkv/clusters.mkv", "mkv/bezos_vogels.mkv",
           "mkv/vogels_330.mkv"]


def upload(server, data, name, path):
    body = (data / path).read_bytes()
    make_stream(server, name)
    acks = put(server, name, body, piece=65_536, timecodes="RELATIVE" if path.startswith("mkv/") else "ABSOLUTE")
    [sent] = mkv.documents(body)
    return sent, persisted(acks)


@pytest.mark.parametrize("path", UPLOADS)
def test_every_fragment_comes_back_verbatim_between_the_services_tags(server, data, name, path):
    sent, numbers = upload(server, data, name, path)
    assert len(numbers) == len(sent.fragments)
    found, _ = get_media(server, name, len(numbers))
    listed = {f["FragmentNumber"]: f for f in list_fragments(server, name)}
    for document, fragment, number in zip(found, sent.fragments, numbers):
        times = listed[number]
        want = expected_document(
            sent, fragment, number, seconds(round(times["ServerTimestamp"].timestamp() * 1000)),
            seconds(round(times["ProducerTimestamp"].timestamp() * 1000)), document.tag("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW"))
        got = document.ebml + mkv.SEGMENT_UNKNOWN + document.header + document.fragments[0].data
        assert hashlib.sha256(got).digest() == hashlib.sha256(want).digest(), f"{path}, {number}"
        assert int(document.tag("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW")) >= 0


@pytest.mark.parametrize("path", UPLOADS[:2])
def test_a_list_of_fragments_comes_back_in_the_callers_order(server, data, name, path):
    sent, numbers = upload(server, data, name, path)
    wanted = list(reversed(numbers)) + ["91343852333181432392682062607743920146159169392", numbers[0]]
    answer = archived(server).get_media_for_fragment_list(StreamName=name, Fragments=wanted)
    found = mkv.documents(answer["Payload"].read())
    assert [document.tag("AWS_KINESISVIDEO_FRAGMENT_NUMBER") for document in found] == wanted
    by_number = dict(zip(numbers, sent.fragments))
    for document, number in zip(found, wanted):
        if number in by_number:
            assert document.fragments[0].data.startswith(by_number[number].data)
            assert document.tag("AWS_KINESISVIDEO_CONTINUATION_TOKEN") == number
        else:
            assert document.tag("AWS_KINESISVIDEO_ERROR_ID") == "4000"
            assert document.tag("AWS_KINESISVIDEO_SERVER_TIMESTAMP") is None


def numbered(server, name, count=4, start=1_795_347_220_000):
    """A stream of one-frame fragments, two seconds apart."""
    make_stream(server, name)
    body = mkv.header() + b"".join(mkv.cluster(start + 2000 * n, mkv.block(f"frame {n}".encode())) for n in range(count))
    return persisted(put(server, name, body))


def payloads(found):
    return [document.fragments[0].blocks[0].payload for document in found]


def test_each_start_selector_begins_where_it_says(server, name):
    numbers = numbered(server, name)
    frames = [f"frame {n}".encode() for n in range(4)]

    def read(count, **selector):
        found, _ = get_media(server, name, count, **selector)
        return payloads(found)[:count]

    assert read(4, StartSelectorType="EARLIEST") == frames
    assert read(2, StartSelectorType="FRAGMENT_NUMBER", AfterFragmentNumber=numbers[1]) == frames[2:]
    assert read(2, StartSelectorType="CONTINUATION_TOKEN", ContinuationToken=numbers[1]) == frames[2:]
    producer = datetime.datetime.fromtimestamp(1_795_347_224, datetime.timezone.utc)
    assert read(2, StartSelectorType="PRODUCER_TIMESTAMP", StartTimestamp=producer) == frames[2:]
    listed = list_fragments(server, name)
    assert read(4, StartSelectorType="SERVER_TIMESTAMP", StartTimestamp=listed[0]["ServerTimestamp"]) == frames


def test_now_shows_what_comes_next_as_it_comes(server, name):
    numbered(server, name, 1)
    answer = media_client(server).get_media(StreamName=name, StartSelector={"StartSelectorType": "NOW"})
    connection = Put(server, name)
    connection.send(mkv.header() + mkv.cluster(1_795_347_300_000, mkv.block(b"live")))
    with contextlib.closing(answer["Payload"]):
        data = b""
        # The frame is here before its fragment ends.
        for piece in answer["Payload"]._raw_stream.stream(65536):
            data += piece
            if b"live" in data:
                break
        assert b"frame 0" not in data and b"AWS_KINESISVIDEO_CONTINUATION_TOKEN" not in data
        connection.send(mkv.tag(mkv.END_OF_FRAGMENT))
        for piece in answer["Payload"]._raw_stream.stream(65536):
            data += piece
            if b"AWS_KINESISVIDEO_CONTINUATION_TOKEN" in data and len(mkv.documents(data)[0].fragments[0].tags) >= 3:
                break
    [document] = mkv.documents(data)
    assert document.fragments[0].blocks[0].payload == b"live"
    connection.close()


def test_a_watcher_moves_from_stored_to_live_without_a_seam(server, name):
    numbered(server, name, 3)
    answer = media_client(server).get_media(StreamName=name, StartSelector={"StartSelectorType": "EARLIEST"})
    with contextlib.closing(answer["Payload"]):
        pieces, data = answer["Payload"]._raw_stream.stream(65536), b""
        while data.count(b"CONTINUATION_TOKEN") < 3:
            data += next(pieces)
        for n in range(3, 6):
            body = mkv.header() + mkv.cluster(1_795_347_220_000 + 2000 * n, mkv.block(f"frame {n}".encode()))
            put(server, name, body)
        while data.count(b"CONTINUATION_TOKEN") < 6 or f"frame {5}".encode() not in data:
            data += next(pieces)
    assert payloads(mkv.documents(data)) == [f"frame {n}".encode() for n in range(6)]


def test_fragments_are_listed_by_time_and_in_pages(server, name):
    numbers = numbered(server, name, 5)
    client = archived(server)
    everything = list_fragments(server, name)
    assert [f["FragmentNumber"] for f in everything] == numbers
    assert all(f["FragmentSizeInBytes"] > 0 and f["FragmentLengthInMilliseconds"] >= 0 for f in everything)

    def at(milliseconds):
        return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)

    def between(first, last):
        return {"FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": {"StartTimestamp": at(first), "EndTimestamp": at(last)}}

    selected = list_fragments(server, name, between(1_795_347_222_000, 1_795_347_226_000))
    assert [f["FragmentNumber"] for f in selected] == numbers[1:4], "both ends count"
    assert list_fragments(server, name, between(0, 1)) == []
    paged = client.get_paginator("list_fragments").paginate(
        StreamName=name, FragmentSelector=between(0, 2_000_000_000_000), PaginationConfig={"PageSize": 2})
    pages = [[f["FragmentNumber"] for f in page["Fragments"]] for page in paged]
    assert max(map(len, pages)) <= 2 and sorted(sum(pages, []), key=int) == numbers


def code_of(call):
    with pytest.raises(ClientError) as failed:
        call()
    return failed.value.response["Error"]["Code"], failed.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_errors_of_the_reading_operations_are_declared(server, name):
    earliest = {"StartSelectorType": "EARLIEST"}
    missing = ("ResourceNotFoundException", 404)
    assert code_of(lambda: media_client(server).get_media(StreamName=name, StartSelector=earliest)) == missing
    assert code_of(lambda: archived(server).list_fragments(StreamName=name, FragmentSelector=ALL_TIME)) == missing
    assert code_of(lambda: archived(server).get_media_for_fragment_list(StreamName=name, Fragments=["1"])) == missing
    make_stream(server, name)
    for selector in ({"StartSelectorType": "FRAGMENT_NUMBER"}, {"StartSelectorType": "CONTINUATION_TOKEN"},
                     {"StartSelectorType": "SERVER_TIMESTAMP"}, {"StartSelectorType": "YESTERDAY"}):
        code, status = code_of(lambda: media_client(server, parameter_validation=False).get_media(StreamName=name, StartSelector=selector))
        assert status == 400 and code in ("InvalidArgumentException", "ValidationException"), selector
    code, status = code_of(lambda: media_client(server).get_media(StartSelector=earliest))
    assert status == 400
    code, status = code_of(lambda: archived(server).get_media_for_fragment_list(StreamName=name, Fragments=["no number"]))
    assert status == 400


def test_retention_that_shrinks_deletes_and_growing_it_keeps(server, name):
    numbers = numbered(server, name, 2)
    kvs = server.client("kinesisvideo")
    info = kvs.describe_stream(StreamName=name)["StreamInfo"]
    kvs.update_data_retention(StreamName=name, CurrentVersion=info["Version"], Operation="INCREASE_DATA_RETENTION", DataRetentionChangeInHours=2)
    assert [f["FragmentNumber"] for f in list_fragments(server, name)] == numbers
    info = kvs.describe_stream(StreamName=name)["StreamInfo"]
    assert info["DataRetentionInHours"] == 3
