"""A Matroska walker and writer of the tests' own, independent of the server's: whole files in memory, known and unknown
sizes, tags, blocks. It trusts its input."""

import dataclasses

EBML, SEGMENT, INFO, TRACKS, CLUSTER, TAGS, CUES, SEEK, CHAPTERS, ATTACHMENTS = (
    0x1A45DFA3, 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675, 0x1254C367, 0x1C53BB6B, 0x114D9B74, 0x1043A770, 0x1941A469)
TOP = {EBML, SEGMENT, INFO, TRACKS, CLUSTER, TAGS, CUES, SEEK, CHAPTERS, ATTACHMENTS}
TAG, SIMPLE_TAG, TAG_NAME, TAG_STRING, TAG_BINARY = 0x7373, 0x67C8, 0x45A3, 0x4487, 0x4485
TIMECODE, SIMPLE_BLOCK, BLOCK_GROUP, BLOCK, TIMECODE_SCALE = 0xE7, 0xA3, 0xA0, 0xA1, 0x2AD7B1
END_OF_FRAGMENT = "AWS_KINESISVIDEO_END_OF_FRAGMENT"
SEGMENT_UNKNOWN = bytes.fromhex("1853806701ffffffffffffff")


def head(data, at):
    """Id, size (None: unknown) and where the element's data begins."""
    length = 9 - data[at].bit_length()
    name = int.from_bytes(data[at:at + length], "big")
    at += length
    length = 9 - data[at].bit_length()
    size = int.from_bytes(data[at:at + length], "big") & ((1 << 7 * length) - 1)
    return name, None if size == (1 << 7 * length) - 1 else size, at + length


def children(data, start, end):
    """(id, where it begins, where its data begins, where it ends) of the elements between; an unknown size ends at `end`."""
    at = start
    while at < end:
        name, size, inside = head(data, at)
        stop = end if size is None else min(inside + size, end)
        yield name, at, inside, stop
        at = stop


@dataclasses.dataclass
class Block:
    track: int
    time: int
    key: bool
    payload: bytes


@dataclasses.dataclass
class Fragment:
    """A cluster and everything up to the next."""
    timecode: int
    data: bytes
    blocks: list
    tags: list


@dataclasses.dataclass
class Document:
    ebml: bytes
    # All between the Segment's head and the first cluster.
    header: bytes
    header_tags: list
    fragments: list
    tracks: int

    def tag(self, name):
        """Value of a tag anywhere in the document."""
        return dict(self.header_tags + [tag for fragment in self.fragments for tag in fragment.tags]).get(name)


def _tags(data, start, end):
    found = []
    for name, _, inside, stop in children(data, start, end):
        if name == TAG:
            for sub, _, sub_inside, sub_stop in children(data, inside, stop):
                if sub == SIMPLE_TAG:
                    parts = {part: data[a:b] for part, _, a, b in children(data, sub_inside, sub_stop)}
                    value = parts.get(TAG_STRING, parts.get(TAG_BINARY, b""))
                    found.append((parts.get(TAG_NAME, b"").decode(), value.decode()))
    return found


def _block(data, cluster_time):
    length = 9 - data[0].bit_length()
    track = int.from_bytes(data[:length], "big") & ((1 << 7 * length) - 1)
    relative = int.from_bytes(data[length:length + 2], "big", signed=True)
    return Block(track, cluster_time + relative, bool(data[length + 2] & 0x80), data[length + 3:])


def documents(data):
    """The documents of a file, complete ones or not."""
    found, at = [], 0
    while at < len(data):
        name, _, _ = head(data, at)
        assert name == EBML, f"no EBML header at byte {at}: {data[at:at + 4].hex()}"
        document, at = _document(data, at)
        found.append(document)
    return found


def _document(data, start):
    _, size, inside = head(data, start)
    at = inside + size
    document = Document(data[start:at], b"", [], [], 0)
    name, size, at = head(data, at)
    assert name == SEGMENT
    end = len(data) if size is None else min(at + size, len(data))
    section, header_at = None, at

    def finish(stop):
        if section is None:
            document.header = data[header_at:stop]
        else:
            section.data = data[section.data:stop]

    while at < end:
        name, size, inside = head(data, at)
        if name == EBML:
            break
        if name == CLUSTER:
            finish(at)
            section = Fragment(-1, at, [], [])
            document.fragments.append(section)
            at = inside
            continue
        stop = len(data) if size is None else inside + size
        if name == TAGS:
            (document.header_tags if section is None else section.tags).extend(_tags(data, inside, stop))
        elif name == TRACKS:
            document.tracks = sum(1 for child in children(data, inside, stop) if child[0] == 0xAE)
        elif name == TIMECODE:
            section.timecode = int.from_bytes(data[inside:stop], "big")
        elif name == SIMPLE_BLOCK and stop <= len(data):
            section.blocks.append(_block(data[inside:stop], section.timecode))
        elif name == BLOCK_GROUP:
            section.blocks.extend(_block(data[a:b], section.timecode) for sub, _, a, b in children(data, inside, stop) if sub == BLOCK)
        at = stop
    finish(min(at, len(data)))
    return document, at


def element(name, body, size_bytes=8):
    identity = name.to_bytes((name.bit_length() + 7) // 8, "big")
    return identity + (len(body) | 1 << 7 * size_bytes).to_bytes(size_bytes, "big") + body


def number(name, value, width=8):
    return element(name, value.to_bytes(width, "big"), 1)


EBML_HEADER = element(EBML, b"".join([
    number(0x4286, 1, 1), number(0x42F7, 1, 1), number(0x42F2, 4, 1), number(0x42F3, 8, 1),
    element(0x4282, b"matroska", 1), number(0x4287, 2, 1), number(0x4285, 2, 1)]), 1)


def track_entry(track, kind=1, codec="V_TEST"):
    return element(0xAE, number(0xD7, track, 1) + number(0x73C5, track) + number(0x83, kind, 1) + element(0x86, codec.encode(), 1), 4)


def header(tracks=1, scale=1_000_000, segment=SEGMENT_UNKNOWN):
    """A stream's header with so many tracks."""
    entries = b"".join(track_entry(n + 1, 1 if n == 0 else 2) for n in range(tracks))
    return EBML_HEADER + segment + element(INFO, number(TIMECODE_SCALE, scale), 2) + element(TRACKS, entries, 4)


def block(payload, relative=0, track=1, key=True):
    return element(SIMPLE_BLOCK, (track | 0x80).to_bytes(1, "big") + relative.to_bytes(2, "big", signed=True) + (b"\x80" if key else b"\0") + payload, 4)


def cluster(timecode, *blocks):
    """A cluster of unknown size."""
    return CLUSTER.to_bytes(4, "big") + b"\xff" + number(TIMECODE, timecode) + b"".join(blocks)


def tag(name, value=""):
    return element(TAGS, element(TAG, element(SIMPLE_TAG, element(TAG_NAME, name.encode()) + element(TAG_STRING, value.encode()))))


def tags_as_the_service_writes_them(pairs):
    """One Tag, no Targets, every size coded in four bytes."""
    simple = b"".join(element(SIMPLE_TAG, element(TAG_NAME, name.encode(), 4) + element(TAG_STRING, value.encode(), 4), 4) for name, value in pairs)
    return element(TAGS, element(TAG, simple, 4), 4)
