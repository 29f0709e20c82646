"""Tables: what boto3 sees of items, conditions, indexes and transactions. The same calls go to moto, another implementation of DynamoDB,
and the answers must be the same."""

import decimal
import itertools
import json
import os
import re
import threading
import urllib.request
import zlib

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

import harness
from harness import REGION

COUNT = itertools.count(1)


class Both:
    """Sends a call to the server and to moto, and compares what they answer."""

    def __init__(self, ours, theirs):
        self.ours, self.theirs = ours, theirs

    def __getattr__(self, name):
        def call(**arguments):
            ours = outcome(self.ours, name, arguments)
            try:
                theirs = outcome(self.theirs, name, arguments)
            except (AttributeError, KeyError, ValueError):
                # moto breaks over some wrong requests.
                assert ours.get("error") == "ValidationException", (name, arguments, ours)
                return ours
            assert ours == theirs, (name, arguments, "server:", ours, "moto:", theirs)
            return ours
        return call


def outcome(client, name, arguments):
    try:
        answer = getattr(client, name)(**arguments)
    except ClientError as error:
        # Words differ between implementations; what a program looks at does not.
        response = error.response
        return {"error": response["Error"]["Code"], "Item": response.get("Item"),
                "reasons": [reason.get("Code") for reason in response.get("CancellationReasons", [])]}
    answer.pop("ResponseMetadata")
    if "ReturnConsumedCapacity" not in arguments:
        # moto tells these unasked.
        answer.pop("ConsumedCapacity", None)
        answer.pop("ItemCollectionMetrics", None)
    if not answer.get("Attributes", True):
        del answer["Attributes"]
    return plain(answer)


def plain(value):
    """Sets in their order, numbers by their value."""
    if isinstance(value, dict):
        if set(value) in ({"SS"}, {"NS"}, {"BS"}):
            (kind, items), = value.items()
            return {kind: sorted(items, key=decimal.Decimal if kind == "NS" else None)}
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def dynamodb(server):
    return server.client("dynamodb")


@pytest.fixture
def both(dynamodb):
    with mock_aws():
        # moto stands in for AWS alone; what goes to the server passes.
        theirs = boto3.client("dynamodb", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="y")
        yield Both(dynamodb, theirs)


def create(client, name, *, range_key=False, indexes=(), **more):
    keys = [{"AttributeName": "pk", "KeyType": "HASH"}]
    attributes = {"pk": "S"}
    if range_key:
        keys.append({"AttributeName": "sk", "KeyType": "RANGE"})
        attributes["sk"] = "N"
    gsis = []
    for index, hashed, ranged, projection in indexes:
        attributes.update({hashed: "S", **({ranged: "S"} if ranged else {})})
        gsis.append({"IndexName": index, "Projection": projection, "KeySchema":
                     [{"AttributeName": hashed, "KeyType": "HASH"}] + ([{"AttributeName": ranged, "KeyType": "RANGE"}] if ranged else [])})
    if gsis:
        more["GlobalSecondaryIndexes"] = gsis
    return client.create_table(TableName=name, KeySchema=keys, BillingMode="PAY_PER_REQUEST",
                               AttributeDefinitions=[{"AttributeName": n, "AttributeType": t} for n, t in attributes.items()], **more)


def make(both, **arguments):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    for client in (both.ours, both.theirs):
        create(client, name, **arguments)
    return name


S = lambda text: {"S": text}
N = lambda number: {"N": str(number)}


def test_conditions_hold_as_they_do_elsewhere(both):
    table = make(both)
    item = {"pk": S("a"), "s": S("text"), "n": N("12.5"), "b": {"B": b"\x00\xff"}, "t": {"BOOL": True}, "z": {"NULL": True},
            "l": {"L": [N(1), S("x")]}, "m": {"M": {"k": N(7), "deep": {"L": [{"M": {"x": S("y")}}]}}},
            "ss": {"SS": ["a", "b"]}, "ns": {"NS": ["1", "2"]}}
    both.put_item(TableName=table, Item=item)
    values = {":s": S("text"), ":n": N("12.50"), ":low": N(-1), ":high": N("1e2"), ":x": S("x"), ":a": S("a"), ":te": S("te"), ":one": N(1), ":kind": S("L"),
              ":ss": {"SS": ["b", "a"]}, ":t": {"BOOL": True}, ":seven": N(7), ":zz": S("zz")}
    for condition in ["s = :s", "s <> :s", "n = :n", "n < :high", "n > :high", "n >= :n", "n <= :low", "n BETWEEN :low AND :high", "s IN (:x, :s)", "s IN (:x, :a)",
                      "attribute_exists(m.k)", "attribute_exists(m.q)", "attribute_not_exists(m.deep[0].x)", "attribute_exists(m.deep[1])",
                      "attribute_type(l, :kind)", "begins_with(s, :te)", "begins_with(s, :x)", "contains(s, :x)", "contains(l, :one)", "contains(l, :x)",
                      "contains(ss, :a)", "contains(ns, :one)", "contains(ss, :zz)", "size(s) = :seven", "size(l) > :one", "ss = :ss", "t = :t", "m.k = :seven",
                      "m.deep[0].x = :x", "NOT s = :s", "s = :s AND n = :n", "s = :x OR n = :n", "s = :x OR n = :x AND t = :t",
                      "(s = :x OR n = :n) AND NOT t <> :t", "absent = :s", "absent < :n", "s = n", "l[1] = :x"]:
        used = {key: value for key, value in values.items() if key in condition.replace(")", " ").replace(",", " ").split() or f"{key}," in condition}
        used = {key: value for key, value in values.items() if any(word.strip("(),") == key for word in condition.split())}
        arguments = {"ExpressionAttributeValues": used} if used else {}
        both.put_item(TableName=table, Item=item, ConditionExpression=condition, ReturnValuesOnConditionCheckFailure="ALL_OLD", **arguments)


def test_the_older_conditions_hold_as_they_do_elsewhere(both):
    table = make(both)
    item = {"pk": S("a"), "s": S("text"), "n": N(5), "ss": {"SS": ["a", "b"]}}
    both.put_item(TableName=table, Item=item, Expected={"pk": {"Exists": False}})
    both.put_item(TableName=table, Item=item, Expected={"pk": {"Exists": False}})
    compare = lambda operator, *values: {"ComparisonOperator": operator, "AttributeValueList": list(values)}
    for expected in [{"n": {"Value": N("5.0")}}, {"n": {"Value": N(6)}}, {"n": {"Exists": True, "Value": N(5)}}, {"q": {"Exists": False}},
                     {"n": compare("EQ", N(5))}, {"n": compare("NE", N(5))}, {"n": compare("LT", N(6))}, {"n": compare("GE", N(6))},
                     {"n": compare("BETWEEN", N(1), N(9))}, {"n": compare("IN", N(1), N(5))}, {"s": compare("BEGINS_WITH", S("te"))},
                     {"s": compare("CONTAINS", S("ex"))}, {"s": compare("NOT_CONTAINS", S("ex"))}, {"ss": compare("CONTAINS", S("a"))},
                     {"q": {"ComparisonOperator": "NULL"}}, {"n": {"ComparisonOperator": "NOT_NULL"}}, {"q": {"ComparisonOperator": "NOT_NULL"}},
                     {"n": {"Value": N(5)}, "s": {"Value": S("text")}}, {"n": {"Value": N(6)}, "s": {"Value": S("text")}}]:
        both.put_item(TableName=table, Item=item, Expected=expected)
    # moto does not know the operator.
    both.ours.put_item(TableName=table, Item=item, Expected={"n": {"Value": N(6)}, "s": {"Value": S("text")}}, ConditionalOperator="OR")


def test_updates_do_as_they_do_elsewhere(both):
    table = make(both)
    key = {"pk": S("a")}
    start = {"pk": S("a"), "n": N(10), "s": S("x"), "l": {"L": [N(1), N(2), N(3)]}, "m": {"M": {"k": N(1), "o": S("p")}}, "ss": {"SS": ["a", "b"]}}
    values = {":one": N(1), ":l": {"L": [N(9)]}, ":s": S("new"), ":ss": {"SS": ["b", "c"]}, ":big": N("100000000000000000000"), ":m": {"M": {"q": N(2)}}, ":ab": {"SS": ["a", "b"]}}
    for update in ["SET n = n + :one", "SET n = n - :one, s = :s", "SET fresh = :m", "SET m.k = :s", "SET m.fresh = :one", "SET l[1] = :s", "SET l[9] = :s",
                   "SET l = list_append(l, :l)", "SET l = list_append(:l, l)", "SET q = if_not_exists(q, :one)", "SET n = if_not_exists(n, :one) + :one",
                   "SET q = n", "REMOVE s", "REMOVE l[0], l[2]", "REMOVE m.k, q", "ADD n :one", "ADD q :one", "ADD ss :ss", "ADD qs :ss", "DELETE ss :ss",
                   "DELETE ss :ab", "DELETE q :ss", "SET s = :s REMOVE m ADD n :big DELETE ss :ss", "SET n = n + :big", "SET s = m, m = s", "SET absent.x = :one",
                   "SET n = s + :one", "SET q = absent", "ADD s :one", "set s = :s remove n"]:
        used = {name: value for name, value in values.items() if any(word.strip("(),") == name for word in update.split())}
        for returned in ["ALL_NEW", "ALL_OLD", "UPDATED_NEW", "UPDATED_OLD"]:
            both.put_item(TableName=table, Item=start)
            arguments = {"ExpressionAttributeValues": used} if used else {}
            if returned.startswith("UPDATED") and ("[" in update or "." in update):
                continue  # moto answers whole attributes there.
            both.update_item(TableName=table, Key=key, UpdateExpression=update, ReturnValues=returned, **arguments)
        both.get_item(TableName=table, Key=key)
    both.update_item(TableName=table, Key={"pk": S("new")}, UpdateExpression="SET n = :n", ExpressionAttributeValues={":n": N(1)}, ReturnValues="ALL_NEW")
    # moto needs an expression.
    both.ours.update_item(TableName=table, Key={"pk": S("bare")})
    assert both.ours.get_item(TableName=table, Key={"pk": S("bare")})["Item"] == {"pk": S("bare")}


def test_the_older_updates_do_as_they_do_elsewhere(both):
    table = make(both)
    key = {"pk": S("a")}
    start = {"pk": S("a"), "n": N(10), "s": S("x"), "ss": {"SS": ["a", "b"]}}
    for updates in [{"n": {"Action": "PUT", "Value": N(3)}, "q": {"Action": "PUT", "Value": S("y")}}, {"n": {"Action": "ADD", "Value": N(-4)}},
                    {"q": {"Action": "ADD", "Value": N(4)}}, {"ss": {"Action": "ADD", "Value": {"SS": ["c"]}}}, {"ss": {"Action": "DELETE", "Value": {"SS": ["a"]}}},
                    {"s": {"Action": "DELETE"}}, {"q": {"Action": "DELETE"}}, {"s": {"Value": S("default")}}]:
        both.put_item(TableName=table, Item=start)
        both.update_item(TableName=table, Key=key, AttributeUpdates=updates, ReturnValues="ALL_NEW")
        both.update_item(TableName=table, Key=key, AttributeUpdates=updates, Expected={"n": {"Value": N(99)}})


def pages(both, operation, **arguments):
    """The items of all pages. Where a page ends is left to each: with a limit that is just met, moto says that there is no more."""
    def all_of(client):
        seen, asked = [], dict(arguments)
        while True:
            page = getattr(client, operation)(**asked)
            seen += page.get("Items", [page["Count"]] if page["Count"] else [])
            if "LastEvaluatedKey" not in page:
                return seen
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]
    ours, theirs = all_of(both.ours), all_of(both.theirs)
    assert ours == theirs, (operation, arguments, ours, theirs)


def test_queries_answer_as_they_do_elsewhere(both):
    table = make(both, range_key=True, indexes=[("by-owner", "owner", None, {"ProjectionType": "ALL"}), ("by-kind", "kind", "owner", {"ProjectionType": "KEYS_ONLY"}),
                                               ("some", "owner", "kind", {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["v"]})])
    for i in range(20):
        item = {"pk": S(f"p{i % 2}"), "sk": N(i - 5), "v": N(i * i), "kind": S("even" if i % 2 == 0 else "odd")}
        if i % 3:
            item["owner"] = S(f"w{i:02}")
        both.put_item(TableName=table, Item=item)
    base = {"TableName": table, "ExpressionAttributeValues": {":p": S("p0")}}
    for forward in (True, False):
        pages(both, "query", KeyConditionExpression="pk = :p", ScanIndexForward=forward, **base)
        for condition, more in [("sk = :a", {":a": N(1)}), ("sk < :a", {":a": N(1)}), ("sk <= :a", {":a": N(1)}), ("sk > :a", {":a": N(1)}), ("sk >= :a", {":a": N(1)}),
                                ("sk BETWEEN :a AND :b", {":a": N("-3"), ":b": N("3.0")})]:
            pages(both, "query", TableName=table, KeyConditionExpression=f"pk = :p AND {condition}", ExpressionAttributeValues={":p": S("p0"), **more},
                  ScanIndexForward=forward)
        pages(both, "query", TableName=table, KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": S("p1"), ":v": N(100)}, FilterExpression="v > :v",
              ScanIndexForward=forward)
    both.query(TableName=table, KeyConditionExpression="pk = :p", Limit=4, **{"ExpressionAttributeValues": {":p": S("p0")}})
    pages(both, "query", TableName=table, KeyConditionExpression="pk = :p", Limit=3, ExpressionAttributeValues={":p": S("p0")}, Select="COUNT")
    pages(both, "query", TableName=table, KeyConditionExpression="pk = :p", ProjectionExpression="v, #k", ExpressionAttributeNames={"#k": "kind"},
          ExpressionAttributeValues={":p": S("p0")})
    pages(both, "query", TableName=table, KeyConditions={"pk": {"ComparisonOperator": "EQ", "AttributeValueList": [S("p0")]},
                                                         "sk": {"ComparisonOperator": "GT", "AttributeValueList": [N(0)]}})
    for index, condition, values in [("by-owner", "#o = :o", {":o": S("w04")}), ("by-kind", "kind = :o", {":o": S("odd")}),
                                     ("by-kind", "kind = :o AND begins_with(#o, :w)", {":o": S("odd"), ":w": S("w1")}), ("some", "#o = :o", {":o": S("w05")})]:
        names = {"ExpressionAttributeNames": {"#o": "owner"}} if "#o" in condition else {}
        pages(both, "query", TableName=table, IndexName=index, KeyConditionExpression=condition, ExpressionAttributeValues=values, **names)
        pages(both, "query", TableName=table, IndexName=index, KeyConditionExpression=condition, ExpressionAttributeValues=values, Limit=2, **names)
    for wrong in [{"KeyConditionExpression": "sk = :p"}, {"KeyConditionExpression": "pk > :p"}, {"KeyConditionExpression": "pk = :p AND v = :p"}]:
        both.query(**base, **wrong)
    # moto says that the table is not there.
    refused = outcome(both.ours, "query", dict(base, IndexName="nowhere", KeyConditionExpression="pk = :p"))
    assert refused["error"] == "ValidationException"


def by_key(items):
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=str))


def scan(client, **arguments):
    """Every item, over all pages and segments."""
    found, parts = [], arguments.pop("parts", 1)
    for part in range(parts):
        asked = dict(arguments, **({"Segment": part, "TotalSegments": parts} if parts > 1 else {}))
        while True:
            page = client.scan(**asked)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]
    return found


def test_scans_find_every_item_once(both):
    table = make(both, range_key=True, indexes=[("by-owner", "owner", None, {"ProjectionType": "KEYS_ONLY"})])
    for i in range(60):
        item = {"pk": S(f"p{i % 17}"), "sk": N(i), "v": N(i % 5), **({"owner": S(f"w{i % 4}")} if i % 2 else {})}
        both.put_item(TableName=table, Item=item)
    filtered = {"FilterExpression": "v = :v", "ExpressionAttributeValues": {":v": N(3)}}
    older = {"ScanFilter": {"v": {"ComparisonOperator": "GE", "AttributeValueList": [N(3)]}}}
    for arguments in [{}, {"Limit": 7}, {"parts": 4}, {"parts": 3, "Limit": 2}, filtered, dict(filtered, Limit=5), older, {"IndexName": "by-owner"},
                      {"IndexName": "by-owner", "Limit": 3}, {"ProjectionExpression": "v"}]:
        ours, theirs = (by_key(scan(client, TableName=table, **dict(arguments))) for client in (both.ours, both.theirs))
        assert ours == theirs and ours, arguments


def test_batches_and_transactions_do_as_they_do_elsewhere(both):
    table, other = make(both), make(both, range_key=True)
    puts = [{"PutRequest": {"Item": {"pk": S(f"k{i}"), "v": N(i)}}} for i in range(20)]
    both.batch_write_item(RequestItems={table: puts, other: [{"PutRequest": {"Item": {"pk": S("a"), "sk": N(1)}}}]})
    both.batch_write_item(RequestItems={table: [{"DeleteRequest": {"Key": {"pk": S("k3")}}}, {"PutRequest": {"Item": {"pk": S("k4"), "v": N(44)}}}]})
    both.batch_write_item(RequestItems={table: [puts[0], puts[0]]})
    wanted = {table: {"Keys": [{"pk": S(f"k{i}")} for i in (3, 4, 5)]}, other: {"Keys": [{"pk": S("a"), "sk": N(1)}]}}
    ours, theirs = (client.batch_get_item(RequestItems=wanted)["Responses"] for client in (both.ours, both.theirs))
    assert {name: by_key(items) for name, items in ours.items()} == {name: by_key(items) for name, items in theirs.items()}
    check = {"ConditionCheck": {"TableName": other, "Key": {"pk": S("a"), "sk": N(1)}, "ConditionExpression": "attribute_exists(pk)"}}
    put = {"Put": {"TableName": table, "Item": {"pk": S("t"), "v": N(1)}, "ConditionExpression": "attribute_not_exists(pk)"}}
    update = {"Update": {"TableName": table, "Key": {"pk": S("k5")}, "UpdateExpression": "SET v = v + :one", "ExpressionAttributeValues": {":one": N(1)}}}
    delete = {"Delete": {"TableName": table, "Key": {"pk": S("k6")}}}
    both.transact_write_items(TransactItems=[check, put, update, delete])
    # The same again: the put's condition fails, so nothing happens.
    both.transact_write_items(TransactItems=[check, put, update])
    both.transact_write_items(TransactItems=[update, update])
    for key in ("t", "k5", "k6"):
        both.get_item(TableName=table, Key={"pk": S(key)})
    both.transact_get_items(TransactItems=[{"Get": {"TableName": table, "Key": {"pk": S(key)}}} for key in ("t", "k6", "k5")])


def test_wrong_requests_get_the_same_errors(both):
    table = make(both, range_key=True)
    key, item = {"pk": S("a"), "sk": N(1)}, {"pk": S("a"), "sk": N(1), "v": N(1)}
    both.put_item(TableName=table, Item=item)
    for arguments in [{"Item": {"pk": S("a")}}, {"Item": {"pk": N(1), "sk": N(1)}}, {"Item": {"pk": S(""), "sk": N(1)}}, {"Item": {**item, "x": N("one")}},
                      
                      {"Item": {**item, "x": S("y" * 410_000)}}, {"Item": item, "ConditionExpression": "v = :q"},
                      {"Item": item, "ConditionExpression": "#v = v"},
                      {"Item": item, "ReturnValues": "ALL_NEW"},
                      {"Item": item, "ConditionExpression": "nothing(v)"}]:
        both.put_item(TableName=table, **arguments)
    # moto takes these.
    for arguments in [{"Item": item, "ConditionExpression": "attribute_exists(v)", "Expected": {"v": {"Exists": False}}},
                      {"Item": {**item, "x": {"SS": ["a", "a"]}}}, {"Item": {**item, "x": N("1" * 39)}}, {"Item": {**item, "x": N("1e126")}},
                      {"Item": item, "ConditionExpression": "v ="},
                      {"Item": item, "ConditionExpression": "attribute_exists(v)", "ExpressionAttributeValues": {":q": N(1)}}]:
        assert outcome(both.ours, "put_item", dict(arguments, TableName=table)).get("error") == "ValidationException", arguments
    for arguments in [{"UpdateExpression": "SET pk = :v"}, {"UpdateExpression": "SET v = :v SET w = :v"}, {"UpdateExpression": "SET v = :v, v = :v"},
                      {"UpdateExpression": "SET v"}, {"UpdateExpression": "PUT v = :v"}]:
        both.update_item(TableName=table, Key=key, ExpressionAttributeValues={":v": N(1)}, **arguments)
    both.get_item(TableName=table, Key={"pk": S("a")})
    assert outcome(both.ours, "get_item", dict(TableName=table, Key={"pk": S("a"), "sk": S("1")})).get("error") == "ValidationException"
    both.get_item(TableName="nowhere-at-all", Key=key)
    both.scan(TableName="nowhere-at-all")
    both.describe_table(TableName="nowhere-at-all")
    both.delete_table(TableName="nowhere-at-all")
    both.scan(TableName=table, Segment=3, TotalSegments=2)


def failure(call):
    with pytest.raises(ClientError) as failed:
        call()
    return failed.value.response


def test_a_table_describes_itself(both):
    name = make(both, range_key=True, indexes=[("by-owner", "owner", "kind", {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["v"]})])
    ours, theirs = (client.describe_table(TableName=name)["Table"] for client in (both.ours, both.theirs))
    for member in ("TableName", "TableStatus", "KeySchema", "ItemCount", "TableSizeBytes", "DeletionProtectionEnabled"):
        assert ours[member] == theirs[member], member
    assert ours["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    by_name = lambda table: sorted(table["AttributeDefinitions"], key=lambda attribute: attribute["AttributeName"])
    assert by_name(ours) == by_name(theirs)
    for member in ("IndexName", "KeySchema", "Projection", "IndexStatus"):
        assert ours["GlobalSecondaryIndexes"][0][member] == theirs["GlobalSecondaryIndexes"][0][member], member
    assert re.fullmatch(rf"arn:aws:dynamodb:{REGION}:\d{{12}}:table/{name}", ours["TableArn"])
    assert name in both.ours.list_tables()["TableNames"] or both.ours.list_tables()["LastEvaluatedTableName"]
    both.create_table(TableName=name, KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}], BillingMode="PAY_PER_REQUEST",
                      AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}])
    arn = ours["TableArn"]
    both.ours.tag_resource(ResourceArn=arn, Tags=[{"Key": "team", "Value": "doors"}, {"Key": "gone", "Value": ""}])
    both.ours.untag_resource(ResourceArn=arn, TagKeys=["gone"])
    assert both.ours.list_tags_of_resource(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "doors"}]
    on = both.ours.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True})
    assert on["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    both.ours.update_table(TableName=name, DeletionProtectionEnabled=True)
    assert failure(lambda: both.ours.delete_table(TableName=name))["Error"]["Code"] == "ValidationException"
    both.ours.update_table(TableName=name, DeletionProtectionEnabled=False)
    both.ours.delete_table(TableName=name)
    assert failure(lambda: both.ours.describe_table(TableName=name))["Error"]["Code"] == "ResourceNotFoundException"


def test_a_local_index_sorts_partitions_another_way(both):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    for client in (both.ours, both.theirs):
        client.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"}, {"AttributeName": "at", "AttributeType": "N"}],
            LocalSecondaryIndexes=[{"IndexName": "by-time", "Projection": {"ProjectionType": "ALL"},
                                    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}]}])
    for i in range(10):
        both.put_item(TableName=name, Item={"pk": S("p"), "sk": N(i), **({"at": N((i * 7) % 10)} if i != 4 else {})})
    for more in ({}, {"Limit": 4}, {"ScanIndexForward": False}):
        pages(both, "query", TableName=name, IndexName="by-time", KeyConditionExpression="pk = :p AND #t >= :t", ExpressionAttributeNames={"#t": "at"},
              ExpressionAttributeValues={":p": S("p"), ":t": N(2)}, **more)


def test_a_local_index_fetches_from_its_table_what_it_has_not(dynamodb):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    dynamodb.create_table(
        TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"}, {"AttributeName": "at", "AttributeType": "N"}],
        LocalSecondaryIndexes=[{"IndexName": "by-time", "Projection": {"ProjectionType": "KEYS_ONLY"},
                                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}]}])
    item = {"pk": S("p"), "sk": N(1), "at": N(2), "v": S("more")}
    dynamodb.put_item(TableName=name, Item=item)
    asked = dict(TableName=name, IndexName="by-time", KeyConditionExpression="pk = :p", ExpressionAttributeValues={":p": S("p")})
    assert dynamodb.query(**asked)["Items"] == [{"pk": S("p"), "sk": N(1), "at": N(2)}]
    assert dynamodb.query(**asked, Select="ALL_ATTRIBUTES")["Items"] == [item]
    assert dynamodb.query(**asked, ProjectionExpression="v")["Items"] == [{"v": S("more")}]
    assert "Items" not in dynamodb.query(**asked, Select="COUNT")


def test_consumed_capacity_is_reckoned_as_aws_does(dynamodb):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    create(dynamodb, name)
    told = lambda answer: answer["ConsumedCapacity"]["CapacityUnits"]
    item = {"pk": S("a"), "v": S("x" * 5000)}
    assert told(dynamodb.put_item(TableName=name, Item=item, ReturnConsumedCapacity="TOTAL")) == 5
    assert told(dynamodb.get_item(TableName=name, Key={"pk": S("a")}, ReturnConsumedCapacity="TOTAL")) == 1
    assert told(dynamodb.get_item(TableName=name, Key={"pk": S("a")}, ConsistentRead=True, ReturnConsumedCapacity="TOTAL")) == 2
    assert told(dynamodb.scan(TableName=name, ReturnConsumedCapacity="INDEXES")) == 1
    assert told(dynamodb.delete_item(TableName=name, Key={"pk": S("a")}, ReturnConsumedCapacity="TOTAL")) == 5


def test_errors_have_their_full_names_and_a_failed_condition_its_item(server, dynamodb):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    create(dynamodb, name)
    dynamodb.put_item(TableName=name, Item={"pk": S("a"), "b": {"B": b"\xff"}})
    seen = []
    dynamodb.meta.events.register("response-received.dynamodb", lambda response_dict, **_: seen.append(response_dict))
    refused = failure(lambda: dynamodb.put_item(TableName=name, Item={"pk": S("a")}, ConditionExpression="attribute_not_exists(pk)",
                                                ReturnValuesOnConditionCheckFailure="ALL_OLD"))
    assert refused["Error"] == {"Code": "ConditionalCheckFailedException", "Message": "The conditional request failed"}
    assert refused["Item"] == {"pk": S("a"), "b": {"B": b"\xff"}}
    body = json.loads(seen[-1]["body"])
    assert body["__type"] == "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"
    failure(lambda: dynamodb.scan(TableName="nowhere-at-all"))
    assert json.loads(seen[-1]["body"])["__type"] == "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"
    failure(lambda: dynamodb.scan(TableName=name, Segment=3, TotalSegments=2))
    assert json.loads(seen[-1]["body"])["__type"] == "com.amazon.coral.validate#ValidationException"
    dynamodb.get_item(TableName=name, Key={"pk": S("a")})
    for answer in seen:
        assert int(answer["headers"]["x-amz-crc32"]) == zlib.crc32(answer["body"])
        assert answer["headers"]["content-type"] == "application/x-amz-json-1.0"


def test_another_accounts_table_looks_like_none_and_regions_are_apart(server, dynamodb):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    create(dynamodb, name)
    dynamodb.put_item(TableName=name, Item={"pk": S("mine")})
    arn = dynamodb.describe_table(TableName=name)["Table"]["TableArn"]
    key, secret = server.make_key(account="111122223333")
    theirs = server.client("dynamodb", access_key=key, secret=secret)
    elsewhere = server.client("dynamodb", region="eu-west-1")
    for stranger in (theirs, elsewhere):
        for wanted in (name, arn):
            assert failure(lambda: stranger.get_item(TableName=wanted, Key={"pk": S("mine")}))["Error"]["Code"] == "ResourceNotFoundException"
            assert failure(lambda: stranger.delete_table(TableName=wanted))["Error"]["Code"] == "ResourceNotFoundException"
        assert failure(lambda: stranger.tag_resource(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}]))["Error"]["Code"] == "ResourceNotFoundException"
        assert name not in stranger.list_tables()["TableNames"]
        create(stranger, name)
        assert stranger.scan(TableName=name)["Count"] == 0
    assert dynamodb.scan(TableName=arn)["Count"] == 1


def test_what_was_acknowledged_is_there_after_a_kill(own_server):
    """Eight clients take leases from each other and move sums between items while the server is killed."""
    client = own_server.client("dynamodb")
    create(client, "leases")
    for i in range(8):
        client.put_item(TableName="leases", Item={"pk": S(f"k{i}"), "n": N(0), "sum": N(100)})
    acknowledged, ended = {}, threading.Event()

    def take(i):
        own, n = own_server.client("dynamodb"), 0
        try:
            while not ended.is_set():
                own.update_item(TableName="leases", Key={"pk": S(f"k{i}")}, UpdateExpression="SET n = :n", ConditionExpression="n = :old",
                                ExpressionAttributeValues={":n": N(n + 1), ":old": N(n)})
                n += 1
                acknowledged[i] = n
                other = (i + 1) % 8
                move = lambda key, by: {"Update": {"TableName": "leases", "Key": {"pk": S(f"k{key}")}, "UpdateExpression": "ADD #s :by",
                                                   "ExpressionAttributeNames": {"#s": "sum"}, "ExpressionAttributeValues": {":by": N(by)}}}
                own.transact_write_items(TransactItems=[move(i, -1), move(other, 1)])
        except Exception:
            return

    threads = [threading.Thread(target=take, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    harness.eventually(lambda: len(acknowledged) == 8 and min(acknowledged.values()) >= 5, within=60)
    own_server.kill()
    ended.set()
    for thread in threads:
        thread.join()
    own_server.restart()
    client = own_server.client("dynamodb")
    items = {item["pk"]["S"]: item for item in client.scan(TableName="leases")["Items"]}
    for i, count in acknowledged.items():
        assert int(items[f"k{i}"]["n"]["N"]) in (count, count + 1), i
    assert sum(int(item["sum"]["N"]) for item in items.values()) == 800, "half a transaction was kept"


def shown(server, **labels):
    """The values of a metric by family."""
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("client_metric") and all(f'{name}="{value}"' in line for name, value in labels.items())]
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


DATA = [{"MetricName": "Lag", "Dimensions": [{"Name": "Shard Id", "Value": "shard \"0\""}], "Unit": "Milliseconds", "Value": 5.0, "Timestamp": 1795347223},
        {"MetricName": "Lag", "Dimensions": [{"Name": "Shard Id", "Value": "shard \"0\""}], "Unit": "Milliseconds",
         "StatisticValues": {"SampleCount": 3, "Sum": 9, "Minimum": 1, "Maximum": 6}},
        {"MetricName": "Lag", "Dimensions": [{"Name": "Shard Id", "Value": "shard \"0\""}], "Unit": "Milliseconds", "Values": [2.0, 0.5], "Counts": [2, 4]}]


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json", "query"])
def test_metrics_are_shown_whatever_their_program_speaks(server, protocol, monkeypatch):
    monkeypatch.setenv("AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES", "2000")
    client = speaking(server, protocol)
    namespace = f"Test/{protocol}"
    client.put_metric_data(Namespace=namespace, MetricData=DATA)
    found = shown(server, namespace=namespace, metric="Lag", dimension_Shard_Id='shard \\"0\\"', unit="Milliseconds", account="000000000000", region=REGION)
    assert found == {"client_metric_samples_total": 10, "client_metric_sum": 20, "client_metric_minimum": 0.5, "client_metric_maximum": 6, "client_metric_last": 1}
    # Big enough to be packed.
    client.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": f"many-{i}", "Value": i} for i in range(200)])
    assert shown(server, namespace=namespace, metric="many-199")["client_metric_sum"] == 199
    wrong = failure(lambda: client.put_metric_data(Namespace=namespace, MetricData=[{"MetricName": "both", "Value": 1, "Values": [1]}]))
    assert wrong["Error"]["Code"] in ("InvalidParameterCombination", "InvalidParameterCombinationException"), wrong
    assert "mutually exclusive" in wrong["Error"]["Message"] and wrong["ResponseMetadata"]["HTTPStatusCode"] == 400
    wrong = failure(lambda: client.put_metric_data(Namespace="AWS/Kinesis", MetricData=DATA))
    assert wrong["Error"]["Code"] in ("InvalidParameterValue", "InvalidParameterValueException"), wrong
    assert "client_metric_sum" not in shown(server, namespace="AWS/Kinesis")


def speaking(server, protocol):
    """A CloudWatch client of boto3 that speaks one of the model's protocols."""
    import botocore.session
    session = botocore.session.get_session()
    loader = session.get_component("data_loader")
    original = loader.load_service_model

    def load(service, kind, **more):
        model = original(service, kind, **more)
        if service == "cloudwatch" and kind == "service-2":
            model = {**model, "metadata": {**model["metadata"], "protocol": protocol, "protocols": [protocol]}}
        return model

    loader.load_service_model = load
    client = session.create_client("cloudwatch", endpoint_url=server.url, region_name=REGION, aws_access_key_id=server.access_key, aws_secret_access_key=server.secret)
    assert client.meta.service_model.metadata["protocol"] == protocol
    return client


def test_a_packed_request_cannot_be_a_bomb(server):
    import gzip
    import botocore.auth
    import botocore.awsrequest
    import botocore.credentials
    body = gzip.compress(b"Action=PutMetricData&Namespace=" + b"x" * 50_000_000)
    request = botocore.awsrequest.AWSRequest("POST", server.url + "/", data=body, headers={
        "Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"})
    botocore.auth.SigV4Auth(botocore.credentials.Credentials(server.access_key, server.secret), "monitoring", REGION).add_auth(request)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(server.url + "/", data=body, headers=dict(request.headers), method="POST"), timeout=20)
    assert refused.value.code == 413
