"""A worker more while the site is in use: until the new process has answered its first request."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import load, nginx, processes, quintet, rivals, rounds
from bench.context import HELLO, Context, Goal, Outcome, hello_site
from bench.errors import BenchError
from bench.rivals import Start
from bench.rounds import Samples
from bench.stacks import Site, Stack

TITLE = "A worker more, under load"
TOOLS = ("wrk", "nginx")
# It waits a tenth of a second and computes nothing, so that it is not the CPU for which the new process waits.
_WAITS = "/short"
_PID = "/pid"
# Every round adds this many, one after another.
_SPAWNS, _QUICK_SPAWNS = 4, 1
_SECONDS_MAX = 30.0
# Between two: what the last one stirred up has settled.
_PAUSE_SECONDS = 0.7
_WORKERS = 2


def run(context: Context) -> Outcome:
    """Each stack by itself: a process that imports an app would disturb the others."""
    samples = Samples()
    site = hello_site(workers=_WORKERS, threads=1)
    starts: dict[str, Start] = {
        "nginx+gunicorn": rivals.nginx_gunicorn,
        "nginx+gunicorn --preload": _gunicorn_preload,
        "nginx+uwsgi": _uwsgi_cheaper,
    }
    orders: dict[str, Callable[[Stack], None]] = {
        "quintet": _ttin,
        "nginx+gunicorn": _ttin,
        "nginx+gunicorn --preload": _ttin,
        "nginx+uwsgi": _fifo,
    }
    if not context.rivals_only:
        starts = {"quintet": quintet.start, **starts}
    for number in range(context.rounds):
        for name in starts if number % 2 == 0 else reversed(starts):
            stack = starts[name](site, rivals.workdir(context.scenario, name.replace(" --", "-")))
            stack.name = name
            try:
                stack.check(*HELLO)
                load.wrk(stack.url(HELLO[0]), 1)
                sample = _measure(context, stack, orders[name])
            finally:
                stack.stop()
            samples.add(name, sample)
            context.say(
                f"  round {number + 1}/{context.rounds}  {name:<26} {sample['spawn_ms']:.0f} ms ({sample['order_ms']:.0f} since the order)  "
                f"{sample['errors']:.0f} errors"
            )
    outcome = Outcome(
        samples,
        method=f"{_WORKERS} workers of one thread, each with one request after another that waits 0.1 s; then one more worker "
        f"(quintet and gunicorn: SIGTTIN; uWSGI: cheaper-algo manual and its fifo), {_SPAWNS} times, until a request has been answered "
        "by the new process: since its birth, and since the order beside it. Granian cannot add workers while it runs.",
    )
    if not context.rivals_only:
        outcome.goals = [
            Goal(
                "ms from the fork of a worker to its first answer ≤ 50",
                samples.median("quintet", "spawn_ms"),
                50,
            )
        ]
    return outcome


def _measure(context: Context, stack: Stack, order: Callable[[Stack], None]) -> rounds.Sample:
    took: list[tuple[float, float]] = []
    errors = 0
    for added in range(_QUICK_SPAWNS if context.quick else _SPAWNS):
        with _Busy(stack, _WORKERS + added) as busy:
            time.sleep(_PAUSE_SECONDS)
            took.append(_one_more(stack, order))
        errors += busy.errors
    spawned, ordered = zip(*took, strict=True)
    return {
        "spawn_ms": statistics.median(spawned),
        "spawn_max_ms": max(spawned),
        "order_ms": statistics.median(ordered),
        "errors": errors,
        **rounds.memory(stack),
    }


class _Busy:
    """Every worker has a request that waits for something, one after another: the next one that comes needs a worker more."""

    def __init__(self, stack: Stack, workers: int) -> None:
        self.errors = 0
        self._stack = stack
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(workers)]

    def __enter__(self) -> _Busy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status, _ = self._stack.get(_WAITS, timeout=_SECONDS_MAX)
            except OSError:
                status = 0
            self.errors += status != 200


def _one_more(stack: Stack, order: Callable[[Stack], None]) -> tuple[float, float]:
    """Milliseconds until a new process has answered: since its birth (a tick of 10 ms too much at most), since the order."""
    before = set(stack.pids())
    begin = time.monotonic()
    order(stack)
    while time.monotonic() - begin < _SECONDS_MAX:
        try:
            status, body = stack.get(_PID, timeout=_SECONDS_MAX)
        except OSError:
            continue
        if status == 200 and int(body) not in before:
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - processes.born(int(body))
            return age * 1000, (time.monotonic() - begin) * 1000
    raise BenchError(f"{stack.name} did not add a worker", f"within {_SECONDS_MAX:.0f} s", stack.log_tails())


def _ttin(stack: Stack) -> None:
    os.kill(stack.trees[0].pid, signal.SIGTTIN)


def _fifo(stack: Stack) -> None:
    with (stack.trees[0].log.parent / "master.fifo").open("wb", buffering=0) as fifo:
        fifo.write(b"+")


def _gunicorn_preload(site: Site, work: Path) -> Stack:
    return rivals.nginx_gunicorn(site, work, "--preload")


def _uwsgi_cheaper(site: Site, work: Path) -> Stack:
    """The app is loaded before the fork, and more workers may come than run at first."""
    socket, most = work / "uwsgi.sock", _WORKERS + _SPAWNS
    words = [*("--master-fifo", work / "master.fifo", "--cheaper-algo", "manual")]
    words += ["--cheaper", site.workers, "--cheaper-initial", site.workers]
    app = rivals.start_uwsgi(site, work, socket, most, words)
    return rivals.behind_nginx("nginx+uwsgi", site, work, app, nginx.uwsgi(f"unix:{socket}"))
