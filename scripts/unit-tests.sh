#!/usr/bin/env bash
# Runs the unit tests of one crate as `make test` builds them: `scripts/unit-tests.sh landfall-postgresql [FILTER...]`.
# `cargo test -p CRATE` would choose other features of shared dependencies, and build them again.
set -euo pipefail
cd "$(dirname "$0")/.."
crate=$1
shift

built=$(cargo test --workspace --lib --no-run --message-format=json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1].replace("-", "_"):
        print(message["executable"], message["manifest_path"], sep="\n")
' "$crate")
[ -n "$built" ] || { echo "unit-tests: there is no crate $crate with unit tests" >&2; exit 1; }
{ read -r executable; read -r manifest; } <<<"$built"
cd "$(dirname "$manifest")"
exec "$executable" "$@"
