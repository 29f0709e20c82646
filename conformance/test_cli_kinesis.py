"""Every `aws kinesis` command, as a person types it. The CLI runs in this process: starting it 50 times takes longer than the calls."""

import base64
import json
import re

import pytest
from awscli.clidriver import create_clidriver

from harness import REGION

FIRST, SECOND, THIRD = (f"shardId-{n:012d}" for n in range(3))


@pytest.fixture
def aws(server, monkeypatch, capsys):
    for variable, value in {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret,
                            "AWS_DEFAULT_REGION": REGION, "AWS_PAGER": "", "AWS_MAX_ATTEMPTS": "1", "AWS_CONFIG_FILE": "/nowhere"}.items():
        monkeypatch.setenv(variable, value)

    driver = create_clidriver()

    def run(command, *arguments, ok=True, **named):
        flags = [word for flag, value in named.items() for word in (f"--{flag.replace('_', '-')}", value)]
        capsys.readouterr()
        status = driver.main(["kinesis", *command.split(), *arguments, *flags, "--output", "json"])
        said = capsys.readouterr()
        run.used.add(command.split()[0])
        assert (status == 0) == ok, said.err
        return said.err if not ok else json.loads(said.out) if said.out.strip() else None

    run.used = set()
    return run


def commands(capsys):
    """What the CLI offers, as it tells who mistypes."""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        create_clidriver().main(["kinesis", "no-such-command"])
    offered = capsys.readouterr().err.split("valid choices are:")[1]
    return set(re.findall(r"[a-z][a-z-]+", offered)) - {"help"}


def test_every_command(aws, capsys, server, name):
    stream = {"stream_name": name}
    aws("create-stream", **stream, shard_count="1", tags="room=hall")
    aws("wait stream-exists", **stream)
    summary = aws("describe-stream-summary", **stream)["StreamDescriptionSummary"]
    arn = summary["StreamARN"]
    assert (summary["StreamStatus"], summary["OpenShardCount"], summary["RetentionPeriodHours"]) == ("ACTIVE", 1, 24)
    aws("create-stream", stream_name=name + "-2", shard_count="1")
    assert name in aws("list-streams", page_size="1")["StreamNames"] and aws("list-streams", max_items="1")["NextToken"]

    # Tags, old and new.
    aws("add-tags-to-stream", **stream, tags="place=gate,floor=1")
    aws("remove-tags-from-stream", "--tag-keys", "floor", **stream)
    tags = {tag["Key"]: tag["Value"] for tag in aws("list-tags-for-stream", **stream)["Tags"]}
    assert tags == {"room": "hall", "place": "gate"}
    aws("tag-resource", resource_arn=arn, tags="new=1")
    aws("untag-resource", "--tag-keys", "room", "place", resource_arn=arn)
    assert aws("list-tags-for-resource", resource_arn=arn)["Tags"] == [{"Key": "new", "Value": "1"}]

    # Records.
    put = aws("put-record", **stream, partition_key="k", data="hello")
    assert put["ShardId"] == FIRST
    entries = [{"PartitionKey": f"k{n}", "Data": f"record {n}"} for n in range(3)]
    assert aws("put-records", **stream, records=json.dumps(entries))["FailedRecordCount"] == 0
    iterator = aws("get-shard-iterator", **stream, shard_id=FIRST, shard_iterator_type="TRIM_HORIZON")["ShardIterator"]
    records = aws("get-records", shard_iterator=iterator)["Records"]
    assert [base64.b64decode(record["Data"]) for record in records] == [b"hello", b"record 0", b"record 1", b"record 2"]
    assert records[0]["SequenceNumber"] == put["SequenceNumber"]
    since = aws("get-shard-iterator", **stream, shard_id=FIRST, shard_iterator_type="AFTER_SEQUENCE_NUMBER", starting_sequence_number=put["SequenceNumber"])
    assert len(aws("get-records", shard_iterator=since["ShardIterator"], limit="2")["Records"]) == 2
    since = aws("get-shard-iterator", **stream, shard_id=FIRST, shard_iterator_type="AT_TIMESTAMP", timestamp="2020-01-01T00:00:00Z")
    assert len(aws("get-records", shard_iterator=since["ShardIterator"])["Records"]) == 4

    # Shards.
    aws("split-shard", **stream, shard_to_split=FIRST, new_starting_hash_key=str(2**127))
    aws("wait stream-exists", **stream)
    assert [shard["ShardId"] for shard in aws("list-shards", stream_arn=arn, shard_filter="Type=AT_LATEST")["Shards"]] == [SECOND, THIRD]
    aws("merge-shards", **stream, shard_to_merge=SECOND, adjacent_shard_to_merge=THIRD)
    scaled = aws("update-shard-count", **stream, target_shard_count="2", scaling_type="UNIFORM_SCALING")
    assert (scaled["CurrentShardCount"], scaled["TargetShardCount"]) == (1, 2)
    described = aws("describe-stream", **stream)["StreamDescription"]
    assert len(described["Shards"]) == 6

    # Settings.
    aws("increase-stream-retention-period", **stream, retention_period_hours="48")
    aws("decrease-stream-retention-period", **stream, retention_period_hours="36")
    aws("start-stream-encryption", **stream, encryption_type="KMS", key_id="alias/aws/kinesis")
    assert aws("enable-enhanced-monitoring", "--shard-level-metrics", "IncomingBytes", "OutgoingBytes", **stream)["DesiredShardLevelMetrics"]
    summary = aws("describe-stream-summary", **stream)["StreamDescriptionSummary"]
    assert (summary["RetentionPeriodHours"], summary["EncryptionType"], summary["KeyId"]) == (36, "KMS", "alias/aws/kinesis")
    aws("disable-enhanced-monitoring", "--shard-level-metrics", "ALL", **stream)
    aws("stop-stream-encryption", **stream, encryption_type="KMS", key_id="alias/aws/kinesis")
    aws("update-max-record-size", stream_arn=arn, max_record_size_in_ki_b="2048")
    aws("update-stream-mode", stream_arn=arn, stream_mode_details="StreamMode=ON_DEMAND")
    aws("update-stream-warm-throughput", stream_arn=arn, warm_throughput_mi_bps="5")
    aws("update-stream-record-distribution-strategy", stream_arn=arn, record_distribution_strategy="AUTO")
    summary = aws("describe-stream-summary", stream_arn=arn)["StreamDescriptionSummary"]
    assert (summary["StreamModeDetails"], summary["EncryptionType"], summary["MaxRecordSizeInKiB"]) == ({"StreamMode": "ON_DEMAND"}, "NONE", 2048)
    assert aws("describe-limits")["OnDemandStreamCount"] >= 1
    before = aws("describe-account-settings")["MinimumThroughputBillingCommitment"]["Status"]
    status = "ENABLED" if before != "ENABLED" else "DISABLED"
    assert aws("update-account-settings", minimum_throughput_billing_commitment=f"Status={status}")["MinimumThroughputBillingCommitment"]
    assert aws("describe-account-settings")["MinimumThroughputBillingCommitment"]["Status"] == status
    aws("update-account-settings", minimum_throughput_billing_commitment=f"Status={before}")

    # Policies and consumers.
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "111111111111"}, "Action": "kinesis:GetRecords", "Resource": arn}]}
    aws("put-resource-policy", resource_arn=arn, policy=json.dumps(policy))
    assert json.loads(aws("get-resource-policy", resource_arn=arn)["Policy"]) == policy
    aws("delete-resource-policy", resource_arn=arn)
    assert json.loads(aws("get-resource-policy", resource_arn=arn)["Policy"] or "{}") == {}
    consumer = aws("register-stream-consumer", stream_arn=arn, consumer_name="app")["Consumer"]["ConsumerARN"]
    assert aws("describe-stream-consumer", consumer_arn=consumer)["ConsumerDescription"]["ConsumerName"] == "app"
    assert [one["ConsumerARN"] for one in aws("list-stream-consumers", stream_arn=arn)["Consumers"]] == [consumer]
    aws("deregister-stream-consumer", consumer_arn=consumer)

    queues(aws, arn, name)
    channels(aws, arn, server)
    aws("delete-stream", **stream)
    aws("wait stream-not-exists", **stream)
    offered = commands(capsys)
    assert len(offered) > 30 and offered - aws.used == set()


def queues(aws, stream, name):
    """The commands of queues: a record is hidden, shown, given up, restored and acknowledged."""
    where = [{"StreamARN": stream, "StartingPosition": {"Type": "LATEST"}}]
    dead = {"VisibilityTimeoutSeconds": 0, "DeadLetterConfiguration": {"TargetType": "BUILT_IN", "MaxReceiveCount": 1}}
    made = aws("create-queue", queue_name=name, stream_configuration_list=json.dumps(where))["QueueDescription"]
    queue = {"queue_arn": made["QueueARN"]}
    assert aws("update-queue", **queue, queue_attributes=json.dumps(dead))["QueueDescription"]["QueueARN"] == made["QueueARN"]
    assert aws("describe-queue", **queue)["QueueDescription"]["QueueAttributes"]["VisibilityTimeoutSeconds"] == 0
    assert made["QueueARN"] in [found["QueueARN"] for found in aws("list-queues")["QueueSummaries"]]
    aws("put-record", stream_arn=stream, partition_key="k", data="queued")
    receive = lambda command, **more: aws(command, **queue, wait_time_seconds="5", **more)["QueueRecords"]
    handles = lambda records, **more: json.dumps([{"ReceiptHandle": record["ReceiptHandle"]} | more for record in records])
    [record] = receive("receive-queue-records")
    assert base64.b64decode(record["Data"]) == b"queued"
    [dead] = receive("receive-dead-letter-queue-records", visibility_timeout_seconds="60")
    hidden = aws("update-dead-letter-queue-records-visibility", **queue, entries=handles([dead], VisibilityTimeoutSeconds=90))
    assert (len(hidden["Successful"]), hidden["Failed"]) == (1, [])
    assert aws("restore-dead-letter-queue-records", **queue, entries=handles([dead]))["Failed"] == []
    [record] = receive("receive-queue-records", visibility_timeout_seconds="60")
    assert aws("update-queue-records-visibility", **queue, entries=handles([record], VisibilityTimeoutSeconds=30))["Failed"] == []
    assert aws("acknowledge-queue-records", **queue, entries=handles([record]))["Failed"] == []
    gone = aws("acknowledge-dead-letter-queue-records", **queue, entries=handles([dead]))
    assert [failed["ErrorCode"] for failed in gone["Failed"]] != []
    aws("delete-queue", **queue)


def channels(aws, stream, server):
    """The commands of channels; what they deliver is in test_channels.py."""
    server.client("s3").create_bucket(Bucket="by-command")
    source = [{"StreamARN": stream, "RecordConfiguration": {"RecordFormatType": "STRING"}}]
    storage = {"BucketARN": "arn:aws:s3:::by-command", "ExpectedBucketOwner": "000000000000", "CompressionType": "GZIP"}
    made = aws("create-channel", channel_name="by-command", service_execution_role_arn="arn:aws:iam::000000000000:role/channel",
               stream_configuration_list=json.dumps(source), s3_destination_configuration=json.dumps({"StorageConfiguration": storage}))
    channel = {"channel_arn": made["ChannelDescription"]["ChannelARN"]}
    changed = aws("update-channel", **channel, s3_destination_configuration="DataFreshnessInSeconds=7")["ChannelDescription"]
    assert changed["S3DestinationConfiguration"]["DataFreshnessInSeconds"] == 7
    assert aws("describe-channel", **channel)["ChannelDescription"] == changed
    assert channel["channel_arn"] in [found["ChannelARN"] for found in aws("list-channels")["ChannelSummaries"]]
    aws("delete-channel", **channel)


def test_errors_reach_the_person(aws, name):
    assert "ResourceNotFoundException" in aws("describe-stream", stream_name=name, ok=False)
    assert "ValidationException" in aws("create-stream", stream_name="no name", shard_count="1", ok=False)
    assert "InvalidArgumentException" in aws("get-records", shard_iterator="forged", ok=False)
