#!/usr/bin/env bash
# Installs what Landfall needs beside a Rust toolchain: Debian packages for PostgreSQL with PostGIS, and Python
# environments with pinned versions under .landfall/tools. Idempotent; does nothing where all is there.
# Exit 2 where packages are missing and it may not install them.
#   infra/setup.sh            ministack and the STAC tools
#   infra/setup.sh --lint     cfn-lint too
#   infra/setup.sh --bench    the validators that are measured too
set -euo pipefail
cd "$(dirname "$0")/.."
tools=${LANDFALL_TOOLS:-$PWD/.landfall/tools}

missing=()
version=$(ls /usr/lib/postgresql 2>/dev/null | sort -n | tail -n 1 || true)
postgis=/usr/share/postgresql/${version:-none}/extension/postgis.control
if [ -z "$version" ] || [ ! -x "/usr/lib/postgresql/$version/bin/initdb" ] || [ ! -e "$postgis" ]; then
    # Debian 12 has PostgreSQL 15; elsewhere the newest that the machine's sources have.
    candidate=$(apt-cache search --names-only '^postgresql-[0-9]+-postgis-3$' 2>/dev/null | cut -d' ' -f1 | sort -V | tail -n 1 || true)
    missing+=("${candidate:-postgresql-15-postgis-3}")
fi
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
# One test watches what a document makes the command open and connect to.
command -v strace >/dev/null || missing+=(strace)
# Another has a pooler that must be recognised.
[ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ]; then
        as_root=()
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root=(sudo)
    else
        echo "setup: these Debian packages are missing, and you may not install them (no root, no sudo): ${missing[*]}" >&2
        exit 2
    fi
    echo "setup: installing ${missing[*]} with apt"
    # No server of the distribution's own shall start: Landfall makes a private cluster, and a pooler only for a test.
    if [[ " ${missing[*]} " = *" pgbouncer "* ]] && command -v systemctl >/dev/null; then
        "${as_root[@]}" systemctl mask --quiet pgbouncer.service || true
    fi
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        "${as_root[@]}" mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -o Dpkg::Options::=--force-confold "${missing[@]}"
fi

environment() {
    local name=$1 wanted=infra/python/$1.txt
    local folder=$tools/$name
    if [ -e "$folder/installed.txt" ] && cmp -s "$wanted" "$folder/installed.txt"; then
        return
    fi
    echo "setup: Python environment $name ($(grep -c == "$wanted") packages)"
    rm -rf "$folder"
    mkdir -p "$tools"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$folder/installed.txt"
}
environment ministack
environment stac
environment aws
# Prometheus' own judge of what is scraped, out of its package; no server is installed.
if [ ! -x "$tools/promtool" ]; then
    echo "setup: promtool"
    unpacked=$(mktemp -d)
    if [ "$(id -u)" = 0 ]; then chown _apt "$unpacked" 2>/dev/null || true; fi
    (
        cd "$unpacked"
        if ! apt-get download -q prometheus >/dev/null 2>&1; then
            # Nobody has asked for the package lists yet.
            if [ "$(id -u)" = 0 ]; then apt-get update -q >/dev/null; else sudo apt-get update -q >/dev/null; fi
            apt-get download -q prometheus >/dev/null
        fi
        dpkg -x prometheus_*.deb .
    )
    cp "$unpacked/usr/bin/promtool" "$tools/promtool"
    rm -rf "$unpacked"
fi
if [ "${1:-}" = --bench ]; then
    environment bench
fi
if [ "${1:-}" = --lint ]; then
    environment lint
fi
