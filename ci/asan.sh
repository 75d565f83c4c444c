#!/usr/bin/env bash
# AddressSanitizer: bad accesses, use after return, leaks; and proof that it follows the switches.
# Needs the nightly toolchain. The standard library is the prebuilt one: that costs reports of faults
# that happen inside std only, and no false ones. Prints "N passed, N failed" at the end.
#
# Not here: the unit tests of `arch`, which switch between stacks that only they know, below the layer
# that tells sanitizers about stacks; doc tests, which std's would not link with.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

if ! rustc +nightly --version; then
    skip "AddressSanitizer needs the nightly toolchain"
fi
export RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/asan
export ASAN_OPTIONS=detect_stack_use_after_return=1:detect_leaks=1
export LSAN_OPTIONS=suppressions=$PWD/ci/lsan.supp:print_suppressions=0
export RUST_BACKTRACE=0
cargo=(cargo +nightly test --target x86_64-unknown-linux-gnu)

tests "${cargo[@]}" --tests --no-fail-fast -- --skip arch::
refuse 'WARNING: ASan' 'a stack that AddressSanitizer was not told about'

one=("${cargo[@]}" --test canary -- --ignored --exact)
canary 'ERROR: AddressSanitizer: stack-buffer-overflow' "${one[@]}" reads_past_a_frame
canary 'ERROR: AddressSanitizer: stack-use-after-return' "${one[@]}" reads_a_frame_that_is_gone
canary 'ERROR: AddressSanitizer: heap-use-after-free' "${one[@]}" reads_what_another_fiber_freed
canary 'ERROR: LeakSanitizer' "${one[@]}" leaks
finish
