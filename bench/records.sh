#!/usr/bin/env bash
# Starts the peers of the record figures, kinesalite and moto, and measures them and us in turns. Both are installed by `make
# bench`; each keeps records in memory alone, and moto answers no CBOR.
set -euo pipefail
cd "$(dirname "$0")/.."

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ready() {
    for _ in $(seq 100); do
        if (: < "/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "records: the peer on port $1 did not start" >&2
    exit 1
}

kinesalite=$(port)
node bench/peers/node_modules/kinesalite/cli.js --port "$kinesalite" --createStreamMs 0 --shardLimit 100 >/dev/null 2>target/kinesalite.log &
peers=($!)
moto=$(port)
.venv/bin/moto_server -H 127.0.0.1 -p "$moto" >/dev/null 2>target/moto.log &
peers+=($!)
trap 'kill "${peers[@]}" 2>/dev/null || true' EXIT
ready "$kinesalite"
ready "$moto"
target/release/records --peer "kinesalite=127.0.0.1:$kinesalite" --peer "moto=127.0.0.1:$moto" "$@"
