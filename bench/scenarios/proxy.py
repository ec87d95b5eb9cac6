"""Requests that other servers answer: what it costs to stand in between."""

from __future__ import annotations

import http.client

from bench import load, proxies, rivals, rounds
from bench.context import Context, Goal, Outcome
from bench.errors import BenchError
from bench.places import STATIC
from bench.rounds import Sample, Samples
from bench.stacks import Stack

TITLE = "Passed on to one upstream server, and to three"
TOOLS = ("wrk", "nginx", "haproxy")
# name: (path, bytes that are posted)
_CASES: dict[str, tuple[str, int]] = {
    "one_1kB": ("/one/1kB.png", 0),
    "one_100kB": ("/one/100kB.png", 0),
    # A form or a JSON document of some size; the answer has 1 kB.
    "one_post": ("/one/post", 10_000),
    "three_1kB": ("/three/1kB.png", 0),
}
_GOAL = 1.0
# Requests a second in the open loop: a third of what a machine of two cores can, with the clients and the upstream on it as well.
_RATE = 4_000.0


def run(context: Context) -> Outcome:
    """One case after the other, the stacks in turn within each; then latency at a fixed rate."""
    samples = Samples()
    upstream = proxies.Upstream(rivals.workdir(context.scenario, "upstream"))
    try:
        _all_cases(context, upstream, samples)
    finally:
        upstream.tree.stop()
    rounds.promote(samples, "one_1kB")
    outcome = Outcome(
        samples,
        method="wrk with 64 keep-alive connections, and connections that are kept to an nginx behind, whose CPU is not counted; "
        f"10 kB are posted, 1 kB comes back. p50 and p99 are of an open loop at {_RATE:.0f} requests a second.",
    )
    if not context.rivals_only:
        ratios = samples.ratios()
        outcome.goals = [
            Goal(f"CPU, {case} / nginx ≤ {_GOAL:.1f}", ratios[f"cpu_us_per_request_{case}"]["nginx"], _GOAL)
            for case in _CASES
        ]
    return outcome


def _all_cases(context: Context, upstream: proxies.Upstream, samples: Samples) -> None:
    starts = {"nginx": upstream.nginx, "haproxy": upstream.haproxy}
    small = (STATIC / "1kB.png").read_bytes()
    with context.started(proxies.site(), starts, "/one/1kB.png", small, ours=upstream.ours) as stacks:
        for case, (path, posted) in _CASES.items():
            for stack in stacks:
                if posted:
                    _check_post(stack, path, posted)
                else:
                    stack.check(path, (STATIC / path.rpartition("/")[2]).read_bytes())
                load.wrk(stack.url(path), 1, post_bytes=posted)
            context.say(case)

            def measure(
                stack: Stack, _number: int, case: str = case, path: str = path, posted: int = posted
            ) -> Sample:
                return _measure(context, stack, case, path, posted)

            rounds.in_turn(stacks, context.rounds, measure, samples, context.say)
        for group in ("one", "three"):
            path = f"/{group}/1kB.png"
            context.say(f"open loop, {_RATE:.0f} requests/s, {group}")

            def latency(stack: Stack, number: int, path: str = path, group: str = group) -> Sample:
                label, seconds = f"{group}_1kB", context.seconds(2)
                found = load.scheduled(stack.address, path, _RATE, seconds, seed=number + 1)
                return {
                    f"p50_ms_{label}": found.p50_ms,
                    f"p99_ms_{label}": found.p99_ms,
                    f"errors_open_{label}": found.errors,
                    f"lateness_p99_ms_{label}": found.more["lateness"]["p99_ms"],
                }

            rounds.in_turn(stacks, context.rounds, latency, samples, context.say)


def _measure(context: Context, stack: Stack, case: str, path: str, posted: int) -> Sample:
    found, sample = rounds.with_cpu(
        stack, lambda: load.wrk(stack.url(path), context.seconds(3), post_bytes=posted)
    )
    return {
        f"cpu_us_per_request_{case}": sample["cpu_us_per_request"],
        f"requests_per_second_{case}": found.per_second,
        f"closed_p50_ms_{case}": found.p50_ms,
        f"closed_p99_ms_{case}": found.p99_ms,
        f"errors_{case}": found.errors,
    }


def _check_post(stack: Stack, path: str, posted: int) -> None:
    """A wrong answer fails the run."""
    connection = http.client.HTTPConnection(stack.host, stack.port, timeout=10)
    try:
        connection.request("POST", path, body=b"x" * posted)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
    finally:
        connection.close()
    if (status, body) != (200, proxies.POSTED):
        raise BenchError(f"{stack.name} answers {path} wrongly", f"status {status}, body {body[:120]!r}")
