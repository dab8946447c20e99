#!/usr/bin/env bash
# Measures the validation engine beside a plain parse, beside other validators, and over many files; and routing beside
# a loop over the rules and beside `aws s3 cp`: `make bench`.
# Figures are ratios to a baseline of the same run; machines are noisy, so quote those.
set -euo pipefail
cd "$(dirname "$0")/.."
infra/setup.sh --bench
tools=${LANDFALL_TOOLS:-$PWD/.landfall/tools}
work=$(mktemp -d)
finish() {
    [ -z "${ministack:-}" ] || { kill "$ministack" 2>/dev/null || true; wait "$ministack" 2>/dev/null || true; }
    rm -rf "$work"
}
trap finish EXIT

echo "bench: building with the profile dist"
cargo build --quiet --profile dist -p landfall
landfall=target/dist/landfall
bundle=${LANDFALL_SCHEMAS:-}
if [ -z "$bundle" ] && "$landfall" schemas fetch --output "$work/schemas.bundle" >/dev/null; then bundle=$work/schemas.bundle; fi
if [ -d "$bundle" ]; then "$landfall" schemas fetch --from "$bundle" --output "$work/schemas.bundle" >/dev/null; bundle=$work/schemas.bundle; fi
[ -z "$bundle" ] || export LANDFALL_SCHEMAS=$bundle
cargo bench --quiet -p landfall-stac --bench speed -- --dump "$work"
if [ -n "$bundle" ]; then
    "$tools/bench/bin/python" workers/validate/engine/benches/peers.py "$work" "$bundle"
else
    echo "bench: other validators need published schemas, which could not be had: SKIPPED"
fi

echo
echo "landfall check over 100,000 files:"
"$tools/bench/bin/python" - "$work" "$landfall" <<'PYTHON'
import os, pathlib, resource, subprocess, sys, time
work, landfall = pathlib.Path(sys.argv[1]), sys.argv[2]
lines = (work / "generated.ndjson").read_text().splitlines()
for number in range(100_000):
    folder = work / "many" / "metadata" / f"{number // 1000:03}"
    if number % 1000 == 0:
        folder.mkdir(parents=True)
    (folder / f"{number:06}.json").write_text(lines[number % len(lines)])
start = time.perf_counter()
subprocess.run([landfall, "check", str(work / "many")], check=True, stdout=subprocess.DEVNULL)
wall = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{wall:.1f} s, {(used.ru_utime + used.ru_stime) / wall:.2f} of {os.cpu_count()} cores busy, {used.ru_maxrss / 1024:.0f} MB at most")
PYTHON

echo
echo "routing:"
cargo bench --quiet -p landfall-route --bench speed
bench=$(cargo bench --quiet -p landfall-route --bench speed --no-run --message-format json |
    "$tools/bench/bin/python" -c '
import json, sys
lines = (json.loads(line) for line in sys.stdin)
print([line["executable"] for line in lines if line.get("executable") and line["target"]["name"] == "speed"][-1])')
port=$("$tools/bench/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
GATEWAY_PORT=$port BIND_HOST=127.0.0.1 MINISTACK_HOST=127.0.0.1 LOG_LEVEL=WARNING "$tools/ministack/bin/ministack" >"$work/ministack.log" 2>&1 &
ministack=$!
for _ in $(seq 100); do curl -fsS "http://127.0.0.1:$port/_ministack/health" >/dev/null 2>&1 && break; sleep 0.1; done
"$tools/stac/bin/python" workers/route/benches/copying.py "http://127.0.0.1:$port" "$bench" "$tools/bench/bin/aws"
