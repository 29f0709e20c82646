"""Vectors of faces in a data directory: what faces.db holds, and where a vector is in any form in which a program might have written it."""

import base64
import contextlib
import errno
import os
import re
import sqlite3
import struct

PAGE = 4096  # A block of vectors begins with one page of zeros.
_ZEROS = re.compile(rb"\0{64,}")


def stored(data_dir, table="faces", blocks="blocks"):
    """The vectors of faces.db as they lie there, by the faces' ids. The server may run meanwhile."""
    with contextlib.closing(sqlite3.connect(f"file:{data_dir / 'faces.db'}?mode=ro", uri=True, timeout=30)) as db:
        sizes = dict(db.execute("SELECT id, dimensions FROM collections"))
        places = db.execute(f"SELECT collection, slot, face_id FROM {table}").fetchall()
        first = {(collection, slot): data for collection, slot, data in db.execute(f"SELECT collection, first_slot, data FROM {blocks}")}
    found = {}
    for collection, slot, face_id in places:
        start = max(begin for owner, begin in first if owner == collection and begin <= slot)
        size = 4 * sizes[collection]
        offset = PAGE + (slot - start) * size
        identity = face_id.hex()
        found["-".join((identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:]))] = first[collection, start][offset:offset + size]
    return found


def _pieces(data):
    """Twelve bytes at two places, so that it does not matter where a page ends."""
    return [data[at:at + 12] for at in (len(data) // 8, len(data) // 2)]


def forms(vector):
    """What to look for: single, double and half precision, eight bits a component, and base64 of each."""
    numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
    largest = max(abs(x) for x in numbers)
    plain = [vector, struct.pack(f"<{len(numbers)}d", *numbers), b"".join(vector[at + 2:at + 4] for at in range(0, len(vector), 4)),
             bytes(round(127 * x) & 255 for x in numbers), bytes(round(127 * x / largest) & 255 for x in numbers)]
    found = []
    for data in plain:
        found += _pieces(data)
        for shift in range(3):
            found += _pieces(base64.b64encode(data[shift:]))
    return found


def digits(vector):
    """Neighbours as JSON or a log would have them: the first digits of one, and of the next behind it."""
    numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
    texts = [f"{abs(x):.9f}"[:7].encode().replace(b".", rb"\.") for x in numbers]
    return [re.compile(one + rb"\d*,\s*-?" + other) for one, other in zip(texts[::16], texts[1::16])]


def _written(path):
    """The bytes of a file without the space that is set aside: what was never written, and pages of zeros."""
    parts, at, end = [], 0, path.stat().st_size
    with open(path, "rb") as file:
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            parts.append(os.pread(file.fileno(), at - start, start))
    return _ZEROS.sub(b"\0" * 64, b"\0".join(parts))


def found(data_dir, vectors):
    """(file, form) of each of these vectors that is in any file of the directory."""
    bytes_of = [form for vector in vectors for form in forms(vector)]
    texts = [pattern for vector in vectors for pattern in digits(vector)]
    hits = []
    for path in sorted(path for path in data_dir.rglob("*") if path.is_file()):
        data = _written(path)
        hits += [(path.name, form) for form in bytes_of if form in data]
        hits += [(path.name, pattern.pattern) for pattern in texts if pattern.search(data)]
    return hits
