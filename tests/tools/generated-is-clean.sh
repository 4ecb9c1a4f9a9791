#!/usr/bin/env bash
# Fails when generated/ is not what spec/ generates: after a build, the work tree must be the commit.
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build
dirty=$(git status --porcelain generated)
if [ -n "$dirty" ]; then
  echo "generated/ differs from what the build makes of spec/:" >&2
  echo "$dirty" >&2
  git --no-pager diff --stat generated >&2
  echo "Run 'make generate' and commit the result; never edit generated/ by hand." >&2
  exit 1
fi
echo "generated/ is what spec/ generates"
