"""The control plane beyond streams themselves: signalling channels, media storage, storage tiers, edge configurations; and
the constraints of the model, violated for every operation."""

import datetime

import botocore.session
import pytest
from botocore.exceptions import ClientError

from harness import failure
from test_coverage import documented

HUB = "arn:aws:iot:us-west-2:000000000000:thing/"
EDGE = {"RecorderConfig": {"MediaSourceConfig": {"MediaUriSecretArn": "arn:aws:secretsmanager:us-west-2:000000000000:secret:camera", "MediaUriType": "RTSP_URI"},
                           "ScheduleConfig": {"ScheduleExpression": "0 0 8 ? * MON-FRI", "DurationInSeconds": 3600}},
        "UploaderConfig": {"ScheduleConfig": {"ScheduleExpression": "0 30 20 ? * *", "DurationInSeconds": 60}},
        "DeletionConfig": {"EdgeRetentionInHours": 720, "LocalSizeConfig": {"MaxLocalMediaSizeInMB": 64, "StrategyOnFullSize": "DENY_NEW_MEDIA"}, "DeleteAfterUpload": True}}


@pytest.fixture
def kvs(server):
    # Bad arguments must reach the server, not the SDK's own checks.
    return server.client("kinesisvideo", parameter_validation=False)


def test_a_channel_is_created_described_changed_listed_tagged_and_deleted(kvs, name):
    arn = kvs.create_signaling_channel(ChannelName=name, Tags=[{"Key": "site", "Value": "gate"}])["ChannelARN"]
    assert arn.startswith(f"arn:aws:kinesisvideo:us-west-2:000000000000:channel/{name}/")
    for by in ({"ChannelName": name}, {"ChannelARN": arn}):
        info = kvs.describe_signaling_channel(**by)["ChannelInfo"]
        assert (info["ChannelName"], info["ChannelARN"], info["ChannelStatus"], info["ChannelType"]) == (name, arn, "ACTIVE", "SINGLE_MASTER")
        assert info["SingleMasterConfiguration"] == {"MessageTtlSeconds": 60}
        assert arn.endswith(str(round(info["CreationTime"].timestamp() * 1000)))
    assert failure(lambda: kvs.create_signaling_channel(ChannelName=name)) == ("ResourceInUseException", 400)
    kvs.update_signaling_channel(ChannelARN=arn, CurrentVersion=info["Version"], SingleMasterConfiguration={"MessageTtlSeconds": 120})
    stale = ("VersionMismatchException", 400)
    assert failure(lambda: kvs.update_signaling_channel(ChannelARN=arn, CurrentVersion=info["Version"])) == stale
    assert failure(lambda: kvs.delete_signaling_channel(ChannelARN=arn, CurrentVersion=info["Version"])) == stale
    assert kvs.describe_signaling_channel(ChannelARN=arn)["ChannelInfo"]["SingleMasterConfiguration"] == {"MessageTtlSeconds": 120}
    kvs.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "1"}])
    kvs.untag_resource(ResourceARN=arn, TagKeyList=["site"])
    assert kvs.list_tags_for_resource(ResourceARN=arn)["Tags"] == {"a": "1"}
    for n in range(4):
        kvs.create_signaling_channel(ChannelName=f"{name}-{n}", ChannelType="FULL_MESH")
    condition = {"ComparisonOperator": "BEGINS_WITH", "ComparisonValue": name}
    pages = list(kvs.get_paginator("list_signaling_channels").paginate(ChannelNameCondition=condition, PaginationConfig={"PageSize": 2}))
    assert [len(page["ChannelInfoList"]) for page in pages] == [2, 2, 1]
    assert [info["ChannelName"] for page in pages for info in page["ChannelInfoList"]] == [name] + [f"{name}-{n}" for n in range(4)]
    kvs.delete_signaling_channel(ChannelARN=arn)
    assert failure(lambda: kvs.describe_signaling_channel(ChannelName=name)) == ("ResourceNotFoundException", 404)
    assert kvs.create_signaling_channel(ChannelName=name)["ChannelARN"] != arn
    assert failure(lambda: kvs.describe_signaling_channel(ChannelARN=arn)) == ("ResourceNotFoundException", 404)


def test_the_endpoints_of_a_channel_lead_back_here(server, kvs, name):
    arn = kvs.create_signaling_channel(ChannelName=name)["ChannelARN"]
    for role in ("MASTER", "VIEWER"):
        asked = {"Protocols": ["WSS", "HTTPS"], "Role": role}
        answer = kvs.get_signaling_channel_endpoint(ChannelARN=arn, SingleMasterChannelEndpointConfiguration=asked)["ResourceEndpointList"]
        assert {item["Protocol"]: item["ResourceEndpoint"] for item in answer} == {"WSS": server.url.replace("http", "ws", 1), "HTTPS": server.url}
    webrtc = {"Protocols": ["WEBRTC"], "Role": "MASTER"}
    assert failure(lambda: kvs.get_signaling_channel_endpoint(ChannelARN=arn, SingleMasterChannelEndpointConfiguration=webrtc)) == ("InvalidArgumentException", 400)
    stream = kvs.create_stream(StreamName=name, DataRetentionInHours=1)["StreamARN"]
    kvs.update_media_storage_configuration(ChannelARN=arn, MediaStorageConfiguration={"Status": "ENABLED", "StreamARN": stream})
    answer = kvs.get_signaling_channel_endpoint(ChannelARN=arn, SingleMasterChannelEndpointConfiguration=webrtc)["ResourceEndpointList"]
    assert answer == [{"Protocol": "WEBRTC", "ResourceEndpoint": server.url}]


def test_a_channels_media_is_stored_in_one_stream(kvs, name):
    door, gate = (kvs.create_signaling_channel(ChannelName=f"{name}-{n}")["ChannelARN"] for n in range(2))
    stream = kvs.create_stream(StreamName=name, DataRetentionInHours=1)["StreamARN"]
    empty = kvs.create_stream(StreamName=f"{name}-empty")["StreamARN"]

    def enable(channel, arn):
        kvs.update_media_storage_configuration(ChannelARN=channel, MediaStorageConfiguration={"Status": "ENABLED", "StreamARN": arn})

    assert kvs.describe_media_storage_configuration(ChannelARN=door)["MediaStorageConfiguration"] == {"Status": "DISABLED"}
    assert failure(lambda: enable(door, empty)) == ("NoDataRetentionException", 400)
    enable(door, stream)
    assert failure(lambda: enable(gate, stream)) == ("ResourceInUseException", 400)
    assert kvs.describe_media_storage_configuration(ChannelName=f"{name}-0")["MediaStorageConfiguration"] == {"Status": "ENABLED", "StreamARN": stream}
    pages = list(kvs.get_paginator("describe_mapped_resource_configuration").paginate(StreamName=name))
    assert [item["ARN"] for page in pages for item in page["MappedResourceConfigurationList"]] == [door]
    kvs.update_media_storage_configuration(ChannelARN=door, MediaStorageConfiguration={"Status": "DISABLED"})
    assert kvs.describe_mapped_resource_configuration(StreamARN=stream)["MappedResourceConfigurationList"] == []
    enable(gate, stream)


def test_a_stream_changes_its_storage_tier(kvs, name):
    arn = kvs.create_stream(StreamName=name, DataRetentionInHours=1, StreamStorageConfiguration={"DefaultStorageTier": "WARM"})["StreamARN"]

    def tier():
        answer = kvs.describe_stream_storage_configuration(StreamName=name)
        assert (answer["StreamName"], answer["StreamARN"]) == (name, arn)
        return answer["StreamStorageConfiguration"]["DefaultStorageTier"]

    assert tier() == "WARM"
    version = kvs.describe_stream(StreamARN=arn)["StreamInfo"]["Version"]
    kvs.update_stream_storage_configuration(StreamARN=arn, CurrentVersion=version, StreamStorageConfiguration={"DefaultStorageTier": "HOT"})
    assert tier() == "HOT"
    again = lambda: kvs.update_stream_storage_configuration(StreamARN=arn, CurrentVersion=version, StreamStorageConfiguration={"DefaultStorageTier": "HOT"})
    assert failure(again) == ("VersionMismatchException", 400)


def test_an_edge_configuration_is_kept_listed_and_deleted(kvs, name):
    hub = HUB + name
    config = dict(EDGE, HubDeviceArn=hub)
    for n in range(3):
        kvs.create_stream(StreamName=f"{name}-{n}", DataRetentionInHours=1)
        begun = kvs.start_edge_configuration_update(StreamName=f"{name}-{n}", EdgeConfig=config)
        assert begun["SyncStatus"] == "SYNCING" and begun["EdgeConfig"] == config
    assert failure(lambda: kvs.start_edge_configuration_update(StreamName=f"{name}-0", EdgeConfig=config)) == ("ResourceInUseException", 400)
    answer = kvs.describe_edge_configuration(StreamName=f"{name}-0")
    assert answer["EdgeConfig"] == config and answer["SyncStatus"] == "SYNCING"
    assert isinstance(answer["CreationTime"], datetime.datetime) and answer["LastUpdatedTime"] >= answer["CreationTime"]
    pages = list(kvs.get_paginator("list_edge_agent_configurations").paginate(HubDeviceArn=hub, PaginationConfig={"PageSize": 2}))
    assert [[item["StreamName"] for item in page["EdgeConfigs"]] for page in pages] == [[f"{name}-0", f"{name}-1"], [f"{name}-2"]]
    kvs.delete_edge_configuration(StreamName=f"{name}-0")
    missing = ("StreamEdgeConfigurationNotFoundException", 404)
    assert failure(lambda: kvs.describe_edge_configuration(StreamName=f"{name}-0")) == missing
    assert failure(lambda: kvs.delete_edge_configuration(StreamName=f"{name}-0")) == missing
    kvs.create_stream(StreamName=f"{name}-empty")
    assert failure(lambda: kvs.start_edge_configuration_update(StreamName=f"{name}-empty", EdgeConfig=config)) == ("NoDataRetentionException", 400)


def test_another_accounts_resources_look_like_none(server, kvs, name):
    key, secret = server.make_key(account="111122223333")
    theirs = server.client("kinesisvideo", access_key=key, secret=secret, parameter_validation=False)
    channel = kvs.create_signaling_channel(ChannelName=name)["ChannelARN"]
    stream = kvs.create_stream(StreamName=name, DataRetentionInHours=1)["StreamARN"]
    kvs.start_edge_configuration_update(StreamARN=stream, EdgeConfig=dict(EDGE, HubDeviceArn=HUB + name))
    enable = {"Status": "ENABLED", "StreamARN": stream}
    own = theirs.create_signaling_channel(ChannelName=name)["ChannelARN"]
    for call in (lambda arn: theirs.describe_signaling_channel(ChannelARN=arn), lambda arn: theirs.delete_signaling_channel(ChannelARN=arn),
                 lambda arn: theirs.update_signaling_channel(ChannelARN=arn, CurrentVersion="1"), lambda arn: theirs.get_signaling_channel_endpoint(ChannelARN=arn),
                 lambda arn: theirs.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "b"}]), lambda arn: theirs.untag_resource(ResourceARN=arn, TagKeyList=["a"]),
                 lambda arn: theirs.list_tags_for_resource(ResourceARN=arn), lambda arn: theirs.describe_media_storage_configuration(ChannelARN=arn),
                 lambda arn: theirs.update_media_storage_configuration(ChannelARN=arn, MediaStorageConfiguration={"Status": "DISABLED"})):
        assert failure(lambda: call(channel)) == failure(lambda: call(channel[:-1])) == ("ResourceNotFoundException", 404)
    for call in (lambda arn: theirs.describe_stream_storage_configuration(StreamARN=arn), lambda arn: theirs.describe_edge_configuration(StreamARN=arn),
                 lambda arn: theirs.delete_edge_configuration(StreamARN=arn), lambda arn: theirs.describe_mapped_resource_configuration(StreamARN=arn),
                 lambda arn: theirs.update_media_storage_configuration(ChannelARN=own, MediaStorageConfiguration=dict(enable, StreamARN=arn)),
                 lambda arn: theirs.update_stream_storage_configuration(StreamARN=arn, CurrentVersion="1", StreamStorageConfiguration={"DefaultStorageTier": "HOT"})):
        assert failure(lambda: call(stream)) == failure(lambda: call(stream[:-1])) == ("ResourceNotFoundException", 404)
    assert theirs.list_edge_agent_configurations(HubDeviceArn=HUB + name)["EdgeConfigs"] == []
    assert [info["ChannelARN"] for info in theirs.list_signaling_channels()["ChannelInfoList"]] == [own]


MODEL = botocore.session.get_session().get_service_model("kinesisvideo")
OPERATIONS = sorted(operation for (service, operation), done in documented().items() if service == "kinesisvideo" and done)
ARNS = {"HubDeviceArn": HUB + "x", "MediaUriSecretArn": EDGE["RecorderConfig"]["MediaSourceConfig"]["MediaUriSecretArn"]}


def legal(shape):
    """A value that the model allows, with every member."""
    kind = shape.type_name
    if kind == "structure":
        return {name: legal(member) for name, member in shape.members.items()}
    if kind == "list":
        return [legal(shape.member)]
    if kind == "map":
        return {shape.key.enum[0] if getattr(shape.key, "enum", None) else "key": legal(shape.value)}
    if kind == "string":
        if shape.enum:
            return shape.enum[0]
        if shape.name in ARNS:
            return ARNS[shape.name]
        if shape.name == "ScheduleExpression":
            return "0 0 8 ? * MON-FRI"
        if "ARN" in shape.name.upper():
            return "arn:aws:kinesisvideo:us-west-2:000000000000:stream/x/1"
        return {"DestinationUri": "s3://bucket", "DestinationRegion": "us-west-2", "NextToken": ""}.get(shape.name, "abcd")
    return {"boolean": True, "integer": int(shape.metadata.get("min", 1))}[kind]


def violations(shape, good):
    """Values like `good`, each with one constraint of the model violated, and where."""
    kind = shape.type_name
    if kind == "structure":
        for name in shape.required_members:
            yield name, {key: value for key, value in good.items() if key != name}
        for name, member in shape.members.items():
            for where, bad in violations(member, good[name]):
                yield f"{name}.{where}", dict(good, **{name: bad})
    elif kind == "list":
        for where, bad in violations(shape.member, good[0]):
            yield f"[0].{where}", [bad]
        if "max" in shape.metadata:
            yield "max", good * (shape.metadata["max"] + 1)
    elif kind == "string":
        if shape.enum:
            yield "enum", "NONE_OF_THEM"
        if "max" in shape.metadata:
            yield "max", "a" * (shape.metadata["max"] + 1)
        if shape.metadata.get("pattern") not in (None, ".*"):
            yield "pattern", "\n" * max(1, shape.metadata.get("min", 1))
    elif kind == "integer":
        if "min" in shape.metadata:
            yield "min", shape.metadata["min"] - 1
        if "max" in shape.metadata:
            yield "max", shape.metadata["max"] + 1
        yield "type", "many"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_constraint_of_the_model_is_kept(kvs, operation):
    shape = MODEL.operation_model(operation).input_shape
    call = getattr(kvs, botocore.xform_name(operation))
    good, tried, taken = legal(shape), 0, []
    for where, bad in violations(shape, good):
        tried += 1
        try:
            call(**bad)
            taken.append(where)
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status != 400 or code not in ("InvalidArgumentException", "ValidationException", "SerializationException"):
                taken.append((where, code, status))
    assert tried and taken == []
