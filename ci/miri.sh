#!/usr/bin/env bash
# Miri: what the crate does on plain threads, interpreted, so that each access is held to Rust's rules
# of aliasing (Stacked Borrows, then Tree Borrows), provenance and initialisation, data races are
# found, and a wait that nobody ends is one as well. Takes five minutes, and two more the first time,
# for Miri's standard library. Prints "N passed, N failed" at the end.
#
# Not here: whatever needs a fiber, a ring or a system call that Miri does not know. Tests with
# contracts run on a thread only there, and those who wait do it by the futex.
#
#   ci/miri.sh                    all of it
#   ci/miri.sh short              Stacked Borrows only, and one schedule
#   ci/miri.sh long               with Tree Borrows for all of it
#   ci/miri.sh seeds [N]          the tests of waiting and of lists only, in N (64) schedules
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

# Nothing is downloaded here: who has no Miri goes without.
toolchain=
for candidate in miri nightly; do
    if cargo "+$candidate" miri --version 2>/dev/null; then
        toolchain=$candidate
        break
    fi
done
if [[ -z $toolchain ]]; then
    skip "no Miri: rustup component add --toolchain nightly miri rust-src"
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/miri
cargo=(cargo "+$toolchain" miri)
if ! "${cargo[@]}" setup >"$log" 2>&1; then
    tail -n 20 "$log"
    skip "Miri's standard library cannot be built: rustup component add --toolchain $toolchain rust-src"
fi

# Waiters' addresses travel in words, as integers: provenance is exposed on purpose.
stacked="-Zmiri-permissive-provenance -Zmiri-env-forward=RAMIE_CANARY"
tree="$stacked -Zmiri-tree-borrows"
models=("$stacked" "$tree")
seeds=2
if [[ ${1:-} == short ]]; then
    models=("$stacked")
    seeds=1
fi

pure=(time:: fs::cstr sys::mask sys::membarrier::tests::a_ driver::choose the_first_buffers
    each_kind_has_its_turn op::)
shared=(coro:: sched:: sync::)
# Two of code that is safe, and that take long here: a great many random steps.
library=("${cargo[@]}" test --lib --no-fail-fast -- --skip like_a_sorted_set --skip each_item_is_taken_once)
# std's own channel leaks when a message's destructor panics, which the one test left out compares.
contracts=("${cargo[@]}" test --test sync_contract --test channel_mpsc --test channel_mpmc
    --test channel_more --test select --test sync --no-fail-fast --
    on_a_thread --skip a_message_whose_destructor_panics)

# schedules <how many>: as many seeds, each another schedule, with other values of relaxed loads and
# other spurious failures.
schedules() {
    local model
    for model in "${models[@]}"; do
        MIRIFLAGS="$model -Zmiri-many-seeds=0..$1" tests "${library[@]}" "${shared[@]}"
    done
}

case ${1:-} in
seeds)
    schedules "${2:-64}"
    finish
    exit
    ;;
long)
    MIRIFLAGS=$tree tests "${contracts[@]}"
    ;;
esac
MIRIFLAGS=$stacked tests "${library[@]}" "${pure[@]}"
MIRIFLAGS=$stacked tests "${contracts[@]}"
schedules "$seeds"

one=("${cargo[@]}" test --test canary -- --ignored --exact)
for model in "${models[@]}"; do
    export MIRIFLAGS=$model
    canary 'Undefined Behavior: .*\(tag\|forbidden\)' "${one[@]}" \
        writes_behind_a_reference
    canary 'Undefined Behavior: Data race' "${one[@]}" two_threads_race
    canary 'deadlocked' "${one[@]}" waits_for_ever
done
finish
