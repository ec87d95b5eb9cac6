"""Prints what the outcome of the tests depends on, a line each: files with their hashes, compiler, Python."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files() -> list[str]:
    """Every file that is not ignored, tracked or not: what git would commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def main() -> None:
    """Files, then tools."""
    for name in files():
        path = ROOT / name
        mode = "x" if path.stat().st_mode & 0o111 else "-"
        print(hashlib.sha256(path.read_bytes()).hexdigest()[:32], mode, name)
    print("python", sys.version.replace("\n", " "))
    print(subprocess.run(["rustc", "-vV"], capture_output=True, check=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
