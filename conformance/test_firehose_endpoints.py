"""Firehose to HTTP endpoints, Splunk and search engines that fail, hang and lie: every record arrives or is in the backup,
once; and boto3 over what can be configured of them."""

import base64
import gzip
import json

import pytest

import harness
from endpoint import HttpEndpoint, Search, Splunk

ROLE = "arn:aws:iam::000000000000:role/firehose"
BACKUP = "firehose-backup"
DOMAIN = f"arn:aws:es:{harness.REGION}:000000000000:domain/logs"


@pytest.fixture(scope="module")
def delivering(tmp_path_factory, authority):
    """A server that trusts the endpoints, waits two seconds for them, and has a bucket for what they do not take."""
    folder = tmp_path_factory.mktemp("endpoints")
    (folder / "sightglass.toml").write_text(f'webhook_ca = "{authority.ca}"\nwebhook_timeout_seconds = 2\n')
    server = harness.Server(folder / "data", "--config", str(folder / "sightglass.toml"))
    server.client("s3").create_bucket(Bucket=BACKUP)
    yield server
    assert server.stop() == 0, server.log()


@pytest.fixture
def receiver(authority):
    started = HttpEndpoint(authority)
    yield started
    started.close()


@pytest.fixture
def splunk(authority):
    started = Splunk(authority, "token")
    yield started
    started.close()


@pytest.fixture
def search(authority):
    started = Search(authority)
    yield started
    started.close()


def backup(name):
    """The S3 beside an endpoint, with prefixes of the test's own."""
    return {"RoleARN": ROLE, "BucketARN": f"arn:aws:s3:::{BACKUP}", "Prefix": f"{name}/all/",
            "ErrorOutputPrefix": f"{name}/failed/!{{firehose:error-output-type}}/"}


def http_configuration(name, url, retry=0, **more):
    return {"EndpointConfiguration": {"Url": url, "AccessKey": "sesame"}, "S3Configuration": backup(name),
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}, "RetryOptions": {"DurationInSeconds": retry}, **more}


def make(server, name, **configuration):
    firehose = server.client("firehose")
    firehose.create_delivery_stream(DeliveryStreamName=name, **configuration)
    return firehose


def objects(server, prefix):
    s3 = server.client("s3")
    found = s3.list_objects_v2(Bucket=BACKUP, Prefix=prefix).get("Contents", [])
    return {entry["Key"]: s3.get_object(Bucket=BACKUP, Key=entry["Key"])["Body"].read() for entry in found}


def failed(server, name, kind):
    """The error records of a delivery stream."""
    lines = b"".join(objects(server, f"{name}/failed/{kind}/").values()).splitlines()
    return [json.loads(line) for line in lines]


def raw(records):
    return sorted(base64.b64decode(record["rawData"]) for record in records)


def put(firehose, name, *records):
    answer = firehose.put_record_batch(DeliveryStreamName=name, Records=[{"Data": record} for record in records])
    assert answer["FailedPutCount"] == 0


def numbered(prefix, count):
    return [f"{prefix} {number}".encode() for number in range(count)]


def test_an_http_endpoint_gets_what_the_specification_says(delivering, receiver, name):
    firehose = make(delivering, name, HttpEndpointDestinationConfiguration=http_configuration(
        name, receiver.url + "/in?a=b", RequestConfiguration={"ContentEncoding": "GZIP", "CommonAttributes": [
            {"AttributeName": "deployment", "AttributeValue": "test"}]}))
    put(firehose, name, *numbered("record", 3), b"")
    harness.eventually(lambda: len(receiver.records()) == 4)
    assert receiver.records() == sorted([*numbered("record", 3), b""])
    request = receiver.requests[0]
    headers = request["headers"]
    arn = firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]["DeliveryStreamARN"]
    assert request["path"] == "/in?a=b"
    assert headers["x-amz-firehose-protocol-version"] == "1.0" and headers["x-amz-firehose-source-arn"] == arn
    assert headers["x-amz-firehose-access-key"] == "sesame" and headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/json"
    assert json.loads(headers["x-amz-firehose-common-attributes"]) == {"commonAttributes": {"deployment": "test"}}
    assert isinstance(json.loads(request["body"])["timestamp"], int)
    assert objects(delivering, name) == {}


# What is answered, and the code of the error records when nothing else is answered.
LIES = {"fail": "HttpEndpoint.DestinationException", "another_id": "HttpEndpoint.InvalidResponseFromDestination",
        "says_no": "HttpEndpoint.DestinationException", "text": "HttpEndpoint.InvalidResponseFromDestination",
        "nonsense": "HttpEndpoint.InvalidResponseFromDestination", "redirect": "HttpEndpoint.DestinationException",
        "huge": "HttpEndpoint.ResponseTooLarge", "break_off": "HttpEndpoint.ConnectionReset",
        "hang": "HttpEndpoint.RequestTimeout", "drip": "HttpEndpoint.RequestTimeout",
        "too_big": "HttpEndpoint.DestinationException"}


@pytest.mark.parametrize("lie", LIES)
def test_what_an_endpoint_does_not_take_is_in_the_backup_once(delivering, receiver, name, lie):
    """Two batches: one is answered with a lie and given up, the other is taken."""
    firehose = make(delivering, name, HttpEndpointDestinationConfiguration=http_configuration(name, receiver.url))
    receiver.then(getattr(receiver, lie))
    put(firehose, name, *numbered("lost", 3))
    records = harness.eventually(lambda: failed(delivering, name, "http-endpoint-failed"), within=20)
    put(firehose, name, *numbered("taken", 3))
    harness.eventually(lambda: len(receiver.records()) >= 3, within=20)
    assert receiver.records() == numbered("taken", 3)
    assert raw(records) == raw(failed(delivering, name, "http-endpoint-failed")) == numbered("lost", 3)
    for record in records:
        assert record["errorCode"] == LIES[lie] and record["attemptsMade"] == 1 and record["errorMessage"]
        assert record["arrivalTimestamp"] <= record["attemptEndingTimestamp"]
        assert record["dataId"] and record["subsequenceNumber"] == 0
    # No redirection is followed.
    assert {request["path"] for request in receiver.requests} == {"/"}


def test_an_endpoint_that_fails_first_gets_the_same_request_again(delivering, receiver, name):
    firehose = make(delivering, name, HttpEndpointDestinationConfiguration=http_configuration(name, receiver.url, retry=30))
    receiver.then(receiver.fail, receiver.take_and_break_off)
    put(firehose, name, *numbered("record", 5))
    harness.eventually(lambda: len(receiver.requests) == 3, within=20)
    harness.eventually(lambda: len(receiver.records()) == 5)
    # By the id of the request the endpoint knows the second delivery of what it had taken.
    assert receiver.records() == numbered("record", 5)
    assert len({request["headers"]["x-amz-firehose-request-id"] for request in receiver.requests}) == 1
    assert len({request["body"] for request in receiver.requests}) == 1
    assert objects(delivering, name) == {}


def test_all_data_is_backed_up_where_it_is_asked_for(delivering, receiver, name):
    firehose = make(delivering, name, HttpEndpointDestinationConfiguration=http_configuration(
        name, receiver.url, S3BackupMode="AllData", S3Configuration=backup(name) | {"CompressionFormat": "GZIP"}))
    put(firehose, name, b"one\n", b"two\n")
    found = harness.eventually(lambda: objects(delivering, f"{name}/all/"))
    assert sorted(b"".join(map(gzip.decompress, found.values())).splitlines()) == [b"one", b"two"]
    harness.eventually(lambda: receiver.records() == [b"one\n", b"two\n"])


def test_an_endpoint_that_nobody_vouches_for_gets_nothing(tmp_path, receiver, name):
    server = harness.Server(tmp_path / "data")
    try:
        server.client("s3").create_bucket(Bucket=BACKUP)
        firehose = make(server, name, HttpEndpointDestinationConfiguration=http_configuration(name, receiver.url))
        put(firehose, name, b"secret")
        records = harness.eventually(lambda: failed(server, name, "http-endpoint-failed"), within=20)
        assert [record["errorCode"] for record in records] == ["HttpEndpoint.SSLHandshakeFailure"]
        assert receiver.requests == []
    finally:
        assert server.stop() == 0, server.log()


def test_a_delivery_that_a_crash_broke_off_is_repeated_with_its_id(tmp_path, authority, receiver, name):
    config = tmp_path / "sightglass.toml"
    config.write_text(f'webhook_ca = "{authority.ca}"\n')
    server = harness.Server(tmp_path / "data", "--config", str(config))
    try:
        server.client("s3").create_bucket(Bucket=BACKUP)
        firehose = make(server, name, HttpEndpointDestinationConfiguration=http_configuration(name, receiver.url, retry=60))
        receiver.then(receiver.hang)
        put(firehose, name, *numbered("record", 10))
        harness.eventually(lambda: receiver.requests)
        server.kill()
        server.restart()
        harness.eventually(lambda: len(receiver.records()) == 10, within=20)
        assert receiver.records() == numbered("record", 10)
        assert len({request["headers"]["x-amz-firehose-request-id"] for request in receiver.requests}) == 1
    finally:
        if server.child.poll() is None:
            server.stop()


def splunk_configuration(name, url, retry=0, **more):
    return {"HECEndpoint": url, "HECEndpointType": "Raw", "HECToken": "token", "S3Configuration": backup(name),
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}, "RetryOptions": {"DurationInSeconds": retry}, **more}


@pytest.mark.parametrize("kind", ["Raw", "Event"])
def test_splunk_has_what_it_acknowledged(delivering, splunk, name, kind):
    firehose = make(delivering, name, SplunkDestinationConfiguration=splunk_configuration(name, splunk.url, 30, HECEndpointType=kind))
    splunk.then(splunk.busy)
    put(firehose, name, b'{"event":1}', b'{"event":2}')
    harness.eventually(lambda: splunk.indexed, within=20)
    assert splunk.indexed == [b'{"event":1}{"event":2}']
    assert {request["path"].split("?")[0] for request in splunk.requests} == {
        f"/services/collector/{kind.lower()}", "/services/collector/ack"}
    assert objects(delivering, name) == {}


@pytest.mark.parametrize("lie,code", [
    ("busy", "Splunk.IndexerBusy"), ("without_ack", "Splunk.DisabledAck"), ("nonsense", "Splunk.ServerError"),
    ("break_off", "Splunk.ConnectionClosed"), ("hang", "Splunk.ConnectionTimeout"), ("huge", "Splunk.ServerError")])
def test_what_splunk_does_not_acknowledge_is_in_the_backup_once(delivering, splunk, name, lie, code):
    firehose = make(delivering, name, SplunkDestinationConfiguration=splunk_configuration(name, splunk.url))
    splunk.then(getattr(splunk, lie))
    put(firehose, name, *numbered("lost", 3))
    records = harness.eventually(lambda: failed(delivering, name, "splunk-failed"), within=20)
    assert raw(records) == numbered("lost", 3)
    assert {record["errorCode"] for record in records} == {code} and all(record["EventId"] for record in records)
    put(firehose, name, b"taken")
    harness.eventually(lambda: b"taken" in splunk.indexed, within=20)
    assert len(failed(delivering, name, "splunk-failed")) == 3


def search_configuration(name, url, retry=0, **more):
    return {"RoleARN": ROLE, "ClusterEndpoint": url, "IndexName": "logs", "S3Configuration": backup(name),
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 0}, "RetryOptions": {"DurationInSeconds": retry}, **more}


def document(n, **more):
    return json.dumps({"n": n, **more}).encode()


def test_each_document_is_in_its_index_or_in_the_backup(delivering, search, name):
    firehose = make(delivering, name, AmazonopensearchserviceDestinationConfiguration=search_configuration(
        name, search.url, 10, IndexRotationPeriod="NoRotation"))
    put(firehose, name, document(1), document(2, fates=[429, 201]), document(3, fates=[400]), b"no document",
        b'{"n":\n4}', b'{"n":5}\n{"delete":{"_index":"logs","_id":"1"}}')
    records = harness.eventually(lambda: failed(delivering, name, "AmazonOpenSearchService_failed"), within=20)
    assert sorted(document["n"] for document in search.documents.values()) == [1, 2, 4]
    assert {index for index, _ in search.documents} == {"logs"}
    assert raw(records) == sorted([document(3, fates=[400]), b"no document", b'{"n":5}\n{"delete":{"_index":"logs","_id":"1"}}'])
    [refused] = [record for record in records if record["attemptsMade"] == 1]
    assert refused["errorCode"] == "400" and "it is so" in refused["errorMessage"]
    assert refused["esIndexName"] == "logs" and refused["esDocumentId"]
    # The busy one alone was sent again.
    assert search.tries == {1: 1, 2: 2, 3: 1, 4: 1}


@pytest.mark.parametrize("lie", ["fail", "too_few", "nonsense", "break_off", "hang"])
def test_what_a_search_engine_does_not_take_is_in_the_backup_once(delivering, search, name, lie):
    firehose = make(delivering, name, ElasticsearchDestinationConfiguration=search_configuration(name, search.url))
    search.then(getattr(search, lie))
    put(firehose, name, document(1), document(2))
    records = harness.eventually(lambda: failed(delivering, name, "elasticsearch-failed"), within=20)
    assert raw(records) == [document(1), document(2)] and search.documents == {}
    put(firehose, name, document(3))
    harness.eventually(lambda: len(search.documents) == 1, within=20)
    [(index, _)] = search.documents
    assert index.startswith("logs-20") and len(index) == len("logs-2026-01-01")


def test_a_domain_and_its_password_come_from_the_configuration(tmp_path, authority, search, name):
    config = tmp_path / "sightglass.toml"
    config.write_text(f'webhook_ca = "{authority.ca}"\n[domains."{DOMAIN}"]\nurl = "{search.url}"\nusername = "writer"\npassword_env = "PASSWORD_OF_LOGS"\n')
    server = harness.Server(tmp_path / "data", "--config", str(config), environment={"PASSWORD_OF_LOGS": "secret"})
    try:
        server.client("s3").create_bucket(Bucket=BACKUP)
        configuration = search_configuration(name, search.url) | {"DomainARN": DOMAIN}
        del configuration["ClusterEndpoint"]
        firehose = make(server, name, AmazonopensearchserviceDestinationConfiguration=configuration)
        put(firehose, name, document(1))
        harness.eventually(lambda: search.documents, within=20)
        assert search.requests[0]["headers"]["authorization"] == "Basic " + base64.b64encode(b"writer:secret").decode()
        unknown = configuration | {"DomainARN": DOMAIN.replace("logs", "none")}
        code, _, message = harness.refusal(lambda: make(server, f"{name}-2", AmazonopensearchserviceDestinationConfiguration=unknown))
        assert code == "InvalidArgumentException" and "[domains]" in message
    finally:
        assert server.stop() == 0, server.log()


CONFIGURATIONS = {
    "HttpEndpoint": lambda name: http_configuration(name, "https://127.0.0.1:1/"),
    "Splunk": lambda name: splunk_configuration(name, "https://127.0.0.1:1"),
    "Amazonopensearchservice": lambda name: search_configuration(name, "https://127.0.0.1:1"),
    "Elasticsearch": lambda name: search_configuration(name, "https://127.0.0.1:1"),
    "AmazonOpenSearchServerless": lambda name: {
        key if key != "ClusterEndpoint" else "CollectionEndpoint": value
        for key, value in search_configuration(name, "https://127.0.0.1:1").items()},
}


def destination(firehose, name):
    described = firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
    [found] = described["Destinations"]
    return described["VersionId"], found


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_destinations_are_described_and_updated(delivering, name, kind):
    firehose = make(delivering, name, **{f"{kind}DestinationConfiguration": CONFIGURATIONS[kind](name)})
    version, found = destination(firehose, name)
    description = found[f"{kind}DestinationDescription"]
    assert description["RetryOptions"] == {"DurationInSeconds": 0}
    assert description["BufferingHints"] == {"SizeInMBs": 1, "IntervalInSeconds": 0}
    assert description["S3BackupMode"].startswith("Failed")
    s3 = description["S3DestinationDescription"]
    assert s3["CompressionFormat"] == "UNCOMPRESSED" and s3["Prefix"] == f"{name}/all/"
    assert s3["EncryptionConfiguration"] == {"NoEncryptionConfig": "NoEncryption"}
    assert "sesame" not in str(found)
    firehose.update_destination(DeliveryStreamName=name, CurrentDeliveryStreamVersionId=version, DestinationId=found["DestinationId"],
                                **{f"{kind}DestinationUpdate": {"RetryOptions": {"DurationInSeconds": 7}, "S3Update": {"CompressionFormat": "GZIP"}}})
    newer, found = destination(firehose, name)
    updated = found[f"{kind}DestinationDescription"]
    assert int(newer) == int(version) + 1
    assert updated["RetryOptions"] == {"DurationInSeconds": 7}
    assert updated["S3DestinationDescription"] == s3 | {"CompressionFormat": "GZIP"}
    unchanged = {key: value for key, value in description.items() if key not in ("RetryOptions", "S3DestinationDescription")}
    assert {key: updated[key] for key in unchanged} == unchanged


def test_an_updated_endpoint_gets_what_comes_next(delivering, receiver, authority, name):
    firehose = make(delivering, name, HttpEndpointDestinationConfiguration=http_configuration(name, receiver.url))
    put(firehose, name, b"first")
    harness.eventually(lambda: receiver.records() == [b"first"])
    other = HttpEndpoint(authority)
    try:
        version, found = destination(firehose, name)
        firehose.update_destination(DeliveryStreamName=name, CurrentDeliveryStreamVersionId=version, DestinationId=found["DestinationId"],
                                    HttpEndpointDestinationUpdate={"EndpointConfiguration": {"Url": other.url, "AccessKey": "other"}})
        put(firehose, name, b"second")
        harness.eventually(lambda: b"second" in other.records())
        assert {request["headers"]["x-amz-firehose-access-key"] for request in other.requests} == {"other"}
        assert receiver.records() == [b"first"]
        # The update may come between the answer of the first endpoint and its commit: then it is repeated, under its id.
        assert all(records == [b"second"] or receiver.taken[id] == records for id, records in other.taken.items())
    finally:
        other.close()


@pytest.mark.parametrize("kind,change", [
    ("HttpEndpoint", {"EndpointConfiguration": {"Url": "http://127.0.0.1:1/"}}),
    ("HttpEndpoint", {"EndpointConfiguration": {"Url": "https:///"}}),
    ("HttpEndpoint", {"BufferingHints": {"SizeInMBs": 1}}),
    ("HttpEndpoint", {"SecretsManagerConfiguration": {"Enabled": True, "SecretARN": "arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}}),
    ("Splunk", {"HECEndpoint": "http://127.0.0.1:1"}),
    ("Splunk", {"HECToken": ""}),
    ("Splunk", {"HECAcknowledgmentTimeoutInSeconds": 601}),
    ("Amazonopensearchservice", {"DomainARN": DOMAIN}),
    ("Amazonopensearchservice", {"IndexName": "Capital"}),
    ("Elasticsearch", {"VpcConfiguration": {"SubnetIds": ["s"], "RoleARN": ROLE, "SecurityGroupIds": ["g"]}}),
    ("AmazonOpenSearchServerless", {"RetryOptions": {"DurationInSeconds": 7201}}),
])
def test_what_cannot_be_configured_is_a_declared_error(delivering, name, kind, change):
    configuration = CONFIGURATIONS[kind](name) | change
    code, status, message = harness.refusal(lambda: make(delivering, name, **{f"{kind}DestinationConfiguration": configuration}))
    assert code in ("InvalidArgumentException", "ValidationException") and status == 400 and message
    assert harness.refusal(lambda: destination(delivering.client("firehose"), name))[0] == "ResourceNotFoundException"


def test_destinations_that_are_not_there_say_so(delivering, name):
    iceberg = {"RoleARN": ROLE, "CatalogConfiguration": {}, "S3Configuration": backup(name)}
    redshift = {"RoleARN": ROLE, "ClusterJDBCURL": "jdbc:redshift://cluster.redshift.amazonaws.com:5439/db", "CopyCommand": {"DataTableName": "t"},
                "S3Configuration": backup(name)}
    snowflake = {"AccountUrl": "account.snowflakecomputing.com", "Database": "d", "Schema": "s", "Table": "t", "RoleARN": ROLE,
                 "S3Configuration": backup(name)}
    for kind, configuration in {"Iceberg": iceberg, "Redshift": redshift, "Snowflake": snowflake}.items():
        code, _, message = harness.refusal(lambda: make(delivering, name, **{f"{kind}DestinationConfiguration": configuration}))
        assert code == "InvalidArgumentException" and kind in message
