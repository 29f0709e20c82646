"""Converts the models of face attributes and of objects, and proves that they still compute the same.

What each must answer to one made-up picture was computed once with TensorFlow.js's own reference implementation on the
original files; some of those numbers stand below. Of the object detector only the network is taken: its last steps
(peaks, the best hundred) are done where its answer is read.

    human.py ORIGINALS FOLDER
"""

import pathlib
import sys

import numpy as np
import onnxruntime

import graph_model

# Name: side and channels of its picture, the greatest value of a channel, and of each output: its name in the original and
# here, its shape, and of what the original answered: the sum, the sum of magnitudes, the value in the middle.
MODELS = {
    "facemesh": (192, 3, 1, [("Identity_2", "mesh", [1404], (94728.07, 98991.94, 49.81433)),
                             ("Identity_1", "presence", [1], (2.051465e-05, 2.051465e-05, 2.051465e-05))]),
    "iris": (64, 3, 1, [("Identity", "iris", [228, 1, 1], (5096.728, 5460.999, 41.39303))]),
    "faceres": (224, 3, 255, [("gender_pred/Sigmoid", "male", [1], (0.75345, 0.75345, 0.75345)),
                              ("age_pred/Softmax", "age", [100], (1, 1, 0.006540056))]),
    "emotion": (64, 1, 1, [("Identity", "emotion", [7], (1, 1, 0.03192832))]),
    "centernet": (512, 3, 255, [("tower_0/Sigmoid", "heat", [80, 128, 128], (3119.455, 3119.455, 0.001064803)),
                                ("tower_0/wh", "edges", [4, 128, 128], (8628877, 8628942, 5.226206))]),
}


def made_up_picture(side, channels, most):
    """Waves that differ by channel: smooth, and nothing that a model was trained on."""
    y, x, channel = np.meshgrid(np.arange(side), np.arange(side), np.arange(channels), indexing="ij")
    waves = most * (0.5 + 0.5 * np.sin(0.13 * x + 0.07 * y + 1.9 * channel))
    return np.ascontiguousarray(np.moveaxis(waves, 2, 0)[None], dtype=np.float32)


def compare(path, picture, outputs):
    answers = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        [name for _, name, _, _ in outputs], {"input": picture})
    worst = 0.0
    for answer, (_, name, _, wanted) in zip(answers, outputs):
        values = answer.astype(np.float64).ravel()
        found = (values.sum(), np.abs(values).sum(), values[values.size // 2])
        worst = max(worst, *(abs(f - w) / max(abs(w), 1e-3) for f, w in zip(found, wanted)))
    print(f"models: {path.name}: worst relative difference {worst:.1e}", flush=True)
    if not worst <= 1e-4:
        sys.exit(f"models: {path.name} differs from its original by {worst}")


def main():
    originals, folder = map(pathlib.Path, sys.argv[1:3])
    for name, (side, channels, most, outputs) in MODELS.items():
        target = folder / f"{name}.onnx"
        graph_model.convert(originals / f"{name}.json", target, name, side, channels, [o[:3] for o in outputs])
        compare(target, made_up_picture(side, channels, most), outputs)


if __name__ == "__main__":
    main()
