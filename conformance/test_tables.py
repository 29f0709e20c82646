"""Tables: what boto3 sees of items, conditions, indexes and transactions. The same calls go to moto, another implementation of DynamoDB,
and the answers must be the same."""

import concurrent.futures
import decimal
import itertools
import json
import os
import urllib.request

import boto3
import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto import mock_aws

import cbor
from harness import REGION, eventually

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
        with passing():
            yield Both(dynamodb, theirs)


def passing():
    import contextlib
    return contextlib.nullcontext()


def table_of(client, *, range_key=False, indexes=(), **more):
    name = f"table-{os.getpid()}-{next(COUNT)}"
    create(client, name, range_key=range_key, indexes=indexes, **more)
    return name


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
