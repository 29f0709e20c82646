"""What AWS's example of Kinesis Video Streams with Rekognition relies on: it joins each record to its frame by the fragment's
number and the offset from the key frame, and draws the boxes on it. The film is a photograph moving over black, eight pixels a
frame to and fro, so that the pixels of a frame say where its face is, and a box of any other frame is seen to be one."""

import statistics
import subprocess

import pytest

import harness
import mkv
from media import get_media
from test_stream_processor import JOIN_TOLERANCE_MS, Job, position, prepared

pytestmark = pytest.mark.skipif(not prepared(), reason="skipped: models, vision-worker or ffmpeg not prepared")

WIDTH, HEIGHT, RATE, FRAMES, STEP = 640, 360, 30, 90, 8
# Grey from which on a pixel belongs to the photograph's white edge or what it surrounds.
BRIGHT = bytes(0 if grey < 128 else 1 for grey in range(256))
# A box may waver so much around its place in the photograph, in pixels: half a step.
WAVER = STEP / 2


@pytest.fixture
def film(photographs, tmp_path):
    """The moving photograph, as a camera sends it."""
    photograph, path = tmp_path / "face.jpg", tmp_path / "film.mkv"
    photograph.write_bytes(photographs["resident"])
    moving = (f"[1]scale=-2:200,pad=iw+12:ih+12:6:6:white[face];"
              f"[0][face]overlay=x='20+{STEP}*abs(mod(n\\,{FRAMES})-{FRAMES // 2})':y='10+2*abs(mod(n\\,60)-30)':shortest=1,format=yuv420p")
    subprocess.run(["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", f"color=black:s={WIDTH}x{HEIGHT}:r={RATE}:d={FRAMES / RATE}",
                    "-loop", "1", "-r", str(RATE), "-i", str(photograph), "-filter_complex", moving, "-frames:v", str(FRAMES),
                    "-c:v", "libx264", "-preset", "veryfast", "-crf", "12", "-bf", "0", "-g", str(RATE), "-keyint_min", str(RATE), "-sc_threshold", "0",
                    "-cluster_time_limit", "1000", str(path)], check=True)
    return path


def pictures(document):
    """The grey pixels of each frame of a document."""
    decoded = subprocess.run(["ffmpeg", "-v", "error", "-i", "pipe:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "pipe:1"],
                             input=document.ebml + mkv.SEGMENT_UNKNOWN + document.header + document.fragments[0].data, check=True, capture_output=True).stdout
    size = WIDTH * HEIGHT
    assert len(decoded) % size == 0
    return [decoded[at:at + size] for at in range(0, len(decoded), size)]


def edges(picture):
    """Left, top, right and bottom of what is not black."""
    rows = [(y, row) for y in range(HEIGHT) if (row := picture[y * WIDTH:(y + 1) * WIDTH].translate(BRIGHT)).count(1) > 20]
    left = min(WIDTH - len(row.lstrip(b"\0")) for _, row in rows)
    right = max(len(row.rstrip(b"\0")) for _, row in rows)
    return left, rows[0][0], right, rows[-1][0] + 1


def drawn(picture, box):
    """The picture with the box's outline drawn on it as the example draws it, and the corners in pixels."""
    left, top = round(box["Left"] * WIDTH), round(box["Top"] * HEIGHT)
    right, bottom = round((box["Left"] + box["Width"]) * WIDTH), round((box["Top"] + box["Height"]) * HEIGHT)
    canvas = bytearray(picture)
    for x in range(left, right):
        canvas[top * WIDTH + x] = canvas[(bottom - 1) * WIDTH + x] = 0
    for y in range(top, bottom):
        canvas[y * WIDTH + left] = canvas[y * WIDTH + right - 1] = 0
    return bytes(canvas), (left, top, right, bottom)


class Example:
    """The example's index of fragments and its search for the result of a frame."""

    def __init__(self, records):
        self.by_fragment = {}
        for record in records:
            self.by_fragment.setdefault(position(record)["FragmentNumber"], []).append(record)

    def result(self, fragment_number, frame_offset_ms):
        """The one record of the frame; `None` where it was not analysed."""
        near = [record for record in self.by_fragment.get(fragment_number, [])
                if abs(frame_offset_ms - position(record)["FrameOffsetInSeconds"] * 1000) <= JOIN_TOLERANCE_MS]
        assert len(near) <= 1, "two records for one frame"
        return near[0] if near else None


def test_boxes_drawn_as_awss_example_draws_them_are_on_the_face_of_their_own_frame(own_server, name, film, photographs):
    # However busy the machine is, no frame is skipped for a newer one.
    job = Job(own_server, name, tags={"sightglass:mode": "every-frame"})
    job.faces.index_faces(CollectionId=name, Image={"Bytes": photographs["resident"]}, ExternalImageId="Resident-Trusted", MaxFaces=1)
    job.start()
    assert job.send(film, "--realtime").wait(timeout=60) == 0
    harness.eventually(lambda: len(job.records()) >= FRAMES, within=60, every=0.3)
    example = Example([record for _, _, record in job.records()])
    documents, _ = get_media(own_server, name, FRAMES // RATE)
    assert {document.tag("AWS_KINESISVIDEO_FRAGMENT_NUMBER") for document in documents} == example.by_fragment.keys()
    places, fronts = [], []
    for document in documents:
        blocks, shown = document.fragments[0].blocks, pictures(document)
        assert len(blocks) == len(shown) == RATE
        number, key_frame_time = document.tag("AWS_KINESISVIDEO_FRAGMENT_NUMBER"), None
        for block, picture in zip(blocks, shown):
            key_frame_time = block.time if block.key else key_frame_time
            record = example.result(number, max(block.time - key_frame_time, 0))
            assert record, f"no record of the frame at {block.time} ms"
            where = position(record)
            for kind in ("Server", "Producer"):
                assert abs(float(document.tag(f"AWS_KINESISVIDEO_{kind.upper()}_TIMESTAMP")) - where[f"{kind}Timestamp"]) < 0.001
            [face] = record["FaceSearchResponse"]
            assert [match["Face"]["ExternalImageId"] for match in face["MatchedFaces"]] == ["Resident-Trusted"]
            canvas, (left, top, right, bottom) = drawn(picture, face["DetectedFace"]["BoundingBox"])
            front = edges(picture)
            # The outline lies within the photograph and does not touch its edge: drawn black, it changes no edge.
            assert edges(canvas) == front and front[0] < left < right < front[2] and front[1] < top < bottom < front[3]
            places.append((left - front[0], top - front[1], right - front[0], bottom - front[1]))
            fronts.append(front)
    # The face has one place in the photograph, and the boxes are there in every frame, wherever the photograph is.
    usual = [statistics.median(side) for side in zip(*places)]
    wavering = [max(abs(side - median) for side, median in zip(place, usual)) for place in places]
    assert max(wavering) <= WAVER, (usual, max(wavering), wavering.index(max(wavering)))
    # A box of the next frame would not be: the photograph has moved by a step.
    steps = [abs(later[0] - earlier[0]) for earlier, later in zip(fronts, fronts[1:])]
    assert min(steps) >= STEP - 2, "the film shows what it must"
