"""Processes: those of a site, found by a mark in their environment, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

# Every process of a site inherits this variable, with a value of the site's own.
MARK = "STORY"


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until it is true; fail with `what` when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Does it run? A zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def marked(mark: str) -> dict[int, str]:
    """Running processes that carry the mark: id and command line."""
    wanted = f"{MARK}={mark}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0") and alive(int(entry.name)):
                found[int(entry.name)] = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                )
        except OSError:
            # It ended while we looked, or is somebody else's.
            continue
    return found


def kill_all(mark: str) -> None:
    """The last resort, after a story that failed: what still carries the mark is killed, one by one."""
    for pid in marked(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def unshared(*namespaces: str) -> tuple[str, ...]:
    """A prefix that runs a command as root of namespaces of its own. Some machines let nobody make them."""
    prefix = ("unshare", "--user", "--map-root-user", *namespaces)
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"this machine lets nobody do {' '.join(prefix)}")
    return prefix
