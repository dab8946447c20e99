#!/usr/bin/env bash
# Landfall from end to end on this machine: files land, wait, are refused, are mended, are found.
# Everything that it does is a command that you can type; its state is .landfall/demo, made anew each time.
set -euo pipefail
cd "$(dirname "$0")/.."
export LANDFALL_STATE=$PWD/.landfall/demo LANDFALL_TOOLS=${LANDFALL_TOOLS:-$PWD/.landfall/tools}
landfall=$PWD/target/debug/landfall
eval "$(infra/schemas.sh)"
python=$LANDFALL_TOOLS/stac/bin/python
s2=destine/DEMO.SENTINEL-2.L2A
l8=destine/DEMO.LANDSAT-8.L2SP
started=$SECONDS

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Runs a landfall command and shows it. Exit code 1 means that the work found problems, which a demo wants to show.
run() {
    printf '$ landfall %s\n' "$*"
    "$landfall" "$@" || [ $? = 1 ]
}
# Waits until a key has an outcome.
until_is() {
    for _ in $(seq 150); do
        "$landfall" status "$1" --format json | grep -q "\"outcome\":\"$2\"" && return
        sleep 0.2
    done
    echo "demo: $1 did not become $2" >&2
    return 1
}
finish() {
    [ -z "${follower:-}" ] || { kill "$follower" 2>/dev/null || true; wait "$follower" 2>/dev/null || true; }
    "$landfall" down >/dev/null 2>&1 || true
}
trap finish EXIT

say "0. Before anything is dropped: what would the pipeline say?"
run check examples/dataset

say "1. Start: PostgreSQL with pgSTAC, a local AWS endpoint, the CloudFormation stack, four workers"
[ ! -e "$LANDFALL_STATE" ] || "$landfall" down >/dev/null
rm -rf "$LANDFALL_STATE"
run up --detach
"$landfall" notices --follow >"$LANDFALL_STATE/notices.txt" 2>"$LANDFALL_STATE/notices.log" &
follower=$!
for _ in $(seq 100); do grep -q following "$LANDFALL_STATE/notices.log" && break; sleep 0.1; done

say "2. Items land before their collection: they wait for it, and say so"
run put "examples/dataset/$s2/data" --prefix "$s2/data"
run put "examples/dataset/$s2/metadata/items" --prefix "$s2/metadata/items"
until_is "$s2/metadata/items/S2A" waiting
until_is "$s2/metadata/items/S2B" waiting
run status "$s2/metadata"

say "3. The collection lands, and the rest of the dataset: one item is broken, one path is in no bucket map"
run put examples/dataset
run status --wait 60
run dlq ls

say "4. What is wrong with the item?"
run status "$l8/metadata/items" --format json | "$python" -c '
import json, sys
command, answer = sys.stdin.read().split("\n", 1)
print(command)
for problem in json.loads(answer)["objects"][0]["problems"]:
    print("  {pointer:<24} {message}  ({hint})".format(**{"hint": "no hint", **problem}))'

say "5. The provider mends the item and drops it again; its old dead letter is superseded"
run put examples/mended
run status "$l8/metadata/items" --wait 60
until_is "$l8/metadata/items" completed

say "6. The operator mends the bucket map and redrives what it did not know"
run map set examples/bucket-map.mended.yaml
sleep 3
run dlq redrive --code route.unmapped --dry-run
run dlq redrive --code route.unmapped
until_is img/ completed
run status img/
run dlq ls

say "7. What subscribers were told"
for _ in $(seq 50); do [ "$(grep -c . "$LANDFALL_STATE/notices.txt")" -ge 16 ] && break; sleep 0.2; done
cat "$LANDFALL_STATE/notices.txt"

say "8. What users of the archive find: stac-fastapi-pgstac, asked with pystac-client"
eval "$("$python" -c '
import json, os, shlex
d = json.load(open(os.environ["LANDFALL_STATE"] + "/deployment.json"))
print("database=" + shlex.quote(d["database_url"]), "endpoint=" + shlex.quote(d["endpoint"]))')"
"$python" examples/search.py "$database" "$endpoint"

say "9. Everything that landed is accounted for"
landed=$(find examples/dataset -type f | wc -l)
run status
"$landfall" status --format json | "$python" -c '
import json, sys
landed, summary = int(sys.argv[1]), json.load(sys.stdin)["summary"]
completed = summary.get("completed", 0)
print(f"{landed} files were put, {sum(summary.values())} are accounted for, {completed} of them completed")
sys.exit(0 if summary == {"completed": landed} else 1)' "$landed"
echo "The demo took $((SECONDS - started)) s. \`make up\` starts a Landfall that keeps running."
