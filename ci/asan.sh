#!/usr/bin/env bash
# AddressSanitizer: bad accesses, use after return, leaks; and proof that it follows the switches.
# Needs the nightly toolchain. The standard library is the prebuilt one: that costs reports of faults
# that happen inside std only, and no false ones. Prints "N passed, N failed" at the end.
#
# Not here: the unit tests of `arch`, which switch between stacks that only they know, below the layer
# that tells sanitizers about stacks; doc tests, which are built without the flags; what tests other
# programs (the examples, `macros`, `tidy`); three that measure the process's memory, of which a sanitizer
# takes its part, not least by keeping what is freed for a while.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

if ! rustc +nightly --version; then
    skip "AddressSanitizer needs the nightly toolchain"
fi
export RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/asan
export RUST_BACKTRACE=0
cargo=(cargo +nightly test --target x86_64-unknown-linux-gnu)

# Leaks are looked for where a program leaves none. Elsewhere there are some on purpose (a ring whose
# kernel side may still write, what a runtime keeps for the next one), and pointers that no leak
# checker finds: those in parked fibers' stacks, and those with tag bits.
export ASAN_OPTIONS=detect_stack_use_after_return=1:detect_leaks=1
export LSAN_OPTIONS=suppressions=$PWD/ci/lsan.supp:print_suppressions=0
tests "${cargo[@]}" --lib --test stacks --test local --no-fail-fast -- --skip arch::
refuse 'WARNING: ASan' 'a stack that AddressSanitizer was not told about'

export ASAN_OPTIONS=detect_stack_use_after_return=1:detect_leaks=0
tests "${cargo[@]}" $(integration tidy sums examples cp kv probe proxy macros stacks local) --no-fail-fast -- \
    --skip stacks_are_trimmed --skip scopes_leave_nothing --skip runtimes_do_not_pile_up
refuse 'WARNING: ASan' 'a stack that AddressSanitizer was not told about'
export ASAN_OPTIONS=detect_stack_use_after_return=1:detect_leaks=1

one=("${cargo[@]}" --test canary -- --ignored --exact)
canary 'ERROR: AddressSanitizer: stack-buffer-overflow' "${one[@]}" reads_past_a_frame
canary 'ERROR: AddressSanitizer: stack-use-after-return' "${one[@]}" reads_a_frame_that_is_gone
canary 'ERROR: AddressSanitizer: heap-use-after-free' "${one[@]}" reads_what_another_fiber_freed
canary 'ERROR: LeakSanitizer' "${one[@]}" leaks
finish
