"""New code under full load, and how many requests fail."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from bench import load, quintet, rivals, rounds
from bench.context import HELLO, Context, Goal, Outcome, hello_site
from bench.rivals import Start
from bench.rounds import Samples
from bench.stacks import Stack

TITLE = "Reloads under full load"
TOOLS = ("wrk", "nginx")
# The goal is 0 of a million; the rival, slower, gets less time than a million would take.
_REQUESTS = {"quintet": 1_000_000, "nginx+gunicorn": 250_000}
_QUICK_REQUESTS = 20_000
# Between the end of one reload and the next: most of the run is spent inside a reload.
_PAUSE_SECONDS = 0.5
# A reload that takes longer is reported as not finished.
_RELOAD_SECONDS_MAX = 30.0
# A bound for the whole run of one stack.
_SECONDS_MAX = 400.0


def run(context: Context) -> Outcome:
    """SIGHUP again and again, for both; every request is sent on a kept-alive connection and must get its 200."""
    site, samples, more = hello_site(workers=2, threads=4), Samples(), {}
    starts: dict[str, Start] = {"nginx+gunicorn": rivals.nginx_gunicorn}
    if not context.rivals_only:
        starts = {"quintet": quintet.start, **starts}
    for name, start in starts.items():
        stack = start(site, rivals.workdir(context.scenario, name))
        stack.name = name
        try:
            stack.check(*HELLO)
            load.wrk(stack.url(HELLO[0]), 1)
            requests = _QUICK_REQUESTS if context.quick else _REQUESTS[name]
            sample, told = _measure(stack, requests)
        finally:
            stack.stop()
        samples.add(name, sample)
        more[name] = told
        context.say(f"  {name:<16} {told}")
    outcome = Outcome(
        samples,
        more={"failures": more},
        method="64 kept-alive connections in a closed loop; SIGHUP to the master, half a second after the last "
        "reload has ended.",
    )
    if not context.rivals_only:
        outcome.goals = [Goal("failed requests of quintet", sum(samples.by_stack["quintet"]["errors"]), 0)]
    return outcome


def _measure(stack: Stack, requests: int) -> tuple[rounds.Sample, dict[str, object]]:
    done, took = threading.Event(), list[float]()
    reloader = threading.Thread(target=_reload_until, args=(stack, done, took))
    reloader.start()
    try:
        found, sample = rounds.with_cpu(
            stack, lambda: load.closed(stack.address, HELLO[0], _SECONDS_MAX, requests=requests)
        )
    finally:
        done.set()
        reloader.join()
    sample |= {
        "requests": found.answered,
        "requests_per_second": found.per_second,
        "reloads": len(took),
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "max_ms": found.more["fast"]["max_ms"],
        "errors": found.errors,
        "reload_seconds": max(took, default=0.0),
    }
    return sample, {"errors_by_kind": found.more["errors_by_kind"], "examples": found.more["examples"]}


def _reload_until(stack: Stack, done: threading.Event, took: list[float]) -> None:
    """A reload is over when no worker of before is left."""
    while not done.wait(_PAUSE_SECONDS):
        old, begin = _workers(stack), time.monotonic()
        os.kill(stack.trees[0].pid, signal.SIGHUP)
        while old & _workers(stack) and not done.is_set():
            if time.monotonic() - begin > _RELOAD_SECONDS_MAX:
                return
            time.sleep(0.02)
        if not done.is_set():
            took.append(time.monotonic() - begin)


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
