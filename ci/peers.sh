#!/bin/sh
# Builds and runs the peer runtimes, with one worker and with two. Options go to the program:
# ci/peers.sh --quick
set -eu
cd "$(dirname "$0")/../benches/peers"
cargo build --release
for workers in 1 2; do
    cargo run --quiet --release -- "$workers" "$@"
done
