#!/usr/bin/env bash
# Where io_uring is refused: the contract tests, under a seccomp filter that answers EPERM, under one
# that answers ENOSYS, and with 64 KiB of locked memory, each with the driver chosen by `auto`; in the
# long form also under filters that refuse all the newer system calls that there is a way around.
# That one warning is logged is tested by tests/refused.rs. Prints "N passed, N failed" at the end.
#
#   ci/refused.sh           all contract tests and more
#   ci/refused.sh short     the first three programs only
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

names=(fs_contract net_contract runtime)
[[ ${1:-} == short ]] || names+=(fs_paths_contract sync_contract process_contract io io_copy signal
    cancel shutdown time timeout scope)
unset RAMIE_DRIVER RAMIE_CAPS
flags=()
for name in "${names[@]}"; do
    flags+=(--test "$name")
done
cargo build --example doctor
cargo test --no-run --test refused "${flags[@]}"
launcher=$(binary --test refused)
programs=()
for name in "${names[@]}"; do
    programs+=("$(binary --test "$name")")
done

# under <errno> <command>: runs it where io_uring is refused
under() {
    RAMIE_REFUSE=$1 RAMIE_LAUNCH=$2 "$launcher" --exact launcher --ignored --nocapture
}

tests "$launcher"
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
    for program in "${programs[@]}"; do
        tests under "$errno" "$program"
    done
done
# Since Linux 5.12 rings do not count as locked memory: here it is the limit that must not matter.
unset RAMIE_REFUSE_MORE
ulimit -l 64
for program in "${programs[@]}"; do
    tests "$program"
done
finish
