#!/usr/bin/env bash
# Takes each grant of each role away from a Landfall of functions that it starts for that, and stops again.
#   infra/grants.sh [STAGE …]
set -euo pipefail
cd "$(dirname "$0")/.."
export LANDFALL_TOOLS=${LANDFALL_TOOLS:-$PWD/.landfall/tools}
landfall=${CARGO_TARGET_DIR:-target}/debug/landfall
folder=$(mktemp -d)
trap '"$landfall" down --state "$folder/state" || true; rm -rf "$folder"' EXIT
# What is denied is tried again at once; what is larger than 5 MiB is copied in parts.
cat > "$folder/landfall.toml" <<'TOML'
[retry]
delay_min_ms = 300
delay_max_ms = 3000
wait_max_s = 120
[route.copy]
threshold_mib = 5
part_mib = 5
TOML
"$landfall" up --lambda --detach --state "$folder/state" --config "$folder/landfall.toml"
"$LANDFALL_TOOLS/lint/bin/python" infra/grants.py "$landfall" "$folder/state" "$@"
