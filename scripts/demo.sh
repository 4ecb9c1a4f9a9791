#!/usr/bin/env bash
# The main job, embedded: a data product from validation to readable resources, access given and taken, and back to
# nothing; then, where PostgreSQL is installed, access that is enforced. Every step is checked; the first that fails ends the
# demo with a non-zero exit and the server's log. All of it listens on free ports of 127.0.0.1, and ends with the demo.
set -euo pipefail
cd "$(dirname "$0")/.."
# What is set for another server is not for this one.
for name in "${!LANDFALL_@}"; do [ "$name" = LANDFALL_TOOLS ] || unset "$name"; done

python="${LANDFALL_TOOLS:-$PWD/target/tools}/venv/bin/python"
target="${CARGO_TARGET_DIR:-$PWD/target}"
work="$(mktemp -d)"
data="$work/data"
product="$work/cashflow.yaml"
# Both follow from the output port's id and the environment: crates/technologies/lakehouse/README.md says how.
namespace="finance__cashflow__0__production"
table="cashflow_output_port"
port_id="urn:dmb:cmp:finance:cashflow:0:cashflow-output-port"
server=""
postgresql=""

finish() {
  local code=$?
  [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }
  # The end of its stdin ends it.
  [ -z "$postgresql" ] || { exec 9>&-; wait "$postgresql" || true; }
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
    for row in seen["rows"]: print("  row   ", *(row[column["name"]] for column in seen["columns"]), sep="  ")'; }
rows() { table | show; }
access() { table --readers pyiceberg | "$python" -c 'import json, sys
print(json.load(sys.stdin)["pyiceberg"]["properties"]["landfall.access.refs"])'; }

# Starts a server with its state in a folder, and waits until it listens.
start() {
  local folder=$1 url=""
  shift
  "$target/debug/landfall" serve --listen 127.0.0.1:0 --data-dir "$folder" "$@" \
    >"$work/server.out" 2>"$work/server.err" 9>&- &
  server=$!
  for _ in $(seq 100); do
    url="$(sed -n 's/^listening on //p' "$work/server.out")"
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || return 1
    sleep 0.1
  done
  [ -n "$url" ] || return 1
  export LANDFALL_URL="$url"
  echo "listening on $url"
}
stop() {
  kill -TERM "$server"
  wait "$server"
  server=""
}

step "Build Landfall: the first time some 500 crates, which takes minutes, then seconds"
cargo build

step "Start it on a free port; its whole state is a temporary folder"
start "$data"

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
stop

step "Access that is enforced: the same in a PostgreSQL to throw away"
mkfifo "$work/hold"
scripts/throwaway-postgresql.sh <"$work/hold" >"$work/postgresql" 2>"$work/server.err" &
postgresql=$!
exec 9>"$work/hold"
until [ -s "$work/postgresql" ] || ! kill -0 "$postgresql" 2>/dev/null; do sleep 0.1; done
code=0
kill -0 "$postgresql" 2>/dev/null || wait "$postgresql" || code=$?
if [ "$code" -ne 0 ]; then
  postgresql=""
  [ "$code" -eq 3 ] || exit 1
  echo "Left out, $(cat "$work/postgresql")."
  printf '\nDone: from a descriptor to readable resources and back to nothing.\n'
  exit
fi
read -r PGPORT superuser psql <"$work/postgresql"
export PGHOST=127.0.0.1 PGPORT PGDATABASE=analytics
# Runs a statement as a role, with the password of the database's superuser, which is that of all roles here.
query() { PGUSER=$1 PGPASSWORD="$superuser" "$psql" --no-psqlrc --quiet --command "$2"; }
as() { echo "\$ psql --username $1 --command '$2'"; query "$1" "$2" 2>&1; }
refused() { if as "$@"; then echo "it was let in" >&2; return 1; fi; }

orders="crates/technologies/postgresql/examples/orders.yaml"
port_id="urn:dmb:cmp:sales:orders:1:recent-orders"
look="SELECT order_id, customer, amount FROM sales__orders__1__production.recent_orders"
for role in '"alice@mydomain.com"' '"bob@mydomain.com"' '"john.smith@example.com"' orders_team 'landfall CREATEROLE CREATEDB'; do
  PGDATABASE=postgres query postgres "CREATE ROLE ${role%% *} LOGIN PASSWORD '$superuser'"
  [ "$role" = "${role%% *}" ] || PGDATABASE=postgres query postgres "ALTER ROLE $role"
done
PGDATABASE=postgres query postgres "CREATE DATABASE analytics OWNER landfall"
PGDATABASE=postgres query postgres "REVOKE CONNECT, TEMPORARY ON DATABASE analytics FROM PUBLIC"
cat >"$work/landfall.toml" <<'END'
[targets.PG]
driver = "postgresql"
url = { env = "PG_URL" }
[[routes]]
technology = "PostgreSQL"
group = "postgresql"
END
PG_URL="postgres://landfall:$superuser@$PGHOST:$PGPORT/$PGDATABASE" start "$work/enforced" --config "$work/landfall.toml"

expect "COMPLETED" run deploy "$orders"
query postgres "INSERT INTO sales__orders__1__storage__production.orders (id, customer, amount) VALUES (1, 'ACME', 12.5)"

step "Alice is on no list: PostgreSQL does not let her in"
expect "permission denied" refused alice@mydomain.com "$look"

step "Alice is on the list: she reads as herself, what is behind the view stays closed, and bob is kept out"
expect "COMPLETED" run acl "$orders" --component "$port_id" --ref user:alice_mydomain.com
expect "ACME" as alice@mydomain.com "$look"
expect "permission denied" refused alice@mydomain.com "SELECT * FROM sales__orders__1__storage__production.orders"
expect "permission denied" refused bob@mydomain.com "$look"

step "The list is now bob alone: alice is out, bob reads"
expect "revoke" run acl "$orders" --component "$port_id" --ref user:bob_mydomain.com
expect "permission denied" refused alice@mydomain.com "$look"
expect "ACME" as bob@mydomain.com "$look"

step "Undeploy, data included, and stop"
expect "COMPLETED" run undeploy "$orders" --remove-data
stop
printf '\nDone: from a descriptor to readable resources, access recorded and enforced, and back to nothing.\n'
