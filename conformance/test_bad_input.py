"""Mutations of every captured stream through PutMedia: a declared ack error or a clean end each, nothing lost that was
acknowledged, no growth of memory, and the server serves on."""

import random

import mkv
from harness import eventually
from media import archived, list_fragments, make_stream
from putmedia import Put, Refused, errors, persisted

ROUNDS = 12
ACK_ERRORS = {4000, 4001, 4002, 4004, 4006, 4007, 4009, 4010, 4011, 4012}
STEPS = {"BUFFERING", "RECEIVED", "PERSISTED", "ERROR", "IDLE"}


def mutate(body, rng):
    body = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        # Structure is dense at the head; anywhere else is mostly payload.
        at = rng.randrange(min(len(body), 1500) if rng.random() < 0.5 else len(body))
        kind = rng.randrange(6)
        if kind == 0:
            body[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del body[at:]
        elif kind == 2:
            del body[at:at + rng.randint(1, 3000)]
        elif kind == 3:
            body[at:at + 8] = bytes([1, *rng.randbytes(7)])
        elif kind == 4:
            piece = body[at:at + rng.randint(1, 3000)]
            to = rng.randrange(len(body))
            body[to:to] = piece
        else:
            name = rng.choice([bytes.fromhex("1a45dfa3"), bytes.fromhex("1f43b675ff"), bytes.fromhex("18538067"), bytes.fromhex("1254c367"), b"\xa3\x84"])
            body[at:at + len(name)] = name
        if not body:
            return b"\0"
    return bytes(body)


def rearranged(sent):
    """The fragments of an upload in other orders than time's, and without the header's tracks."""
    head = sent.ebml + mkv.SEGMENT_UNKNOWN + sent.header
    parts = [fragment.data for fragment in sent.fragments]
    yield head + b"".join(reversed(parts))
    yield head + parts[0] + parts[0]
    yield sent.ebml + mkv.SEGMENT_UNKNOWN + b"".join(parts)
    yield head + parts[0] + head + b"".join(parts[1:])


def upload(server, stream, body):
    """All acks; the producer's timecodes may be anything, so both types are tried by the caller."""
    connection = Put(server, stream, timecodes="RELATIVE")
    connection.send(body, piece=32_768)
    connection.finish()
    acks = connection.rest()
    connection.close()
    return acks


def test_mutated_uploads_end_in_words_and_lose_nothing(server, data, name):
    make_stream(server, name)
    rng = random.Random(20_261_122)
    acknowledged = []
    files = sorted([*(data / "mkv").glob("*.mkv"), *(data / "putmedia").glob("*.mkv")])
    bodies = []
    for path in files:
        body = path.read_bytes()[:400_000]
        bodies += [(f"{path.name}, mutation {n}", mutate(body, rng)) for n in range(ROUNDS)]
        [sent, *_] = mkv.documents(body)
        if sent.fragments:
            bodies += [(f"{path.name}, rearranged {n}", other) for n, other in enumerate(rearranged(sent))]
    settled = None
    for n, (what, body) in enumerate(bodies):
        acks = upload(server, name, body)
        assert {ack["EventType"] for ack in acks} <= STEPS, what
        assert {number for number, _ in errors(acks)} <= ACK_ERRORS, (what, errors(acks))
        assert len(errors(acks)) <= 1, what
        assert not errors(acks) or acks[-1]["EventType"] == "ERROR", what
        acknowledged += persisted(acks)
        if n == len(bodies) // 3:
            settled = server.rss_kib()
    assert server.child.poll() is None
    assert server.rss_kib() - settled < 60_000, "memory grows with bad uploads"
    listed = [fragment["FragmentNumber"] for fragment in list_fragments(server, name)]
    assert sorted(acknowledged, key=int) == listed, "what is listed is what was acknowledged"
    for at in range(0, len(listed), 100):
        page = listed[at:at + 100]
        answer = archived(server).get_media_for_fragment_list(StreamName=name, Fragments=page)["Payload"].read()
        # Its own number before it and its token after it (a body may hold tags of another service's).
        assert all(answer.count(number.encode()) == 2 for number in page)


def test_hundreds_of_broken_connections_leave_nothing_behind(server, name):
    make_stream(server, name)
    body = mkv.header() + mkv.cluster(1000, mkv.block(b"x" * 20_000))

    def round_trip():
        try:
            connection = Put(server, name)
        except Refused as refused:
            # A connection that was just closed may still be counted.
            assert refused.code == "ConnectionLimitExceededException", refused
            return False
        connection.send(body[:-5000])
        connection.close()
        return True

    def rounds(count):
        for _ in range(count):
            eventually(round_trip)

    rounds(50)
    before = server.rss_kib()
    rounds(200)
    assert server.rss_kib() - before < 30_000
    assert list_fragments(server, name) == []
