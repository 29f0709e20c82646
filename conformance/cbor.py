"""CBOR as the Java SDK writes it to Kinesis: maps and lists of unknown length, times as milliseconds under tag 1. Small,
and independent of the server's own."""

import datetime
import struct


def _head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    for size, letter in ((24, "B"), (25, "H"), (26, "I"), (27, "Q")):
        if number < 1 << (8 << (size - 24)):
            return bytes([major << 5 | size]) + struct.pack(">" + letter, number)
    raise ValueError(number)


def encode(value):
    if value is None:
        return b"\xf6"
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return b"\x9f" + b"".join(map(encode, value)) + b"\xff"
    if isinstance(value, dict):
        return b"\xbf" + b"".join(encode(name) + encode(item) for name, item in value.items()) + b"\xff"
    if isinstance(value, datetime.datetime):
        return b"\xc1" + encode(round(value.timestamp() * 1000))
    raise TypeError(value)


def decode(data):
    value, rest = _item(memoryview(data))
    assert not rest, "bytes behind the document"
    return value


def _item(data):
    first, data = data[0], data[1:]
    major, info = first >> 5, first & 31
    if major == 7:
        if info == 27:
            return struct.unpack(">d", data[:8])[0], data[8:]
        return {20: False, 21: True, 22: None}[info], data
    if info < 24:
        number = info
    elif info == 31:
        number = None
    else:
        size = 1 << (info - 24)
        number, data = int.from_bytes(data[:size], "big"), data[size:]
    if major == 0:
        return number, data
    if major == 1:
        return -1 - number, data
    if major in (2, 3):
        found, data = bytes(data[:number]), data[number:]
        return found if major == 2 else found.decode(), data
    if major == 6:
        value, data = _item(data)
        return (datetime.datetime.fromtimestamp(value / 1000, datetime.timezone.utc) if number == 1 else value), data
    found = []
    count = None if number is None else number * (2 if major == 5 else 1)
    while count is None or len(found) < count:
        if count is None and data[0] == 0xFF:
            data = data[1:]
            break
        value, data = _item(data)
        found.append(value)
    return (found if major == 4 else dict(zip(found[::2], found[1::2]))), data
