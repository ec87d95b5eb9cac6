"""Clients that take their time on purpose: whether the others feel them."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import threading
from collections.abc import Iterator

from bench import quintet, rivals, rounds
from bench.context import HELLO, Context, Goal, Outcome, hello_site
from bench.rivals import Start
from bench.rounds import Sample, Samples
from bench.setup import find
from bench.stacks import Stack

TITLE = "Hundreds of clients that take their time on purpose"
TOOLS = ("wrk", "nginx", "slowhttptest")
# slowhttptest's modes, with what it asks for.
_FILE = "/static/100kB.png"
MODES: dict[str, tuple[str, ...]] = {
    "headers": ("-H", "-i", "1", "-t", "GET", "-u", HELLO[0]),
    "body": ("-B", "-i", "1", "-s", "100000", "-t", "POST", "-u", HELLO[0]),
    "ranges": ("-R", "-a", "1", "-b", "3000", "-u", _FILE),
    "reading": ("-X", "-n", "1", "-w", "10", "-y", "20", "-z", "32", "-u", _FILE),
}
_SLOW_CLIENTS = 500
# They are all there after half a second.
_PER_SECOND = 1_000
# A third of what the slower stack can serve with two workers: the question is whether the slow ones disturb.
_RATE = 500.0
_STARTS: dict[str, Start] = {"nginx+gunicorn": rivals.nginx_gunicorn}


def run(context: Context) -> Outcome:
    """The same load alone, then beside each kind of slow client."""
    site, samples = hello_site(workers=2, threads=4), Samples()
    path, body = HELLO
    with context.started(site, _STARTS, path, body, ours=quintet.start) as stacks:
        rounds.warm(stacks, path)

        def measure(stack: Stack, number: int) -> Sample:
            sample = _others(context, stack, "alone", number)
            for mode in MODES:
                with _slow_clients(stack, mode, context.seconds(6, 3)):
                    sample |= _others(context, stack, mode, number)
            return sample

        rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    rounds.promote(samples, "alone")
    disturbed = {name: _disturbed(samples, name) for name in samples.by_stack}
    outcome = Outcome(
        samples,
        method=f"{_SLOW_CLIENTS} clients of slowhttptest beside {_RATE:.0f} requests/s for a string from a Django view; `alone`: "
        "without them.",
        more={"p99_beside_alone": disturbed},
    )
    if not context.rivals_only:
        worst = max(disturbed["quintet"], key=disturbed["quintet"].__getitem__)
        outcome.goals = [
            Goal(f"p99 beside slow clients ({worst}) / alone ≤ 1.2", disturbed["quintet"][worst], 1.2)
        ]
    return outcome


def _disturbed(samples: Samples, stack: str) -> dict[str, float]:
    """The median of each mode's p99 / that of the same round without slow clients."""
    figures = samples.by_stack[stack]
    return {
        mode: rounds.tidy(
            statistics.median(
                a / b for a, b in zip(figures[f"p99_ms_{mode}"], figures["p99_ms_alone"], strict=True)
            )
        )
        for mode in MODES
    }


def _others(context: Context, stack: Stack, label: str, number: int) -> Sample:
    return rounds.scheduled(stack, HELLO[0], _RATE, context.seconds(4), label, seed=number + 1)


@contextlib.contextmanager
def _slow_clients(stack: Stack, mode: str, seconds: float) -> Iterator[None]:
    """They come, and stay while the block runs; those that were answered or cut off are followed by others."""
    *flags, path = MODES[mode]
    command = [
        *(find("slowhttptest") or "slowhttptest", "-v", "1", "-c", str(_SLOW_CLIENTS)),
        *("-r", str(_PER_SECOND), "-l", f"{seconds:.0f}", *flags, stack.url(path)),
    ]
    over = threading.Event()

    def keep_coming() -> None:
        while not over.is_set():
            running = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while running.poll() is None:
                if over.wait(0.05):
                    running.terminate()

    thread = threading.Thread(target=keep_coming)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
