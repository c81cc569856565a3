#!/usr/bin/env bash
# All checks and tests, as continuous integration runs them. Ends with a plain count.
set -u
cd "$(dirname "$0")/.."
deploy/setup.sh test || exit 1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0

# check NAME COMMAND…: one pass or one failure.
check() {
    printf '\n== %s\n' "$1"
    if "${@:2}"; then passed=$((passed + 1)); else failed=$((failed + 1)); printf 'FAILED: %s\n' "$1"; fi
}

# count NAME PATTERN-PASSED PATTERN-FAILED COMMAND…: as many as the runner says; a runner that fails without
# naming a failed test counts as one.
count() {
    local name=$1 ok=$2 bad=$3 status n
    printf '\n== %s\n' "$name"
    "${@:4}" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    n=$(grep -oE "$ok" "$log" | grep -oE '[0-9]+' | awk '{s+=$1} END {print s+0}')
    passed=$((passed + n))
    n=$(grep -oE "$bad" "$log" | grep -oE '[0-9]+' | awk '{s+=$1} END {print s+0}')
    if [ "$status" != 0 ] && [ "$n" = 0 ]; then n=1; fi
    failed=$((failed + n))
    [ "$status" = 0 ] || printf 'FAILED: %s\n' "$name"
}

check "format" cargo fmt --all --check
check "format of fuzz targets" cargo fmt --manifest-path gateway/fuzz/Cargo.toml --check
check "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
check "documentation" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
check "licences, bans, sources" cargo deny check bans licenses sources
check "Prometheus configuration" promtool check config deploy/prometheus/prometheus.yml
check "alert rules" promtool test rules deploy/prometheus/millgate.rules.test.yml
check "Python style" .venv/bin/ruff check python-shim examples replica-runtime/src supervisor/tests bench control-api/src/builder/packages/compiled.py
check "Python format" .venv/bin/ruff format --check python-shim examples replica-runtime/src supervisor/tests bench control-api/src/builder/packages/compiled.py
check "Python types" .venv/bin/mypy --strict python-shim/src control-api/src/builder/packages/compiled.py
check "programs" cargo build --workspace --bins --locked
# Two versions of Python, where there are two: the tests of commands serve models of both side by side.
second=$(deploy/runtimes.sh second)
if [ -n "$second" ]; then
    check "runtime of a second Python: $second" deploy/runtimes.sh develop "$second"
else
    printf '\n== NO SECOND PYTHON here that can be embedded: one version only is tested\n'
fi
ran=('run: [0-9]+ passed' ', [0-9]+ (failed|timed out)')
count "Rust tests" "${ran[@]}" cargo nextest run --workspace --locked
# The same tests of the control API once more, with its state in PostgreSQL: what holds of one store holds of the other.
count "control API on PostgreSQL" "${ran[@]}" deploy/postgres.sh with cargo nextest run -p millgate-control-api --locked
count "documentation tests" ' [0-9]+ passed' ' [0-9]+ failed' cargo test --workspace --doc --locked --quiet
count "Python tests" '[0-9]+ passed' '[0-9]+ (failed|error)' .venv/bin/python -m pytest -q python-shim

printf '\n%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
