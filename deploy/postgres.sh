#!/usr/bin/env bash
# A PostgreSQL of one's own, for tests: on a Unix socket in its folder, as a user of its own where this one is root, which
# PostgreSQL refuses.
# usage: deploy/postgres.sh new FOLDER      makes a cluster in FOLDER/data
#        deploy/postgres.sh serve FOLDER    is its server, as this process; options of `postgres` may follow
#        deploy/postgres.sh with COMMAND…   runs a command beside a new one, which MILLGATE_TEST_POSTGRES names
#        deploy/postgres.sh found           says whether there are the programs
set -eu
# Debian keeps the programs of each version out of the way.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb || echo /nowhere/initdb)")
[ -x "$bin/initdb" ] || { echo "error: there is no PostgreSQL here; hint: deploy/setup.sh test" >&2; exit 1; }
as=() user=$(id -un)
if [ "$(id -u)" = 0 ]; then
    user=postgres
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi

new() { # new FOLDER
    mkdir -p "$1" && chmod 755 "$1"
    [ "$(id -u)" != 0 ] || chown postgres: "$1"
    (cd "$1" && "${as[@]}" "$bin/initdb" --pgdata="$1/data" --auth=trust --username=millgate --encoding=UTF8 \
        --locale=C.UTF-8 --no-sync) >"$1.initdb.log" 2>&1 || { cat "$1.initdb.log" >&2; exit 1; }
    mv "$1.initdb.log" "$1/initdb.log"
}

serve() { # serve FOLDER OPTION…
    cd "$1"
    exec "${as[@]}" "$bin/postgres" -D "$1/data" -k "$1" -c listen_addresses= -c max_connections=400 "${@:2}"
}

with() { # with COMMAND…
    folder=$(mktemp -d /tmp/mgpg.XXXXXX) server=
    trap '[ -z "$server" ] || { kill -INT "$server" && wait "$server"; } 2>/dev/null || true; rm -rf "$folder"' EXIT
    trap 'exit 130' INT TERM
    new "$folder"
    # Tests do not survive a power cut.
    (serve "$folder" -c fsync=off) >"$folder/postgres.log" 2>&1 &
    server=$!
    until "$bin/pg_isready" --quiet --host="$folder" --username=millgate --dbname=postgres; do
        kill -0 "$server" 2>/dev/null || { cat "$folder/postgres.log" >&2; exit 1; }
        sleep 0.1
    done
    status=0
    MILLGATE_TEST_POSTGRES="postgres://millgate@localhost/postgres?host=$folder" "$@" || status=$?
    exit "$status"
}

case "${1:-}" in
new | serve | with) [ $# -ge 2 ] || { echo "error: \`$1\` of what?" >&2; exit 2; }; "$@" ;;
found) ;;
*) sed -n '4,8s/^# //p' "$0" >&2; exit 2 ;;
esac
