"""What can be set of a data stream and of an account, as boto3 does it."""

import json

from harness import code_of


def summary(kinesis, arn):
    return kinesis.describe_stream_summary(StreamARN=arn)["StreamDescriptionSummary"]


def test_retention_and_metrics_are_set(kinesis, arn):
    kinesis.increase_stream_retention_period(StreamARN=arn, RetentionPeriodHours=8760)
    assert summary(kinesis, arn)["RetentionPeriodHours"] == 8760
    kinesis.decrease_stream_retention_period(StreamARN=arn, RetentionPeriodHours=24)
    assert code_of(lambda: kinesis.increase_stream_retention_period(StreamARN=arn, RetentionPeriodHours=23)) == "InvalidArgumentException"
    assert code_of(lambda: kinesis.decrease_stream_retention_period(StreamARN=arn, RetentionPeriodHours=48)) == "InvalidArgumentException"
    answer = kinesis.enable_enhanced_monitoring(StreamARN=arn, ShardLevelMetrics=["ALL"])
    assert len(answer["DesiredShardLevelMetrics"]) == 7 and answer["CurrentShardLevelMetrics"] == []
    answer = kinesis.disable_enhanced_monitoring(StreamARN=arn, ShardLevelMetrics=["IncomingBytes"])
    assert "IncomingBytes" not in answer["DesiredShardLevelMetrics"]


def test_records_of_an_encrypted_stream_say_so_and_are_not_on_disk(own_server, name):
    kinesis = own_server.client("kinesis")
    kinesis.create_stream(StreamName=name, ShardCount=1)
    kinesis.start_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    secret = b"what nobody may read " * 50
    answer = kinesis.put_record(StreamName=name, Data=secret, PartitionKey="k")
    assert answer["EncryptionType"] == "KMS"
    own_server.stop()
    own_server.start()
    kinesis = own_server.client("kinesis")
    described = kinesis.describe_stream(StreamName=name)["StreamDescription"]
    assert (described["EncryptionType"], described["KeyId"]) == ("KMS", "alias/aws/kinesis")
    iterator = kinesis.get_shard_iterator(StreamName=name, ShardId=answer["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    [record] = kinesis.get_records(ShardIterator=iterator)["Records"]
    assert (record["Data"], record["PartitionKey"], record["EncryptionType"]) == (secret, "k", "KMS")
    files = [path for path in own_server.data_dir.rglob("*") if path.is_file()]
    assert files and not any(b"what nobody may read" in path.read_bytes() for path in files)
    kinesis.stop_stream_encryption(StreamName=name, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["EncryptionType"] == "NONE"


def test_capacity_mode_record_size_and_distribution(kinesis, arn):
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert kinesis.update_stream_warm_throughput(StreamARN=arn, WarmThroughputMiBps=6)["WarmThroughput"]["TargetMiBps"] == 6
    assert summary(kinesis, arn)["OpenShardCount"] == 6
    kinesis.update_stream_record_distribution_strategy(StreamARN=arn, RecordDistributionStrategy="AUTO")
    assert summary(kinesis, arn)["RecordDistributionStrategy"] == "AUTO"
    assert code_of(lambda: kinesis.split_shard(StreamARN=arn, ShardToSplit="shardId-000000000000", NewStartingHashKey="9")) == "ValidationException"
    kinesis.update_stream_mode(StreamARN=arn, StreamModeDetails={"StreamMode": "PROVISIONED"})
    kinesis.update_max_record_size(StreamARN=arn, MaxRecordSizeInKiB=10240)
    kinesis.put_record(StreamARN=arn, Data=b"x" * (5 << 20), PartitionKey="k")
    limits = kinesis.describe_limits()
    assert limits["OpenShardCount"] >= 6 and limits["ShardLimit"] >= limits["OpenShardCount"]
    for status in ("ENABLED", "DISABLED"):
        changed = kinesis.update_account_settings(MinimumThroughputBillingCommitment={"Status": status})
        assert changed["MinimumThroughputBillingCommitment"]["Status"] == status
        assert kinesis.describe_account_settings()["MinimumThroughputBillingCommitment"]["Status"] == status


def test_tags_in_both_ways(kinesis, arn):
    kinesis.add_tags_to_stream(StreamARN=arn, Tags={"a": "1", "b": "2"})
    kinesis.tag_resource(ResourceARN=arn, Tags={"c": "3"})
    kinesis.remove_tags_from_stream(StreamARN=arn, TagKeys=["a"])
    kinesis.untag_resource(ResourceARN=arn, TagKeys=["b"])
    assert kinesis.list_tags_for_stream(StreamARN=arn)["Tags"] == kinesis.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "c", "Value": "3"}]
    consumer = kinesis.register_stream_consumer(StreamARN=arn, ConsumerName="app", Tags={"x": "y"})["Consumer"]["ConsumerARN"]
    assert kinesis.list_tags_for_resource(ResourceARN=consumer)["Tags"] == [{"Key": "x", "Value": "y"}]
    assert code_of(lambda: kinesis.add_tags_to_stream(StreamARN=arn, Tags={"aws:no": "1"})) == "InvalidArgumentException"


def test_a_policy_lets_another_account_write_and_read(server, kinesis, arn):
    key, secret = server.make_key(account="444455556666")
    theirs = server.client("kinesis", access_key=key, secret=secret)
    put = {"StreamARN": arn, "Data": b"theirs", "PartitionKey": "k"}
    assert code_of(lambda: theirs.put_record(**put)) == "ResourceNotFoundException"
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::444455556666:root"},
                                                      "Action": ["kinesis:PutRecord", "kinesis:Get*", "kinesis:ListShards"], "Resource": arn}]}
    kinesis.put_resource_policy(ResourceARN=arn, Policy=json.dumps(policy))
    assert json.loads(kinesis.get_resource_policy(ResourceARN=arn)["Policy"]) == policy
    shard = theirs.put_record(**put)["ShardId"]
    iterator = theirs.get_shard_iterator(StreamARN=arn, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    assert [r["Data"] for r in theirs.get_records(ShardIterator=iterator, StreamARN=arn)["Records"]] == [b"theirs"]
    assert code_of(lambda: theirs.delete_stream(StreamARN=arn)) == "ResourceNotFoundException"
    kinesis.delete_resource_policy(ResourceARN=arn)
    assert code_of(lambda: theirs.put_record(**put)) == "ResourceNotFoundException"


def test_a_dry_run_says_whether_it_would_have_gone(kinesis, arn):
    dry = lambda call, **arguments: code_of(lambda: call(DryRun=True, **arguments))
    entry = {"Data": b"x", "PartitionKey": "k"}
    assert dry(kinesis.put_record, StreamARN=arn, **entry) == "DryRunOperationException"
    assert dry(kinesis.put_records, StreamARN=arn, Records=[entry]) == "DryRunOperationException"
    where = {"StreamARN": arn, "ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    assert dry(kinesis.get_shard_iterator, **where) == "DryRunOperationException"
    assert dry(kinesis.get_shard_iterator, **(where | {"ShardId": "shardId-000000000001"})) == "ResourceNotFoundException"
    iterator = kinesis.get_shard_iterator(**where)["ShardIterator"]
    assert dry(kinesis.get_records, ShardIterator=iterator) == "DryRunOperationException"
    assert kinesis.get_records(ShardIterator=iterator)["Records"] == []
