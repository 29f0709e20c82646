"""What AWS's consumer library for Python expects of GetMedia, restated: it cuts the bytes wherever an EBML header begins, hands
a fragment on when the header of the next one arrives (so never the last), parses everything again with every chunk, and saves
a fragment as a file that plays by itself."""

import contextlib
import subprocess

import camera
import media
import mkv
import putmedia

EBML = bytes.fromhex("1A45DFA3")
# The library's time grows with chunks times bytes, so that a stored fragment must come in few chunks.
CHUNKS_PER_FRAGMENT = 8


def consume(chunks):
    """The library's loop: yields each whole fragment's bytes and how many chunks it took."""
    buffer, taken = b"", 0
    for chunk in chunks:
        buffer += chunk
        taken += 1
        while (cut := buffer.find(EBML, 1)) > 0:
            yield buffer[:cut], taken
            buffer, taken = buffer[cut:], 1


def test_fragments_are_cut_at_headers_carry_their_tags_and_play_by_themselves(server, name, tmp_path):
    start, count = 1795347223436, 6
    media.make_stream(server, name)
    acks = putmedia.put(server, name, camera.film(start, count), piece=65536)
    persisted = putmedia.persisted(acks)
    assert len(persisted) == count, acks
    answer = media.media_client(server).get_media(StreamName=name, StartSelector={"StartSelectorType": "EARLIEST"})
    delivered = []
    with contextlib.closing(answer["Payload"]):
        for fragment, chunks in consume(answer["Payload"]._raw_stream.read_chunked()):
            delivered.append((fragment, chunks))
            if len(delivered) == count - 1:
                break
    for index, (fragment, chunks) in enumerate(delivered):
        (document,) = mkv.documents(fragment)
        assert document.tag("AWS_KINESISVIDEO_FRAGMENT_NUMBER") == persisted[index]
        assert document.tag("AWS_KINESISVIDEO_CONTINUATION_TOKEN") == persisted[index]
        assert document.tag("AWS_KINESISVIDEO_PRODUCER_TIMESTAMP") == media.seconds(start + index * 1000)
        assert int(document.tag("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW")) >= 0
        assert chunks <= CHUNKS_PER_FRAGMENT, f"fragment {index} came in {chunks} chunks"
        saved = tmp_path / f"{index}.mkv"
        saved.write_bytes(fragment)
        frames = subprocess.run(
            ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", saved],
            check=True, capture_output=True, text=True)
        assert (frames.stdout.strip(), frames.stderr) == (str(camera.RATE), ""), f"fragment {index} as a file"
