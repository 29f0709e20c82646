"""Every operation of Firehose by boto3: descriptions with their defaults, versions, pages, tags, encryption, and the errors."""

import datetime

import pytest

from harness import REGION, refusal

ROLE = "arn:aws:iam::000000000000:role/firehose"
BUCKET = "arn:aws:s3:::results"


@pytest.fixture
def firehose(server):
    return server.client("firehose")


def s3(**more):
    return dict({"BucketARN": BUCKET, "RoleARN": ROLE}, **more)


def describe(firehose, name):
    return firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]


def refused(call):
    code, status, message = refusal(call)
    return code, message


def test_a_description_has_every_default(firehose, name):
    made = firehose.create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=s3())
    arn = f"arn:aws:firehose:{REGION}:000000000000:deliverystream/{name}"
    assert made["DeliveryStreamARN"] == arn
    told = describe(firehose, name)
    assert (told["DeliveryStreamARN"], told["DeliveryStreamStatus"], told["DeliveryStreamType"], told["VersionId"]) == (arn, "ACTIVE", "DirectPut", "1")
    assert told["DeliveryStreamEncryptionConfiguration"] == {"Status": "DISABLED"} and not told["HasMoreDestinations"]
    assert isinstance(told["CreateTimestamp"], datetime.datetime) and "LastUpdateTimestamp" not in told and "Source" not in told
    [destination] = told["Destinations"]
    assert destination["DestinationId"] == "destinationId-000000000001"
    simple = {"RoleARN": ROLE, "BucketARN": BUCKET, "BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 300}, "CompressionFormat": "UNCOMPRESSED",
              "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"}, "CloudWatchLoggingOptions": {"Enabled": False}}
    assert destination["S3DestinationDescription"] == simple
    assert destination["ExtendedS3DestinationDescription"] == dict(simple, S3BackupMode="Disabled")


def test_the_old_destination_and_everything_that_was_said_is_told_back(firehose, name):
    logging = {"Enabled": True, "LogGroupName": "g", "LogStreamName": "s"}
    firehose.create_delivery_stream(DeliveryStreamName=name, DeliveryStreamType="DirectPut", Tags=[{"Key": "team", "Value": "door"}],
                                    DirectPutSourceConfiguration={"ThroughputHintInMBs": 7},
                                    S3DestinationConfiguration=s3(Prefix="in/", BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 0}, CompressionFormat="UNCOMPRESSED",
                                                                  CloudWatchLoggingOptions=logging))
    told = describe(firehose, name)
    assert told["Source"] == {"DirectPutSourceDescription": {"ThroughputHintInMBs": 7}}
    simple = told["Destinations"][0]["S3DestinationDescription"]
    assert simple["Prefix"] == "in/" and simple["BufferingHints"] == {"SizeInMBs": 1, "IntervalInSeconds": 0} and simple["CloudWatchLoggingOptions"] == logging
    after = firehose.describe_delivery_stream(DeliveryStreamName=name, ExclusiveStartDestinationId="destinationId-000000000001")
    assert after["DeliveryStreamDescription"]["Destinations"] == []
    backup = s3(S3BackupMode="Enabled", S3BackupConfiguration=s3(Prefix="raw/"), FileExtension=".json", CustomTimeZone="Asia/Tokyo")
    other = f"{name[-50:]}-2"
    firehose.create_delivery_stream(DeliveryStreamName=other, ExtendedS3DestinationConfiguration=backup)
    extended = describe(firehose, other)["Destinations"][0]["ExtendedS3DestinationDescription"]
    assert extended["S3BackupMode"] == "Enabled" and extended["S3BackupDescription"]["Prefix"] == "raw/"
    assert extended["S3BackupDescription"]["BufferingHints"]["SizeInMBs"] == 5 and extended["FileExtension"] == ".json"


def test_an_update_names_its_version_and_changes_what_it_names_alone(firehose, name):
    firehose.create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=s3(Prefix="a/"))
    update = dict(DeliveryStreamName=name, CurrentDeliveryStreamVersionId="1", DestinationId="destinationId-000000000001")
    code, message = refused(lambda: firehose.update_destination(**dict(update, CurrentDeliveryStreamVersionId="7"), ExtendedS3DestinationUpdate={"Prefix": "b/"}))
    assert code == "ConcurrentModificationException" and "current version id: 1 and specified version id: 7" in message
    assert refused(lambda: firehose.update_destination(**dict(update, DestinationId="destinationId-000000000002"), ExtendedS3DestinationUpdate={}))[0] == "InvalidArgumentException"
    assert refused(lambda: firehose.update_destination(**update))[0] == "InvalidArgumentException"
    both = {"ExtendedS3DestinationUpdate": {}, "S3DestinationUpdate": {}}
    assert refused(lambda: firehose.update_destination(**update, **both))[0] == "InvalidArgumentException"
    firehose.update_destination(**update, ExtendedS3DestinationUpdate={"BufferingHints": {"SizeInMBs": 2, "IntervalInSeconds": 60}})
    told = describe(firehose, name)
    extended = told["Destinations"][0]["ExtendedS3DestinationDescription"]
    assert told["VersionId"] == "2" and told["LastUpdateTimestamp"] >= told["CreateTimestamp"]
    assert extended["Prefix"] == "a/" and extended["BufferingHints"] == {"SizeInMBs": 2, "IntervalInSeconds": 60}
    firehose.update_destination(**dict(update, CurrentDeliveryStreamVersionId="2"), S3DestinationUpdate={"Prefix": "c/"})
    assert describe(firehose, name)["Destinations"][0]["S3DestinationDescription"]["Prefix"] == "c/"


def test_names_come_in_pages_and_by_type(firehose, kinesis, arn, name):
    names = [f"{name}-{letter}" for letter in "abc"]
    for one in names:
        firehose.create_delivery_stream(DeliveryStreamName=one, S3DestinationConfiguration=s3())
    firehose.create_delivery_stream(DeliveryStreamName=f"{name}-d", DeliveryStreamType="KinesisStreamAsSource", S3DestinationConfiguration=s3(),
                                    KinesisStreamSourceConfiguration={"KinesisStreamARN": arn, "RoleARN": ROLE})
    page = firehose.list_delivery_streams(Limit=2, ExclusiveStartDeliveryStreamName=name)
    assert page["DeliveryStreamNames"] == names[:2] and page["HasMoreDeliveryStreams"]
    page = firehose.list_delivery_streams(ExclusiveStartDeliveryStreamName=names[1], DeliveryStreamType="DirectPut", Limit=1)
    assert page["DeliveryStreamNames"] == names[2:]
    page = firehose.list_delivery_streams(ExclusiveStartDeliveryStreamName=names[2], DeliveryStreamType="KinesisStreamAsSource", Limit=1)
    assert page["DeliveryStreamNames"] == [f"{name}-d"]


def test_a_source_is_told_with_its_start_and_takes_no_puts(firehose, arn, name):
    source = {"KinesisStreamARN": arn, "RoleARN": ROLE}
    firehose.create_delivery_stream(DeliveryStreamName=name, DeliveryStreamType="KinesisStreamAsSource", KinesisStreamSourceConfiguration=source,
                                    ExtendedS3DestinationConfiguration=s3())
    told = describe(firehose, name)["Source"]["KinesisStreamSourceDescription"]
    assert (told["KinesisStreamARN"], told["RoleARN"]) == (arn, ROLE)
    assert abs((told["DeliveryStartTimestamp"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) < 60
    code, message = refused(lambda: firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"}))
    assert code == "InvalidArgumentException" and "KinesisStreamAsSource" in message
    assert refused(lambda: firehose.start_delivery_stream_encryption(DeliveryStreamName=name))[0] == "InvalidArgumentException"


def test_tags_are_set_listed_in_pages_and_removed(firehose, name):
    firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3(), Tags=[{"Key": "a", "Value": "1"}])
    firehose.tag_delivery_stream(DeliveryStreamName=name, Tags=[{"Key": "b", "Value": "2"}, {"Key": "c"}])
    page = firehose.list_tags_for_delivery_stream(DeliveryStreamName=name, Limit=2)
    assert page["HasMoreTags"] and page["Tags"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    rest = firehose.list_tags_for_delivery_stream(DeliveryStreamName=name, ExclusiveStartTagKey="b")
    assert rest["Tags"] == [{"Key": "c", "Value": ""}] and not rest["HasMoreTags"]
    firehose.untag_delivery_stream(DeliveryStreamName=name, TagKeys=["a", "missing"])
    assert [tag["Key"] for tag in firehose.list_tags_for_delivery_stream(DeliveryStreamName=name)["Tags"]] == ["b", "c"]
    many = [{"Key": f"k{number}", "Value": ""} for number in range(49)]
    assert refused(lambda: firehose.tag_delivery_stream(DeliveryStreamName=name, Tags=many))[0] == "LimitExceededException"
    reserved = [{"Key": "aws:x", "Value": ""}]
    assert refused(lambda: firehose.tag_delivery_stream(DeliveryStreamName=name, Tags=reserved))[0] == "ValidationException"


def test_encryption_is_told_of_the_stream_and_of_each_put(firehose, name):
    firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3())
    assert firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"})["Encrypted"] is False
    firehose.start_delivery_stream_encryption(DeliveryStreamName=name)
    assert describe(firehose, name)["DeliveryStreamEncryptionConfiguration"] == {"KeyType": "AWS_OWNED_CMK", "Status": "ENABLED"}
    put = firehose.put_record_batch(DeliveryStreamName=name, Records=[{"Data": b"x"}, {"Data": b""}])
    assert put["Encrypted"] and put["FailedPutCount"] == 0 and len({entry["RecordId"] for entry in put["RequestResponses"]}) == 2
    key = f"arn:aws:kms:{REGION}:000000000000:key/k"
    firehose.start_delivery_stream_encryption(DeliveryStreamName=name, DeliveryStreamEncryptionConfigurationInput={"KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": key})
    assert describe(firehose, name)["DeliveryStreamEncryptionConfiguration"]["KeyARN"] == key
    firehose.stop_delivery_stream_encryption(DeliveryStreamName=name)
    assert describe(firehose, name)["DeliveryStreamEncryptionConfiguration"] == {"Status": "DISABLED"}
    wrong = {"KeyType": "CUSTOMER_MANAGED_CMK"}
    assert refused(lambda: firehose.start_delivery_stream_encryption(DeliveryStreamName=name, DeliveryStreamEncryptionConfigurationInput=wrong))[0] == "InvalidArgumentException"


def test_a_deleted_name_is_free_at_once_and_everything_about_it_is_forgotten(firehose, name):
    for _ in range(2):
        firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3())
        assert refused(lambda: firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3())) == (
            "ResourceInUseException", f"Firehose {name} under accountId 000000000000 already exists")
        firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"})
        firehose.delete_delivery_stream(DeliveryStreamName=name, AllowForceDelete=True)
    missing = ("ResourceNotFoundException", f"Firehose {name} under account 000000000000 not found.")
    for call in (firehose.describe_delivery_stream, firehose.delete_delivery_stream, firehose.list_tags_for_delivery_stream,
                 firehose.start_delivery_stream_encryption, firehose.stop_delivery_stream_encryption):
        assert refused(lambda: call(DeliveryStreamName=name)) == missing
    assert refused(lambda: firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"})) == missing
    assert refused(lambda: firehose.put_record_batch(DeliveryStreamName=name, Records=[{"Data": b"x"}])) == missing
    assert refused(lambda: firehose.tag_delivery_stream(DeliveryStreamName=name, Tags=[{"Key": "a"}])) == missing
    assert refused(lambda: firehose.untag_delivery_stream(DeliveryStreamName=name, TagKeys=["a"])) == missing
    assert refused(lambda: firehose.update_destination(DeliveryStreamName=name, CurrentDeliveryStreamVersionId="1", DestinationId="d", S3DestinationUpdate={})) == missing
    assert name not in firehose.list_delivery_streams(ExclusiveStartDeliveryStreamName=name[:-1])["DeliveryStreamNames"]


@pytest.mark.parametrize("more, word", [
    ({}, "Exactly one destination"),
    ({"S3DestinationConfiguration": s3(), "ExtendedS3DestinationConfiguration": s3()}, "Exactly one destination"),
    ({"S3DestinationConfiguration": s3(), "DeliveryStreamType": "KinesisStreamAsSource"}, "KinesisStreamSourceConfiguration"),
    ({"S3DestinationConfiguration": s3(), "DeliveryStreamType": "MSKAsSource"}, "Kafka"),
    ({"S3DestinationConfiguration": s3(), "DeliveryStreamType": "DatabaseAsSource"}, "databases"),
    ({"S3DestinationConfiguration": s3(), "DeliveryStreamType": "KinesisStreamAsSource", "KinesisStreamSourceConfiguration":
        {"KinesisStreamARN": f"arn:aws:kinesis:{REGION}:000000000000:stream/none-of-that-name", "RoleARN": ROLE}}, "does not exist"),
    ({"S3DestinationConfiguration": {"BucketARN": BUCKET, "RoleARN": "arn:aws:iam::111122223333:role/x"}}, "unable to assume role"),
    ({"ExtendedS3DestinationConfiguration": s3(BufferingHints={"SizeInMBs": 3})}, "IntervalInSeconds"),
    ({"ExtendedS3DestinationConfiguration": s3(Prefix="!{timestamp:yyyy}/")}, "ErrorOutputPrefix"),
    ({"ExtendedS3DestinationConfiguration": s3(Prefix="!{nothing:x}/", ErrorOutputPrefix="e/!{firehose:error-output-type}/")}, "nothing"),
    ({"ExtendedS3DestinationConfiguration": s3(S3BackupMode="Enabled")}, "S3BackupConfiguration"),
    ({"ExtendedS3DestinationConfiguration": s3(CustomTimeZone="Nowhere/Atall")}, "Nowhere/Atall"),
    ({"ExtendedS3DestinationConfiguration": s3(DynamicPartitioningConfiguration={"Enabled": True}, BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 60})}, "at least 64"),
    ({"RedshiftDestinationConfiguration": {"RoleARN": ROLE, "Username": "u", "Password": "password", "ClusterJDBCURL": "jdbc:redshift://x.y.redshift.amazonaws.com:5439/d", "CopyCommand": {"DataTableName": "t"}, "S3Configuration": s3()}}, "Redshift"),
])
def test_what_cannot_be_is_refused_in_words(firehose, name, more, word):
    code, message = refused(lambda: firehose.create_delivery_stream(DeliveryStreamName=name, **more))
    assert code == "InvalidArgumentException" and word in message, message
    assert refused(lambda: describe(firehose, name))[0] == "ResourceNotFoundException"


def test_a_batch_has_its_limit_of_bytes(firehose, name):
    firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3())
    code, message = refused(lambda: firehose.put_record_batch(DeliveryStreamName=name, Records=[{"Data": b"x" * 1_000_000}] * 5))
    assert (code, message) == ("InvalidArgumentException", "Records size exceeds 4 MB limit")


def test_another_accounts_delivery_stream_looks_like_none(server, firehose, name):
    key, secret = server.make_key(account="111122223333")
    theirs = server.client("firehose", access_key=key, secret=secret)
    firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3())
    assert refused(lambda: describe(theirs, name)) == ("ResourceNotFoundException", f"Firehose {name} under account 111122223333 not found.")
    assert refused(lambda: theirs.put_record(DeliveryStreamName=name, Record={"Data": b"x"}))[0] == "ResourceNotFoundException"
    assert theirs.list_delivery_streams()["DeliveryStreamNames"] == []


def test_a_stream_lives_through_a_restart_and_fsck_finds_nothing(own_server, name):
    firehose = own_server.client("firehose")
    firehose.create_delivery_stream(DeliveryStreamName=name, S3DestinationConfiguration=s3(), Tags=[{"Key": "a", "Value": "1"}])
    firehose.put_record(DeliveryStreamName=name, Record={"Data": b"x"})
    before = describe(firehose, name)
    own_server.kill()
    own_server.restart()
    firehose = own_server.client("firehose")
    assert describe(firehose, name) == before
    assert firehose.list_tags_for_delivery_stream(DeliveryStreamName=name)["Tags"] == [{"Key": "a", "Value": "1"}]
    assert own_server.stop() == 0
    assert own_server.run("fsck").returncode == 0
