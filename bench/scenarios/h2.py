"""HTTP/2 over TLS: a hundred streams on each connection."""

from __future__ import annotations

import functools

from bench import load, quintet, rivals, rounds, setup
from bench.context import Context, Goal, Outcome, hello_site
from bench.places import STATIC
from bench.rounds import Sample, Samples
from bench.stacks import Stack

TITLE = "Static files over HTTP/2, 100 streams on a connection"
TOOLS = ("wrk", "nginx", "h2load", "openssl")
_SIZES = ("1kB", "100kB")
_CONNECTIONS = 8
_STREAMS = 100
_GOAL = 1.0


def run(context: Context) -> Outcome:
    """A fixed number of requests a stack, found by a short trial: CPU and requests cover the same time."""
    pair = setup.certificate()
    ours = functools.partial(quintet.start, certificate=pair)
    rival = functools.partial(rivals.nginx_alone, certificate=pair)
    samples, counts = Samples(), dict[tuple[str, str], int]()
    small = (STATIC / "1kB.png").read_bytes()
    with context.started(
        hello_site(), {"nginx": rival}, "/static/1kB.png", small, ours=ours, tls=True
    ) as stacks:
        for size in _SIZES:
            for stack in stacks:
                trial = load.h2load(
                    stack.url(f"/static/{size}.png", tls=True),
                    5_000 if size == "1kB" else 1_000,
                    _CONNECTIONS,
                    _STREAMS,
                )
                counts[stack.name, size] = max(1_000, round(trial.per_second * context.seconds(3)))
            context.say(size)

            def measure(stack: Stack, _number: int, size: str = size) -> Sample:
                return _measure(stack, size, counts[stack.name, size])

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    rounds.promote(samples, "1kB")
    outcome = Outcome(
        samples,
        method=f"h2load with {_CONNECTIONS} connections of {_STREAMS} streams, TLS 1.3. "
        "h2load prints mean and greatest latency, no percentiles: mean_ms and max_ms.",
    )
    if not context.rivals_only:
        ratios = samples.ratios()
        outcome.goals = [
            Goal(f"CPU at {size} / nginx ≤ {_GOAL:.1f}", ratios[f"cpu_us_per_request_{size}"]["nginx"], _GOAL)
            for size in _SIZES
        ]
    return outcome


def _measure(stack: Stack, size: str, count: int) -> Sample:
    url = stack.url(f"/static/{size}.png", tls=True)
    found, sample = rounds.with_cpu(stack, lambda: load.h2load(url, count, _CONNECTIONS, _STREAMS))
    return {
        f"cpu_us_per_request_{size}": sample["cpu_us_per_request"],
        f"requests_per_second_{size}": found.per_second,
        f"mean_ms_{size}": found.p50_ms,
        f"max_ms_{size}": found.p99_ms,
        f"errors_{size}": found.errors,
        **rounds.memory(stack),
    }
