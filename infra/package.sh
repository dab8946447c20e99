#!/usr/bin/env bash
# Builds what is deployed: a zip for each function, as Lambda wants it (one program named `bootstrap`), and the programs
# for containers and services beside them.
#
#   infra/package.sh            for this machine's architecture
#   TARGET=aarch64-unknown-linux-gnu infra/package.sh
#
# For another architecture its toolchain must be there: `rustup target add` and a linker for it.
set -euo pipefail
cd "$(dirname "$0")/.."
stages=(validate route load notify)
target=${TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
case $target in
    x86_64-*) architecture=x86_64 ;;
    aarch64-*) architecture=arm64 ;;
    *) echo "package: Lambda has no $target" >&2; exit 2 ;;
esac
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
for stage in "${stages[@]}"; do
    cp "$built/landfall-$stage" "$out/landfall-$stage"
done
python3 - "$out" "${stages[@]}" <<'PYTHON'
import sys, zipfile
out, *stages = sys.argv[1:]
# Maintenance is the command's.
for stage, name in [(stage, f"landfall-{stage}") for stage in stages] + [("maintain", "landfall")]:
    program = open(f"{out}/{name}", "rb").read()
    # The same program makes the same zip: an update that changes nothing is none.
    entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
    entry.external_attr, entry.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(f"{out}/{stage}.zip", "w") as file:
        file.writestr(entry, program, compresslevel=9)
    size = lambda path: open(path, "rb").seek(0, 2) / 1e6
    print(f"{stage:<9} {size(f'{out}/{name}'):5.1f} MB   {stage}.zip {size(f'{out}/{stage}.zip'):4.1f} MB")
PYTHON
echo "package: all is in $out"
