#!/usr/bin/env bash
# Decode, detect and embed beside OpenCV with the same models, both on one core. VIDEO= names another video with faces.
set -euo pipefail
cd "$(dirname "$0")/.."
video=${VIDEO:-../shared/data/mkv/bezos_vogels.mkv}
[ -f "$video" ] || { echo "vision: skipped: $video is not there; VIDEO= names another"; exit 0; }
core=$(($(nproc) - 1))
exec taskset -c "$core" target/release/vision --worker target/release/vision-worker \
    --models "${SIGHTGLASS_MODELS:-models}" --python "${PYTHON:-.venv/bin/python}" --video "$video" "$@"
