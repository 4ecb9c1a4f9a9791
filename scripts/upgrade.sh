#!/usr/bin/env bash
# Builds an earlier version (EARLIER, a commit) from the history of this repository, and runs it beside this one: on one
# queue, and one after the other on one store.
set -euo pipefail
cd "$(dirname "$0")/.."
earlier=$(git rev-parse --verify "${EARLIER:-82cd77a}^{commit}")
target=${CARGO_TARGET_DIR:-$PWD/target}/earlier
folder=$target/$earlier
if [ ! -x "$folder/landfall" ]; then
  rm -rf "$folder"
  git worktree prune
  git worktree add --force --detach "$folder/source" "$earlier"
  trap 'git worktree remove --force "$folder/source"' EXIT
  (cd "$folder/source" && CARGO_TARGET_DIR="$target/build" cargo build --bin landfall)
  mv "$target/build/debug/landfall" "$folder/landfall"
fi
LANDFALL_EARLIER="$folder/landfall" cargo test --test it upgrade:: -- --ignored --nocapture --test-threads=1
