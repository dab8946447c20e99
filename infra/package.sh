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
functions=("${stages[@]}" maintain)
for function in "${functions[@]}"; do
    cp "$built/landfall-$function" "$out/landfall-$function"
done
python3 - "$out" "${functions[@]}" <<'PYTHON'
import sys, zipfile
out, *functions = sys.argv[1:]
SIZE_MAX = 8_000_000
over = []
for function in functions:
    program = open(f"{out}/landfall-{function}", "rb").read()
    # The same program makes the same zip: an update that changes nothing is none.
    entry = zipfile.ZipInfo("bootstrap", (1980, 1, 1, 0, 0, 0))
    entry.external_attr, entry.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
    path = f"{out}/{function}.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(entry, program, compresslevel=9)
    size = open(path, "rb").seek(0, 2)
    print(f"{function:<9} {len(program) / 1e6:5.1f} MB   {function}.zip {size / 1e6:4.1f} MB")
    if size > SIZE_MAX:
        over.append(function)
if over:
    sys.exit(f"package: larger than {SIZE_MAX // 1_000_000} MB, which makes cold starts slow: {', '.join(over)}")
PYTHON
echo "package: all is in $out"
