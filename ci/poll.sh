#!/usr/bin/env bash
# The suite once more on the driver that does without io_uring, with the native switch. (With the
# portable one: `ci/portable.sh`, which has built everything for that.) Prints "N passed, N failed"
# at the end.
#
#   ci/poll.sh           all tests and the examples in the docs
#   ci/poll.sh short     the examples in the docs; all tests run on that driver in ci/refused.sh
#
# Tests of io_uring itself ask for it by name (`DriverKind::Uring`) and run all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

export RAMIE_DRIVER=poll
if [[ ${1:-} != short ]]; then
    cargo build --examples
    tests cargo test --lib --tests --no-fail-fast
fi
tests cargo test --doc

# A driver's name that there is none of must be refused, not taken for another one.
if RAMIE_DRIVER=iouring cargo test --test runtime >"$log" 2>&1; then
    fail "RAMIE_DRIVER=iouring was taken for a driver"
else
    passed=$((passed + 1))
fi
finish
