#!/usr/bin/env bash
# The consumer library's promises, as its own tests try and print them: the first record within 3 s of a cold start, nothing read
# twice at a planned hand-off, and a killed worker's shards read again within two leases. Java's library needs 70 to 105 s for its first.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release -p client --examples
SIGHTGLASS_BIN=target/release/sightglass .venv/bin/python -m pytest -q -rP conformance/test_rust_consumer.py -k "cold_start or hand_off" |
    grep -E "first record|killed worker|passed|failed"
