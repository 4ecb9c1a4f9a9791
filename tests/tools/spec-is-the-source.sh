#!/usr/bin/env bash
# Shows with real builds that spec/ is the source of generated/:
#   1. after a build, generated/ is what is committed;
#   2. an edit by hand in generated/ is undone by the next build;
#   3. a path moved in spec/ is a build away: generated/ changes, hand-written code builds on, unchanged.
# Works in the work tree, and leaves it as it found it.
set -euo pipefail
cd "$(dirname "$0")/../.."

document=spec/tech-adapter-2.6.3.yaml
server=generated/tech_adapter/server.rs

fail() {
  echo "spec-is-the-source: $1" >&2
  exit 1
}

# `--examples` (there are none) makes cargo choose the features of dependencies as `cargo test` does: one build of them
# serves both.
build() {
  cargo build --workspace --lib --bins --examples
}

changed() {
  git status --porcelain "$@"
}

[ -z "$(changed spec)" ] || fail "spec/ has changes that are not committed; commit them first"
build
if [ -n "$(changed generated)" ]; then
  git --no-pager diff --stat generated >&2
  fail "generated/ is not what spec/ generates; run 'make generate', commit, and never edit it by hand"
fi
trap 'git checkout --quiet -- spec generated' EXIT

echo "// edited by hand" >>"$server"
build
[ -z "$(changed generated)" ] || fail "an edit by hand in generated/ outlives a build"

before=$(changed . ':!spec' ':!generated')
sed -i.original 's#^  /v1/provision/{token}/stop:$#  /v1/tasks/{token}/halt:#' "$document"
rm "$document.original"
[ -n "$(changed spec)" ] || fail "$document has no path /v1/provision/{token}/stop to move"
build
grep -q '/v1/tasks/{token}/halt' "$server" || fail "a path moved in spec/ does not arrive in generated/"
[ "$before" = "$(changed . ':!spec' ':!generated')" ] || fail "a build writes outside of generated/"

echo "spec-is-the-source: as it must be"
