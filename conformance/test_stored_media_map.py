"""GetStoredMediaMap, which no SDK knows: signed by botocore's own signer, as docs/reference/stored-media-map.md shows."""

import json
import urllib.error
import urllib.request

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import mkv
from harness import REGION
from media import make_stream
from putmedia import persisted, put

START_MS = 1_795_347_220_000


def stored_media_map(server, credentials=None, signed=True, **request):
    url = server.url + "/getStoredMediaMap"
    call = AWSRequest("POST", url, data=json.dumps(request), headers={"Content-Type": "application/json"})
    if signed:
        access_key, secret = credentials or (server.access_key, server.secret)
        SigV4Auth(Credentials(access_key, secret), "kinesisvideo", REGION).add_auth(call)
    asked = urllib.request.Request(url, call.data.encode() if isinstance(call.data, str) else call.data, dict(call.headers))
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("x-amzn-ErrorType", "").split(":")[0]


def selector(start_ms, end_ms):
    return {"FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": {"StartTimestamp": start_ms / 1000, "EndTimestamp": end_ms / 1000}}


def fill(server, name):
    """Two stretches of five fragments each, ten seconds of nothing between them."""
    make_stream(server, name)
    times = [START_MS + 1000 * n + (10_000 if n >= 5 else 0) for n in range(10)]
    body = mkv.header() + b"".join(mkv.cluster(at, mkv.block(b"a frame")) for at in times)
    assert len(persisted(put(server, name, body))) == 10


def test_one_call_tells_what_is_stored_and_what_is_missing(server, name):
    fill(server, name)
    status, told = stored_media_map(server, StreamName=name, FragmentSelector=selector(START_MS - 5000, START_MS + 30_000))
    assert status == 200 and told.get("NextToken") is None
    first, second = told["Spans"]
    assert (first["FragmentCount"], second["FragmentCount"], told["FragmentCount"]) == (5, 5, 10)
    assert (first["StartTimestamp"], second["StartTimestamp"]) == (START_MS / 1000, START_MS / 1000 + 15)
    assert told["SizeInBytes"] == first["SizeInBytes"] + second["SizeInBytes"] > 0
    gaps = [(gap["StartTimestamp"], gap["EndTimestamp"]) for gap in told["Gaps"]]
    assert gaps[:2] == [(START_MS / 1000 - 5, START_MS / 1000), (first["EndTimestamp"], second["StartTimestamp"])]
    status, whole = stored_media_map(server, StreamName=name, FragmentSelector=selector(START_MS, START_MS + 20_000), MaxGapInMilliseconds=20_000)
    assert status == 200 and [span["FragmentCount"] for span in whole["Spans"]] == [10]
    status, page = stored_media_map(server, StreamName=name, FragmentSelector=selector(START_MS, START_MS + 30_000), MaxResults=1)
    assert status == 200 and len(page["Spans"]) == 1
    status, rest = stored_media_map(server, StreamName=name, NextToken=page["NextToken"])
    assert status == 200 and page["Spans"] + rest["Spans"] == [first, second] and "NextToken" not in rest


def test_what_may_not_be_asked_gets_the_errors_of_list_fragments(server, name):
    fill(server, name)
    assert stored_media_map(server, StreamName="nobody-" + name, credentials=(server.access_key, server.secret)) == (404, "ResourceNotFoundException")
    assert stored_media_map(server, StreamName=name, FragmentSelector=selector(2, 1)) == (400, "InvalidArgumentException")
    for wrong in [{"MaxGapInMilliseconds": -1}, {"MaxResults": 0}, {"MaxResults": 1001}, {"NextToken": "bm90IG91cnM="}]:
        assert stored_media_map(server, StreamName=name, **wrong) == (400, "InvalidArgumentException"), wrong
    assert stored_media_map(server, StreamName=name, signed=False)[0] == 403
    assert stored_media_map(server, StreamName=name, credentials=(server.access_key, "wrong" * 8))[0] == 403
    other = server.make_key(account="111111111111")
    assert stored_media_map(server, StreamName=name, credentials=other) == (404, "ResourceNotFoundException")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesisvideo:ListFragments", "Resource": "*"}]}
    denied = server.make_key(policy=policy)
    assert stored_media_map(server, StreamName=name, credentials=denied)[0] in (401, 403)
    policy["Statement"][0]["Action"] = "kinesisvideo:GetStoredMediaMap"
    allowed = server.make_key(policy=policy)
    assert stored_media_map(server, StreamName=name, credentials=allowed)[0] == 200
