# What the lanes share; to be sourced, from the root of the repository. A lane adds up `passed` and
# `failed` and ends with `finish`, whose line "N passed, N failed" `.ci/run` reads.
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A lane that cannot work here says why and leaves with this status, which is not success.
SKIPPED=77

skip() {
    echo "SKIPPED: $*"
    exit "$SKIPPED"
}

fail() {
    echo "FAILED: $*"
    failed=$((failed + 1))
}

# tests <command...>: runs it, and adds up the closing lines of the test runners in its output, which
# stays in $log. Ending badly, or without having run any test, is a failure.
tests() {
    echo "== $*"
    local status=0
    "$@" 2>&1 | tee "$log" || status=$?
    local counts
    counts=$(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$log" |
        awk '{ p += $1; f += $2; n++ } END { if (n) print p, f }')
    if [[ -z $counts || $counts == "0 0" ]]; then
        fail "no test ran: $*"
        return
    fi
    passed=$((passed + ${counts% *}))
    failed=$((failed + ${counts#* }))
    if [[ $status -ne 0 && ${counts#* } -eq 0 ]]; then
        fail "status $status: $*"
    fi
}

# canary <text of the report> <command...>: the command must report the fault.
canary() {
    local report=$1
    shift
    RAMIE_CANARY=1 "$@" >"$log" 2>&1 || true
    if grep -q "$report" "$log"; then
        echo "ok: canary: $report: ${*: -1}"
        passed=$((passed + 1))
    else
        cat "$log"
        fail "canary: no report of \"$report\": ${*: -1}"
    fi
}

# refuse <text> <why>: the last tests' output must not contain it.
refuse() {
    if grep -q "$1" "$log"; then
        fail "$2"
    fi
}

# integration <name...>: cargo's arguments for all of tests/*.rs but these
integration() {
    local file name
    for file in tests/*.rs; do
        name=$(basename "$file" .rs)
        if [[ " $* " != *" $name "* ]]; then
            echo "--test $name"
        fi
    done
}

# binary <cargo test arguments...>: the path of the one test program that they build
binary() {
    cargo test --no-run --message-format=json "$@" |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# need <tool> <package>: installs the package where the tool is missing.
need() {
    if ! command -v "$1" >/dev/null; then
        apt-get install -y --no-install-recommends "$2" ||
            { apt-get update && apt-get install -y --no-install-recommends "$2"; }
    fi
}

finish() {
    echo "$passed passed, $failed failed"
    [[ $failed -eq 0 ]]
}
