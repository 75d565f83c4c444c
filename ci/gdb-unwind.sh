#!/usr/bin/env bash
# A debugger's view of a fiber: `bt` inside one must end at the fiber's entry, with no frame after
# it and no frame that has no name. The same must be had from the outside of a fiber that is
# suspended, once gdb is given the registers from its frame (asm/README.md, "Looking at a suspended
# fiber"). Works on the unit tests, on x86-64; prints "N passed, 0 failed" at the end.
#
#   ci/gdb-unwind.sh [cargo test arguments, such as --release]
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v gdb >/dev/null; then
    apt-get install -y --no-install-recommends gdb
fi

# Function names with their paths are in full debug information only.
export CARGO_PROFILE_RELEASE_DEBUG=full
binary=$(cargo test --lib --no-run --message-format=json "$@" |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
tests=ramie::arch::tests::machine
passed=0
failed=0

# backtrace_at <function> [gdb command...]: stops there, runs the commands; `bt`, a line a frame
backtrace_at() {
    local commands=(-ex "break $1" -ex run)
    shift
    for command in "$@"; do
        commands+=(-ex "$command")
    done
    gdb -nx -batch -ex 'set width 0' -ex 'set debuginfod enabled off' "${commands[@]}" \
        -ex 'echo \nbacktrace\n' -ex bt \
        --args "$binary" --exact "${tests#ramie::}::gdb_target" --test-threads=1 2>/dev/null |
        sed '1,/^backtrace$/d' | grep -E '^#[0-9]+ ' || true
}

# ends_at_entry <backtrace>: is it a fiber's, whole and clean?
ends_at_entry() {
    local frames=$1
    [[ $(tail -n 1 <<<"$frames") == *' ramie_v'*'_fiber_entry '* ]] &&
        ! grep -q '??' <<<"$frames" &&
        ! grep -q 'run_test' <<<"$frames"
}

verdict() {
    if "${@:2}"; then
        echo "ok: $1"
        passed=$((passed + 1))
    else
        echo "FAILED: $1"
        failed=$((failed + 1))
    fi
}

not() { ! "$@"; }

inside=$(backtrace_at $tests::gdb_stops_here)
echo "$inside"
verdict 'bt inside a fiber ends at its entry' ends_at_entry "$inside"

# rdi: the context's address. Its first word is the frame (asm/x86_64/switch.s).
into_the_fiber=(
    'set language c'
    'set $frame = *(unsigned long *)$rdi'
    'set $rbx = *(unsigned long *)($frame + 8)'
    'set $rbp = *(unsigned long *)($frame + 16)'
    'set $rip = *(unsigned long *)$frame'
    'set $rsp = $frame + 24'
)
suspended=$(backtrace_at "*$tests::gdb_looks_from_outside" "${into_the_fiber[@]}")
echo "$suspended"
verdict 'bt of a suspended fiber ends at its entry' ends_at_entry "$suspended"
verdict 'bt of a suspended fiber begins where it waits' grep -q gdb_suspends_here <<<"$suspended"

# Canaries: what the check above must refuse.
outside=$(backtrace_at $tests::gdb_target)
verdict 'canary: bt on the thread has frames' test "$(wc -l <<<"$outside")" -gt 3
verdict 'canary: bt on the thread is refused' not ends_at_entry "$outside"
longer=$inside$'\n#99 0x0 in ?? ()'
verdict 'canary: a frame after the entry is refused' not ends_at_entry "$longer"
verdict 'canary: no backtrace is refused' not ends_at_entry ''

echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
