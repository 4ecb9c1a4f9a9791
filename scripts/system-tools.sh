#!/usr/bin/env bash
# The tests run PostgreSQL and LDAP servers of their own, servers whose wall clock jumps (libfaketime), and plug-ins that
# use jq. Does nothing when all are there; else installs them where that takes no question, or says what to install.
set -euo pipefail
shopt -s nullglob

oldest=15

has_postgres() {
  local folder version folders
  IFS=: read -ra folders <<< "$PATH"
  for folder in "${folders[@]}" /usr/lib/postgresql/*/bin; do
    [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] || continue
    # "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    version=$("$folder/postgres" --version | cut -d' ' -f3)
    [ "${version%%[!0-9]*}" -ge "$oldest" ] && return 0
  done
  return 1
}

has_faketime() {
  local found=(/usr/lib/*/faketime/libfaketime.so.1 /usr/{,local/}lib/faketime/libfaketime.so.1)
  local file
  for file in "${found[@]}"; do
    [ -e "$file" ] && return 0
  done
  return 1
}

has_slapd() {
  [ -x /usr/sbin/slapd ] && [ -e /etc/ldap/schema/inetorgperson.schema ]
}

has_jq() {
  command -v jq > /dev/null
}

missing=()
has_postgres || missing+=(postgresql)
has_faketime || missing+=(faketime)
has_slapd || missing+=(slapd)
has_jq || missing+=(jq)
[ ${#missing[@]} -eq 0 ] && exit 0

remedy="The tests need the server programs of PostgreSQL $oldest or newer (initdb, postgres), slapd, libfaketime and jq.
Missing here, by their names in Debian: ${missing[*]}. Install them, for example
  apt-get install --no-install-recommends ${missing[*]}"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  as_root=(sudo -n)
fi
if ! command -v apt-get > /dev/null || ! "${as_root[@]}" true 2> /dev/null; then
  echo "$remedy" >&2
  exit 1
fi

echo "installing ${missing[*]}"
# With the package Debian makes a cluster of its own and starts it; not this time, the tests have theirs.
settings=/etc/postgresql-common/createcluster.d/landfall-tests.conf
trap '"${as_root[@]}" rm -f "$settings"' EXIT
"${as_root[@]}" mkdir -p "${settings%/*}"
echo "create_main_cluster = false" | "${as_root[@]}" tee "$settings" > /dev/null
echo "slapd slapd/no_configuration boolean true" | "${as_root[@]}" debconf-set-selections
install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
"${as_root[@]}" "${install[@]}" || {
  # A fresh image has no lists of packages, or old ones.
  "${as_root[@]}" apt-get update -q
  "${as_root[@]}" "${install[@]}"
}
if ! has_postgres || ! has_faketime || ! has_slapd || ! has_jq; then
  echo "$remedy" >&2
  exit 1
fi
