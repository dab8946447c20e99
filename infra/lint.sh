#!/usr/bin/env bash
# Formatting, clippy, the template and what cfn-lint does not see of it, Prometheus' rules, and, where cargo-deny is installed, licences and bans.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${LANDFALL_TOOLS:-$PWD/.landfall/tools}
cargo fmt --all --check
cargo clippy --quiet --workspace --all-targets -- -D warnings
"$tools/lint/bin/cfn-lint" infra/landfall.yaml
"$tools/lint/bin/python" infra/policy.py infra/landfall.yaml --plant
"$tools/promtool" test rules infra/prometheus-rules.test.yaml
if command -v terraform >/dev/null; then
    TF_CLI_CONFIG_FILE=/dev/null terraform fmt -check -diff infra/terraform
else
    echo "lint: SKIPPED terraform fmt, which is not installed"
fi
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --log-level error check bans licenses sources
else
    echo "lint: SKIPPED cargo deny, which is not installed"
fi
