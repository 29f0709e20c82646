"""What a delivery stream makes of records, read back from its bucket: processors, functions that fail, hang and lie, partition keys, names of
objects, compressions by other implementations, Parquet and ORC by pyarrow and duckdb, and the error output in AWS's shape."""

import base64
import datetime
import decimal
import gzip
import http.server
import io
import json
import struct
import threading
import time
import zipfile

import cramjam
import duckdb
import pyarrow.orc
import pyarrow.parquet
import pytest

import harness
from harness import refusal
from test_columns import program

ROLE = "arn:aws:iam::000000000000:role/firehose"
BUCKET = "transformed"
FUNCTION = f"arn:aws:lambda:{harness.REGION}:000000000000:function:"
CONFIG = """
function_timeout_seconds = 2
[functions]
%s
[schemas."shop.orders"]
columns = [
  { name = "id", type = "bigint" },
  { name = "name", type = "string" },
  { name = "price", type = "decimal(10,2)" },
  { name = "at", type = "timestamp" },
]
[schemas."shop.flat"]
columns = [{ name = "id", type = "bigint" }, { name = "name", type = "string" }]
"""


class Functions(http.server.ThreadingHTTPServer):
    """Functions by their paths; each is called with the event and answers what it likes."""

    def __init__(self):
        self.by_path, self.events, self.released = {}, [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.released.set()
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.events.append((self.path, event))
        status, body = self.server.by_path[self.path](event)
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def answer(record, data=None, result="Ok", **more):
    return dict({"recordId": record["recordId"], "result": result, "data": base64.b64encode(data).decode() if data is not None else record["data"]}, **more)


def data_of(record):
    return base64.b64decode(record["data"])


@pytest.fixture(scope="module")
def functions():
    started = Functions()
    yield started
    started.close()


@pytest.fixture(scope="module")
def transforming(tmp_path_factory, functions):
    folder = tmp_path_factory.mktemp("transform")
    names = ["shout", "lie", "hang", "fail", "sort"]
    urls = "\n".join(f'"{FUNCTION}{name}" = "http://127.0.0.1:{functions.server_port}/{name}"' for name in names)
    (folder / "sightglass.toml").write_text(CONFIG % urls)
    server = harness.Server(folder / "data", "--config", str(folder / "sightglass.toml"))
    server.client("s3").create_bucket(Bucket=BUCKET)
    yield server
    assert server.stop() == 0, server.log()


@pytest.fixture
def stream(transforming, name):
    """Makes a delivery stream below a prefix of its own, puts records, and gives the objects: key and body."""
    firehose, s3 = transforming.client("firehose"), transforming.client("s3")

    def run(records, wanted, processors=(), prefix="", **more):
        config = dict({"BucketARN": f"arn:aws:s3:::{BUCKET}", "RoleARN": ROLE, "Prefix": f"{name}/ok/{prefix}", "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 0},
                       "ErrorOutputPrefix": f"{name}/errors/!{{firehose:error-output-type}}/"}, **more)
        if processors:
            config["ProcessingConfiguration"] = {"Enabled": True, "Processors": list(processors)}
        firehose.create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=config)
        put = firehose.put_record_batch(DeliveryStreamName=name, Records=[{"Data": record} for record in records])
        assert put["FailedPutCount"] == 0
        until = time.monotonic() + 60
        while True:
            listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", [])
            if len(listed) >= wanted:
                break
            assert time.monotonic() < until, (listed, transforming.log())
            time.sleep(0.1)
        assert len(listed) == wanted, listed
        got = {entry["Key"].removeprefix(f"{name}/"): s3.get_object(Bucket=BUCKET, Key=entry["Key"]) for entry in listed}
        return {key: (answer["Body"].read(), answer.get("ContentEncoding")) for key, answer in got.items()}

    return run


def processor(kind, **parameters):
    return {"Type": kind, "Parameters": [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]}


def only(objects, start):
    [found] = [body for key, (body, _) in objects.items() if key.startswith(start)]
    return found


def errors(objects, kind="processing-failed"):
    return [json.loads(line) for line in only(objects, f"errors/{kind}/").splitlines()]


def test_records_are_joined_as_they_are_unless_a_delimiter_is_asked_for(stream):
    assert only(stream([b"a", b"b\n", b"c"], 1), "ok/") == b"ab\nc"


def test_a_chain_of_processors_is_carried_out_in_awss_order(stream, functions):
    def shout(event):
        return 200, {"records": [answer(record, data_of(record).upper(), "Dropped" if b"drop" in data_of(record) else "Ok") for record in event["records"]]}

    functions.by_path["/shout"] = shout
    chain = [processor("AppendDelimiterToRecord"), processor("Lambda", LambdaArn=FUNCTION + "shout:$LATEST", NumberOfRetries="0"), processor("RecordDeAggregation", SubRecordType="JSON")]
    objects = stream([b'{"a":1}{"a":"drop"} {"a":"x"}', b"no json"], 2, chain)
    assert only(objects, "ok/") == b'{"A":1}\n{"A":"X"}\n'
    [failed] = errors(objects)
    assert base64.b64decode(failed["rawData"]) == b"no json" and failed["attemptsMade"] == 1
    event = [event for path, event in functions.events if path == "/shout"][-1]
    assert event["region"] == harness.REGION and event["deliveryStreamArn"].startswith("arn:aws:firehose:") and event["invocationId"]


def test_a_function_that_lies_loses_no_record(stream, functions):
    def lie(event):
        records = event["records"]
        return 200, {"records": [answer(records[0]), answer(records[1]), answer(records[1]), dict(answer(records[2]), data="###"), {"recordId": "stranger", "result": "Ok", "data": ""}]}

    functions.by_path["/lie"] = lie
    objects = stream([b"good", b"twice", b"no base64", b"forgotten"], 2, [processor("Lambda", LambdaArn=FUNCTION + "lie")])
    assert only(objects, "ok/") == b"good"
    failed = {base64.b64decode(line["rawData"]): line for line in errors(objects)}
    assert {raw: line["errorCode"] for raw, line in failed.items()} == {
        b"twice": "Lambda.DuplicatedRecordId", b"no base64": "Lambda.JsonProcessingException", b"forgotten": "Lambda.MissingRecordId"}
    assert all(line["lambdaARN"] == FUNCTION + "lie" for line in failed.values())


@pytest.mark.parametrize("name_of, code", [("hang", "Lambda.FunctionTimeout"), ("fail", "Lambda.FunctionError")])
def test_a_function_that_hangs_or_fails_is_called_again_and_then_given_up(stream, functions, name_of, code):
    functions.by_path["/hang"] = lambda event: (functions.released.wait(60) and None) or (200, {"records": []})
    functions.by_path["/fail"] = lambda event: (500, {"errorMessage": "boom"})
    objects = stream([b"a", b"b"], 1, [processor("Lambda", LambdaArn=FUNCTION + name_of, NumberOfRetries="1")])
    lines = errors(objects)
    assert [(base64.b64decode(line["rawData"]), line["errorCode"], line["attemptsMade"]) for line in lines] == [(b"a", code, 2), (b"b", code, 2)]
    assert lines[0]["attemptEndingTimestamp"] >= lines[0]["arrivalTimestamp"]


def test_partition_keys_come_from_queries_and_from_functions(stream, functions):
    def sort(event):
        kind = lambda record: {"partitionKeys": {"kind": json.loads(data_of(record))["kind"]}}
        return 200, {"records": [answer(record, metadata=kind(record)) for record in event["records"]]}

    functions.by_path["/sort"] = sort
    chain = [processor("Lambda", LambdaArn=FUNCTION + "sort"), processor("AppendDelimiterToRecord", Delimiter="\\n"),
             processor("MetadataExtraction", MetadataExtractionQuery='{customer: .customer, year: (.at|strftime("%Y"))}', JsonParsingEngine="JQ-1.6")]
    row = lambda customer, kind: json.dumps({"customer": customer, "kind": kind, "at": 1565382027}).encode()
    objects = stream([row(1, "door"), row("x", "door"), row(1, "window"), row(1, "door"), row(None, "door")], 4, chain,
                     "c=!{partitionKeyFromQuery:customer}/y=!{partitionKeyFromQuery:year}/!{partitionKeyFromLambda:kind}/", DynamicPartitioningConfiguration={"Enabled": True})
    assert only(objects, "ok/c=1/y=2019/door/") == row(1, "door") + b"\n" + row(1, "door") + b"\n"
    assert only(objects, "ok/c=x/y=2019/door/") == row("x", "door") + b"\n"
    assert only(objects, "ok/c=1/y=2019/window/") == row(1, "window") + b"\n"
    [failed] = errors(objects)
    assert failed["errorCode"] == "DynamicPartitioning.MetadataExtractionFailed" and base64.b64decode(failed["rawData"]) == row(None, "door")


def test_records_beyond_500_partitions_go_to_the_error_output(stream):
    many = [b"".join(b'{"n":%d}' % n for n in numbers) for numbers in (range(300), range(300, 510))]
    chain = [processor("RecordDeAggregation", SubRecordType="JSON"), processor("MetadataExtraction", MetadataExtractionQuery="{n: .n}", JsonParsingEngine="JQ-1.6")]
    objects = stream(many, 501, chain, "n=!{partitionKeyFromQuery:n}/", DynamicPartitioningConfiguration={"Enabled": True})
    assert all(only(objects, f"ok/n={n}/") == b'{"n":%d}' % n for n in range(500))
    failed = errors(objects)
    assert {line["errorCode"] for line in failed} == {"DynamicPartitioning.ActivePartitionLimitExceeded"}
    assert [base64.b64decode(line["rawData"]) for line in failed] == [b'{"n":%d}' % n for n in range(500, 510)]


def test_names_have_the_time_of_their_zone(stream):
    objects = stream([b"a"], 1, prefix="!{timestamp:'d='yyyy-MM-dd'T'HH}/!{firehose:random-string}/", CustomTimeZone="Asia/Tokyo", FileExtension=".txt")
    [key] = objects
    now = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=9)))
    _, day, random, last = key.split("/")
    assert abs(now.replace(tzinfo=None) - datetime.datetime.strptime(day, "d=%Y-%m-%dT%H")) < datetime.timedelta(hours=2)
    assert len(random) == 11 and last.endswith(".txt")


def snappy_java(data):
    assert data.startswith(b"\x82SNAPPY\x00" + struct.pack(">II", 1, 1))
    out, at = b"", 16
    while at < len(data):
        [size] = struct.unpack_from(">I", data, at)
        out += bytes(cramjam.snappy.decompress_raw(data[at + 4:at + 4 + size]))
        at += 4 + size
    return out


def hadoop_snappy(data):
    out, at = b"", 0
    while at < len(data):
        raw, size = struct.unpack_from(">II", data, at)
        block = bytes(cramjam.snappy.decompress_raw(data[at + 8:at + 8 + size]))
        assert len(block) == raw
        out, at = out + block, at + 8 + size
    return out


def unzipped(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    [name] = archive.namelist()
    assert archive.testzip() is None
    return archive.read(name)


@pytest.mark.parametrize("compression, extension, encoding, read", [
    ("GZIP", ".gz", "gzip", gzip.decompress), ("ZIP", ".zip", "zip", unzipped), ("Snappy", ".snappy", "snappy-java", snappy_java), ("HADOOP_SNAPPY", ".hsnappy", "hadoop-snappy", hadoop_snappy)])
def test_compressed_objects_are_read_by_others(stream, compression, extension, encoding, read):
    records = [json.dumps({"n": n, "text": "x" * n}).encode() for n in range(400)]
    [(key, (body, said))] = stream(records, 1, CompressionFormat=compression).items()
    assert key.endswith(extension) and said == encoding
    assert read(body) == b"".join(records)


def conversion(table, serializer, deserializer=None):
    return {"Enabled": True, "SchemaConfiguration": {"RoleARN": ROLE, "DatabaseName": "shop", "TableName": table, "Region": harness.REGION},
            "InputFormatConfiguration": {"Deserializer": deserializer or {"OpenXJsonSerDe": {}}}, "OutputFormatConfiguration": {"Serializer": serializer}}


needs_worker = pytest.mark.skipif(not program().is_file(), reason=f"skipped: no {program()}: make sql builds it")


@needs_worker
def test_json_becomes_parquet_and_what_does_not_fit_is_said(stream, tmp_path):
    rows = [{"id": n, "name": f"n{n}", "price": n + 0.25, "at": "2026-01-31 12:00:00.5"} for n in range(450)]
    records = [json.dumps(row).encode() for row in rows] + [b'{"id":"x"}', b"no json"]
    objects = stream(records, 2, DataFormatConversionConfiguration=conversion("orders", {"ParquetSerDe": {}}))
    [key] = [key for key in objects if key.startswith("ok/")]
    assert key.endswith(".parquet")
    (tmp_path / "x.parquet").write_bytes(objects[key][0])
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert table["id"].to_pylist() == list(range(450)) and str(table.schema.field("price").type) == "decimal128(10, 2)"
    counted = duckdb.sql(f"""select count(*), sum(price), min("at") from '{tmp_path}/x.parquet'""").fetchall()[0]
    assert counted == (450, sum(decimal.Decimal(str(row["price"])) for row in rows), datetime.datetime(2026, 1, 31, 12, 0, 0, 500_000))
    lines = errors(objects, "format-conversion-failed")
    assert [(line["lastErrorCode"], base64.b64decode(line["rawData"])) for line in lines] == [
        ("DataFormatConversion.MalformedData", b'{"id":"x"}'), ("DataFormatConversion.ParseError", b"no json")]
    assert lines[0]["dataCatalogTable"]["tableName"] == "orders" and lines[0]["sequenceNumber"].isdigit() and "id" in lines[0]["lastErrorMessage"]


@needs_worker
def test_json_becomes_orc(stream, tmp_path):
    records = [json.dumps({"ID": n, "name": {"n": n}}).encode() for n in range(300)]
    [(key, (body, _))] = stream(records, 1, DataFormatConversionConfiguration=conversion("flat", {"OrcSerDe": {"Compression": "ZLIB"}})).items()
    assert key.endswith(".orc")
    assert pyarrow.orc.read_table(io.BytesIO(body)).to_pylist() == [{"id": n, "name": json.dumps({"n": n}).replace(" ", "")} for n in range(300)]


@pytest.mark.parametrize("config, word", [
    ({"Prefix": "!{timestamp:yyyy}/"}, "ErrorOutputPrefix can't be null"),
    ({"Prefix": "!{timestamp:bb}/", "ErrorOutputPrefix": "e/"}, "Unknown pattern letter"),
    ({"Prefix": "!{partitionKeyFromQuery:a}/", "ErrorOutputPrefix": "e/"}, "Dynamic Partitioning"),
    ({"ErrorOutputPrefix": "!{timestamp:yyyy}/"}, "error-output-type"),
    ({"CustomTimeZone": "Mars/Olympus"}, "Mars/Olympus"),
    ({"ProcessingConfiguration": {"Enabled": True, "Processors": [processor("Lambda", LambdaArn=FUNCTION + "unknown")]}}, "[functions]"),
    ({"ProcessingConfiguration": {"Enabled": True, "Processors": [processor("MetadataExtraction", MetadataExtractionQuery="{a: [range(1e9)]}", JsonParsingEngine="JQ-1.6")]}}, "range/1"),
    ({"ProcessingConfiguration": {"Enabled": True, "Processors": [processor("MetadataExtraction", MetadataExtractionQuery="{a: ", JsonParsingEngine="JQ-1.6")]}}, "MetadataExtractionQuery"),
    ({"BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60}, "DataFormatConversionConfiguration": conversion("nowhere", {"ParquetSerDe": {}})}, "shop.nowhere"),
    pytest.param({"BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60}, "DataFormatConversionConfiguration": conversion("orders", {"OrcSerDe": {}})}, "decimal", marks=needs_worker),
])
def test_what_cannot_be_carried_out_is_refused_when_the_stream_is_made(transforming, name, config, word):
    config = dict({"BucketARN": f"arn:aws:s3:::{BUCKET}", "RoleARN": ROLE}, **config)
    call = lambda: transforming.client("firehose").create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=config)
    code, status, message = refusal(call)
    assert (code, status) == ("InvalidArgumentException", 400) and word in message


def test_without_the_program_conversion_is_refused_in_words(tmp_path, name):
    (tmp_path / "sightglass.toml").write_text(CONFIG % "" + f'[sql]\nworker = "{tmp_path}/nothing"\n')
    server = harness.Server(tmp_path / "data", "--config", str(tmp_path / "sightglass.toml"))
    config = {"BucketARN": f"arn:aws:s3:::{BUCKET}", "RoleARN": ROLE, "DataFormatConversionConfiguration": conversion("orders", {"ParquetSerDe": {}})}
    code, _, message = refusal(lambda: server.client("firehose").create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=config))
    assert code == "InvalidArgumentException" and "make sql" in message
    assert server.stop() == 0
