"""Static files over TLS, and the handshake itself."""

from __future__ import annotations

import functools

from bench import load, quintet, rivals, rounds, setup
from bench.context import Context, Goal, Outcome, hello_site
from bench.places import STATIC
from bench.rounds import Sample, Samples
from bench.stacks import Stack

TITLE = "Static files over TLS 1.3, and full handshakes"
TOOLS = ("wrk", "nginx", "openssl")
# name: (file, a new connection for each request)
_CASES = {"1kB": ("1kB", False), "100kB": ("100kB", False), "handshake": ("1kB", True)}
# Each case against nginx's own figure.
_GOAL = 1.0


def run(context: Context) -> Outcome:
    """As `static`, with a P-256 certificate; `handshake` opens a connection for every request."""
    pair = setup.certificate()
    ours = functools.partial(quintet.start, certificate=pair)
    rival = functools.partial(rivals.nginx_alone, certificate=pair)
    samples = Samples()
    small = (STATIC / "1kB.png").read_bytes()
    with context.started(
        hello_site(), {"nginx": rival}, "/static/1kB.png", small, ours=ours, tls=True
    ) as stacks:
        for case, (size, fresh) in _CASES.items():
            path = f"/static/{size}.png"
            for stack in stacks:
                stack.check(path, (STATIC / f"{size}.png").read_bytes(), tls=True)
            rounds.warm(stacks, path, tls=True)
            context.say(case)

            def measure(
                stack: Stack, _number: int, case: str = case, path: str = path, fresh: bool = fresh
            ) -> Sample:
                return _measure(context, stack, case, path, fresh)

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    rounds.promote(samples, "1kB")
    outcome = Outcome(
        samples,
        method="wrk with 64 connections, TLS 1.3, a P-256 certificate; kept alive, and for the handshakes "
        "one request each.",
    )
    if not context.rivals_only:
        ratios = samples.ratios()
        outcome.goals = [
            Goal(f"CPU, {case} / nginx ≤ {_GOAL:.1f}", ratios[f"cpu_us_per_request_{case}"]["nginx"], _GOAL)
            for case in _CASES
        ]
    return outcome


def _measure(context: Context, stack: Stack, case: str, path: str, fresh: bool) -> Sample:
    headers = ("Connection: close",) if fresh else ()
    url = stack.url(path, tls=True)
    found, sample = rounds.with_cpu(
        stack, lambda: load.wrk(url, context.seconds(3), load.CONNECTIONS, *headers)
    )
    return {
        f"cpu_us_per_request_{case}": sample["cpu_us_per_request"],
        f"requests_per_second_{case}": found.per_second,
        f"p50_ms_{case}": found.p50_ms,
        f"p99_ms_{case}": found.p99_ms,
        f"errors_{case}": found.errors,
        **rounds.memory(stack),
    }
