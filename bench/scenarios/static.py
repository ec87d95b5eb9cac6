"""Static files of three sizes."""

from __future__ import annotations

from bench import limits, load, rivals, rounds
from bench.context import Context, Goal, Outcome, hello_site
from bench.places import STATIC
from bench.rounds import Sample, Samples
from bench.setup import STATIC_SIZES
from bench.stacks import Stack

TITLE = "Static files: 1 kB, 100 kB, 10 MB"
TOOLS = ("wrk", "nginx")
_GOALS = {"1kB": 0.7, "100kB": 1.0, "10MB": 1.0}


def run(context: Context) -> Outcome:
    """One size after the other, the stacks in turn within each."""
    site, samples = hello_site(), Samples()
    small = (STATIC / "1kB.png").read_bytes()
    with context.started(site, {"nginx": rivals.nginx_alone}, "/static/1kB.png", small) as stacks:
        for size in STATIC_SIZES:
            path = f"/static/{size}.png"
            for stack in stacks:
                stack.check(path, (STATIC / f"{size}.png").read_bytes())
            rounds.warm(stacks, path)
            context.say(size)

            def measure(stack: Stack, _number: int, path: str = path, size: str = size) -> Sample:
                return _measure(context, stack, path, size)

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
        more = {
            "memcpy_us": {size: rounds.tidy(limits.memcpy(length)) for size, length in STATIC_SIZES.items()},
            "loopback_echo_us": {
                size: rounds.tidy(limits.loopback_echo(length + 250, context.seconds(2)))
                for size, length in STATIC_SIZES.items()
            },
        }
    rounds.promote(samples, "1kB")
    limit = {
        "name": "loopback echo of the same bytes (1 kB)",
        "cpu_us_per_request": more["loopback_echo_us"]["1kB"],
    }
    outcome = Outcome(
        samples,
        limit,
        more=more,
        method="wrk with 64 keep-alive connections; no Accept-Encoding; the files are in the page cache.",
    )
    if not context.rivals_only:
        ratios = samples.ratios()
        outcome.goals = [
            Goal(f"CPU at {size} / nginx ≤ {goal}", ratios[f"cpu_us_per_request_{size}"]["nginx"], goal)
            for size, goal in _GOALS.items()
        ]
    return outcome


def _measure(context: Context, stack: Stack, path: str, size: str) -> Sample:
    found, sample = rounds.with_cpu(stack, lambda: load.wrk(stack.url(path), context.seconds(3)))
    return {
        f"cpu_us_per_request_{size}": sample["cpu_us_per_request"],
        f"requests_per_second_{size}": found.per_second,
        f"p50_ms_{size}": found.p50_ms,
        f"p99_ms_{size}": found.p99_ms,
        f"errors_{size}": found.errors,
        **rounds.memory(stack),
    }
