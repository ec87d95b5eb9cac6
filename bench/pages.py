"""A Django page under load, measured the same way for every stack: what `hello` and `shop` share."""

from __future__ import annotations

import statistics
from typing import Any

from bench import limits, rounds
from bench.context import Context
from bench.processes import Tree
from bench.rounds import Samples
from bench.stacks import Site, Stack

# Of the slowest stack's capacity: light, busy, too much.
SHARES = (50, 80, 120)
# A quick run looks at the busy one only.
_QUICK_SHARES = (80,)


def bare_call(context: Context, site: Site, path: str, requests: int) -> float:
    """The limit, taken before and after the rounds: the machine's speed drifts."""
    return limits.bare_call(site, path, requests // 4 if context.quick else requests)


def closed_rounds(
    context: Context,
    stacks: list[Stack],
    site: Site,
    path: str,
    samples: Samples,
    bare_requests: int,
    beside: Tree | None = None,
) -> list[float]:
    """CPU, throughput and memory; returns the bare call of each round, taken in between.

    `beside` is a database whose CPU is told apart.
    """
    bare: list[float] = []
    rounds.warm(stacks, path)

    def measure(stack: Stack, number: int) -> rounds.Sample:
        if len(bare) <= number:
            bare.append(bare_call(context, site, path, bare_requests))
        before = beside.cpu_seconds() if beside else 0.0
        sample = rounds.closed(stack, path, context.seconds(2))
        if beside:
            requests = sample["requests_per_second"] * sample["seconds"]
            sample["database_cpu_us_per_request"] = (beside.cpu_seconds() - before) / max(requests, 1) * 1e6
        return sample

    rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    return bare


def open_rounds(
    context: Context, stacks: list[Stack], path: str, samples: Samples, shares: tuple[int, ...] = SHARES
) -> dict[str, Any]:
    """Latency at fixed rates, the same for every stack."""
    slowest = min(stacks, key=lambda stack: samples.median(stack.name, "requests_per_second"))
    capacity = samples.median(slowest.name, "requests_per_second")
    rates = {share: capacity * share / 100 for share in (_QUICK_SHARES if context.quick else shares)}
    for share, rate in rates.items():
        context.say(f"open loop, {rate:.0f} requests/s: {share} % of what {slowest.name} can")

        def measure(stack: Stack, number: int, rate: float = rate, share: int = share) -> rounds.Sample:
            return rounds.scheduled(stack, path, rate, context.seconds(1.5), f"at_{share}", seed=number + 1)

        rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    busy = "at_80"
    for figures in samples.by_stack.values():
        # The latencies that are quoted: a rate every stack can serve.
        figures["p50_ms"], figures["p99_ms"] = (
            list(figures[f"p50_ms_{busy}"]),
            list(figures[f"p99_ms_{busy}"]),
        )
    return {
        "capacity_of": slowest.name,
        "rates_per_second": {str(share): round(rate, 1) for share, rate in rates.items()},
    }


def limit(bare: list[float], samples: Samples) -> dict[str, Any]:
    """The bare call, and how far above it the whole of quintet is (the median of the rounds' ratios)."""
    row: dict[str, Any] = {
        "name": "bare Django call in process",
        "cpu_us_per_request": rounds.tidy(statistics.median(bare)),
        "spread": [rounds.tidy(min(bare)), rounds.tidy(max(bare))],
    }
    ours = samples.by_stack.get("quintet")
    if ours:
        row["ratio"] = rounds.tidy(
            statistics.median(a / b for a, b in zip(ours["cpu_us_per_request"], bare, strict=True))
        )
    return row
