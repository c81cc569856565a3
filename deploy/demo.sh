#!/usr/bin/env bash
# `make demo`: serves, trains and deploys the Iris example, calls it with curl, and stays until Ctrl-C.
set -eu
cd "$(dirname "$0")/.."
listen=${DEMO_LISTEN:-127.0.0.1:8080}
admin=${DEMO_ADMIN_LISTEN:-127.0.0.1:0}
millgate=target/release/millgate
data=$(mktemp -d "${TMPDIR:-/tmp}/millgate-demo.XXXXXX")
server=

finish() {
    trap - EXIT INT TERM
    if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then wait "$server" || true; fi
    rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. The server"
"$millgate" serve --data-dir "$data" --listen "$listen" --admin-listen "$admin" &
server=$!
until [ -s "$data/credentials.json" ] && curl -sf -o /dev/null "http://$listen/api/v2/runtimes" -H "Authorization: Bearer $(sed -n 's/.*"api_key": *"\([^"]*\)".*/\1/p' "$data/credentials.json")"; do
    kill -0 "$server" 2>/dev/null || { server=; exit 1; }
    sleep 0.1
done

say "2. The model: install scikit-learn, train, import, three replicas"
export MILLGATE_SERVER="http://$listen" MILLGATE_DATA_DIR="$data"
"$millgate" deploy examples/iris/predict.py:predict --name iris --replicas 3 --example '{"petal_length": 5.4}'

say "3. The call"
access_key=$("$millgate" --json show iris | python3 -c 'import json,sys; print(json.load(sys.stdin)["access_key"])')
api_key=$(sed -n 's/.*"api_key": *"\([^"]*\)".*/\1/p' "$data/credentials.json")
echo "curl http://$listen/model -H 'Authorization: Bearer \$API_KEY' -d '{\"accessKey\":\"$access_key\",\"request\":{\"petal_length\":5.4}}'"
answer=$(curl -sS "http://$listen/model" -H 'Content-Type: application/json' -H "Authorization: Bearer $api_key" \
    -d "{\"accessKey\":\"$access_key\",\"request\":{\"petal_length\":5.4}}")
printf '%s\n' "$answer"
case $answer in *'"success":true'*) ;; *) exit 1 ;; esac

[ -z "${DEMO_EXIT:-}" ] || exit 0
say "What next (in another terminal)"
cat <<TXT
  export MILLGATE_SERVER=http://$listen MILLGATE_KEY_FILE=$data/credentials.json
  $millgate list
  $millgate call iris '{"petal_length": 1.4}'
  $millgate logs -f iris
  $millgate deploy examples/add_numbers/add_numbers.py:add --example '{"a":3,"b":5}'
Ctrl-C here stops everything and leaves nothing behind.
TXT
wait "$server"
