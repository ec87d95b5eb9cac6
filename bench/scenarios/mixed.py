"""Slow requests among fast ones: who makes the fast ones wait."""

from __future__ import annotations

from bench import load, rivals, rounds
from bench.context import HELLO, Context, Goal, Outcome, hello_site
from bench.rounds import Sample, Samples
from bench.stacks import Stack

TITLE = "5 % slow requests (500 ms) among fast ones, 8 slots"
TOOLS = ("wrk", "nginx")
_STARTS = {
    "nginx+gunicorn": rivals.nginx_gunicorn_threads,
    "granian": rivals.granian,
}
_SLOW_SHARE = 0.05
# 8 slots / (5 % of 500 ms + 95 % of about 1 ms) is 300 requests a second; the rates are 30, 50 and 80 % of that.
_RATES = {30: 90.0, 50: 150.0, 80: 240.0}
# p99 needs many fast requests; the rate with a goal gets more of them: its stalls are rare with some rivals, and in 700
# requests the slowest hundredth is seven, which one such stall more or less decides.
_SECONDS = {30: 24.0, 50: 4.0, 80: 4.0}
_BUSY_SHARES = {"quick": (30,), "full": (30, 50, 80)}


def run(context: Context) -> Outcome:
    """Open loop only: in a closed one the slow requests would hold the clients back and hide the stall."""
    path, body = HELLO
    site, samples = hello_site(workers=2, threads=4), Samples()
    with context.started(site, _STARTS, path, body) as stacks:
        rounds.warm(stacks, path)
        for share in _BUSY_SHARES["quick" if context.quick else "full"]:
            rate = _RATES[share]
            context.say(f"open loop, {rate:.0f} requests/s: {share} % of the slots' capacity")

            def measure(stack: Stack, number: int, rate: float = rate, share: int = share) -> Sample:
                return _measure(context, stack, number, rate, share)

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
    rounds.promote(samples, "at_30")
    outcome = Outcome(
        samples,
        method="2 workers with 4 threads each; Poisson arrivals over 64 connections, "
        "the same sequence for every stack; latencies of the fast requests, from the moment each was due.",
        more={"rates_per_second": {str(share): rate for share, rate in _RATES.items()}},
    )
    if not context.rivals_only:
        ratios = samples.ratios()["p99_ms"]
        outcome.goals = [
            Goal(f"p99 of the fast requests at 30 % / {rival} ≤ 0.2", ratios[rival], 0.2)
            for rival in ("granian", "nginx+gunicorn")
        ]
    return outcome


def _measure(context: Context, stack: Stack, number: int, rate: float, share: int) -> Sample:
    found, sample = rounds.with_cpu(
        stack,
        lambda: load.scheduled(
            stack.address,
            HELLO[0],
            rate,
            context.seconds(_SECONDS[share], quick=4),
            seed=number + 1,
            slow=("/slow", _SLOW_SHARE),
        ),
    )
    return {
        f"cpu_us_per_request_at_{share}": sample["cpu_us_per_request"],
        f"p50_ms_at_{share}": found.p50_ms,
        f"p99_ms_at_{share}": found.p99_ms,
        f"slow_p99_ms_at_{share}": found.more["slow"]["p99_ms"],
        f"errors_at_{share}": found.errors,
        **rounds.memory(stack),
    }
