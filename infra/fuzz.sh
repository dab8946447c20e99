#!/usr/bin/env bash
# Runs one fuzz target of the engine for so many seconds: infra/fuzz.sh differential|bytes [SECONDS]
# Needs cargo-fuzz (`cargo install cargo-fuzz`) and a C++ compiler; works on the stable toolchain, without a sanitizer.
# LANDFALL_SCHEMAS may name a bundle or a mirror of published schemas: then core STAC is held against them too.
set -euo pipefail
target=${1:?which target: differential or bytes}
seconds=${2:-1800}
cd "$(dirname "$0")/../workers/validate/engine"
# What is found goes to a folder of its own; the committed corpus is read.
found=fuzz/target/found/$target
mkdir -p "$found"
exec cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=4096
