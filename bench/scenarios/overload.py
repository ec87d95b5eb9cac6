"""More requests than the slots can serve: what is still served, and how late."""

from __future__ import annotations

import dataclasses

from bench import load, rivals, rounds
from bench.context import Context, Goal, Outcome, hello_site
from bench.rounds import Sample, Samples
from bench.stacks import Stack

TITLE = "Overload: 120 and 200 % of what 8 slots can serve (100 ms each)"
TOOLS = ("nginx",)
_STARTS = {
    "nginx+gunicorn": rivals.nginx_gunicorn_threads,
    "granian": rivals.granian,
}
_PATH, _BODY = "/short", b"Hello, soon!"
# 8 slots of 100 ms each.
_CAPACITY = 80.0
_LOADS = {"quick": (120,), "full": (80, 120, 200)}
_SECONDS = 8.0
# At 200 % for these seconds 640 requests are too many at the end; each waits on a connection of its own.
_CONNECTIONS = 700
# Three times the slots: some wait, nobody for long.
_CIRCLE = 24


def run(context: Context) -> Outcome:
    """Open loop: visitors come whether or not others were answered. They wait as long as they are let."""
    site, samples = hello_site(workers=2, threads=4), Samples()
    # quintet's default, which bench/quintet.py turns off for the scenarios that measure throughput.
    site = dataclasses.replace(site, env={**site.env, "QUINTET_QUEUE_DISCIPLINE": "adaptive"})
    with context.started(site, _STARTS, _PATH, _BODY) as stacks:
        for share in _LOADS["quick" if context.quick else "full"]:
            context.say(
                f"open loop, {_CAPACITY * share / 100:.0f} requests/s: {share} % of the slots' capacity"
            )

            def measure(stack: Stack, number: int, share: int = share) -> Sample:
                return _measure(context, stack, number, share)

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    outcome = Outcome(
        samples,
        method="2 workers with 4 threads each; Poisson arrivals for eight seconds, each on a connection of its own, the same "
        "sequence for every stack. Goodput: answers with status 200 a second, from the first arrival to the last answer, as a "
        "share of what the same stack answers to 24 clients in a closed loop; latencies are those of these answers. Refused: "
        "503, at once or after a wait.",
    )
    if not context.rivals_only:
        shares = [share for share in (120, 200) if share in _LOADS["quick" if context.quick else "full"]]
        outcome.goals = [
            Goal(
                f"unused capacity at {share} % ≤ 5 %",
                1 - samples.median("quintet", f"goodput_at_{share}"),
                0.05,
            )
            for share in shares
        ]
        outcome.goals += [
            Goal(
                f"p99 of the served at {share} % ≤ 1.7 s",
                samples.median("quintet", f"p99_ms_at_{share}"),
                1700,
            )
            for share in shares
        ]
    return outcome


def _measure(context: Context, stack: Stack, number: int, share: int) -> Sample:
    # What it can serve when there is always somebody, and not too many: a little less than the sleeps alone would let it.
    circle = load.closed(stack.address, _PATH, context.seconds(3.0, quick=2), connections=_CIRCLE)
    # Refusals are no capacity: right after an overload some of these clients, who ask again at once, may be refused.
    full = circle.more["fast"]["count"] / circle.seconds
    found = load.scheduled(
        stack.address,
        _PATH,
        _CAPACITY * share / 100,
        context.seconds(_SECONDS, quick=5),
        connections=_CONNECTIONS,
        # The overload is part of what is measured from its first second on.
        warmup=0.0,
        seed=number + 1,
    )
    served = found.more["fast"]["count"]
    refused = found.more["errors_by_kind"]["status"]
    return {
        f"capacity_at_{share}": full,
        f"goodput_at_{share}": served / found.seconds / full,
        f"p50_ms_at_{share}": found.p50_ms,
        f"p99_ms_at_{share}": found.p99_ms,
        f"refused_share_at_{share}": refused / max(1, served + refused),
        f"errors_at_{share}": found.errors - refused,
        **rounds.memory(stack),
    }
