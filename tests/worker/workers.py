"""What the tests of the worker share: Pythons and Djangos to run them on, and waiting."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import places, venvs

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
    """Installed Pythons, oldest first: version ("3.12") to program."""
    found = {str(interpreter): str(interpreter.path) for interpreter in venvs.interpreters()}
    # The one that runs the tests has their packages in its environment.
    return found | {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}


def django_dir(series: str, python: str = sys.executable) -> Path:
    """The newest Django of a series ("5.2"): pure Python, so that one installation serves every interpreter."""
    # What its dependency asgiref needs on Python 3.10 only. By a Python that this Django takes: pip asks.
    return _package(
        python, places.CACHE / "django" / series, "django", f"django=={series}.*", "typing_extensions"
    )


@functools.cache
def uvloop_dir(python: str) -> Path:
    """uvloop for that Python, for PYTHONPATH."""
    version = subprocess.check_output(
        [python, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], text=True
    )
    return _package(
        python, places.CACHE / "uvloop" / version.strip(), "uvloop", "uvloop", "--only-binary", ":all:"
    )


def _package(python: str, directory: Path, name: str, *arguments: str) -> Path:
    """The directory, with that package in it."""
    with places.one_at_a_time(directory):
        if not (directory / name / "__init__.py").exists():
            pip = [str(places.ROOT / "scripts" / "retry"), python, "-m", "pip", "install", "-q"]
            pip += ["--disable-pip-version-check", "--target", str(directory), "--upgrade"]
            subprocess.run([*pip, *arguments], check=True)
    return directory
