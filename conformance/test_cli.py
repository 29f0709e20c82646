"""The AWS CLI, unchanged, against the profile that `sightglass env --profile` writes."""

import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import mkv
from harness import REGION, ROOT, binary, eventually
from media import make_stream
from putmedia import persisted, put

AWS = pathlib.Path(sys.executable).with_name("aws")


@pytest.fixture(scope="module")
def aws(server, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "AWS_PAGER": "", "AWS_PROFILE": "sightglass", "AWS_DEFAULT_REGION": REGION}
    subprocess.run([binary(), "env", "--data-dir", str(server.data_dir), "--profile", "sightglass"], check=True, env=environment,
                   capture_output=True)

    def run(*arguments, ok=True):
        done = subprocess.run([str(AWS), *arguments, "--output", "json"], capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode == 0) == ok, done.stderr
        return (json.loads(done.stdout) if done.stdout.strip() else None) if ok else done.stderr

    return run


def test_the_profile_leads_to_this_server(aws):
    assert aws("sts", "get-caller-identity")["Account"] == "000000000000"


def test_video_streams(aws, server, name, tmp_path):
    arn = aws("kinesisvideo", "create-stream", "--stream-name", name, "--data-retention-in-hours", "1")["StreamARN"]
    assert aws("kinesisvideo", "describe-stream", "--stream-name", name)["StreamInfo"]["Status"] == "ACTIVE"
    listed = aws("kinesisvideo", "list-streams", "--stream-name-condition", f"ComparisonOperator=BEGINS_WITH,ComparisonValue={name}")
    assert [info["StreamARN"] for info in listed["StreamInfoList"]] == [arn]
    aws("kinesisvideo", "tag-stream", "--stream-name", name, "--tags", "place=gate")
    assert aws("kinesisvideo", "list-tags-for-stream", "--stream-name", name)["Tags"] == {"place": "gate"}
    aws("kinesisvideo", "untag-stream", "--stream-name", name, "--tag-key-list", "place")
    version = aws("kinesisvideo", "describe-stream", "--stream-name", name)["StreamInfo"]["Version"]
    aws("kinesisvideo", "update-stream", "--stream-name", name, "--current-version", version, "--media-type", "video/h264")
    version = aws("kinesisvideo", "describe-stream", "--stream-name", name)["StreamInfo"]["Version"]
    aws("kinesisvideo", "update-data-retention", "--stream-name", name, "--current-version", version, "--operation", "INCREASE_DATA_RETENTION",
        "--data-retention-change-in-hours", "1")
    endpoint = aws("kinesisvideo", "get-data-endpoint", "--stream-name", name, "--api-name", "LIST_FRAGMENTS")["DataEndpoint"]
    numbers = persisted(put(server, name, mkv.header() + mkv.cluster(1000, mkv.block(b"frame"))))
    fragments = aws("kinesis-video-archived-media", "list-fragments", "--stream-name", name, "--endpoint-url", endpoint, "--fragment-selector",
                    "FragmentSelectorType=SERVER_TIMESTAMP,TimestampRange={StartTimestamp=1577836800,EndTimestamp=4102444800}")["Fragments"]
    assert [f["FragmentNumber"] for f in fragments] == numbers
    out = tmp_path / "media.mkv"
    aws("kinesis-video-archived-media", "get-media-for-fragment-list", str(out), "--stream-name", name, "--endpoint-url", endpoint, "--fragments", *numbers)
    [document] = mkv.documents(out.read_bytes())
    assert document.fragments[0].blocks[0].payload == b"frame"
    aws("kinesisvideo", "delete-stream", "--stream-arn", arn)
    assert "ResourceNotFoundException" in aws("kinesisvideo", "describe-stream", "--stream-name", name, ok=False)


def test_the_commands_of_the_guide_to_cameras(aws, name):
    commands = [line.split()[1:] for line in (ROOT / "docs/guide/cameras.md").read_text().splitlines() if line.startswith("    aws kinesisvideo tag-stream")]
    assert len(commands) >= 4
    aws("kinesisvideo", "create-stream", "--stream-name", name, "--data-retention-in-hours", "1")
    for command in commands:
        aws(*[name if word == "door" else word for word in command])
    tags = aws("kinesisvideo", "list-tags-for-stream", "--stream-name", name)["Tags"]
    assert tags == dict(command[-1].split("=") for command in commands)


def test_signaling_channels_media_storage_tiers_and_edge_configurations(aws, name):
    kvs = lambda operation, *arguments: aws("kinesisvideo", operation, *arguments)
    stream = kvs("create-stream", "--stream-name", name, "--data-retention-in-hours", "1", "--stream-storage-configuration", "DefaultStorageTier=WARM")["StreamARN"]
    assert kvs("describe-stream-storage-configuration", "--stream-name", name)["StreamStorageConfiguration"] == {"DefaultStorageTier": "WARM"}
    version = kvs("describe-stream", "--stream-name", name)["StreamInfo"]["Version"]
    kvs("update-stream-storage-configuration", "--stream-name", name, "--current-version", version, "--stream-storage-configuration", "DefaultStorageTier=HOT")
    arn = kvs("create-signaling-channel", "--channel-name", name, "--single-master-configuration", "MessageTtlSeconds=30")["ChannelARN"]
    info = kvs("describe-signaling-channel", "--channel-name", name)["ChannelInfo"]
    assert info["SingleMasterConfiguration"] == {"MessageTtlSeconds": 30}
    kvs("update-signaling-channel", "--channel-arn", arn, "--current-version", info["Version"], "--single-master-configuration", "MessageTtlSeconds=60")
    listed = kvs("list-signaling-channels", "--channel-name-condition", f"ComparisonOperator=BEGINS_WITH,ComparisonValue={name}")["ChannelInfoList"]
    assert [channel["ChannelARN"] for channel in listed] == [arn]
    kvs("update-media-storage-configuration", "--channel-arn", arn, "--media-storage-configuration", f"Status=ENABLED,StreamARN={stream}")
    assert kvs("describe-media-storage-configuration", "--channel-name", name)["MediaStorageConfiguration"] == {"Status": "ENABLED", "StreamARN": stream}
    assert [item["ARN"] for item in kvs("describe-mapped-resource-configuration", "--stream-name", name)["MappedResourceConfigurationList"]] == [arn]
    endpoints = kvs("get-signaling-channel-endpoint", "--channel-arn", arn, "--single-master-channel-endpoint-configuration", "Protocols=WSS,HTTPS,WEBRTC,Role=MASTER")
    assert [item["Protocol"] for item in endpoints["ResourceEndpointList"]] == ["WSS", "HTTPS", "WEBRTC"]
    kvs("delete-signaling-channel", "--channel-arn", arn)
    hub = f"arn:aws:iot:{REGION}:000000000000:thing/{name}"
    source = {"MediaUriSecretArn": f"arn:aws:secretsmanager:{REGION}:000000000000:secret:camera", "MediaUriType": "RTSP_URI"}
    config = {"HubDeviceArn": hub, "RecorderConfig": {"MediaSourceConfig": source}}
    assert kvs("start-edge-configuration-update", "--stream-name", name, "--edge-config", json.dumps(config))["SyncStatus"] == "SYNCING"
    assert kvs("describe-edge-configuration", "--stream-name", name)["EdgeConfig"] == config
    assert [item["StreamARN"] for item in kvs("list-edge-agent-configurations", "--hub-device-arn", hub)["EdgeConfigs"]] == [stream]
    kvs("delete-edge-configuration", "--stream-name", name)
    assert "StreamEdgeConfigurationNotFoundException" in aws("kinesisvideo", "describe-edge-configuration", "--stream-name", name, ok=False)


def test_data_streams(aws, name):
    aws("kinesis", "create-stream", "--stream-name", name, "--shard-count", "1")
    assert aws("kinesis", "describe-stream-summary", "--stream-name", name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"
    assert len(aws("kinesis", "describe-stream", "--stream-name", name)["StreamDescription"]["Shards"]) == 1
    assert name in aws("kinesis", "list-streams")["StreamNames"]
    assert len(aws("kinesis", "list-shards", "--stream-name", name)["Shards"]) == 1
    aws("kinesis", "put-record", "--stream-name", name, "--partition-key", "k", "--data", "aGVsbG8=")
    aws("kinesis", "put-records", "--stream-name", name, "--records", "PartitionKey=k,Data=d29ybGQ=")
    iterator = aws("kinesis", "get-shard-iterator", "--stream-name", name, "--shard-id", "shardId-000000000000", "--shard-iterator-type", "TRIM_HORIZON")
    records = aws("kinesis", "get-records", "--shard-iterator", iterator["ShardIterator"])["Records"]
    assert [record["PartitionKey"] for record in records] == ["k", "k"]
    aws("kinesis", "delete-stream", "--stream-name", name)


def test_collections_and_processors(aws, server, name):
    aws("rekognition", "create-collection", "--collection-id", name)
    assert aws("rekognition", "describe-collection", "--collection-id", name)["FaceCount"] == 0
    assert name in aws("rekognition", "list-collections")["CollectionIds"]
    assert aws("rekognition", "list-faces", "--collection-id", name)["Faces"] == []
    video = make_stream(server, name)
    aws("kinesis", "create-stream", "--stream-name", name, "--shard-count", "1")
    aws("rekognition", "create-stream-processor", "--name", name, "--role-arn", "arn:aws:iam::000000000000:role/any",
        "--input", json.dumps({"KinesisVideoStream": {"Arn": video}}),
        "--stream-processor-output", json.dumps({"KinesisDataStream": {"Arn": f"arn:aws:kinesis:us-west-2:000000000000:stream/{name}"}}),
        "--settings", json.dumps({"FaceSearch": {"CollectionId": name}}))
    aws("rekognition", "describe-stream-processor", "--name", name)
    aws("rekognition", "list-stream-processors")
    aws("rekognition", "delete-stream-processor", "--name", name)
    aws("rekognition", "delete-collection", "--collection-id", name)


def test_media_until_the_stream_is_deleted(aws, server, name, tmp_path):
    arn = make_stream(server, name)
    frame = b"frame" * 600_000  # the CLI writes a mebibyte at a time
    numbers = persisted(put(server, name, mkv.header() + mkv.cluster(1000, mkv.block(frame))))
    out = tmp_path / "live.mkv"
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(aws, "kinesis-video-media", "get-media", str(out), "--stream-name", name, "--start-selector", "StartSelectorType=EARLIEST")
        eventually(lambda: out.exists() and numbers[0].encode() in out.read_bytes())
        aws("kinesisvideo", "delete-stream", "--stream-arn", arn)
        reading.result(timeout=60)
    assert mkv.documents(out.read_bytes())[0].fragments[0].blocks[0].payload == frame


def test_tags_of_resources(aws, server, name):
    arn = make_stream(server, name)
    aws("kinesisvideo", "tag-resource", "--resource-arn", arn, "--tags", "Key=place,Value=gate")
    assert aws("kinesisvideo", "list-tags-for-resource", "--resource-arn", arn)["Tags"] == {"place": "gate"}
    aws("kinesisvideo", "untag-resource", "--resource-arn", arn, "--tag-key-list", "place")
    assert aws("kinesisvideo", "list-tags-for-resource", "--resource-arn", arn)["Tags"] == {}


def test_faces_and_a_running_processor(aws, server, name, photographs, tmp_path):
    for person in ("obama", "obama-2"):
        (tmp_path / f"{person}.jpg").write_bytes(photographs[person])
    first, second = (["--image-bytes", f"fileb://{tmp_path}/{person}.jpg"] for person in ("obama", "obama-2"))
    assert len(aws("rekognition", "detect-faces", *first)["FaceDetails"]) == 1
    aws("rekognition", "create-collection", "--collection-id", name)
    ids = [aws("rekognition", "index-faces", "--collection-id", name, "--external-image-id", "president", *photo)["FaceRecords"][0]["Face"]["FaceId"]
           for photo in (first, second)]
    found = aws("rekognition", "search-faces", "--collection-id", name, "--face-id", ids[0])["FaceMatches"]
    assert [match["Face"]["FaceId"] for match in found] == ids[1:]
    assert aws("rekognition", "search-faces-by-image", "--collection-id", name, *second)["FaceMatches"][0]["Face"]["FaceId"] == ids[1]
    assert aws("rekognition", "delete-faces", "--collection-id", name, "--face-ids", *ids)["DeletedFaces"] == ids
    video = make_stream(server, name)
    aws("kinesis", "create-stream", "--stream-name", name, "--shard-count", "1")
    aws("rekognition", "create-stream-processor", "--name", name, "--role-arn", "arn:aws:iam::000000000000:role/any",
        "--input", json.dumps({"KinesisVideoStream": {"Arn": video}}),
        "--stream-processor-output", json.dumps({"KinesisDataStream": {"Arn": f"arn:aws:kinesis:us-west-2:000000000000:stream/{name}"}}),
        "--settings", json.dumps({"FaceSearch": {"CollectionId": name}}))
    state = lambda: aws("rekognition", "describe-stream-processor", "--name", name)["Status"]
    aws("rekognition", "start-stream-processor", "--name", name)
    eventually(lambda: state() == "RUNNING", within=30)
    aws("rekognition", "stop-stream-processor", "--name", name)
    eventually(lambda: state() == "STOPPED", within=30)
    aws("rekognition", "delete-stream-processor", "--name", name)


def test_temporary_credentials(aws):
    assert aws("sts", "get-session-token")["Credentials"]["SessionToken"]
    assumed = aws("sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/viewer", "--role-session-name", "shift")
    assert assumed["AssumedRoleUser"]["Arn"].endswith("assumed-role/viewer/shift")


def test_errors_reach_the_user_in_words(aws):
    assert "(ResourceNotFoundException)" in aws("kinesis", "describe-stream", "--stream-name", "missing", ok=False)
    assert "(ResourceNotFoundException)" in aws("kinesisvideo", "describe-stream", "--stream-name", "missing", ok=False)
    assert "(ResourceNotFoundException)" in aws("rekognition", "describe-collection", "--collection-id", "missing", ok=False)
