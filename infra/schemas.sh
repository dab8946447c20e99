#!/usr/bin/env bash
# Gets the published schemas of extensions once, into .landfall/schemas.bundle, and names the bundle to the caller:
#   eval "$(infra/schemas.sh)"
# Without a network it says so and goes on: core STAC needs no bundle, and what does is skipped or said.
set -euo pipefail
cd "$(dirname "$0")/.."
bundle=${LANDFALL_SCHEMAS:-$PWD/.landfall/schemas.bundle}
if [ ! -e "$bundle" ]; then
    echo "schemas: getting the published schemas of STAC extensions (schemas.lock)" >&2
    target/debug/landfall schemas fetch --output "$bundle" >&2 || true
fi
if [ -e "$bundle" ]; then
    echo "export LANDFALL_SCHEMAS=$(printf %q "$bundle")"
else
    echo "schemas: they could not be had, so extensions are not judged here; \`landfall schemas fetch\` tries again" >&2
    echo "unset LANDFALL_SCHEMAS"
fi
