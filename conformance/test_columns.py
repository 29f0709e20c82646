"""The program sql-worker over its pipes: files that pyarrow and duckdb read, records that do not fit, and a door that is locked."""

import datetime
import decimal
import io
import json
import os
import pathlib
import random
import struct
import subprocess

import duckdb
import pyarrow.orc
import pyarrow.parquet
import pytest

import harness

COLUMNS = [("id", "bigint"), ("name", "string"), ("price", "decimal(12,3)"), ("ratio", "double"), ("small", "smallint"), ("ok", "boolean"), ("day", "date"),
           ("at", "timestamp"), ("raw", "binary"), ("code", "varchar(4)"), ("tags", "array<string>"), ("counts", "map<string,int>"),
           ("place", "struct<city:string,spot:struct<x:double,y:double>>")]
FLAT = [(name, kind) for name, kind in COLUMNS if "<" not in kind and "decimal" not in kind]


def program():
    """The program: SIGHTGLASS_SQL_WORKER, else the one beside the server under test."""
    named = os.environ.get("SIGHTGLASS_SQL_WORKER")
    return pathlib.Path(named) if named else pathlib.Path(harness.binary()).parent / "sql-worker"


def frame(kind, body=b""):
    return struct.pack("<IB", len(body) + 1, kind) + body


def exactly(stream, count):
    data = stream.read(count)
    assert len(data) == count, "the worker ended"
    return data


class Worker:
    def __init__(self):
        if not program().is_file():
            pytest.skip(f"skipped: no {program()}: make sql builds it")
        self.child = subprocess.Popen([program()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, cwd="/")
        kind, body = self.message()
        assert kind == 1 and struct.unpack_from("<I", body) == (1,)
        self.lockdown = body[4:].decode()

    def message(self):
        length, kind = struct.unpack("<IB", exactly(self.child.stdout, 5))
        return kind, exactly(self.child.stdout, length - 1)

    def convert(self, columns, records, output, source=None):
        """The file, its rows, and what was rejected: place, kind, reason. Records must fit the pipe's buffers or the worker must not answer before the end."""
        job = {"columns": [{"name": name, "hive": kind} for name, kind in columns], "output": output,
               "input": source or {"OpenX": {"case_insensitive": True, "dots_to_underscores": False, "mappings": {}}}}
        stdin = self.child.stdin
        stdin.write(frame(1, json.dumps(job).encode()))
        records = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
        body = struct.pack("<I", len(records)) + b"".join(struct.pack("<I", len(record)) for record in records) + b"".join(records)
        stdin.write(frame(2, body) + frame(3))
        stdin.flush()
        file, rejected = b"", []
        while True:
            kind, body = self.message()
            if kind == 3:
                file += body
            elif kind == 2:
                rejected.append((struct.unpack_from("<I", body)[0], body[4], body[5:].decode()))
            else:
                assert kind == 4, body
                return file, struct.unpack("<Q", body)[0], rejected

    def stop(self):
        self.child.stdin.close()
        return self.child.wait(10)


@pytest.fixture
def worker():
    started = Worker()
    yield started
    assert started.stop() == 0


def parquet(compression="Snappy", **more):
    return {"Parquet": dict({"compression": compression, "dictionary": False, "page_bytes": 1 << 20, "row_group_bytes": 1 << 28, "version_2": False}, **more)}


def orc(compression):
    return {"Orc": {"compression": compression, "stripe_bytes": 1 << 26}}


def rows(count):
    random.seed(5)
    text = lambda: "".join(random.choice("abc öß\"\\\n😀") for _ in range(random.randint(0, 12)))
    maybe = lambda value: value if random.random() < 0.8 else None
    for n in range(count):
        day = datetime.date(2020, 1, 1) + datetime.timedelta(days=random.randint(0, 3000))
        at = datetime.datetime(2020, 1, 1) + datetime.timedelta(microseconds=random.randint(0, 10**15))
        yield {"id": n, "name": maybe(text()), "price": maybe(decimal.Decimal(random.randint(-10**11, 10**11)).scaleb(-3)), "ratio": maybe(random.random()),
               "small": maybe(random.randint(-32768, 32767)), "ok": maybe(random.random() < 0.5), "day": maybe(day), "at": maybe(at), "raw": maybe(random.randbytes(5)),
               "code": maybe("abcd"), "tags": maybe([maybe(text()) for _ in range(random.randint(0, 3))]), "counts": maybe({f"k{k}": maybe(k) for k in range(random.randint(0, 3))}),
               "place": maybe({"city": maybe(text()), "spot": maybe({"x": maybe(1.5), "y": None})})}


def as_json(row):
    def plain(value):
        if isinstance(value, bytes):
            import base64
            return base64.b64encode(value).decode()
        if isinstance(value, datetime.datetime):
            return value.isoformat(timespec="microseconds") + "Z"
        if isinstance(value, datetime.date):
            return value.isoformat()
        return str(value)
    return json.dumps({key: value for key, value in row.items() if value is not None or key != "name"}, default=plain, ensure_ascii=False).encode()


def as_pyarrow(row):
    """Maps come as lists of pairs."""
    return {key: list(value.items()) if key == "counts" and value is not None else value for key, value in row.items()}


@pytest.mark.parametrize("options", [{}, {"dictionary": True}, {"version_2": True, "page_bytes": 1 << 16}, {"compression": "Gzip"}, {"compression": "Zstd"}, {"compression": "None"}])
def test_every_type_is_read_back_by_pyarrow_and_duckdb(worker, tmp_path, options):
    wanted = list(rows(3000))
    file, count, rejected = worker.convert(COLUMNS, [as_json(row) for row in wanted], parquet(**options))
    assert (count, rejected) == (3000, [])
    table = pyarrow.parquet.read_table(io.BytesIO(file))
    assert table.to_pylist() == [as_pyarrow(row) for row in wanted]
    path = tmp_path / "x.parquet"
    path.write_bytes(file)
    read = duckdb.sql(f"select id, name, price, ok, day, \"at\", tags, place.spot.x, counts['k1'] from '{path}' order by id").fetchall()
    for row, (number, name, price, ok, day, at, tags, x, k1) in zip(wanted, read, strict=True):
        spot = (row["place"] or {}).get("spot") or {}
        assert (number, name, price, ok, day, at, tags, x) == (row["id"], row["name"], row["price"], row["ok"], row["day"], row["at"], row["tags"], spot.get("x"))
        assert k1 == (row["counts"] or {}).get("k1")


@pytest.mark.parametrize("compression", ["None", "Snappy", "Gzip"])
def test_flat_tables_are_read_back_from_orc(worker, compression):
    wanted = list(rows(3000))
    file, count, rejected = worker.convert(FLAT, [as_json(row) for row in wanted], orc(compression))
    assert (count, rejected) == (3000, [])
    names = [name for name, _ in FLAT]
    assert pyarrow.orc.read_table(io.BytesIO(file)).to_pylist() == [{name: row[name] for name in names} for row in wanted]


def test_records_that_do_not_fit_come_back_alone(worker):
    records = [{"id": 1}, {"id": "x"}, b"{", b"[]", {"tags": "no list"}, b'{"id":2}{"id":3}', {"day": "2026-13-01"}]
    file, count, rejected = worker.convert(COLUMNS, records, parquet())
    assert count == 3 and pyarrow.parquet.read_table(io.BytesIO(file))["id"].to_pylist() == [1, 2, 3]
    assert [(place, kind) for place, kind, _ in rejected] == [(1, 1), (2, 0), (3, 1), (4, 1), (6, 1)]
    assert "id" in rejected[0][2] and "2026-13-01" in rejected[4][2]


def test_the_door_is_locked(worker):
    """What the kernel says of the process once it is ready: system calls are filtered, privileges are gone for good, memory and files have their limits."""
    assert "seccomp" in worker.lockdown
    pid = worker.child.pid
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    worker.convert([("a", "int")], [{"a": 1}], parquet())
