#!/usr/bin/env bash
# From the arrival of a frame's last byte to its readable record: one 720p camera, 30 frames a second, no B-frames, default
# settings; with --cameras 8, so many of them at once. VIDEO= names another 720p video with faces.
set -euo pipefail
cd "$(dirname "$0")/.."
video=${VIDEO:-../shared/data/mkv/bezos_vogels.mkv}
[ -f "$video" ] || { echo "delay: skipped: $video is not there; VIDEO= names another"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ffmpeg -v error -i "$video" -an -vf scale=1280:720,fps=30 -pix_fmt yuv420p -c:v libx264 -preset veryfast -bf 0 \
    -force_key_frames 'expr:gte(t,n_forced*1)' -cluster_time_limit 1000 "$folder/camera.mkv"
target/release/delay --sightglass target/release/sightglass --video "$folder/camera.mkv" "$@"
