"""The peer of the vision figure: OpenCV's decoder, FaceDetectorYN and FaceRecognizerSF with the same two models, one
thread, every frame decoded and detected, every face embedded. Each network runs on OpenCV or on ONNX Runtime, whichever
is faster here: a trial over the first frames decides.

    vision_peer.py VIDEO MODELS SIDE SCORE

Prints one JSON line: seconds (wall and CPU, models loaded before), frames, engines, and each frame's faces with boxes in
picture pixels and vectors.
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
import cv2
import numpy as np
import onnxruntime

TRIAL_FRAMES = 25
NMS = 0.3


class OpenCvDetector:
    def __init__(self, model, size, score):
        self.net = cv2.FaceDetectorYN.create(str(model), "", size, score, NMS, 5000)

    def __call__(self, picture):
        faces = self.net.detect(picture)[1]
        return np.empty((0, 15), np.float32) if faces is None else faces


class OrtDetector:
    """FaceDetectorYN's arithmetic around ONNX Runtime."""

    def __init__(self, model, size, score):
        self.session = session(model)
        self.score = score
        width, height = size
        self.padded = (height + 31) // 32 * 32, (width + 31) // 32 * 32
        self.names = [o.name for o in self.session.get_outputs()]
        self.grids = {}
        for stride in (8, 16, 32):
            rows, columns = self.padded[0] // stride, self.padded[1] // stride
            row, column = np.divmod(np.arange(rows * columns), columns)
            self.grids[stride] = np.stack([column, row], 1).astype(np.float32)

    def __call__(self, picture):
        height, width = picture.shape[:2]
        padded = cv2.copyMakeBorder(picture, 0, self.padded[0] - height, 0, self.padded[1] - width, cv2.BORDER_CONSTANT)
        outputs = dict(zip(self.names, self.session.run(None, {"input": cv2.dnn.blobFromImage(padded)})))
        found = []
        for stride, grid in self.grids.items():
            cls, obj = outputs[f"cls_{stride}"][0, :, 0], outputs[f"obj_{stride}"][0, :, 0]
            score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))
            hit = np.nonzero(score >= self.score)[0]
            if not hit.size:
                continue
            cell, box, points = grid[hit], outputs[f"bbox_{stride}"][0, hit], outputs[f"kps_{stride}"][0, hit]
            size = np.exp(box[:, 2:]) * stride
            corner = (cell + box[:, :2]) * stride - size / 2
            points = (points.reshape(-1, 5, 2) + cell[:, None]).reshape(-1, 10) * stride
            found.append(np.concatenate([corner, size, points, score[hit, None]], 1))
        if not found:
            return np.empty((0, 15), np.float32)
        faces = np.concatenate(found).astype(np.float32)
        kept = cv2.dnn.NMSBoxes(faces[:, :4].tolist(), faces[:, 14].tolist(), self.score, NMS, top_k=5000)
        return faces[np.asarray(kept, int).reshape(-1)]


class OpenCvEmbedder:
    def __init__(self, model, aligner):
        self.net = cv2.FaceRecognizerSF.create(str(model), "")

    def __call__(self, picture, face):
        return self.net.feature(self.net.alignCrop(picture, face))[0].copy()


class OrtEmbedder:
    def __init__(self, model, aligner):
        self.session, self.aligner = session(model), aligner

    def __call__(self, picture, face):
        crop = self.aligner.alignCrop(picture, face)
        return self.session.run(None, {"data": cv2.dnn.blobFromImage(crop, swapRB=True)})[0][0]


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def run(video, size, detect, embed, limit=None):
    """Gives each frame's faces, and the seconds spent on decoding, detecting and embedding."""
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    frames, spent = [], [0.0, 0.0, 0.0]
    while limit is None or len(frames) < limit:
        start = time.perf_counter()
        ok, picture = capture.read()
        if not ok:
            break
        decoded = time.perf_counter()
        small = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        faces = detect(small)
        detected = time.perf_counter()
        scale = picture.shape[1] / size[0], picture.shape[0] / size[1]
        faces = faces * np.array([*scale] * 7 + [1.0], np.float32)
        vectors = [embed(picture, face) for face in faces]
        done = time.perf_counter()
        for index, seconds in enumerate((decoded - start, detected - decoded, done - detected)):
            spent[index] += seconds
        frames.append([{"box": face[:4].tolist(), "vector": (v / np.linalg.norm(v)).tolist()} for face, v in zip(faces, vectors)])
    return frames, spent


def best(candidates, trial):
    """The candidate whose trial takes the least time; one that cannot run is left out."""
    timed = []
    for name, make in candidates:
        try:
            made = make()
            trial(made)
            timed.append((trial(made), name, made))
        except (cv2.error, RuntimeError) as error:
            print(f"peer: {name} cannot run the model: {str(error).splitlines()[0]}", file=sys.stderr)
    return min(timed, key=lambda entry: entry[0])[1:]


def main():
    video, models = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    side, score = int(sys.argv[3]), float(sys.argv[4])
    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    factor = min(1.0, side / max(width, height))
    size = round(width * factor), round(height * factor)
    yunet, plain, rewritten = (models / f for f in ("yunet-2023mar.onnx", "sface-2021dec-plain.onnx", "sface-2021dec.onnx"))
    aligner = cv2.FaceRecognizerSF.create(str(plain), "")

    detector, detect = best(
        [("opencv", lambda: OpenCvDetector(yunet, size, score)), ("onnxruntime", lambda: OrtDetector(yunet, size, score))],
        lambda detect: run(video, size, detect, lambda *_: np.ones(1), TRIAL_FRAMES)[1][1])
    embedder, embed = best(
        [("opencv", lambda: OpenCvEmbedder(plain, aligner)), ("onnxruntime", lambda: OrtEmbedder(plain, aligner)),
         ("opencv, PRelu rewritten", lambda: OpenCvEmbedder(rewritten, aligner)),
         ("onnxruntime, PRelu rewritten", lambda: OrtEmbedder(rewritten, aligner))],
        lambda embed: run(video, size, detect, embed, TRIAL_FRAMES)[1][2])

    wall, cpu = time.perf_counter(), time.process_time()
    frames, spent = run(video, size, detect, embed)
    print(json.dumps({
        "wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "frames": len(frames),
        "detector": detector, "embedder": embedder, "parts_s": spent, "faces": frames,
    }))


if __name__ == "__main__":
    main()
