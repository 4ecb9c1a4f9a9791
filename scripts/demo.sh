#!/usr/bin/env bash
# The main job, embedded: a data product from validation to readable resources, access given and taken, and back to
# nothing. Every step is checked; the first that fails ends the demo with a non-zero exit and the server's log.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${LANDFALL_TOOLS:-$PWD/target/tools}/venv/bin/python"
target="${CARGO_TARGET_DIR:-$PWD/target}"
work="$(mktemp -d)"
data="$work/data"
product="$work/cashflow.yaml"
# Both follow from the output port's id and the environment: docs/technologies/lakehouse.md says how.
namespace="finance__cashflow__0__production"
table="cashflow_output_port"
port_id="urn:dmb:cmp:finance:cashflow:0:cashflow-output-port"
server=""

finish() {
  local code=$?
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  if [ "$code" -ne 0 ]; then
    echo
    echo "The demo failed. The server said:"
    cat "$work/server.err" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { echo "\$ landfall $*"; "$target/debug/landfall" "$@"; }
# Runs a command, shows what it prints, and insists on a text in it.
expect() {
  local text=$1 printed
  shift
  printed="$("$@")" || { echo "$printed"; return 1; }
  echo "$printed"
  grep -qF -- "$text" <<<"$printed" || { echo "expected to see: $text" >&2; return 1; }
}
table() {
  "$python" tests/tools/read_iceberg.py --catalog "$data/catalog.db" --warehouse "$data/warehouse" \
    --table "$namespace.$table" "$@"
}
show() { "$python" -c 'import json, sys; read = json.load(sys.stdin)
for reader, seen in read.items():
    print(reader + ":")
    for column in seen["columns"]: print("  column", column["name"], column["type"], column["doc"] or "")
    for row in seen["rows"]: print("  row   ", *row.values(), sep="  ")'; }
rows() { table | show; }
access() { table --readers pyiceberg | "$python" -c 'import json, sys
print(json.load(sys.stdin)["pyiceberg"]["properties"]["landfall.access.refs"])'; }

step "Build and start Landfall on a free port; its whole state is a temporary folder"
cargo build --quiet
"$target/debug/landfall" serve --listen 127.0.0.1:0 --data-dir "$data" >"$work/server.out" 2>"$work/server.err" &
server=$!
for _ in $(seq 100); do
  url="$(sed -n 's/^listening on //p' "$work/server.out")"
  [ -z "$url" ] || break
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.1
done
[ -n "$url" ] || exit 1
export LANDFALL_URL="$url"
echo "listening on $url"

step "The data product of the Tech Adapter page: an output port, a workload and a storage area"
# One line is added to the page's own descriptor: load its two sample rows.
sed 's/^\( *\)format: Iceberg$/&\n\1loadSampleData: true/' examples/cashflow.yaml >"$product"
expect "valid" run validate "$product"

step "A typo is found before anything happens, with its place and its remedy"
sed 's/dataType: number/dataType: nmber/' "$product" >"$work/typo.yaml"
if run validate "$work/typo.yaml" 2>"$work/typo.err"; then exit 1; fi
expect 'NUMBER' cat "$work/typo.err"

step "What deploying would change"
expect "create" run plan "$product"

step "Deploy: validate, provision and poll over the contract, component by component"
expect "COMPLETED" run deploy "$product"

step "The bucket, and the Iceberg table as pyiceberg and DuckDB see it"
find "$data/warehouse" -maxdepth 3 | sed "s|$data/||" | sort
expect "CF-002" rows

step "Let alice and the developers group read (recorded with the table: files cannot enforce it)"
expect "recorded, not enforced" run acl "$product" --component "$port_id" --ref user:alice_mydomain.com --ref group:developers
expect "user:alice_mydomain.com" access

step "The full list is now bob alone: alice and the developers are revoked"
expect "revoke" run acl "$product" --component "$port_id" --ref user:bob_mydomain.com
expect "user:bob_mydomain.com" access
if access | grep -q alice; then echo "alice still has access" >&2; exit 1; fi

step "Import the table back into catalog fields, as reverse provisioning does"
expect "counterpartyId" run import --template urn:dmb:utm:output-port-template:1.0.0 --environment production \
  --param "namespace=$namespace" --param "table=$table"

step "Deploy again: nothing differs, nothing changes, bob keeps his access"
expect "no change" run plan "$product"
expect "nothing to change" run deploy "$product"
expect "user:bob_mydomain.com" access

step "Undeploy, data included"
expect "COMPLETED" run undeploy "$product" --remove-data
if table >"$work/gone" 2>&1; then echo "the table is still in the catalog" >&2; exit 1; fi
echo "pyiceberg: $(tail -n 1 "$work/gone")"
if find "$data/warehouse" -type f | grep .; then echo "files were left behind" >&2; exit 1; fi

step "Stop: SIGTERM drains"
kill -TERM "$server"
wait "$server"
server=""
printf '\nDone: from a descriptor to readable resources and back to nothing.\n'
