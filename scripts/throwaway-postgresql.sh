#!/usr/bin/env bash
# A PostgreSQL to throw away: in a temporary folder, on a free port of 127.0.0.1, its superuser `postgres` with a password.
# Prints `PORT PASSWORD PSQL`, serves until its stdin closes, and leaves nothing behind. Where it cannot start one, it prints
# why and ends with code 3.
set -euo pipefail
shopt -s nullglob
# Nobody else may stop it, also not an interrupt from the terminal: the end of stdin follows.
trap '' INT TERM HUP
# Whatever the server's user may read.
cd /

oldest=15
cannot() { echo "$*"; exit 3; }

bin=""
for initdb in $(type -ap initdb) /usr/lib/postgresql/*/bin/initdb; do
  folder="${initdb%/initdb}"
  [ -x "$folder/postgres" ] && [ -x "$folder/pg_ctl" ] || continue
  # "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
  release="$("$folder/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')"
  [ "$release" -ge "$oldest" ] && bin="$folder" && break
done
[ -n "$bin" ] || cannot "since no PostgreSQL $oldest or newer is installed here (Debian: apt install postgresql)"
psql="$(type -p psql || echo "$bin/psql")"
[ -x "$psql" ] || cannot "since psql is not installed here (Debian: apt install postgresql-client)"

# PostgreSQL refuses to run as root.
as=()
if [ "$(id -u)" -eq 0 ]; then
  user="$(id -un postgres 2>/dev/null || echo nobody)"
  if type -p setpriv >/dev/null; then
    as=(setpriv "--reuid=$(id -u "$user")" "--regid=$(id -g "$user")" --clear-groups)
  elif type -p runuser >/dev/null; then
    as=(runuser -u "$user" --)
  else
    cannot "since PostgreSQL does not run as root, and there is neither setpriv nor runuser"
  fi
fi

folder="$("${as[@]}" mktemp -d "${TMPDIR:-/tmp}/landfall-postgresql-XXXXXXXX")"
finish() {
  "${as[@]}" "$bin/pg_ctl" stop --silent --pgdata "$folder/data" --mode immediate >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap finish EXIT

password="$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
# The folder is of mode 0700.
"${as[@]}" tee "$folder/password" <<<"$password" >/dev/null
"${as[@]}" "$bin/initdb" --pgdata "$folder/data" --username postgres --pwfile "$folder/password" \
  --auth scram-sha-256 --encoding UTF8 --locale C --no-sync >/dev/null
for _ in $(seq 20); do
  port=$((10000 + RANDOM % 20000))
  settings="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
  if "${as[@]}" "$bin/pg_ctl" start --silent --wait --pgdata "$folder/data" --log "$folder/log" --options "$settings" \
    >/dev/null 2>&1; then
    echo "$port $password $psql"
    cat >/dev/null
    exit
  fi
  grep -q "Address already in use" "$folder/log" || break
done
cat "$folder/log" >&2
exit 1
