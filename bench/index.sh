#!/usr/bin/env bash
# IndexFaces over HTTP beside OpenCV and ONNX Runtime with the same models, both on one core, on frames of a video as photographs.
# VIDEO= names another video with faces, IMAGES= a folder of JPEG or PNG images instead.
set -euo pipefail
cd "$(dirname "$0")/.."
images=${IMAGES:-}
if [ -z "$images" ]; then
    video=${VIDEO:-../shared/data/mkv/bezos_vogels.mkv}
    [ -f "$video" ] || { echo "index: skipped: $video is not there; VIDEO= or IMAGES= names others"; exit 0; }
    images=$(mktemp -d -p target index-images-XXXXXX)
    trap 'rm -r "$images"' EXIT
    ffmpeg -v error -nostdin -i "$video" -vf fps=12,scale=-2:360 -q:v 3 "$images/%04d.jpg"
fi
core=$(($(nproc) - 1))
taskset -c "$core" target/release/index --sightglass target/release/sightglass --worker target/release/vision-worker \
    --models "${SIGHTGLASS_MODELS:-models}" --python "${PYTHON:-.venv/bin/python}" --images "$images" "$@"
