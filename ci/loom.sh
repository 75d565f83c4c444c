#!/usr/bin/env bash
# The lock-free protocols under the model checker loom: src/loom_models, canaries included. Takes
# about a minute. Ends with cargo test's closing line.
set -euo pipefail
cd "$(dirname "$0")/.."

# A target directory of its own, since the flag would have everything else built anew. Whole-program
# optimisation would take longer than it saves. A canary's fault is expected: no backtraces.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg loom"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
export CARGO_PROFILE_RELEASE_LTO=off
export RUST_BACKTRACE=0
cargo test --release --lib loom_models "$@"
