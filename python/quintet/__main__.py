"""`python -m quintet`: becomes the `quintet` program that was installed with this package."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path


def find_program() -> str | None:
    """The native program: in the scripts folder of this environment, beside this Python, or on PATH."""
    folders = [
        sysconfig.get_path("scripts"),
        Path(sys.executable).parent,
        sysconfig.get_path("scripts", f"{os.name}_user"),
    ]
    for folder in folders:
        if folder and (program := Path(folder, "quintet")).is_file() and os.access(program, os.X_OK):
            return str(program)
    return shutil.which("quintet")


def main() -> int:
    """Does not return when the program is found."""
    program = find_program()
    if program is None:
        print(
            "error: the quintet program is not installed beside this package\n"
            f"detail: looked in {sysconfig.get_path('scripts')} and on PATH\n"
            f"hint: {sys.executable} -m pip install --force-reinstall quintet",
            file=sys.stderr,
        )
        return 1
    return os.execv(program, ["quintet", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
