"""Prints a hash of everything the outcome of the tests depends on: files, compiler, Python versions."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Made by the build and the tests themselves.
MADE = {
    ".git",
    ".venv",
    ".cache",
    "target",
    "node_modules",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".work",
}
MADE_IN_SHOP = {"media", "staticfiles"}


def files() -> list[Path]:
    """Every file of the tree, tracked or not, without what is made from others."""
    found = []
    todo = [ROOT]
    while todo:
        for path in todo.pop().iterdir():
            if path.name in MADE or path.name.startswith("db.sqlite3"):
                continue
            if path.is_dir() and not path.is_symlink():
                if path.name not in MADE_IN_SHOP:
                    todo.append(path)
            elif path.is_file() and path.suffix not in {".pyc", ".so"}:
                found.append(path)
    return sorted(found)


def main() -> None:
    """Hash names and contents, then the tools."""
    digest = hashlib.sha256()
    for path in files():
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(sys.version.encode())
    digest.update(subprocess.run(["rustc", "-vV"], capture_output=True, check=True).stdout)
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
