"""The control plane of Kinesis Video Streams, as boto3 drives it."""

import pytest
from botocore.exceptions import ClientError

from harness import failure

APIS = ["PUT_MEDIA", "GET_MEDIA", "LIST_FRAGMENTS", "GET_MEDIA_FOR_FRAGMENT_LIST", "GET_HLS_STREAMING_SESSION_URL",
        "GET_DASH_STREAMING_SESSION_URL", "GET_CLIP", "GET_IMAGES"]


@pytest.fixture
def kvs(server):
    # Bad arguments must reach the server, not the SDK's own checks.
    return server.client("kinesisvideo", parameter_validation=False)


def test_a_stream_is_created_described_and_deleted(kvs, name):
    arn = kvs.create_stream(StreamName=name, DataRetentionInHours=24, MediaType="video/h264,audio/aac", DeviceName="door", Tags={"place": "gate"})["StreamARN"]
    assert arn.startswith(f"arn:aws:kinesisvideo:us-west-2:000000000000:stream/{name}/")
    for by in ({"StreamName": name}, {"StreamARN": arn}):
        info = kvs.describe_stream(**by)["StreamInfo"]
        assert (info["StreamName"], info["StreamARN"], info["Status"]) == (name, arn, "ACTIVE")
        assert (info["DataRetentionInHours"], info["MediaType"], info["DeviceName"]) == (24, "video/h264,audio/aac", "door")
        assert info["KmsKeyId"] and info["Version"].isalnum() and arn.endswith(str(round(info["CreationTime"].timestamp() * 1000)))
    kvs.delete_stream(StreamARN=arn, CurrentVersion=info["Version"])
    assert failure(lambda: kvs.describe_stream(StreamName=name)) == ("ResourceNotFoundException", 404)
    # The name is free at once, and the old ARN stays dead.
    again = kvs.create_stream(StreamName=name)["StreamARN"]
    assert again != arn
    assert failure(lambda: kvs.describe_stream(StreamARN=arn)) == ("ResourceNotFoundException", 404)
    assert kvs.describe_stream(StreamName=name)["StreamInfo"]["DataRetentionInHours"] == 0


def test_streams_are_listed_by_prefix_and_in_pages(kvs, name):
    names = [f"{name}-{n}" for n in range(5)]
    for each in names:
        kvs.create_stream(StreamName=each)
    condition = {"ComparisonOperator": "BEGINS_WITH", "ComparisonValue": f"{name}-"}
    pages = list(kvs.get_paginator("list_streams").paginate(StreamNameCondition=condition, PaginationConfig={"PageSize": 2}))
    assert [len(page["StreamInfoList"]) for page in pages] == [2, 2, 1]
    assert sorted(info["StreamName"] for page in pages for info in page["StreamInfoList"]) == names
    assert failure(lambda: kvs.list_streams(NextToken="bm90IG91cnM=")) == ("InvalidArgumentException", 400)


def test_an_update_needs_the_current_version(kvs, name):
    arn = make_stream_of(kvs, name)
    version = kvs.describe_stream(StreamARN=arn)["StreamInfo"]["Version"]
    kvs.update_stream(StreamARN=arn, CurrentVersion=version, DeviceName="window", MediaType="video/h265")
    info = kvs.describe_stream(StreamARN=arn)["StreamInfo"]
    assert (info["DeviceName"], info["MediaType"]) == ("window", "video/h265") and info["Version"] != version
    stale = ("VersionMismatchException", 400)
    assert failure(lambda: kvs.update_stream(StreamARN=arn, CurrentVersion=version, DeviceName="x")) == stale
    assert failure(lambda: kvs.delete_stream(StreamARN=arn, CurrentVersion=version)) == stale
    change = {"Operation": "INCREASE_DATA_RETENTION", "DataRetentionChangeInHours": 1}
    assert failure(lambda: kvs.update_data_retention(StreamARN=arn, CurrentVersion=version, **change)) == stale


def make_stream_of(kvs, name):
    return kvs.create_stream(StreamName=name, DataRetentionInHours=2)["StreamARN"]


def test_retention_grows_and_shrinks(kvs, name):
    arn = make_stream_of(kvs, name)

    def change(operation, hours):
        version = kvs.describe_stream(StreamARN=arn)["StreamInfo"]["Version"]
        kvs.update_data_retention(StreamARN=arn, CurrentVersion=version, Operation=f"{operation}_DATA_RETENTION", DataRetentionChangeInHours=hours)
        return kvs.describe_stream(StreamARN=arn)["StreamInfo"]["DataRetentionInHours"]

    assert change("INCREASE", 3) == 5
    assert change("DECREASE", 4) == 1
    assert failure(lambda: change("DECREASE", 2)) == ("InvalidArgumentException", 400)


def test_tags_are_set_listed_and_removed_in_both_ways(kvs, name):
    arn = make_stream_of(kvs, name)
    kvs.tag_stream(StreamName=name, Tags={"a": "1", "b": "2"})
    kvs.tag_resource(ResourceARN=arn, Tags=[{"Key": "c", "Value": "3"}, {"Key": "a", "Value": "4"}])
    want = {"a": "4", "b": "2", "c": "3"}
    assert kvs.list_tags_for_stream(StreamARN=arn)["Tags"] == want == kvs.list_tags_for_resource(ResourceARN=arn)["Tags"]
    kvs.untag_stream(StreamARN=arn, TagKeyList=["a"])
    kvs.untag_resource(ResourceARN=arn, TagKeyList=["b", "never set"])
    assert kvs.list_tags_for_stream(StreamName=name)["Tags"] == {"c": "3"}
    many = {f"key{n}": "v" for n in range(50)}
    assert failure(lambda: kvs.tag_stream(StreamName=name, Tags=many)) == ("TagsPerResourceExceededLimitException", 400)


@pytest.mark.parametrize("api", APIS)
def test_the_data_endpoint_leads_back_here(server, kvs, name, api):
    make_stream_of(kvs, name)
    assert kvs.get_data_endpoint(StreamName=name, APIName=api)["DataEndpoint"] == server.url


def test_bad_arguments_are_declared_errors(kvs, name):
    make_stream_of(kvs, name)
    assert failure(lambda: kvs.create_stream(StreamName=name)) == ("ResourceInUseException", 400)
    for call in (lambda: kvs.create_stream(StreamName="no spaces"), lambda: kvs.create_stream(StreamName="x" * 257), lambda: kvs.describe_stream(),
                 lambda: kvs.get_data_endpoint(StreamName=name, APIName="GET_RICH"), lambda: kvs.describe_stream(StreamARN="arn:aws:nothing")):
        code, status = failure(call)
        assert status == 400 and code in ("InvalidArgumentException", "ValidationException"), code
    for call in (lambda: kvs.describe_stream(StreamName="missing"), lambda: kvs.tag_stream(StreamName="missing", Tags={"a": "b"}),
                 lambda: kvs.delete_stream(StreamARN="arn:aws:kinesisvideo:us-west-2:000000000000:stream/missing/1"),
                 lambda: kvs.get_data_endpoint(StreamName="missing", APIName="PUT_MEDIA")):
        assert failure(call) == ("ResourceNotFoundException", 404)


def test_regions_do_not_share_streams(server, kvs, name):
    make_stream_of(kvs, name)
    elsewhere = server.client("kinesisvideo", region="eu-central-1")
    assert failure(lambda: elsewhere.describe_stream(StreamName=name)) == ("ResourceNotFoundException", 404)
    assert ":eu-central-1:" in elsewhere.create_stream(StreamName=name)["StreamARN"]


def test_an_operation_that_is_not_there_yet_says_so(server):
    signaling = server.client("kinesis-video-signaling")
    with pytest.raises(ClientError) as refused:
        signaling.get_ice_server_config(ChannelARN="arn:aws:kinesisvideo:us-west-2:000000000000:channel/door/1795347223436")
    error = refused.value.response["Error"]
    assert error["Code"] == "InvalidArgumentException" and "GetIceServerConfig" in error["Message"], error
