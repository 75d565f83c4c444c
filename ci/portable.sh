#!/usr/bin/env bash
# Everything once more on the portable switch (corosensei), which `build.rs` chooses by itself on
# architectures that have none of their own. The same target directory: only this crate is built
# again. Prints "N passed, N failed" at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

export RAMIE_SWITCH=portable
cargo clippy --workspace --all-targets -- -D warnings
cargo build --examples
tests cargo test --lib --tests --no-fail-fast
finish
