#!/usr/bin/python3
"""Holds every C file against .clang-format (Debian 12's version); --write formats them."""
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    tool = shutil.which("clang-format")
    if not tool:
        print("format: clang-format is not installed (tools/deps.sh test)")
        return 1
    files = sorted(str(p) for top in ("src", "tests") for p in (ROOT / top).rglob("*.[ch]"))
    if "--write" in sys.argv:
        return subprocess.run([tool, "-i", *files]).returncode
    run = subprocess.run([tool, "--dry-run", "-Werror", "--ferror-limit=1", *files],
                         stderr=subprocess.PIPE, text=True)
    bad = [line for line in run.stderr.splitlines() if "error:" in line]
    for line in bad:
        print(line.replace(str(ROOT) + "/", "").split(" [")[0])
    print(f"format: {len(files)} files, {len(bad)} not formatted"
          + (" (make format)" if bad else ""))
    return 1 if run.returncode else 0


sys.exit(main())
