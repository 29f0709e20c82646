"""`sightglass models add`, and servers that read faces with a model of the user's own."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

import harness
from harness import binary, failure

MODELS = pathlib.Path(os.environ.get("SIGHTGLASS_MODELS", harness.ROOT / "models"))
WORKER = pathlib.Path(os.environ.get("SIGHTGLASS_WORKER", pathlib.Path(binary()).parent / "vision-worker"))
# The prepared embedder in another form: a model that reads faces, with another id.
PLAIN = "sface-2021dec-plain.onnx"

pytestmark = pytest.mark.skipif(not (MODELS / "manifest.json").exists() or not WORKER.exists(), reason="skipped: models or vision-worker not prepared")


@pytest.fixture
def folder(tmp_path):
    """A folder of models of the test's own."""
    models = tmp_path / "models"
    models.mkdir()
    for path in MODELS.iterdir():
        if path.is_file():
            shutil.copyfile(path, models / path.name)
    return models


def models(folder, *arguments, ok=True):
    done = subprocess.run([binary(), "models", "--models", str(folder), "--json", *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, "SIGHTGLASS_WORKER": str(WORKER)})
    assert (done.returncode == 0) == ok, done.stderr
    return json.loads(done.stdout) if ok else done.stderr


def server(folder, tmp_path, *, embedder, data_dir=None):
    config = tmp_path / "config.toml"
    config.write_text(f'[vision]\nmodels = "{folder}"\nembedder = "{embedder}"\n')
    return harness.Server(data_dir, "--config", str(config), environment={"SIGHTGLASS_WORKER": str(WORKER)})


def test_a_model_of_the_users_is_tried_taken_chosen_and_never_mixed(folder, photographs, tmp_path):
    added = models(folder, "add", "mine", MODELS / PLAIN, "--mean", "0", "--scale", "1", "--licence", "Apache-2.0")
    assert added["id"].startswith("mine-") and added["length"] == 128 and (folder / added["file"]).exists()
    assert added["id"] in [entry["id"] for entry in models(folder, "list") if entry["role"] == "embedders"]
    assert all(entry["intact"] for entry in models(folder, "verify"))
    assert "already" in models(folder, "add", "mine", MODELS / PLAIN, "--mean", "0", "--scale", "1", ok=False)
    # The default is what it was; the new one is chosen by its name.
    with_default = server(folder, tmp_path, embedder="sface-2021dec")
    rekognition = with_default.client("rekognition")
    assert rekognition.create_collection(CollectionId="old")["FaceModelVersion"] == "sface-2021dec"
    rekognition.index_faces(CollectionId="old", Image={"Bytes": photographs["obama"]}, ExternalImageId="obama")
    assert with_default.stop() == 0
    with_mine = server(folder, tmp_path, embedder="mine", data_dir=with_default.data_dir)
    rekognition = with_mine.client("rekognition")
    assert rekognition.create_collection(CollectionId="new")["FaceModelVersion"] == added["id"]
    rekognition.index_faces(CollectionId="new", Image={"Bytes": photographs["obama"]}, ExternalImageId="obama")
    [match] = rekognition.search_faces_by_image(CollectionId="new", Image={"Bytes": photographs["obama-2"]})["FaceMatches"]
    assert match["Face"]["ExternalImageId"] == "obama" and match["Face"]["IndexFacesModelVersion"] == added["id"]
    for call in (rekognition.index_faces, rekognition.search_faces_by_image):
        assert failure(lambda: call(CollectionId="old", Image={"Bytes": photographs["biden"]})) == ("InvalidParameterException", 400)
    assert rekognition.describe_collection(CollectionId="old")["FaceModelVersion"] == "sface-2021dec"
    assert with_mine.stop() == 0


def on_scale(value, points, back=False):
    """Linear between points of cosine and similarity; `back` from similarity to cosine."""
    points = [(0.0, 0.0), *points, (1.0, 100.0)]
    if back:
        points = [(similarity, cosine) for cosine, similarity in points]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if value <= x1:
            return y0 + (y1 - y0) * (value - x0) / (x1 - x0)


def test_a_calibration_gives_a_model_its_own_scale_of_similarity(folder, photographs, tmp_path):
    added = models(folder, "add", "mine", MODELS / PLAIN, "--mean", "0", "--scale", "1")
    mine = [[0.5, 80.0], [0.9, 99.0]]
    listed = json.loads((folder / "added.json").read_text())
    (folder / "added.json").write_text(json.dumps({**listed, "calibrations": {added["id"]: mine}}))
    assert all(entry["intact"] for entry in models(folder, "verify")), "a calibration is no file"
    found = {}
    for embedder in ("sface-2021dec", "mine"):
        started = server(folder, tmp_path, embedder=embedder)
        rekognition = started.client("rekognition")
        images = {"SourceImage": {"Bytes": photographs["obama"]}, "TargetImage": {"Bytes": photographs["obama-2"]}}
        compared = rekognition.compare_faces(**images, SimilarityThreshold=0)["FaceMatches"][0]["Similarity"]
        rekognition.create_collection(CollectionId="people")
        rekognition.index_faces(CollectionId="people", Image={"Bytes": photographs["obama"]}, MaxFaces=1)
        search = {"CollectionId": "people", "Image": {"Bytes": photographs["obama-2"]}}
        [match] = rekognition.search_faces_by_image(**search, FaceMatchThreshold=0)["FaceMatches"]
        assert match["Similarity"] == pytest.approx(compared, abs=1e-3)
        # A threshold is one of the same scale.
        assert rekognition.search_faces_by_image(**search, FaceMatchThreshold=compared - 0.01)["FaceMatches"]
        assert not rekognition.search_faces_by_image(**search, FaceMatchThreshold=min(compared + 0.01, 100))["FaceMatches"]
        found[embedder] = compared
        assert started.stop() == 0
    sface = [(0.334, 70), (0.358, 80), (0.415, 90), (0.465, 95), (0.545, 99)]
    cosine = on_scale(found["sface-2021dec"], sface, back=True)
    # The same network in another form.
    assert found["mine"] == pytest.approx(on_scale(cosine, mine), abs=0.05) and abs(found["mine"] - found["sface-2021dec"]) > 0.1


def test_what_cannot_be_run_is_not_taken(folder, tmp_path):
    before = sorted(path.name for path in folder.iterdir())
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x07 not a model")
    for file, why in [(broken, "cannot be used"), (MODELS / "yunet-2023mar.onnx", "cannot be used"), (tmp_path / "missing.onnx", "No such file")]:
        assert why in models(folder, "add", "mine", file, ok=False)
    for name in ("", "a/b", "-x", "x" * 65):
        assert "name" in models(folder, "add", "--", name, MODELS / PLAIN, ok=False)
    assert "--scale" in models(folder, "add", "mine", MODELS / PLAIN, "--scale", "0", ok=False)
    assert sorted(path.name for path in folder.iterdir()) == before
