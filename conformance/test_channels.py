"""Channels: records of a data stream in a bucket, by boto3: every operation, what is refused, and a server that is killed."""

import gzip
import io
import json

import cramjam
import pytest

from harness import code_of, eventually, refusal

ROLE = "arn:aws:iam::000000000000:role/channel"
OWNER = "000000000000"


@pytest.fixture
def s3(server):
    return server.client("s3")


@pytest.fixture
def bucket(s3, name):
    bucket = name.lower().replace("_", "-")[-60:].strip("-")
    s3.create_bucket(Bucket=bucket)
    return bucket


@pytest.fixture
def stream(kinesis, name):
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    return kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]


def asked(name, stream, bucket, kind="JSON", compression="NONE", seconds=1, **more):
    storage = dict({"BucketARN": f"arn:aws:s3:::{bucket}", "ExpectedBucketOwner": OWNER, "CompressionType": compression}, **more)
    return {"ChannelName": name, "ServiceExecutionRoleARN": ROLE,
            "StreamConfigurationList": [{"StreamARN": stream, "RecordConfiguration": {"RecordFormatType": kind}}],
            "S3DestinationConfiguration": {"DataFreshnessInSeconds": seconds, "StorageConfiguration": storage}}


def objects(s3, bucket):
    listed = s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"]: s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in listed}


def put(kinesis, stream, records):
    done = kinesis.put_records(StreamARN=stream, Records=[{"Data": record, "PartitionKey": str(n)} for n, record in enumerate(records)])
    assert done["FailedRecordCount"] == 0


def zstd(body):
    return bytes(cramjam.zstd.decompress(body))


def test_a_channel_is_created_described_changed_listed_tagged_and_deleted(kinesis, stream, bucket, name):
    made = kinesis.create_channel(**asked(name, stream, bucket, compression="ZSTD", seconds=60), Tags={"room": "hall"})["ChannelDescription"]
    arn = made["ChannelARN"]
    assert (made["ChannelName"], made["ChannelStatus"], made["ServiceExecutionRoleARN"]) == (name, "ACTIVE", ROLE)
    assert [source["StreamARN"] for source in made["StreamConfigurationList"]] == [stream]
    s3 = made["S3DestinationConfiguration"]
    assert (s3["DataFreshnessInSeconds"], s3["StorageConfiguration"]["CompressionType"]) == (60, "ZSTD")
    assert s3["DeadLetterQueueS3Configuration"]["ErrorOutputPrefix"].startswith("kinesis-channel/errors/")
    assert kinesis.describe_channel(ChannelARN=arn)["ChannelDescription"] == made
    changed = kinesis.update_channel(ChannelARN=arn, S3DestinationConfiguration={"DataFreshnessInSeconds": 5})["ChannelDescription"]
    assert changed["S3DestinationConfiguration"]["DataFreshnessInSeconds"] == 5
    [listed] = kinesis.list_channels(StreamFilter=[{"StreamARN": stream}])["ChannelSummaries"]
    assert (listed["ChannelARN"], listed["ChannelDestinationType"], listed["Streams"][0]["StreamARN"]) == (arn, "S3", stream)
    kinesis.tag_resource(ResourceARN=arn, Tags={"floor": "1"})
    assert {tag["Key"]: tag["Value"] for tag in kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"]} == {"room": "hall", "floor": "1"}
    assert code_of(lambda: kinesis.delete_stream(StreamARN=stream, EnforceConsumerDeletion=True)) == "ResourceInUseException"
    kinesis.delete_channel(ChannelARN=arn)
    assert code_of(lambda: kinesis.describe_channel(ChannelARN=arn)) == "ResourceNotFoundException"
    assert kinesis.list_channels(StreamFilter=[{"StreamARN": stream}])["ChannelSummaries"] == []
    kinesis.delete_stream(StreamARN=stream)


def test_channels_are_listed_page_by_page(kinesis, stream, bucket, name):
    arns = {kinesis.create_channel(**asked(f"{name}-{n}", stream, bucket))["ChannelDescription"]["ChannelARN"] for n in range(5)}
    found, token = [], {}
    while True:
        page = kinesis.list_channels(StreamFilter=[{"StreamARN": stream}], MaxResults=2, **token)
        assert len(page["ChannelSummaries"]) <= 2
        found += [channel["ChannelARN"] for channel in page["ChannelSummaries"]]
        if not page.get("NextToken"):
            break
        token = {"NextToken": page["NextToken"]}
    assert len(found) == 5 and set(found) == arns
    for arn in arns:
        kinesis.delete_channel(ChannelARN=arn)


@pytest.mark.parametrize("compression, extension, read", [("NONE", "", bytes), ("GZIP", ".gz", gzip.decompress), ("ZSTD", ".zst", zstd)])
def test_records_are_in_the_bucket_on_a_line_each(kinesis, s3, stream, bucket, name, compression, extension, read):
    kinesis.put_record(StreamARN=stream, Data=b'{"n": "before"}', PartitionKey="k")
    template = "doors/!{stream-name}/!{channel-name}!{extension}"
    kinesis.create_channel(**asked(name, stream, bucket, compression=compression, OutputKeyTemplate=template))
    records = [json.dumps({"n": n}).encode() for n in range(200)]
    put(kinesis, stream, [*records, b"no json"])

    def lines():
        good = {key: body for key, body in objects(s3, bucket).items() if key.startswith("doors/")}
        assert all(key.startswith(f"doors/{name}/{name}") and key.endswith(extension) for key in good)
        return [line for body in good.values() for line in read(body).splitlines()]

    eventually(lambda: len(lines()) >= len(records), within=30)
    assert sorted(lines()) == sorted(records)

    def refused():
        errors = [body for key, body in objects(s3, bucket).items() if key.startswith("kinesis-channel/errors/")]
        return [json.loads(line) for body in errors for line in io.BytesIO(body)]

    [failed] = eventually(refused, within=30)
    assert (failed["errorCode"], failed["streamARN"]) == ("InvalidRecordFormat", stream)
    assert failed["shardId"].startswith("shardId-") and failed["sequenceNumber"].isdigit()


def test_what_was_put_is_in_the_bucket_once_over_a_kill(own_server, name):
    kinesis, s3 = own_server.client("kinesis"), own_server.client("s3")
    s3.create_bucket(Bucket="killed")
    kinesis.create_stream(StreamName=name, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    stream = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    kinesis.create_channel(**asked(name, stream, "killed", kind="STRING"))
    records = [b"%04d" % n for n in range(400)]
    put(kinesis, stream, records[:200])
    own_server.kill()
    own_server.restart()
    kinesis, s3 = own_server.client("kinesis"), own_server.client("s3")
    put(kinesis, stream, records[200:])
    lines = lambda: sorted(line for body in objects(s3, "killed").values() for line in body.splitlines())
    eventually(lambda: len(lines()) >= len(records), within=30)
    assert lines() == records
    assert own_server.stop() == 0, own_server.log()


@pytest.mark.parametrize("change, code", [
    (lambda a: a["S3DestinationConfiguration"]["StorageConfiguration"].update(BucketARN="arn:aws:s3:::there-is-none"), "ResourceNotFoundException"),
    (lambda a: a["S3DestinationConfiguration"]["StorageConfiguration"].update(ExpectedBucketOwner="111111111111"), "AccessDeniedException"),
    (lambda a: a["S3DestinationConfiguration"]["StorageConfiguration"].update(OutputKeyTemplate="!{moon}"), "InvalidArgumentException"),
    (lambda a: a["S3DestinationConfiguration"].update(DataFreshnessInSeconds=901), "InvalidArgumentException"),
    (lambda a: a["StreamConfigurationList"][0].update(StreamARN=a["StreamConfigurationList"][0]["StreamARN"] + "-none"), "ResourceNotFoundException"),
    (lambda a: a["StreamConfigurationList"][0].update(RecordConfiguration={"RecordFormatType": "GSR_JSON"}), "InvalidArgumentException"),
    (lambda a: a.update(ServiceExecutionRoleARN="arn:aws:iam::111111111111:role/other"), "InvalidArgumentException"),
    (lambda a: a.pop("S3DestinationConfiguration"), "InvalidArgumentException"),
])
def test_what_cannot_be_carried_out_is_refused(kinesis, stream, bucket, name, change, code):
    wanted = asked(name, stream, bucket)
    change(wanted)
    found, status, message = refusal(lambda: kinesis.create_channel(**wanted))
    assert (found, status) == (code, 400) and message
    assert kinesis.list_channels(StreamFilter=[{"StreamARN": stream}])["ChannelSummaries"] == []


def test_a_provisioned_stream_has_no_channels(kinesis, arn, bucket, name):
    assert code_of(lambda: kinesis.create_channel(**asked(name, arn, bucket))) == "InvalidArgumentException"
