#!/usr/bin/env bash
# The tests as if on older kernels, and as if on kernels or in sandboxes that have a part of io_uring
# only: by masks, which are explained in src/sys/mask.rs. Real old kernels have their own lane,
# ci/old-kernel.sh. Prints "N passed, N failed" at the end.
#
#   ci/kernels.sh            all tests under each mask
#   ci/kernels.sh short      some programs under some masks; two minutes
#   ci/kernels.sh MASK...    all tests under these
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/lib.sh

# Without rings that will do, before 5.19, all are alike but for what the oldest lacks.
kernels=(linux-5.4 linux-5.10 linux-5.15 linux-6.1 linux-6.6 linux-6.12)
parts=(
    -futex
    -futex,-msg_ring
    -guard_batch
    -guard_install
    -defer_taskrun
    -defer_taskrun,-coop_taskrun,-submit_all,-ring_fds,-iowq_max_workers,-no_iowait
    -openat,-statx,-fsync,-unlinkat,-renameat,-mkdirat,-linkat,-symlinkat,-ftruncate,-waitid
    -recv
    -io_uring
)

if [[ ${1:-} == short ]]; then
    some=(fs_contract fs_paths_contract net_contract runtime)
    flags=()
    for name in "${some[@]}"; do
        flags+=(--test "$name")
    done
    for mask in linux-5.4 linux-6.1 -defer_taskrun,-futex "${parts[6]}"; do
        echo "==== RAMIE_CAPS=$mask"
        tests env RAMIE_CAPS="$mask" cargo test --no-fail-fast "${flags[@]}"
    done
    finish
    exit
fi
masks=("$@")
[[ ${#masks[@]} -gt 0 ]] || masks=("${kernels[@]}" "${parts[@]}")
cargo build --examples
for mask in "${masks[@]}"; do
    echo "==== RAMIE_CAPS=$mask"
    tests env RAMIE_CAPS="$mask" cargo test --lib --tests --no-fail-fast
done
finish
