"""Every operation of Kinesis Analytics by boto3, but for running applications: descriptions, versions, ids, pages, tags, discovery, and the errors."""

import base64
import datetime
import hashlib
import json

import pytest

import analytics
from analytics import ROLE, configuration, create, describe, reference, schema, stream_arn, stream_input, stream_output
from harness import REGION, Server, code_of, refusal

LOG = f"arn:aws:logs:{REGION}:000000000000:log-group:g:log-stream:s"


@pytest.fixture(scope="module")
def server():
    """A server without the program that plans statements: what is asked here does not depend on them."""
    started = Server(environment={"SIGHTGLASS_SQL_WORKER": "/nowhere/sql-worker"})
    yield started
    assert started.stop() == 0, started.log()


@pytest.fixture
def client(server):
    return server.client("kinesisanalyticsv2")


@pytest.fixture
def s3(server):
    return server.client("s3", s3={"addressing_style": "path"})


def refused(call):
    code, status, message = refusal(call)
    assert status == 400, (code, status, message)
    return code, message


def sql(detail):
    return detail["ApplicationConfigurationDescription"]["SqlApplicationConfigurationDescription"]


def test_a_new_application_is_described_whole(client, name):
    made = create(client, name, ApplicationDescription="who was where", ApplicationMode="STREAMING", CloudWatchLoggingOptions=[{"LogStreamARN": LOG}],
                  ApplicationConfiguration=configuration("SELECT 1", [stream_input("FACES", "s"), stream_input("BADGES", "t")], [stream_output("OUT", "o")],
                                                         [reference("DOORS", "b", "doors.json")], {"sightglass.input.FACES": {"lateness": "5 s"}},
                                                         ApplicationSnapshotConfiguration={"SnapshotsEnabled": True}))
    assert made["ApplicationARN"] == f"arn:aws:kinesisanalytics:{REGION}:000000000000:application/{name}"
    assert (made["ApplicationStatus"], made["ApplicationVersionId"], made["RuntimeEnvironment"], made["ServiceExecutionRole"]) == ("READY", 1, "SQL-1_0", ROLE)
    assert (made["ApplicationDescription"], made["ApplicationMode"]) == ("who was where", "STREAMING")
    assert isinstance(made["CreateTimestamp"], datetime.datetime) and made["ConditionalToken"]
    [option] = made["CloudWatchLoggingOptionDescriptions"]
    assert option == {"CloudWatchLoggingOptionId": "1.1", "LogStreamARN": LOG}
    told = describe(client, name)
    assert told == made
    described = told["ApplicationConfigurationDescription"]
    assert described["ApplicationCodeConfigurationDescription"] == {"CodeContentType": "PLAINTEXT", "CodeContentDescription": {"TextContent": "SELECT 1"}}
    assert described["ApplicationSnapshotConfigurationDescription"] == {"SnapshotsEnabled": True}
    assert described["EnvironmentPropertyDescriptions"]["PropertyGroupDescriptions"] == [{"PropertyGroupId": "sightglass.input.FACES", "PropertyMap": {"lateness": "5 s"}}]
    first, second = sql(told)["InputDescriptions"]
    assert (first["InputId"], first["InAppStreamNames"], first["InputParallelism"]) == ("1.1", ["FACES_001"], {"Count": 1})
    assert (second["InputId"], second["NamePrefix"], second["InputSchema"]) == ("1.2", "BADGES", schema())
    assert second["KinesisStreamsInputDescription"] == {"ResourceARN": stream_arn("t")}
    [output] = sql(told)["OutputDescriptions"]
    assert output == {"OutputId": "1.1", "Name": "OUT", "KinesisStreamsOutputDescription": {"ResourceARN": stream_arn("o")}, "DestinationSchema": {"RecordFormatType": "JSON"}}
    [table] = sql(told)["ReferenceDataSourceDescriptions"]
    assert (table["ReferenceId"], table["TableName"]) == ("1.1", "DOORS")
    assert table["S3ReferenceDataSourceDescription"] == {"BucketARN": "arn:aws:s3:::b", "FileKey": "doors.json"}
    more = describe(client, name, IncludeAdditionalDetails=True)["ApplicationConfigurationDescription"]["FlinkApplicationConfigurationDescription"]
    assert json.loads(more["JobPlanDescription"])["running"] is False


def test_what_cannot_be_created_is_refused_with_the_reason(client, name):
    taken = f"{name}-taken"
    create(client, taken)
    one = stream_input("A", "s")
    cases = [
        ({"name": taken}, "ResourceInUseException", "already exists"),
        ({"runtime": "ZEPPELIN-FLINK-3_0"}, "UnsupportedOperationException", "sightglass sql"),
        ({"runtime": "FLINK-1_20"}, "UnsupportedOperationException", "SQL-1_0"),
        ({"ApplicationMode": "INTERACTIVE"}, "UnsupportedOperationException", "INTERACTIVE"),
        ({"role": "arn:aws:iam::111122223333:role/r"}, "InvalidArgumentException", "000000000000"),
        ({"CloudWatchLoggingOptions": [{"LogStreamARN": "arn:aws:sns:x"}]}, "InvalidArgumentException", "log stream"),
        ({"CloudWatchLoggingOptions": [{"LogStreamARN": LOG}] * 2}, "InvalidArgumentException", "at most 1"),
        ({"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]}, "TooManyTagsException", "50"),
        ({"Tags": [{"Key": "aws:a"}]}, "InvalidArgumentException", "reserved"),
        ({"configuration": configuration(inputs=[one, one])}, "InvalidArgumentException", "A_001"),
        ({"configuration": configuration(inputs=[one], outputs=[stream_output("A_001", "s")])}, "InvalidArgumentException", "A_001"),
        ({"configuration": configuration(inputs=[dict(one, KinesisStreamsInput={"ResourceARN": stream_arn("s", "111122223333")})])}, "InvalidArgumentException", "data stream"),
        ({"configuration": configuration(inputs=[{"NamePrefix": "A", "InputSchema": schema()}])}, "InvalidArgumentException", "KinesisStreamsInput"),
        ({"configuration": configuration(inputs=[dict(one, KinesisFirehoseInput={"ResourceARN": "arn:aws:firehose:x"})])}, "InvalidArgumentException", "KinesisFirehoseInput"),
        ({"configuration": configuration(inputs=[dict(one, InputSchema=schema(("a", "INTEGER"), ("a", "INTEGER")))])}, "InvalidArgumentException", "Column a"),
        ({"configuration": configuration(outputs=[{"Name": "A", "DestinationSchema": {"RecordFormatType": "JSON"}}])}, "InvalidArgumentException", "exactly one"),
        ({"configuration": configuration(outputs=[dict(stream_output("A", "s"), LambdaOutput={"ResourceARN": "arn:aws:lambda:x"})])}, "InvalidArgumentException", "exactly one"),
        ({"configuration": configuration(references=[dict(reference("T", "b", "k"), S3ReferenceDataSource={"FileKey": "k"})])}, "InvalidArgumentException", "BucketARN"),
        ({"configuration": configuration(references=[dict(reference("T", "b", "k"), S3ReferenceDataSource={"BucketARN": "arn:b", "FileKey": "k"})])}, "InvalidArgumentException", "bucket"),
        ({"configuration": configuration(FlinkApplicationConfiguration={})}, "InvalidArgumentException", "Flink"),
        ({"configuration": configuration(ApplicationEncryptionConfiguration={"KeyType": "CUSTOMER_MANAGED_KEY"})}, "InvalidArgumentException", "KeyId"),
        ({"configuration": {"ApplicationCodeConfiguration": {"CodeContentType": "ZIPFILE", "CodeContent": {"ZipFileContent": b"PK"}}}}, "InvalidArgumentException", "PLAINTEXT"),
        ({"configuration": {"ApplicationCodeConfiguration": {"CodeContentType": "PLAINTEXT", "CodeContent": {"ZipFileContent": b"PK"}}}}, "InvalidArgumentException", "ZipFileContent"),
        ({"configuration": {"ApplicationCodeConfiguration": {"CodeContentType": "PLAINTEXT", "CodeContent": {"S3ContentLocation": {"BucketARN": "arn:aws:s3:::none", "FileKey": "k"}}}}},
         "InvalidArgumentException", "no bucket none"),
    ]
    for wanted, code, word in cases:
        wanted = dict(wanted)
        given = wanted.pop("name", name)
        if "configuration" in wanted:
            wanted["ApplicationConfiguration"] = wanted.pop("configuration")
        got, message = refused(lambda: create(client, given, **wanted))
        assert got == code and word in message, (wanted, got, message)
    assert code_of(lambda: describe(client, name)) == "ResourceNotFoundException"


def test_every_change_is_a_version_that_names_the_one_before(client, name):
    create(client, name)
    for stale in (2, 999999999):
        got, message = refused(lambda: client.add_application_input(ApplicationName=name, CurrentApplicationVersionId=stale, Input=stream_input("A", "s")))
        assert got == "ConcurrentModificationException" and "current version is 1" in message
    added = client.add_application_input(ApplicationName=name, CurrentApplicationVersionId=1, Input=stream_input("A", "s"))
    assert added["ApplicationVersionId"] == 2 and [one["InputId"] for one in added["InputDescriptions"]] == ["2.1"]
    added = client.add_application_output(ApplicationName=name, CurrentApplicationVersionId=2, Output=stream_output("OUT", "s"))
    assert added["ApplicationVersionId"] == 3 and added["OutputDescriptions"][0]["OutputId"] == "3.1"
    added = client.add_application_reference_data_source(ApplicationName=name, CurrentApplicationVersionId=3, ReferenceDataSource=reference("T", "b", "k", "CSV"))
    assert added["ApplicationVersionId"] == 4 and added["ReferenceDataSourceDescriptions"][0]["ReferenceId"] == "4.1"
    token = describe(client, name)["ConditionalToken"]
    added = client.add_application_cloud_watch_logging_option(ApplicationName=name, ConditionalToken=token, CloudWatchLoggingOption={"LogStreamARN": LOG})
    assert added["ApplicationVersionId"] == 5 and added["OperationId"]
    assert added["CloudWatchLoggingOptionDescriptions"] == [{"CloudWatchLoggingOptionId": "5.1", "LogStreamARN": LOG}]
    call = lambda **seen: client.add_application_vpc_configuration(ApplicationName=name, VpcConfiguration={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}, **seen)
    assert refused(lambda: call(ConditionalToken=token))[0] == "ConcurrentModificationException"
    got, message = refused(call)
    assert got == "InvalidArgumentException" and "ConditionalToken" in message
    added = call(CurrentApplicationVersionId=5)["VpcConfigurationDescription"]
    assert (added["VpcConfigurationId"], added["SubnetIds"], added["SecurityGroupIds"]) == ("6.1", ["subnet-1"], ["sg-1"])
    processor = {"InputLambdaProcessor": {"ResourceARN": "arn:aws:lambda:us-west-2:000000000000:function:f"}}
    added = client.add_application_input_processing_configuration(ApplicationName=name, CurrentApplicationVersionId=6, InputId="2.1", InputProcessingConfiguration=processor)
    assert added["InputId"] == "2.1" and added["InputProcessingConfigurationDescription"]["InputLambdaProcessorDescription"] == processor["InputLambdaProcessor"]
    # And back.
    again = lambda: client.add_application_input_processing_configuration(ApplicationName=name, CurrentApplicationVersionId=7, InputId="2.1", InputProcessingConfiguration=processor)
    assert refused(again)[0] == "InvalidArgumentException"
    client.delete_application_input_processing_configuration(ApplicationName=name, CurrentApplicationVersionId=7, InputId="2.1")
    assert refused(lambda: client.delete_application_input_processing_configuration(ApplicationName=name, CurrentApplicationVersionId=8, InputId="2.1"))[0] == "ResourceNotFoundException"
    assert client.delete_application_vpc_configuration(ApplicationName=name, CurrentApplicationVersionId=8, VpcConfigurationId="6.1")["ApplicationVersionId"] == 9
    gone = client.delete_application_cloud_watch_logging_option(ApplicationName=name, CurrentApplicationVersionId=9, CloudWatchLoggingOptionId="5.1")
    assert gone["CloudWatchLoggingOptionDescriptions"] == []
    client.delete_application_reference_data_source(ApplicationName=name, CurrentApplicationVersionId=10, ReferenceId="4.1")
    assert client.delete_application_output(ApplicationName=name, CurrentApplicationVersionId=11, OutputId="3.1")["ApplicationVersionId"] == 12
    for call in (lambda: client.delete_application_output(ApplicationName=name, CurrentApplicationVersionId=12, OutputId="3.1"),
                 lambda: client.delete_application_reference_data_source(ApplicationName=name, CurrentApplicationVersionId=12, ReferenceId="4.1"),
                 lambda: client.delete_application_cloud_watch_logging_option(ApplicationName=name, CurrentApplicationVersionId=12, CloudWatchLoggingOptionId="5.1"),
                 lambda: client.delete_application_vpc_configuration(ApplicationName=name, CurrentApplicationVersionId=12, VpcConfigurationId="6.1"),
                 lambda: client.add_application_input_processing_configuration(ApplicationName=name, CurrentApplicationVersionId=12, InputId="9.9", InputProcessingConfiguration=processor)):
        assert refused(call)[0] == "ResourceNotFoundException"
    told = describe(client, name)
    assert told["ApplicationVersionId"] == 12 and told["ApplicationVersionUpdatedFrom"] == 11
    assert len(sql(told)["InputDescriptions"]) == 1 and not sql(told)["OutputDescriptions"] and not sql(told)["ReferenceDataSourceDescriptions"]
    # The versions between are kept as they were.
    old = client.describe_application_version(ApplicationName=name, ApplicationVersionId=4)["ApplicationVersionDetail"]
    assert old["ApplicationVersionId"] == 4 and sql(old)["ReferenceDataSourceDescriptions"][0]["TableName"] == "T"
    page = client.list_application_versions(ApplicationName=name, Limit=5)
    numbers = [one["ApplicationVersionId"] for one in page["ApplicationVersionSummaries"]]
    while "NextToken" in page:
        page = client.list_application_versions(ApplicationName=name, Limit=5, NextToken=page["NextToken"])
        numbers += [one["ApplicationVersionId"] for one in page["ApplicationVersionSummaries"]]
    assert numbers == list(range(12, 0, -1))
    assert refused(lambda: client.describe_application_version(ApplicationName=name, ApplicationVersionId=13))[0] == "ResourceNotFoundException"


def test_an_update_changes_what_it_names_alone(client, name):
    create(client, name, ApplicationConfiguration=configuration("SELECT 1", [stream_input("A", "s")], [stream_output("OUT", "o")], [reference("T", "b", "k")]),
           CloudWatchLoggingOptions=[{"LogStreamARN": LOG}])
    seen = iter(range(1, 99))

    def update(**more):
        return client.update_application(ApplicationName=name, CurrentApplicationVersionId=next(seen), **more)["ApplicationDetail"]

    told = update(ApplicationConfigurationUpdate={"SqlApplicationConfigurationUpdate": {
        "InputUpdates": [{"InputId": "1.1", "NamePrefixUpdate": "B", "InputParallelismUpdate": {"CountUpdate": 2}, "KinesisStreamsInputUpdate": {"ResourceARNUpdate": stream_arn("t")},
                          "InputSchemaUpdate": {"RecordColumnUpdates": [{"Name": "c", "SqlType": "REAL"}]}}],
        "OutputUpdates": [{"OutputId": "1.1", "NameUpdate": "TO", "KinesisFirehoseOutputUpdate": {"ResourceARNUpdate": f"arn:aws:firehose:{REGION}:000000000000:deliverystream/d"}}],
        "ReferenceDataSourceUpdates": [{"ReferenceId": "1.1", "TableNameUpdate": "U", "S3ReferenceDataSourceUpdate": {"FileKeyUpdate": "l"}}]}})
    [source], [output], [table] = sql(told)["InputDescriptions"], sql(told)["OutputDescriptions"], sql(told)["ReferenceDataSourceDescriptions"]
    assert (source["InputId"], source["InAppStreamNames"], source["InputParallelism"]["Count"]) == ("1.1", ["B_001"], 2)
    assert source["InputSchema"]["RecordColumns"] == [{"Name": "c", "SqlType": "REAL"}] and source["InputSchema"]["RecordEncoding"] == "UTF-8"
    assert output["Name"] == "TO" and "KinesisStreamsOutputDescription" not in output and output["KinesisFirehoseOutputDescription"]["ResourceARN"].endswith("/d")
    assert (table["TableName"], table["S3ReferenceDataSourceDescription"]) == ("U", {"BucketARN": "arn:aws:s3:::b", "FileKey": "l"})
    assert told["ApplicationConfigurationDescription"]["ApplicationCodeConfigurationDescription"]["CodeContentDescription"] == {"TextContent": "SELECT 1"}
    other = "arn:aws:iam::000000000000:role/other"
    told = update(ServiceExecutionRoleUpdate=other, CloudWatchLoggingOptionUpdates=[{"CloudWatchLoggingOptionId": "1.1", "LogStreamARNUpdate": LOG + "2"}])
    assert told["ServiceExecutionRole"] == other and told["CloudWatchLoggingOptionDescriptions"][0]["LogStreamARN"] == LOG + "2"
    told = update(ApplicationConfigurationUpdate={"ApplicationCodeConfigurationUpdate": {"CodeContentUpdate": {"TextContentUpdate": "SELECT 2"}},
                                                  "EnvironmentPropertyUpdates": {"PropertyGroups": [{"PropertyGroupId": "g", "PropertyMap": {"k": "v"}}]},
                                                  "ApplicationSnapshotConfigurationUpdate": {"SnapshotsEnabledUpdate": False}})
    described = told["ApplicationConfigurationDescription"]
    assert described["ApplicationCodeConfigurationDescription"]["CodeContentDescription"] == {"TextContent": "SELECT 2"}
    assert described["ApplicationSnapshotConfigurationDescription"] == {"SnapshotsEnabled": False} and told["ApplicationVersionId"] == 4
    for more, code in (({"ApplicationConfigurationUpdate": {"SqlApplicationConfigurationUpdate": {"InputUpdates": [{"InputId": "7.7"}]}}}, "ResourceNotFoundException"),
                       ({"ApplicationConfigurationUpdate": {"SqlApplicationConfigurationUpdate": {"OutputUpdates": [{"OutputId": "7.7"}]}}}, "ResourceNotFoundException"),
                       ({"ApplicationConfigurationUpdate": {"SqlApplicationConfigurationUpdate": {"ReferenceDataSourceUpdates": [{"ReferenceId": "7.7"}]}}}, "ResourceNotFoundException"),
                       ({"CloudWatchLoggingOptionUpdates": [{"CloudWatchLoggingOptionId": "7.7"}]}, "ResourceNotFoundException"),
                       ({"RuntimeEnvironmentUpdate": "FLINK-1_20"}, "UnsupportedOperationException"),
                       ({"ServiceExecutionRoleUpdate": "arn:aws:iam::111122223333:role/r"}, "InvalidArgumentException"),
                       ({"RunConfigurationUpdate": {"ApplicationRestoreConfiguration": {"ApplicationRestoreType": "SKIP_RESTORE_FROM_SNAPSHOT"}}}, "InvalidArgumentException"),
                       ({"ApplicationConfigurationUpdate": {"FlinkApplicationConfigurationUpdate": {}}}, "InvalidArgumentException"),
                       ({"ApplicationConfigurationUpdate": {"ApplicationCodeConfigurationUpdate": {"CodeContentUpdate": {"ZipFileContentUpdate": b"x"}}}}, "InvalidArgumentException"),
                       ({"ApplicationConfigurationUpdate": {"ApplicationCodeConfigurationUpdate": {"CodeContentUpdate": {"S3ContentLocationUpdate": {"FileKeyUpdate": "x"}}}}}, "InvalidArgumentException")):
        got, message = refused(lambda: client.update_application(ApplicationName=name, CurrentApplicationVersionId=4, **more))
        assert got == code, (more, got, message)
    operations = client.list_application_operations(ApplicationName=name, Operation="UpdateApplication", OperationStatus="SUCCESSFUL")["ApplicationOperationInfoList"]
    assert len(operations) == 3 and all(one["EndTime"] >= one["StartTime"] for one in operations)
    assert client.list_application_operations(ApplicationName=name, OperationStatus="FAILED")["ApplicationOperationInfoList"] == []
    one = client.describe_application_operation(ApplicationName=name, OperationId=operations[0]["OperationId"])["ApplicationOperationInfoDetails"]
    assert one["Operation"] == "UpdateApplication" and one["OperationStatus"] == "SUCCESSFUL"
    assert one["ApplicationVersionChangeDetails"]["ApplicationVersionUpdatedTo"] - one["ApplicationVersionChangeDetails"]["ApplicationVersionUpdatedFrom"] == 1
    assert refused(lambda: client.describe_application_operation(ApplicationName=name, OperationId="none"))[0] == "ResourceNotFoundException"


def test_applications_come_in_pages_and_are_gone_when_they_are_deleted(client, server, name):
    names = [f"{name}-{letter}" for letter in "abc"]
    for one in names:
        create(client, one)
    page = client.list_applications(Limit=2, NextToken=name)
    assert [one["ApplicationName"] for one in page["ApplicationSummaries"]] == names[:2] and page["NextToken"] == names[1]
    assert page["ApplicationSummaries"][0]["ApplicationStatus"] == "READY" and page["ApplicationSummaries"][0]["RuntimeEnvironment"] == "SQL-1_0"
    page = client.list_applications(Limit=1, NextToken=names[1])
    assert [one["ApplicationName"] for one in page["ApplicationSummaries"]] == names[2:]
    told = describe(client, names[0])
    other = told["CreateTimestamp"] - datetime.timedelta(seconds=5)
    assert refused(lambda: client.delete_application(ApplicationName=names[0], CreateTimestamp=other))[0] == "InvalidArgumentException"
    client.delete_application(ApplicationName=names[0], CreateTimestamp=told["CreateTimestamp"])
    assert refused(lambda: describe(client, names[0]))[0] == "ResourceNotFoundException"
    create(client, names[0])
    elsewhere = server.client("kinesisanalyticsv2", region="eu-west-1")
    assert elsewhere.list_applications()["ApplicationSummaries"] == []


def test_tags_are_set_listed_and_removed_by_arn(client, name):
    arn = create(client, name, Tags=[{"Key": "a", "Value": "1"}])["ApplicationARN"]
    client.tag_resource(ResourceARN=arn, Tags=[{"Key": "b", "Value": "2"}, {"Key": "c"}])
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}, {"Key": "c", "Value": ""}]
    client.untag_resource(ResourceARN=arn, TagKeys=["a", "none"])
    assert [tag["Key"] for tag in client.list_tags_for_resource(ResourceARN=arn)["Tags"]] == ["b", "c"]
    assert refused(lambda: client.tag_resource(ResourceARN=arn, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(49)]))[0] == "TooManyTagsException"
    assert describe(client, name)["ApplicationVersionId"] == 1
    for missing, code in ((arn + "x", "ResourceNotFoundException"), (arn.replace(REGION, "eu-west-1"), "ResourceNotFoundException"), ("arn:aws:kinesis:x", "InvalidArgumentException")):
        assert refused(lambda: client.list_tags_for_resource(ResourceARN=missing))[0] == code
        assert refused(lambda: client.untag_resource(ResourceARN=missing, TagKeys=["a"]))[0] == code


def test_the_rest_answers_what_it_declares(client, name):
    create(client, name)
    window = client.update_application_maintenance_configuration(ApplicationName=name, ApplicationMaintenanceConfigurationUpdate={"ApplicationMaintenanceWindowStartTimeUpdate": "20:30"})
    wanted = {"ApplicationMaintenanceWindowStartTime": "20:30", "ApplicationMaintenanceWindowEndTime": "04:30"}
    assert window["ApplicationMaintenanceConfigurationDescription"] == wanted and describe(client, name)["ApplicationMaintenanceConfigurationDescription"] == wanted
    assert refused(lambda: client.update_application_maintenance_configuration(ApplicationName=name, ApplicationMaintenanceConfigurationUpdate={
        "ApplicationMaintenanceWindowStartTimeUpdate": "25:00"}))[0] == "ValidationException"
    assert refused(lambda: client.create_application_presigned_url(ApplicationName=name, UrlType="FLINK_DASHBOARD_URL"))[0] == "InvalidArgumentException"
    snapshot = {"ApplicationName": name, "SnapshotName": "s"}
    assert refused(lambda: client.create_application_snapshot(**snapshot))[0] == "ResourceInUseException"
    assert refused(lambda: client.create_application_snapshot(ApplicationName=name, SnapshotName=".."))[0] == "InvalidArgumentException"
    assert refused(lambda: client.describe_application_snapshot(**snapshot))[0] == "ResourceNotFoundException"
    assert refused(lambda: client.delete_application_snapshot(**snapshot, SnapshotCreationTimestamp=0))[0] == "ResourceNotFoundException"
    assert client.list_application_snapshots(ApplicationName=name)["SnapshotSummaries"] == []
    assert refused(lambda: client.list_application_snapshots(ApplicationName=name, NextToken="%"))[0] == "InvalidArgumentException"
    assert refused(lambda: client.list_application_snapshots(ApplicationName=name + "x"))[0] == "InvalidArgumentException"
    assert refused(lambda: client.stop_application(ApplicationName=name))[0] == "ResourceInUseException"
    assert refused(lambda: client.rollback_application(ApplicationName=name, CurrentApplicationVersionId=1))[0] == "ResourceInUseException"
    got, message = refused(lambda: client.start_application(ApplicationName=name))
    assert got == "InvalidApplicationConfigurationException" and "no code" in message
    for call in (client.describe_application, client.start_application, client.stop_application, client.list_application_versions, client.list_application_operations):
        assert refused(lambda: call(ApplicationName=name + "x"))[0] == "ResourceNotFoundException"


def test_what_no_worker_does_is_kept_and_refused_at_the_start(client, kinesis, arn, name):
    lambda_arn = f"arn:aws:lambda:{REGION}:000000000000:function:f"
    functional = dict(stream_input("A", name), InputProcessingConfiguration={"InputLambdaProcessor": {"ResourceARN": lambda_arn}})
    rows = dict(stream_input("A", name), InputSchema=schema(form="CSV"))
    good = stream_input("A", name)
    out = {"Name": "OUT", "DestinationSchema": {"RecordFormatType": "JSON"}}
    cases = [(configuration("SELECT 1", [functional]), "input processor"), (configuration("SELECT 1", [rows]), "CSV"),
             (configuration("SELECT 1", [good], [dict(out, LambdaOutput={"ResourceARN": lambda_arn})]), "function"),
             (configuration("SELECT 1", [good], [dict(stream_output("OUT", name), DestinationSchema={"RecordFormatType": "CSV"})]), "CSV"),
             (configuration("SELECT 1", [dict(good, InputSchema=schema(("ROWTIME", "TIMESTAMP")))]), "ROWTIME"),
             (configuration("SELECT 1", [good], properties={"sightglass.input.A": {"rowtime": "n"}}), "TIMESTAMP"),
             (configuration("SELECT 1", [good], properties={"sightglass.input.A": {"lateness": "soon"}}), "lateness"),
             (configuration("SELECT 1", [good], properties={"sightglass.application": {"checkpoint_interval_ms": "1"}}), "50"),
             (configuration("SELECT 1", [stream_input("A", name + "x")]), "does not exist")]
    for number, (made, word) in enumerate(cases):
        one = f"{name}-{number}"
        create(client, one, ApplicationConfiguration=made)
        got, message = refused(lambda: client.start_application(ApplicationName=one))
        assert got == "InvalidApplicationConfigurationException" and word in message, (made, got, message)
        assert describe(client, one)["ApplicationStatus"] == "READY"
    create(client, name, ApplicationConfiguration=configuration("SELECT 1", [good]))
    for run, word in (({"SqlRunConfigurations": [{"InputId": "9.9", "InputStartingPositionConfiguration": {"InputStartingPosition": "NOW"}}]}, "9.9"),
                      ({"ApplicationRestoreConfiguration": {"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT"}}, "SnapshotName"),
                      ({"ApplicationRestoreConfiguration": {"ApplicationRestoreType": "RESTORE_FROM_CUSTOM_SNAPSHOT", "SnapshotName": "none"}}, "none"),
                      ({"ApplicationRestoreConfiguration": {"ApplicationRestoreType": "SKIP_RESTORE_FROM_SNAPSHOT", "SnapshotName": "x"}}, "SnapshotName")):
        got, message = refused(lambda: client.start_application(ApplicationName=name, RunConfiguration=run))
        assert got == "InvalidArgumentException" and word in message, (run, got, message)


@pytest.mark.parametrize("program", ("/nowhere/sql-worker", "/bin/true"))
def test_a_server_whose_worker_runs_no_applications_says_so(program):
    started = Server(environment={"SIGHTGLASS_SQL_WORKER": program})
    client = started.client("kinesisanalyticsv2")
    for stream in ("s", "t"):
        started.client("kinesis").create_stream(StreamName=stream, ShardCount=1)
    create(client, "doors", ApplicationConfiguration=configuration("INSERT INTO OUT SELECT * FROM A_001", [stream_input("A", "s")], [stream_output("OUT", "t")]))
    code, message = refused(lambda: client.start_application(ApplicationName="doors"))
    assert code == "UnsupportedOperationException" and program in message, message
    assert describe(client, "doors")["ApplicationStatus"] == "READY"
    assert started.stop() == 0, started.log()


def test_a_schema_is_discovered_in_a_data_stream(client, kinesis, arn, name):
    role = {"ServiceExecutionRole": ROLE}
    call = lambda **more: client.discover_input_schema(**dict(role, **more))
    code, message = refused(lambda: call(ResourceARN=arn))
    assert code == "UnableToDetectSchemaException" and "no records" in message
    samples = [{"door": "north", "seen": {"n": 1, "at": "2026-01-02 03:04:05"}, "score": 0.5}, {"door": "south-west", "seen": {"n": 5000000000, "at": "2026-01-02 03:04:06"}, "score": 1}]
    texts = [json.dumps(one) for one in samples]
    kinesis.put_records(StreamName=name, Records=[{"Data": text, "PartitionKey": "k"} for text in texts])
    found = call(ResourceARN=arn, InputStartingPositionConfiguration={"InputStartingPosition": "TRIM_HORIZON"})
    assert found["RawInputRecords"] == texts and "ProcessedInputRecords" not in found
    columns = {one["Name"]: (one["Mapping"], one["SqlType"]) for one in found["InputSchema"]["RecordColumns"]}
    assert columns == {"door": ("$.door", "VARCHAR(16)"), "score": ("$.score", "DOUBLE"), "seen_at": ("$.seen.at", "TIMESTAMP"), "seen_n": ("$.seen.n", "BIGINT")}
    assert found["ParsedInputRecords"][0] == [{"door": "north", "score": "0.5", "seen_at": "2026-01-02 03:04:05", "seen_n": "1"}[one] for one in columns]
    assert found["InputSchema"]["RecordFormat"] == {"RecordFormatType": "JSON", "MappingParameters": {"JSONMappingParameters": {"RecordRowPath": "$"}}}
    # What was discovered can be an input as it is.
    create(client, name, ApplicationConfiguration=configuration(inputs=[{"NamePrefix": "A", "KinesisStreamsInput": {"ResourceARN": arn}, "InputSchema": found["InputSchema"]}]))
    processor = {"InputLambdaProcessor": {"ResourceARN": "arn:aws:lambda:us-west-2:000000000000:function:f"}}
    for more, code in (({}, "InvalidArgumentException"), ({"ResourceARN": arn + "x"}, "InvalidArgumentException"), ({"ResourceARN": arn.replace("000000000000", "111122223333")}, "InvalidArgumentException"),
                       ({"ResourceARN": f"arn:aws:firehose:{REGION}:000000000000:deliverystream/d"}, "UnsupportedOperationException"),
                       ({"ResourceARN": arn, "InputProcessingConfiguration": processor}, "UnsupportedOperationException"),
                       ({"ResourceARN": arn, "InputStartingPositionConfiguration": {"InputStartingPosition": "LAST_STOPPED_POINT"}}, "InvalidArgumentException")):
        assert refused(lambda: call(**more))[0] == code, more
    kinesis.put_record(StreamName=name, Data=b"\x00\xff plain", PartitionKey="k")
    code, message = refused(lambda: call(ResourceARN=arn))
    assert code == "UnableToDetectSchemaException" and "neither" in message


def test_a_schema_is_discovered_in_an_object(client, s3, name):
    bucket = name.lower()
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket=bucket, Key="doors.csv", Body=b"door,floor,open\nnorth,1,true\n\"south, west\",2,false\n")
    place = {"BucketARN": f"arn:aws:s3:::{bucket}", "FileKey": "doors.csv"}
    found = client.discover_input_schema(ServiceExecutionRole=ROLE, S3Configuration=place)
    assert [(one["Name"], one["SqlType"]) for one in found["InputSchema"]["RecordColumns"]] == [("door", "VARCHAR(16)"), ("floor", "INTEGER"), ("open", "BOOLEAN")]
    assert found["ParsedInputRecords"] == [["north", "1", "true"], ["south, west", "2", "false"]]
    assert refused(lambda: client.discover_input_schema(ServiceExecutionRole=ROLE, S3Configuration=dict(place, FileKey="none")))[0] == "InvalidArgumentException"
    s3.put_object(Bucket=bucket, Key="count.sql", Body=b"SELECT 1")
    code = {"CodeContentType": "PLAINTEXT", "CodeContent": {"S3ContentLocation": dict(place, FileKey="count.sql")}}
    made = create(client, name, ApplicationConfiguration={"ApplicationCodeConfiguration": code})
    described = made["ApplicationConfigurationDescription"]["ApplicationCodeConfigurationDescription"]["CodeContentDescription"]
    assert described["CodeSize"] == 8 and described["CodeMD5"] == base64.b64encode(hashlib.md5(b"SELECT 1").digest()).decode() and "TextContent" not in described


def test_who_may_not_read_a_stream_discovers_nothing_in_it(server, kinesis, arn):
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesisanalytics:*", "Resource": "*"}]}
    key, secret = server.make_key(policy=policy)
    limited = server.client("kinesisanalyticsv2", access_key=key, secret=secret)
    assert limited.list_applications() is not None
    assert code_of(lambda: limited.discover_input_schema(ServiceExecutionRole=ROLE, ResourceARN=arn)) == "AccessDeniedException"
    place = {"BucketARN": "arn:aws:s3:::b", "FileKey": "k"}
    assert code_of(lambda: limited.discover_input_schema(ServiceExecutionRole=ROLE, S3Configuration=place)) == "AccessDeniedException"


def test_a_policy_may_allow_one_application(server, client, name):
    create(client, name)
    create(client, f"{name}-other")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesisanalytics:*", "Resource": f"arn:aws:kinesisanalytics:*:*:application/{name}"}]}
    key, secret = server.make_key(policy=policy)
    limited = server.client("kinesisanalyticsv2", access_key=key, secret=secret)
    assert describe(limited, name)["ApplicationName"] == name
    assert code_of(lambda: describe(limited, f"{name}-other")) == "AccessDeniedException"
    assert code_of(lambda: limited.list_applications()) == "AccessDeniedException"


def test_another_accounts_application_looks_like_none(server, client, name):
    arn = create(client, name)["ApplicationARN"]
    key, secret = server.make_key(account="111122223333")
    theirs = server.client("kinesisanalyticsv2", access_key=key, secret=secret)
    assert refusal(lambda: describe(theirs, name))[:2] == ("ResourceNotFoundException", 400)
    assert refused(lambda: theirs.list_tags_for_resource(ResourceARN=arn))[0] == "ResourceNotFoundException"
    assert name not in [one["ApplicationName"] for one in theirs.list_applications()["ApplicationSummaries"]]
    made = create(theirs, name, role="arn:aws:iam::111122223333:role/r")
    assert ":111122223333:" in made["ApplicationARN"]
    analytics.delete(theirs, name)
    assert describe(client, name)["ApplicationStatus"] == "READY"


def test_applications_outlive_the_server(own_server):
    client = own_server.client("kinesisanalyticsv2")
    create(client, "doors", ApplicationConfiguration=configuration("SELECT 1", [stream_input("A", "s")]), Tags=[{"Key": "a", "Value": "b"}])
    client.add_application_output(ApplicationName="doors", CurrentApplicationVersionId=1, Output=stream_output("OUT", "s"))
    before = describe(client, "doors")
    own_server.kill()
    own_server.restart()
    client = own_server.client("kinesisanalyticsv2")
    assert describe(client, "doors") == before
    assert client.list_tags_for_resource(ResourceARN=before["ApplicationARN"])["Tags"] == [{"Key": "a", "Value": "b"}]
