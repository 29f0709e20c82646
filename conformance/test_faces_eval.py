"""`sightglass faces eval`, as a person at a terminal uses it, against numbers computed here from boto3's answers."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import harness
from harness import REGION, binary, eventually

VIDEO = "mkv/bezos_vogels.mkv"
# Seconds of the video in which one person alone is in the picture, looking around and speaking.
ALONE = {"first": (0, 5), "second": (12, 18)}
IMAGES = 32
MODELS = pathlib.Path(os.environ.get("SIGHTGLASS_MODELS", harness.ROOT / "models"))
WORKER = pathlib.Path(os.environ.get("SIGHTGLASS_WORKER", pathlib.Path(binary()).parent / "vision-worker"))

pytestmark = pytest.mark.skipif(not (MODELS / "manifest.json").exists() or not WORKER.exists(), reason="skipped: models or vision-worker not prepared")


@pytest.fixture(scope="module")
def people(data, photographs, tmp_path_factory):
    """Two people as one video shows them, three of photographs, and one image without a face."""
    folder = tmp_path_factory.mktemp("people")
    for person, (start, end) in ALONE.items():
        (folder / person).mkdir()
        subprocess.run(["ffmpeg", "-v", "error", "-ss", str(start), "-i", str(data / VIDEO), "-vf", f"fps={IMAGES / (end - start)},scale=480:-1",
                        "-frames:v", str(IMAGES), "-q:v", "2", str(folder / person / f"{person}_%04d.jpg")], check=True)
    for name, image in photographs.items():
        person = name.split("-")[0]
        (folder / person).mkdir(exist_ok=True)
        (folder / person / f"{name}.jpg").write_bytes(image)
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=gray:size=320x240", "-frames:v", "1", str(folder / "first/wall.png")], check=True)
    (folder / "notes.txt").write_text("not a person")
    return folder


@pytest.fixture
def command(server):
    environment = {"PATH": os.environ["PATH"], "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key,
                   "AWS_SECRET_ACCESS_KEY": server.secret, "SIGHTGLASS_MODELS": str(MODELS), "SIGHTGLASS_WORKER": str(WORKER), "NO_COLOR": "1"}

    def start(*arguments, **more):
        return subprocess.Popen([binary(), "faces", "eval", *map(str, arguments)], env={**environment, **more}, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    return start


def finished(child, code=0):
    out, complaints = child.communicate(timeout=240)
    assert child.returncode == code, complaints
    return out, complaints


def evaluations(server):
    listed = server.client("rekognition").get_paginator("list_collections").paginate()
    return [name for page in listed for name in page["CollectionIds"] if name.startswith("sightglass-eval-")]


def similarities(rekognition, collection, folder):
    """Of every pair of images, both ways, whether they show one person and how similar they are; and each probe's nearest gallery image."""
    rekognition.create_collection(CollectionId=collection)
    person, image_of = {}, {}
    images = sorted(path for path in folder.glob("*/*") if path.suffix in (".jpg", ".png"))
    for number, path in enumerate(images):
        person[number] = path.parent.name
        answer = rekognition.index_faces(CollectionId=collection, Image={"Bytes": path.read_bytes()}, ExternalImageId=str(number), MaxFaces=1, QualityFilter="NONE")
        for record in answer["FaceRecords"]:
            image_of[record["Face"]["FaceId"]] = number
    gallery = {}
    for number in sorted(person):
        gallery.setdefault(person[number], number)
    genuine, impostor, right = [], [], 0
    for face, probe in image_of.items():
        found = rekognition.search_faces(CollectionId=collection, FaceId=face, FaceMatchThreshold=0, MaxFaces=4096)["FaceMatches"]
        for match in found:
            other = image_of[match["Face"]["FaceId"]]
            (genuine if person[probe] == person[other] else impostor).append(match["Similarity"])
        nearest = [image_of[m["Face"]["FaceId"]] for m in found if image_of[m["Face"]["FaceId"]] in gallery.values()]
        if probe not in gallery.values():
            right += person[nearest[0]] == person[probe]
    return person, image_of, genuine, impostor, right, gallery


def test_the_numbers_are_those_of_the_api(server, command, people, name, tmp_path):
    report = json.loads(finished(command(people, "--json", "--plots", tmp_path / "plots"))[0])
    rekognition = server.client("rekognition")
    person, image_of, genuine, impostor, right, gallery = similarities(rekognition, name, people)
    rekognition.delete_collection(CollectionId=name)
    assert (report["images"], report["people"], report["enrolled"]) == (len(person), len(gallery), len(image_of))
    assert report["not_enrolled"] == {"no face": 1} and report["model"] == "sface-2021dec"
    counts = [list(person.values()).count(who) for who in gallery]
    assert report["genuine_pairs"] == sum(n * (n - 1) // 2 for n in counts)
    assert report["impostor_pairs"] == len(impostor) // 2 >= 1000
    at = {row["false_match_rate"]: row for row in report["at_false_match_rate"]}
    assert sorted(at) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    impostor.sort(reverse=True)
    # At the stated similarity at most one in a hundred impostors is taken for a match, and just below it more are.
    similarity, allowed = at[0.01]["similarity"], len(impostor) // 100
    assert sum(s >= similarity for s in impostor) <= allowed < sum(s >= similarity - 2e-4 for s in impostor)
    assert at[0.01]["true_match_rate"] == pytest.approx(sum(s >= similarity for s in genuine) / 2 / report["genuine_pairs"], abs=1e-6)
    for rate in (1e-3, 1e-4, 1e-5, 1e-6):
        assert at[rate]["similarity"] is None, "too few pairs to say"
    for row in report["at_threshold"]:
        reached = [s for s in impostor if s >= row["similarity"]]
        assert row["false_matches"] == len(reached) / 2 and row["false_match_rate"] == pytest.approx(len(reached) / len(impostor)), row
        assert row["true_match_rate"] == pytest.approx(sum(s >= row["similarity"] for s in genuine) / 2 / report["genuine_pairs"], abs=1e-6), row
    assert [row["similarity"] for row in report["at_threshold"]] == [70, 80, 90, 95, 99] and report["calibration"] is None
    probes = sum(n - 1 for n in counts)
    assert report["identification"] == {"people": sum(n > 1 for n in counts), "probes": probes, "rank_1": pytest.approx(right / probes)}
    for plot in ("roc.svg", "similarities.svg"):
        assert (tmp_path / "plots" / plot).read_text().startswith("<svg")
    assert evaluations(server) == []


def test_pairs_are_judged_in_ten_parts_and_the_table_says_so(command, people, tmp_path):
    lines = ["10\t1"]
    for part in range(10):
        lines.append(f"first\t{part + 1}\t{part + 12}")
        lines.append(f"first\t{part + 1}\tsecond\t{part + 5}")
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(lines) + "\n")
    # A server of the command's own, which is gone afterwards.
    out, complaints = finished(command(people, "--pairs", pairs, "--temporary", TMPDIR=str(tmp_path)))
    assert complaints == "" and "\x1b" not in out
    assert "over 10 parts of 20 pairs (pairs.txt)" in out and "100.00 % ± 0.00 %" in out, out
    assert "too few pairs" in out and "1 in 100 " in out and "no face" in out, out
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.txt"]


def test_an_interrupt_leaves_no_collection(server, command, people):
    child = command(people)
    eventually(lambda: evaluations(server) != [])
    child.send_signal(signal.SIGINT)
    _, complaints = finished(child, code=1)
    assert "interrupted" in complaints and evaluations(server) == []


def test_a_folder_with_too_few_people_calibrates_nothing(command, people, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    for path in MODELS.iterdir():
        if path.is_file():
            shutil.copyfile(path, models / path.name)
    before = sorted(path.name for path in models.iterdir())
    few = tmp_path / "few"
    for person in ("obama", "biden"):
        (few / person).mkdir(parents=True)
        for image in (people / person).iterdir():
            shutil.copyfile(image, few / person / image.name)
    complaints = finished(command(few, "--calibrate", "--models", models), code=1)[1]
    assert "too few pairs" in complaints and sorted(path.name for path in models.iterdir()) == before


def test_a_folder_that_is_none_and_a_model_that_is_none_are_refused(command, people, tmp_path):
    assert "a folder for each person" in finished(command(tmp_path), code=1)[1]
    assert "No such file" in finished(command(tmp_path / "missing"), code=1)[1]
    complaints = finished(command(people, "--model", "another"), code=1)[1]
    assert "no embedder is called another" in complaints


def test_a_collection_says_who_resembles_whom(server, photographs, name):
    rekognition = server.client("rekognition")
    rekognition.create_collection(CollectionId=name)
    for person, image in (("obama", "obama"), ("obama", "obama-2"), ("biden", "biden")):
        rekognition.index_faces(CollectionId=name, Image={"Bytes": photographs[image]}, ExternalImageId=person, MaxFaces=1)
    ids = {f["FaceId"]: f["ExternalImageId"] for f in rekognition.list_faces(CollectionId=name)["Faces"]}
    between = {"obama": [], "biden": []}
    for face, person in ids.items():
        for match in rekognition.search_faces(CollectionId=name, FaceId=face, FaceMatchThreshold=0)["FaceMatches"]:
            between[person].append((ids[match["Face"]["FaceId"]], match["Similarity"]))
    environment = {**os.environ, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret, "NO_COLOR": "1"}
    report = subprocess.run([binary(), "faces", "report", name, "--json"], check=True, capture_output=True, text=True, env=environment)
    people = {person["name"]: person for person in json.loads(report.stdout)["people"]}
    assert set(people) == {"obama", "biden"} and (people["obama"]["faces"], people["biden"]["faces"]) == (2, 1)
    assert people["obama"]["least_own"] == pytest.approx(min(s for who, s in between["obama"] if who == "obama"), abs=1e-3)
    assert people["obama"]["nearest"] == {"name": "biden", "similarity": pytest.approx(max(s for who, s in between["obama"] if who == "biden"), abs=1e-3)}
    assert people["biden"]["least_own"] is None
    table = subprocess.run([binary(), "faces", "report", name], check=True, capture_output=True, text=True, env=environment).stdout
    assert "3 faces of 2 people" in table and "at 80: 0 people match somebody else, 0 have two faces" in table and "\x1b" not in table
    rekognition.delete_collection(CollectionId=name)
    missing = subprocess.run([binary(), "faces", "report", name], capture_output=True, text=True, env=environment)
    assert missing.returncode == 1 and "ResourceNotFoundException" in missing.stderr
