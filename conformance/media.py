"""What the media tests share: streams, reading GetMedia until enough is there, comparing fragments."""

import contextlib
import datetime
import time

import mkv


def make_stream(server, name, hours=1, **options):
    kvs = server.client("kinesisvideo")
    return kvs.create_stream(StreamName=name, DataRetentionInHours=hours, **options)["StreamARN"]


def media_client(server, **options):
    return server.client("kinesis-video-media", **options)


def archived(server, **options):
    return server.client("kinesis-video-archived-media", **options)


ALL_TIME = {"FragmentSelectorType": "SERVER_TIMESTAMP", "TimestampRange": {
    "StartTimestamp": datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc),
    "EndTimestamp": datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)}}


def list_fragments(server, name, selector=ALL_TIME):
    client, found, more = archived(server), [], {"FragmentSelector": selector}
    while True:
        page = client.list_fragments(StreamName=name, **more)
        found += page["Fragments"]
        if "NextToken" not in page:
            return sorted(found, key=lambda fragment: int(fragment["FragmentNumber"]))
        more = {"NextToken": page["NextToken"]}


def get_media(server, name, documents, *, within=20, **selector):
    """Reads GetMedia until so many documents are complete, then hangs up. Returns the documents and the bytes."""
    selector = selector or {"StartSelectorType": "EARLIEST"}
    answer = media_client(server).get_media(StreamName=name, StartSelector=selector)
    deadline, data = time.monotonic() + within, b""
    with contextlib.closing(answer["Payload"]):
        for piece in answer["Payload"]._raw_stream.stream(65536):
            data += piece
            if data.count(b"AWS_KINESISVIDEO_CONTINUATION_TOKEN") >= documents:
                found = mkv.documents(data)
                if len(found) >= documents and found[documents - 1].tag("AWS_KINESISVIDEO_CONTINUATION_TOKEN"):
                    return found, data
            assert time.monotonic() < deadline, f"{len(data)} bytes and no {documents} documents"
    raise AssertionError(f"GetMedia ended after {len(data)} bytes, before {documents} documents")


def expected_document(sent, fragment, number, server_timestamp, producer_timestamp, behind, *, first=True):
    """The document that GetMedia must return for a fragment, byte for byte."""
    return (sent.ebml + mkv.SEGMENT_UNKNOWN + sent.header
            + mkv.tags_as_the_service_writes_them([
                ("AWS_KINESISVIDEO_FRAGMENT_NUMBER", number),
                ("AWS_KINESISVIDEO_SERVER_TIMESTAMP", server_timestamp),
                ("AWS_KINESISVIDEO_PRODUCER_TIMESTAMP", producer_timestamp)])
            + fragment.data
            + mkv.tags_as_the_service_writes_them([
                ("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW", behind),
                ("AWS_KINESISVIDEO_CONTINUATION_TOKEN", number)]))


def seconds(milliseconds):
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
