#!/usr/bin/env bash
# Builds the programs of another commit in a work tree of its own, bench/.peers/base, which git ignores.
# usage: bench/build_base.sh COMMIT
set -eu
cd "$(dirname "$0")"
commit=$(git rev-parse --verify "$1^{commit}")
base=.peers/base
mkdir -p .peers
if [ -e "$base/.git" ]; then
    git -C "$base" checkout --quiet --detach "$commit"
else
    git worktree prune
    git worktree add --quiet --force --detach "$base" "$commit"
fi
cd "$base"
cargo build --release --locked -p millgate -p millgate-replica-runtime --bins
