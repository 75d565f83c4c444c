#!/usr/bin/env bash
# Where io_uring is refused: the tests, under a seccomp filter that answers EPERM, under one that
# answers ENOSYS, and with 64 KiB of locked memory, each with the driver chosen by `auto`; in the long
# form also under filters that refuse all the newer system calls that there is a way around.
# That one warning is logged is tested by tests/refused.rs. Prints "N passed, N failed" at the end.
#
#   ci/refused.sh           all tests, everywhere
#   ci/refused.sh short     all tests under EPERM, contract tests and some more under the others
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

all=(--lib --tests)
some=(--lib --test={fs_contract,net_contract,runtime,fs_paths_contract,sync_contract})
some+=(--test={process_contract,io,io_copy,signal,cancel,shutdown,time,timeout,scope,poll,refused})
unset RAMIE_DRIVER RAMIE_CAPS
cargo build --examples
cargo test --no-run "${all[@]}"
launcher=$(binary --test refused)

# under <errno> <command>: runs it where io_uring is refused
under() {
    RAMIE_REFUSE=$1 RAMIE_LAUNCH=$2 "$launcher" --exact launcher --ignored --nocapture
}

filters=(EPERM ENOSYS)
[[ ${1:-} == short ]] || filters+=("EPERM more" "ENOSYS more")
for filter in "${filters[@]}"; do
    read -r errno more <<<"$filter"
    unset RAMIE_REFUSE_MORE
    [[ -z $more ]] || export RAMIE_REFUSE_MORE=1
    under "$errno" "${CARGO_TARGET_DIR:-target}/debug/examples/doctor" | tee "$log"
    if grep -q '^driver *epoll and threads, since there is no io_uring$' "$log"; then
        passed=$((passed + 1))
    else
        fail "the filter is not in force: $filter"
    fi
    programs=("${all[@]}")
    [[ ${1:-} != short || $filter == EPERM ]] || programs=("${some[@]}")
    tests under "$errno" "cargo test --no-fail-fast ${programs[*]}"
done
# Since Linux 5.12 rings do not count as locked memory: here it is the limit that must not matter.
unset RAMIE_REFUSE_MORE
ulimit -l 64
programs=("${all[@]}")
[[ ${1:-} != short ]] || programs=("${some[@]}")
tests cargo test --no-fail-fast "${programs[@]}"
finish
