"""Images of every broken kind and decompression bombs against every operation that reads one: a declared error or, where a
decoder may well make a picture of it, an answer; no growth of the server, workers within their bounds, and the next photograph
is answered as if nothing had been."""

import pathlib
import random
import re
import struct
import time
import zlib

import pytest

from harness import failure
from test_rekognition import png

DECLARED = {"InvalidImageFormatException", "InvalidParameterException", "ImageTooLargeException"}
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MIB = 1 << 20


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def head(width, height, depth=8, colour=2, interlaced=0):
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))


END = chunk(b"IEND", b"")


def zeros(count_mib):
    """A zlib stream of so many MiB of zeros, a thousand times smaller, made without making them."""
    packer = zlib.compressobj(9)
    first = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    further = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + further * (count_mib - 1) + packer.flush()


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def progressive(width, height, scans):
    """A grey JPEG in so many scans that say nothing new."""
    tables = segment(0xDB, bytes([0]) + bytes([1]) * 64) + b"".join(
        segment(0xC4, bytes([kind, 1] + [0] * 15 + [symbol])) for kind, symbol in ((0x00, 0), (0x10, 0xE0)))
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0]))
    blocks = (width + 7) // 8 * ((height + 7) // 8)
    # A code of one bit and 14 of a number: 16,384 empty blocks.
    empty = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes((blocks // 16384 + 1) * 15 // 8 + 1)
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(blocks // 8 + 1)
    return b"\xff\xd8" + tables + frame + first + empty * scans + b"\xff\xd9"


def frame_header(jpeg):
    """Where the segment is that tells the size of a JPEG; segments before it may hold a thumbnail with one of its own."""
    at = 2
    while jpeg[at + 1] not in (0xC0, 0xC2):
        at += 2 + int.from_bytes(jpeg[at + 2:at + 4], "big")
    return at


def resized(jpeg, width, height):
    at = frame_header(jpeg)
    return jpeg[:at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9:]


def exif(orientation, offset=8, entries=1):
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return segment(0xE1, b"Exif\0\0II*\0" + struct.pack("<IH", offset, entries) + entry)


def broken(whole):
    """Name to file of what must be refused."""
    at = frame_header(whole)
    kinds = {
        "text": b"this is no image at all",
        "page": b"<!DOCTYPE html><svg xmlns='http://www.w3.org/2000/svg' width='200' height='200'/>",
        "gif": b"GIF89a" + struct.pack("<HH", 200, 200) + bytes(500), "bmp": b"BM" + bytes(500), "tiff": b"II*\0" + bytes(500),
        "webp": b"RIFF\x00\x10\x00\x00WEBPVP8 " + bytes(500), "heic": b"\0\0\0\x20ftypheic" + bytes(500), "film": b"\0\0\0\x20ftypisom" + bytes(500),
        "zeros": bytes(100_000), "noise": random.Random(1).randbytes(100_000),
        "jpeg-start": b"\xff\xd8", "jpeg-heads": b"\xff\xd8" + segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0") * 1000, "jpeg-fill": b"\xff\xd8" + b"\xff" * 100_000,
        "jpeg-frame-alone": whole[:at + 19], "jpeg-flat": resized(whole, 0, 0), "jpeg-thin": resized(whole, 79, 4000), "jpeg-vast": resized(whole, 65_500, 65_500),
        "jpeg-arithmetic": whole[:at + 1] + b"\xc9" + whole[at + 2:], "jpeg-segment-beyond": whole[:2] + b"\xff\xe0\xff\xff" + whole[2:20_000],
        "jpeg-scans": progressive(9_999, 4_000, 40_000),
        "png-start": SIGNATURE, "png-flat": head(0, 0) + END, "png-vast": head(2**31 - 1, 2**31 - 1) + END, "png-long": head(10_000, 100) + END,
        "png-without-pixels": head(200, 200) + END,
        "png-odd-depth": head(200, 200, depth=7) + chunk(b"IDAT", zlib.compress(bytes(MIB))) + END,
        "png-pixels-first": SIGNATURE + chunk(b"IDAT", zlib.compress(bytes(MIB))) + head(200, 200)[8:] + END,
        "png-chunk-beyond": head(200, 200) + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(500),
    }
    assert all(len(file) <= 5 * MIB for file in kinds.values())
    return kinds


def doubtful(whole):
    """Name to file of what some decoder may make a picture of, whatever that shows. None may cost much."""
    at = frame_header(whole)
    pixels = chunk(b"IDAT", zlib.compress(bytes(601 * 200), 9))
    packed = zeros(4_000)
    kinds = {
        "png-text-bomb": head(200, 200) + chunk(b"zTXt", b"Comment\0\0" + packed) + pixels + END,
        "png-profile-bomb": head(200, 200) + chunk(b"iCCP", b"profile\0\0" + packed) + pixels + END,
        "png-endless-pixels": head(200, 200) + chunk(b"IDAT", packed) + END,
        "png-forty-megapixels": head(9_999, 4_000) + chunk(b"IDAT", zeros(115)) + END,
        "png-interlaced": head(200, 200, interlaced=1) + pixels + END, "png-sixteen-bits": head(200, 200, depth=16) + pixels + END,
        "png-wrong-sums": (head(200, 200) + pixels + END).replace(pixels[-4:], b"\0\0\0\0"), "png-no-end": head(200, 200) + pixels,
        "png-many-chunks": head(200, 200) + chunk(b"tEXt", b"a\0b") * 50_000 + pixels + END, "png-empty-chunks": head(200, 200) + chunk(b"IDAT", b"") * 50_000 + pixels + END,
        "jpeg-cut": whole[:len(whole) // 2], "jpeg-no-end": whole[:-2], "jpeg-twice": whole + whole, "jpeg-trailing": whole + bytes(100_000),
        "jpeg-wide": resized(whole, 9_999, 4_000), "jpeg-some-scans": progressive(1_000, 1_000, 50),
        "jpeg-lossless": whole[:at + 1] + b"\xc3" + whole[at + 2:],
        "png-without-palette": head(200, 200, colour=3) + chunk(b"IDAT", zlib.compress(bytes(201 * 200))) + END,
        "jpeg-twelve-bits": whole[:at + 4] + b"\x0c" + whole[at + 5:], "jpeg-turned-nowhere": whole[:2] + exif(99) + whole[2:], "jpeg-turned-in-a-circle": whole[:2] + exif(6, offset=0, entries=65_535) + whole[2:],
        "jpeg-turned-beyond": whole[:2] + exif(6, offset=2**32 - 1) + whole[2:],
    }
    assert all(len(file) <= 5 * MIB for file in kinds.values())
    return kinds


def workers(server):
    """Peak memory in MiB of each process that the server has started."""
    found = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if re.search(rf"^PPid:\t{server.child.pid}$", text, re.M) and (peak := re.search(r"^VmHWM:\s+(\d+)", text, re.M)):
            found[int(status.parent.name)] = int(peak[1]) // 1024
    return found


@pytest.fixture
def rekognition(server):
    return server.client("rekognition", parameter_validation=False)


@pytest.fixture
def photograph(photographs):
    return photographs["resident"]


@pytest.fixture
def operations(rekognition, name, photograph):
    """Every operation that reads an image, by its name."""
    rekognition.create_collection(CollectionId=name)
    good = {"Bytes": photograph}
    calls = {
        "DetectFaces": lambda image: rekognition.detect_faces(Image=image),
        "IndexFaces": lambda image: rekognition.index_faces(CollectionId=name, Image=image),
        "SearchFacesByImage": lambda image: rekognition.search_faces_by_image(CollectionId=name, Image=image),
        "SearchUsersByImage": lambda image: rekognition.search_users_by_image(CollectionId=name, Image=image),
        "CompareFaces, source": lambda image: rekognition.compare_faces(SourceImage=image, TargetImage=good),
        "CompareFaces, target": lambda image: rekognition.compare_faces(SourceImage=good, TargetImage=image),
        "DetectLabels": lambda image: rekognition.detect_labels(Image=image),
    }
    try:
        calls["DetectLabels"]({"Bytes": png(100, 100)})
    except rekognition.exceptions.InvalidParameterException:
        # The models were prepared without that of objects.
        del calls["DetectLabels"]
    return calls


def test_what_is_no_image_is_refused_by_every_operation_and_the_next_one_is_answered(server, operations, photograph):
    before = operations["DetectFaces"]({"Bytes": photograph})["FaceDetails"]
    running, memory = workers(server), server.rss_kib()
    wrong = []
    for kind, file in broken(photograph).items():
        for operation, call in operations.items():
            try:
                code, status = failure(lambda: call({"Bytes": file}))
            except AssertionError:
                code, status = "it succeeded", 200
            if status != 400 or code not in DECLARED:
                wrong.append((kind, operation, code))
    assert not wrong, wrong
    assert operations["DetectFaces"]({"Bytes": photograph})["FaceDetails"] == before
    assert running.keys() <= workers(server).keys(), "a worker died of a refused image"
    assert server.rss_kib() - memory < 60_000


def test_bombs_and_half_images_cost_little_whatever_they_show(server, operations, photograph):
    detect = operations["DetectFaces"]
    before = detect({"Bytes": photograph})["FaceDetails"]
    memory = server.rss_kib()
    for kind, file in doubtful(photograph).items():
        for operation in ("DetectFaces", "DetectLabels"):
            began = time.monotonic()
            outcome(operations.get(operation, detect), file, (kind, operation))
            assert time.monotonic() - began < 30, (kind, operation)
    assert detect({"Bytes": photograph})["FaceDetails"] == before
    peaks = workers(server)
    assert peaks and max(peaks.values()) < 1_500, peaks
    assert server.rss_kib() - memory < 60_000


def test_photographs_with_changed_bytes_are_answered_or_refused(server, operations, photograph):
    whole, rng = photograph, random.Random(7)
    for _ in range(40):
        changed = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(2, 7000) if rng.random() < 0.7 else rng.randrange(len(changed))] = rng.randrange(256)
        file = bytes(changed[:rng.randrange(7000, len(changed))] if rng.random() < 0.3 else changed)
        outcome(operations["DetectFaces"], file, "changed bytes")
    assert len(operations["DetectFaces"]({"Bytes": whole})["FaceDetails"]) == 1


def outcome(call, file, what):
    """An answer or a declared error."""
    try:
        call({"Bytes": file})
    except Exception as refused:  # botocore makes its exceptions' classes at run time
        answered = getattr(refused, "response", None)
        assert answered and answered["Error"]["Code"] in DECLARED, (what, refused)
