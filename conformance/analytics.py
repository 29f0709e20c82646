"""What the tests of Kinesis Analytics share: requests that are taken as they are, to be changed at one place."""

import json
import os
import pathlib
import subprocess

from harness import REGION, eventually

ROLE = "arn:aws:iam::000000000000:role/analytics"


def sql_worker():
    """The program that runs applications, or None where it was not built."""
    server = os.environ.get("SIGHTGLASS_BIN")
    named = os.environ.get("SIGHTGLASS_SQL_WORKER") or (server and str(pathlib.Path(server).parent / "sql-worker"))
    return named if named and pathlib.Path(named).is_file() else None


def no_applications():
    """Why no application runs here, or None where the program plans one."""
    program = sql_worker()
    if program is None:
        return "skipped: no program sql-worker beside the server (make sql)"
    spec = {"application_arn": f"arn:aws:kinesisanalytics:{REGION}:000000000000:application/probe", "version": 1, "endpoint": "", "region": REGION,
            "access_key_id": "", "secret_access_key": "", "state_dir": "", "memory_limit": 1 << 28,
            "script": "CREATE TABLE a (n INT) WITH ('connector' = 'kinesis', 'stream' = 'a', 'format' = 'json');\n"
                      "CREATE TABLE b (n INT) WITH ('connector' = 'kinesis', 'stream' = 'b', 'format' = 'json');\nINSERT INTO b SELECT n FROM a"}
    try:
        said = subprocess.run([program, "application", "--check"], input=json.dumps(spec).encode() + b"\n", capture_output=True, timeout=30).stdout
    except subprocess.TimeoutExpired:
        said = b""
    return None if b'"event":"stopped"' in said else f"skipped: {program} does not plan applications: {said[:200]!r}"


def stream_arn(name, account="000000000000"):
    return f"arn:aws:kinesis:{REGION}:{account}:stream/{name}"


def schema(*columns, form="JSON"):
    """Columns are names with a type, or with a path and a type."""
    columns = columns or (("door", "VARCHAR(16)"), ("n", "INTEGER"))
    named = [dict({"Name": column[0], "SqlType": column[-1]}, **({"Mapping": column[1]} if len(column) == 3 else {"Mapping": f"$.{column[0]}"})) for column in columns]
    mapping = {"JSONMappingParameters": {"RecordRowPath": "$"}} if form == "JSON" else {"CSVMappingParameters": {"RecordRowDelimiter": "\n", "RecordColumnDelimiter": ","}}
    return {"RecordFormat": {"RecordFormatType": form, "MappingParameters": mapping}, "RecordEncoding": "UTF-8", "RecordColumns": named}


def stream_input(prefix, stream, *columns):
    return {"NamePrefix": prefix, "KinesisStreamsInput": {"ResourceARN": stream_arn(stream)}, "InputSchema": schema(*columns)}


def stream_output(name, stream):
    return {"Name": name, "KinesisStreamsOutput": {"ResourceARN": stream_arn(stream)}, "DestinationSchema": {"RecordFormatType": "JSON"}}


def reference(table, bucket, key, form="JSON", *columns):
    return {"TableName": table, "S3ReferenceDataSource": {"BucketARN": f"arn:aws:s3:::{bucket}", "FileKey": key}, "ReferenceSchema": schema(*columns, form=form)}


def configuration(code=None, inputs=(), outputs=(), references=(), properties=None, **more):
    made = {"SqlApplicationConfiguration": {"Inputs": list(inputs), "Outputs": list(outputs), "ReferenceDataSources": list(references)}, **more}
    if code is not None:
        made["ApplicationCodeConfiguration"] = {"CodeContentType": "PLAINTEXT", "CodeContent": {"TextContent": code}}
    if properties:
        made["EnvironmentProperties"] = {"PropertyGroups": [{"PropertyGroupId": group, "PropertyMap": pairs} for group, pairs in properties.items()]}
    return made


def create(client, name, runtime="SQL-1_0", role=ROLE, **more):
    return client.create_application(ApplicationName=name, RuntimeEnvironment=runtime, ServiceExecutionRole=role, **more)["ApplicationDetail"]


def describe(client, name, **more):
    return client.describe_application(ApplicationName=name, **more)["ApplicationDetail"]


def reach(client, name, status, within=30):
    """The application's description once it has this status."""
    return eventually(lambda: (lambda told: told["ApplicationStatus"] == status and told)(describe(client, name)), within=within)


def delete(client, name):
    client.delete_application(ApplicationName=name, CreateTimestamp=describe(client, name)["CreateTimestamp"])
