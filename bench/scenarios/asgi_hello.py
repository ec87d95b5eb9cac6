"""The short string again, from an ASGI app: a plain one, and Django's."""

from __future__ import annotations

from bench import asgi_rivals, rounds
from bench.context import HELLO, Context, Outcome
from bench.places import SITES
from bench.rounds import Samples
from bench.stacks import Site, Stack

TITLE = "A short string from an ASGI app: plain, and Django"
TOOLS = ("wrk",)
_WORKERS = 2
_SITES = {
    "plain": Site(SITES / "plain_asgi", "", "plain:application", _WORKERS, asgi=True),
    "django": Site(SITES / "hello", "hello.settings", "hello.asgi:application", _WORKERS, asgi=True),
}


def run(context: Context) -> Outcome:
    """Closed loop: CPU of all server processes, throughput, latency under full load."""
    samples = Samples()
    path, body = HELLO
    for label, site in _SITES.items():
        with context.started(site, asgi_rivals.STARTS, path, body) as stacks:
            rounds.warm(stacks, path)

            def measure(stack: Stack, _number: int, label: str = label) -> rounds.Sample:
                sample = rounds.closed(stack, path, context.seconds(2))
                sample["p50_ms"], sample["p99_ms"] = sample.pop("closed_p50_ms"), sample.pop("closed_p99_ms")
                return {f"{name}_{label}": value for name, value in sample.items()}

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    rounds.promote(samples, "plain")
    return Outcome(
        samples,
        method="2 workers (Daphne, which has none: one process), uvloop; wrk with 64 keep-alive connections, "
        "p50 and p99 under full load. Daphne runs its own loop of Twisted.",
    )
