#!/usr/bin/env bash
# tests/stress.rs in its long form: several seeds, every number of workers, small and large rings,
# every way of waking. Prints "N passed, 0 failed" at the end; a failure prints how to repeat it.
#
#   ci/stress.sh [seconds per combination, 20 by default] [first seed]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
seed=${2:-$(date +%s)}
binary=$(cargo test --release --test stress --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0
skipped=0

for workers in 1 2 4 8; do
    for ring in 1 4 256; do
        for wake in Futex MsgRing EventFd; do
            seed=$((seed + 1000))
            run=(env "RAMIE_SEED=$seed" "RAMIE_STRESS=$seconds" "RAMIE_STRESS_WORKERS=$workers"
                "RAMIE_STRESS_RING=$ring" "RAMIE_STRESS_WAKE=$wake")
            if "${run[@]}" "$binary" --nocapture >"$log" 2>&1; then
                if grep -q '^skipped: ' "$log"; then
                    skipped=$((skipped + 1))
                    echo "skipped: $wake is not to be had here"
                else
                    passed=$((passed + 1))
                    echo "ok: $workers workers, $ring entries, $wake, seed $seed"
                fi
            else
                failed=$((failed + 1))
                tail -n 40 "$log"
                echo "FAILED: ${run[*]} cargo test --release --test stress -- --nocapture"
            fi
        done
    done
done

echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed -eq 0 && $passed -gt 0 ]]
