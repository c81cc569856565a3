#!/usr/bin/env bash
# Fuzzes each target of gateway/fuzz, all together for FUZZ_SECONDS (600 unless set), from the seeds and what earlier runs
# have found. On stable Rust: coverage guides it, no sanitizer watches, and what it reaches holds no unsafe code of ours.
# What is found is kept in gateway/fuzz/artifacts; it belongs into gateway/fuzz/seeds once it is mended.
set -u
cd "$(dirname "$0")/.."
deploy/setup.sh fuzz || exit 1
targets=(head body key frames snapshot)
seconds=$((${FUZZ_SECONDS:-600} / ${#targets[@]}))
# Without an end is what no time means to the fuzzer.
[ "$seconds" -ge 1 ] || { printf 'error: FUZZ_SECONDS is `%s`\n  hint: give at least %d\n' "$FUZZ_SECONDS" "${#targets[@]}" >&2; exit 2; }
# The same versions of everything as in the server.
cp Cargo.lock gateway/fuzz/Cargo.lock || exit 1
cargo deny --manifest-path gateway/fuzz/Cargo.toml --config deny.toml check bans licenses sources || exit 1
cd gateway || exit 1
cargo fuzz build --sanitizer none || exit 1
failed=()
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n== %s, %d s\n' "$target" "$seconds"
    cargo fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -print_final_stats=1 -verbosity=0 || failed+=("$target")
done
printf '\n%d targets, %d failed: %s\n' "${#targets[@]}" "${#failed[@]}" "${failed[*]-}"
[ "${#failed[@]}" = 0 ]
