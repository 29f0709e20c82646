"""Who may call what: every operation of every service unsigned, with a wrong signature, with a stale date, denied by
policy, and from a second account that must not learn whether a resource exists."""

import datetime
import json
import urllib.error
import urllib.request

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from harness import REGION, eventually, refusal

SERVICES = ["kinesisvideo", "kinesis-video-media", "kinesis-video-archived-media", "kinesis-video-signaling", "kinesis-video-webrtc-storage",
            "kinesis", "rekognition", "sts", "dynamodb", "cloudwatch", "firehose", "kinesisanalyticsv2"]
# These need no permission, or answer to any signed caller.
OPEN = {("sts", "GetCallerIdentity"), ("sts", "GetSessionToken")}
# These are called with a token of somebody else's instead of a signature.
UNSIGNED_BY_DESIGN = {("sts", "AssumeRoleWithSAML"), ("sts", "AssumeRoleWithWebIdentity")}
_session = botocore.session.get_session()


def operations():
    for service in SERVICES:
        model = _session.get_service_model(service)
        for name in model.operation_names:
            yield service, name


def example(shape, depth=0):
    """A value that satisfies the shape's constraints, required members only."""
    kind = shape.type_name
    if kind == "structure":
        return {name: example(shape.members[name], depth + 1) for name in shape.required_members}
    if kind == "list":
        return [example(shape.member, depth + 1) for _ in range(max(1, shape.metadata.get("min", 1)))]
    if kind == "map":
        return {"key": example(shape.value, depth + 1)}
    if kind == "string":
        if shape.enum:
            return shape.enum[0]
        arn = "arn" in shape.name.lower()
        kind = {"QueueARN": "queue", "ChannelARN": "channel"}.get(shape.name, "stream")
        text = f"arn:aws:kinesis:us-west-2:000000000000:{kind}/x" if arn else "1"
        return text.ljust(shape.metadata.get("min", 1), "1")
    if kind in ("integer", "long"):
        return int(shape.metadata.get("min", 1))
    return {"boolean": True, "float": 1.0, "double": 1.0, "blob": b"x", "timestamp": datetime.datetime(2026, 1, 1)}[kind]


def serialized(service, operation):
    """The request as boto3 would send it, unsigned."""
    model = _session.get_service_model(service)
    shape = model.operation_model(operation).input_shape
    serializer = botocore.serialize.create_serializer(model.metadata["protocol"], include_validation=False)
    return model, serializer.serialize_to_request(example(shape) if shape else {}, model.operation_model(operation))


def send(server, service, operation, credentials=None, date=None, corrupt=False):
    """Status, error code and headers of one call with these credentials."""
    model, request = serialized(service, operation)
    body = request["body"]
    if isinstance(body, dict):
        body = "&".join(f"{name}={urllib.request.quote(str(value), safe='')}" for name, value in body.items())
    body = body.encode() if isinstance(body, str) else body
    prepared = AWSRequest(method=request["method"], url=server.url + request["url_path"], data=body, headers=dict(request["headers"]))
    if credentials:
        signer = SigV4Auth(Credentials(*credentials), model.signing_name, REGION)
        if date:
            prepared.headers["X-Amz-Date"] = date
            prepared.context["timestamp"] = date
            signer._modify_request_before_signing(prepared)
            prepared.headers.replace_header("X-Amz-Date", date) if "X-Amz-Date" in prepared.headers else None
            canonical = signer.canonical_request(prepared)
            signature = signer.signature(signer.string_to_sign(prepared, canonical), prepared)
            signer._inject_signature_to_request(prepared, signature)
        else:
            signer.add_auth(prepared)
        if corrupt:
            value = prepared.headers["Authorization"]
            del prepared.headers["Authorization"]
            prepared.headers["Authorization"] = value[:-4] + ("0000" if not value.endswith("0000") else "1111")
    call = urllib.request.Request(server.url + request["url_path"], data=body, headers=dict(prepared.headers), method=request["method"])
    try:
        with urllib.request.urlopen(call, timeout=20) as answer:
            return answer.status, None, answer.headers, answer.read() if answer.headers.get("content-length") else b""
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
        return error.code, error_code(error.headers, text), error.headers, text


def error_code(headers, text):
    named = headers.get("x-amzn-ErrorType")
    if named:
        return named.split(":")[0]
    try:
        return json.loads(text)["__type"].split("#")[-1]
    except (ValueError, KeyError):
        start = text.find(b"<Code>")
        return text[start + 6:text.find(b"</Code>")].decode() if start >= 0 else None


@pytest.fixture(scope="module")
def denied_key(server):
    policy = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": "*"}, {"Effect": "Deny", "Action": ["kinesisvideo:*", "kinesis:*", "rekognition:*", "sts:*", "dynamodb:*", "cloudwatch:*", "firehose:*", "kinesisanalytics:*"], "Resource": "*"}]}
    return server.make_key(policy=policy)


ALL = [pytest.param(service, name, id=f"{service}-{name}") for service, name in operations() if (service, name) not in UNSIGNED_BY_DESIGN]


@pytest.mark.parametrize("service, operation", ALL)
def test_no_operation_answers_who_did_not_prove_who_they_are(server, service, operation):
    root = (server.access_key, server.secret)
    status, code, *_ = send(server, service, operation)
    assert (status, code) in ((403, "MissingAuthenticationTokenException"), (403, "MissingAuthenticationToken")), (status, code)
    status, code, *_ = send(server, service, operation, root, corrupt=True)
    assert status in (400, 403) and code in ("InvalidSignatureException", "SignatureDoesNotMatch"), (status, code)
    stale = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=6)).strftime("%Y%m%dT%H%M%SZ")
    status, code, headers, text = send(server, service, operation, root, date=stale)
    assert status in (400, 403) and code in ("InvalidSignatureException", "SignatureDoesNotMatch"), (status, code)
    assert headers["Date"] and b"Signature expired" in text, text
    status, code, *_ = send(server, service, operation, ("AKIAUNKNOWN00000000", "x" * 40))
    assert status in (400, 403) and code in ("UnrecognizedClientException", "InvalidClientTokenId", "InvalidClientTokenIdException"), (status, code)


@pytest.mark.parametrize("service, operation", ALL)
def test_no_operation_answers_who_is_denied_it(server, denied_key, service, operation):
    status, code, _, text = send(server, service, operation, denied_key)
    if (service, operation) in OPEN:
        return
    # A request that is refused for its form tells nothing of any resource either.
    assert status in (400, 401, 403), (status, code, text)
    assert code in ("AccessDeniedException", "AccessDenied", "NotAuthorizedException", "ValidationException", "ValidationError", "InvalidArgumentException",
                    "InvalidParameterException", "InvalidParameterValue", "SerializationException"), (status, code, text)


def client_pair(server, service, other):
    key, secret = other
    return server.client(service), server.client(service, access_key=key, secret=secret)


@pytest.fixture(scope="module")
def other_account(server):
    return server.make_key(account="111122223333")


def test_another_accounts_video_stream_looks_like_none(server, other_account, name):
    mine, theirs = client_pair(server, "kinesisvideo", other_account)
    arn = mine.create_stream(StreamName=name, DataRetentionInHours=1)["StreamARN"]
    nowhere = arn.replace(name, name[:-1] + "x")
    for call in (lambda value: theirs.describe_stream(StreamARN=value), lambda value: theirs.delete_stream(StreamARN=value),
                 lambda value: theirs.list_tags_for_stream(StreamARN=value), lambda value: theirs.tag_stream(StreamARN=value, Tags={"a": "b"}),
                 lambda value: theirs.get_data_endpoint(StreamARN=value, APIName="GET_MEDIA"),
                 lambda value: theirs.update_stream(StreamARN=value, CurrentVersion="1", MediaType="video/h264")):
        exists, does_not = refusal(lambda: call(arn)), refusal(lambda: call(nowhere))
        assert exists[:2] == does_not[:2] and exists[2].replace(name, "") == does_not[2].replace(name[:-1] + "x", ""), (exists, does_not)
    assert refusal(lambda: theirs.describe_stream(StreamName=name))[:2] == ("ResourceNotFoundException", 404)
    assert name not in [info["StreamName"] for info in theirs.list_streams()["StreamInfoList"]]
    # The same name is free over there.
    theirs.create_stream(StreamName=name)
    assert mine.describe_stream(StreamName=name)["StreamInfo"]["DataRetentionInHours"] == 1


def test_another_accounts_data_stream_and_collection_look_like_none(server, other_account, name):
    mine, theirs = client_pair(server, "kinesis", other_account)
    mine.create_stream(StreamName=name, ShardCount=1)
    arn = mine.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    for arguments in ({"StreamARN": arn}, {"StreamName": name}):
        assert refusal(lambda: theirs.describe_stream_summary(**arguments))[0] in ("ResourceNotFoundException", "InvalidArgumentException")
        assert refusal(lambda: theirs.put_record(Data=b"x", PartitionKey="k", **arguments))[0] in ("ResourceNotFoundException", "InvalidArgumentException")
    assert name not in theirs.list_streams()["StreamNames"]
    mine, theirs = client_pair(server, "rekognition", other_account)
    mine.create_collection(CollectionId=name)
    assert refusal(lambda: theirs.describe_collection(CollectionId=name))[0] == "ResourceNotFoundException"
    assert name not in theirs.list_collections()["CollectionIds"]
    theirs.create_collection(CollectionId=name)


def test_a_policy_may_allow_one_stream_and_nothing_else(server, name):
    root = server.client("kinesisvideo")
    mine = root.create_stream(StreamName=name)["StreamARN"]
    root.create_stream(StreamName=f"{name}-other")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesisvideo:DescribeStream", "Resource": f"arn:aws:kinesisvideo:*:*:stream/{name}/*"}]}
    key, secret = server.make_key(policy=policy)
    limited = server.client("kinesisvideo", access_key=key, secret=secret)
    assert limited.describe_stream(StreamARN=mine)["StreamInfo"]["StreamARN"] == mine
    assert refusal(lambda: limited.delete_stream(StreamARN=mine))[0] in ("NotAuthorizedException", "AccessDeniedException")
    assert refusal(lambda: limited.describe_stream(StreamName=f"{name}-other"))[0] in ("NotAuthorizedException", "AccessDeniedException")
    assert refusal(lambda: limited.list_streams())[0] in ("NotAuthorizedException", "AccessDeniedException")


def test_a_revoked_key_is_worth_nothing(server):
    key, secret = server.make_key()
    sts = server.client("sts", access_key=key, secret=secret)
    assert sts.get_caller_identity()["Account"] == "000000000000"
    server.run("keys", "revoke", key)

    def refused():
        try:
            sts.get_caller_identity()
        except ClientError as error:
            return error.response["Error"]["Code"] in ("InvalidClientTokenId", "UnrecognizedClientException")

    eventually(refused)
