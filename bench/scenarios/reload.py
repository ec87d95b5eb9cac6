"""New code under full load, and how many requests fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from bench import changes, quintet, rivals
from bench.context import Context, Outcome
from bench.stacks import Stack

TITLE = "Reloads under full load"
TOOLS = ("wrk", "nginx")


def run(context: Context) -> Outcome:
    """SIGHUP again and again, for both; every request is sent on a kept-alive connection and must get its 200."""
    return changes.run(
        context,
        {"quintet": quintet.start, "nginx+gunicorn": rivals.nginx_gunicorn},
        {"quintet": _reload, "nginx+gunicorn": _reload},
        "reloads",
        "64 kept-alive connections in a closed loop; SIGHUP to the master, half a second after the last "
        "reload has ended.",
    )


def _reload(stack: Stack) -> Iterator[None]:
    """A reload is over when no worker of before is left."""
    old = _workers(stack)
    os.kill(stack.trees[0].pid, signal.SIGHUP)
    while old & _workers(stack):
        yield


def _workers(stack: Stack) -> set[int]:
    """The processes that run Python below the master."""
    master = stack.trees[0]
    found = set()
    for pid in master.pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if pid != master.pid and b"python" in words:
            found.add(pid)
    return found
