#!/usr/bin/env bash
# Builds what is deployed: a zip for each function, as Lambda wants it (one program named `bootstrap`), and the programs
# for containers and services beside them.
#
#   infra/package.sh            for this machine's architecture
#   TARGET=aarch64-unknown-linux-gnu infra/package.sh
#   DATABASE_CA=global-bundle.pem infra/package.sh
#
# For another architecture its toolchain must be there: `rustup target add` and a linker for it. DATABASE_CA is a file with
# the authorities of the database's certificate, where they are not those of everybody (RDS has its own:
# https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem); functions find it as /var/task/database-ca.pem.
# Fails where a program needs a newer C library than Lambda has, or a zip is large.
set -euo pipefail
cd "$(dirname "$0")/.."
stages=(validate route load notify)
target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
case $target in
    x86_64-*) architecture=x86_64 ;;
    aarch64-*) architecture=arm64 ;;
    *) echo "package: Lambda has no $target" >&2; exit 2 ;;
esac
if [ -n "${DATABASE_CA:-}" ] && ! grep -q 'BEGIN CERTIFICATE' "$DATABASE_CA"; then
    echo "package: DATABASE_CA=$DATABASE_CA holds no certificate" >&2
    exit 2
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    echo "package: the toolchain has no $target; \`rustup target add $target\` gets it" >&2
    exit 2
fi
echo "package: cargo build --profile dist --target $target (optimised as a whole: this takes minutes)"
cargo build --quiet --profile dist --target "$target" -p landfall "${stages[@]/#/-plandfall-}"
built=${CARGO_TARGET_DIR:-target}/$target/dist
out=${CARGO_TARGET_DIR:-target}/package/$architecture
mkdir -p "$out"
cp "$built/landfall" "$out/landfall"
functions=("${stages[@]}" maintain)
for function in "${functions[@]}"; do
    cp "$built/landfall-$function" "$out/landfall-$function"
done
infra/zip.py "$out" "${DATABASE_CA:-}" "${functions[@]}"
echo "package: all is in $out"
