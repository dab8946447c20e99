#!/usr/bin/env python3
"""Puts each function's program into a zip as Lambda wants it.

zip.py FOLDER DATABASE_CA FUNCTION …     FOLDER/landfall-FUNCTION becomes FOLDER/FUNCTION.zip; DATABASE_CA may be empty

Exit code 1 where a zip is large, or a program would not start there.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

SIZE_MAX = 8_000_000
# That of provided.al2023: https://docs.aws.amazon.com/linux/al2023/ug/compare-with-al2.html
GLIBC_MAX = (2, 34)
NEED_DATABASE = ["load", "notify", "maintain"]


def glibc_of(program):
    """The C library that a program needs at least."""
    symbols = subprocess.run(["objdump", "-T", program], stdout=subprocess.PIPE, check=True, text=True).stdout
    return max((tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_(\d+\.\d+)", symbols)), default=(0, 0))


def pack(path, files):
    """The same files make the same zip: an update that changes nothing is none."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode, content in files:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = (0o100000 | mode) << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, compresslevel=9)


def main(folder, database_ca, *functions):
    problems = []
    for function in functions:
        program, path = Path(folder, f"landfall-{function}"), Path(folder, f"{function}.zip")
        files = [("bootstrap", 0o755, program.read_bytes())]
        if database_ca and function in NEED_DATABASE:
            files.append(("database-ca.pem", 0o644, Path(database_ca).read_bytes()))
        pack(path, files)
        size, glibc = path.stat().st_size, glibc_of(program)
        print(f"{function:<9} {program.stat().st_size / 1e6:5.1f} MB   {path.name} {size / 1e6:4.1f} MB   glibc {glibc[0]}.{glibc[1]}")
        if size > SIZE_MAX:
            problems.append(f"{path.name} is larger than {SIZE_MAX // 1_000_000} MB, which makes cold starts slow")
        if glibc > GLIBC_MAX:
            problems.append(f"{program.name} needs glibc {glibc[0]}.{glibc[1]}, and Lambda has {GLIBC_MAX[0]}.{GLIBC_MAX[1]}: build it in Debian 12")
    for problem in problems:
        print(f"package: {problem}", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
