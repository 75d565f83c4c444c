#!/usr/bin/env bash
# Everything once more on the portable switch (corosensei), which `build.rs` chooses by itself on
# architectures that have none of their own; and half of it on the driver that does without
# io_uring, too. The same target directory: only this crate is built again. Prints "N passed, N
# failed" at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

export RAMIE_SWITCH=portable
cargo clippy --workspace --all-targets -- -D warnings
cargo build --examples
tests cargo test --lib --tests --no-fail-fast

# What has most to do with a driver or a switch; nothing is built again.
export RAMIE_DRIVER=poll
both=(cancel cancel_stress channel_block channel_mpmc create fiber fiber_set fifo_race fork_join
    fs_contract future_join inline io io_batch local lost macros net_contract net_edges net_halves
    panics poll poll_edges refused runtime scope shutdown spans stacks stdio stress sync thread_end
    time)
tests cargo test --lib "${both[@]/#/--test=}" --no-fail-fast
finish
