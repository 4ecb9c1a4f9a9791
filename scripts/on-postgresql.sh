#!/usr/bin/env bash
# on-postgresql.sh RELEASE COMMAND...: runs a command that finds this release of PostgreSQL first on its PATH. The
# releases are those of tests/tools/postgresql, which `make tools` gets.
set -euo pipefail

release=$1
shift
found=("${LANDFALL_TOOLS:-target/tools}"/postgresql/node_modules/postgresql-"$release"-*/native)
if [ ! -x "${found[0]}/bin/initdb" ]; then
  echo "PostgreSQL $release is not in ${found[0]%/node_modules*}: run \`make tools\`" >&2
  exit 1
fi
# A server never runs as root, and its user may not be able to read the folder of root's tools.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r "${found[0]}/." "$folder"
chmod -R a+rX "$folder"
PATH="$folder/bin:$PATH" "$@"
