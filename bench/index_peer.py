"""The peer of the IndexFaces figure: images decoded, faces found and read by OpenCV and ONNX Runtime with the same models, one thread, each
network on whichever of the two is faster here. Nothing is signed, sent or kept.

    index_peer.py MODELS SCORE IMAGE...

Twice: `plain`, as such programs are usually written (one look of 640 pixels, one run of the embedder), and `alike`, which does what
IndexFaces does (a second look of up to 1600 pixels at larger images, landmarks looked for again in a square around each face, and the
mirror image). Prints one JSON line: for each the CPU and wall seconds and the number of faces.
"""

import json
import os
import pathlib
import sys
import time

os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "threads;1")
import cv2
import numpy as np

import vision_peer as peer

SIDES = (640, 1600)
SQUARE, SHARE = 256, 0.5
SQUARE_SCORE, SHIFT_MAX = 0.6, 0.12
TRIAL = 12
# ArcFace's five points in 112 pixels, which are half of the square's side in its middle.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32)
IN_SQUARE = (TEMPLATE / 112 - 0.5) * SHARE * SQUARE + SQUARE / 2


class Detectors:
    """One detector for each size of input."""

    def __init__(self, kind, model, score):
        self.kind, self.model, self.score, self.made = kind, model, score, {}

    def __call__(self, picture, side):
        height, width = picture.shape[:2]
        factor = min(1.0, side / max(width, height))
        size = round(width * factor), round(height * factor)
        if size not in self.made:
            self.made[size] = self.kind(self.model, size, self.score)
        faces = self.made[size](cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR) if factor < 1 else picture)
        return faces * np.array([width / size[0], height / size[1]] * 7 + [1.0], np.float32)


def suppressed(faces):
    kept = cv2.dnn.NMSBoxes(faces[:, :4].tolist(), faces[:, 14].tolist(), 0.0, peer.NMS) if len(faces) else []
    return faces[np.asarray(kept, int).reshape(-1)]


def second_look(picture, face, detect):
    points = face[4:14].reshape(5, 2)
    to_square = cv2.estimateAffinePartial2D(points, IN_SQUARE, method=cv2.LMEDS)[0]
    if to_square is None:
        return face
    found = detect(cv2.warpAffine(picture, to_square, (SQUARE, SQUARE), flags=cv2.INTER_LINEAR), SQUARE)
    for other in found:
        new = other[4:14].reshape(5, 2)
        if np.abs(new.mean(0) - IN_SQUARE.mean(0)).max() < SHIFT_MAX * SQUARE:
            back = cv2.invertAffineTransform(to_square)
            face = face.copy()
            face[4:14] = (new @ back[:, :2].T + back[:, 2]).reshape(-1)
            break
    return face


def both_sides(embed, picture, face):
    """The vectors of the aligned crop and of its mirror image together."""
    if isinstance(embed, peer.OpenCvEmbedder):
        crop = embed.net.alignCrop(picture, face)
        return embed.net.feature(crop)[0].copy() + embed.net.feature(cv2.flip(crop, 1))[0]
    crop = embed.aligner.alignCrop(picture, face)
    read = lambda crop: embed.session.run(None, {"data": cv2.dnn.blobFromImage(crop, swapRB=True)})[0][0]
    return read(crop) + read(cv2.flip(crop, 1))


def plain(picture, detect, look, embed):
    return [embed(picture, face) for face in detect(picture, SIDES[0])]


def alike(picture, detect, look, embed):
    faces = detect(picture, SIDES[0])
    if max(picture.shape[:2]) > SIDES[0]:
        faces = suppressed(np.concatenate([faces, detect(picture, SIDES[1])]))
    vectors = []
    for face in faces:
        vector = both_sides(embed, picture, second_look(picture, face, look))
        vectors.append(vector / np.linalg.norm(vector))
    return vectors


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    models, score = pathlib.Path(sys.argv[1]), float(sys.argv[2])
    images = [pathlib.Path(path).read_bytes() for path in sys.argv[3:]]
    cv2.setNumThreads(1)
    pictures = [cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR) for image in images[:TRIAL]]
    yunet, raw, rewritten = (models / f for f in ("yunet-2023mar.onnx", "sface-2021dec-plain.onnx", "sface-2021dec.onnx"))
    aligner = cv2.FaceRecognizerSF.create(str(raw), "")

    def detecting(detect):
        return timed(lambda: [detect(picture, SIDES[0]) for picture in pictures])

    def embedding(embed):
        return timed(lambda: [embed(picture, face) for picture, faces in zip(pictures, found) for face in faces])

    _, detect = peer.best([("opencv", lambda: Detectors(peer.OpenCvDetector, yunet, score)),
                           ("onnxruntime", lambda: Detectors(peer.OrtDetector, yunet, score))], detecting)
    found = [detect(picture, SIDES[0]) for picture in pictures]
    _, embed = peer.best([("opencv", lambda: peer.OpenCvEmbedder(raw, aligner)), ("onnxruntime", lambda: peer.OrtEmbedder(raw, aligner)),
                          ("opencv, PRelu rewritten", lambda: peer.OpenCvEmbedder(rewritten, aligner)),
                          ("onnxruntime, PRelu rewritten", lambda: peer.OrtEmbedder(rewritten, aligner))], embedding)
    look = Detectors(detect.kind, yunet, SQUARE_SCORE)
    told = {}
    for name, work in (("plain", plain), ("alike", alike)):
        wall, cpu, faces = time.perf_counter(), time.process_time(), 0
        for number, image in enumerate(images):
            picture = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
            faces += len(work(picture, detect, look, embed))
            if number % 100 == 0:
                print(f"{name}: {number} of {len(images)} images", file=sys.stderr)
        told[name] = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall, "faces": faces}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
