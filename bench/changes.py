"""What `reload` and `upgrade` share: something is exchanged again and again while every connection is busy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from bench import load, rivals, rounds
from bench.context import HELLO, Context, Goal, Outcome, hello_site
from bench.rivals import Start
from bench.rounds import Samples
from bench.stacks import Stack

# Begins a change, and gives way while it is not over.
Change = Callable[[Stack], Iterator[None]]
# The goal is 0 of a million; the rivals, slower, get less time than a million would take.
_REQUESTS, _RIVALS_REQUESTS, _QUICK_REQUESTS = 1_000_000, 250_000, 20_000
# Between the end of one change and the next: most of the run is spent inside one.
_PAUSE_SECONDS = 0.5
# A change that takes longer fails the run: what it does is not what is measured any more.
_CHANGE_SECONDS_MAX = 30.0
# A bound for the whole run of one stack.
_SECONDS_MAX = 400.0


def run(
    context: Context, starts: dict[str, Start], changes: dict[str, Change], figure: str, method: str
) -> Outcome:
    """One stack after the other; `figure` is the name under which the number of changes is told."""
    site, samples, more = hello_site(workers=2, threads=4), Samples(), {}
    for name, start in starts.items():
        if context.rivals_only and name == "quintet":
            continue
        stack = start(site, rivals.workdir(context.scenario, name))
        stack.name = name
        try:
            stack.check(*HELLO)
            load.wrk(stack.url(HELLO[0]), 1)
            requests = (
                _QUICK_REQUESTS if context.quick else _REQUESTS if name == "quintet" else _RIVALS_REQUESTS
            )
            sample, told = _measure(stack, requests, changes[name], figure)
        finally:
            stack.stop()
        samples.add(name, sample)
        more[name] = told
        context.say(f"  {name:<16} {sample['requests']:.0f} requests, {sample[figure]:.0f} {figure}  {told}")
    outcome = Outcome(samples, more={"failures": more}, method=method)
    if not context.rivals_only:
        ours = samples.by_stack["quintet"]
        # A run in which nothing was exchanged, or that ended early, would prove nothing.
        wanted = _QUICK_REQUESTS if context.quick else _REQUESTS
        outcome.goals = [
            Goal(f"failed requests of quintet in {figure}", sum(ours["errors"]), 0),
            Goal(f"requests of quintet that were not sent, of {wanted:,}", wanted - sum(ours["requests"]), 0),
            Goal(f"{figure} that were missing to the first one", max(0, 1 - sum(ours[figure])), 0),
        ]
    return outcome


def _measure(
    stack: Stack, requests: int, change: Change, figure: str
) -> tuple[rounds.Sample, dict[str, object]]:
    done, took, wrong = threading.Event(), list[float](), list[BaseException]()
    changer = threading.Thread(target=_change_until, args=(stack, change, done, took, wrong))
    changer.start()
    try:
        found, sample = rounds.with_cpu(
            stack, lambda: load.closed(stack.address, HELLO[0], _SECONDS_MAX, requests=requests)
        )
    finally:
        done.set()
        changer.join()
    if wrong:
        raise wrong[0]
    sample |= {
        "requests": found.answered,
        "requests_per_second": found.per_second,
        figure: len(took),
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "max_ms": found.more["fast"]["max_ms"],
        "errors": found.errors,
        f"{figure.removesuffix('s')}_seconds": max(took, default=0.0),
    }
    return sample, {"errors_by_kind": found.more["errors_by_kind"], "examples": found.more["examples"]}


def _change_until(
    stack: Stack, change: Change, done: threading.Event, took: list[float], wrong: list[BaseException]
) -> None:
    """The last one is carried through, too: the servers are to be found as they were."""
    try:
        while not done.wait(_PAUSE_SECONDS):
            begin = time.monotonic()
            for _ in change(stack):
                if time.monotonic() - begin > _CHANGE_SECONDS_MAX:
                    raise TimeoutError(f"{stack.name}: a change took more than {_CHANGE_SECONDS_MAX:.0f} s")
                time.sleep(0.02)
            if not done.is_set():
                took.append(time.monotonic() - begin)
    except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
        wrong.append(error)
