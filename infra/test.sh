#!/usr/bin/env bash
# Runs every test: with nextest where it is installed, else with cargo's own runner; then the documentation's examples.
set -euo pipefail
cd "$(dirname "$0")/.."
export LANDFALL_TOOLS=${LANDFALL_TOOLS:-$PWD/.landfall/tools}
eval "$(infra/schemas.sh)"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --no-fail-fast
else
    # One test program after the other: those on real parts need both cores.
    cargo test --workspace --lib --bins --tests --no-fail-fast -- --test-threads 2
fi
cargo test --workspace --doc --quiet
