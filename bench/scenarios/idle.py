"""Thousands of idle keep-alive connections: what each costs in memory, and whether the others feel them."""

from __future__ import annotations

import functools
import statistics

from bench import hold, load, quintet, rivals, rounds
from bench.context import Context, Goal, Outcome, hello_site
from bench.rivals import Start
from bench.rounds import Sample, Samples
from bench.stacks import Site, Stack

TITLE = "10,000 and 15,000 idle keep-alive connections"
TOOLS = ("wrk", "nginx", "haproxy")
# The descriptor limit of a process is 20,000 here: 15,000 leave room for the load and the server's own.
_COUNTS = (10_000, 15_000)
_QUICK_COUNTS = (2_000,)
_PATH = "/static/1kB.png"
# Far below what any of them can serve: the question is whether the idle ones disturb.
_RATE = 1_000.0
# For the extrapolation, labelled so: beyond what the limit allows to try.
_EXTRAPOLATED = 100_000
_STARTS: dict[str, Start] = {"nginx": rivals.nginx_alone, "haproxy": rivals.haproxy}
# nginx and HAProxy reserve tables for all the connections they may ever have. What such a table costs is part of
# what a connection costs: the zero to count from is the same server, told to expect few (nginx's own default).
_FEW = 512
_SMALL: dict[str, Start] = {
    "nginx": functools.partial(rivals.nginx_alone, connections=_FEW),
    "haproxy": functools.partial(rivals.haproxy, connections=_FEW),
}


def run(context: Context) -> Outcome:
    """Every stack is started anew for each round: allocators keep what they once had."""
    site, samples = hello_site(), Samples()
    starts: dict[str, Start] = dict(_STARTS) if context.rivals_only else {"quintet": quintet.start, **_STARTS}
    counts = _QUICK_COUNTS if context.quick else _COUNTS
    for number in range(context.rounds):
        for name in starts if number % 2 == 0 else reversed(starts):
            sample = _measure(context, site, name, starts[name], counts, number)
            samples.add(name, sample)
            context.say(f"  round {number + 1}/{context.rounds}  {name:<16} {rounds.brief(sample)}")
    for figures in samples.by_stack.values():
        figures["memory_bytes_per_connection"] = list(figures[f"memory_bytes_per_connection_{counts[0]}"])
        figures["p99_ms"] = list(figures[f"p99_ms_{counts[-1]}"])
    outcome = Outcome(
        samples,
        method="Connections from 8 loopback addresses that asked once and stay; "
        "memory is the growth of PSS per connection, reserved tables included (the kernel's socket buffers, the "
        f"same for all, are not); p99 of {_RATE:.0f} requests/s on other connections, with and without them.",
    )
    outcome.more["extrapolated_mib_at_100000_connections"] = {
        name: rounds.tidy(
            samples.median(name, "pss_mib_empty")
            + samples.median(name, "memory_bytes_per_connection") * _EXTRAPOLATED / (1 << 20)
        )
        for name in samples.by_stack
    }
    if not context.rivals_only:
        ours = samples.by_stack["quintet"]
        disturbed = [a / b for a, b in zip(ours["p99_ms"], ours["p99_ms_empty"], strict=True)]
        outcome.goals = [
            Goal(
                "memory per connection / nginx ≤ 1.0",
                samples.ratios()["memory_bytes_per_connection"]["nginx"],
                1.0,
            ),
            Goal("p99 with idle connections / without ≤ 1.2", statistics.median(disturbed), 1.2),
        ]
    return outcome


def _measure(
    context: Context, site: Site, name: str, start: Start, counts: tuple[int, ...], number: int
) -> Sample:
    zero = _zero(context, site, name)
    stack = start(site, rivals.workdir(context.scenario, name))
    stack.name = name
    try:
        stack.check(_PATH)
        load.wrk(stack.url(_PATH), 1)
        sample: Sample = _latency(context, stack, "empty", number)
        reserved = stack.memory_mib()[1]
        before = reserved if zero is None else zero
        sample["pss_mib_empty"] = before
        for count in counts:
            with hold.held(stack, _PATH, count):
                # Read before the load: what the load needs is not the idle connections'.
                now = stack.memory_mib()[1]
                sample[f"memory_bytes_per_connection_{count}"] = (now - before) * (1 << 20) / count
                sample[f"grown_bytes_per_connection_{count}"] = (now - reserved) * (1 << 20) / count
                sample |= _latency(context, stack, str(count), number)
        return sample
    finally:
        stack.stop()


def _zero(context: Context, site: Site, name: str) -> float | None:
    """PSS of the server when it expects few connections; None where nothing is reserved ahead."""
    if name not in _SMALL:
        return None
    stack = _SMALL[name](site, rivals.workdir(context.scenario, name))
    try:
        stack.check(_PATH)
        load.wrk(stack.url(_PATH), 1)
        return stack.memory_mib()[1]
    finally:
        stack.stop()


def _latency(context: Context, stack: Stack, label: str, number: int) -> Sample:
    found, sample = rounds.with_cpu(
        stack,
        lambda: load.scheduled(stack.address, _PATH, _RATE, context.seconds(1.5), seed=number + 1),
    )
    return {
        f"cpu_us_per_request_{label}": sample["cpu_us_per_request"],
        f"p50_ms_{label}": found.p50_ms,
        f"p99_ms_{label}": found.p99_ms,
        f"errors_{label}": found.errors,
    }
