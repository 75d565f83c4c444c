#!/usr/bin/env bash
# valgrind's memcheck: invalid accesses, on stacks that were registered with it. A build without any
# instrumentation, so what ships is what is watched. Prints "N passed, N failed" at the end.
#
# Limits, all of valgrind's:
# - It does not see what the kernel writes through io_uring, so values may look undefined that are
#   not: --undef-value-errors=no.
# - It holds its one lock while a thread waits in io_uring_enter, so a sleeping worker stops every
#   other thread: one worker only, and no test in which another thread has to wake it.
# - The unit tests of `arch` switch between stacks that they have not registered.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh
need valgrind valgrind

export RAMIE_TEST_WORKERS=1 RUST_BACKTRACE=0
memcheck=(timeout -s KILL 180 valgrind --error-exitcode=9 --undef-value-errors=no --leak-check=no
    --fair-sched=yes --num-callers=30)

tests "${memcheck[@]}" "$(binary --lib)" --test-threads=1 --skip arch::
tests "${memcheck[@]}" "$(binary --test stacks)" --test-threads=1 --skip results_nobody_wants
tests "${memcheck[@]}" "$(binary --test fs_contract)" --test-threads=1 on_a_thread::

canary 'Invalid read of size 8' \
    "${memcheck[@]}" "$(binary --test canary)" --ignored --exact reads_what_another_fiber_freed
finish
