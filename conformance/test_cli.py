"""The AWS CLI, unchanged, against the profile that `sightglass env --profile` writes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

import mkv
from harness import REGION, binary
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


def test_errors_reach_the_user_in_words(aws):
    assert "(ResourceNotFoundException)" in aws("kinesis", "describe-stream", "--stream-name", "missing", ok=False)
    assert "(ResourceNotFoundException)" in aws("kinesisvideo", "describe-stream", "--stream-name", "missing", ok=False)
    assert "(ResourceNotFoundException)" in aws("rekognition", "describe-collection", "--collection-id", "missing", ok=False)
