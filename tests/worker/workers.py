"""What the tests of the worker share: Pythons and Djangos to run them on, and waiting."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"

# What the fixtures of conftest.py give.
Serve = Callable[..., Any]


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for what another process is about to do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@functools.cache
def pythons() -> dict[str, str]:
    """Installed Pythons from 3.10 up: version ("3.12") to program."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in range(10, 15):
        version = f"3.{minor}"
        candidates = [str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))]
        candidates += [path for path in [shutil.which(f"python{version}")] if path]
        # A free-threaded build takes no extension of the stable ABI.
        code = "import sys; print('{}.{}'.format(*sys.version_info), getattr(sys, '_is_gil_enabled', lambda: True)())"
        for candidate in candidates:
            told = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
            if told.returncode == 0 and told.stdout.split() == [version, "True"]:
                found.setdefault(version, candidate)
    return dict(sorted(found.items(), key=lambda item: int(item[0].partition(".")[2])))


def django_dir(series: str, python: str = sys.executable) -> Path:
    """The newest Django of a series ("5.2"): pure Python, so that one installation serves every interpreter."""
    directory = CACHE / "django" / series
    if not (directory / "django" / "__init__.py").exists():
        # By a Python that this Django takes: pip asks.
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # What its dependency asgiref needs on Python 3.10 only.
        command += ["--target", str(directory), "--upgrade", f"django=={series}.*", "typing_extensions"]
        subprocess.run(command, check=True)
    return directory


def uvloop_dir(python: str) -> Path:
    """uvloop for that Python, for PYTHONPATH."""
    version = subprocess.check_output(
        [python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], text=True
    )
    directory = CACHE / "uvloop" / version.strip()
    if not (directory / "uvloop" / "__init__.py").exists():
        command = [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        subprocess.run([*command, "--target", str(directory), "--upgrade", "uvloop"], check=True)
    return directory
