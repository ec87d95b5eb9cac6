"""Where things lie."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SHOP = ROOT / "examples" / "shop"
APPS = ROOT / "tests" / "apps"
CACHE = ROOT / ".cache"
WHEELS = CACHE / "wheels"


def quintet() -> Path:
    """The program under test: what `pip install` put beside this Python, or QUINTET_UNDER_TEST."""
    return Path(os.environ.get("QUINTET_UNDER_TEST", Path(sys.executable).parent / "quintet"))


def python() -> Path:
    """The Python of the sites, in the environment of the program under test."""
    return quintet().parent / "python"


@contextlib.contextmanager
def one_at_a_time(made: Path) -> Iterator[None]:
    """For what is made once in .cache: tests run several at a time, and the second one finds it."""
    made.parent.mkdir(parents=True, exist_ok=True)
    with made.with_name(f"{made.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
