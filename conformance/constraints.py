"""Requests that break one constraint of a service model each, made from botocore's copy of the model: independent of the
code that the server makes from the same model."""

import copy
import datetime
import re

ARN = "arn:aws:kinesis:us-west-2:000000000000:"
# What fits the patterns of the kinesis model; every other text has none.
FITTING = {
    "StreamARN": ARN + "stream/x", "ResourceARN": ARN + "stream/x", "QueueARN": ARN + "queue/x", "ConsumerARN": ARN + "stream/x/consumer/y:1",
    "ChannelARN": ARN + "channel/x", "RoleARN": "arn:aws:iam::000000000000:role/x", "BucketARN": "arn:aws:s3:::xyz",
    "GSRSchemaARN": "arn:aws:glue:us-west-2:000000000000:schema/x/y", "ExpectedBucketOwner": "0" * 12,
    "TableBucketARN": "arn:aws:s3tables:us-west-2:000000000000:bucket/xyz",
    "StreamId": "a" * 20 + "-abc", "HashKey": "0", "SequenceNumber": "0",
}
ABSENT = object()


def fitting(shape):
    """A value that satisfies the shape, with all members."""
    kind, metadata = shape.type_name, shape.metadata
    if kind == "structure":
        return {name: fitting(member) for name, member in shape.members.items()}
    if kind == "list":
        return [fitting(shape.member) for _ in range(max(1, metadata.get("min", 1)))]
    if kind == "map":
        return {"k": fitting(shape.value)}
    if kind == "string":
        text = metadata["enum"][0] if "enum" in metadata else FITTING.get(shape.name, "x")
        assert fits(text, metadata.get("pattern")), shape.name
        return text
    if kind in ("integer", "long"):
        return metadata.get("min", 1)
    return {"boolean": True, "blob": b"x", "timestamp": datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)}[kind]


def fits(text, pattern):
    return pattern is None or re.fullmatch(pattern, text) is not None


def wrong_kind(shape):
    return {"structure": "x", "list": {"a": 1}, "map": ["x"], "string": 5, "integer": "x", "long": "x", "boolean": "yes", "blob": 5,
            "timestamp": ["x"]}[shape.type_name]


class Violation:
    """A request that is wrong in one place, and how the server is to say so."""

    def __init__(self, name, arguments, code, words):
        self.name, self.arguments, self.code, self.words = name, arguments, code, words


def put(document, path, value):
    """A copy of the document with another value at a path."""
    document = copy.deepcopy(document)
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is ABSENT:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def said(path):
    """A path in AWS's words."""
    words = []
    for step in path:
        words.append(f"{step + 1}.member" if isinstance(step, int) else step[0].lower() + step[1:])
    return ".".join(words)


def length_violations(shape, bytes_max):
    """Values that are too short or too long, with the constraint that they break."""
    metadata, kind = shape.metadata, shape.type_name
    least, most = metadata.get("min", 0), metadata.get("max")
    if least > 0:
        short = {"string": "x" * (least - 1), "blob": b"x" * (least - 1), "list": [], "map": {}}[kind]
        yield short, f"Member must have length greater than or equal to {least}"
    if most is not None and most < bytes_max:
        if kind == "list":
            long = [fitting(shape.member)] * (most + 1)
        elif kind == "map":
            long = {f"k{n}": fitting(shape.value) for n in range(most + 1)}
        else:
            long = "x" * (most + 1) if kind == "string" else b"x" * (most + 1)
        yield long, f"Member must have length less than or equal to {most}"


def broken(shape, bytes_max):
    """Values that break one constraint of a shape each, with the constraint in AWS's words."""
    metadata, kind = shape.metadata, shape.type_name
    if kind in ("string", "blob", "list", "map"):
        yield from length_violations(shape, bytes_max)
    if kind in ("integer", "long"):
        if "min" in metadata:
            yield metadata["min"] - 1, f"Member must have value greater than or equal to {metadata['min']}"
        if "max" in metadata:
            yield metadata["max"] + 1, f"Member must have value less than or equal to {metadata['max']}"
    if "enum" in metadata:
        yield "no such value", f"Member must satisfy enum value set: [{', '.join(metadata['enum'])}]"
    if "pattern" in metadata:
        candidates = (start.ljust(metadata.get("min", 1), "!") for start in (" !", ":*"))
        text = next(text for text in candidates if not fits(text, metadata["pattern"]))
        yield text, f"Member must satisfy regular expression pattern: {metadata['pattern']}"


def walk(shape, path, bytes_max):
    """All (path, value, code, words) that are wrong below a shape."""
    if path:
        name = said(path)
        for value, constraint in broken(shape, bytes_max):
            yield path, value, "ValidationException", f"at '{name}' failed to satisfy constraint: {constraint}"
        yield path, wrong_kind(shape), "SerializationException", name
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if name in shape.required_members:
                words = f"Value null at '{said([*path, name])}' failed to satisfy constraint: Member must not be null"
                yield [*path, name], ABSENT, "ValidationException", words
                yield [*path, name], None, "ValidationException", words
            yield from walk(member, [*path, name], bytes_max)
    if shape.type_name == "list":
        yield [*path, 0], None, "SerializationException", said([*path, 0])
        yield from walk(shape.member, [*path, 0], bytes_max)
    if shape.type_name == "map":
        for key, constraint in broken(shape.key, bytes_max):
            yield path, {key: fitting(shape.value)}, "ValidationException", f"at '{said(path)}' failed to satisfy constraint: Map keys must satisfy constraint: [{constraint}"
        for value, constraint in broken(shape.value, bytes_max):
            yield path, {"k": value}, "ValidationException", constraint


def violations(shape, bytes_max=2**20):
    """Every constraint of a request broken once; texts longer than `bytes_max` are left out."""
    whole = fitting(shape)
    for path, value, code, words in walk(shape, [], bytes_max):
        name = f"{said(path)}: {'absent' if value is ABSENT else repr(value)[:40]}"
        yield Violation(name, put(whole, path, value), code, words)
