"""A new program under full load, and how many requests fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench import changes, places, processes, quintet, rivals
from bench.context import Context, Outcome
from bench.errors import BenchError
from bench.stacks import Stack

TITLE = "Upgrades of the program under full load"
TOOLS = ("wrk", "nginx")
# The new master counts as serving when it has its workers; they import the app after that, while the old ones serve on.
_SECONDS_MAX = 30
_PROMOTION_SECONDS = 1.5


def run(context: Context) -> Outcome:
    """The program is exchanged for itself: what is measured is the hand-over, not a difference between versions."""
    return changes.run(
        context,
        {"quintet": quintet.start, "nginx+gunicorn": rivals.nginx_gunicorn},
        {"quintet": _upgrade, "nginx+gunicorn": _usr2},
        "upgrades",
        "64 kept-alive connections in a closed loop; `quintet upgrade`, half a second after the last one has "
        "ended; gunicorn as its documentation says: USR2 to the master, QUIT to it when the new one has all its "
        "workers (nginx is not exchanged). CPU per request does not count what ended with an old process.",
    )


def _upgrade(stack: Stack) -> Iterator[None]:
    """`quintet upgrade` returns when the new program serves; the old one then drains.

    The process that was started first stays, with the id that a service manager knows; gateway and workers go.
    """
    tree = stack.trees[0]
    environment = {**os.environ, "QUINTET_SERVER_RUNTIME_DIR": str(tree.log.parent / "run")}
    old = [pid for pid in tree.pids() if pid != tree.pid and not _supervises(pid)]
    done = subprocess.run(
        [str(places.quintet()), "upgrade"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError("quintet upgrade failed", done.stdout + done.stderr, tree.tail())
    while any(_runs(pid) for pid in old):
        yield


def _supervises(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"run" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


def _usr2(stack: Stack) -> Iterator[None]:
    """The new master is a child of the old one until that ends."""
    tree = stack.trees[0]
    old = tree.extra[0] if tree.extra else tree.pid
    before = set(processes.children(old))
    os.kill(old, signal.SIGUSR2)
    while not (fresh := [pid for pid in processes.children(old) if pid not in before]):
        yield
    while len(processes.children(fresh[0])) < len(before):
        yield
    tree.extra = [fresh[0]]
    os.kill(old, signal.SIGQUIT)
    while _runs(old):
        # The first one is a child of ours and must be asked for.
        tree.process.poll()
        yield
    # gunicorn looks once a second whether its parent has gone; before that it heeds no other USR2.
    promoted = time.monotonic() + _PROMOTION_SECONDS
    while time.monotonic() < promoted:
        yield


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return processes.state(pid) != "Z"
    return False
